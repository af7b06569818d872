-- Process handles: identity, waiting for our own children and for strangers, signals, closing.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local processes = require "fcproc.process"

local must, fails = support.must, support.fails

local raises = support.raises

local function kill(process)
  if process:alive() then process:signal("KILL") end
  process:wait(10)
  process:close()
end

-- A process that is killed and reaped at the end of the block.
local function sleeper()
  local process = must(fcproc.spawn({ "sleep", "60" }, { stdout = "null" }))
  return process, setmetatable({}, { __close = function() kill(process) end })
end

-- A process that is not our child: a shell's, which starts it in the background and goes on with
-- what it is told. Calls fn with its handle, then ends both.
local function with_grandchild(code, then_do, fn)
  local dir <close> = support.folder()
  local pid_file, gate = dir:file("pid"), dir:file("gate")
  local parent = must(fcproc.spawn({ "sh", "-c", ([[
    gate=%s
    { %s; } & echo $! > %s.new; mv %s.new %s
    %s]]):format(gate, code, pid_file, pid_file, pid_file, then_do) }, { stdout = "null" }))
  local parent_ending <close> = setmetatable({}, { __close = function() kill(parent) end })
  assert.is_truthy(parent_ending)
  support.eventually("the grandchild runs", function() return support.read_file(pid_file) end)
  support.eventually("its parent is no shell any more, which reaps", function()
    return then_do ~= "exec sleep 60"
      or support.read_file(("/proc/%d/comm"):format(parent:pid())) == "sleep\n"
  end)
  local process = must(fcproc.process(math.tointeger(tonumber(support.read_file(pid_file)))))
  local ending <close> = setmetatable({}, { __close = function() kill(process) end })
  assert.is_truthy(ending)
  fn(process, function() support.write_file(gate, "") end)
end

local AT_THE_GATE = "while ! [ -e $gate ]; do sleep 0.02; done; "

