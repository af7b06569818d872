-- fcproc.run, contexts, and the waiters: many waits at once, and how they end.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function sleeping(seconds)
  return must(fcproc.spawn{ "sleep", seconds or "60" })
end

-- A process that is killed and reaped at the end of the block.
local function sleeper()
  local process = sleeping()
  return process, setmetatable({}, { __close = function()
    process:signal("KILL")
    process:wait(10)
    process:close()
  end })
end

describe("a context", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("ends with its parent, and not the other way round", function()
    local parent <close> = must(fcproc.context{ timeout = 100 })
    local child <close> = must(parent:with_timeout(200))
    assert.is_true(child:remaining() <= 100)
    local other <close> = must(parent:with_timeout(1))
    other:cancel()
    fails("cancelled", other:status())
    must(parent:status())
    parent:cancel()
    fails("cancelled", child:status())
  end)

  it("is refused when it is none, or its options are unknown", function()
    assert.has_error(function() fcproc.context{ timout = 1 } end)
    assert.has_error(function() fcproc.context{ waiter = "libev" } end)
    assert.has_error(function() fcproc.runner():run({ "true" }, nil, {}) end)
  end)

  it("loses to a result, beats the deadline, which beats the call's own time-out", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local ctx <close> = must(fcproc.context{ timeout = 0 })
    fails("deadline", process:wait(0, ctx))
    fails("wait_timeout", process:wait(0))
    ctx:cancel()
    fails("cancelled", process:wait(0, ctx))
    process:signal("KILL")
    support.eventually("it is dead", function() return not process:alive() end)
    local gone, exit = process:wait(0, ctx)
    assert.is_true(gone)
    assert.are.equal(9, exit.signal)
  end)
end)

describe("fcproc.run", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("waits for many at once, in one state, in order of the functions", function()
    local runner = fcproc.runner()
    local functions = {}
    for i = 1, 20 do
      functions[i] = function()
        must(runner:run{ "sleep", "0.3" })
        return i, nil, "x"
      end
    end
    local results
    local took = support.seconds(function() results = fcproc.run(functions) end)
    assert.is_true(took < 4) -- one after another it would be 6
    for i = 1, 20 do assert.are.same({ i, nil, "x", n = 3 }, results[i]) end
  end)

  it("keeps to the limit", function()
    local now, most = 0, 0
    local functions = { limit = 3 }
    for i = 1, 10 do
      functions[i] = function()
        now = now + 1
        most = math.max(most, now)
        fcproc.runner():run{ "sleep", "0.02" }
        now = now - 1
      end
    end
    fcproc.run(functions)
    assert.are.equal(3, most)
  end)

  it("nests", function()
    local results = fcproc.run{
      function() return fcproc.run{ function() return "a" end, function()
        return fcproc.runner():run{ "echo", "b" }.stdout
      end } end,
      function() return "c" end,
    }
    assert.are.same({ "a", "b\n", "c" }, { results[1][1][1][1], results[1][1][2][1], results[2][1] })
  end)

  it("cancels the others when one raises, runs their closing variables, raises the error", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local problem, closed, seen = {}, false, nil
    local ok, err = pcall(fcproc.run, {
      function()
        local tidy <close> = setmetatable({}, { __close = function()
          -- Tearing down may wait, under a context of its own.
          local own <close> = must(fcproc.context{ timeout = 10 })
          must(fcproc.runner():run({ "sleep", "0.05" }, nil, own))
          closed = true
        end })
        assert.is_truthy(tidy)
        seen = select(2, process:wait(60))
        error("because of that", 0)
      end,
      function()
        fcproc.runner():run{ "sleep", "0.05" }
        error(problem, 0)
      end,
    })
    assert.is_false(ok)
    assert.are.equal(problem, err)
    assert.are.equal("cancelled", seen.code)
    assert.is_true(closed)
  end)

  it("can cancel one wait from another coroutine", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local ctx <close> = must(fcproc.context())
    local results
    local took = support.seconds(function()
      results = fcproc.run{
        function() return process:wait(60, ctx) end,
        function() coroutine.yield() ctx:cancel() end,
      }
    end)
    fails("cancelled", results[1][1], results[1][2])
    assert.is_true(took < 5)
  end)

  it("tells wrong use", function()
    assert.has_error(function() fcproc.run(function() end) end)
    assert.has_error(function() fcproc.run{ "x" } end)
    assert.are.same({}, fcproc.run{})
  end)
end)

