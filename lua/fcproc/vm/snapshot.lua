-- Snapshots: a folder with the VM's state, its memory, copies of the drives that it writes, and a
-- manifest. Everything that Firecracker wrote down in the state has a name relative to the VM's
-- folder, so a restored VM uses the files of its own folder.

local core = require "fcproc.core"
local disks = require "fcproc.vm.disks"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local manifests = require "fcproc.vm.manifest"
local options = require "fcproc.options"
local partials = require "fcproc.vm.partial"
local version_of = require "fcproc.version"

local M = {}

local FILES = { "vmstate", "memory" }
local READ_ONLY, GROUP_READ, PRIVATE = 256, 288, 384 -- 0400, 0440, 0600
local CLEANUP_LIMIT = 30 -- seconds

---@class fcproc.SnapshotOptions
---@field type ("Full"|"Diff")?  default "Full"; "Diff" needs track_dirty_pages
---@field keep_paused boolean?   do not let the VM go on afterwards
---@field copy ("reflink"|"sparse")?  how the drives are copied; default "reflink"

local known = { type = "string", keep_paused = "boolean", copy = "string" }

-- Out of the jail: by its name where that can be, else as a copy.
local function move(from, to, ctx)
  local ok, err = core.rename(from, to, false)
  if ok or err.errno ~= 18 then return ok, err end -- EXDEV
  ok, err = disks.copy(from, to, "sparse", PRIVATE, ctx)
  if ok then core.remove_file(from) end
  return ok, err
end

-- Firecracker's refusal of a diff, with what to do.
local function explain_diff(opts, err)
  if opts.type == "Diff" and err.code == "api" and err.message:find("dirty page tracking", 1, true) then
    err.message = ("%s; launch the VM with track_dirty_pages = true in its spec, or take a full "
      .. "snapshot"):format((err.message:gsub("%.$", "")))
  end
  return err
end

local function write_state(vm, machine, opts, ctx)
  local record = vm.journal.record
  local partial = record.snapshot
  local inside = record.jail and "snapshot-" or partial .. "/"
  local ok, err = machine:create_snapshot({ snapshot_type = opts.type or "Full",
    snapshot_path = inside .. "vmstate", mem_file_path = inside .. "memory" }, ctx)
  if not ok then return nil, explain_diff(opts, machine:failure("snapshot", err)) end
  for _, name in ipairs(record.jail and FILES or {}) do
    ok, err = move(record.files.folder .. "/snapshot-" .. name, partial .. "/" .. name, ctx)
    if not ok then return nil, err end
  end
  -- No longer the jail user's, nor anybody's to write: clones map the memory as it is. Its group may
  -- read, so that clones in jails of that group can do with a link; nobody else gets to the folder.
  local own
  own, err = core.stat(partial)
  if not own then return nil, err end
  for _, name in ipairs(FILES) do
    ok, err = core.own_file(partial .. "/" .. name, own.uid, record.jail and record.jail.gid or own.gid,
      record.jail and GROUP_READ or READ_ONLY)
    if not ok then return nil, err end
  end
  return true
end

local function copy_drives(vm, opts, ctx)
  local record = vm.journal.record
  for i, drive in ipairs(record.drives) do
    if not drive.read_only then
      -- In a jail its name there is the very file, whatever has become of the path.
      local from = (drive.copy or record.jail) and record.files.folder .. "/" .. drive.name
        or drive.path
      local ok, err = disks.copy(from, record.snapshot .. "/" .. drive.name, opts.copy or "reflink",
        READ_ONLY, ctx)
      if not ok then
        err.message = ("drives[%d]: %s"):format(i, err.message)
        return nil, err
      end
    end
  end
  return true
end

-- The parts of a snapshot, while the VM is paused.
local function write_all(vm, machine, manifest, opts, ctx)
  local ok, err = write_state(vm, machine, opts, ctx)
  if ok then ok, err = copy_drives(vm, opts, ctx) end
  if ok then ok, err = manifests.write(vm.journal.record.snapshot, manifest) end
  return ok, err
