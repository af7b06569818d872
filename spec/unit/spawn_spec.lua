-- fcproc.spawn: what the new process is born with, and what a failure says and leaves.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

-- What the command wrote to its stdout and stderr.
local function output_of(argv, opts)
  local dir <close> = support.folder()
  local out = { file = dir:file("out") }
  local full = { stdout = out, stderr = out }
  for key, value in pairs(opts or {}) do full[key] = value end
  local process <close> = must(fcproc.spawn(argv, full))
  local _, exit = must(process:wait(10))
  return support.read_file(out.file), exit
end

local function words(text) return support.collect(text, "%S+") end

local function raises(text, ...) support.raises(text, fcproc.spawn, ...) end

describe("a spawned process", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has an empty signal mask and default dispositions", function()
    local status = output_of{ "cat", "/proc/self/status" }
    assert.is_truthy(status:find("SigBlk:\t0+\nSigIgn:\t0+\nSigCgt:\t0+\n"), status)
  end)

  it("has them too when its parent ignores and blocks signals", function()
    local dir <close> = support.folder()
    local script = dir:file("spawn.lua")
    support.write_file(script, [[
      local fcproc = require "fcproc"
      local process <close> = assert(fcproc.spawn{ "cat", "/proc/self/status" })
      assert(process:wait(10))]])
    local text = support.sh{ "python3", "-c", [[
import os, signal, sys
for number in (1, 2, 3, 13, 15, 17, 34, 64):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {1, 2, 10, 15, 40})
os.execvp(sys.argv[1], sys.argv[1:])]], support.lua, script }
    assert.is_truthy(text:find("SigBlk:\t0+\nSigIgn:\t0+\nSigCgt:\t0+\n"), text)
  end)

  it("may have as many descriptors as it is told; a limit that can't be raised stays", function()
    local function limits(opts)
      return (output_of({ "cat", "/proc/self/limits" }, opts):match("Max open files%s+(%S+%s+%S+)"))
    end
    local ours = support.read_file("/proc/self/limits"):match("Max open files%s+(%S+%s+%S+)")
    assert.are.equal(ours, limits())
    local hard = tonumber(ours:match("%s(%d+)"))
    for _, gate in ipairs{ 0, 2048, hard } do
      local wanted = gate == 0 and ours or ("%d\t%d"):format(gate, gate)
      assert.are.equal(wanted:gsub("%s+", " "), (limits{ no_file = gate }:gsub("%s+", " ")))
    end
    -- More than the kernel gives anybody (sysctl fs.nr_open).
    assert.are.equal(("%d %d"):format(hard, hard), (limits{ no_file = 0x7fffffff }:gsub("%s+", " ")))
    raises("no_file must be a whole number from 0", { "true" }, { no_file = -1 })
  end)

  it("has only the descriptors that it is given", function()
    local open <close> = must(io.open("/dev/null")) -- Lua's own files are not close-on-exec
    assert.is_truthy(open)
    for _, without in ipairs{ 0, core.without.close_range } do
      -- One more is the folder that ls reads.
      local fds = output_of({ "ls", "/proc/self/fd" }, { without = without })
      assert.are.same({ "0", "1", "2", "3" }, words(fds))
      fds = output_of({ "ls", "/proc/self/fd" }, { fds = { [3] = 1 }, without = without })
      assert.are.same({ "0", "1", "2", "3", "4" }, words(fds))
      fds = output_of({ "ls", "/proc/self/fd" }, { fds = { [5] = 1, [40] = 2 }, without = without })
      assert.are.same({ "0", "1", "2", "3", "40", "5" }, words(fds))
    end
  end)

  it("gets them at the wanted numbers, also when those cross", function()
    local a <close> = must(fcproc.new_netns())
    local b <close> = must(fcproc.new_netns())
    local function inode(netns)
      return words(support.sh{ "stat", "-Lc", "%i",
        ("/proc/%d/fd/%d"):format(support.own_pid(), netns:fd()) })[1]
    end
    local text = output_of({ "stat", "-Lc", "%i", "/proc/self/fd/" .. a:fd(),
      "/proc/self/fd/" .. b:fd() }, { fds = { [a:fd()] = b:fd(), [b:fd()] = a:fd() } })
    assert.are.same({ inode(b), inode(a) }, words(text))
    assert.are_not.equal(inode(a), inode(b))
  end)

  it("has the umask, user, group, folder, environment and session that it is told", function()
    local text = output_of({ "sh", "-c", "umask; id -u; id -g; id -G; pwd; echo $WORD; "
      .. "env | wc -l; ps -o sid= -p $$; echo $$" }, { umask = tonumber("027", 8), uid = 65534,
        gid = 65534, cwd = "/usr", session = true,
        env = { WORD = "x=y", PATH = os.getenv("PATH") } })
    local got = words(text)
    assert.are.same({ "0027", "65534", "65534", "65534", "/usr", "x=y" },
      { table.unpack(got, 1, 6) })
    assert.are.equal("3", got[7]) -- the two, and the shell's PWD
    assert.are.equal(got[9], got[8])
  end)

  it("is executed in its folder, where its name may be relative: none of ours is looked at", function()
    local dir <close> = support.folder()
    local ours = "spec/support/run.sh" -- which can't be executed
    support.sh{ "mkdir", "-p", dir:file("spec/support") }
    support.write_file(dir:file(ours), "#!/bin/sh\necho its\n")
    support.sh{ "chmod", "755", dir:file(ours) }
    assert.are.equal("its\n", output_of({ ours }, { cwd = dir.path }))
    assert.are.equal("its\n", output_of({ "./run.sh" }, { cwd = dir:file("spec/support") }))
    local err = fails("not_found", fcproc.spawn({ "./spec/../Makefile" }, { cwd = dir.path }))
    assert.is_truthy(err.message:find("can't execute", 1, true), err.message)
  end)

  -- Runs Lua's code as a user with those capabilities, in the groups 65534, 4 and 27.
  local function as_user(capabilities, code)
    local caps = capabilities == "" and "-all" or "-all," .. capabilities
    return fcproc.runner():run{ "setpriv", "--reuid=65534", "--regid=65534", "--groups=65534,4,27",
      "--inh-caps=" .. caps, "--ambient-caps=" .. caps, support.lua, "-e", [[
      local fcproc = require "fcproc"
      local function ids_of(opts)
        local process, err = fcproc.spawn({ "sh", "-c", "echo $(id -u) $(id -g) $(id -G)" }, opts)
        if not process then print(err.code, err.message) return end
        process:wait(10)
      end
      ]] .. code }
  end

  it("has no group of ours when it takes another user or group, root or not", function()
    local both = "+setuid,+setgid"
    assert.are.equal("1234 4321 4321\n1234 65534 65534\n65534 4321 4321\n", must(as_user(both, [[
      ids_of{ uid = 1234, gid = 4321 } ids_of{ uid = 1234 } ids_of{ gid = 4321 }]])).stdout)
    -- Without the right to drop them it is refused, rather than started with them.
    for _, opts in ipairs{ "uid = 1234", "uid = 1234, gid = 65534" } do
      assert.are.equal("permission\tsh: the new process can't drop our supplementary groups: "
        .. "Operation not permitted\n", must(as_user("+setuid", "ids_of{" .. opts .. "}")).stdout
        :gsub("\t%S*/sh:", "\tsh:"))
    end
    -- He stays who he is, and may be told so.
    assert.are.equal("65534 65534 65534 4 27\n", must(as_user("",
      "ids_of{ uid = 65534, gid = 65534 }")).stdout)
  end)

  it("with another user leaves its parent as readable to its own user as before", function()
    assert.are.equal("1234 1234 1234\ntrue\n", must(as_user("+setuid,+setgid", [[
      ids_of{ uid = 1234, gid = 1234 }
      print(io.open("/proc/self/environ") ~= nil)]])).stdout)
  end)

  it("has ours when it is told nothing", function()
    local ask = "umask; id -u; pwd; ps -o sid= -p $$"
    assert.are.same(words(support.sh{ "sh", "-c", ask }), words(output_of{ "sh", "-c", ask }))
    local session = support.sh{ "ps", "-o", "sid=", "-p", support.own_pid() }
    assert.are.same(words(session), words(output_of{ "sh", "-c", "ps -o sid= -p $$" }))
  end)

  it("starts in the network namespace that it is given", function()
    local netns <close> = must(fcproc.new_netns())
    local text = output_of({ "sh", "-c", "ls /proc/self/net/dev_snmp6; readlink /proc/self/ns/net" },
      { netns = netns })
    local got = words(text)
    assert.are.equal("lo", got[1])
    assert.are_not.equal(words(support.sh{ "readlink", "/proc/self/ns/net" })[1], got[2])
  end)

  it("reads nothing from its stdin, or the file that it is given", function()
    assert.are.equal("/dev/null\n", output_of{ "readlink", "/proc/self/fd/0" })
    assert.are.equal("", output_of{ "cat" })
    local dir <close> = support.folder()
    support.write_file(dir:file("in"), "read me")
    assert.are.equal("read me", output_of({ "cat" }, { stdin = { file = dir:file("in") } }))
    local err = fails("not_found", fcproc.spawn({ "cat" }, { stdin = { file = dir:file("no") } }))
    assert.is_truthy(err.message:find(dir:file("no"), 1, true))
  end)

  it("appends to its file, which is made with mode 0600", function()
    local dir <close> = support.folder()
    local file = dir:file("log")
    for _, text in ipairs{ "one", "two" } do
      local process <close> = must(fcproc.spawn({ "echo", text }, { stdout = { file = file } }))
      must(process:wait(10))
    end
    assert.are.equal("one\ntwo\n", support.read_file(file))
    assert.are.equal("600\n", support.sh{ "stat", "-c", "%a", file })
    local process <close> = must(fcproc.spawn({ "ls", "/no such" },
      { stdout = "null", stderr = { file = file } }))
    must(process:wait(10))
    assert.is_truthy(support.read_file(file):find("^one\ntwo\nls: "))
  end)

  it("takes numbers as arguments, and none of the shell's signs means anything", function()
    assert.are.equal("7|$HOME|*|`id`|a b|\n",
      output_of{ "printf", "%s|%s|%s|%s|%s|\n", 7, "$HOME", "*", "`id`", "a b" })
  end)

  it("leaves no zombie once it has been waited for", function()
    local process <close> = must(fcproc.spawn{ "true" })
    must(process:wait(10))
    assert.is_nil(io.open(("/proc/%d/stat"):format(process:pid())))
  end)
