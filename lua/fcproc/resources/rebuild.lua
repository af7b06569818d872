-- The record of a VM whose journal can't be read: made up from what else there is of it on the host.

local address = require "fcproc.network.address"
local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local journals = require "fcproc.resources.journal"
local launch = require "fcproc.machine.launch"
local lease = require "fcproc.resources.lease"

local M = {}

local MOST_INTERFACES = 17 -- more than Firecracker has room for


-- Of one that was never written, or was cut by a crash of the host: from its jail and its leases, with
-- rebuilt = true. A TAP whose name somebody chose may be theirs, and is kept. Half of it is none.
local function rebuild(manager, id)
  local folder, jail, derived = journals.folder(manager, id), nil, {}
  local jails, err = core.list_dir(folder .. "/jail")
  if not jails and err.code ~= "not_found" then return nil, err end
  for _, entry in ipairs(jails or {}) do
    local path = ("%s/jail/%s/%s/root"):format(folder, entry.name, id)
    local root = core.stat(path) -- its user can't give it away
    if root then jail = { root = path, uid = root.uid, gid = root.gid, cgroups = {} } end
  end
  local confined = core.stat(folder .. "/vmm") and { uid = core.own_uid() } or nil
  local record = { format = 1, id = id, rebuilt = true, state = "unknown", taps = {}, drives = {},
    files = launch.files(folder, jail, confined), confined = confined,
    shape = { jailed = jail ~= nil or nil }, jail = jail, created = os.time() }
  local places = {}
  if jail then places, err = cgroup.places(folder, id) end
  if not places then return nil, err end
  for _, place in ipairs(places) do
    if core.stat(place) then jail.cgroup = jail.cgroup or place end
  end
  for i = 0, MOST_INTERFACES - 1 do
    derived[address.tap_name(manager.config.runtime_dir, id, i)] = true
  end
  local leases, found
  leases, err = lease.open(manager)
  if leases then found, err = leases:list(id) end
  if err then return nil, err end
  for _, entry in ipairs(found) do
    local netns, name = entry.name:match("^tap%-(%d+)%-(.+)$")
    if name then
      record.netns = record.netns or math.tointeger(tonumber(netns))
      record.taps[#record.taps + 1] = { name = name, keep = not derived[name] or nil }
    end
    if record.jail then
      record.jail.uid = record.jail.uid or math.tointeger(tonumber(entry.name:match("^uid%-(%d+)")))
    end
  end
  return record
end

---The record of a journal, or one made up from what else there is.
---@param manager fcproc.Manager
---@param id string
---@param record table?  as journals.read gave it
---@param err fcproc.Error?
---@return table? record
---@return fcproc.Error? err  hands off
function M.record_of(manager, id, record, err)
  if record then return record end
  if err.code == "not_found" or err.code == "protocol" then return rebuild(manager, id) end
  return nil, err
end

return M