end

-- Removes what a snapshot that was not finished left, and lets the VM go on if it ran before.
local function undo(vm, ctx)
  local record = vm.journal.record
  for _, name in ipairs(FILES) do
    if record.jail then core.remove_file(record.files.folder .. "/snapshot-" .. name) end
  end
  local ok, err = partials.remove(record.snapshot, vm.id)
  if not ok and err.code ~= "conflict" then return nil, err end
  if not ok then vm.manager:_log(core.now(), err.message, { id = vm.id }, "warn") end
  local resume = record.resume
  record.snapshot, record.resume = nil, nil
  if not vm.machine then return true end -- it was stopped meanwhile
  if resume and vm.machine.process:alive() then
    ok, err = vm.machine:resume(ctx)
    if not ok then return nil, err end
  end
  record.paused = not resume or nil -- whatever came in between
  return vm.journal:save("running")
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

-- Writes down that a snapshot is being made, and makes the folder that becomes it.
local function begin(vm, path, state)
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
  if made then return true end
  record.snapshot, record.resume = nil, nil
  vm.journal:save("running")
  if made == nil then return nil, err end
  return refuse("busy", partial, "%s came up meanwhile: another snapshot goes there", partial)
end

local function create(vm, path, opts, ctx)
  local record, machine = vm.journal.record, vm.machine
  local state, err = machine:state(ctx)
  if not state then return nil, machine:failure("snapshot", err) end
  local manifest -- before the pause: it takes longer than some snapshots
  manifest, err = manifests.of(vm, opts.type or "Full", ctx)
  if not manifest then return nil, err end
  local ok
  ok, err = begin(vm, path, state)
  if not ok then return nil, err end
  if record.resume then
    ok, err = machine:pause(ctx)
    if not ok then return nil, machine:failure("snapshot", err) end
  end
  ok, err = write_all(vm, machine, manifest, opts, ctx)
  if ok then ok, err = partials.finish(record.snapshot, path, vm.id) end
  if not ok then return nil, err end
  local resume = record.resume and not opts.keep_paused
  record.snapshot, record.resume = nil, nil -- from here on it is whole, and the caller's
  record.paused = true
  if resume then
    ok, err = machine:resume(ctx)
    if not ok then
      err = machine:failure("resume", err)
      err.message = ("the snapshot is in %s, but the VM did not go on: %s"):format(path, err.message)
      return nil, err
    end
    record.paused = nil
  end
  ok, err = vm.journal:save("running")
  if not ok then return nil, err end
  return manifest
end

---Takes a snapshot.
---@param vm fcproc.Vm
---@param path string  absolute; it must not exist
---@param opts fcproc.SnapshotOptions?
---@param ctx fcproc.Context?
---@return fcproc.Manifest? manifest
---@return fcproc.Error? err  nothing of it is left, and the VM goes on. ERR_BUSY: another is being made
function M.create(vm, path, opts, ctx)
  options.argument(path, "string", "vm:snapshot", "path")
  options.check(opts, known, "vm:snapshot")
  path = path:gsub("(.)/+$", "%1")
  local ok, err = check_target(path)
  if not ok then return nil, err end
  if vm.snapshotting then
    return refuse("busy", path, "another snapshot of the VM '%s' is being made", vm.id)
  end
  vm.snapshotting = true
  local _ <close> = finally(function()
    vm.snapshotting = nil
    if not vm.journal.record.snapshot then return end -- not begun, or done
    local own <close> = core.context(nil, CLEANUP_LIMIT)
    undo(vm, own)
  end)
  return create(vm, path, opts or {}, ctx)
end

---For adopt: a manager died in the middle of a snapshot.
---@param vm fcproc.Vm
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.finish_interrupted(vm, ctx)
  if not vm.journal.record.snapshot then return true end
  return undo(vm, ctx)
end

-- ---- restoring -----------------------------------------------------------------------------