describe("a process", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("that has left its memory, and not ended yet, is known by its program's name, however long", function()
    local dir <close> = support.folder()
    support.sh{ "cp", "-L", "/usr/bin/python3", dir:file("firecracker-v1.12.1") }
    -- The first thread ends, and another lives on.
    local process <close> = must(fcproc.spawn({ dir:file("firecracker-v1.12.1"), "-c", [[
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)]] }, { stdout = "null", stderr = "null" }))
    local path = ("/proc/%d/exe"):format(process:pid())
    support.eventually("it has no program", function() return not core.read_link(path) end)
    local foreign <close> = must(fcproc.process(process:pid()))
    local own = foreign:matches(dir:file("firecracker-v1.12.1"), "/x/api.sock")
    support.sh{ "cp", "/bin/true", dir:file("firecracker-other") }
    local others = foreign:matches(dir:file("firecracker-other"), "/x/api.sock")
    assert.is_true(process:alive())
    must(process:signal("KILL"))
    must(process:wait(10))
    assert.are.same({ "exiting", "no" }, { own, others })
  end)

  it("is found again by its identity, as that very process", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local identity = must(process:identity())
    assert.are.equal(process:pid(), identity.pid)
    local again <close> = must(fcproc.process(identity))
    assert.is_true(again:recorded())
    assert.are.same(identity, must(again:identity()))
    local foreign <close> = must(fcproc.process(process:pid()))
    assert.is_false(foreign:recorded())
    assert.are.same(identity, must(foreign:identity()))
    must(again:signal("TERM"))
    assert.are.same({ signal = 15 }, select(2, must(process:wait(10))))
  end)

  it("is not found by the identity of another, nor by that of a dead one", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local identity = must(process:identity())
    local function changed(change)
      local other = {}
      for key, value in pairs(identity) do other[key] = value end
      for key, value in pairs(change) do other[key] = value or nil end
      return fcproc.process(other)
    end
    local boot_id = "00000000-0000-0000-0000-000000000000"
    fails("not_found", changed{ boot_id = boot_id })
    fails("not_found", changed{ boot_id = boot_id, pid_ns = 1 })
    fails("not_found", changed{ inode = false, start_time = identity.start_time + 1 })
    fails("not_found", changed{ inode = false, pid_ns = false, start_time = identity.start_time + 1 })
    -- What was noted down in another namespace can't be told, which is no death.
    local err = fails("unsupported", changed{ pid_ns = identity.pid_ns + 1 })
    assert.is_truthy(err.message:find("another PID namespace", 1, true), err.message)
    if identity.time_ns then
      fails("unsupported", changed{ inode = false, time_ns = identity.time_ns + 1 })
    end
    if identity.inode then -- it says more than the start time, in any time namespace
      fails("not_found", changed{ inode = 12345 })
      for _, change in ipairs{ { start_time = identity.start_time + 1 }, { time_ns = 1 } } do
        local found <close> = must(changed(change))
        assert.are.equal(identity.pid, found:pid())
      end
    end
    must(process:signal("KILL"))
    must(process:wait(10))
    err = fails("not_found", fcproc.process(identity))
    assert.are.equal(identity.pid, err.pid)
    fails("not_found", process:identity())
  end)

  it("is not found by a number that nobody has or can have", function()
    fails("not_found", fcproc.process(4194303))
    fails("invalid", fcproc.process(0))
    fails("invalid", fcproc.process(-5))
    raises("pid must be an integer, not a string", fcproc.process, "self")
    raises("no process number", fcproc.process, 1 << 40)
    assert.has_error(function() fcproc.process{ pid = 1 } end)
  end)

  it("gets signals by name and by number, and only while it lives", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    must(process:signal(0))
    must(process:signal("STOP"))
    local stat = ("/proc/%d/stat"):format(process:pid())
    support.eventually("it stops", function()
      return support.read_file(stat):find(") T ", 1, true)
    end)
    assert.is_true(process:alive())
    must(process:signal("CONT"))
    raises("unknown signal 'NONSENSE'", process.signal, process, "NONSENSE")
    raises("unknown signal 'nil'", process.signal, process)
    fails("system", process:signal(1000))
    must(process:signal(10))
    assert.are.same({ signal = 10 }, select(2, must(process:wait(10))))
    assert.is_false(process:alive())
    local err = fails("not_found", process:signal("TERM"))
    assert.are.equal(process:pid(), err.pid)
  end)

  it("that /proc hides is not taken for dead", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local identity = must(process:identity())
    local text = support.sh{ "unshare", "--mount", "sh", "-ec", [[
      mount -t proc -o hidepid=2 proc /proc
      exec setpriv --reuid=65534 --regid=65534 --clear-groups "$0" -e "$1"]], support.lua, ([[
      local core = require "fcproc.core"
      local p, err = core.process{ pid = %d, start_time = %d, boot_id = %q }
      print(p, err.code, err.errno)
      p = assert(core.process(%d))
      print(select(2, p:identity()).code, select(2, p:matches("/bin/sleep", "/x")).code, p:alive())
      print(select(2, p:in_folder("/tmp")).code)
      ]]):format(identity.pid, identity.start_time, identity.boot_id, identity.pid) }
    assert.are.equal("nil\tpermission\t13\npermission\tpermission\ttrue\npermission\n", text)
  end)

  it("is not taken for dead where there is no /proc", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local identity = must(process:identity())
    -- A sanitizer looks for leaks by /proc.
    local text = support.sh{ "env", "ASAN_OPTIONS=detect_leaks=0", "unshare", "--mount", support.lua, "-e",
      ([[
      local core = require "fcproc.core"
      local here = assert(core.process(%d))
      local wait = assert(core.spawn{ argv = { "mount", "-t", "tmpfs", "none", "/proc" } })
      core.poll(wait:pidfd())
      print(select(2, core.process{ pid = %d, start_time = %d, boot_id = %q }).code)
      print(select(2, here:identity()).code, select(2, here:matches("/bin/sleep", "/x")).code)
      print(select(2, here:in_folder("/tmp")).code)
      ]]):format(identity.pid, identity.pid, identity.start_time, identity.boot_id) }
    assert.are.equal("unsupported\nunsupported\tpermission\npermission\n", text)
  end)

  it("goes on when its handle is closed, which then is of no use", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local handle = must(fcproc.process(process:pid()))
    handle:close()
    handle:close()
    assert.is_true(process:alive())
    for _, method in ipairs{ "pid", "pidfd", "alive", "recorded", "identity", "wait" } do
      raises("attempt to use a closed fcproc.process", handle[method], handle)
    end
    raises("attempt to use a closed fcproc.process", handle.signal, handle, "TERM")
    assert.is_truthy(tostring(handle):find("fcproc.process (closed)", 1, true))
  end)
