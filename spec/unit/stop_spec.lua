-- What no real VM does for a spec: a process that even SIGKILL does not reach.

local support = require "spec.support"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcproc = require "fcproc"
local stop = require "fcproc.vm.stop"

local must, fails = support.must, support.fails

-- In vfork(2) the parent sleeps uninterruptibly until its child has left.
local VFORK = "import ctypes, os, time\n"
  .. "if ctypes.CDLL(None).vfork() == 0: time.sleep(60); os._exit(0)\n"

-- A machine around a process on which signals have no effect.
local function deaf_machine(pid)
  return {
    shape = {},
    process = { pid = function() return pid end, signal = function() return true end,
      alive = function() return true end },
    wait = function()
      return nil, errors.new{ code = "wait_timeout", op = "process.wait", message = "it runs" }
    end,
  }
end

local function state(pid)
  return (core.read_file(("/proc/%d/stat"):format(pid)) or ""):match("%) (%a)")
end

describe("the ladder of a fleet", function()
  it("is the default one when no steps are given, at so many at once as are", function()
    assert.are.equal(stop.LADDER, stop.fleet_ladder(nil))
    local ladder = stop.fleet_ladder{ limit = 3 }
    assert.are.equal(3, ladder.limit)
    assert.are.same(stop.LADDER, { table.unpack(ladder) })
    assert.is_nil(stop.LADDER.limit)
    local own = { { "sigkill", 1 }, limit = 2 }
    assert.are.equal(own, stop.fleet_ladder(own))
    for _, wrong in ipairs{ 0, 1.5, "2" } do
      support.raises("limit must be a whole number", stop.fleet_ladder, { limit = wrong })
    end
  end)
end)

describe("a VM that SIGKILL does not end", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is told to be unkillable when it sleeps in the kernel", function()
    local parent <close> = must(fcproc.spawn({ "python3", "-c", VFORK }))
    local pid = parent:pid()
    local children, number = ("/proc/%d/task/%d/children"):format(pid, pid), nil
    support.eventually("it sleeps in vfork", function()
      number = tonumber(core.read_file(children):match("%d+"))
      return number and state(pid) == "D"
    end)
    local child <close> = must(fcproc.process(number))
    local report, err = stop.process({ id = "stuck", machine = deaf_machine(pid) }, stop.KILL)
    must(child:signal("KILL"))
    must(parent:signal("KILL"))
    must(parent:wait(10))
    assert.are.equal("unkillable", report.outcome)
    assert.are.equal("timeout", report.steps[1].outcome)
    fails("wait_timeout", nil, err)
    assert.is_truthy(err.message:find(("the VM 'stuck' has not ended: pid %d is in uninterruptible "
      .. "sleep (D)"):format(pid), 1, true), err.message)
    assert.are.equal(pid, err.pid)
  end)

  it("only runs when it does not", function()
    local process <close> = must(fcproc.spawn{ "sleep", "60" })
    support.eventually("it sleeps", function() return state(process:pid()) == "S" end)
    local report, err = stop.process({ id = "busy", machine = deaf_machine(process:pid()) }, stop.KILL)
    must(process:signal("KILL"))
    must(process:wait(10))
    assert.are.equal("running", report.outcome)
    assert.is_truthy(err.message:find("every step of the ladder ran out of time", 1, true))
  end)

  it("is spared SIGTERM where it would do nothing", function()
    local process <close> = must(fcproc.spawn{ "sleep", "60" })
    local machine = deaf_machine(process:pid())
    machine.shape.new_pid_ns = true
    local report = stop.process({ id = "busy", machine = machine }, { { "sigterm", 1 } })
    must(process:signal("KILL"))
    must(process:wait(10))
    assert.are.equal("skipped", report.steps[1].outcome)
    assert.is_truthy(report.steps[1].message:find("PID 1", 1, true))
  end)

  it("has a signal that can't be sent told as failed", function()
    local process <close> = must(fcproc.spawn{ "sleep", "60" })
    local machine = deaf_machine(process:pid())
    machine.process.signal = function()
      return nil, errors.new{ code = "permission", op = "process.signal", message = "not yours" }
    end
    local report, err = stop.process({ id = "foreign", machine = machine }, stop.KILL)
    must(process:signal("KILL"))
    must(process:wait(10))
    fails("wait_timeout", nil, err)
    assert.are.equal("failed", report.steps[#report.steps].outcome)
    assert.are.equal("not yours", report.steps[#report.steps].message)
  end)
end)
