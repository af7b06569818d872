-- VMs that this manager has not launched: finding their processes, taking over those that live, and
-- removing what dead ones left. In doubt, hands off: what is not known to be dead is not touched.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local host = require "fcproc.vm.host"
local journals = require "fcproc.vm.journal"
local launch = require "fcproc.launch"
local lease = require "fcproc.vm.lease"
local lives = require "fcproc.vm.life"
local loop = require "fcproc.loop"
local machines = require "fcproc.machine"
local objects = require "fcproc.vm.object"
local options = require "fcproc.options"
local outputs = require "fcproc.outputs"
local place = require "fcproc.vm.place"
local snapshot = require "fcproc.vm.snapshot"
local specs = require "fcproc.vm.spec"
local strays = require "fcproc.vm.strays"
local upkeep = require "fcproc.vm.upkeep"

local M = {}

local LOG_HEAD = 65536 -- bytes
local EXIT_LIMIT, ANSWER_LIMIT, SNAPSHOT_LIMIT = 1, 3, 60 -- seconds

-- The record of a journal, or one made up from what else there is. nil: hands off.
local function record_of(manager, id, record, err)
  if record then return record end
  if err.code == "not_found" or err.code == "protocol" then return host.rebuild(manager, id) end
  return nil, err
end

-- Whatever has become of its socket since.
local function has_booted(record)
  local log = outputs.read(record.files, "log", 0, LOG_HEAD)
  return log and log:find(launch.BOOTED, 1, true) ~= nil
end

-- The VMM of a jail: who listens there, and is in it. When that is somebody else's socket, whoever is.
local function find_in_jail(manager, record)
  local process, err = place.listener(record, manager.config.without)
  if process or errors.lacks_descriptors(err) then return process, err end
  local life = lives.of(record, manager.config.without)
  return life.process, life.err
end

-- A VM whose manager died while it started may not listen yet, and behind a jailer the process may
-- not yet be the one that will. The live VMM, or nil when it ended. One that was spawned by us and has
-- lost its socket is the VMM all the same.
local function wait_until_started(manager, record, process, ctx)
  local left = (record.created or 0) + launch.TIMEOUT - os.time()
  local known = not record.jail and not record.rebuilt
  if known and has_booted(record) then return process end
  while process do
    local done, listens = loop.complete(ctx, process:wait_server_op(record.files.socket,
      known and math.max(0, math.min(left, launch.TIMEOUT)) or launch.TIMEOUT,
      "firecracker api socket", manager.config.without, ctx))
    local unheard = not done and loop.check(ctx) and not errors.lacks_descriptors(listens)
    if unheard and not record.rebuilt then return process end
    if listens and done and not record.jail then return process end
    process:close()
    if not done then return nil, listens end
    if listens then return find_in_jail(manager, record) end
    local life = lives.of(record, manager.config.without)
    process = life.process
    if not process then return nil, life.err end
  end
end

local ELSEWHERE = "pid %d, which its journal names, is alive and not in its folder: it is none of its "
  .. "processes, and was not touched"

local function dead(journal, cause, elsewhere)
  local message = ("the VM '%s' is dead; what it left is in %s: reclaim it"):format(journal.id,
    journal.folder)
  if elsewhere then message = ("%s (%s)"):format(message, ELSEWHERE:format(elsewhere)) end
  return errors.new{ code = "not_found", op = "vm.adopt", path = journal.folder, cause = cause,
    pid = elsewhere, state = "dead", message = message }
end

-- What its API says, or that it says nothing or nonsense, is no reason not to take it: to end it, its
-- API is not needed. But one that is gone is, and we may be the ones who could not ask.
local function is_unheard(vm, err, ctx)
  return loop.check(ctx) and not errors.lacks_descriptors(err) and err.code ~= "nomem"
    and not vm.machine:ended_by(err, ctx)
end

-- Somebody may have removed them.
local function restore_leases(vm)
  local names = vm.journal.record.leases
  local leases = names and names[1] and lease.open(vm.manager, true)
  if leases then leases:restore(names, vm.id) end
