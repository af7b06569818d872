-- A stock Linux in a real VM: what it says and what it is given, and each way in which it ends.

local support = require "spec.support"
local linux = require "spec.support.linux"
local fcproc = require "fcproc"

local must = support.must

describe("a Linux guest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("boots by default arguments, answers a ping, and on ctrl-alt-del runs its hooks and ends", function()
    local world <close> = support.world()
    local spec = linux.spec{ id = "plain", network = { address = "172.30.0.2" } }
    spec.boot_args = nil
    local vm <close> = must(fcproc.vm.launch(world.manager, spec))
    linux.wait_for(vm, "linux guest: ready 172.30.0.2")
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
    assert.are.equal(vm:pid(), must(world.manager:find_pid(vm:record().files.socket)))
    linux.has_ended_gracefully(linux.stop(vm))
    linux.nothing_left(world)
  end)

  it("is asked again when ctrl-alt-del came before it had a keyboard", function()
    local world <close> = support.world()
    local vm <close> = must(fcproc.vm.launch(world.manager, linux.spec()))
    local report = linux.stop(vm, linux.LADDER)
    assert.are.equal("ctrl_alt_del", report.step)
    assert.are.same({ status = 0 }, report.exit)
    assert.is_true(report.steps[1].sent > 1)
  end)

  it("ends Firecracker with 0 by its own reboot or panic, and not at all by poweroff", function()
    local world <close> = support.world()
    local function start(way)
      return must(fcproc.vm.launch(world.manager, linux.spec{ id = way, args = "fcproc.do=" .. way }))
    end
    local reboot <close> = start("reboot")
    local panic <close> = start("panic")
    local off <close> = start("poweroff")
    for vm, hook in pairs{ [reboot] = true, [panic] = false } do
      local gone, exit = vm:wait(linux.TIMEOUT)
      assert.is_true(gone)
      assert.are.same({ status = 0 }, exit)
      assert.are.equal("dead", must(vm:info()).state)
      assert.are.equal(hook, linux.has_said(vm, linux.HOOK))
      local report = must(vm:stop())
      assert.are.equal("gone", report.step)
      assert.are.equal(vm == panic, report.console_panic ~= nil)
      if vm == panic then assert.is_truthy(report.console_panic:find("Kernel panic - ", 1, true)) end
      assert.is_nil(report.triple_fault)
    end
    linux.wait_for(off, "System halted")
    assert.is_true(linux.has_said(off, linux.HOOK))
    local report = must(off:stop{ { "wait", 1 }, { "ctrl_alt_del", 1 }, { "sigterm", linux.TIMEOUT } })
    assert.are.equal("sigterm", report.step)
    assert.are.same({ signal = 15 }, report.exit)
    local outcomes = {}
    for i, step in ipairs(report.steps) do outcomes[i] = step.name .. " " .. step.outcome end
    assert.are.same({ "wait timeout", "ctrl_alt_del timeout", "sigterm exited" }, outcomes)
    assert.is_true(report.steps[2].sent > 0, "it was taken, and nobody heard it")
    linux.nothing_left(world)
  end)

  it("has a console that is followed, a balloon, and metrics", function()
    local world <close> = support.world()
    local vm <close> = linux.launch(world, { args = "fcproc.do=stutter",
      balloon = { amount_mib = 0, stats_interval_s = 1 } })
    linux.wait_for(vm, "linux guest: in two pieces")
    must(vm:balloon(32))
    support.eventually("32 MiB are in the balloon", function()
      return must(vm:api("GET", "/balloon/statistics")).actual_mib == 32
    end, linux.TIMEOUT)
    local metrics = must(vm:metrics())
    assert.is_true(metrics.balloon.inflate_count > 0)
    assert.is_true(metrics.block.read_count > 0)
    linux.stop_gracefully(vm)
  end)
end)
