-- VMs: from a spec table to a running VM, taking over one that runs, and removing what dead ones
-- left. Everything that is made is written into the VM's journal first.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local host = require "fcproc.vm.host"
local jailer = require "fcproc.jailer"
local journals = require "fcproc.vm.journal"
local lease = require "fcproc.vm.lease"
local loop = require "fcproc.loop"
local machines = require "fcproc.machine"
local objects = require "fcproc.vm.object"
local options = require "fcproc.options"
local snapshot = require "fcproc.vm.snapshot"
local specs = require "fcproc.vm.spec"
local steps = require "fcproc.vm.steps"
local stop = require "fcproc.vm.stop"

local M = {}

local ABANDON_LIMIT = 30 -- seconds for the clean-up after a failed launch

-- ---- launching -----------------------------------------------------------------------------

local function describe_in(record, plan)
  local spec = plan.spec
  record.vcpus = spec.vcpus or 1
  record.mem_mib = spec.mem_mib or (plan.builtin and 16 or 128)
  record.console_limit = spec.console_limit
  record.seccomp = spec.seccomp == false and "off" or nil
end

-- Starts the VMM. It waits at a gate until its identity is in the journal.
local function start_machine(vm, plan, config, ctx)
  local journal, spec = vm.journal, plan.spec
  local machine, err = machines.start(vm.manager, {
    id = plan.id, binary = plan.binary, files = journal.record.files, config = config,
    boot = spec.boot, metadata = spec.mmds and spec.mmds.data, jailer = plan.jailer,
    log_level = spec.log_level, seccomp = spec.seccomp, arguments = spec.arguments,
    timeout = spec.timeout,
    before_release = function(launcher)
      local identity, reason = launcher:identity()
      if not identity then return nil, reason end
      journal.record.launcher = identity
      return journal:save("starting")
    end,
  }, ctx)
  if not machine then return nil, err end
  vm.machine = machine
  if not plan.jailer then return true end
  local ok
  ok, err = jailer.check_cgroups(plan.jailer, plan.id, machine.process:pid())
  if not ok then return nil, err end
  journal.record.process, err = machine.process:identity()
  if not journal.record.process then return nil, machine:failure("start", err) end
  return journal:save("running")
end

-- Removes a VM that did not come to be. What can't be removed is told, and stays for reclaim.
local function abandon(vm, err)
  local ctx <close> = core.context(nil, ABANDON_LIMIT)
  if vm.machine then
    vm.machine:kill_now()
    vm.machine = nil
  end
  local left = host.remove(vm.manager, { vm.journal }, ctx)
  if #left > 0 then
    vm.journal:close()
    if err then err.left = left end
  end
end

-- The flow that launch and restore share. made(): the VM, or nil, err; whatever happens, nothing
-- stays of a VM that was not handed out.
local function build(manager, plan, ctx, flow)
  local journal, err = journals.create(manager, plan.id)
  if not journal then return nil, err end
  local vm = objects.new(manager, journal, plan.hooks)
  local handed_out, failure = false, nil
  local guard <close> = setmetatable({}, { __close = function() -- luacheck: ignore guard
    if not handed_out then abandon(vm, failure) end
  end })
  local ok
  ok, failure = flow(vm, ctx)
  if not ok then return nil, failure end
  handed_out = true
  return vm
end

local function prepare(vm, plan)
  local ok, err = host.choose(vm.journal, plan)
  if not ok then return nil, err end
  describe_in(vm.journal.record, plan)
  return vm.journal:save("preparing")
end

---Launches a VM: checks the whole spec, makes what it needs, boots it.
---
---    local vm <close> = assert(fcproc.vm.launch(manager, { vcpus = 1 }))
---    assert(vm:console()):wait_for("ready", 5)
---@param manager fcproc.Manager  with a runtime_dir; with a bridge when the spec has a network
---@param spec fcproc.VmSpec
---@param ctx fcproc.Context?
---@return fcproc.Vm? vm
---@return fcproc.Error? err  with step, and output when Firecracker said why; nothing is left
function M.launch(manager, spec, ctx)
  options.argument(spec, "table", "vm.launch", "spec")
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  ctx = loop.context(ctx)
  local plan
  plan, err = specs.plan(manager, spec, false, ctx)
  if not plan then return nil, err end
  return build(manager, plan, ctx, function(vm)
    local record = vm.journal.record
    local function step(name, fn)
      if ok then ok, err = steps.run(vm, name, fn, ctx) end
    end
    step("prepare", function() return prepare(vm, plan) end)
    step("drives", function() return host.make_drives(vm.journal, plan, ctx) end)
    step("network", function() return host.make_network(vm.journal, ctx) end)
    step("start", function() return start_machine(vm, plan, specs.config(plan, record.taps), ctx) end)
    return ok, err
  end)
end

