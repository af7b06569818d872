-- Snapshots: a folder with the VM's state, its memory, copies of the drives that it writes, and a
-- manifest. Everything that Firecracker wrote down in the state has a name relative to the VM's
-- folder, so a restored VM uses the files of its own folder.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local manifests = require "fcproc.vm.manifest"
local options = require "fcproc.options"

local M = {}

local FILES = { "vmstate", "memory" }
local CLEANUP_LIMIT = 30 -- seconds

---@class fcproc.SnapshotOptions
---@field type ("Full"|"Diff")?  default "Full"; "Diff" needs track_dirty_pages
---@field keep_paused boolean?   do not let the VM go on afterwards
---@field copy ("reflink"|"sparse")?  how the drives are copied; default "reflink"

local known = { type = "string", keep_paused = "boolean", copy = "string" }

-- Copies a file, a chunk at a time, so that others run and it can be cancelled.
local function copy(from, to, method, ctx)
  local done, used = loop.complete(ctx, core.copy_file(from, to, method or "reflink", 384, ctx))
  if not done then return nil, used end
  return used
end

-- Out of the jail: by its name where that can be, else as a copy.
local function move(from, to, ctx)
  local ok, err = core.rename(from, to, false)
  if ok then return core.own_file(to, -1, -1) end
  if err.errno ~= 18 then return nil, err end -- EXDEV
  ok, err = copy(from, to, "sparse", ctx)
  if ok then core.remove_file(from) end
  return ok, err
end

local function write_state(vm, partial, opts, ctx)
  local record = vm.journal.record
  local inside = record.jail and "snapshot-" or partial .. "/"
  local ok, err = vm.machine:create_snapshot({ snapshot_type = opts.type or "Full",
    snapshot_path = inside .. "vmstate", mem_file_path = inside .. "memory" }, ctx)
  if not ok then return nil, vm.machine:failure("snapshot", err) end
  for _, name in ipairs(record.jail and FILES or {}) do
    ok, err = move(record.files.folder .. "/snapshot-" .. name, partial .. "/" .. name, ctx)
    if not ok then return nil, err end
  end
  return true
end

local function copy_drives(vm, partial, opts, ctx)
  for _, drive in ipairs(vm.journal.record.drives) do
    if not drive.read_only then
      local from = drive.copy and vm.journal.record.files.folder .. "/" .. drive.name or drive.path
      local ok, err = copy(from, partial .. "/" .. drive.name, opts.copy, ctx)
      if not ok then return nil, err end
    end
  end
  return true
end

-- The parts of a snapshot, while the VM is paused.
local function write_all(vm, partial, opts, ctx)
  local made, err = core.make_dir(partial, 448)
  if made == nil then return nil, err end
  local ok
  ok, err = write_state(vm, partial, opts, ctx)
  if ok then ok, err = copy_drives(vm, partial, opts, ctx) end
  if not ok then return nil, err end
  local manifest
  manifest, err = manifests.of(vm, opts.type or "Full", ctx)
  if not manifest then return nil, err end
  ok, err = manifests.write(partial, manifest)
  if not ok then return nil, err end
  return manifest
end

-- Removes what a snapshot that was not finished left, and lets the VM go on if it ran before.
local function undo(vm, ctx)
  local record = vm.journal.record
  for _, name in ipairs(FILES) do
    if record.jail then core.remove_file(record.files.folder .. "/snapshot-" .. name) end
  end
  local ok, err = core.remove_tree(record.snapshot)
  if not ok then return nil, err end
  if record.resume and vm.machine.process:alive() then
    ok, err = vm.machine:resume(ctx)
    if not ok then return nil, err end
  end
  record.snapshot, record.resume = nil, nil
  return vm.journal:save("running")
end

---Takes a snapshot.
---@param vm fcproc.Vm
---@param path string  absolute; it must not exist
---@param opts fcproc.SnapshotOptions?
---@param ctx fcproc.Context?
---@return fcproc.Manifest? manifest
---@return fcproc.Error? err  nothing of it is left, and the VM goes on
function M.create(vm, path, opts, ctx)
  options.argument(path, "string", "vm:snapshot", "path")
  options.check(opts, known, "vm:snapshot")
  opts = opts or {}
  local record = vm.journal.record
  if path:sub(1, 1) ~= "/" or core.stat(path) then
    return nil, errors.new{ code = "conflict", op = "vm.snapshot", path = path,
      message = path .. (path:sub(1, 1) ~= "/" and " is no absolute path" or " exists already") }
  end
  local state, err = vm.machine:state(ctx)
  if not state then return nil, vm.machine:failure("snapshot", err) end
  record.snapshot, record.resume = path .. ".partial", state == "Running"
  local ok
  ok, err = vm.journal:save("snapshotting")
  if not ok then return nil, err end
  local finished = false
  local guard <close> = setmetatable({}, { __close = function() -- luacheck: ignore guard
    if finished then return end
    local own <close> = core.context(nil, CLEANUP_LIMIT)
    undo(vm, own)
  end })
  if record.resume then
    ok, err = vm.machine:pause(ctx)
    if not ok then return nil, vm.machine:failure("snapshot", err) end
  end
  local manifest
  manifest, err = write_all(vm, record.snapshot, opts, ctx)
  if not manifest then return nil, err end
  ok, err = core.rename(record.snapshot, path, false)
  if not ok then return nil, err end
  finished = true
  local resume = record.resume and not opts.keep_paused
  record.snapshot, record.resume = nil, nil
  if resume then
    ok, err = vm.machine:resume(ctx)
    if not ok then return nil, vm.machine:failure("resume", err) end
  end
  ok, err = vm.journal:save("running")
  if not ok then return nil, err end
  return manifest
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
      message = ("network: the snapshot has %d interfaces, the spec %d"):format(#manifest.network,
        #given) }
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

---Puts state and memory where a jailed VMM can read them.
---@param vm fcproc.Vm
---@param plan fcproc.VmPlan
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.place(vm, plan, ctx)
  local jail = vm.journal.record.jail
  for _, name in ipairs(jail and FILES or {}) do
    local to = jail.root .. "/" .. name
    local ok, err = copy(plan.snapshot .. "/" .. name, to, "reflink", ctx)
    if ok then ok, err = core.own_file(to, jail.uid, jail.gid, 256) end
    if not ok then return nil, err end
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
  for i, tap in ipairs(vm.journal.record.taps) do
    body.network_overrides[i] = { iface_id = "eth" .. (i - 1), host_dev_name = tap.name }
  end
  local ok, err = vm.machine:load_snapshot(body, ctx)
  if not ok then return nil, vm.machine:failure("restore", err) end
  return true
end

return M