end)

describe("a child of the host's own", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is left to it by a handle from its number: to wait for it, look at it, or close", function()
    for _, use in ipairs{
      function(process) assert.are.same({ status = 3 }, select(2, must(process:wait(10)))) end,
      function(process)
        support.eventually("it has ended", function() return not process:alive() end)
        fails("not_found", process:identity())
        assert.are.equal("no", must(process:matches("/bin/sh", "/x")))
      end,
    } do
      local pipe = must(io.popen("echo $$; sleep 0.2; exit 3"))
      local process = must(fcproc.process(must(pipe:read("n"))))
      use(process)
      process:close()
      assert.are.same({ nil, "exit", 3, n = 3 }, table.pack(pipe:close()))
    end
  end)
end)

describe("a stranger that is dead and not reaped", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is dead, whoever asks, and holds nobody up", function()
    with_grandchild("exec sleep 60", "exec sleep 60", function(process)
      local identity = must(process:identity())
      must(process:signal("KILL"))
      support.eventually("it is dead", function() return not process:alive() end)
      local stat = support.read_file(("/proc/%d/stat"):format(identity.pid))
      assert.is_truthy(stat:find(") Z ", 1, true))
      fails("not_found", fcproc.process(identity))
      fails("not_found", process:identity())
      local opened <close> = must(fcproc.process(identity.pid))
      assert.is_false(opened:alive())
      assert.are.equal("no", must(opened:matches(must(core.find_executable("sleep")), "/x")))
      local manager <close> = must(fcproc.new{ firecracker_bin = core.find_executable("sleep") })
      assert.is_true(must(manager:wait_for_exit(identity.pid, nil, 10)))
      assert.is_true(must(manager:kill(identity.pid)))
      assert.are.equal(0, manager:resolve_pid(opened, "/none/api.sock"))
      assert.are.equal(0, manager:resolve_pid({ pid = function() return identity.pid end }, "/none/s"))
      for _, waiting in ipairs{ must(opened:wait_op(10)), must(opened:wait_server_op("/none/s", 10, "x")),
        must(opened:wait_file_op("/etc/passwd", 1 << 40, nil, 10)),
        must(opened:wait_text_op("/etc/passwd", "not there", nil, 10)) } do
        local op <close> = waiting
        support.eventually("it ends", function() return (op:step()) end)
      end
    end)
  end)
end)

describe("waiting for the exit of a number", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("that lives, and is not provably the VM's, is an error and never its end", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local manager <close> = must(fcproc.new{ firecracker_bin = core.find_executable("sleep") })
    for _, sock in ipairs{ "/none/typo.sock", false } do
      local err = fails("not_same_process", manager:wait_for_exit(process:pid(), sock or nil, 0))
      assert.are.equal(process:pid(), err.pid)
      local pid, reason = manager:resolve_pid({ pid = function() return process:pid() end },
        sock or "/none/s")
      assert.are.same({ 0, "not_same_process" }, { pid, reason.code })
    end
    local identity = must(process:identity())
    fails("wait_timeout", manager:wait_for_exit(identity, "/none/typo.sock", 0))
    fails("wait_timeout", manager:wait_for_exit(process, "/none/typo.sock", 0))
    must(manager:kill(identity))
    assert.is_true(must(manager:wait_for_exit(process, nil, 10)))
    assert.is_true(must(manager:wait_for_exit(identity, nil, 10)))
    must(manager:kill(identity)) -- gone already
    raises("expected a pid, a process or its identity, not a table", manager.kill, manager, {})
  end)
end)

describe("closing the handle of a child", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("reaps one that has ended unseen", function()
    local process = must(fcproc.spawn{ "true" })
    local stat = ("/proc/%d/stat"):format(process:pid())
    support.eventually("it is dead", function() return not process:alive() end)
    assert.is_truthy(support.read_file(stat):find(") Z ", 1, true))
    process:close()
    assert.is_nil(io.open(stat))
  end)
end)