---Launches a VM from a snapshot, with TAPs, addresses and a folder of its own.
---@param manager fcproc.Manager
---@param path string  the snapshot's folder
---@param spec table?  id, network, jailer, hooks, log_level, …; paused = true leaves it paused
---@param ctx fcproc.Context?
---@return fcproc.Vm? vm
---@return fcproc.Error? err  ERR_CONFLICT: another CPU, version or drive than the snapshot's
function M.restore(manager, path, spec, ctx)
  options.argument(path, "string", "vm.restore", "path")
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  ctx = loop.context(ctx)
  local plan
  plan, err = specs.plan(manager, spec or {}, true, ctx)
  if not plan then return nil, err end
  ok, err = snapshot.plan(manager, path, plan, ctx)
  if not ok then return nil, err end
  return build(manager, plan, ctx, function(vm)
    local function step(name, fn)
      if ok then ok, err = steps.run(vm, name, fn, ctx) end
    end
    step("prepare", function()
      local record = vm.journal.record
      local chosen, reason = prepare(vm, plan)
      record.vcpus, record.mem_mib = plan.manifest.vcpus, plan.manifest.mem_mib
      return chosen, reason
    end)
    step("drives", function()
      local made, reason = host.make_drives(vm.journal, plan, ctx)
      if not made then return nil, reason end
      return snapshot.place(vm, plan, ctx)
    end)
    step("network", function() return host.make_network(vm.journal, ctx) end)
    step("start", function()
      local started, reason = start_machine(vm, plan, nil, ctx)
      if not started then return nil, reason end
      return snapshot.load(vm, plan, ctx)
    end)
    return ok, err
  end)
end

-- ---- taking over ---------------------------------------------------------------------------

-- The VMM of a record, if it lives. Its own identity; or what was spawned, which without a jailer is
-- the VMM; or, when a crash came before the VMM was written down, whoever has the jail as its root.
---@param record table
---@return fcproc.Process? process
local function find_process(record)
  for _, identity in ipairs{ record.process or record.launcher } do
    local process = core.process(identity)
    if process and process:alive() then return process end
    if process then process:close() end
  end
  if not record.jail or record.process then return nil end
  local jailed = core.open_by_root(record.jail.root)
  if jailed and jailed:alive() then return jailed end
  if jailed then jailed:close() end
end

---Takes over a VM that runs: one that was detached, or whose manager has died.
---@param manager fcproc.Manager
---@param id string
---@param ctx fcproc.Context?
---@return fcproc.Vm? vm
---@return fcproc.Error? err  ERR_BUSY: another manager has it; ERR_NOT_FOUND: there is none, or it
---                            is dead
function M.adopt(manager, id, ctx)
  options.argument(id, "string", "vm.adopt", "id")
  ctx = loop.context(ctx)
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local journal
  journal, err = journals.open(manager, id)
  if not journal then return nil, err end
  local record = journal.record
  local process = find_process(record)
  if not process then
    journal:close()
    return nil, errors.new{ code = "not_found", op = "vm.adopt", path = journal.folder,
      message = ("the VM '%s' is dead; what it left is in %s: reclaim it"):format(id,
        journal.folder) }
  end
  local vm = objects.new(manager, journal)
  vm.machine = machines.attach(manager, process, record.files, record.shape)
  local state
  state, err = vm.machine:state(ctx)
  if not state then
    vm.machine:close()
    journal:close()
    return nil, err
  end
  ok, err = snapshot.finish_interrupted(vm, ctx)
  local own = journals.own_pid()
  if ok and (record.state ~= "running" or record.manager ~= own) then
    record.manager = own
    record.process = process:identity()
    ok, err = journal:save("running")
  end
  if not ok then
    vm:detach()
    return nil, err
  end
  vm:cap()
  return vm
end

---@class fcproc.VmSummary
---@field id string
---@field state "running"|"dead"|"making"
---@field pid integer?
---@field address string?
---@field created integer?  seconds since 1970
---@field managed boolean   a manager has it in its hands

