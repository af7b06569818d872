-- What a VM has on the host: leases, TAPs, NAT, a folder. Chosen and written down first (choose.lua),
-- made next, and removed in reverse; removing what is not there is a success. Its disks are in disks.lua.

local aliases = require "fcproc.alias"
local address = require "fcproc.network.address"
local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local disks = require "fcproc.resources.disks"
local errors = require "fcproc.error"
local journals = require "fcproc.resources.journal"
local launch = require "fcproc.machine.launch"
local loop = require "fcproc.loop"
local lease = require "fcproc.resources.lease"
local localnet = require "fcproc.resources.localnet"
local namespaces = require "fcproc.resources.namespaces"
local nat = require "fcproc.network.nat"
local partials = require "fcproc.resources.partial"
local processes = require "fcproc.resources.processes"
local publish = require "fcproc.network.publish"
local relays = require "fcproc.resources.relay"
local strays = require "fcproc.resources.strays"
local upkeep = require "fcproc.resources.upkeep"
local uplinks = require "fcproc.network.uplinks"
local users = require "fcproc.resources.users"

local M = {}

local JAIL_TRIES, JAIL_PAUSE = 50, 0.002 -- seconds
local QUIET_LOOKS = 20
local FLUSH_LIMIT = 0.05 -- seconds; it goes on by itself
local MOST_INTERFACES = 17 -- more than Firecracker has room for

-- ---- network -------------------------------------------------------------------------------