end)

describe("a spawn that fails", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function children()
    return support.read_file(("/proc/%d/task/%d/children"):format(support.own_pid(),
      support.own_pid()))
  end

  it("names the file and the step, and leaves no process", function()
    local dir <close> = support.folder()
    local text = dir:file("text")
    support.write_file(text, "no program")
    local before = children()

    local err = fails("not_found", fcproc.spawn{ "no-such-command" })
    assert.is_truthy(err.message:find("'no-such-command' is not on PATH", 1, true))
    err = fails("not_found", fcproc.spawn{ "/no/such/command" })
    assert.is_truthy(err.message:find("/no/such/command", 1, true))
    err = fails("permission", fcproc.spawn{ text })
    assert.is_truthy(err.message:find(text, 1, true))
    support.sh{ "chmod", "755", text }
    err = fails("system", fcproc.spawn{ text })
    assert.are.equal(8, err.errno) -- ENOEXEC
    assert.is_truthy(err.message:find(text .. " can't be executed: it is no program", 1, true))
    support.write_file(text, "#!/no/such/interpreter\n")
    err = fails("not_found", fcproc.spawn{ text })
    assert.is_truthy(err.message:find("the interpreter that it names is missing", 1, true))
    err = fails("not_found", fcproc.spawn({ "true" }, { cwd = "/no/such/folder" }))
    assert.is_truthy(err.message:find("enter the folder /no/such", 1, true))
    err = fails("system", fcproc.spawn({ "true" }, { fds = { [3] = 1000 } })) -- EBADF
    assert.is_truthy(err.message:find("set up its descriptors", 1, true))

    assert.are.equal(before, children())
  end)

  it("finds nothing in the current folder, by whatever name PATH has it", function()
    local dir <close> = support.folder()
    support.sh{ "mkdir", dir:file("bin") }
    for _, name in ipairs{ "tool", "bin/tool" } do
      support.write_file(dir:file(name), "#!/bin/sh\necho here\n")
      support.sh{ "chmod", "755", dir:file(name) }
    end
    support.write_file(dir:file("script.lua"), [[
      local fcproc = require "fcproc"
      local process, err = fcproc.spawn{ "tool" }
      assert(not process and err.code == "not_found", tostring(err))
      print(err.message)
    ]])
    local top = must(core.absolute_path("."))
    local function find(path)
      return support.sh{ "env", "-C", dir.path, "PATH=" .. path,
        ("LUA_PATH=%s/lua/?.lua;%s/lua/?/init.lua;;"):format(top, top),
        ("LUA_CPATH=%s/?.so;;"):format(os.getenv("FCPROC_SPEC_BUILD")),
        must(core.find_executable(support.lua)), "script.lua" }
    end
    for _, path in ipairs{ ".", "./bin", "bin", "/usr/bin:", ":/usr/bin", "/usr/bin::.:bin" } do
      assert.is_truthy(find(path):find("'tool' is not on PATH, whose relative folders", 1, true), path)
    end
    assert.is_nil(find("/usr/bin:/bin"):find("relative", 1, true))
  end)

  it("passes over folders of PATH that the user may not search", function()
    local dir <close> = support.folder()
    support.sh{ "chmod", "755", dir.path }
    support.sh{ "mkdir", "-m", "700", dir:file("closed") }
    for name, mode in pairs{ ["closed/sh"] = "755", ["closed/tool"] = "755", mine = "700" } do
      support.write_file(dir:file(name), "#!/bin/sh\n")
      support.sh{ "chmod", mode, dir:file(name) }
    end
    support.write_file(dir:file("script.lua"), [[
      local core = require "fcproc.core"
      for _, name in ipairs{ "sh", "tool", "mine" } do
        local path, err = core.find_executable(name)
        print(path or err.code)
      end
    ]])
    assert.are.equal("/usr/bin/sh\nnot_found\npermission\n", support.sh{ "env",
      ("PATH=%s/closed:%s:/usr/bin"):format(dir.path, dir.path), "setpriv", "--reuid", "65534",
      "--clear-groups", must(core.find_executable(support.lua)), dir:file("script.lua") })
  end)

  it("drops the user first: what only root may execute fails", function()
    local dir <close> = support.folder()
    support.sh{ "cp", "/bin/true", dir:file("mine") }
    support.sh{ "chmod", "700", dir.path }
    local err = fails("permission", fcproc.spawn({ dir:file("mine") }, { uid = 65534 }))
    assert.is_truthy(err.message:find("can't execute", 1, true))
  end)

  it("happens before anything under a context that has ended", function()
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    local dir <close> = support.folder()
    fails("cancelled", fcproc.spawn({ "touch", dir:file("x") }, { stdout = "null" }, ctx))
    assert.is_nil(support.read_file(dir:file("x")))
  end)

  it("tells wrong use", function()
    fails("invalid", fcproc.spawn{})
    raises("argv must be a table, not a string", "true")
    raises("argv[1] must be a string", { {} })
    raises("zero byte", { "a\0b" })
    raises("unknown option 'stout'; known: cwd, env, fds, gate", { "true" }, { stout = "null" })
    raises("stdout must be \"null\", \"inherit\"", { "true" }, { stdout = "nowhere" })
    raises("expected {file = path}", { "true" }, { stdout = {} })
    raises("fds must map numbers from 3", { "true" }, { fds = { [2] = 1 } })
    raises("umask must be a whole number", { "true" }, { umask = -1 })
    raises("option 'netns' must be a fcproc.netns", { "true" }, { netns = {} })
    raises("the context must come from fcproc.context", { "true" }, nil, {})
  end)
end)

