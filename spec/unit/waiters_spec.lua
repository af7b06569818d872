-- The waiters: one function under plain poll, cqueues and luv, cancelled from their own loops.

local support = require "spec.support"
local fcproc = require "fcproc"

local must = support.must

-- What is to work the same everywhere: a command, a wait that times out, a kill and its status.
local function flow(ctx)
  local out = must(fcproc.runner():run({ "sh", "-c", "sleep 0.05; echo done" }, nil, ctx)).stdout
  local process <close> = must(fcproc.spawn({ "sleep", "60" }, { stdout = "null" }, ctx))
  local timed_out = select(2, process:wait(0.05, ctx))
  process:signal("KILL")
  local _, exit = must(process:wait(10, ctx))
  return out, timed_out.code, exit.signal
end

local function wait_for_ever(ctx)
  return fcproc.runner():run({ "sleep", "60" }, nil, ctx)
end

local EXPECTED = { "done\n", "wait_timeout", 9 }

describe("the same function", function()
  setup(function() -- luv's own loop keeps its descriptors
    local uv = require "luv"
    local timer = uv.new_timer()
    timer:start(1, 0, function() timer:close() end)
    uv.run()
  end)
  before_each(support.before_each)
  after_each(support.after_each)

  it("runs under plain poll, alone and in fcproc.run", function()
    local ctx <close> = must(fcproc.context{ waiter = "poll" })
    assert.are.same(EXPECTED, { flow(ctx) })
    assert.are.same(EXPECTED, { flow() })
    local results = fcproc.run{ flow, flow }
    for i = 1, 2 do assert.are.same(EXPECTED, { table.unpack(results[i]) }) end
  end)

  it("runs under cqueues, several at once", function()
    local loop = require("cqueues").new()
    local ctx <close> = must(fcproc.context{ waiter = "cqueues" })
    local got = {}
    for i = 1, 5 do
      loop:wrap(function() got[i] = { flow(ctx) } end)
    end
    assert(loop:loop())
    for i = 1, 5 do assert.are.same(EXPECTED, got[i]) end
  end)

  it("is cancelled from another coroutine of cqueues", function()
    local cqueues = require "cqueues"
    local loop = cqueues.new()
    local ctx <close> = must(fcproc.context{ waiter = "cqueues" })
    local under <close> = must(ctx:with_timeout(50))
    local ends = {}
    local took = support.seconds(function()
      loop:wrap(function() ends[1] = select(2, wait_for_ever(ctx)) end)
      loop:wrap(function() ends[2] = select(2, wait_for_ever(under)) end)
      loop:wrap(function() cqueues.sleep(0.05) ctx:cancel() end)
      assert(loop:loop())
    end)
    assert.are.same({ "cancelled", "cancelled" }, { ends[1].code, ends[2].code })
    assert.is_true(took < 20)
  end)

  it("ends at its deadline under cqueues, with other work going on", function()
    local cqueues = require "cqueues"
    local loop = cqueues.new()
    local ctx <close> = must(fcproc.context{ waiter = "cqueues", timeout = 0.2 })
    local late, turns = nil, 0
    loop:wrap(function() late = select(2, wait_for_ever(ctx)) end)
    loop:wrap(function() while not late do cqueues.sleep(0.01) turns = turns + 1 end end)
    assert(loop:loop())
    assert.are.equal("deadline", late.code)
    assert.is_true(turns > 1)
  end)

  it("runs under luv, several at once", function()
    local uv = require "luv"
    local ctx <close> = must(fcproc.context{ waiter = "luv" })
    local got = {}
    for i = 1, 5 do
      coroutine.wrap(function() got[i] = { flow(ctx) } end)()
    end
    uv.run()
    for i = 1, 5 do assert.are.same(EXPECTED, got[i]) end
  end)

  it("is cancelled from a timer of luv", function()
    local uv = require "luv"
    local ctx <close> = must(fcproc.context{ waiter = "luv" })
    local under <close> = must(ctx:with_timeout(50))
    local ends = {}
    local took = support.seconds(function()
      for i, one in ipairs{ ctx, under } do
        coroutine.wrap(function() ends[i] = select(2, wait_for_ever(one)) end)()
      end
      local timer = uv.new_timer()
      timer:start(50, 0, function() ctx:cancel() timer:close() end)
      uv.run()
    end)
    assert.are.same({ "cancelled", "cancelled" }, { ends[1].code, ends[2].code })
    assert.is_true(took < 20)
  end)

  it("ends at its deadline under luv, with other work going on", function()
    local uv = require "luv"
    local ctx <close> = must(fcproc.context{ waiter = "luv", timeout = 0.2 })
    local late, turns = nil, 0
    coroutine.wrap(function() late = select(2, wait_for_ever(ctx)) end)()
    local timer = uv.new_timer()
    timer:start(10, 10, function()
      turns = turns + 1
      if late then timer:close() end
    end)
    uv.run()
    assert.are.equal("deadline", late.code)
    assert.is_true(turns > 1)
  end)

  it("raises under luv on the main coroutine, and says what to do", function()
    -- busted runs tests in the main coroutine or not: a Lua of its own is sure to.
    local text = support.sh{ support.lua, "-e", [[
      local fcproc = require "fcproc"
      local ctx <close> = assert(fcproc.context{ waiter = "luv" })
      print(pcall(function() return fcproc.runner():run({ "sleep", "60" }, nil, ctx) end))]] }
    assert.are.equal("false\tthe luv waiter needs a coroutine: call this inside "
      .. "coroutine.wrap(...)()\n", text)
  end)
end)

