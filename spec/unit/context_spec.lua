-- Contexts: deadline, latched cancel, what children inherit, and which end of a wait beats which.

local support = require "spec.support"
local fcproc = require "fcproc"
local loop = require "fcproc.loop"

local must, fails = support.must, support.fails

-- A wait that nothing but its context or its time-out ends.
local function wait(timeout, ctx)
  local manager <close> = must(fcproc.new())
  return manager:wait_for_path("/no/such/folder/at all", timeout, "nothing", ctx)
end

local raises = support.raises

describe("a context", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("lasts without a deadline until it is cancelled, and stays so", function()
    local ctx <close> = must(fcproc.context())
    must(ctx:status())
    assert.is_nil(ctx:remaining())
    ctx:cancel()
    ctx:cancel()
    for _ = 1, 3 do
      local err = fails("cancelled", ctx:status())
      assert.is_true(err == fcproc.ERR_CANCELLED)
    end
  end)

  it("ends at its deadline, and says how much is left until then", function()
    local ctx <close> = must(fcproc.context{ timeout = 0.1 })
    assert.is_true(ctx:remaining() <= 0.1)
    support.eventually("the deadline passes", function() return not ctx:status() end)
    assert.is_true(fails("deadline", ctx:status()) == fcproc.ERR_DEADLINE)
    assert.are.equal(0, ctx:remaining())
    local long <close> = must(fcproc.context{ timeout = 1000 })
    assert.is_true(long:remaining() > 900 and long:remaining() <= 1000)
  end)

  it("gives a child the earlier of both deadlines", function()
    local parent <close> = must(fcproc.context{ timeout = 100 })
    local longer <close> = must(parent:with_timeout(10000))
    local shorter <close> = must(parent:with_timeout(10))
    local same <close> = must(fcproc.context{ parent = parent })
    assert.is_true(longer:remaining() <= 100 and longer:remaining() > 50)
    assert.is_true(shorter:remaining() <= 10)
    assert.is_true(same:remaining() <= 100)
    assert.is_true(parent:remaining() > 50)
    local endless <close> = must(fcproc.context())
    local timed <close> = must(fcproc.context{ parent = endless, timeout = 20 })
    assert.is_true(timed:remaining() <= 20)
    assert.is_nil(endless:remaining())
  end)

  it("cancels its children and theirs, those made later too, and never its parent", function()
    local parent <close> = must(fcproc.context{ timeout = 100 })
    local child <close> = must(parent:with_timeout(50))
    local grandchild <close> = must(fcproc.context{ parent = child })
    local other <close> = must(parent:with_timeout(50))
    grandchild:cancel()
    must(child:status())
    must(parent:status())
    child:cancel()
    must(parent:status())
    must(other:status())
    parent:cancel()
    fails("cancelled", other:status())
    local late <close> = must(parent:with_timeout(50))
    fails("cancelled", late:status())
  end)

  it("ends a wait that it is given after its end at once", function()
    local ctx <close> = must(fcproc.context())
    local child <close> = must(ctx:with_timeout(100))
    ctx:cancel()
    local took = support.seconds(function()
      fails("cancelled", wait(60, ctx))
      fails("cancelled", wait(60, child))
      fails("cancelled", fcproc.runner():run({ "sleep", "60" }, nil, child))
      fails("cancelled", fcproc.spawn({ "sleep", "60" }, nil, child))
    end)
    assert.is_true(took < 10)
  end)

  it("ends a wait under way: by its deadline, its parent's, or a parent's cancel", function()
    local parent <close> = must(fcproc.context{ timeout = 0.1 })
    local child <close> = must(parent:with_timeout(60))
    local took = support.seconds(function()
      fails("deadline", wait(60, child))
      local top <close> = must(fcproc.context())
      local middle <close> = must(top:with_timeout(50))
      local low <close> = must(middle:with_timeout(40))
      local results = fcproc.run{
        function() return wait(60, low) end,
        function() coroutine.yield() top:cancel() end,
      }
      fails("cancelled", results[1][1], results[1][2])
    end)
    assert.is_true(took < 20)
  end)

  it("may be closed while something waits under it, and before its children", function()
    local ctx = must(fcproc.context())
    local child <close> = must(ctx:with_timeout(60))
    local results = fcproc.run{
      function() return fcproc.runner():run({ "sh", "-c", "sleep 0.1; echo on" }, nil, ctx) end,
      function() coroutine.yield() ctx:close() ctx:close() end,
    }
    assert.are.equal("on\n", must(results[1][1], results[1][2]).stdout)
    must(child:status())
    raises("attempt to use a closed fcproc.context", ctx.cancel, ctx)
    raises("attempt to use a closed fcproc.context", wait, 1, ctx)
    assert.is_truthy(tostring(ctx):find("(closed)", 1, true))
  end)

  it("hands its waiter down", function()
    local plain <close> = must(fcproc.context())
    assert.is_nil(plain:waiter())
    local ctx <close> = must(fcproc.context{ waiter = "cqueues" })
    local child <close> = must(ctx:with_timeout(1))
    local other <close> = must(fcproc.context{ parent = ctx, waiter = "poll" })
    assert.are.same({ "cqueues", "cqueues", "poll" },
      { ctx:waiter(), child:waiter(), other:waiter() })
  end)

  it("tells wrong use, and names what is known", function()
    raises("unknown option 'timout'; known: parent, timeout, waiter", fcproc.context, { timout = 1 })
    raises("unknown waiter 'libev'; known: cqueues, luv, poll", fcproc.context, { waiter = "libev" })
    raises("option 'timeout' must be a number, not a string", fcproc.context, { timeout = "5" })
    raises("option 'parent' must be a fcproc.context, not a table", fcproc.context, { parent = {} })
    raises("options must be a table, not a number", fcproc.context, 5)
    raises("0 seconds or more", fcproc.context, { timeout = -1 })
    raises("0 seconds or more", fcproc.context, { timeout = 0 / 0 })
    raises("the context must come from fcproc.context", wait, 1, {})
    raises("the context must come from fcproc.context", fcproc.runner().run, fcproc.runner(),
      { "true" }, nil, io.stdout)
    local ctx <close> = must(fcproc.context())
    raises("number expected", ctx.with_timeout, ctx)
    must(ctx:with_timeout(math.huge)):close()
  end)
end)

