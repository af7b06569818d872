-- VMs: from a spec table to a running VM, taking over one that runs, and removing what dead ones
-- left. Everything that is made is written into the VM's journal first.

local cgroup = require "fcproc.machine.cgroup"
local choose = require "fcproc.resources.choose"
local core = require "fcproc.core"
local disks = require "fcproc.resources.disks"
local endings = require "fcproc.vm.ending"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local fleets = require "fcproc.vm.fleet"
local jailer = require "fcproc.machine.jailer"
local journals = require "fcproc.resources.journal"
local lives = require "fcproc.resources.life"
local loop = require "fcproc.loop"
local machines = require "fcproc.machine"
local objects = require "fcproc.vm.object"
local options = require "fcproc.options"
local reclaim = require "fcproc.resources.reclaim"
local recover = require "fcproc.vm.recover"
local relays = require "fcproc.resources.relay"
local restoring = require "fcproc.vm.restore"
local rootless = require "fcproc.vm.rootless"
local specs = require "fcproc.vm.spec"
local room = require "fcproc.resources.room"
local sizes = require "fcproc.vm.sizes"
local steps = require "fcproc.resources.steps"
local stop = require "fcproc.vm.stop"
local taps = require "fcproc.resources.taps"
local upkeep = require "fcproc.resources.upkeep"

local M = {}

local ABANDON_LIMIT = 30 -- seconds for the clean-up after a failed launch

-- ---- launching -----------------------------------------------------------------------------

local function describe_in(record, plan)
  local spec = plan.spec
  record.vcpus = spec.vcpus or 1
  record.mem_mib = spec.mem_mib or (plan.builtin and 16 or 128)
  record.console_limit = spec.console_limit
  record.seccomp = spec.seccomp == false and "off" or nil
  record.huge_pages = spec.huge_pages
  if spec.cgroup then record.outer = { path = spec.cgroup, oom_kills = cgroup.oom_kills(spec.cgroup) } end
  for _, warning in ipairs(plan.warnings or {}) do
    record.warnings = record.warnings or {}
    table.insert(record.warnings, warning)
  end
end

-- The process at its gate is in the cgroup of its own, or is put into one, in the best hierarchy where
-- that can be done. Without any the launch goes on, as in a container that may not write there.
local function confine(vm, plan, pid)
  local started, record, reason = core.now(), vm.journal.record, nil
  local jail = record.jail
  if jail.cgroup and core.cgroup_holds(cgroup.start(jail), pid) then return true end
  local places, unseen = cgroup.places(vm.journal.folder, plan.id, plan.spec.cgroup)
  if not places then return nil, unseen end
  if jail.cgroups[1] and cgroup.is_inside(jail, jail.cgroups[1]) then places = { jail.cgroup } end
  for _, folder in ipairs(places) do
    if jail.cgroup ~= folder then
      jail.cgroup = folder
      local saved, unsaved = vm.journal:save("starting")
      if not saved then return nil, unsaved end
    end
    local start = cgroup.start(jail)
    local ok, err = cgroup.make(start)
    if ok ~= nil then ok, err = cgroup.enter(start, pid) end
    if ok then return true end
    if errors.lacks_descriptors(err) then return nil, err end
    reason = reason or err.message
    cgroup.leave(folder)
  end
  jail.cgroup, record.warnings = nil, record.warnings or {}
  table.insert(record.warnings, { name = "cgroup", message = ("the jail has no cgroup of its own, so "
    .. "other processes of its user may outlive the VM: %s"):format(reason or "none is mounted"),
    fix = "mount a cgroup hierarchy that fcproc can write to" })
  vm.manager:_log(started, "the jail has no cgroup of its own", { id = plan.id, reason = reason }, "warn")
  return true
end

-- Into the cgroups that hold it. What is inside of the spec's, in the same hierarchy, is in that as well.
local function enter_cgroups(vm, plan, pid)
  local outer = plan.spec.cgroup
  local ok, err = true, nil
  if plan.jailer then ok, err = confine(vm, plan, pid) end
  local own = plan.jailer and vm.journal.record.jail.cgroup
  if ok and outer and not (own and own:find(outer .. "/", 1, true) == 1) then
    ok, err = cgroup.enter(outer, pid)
  end
  return ok, err
end