describe("require 'fcproc'", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("loads neither cqueues nor luv; a context's waiter loads its own at the first wait", function()
    local text = support.sh{ support.lua, "-e", [[
      local fcproc = require "fcproc"
      local function loaded()
        return not not package.loaded.cqueues, not not package.loaded.luv
      end
      print(loaded())
      fcproc.run{ function() return fcproc.runner():run{ "sleep", "0.01" } end }
      print(loaded())
      local ctx <close> = assert(fcproc.context{ waiter = "cqueues" })
      fcproc.runner():run({ "sleep", "0.01" }, nil, ctx)
      print(loaded())]] }
    assert.are.equal("false\tfalse\nfalse\tfalse\ntrue\tfalse\n", text)
  end)
end)

-- fcproc.run of functions that wait, under a host's loop that has other work: a timer's turns.
local hosts = {
  cqueues = function(flow_of, turn)
    local cqueues = require "cqueues"
    local loop, over = cqueues.new(), false
    loop:wrap(function()
      while not over do
        cqueues.sleep(0.01)
        turn()
      end
    end)
    loop:wrap(function()
      local closing <close> = setmetatable({}, { __close = function() over = true end }) -- luacheck: ignore
      flow_of()
    end)
    assert(loop:loop())
  end,
  luv = function(flow_of, turn)
    local uv = require "luv"
    local timer = uv.new_timer()
    timer:start(10, 10, turn)
    coroutine.wrap(function()
      local closing <close> = setmetatable({}, { __close = function() timer:close() end }) -- luacheck: ignore
      flow_of()
    end)()
    uv.run()
  end,
}

describe("fcproc.run under a host's loop", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for name, host in pairs(hosts) do
    it("leaves it to its other work: " .. name, function()
      local turns, running, most, results = 0, 0, 0, nil
      host(function()
        local ctx <close> = must(fcproc.context{ waiter = name })
        local functions = { limit = 2 }
        for i = 1, 5 do
          functions[i] = function(run_ctx)
            running = running + 1
            most = math.max(most, running)
            -- The run's context is the default, also of a run inside it.
            local inner = fcproc.run{ function() return fcproc.runner():run{ "sleep", "0.05" } end }
            must(inner[1][1], inner[1][2])
            must(fcproc.runner():run({ "true" }, nil, run_ctx))
            running = running - 1
            return i
          end
        end
        results = fcproc.run(functions, ctx)
      end, function() turns = turns + 1 end)
      assert.are.equal(2, most)
      assert.is_true(turns >= 3)
      for i = 1, 5 do assert.are.equal(i, results[i][1]) end
    end)

    it("raises the first error, after the others have ended: " .. name, function()
      local ended, ok, err
      host(function()
        local ctx <close> = must(fcproc.context{ waiter = name })
        ok, err = pcall(fcproc.run, {
          function(run_ctx) ended = select(2, wait_for_ever(run_ctx)) end,
          function() error("it broke", 0) end,
        }, ctx)
      end, function() end)
      assert.are.same({ false, "it broke", "cancelled" }, { ok, err, ended.code })
    end)
  end

  it("needs no loop of cqueues to be running", function()
    local ctx <close> = must(fcproc.context{ waiter = "cqueues" })
    local results = fcproc.run({ function() return fcproc.runner():run{ "true" } end }, ctx)
    must(results[1][1], results[1][2])
  end)
end)