describe("the ends of a wait", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("are in order: a result, the cancel, the deadline, the call's own time-out", function()
    local process <close> = must(fcproc.spawn{ "sleep", "60" })
    local late <close> = must(fcproc.context{ timeout = 0 })
    local cancelled <close> = must(fcproc.context{ timeout = 0 })
    cancelled:cancel()
    fails("wait_timeout", process:wait(0))
    fails("deadline", process:wait(0, late))
    fails("cancelled", process:wait(0, cancelled))
    must(process:signal("KILL"))
    support.eventually("it is dead", function() return not process:alive() end)
    local gone, exit = process:wait(0, cancelled)
    assert.is_true(gone)
    assert.are.same({ signal = 9 }, exit)
    local again, same = process:wait(0, late) -- asked again, it is still known
    assert.is_true(again)
    assert.are.same({ signal = 9 }, same)
  end)

  it("leave a look at what is there already with time-out 0", function()
    local dir <close> = support.folder()
    local manager <close> = must(fcproc.new())
    local cancelled <close> = must(fcproc.context())
    cancelled:cancel()
    must(manager:wait_for_path(dir.path, 0, "folder", cancelled))
    fails("deadline", manager:wait_for_path(dir:file("none"), 0, "file"))
  end)

  it("do not come before their time, which is rounded up to whole milliseconds", function()
    local process <close> = must(fcproc.spawn{ "sleep", "60" })
    for given, told in pairs{ [0] = "0", [1e-9] = "0.001", [0.001] = "0.001", [0.0011] = "0.002" } do
      local err = fails("wait_timeout", process:wait(given))
      assert.is_truthy(err.message:find(("after %s s"):format(told), 1, true), err.message)
    end
    must(process:signal("KILL"))
    must(process:wait(10))
  end)

  it("are three different errors, each with what was waited for", function()
    local process <close> = must(fcproc.spawn{ "sleep", "60" })
    local brief <close> = must(fcproc.context{ timeout = 0.02 })
    local own = fails("wait_timeout", process:wait(0.02))
    local deadline = fails("deadline", process:wait(60, brief))
    local cancelled <close> = must(fcproc.context())
    cancelled:cancel()
    local cancel = fails("cancelled", process:wait(60, cancelled))
    must(process:signal("KILL"))
    must(process:wait(10))
    assert.is_true(own == fcproc.ERR_WAIT_TIMEOUT)
    assert.is_false(own == fcproc.ERR_DEADLINE)
    assert.is_true(deadline == fcproc.ERR_DEADLINE)
    assert.is_true(cancel == fcproc.ERR_CANCELLED)
    for _, err in ipairs{ own, deadline, cancel } do
      assert.is_truthy(err.message:find(("pid %d still running"):format(process:pid()), 1, true))
    end
  end)
end)

describe("waiting for another context's end", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function wait_for(watched, timeout, ctx)
    return loop.complete(ctx, watched:wait_op(timeout, ctx))
  end

  it("sees its deadline, and its cancel", function()
    local parent <close> = must(fcproc.context{ timeout = 0.2 })
    local child <close> = must(parent:with_timeout(60))
    local op <close> = must(child:wait_op(20))
    assert.is_false((op:step()))
    assert.is_true(op:timeout() <= 0.2) -- for a host's own loop
    must(wait_for(child, 20))
    must(wait_for(parent, 20))
    local watched <close> = must(fcproc.context())
    fails("wait_timeout", wait_for(watched, 0.02))
    watched:cancel()
    must(wait_for(watched, 20))
  end)

  it("works when it is an ancestor of the wait's own, or a child, or the same", function()
    local top <close> = must(fcproc.context())
    local left <close> = must(top:with_timeout(60))
    local right <close> = must(top:with_timeout(60))
    fails("wait_timeout", wait_for(left, 0.02, right))
    fails("wait_timeout", wait_for(top, 0.02, left))
    fails("wait_timeout", wait_for(left, 0.02, top))
    fails("wait_timeout", wait_for(left, 0.02, left))
    left:cancel()
    must(wait_for(left, 20, right))
    must(wait_for(left, 20, left)) -- a result beats the cancel
    fails("cancelled", wait_for(right, 20, left))
  end)
end)
