-- fcproc.run: many functions at once in one Lua state, and what an error or a cancel does to them.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local runner = fcproc.runner()

local function sleep(seconds, ctx) return runner:run({ "sleep", seconds }, nil, ctx) end

local function closing(fn) return setmetatable({}, { __close = fn }) end

local function raises(text, ...) support.raises(text, fcproc.run, ...) end

describe("fcproc.run", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("waits for many at once, and packs the results in order of the functions", function()
    local functions = {}
    for i = 1, 20 do
      functions[i] = function()
        must(sleep(i % 2 == 0 and 0.2 or 0.3))
        return i, nil, "x"
      end
    end
    local results
    local took = support.seconds(function() results = fcproc.run(functions) end)
    assert.is_true(took < 4) -- one after another it would be 5
    assert.are.equal(20, #results)
    for i = 1, 20 do assert.are.same({ i, nil, "x", n = 3 }, results[i]) end
  end)

  it("packs no results and failures too, and does nothing with nothing", function()
    local results = fcproc.run{
      function() end,
      function() return nil, "reason" end,
      function() return runner:run{ "false" } end,
    }
    assert.are.same({ n = 0 }, results[1])
    assert.are.same({ nil, "reason", n = 2 }, results[2])
    assert.is_true(fails("exit_status", table.unpack(results[3], 1, 2)) == fcproc.ERR_EXIT_STATUS)
    assert.are.same({}, fcproc.run{})
  end)

  it("keeps to the limit, and still runs all", function()
    local now, most, order = 0, 0, {}
    local functions = { limit = 3 }
    for i = 1, 10 do
      functions[i] = function()
        now = now + 1
        most = math.max(most, now)
        order[#order + 1] = i
        must(sleep(0.02))
        now = now - 1
        return i
      end
    end
    local results = fcproc.run(functions)
    assert.are.equal(3, most)
    assert.are.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, order)
    assert.are.equal(10, results[10][1])
  end)

  it("nests, and the inner ones wait together with the outer ones", function()
    local function pause() must(sleep(0.3)) return "p" end
    local results
    local took = support.seconds(function()
      results = fcproc.run{
        function()
          return fcproc.run{ pause, pause, function() return fcproc.run{ pause, pause } end }
        end,
        pause,
        function() return fcproc.run{ pause, pause } end,
      }
    end)
    assert.is_true(took < 1.8) -- six times 0.3 s one after another
    assert.are.equal("p", results[1][1][3][1][2][1])
    assert.are.equal("p", results[3][1][2][1])
  end)

  it("gives its context to each function and to every call inside", function()
    local ctx <close> = must(fcproc.context{ timeout = 100 })
    fcproc.run({ function(own)
      assert.is_true(own:remaining() <= 100)
      own:cancel()
      fails("cancelled", sleep(60))
      fails("cancelled", fcproc.spawn{ "true" })
      local fresh <close> = must(fcproc.context()) -- asked for, another one is used
      must(sleep(0.01, fresh))
      local inner = fcproc.run{ function() return sleep(60) end }
      fails("cancelled", inner[1][1], inner[1][2])
    end }, ctx)
    must(ctx:status()) -- the run's own is a child of it
    must(sleep(0.01))
  end)

  it("ends with the context that it is given", function()
    local ctx <close> = must(fcproc.context{ timeout = 0.1 })
    local results
    local took = support.seconds(function()
      results = fcproc.run({ function() return sleep(60) end, function()
        return fcproc.run{ function() return sleep(60) end }
      end }, ctx)
    end)
    fails("deadline", results[1][1], results[1][2])
    fails("deadline", results[2][1][1][1], results[2][1][1][2])
    assert.is_true(took < 20)
  end)

  it("lets one cancel another's wait, which ends at once", function()
    local ctx <close> = must(fcproc.context())
    local process <close> = must(fcproc.spawn({ "sleep", "60" }, { stdout = "null" }))
    local manager <close> = must(fcproc.new())
    local results
    local took = support.seconds(function()
      results = fcproc.run{
        function() return process:wait(60, ctx) end,
        function() return manager:wait_for_path("/no/such/path", 60, "x", ctx) end,
        function() return sleep(60, ctx) end,
        function() must(sleep(0.05)) ctx:cancel() return "done" end,
      }
    end)
    must(process:signal("KILL"))
    must(process:wait(10))
    for i = 1, 3 do fails("cancelled", results[i][1], results[i][2]) end
    assert.are.equal("done", results[4][1])
    assert.is_true(took < 20)
  end)

  it("is not disturbed by a function that yields by itself", function()
    local turns = {}
    local function yielding(name)
      return function()
        for _ = 1, 3 do
          turns[#turns + 1] = name
          assert.is_nil(coroutine.yield("ignored"))
        end
        must(sleep(0.02))
        coroutine.yield()
        return name
      end
    end
    local results = fcproc.run{ yielding("a"), yielding("b"), function()
      return must(runner:run{ "echo", "c" }).stdout
    end }
    assert.are.same({ "a", "b", "c\n" }, { results[1][1], results[2][1], results[3][1] })
    table.sort(turns)
    assert.are.equal("aaabbb", table.concat(turns))
  end)

  it("serves many coroutines with one manager", function()
    local world <close> = support.world()
    local functions = {}
    for i = 1, 20 do
      local tap = "fctap" .. i
      functions[i] = function()
        must(world.manager:ensure_bridge())
        must(world.manager:ensure_socket_dir())
        must(world.manager:create_tap(tap))
        local file = world.folder:file(tap)
        local results = fcproc.run{
          function() return world.manager:wait_for_path(file, 20) end,
          function() return runner:run{ "touch", file } end,
        }
        must(results[1][1], results[1][2])
        must(world.manager:delete_tap(tap))
        return tap
      end
    end
    local results = fcproc.run(functions)
    for i = 1, 20 do assert.are.equal("fctap" .. i, results[i][1]) end
    assert.are.same({}, must(world.manager:list_taps()))
  end)

  it("tells wrong use", function()
    raises("functions must be a table, not a function", function() end)
    raises("functions must be a list of functions", { "x" })
    raises("functions must be a list of functions", { limits = 3 })
    for _, limit in ipairs{ 0, -1, 1.5, "3", true } do
      raises("limit must be a whole number of 1 or more", { limit = limit, function() end })
    end
    raises("the context must come from fcproc.context", {}, {})
  end)
end)

describe("an error in fcproc.run", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("cancels the others, runs their closing variables, and is raised as the same value", function()
    local problem, closed, seen = {}, 0, nil
    local ok, err, took
    took = support.seconds(function()
      ok, err = pcall(fcproc.run, {
        function()
          local tidy <close> = closing(function()
            -- Tearing down may wait, under a context of its own.
            local own <close> = must(fcproc.context{ timeout = 10 })
            must(sleep(0.05, own))
            closed = closed + 1
          end)
          assert.is_truthy(tidy)
          seen = select(2, sleep(60))
          error("because of that", 0)
        end,
        function()
          local tidy <close> = closing(function() closed = closed + 1 end)
          assert.is_truthy(tidy)
          must(sleep(60))
        end,
        function()
          sleep(0.05)
          error(problem, 0)
        end,
      })
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(problem, err))
    assert.are.equal("cancelled", seen.code)
    assert.are.equal(2, closed)
    assert.is_true(took < 20)
  end)

  it("leaves the functions that have not begun, and those that go on are waited for", function()
    local begun, ended = {}, false
    local ok, err = pcall(fcproc.run, {
      limit = 2,
      function() begun[1] = true sleep(0.05) error("first", 0) end,
      function()
        begun[2] = true
        fails("cancelled", sleep(60))
        local own <close> = must(fcproc.context())
        must(sleep(0.05, own))
        ended = true
      end,
      function() begun[3] = true end,
    })
    assert.are.same({ false, "first" }, { ok, err })
    assert.is_true(ended)
    assert.is_nil(begun[3])
  end)

  it("goes from an inner run through the outer one, with its closing variables", function()
    local closed, other = 0, nil
    local ok, err = pcall(fcproc.run, {
      function()
        local tidy <close> = closing(function() closed = closed + 1 end)
        assert.is_truthy(tidy)
        fcproc.run{
          function() sleep(0.02) error({ "inner" }, 0) end,
          function()
            local inner <close> = closing(function() closed = closed + 1 end)
            assert.is_truthy(inner)
            sleep(60)
          end,
        }
      end,
      function() other = select(2, sleep(60)) end,
    })
    assert.is_false(ok)
    assert.are.same({ "inner" }, err)
    assert.are.equal("cancelled", other.code)
    assert.are.equal(2, closed)
  end)

  it("may be caught inside, and then the outer run goes on", function()
    local results = fcproc.run{
      function()
        local ok, err = pcall(fcproc.run, { function() error("caught", 0) end })
        must(sleep(0.02))
        return ok, err
      end,
      function() return must(runner:run{ "echo", "on" }).stdout end,
    }
    assert.are.same({ false, "caught", n = 2 }, results[1])
    assert.are.equal("on\n", results[2][1])
    must(sleep(0.01)) -- and the state can wait as before
  end)
end)
