-- runner:run and run_sudo: output, input, how a command failed, and how it is ended.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local loop = require "fcproc.loop"
local process = require "fcproc.process"

local must, fails = support.must, support.fails

local runner = fcproc.runner()

local function raises(text, fn, ...) support.raises(text, fn, runner, ...) end

-- The pid that a command has written to the file.
local function pid_in(path)
  support.eventually("a pid in " .. path, function()
    return (support.read_file(path) or ""):find("%d+\n")
  end)
  return math.tointeger(tonumber(support.read_file(path)))
end

local function gone(pid)
  return not io.open(("/proc/%d/stat"):format(pid))
end

describe("runner:run", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("captures stdout and stderr apart", function()
    local result = must(runner:run{ "sh", "-c", "echo out; echo err >&2" })
    assert.are.same({ status = 0, stdout = "out\n", stderr = "err\n" }, result)
  end)

  it("uses no shell: its signs are plain text, numbers are arguments", function()
    local result = must(runner:run{ "printf", "%s|", "$HOME", "*", "`id`", "a b; exit 3", "&", 5 })
    assert.are.equal("$HOME|*|`id`|a b; exit 3|&|5|", result.stdout)
  end)

  it("tells the status and the end of stderr", function()
    local err = fails("exit_status",
      runner:run{ "sh", "-c", "echo so far; echo one >&2; echo two >&2; exit 7" })
    assert.is_true(err == fcproc.ERR_EXIT_STATUS)
    assert.are.same({ 7, "one\ntwo\n", "so far\n" }, { err.status, err.output, err.stdout })
    assert.is_nil(err.signal)
    assert.is_truthy(err.message:find("failed with exit status 7: two", 1, true))
    err = fails("exit_status", runner:run{ "sh", "-c", "seq 100000 >&2; exit 1" })
    assert.is_true(#err.output <= 2000)
    assert.is_truthy(err.output:find("\n100000\n$"))
  end)

  it("tells the signal", function()
    local err = fails("exit_status", runner:run{ "sh", "-c", "kill -9 $$" })
    assert.are.equal(9, err.signal)
    assert.is_nil(err.status)
    assert.is_truthy(err.message:find("was ended by signal 9", 1, true))
  end)

  it("gives a command a session of its own, if it is asked to", function()
    local say = { "sh", "-c", "cut -d ' ' -f 1,6 /proc/$$/stat" }
    local pid, session = must(runner:run(say, { session = true })).stdout:match("(%d+) (%d+)")
    assert.are.equal(pid, session)
    pid, session = must(runner:run(say)).stdout:match("(%d+) (%d+)")
    assert.are_not.equal(pid, session)
  end)

  it("tells that there is no such command", function()
    local err = fails("not_found", runner:run{ "no-such-command", "x" })
    assert.is_truthy(err.message:find("'no-such-command' is not on PATH", 1, true))
    fails("invalid", runner:run{})
  end)

  it("keeps the head of stdout and the tail of stderr, and says that it cut", function()
    local result = must(runner:run({ "sh", "-c", "seq 10000; seq 10000 >&2" },
      { output_limit = 100 }))
    assert.are.same({ 100, 100, true, true }, { #result.stdout, #result.stderr,
      result.stdout_truncated, result.stderr_truncated })
    assert.is_truthy(result.stdout:find("^1\n2\n"))
    assert.is_truthy(result.stderr:find("\n10000\n$"))
    result = must(runner:run({ "printf", "abc" }, { output_limit = 3 }))
    assert.are.same({ status = 0, stdout = "abc", stderr = "" }, result)
    result = must(runner:run({ "printf", "abc" }, { output_limit = 0 }))
    assert.are.same({ status = 0, stdout = "", stderr = "", stdout_truncated = true }, result)
  end)

  it("keeps exactly the end of stderr, however it comes", function()
    local all = support.sh{ "seq", "30000" }
    for _, limit in ipairs{ 1, 2, 100, 4096, 16383, 16384, 16385, 50000, #all - 1, #all, #all + 1 } do
      for _, how in ipairs{ "seq 30000", "seq 30000 | dd obs=7000 2>/dev/null" } do
        local result = must(runner:run({ "sh", "-c", "{ " .. how .. "; } >&2" }, { output_limit = limit }))
        assert.are.equal(all:sub(-limit), result.stderr)
        assert.are.equal(limit < #all or nil, result.stderr_truncated)
      end
    end
  end)

  it("moves the end of stderr now and then, not for every piece", function()
    local function work(command)
      local worked = os.clock()
      must(runner:run{ "sh", "-c", command })
      return os.clock() - worked
    end
    -- Moved for each piece, it takes many times as long each time; on a busy machine it may once.
    local plain, tail
    for _ = 1, 10 do
      plain = work("head -c 300M /dev/zero") -- of which the head is kept
      tail = work("head -c 300M /dev/zero >&2")
      if tail < 2 * plain + 0.1 then return end
    end
    error(("%g s, not %g s"):format(tail, plain))
  end)

  it("keeps 1 MiB of what is printed when nothing is said", function()
    local result = must(runner:run{ "head", "-c", "3000000", "/dev/zero" })
    assert.are.same({ 1024 * 1024, true }, { #result.stdout, result.stdout_truncated })
  end)

  it("feeds input, and copes with a command that does not read it", function()
    assert.are.equal("a\0b", must(runner:run({ "cat" }, { input = "a\0b" })).stdout)
    assert.are.equal("", must(runner:run({ "cat" }, { input = "" })).stdout)
    assert.are.equal("", must(runner:run{ "cat" }).stdout)
    local big = ("x"):rep(1000000)
    assert.are.equal(#big, #must(runner:run({ "cat" }, { input = big })).stdout)
    must(runner:run({ "true" }, { input = big }))
    must(runner:run({ "sh", "-c", "exec <&-; sleep 0.1" }, { input = big }))
    must(runner:run({ "sleep", "0.1" }, { input = big }))
  end)

  it("takes environment, folder, umask, user and namespace", function()
    local netns <close> = must(fcproc.new_netns())
    local result = must(runner:run({ "sh", "-c",
      "echo $WORD; pwd; umask; id -u; id -g; ls /proc/self/net/dev_snmp6" },
      { env = { WORD = "w", PATH = os.getenv("PATH") }, cwd = "/usr", umask = 63, uid = 65534,
        gid = 65534, netns = netns }))
    assert.are.equal("w\n/usr\n0077\n65534\n65534\nlo\n", result.stdout)
  end)

  it("kills the command when its time is over, and keeps what it had written", function()
    local dir <close> = support.folder()
    local err = fails("wait_timeout", runner:run({ "sh", "-c",
      "echo $$ > " .. dir:file("pid") .. "; echo so far; exec sleep 60" }, { timeout = 0.3 }))
    assert.are.equal("so far\n", err.stdout)
    assert.is_truthy(err.message:find("killed", 1, true))
    assert.is_true(gone(pid_in(dir:file("pid"))))
  end)

  it("kills it when the context's deadline passes, and when another coroutine cancels", function()
    local dir <close> = support.folder()
    local pid_file = dir:file("pid")
    local argv = { "sh", "-c", "echo $$ > " .. pid_file .. "; trap '' TERM; exec sleep 60" }
    local brief <close> = must(fcproc.context{ timeout = 0.3 })
    fails("deadline", runner:run(argv, nil, brief))
    assert.is_true(gone(pid_in(pid_file)))
    os.remove(pid_file)
    local ctx <close> = must(fcproc.context())
    local results
    local took = support.seconds(function()
      results = fcproc.run{
        function() return runner:run(argv, nil, ctx) end,
        function()
          while not (support.read_file(pid_file) or ""):find("\n") do coroutine.yield() end
          ctx:cancel()
        end,
      }
    end)
    fails("cancelled", results[1][1], results[1][2])
    assert.is_true(took < 20)
    assert.is_true(gone(pid_in(pid_file)))
  end)

  it("does not wait for a grandchild that keeps the pipe open", function()
    local result
    local took = support.seconds(function()
      result = must(runner:run{ "sh", "-c", "sleep 60 & echo $!" })
    end)
    assert.is_true(took < 20)
    local grandchild <close> = must(fcproc.process(math.tointeger(tonumber(result.stdout))))
    must(grandchild:signal("KILL"))
    must(grandchild:wait(10))
  end)

  it("tells wrong use, and names the options that are known", function()
    raises("unknown option 'timout'; known: cwd, env, gid, input, netns, output_limit, session, "
      .. "timeout, uid, umask", runner.run, { "true" }, { timout = 1 })
    raises("unknown option 'end_signal'", runner.run_sudo, { "true" }, { end_signal = 9 })
    raises("option 'input' must be a string, not a number", runner.run, { "true" }, { input = 5 })
    raises("argv must be a table, not a string", runner.run, "true")
    raises("argv must be a table, not a string", runner.run_sudo, "true")
  end)
end)

describe("a command that is given its grace", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is waited for without work, whether its context's cancel or deadline ended it", function()
    local function end_of(ctx)
      local spec = process.spec({ "sh", "-c", "trap '' TERM; exec sleep 60" },
        { end_signal = core.signals.TERM, grace = 0.5 })
      return loop.complete(ctx, core.command(spec, ctx))
    end
    for _, timeout in ipairs{ 0.2, 60 } do
      local parent <close> = must(fcproc.context{ timeout = timeout })
      local ctx <close> = must(parent:with_timeout(60))
      local result
      local worked = os.clock()
      local took = support.seconds(function()
        result = fcproc.run{
          function() return end_of(ctx) end,
          function()
            fcproc.runner():run{ "sleep", "0.2" }
            if timeout == 60 then parent:cancel() end
          end,
        }
      end)
      fails(timeout == 60 and "cancelled" or "deadline", table.unpack(result[1]))
      assert.is_true(took >= 0.7, took)
      worked = os.clock() - worked
      assert.is_true(worked < 0.2, ("%g s of work in %g s"):format(worked, took))
    end
  end)
end)

describe("runner:run_sudo", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("runs as root through the real sudo, which passes the status on", function()
    assert.are.equal("0\n", must(runner:run_sudo{ "id", "-u" }).stdout)
    assert.are.equal("-n|$HOME|", must(runner:run_sudo{ "printf", "%s|", "-n", "$HOME" }).stdout)
    local err = fails("exit_status", runner:run_sudo{ "sh", "-c", "echo no >&2; exit 4" })
    assert.are.same({ 4, "no\n" }, { err.status, err.output })
  end)

  it("ends the command, not only sudo", function()
    local dir <close> = support.folder()
    local pid_file = dir:file("pid")
    local err = fails("wait_timeout", runner:run_sudo({ "sh", "-c",
      "echo $$ > " .. pid_file .. "; exec sleep 60" }, { timeout = 0.5 }))
    assert.is_truthy(err.message:find("may survive", 1, true))
    local pid = pid_in(pid_file)
    support.eventually("the command is gone", function() return gone(pid) end)
  end)

  -- In a Lua of its own, whose PATH begins with a fake sudo: it notes its arguments and becomes
  -- the command.
  it("asks by SIGTERM, kills 2 s later, and says that the command may survive", function()
    local dir <close> = support.folder()
    local pid_file, script = dir:file("pid"), dir:file("script.lua")
    support.write_file(dir:file("sudo"), ([[#!/bin/sh
echo "$*" > %s
shift 2
exec "$@"
]]):format(dir:file("arguments")))
    support.sh{ "chmod", "755", dir:file("sudo") }
    support.write_file(script, ([[
      local fcproc = require "fcproc"
      local runner = fcproc.runner()
      local function ended(trap)
        local started = fcproc.now()
        local ok, err = runner:run_sudo({ "sh", "-c",
          "trap " .. trap .. " TERM; echo $$ > %s; exec sleep 60" }, { timeout = 0.3 })
        assert(not ok and err.code == "wait_timeout", tostring(err))
        print(fcproc.now() - started >= 2.3, err.message)
      end
      ended("-")
      ended("''")]]):format(pid_file))
    local text = support.sh{ "env", "PATH=" .. dir.path .. ":" .. os.getenv("PATH"), support.lua,
      script }
    local polite, stubborn = text:match("^(false[^\n]*)\n(true[^\n]*)\n$")
    assert.is_truthy(polite, text)
    assert.is_truthy(polite:find("told to end after 0.3 s", 1, true), polite)
    assert.is_truthy(stubborn:find("killed after 0.3 s", 1, true), stubborn)
    assert.is_truthy(stubborn:find("may survive", 1, true), stubborn)
    assert.is_true(gone(pid_in(pid_file)))
    assert.are.equal("-n -- sh -c", support.read_file(dir:file("arguments")):sub(1, 11))
  end)
end)
