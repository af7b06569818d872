-- Removing what dead VMs left. In doubt, hands off: what is not known to be dead is not touched.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local host = require "fcproc.resources.host"
local journals = require "fcproc.resources.journal"
local lease = require "fcproc.resources.lease"
local lives = require "fcproc.resources.life"
local localnet = require "fcproc.resources.localnet"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local rebuild = require "fcproc.resources.rebuild"
local relays = require "fcproc.resources.relay"
local strays = require "fcproc.resources.strays"
local upkeep = require "fcproc.resources.upkeep"

local M = {}

---@class fcproc.Reclaimed
---@field reclaimed string[]  VMs of which nothing is left
---@field alive string[]      VMs that run, and were not touched
---@field busy string[]       in the hands of a manager
---@field unknown { id: string, err: fcproc.Error }[]  that may live, and were not touched: err says why
---@field failed { id: string, left: fcproc.Left[] }[]  VMs that are dead, and of which this stays
---@field leases integer      leases without a VM that were dropped
---@field taps integer        TAPs without a VM that were removed
---@field nat integer         guests' NAT without a VM that was removed
---@field relays { id: string, err: fcproc.Error? }[]  VMs that run, and whose relay of published ports had
---                           ended: it was started again, or could not be

-- "dead" with its journal and lock; "alive", "busy", "gone"; or "unknown" or "failed" with why. Of one that
-- is unknown somebody may have said that it is dead.
local function open_dead(manager, id, said_to_be_dead)
  do -- first without the lock, which somebody may just want to take for a VM that lives
    local record = rebuild.record_of(manager, id, journals.read(manager, id))
    local life <close> = record and lives.of(record, manager.config.without)
    if life and life.state == "alive" then return "alive" end
  end
  local journal, err = journals.open(manager, id)
  if not journal then
    if err.code == "busy" then return "busy" end
    if err.code == "not_found" then return "gone" end
    return "failed", err
  end
  journal.record, err = rebuild.record_of(manager, id, journal.record, err)
  local life <close> = journal.record and lives.of(journal.record, manager.config.without)
  local state = life and life.state or "failed"
  if life and life.elsewhere then
    manager:_log(core.now(), lives.ELSEWHERE:format(life.elsewhere), { id = id, pid = life.elsewhere },
      "warn")
  end
  if state == "unknown" and life.err.code ~= "unsupported" then state = "failed" end
  if state == "dead" or state == "unknown" and said_to_be_dead then return "dead", journal end
  journal:close()
  return state, err or life.err
end

-- What an earlier try or a crash left of one that is dead.
local function reclaim_one(manager, id, report, ctx, said_to_be_dead)
  local state, found = open_dead(manager, id, said_to_be_dead)
  if state == "dead" then
    local left = host.remove(manager, { found }, ctx)
    if #left == 0 then
      table.insert(report.reclaimed, id)
    else
      found:close()
      table.insert(report.failed, { id = id, left = left })
    end
  elseif state == "failed" then
    table.insert(report.failed, { id = id, left = { { id = id, what = "vm.json", err = found } } })
  elseif state == "unknown" then
    table.insert(report.unknown, { id = id, err = found })
  elseif report[state] then
    table.insert(report[state], id)
  end
end

local function new_report()
  return { reclaimed = {}, alive = {}, busy = {}, unknown = {}, failed = {}, leases = 0, taps = 0, nat = 0,
    relays = {} }
end

---Removes what one dead VM left.
---@param manager fcproc.Manager
---@param id string
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  with left; ERR_BUSY, ERR_CONFLICT: it lives after all
function M.remove_dead(manager, id, ctx)
  local report = new_report()
  reclaim_one(manager, id, report, ctx)
  local failed, unknown = report.failed[1], report.unknown[1]
  if unknown then return nil, unknown.err end
  if failed then
    local first = failed.left[1]
    return nil, errors.new{ code = first.err.code, op = "vm.reclaim", cause = first.err, left = failed.left,
      message = ("of the dead VM '%s' this could not be removed: %s (%s)"):format(id, first.what,
        tostring(first.err)) }
  elseif report.alive[1] or report.busy[1] then
    return nil, errors.new{ code = "busy", op = "vm.reclaim",
      message = ("the VM '%s' is in the hands of another manager, or alive"):format(id) }
  end
  return true
end

-- What a VM has whose folder somebody removed: TAPs and leases. In use, it stays, and is told.
local function sweep_rest(manager, report, ctx)
  local function fail(entry)
    for _, failed in ipairs(report.failed) do
      if failed.id == entry.id then return table.insert(failed.left, entry) end
    end
    table.insert(report.failed, { id = entry.id, left = { entry } })
  end
  local removed, left = strays.remove(manager, ctx)
  if not removed then return nil, left end
  report.taps = #removed
  for _, entry in ipairs(left) do fail(entry) end
  local leases, err = lease.open(manager)
  if not leases then return nil, err end
  local ok, unswept = localnet.sweep(manager, leases)
  if not ok then return nil, unswept end
  local kept
  report.leases, kept = leases:sweep()
  for _, entry in ipairs(kept) do
    fail{ id = entry.lease.owner, what = "the lease " .. entry.lease.name, err = errors.new{
      code = "busy", op = "vm.reclaim", message = ("%s, though the VM '%s' has no folder any more: end "
        .. "that process"):format(entry.by, entry.lease.owner) } }
  end
  return true
end

---@class fcproc.ReclaimOptions
---@field unknown string[]?  the ids of VMs that can't be judged from here, and that the caller knows to be
---                          dead. One that is seen to live stays all the same

---Removes all that dead VMs left: TAPs, NAT, jails, cgroups, leases, folders. VMs that run and VMs
---that a manager has in its hands are not touched, nor is what fcproc has not made. What can't be judged,
---as from another PID namespace, stays.
---@param manager fcproc.Manager
---@param opts fcproc.ReclaimOptions?
---@param ctx fcproc.Context?
---@return fcproc.Reclaimed? report
---@return fcproc.Error? err  ERR_CONFLICT, ERR_PERMISSION: the runtime folder is not ours alone; what
---                           could not be removed of a single VM is in the report
---@overload fun(manager: fcproc.Manager, ctx: fcproc.Context): fcproc.Reclaimed?, fcproc.Error?
function M.reclaim(manager, opts, ctx)
  if type(opts) == "userdata" and ctx == nil then opts, ctx = nil, opts end
  options.check(opts, { unknown = "table" }, "vm.reclaim")
  local ok, err = manager:_check_open("vm.reclaim")
  if ok then ok, err = loop.check(ctx) end
  if ok and manager.config.netns then ok, err = manager:_enter() end
  if not ok then return nil, err end
  ctx = loop.context(ctx)
  local ids
  ids, err = journals.ids(manager)
  if not ids then return nil, err end
  local report, said_to_be_dead = new_report(), {}
  for _, id in ipairs(opts and opts.unknown or {}) do said_to_be_dead[id] = true end
  for _, id in ipairs(ids) do
    ok, err = loop.check(ctx)
    if not ok then return nil, err end
    reclaim_one(manager, id, report, ctx, said_to_be_dead[id])
  end
  journals.sweep(manager)
  ok, err = sweep_rest(manager, report, ctx)
  if not ok then return nil, err end
  report.nat = upkeep.sweep(manager, ctx)
  upkeep.guard(manager, ctx)
  report.relays = relays.mend(manager)
  return report
end

return M