describe("the same function", function()
  setup(function() -- luv's own loop keeps its descriptors
    local uv = require "luv"
    local timer = uv.new_timer()
    timer:start(1, 0, function() timer:close() end)
    uv.run()
  end)
  before_each(support.before_each)
  after_each(support.after_each)

  local function flow(ctx)
    local out = must(fcproc.runner():run({ "sh", "-c", "sleep 0.05; echo done" }, nil, ctx)).stdout
    local process <close> = sleeping()
    local timed_out = select(2, process:wait(0.05, ctx))
    process:signal("KILL")
    local _, exit = must(process:wait(10, ctx))
    return out, timed_out.code, exit.signal
  end

  local expected = { "done\n", "wait_timeout", 9 }

  it("runs under plain poll", function()
    assert.are.same(expected, { flow(must(fcproc.context())) })
  end)

  it("runs under cqueues, several at once", function()
    local cqueues = require "cqueues"
    local loop = cqueues.new()
    local ctx <close> = must(fcproc.context{ waiter = "cqueues" })
    local got = {}
    for i = 1, 5 do
      loop:wrap(function() got[i] = { flow(ctx) } end)
    end
    assert(loop:loop())
    for i = 1, 5 do assert.are.same(expected, got[i]) end
    local late
    loop:wrap(function() late = select(2, fcproc.runner():run({ "sleep", "60" }, nil, ctx)) end)
    loop:wrap(function() cqueues.sleep(0.05) ctx:cancel() end)
    assert(loop:loop())
    assert.are.equal("cancelled", late.code)
  end)

  it("runs under luv, several at once", function()
    local uv = require "luv"
    local ctx <close> = must(fcproc.context{ waiter = "luv" })
    local got = {}
    for i = 1, 5 do
      coroutine.wrap(function() got[i] = { flow(ctx) } end)()
    end
    uv.run()
    for i = 1, 5 do assert.are.same(expected, got[i]) end
    local late
    coroutine.wrap(function()
      late = select(2, fcproc.runner():run({ "sleep", "60" }, nil, ctx))
    end)()
    local timer = uv.new_timer()
    timer:start(50, 0, function() ctx:cancel() timer:close() end)
    uv.run()
    assert.are.equal("cancelled", late.code)
    assert.has_error(function() fcproc.runner():run({ "sleep", "1" }, nil,
      must(fcproc.context{ waiter = "luv" })) end)
  end)

  it("loads neither of them unasked", function()
    local out = support.sh{ support.lua, "-e",
      "require 'fcproc'; print(package.loaded.cqueues, package.loaded.luv)" }
    assert.are.equal("nil\tnil\n", out)
  end)
end)

describe("Ctrl-C", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local waits = {
    ["a wait for a process"] = [[
      local p = assert(fcproc.spawn({ "sleep", "60" }, { stdout = "null", stderr = "null" }))
      local kill <close> = setmetatable({}, { __close = function() p:signal("KILL") end })
      ready() p:wait(60)]],
    ["a command"] = [[ready() fcproc.runner():run{ "sleep", "60" }]],
    ["a path"] = [[ready() assert(fcproc.new()):wait_for_path("/nowhere/at/all", 60)]],
    ["fcproc.run"] = [[
      local function wait()
        local tidy <close> = setmetatable({}, { __close = function() say("inner closed") end })
        fcproc.runner():run{ "sleep", "60" }
      end
      fcproc.run{ wait, wait, function() ready() wait() end }]],
  }

  for name, code in pairs(waits) do
    it("ends " .. name .. " at once, and closing variables run", function()
      local dir <close> = support.folder()
      local log, script = dir:file("log"), dir:file("script.lua")
      support.write_file(script, ([[
        local fcproc = require "fcproc"
        local function say(text)
          local f <close> = assert(io.open(%q, "a"))
          f:write(text, "\n")
        end
        local function ready() say("waiting") end
        local tidy <close> = setmetatable({}, { __close = function() say("closed") end })
        %s]]):format(log, code))
      local process <close> = must(fcproc.spawn({ support.lua, script },
        { stdout = { file = dir:file("out") }, stderr = { file = dir:file("out") } }))
      support.eventually("it waits", function()
        return (support.read_file(log) or ""):find("waiting", 1, true)
      end)
      fcproc.runner():run{ "sleep", "0.1" }
      process:signal("INT")
      local _, exit = must(process:wait(10))
      assert.are.equal(1, exit.status)
      local text = support.read_file(log)
      assert.is_truthy(text:find("\nclosed\n", 1, true))
      assert.is_truthy(support.read_file(dir:file("out")):find("interrupted!", 1, true))
      if name == "fcproc.run" then
        assert.are.equal(3, select(2, text:gsub("inner closed", "")))
      end
    end)
  end
end)
