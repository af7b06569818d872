-- Which VMs of a rootless manager are in its namespaces: those whose network has to be made, and all when
-- that was asked for. One without a network, or with a TAP that the host has, needs none of it.

local errors = require "fcproc.error"

local M = {}

-- Is its TAP one that somebody has made on the host?
local function is_on_host(manager, interface)
  return type(interface.tap) == "string" and #interface.tap < 16
    and manager.host_net:link_exists(interface.tap) == true
end

local function interfaces_of(network)
  if not network then return {} end
  if type(network) ~= "table" then return { {} } end
  if next(network) == nil then return {} end
  return #network > 0 and network or { network }
end

---Is the VM of that spec, or plan, to be in the namespaces?
---@param manager fcproc.Manager
---@param network any  of the spec, as it was given; or of the plan
---@return boolean? inside
---@return fcproc.Error? err  ERR_INVALID: some of its TAPs are the host's, and others not
function M.decide(manager, network)
  local config = manager.config
  if config.privilege ~= "rootless" then return false end
  if config.chosen then return true end
  local on_host, made
  for _, interface in ipairs(interfaces_of(network)) do
    if type(interface) == "table" then
      if is_on_host(manager, interface) then on_host = interface.tap else made = true end
    end
  end
  if on_host and made then
    return nil, errors.new{ code = "invalid", op = "vm.launch", message = ("the TAP %s is the "
      .. "host's, and the others would be in a namespace of your own: a VM is in one of them")
      :format(on_host) }
  end
  return made == true
end

-- The device nodes that a VMM opens: the last for the tokens of a metadata service.
local DEVICES = { "/dev/kvm", "/dev/net/tun", "/dev/urandom" }

---What is in the jail of a VM in the namespaces, for core.spawn: its folder, and what it uses besides,
---under the names that these have outside.
---@param record table
---@param plan fcproc.VmPlan
---@return string[]
function M.jail(record, plan)
  local list = { record.files.folder }
  local function add(how, path)
    if path then table.move({ how, path }, 1, 2, #list + 1, list) end
  end
  for _, path in ipairs(DEVICES) do add("--device", path) end
  add("--ro", plan.binary)
  for _, name in ipairs{ "kernel", "initrd", "seccomp" } do add("--ro", plan[name]) end
  for _, drive in ipairs(record.drives) do
    if not drive.copy then add(drive.read_only and "--ro" or "--rw", drive.path) end
  end
  for _, name in ipairs(plan.snapshot and { "vmstate", "memory" } or {}) do
    add("--ro", plan.snapshot .. "/" .. name)
  end
  return list
end

return M
