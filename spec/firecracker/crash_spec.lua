-- The manager is killed after each of its steps that change the host. Whatever was made is found
-- again: what is dead is reclaimed to the last file, what lives is left alone and can be taken over.

local support = require "spec.support"
local traces = require "spec.support.traces"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must = support.must

local MOST_STEPS = 150
-- As an ordinary user's all of it takes `make soak`. Under a sanitizer, which is slow, every third step is
-- enough.
local EACH, MOMENTS = support.sanitized and 3 or 1, 100
if support.rootless then EACH, MOMENTS = support.soak and 1 or 6, support.soak and 50 or 5 end

local JAILER = "the jailer is root's"

local SHAPES = {
  plain = {}, daemonized = { daemonize = true }, ["in a pid namespace"] = { new_pid_ns = true },
  ["daemonized, in a pid namespace"] = { daemonize = true, new_pid_ns = true },
}

local function jailed(shape)
  return { uid = 1234, gid = 1234, daemonize = shape.daemonize, new_pid_ns = shape.new_pid_ns,
    cgroups = { ["pids.max"] = "64" }, parent_cgroup = traces.PARENT }
end

-- After a crash: reclaim, and when the VM lives, adopt and end it, or reclaim once it died.
local function recover(world, before, what)
  local manager = world.manager
  local report
  support.eventually(what .. ": nobody has it", function() -- not even a child that is about to exec
    report = must(fcproc.vm.reclaim(manager))
    local failed = report.failed[1] -- on its way into its jail
    return #report.busy == 0 and not (failed and failed.left[1].err.code == "busy")
  end)
  for _, failed in ipairs(report.failed) do
    error(("%s: %s: %s"):format(what, failed.left[1].what, tostring(failed.left[1].err)))
  end
  if #report.alive > 0 then
    local vm, err = fcproc.vm.adopt(manager, world.id)
    if vm then
      assert.are.equal("running", vm:record().state)
      must(vm:kill())
    else -- it waited at its gate when its manager died, and so did it
      assert.are.equal("not_found", err.code, what .. ": " .. tostring(err))
      report = must(fcproc.vm.reclaim(manager))
      assert.are.same({ world.id }, report.reclaimed, what)
    end
  end
  traces.same(before, world, what, function() must(fcproc.vm.reclaim(manager)) end)
end

-- Crashes after the first step, the second, and so on, until it comes through. Returns the steps, or more.
local function matrix(world, order)
  order.spec.id = world.id
  local before
  for at = order.from or 1, MOST_STEPS, EACH do
    os.remove(world.output)
    order.at = at
    before = before or traces.of(world)
    local crashed = traces.crash(world, order)
    local what = ("%s, step %s"):format(order.action,
      (support.read_file(world.output) or ""):match("([^\n]+)\n*$") or at)
    if order.action == "snapshot" then support.sh{ "rm", "-rf", order.path } end -- it is whole
    recover(world, before, what)
    if not crashed then return at - 1 end
  end
  error("it never came through")
end

local function new_world()
  local world = traces.world()
  -- What the first VM makes and the last leaves: the runtime folder.
  must(must(fcproc.vm.launch(world.manager, { id = "first" })):kill())
  support.write_file(world.folder:file("disk"), ("x"):rep(4096))
  return world
end