-- Starts the VMM. It waits at a gate until its identity is in the journal.
local function start_machine(vm, plan, config, ctx)
  local journal, spec = vm.journal, plan.spec
  local machine, err = machines.start(vm.manager, {
    id = plan.id, binary = plan.binary, files = journal.record.files, config = config,
    boot = spec.boot, metadata = spec.mmds and spec.mmds.data, jailer = plan.jailer,
    log_level = spec.log_level, seccomp = plan.seccomp or spec.seccomp, arguments = spec.arguments,
    timeout = spec.timeout, stdin = spec.stdin, no_file = spec.limits and spec.limits.no_file,
    cgroup = plan.jailer and cgroup.start(journal.record.jail) or nil,
    inside = plan.inside, jail = plan.inside and rootless.jail(journal.record, plan) or nil,
    before_release = function(launcher)
      local identity, reason = launcher:identity()
      if not identity then return nil, reason end
      journal.record.launcher = lives.seal(identity)
      local ok
      ok, reason = journal:save("starting")
      if ok then ok, reason = enter_cgroups(vm, plan, identity.pid) end
      if ok then ok, reason = relays.start(journal, launcher, "starting") end
      return ok, reason
    end,
  }, ctx)
  if not machine then return nil, err end
  vm.machine, machine.outer = machine, journal.record.outer
  if not plan.jailer then return true end
  local ok
  ok, err = jailer.check_cgroups(plan.jailer, plan.id, machine.process:pid())
  if not ok then return nil, err end
  local identity
  identity, err = machine.process:identity()
  if not identity then return nil, machine:failure("start", err) end
  journal.record.process = lives.seal(identity)
  return journal:save("running")
end

