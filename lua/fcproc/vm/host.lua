-- What a VM has on the host: leases, TAPs, NAT, a folder. Chosen and written down first, made next,
-- and removed in reverse; removing what is not there is a success. Its disks are in disks.lua.

local aliases = require "fcproc.alias"
local address = require "fcproc.vm.address"
local core = require "fcproc.core"
local jailer = require "fcproc.jailer"
local journals = require "fcproc.vm.journal"
local launch = require "fcproc.launch"
local lease = require "fcproc.vm.lease"
local nat = require "fcproc.vm.nat"
local uplinks = require "fcproc.vm.uplinks"

local M = {}

local CGROUP_TRIES, CGROUP_PAUSE = 50, 0.002 -- seconds
local MOST_INTERFACES = 17 -- more than Firecracker has room for

-- Explains an error by what it is about.
local function about(place, err)
  err.message = ("%s: %s"):format(place, err.message)
  return nil, err
end

-- ---- choosing ------------------------------------------------------------------------------

local function place_of(interface)
  return interface.index == 1 and "network" or ("network[%d]"):format(interface.index)
end

local function choose_tap(journal, interface)
  local manager, id = journal.manager, journal.id
  local place = place_of(interface)
  local tap = {
    name = interface.tap or address.tap_name(manager.config.runtime_dir, id, interface.index - 1),
    guest_mac = interface.mac or address.mac(id, interface.index - 1), attach = interface.attach,
    isolated = interface.isolated, mtu = interface.mtu, nat = interface.nat,
  }
  local ok, err = lease.take(manager, "tap-" .. tap.name, id)
  if not ok then return about(("%s.tap: %s"):format(place, tap.name), err) end
  -- A TAP that was there before, under a name that somebody chose, is not ours to delete. Asked once
  -- the name is leased: it may have been that of a VM that was just going.
  tap.keep = interface.tap and manager.net:link_exists(interface.tap) or nil
  journal.record.taps[interface.index] = tap
  local config = manager.config
  local has_subnet = interface.attach and config.bridge_ip and config.bridge_ip:find(".", 1, true)
  local wanted = interface.address
  if wanted == true then wanted = nil end
  if wanted == false or not (wanted or has_subnet) then return tap end
  if not has_subnet then -- alone on its TAP: nobody to share an address with, and no gateway
    tap.address, tap.argument = wanted, "ip=" .. wanted
    return tap
  end
  local subnet
  subnet, err = address.subnet(config.bridge_ip, config.prefix)
  if subnet and wanted then ok, err = address.check(wanted, subnet) end
  if not subnet or not ok then return about(place .. ".address", err) end
  tap.address, err = lease.address(manager, id, subnet, wanted)
  if not tap.address then return about(place .. ".address", err) end
  tap.argument = address.guest_argument{ address = tap.address, gateway = subnet.gateway,
    netmask = subnet.netmask, hostname = id, device = "eth" .. (interface.index - 1) }
  return tap
end

---Chooses names and addresses, takes their leases, and puts it all into the record.
---@param journal fcproc.Journal
---@param plan fcproc.VmPlan
---@param fleet fcproc.Fleet
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: another VM has the drive, TAP or address
function M.choose(journal, plan, fleet)
  local record, manager = journal.record, journal.manager
  local root
  if plan.jailer then
    plan.jailer.base = journal.folder .. "/jail"
    root = jailer.root(plan.jailer, plan.binary, plan.id)
    local version, folders = jailer.cgroups(plan.jailer, plan.id)
    if not version then return nil, folders end
    record.jail = { root = root, uid = plan.jailer.uid, gid = plan.jailer.gid, cgroups = folders }
  end
  record.files = launch.files(journal.folder, record.jail)
  record.shape = jailer.shape(plan.jailer)
  record.binary = plan.binary
  fleet.namespace = fleet.namespace or M.namespace(manager)
  record.netns, record.netns_name = fleet.namespace, manager.config.netns_name
  record.taps, record.drives = {}, {}
  for i, drive in ipairs(plan.drives or {}) do
    if drive.lease then
      local ok, err = lease.take(manager, drive.lease, plan.id)
      if not ok then
        return about(("drives[%d].path: %s%s"):format(i, drive.path,
          err.code == "conflict" and " is written by another VM" or ""), err)
      end
    end
    record.drives[i] = { id = drive.id, path = drive.path, name = drive.name, copy = drive.copy,
      read_only = drive.read_only, root = drive.root, lease = drive.lease }
  end
  for _, interface in ipairs(plan.network) do
    local tap, err = choose_tap(journal, interface)
    if not tap then return nil, err end
    if tap.attach then -- a bridge with two of one MAC sends to either
      local ok
      ok, err = lease.take(manager, "mac-" .. tap.guest_mac:lower(), plan.id)
      if not ok then return about(("%s.mac: %s"):format(place_of(interface), tap.guest_mac), err) end
    end
  end
  return true
end

