-- A port that is published at 127.0.0.1 needs route_localnet on the bridge: the kernel then takes what
-- comes from there to a loopback address for its own. So it is set last, when NAT's chain drops such
-- packets already, and put back first, and only while a VM has such a port.
--
-- Who needs it has a shared lease, taken before it is set: so what a crash leaves is found. Where it was
-- set before any VM came, that is its owner's wish; there is no lease, and it stays.

local core = require "fcproc.core"
local inuse = require "fcproc.resources.inuse"
local journals = require "fcproc.resources.journal"
local lease = require "fcproc.resources.lease"
local namespaces = require "fcproc.resources.namespaces"
local publish = require "fcproc.network.publish"

local M = {}

local LOCK = "localnet"

local function setting(bridge)
  return ("ipv4/conf/%s/route_localnet"):format(bridge)
end

local function name_of(namespace, bridge)
  return ("localnet-%d-%s"):format(namespace, bridge)
end

-- The bridge of a lease's name.
local function bridge_of(lease_name, namespace)
  return lease_name:match(("^localnet%%-%d%%-(.+)%%-shared/"):format(namespace))
end

local function locked(leases, fn)
  local held <close>, err = leases:lock(LOCK)
  if not held then return nil, err end
  local ok, problem = fn()
  held:remove()
  return ok, problem
end

local function enable(journal, leases)
  local manager, record = journal.manager, journal.record
  local bridge, started = manager.config.bridge_name, core.now()
  local name = name_of(record.netns, bridge)
  if #leases:sharers(name) == 0 then
    local value, err = manager.net:sysctl(setting(bridge))
    if not value then return nil, err end
    if value ~= 0 then return true end
  end
  local own, err = leases:take_shared(name, journal.id)
  if not own then return nil, err end
  table.insert(record.leases, own)
  local ok
  ok, err = journal:save("preparing")
  if ok then ok, err = manager.net:sysctl(setting(bridge), 1) end
  if not ok then return nil, err end
  manager:_log(started, "route_localnet set", { bridge = bridge, id = journal.id })
  return true
end

---What the VM's published ports need.
---@param journal fcproc.Journal
---@param entries fcproc.NatEntry[]  which are in the kernel
---@return true?
---@return fcproc.Error? err
function M.acquire(journal, entries)
  local needed = false
  for _, entry in ipairs(entries) do needed = needed or publish.at_loopback(entry.ports or {}) end
  if not needed then return true end
  local leases, err = lease.open(journal.manager, true)
  if not leases then return nil, err end
  return locked(leases, function() return enable(journal, leases) end)
end

-- Puts it back when this lease is the last. A bridge that is gone has taken it with it.
local function put_back(there, leases, name, bridge)
  return locked(leases, function()
    local started = core.now()
    if #leases:sharers(name:match("^(.*)%-shared/")) <= 1 then
      local ok, err = there.net:sysctl(setting(bridge), 0)
      if not ok and err.code ~= "not_found" then return nil, err end
      if ok then there:_log(started, "route_localnet put back", { bridge = bridge }) end
    end
    return leases:drop(name)
  end)
end

---Puts it back, unless others need it.
---@param there fcproc.Manager  of the namespace where the bridge is
---@param leases fcproc.Leases
---@param id string
---@param names string[]  the VM's leases
---@return true?
---@return fcproc.Error? err
function M.release(there, leases, id, names)
  local namespace = namespaces.of(there)
  for _, name in ipairs(names) do
    local bridge = bridge_of(name, namespace)
    if bridge and leases:holds(name, id) then
      local ok, err = put_back(there, leases, name, bridge)
      if not ok then return nil, err end
    end
  end
  return true
end

---Puts it back for VMs of which nothing is left but the lease.
---@param manager fcproc.Manager
---@param leases fcproc.Leases
---@return true?
---@return fcproc.Error? err
function M.sweep(manager, leases)
  local namespace = namespaces.of(manager)
  for _, entry in ipairs((leases:list())) do
    local bridge = bridge_of(entry.name, namespace)
    local place = { config = { runtime_dir = entry.folder } }
    local own = entry.folder == manager.config.runtime_dir or not core.stat(entry.folder)
    if bridge and own and not journals.exists(place, entry.owner)
      and not journals.is_locked(place, entry.owner)
      and not inuse.by_network(namespace, { manager = manager, folder = entry.folder, id = entry.owner }) then
      local ok, err = put_back(manager, leases, entry.name, bridge)
      if not ok then return nil, err end
    end
  end
  return true
end

---Is it, on the manager's bridge, for VMs that have or had such a port?
---@param manager fcproc.Manager
---@return boolean
function M.is_ours(manager)
  local bridge = manager.config.bridge_name
  local leases = bridge and lease.open(manager)
  return leases ~= nil and #leases:sharers(name_of(namespaces.of(manager), bridge)) > 0
end

---Sets it again where a VM needs it, and somebody else has put it back.
---@param manager fcproc.Manager
---@return true?
---@return fcproc.Error? err
function M.ensure(manager)
  local leases = M.is_ours(manager) and lease.open(manager)
  if not leases then return true end
  local name = setting(manager.config.bridge_name)
  return locked(leases, function()
    local value, err = manager.net:sysctl(name)
    if value == 0 then value, err = manager.net:sysctl(name, 1) end
    if value then return true end
    return nil, err
  end)
end

return M
