-- Whose process is it: find_pid, resolve_pid, kill and wait_for_exit never touch a stranger.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function stranger(argv)
  local process = must(fcproc.spawn(argv, { stdout = "null", stderr = "null" }))
  return process, setmetatable({}, { __close = function()
    process:signal("KILL")
    process:wait(10)
    process:close()
  end })
end

local function just_api(world, sock, opts)
  local process = must(fcproc.spawn({ opts and opts.binary or support.firecracker(), "--api-sock",
    sock }, { stdout = "null", stderr = "null" }))
  must(world.manager:wait_for_socket(sock))
  return process, setmetatable({}, { __close = function()
    if process:alive() then process:signal("KILL") end
    process:wait(10)
    process:close()
  end })
end

for _, without in ipairs{ {}, { "peerpidfd" } } do
  describe("finding a pid" .. (without[1] and " without SO_PEERPIDFD" or ""), function()
    before_each(support.before_each)
    after_each(support.after_each)

    it("asks the socket, not the command lines", function()
      local world <close> = support.world{ without = without }
      local sock = world.folder:file("api.sock")
      local editor, ending1 <close> = stranger{ "sh", "-c", "sleep 60; :", "--api-sock", sock }
      local vm, ending2 <close> = just_api(world, sock)
      assert.is_truthy(editor and ending1 and ending2)
      assert.are.equal(vm:pid(), must(world.manager:find_pid(sock)))
      assert.are.equal(vm:pid(), world.manager:resolve_pid(nil, sock))
      local handle <close> = must(world.manager:open_process(sock))
      assert.are.equal(vm:pid(), handle:pid())
    end)

    it("does not take a dead listener's heir for it", function()
      local world <close> = support.world{ without = without }
      local sock = world.folder:file("api.sock")
      local child = tonumber(support.sh{ "python3", "spec/support/inherited.py", sock })
      local err = fails("not_found", world.manager:find_pid(sock))
      assert.is_truthy(err.message:find("dead", 1, true), err.message)
      local heir <close> = must(fcproc.process(child))
      heir:signal("KILL")
      must(heir:wait(10))
    end)
  end)
end

describe("finding a pid when nothing listens", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("takes a Firecracker with exactly this --api-sock, and nobody else", function()
    local world <close> = support.world()
    local sock = world.folder:file("api.sock")
    local fake = world.folder:file("firecracker")
    support.sh{ "cp", "/bin/sleep", fake }
    local p1, e1 <close> = stranger{ "sh", "-c", "sleep 60; :", "--api-sock", sock }
    local p2, e2 <close> = stranger{ fake, "60" }
    local other, e3 <close> = just_api(world, sock .. "2") -- this path is a prefix of its
    assert.is_truthy(p1 and p2 and e1 and e2 and e3 and other)
    fails("not_found", world.manager:find_pid(sock))
    assert.are.equal(0, world.manager:resolve_pid(nil, sock))
    local vm, e4 <close> = just_api(world, sock)
    assert.is_truthy(e4)
    os.remove(sock)
    assert.are.equal(vm:pid(), must(world.manager:find_pid(sock)))
  end)

  it("believes a machine only with proof", function()
    local world <close> = support.world()
    local sock = world.folder:file("api.sock")
    local process, ending <close> = stranger{ "sleep", "60" }
    assert.is_truthy(ending)
    local machine = { pid = function() return process:pid() end }
    assert.are.equal(0, world.manager:resolve_pid(machine, sock))
    assert.are.equal(0, world.manager:resolve_pid({ pid = function() end }, sock))
    assert.are.equal(process:pid(), world.manager:resolve_pid(process, sock)) -- our own handle
  end)
end)

describe("kill", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("refuses strangers, and pids that are none", function()
    local world <close> = support.world()
    local sock = world.folder:file("api.sock")
    local process, ending <close> = stranger{ "sh", "-c", "sleep 60; :", "--api-sock", sock }
    assert.is_truthy(ending)
    fails("not_same_process", world.manager:kill(process:pid(), sock))
    local err = fails("not_same_process", world.manager:kill(process:pid()))
    assert.are.equal(process:pid(), err.pid)
    local handle <close> = must(fcproc.process(process:pid()))
    fails("not_same_process", world.manager:kill(handle, sock))
    assert.is_true(process:alive())
    fails("invalid", world.manager:kill(0))
    fails("invalid", world.manager:kill(-1))
    assert.has_error(function() world.manager:kill("1") end)
    must(world.manager:kill(4194303)) -- nobody: gone already
    must(world.manager:wait_for_exit(0))
    must(world.manager:wait_for_exit(-5))
    must(world.manager:wait_for_exit(4194303, sock, 5))
    must(world.manager:wait_for_exit(process:pid(), sock, 5)) -- somebody else's number
  end)

  it("knows a VM of ours by its runtime folder, its socket, or its record", function()
    local world <close> = support.world()
    must(world.manager:ensure_socket_dir())
    local inside = world.folder:file("run/a.sock")
    local a, e1 <close> = just_api(world, inside)
    must(world.manager:kill(a:pid()))
    must(a:wait(10))
    local outside = world.folder:file("b.sock")
    local b, e2 <close> = just_api(world, outside)
    fails("not_same_process", world.manager:kill(b:pid()))
    must(world.manager:kill(b:pid(), outside))
    must(b:wait(10))
    local c, e3 <close> = just_api(world, world.folder:file("c.sock"))
    local again <close> = must(fcproc.process(must(c:identity())))
    must(world.manager:kill(again))
    must(c:wait(10))
    assert.is_truthy(e1 and e2 and e3)
  end)

  it("knows a copied binary, as in a jail, by its live socket only", function()
    local world <close> = support.world()
    local copy, sock = world.folder:file("copy"), world.folder:file("api.sock")
    support.sh{ "cp", support.firecracker(), copy }
    local vm, ending <close> = just_api(world, sock, { binary = copy })
    assert.is_truthy(ending)
    fails("not_same_process", world.manager:kill(vm:pid()))
    must(world.manager:kill(vm:pid(), sock))
    must(vm:wait(10))
  end)

  it("spares whoever got the pid of a dead VM", function()
    local world <close> = support.world()
    assert.are.equal("ok\n", support.sh{ "unshare", "--pid", "--fork", "--mount-proc", support.lua,
      "spec/support/reuse.lua", support.firecracker(), world.folder.path })
  end)

  it("is cancelled by a context that has ended", function()
    local world <close> = support.world()
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", world.manager:kill(4194303, ctx))
    fails("cancelled", world.manager:find_pid("/nowhere", ctx))
  end)
end)

describe("a client", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("never reaches another VM through a reused descriptor number", function()
    local world <close> = support.world()
    for _, name in ipairs{ "one", "two" } do support.sh{ "mkdir", world.folder:file(name) } end
    local sock_a, sock_b = world.folder:file("one/api.sock"), world.folder:file("two/api.sock")
    local a, e1 <close> = just_api(world, sock_a)
    local b, e2 <close> = just_api(world, sock_b)
    assert.is_truthy(b and e1 and e2)
    local client_a = must(fcproc.client(sock_a))
    must(client_a:request("GET", "/version"))
    a:signal("KILL")
    must(a:wait(10))
    -- Clients of B come and go, over the numbers that A's connection had.
    for _ = 1, 20 do
      local client_b <close> = must(fcproc.client(sock_b))
      must(client_b:request("GET", "/version"))
      fails("not_found", client_a:request("PUT", "/actions", { action_type = "InstanceStart" }))
    end
    client_a:close()
    assert.are.equal("Not started", must(fcproc.request(sock_b, "GET", "/")).state)
  end)
end)