-- A Lua of its own that a hang can't take along, and the FIFO that it gets as FIFO; what still waits
-- for the FIFO's other end is let go at the end.
local function with_fifo(text)
  local dir <close> = support.folder()
  local fifo = dir:file("fifo")
  support.sh{ "mkfifo", fifo }
  support.write_file(dir:file("script.lua"), [[
    local FIFO, dir = arg[1], arg[2]
    local fcproc = require "fcproc"
    local support = require "spec.support"
    local must, fails = support.must, support.fails
  ]] .. text)
  local result, err = fcproc.runner():run({ support.lua, dir:file("script.lua"), fifo, dir.path },
    { timeout = 20 })
  io.open(fifo, "r+"):close()
  must(result, err)
end

describe("a FIFO as a stream", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("that nobody has open at its other end is refused, and holds up neither start nor end", function()
    with_fifo[[
      for _, name in ipairs{ "stdout", "stderr", "stdin" } do
        local opts = { [name] = { file = FIFO } }
        local err = fails("not_found", fcproc.spawn({ "true" }, opts))
        assert(err.message:find(FIFO, 1, true) and err.errno == 6, tostring(err)) -- ENXIO
        assert(err.message:find(name == "stdin" and "nobody writes to" or "nobody reads", 1, true))
        opts.gate = true
        local gated = must(fcproc.spawn({ "true" }, opts))
        fails("not_found", gated:release())
        gated:close()
        must(fcproc.spawn({ "true" }, opts)):close()
        local unsure = must(fcproc.spawn({ "true" }, opts))
        must(unsure:release(false))
        unsure:close()
      end]]
  end)

  it("that has one works, and blocks as programs expect", function()
    with_fifo[[
      local reader = must(fcproc.spawn({ "sh", "-c", "exec cat " .. FIFO .. " > " .. dir .. "/got" }))
      local flags
      support.eventually("it reads", function() -- it takes its time to open it
        local writer = fcproc.spawn({ "sh", "-c", "grep flags /proc/self/fdinfo/1 > " .. dir ..
          "/flags; echo text" }, { stdout = { file = FIFO } })
        if not writer then return false end
        must(writer:wait(10))
        return true
      end)
      must(reader:wait(10))
      assert(support.read_file(dir .. "/got") == "text\n")
      flags = tonumber(support.read_file(dir .. "/flags"):match("%d+"), 8)
      assert(flags & 2048 == 0) -- O_NONBLOCK

      local writer = must(fcproc.spawn({ "sh", "-c", "exec echo more > " .. FIFO }))
      support.eventually("it is read", function()
        local cat = fcproc.spawn({ "cat" }, { stdin = { file = FIFO }, stdout = { file = dir .. "/2" } })
        if not cat then return false end
        must(cat:wait(10))
        return true
      end)
      must(writer:wait(10))
      assert(support.read_file(dir .. "/2") == "more\n")]]
  end)

  it("is no network namespace, which is told at once", function()
    with_fifo[[ fails("invalid", fcproc.netns(FIFO)) ]]
  end)
end)