local function plan_network(plan, manifest)
  local given = plan.network
  if #given > 0 and #given ~= #manifest.network then
    return nil, errors.new{ code = "invalid", op = "vm.restore",
      message = ("network: the snapshot has %d interfaces, the spec %d: give one for each, or none")
        :format(#manifest.network, #given) }
  end
  for i, recorded in ipairs(manifest.network) do
    local interface = given[i] or { index = i, attach = recorded.attach,
      isolated = recorded.isolated }
    interface.mac, interface.mtu = recorded.guest_mac, interface.mtu or recorded.mtu
    interface.address = recorded.address or false -- the guest has it already
    given[i] = interface
  end
  return true
end

---Reads and checks a snapshot, and completes the plan of a restore with what it says.
---@param manager fcproc.Manager
---@param path string
---@param plan fcproc.VmPlan
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.plan(manager, path, plan, ctx)
  local absolute, err = core.absolute_path(path)
  if not absolute then return nil, err end
  local manifest
  manifest, err = manifests.read(absolute)
  if not manifest then return nil, err end
  local ok
  ok, err = manifests.check(manager, absolute, manifest, plan.spec.any_cpu, ctx)
  if not ok then return nil, err end
  plan.manifest, plan.snapshot, plan.drives = manifest, absolute, {}
  for i, drive in ipairs(manifest.drives) do
    plan.drives[i] = { id = drive.id, name = drive.name, root = drive.root or false,
      read_only = drive.read_only or false, path = drive.path }
    if not drive.read_only then
      plan.drives[i].path = absolute .. "/" .. drive.name
      plan.drives[i].copy = plan.spec.copy or "reflink"
    end
  end
  return plan_network(plan, manifest)
end

---Says what to do when a restored guest's address is another VM's.
---@param err fcproc.Error  of choosing names and addresses
---@return fcproc.Error err
function M.explain(err)
  if err.owner and err.message:find("^network[%d%[%]]*%.[am]") then -- address, mac
    err.message = err.message .. "; a restored guest keeps its address and MAC: stop that VM first, "
      .. "or give the manager another network namespace and runtime_dir, or network = "
      .. "{ attach = false }"
  end
  return err
end

-- A link to a file that the jail's user can read and, not owning it, can never write; else a copy.
local function put_into_jail(from, to, jail, ctx)
  local stat, err = core.stat(from)
  if not stat then return nil, err end
  local reads_only = jail.uid ~= 0 and jail.uid ~= stat.uid and jail.gid == stat.gid
    and stat.mode & 63 == GROUP_READ & 63 -- 077: what group and others may
  return disks.link_or_copy(from, to, jail, reads_only, ctx)
end

---Puts state and memory where a jailed VMM can read them.
---@param vm fcproc.Vm
---@param plan fcproc.VmPlan
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.place(vm, plan, ctx)
  local jail = vm.journal.record.jail
  for _, name in ipairs(jail and FILES or {}) do
    local method, err = put_into_jail(plan.snapshot .. "/" .. name, jail.root .. "/" .. name, jail, ctx)
    if not method then return nil, err end
    jail.placed[name] = method
  end
  return true
end

---Loads it into a Firecracker that has been started empty.
---@param vm fcproc.Vm
---@param plan fcproc.VmPlan
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.load(vm, plan, ctx)
  local inside = vm.journal.record.jail and "" or plan.snapshot .. "/"
  local body = { snapshot_path = inside .. "vmstate", resume_vm = not plan.spec.paused,
    mem_backend = { backend_type = "File", backend_path = inside .. "memory" },
    network_overrides = {} }
  local tracking = version_of.at_least(vm.machine.version, "1.13") and "track_dirty_pages"
    or "enable_diff_snapshots"
  body[tracking] = plan.spec.track_dirty_pages
  for i, tap in ipairs(vm.journal.record.taps) do
    body.network_overrides[i] = { iface_id = "eth" .. (i - 1), host_dev_name = tap.name }
  end
  local ok, err = vm.machine:load_snapshot(body, ctx)
  if not ok then return nil, vm.machine:failure("restore", err) end
  return true
end

return M
