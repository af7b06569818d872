-- The removal of what VMs that have ended have on the host, in the reverse of its making: their cgroups,
-- network (taps.lua), jails, leases and folders. Removing what is not there is a success.

local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local disks = require "fcproc.resources.disks"
local errors = require "fcproc.error"
local journals = require "fcproc.resources.journal"
local lease = require "fcproc.resources.lease"
local partials = require "fcproc.resources.partial"
local processes = require "fcproc.resources.processes"
local relays = require "fcproc.resources.relay"
local taps = require "fcproc.resources.taps"
local users = require "fcproc.resources.users"

local M = {}

local JAIL_TRIES, JAIL_PAUSE = 50, 0.002 -- seconds
local QUIET_LOOKS = 20

local note = taps.note

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
  taps.remove(manager, ended, leases, ctx, left)
  if #left > before then return left, others end
  for _, journal in ipairs(ended) do
    local names
    names, err = leases:names_of(journal)
    if names then
      remove_rest(journal, leases, names, left)
    else
      note(left, journal.id, "its leases", nil, err)
    end
  end
  return left, others
end

return M
