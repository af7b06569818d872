-- The whole life of a real VM: boot, ping, API, shutdown, also in a deep folder; and every way in
-- which the wait for its exit ends.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails, start = support.must, support.fails, support.listening_vm

local PRIVATE = tonumber("177", 8) -- a socket is born with mode 0600
local NEVER_A_PID = 4194305 -- above the highest that Linux gives

-- What a VM's process is, for one whose parent is somebody else: vm.process is that parent.
local function start_orphan(world, manager, name)
  local wrapper = world.folder:file("wrapper")
  support.write_file(wrapper, ('#!/bin/sh\n"%s" "$@" &\nwait\n'):format(support.firecracker()))
  support.sh{ "chmod", "755", wrapper }
  local parent = start(world, { name = name, firecracker = wrapper })
  return parent, must(manager:find_pid(parent.sock))
end

describe("a VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("boots through its API, answers a ping, tells its pid, and shuts down with status 0", function()
    local world <close> = support.world()
    local manager = world.manager
    local sock, console = world.folder:file("run/api.sock"), world.folder:file("console")
    must(manager:ensure_bridge())
    must(manager:ensure_socket_dir())
    must(manager:create_tap("tap0"))
    local process <close> = must(fcproc.spawn(
      { support.firecracker(), "--api-sock", sock, "--level", "Off" },
      { stdout = { file = console }, umask = PRIVATE, netns = world.netns, session = true }))
    local _ <close> = setmetatable({}, { __close = function()
      manager:kill(process)
      process:wait(10)
    end })
    must(manager:wait_for_socket(sock))
    local client <close> = must(fcproc.client(sock))
    local function put(target, body) must(client:request("PUT", target, body)) end
    put("/machine-config", { vcpu_count = 1, mem_size_mib = 16 })
    put("/boot-source", { kernel_image_path = must(fcproc.guest_path()),
      boot_args = "ip=172.30.0.2" })
    put("/network-interfaces/eth0", { iface_id = "eth0", host_dev_name = "tap0" })
    put("/actions", { action_type = "InstanceStart" })
    support.eventually("the console says ready", function()
      return (support.read_file(console) or ""):find("fcproc guest: ready", 1, true)
    end)
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
    assert.are.equal(process:pid(), must(manager:find_pid(sock)))
    must(manager:send_ctrl_alt_del(sock))
    local gone, exit = manager:wait_for_exit(process, sock, 10)
    assert.is_true(gone)
    assert.are.same({ status = 0 }, exit)
    assert.is_truthy(support.read_file(console):find("ctrl-alt-del, resetting", 1, true))
    fails("not_found", manager:find_pid(sock))
    fails("not_found", client:request("GET", "/"))
    must(manager:delete_tap("tap0"))
    must(manager:delete_bridge())
  end)

  it("answers requests", function()
    local world <close> = support.world()
    local vm <close> = start(world, { name = "asked" })
    local version = must(fcproc.request(vm.sock, "GET", "/version")).firecracker_version
    assert.are.equal(must(world.manager:binary_version()), version)
    local client <close> = must(fcproc.client(vm.sock))
    assert.are.equal(16, must(client:request("GET", "/machine-config")).mem_size_mib)
    assert.are.equal("asked", must(client:request("GET", "/")).id)
    assert.is_true(must(client:request("PATCH", "/vm", { state = "Paused" })))
    assert.are.equal("Paused", must(client:request("GET", "/")).state)
    must(client:request("PATCH", "/vm", '{"state": "Resumed"}'))
    assert.are.equal("Running", must(client:request("GET", "/")).state)
  end)

  it("refuses what can't be with Firecracker's own words", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    local client <close> = must(fcproc.client(vm.sock))
    for _, case in ipairs{
      { "PUT", "/boot-source", { kernel_image_path = "/x" }, "not supported after starting" },
      { "PUT", "/machine-config", { vcpus = 1 }, "unknown field `vcpus`" },
      { "PUT", "/actions", { action_type = "Dance" }, "unknown variant `Dance`" },
      { "GET", "/nowhere", nil, "Invalid request method and/or path" },
    } do
      local err = fails("api", client:request(case[1], case[2], case[3]))
      assert.are.equal(400, err.status)
      assert.are.equal(vm.sock, err.path)
      assert.is_truthy(err.message:find(case[4], 1, true), err.message)
      assert.is_nil(err.message:find("fault_message", 1, true), "the JSON around it is taken off")
    end
    must(client:request("GET", "/")) -- and is as well as before
  end)

  it("has a socket that is born right, so that ensure_socket_access does nothing", function()
    local changes = {}
    local world <close> = support.world{ logger = function(_, message)
      changes[#changes + 1] = message
    end }
    local vm <close> = start(world, { spawn = { umask = PRIVATE } })
    local look = { "stat", "-c", "%a %u:%g, changed %z", vm.sock }
    local before = support.sh(look)
    assert.are.equal("600 0:0", before:match("^[^,]+"))
    must(world.manager:ensure_socket_access(vm.sock, "firecracker api socket"))
    assert.are.equal(before, support.sh(look))
    assert.are.same({}, changes)
  end)

  it("lives in a runtime folder 200 bytes deep", function()
    local folder <close> = support.folder()
    local deep = folder:file(("d"):rep(100) .. "/" .. ("e"):rep(100))
    local world <close> = support.world{ runtime_dir = deep }
    local manager, sock = world.manager, deep .. "/api.sock"
    must(manager:ensure_socket_dir())
    -- Firecracker can't bind such a path itself: it starts in the folder, with a short one.
    local vm <close> = start(world, { sock = "api.sock", wait = false, spawn = { cwd = deep } })
    must(manager:wait_for_socket(sock))
    must(manager:ensure_socket_access(sock))
    assert.are.equal(vm.process:pid(), must(manager:find_pid(sock)))
    assert.are.equal(vm.process:pid(), manager:resolve_pid(nil, sock))
    assert.are.equal("vm", must(fcproc.request(sock, "GET", "/")).id)
    -- Its own arguments hold the short path: once it no longer listens, only a handle is proof.
    local handle <close> = must(manager:open_process(sock))
    must(manager:send_ctrl_alt_del(sock))
    local gone, exit = manager:wait_for_exit(handle, sock, 10)
    assert.is_true(gone)
    assert.are.same({ status = 0 }, exit)
    fails("not_found", manager:find_pid(sock))
    fails("not_found", fcproc.request(deep .. "/" .. ("n"):rep(255), "GET", "/"))
    fails("invalid", fcproc.request(deep .. "/" .. ("n"):rep(256), "GET", "/"))
  end)
end)

