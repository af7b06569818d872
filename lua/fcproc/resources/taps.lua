-- A VM's network on the host: its TAPs, their NAT, and what the kernel remembers of its guest's connections.
-- Chosen and written down before (choose.lua); removing what is not there is a success.

local aliases = require "fcproc.alias"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local inuse = require "fcproc.resources.inuse"
local journals = require "fcproc.resources.journal"
local localnet = require "fcproc.resources.localnet"
local loop = require "fcproc.loop"
local namespaces = require "fcproc.resources.namespaces"
local nat = require "fcproc.network.nat"
local processes = require "fcproc.resources.processes"
local publish = require "fcproc.network.publish"
local strays = require "fcproc.resources.strays"
local upkeep = require "fcproc.resources.upkeep"
local uplinks = require "fcproc.network.uplinks"

local M = {}

local FLUSH_LIMIT = 0.05 -- seconds; it goes on by itself

---@class fcproc.Left  what could not be removed
---@field id string?  the VM's; nil: of several
---@field what string  "the TAP fc12ab", "its cgroup": for people
---@field err fcproc.Error

---Notes what could not be removed, if it was not.
---@param left fcproc.Left[]
---@param id string?
---@param what string
---@param ok any  true: it was
---@param err fcproc.Error?
function M.note(left, id, what, ok, err)
  if not ok then left[#left + 1] = { id = id, what = what, err = err } end
end

local note = M.note

-- ---- making --------------------------------------------------------------------------------

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
function M.make(journal, fleet, ctx)
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
  local other, netns, err
  local lost = manager.closed and manager.own_netns
  if manager.host_net and record.netns == namespaces.own() then
    other, err = manager_in(manager)
  elseif not lost and record.netns == namespaces.of(manager) then
    if not manager.closed then return manager end
    other, err = manager_in(manager, manager.config.netns)
  else
    netns, err = namespaces.find(record.netns, record.netns_name)
    if netns then other, err = manager_in(manager, netns) end
  end
  if other then return other, netns end
  if netns then netns:close() end
  return nil, nil, err
end

-- The TAPs that we made for these VMs: those whose names are leased to them; and where a lease was lost,
-- or the journal, those that bear the VM's alias, which are leased again for it.
local function our_taps(there, group, leases, ctx)
  local names, known, lost = {}, {}, {}
  for _, journal in ipairs(group) do
    local record, id = journal.record, journal.id
    -- Those of an earlier boot went with it. What has their name now is somebody else's.
    local here = not journals.is_of_earlier_boot(record)
    local whole = not record.rebuilt
    for _, tap in ipairs(here and record.taps or {}) do
      if not tap.keep then
        local leased = leases:holds(("tap-%d-%s"):format(record.netns or 0, tap.name), id)
        if leased then names[#names + 1], known[tap.name] = tap.name, true else whole = false end
      end
    end
    if here and not whole then lost[aliases.of(journal.manager.config.runtime_dir, id)] = id end
  end
  if not next(lost) then return names, {} end
  local more, held = strays.hold(there, leases, lost, ctx)
  if not more then return nil, held end
  for _, name in ipairs(more) do
    if not known[name] then names[#names + 1] = name end
  end
  return names, held
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

local function remove_network(there, group, leases, ctx, left)
  local id = #group == 1 and group[1].id or nil
  local entries = {}
  for _, journal in ipairs(group) do -- before what keeps guests from the host's loopback goes
    local names, err = leases:names_of(journal)
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
    local deleted, err = there:delete_taps(names, ctx)
    if err then err = inuse.explain(names, namespaces.of(there), err) end
    note(left, id, (#names == 1 and "TAP " or "TAPs ") .. table.concat(names, " "), deleted, err)
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

---All the VMs' TAPs as one link group, and their NAT in one transaction.
---@param manager fcproc.Manager
---@param list fcproc.Journal[]
---@param leases fcproc.Leases
---@param ctx fcproc.Context?
---@param left fcproc.Left[]  what could not be removed is added
function M.remove(manager, list, leases, ctx, left)
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

return M
