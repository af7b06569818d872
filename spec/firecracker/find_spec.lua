-- find_pid, open_process and resolve_pid: the Firecracker behind a socket, whatever else has its
-- path among its arguments, and whether or not anybody listens.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails, start = support.must, support.fails, support.listening_vm

-- Ends a process that is not a VM of support.vm at the end of the block.
local function ending(process)
  return setmetatable({}, { __close = function()
    if process:alive() then process:signal("KILL") end
    process:wait(10)
    process:close()
  end })
end

-- Like an editor of that file: the path is among its arguments, after --api-sock even.
local function editor(program, sock)
  local process = must(fcproc.spawn({ program, "-e", "sleep 60", "--", "--api-sock", sock }))
  return process, ending(process)
end

-- The listener hands its socket to a child and dies: that child.
local function heir_of_a_dead_listener(sock)
  local pid = math.tointeger(tonumber(support.sh{ "python3", "spec/support/inherited.py", sock }))
  local process = must(fcproc.process(pid))
  return process, ending(process)
end

-- Connects until the queue of the server, which does not accept, is full, and holds it so.
local FILL = [[
import os, resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
held = []
try:
    while True:
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        held.append(s)
        s.connect(sys.argv[1])
except BlockingIOError:
    open(sys.argv[2], "w").close()
    time.sleep(60)
]]

local function fill_queue(world, sock)
  local full = sock .. ".full"
  local process = must(fcproc.spawn({ "python3", "-c", FILL, sock, full }))
  local closing = ending(process)
  support.eventually("the accept queue is full", function()
    return support.read_file(full) ~= nil
  end, 20)
  must(world.manager:wait_for_socket(sock)) -- full means that it listens
  return closing
end

for _, without in ipairs{ {}, { "peerpidfd" } } do
  describe("finding a pid" .. (without[1] and " without SO_PEERPIDFD" or ""), function()
    before_each(support.before_each)
    after_each(support.after_each)

    it("gives the VM that listens, not who has the path in its arguments", function()
      local world <close> = support.world{ without = without }
      local sock = world.folder:file("vm/api.sock")
      local first, ending1 <close> = editor("perl", sock)
      local vm <close> = start(world)
      local second, ending2 <close> = editor("perl", sock)
      assert.are.equal(sock, vm.sock)
      assert.is_true(first:alive() and second:alive() and ending1 ~= ending2)
      assert.are.equal(vm.process:pid(), must(world.manager:find_pid(sock)))
      assert.are.equal(vm.process:pid(), world.manager:resolve_pid(nil, sock))
      local handle <close> = must(world.manager:open_process(sock))
      assert.are.equal(vm.process:pid(), handle:pid())
      assert.is_false(handle:recorded())
      must(world.manager:kill(handle, sock))
      must(vm.process:wait(10))
      assert.is_false(handle:alive())
      fails("not_found", world.manager:find_pid(sock))
      assert.are.equal(0, world.manager:resolve_pid(handle, sock))
    end)

    it("never gives a stranger with the path, whatever it is called", function()
      local world <close> = support.world{ without = without }
      local sock, namesake = world.folder:file("api.sock"), world.folder:file("firecracker")
      support.sh{ "cp", "-L", "/usr/bin/perl", namesake }
      local one, ending1 <close> = editor("perl", sock)
      local two, ending2 <close> = editor(namesake, sock)
      assert.is_true(one:alive() and two:alive() and ending1 ~= ending2)
      for _, path in ipairs{ sock, world.folder:file("none/api.sock") } do
        local err = fails("not_found", world.manager:find_pid(path))
        assert.are.equal(path, err.path)
        fails("not_found", world.manager:open_process(path))
        assert.are.equal(0, world.manager:resolve_pid(nil, path))
      end
      support.write_file(sock, "") -- no socket at all
      fails("not_found", world.manager:find_pid(sock))
    end)

    it("gives nobody when the listener is dead, though its heir holds the socket", function()
      local world <close> = support.world{ without = without }
      local sock = world.folder:file("api.sock")
      local heir, ending1 <close> = heir_of_a_dead_listener(sock)
      assert.is_truthy(ending1)
      local err = fails("not_found", world.manager:find_pid(sock))
      assert.is_truthy(err.message:find("dead", 1, true), err.message)
      fails("not_found", world.manager:open_process(sock))
      assert.are.equal(0, world.manager:resolve_pid({ pid = function() return heir:pid() end }, sock))
      fails("not_same_process", world.manager:kill(heir:pid(), sock))
      assert.is_true(heir:alive())
    end)
  end)
end

