-- Restoring a snapshot: what it says completes the plan of a VM, which is then built as any other, but
-- that its Firecracker starts empty and loads it.

local bodies = require "fcproc.machine.bodies"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local manifests = require "fcproc.vm.manifest"
local origins = require "fcproc.resources.origin"
local statefiles = require "fcproc.vm.statefiles"
local version_of = require "fcproc.machine.version"

local M = {}

local LATE = 2 -- seconds that are worth a word

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

-- A read-only drive is where the caller says, or else where the manifest does: what that says, the jail's
-- user must be able to read.
local function plan_read_only(plan, path, planned)
  local given = plan.given[planned.id]
  planned.path = given or planned.path
  local expected
  if not given and plan.jailer then
    planned.named_by_manifest = true
    -- Of an "auto" uid nobody knows which it will be.
    local told = plan.jailer.uid ~= "auto"
    expected = told and origins.named_by_manifest(plan.jailer) or nil
  end
  local there, err = core.stat(planned.path, true)
  if not there then
    return nil, errors.new{ code = "conflict", op = "vm.restore", path = path, cause = err,
      message = ("the snapshot %s needs the drive '%s', and there is no %s: say where it is, %s")
        :format(path, planned.id, planned.path, origins.REMEDY) }
  end
  if not expected then return true end
  local text
  text, err = core.read_file(planned.path, 0, 0, expected)
  if text then return true end
  return nil, origins.explain_drive(planned.id, err)
end

local function plan_drives(plan, path, manifest)
  plan.drives = {}
  local known = {}
  for i, drive in ipairs(manifest.drives) do
    local planned = { id = drive.id, name = drive.name, root = drive.root or false,
      read_only = drive.read_only or false, path = drive.path }
    known[drive.id] = drive
    plan.drives[i] = planned
    if drive.read_only then
      local ok, err = plan_read_only(plan, path, planned)
      if not ok then return nil, err end
    else
      planned.path, planned.copy = path .. "/" .. drive.name, plan.spec.copy or "reflink"
      planned.origin = plan.origin
    end
  end
  for id in pairs(plan.given) do
    if not (known[id] and known[id].read_only) then
      return nil, errors.new{ code = "invalid", op = "vm.restore", path = path,
        message = ("drives.%s: the snapshot has %s"):format(id, known[id] and "that drive itself"
          or "no such drive") }
    end
  end
  return true
end

local function refuse(code, path, format, ...)
  return nil, errors.new{ code = code, op = "vm.restore", path = path, message = format:format(...) }
end

-- What a version must be told of, or can't be.
local function check_loading(plan, path, manifest, version)
  local spec = plan.spec
  for _, name in ipairs{ "clock_realtime", "huge_pages" } do
    local since = bodies.snapshot_load.fields[name].since
    if spec[name] and version_of.at_least(version, since) == false then
      return refuse("unsupported", path, "%s needs Firecracker >= %s, this is %s", name,
        version_of.words(since), version)
    end
  end
  if spec.clock_realtime and core.arch ~= "x86_64" then
    return refuse("unsupported", path, "clock_realtime is for x86_64 alone, this is %s", core.arch)
  end
  local pages = spec.huge_pages or "Snapshot"
  if manifest.huge_pages == "2M" and pages == "Snapshot" then
    return refuse("unsupported", path, "the memory of the snapshot %s is of huge pages, which Firecracker "
      .. "loads from a page fault handler (Uffd) alone, and not from a file; from 1.17 on it loads it into "
      .. "others: huge_pages = \"Transparent\" or \"None\"", path)
  end
  return true
end

-- A guest goes on at the time of its snapshot, unless Firecracker sets its clock forward.
local function plan_clock(plan, manifest, version)
  local since, wanted = bodies.snapshot_load.fields.clock_realtime.since, plan.spec.clock_realtime
  plan.clock_realtime = wanted ~= false and core.arch == "x86_64"
    and version_of.at_least(version, since) or nil
  local late = manifest.created and os.time() - manifest.created or 0
  if plan.clock_realtime or wanted == false or late < LATE then return end
  local fix = "set it in the guest, by NTP or date -s"
  if core.arch == "x86_64" then
    fix = ("%s; or restore with Firecracker >= %s"):format(fix, version_of.words(since))
  end
  plan.warnings = plan.warnings or {}
  table.insert(plan.warnings, { name = "clock", fix = fix,
    message = ("the guest's clock goes on where it was in the snapshot: it is %d s late"):format(late) })
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
  local version, ok
  version, err = manifests.check(manager, absolute, manifest, plan.spec.any_cpu, ctx)
  if version then ok, err = check_loading(plan, absolute, manifest, version) end
  if not ok then return nil, err end
  plan_clock(plan, manifest, version)
  plan.origin, err = origins.of(absolute, plan.jailer ~= nil, plan.spec.trust)
  if not plan.origin then return nil, err end
  if plan.spec.verify then
    ok, err = manifests.verify(absolute, manifest, plan.origin, ctx)
    if not ok then return nil, err end
  end
  plan.manifest, plan.snapshot = manifest, absolute
  ok, err = plan_drives(plan, absolute, manifest)
  if not ok then return nil, err end
  return plan_network(plan, manifest)
end

---Reads a snapshot whole, and compares it with what it was.
---@param path string
---@param ctx fcproc.Context?
---@return fcproc.Manifest? manifest
---@return fcproc.Error? err
function M.verify(path, ctx)
  local absolute, err = core.absolute_path(path)
  if not absolute then return nil, err end
  local manifest, ok
  manifest, err = manifests.read(absolute)
  if not manifest then return nil, err end
  ok, err = manifests.verify(absolute, manifest, nil, ctx)
  if not ok then return nil, err end
  return manifest
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

---Puts state and memory where a jailed VMM can read them.
---@param vm fcproc.Vm
---@param plan fcproc.VmPlan
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.place(vm, plan, ctx)
  return statefiles.place(vm.journal.record, plan.snapshot, plan.origin, ctx)
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
  body.clock_realtime, body.huge_pages = plan.clock_realtime, plan.spec.huge_pages
  for i, tap in ipairs(vm.journal.record.taps) do
    body.network_overrides[i] = { iface_id = "eth" .. (i - 1), host_dev_name = tap.name }
  end
  local ok, err = vm.machine:load_snapshot(body, ctx)
  if not ok then return nil, vm.machine:failure("restore", err) end
  return true
end

return M
