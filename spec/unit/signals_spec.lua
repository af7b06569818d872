-- Signals that a script waits for: alone, and as what ends a run with all that it holds.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, raises = support.must, support.raises

-- Runs the script in an interpreter of its own, sends what it is told to once it has said "waiting", and
-- gives its exit and what it wrote.
local function signalled(code, ...)
  local dir <close> = support.folder()
  local script, out = dir:file("script.lua"), dir:file("out")
  support.write_file(script, 'local fcproc = require "fcproc"\nio.stdout:setvbuf("no")\n' .. code)
  local process <close> = must(fcproc.spawn({ support.lua, script },
    { stdout = { file = out }, stderr = { file = out } }))
  local _ <close> = setmetatable({}, { __close = function()
    if process:alive() then process:signal("KILL") end
    process:wait(10)
  end })
  support.eventually("it waits", function()
    return (support.read_file(out) or ""):find("waiting\n", 1, true) or not process:alive()
  end, 10)
  for _, signal in ipairs{ ... } do must(process:signal(signal)) end
  local exit = select(2, must(process:wait(20)))
  return exit, (support.read_file(out):gsub("^waiting\n", ""))
end

describe("a wait for signals", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("tells which one came, also when it came before the wait", function()
    local exit, said = signalled([[
      print(select(2, fcproc.wait_for_signal({ "TERM", "USR1" }, 0)).code)
      print "waiting"
      print(fcproc.wait_for_signal({ "TERM", "USR1" }, 10))
      fcproc.process(tonumber(io.open("/proc/self/stat"):read("n"))):signal("TERM")
      print(fcproc.wait_for_signal{ "TERM" })]], "USR1")
    assert.are.same({ status = 0 }, exit, said)
    assert.are.equal("wait_timeout\nwaiting\nUSR1\nTERM\n", said)
  end)

  it("names what is no signal", function()
    raises("fcproc.wait_for_signal: unknown signal 'TREM'", fcproc.wait_for_signal, { "TREM" })
    raises("1 to 8 names", fcproc.wait_for_signal, {})
    raises("1 to 8 names", fcproc.wait_for_signal, "TERM")
    raises("fcproc.run: unknown signal 'TREM'", fcproc.run, { signals = { "TREM" } })
  end)
end)

describe("fcproc.run with signals", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("ends what runs, closing variables and all, and raises what says which", function()
    local exit, said = signalled([[
      local ok, err = pcall(fcproc.run, { signals = { "TERM" },
        function(ctx)
          local _ <close> = setmetatable({}, { __close = function()
            fcproc.runner():run({ "sleep", "0.05" }, nil, fcproc.context())
            print "closed"
          end })
          print "waiting"
          print(select(2, fcproc.runner():run({ "sleep", "60" }, nil, ctx)).code)
        end })
      print(ok, err.code, err.signal, err)]], "TERM")
    assert.are.same({ status = 0 }, exit, said)
    assert.are.equal("cancelled\nclosed\nfalse\tcancelled\t15\trun: the signal TERM came (cancelled)\n", said)
  end)

  it("gives the results when none comes, with a limit, and inside of another run", function()
    local function two() return 2, "two" end
    local results = fcproc.run{ signals = { "USR2" }, limit = 1, two, two }
    assert.are.same({ { 2, "two", n = 2 }, { 2, "two", n = 2 } }, results)
    results = fcproc.run{ function() return fcproc.run{ signals = { "USR2" }, two } end }
    assert.are.same({ 2, "two", n = 2 }, results[1][1][1])
    raises("oops", fcproc.run, { signals = { "USR2" }, function() error("oops") end })
  end)
end)
