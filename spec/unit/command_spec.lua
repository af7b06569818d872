-- Starting processes and running commands.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function output_of(argv, opts)
  local dir <close> = support.folder()
  local full = { stdout = { file = dir:file("out") }, stderr = { file = dir:file("out") } }
  for key, value in pairs(opts or {}) do full[key] = value end
  local process <close> = must(fcproc.spawn(argv, full))
  local _, exit = must(process:wait(10))
  return support.read_file(dir:file("out")), exit
end

describe("fcproc.spawn", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("starts with an empty signal mask, default dispositions, no descriptors of ours", function()
    local status = output_of{ "cat", "/proc/self/status" }
    assert.is_truthy(status:find("SigBlk:%s0+\nSigIgn:%s0+\n"), status)
    for _, without in ipairs{ 0, core.without.close_range } do
      local fds = output_of({ "ls", "/proc/self/fd" }, { fds = { [5] = 1, [9] = 2 }, without = without })
      assert.are.equal("0 1 2 3 5 9 ", (fds:gsub("\n", " "))) -- 3 is the folder that ls reads
    end
  end)

  it("sets what it is told", function()
    local netns <close> = must(fcproc.new_netns())
    local dir <close> = support.folder()
    local text = output_of({ "sh", "-c", "umask; id -u; id -g; id -G; pwd; echo $WORD; "
      .. "ps -o sid= -p $$ | tr -d ' '; echo $$" }, { umask = 63, uid = 65534, gid = 65533, cwd = "/",
      env = { WORD = "x=y z", PATH = os.getenv("PATH") }, session = true, netns = netns })
    local lines = {}
    for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.are.same({ "0077", "65534", "65533", "65533", "/", "x=y z" }, { table.unpack(lines, 1, 6) })
    assert.are.equal(lines[7], lines[8])
    assert.are.equal("lo", (output_of({ "ls", "/proc/self/net/dev_snmp6" }, { netns = netns })
      :gsub("%s", "")))
    assert.is_truthy(dir)
  end)

  it("says which step failed, and leaves nothing", function()
    local err = fails("not_found", fcproc.spawn{ "no-such-command" })
    assert.is_truthy(err.message:find("'no-such-command' is not on PATH", 1, true))
    fails("not_found", fcproc.spawn{ "/no/such/command" })
    fails("invalid", fcproc.spawn{})
    err = fails("not_found", fcproc.spawn({ "true" }, { cwd = "/no/such/folder" }))
    assert.is_truthy(err.message:find("enter its working folder", 1, true))
    local dir <close> = support.folder()
    support.write_file(dir:file("text"), "no program")
    support.sh{ "chmod", "755", dir:file("text") }
    err = fails("system", fcproc.spawn{ dir:file("text") })
    assert.are.equal(8, err.errno) -- ENOEXEC
    assert.has_error(function() fcproc.spawn{ {} } end)
    assert.has_error(function() fcproc.spawn({ "true" }, { stout = "null" }) end)
    assert.has_error(function() fcproc.spawn({ "true" }, { stdout = "nowhere" }) end)
    assert.has_error(function() fcproc.spawn{ "a\0b" } end)
  end)

  it("gives a handle that is that process and no other", function()
    local process = must(fcproc.spawn{ "sleep", "60" })
    local again <close> = must(fcproc.process(must(process:identity())))
    assert.is_true(again:recorded())
    local foreign <close> = must(fcproc.process(process:pid()))
    assert.is_false(foreign:recorded())
    assert.is_true((process:wait(0)) == nil)
    must(foreign:signal("TERM"))
    -- Somebody else's handle sees the status, and leaves the child to its owner.
    local _, seen = must(foreign:wait(10))
    local _, exit = must(process:wait(10))
    assert.are.same({ signal = 15 }, exit)
    assert.are.same({ signal = 15 }, seen)
    fails("not_found", process:signal("TERM"))
    assert.has_error(function() process:signal("NONSENSE") end)
    process:close()
    process:close()
    local ok, err = pcall(process.pid, process)
    assert.is_false(ok)
    assert.is_truthy(err:find("closed fcproc.process", 1, true))
    assert.is_truthy(tostring(process):find("(closed)", 1, true))
    fails("invalid", fcproc.process(0))
    fails("not_found", fcproc.process(4194303))
  end)
end)

describe("runner:run", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local runner = fcproc.runner()

  it("captures output without a shell", function()
    local result = must(runner:run{ "printf", "%s|", "$HOME", "*", "a b" })
    assert.are.same({ 0, "$HOME|*|a b|", "" }, { result.status, result.stdout, result.stderr })
  end)

  it("tells status, signal and the end of stderr", function()
    local err = fails("exit_status", runner:run{ "sh", "-c", "echo one >&2; echo two >&2; exit 7" })
    assert.are.same({ 7, "one\ntwo\n" }, { err.status, err.output })
    assert.is_truthy(err.message:find("status 7: two", 1, true))
    err = fails("exit_status", runner:run{ "sh", "-c", "kill -9 $$" })
    assert.are.equal(9, err.signal)
  end)

  it("keeps the head of stdout and the tail of stderr", function()
    local result = must(runner:run({ "sh", "-c", "seq 10000; seq 10000 >&2" }, { output_limit = 100 }))
    assert.are.same({ 100, 100, true, true }, { #result.stdout, #result.stderr,
      result.stdout_truncated, result.stderr_truncated })
    assert.is_truthy(result.stdout:find("^1\n2\n") and result.stderr:find("\n10000\n$"))
  end)

  it("feeds input, also to a command that does not read it", function()
    assert.are.equal("hello", must(runner:run({ "cat" }, { input = "hello" })).stdout)
    local big = ("x"):rep(1000000)
    assert.are.equal(#big, #must(runner:run({ "cat" }, { input = big })).stdout)
    must(runner:run({ "true" }, { input = big }))
  end)

  it("kills the command when its time or its context ends", function()
    local err = fails("wait_timeout", runner:run({ "sh", "-c", "echo so far; exec sleep 60" },
      { timeout = 0.2 }))
    assert.are.equal("so far\n", err.stdout)
    local ctx <close> = must(fcproc.context())
    local results = fcproc.run{
      function() return runner:run({ "sleep", "60" }, nil, ctx) end,
      function() coroutine.yield() ctx:cancel() end,
    }
    fails("cancelled", results[1][1], results[1][2])
    fails("cancelled", runner:run({ "sleep", "60" }, nil, ctx))
  end)

  it("does not wait for a grandchild that keeps the pipe", function()
    local result
    local took = support.seconds(function()
      result = must(runner:run{ "sh", "-c", "sleep 30 & echo $!" })
    end)
    assert.is_true(took < 10)
    local grandchild <close> = must(fcproc.process(math.tointeger(tonumber(result.stdout))))
    grandchild:signal("KILL")
    must(grandchild:wait(10))
  end)

  it("goes through sudo, which is told to end before it is killed", function()
    assert.are.equal("0\n", must(runner:run_sudo{ "id", "-u" }).stdout)
    local started = fcproc.now()
    local err = fails("wait_timeout", runner:run_sudo({ "sh", "-c", "trap '' TERM; sleep 4" },
      { timeout = 0.2 }))
    assert.is_true(fcproc.now() - started >= 2)
    assert.is_truthy(err.message:find("may survive", 1, true))
    fcproc.runner():run{ "sleep", "2.5" } -- it does: sudo was killed, not its command
  end)
end)