describe("waiting for a VM's exit", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("ends with the call's own time-out while it runs", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    for _, target in ipairs{ vm.process, vm.process:pid() } do
      for _, timeout in ipairs{ 0, 0.05 } do
        local gone, err = world.manager:wait_for_exit(target, vm.sock, timeout)
        assert.is_nil(gone)
        assert.is_true(err == fcproc.ERR_WAIT_TIMEOUT)
        assert.is_truthy(err.message:find(("pid %d still running"):format(vm.process:pid()), 1, true))
      end
    end
    local ctx <close> = must(fcproc.context{ timeout = 0.05 })
    fails("deadline", world.manager:wait_for_exit(vm.process, vm.sock, 60, ctx))
    assert.is_true(vm.process:alive())
  end)

  it("is cancelled at once from another coroutine, and the VM goes on", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    local ctx <close> = must(fcproc.context())
    local cancelled, woken
    local results = fcproc.run{
      function()
        local gone, err = world.manager:wait_for_exit(vm.process:pid(), vm.sock, 60, ctx)
        woken = fcproc.now()
        return gone, err
      end,
      function()
        fcproc.runner():run{ "sleep", "0.05" }
        cancelled = fcproc.now()
        ctx:cancel()
      end,
    }
    fails("cancelled", results[1][1], results[1][2])
    assert.is_true(woken - cancelled < 5)
    assert.are.equal(vm.process:pid(), must(world.manager:find_pid(vm.sock)))
  end)

  it("of a pid that is none, or never was, is over at once", function()
    local world <close> = support.world()
    for _, pid in ipairs{ 0, -1, NEVER_A_PID } do
      local gone, exit = world.manager:wait_for_exit(pid, world.folder:file("api.sock"), 60)
      assert.is_true(gone)
      assert.is_nil(exit)
    end
  end)

  it("wakes when it is killed meanwhile, and tells the signal", function()
    local world <close> = support.world()
    for _, by in ipairs{ "number", "handle" } do
      local vm <close> = start(world, { name = by })
      local target = by == "number" and vm.process:pid() or vm.process
      local results = fcproc.run{
        function() return world.manager:wait_for_exit(target, vm.sock, 60) end,
        function() return world.manager:kill(target, vm.sock) end,
      }
      assert.is_true(must(results[2][1], results[2][2]))
      assert.is_true(must(results[1][1], results[1][2]))
      assert.are.same({ signal = 9 }, results[1][2])
    end
  end)

  it("tells the exit status of one that is not our child, where the kernel does", function()
    for name, without in pairs{ told = {}, untold = { "pidfd_info" } } do
      local world <close> = support.world{ without = without }
      local parent <close>, pid = start_orphan(world, world.manager, name)
      assert.are_not.equal(parent.process:pid(), pid)
      must(world.manager:send_ctrl_alt_del(parent.sock))
      local gone, exit = world.manager:wait_for_exit(pid, parent.sock, 10)
      assert.is_true(gone)
      local told = name == "told" and support.kernel_tells_exits()
      assert.are.same(told and { status = 0 } or nil, exit)
      must(parent.process:wait(10))
    end
  end)

  it("tells the signal that ended one that is not our child, where the kernel does", function()
    local world <close> = support.world()
    local parent <close>, pid = start_orphan(world, world.manager, "vm")
    local handle <close> = must(world.manager:open_process(parent.sock))
    must(world.manager:kill(pid, parent.sock))
    local gone, exit = world.manager:wait_for_exit(handle, parent.sock, 10)
    assert.is_true(gone)
    assert.are.same(support.kernel_tells_exits() and { signal = 9 } or nil, exit)
    must(parent.process:wait(10))
  end)
end)

describe("a request that is given up", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- Without care 1 in some 8,000 killed the VM: Firecracker's seccomp filter does not allow it to
  -- return from the SIGPIPE that it gets for its answer.
  it("does not take the VM along", function()
    local world <close> = support.world()
    local vm <close> = support.listening_vm(world, {})
    local core = require "fcproc.core"
    for i = 1, 3000 do
      local client <close> = must(core.client(vm.sock))
      local op <close> = must(client:request("GET", "/", nil, 5))
      op:step()
      if i % 3 == 0 then
        core.poll(op:pollfd(), 0.0002)
        op:step()
      end
    end
    assert.is_true(vm.process:alive())
    support.eventually("it answers again", function()
      return fcproc.request(vm.sock, "GET", "/version") -- 503 while all its connections are in use
    end)
  end)
end)