local function nat_entries(record)
  if not record.rebuilt then return upkeep.entries(record) end
  local entries = {}
  for _, tap in ipairs(record.taps) do entries[#entries + 1] = { tap = tap.name, id = record.id } end
  return entries -- perhaps
end

-- A bridge has the least MTU of its ports, and with it this host when it sends to any of the guests.
local function tell_of_mtu(journal, tap, before)
  local manager = journal.manager
  local bridge = manager.config.bridge_name
  local now = before and manager.net:link_mtu(bridge)
  if not now or now >= before then return end
  local record = journal.record
  local message = ("the MTU %d of %s has lowered that of the bridge %s from %d to %d, for this host and "
    .. "all guests on it"):format(tap.mtu, tap.name, bridge, before, now)
  record.warnings = record.warnings or {}
  table.insert(record.warnings, { name = "mtu", message = message,
    fix = "give this VM a bridge of its own, or all of them this MTU" })
  manager:_log(core.now(), message, { id = journal.id }, "warn")
end

---Is a port that the VM publishes in use by a socket?
---@param journal fcproc.Journal
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT, with who has it
function M.check_ports(journal, ctx)
  for _, tap in ipairs(journal.record.taps) do
    if tap.ports then
      return publish.check_sockets(journal.manager, tap.ports, journal.record.confined ~= nil, ctx)
    end
  end
  return true
end

-- It goes on by itself when it takes longer. What it concerns is for the log.
local function wait_for_flush(there, concerned, started, op, err, ctx)
  local bounded <close> = core.context(ctx, FLUSH_LIMIT)
  local done, count
  if op then
    done, count = loop.complete(bounded, op)
    err = not done and count or nil
  end
  if err and err.code ~= "deadline" then
    there:_log(started, "connections were not flushed", { first = concerned[1], reason = err.message },
      "warn")
  elseif done and count > 0 then
    there:_log(started, "connections flushed", { first = concerned[1], count = count })
  end
end

-- What was sent by UDP to a port before it was published is remembered as sent to this host.
local function forget_earlier(manager, entries, ctx)
  local ports = {}
  for _, entry in ipairs(entries) do
    for _, port in ipairs(publish.udp(entry.ports or {})) do ports[#ports + 1] = port end
  end
  if #ports == 0 then return end
  local op, err = manager.net:flush_conntrack(ports, ctx)
  wait_for_flush(manager, ports, core.now(), op, err, ctx)
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
  local net = record.confined and manager.net or manager.host_net or manager.net
  for _, tap in ipairs(record.taps) do
    local err
    if tap.attach and not fleet.bridge then
      fleet.bridge, err = manager:_bridge(ctx, net)
      if not fleet.bridge then return nil, err end
    end
    local before = tap.attach and tap.mtu and net:link_mtu(manager.config.bridge_name) or nil
    local started = core.now()
    local made
    made, err = net:create_tap(tap.name, tap.attach and manager.config.bridge_name or nil,
      jail.uid, jail.gid, nil, tap.mtu, tap.attach and tap.isolated or nil,
      tap.attach and fleet.bridge or nil,
      aliases.of(manager.config.runtime_dir, journal.id, tap.keep), ctx)
    if not made then return nil, err end
    tap.mac, tap.ifindex = made.mac, made.ifindex
    tell_of_mtu(journal, tap, before)
    manager:_log(started, "TAP created", { name = tap.name, ifindex = made.ifindex, id = journal.id })
  end
  local entries = nat_entries(record)
  if #entries == 0 then return true end
  local ok, err = upkeep.add(manager, entries, fleet, ctx)
  if ok then ok, err = localnet.acquire(journal, entries) end
  if not ok then return nil, err end
  forget_earlier(manager, entries, ctx)
  return uplinks.check(manager, record, entries, fleet, ctx)
end

-- ---- removing ------------------------------------------------------------------------------

-- One for TAPs in that namespace; nil: in the one where the process is.
local function manager_in(manager, netns)
  return require("fcproc.manager").new{ bridge_name = manager.config.bridge_name,
    runtime_dir = manager.config.runtime_dir, netns = netns, privilege = "direct" }
end

-- TAPs are looked for where they were made, also when the manager was closed meanwhile.
local function namespace_of(manager, record)
  if not record.netns then return manager end
  if manager.host_net and record.netns == namespaces.own() then return manager_in(manager) end
  local lost = manager.closed and manager.own_netns
  if not lost and record.netns == namespaces.of(manager) then
    return manager.closed and manager_in(manager, manager.config.netns) or manager
  end
  local netns, err = namespaces.find(record.netns, record.netns_name)
  local other
  if netns then other, err = manager_in(manager, netns) end
  if other then return other, netns end
  if netns then netns:close() end
  return nil, nil, err
end

-- The TAPs that we made for these VMs: those whose names are leased to them; and where a lease was lost,
-- or the journal, those that bear the VM's alias, which are leased again for it.
local function our_taps(there, group, leases, ctx)
  local names, lost = {}, {}
  for _, journal in ipairs(group) do
    local record, id = journal.record, journal.id
    -- Those of an earlier boot went with it. What has their name now is somebody else's.
    local here = not journals.is_of_earlier_boot(record)
    local whole = not record.rebuilt
    for _, tap in ipairs(here and record.taps or {}) do
      if not tap.keep then
        local leased = leases:holds(("tap-%d-%s"):format(record.netns or 0, tap.name), id)
        if leased then names[#names + 1] = tap.name else whole = false end
      end
    end
    if here and not whole then lost[aliases.of(journal.manager.config.runtime_dir, id)] = id end
  end
  if not next(lost) then return names, {} end
  local more, held = strays.hold(there, leases, lost, ctx)
  if not more then return nil, held end
  return table.move(more, 1, #more, #names + 1, names), held
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
  local confined = core.stat(folder .. "/vmm") and { uid = core.own_uid() } or nil
  local record = { format = 1, id = id, rebuilt = true, state = "unknown", taps = {}, drives = {},
    files = launch.files(folder, jail, confined), confined = confined,
    shape = { jailed = jail ~= nil or nil }, jail = jail, created = os.time() }
  for _, place in ipairs(jail and cgroup.places(folder, id) or {}) do
    if core.stat(place) then jail.cgroup = jail.cgroup or place end
  end
  for i = 0, MOST_INTERFACES - 1 do
    derived[address.tap_name(manager.config.runtime_dir, id, i)] = true
  end
  local leases = lease.open(manager)
  for _, entry in ipairs(leases and leases:list(id) or {}) do
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
  if err.code == "not_found" or err.code == "protocol" then return M.rebuild(manager, id) end
  return nil, err
end

---@class fcproc.Left  what could not be removed
---@field id string?  the VM's; nil: of several
---@field what string  "the TAP fc12ab", "its cgroup": for people
---@field err fcproc.Error

local function note(left, id, what, ok, err)
  if not ok then left[#left + 1] = { id = id, what = what, err = err } end
end

-- What the kernel remembers of the guests' connections would be the next one's who has their address. Begun
-- on a thread while the TAPs go, which takes the kernel longer; it is hardly ever waited for.
local function begin_flush(there, group, ctx)
  local addresses, started = {}, core.now()
  for _, journal in ipairs(group) do
    for _, tap in ipairs(journal.record.taps or {}) do
      if tap.attach and tap.address then addresses[#addresses + 1] = tap.address end
    end
  end
  if #addresses == 0 then return function() end end
  local op, err = there.net:flush_conntrack(addresses, ctx)
  return function() wait_for_flush(there, addresses, started, op, err, ctx) end
end

-- A record tells all of them, but one that was rebuilt, or that an earlier fcproc has written.
local function leases_of(journal, leases)
  local record = journal.record
  if record.leases and not record.rebuilt then return record.leases end
  local found, err = leases:list(journal.id)
  if err then return nil, err end
  local names = {}
  for i, entry in ipairs(found) do names[i] = entry.name end
  return names
end

local function remove_network(there, group, leases, ctx, left)
  local id = #group == 1 and group[1].id or nil
  local entries = {}
  for _, journal in ipairs(group) do -- before what keeps guests from the host's loopback goes
    local names, err = leases_of(journal, leases)
    local ok = names
    if ok then ok, err = localnet.release(there, leases, journal.id, names) end
    if not ok then return note(left, journal.id, "route_localnet of the bridge", nil, err) end
  end
  for _, journal in ipairs(group) do
    for _, entry in ipairs(nat_entries(journal.record)) do entries[#entries + 1] = entry end
  end
  if #entries > 0 then
    local ok, err = nat.remove(there, entries, ctx)
    -- Without nft there can be none of a VM of which we only guess that it had some.
    if not ok and err.code == "not_found" and not entries[1].mac then ok = true end
    note(left, id, "NAT", ok, err)
  end
  local end_flush = begin_flush(there, group, ctx)
  local names, held = our_taps(there, group, leases, ctx)
  if not names then return note(left, id, "TAPs", nil, held) end
  if #names > 0 then
    note(left, id, "TAPs " .. table.concat(names, " "), there:delete_taps(names, ctx))
  end
  end_flush()
  for _, journal in ipairs(group) do
    for _, name in ipairs(held) do leases:release(name, journal.id) end
  end
end

-- Their namespace is not to be found: it went with the last that held it, or who does is not seen. A
-- rootless one goes with its VMs and managers, and nothing of it is anybody else's.
local function note_unseen(group, left, err)
  if not err and (processes.all_seen() or group[1].record.confined) then return end
  for _, journal in ipairs(group) do
    local names = {}
    for _, tap in ipairs(journal.record.taps or {}) do
      if not tap.keep then names[#names + 1] = tap.name end
    end
    note(left, journal.id, "TAPs " .. table.concat(names, " "), #names == 0, err or errors.new{
      code = "not_found", op = "vm.reclaim", message = "their network namespace can't be seen from this "
        .. "PID namespace: try again in the host's own" })
  end
end

-- All the VMs' TAPs as one link group, and their NAT in one transaction.
local function remove_networks(manager, list, leases, ctx, left)
  local by_namespace = {}
  for _, journal in ipairs(list) do
    local key = journal.record.netns or 0
    by_namespace[key] = by_namespace[key] or {}
    table.insert(by_namespace[key], journal)
  end
  for _, group in pairs(by_namespace) do
    local there, netns, err = namespace_of(manager, group[1].record)
    if there then
      remove_network(there, group, leases, ctx, left)
      if there ~= manager then there:close() end
      if netns then netns:close() end
    elseif not journals.is_of_earlier_boot(group[1].record) then
      note_unseen(group, left, err)
    end
  end
end

-- Who is in the jail yet, or has its uid when that was chosen for this VM: then it is not the next one's.
-- One that was just killed is there for a moment.
local function check_jail(jail)
  if not jail.uid or jail.uid == 0 then return true end
  local pid, seen
  local quiet = 0 -- looks in turn that found nobody
  for _ = 1, JAIL_TRIES do
    if not core.uid_in_use(jail.uid) then return true end
    local found <close>, unseen = core.open_by_root(jail.root)
    pid = found and found:pid()
    if not found and unseen.code ~= "not_found" then return nil, unseen end
    if not found and jail.auto then pid, _, unseen = processes.of_user(jail.uid) end
    if not pid and unseen and unseen.code ~= "not_found" then return nil, unseen end
    seen, quiet = pid or seen, pid and 0 or quiet + 1
    -- All who were in its cgroup have ended: who has the uid is dead, or a user of the host's own. Without
    -- one, who forks faster than /proc is read is not seen at each look.
    if quiet == (jail.cgroup and 1 or QUIET_LOOKS) then return true end
    core.poll_many({}, {}, JAIL_PAUSE)
  end
  return nil, errors.new{ code = "busy", op = "vm.reclaim", pid = seen,
    message = ("pid %d is in it yet, or has its uid %d: end it"):format(seen, jail.uid) }
end

-- The folder, and the journal in it, last and only once there is nothing else: reclaim reads there
-- what to try again.
local function remove_rest(journal, leases, names, left)
  local record, before, id = journal.record, #left, journal.id
  if record.snapshot then note(left, id, record.snapshot, partials.remove(record.snapshot, id)) end
  if record.jail and not journals.is_of_earlier_boot(record) then
    note(left, id, "the jail " .. record.jail.root, check_jail(record.jail))
    if #left == before then note(left, id, "mounts in " .. record.jail.root, disks.unmount(record)) end
  end
  if #left > before then return end
  for _, name in ipairs(names) do note(left, id, name, leases:release(name, id)) end
  if #left > before then return end
  users.remove(record.drives or {}, journal.folder)
  note(left, id, journal.folder, journal:remove())
end

-- First, so that nobody is left who has their TAPs and disks: ends all who are in the cgroups of the VMs'
-- own. Those of which none is left, and how many there were.
local function end_cgroups(manager, list, ctx, left)
  local ended, others = {}, {}
  for _, journal in ipairs(list) do
    local record, id = journal.record, journal.id
    if record.relay and not journals.is_of_earlier_boot(record) then
      note(left, id, "the relay of its published ports", relays.stop(record, ctx))
    end
    local jail = not journals.is_of_earlier_boot(record) and record.jail -- else they went with the boot
    local killed, err = 0, nil
    local started = core.now()
    if jail then killed, err = cgroup.remove_all(jail, manager.config.without, ctx) end
    if killed then
      if killed > 0 then
        manager:_log(started, "other processes of a jail were killed", { id = id, count = killed }, "warn")
      end
      ended[#ended + 1], others[id] = journal, killed > 0 and killed or nil
    else
      note(left, id, err.path, nil, err)
    end
  end
  return ended, others
end

---Removes what VMs that have ended have on the host. What could not be removed stays in the
---journal of its VM, for reclaim.
---@param manager fcproc.Manager
---@param list fcproc.Journal[]
---@param ctx fcproc.Context?
---@return fcproc.Left[] left  empty: nothing is left
---@return table<string, integer> others  by id: how many other processes were in its cgroups, and killed
function M.remove(manager, list, ctx)
  local left, lost = {}, false -- a lease of a TAP may have to be taken again
  local ended, others = end_cgroups(manager, list, ctx, left)
  local before = #left
  for _, journal in ipairs(ended) do
    lost = lost or journal.record.rebuilt or (journal.record.taps or {})[1] ~= nil
  end
  local leases, err = lease.open(manager, lost)
  if not leases then
    for _, journal in ipairs(ended) do note(left, journal.id, "its leases", nil, err) end
    return left, others
  end
  remove_networks(manager, ended, leases, ctx, left)
  if #left > before then return left, others end
  for _, journal in ipairs(ended) do
    local names
    names, err = leases_of(journal, leases)
    if names then
      remove_rest(journal, leases, names, left)
    else
      note(left, journal.id, "its leases", nil, err)
    end
  end
  return left, others
end

return M