describe("a wait for a process", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("gives the status or the signal of our own child, as often as asked", function()
    for code, expected in pairs{ ["exit 0"] = { status = 0 }, ["exit 7"] = { status = 7 },
      ["exit 255"] = { status = 255 }, ["kill -TERM $$"] = { signal = 15 },
      ["kill -KILL $$"] = { signal = 9 } } do
      local process <close> = must(fcproc.spawn{ "sh", "-c", code })
      for _ = 1, 2 do
        local gone, exit = process:wait(10)
        assert.is_true(gone)
        assert.are.same(expected, exit)
      end
    end
  end)

  it("ends with ERR_WAIT_TIMEOUT when it lasts too long", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local err = fails("wait_timeout", process:wait(0.05))
    assert.is_true(err == fcproc.ERR_WAIT_TIMEOUT)
    assert.is_truthy(err.message:find(("pid %d still running after 0.05 s"):format(process:pid()),
      1, true))
    raises("0 seconds or more", process.wait, process, -1)
  end)

  it("through another handle sees a child's status, and leaves it to its owner", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local foreign <close> = must(fcproc.process(process:pid()))
    must(foreign:signal("TERM"))
    assert.are.same({ signal = 15 }, select(2, must(foreign:wait(10))))
    assert.are.same({ signal = 15 }, select(2, must(process:wait(10))))
  end)

  it("goes on when the handle is closed meanwhile", function()
    local process = must(fcproc.spawn{ "sh", "-c", "sleep 0.1; exit 3" })
    local results = fcproc.run{
      function() return process:wait(10) end,
      function() coroutine.yield() process:close() end,
    }
    assert.are.same({ true, { status = 3 }, n = 2 }, results[1])
  end)

  it("wakes when it ends, however many wait", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    local functions = {}
    for i = 1, 10 do functions[i] = function() return process:wait(60) end end
    functions[11] = function() coroutine.yield() must(process:signal("KILL")) end
    local results
    local took = support.seconds(function() results = fcproc.run(functions) end)
    assert.is_true(took < 20)
    for i = 1, 10 do assert.are.same({ true, { signal = 9 }, n = 2 }, results[i]) end
  end)

  it("knows the status of a stranger, once its own parent has reaped it, where the kernel does", function()
    local function told(exit) return support.kernel_tells_exits() and exit or nil end
    with_grandchild(AT_THE_GATE .. "exit 7", "wait; exec sleep 60", function(process, open_gate)
      fails("wait_timeout", process:wait(0.05))
      open_gate()
      assert.are.same(told{ status = 7 }, select(2, must(process:wait(10))))
      assert.are.same(told{ status = 7 }, select(2, must(process:wait(10))))
    end)
    with_grandchild("exec sleep 60", "wait; exec sleep 60", function(process)
      must(process:signal("KILL"))
      assert.are.same(told{ signal = 9 }, select(2, must(process:wait(10))))
    end)
  end)

  it("does not know it on a kernel that does not tell", function()
    with_grandchild(AT_THE_GATE .. "exit 7", "wait; exec sleep 60", function(process, open_gate)
      open_gate()
      local gone, exit = processes.wait(process, 10, core.without.pidfd_info, nil)
      assert.is_true(gone)
      assert.is_nil(exit)
    end)
  end)

  it("does not wait for long for a parent that never reaps", function()
    with_grandchild("exec sleep 60", "exec sleep 60", function(process)
      must(process:signal("KILL"))
      local gone, exit
      local took = support.seconds(function() gone, exit = process:wait(30) end)
      assert.is_true(gone)
      assert.is_nil(exit)
      assert.is_true(took < 10)
    end)
  end)

  it("for a stranger ends with its context", function()
    with_grandchild("exec sleep 60", "wait; exec sleep 60", function(process)
      local ctx <close> = must(fcproc.context())
      local results
      local took = support.seconds(function()
        results = fcproc.run{
          function() return processes.wait(process, 60, core.without.pidfd_info, ctx) end,
          function() return process:wait(60, ctx) end,
          function() coroutine.yield() ctx:cancel() end,
        }
      end)
      fails("cancelled", table.unpack(results[1]))
      fails("cancelled", table.unpack(results[2]))
      assert.is_true(took < 20)
    end)
  end)
end)

