-- The ways in which a VM ends: each step of the ladder, its report, and ends that nobody asked for.

local support = require "spec.support"
local versions = require "spec.support.versions"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function names(report)
  local list = {}
  for i, step in ipairs(report.steps) do list[i] = step.name .. " " .. step.outcome end
  return table.concat(list, ", ")
end

describe("stopping a VM", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  it("asks the guest first, and reports", function()
    local vm <close> = vms.ready(world, { network = true })
    local report = must(vm:stop())
    assert.are.equal("exited", report.outcome)
    assert.are.equal("ctrl_alt_del", report.step)
    assert.are.equal("ctrl_alt_del exited", names(report))
    assert.are.same({ status = 0 }, report.exit)
    assert.is_truthy(report.description:find("^0: the guest reset"))
    assert.are.equal(1, report.steps[1].sent)
    assert.are.same({}, report.left)
    assert.is_true(report.took >= report.steps[1].took and report.cleanup_took >= 0)
    assert.are.equal(report, must(vm:stop()), "twice is the same")
    assert.are.equal(report, must(vm:kill()))
    assert.are.equal("stopped", must(vm:info()).state)
  end)

  it("asks again as long as the guest has no keyboard", function()
    local vm <close> = vms.ready(world, { boot_args = "fcproc.deaf=300" })
    local report = must(vm:stop())
    assert.are.equal("ctrl_alt_del", report.step)
    assert.is_true(report.steps[1].sent >= 2, tostring(report.steps[1].sent))
  end)

  it("goes on to signals when the guest ignores it, or halts", function()
    for _, case in ipairs{
      { "fcproc.ignore_cad", { { "ctrl_alt_del", 0.3 }, { "sigterm", 5 } },
        "ctrl_alt_del timeout, sigterm exited", 15 },
      { "fcproc.halt", { { "wait", 0.05 }, { "ctrl_alt_del", 0.05 }, { "sigkill", 5 } },
        "wait timeout, ctrl_alt_del timeout, sigkill exited", 9 },
      { "fcproc.ignore_cad", { { "sigterm", 5 } }, "sigterm exited", 15 },
    } do
      local vm <close> = vms.ready(world, { boot_args = case[1] })
      local report = must(vm:stop(case[2]))
      assert.are.equal(case[3], names(report))
      assert.are.equal(case[4], report.exit.signal)
      assert.is_truthy(report.description:find("SIG", 1, true))
    end
  end)

  it("asks no more often than a guest bears, and keeps to each step's time", function()
    -- More than 7 presses in 2 s, and systemd reboots by force.
    local vm <close> = vms.ready(world, { boot_args = "fcproc.ignore_cad" })
    local steps = must(vm:stop{ { "ctrl_alt_del", 0.3 }, { "ctrl_alt_del", 2.4 }, { "wait", 0.2 },
      { "sigkill", 5 } }).steps
    for i, most in ipairs{ { 0.3, 2 }, { 2.4, 4 }, { 0.2 } } do
      local limit, sent = table.unpack(most)
      assert.are.equal(sent, steps[i].sent)
      assert.is_true(steps[i].took >= limit and steps[i].took < limit + 0.25, steps[i].took)
    end
    -- Nor does one that answers nothing hold it up.
    local stopped <close> = vms.ready(world, {})
    must(stopped.machine.process:signal("STOP"))
    steps = must(stopped:stop{ { "ctrl_alt_del", 0.5 }, { "sigterm", 0.2 }, { "sigkill", 5 } }).steps
    assert.is_true(steps[1].took < 0.75 and steps[2].took < 0.45, steps[1].took + steps[2].took)
  end)

  it("does not ask one whose guest has ended: Firecracker would wait for ever", function()
    local vm <close> = vms.ready(world, { boot_args = "fcproc.ignore_cad" })
    local log = assert(io.open(vm:record().files.log, "a"))
    -- Behind what Firecracker will write yet, which it writes where its log ended.
    log:write((" "):rep(1000), "\n2026-01-01T00:00:00.000000000 [x:main] Vmm is stopping.\n")
    log:close()
    local report = must(vm:stop{ { "ctrl_alt_del", 0.4 }, { "sigkill", 5 } })
    assert.are.same({ "timeout", 1 }, { report.steps[1].outcome, report.steps[1].sent })
    assert.is_truthy(report.steps[1].message:find("hangs", 1, true))
  end)

  it("works though its manager was closed, with which nothing else goes on", function()
    for _, netns in ipairs{ world.netns, "/proc/self/fd/" .. world.netns:fd() } do
      local config = support.config(world)
      config.netns = not support.rootless and netns or nil
      local manager = must(fcproc.new(config))
      local vm = must(fcproc.vm.launch(manager, { network = true }))
      manager:close()
      for name, call in pairs{ launch = { {} }, launch_all = { { {} } }, restore = { "/nowhere" },
        adopt = { vm.id }, reclaim = {} } do
        fails("closed", fcproc.vm[name](manager, table.unpack(call)))
      end
      must(vm:kill())
      assert.are.equal(0, #must(world.manager:list_taps()))
    end
  end)

  it("that was paused lets it go on, so that it can hear", function()
    local vm <close> = vms.ready(world, {})
    must(vm:pause())
    assert.are.equal("ctrl_alt_del exited", names(must(vm:stop())))
    local deaf <close> = vms.ready(world, { boot_args = "fcproc.ignore_cad" })
    must(deaf:pause())
    fails("wait_timeout", deaf:stop{ { "ctrl_alt_del", 0.3 } })
    assert.are.equal("running", must(fcproc.vm.list(world.manager))[1].state)
  end)

  -- On an ext4 that many VMs have come and gone on, each new file costs its search for an inode.
  it("makes no file: there are those of the launch alone", function()
    local vm <close> = vms.ready(world, {})
    local folder = vm.journal.folder
    local function files()
      local list = support.collect(support.sh{ "find", folder, "!", "-type", "d", "-printf", "%f %i\n" },
        "[^\n]+")
      table.sort(list)
      return list
    end
    local before, during = files(), nil
    must(vm:stop{ { function() during = files() end, 0 }, { "ctrl_alt_del", 5 } })
    assert.are.same(before, during)
    for i, name in ipairs(before) do before[i] = name:match("^%S+") end
    assert.are.same({ "api.sock", "config.json", "console.log", "firecracker.log", "metrics", "vm.json" },
      before)
  end)

  it("by a function of one's own", function()
    local vm <close> = vms.ready(world, {})
    local given
    local report = must(vm:stop{
      { function(its) given = its return nil, "it did not want to" end, 0.01 },
      { function(its) return its.machine.process:signal("KILL") end, 5 },
    })
    assert.are.equal(vm, given)
    assert.are.equal("function timeout, function exited", names(report))
    assert.are.equal("it did not want to", report.steps[1].message)
    assert.are.equal("function", report.step)
  end)

  it("whose function raises is as if it had not been tried", function()
    local vm <close> = vms.ready(world, { id = "raised" })
    support.raises("no ladder", vm.stop, vm, { { function() error("no ladder") end, 1 } })
    assert.are.equal("running", must(vm:info()).state)
    assert.are.equal("ctrl_alt_del", must(vm:stop()).step)
  end)

  it("has a ladder that is one", function()
    local vm <close> = vms.ready(world, {})
    for _, bad in ipairs{ 1, {}, { "sigkill" }, { { "sigsegv", 1 } }, { { "sigkill" } },
      { { "sigkill", "5" } }, { { "sigkill", -1 } }, { { "sigkill", 0 / 0 } } } do
      support.raises("vm:stop", vm.stop, vm, bad)
    end
  end)

  it("that did not end says so, and can be tried again", function()
    local vm <close> = vms.ready(world, { id = "stubborn", boot_args = "fcproc.ignore_cad" })
    local err = fails("wait_timeout", vm:stop{ { "ctrl_alt_del", 0.05 }, { "wait", 0 } })
    assert.is_truthy(err.message:find("the VM 'stubborn' has not ended: every step of the ladder", 1,
      true), err.message)
    assert.are.equal("running", err.report.outcome)
    assert.are.equal("ctrl_alt_del timeout, wait timeout", names(err.report))
    assert.are.equal("running", must(vm:info()).state)
    assert.are.equal("running", must(fcproc.vm.list(world.manager))[1].state)
    assert.are.equal("sigkill", must(vm:kill()).step)
  end)

  it("has a second caller wait for the first", function()
    local vm <close> = vms.ready(world, { boot_args = "fcproc.deaf=50" })
    local results = fcproc.run{
      function() return vm:stop() end, function() return vm:stop() end,
      function() return vm:kill() end,
    }
    local report = must(results[1][1], results[1][2])
    assert.are.equal(report, must(results[2][1], results[2][2]))
    assert.are.equal(report, must(results[3][1], results[3][2]))
    assert.are.equal("ctrl_alt_del", report.step)
  end)

  it("is left by a cancelled context, and done by the next", function()
    for _, how in ipairs{ "cancelled", "deadline" } do
      local vm <close> = vms.ready(world, { id = how, network = true, boot_args = "fcproc.ignore_cad" })
      local ctx <close> = must(fcproc.context(how == "deadline" and { timeout = 0.1 } or nil))
      local results = fcproc.run{
        function() return vm:stop({ { "ctrl_alt_del", 30 } }, ctx) end,
        function() return vm:stop() end, -- waits for the first, and has its error
        function()
          fcproc.runner():run{ "sleep", "0.1" }
          if how == "cancelled" then ctx:cancel() end
        end,
      }
      local err = fails(how, results[1][1], results[1][2])
      assert.are.equal("running", err.report.outcome)
      fails(how, results[2][1], results[2][2])
      assert.are.equal("running", must(vm:info()).state)
      assert.is_true(support.pings(world.netns, vm:address()))
      assert.are.equal("sigkill", must(vm:kill()).step)
    end
  end)

  it("that has ended by itself only clears up", function()
    local vm <close> = vms.ready(world, { network = true })
    must(vm:api("PUT", "/actions", { action_type = "SendCtrlAltDel" }))
    local gone, exit = vm:wait(10)
    assert.is_true(gone)
    assert.are.same({ status = 0 }, exit)
    local info = must(vm:info())
    assert.are.equal("dead", info.state)
    assert.is_truthy(info.description:find("^0: the guest reset"))
    local report = must(vm:stop())
    assert.are.equal("gone", report.step)
    assert.are.same({}, report.steps)
    assert.are.same({ status = 0 }, report.exit)
  end)

  it("that ends in its first moments is gone, or did not start", function()
    for _, word in ipairs{ "fcproc.triple_fault", "fcproc.reset" } do
      local vm <close>, err = fcproc.vm.launch(world.manager, { boot_args = word })
      if vm then
        local _, exit = vm:wait(10)
        local report = must(vm:stop())
        assert.are.equal("gone", report.step)
        assert.are.equal(word == "fcproc.triple_fault" or nil, report.triple_fault)
        assert.is_true(exit.status == 0 or report.triple_fault and versions.is_end_of_triple_fault(exit))
      else
        fails("exit_status", nil, err)
        assert.is_true(versions.is_end_of_triple_fault(err))
        assert.are.equal("start", err.step)
      end
    end
  end)

  it("that panicked is told by the last words of its console, and of its CPU by the log", function()
    local vm <close> = vms.ready(world, { boot_args = "fcproc.panic" })
    vm:wait(10)
    local report = must(vm:stop())
    assert.are.equal("[    0.001000] Kernel panic - not syncing: fcproc.panic", report.console_panic)
    assert.are.same({ status = 0 }, report.exit)
    assert.is_nil(report.triple_fault)
    local other <close> = vms.ready(world, { boot_args = "fcproc.triple_fault" })
    other:wait(10)
    report = must(other:stop())
    assert.is_nil(report.console_panic)
    assert.is_true(report.triple_fault)
    assert.is_truthy(report.description:find("^[01]: the guest's CPU gave up"), report.description)
  end)

  it("that was killed behind our back tells by what", function()
    for signal, number in pairs{ KILL = 9, TERM = 15, [11] = 11 } do
      local vm <close> = vms.ready(world, { network = true })
      must(vm.machine.process:signal(signal))
      local gone, exit = must(vm:wait(10))
      assert.is_true(gone)
      assert.is_truthy(exit.signal == number or exit.status == 150, "Firecracker catches SIGSEGV")
      local info = must(vm:info())
      assert.are.equal("dead", info.state)
      for _, call in ipairs{ "pause", "resume", "metrics", "mmds", "balloon" } do
        local err = fails("exit_status", vm[call](vm))
        assert.is_truthy(err.message:find(info.description, 1, true), err.message)
        assert.is_truthy(err.output:find("fcproc guest: ready", 1, true))
      end
      fails("exit_status", vm:api("GET", "/"))
      local report = must(vm:stop())
      assert.are.equal("gone", report.step)
      assert.are.equal(info.description, report.description)
    end
  end)

  it("that loses its socket is told by its own error, and still stopped", function()
    local vm <close> = vms.ready(world, { network = true })
    support.sh{ "rm", must(vm:info()).files.socket }
    must(vm:pause()) -- over the connection that is open
    vm.machine:disconnect()
    local err = fails("conflict", vm:resume()) -- it is not the VM that is not there
    assert.is_truthy(err.message:find("its API socket is gone or was replaced", 1, true), err.message)
    local report = must(vm:stop{ { "ctrl_alt_del", 0.05 }, { "sigterm", 5 } })
    assert.are.equal("sigterm", report.step)
    assert.is_truthy(report.steps[1].message:find("api.sock", 1, true))
  end)

  it("that was killed while a snapshot is written tells by what, and none is left", function()
    local vm <close> = vms.ready(world, { mem_mib = 256 })
    local folder = world.folder:file("snapshot")
    local results = fcproc.run{
      function() return vm:snapshot(folder) end,
      function()
        must(world.manager:wait_for_path(("%s.%s.partial"):format(folder, vm.id)))
        return vm.machine.process:signal("KILL")
      end,
    }
    local err = fails("exit_status", results[1][1], results[1][2])
    assert.are.equal(9, err.signal)
    assert.is_nil(core.stat(folder))
    assert.are.equal("gone", must(vm:stop()).step)
    assert.is_nil(core.stat(folder .. ".partial"))
  end)

  it("that was killed while paused only clears up", function()
    local vm <close> = vms.ready(world, { network = true })
    must(vm:pause())
    must(vm.machine.process:signal("KILL"))
    must(vm:wait(10))
    assert.are.equal("gone", must(vm:stop()).step)
  end)

  it("that is stopped by SIGSTOP takes SIGKILL", function()
    local vm <close> = vms.ready(world, {})
    must(vm.machine.process:signal("STOP"))
    local report = must(vm:stop{ { "ctrl_alt_del", 0.1 }, { "sigterm", 0.05 }, { "sigkill", 5 } })
    assert.are.equal("ctrl_alt_del timeout, sigterm timeout, sigkill exited", names(report))
  end)

  it("waits with a time-out of its own", function()
    local vm <close> = vms.ready(world, {})
    local err = fails("wait_timeout", vm:wait(0.01))
    assert.is_truthy(err.message:find("after 0.01 s", 1, true), err.message)
    fails("wait_timeout", vm:wait(0))
    local ctx <close> = must(fcproc.context{ timeout = 0.01 })
    fails("deadline", vm:wait(60, ctx))
  end)

  it("happens at the end of its block, whatever happens there", function()
    support.raises("halfway", function()
      local vm <close> = vms.ready(world, { network = true })
      assert(vm)
      error("halfway")
    end)
    vms.nothing_left(world)
    local ctx <close> = must(fcproc.context())
    do
      local vm <close> = vms.ready(world, { network = true }, ctx)
      assert(vm)
      ctx:cancel()
    end
    vms.nothing_left(world)
  end)

  it("closes it for all else; so does letting it go", function()
    local vm = vms.ready(world, { id = "loose" })
    local child <close> = vms.detach(vm)
    local calls = { "detach", "pause", "resume", "metrics", "mmds", "balloon", "console", "wait" }
    for _, call in ipairs(calls) do
      local err = fails("closed", vm[call](vm))
      assert.is_truthy(err.message:find("'loose' was detached", 1, true))
    end
    fails("closed", vm:stop())
    fails("closed", vm:snapshot("/nowhere"))
    fails("closed", vm:api("GET", "/"))
    getmetatable(vm).__close(vm) -- does nothing
    vm = must(fcproc.vm.adopt(world.manager, "loose"))
    must(vm:stop())
    for _, call in ipairs(calls) do
      local err = fails("closed", vm[call](vm))
      assert.is_truthy(err.message:find("'loose' was stopped", 1, true))
    end
    must(child:wait(5))
  end)
end)