describe("a process with a gate", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function gated(argv, opts)
    opts = opts or {}
    opts.gate = true
    return must(fcproc.spawn(argv, opts))
  end

  it("executes nothing until it is released, and is known before", function()
    local dir <close> = support.folder()
    local p <close> = gated({ "sh", "-c", "echo $$ > pid; exit 3" }, { cwd = dir.path, session = true,
      umask = 63, env = { PATH = os.getenv("PATH") } })
    local identity = must(p:identity())
    assert.are.equal(p:pid(), identity.pid)
    fails("wait_timeout", p:wait(0.02))
    assert.is_nil(support.read_file(dir:file("pid")))
    must(p:release())
    must(p:release()) -- open already
    local _, exit = must(p:wait(10))
    assert.are.equal(3, exit.status)
    assert.are.equal(("%d\n"):format(identity.pid), support.read_file(dir:file("pid")))
    fails("not_found", fcproc.process(identity))
  end)

  it("ends without having executed when its handle is closed", function()
    local dir <close> = support.folder()
    local p = gated{ "touch", dir:file("x") }
    local watched <close> = must(fcproc.process(p:pid()))
    p:close()
    assert.is_false(watched:alive())
    assert.is_nil(support.read_file(dir:file("x")))
  end)

  it("ends with its starter, killed at any moment", function()
    local dir <close> = support.folder()
    local script = ([[
      local fcproc = require "fcproc"
      local p = assert(fcproc.spawn({ "touch", %q }, { gate = true }))
      io.write(p:pid(), "\n")
      io.flush()
      fcproc.process(tonumber(io.open("/proc/self/stat"):read("n"))):signal("KILL")
    ]]):format(dir:file("x"))
    local _, err = fcproc.runner():run{ support.lua, "-e", script }
    assert.are.equal(9, err.signal)
    local pid = math.tointeger(tonumber(err.stdout))
    support.eventually("the gated process has ended", function()
      local gated_one <close> = fcproc.process(pid)
      return not gated_one or not gated_one:alive()
    end)
    assert.is_nil(support.read_file(dir:file("x")))
  end)

  it("tells at the release what exec says, and is reaped", function()
    local dir <close> = support.folder()
    local text = dir:file("text")
    support.write_file(text, "no program")
    support.sh{ "chmod", "755", text }
    local p <close> = gated{ text }
    local err = fails("system", p:release())
    assert.is_truthy(err.message:find(text .. " can't be executed: it is no program", 1, true))
    local _, exit = must(p:wait(1))
    assert.are.equal(127, exit.status)
  end)

  it("tells at the release what failed before the gate", function()
    local p <close> = gated({ "true" }, { cwd = "/no/such" })
    local err = fails("not_found", p:release())
    assert.is_truthy(err.message:find("enter the folder /no/such", 1, true))
    local _, exit = must(p:wait(1))
    assert.are.equal(127, exit.status)
  end)

  it("can be killed where it waits", function()
    local p <close> = gated{ "true" }
    must(p:signal("KILL"))
    must(p:release())
    local _, exit = must(p:wait(10))
    assert.are.equal(9, exit.signal)
  end)

  it("holds nothing but its three streams, what it is given, and its way to us", function()
    for _, without in ipairs{ 0, core.without.close_range } do
      local first <close> = gated({ "true" }, { without = without })
      local second <close> = gated({ "true" }, { without = without, fds = { [20] = 1 } })
      for process, fds in pairs{ [first] = "^0 1 2 %d+$", [second] = "^0 1 2 20 21$" } do
        support.eventually("it waits at its gate", function()
          local listed = words(support.sh{ "ls", "-v", ("/proc/%d/fd"):format(process:pid()) })
          return table.concat(listed, " "):find(fds)
        end)
      end
    end
  end)

  it("has the start time that /proc tells, though that is not asked", function()
    for _ = 1, 300 do
      local p <close> = gated{ "true" }
      local stat = support.read_file(("/proc/%d/stat"):format(p:pid()))
      local fields = words(stat:match("%) (.*)"))
      assert.are.equal(math.tointeger(fields[20]), must(p:identity()).start_time)
    end
  end)

  it("may be one of many, released in any order, each with its own program", function()
    local dir <close> = support.folder()
    local waiting = {}
    for i = 1, 100 do waiting[i] = gated{ "touch", dir:file(tostring(i)) } end
    for i = 100, 1, -1 do
      if i % 10 == 0 then waiting[i]:close() else must(waiting[i]:release()) end
    end
    for i = 1, 100 do
      if i % 10 ~= 0 then
        local _, exit = must(waiting[i]:wait(10))
        assert.are.equal(0, exit.status)
        waiting[i]:close()
      end
      assert.are.equal(i % 10 ~= 0, support.read_file(dir:file(tostring(i))) ~= nil)
    end
  end)

  it("ends with its starter also when others wait beside it", function()
    local dir <close> = support.folder()
    for _, without in ipairs{ 0, core.without.close_range } do
      local script = ([[
        local fcproc = require "fcproc"
        local waiting = {}
        for i = 1, 20 do
          waiting[i] = assert(fcproc.spawn({ "touch", %q }, { gate = true, without = %d }))
          io.write(waiting[i]:pid(), "\n")
        end
        io.flush()
        fcproc.process(tonumber(io.open("/proc/self/stat"):read("n"))):signal("KILL")
      ]]):format(dir:file("x"), without)
      local _, err = fcproc.runner():run{ support.lua, "-e", script }
      assert.are.equal(9, err.signal)
      local pids = words(err.stdout)
      assert.are.equal(20, #pids)
      for _, pid in ipairs(pids) do
        support.eventually("the gated process has ended", function()
          local gated_one <close> = fcproc.process(math.tointeger(tonumber(pid)))
          return not gated_one or not gated_one:alive()
        end)
      end
    end
    assert.is_nil(support.read_file(dir:file("x")))
  end)

  it("shares our memory and disturbs none of our threads", function()
    local result, err = fcproc.runner():run({ os.getenv("FCPROC_SPEC_BUILD") .. "/gate-test" },
      { timeout = 60 })
    local out = result and result.stdout or (err.stdout or "") .. tostring(err)
    assert.is_truthy(result and out:find("ok\n$"), out)
  end)
end)
