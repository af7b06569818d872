-- Snapshots: a folder with the VM's state, its memory, copies of the drives that it writes, and a
-- manifest. Everything that Firecracker wrote down in the state has a name relative to the VM's
-- folder, so a restored VM uses the files of its own folder.

local core = require "fcproc.core"
local disks = require "fcproc.resources.disks"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local loop = require "fcproc.loop"
local manifests = require "fcproc.vm.manifest"
local options = require "fcproc.options"
local origins = require "fcproc.resources.origin"
local partials = require "fcproc.resources.partial"
local room = require "fcproc.resources.room"
local sizes = require "fcproc.vm.sizes"
local statefiles = require "fcproc.vm.statefiles"
local users = require "fcproc.resources.users"

local M = {}

local CLEANUP_LIMIT = 60 -- seconds
local ENOSPC = 28

---@class fcproc.SnapshotOptions
---@field type ("Full"|"Diff")?  default "Full"; "Diff" needs track_dirty_pages
---@field keep_paused boolean?   do not let the VM go on afterwards
---@field copy ("reflink"|"sparse")?  how the drives are copied; default "reflink"
---@field hash boolean?         false: without hashes for fcproc.vm.verify, which take 1 to 3 s for a GiB that
---                             is no zeros; the VM goes on meanwhile
---@field cleanup_timeout number?  seconds that the clean-up after a failure may take, of which most is
---                                waiting until Firecracker has written what was asked of it; default 60

---@field for_uffd boolean?      though only a handler of page faults can load it: with huge pages
---@field trust boolean?        by root, though somebody else may move the folder that it is written into

local known = { type = "string", keep_paused = "boolean", copy = "string", hash = "boolean",
  cleanup_timeout = "number", trust = "boolean", for_uffd = "boolean" }

-- Firecracker's refusal of a diff, with what to do.
local function explain_diff(opts, err)
  if opts.type == "Diff" and err.code == "api" and err.message:find("dirty page tracking", 1, true) then
    err.message = ("%s; launch the VM with track_dirty_pages = true in its spec, or take a full "
      .. "snapshot"):format((err.message:gsub("%.$", "")))
  end
  return err
end

local function write_state(vm, machine, opts, ctx)
  local prefix = statefiles.prefix(vm.journal.record)
  local ok, err = machine:create_snapshot({ snapshot_type = opts.type or "Full",
    snapshot_path = prefix .. "vmstate", mem_file_path = prefix .. "memory" }, ctx)
  if not ok then return nil, explain_diff(opts, machine:failure("snapshot", err)) end
  return true
end

local function copy_drives(vm, opts, ctx)
  local record = vm.journal.record
  for i, drive in ipairs(record.drives) do
    if not drive.read_only then
      local ok, err = disks.save(record, drive, record.snapshot .. "/" .. drive.name,
        opts.copy or "reflink", ctx)
      if not ok then
        err.message = ("drives[%d]: %s"):format(i, err.message)
        return nil, err
      end
    end
  end
  return true
end

-- Lets the VM go on that was paused for a snapshot. When it does not, the record says so.
local function go_on(vm, ctx)
  local record = vm.journal.record
  if not record.resume then return true end
  local err
  if vm.machine and vm.machine.process:alive() then
    local ok
    ok, err = vm.machine:resume(ctx)
    if ok or not vm.machine then err = nil end -- or it was stopped meanwhile
  end
  if err then
    err = vm.machine:failure("resume", err)
    record.paused = vm.machine.process:alive() or nil
    return nil, err
  end
  record.resume, record.paused = nil, nil -- whatever came in between
  return true
end

-- It may be being stopped by now.
local function state_after(record)
  return record.state == "snapshotting" and "running" or record.state
end

-- Removes what a snapshot that was not finished left, and lets the VM go on if it ran before: that also
-- when something can't be removed, which stays in the record for reclaim.
local function undo(vm, ctx)
  local record = vm.journal.record
  local removed, err = partials.remove(record.snapshot, vm.id)
  if not removed and err.code == "conflict" then -- nothing shows that it is ours: it stays
    vm.manager:_log(core.now(), err.message, { id = vm.id }, "warn")
    removed = 0
  end
  statefiles.discard(record)
  if removed then record.snapshot = nil end
  local ok, why = go_on(vm, ctx)
  record.resume = nil
  if vm.machine then vm.journal:try_save(state_after(record)) end
  if not ok then return nil, why end
  return removed, err