-- Removes a VM that did not come to be. What can't be removed is tried again when the others of its
-- fleet are gone; else it is told, and stays for reclaim.
local function abandon(vm, err, fleet)
  local ctx <close> = core.context(nil, ABANDON_LIMIT)
  local left = fleets.abandon(vm, ctx)
  if #left == 0 then return end
  if fleet.abandoned then
    fleet.abandoned[#fleet.abandoned + 1] = vm
    return
  end
  vm.journal:close()
  if err then fleets.tell_left(err, left) end
end

-- What launch and restore share. The steps get the VM, the context, the plan and the fleet. Whatever
-- happens, nothing stays of a VM that was not handed out.
local function build(manager, plan, fleet, ctx, flow)
  local journal, err = journals.create(manager, plan.id, fleet)
  if not journal then
    room.tell(err, manager.config.runtime_dir)
    return nil, err
  end
  local vm = objects.new(manager, journal, plan.hooks)
  local handed_out, failure = false, nil
  local _ <close> = finally(function()
    if not handed_out then abandon(vm, failure, fleet) end
  end)
  local ok = true
  for _, step in ipairs(flow) do
    if ok then ok, failure = steps.run(vm, step.name, step.run, ctx, plan, fleet) end
  end
  if ok then ok, failure = vm:_hold() end
  if not ok then
    room.tell(failure, manager.config.runtime_dir, sizes.copies(plan), "copies of its drives")
    return nil, failure
  end
  handed_out = true
  return vm
end

local function prepare(vm, ctx, plan, fleet)
  local inside, err = rootless.decide(vm.manager, plan.network)
  local ok = inside ~= nil
  plan.inside = inside
  if inside then ok, err = vm.manager:_enter() end
  if ok then ok, err = choose.names(vm.journal, plan, fleet) end
  if ok then ok, err = taps.check_ports(vm.journal, ctx) end
  if not ok then return nil, err end
  local record = vm.journal.record
  describe_in(record, plan)
  -- Of a VM that has only its folder, the folder itself tells. Its first entry says who the VMM is.
  if not (record.jail or record.taps[1] or record.drives[1]) then return true end
  return vm.journal:save("preparing")
end

local function make_disks(vm, ctx, plan) return disks.make(vm.journal, plan, ctx) end

local function make_network(vm, ctx, _, fleet) return taps.make(vm.journal, fleet, ctx) end

local LAUNCH = {
  { name = "prepare", run = prepare }, { name = "drives", run = make_disks },
  { name = "network", run = make_network },
  { name = "start", run = function(vm, ctx, plan)
    return start_machine(vm, plan, specs.config(plan, vm.journal.record.taps), ctx)
  end },
}

local images -- (spec, ctx) -> spec with its image as a drive

---Who makes a drive of a spec's image: the facade says, since this flow knows none.
---@param resolve fun(spec: table, ctx: fcproc.Context?): table?, fcproc.Error?
function M._use_images(resolve) images = resolve end

local function launch(manager, spec, fleet, ctx)
  options.argument(spec, "table", "vm.launch", "spec")
  local ok, err = manager:_check_open("vm.launch")
  if ok then ok, err = loop.check(ctx) end
  if not ok then return nil, err end
  ctx = loop.context(ctx)
  if spec.image ~= nil and images then spec, err = images(spec, ctx) end
  if not spec then return nil, err end
  local plan
  plan, err = specs.plan(manager, spec, false, ctx, fleet)
  if not plan then return nil, err end
  return build(manager, plan, fleet, ctx, LAUNCH)
end

---Launches a VM: checks the whole spec, makes what it needs, boots it.
---
---    local vm <close> = assert(fcproc.vm.launch(manager, { vcpus = 1 }))
---    assert(vm:console()):wait_for("ready", 5)
---@param manager fcproc.Manager  with a runtime_dir; with a bridge when the spec has a network
---@param spec fcproc.VmSpec
---@param ctx fcproc.Context?
---@return fcproc.Vm? vm
---@return fcproc.Error? err  ERR_INVALID, ERR_UNSUPPORTED: of the spec, all mistakes as problems;
---                           ERR_CONFLICT: its id, address, drive or uid is another VM's, with its
---                           owner; ERR_BUSY: none is free; ERR_NOT_FOUND: no uplink, or no nft;
---                           ERR_PERMISSION; ERR_EXIT_STATUS: Firecracker ended, with its output;
---                           ERR_DEADLINE: its API did not answer in time; ERR_CLOSED: the manager was.
---                           With step, and left when something stays
function M.launch(manager, spec, ctx)
  return launch(manager, spec, {}, ctx)
end

local RESTORE = {
  { name = "prepare", run = function(vm, ctx, plan, fleet)
    local record = vm.journal.record
    record.paused = plan.spec.paused or nil
    local ok, err = prepare(vm, ctx, plan, fleet)
    if not ok then return nil, restoring.explain(err) end
    record.vcpus, record.mem_mib = plan.manifest.vcpus, plan.manifest.mem_mib
    return true
  end },
  { name = "drives", run = function(vm, ctx, plan)
    local ok, err = make_disks(vm, ctx, plan)
    if not ok then return nil, err end
    return restoring.place(vm, plan, ctx)
  end },
  { name = "network", run = make_network },
  { name = "start", run = function(vm, ctx, plan)
    local ok, err = start_machine(vm, plan, nil, ctx)
    if not ok then return nil, err end
    return restoring.load(vm, plan, ctx)
  end },
}

---Launches a VM from a snapshot, with TAPs, addresses and a folder of its own.
---
---A snapshot is believed: its guest is whatever its author made it, and its state names files that
---Firecracker opens. In a jail those are the jail's, and read-only drives, which the manifest names, are
---used only when the jail's user may read them; drives = { id = path } says where they are instead, and
---that is used as for a launch. Without a jail root's Firecracker opens them as root: so root restores
---without one only from a folder that nobody else could write to, unless trust = true. Whoever made a
---snapshot that is restored so can read and write any file of the host.
---@param manager fcproc.Manager
---@param path string  the snapshot's folder
---@param spec fcproc.RestoreSpec?
---@param ctx fcproc.Context?
---@return fcproc.Vm? vm
---@return fcproc.Error? err  ERR_NOT_FOUND: there is no snapshot; ERR_PROTOCOL: its manifest is
---                           damaged; ERR_CONFLICT: another CPU, version or drive than the snapshot's,
---                           or it may be anybody's; ERR_PERMISSION: the jail's user can't read one of
---                           its drives; as fcproc.vm.launch's
function M.restore(manager, path, spec, ctx)
  options.argument(path, "string", "vm.restore", "path")
  local ok, err = manager:_check_open("vm.restore")
  if ok then ok, err = loop.check(ctx) end
  if not ok then return nil, err end
  ctx = loop.context(ctx)
  local plan
  local fleet = {} -- of one
  plan, err = specs.plan(manager, spec or {}, true, ctx, fleet)
  if not plan then return nil, err end
  ok, err = restoring.plan(manager, path, plan, ctx)
  if not ok then return nil, err end
  sizes.limits(plan, plan.manifest.mem_mib)
  return build(manager, plan, fleet, ctx, RESTORE)
end

---Is a snapshot what it was when it was made? Reads all of it: a GiB that is no zeros takes 1 to 3 s.
---@param path string  the snapshot's folder
---@param ctx fcproc.Context?
---@return fcproc.Manifest? manifest
---@return fcproc.Error? err  ERR_NOT_FOUND: there is no snapshot; ERR_CONFLICT: a file of it is gone, or
---                           not what it was; ERR_PROTOCOL: its manifest is damaged; ERR_UNSUPPORTED: it
---                           was made with hash = false, or there is no libcrypto
function M.verify(path, ctx)
  options.argument(path, "string", "vm.verify", "path")
  return restoring.verify(path, loop.context(ctx))
end

-- ---- what others have left -----------------------------------------------------------------

M.adopt, M.list, M.reclaim = recover.adopt, recover.list, reclaim.reclaim
M.adopt_to_kill, M.remove_dead = recover.adopt_to_kill, reclaim.remove_dead
M.inspect, M.facts, M.ask = recover.inspect, recover.facts, recover.ask

-- Others restart their firewall, and take ours with theirs.
M.ensure_nat, M.missing_nat = upkeep.ensure, upkeep.missing

-- ---- fleets --------------------------------------------------------------------------------

---Launches many VMs at once. When one fails, those that came up are removed again, also when it was the
---descriptors that did not suffice; what is left all the same is told in the error, as err.left.
---@param manager fcproc.Manager
---@param list fcproc.VmSpec[]
---@param limit integer?  how many start at once; default: all
---@param ctx fcproc.Context?
---@return fcproc.Vm[]? vms  in the order of the list
---@return fcproc.Error? err  of the first that failed, as fcproc.vm.launch's
function M.launch_all(manager, list, limit, ctx)
  options.argument(list, "table", "vm.launch_all", "list")
  for i, spec in ipairs(list) do
    options.argument(spec, "table", "vm.launch_all", ("list[%d]"):format(i))
  end
  if limit ~= nil then options.argument(limit, "integer", "vm.launch_all", "limit") end
  ctx = loop.context(ctx)
  local functions = { limit = limit }
  local fleet = { abandoned = {}, huge_mib = sizes.huge_memory(list) }
  local vms, whole, failure = {}, false, nil
  for i, spec in ipairs(list) do
    functions[i] = function(run_ctx)
      if failure then return end
      local vm, err = launch(manager, spec, fleet, run_ctx)
      vms[i] = vm
      failure = failure or err
    end
  end
  -- However this ends: by a failure, an error in a hook, or a context that has been cancelled.
  local _ <close> = finally(function()
    if whole then return end
    local came_up = {}
    for i = 1, #list do came_up[#came_up + 1] = vms[i] end
    local own <close> = core.context(nil, ABANDON_LIMIT, ctx and ctx:waiter())
    fleets.remove_all(came_up, fleet.abandoned, failure, own)
  end)
  loop.run(functions, ctx)
  if failure then return nil, failure end
  whole = true
  return vms
end

---Stops many VMs at once; their TAPs go as one link group. Those for which the descriptors do not
---suffice at once follow, fewer at a time; their hooks are called again.
---
---    local reports = assert(fcproc.vm.stop_all(vms, { limit = 16 }))
---@param vms fcproc.Vm[]
---@param ladder fcproc.FleetLadder?
---@param ctx fcproc.Context?
---@return fcproc.StopReport[]? reports  in the order of the list
---@return fcproc.Error? err  of the first that failed, as vm:stop's; the others were stopped all the
---                           same. With errno 24: some are left, since there are too few descriptors
---                           even for one
function M.stop_all(vms, ladder, ctx)
  options.argument(vms, "table", "vm.stop_all", "vms")
  return fleets.stop_all(vms, stop.fleet_ladder(ladder), ctx)
end

---Ends VMs by their ids, whoever has launched them, as `fcproc stop` does: without a word to their APIs
---but those of the ladder, and in turns where there are too few descriptors for all. What a dead one left
---is removed. One that another manager has in its hands is left to that.
---@param manager fcproc.Manager
---@param ids string[]
---@param ladder fcproc.FleetLadder?
---@param ctx fcproc.Context?
---@return fcproc.Ending[] endings  in the order of the ids, each once, with err where it failed
function M.stop_ids(manager, ids, ladder, ctx)
  options.argument(ids, "table", "vm.stop_ids", "ids")
  return endings.stop_ids(manager, ids, stop.fleet_ladder(ladder), ctx)
end

return M