end

-- A snapshot that was under way is undone, and the journal says who the VMM is.
local function take_over(vm, ctx)
  local record = vm.journal.record
  local started, interrupted, paused = core.now(), record.snapshot, record.paused
  -- While it writes a snapshot it answers nothing else.
  local bounded <close> = core.context(ctx or core.default_context(),
    record.snapshot and SNAPSHOT_LIMIT or ANSWER_LIMIT)
  local state, err = vm.machine:state(bounded)
  if state then
    local undone
    undone, err = snapshot.finish_interrupted(vm, ctx)
    if undone then err = nil elseif err.op ~= "api.request" then return nil, err end
    if interrupted then paused = record.paused else paused = state == "Paused" or nil end
  end
  if err then
    if not is_unheard(vm, err, ctx) then return nil, vm.machine:failure("adopt", err) end
    vm.machine:disconnect() -- its answer may still come, to the wrong question
    vm.manager:_log(started, "adopted without an answer of its API", { id = vm.id,
      pid = vm.machine.process:pid(), reason = err.message }, "warn")
  end
  restore_leases(vm)
  local own = journals.own_pid()
  if record.state == "running" and record.process and record.manager == own
    and record.paused == paused then
    return true
  end
  record.manager, record.paused = own, paused
  local identity
  identity, err = vm.machine.process:identity()
  if not identity then return nil, err end
  record.process = lives.seal(identity)
  vm.journal:try_save("running")
  return true
end

local function take(manager, id, ctx, to_kill)
  options.argument(id, "string", "vm.adopt", "id")
  local ok, reason = specs.check_id(id)
  if not ok then
    return nil, errors.new{ code = "invalid", op = "vm.adopt", message = "id: " .. reason }
  end
  ctx = loop.context(ctx)
  local err
  ok, err = manager:_check_open("vm.adopt")
  if ok then ok, err = loop.check(ctx) end
  if not ok then return nil, err end
  local journal
  journal, err = journals.open(manager, id)
  if not journal then return nil, err end
  local vm, handed_out = objects.new(manager, journal), false
  local _ <close> = finally(function()
    if handed_out then return end
    if vm.machine then vm.machine:close() end
    journal:close()
  end)
  local record
  record, err = record_of(manager, id, journal.record, err)
  if not record then return nil, err end
  journal.record = record
  local life <close> = lives.of(record, manager.config.without)
  if life.state ~= "alive" then return nil, life.err or dead(journal, nil, life.elsewhere) end
  if not life.process then return nil, life.err end
  local process = life:take()
  if record.state ~= "running" and not to_kill then
    process, err = wait_until_started(manager, record, process, ctx)
  end
  if not process then return nil, err or dead(journal) end
  vm.machine = machines.attach(manager, process, record.files, record.shape)
  vm.unfinished = record.state ~= "running"
  if to_kill then
    handed_out = true
    return vm
  end
  ok, err = take_over(vm, ctx)
  -- Its socket is shut a moment before it is gone.
  if not ok and vm.machine:wait(err.code == "exit_status" and EXIT_LIMIT or 0, ctx) then
    err = dead(journal, err)
  end
  if not ok then return nil, err end
  vm:cap()
  ok, err = vm:_hold()
  if not ok then return nil, err end
  handed_out = true
  return vm
end

---Takes over a VM that runs: one that was detached, or whose manager has died, also while it started
---or took a snapshot, which is undone. A VM whose journal is lost is rebuilt from what else there is.
---One whose API does not answer as it should is taken all the same, and that is logged.
---@param manager fcproc.Manager
---@param id string
---@param ctx fcproc.Context?
---@return fcproc.Vm? vm
---@return fcproc.Error? err  ERR_BUSY: another manager has it, with its pid; ERR_NOT_FOUND: there is
---                           none, or it is dead (state is then "dead"); ERR_CONFLICT: its journal says
---                           what can't be; ERR_UNSUPPORTED: a newer fcproc made it; ERR_INVALID: that
---                           can't be an id; ERR_CLOSED: the manager was
function M.adopt(manager, id, ctx)
  return take(manager, id, ctx)