end

-- Says in the error of a snapshot what could not be undone of it.
local function tell(vm, err, why)
  err.paused = vm.journal.record.paused
  local what = err.paused and "the VM is still paused, since it could not be let go on: resume it"
    or "not all could be undone"
  err.message = ("%s; and %s (%s)"):format(err.message, what, why.message)
end

local function refuse(code, path, format, ...)
  return nil, errors.new{ code = code, op = "vm.snapshot", path = path,
    message = format:format(...) }
end

-- Can it be written there?
local function check_target(path)
  if path:sub(1, 1) ~= "/" then return refuse("invalid", path, "%s is no absolute path", path) end
  if core.stat(path) then return refuse("conflict", path, "%s exists already", path) end
  local parent = path:match("^(.*)/[^/]*$")
  local stat, err = core.stat(parent == "" and "/" or parent, true)
  if stat and stat.type == "dir" then return true end
  if err and err.code ~= "not_found" then return nil, err end
  return refuse("not_found", path, "%s: there is no folder %s; make it first", path, parent)
end

-- A full one is all of the memory: where that can't fit, it is not begun.
local function check_room(record, path, opts)
  local folder, wanted = path:match("^(.*)/"), (record.mem_mib or 0) << 20
  if folder == "" then folder = "/" end
  if opts.type == "Diff" or not room.is_short(folder, wanted) then return true end
  local err = errors.new{ code = "system", op = "vm.snapshot", path = path, errno = ENOSPC,
    message = "there is no room for a snapshot in " .. folder }
  room.tell(err, folder, wanted, "its memory")
  return nil, err
end

-- Writes down that a snapshot is being made, and makes the folder that becomes it.
local function begin(vm, path, state, trust)
  local record = vm.journal.record
  local partial = partials.path(path, vm.id)
  if core.stat(partial) then
    return refuse("conflict", partial, "%s is left of another snapshot: remove it", partial)
  end
  record.snapshot, record.resume = partial, state == "Running"
  record.paused = state == "Paused" or nil
  local made
  local ok, err = vm.journal:save("snapshotting")
  if ok then made, err = partials.make(partial, vm.id) end
  if made then
    if not trust then made, err = origins.check_target(partial) end
    if made then made, err = statefiles.make(record) end
    -- Which files they are is known from here on, and believed by whoever goes on with it.
    if made and statefiles.jail_of(record) then made, err = vm.journal:save("snapshotting") end
    return made, err
  end
  record.snapshot, record.resume = nil, nil
  vm.journal:save("running")
  if made == nil then return nil, err end
  return refuse("busy", partial, "%s came up meanwhile: another snapshot goes there", partial)
end

local function cleanup_context(opts, ctx)
  return core.context(nil, opts.cleanup_timeout or CLEANUP_LIMIT, ctx and ctx:waiter())
end

-- Its parts, while the VM is paused: no longer than that must be.
local function write_all(vm, machine, manifest, opts, ctx)
  if vm.journal.record.resume then
    local paused, why = machine:pause(ctx)
    if not paused then return nil, machine:failure("snapshot", why) end
  end
  manifest.created = os.time() -- where the guest's clock stays
  local ok, err = write_state(vm, machine, opts, ctx)
  if ok then ok, err = copy_drives(vm, opts, ctx) end
  return ok, err
end

-- Nobody changes the parts any more, and they are on the disk, before a name says that there is a
-- snapshot.
local function make_whole(vm, path, manifest, opts, ctx)
  local record = vm.journal.record
  local ok, err = statefiles.take(record, ctx)
  if ok then ok, err = manifests.write(record.snapshot, manifest, opts.hash ~= false, ctx) end
  if ok then ok, err = users.add(record.drives, path) end
  if ok then ok, err = partials.finish(record.snapshot, path, vm.id) end
  if not ok then return nil, err end
  record.snapshot = nil -- from here on it is whole, and the caller's
  statefiles.discard(record)
  return true