describe("finding a pid when nobody answers", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("takes a Firecracker with exactly this --api-sock", function()
    local world <close> = support.world()
    local sock = world.folder:file("vm/api.sock")
    support.sh{ "mkdir", world.folder:file("vm") }
    local longer <close> = start(world, { name = "longer", sock = sock .. "2" })
    local relative <close> = start(world, { name = "relative", sock = "api.sock", wait = false,
      spawn = { cwd = world.folder:file("vm") } })
    must(world.manager:wait_for_socket(sock))
    must(os.remove(sock))
    fails("not_found", world.manager:find_pid(sock))
    local vm <close> = start(world)
    must(os.remove(sock))
    assert.are.equal(vm.process:pid(), must(world.manager:find_pid(sock)))
    assert.are.equal(longer.process:pid(), must(world.manager:find_pid(longer.sock)))
    local handle <close> = must(world.manager:open_process(sock))
    assert.are.equal(vm.process:pid(), handle:pid())
    must(world.manager:kill(vm.process:pid(), sock))
    must(world.manager:wait_for_exit(vm.process, sock, 10))
    assert.are.equal(0, world.manager:resolve_pid(vm.process, sock))
    assert.is_true(longer.process:alive() and relative.process:alive())
  end)

  it("takes the newest of several", function()
    local world <close> = support.world()
    local old <close> = start(world, { name = "old", sock = world.folder:file("api.sock") })
    must(os.remove(old.sock))
    local new <close> = start(world, { name = "new", sock = old.sock })
    must(os.remove(old.sock))
    assert.are.equal(new.process:pid(), must(world.manager:find_pid(old.sock)))
  end)

  it("takes the Firecracker under a sudo, not the sudo", function()
    local world <close> = support.world()
    local sock = world.folder:file("api.sock")
    local sudo = must(fcproc.spawn({ "sudo", "-n", "--", support.firecracker(), "--api-sock", sock },
      { stdout = "null", stderr = "null" }))
    local closing <close> = ending(sudo)
    must(world.manager:wait_for_socket(sock))
    local pid = must(world.manager:find_pid(sock))
    local _ <close> = setmetatable({}, { __close = function() world.manager:kill(pid, sock) end })
    assert.is_truthy(closing)
    assert.are_not.equal(sudo:pid(), pid)
    must(os.remove(sock))
    assert.are.equal(pid, must(world.manager:find_pid(sock)))
    fails("not_same_process", world.manager:kill(sudo:pid(), sock))
    must(world.manager:kill(pid, sock))
    must(sudo:wait(10))
    fails("not_found", world.manager:find_pid(sock))
  end)

  it("takes the arguments of one that hangs, its accept queue full", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    vm.process:signal("STOP")
    local closing <close> = fill_queue(world, vm.sock)
    assert.is_truthy(closing)
    assert.are.equal(vm.process:pid(), must(world.manager:find_pid(vm.sock)))
    local ctx <close> = must(fcproc.context{ timeout = 0.2 })
    fails("deadline", fcproc.request(vm.sock, "GET", "/", nil, ctx))
    must(world.manager:kill(vm.process:pid(), vm.sock))
    must(vm.process:wait(10))
  end)

  it("is busy when the arguments of the one that hangs prove nothing", function()
    local world <close> = support.world()
    local copy = world.folder:file("copy")
    support.sh{ "cp", support.firecracker(), copy }
    local vm <close> = start(world, { firecracker = copy })
    vm.process:signal("STOP")
    local closing <close> = fill_queue(world, vm.sock)
    assert.is_truthy(closing)
    local err = fails("busy", world.manager:find_pid(vm.sock))
    assert.are.equal(vm.sock, err.path)
    local pid, reason = world.manager:resolve_pid(nil, vm.sock)
    assert.are.equal(0, pid)
    assert.are.equal("busy", reason.code)
    -- It may be that very one: it is neither gone nor a stranger.
    err = fails("busy", world.manager:kill(vm.process:pid(), vm.sock))
    assert.are.equal(vm.sock, err.path)
    fails("busy", world.manager:wait_for_exit(vm.process:pid(), vm.sock, 10))
    pid, reason = world.manager:resolve_pid({ pid = function() return vm.process:pid() end }, vm.sock)
    assert.are.equal(0, pid)
    assert.are.equal("busy", reason.code)
    assert.is_true(vm.process:alive())
  end)

  it("waits for one that hangs, too, whose arguments tell that it is it", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    vm.process:signal("STOP")
    local closing <close> = fill_queue(world, vm.sock)
    assert.is_truthy(closing)
    fails("wait_timeout", world.manager:wait_for_exit(vm.process:pid(), vm.sock, 0.1))
  end)

  it("does not take one outside of our PID namespace for dead", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    for _, without in ipairs{ 0, core.without.peerpidfd } do
      assert.are.equal("system 66\n", support.sh{ "unshare", "--pid", "--fork", "--mount-proc",
        support.lua, "-e", ([[
          local _, err = require("fcproc.core").listener_pid(%q, %d)
          print(err.code, err.errno)]]):format(vm.sock, without) }:gsub("\t", " "))
    end
    assert.are.equal(vm.process:pid(), must(world.manager:find_pid(vm.sock)))
  end)
end)

describe("resolving a pid", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("believes a machine only with proof, and never raises without one", function()
    local world <close> = support.world()
    local sock = world.folder:file("vm/api.sock")
    local stranger, ending1 <close> = editor("perl", sock)
    local machine = { pid = function() return stranger:pid() end }
    assert.is_truthy(ending1)
    assert.are.equal(0, world.manager:resolve_pid(nil, sock))
    assert.are.equal(0, world.manager:resolve_pid(machine, sock))
    for _, says in ipairs{ 0, -1, 1.5, "7", false } do
      assert.are.equal(0, world.manager:resolve_pid({ pid = function() return says end }, sock))
    end
    assert.are.equal(0, world.manager:resolve_pid({ pid = function() end }, sock))
    assert.are.equal(stranger:pid(), world.manager:resolve_pid(stranger, sock)) -- our own handle
    local vm <close> = start(world)
    assert.are.equal(vm.process:pid(), world.manager:resolve_pid(machine, sock)) -- the socket's first
    must(os.remove(sock))
    local heir, ending2 <close> = heir_of_a_dead_listener(sock) -- somebody took its path
    assert.is_truthy(heir and ending2)
    fails("not_found", world.manager:find_pid(sock))
    assert.are.equal(0, world.manager:resolve_pid(machine, sock))
    machine.pid = function() return vm.process:pid() end
    assert.are.equal(vm.process:pid(), world.manager:resolve_pid(machine, sock)) -- by its arguments
  end)

  it("is 0 in a context that has ended", function()
    local world <close> = support.world()
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", world.manager:find_pid(world.folder:file("api.sock"), ctx))
    assert.are.equal(0, world.manager:resolve_pid(nil, world.folder:file("api.sock"), ctx))
  end)
end)