end

---As adopt, at once and only to kill it: nothing is asked of its API.
---@param manager fcproc.Manager
---@param id string
---@param ctx fcproc.Context?
---@return fcproc.Vm? vm
---@return fcproc.Error? err  as fcproc.vm.adopt's
function M.adopt_to_kill(manager, id, ctx)
  return take(manager, id, ctx, true)
end

---@class fcproc.VmSummary
---@field id string
---@field state "running"|"paused"|"dead"|"making"|"unknown"  paused: by vm:pause, a restore, or a snapshot
---                                                           whose manager died (adopt lets it go on);
---                                                           unknown: err says why
---@field err fcproc.Error?  why nobody can tell more; also of one that runs and is out
---                           of reach, in another PID namespace
---@field pid integer?       the VMM's
---@field address string?    the first of the guest's
---@field created integer?  seconds since 1970
---@field managed boolean   a manager has it in its hands

local function state_of(record, life, managed)
  local cut_off = record.snapshot and not managed -- in the middle of a snapshot
  if life.state == "alive" then return (record.paused or cut_off) and "paused" or "running" end
  if managed and (life.state == "dead" or life.err.code == "busy") then return "making" end
  return life.state
end

---All VMs of the runtime folder, alive or dead. None of them is disturbed.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return fcproc.VmSummary[]? vms
---@return fcproc.Error? err  ERR_CONFLICT, ERR_PERMISSION: the runtime folder is not ours alone; of a
---                           single VM err is in its entry
function M.list(manager, ctx)
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local ids
  ids, err = journals.ids(manager)
  if not ids then return nil, err end
  local list = {}
  for _, id in ipairs(ids) do
    local managed = journals.is_locked(manager, id)
    local record, problem = record_of(manager, id, journals.read(manager, id))
    local life <close> = record and lives.of(record, manager.config.without)
    local state = life and state_of(record, life, managed) or "unknown"
    local process = life and life.process
    local summary = { id = id, created = record and record.created, managed = managed, state = state,
      pid = process and process:pid(), err = problem or state ~= "making" and life.err or nil }
    record = record or {}
    for _, tap in ipairs(record.taps or {}) do summary.address = summary.address or tap.address end
    list[#list + 1] = summary
  end
  return list
end

---@class fcproc.VmWarning
---@field name string     "forwarding", "nat", ...
---@field message string
---@field fix string?     what to do about it

---@class fcproc.VmTap
---@field name string          of its TAP
---@field guest_mac string
---@field address string?      the guest's
---@field attach boolean?      on the bridge
---@field isolated boolean?
---@field nat string?          its uplink
---@field mtu integer?

---@class fcproc.VmDrive
---@field id string
---@field name string          what Firecracker opens, in the VM's folder or jail
---@field path string          what the spec named
---@field root boolean?
---@field read_only boolean?
---@field copy ("reflink"|"sparse")?

---@class fcproc.VmInfo: fcproc.VmSummary
---@field folder string      the VM's
---@field version string?    Firecracker's
---@field binary string?
---@field vcpus integer?
---@field mem_mib integer?
---@field uptime integer?    seconds
---@field taps fcproc.VmTap[]
---@field drives fcproc.VmDrive[]
---@field files table<string, string>  folder, socket, console, log, metrics: where they are on the host
---@field jail table<string, any>?  root, uid, gid, cgroups, ...
---@field warnings fcproc.VmWarning[]?  what kept it from its uplink when it was launched; "cgroup", when
---                                      its jail has none of its own; and "nat", when it runs and the
---                                      kernel has lost its NAT
---@field exit fcproc.Exit?  how a dead one ended, when that can be known ...
---@field description string?  ... and in a sentence
---@field manager integer?  the pid of who has it in his hands
---@field console string?   its file; nil: a daemonized jailer has closed it
---@field identity fcproc.Identity?  of the process that was started, for fcproc.process

local function look(manager, id, ctx, ask)
  options.argument(id, "string", "vm.inspect", "id")
  ctx = loop.context(ctx)
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local valid, reason = specs.check_id(id)
  if not valid then
    return nil, errors.new{ code = "invalid", op = "vm.inspect", message = "id: " .. reason }
  end
  ok, err = journals.find(manager, id, "vm.inspect")
  if not ok then return nil, err end
  local managed = journals.is_locked(manager, id)
  local record
  record, err = record_of(manager, id, journals.read(manager, id))
  if not record then return nil, err end
  local life <close> = lives.of(record, manager.config.without)
  if life.err then return nil, life.err end
  local process = life:take()
  local vm = objects.new(manager, { id = id, record = record, folder = journals.folder(manager, id) })
  local _ <close> = finally(function()
    if vm.machine then vm.machine:close() end
  end)
  if process then vm.machine = machines.attach(manager, process, record.files, record.shape) end
  local info
  if ask then info, err = vm:info(ctx) else info = vm:_facts() end
  if not info then return nil, err end
  info.managed, info.manager = managed, managed and journals.holder(manager, id) or nil
  if not process then info.state = managed and "making" or "dead" end
  info.identity = process and process:identity()
  info.console = record.files and not record.shape.daemonize and record.files.console or nil
  return info
end

---Looks at a VM without taking it: it may be in the hands of another manager, and stays there.
---@param manager fcproc.Manager
---@param id string
---@param ctx fcproc.Context?
---@return fcproc.VmInfo? info  as vm:info gives it; state may be "dead" or "making", too
---@return fcproc.Error? err  ERR_NOT_FOUND: there is none; ERR_CONFLICT: its journal says what can't
---                           be; ERR_UNSUPPORTED: a newer fcproc made it; ERR_INVALID: that can't be an
---                           id; ERR_BUSY: who is its VMM can't be told yet
function M.inspect(manager, id, ctx)
  return look(manager, id, ctx, true)
end

---As inspect, without a word to its API: no state of one that lives, and no version.
---@param manager fcproc.Manager
---@param id string
---@param ctx fcproc.Context?
---@return fcproc.VmInfo? info
---@return fcproc.Error? err  as fcproc.vm.inspect's
function M.facts(manager, id, ctx)
  return look(manager, id, ctx, false)
end

-- ---- removing what dead VMs left -------------------------------------------------------------

---@class fcproc.Reclaimed
---@field reclaimed string[]  VMs of which nothing is left
---@field alive string[]      VMs that run, and were not touched
---@field busy string[]       in the hands of a manager
---@field unknown { id: string, err: fcproc.Error }[]  that may live, and were not touched: err says why
---@field failed { id: string, left: fcproc.Left[] }[]  VMs that are dead, and of which this stays
---@field leases integer      leases without a VM that were dropped
---@field taps integer        TAPs without a VM that were removed
---@field nat integer         guests' NAT without a VM that was removed

-- "dead" with its journal and lock; "alive", "busy", "gone"; or "unknown" or "failed" with why. Of one that
-- is unknown somebody may have said that it is dead.
local function open_dead(manager, id, said_to_be_dead)
  do -- first without the lock, which somebody may just want to take for a VM that lives
    local record = record_of(manager, id, journals.read(manager, id))
    local life <close> = record and lives.of(record, manager.config.without)
    if life and life.state == "alive" then return "alive" end
  end
  local journal, err = journals.open(manager, id)
  if not journal then
    if err.code == "busy" then return "busy" end
    if err.code == "not_found" then return "gone" end
    return "failed", err
  end
  journal.record, err = record_of(manager, id, journal.record, err)
  local life <close> = journal.record and lives.of(journal.record, manager.config.without)
  local state = life and life.state or "failed"
  if life and life.elsewhere then
    manager:_log(core.now(), ELSEWHERE:format(life.elsewhere), { id = id, pid = life.elsewhere }, "warn")
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
  return { reclaimed = {}, alive = {}, busy = {}, unknown = {}, failed = {}, leases = 0, taps = 0, nat = 0 }
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
  return report
end

return M