describe("a manager that is killed", function()
  before_each(support.before_each)
  after_each(support.after_each)
  teardown(traces.drop_cgroups)

  local full = function(world)
    return { network = { nat = "up0" },
      drives = { { path = world.folder:file("disk"), copy = "sparse" } } }
  end

  it("while it launches a VM leaves what can be found", function()
    local world <close> = new_world()
    assert.is_true(matrix(world, { action = "launch", spec = full(world) }) > 15)
  end)

  it("while it publishes ports, or takes them back", function()
    local world <close> = new_world()
    local spec = { network = true, publish = { "8080:80", "0.0.0.0:5353:7/udp" } }
    -- What comes before, others have.
    local order = { action = "launch", spec = spec }
    order.spec.id = world.id
    os.remove(world.output)
    assert.is_false(traces.crash(world, order))
    must(must(fcproc.vm.adopt(world.manager, world.id)):kill())
    order.from = traces.step_of(world, "create_tap", 1)
    assert.is_true(matrix(world, order) > order.from + 5)
    order = { action = "stop", spec = spec }
    os.remove(world.output)
    assert.is_false(traces.crash(world, order))
    order.from = support.rootless and 1 or traces.step_of(world, "sysctl", 1) - 1
    assert.is_true(matrix(world, order) > order.from + 3)
  end)

  for name, shape in pairs(SHAPES) do
    it(("while it launches one in a jail (%s)"):format(name), function()
      support.direct_only(pending, JAILER)
      local world <close> = new_world()
      local spec = full(world)
      spec.jailer = jailed(shape)
      -- Until the journal is written there is nothing of the jail.
      assert.is_true(matrix(world, { action = "launch", spec = spec, from = 8 }) > 20)
    end)
  end

  it("while it configures one through the API", function()
    local world <close> = new_world()
    local spec = full(world)
    spec.boot = "api"
    assert.is_true(matrix(world, { action = "launch", spec = spec }) > 22)
  end)

  it("while it stops one", function()
    local world <close> = new_world()
    assert.is_true(matrix(world, { action = "stop", spec = full(world) }) > 7)
  end)

  it("while it stops one in a jail", function()
    support.direct_only(pending, JAILER)
    local world <close> = new_world()
    local spec = full(world)
    spec.jailer = jailed(SHAPES["daemonized, in a pid namespace"])
    assert.is_true(matrix(world, { action = "stop", spec = spec }) > 6)
  end)

  it("while it takes a snapshot", function()
    local world <close> = new_world()
    local order = { action = "snapshot", path = world.folder:file("snap"), spec = full(world) }
    assert.is_true(matrix(world, order) > 9)
  end)

  it("while it takes a snapshot of one in a jail", function()
    support.direct_only(pending, JAILER)
    local world <close> = new_world()
    local order = { action = "snapshot", path = world.folder:file("snap"), spec = full(world) }
    order.spec.jailer = jailed(SHAPES.plain)
    assert.is_true(matrix(world, order) > 9)
  end)

  for _, jail in ipairs{ false, SHAPES.plain } do
    it(("while it restores one (%s)"):format(jail and "in a jail" or "without a jail"), function()
      if jail then support.direct_only(pending, JAILER) end
      local world <close> = new_world()
      local path = world.folder:file("snap")
      local vm <close> = must(fcproc.vm.launch(world.manager, { id = "model", network = true,
        drives = { { path = world.folder:file("disk"), copy = "sparse" } } }))
      must(vm:snapshot(path))
      must(vm:kill())
      local order = { action = "restore", path = path, spec = { jailer = jail and jailed(jail) or nil } }
      assert.is_true(matrix(world, order) > 12)
    end)
  end

  it("at any moment", function()
    local world <close> = new_world()
    local before = traces.of(world)
    local generator = 12345 -- the same moments each time, as far as the machine allows
    for i = 1, MOMENTS do
      os.remove(world.output)
      do
        local process <close> = traces.start(world, { action = "cycle",
          spec = { id = world.id, network = { nat = "up0" } } })
        support.eventually("it begins", function()
          return not process:alive() or support.read_file(world.output):find("begins", 1, true)
        end)
        generator = (generator * 1103515245 + 12345) & 0x7fffffff
        core.poll_many({}, {}, (generator >> 8) % 6000 / 1e5)
        process:signal("KILL")
        must(process:wait(10))
      end
      recover(world, before, "moment " .. i)
    end
  end)

  it("during a snapshot leaves the VM paused, which adopting ends", function()
    local world <close> = new_world()
    local path, before = world.folder:file("snap"), traces.of(world)
    traces.crash_in_snapshot(world, path)
    local partial = traces.partial(world)
    assert.is_truthy(core.stat(partial))
    local socket = traces.socket(world)
    assert.are.equal("Paused", must(fcproc.request(socket, "GET", "/")).state)
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).alive)
    assert.are.equal("Paused", must(fcproc.request(socket, "GET", "/")).state)
    assert.is_truthy(core.stat(partial))
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
    assert.is_nil(core.stat(partial))
    assert.are.equal("running", must(vm:info()).state)
    must(vm:snapshot(path))
    must(vm:kill())
    support.sh{ "rm", "-r", path }
    traces.same(before, world, "after the snapshot")
  end)

  it("during a snapshot of a VM that then dies leaves the parts to reclaim", function()
    local world <close> = new_world()
    local path, before = world.folder:file("snap"), traces.of(world)
    traces.crash_in_snapshot(world, path)
    local pid = must(fcproc.vm.list(world.manager))[1].pid
    do
      local process <close> = must(fcproc.process(pid))
      must(process:signal("KILL"))
      must(process:wait(5))
    end
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    traces.same(before, world, "after reclaim")
  end)

  it("before it has loaded a snapshot leaves a VMM that is empty, and can be stopped", function()
    local world <close> = new_world()
    local path = world.folder:file("snap")
    local model <close> = must(fcproc.vm.launch(world.manager, { id = "model" }))
    must(model:snapshot(path))
    must(model:kill())
    local before = traces.of(world)
    os.remove(world.output)
    local order = { action = "restore", path = path, spec = { id = world.id } }
    assert.is_false(traces.crash(world, order)) -- to see after which step its API has first answered
    must(must(fcproc.vm.adopt(world.manager, world.id)):kill())
    order.at = traces.step_of(world, "request", 1)
    assert.is_true(traces.crash(world, order))
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
    assert.are.equal("not started", must(vm:info()).state)
    local report = must(vm:stop())
    assert.are.same({ "skipped", "sigterm" }, { report.steps[1].outcome, report.step })
    traces.same(before, world, "after the stop")
  end)

  it("before the gate opens takes its child with it", function()
    local world <close> = new_world()
    local before = traces.of(world)
    for at = 1, MOST_STEPS do
      os.remove(world.output)
      assert.is_true(traces.crash(world, { action = "launch", at = at, spec = { id = world.id } }))
      local last = support.read_file(world.output):match("(%l+)\n$")
      local spawned = last == "spawn"
      must(fcproc.vm.reclaim(world.manager))
      if spawned then break end
    end
    -- Nothing was executed: no socket, no process, and the folder is gone.
    traces.same(before, world, "after reclaim")
  end)
end)