-- Lets the loop's other functions run for so long.
local function pass(seconds)
  local own <close> = must(fcproc.process(support.own_pid()))
  fails("wait_timeout", own:wait(seconds))
end

-- Somebody traces the process, until fn has opened the gate; else he goes at the end of the block.
local function traced(process, fn)
  local dir <close> = support.folder()
  local ready, gate = dir:file("ready"), dir:file("gate")
  local tracer = must(fcproc.spawn({ "python3", "spec/support/tracer.py", process:pid(), ready, gate }))
  local ending <close> = setmetatable({}, { __close = function() kill(tracer) end })
  assert.is_truthy(ending)
  support.eventually("it is traced", function() return support.read_file(ready) or not tracer:alive() end)
  fn(function() support.write_file(gate, "") end)
end

describe("a child that is traced", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has its end and status when who traces it has waited for it", function()
    local process, ending <close> = sleeper()
    assert.is_truthy(ending)
    traced(process, function(open_gate)
      must(process:signal("KILL"))
      support.eventually("it is dead", function() return not process:alive() end)
      local before = os.clock()
      local results = fcproc.run{
        function() return process:wait(10) end,
        function()
          pass(0.5)
          open_gate()
        end,
      }
      assert.are.same({ true, { signal = 9 }, n = 2 }, results[1])
      assert.is_true(os.clock() - before < 0.2, "it spins")
    end)
  end)

  it("is gone, however it ended, when he never does, and is reaped after him", function()
    local process = must(fcproc.spawn({ "sleep", "60" }, { stdout = "null" }))
    local stat = ("/proc/%d/stat"):format(process:pid())
    traced(process, function()
      must(process:signal("KILL"))
      local gone, exit
      local before = os.clock()
      local took = support.seconds(function() gone, exit = process:wait(30) end)
      assert.is_true(gone)
      assert.is_nil(exit)
      assert.is_true(took < 10 and os.clock() - before < 0.2)
    end)
    support.eventually("who traced it is gone", function()
      local _, exit = process:wait(10)
      return exit and exit.signal == 9
    end)
    process:close()
    assert.is_nil(support.read_file(stat))
    local other = must(fcproc.spawn({ "sleep", "60" }, { stdout = "null" }))
    stat = ("/proc/%d/stat"):format(other:pid())
    traced(other, function()
      must(other:signal("KILL"))
      must(other:wait(10))
      other:close()
      assert.is_truthy(support.read_file(stat):find(") Z ", 1, true))
    end)
    support.eventually("it is reaped", function() return not support.read_file(stat) end)
  end)

  it("at its gate is ended by closing its handle, which does not wait for him", function()
    local process = must(fcproc.spawn({ "true" }, { gate = true }))
    traced(process, function()
      local before = os.clock()
      assert.is_true(support.seconds(function() process:close() end) < 1)
      assert.is_true(os.clock() - before < 0.2)
    end)
  end)

  it("as a command has its status, too", function()
    local dir <close> = support.folder()
    support.sh{ "mkfifo", dir:file("go") }
    local result
    fcproc.run{
      function()
        result = must(fcproc.runner():run({ "sh", "-c",
          "echo $$ >new; mv new pid; echo done; read line <go" }, { cwd = dir.path }))
      end,
      function()
        local manager <close> = must(fcproc.new())
        must(manager:wait_for_path(dir:file("pid"), 5))
        local process <close> = must(fcproc.process(math.tointeger(tonumber(
          support.read_file(dir:file("pid"))))))
        traced(process, function(open_gate)
          support.write_file(dir:file("go"), "\n")
          repeat pass(0.05) until not process:alive()
          pass(0.3)
          assert.is_nil(result)
          open_gate()
          repeat pass(0.05) until result
        end)
      end,
    }
    assert.are.equal("done\n", result.stdout)
    assert.are.equal(0, result.status)
  end)
end)
