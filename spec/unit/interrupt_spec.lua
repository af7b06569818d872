-- Ctrl-C: it ends any wait at once, with "interrupted!", and closing variables run.

local support = require "spec.support"
local fcproc = require "fcproc"

local must = support.must

-- Each waits for a minute, after ready(). In all: say(text) writes a line to the log, tidy(text)
-- is a closing variable that does.
local WAITS = {
  ["a wait for a process"] = [[
    local process <close> = assert(fcproc.spawn({ "sleep", "60" }, quiet))
    local kill <close> = closing(function() process:signal("KILL") process:wait(10) end)
    ready() process:wait(60)]],
  ["a command"] = [[ready() runner:run{ "sleep", "60" }]],
  ["a wait for a path"] = [[ready() assert(fcproc.new()):wait_for_path("/no/such/path", 60)]],
  ["a wait under a context"] = [[
    local ctx <close> = assert(fcproc.context{ timeout = 60 })
    ready() assert(fcproc.new()):wait_for_path("/no/such/path", 60, "x", ctx)]],
  ["fcproc.run with several waits"] = [[
    local process <close> = assert(fcproc.spawn({ "sleep", "60" }, quiet))
    local kill <close> = closing(function() process:signal("KILL") process:wait(10) end)
    fcproc.run{
      function() local t <close> = tidy("inner") process:wait(60) end,
      function() local t <close> = tidy("inner") runner:run{ "sleep", "60" } end,
      function() local t <close> = tidy("inner") fcproc.new():wait_for_path("/no/such", 60) end,
      function() ready() end,
    }]],
  ["fcproc.run inside fcproc.run"] = [[
    local function wait() local t <close> = tidy("inner") runner:run{ "sleep", "60" } end
    fcproc.run{
      function() local t <close> = tidy("inner") fcproc.run{ wait, function() ready() wait() end } end,
      function() coroutine.yield() end,
    }]],
  ["fcproc.run whose functions wait in their closing variables"] = [[
    local function wait()
      local slow <close> = closing(function()
        local own <close> = assert(fcproc.context{ timeout = 10 })
        assert(runner:run({ "sleep", "0.1" }, nil, own))
        say("inner")
      end)
      runner:run{ "sleep", "60" }
    end
    fcproc.run{ wait, wait, function() ready() wait() end }]],
}

local SCRIPT = [[
  local fcproc = require "fcproc"
  local runner, quiet = fcproc.runner(), { stdout = "null", stderr = "null" }
  local function say(text)
    local log <close> = assert(io.open(%q, "a"))
    log:write(text, "\n")
  end
  local function closing(fn) return setmetatable({}, { __close = fn }) end
  local function tidy(text) return closing(function() say(text) end) end
  local function ready() say("waiting") end
  local outer <close> = tidy("outer")
  local function main()
    %s
  end
  main()
  say("came back")]]

describe("Ctrl-C", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for name, code in pairs(WAITS) do
    it("ends " .. name, function()
      local dir <close> = support.folder()
      local log, script, out = dir:file("log"), dir:file("script.lua"), { file = dir:file("out") }
      support.write_file(script, SCRIPT:format(log, code))
      local process <close> = must(fcproc.spawn({ support.lua, script },
        { stdout = out, stderr = out }))
      local ending <close> = setmetatable({}, { __close = function()
        if process:alive() then process:signal("KILL") end
        process:wait(10)
      end })
      assert.is_truthy(ending)
      support.eventually("it waits", function()
        return (support.read_file(log) or support.read_file(out.file)):find("waiting\n", 1, true)
      end)
      support.sh{ "sleep", "0.1" } -- so that it is in its wait, most likely
      must(process:signal("INT"))
      local _, exit = must(process:wait(20))
      assert.are.same({ status = 1 }, exit)
      local text = support.read_file(out.file)
      assert.is_truthy(text:find("interrupted!", 1, true), text)
      local inner = select(2, support.read_file(log):gsub("inner\n", ""))
      assert.are.equal(code:find("inner", 1, true) and 3 or 0, inner)
      assert.is_truthy(support.read_file(log):find("outer\n$"))
    end)
  end
end)
