-- VMs that this manager has not launched: looking at them, and taking over those that live. In doubt,
-- hands off. What dead ones left is removed by resources/reclaim.lua.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local journals = require "fcproc.resources.journal"
local launch = require "fcproc.machine.launch"
local lease = require "fcproc.resources.lease"
local lives = require "fcproc.resources.life"
local loop = require "fcproc.loop"
local machines = require "fcproc.machine"
local objects = require "fcproc.vm.object"
local options = require "fcproc.options"
local outputs = require "fcproc.machine.outputs"
local place = require "fcproc.resources.place"
local publish = require "fcproc.network.publish"
local rebuild = require "fcproc.resources.rebuild"
local relays = require "fcproc.resources.relay"
local snapshot = require "fcproc.vm.snapshot"
local specs = require "fcproc.vm.spec"
local upkeep = require "fcproc.resources.upkeep"

local M = {}

local LOG_HEAD = 65536 -- bytes
local EXIT_LIMIT, ANSWER_LIMIT, SNAPSHOT_LIMIT = 1, 3, 60 -- seconds

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

local function dead(journal, cause, elsewhere)
  local message = ("the VM '%s' is dead; what it left is in %s: fcproc.vm.reclaim removes it"):format(
    journal.id, journal.folder)
  if elsewhere then message = ("%s (%s)"):format(message, lives.ELSEWHERE:format(elsewhere)) end
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
  local started, interrupted, paused = core.now(), record.snapshot and record.resume, record.paused
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
  relays.ensure(vm.journal, vm.machine.process)
  if publish.at_loopback(upkeep.ports(record)) then upkeep.guard(vm.manager, ctx) end
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
  record, err = rebuild.record_of(manager, id, journal.record, err)
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
  vm.machine.outer = record.outer
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
  vm.machine:disconnect() -- until it is asked again: a connection takes five descriptors
  vm:cap()
  ok, err = vm:_hold()
  if not ok then return nil, err end
  handed_out = true
  return vm
end

-- Handles that nobody has any more hold descriptors until they are collected.
local function take_if_room(manager, id, ctx, to_kill)
  local vm, err = take(manager, id, ctx, to_kill)
  if vm or not errors.lacks_descriptors(err) then return vm, err end
  collectgarbage() -- twice: what is freed only then may hold others
  collectgarbage()
  return take(manager, id, ctx, to_kill)
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
  return take_if_room(manager, id, ctx)
end

---As adopt, at once and only to kill it: nothing is asked of its API.
---@param manager fcproc.Manager
---@param id string
---@param ctx fcproc.Context?
---@return fcproc.Vm? vm
---@return fcproc.Error? err  as fcproc.vm.adopt's
function M.adopt_to_kill(manager, id, ctx)
  return take_if_room(manager, id, ctx, true)
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
---@field ports fcproc.Port[]  of this host that lead to the guest
---@field created integer?  seconds since 1970
---@field managed boolean   a manager has it in its hands

local function state_of(record, life, managed)
  local cut_off = record.snapshot and record.resume and not managed -- in the middle of a snapshot
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
    local record, problem = rebuild.record_of(manager, id, journals.read(manager, id))
    local life <close> = record and lives.of(record, manager.config.without)
    local state = life and state_of(record, life, managed) or "unknown"
    local process = life and life.process
    local summary = { id = id, created = record and record.created, managed = managed, state = state,
      pid = process and process:pid(), err = problem or state ~= "making" and life.err or nil }
    record = record or {}
    for _, tap in ipairs(record.taps or {}) do summary.address = summary.address or tap.address end
    summary.ports = upkeep.ports(record)
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
---@field told boolean?        on the kernel's command line
---@field attach boolean?      on the bridge
---@field isolated boolean?
---@field nat string?          its uplink
---@field mtu integer?
---@field ports fcproc.Port[]?

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
---                                      its jail has none of its own; "pci", when its guest knows none;
---                                      "mtu", when its MTU has lowered the bridge's; "address", when
---                                      there is none to give; "nat", when it runs and the kernel has lost
---                                      its NAT; and "tap", when one is off the bridge, down or gone
---@field exit fcproc.Exit?  how a dead one ended, when that can be known ...
---@field description string?  ... and in a sentence
---@field manager integer?  the pid of who has it in his hands
---@field console string?   its file; nil: a daemonized jailer has closed it
---@field identity fcproc.Identity?  of the process that was started, for fcproc.process

-- The VM as an object that has nothing in its hands, and its process, which may be gone.
local function at(manager, id, ctx)
  options.argument(id, "string", "vm.inspect", "id")
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
  record, err = rebuild.record_of(manager, id, journals.read(manager, id))
  if not record then return nil, err end
  local life <close> = lives.of(record, manager.config.without)
  if life.err then return nil, life.err end
  local process = life:take()
  local vm = objects.new(manager, { id = id, record = record, folder = journals.folder(manager, id) })
  if process then vm.machine = machines.attach(manager, process, record.files, record.shape) end
  return vm, managed
end

local function look(manager, id, ctx, ask)
  ctx = loop.context(ctx)
  local vm, managed = at(manager, id, ctx)
  if not vm then return nil, managed end
  local _ <close> = finally(function()
    if vm.machine then vm.machine:close() end
  end)
  local record, process = vm.journal.record, vm.machine and vm.machine.process
  local info, err
  if ask then info, err = vm:info(ctx) else info = vm:_facts() end
  if not info then return nil, err end
  info.managed, info.manager = managed, managed and journals.holder(manager, id) or nil
  if not process then info.state = managed and "making" or "dead" end
  if process then info.identity, err = process:identity() end
  if errors.lacks_descriptors(err) then return nil, err end -- else it has ended by now
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

---Asks a VM that lives something without taking it, as inspect does.
---@param manager fcproc.Manager
---@param id string
---@param fn fun(vm: fcproc.Vm): any ...  what changes the VM is not to be done with it
---@param ctx fcproc.Context?
---@return any ...  what fn returned; nil, err as fcproc.vm.inspect's, ERR_NOT_FOUND also when it is dead
function M.ask(manager, id, fn, ctx)
  ctx = loop.context(ctx)
  local vm, managed = at(manager, id, ctx)
  if not vm then return nil, managed end
  if not vm.machine then return nil, dead(vm.journal) end
  local _ <close> = finally(function()
    if vm.machine then vm.machine:close() end
  end)
  return fn(vm)
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

return M