end

local function create(vm, path, opts, ctx)
  local record, machine = vm.journal.record, vm.machine
  local state, err = machine:state(ctx)
  if not state then return nil, machine:failure("snapshot", err) end
  local ok
  ok, err = sizes.snapshot(vm, opts)
  if ok then ok, err = check_room(record, path, opts) end
  if not ok then return nil, err end
  local manifest -- before the pause: it takes longer than some snapshots
  manifest, err = manifests.of(vm, opts.type or "Full", opts.hash ~= false, ctx)
  if not manifest then return nil, err end
  ok, err = begin(vm, path, state, opts.trust)
  if ok then ok, err = write_all(vm, machine, manifest, opts, ctx) end
  if not ok then return nil, err end
  if opts.keep_paused then record.resume, record.paused = nil, true end
  local goes_on, why
  do -- not in the caller's context: if that ends now, the VM must go on all the same
    local own <close> = cleanup_context(opts, ctx)
    goes_on, why = go_on(vm, own)
  end
  vm.journal:try_save(record.state)
  ok, err = make_whole(vm, path, manifest, opts, ctx)
  if not ok and not vm.machine then return vm:_ended("snapshot") end
  if not ok then return nil, err end
  do
    local own <close> = cleanup_context(opts, ctx)
    err = select(2, partials.sync_parent(path, own))
  end
  if not goes_on then
    err, record.resume = why, nil
    err.message = ("the snapshot is in %s, but the VM did not go on: %s"):format(path, err.message)
    err.paused = record.paused
  end
  if vm.machine then ok, why = vm.journal:save(state_after(record)) end
  if not ok and not err then
    err = why
    err.message = ("the snapshot is in %s, but the VM's journal could not be written: %s"):format(path,
      err.message)
  end
  if err then return nil, err end
  return manifest
end

---Takes a snapshot.
---@param vm fcproc.Vm
---@param path string  absolute; it must not exist
---@param opts fcproc.SnapshotOptions?
---@param ctx fcproc.Context?
---@return fcproc.Manifest? manifest
---@return fcproc.Error? err  nothing of it is left, and the VM goes on; paused = true: it could not be let
---                            go on, and is still paused. ERR_BUSY: another is being made. When the
---                            snapshot is there all the same, the message says so
function M.create(vm, path, opts, ctx)
  options.argument(path, "string", "vm:snapshot", "path")
  options.check(opts, known, "vm:snapshot")
  path = path:gsub("(.)/+$", "%1")
  local ok, err = check_target(path)
  if not ok then return nil, err end
  if vm.snapshotting then
    return refuse("busy", path, "another snapshot of the VM '%s' is being made", vm.id)
  end
  opts = opts or {}
  vm.snapshotting = true
  local manifest
  local _ <close> = finally(function()
    vm.snapshotting = nil
    if not vm.journal.record.snapshot then return end -- not begun, or done
    local own <close> = cleanup_context(opts, ctx)
    local undone, why = undo(vm, own)
    if not undone and err then tell(vm, err, why) end
  end)
  manifest, err = create(vm, path, opts, ctx)
  local record = vm.journal.record
  -- A jailed VM writes into its jail first.
  local inside = err and err.code == "api" and statefiles.jail_of(record)
  room.tell(err, inside and record.files.folder or path:match("^(.*)/"),
    (record.mem_mib or 0) << 20, "its memory")
  return manifest, err
end

---For adopt: a manager died in the middle of a snapshot. A VM that can't be let go on is taken over all
---the same, and its record says that it is paused.
---@param vm fcproc.Vm
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.finish_interrupted(vm, ctx)
  if not vm.journal.record.snapshot then return true end
  local started = core.now()
  local undone, err = undo(vm, ctx)
  if undone then return true end
  local ok, over = loop.check(ctx)
  if not ok then return nil, over end
  vm.manager:_log(started, "a snapshot that was cut off could not be undone", { id = vm.id,
    reason = err.message, paused = vm.journal.record.paused }, "warn")
  return true
end

return M