---All VMs of the runtime folder, alive or dead. None of them is disturbed.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return fcproc.VmSummary[]? vms
---@return fcproc.Error? err
function M.list(manager, ctx)
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local ids
  ids, err = journals.ids(manager)
  if not ids then return nil, err end
  local list = {}
  for _, id in ipairs(ids) do
    local record = journals.read(manager, id)
    local process <close> = find_process(record)
    local managed = journals.is_locked(manager, id)
    local summary = { id = id, created = record.created, managed = managed,
      state = process and "running" or managed and "making" or "dead",
      pid = process and process:pid() }
    for _, tap in ipairs(record.taps or {}) do summary.address = summary.address or tap.address end
    list[#list + 1] = summary
  end
  return list
end

---@class fcproc.VmInfo: fcproc.VmSummary
---@field manager integer?  the pid of who has it in his hands
---@field console string?   its file; nil: a daemonized jailer has closed it
---@field identity table?   of the process that was started, for fcproc.process

---Looks at a VM without taking it: it may be in the hands of another manager, and stays there.
---@param manager fcproc.Manager
---@param id string
---@param ctx fcproc.Context?
---@return fcproc.VmInfo? info  as vm:info gives it; state may be "dead" or "making", too
---@return fcproc.Error? err    ERR_NOT_FOUND: there is none
function M.inspect(manager, id, ctx)
  options.argument(id, "string", "vm.inspect", "id")
  ctx = loop.context(ctx)
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local valid, reason = specs.check_id(id)
  if not valid then
    return nil, errors.new{ code = "invalid", op = "vm.inspect", message = "id: " .. reason }
  end
  if not journals.exists(manager, id) then return journals.missing(manager, id, "vm.inspect") end
  local record = journals.read(manager, id)
  local vm = objects.new(manager, { id = id, record = record, folder = journals.folder(manager, id) })
  local process = find_process(record)
  local closing <close> = setmetatable({}, { __close = function() -- luacheck: ignore closing
    if vm.machine then vm.machine:close() end
  end })
  if process then vm.machine = machines.attach(manager, process, record.files, record.shape) end
  local info
  info, err = vm:info(ctx)
  if not info then return nil, err end
  info.managed = journals.is_locked(manager, id)
  info.manager = info.managed and journals.holder(manager, id) or nil
  if not process then info.state = info.managed and "making" or "dead" end
  info.identity = process and process:identity()
  info.console = record.files and not record.shape.daemonize and record.files.console or nil
  return info
end

-- ---- removing what dead VMs left -------------------------------------------------------------

---@class fcproc.Reclaimed
---@field reclaimed string[]  VMs of which nothing is left
---@field alive string[]      VMs that run, and were not touched
---@field busy string[]       in the hands of a manager
---@field failed { id: string, left: fcproc.Left[] }[]
---@field leases integer      leases without a VM that were dropped

-- The journal of a dead VM, with its lock; or why not.
local function open_dead(manager, id)
  do -- first without the lock, which somebody may just want to take for a VM that lives
    local process <close> = find_process(journals.read(manager, id))
    if process then return nil, "alive" end
  end
  local journal, err = journals.open(manager, id)
  if not journal then return nil, err.code == "busy" and "busy" or "gone" end
  local process <close> = find_process(journal.record)
  if not process then return journal end
  journal:close()
  return nil, "alive"
end

---Removes all that dead VMs left: TAPs, NAT, jails, cgroups, leases, folders. VMs that run and VMs
---that a manager has in its hands are not touched.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return fcproc.Reclaimed? report
---@return fcproc.Error? err
function M.reclaim(manager, ctx)
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  ctx = loop.context(ctx)
  local ids
  ids, err = journals.ids(manager)
  if not ids then return nil, err end
  local report = { reclaimed = {}, alive = {}, busy = {}, failed = {}, leases = 0 }
  for _, id in ipairs(ids) do
    local journal, why = open_dead(manager, id)
    if journal then
      local left = host.remove(manager, { journal }, ctx)
      if #left == 0 then
        report.reclaimed[#report.reclaimed + 1] = id
      else
        journal:close()
        report.failed[#report.failed + 1] = { id = id, left = left }
      end
    elseif report[why] then
      table.insert(report[why], id)
    end
  end
  report.leases = lease.sweep(manager)
  return report
end

-- ---- fleets --------------------------------------------------------------------------------

---Launches many VMs at once. When one fails, those that came up are removed again.
---@param manager fcproc.Manager
---@param list fcproc.VmSpec[]
---@param limit integer?  how many start at once; default: all
---@param ctx fcproc.Context?
---@return fcproc.Vm[]? vms  in the order of the list
---@return fcproc.Error? err  of the first that failed
function M.launch_all(manager, list, limit, ctx)
  options.argument(list, "table", "vm.launch_all", "list")
  local functions, failure = { limit = limit }, nil
  for i, spec in ipairs(list) do
    functions[i] = function(run_ctx)
      if failure then return nil end
      local vm, err = M.launch(manager, spec, run_ctx)
      if not vm then failure = failure or err end
      return vm
    end
  end
  local vms = {}
  local guard <close> = setmetatable({}, { __close = function() -- luacheck: ignore guard
    if vms then M.stop_all(vms, stop.KILL) end
  end })
  for _, result in ipairs(loop.run(functions, ctx)) do vms[#vms + 1] = result[1] or nil end
  if failure then return nil, failure end
  local all = vms
  vms = nil
  return all
end

---Stops many VMs at once; their TAPs go as one link group.
---@param vms fcproc.Vm[]
---@param ladder table[]?  as for vm:stop
---@param ctx fcproc.Context?
---@return fcproc.StopReport[]? reports  in the order of the list
---@return fcproc.Error? err  of the first that failed; the others were stopped all the same
function M.stop_all(vms, ladder, ctx)
  options.argument(vms, "table", "vm.stop_all", "vms")
  if ladder ~= nil then stop.check_ladder(ladder) end
  return objects.stop_all(vms, ladder or stop.LADDER, ctx)
end

return M
