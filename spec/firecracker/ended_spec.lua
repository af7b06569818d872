-- Firecracker is killed behind our back, at every stage of a VM's life: the error says by what, and
-- nothing is left.

local support = require "spec.support"
local traces = require "spec.support.traces"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local MOST_TRIES = 40
local SIGSEGV = 11

local function kill(pid, signal)
  local process <close> = must(fcproc.process(pid))
  return process:signal(signal or "KILL")
end

-- Runs the function beside one that kills the VM's process when it may: when(pid) says so.
local function run_and_kill(world, fn, when)
  local over, result = false, nil
  fcproc.run{
    function()
      result = table.pack(fn())
      over = true
    end,
    function()
      while not over do
        local entry = must(fcproc.vm.list(world.manager))[1]
        if entry and entry.pid and when(entry.pid) then
          kill(entry.pid)
          return
        end
        fcproc.runner():run{ "true" } -- lets the other go on
      end
    end,
  }
  return table.unpack(result, 1, result.n)
end

local function always() return true end

describe("a Firecracker that is killed behind our back", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function told(err)
    assert.are.equal("exit_status", err.code)
    assert.are.equal(9, err.signal)
    assert.is_truthy(err.message:find("SIGKILL", 1, true) or err.message:find("signal 9", 1, true),
      err.message)
  end

  it("while it starts", function()
    local world <close> = traces.world()
    must(must(fcproc.vm.launch(world.manager, { id = world.id })):kill())
    local before = traces.of(world)
    for _ = 1, MOST_TRIES do -- it may have come up before the signal came
      local vm <close>, err = run_and_kill(world, function()
        return fcproc.vm.launch(world.manager, { id = world.id, network = { nat = "up0" }, boot = "api" })
      end, always)
      if not vm then
        told(err)
        assert.are.equal("start", err.step)
        traces.same(before, world, "after the failed launch")
        return
      end
      must(vm:kill())
    end
    error("it was never killed while it started")
  end)

  it("while it runs", function()
    local world <close> = traces.world()
    local vm <close> = must(fcproc.vm.launch(world.manager, { id = world.id, network = { nat = "up0" } }))
    must(kill(vm:pid()))
    local gone, exit = must(vm:wait(5))
    assert.is_true(gone)
    assert.are.same({ signal = 9 }, exit)
    assert.are.equal(9, fails("exit_status", vm:api("GET", "/")).signal)
    assert.are.equal("gone", must(vm:stop()).step)
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)

  it("while it is paused", function()
    local world <close> = traces.world()
    local vm <close> = must(fcproc.vm.launch(world.manager, { id = world.id }))
    must(vm:pause())
    must(kill(vm:pid(), SIGSEGV))
    must(vm:wait(5))
    assert.is_nil(vm:resume())
    local info = must(vm:info())
    assert.are.equal("dead", info.state)
    -- Its own handler for that signal ends it with 150, or the kernel does by the signal.
    assert.is_true(info.exit.status == 150 or info.exit.signal == 11)
    assert.is_truthy(info.description:find("SIGSEGV", 1, true), info.description)
    must(vm:stop())
  end)

  it("while it writes a snapshot", function()
    local world <close> = traces.world()
    local path = world.folder:file("snap")
    for _ = 1, MOST_TRIES do
      local vm <close> = must(fcproc.vm.launch(world.manager, { id = world.id, mem_mib = 512 }))
      must(must(vm:console()):wait_for("fcproc guest: ready", 5))
      local manifest, err = run_and_kill(world, function() return vm:snapshot(path) end,
        function() return core.stat((traces.partial(world) or "/none") .. "/memory") end)
      if not manifest then
        told(err)
        assert.are.equal("", support.sh{ "find", world.folder.path, "-name", "snap*" })
        assert.are.equal("dead", must(vm:info()).state)
        assert.are.equal("gone", must(vm:stop()).step)
        return
      end
      must(vm:kill())
      support.sh{ "rm", "-r", path }
    end
    error("it was never killed while it wrote a snapshot")
  end)

  it("while it restores one", function()
    local world <close> = traces.world()
    local path = world.folder:file("snap")
    do
      local vm <close> = must(fcproc.vm.launch(world.manager, { id = world.id }))
      must(vm:snapshot(path))
      must(vm:kill())
    end
    local before = traces.of(world)
    for _ = 1, MOST_TRIES do
      local vm <close>, err = run_and_kill(world, function()
        return fcproc.vm.restore(world.manager, path, { id = world.id })
      end, always)
      if not vm then
        told(err)
        traces.same(before, world, "after the failed restore")
        return
      end
      must(vm:kill())
    end
    error("it was never killed while it restored")
  end)

  it("is needed when it hangs, as it does for a key press that comes while it stops", function()
    local world <close> = traces.world()
    local vm <close> = must(fcproc.vm.launch(world.manager, { id = world.id }))
    -- Firecracker writes its log where it was, so a line that it writes yet would overwrite ours.
    must(must(vm:console()):wait_for("fcproc guest: ready", 5))
    must(kill(vm:pid(), "STOP"))
    support.eventually("all its threads are stopped", function()
      local tasks = ("/proc/%d/task"):format(vm:pid())
      for _, task in ipairs(must(core.list_dir(tasks))) do
        local stat = core.read_file(("%s/%s/stat"):format(tasks, task.name)) or ""
        if not stat:find(") T ", 1, true) then return false end
      end
      return true
    end)
    local log = assert(io.open(vm:record().files.log, "a"))
    log:write("2026-01-01T00:00:00.000000000 [x:main] Vmm is stopping.\n")
    log:close()
    local report = must(vm:stop{ { "ctrl_alt_del", 60 }, { "sigkill", 5 } })
    assert.are.same({ "timeout", "sigkill" }, { report.steps[1].outcome, report.step })
    assert.is_truthy(report.steps[1].message:find("hangs", 1, true))
  end)
end)