---The namespace where the manager makes links, as a number.
---@param manager fcproc.Manager
---@return integer
function M.namespace(manager)
  local netns = manager.config.netns
  local path = netns and ("/proc/self/fd/%d"):format(netns:fd()) or "/proc/self/ns/net"
  local stat = core.stat(path, true)
  return stat and stat.ino or 0
end

-- ---- network -------------------------------------------------------------------------------

local function nat_entries(record)
  local entries = {}
  for _, tap in ipairs(record.taps or {}) do
    if record.rebuilt then -- perhaps
      entries[#entries + 1] = { tap = tap.name, id = record.id }
    elseif tap.nat and tap.address then
      entries[#entries + 1] = { tap = tap.name, address = tap.address, mac = tap.guest_mac,
        uplink = tap.nat, id = record.id }
    end
  end
  return entries
end

---The bridge, the TAPs and their NAT.
---@param journal fcproc.Journal
---@param fleet fcproc.Fleet
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.make_network(journal, fleet, ctx)
  local manager, record = journal.manager, journal.record
  local jail = record.jail or {}
  for _, tap in ipairs(record.taps) do
    local err
    if tap.attach and not fleet.bridge then
      fleet.bridge, err = manager:_bridge(ctx)
      if not fleet.bridge then return nil, err end
    end
    local started = core.now()
    local made
    made, err = manager.net:create_tap(tap.name, tap.attach and manager.config.bridge_name or nil,
      jail.uid, jail.gid, nil, tap.mtu, tap.attach and tap.isolated or nil,
      tap.attach and fleet.bridge or nil, aliases.of(manager.config.runtime_dir, journal.id), ctx)
    if not made then return nil, err end
    tap.mac, tap.ifindex = made.mac, made.ifindex
    manager:_log(started, "TAP created", { name = tap.name, ifindex = made.ifindex, id = journal.id })
  end
  local entries = nat_entries(record)
  if #entries == 0 then return true end
  local ok, err = nat.add_all(manager, entries, ctx)
  if not ok then return nil, err end
  return uplinks.check(manager, record, entries, fleet, ctx)
end

-- ---- removing ------------------------------------------------------------------------------

-- A namespace by its number: by the name that it had, by an `ip netns` name, or through a process
-- that is in it. nil: it went with the last that held it.
local function find_namespace(record)
  local function open(path)
    local stat = core.stat(path, true)
    local netns = stat and stat.ino == record.netns and core.netns(path)
    if netns then
      stat = core.stat(("/proc/self/fd/%d"):format(netns:fd()), true)
      if stat and stat.ino == record.netns then return netns end
      netns:close()
    end
  end
  local name = record.netns_name
  local found = name and open(name:find("/", 1, true) and name or "/run/netns/" .. name)
  for _, entry in ipairs(not found and core.list_dir("/run/netns") or {}) do
    found = found or open("/run/netns/" .. entry.name)
  end
  for _, entry in ipairs(not found and core.list_dir("/proc") or {}) do
    if entry.name:find("^%d+$") then
      found = found or open(("/proc/%s/ns/net"):format(entry.name))
    end
  end
  return found
end

-- One for TAPs in that namespace; nil: in the one where the process is.
local function manager_in(manager, netns)
  return require("fcproc.manager").new{ bridge_name = manager.config.bridge_name,
    runtime_dir = manager.config.runtime_dir, netns = netns }
end

-- TAPs are looked for where they were made, also when the manager was closed meanwhile.
local function namespace_of(manager, record)
  if not record.netns then return manager end
  local lost = manager.closed and manager.own_netns
  if not lost and record.netns == M.namespace(manager) then
    return manager.closed and manager_in(manager, manager.config.netns) or manager
  end
  local netns = find_namespace(record)
  local other = netns and manager_in(manager, netns)
  if other then return other, netns end
  if netns then netns:close() end
end

local function our_taps(manager, record)
  local names = {}
  -- They went with the boot. What has their name now is somebody else's.
  if journals.is_of_earlier_boot(record) then return names end
  for _, tap in ipairs(record.taps or {}) do
    if not tap.keep and lease.owner(manager, "tap-" .. tap.name) == record.id then
      names[#names + 1] = tap.name
    end
  end
  return names
end

---The record of a VM whose journal was never written, or was cut by a crash of the host: from its
---jail and its leases. A TAP whose name somebody chose may be theirs, and is kept.
---@param manager fcproc.Manager
---@param id string
---@return table record  with rebuilt = true
function M.rebuild(manager, id)
  local folder, jail, derived = journals.folder(manager, id), nil, {}
  for _, entry in ipairs(core.list_dir(folder .. "/jail") or {}) do
    local path = ("%s/jail/%s/%s/root"):format(folder, entry.name, id)
    local root = core.stat(path) -- its user can't give it away
    if root then jail = { root = path, uid = root.uid, gid = root.gid, cgroups = {} } end
  end
  local record = { format = 1, id = id, rebuilt = true, state = "unknown", taps = {}, drives = {},
    files = launch.files(folder, jail), shape = { jailed = jail ~= nil or nil },
    jail = jail, created = os.time() }
  for i = 0, MOST_INTERFACES - 1 do
    derived[address.tap_name(manager.config.runtime_dir, id, i)] = true
  end
  for _, entry in ipairs(lease.list(manager, id)) do
    local name = entry.name:match("^tap%-(.+)$")
    if name then record.taps[#record.taps + 1] = { name = name, keep = not derived[name] or nil } end
  end
  return record
end

---@class fcproc.Left  what could not be removed
---@field id string?  the VM's; nil: of several
---@field what string
---@field err fcproc.Error

local function note(left, id, what, ok, err)
  if not ok then left[#left + 1] = { id = id, what = what, err = err } end
end

-- All the VMs' TAPs as one link group, and their NAT in one transaction.
local function remove_networks(manager, list, ctx, left)
  local by_namespace = {}
  for _, journal in ipairs(list) do
    local key = journal.record.netns or 0
    by_namespace[key] = by_namespace[key] or {}
    table.insert(by_namespace[key], journal)
  end
  for _, group in pairs(by_namespace) do
    local there, netns = namespace_of(manager, group[1].record)
    if there then
      local names, entries = {}, {}
      for _, journal in ipairs(group) do
        for _, name in ipairs(our_taps(manager, journal.record)) do names[#names + 1] = name end
        for _, entry in ipairs(nat_entries(journal.record)) do entries[#entries + 1] = entry end
      end
      local id = #group == 1 and group[1].id or nil
      if #entries > 0 then
        local ok, err = nat.remove(there, entries, ctx)
        -- Without nft there can be none of a VM of which we only guess that it had some.
        if not ok and err.code == "not_found" and not entries[1].mac then ok = true end
        note(left, id, "NAT", ok, err)
      end
      if #names > 0 then
        note(left, id, "TAPs " .. table.concat(names, " "), there:delete_taps(names, ctx))
      end
      if there ~= manager then there:close() end
      if netns then netns:close() end
    end
  end
end

-- The last process that left a cgroup may be in it for a moment yet.
local function remove_cgroup(folder)
  local ok, err
  for _ = 1, CGROUP_TRIES do
    ok, err = jailer.remove_cgroup(folder)
    if ok or err.code ~= "busy" then break end
    core.poll_many({}, {}, CGROUP_PAUSE)
  end
  return ok, err
end

-- What choose took. A record tells all of it from its first entry on; before, and when it was rebuilt,
-- the leases themselves must be looked through, those of all VMs.
local function leases_of(record)
  local names = {}
  for _, drive in ipairs(record.drives) do names[#names + 1] = drive.lease end
  for _, tap in ipairs(record.taps) do
    names[#names + 1] = "tap-" .. tap.name
    names[#names + 1] = tap.address and "ip-" .. tap.address or nil
    names[#names + 1] = tap.attach and "mac-" .. tap.guest_mac:lower() or nil
  end
  return names
end

local function all_leases(manager)
  local by_owner = setmetatable({}, { __index = function(self, id)
    self[id] = {}
    return self[id]
  end })
  local found, err = lease.list(manager)
  if err then return nil, err end
  for _, entry in ipairs(found) do table.insert(by_owner[entry.owner], entry.name) end
  return by_owner
end

-- The folder, and the journal in it, last and only once there is nothing else: reclaim reads there
-- what to try again.
local function remove_rest(manager, journal, leases, left)
  local record, before, id = journal.record, #left, journal.id
  if record.snapshot and record.snapshot:find("%.partial$") then
    note(left, id, record.snapshot, core.remove_tree(record.snapshot))
  end
  for _, folder in ipairs(record.jail and record.jail.cgroups or {}) do
    note(left, id, folder, remove_cgroup(folder))
  end
  if #left > before then return end
  for _, name in ipairs(leases) do note(left, id, name, lease.release(manager, name, id)) end
  if #left > before then return end
  note(left, id, journal.folder, journal:remove())
end

---Removes what VMs that have ended have on the host. What could not be removed stays in the
---journal of its VM, for reclaim.
---@param manager fcproc.Manager
---@param list fcproc.Journal[]
---@param ctx fcproc.Context?
---@return fcproc.Left[] left  empty: nothing is left
function M.remove(manager, list, ctx)
  local left = {}
  remove_networks(manager, list, ctx, left)
  if #left > 0 then return left end
  local all -- listed once: once for each VM would be the square of the fleet's size
  for _, journal in ipairs(list) do
    local record = journal.record
    if record.state and not record.rebuilt then
      remove_rest(manager, journal, leases_of(record), left)
    else
      local err
      if not all then all, err = all_leases(manager) end
      if all then
        remove_rest(manager, journal, all[journal.id], left)
      else
        note(left, journal.id, "its leases", nil, err)
      end
    end
  end
  return left
end

return M
