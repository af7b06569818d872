-- Real VMs from start to end: console, ping, API, shutdown, deep paths, the guest's switches.

local support = require "spec.support"
local cjson = require "cjson"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

describe("a VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("boots, answers a ping, tells its pid, shuts down with status 0", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world, { tap = "tap0", boot_args = "ip=172.30.0.2" })
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
    assert.are.equal(vm.process:pid(), must(world.manager:find_pid(vm.sock)))
    must(world.manager:ensure_socket_access(vm.sock, "firecracker api socket"))
    must(world.manager:send_ctrl_alt_del(vm.sock))
    local gone, exit = world.manager:wait_for_exit(vm.process, vm.sock, 10)
    assert.is_true(gone)
    assert.are.equal(0, exit.status)
    assert.is_truthy(support.read_file(vm.console):find("ctrl-alt-del, resetting", 1, true))
    fails("not_found", world.manager:find_pid(vm.sock))
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_bridge())
  end)

  it("answers API requests, and refuses with Firecracker's own words", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world)
    local client <close> = must(fcproc.client(vm.sock))
    assert.is_truthy(must(client:request("GET", "/version")).firecracker_version:match("^%d"))
    assert.are.equal(16, must(client:request("GET", "/machine-config")).mem_size_mib)
    local err = fails("api", client:request("PUT", "/boot-source", { kernel_image_path = "/x" }))
    assert.are.equal(400, err.status)
    assert.are.equal(vm.sock, err.path)
    assert.is_truthy(err.message:find("not supported after starting", 1, true), err.message)
    must(client:request("PATCH", "/vm", { state = "Paused" }))
    must(client:request("PATCH", "/vm", { state = "Resumed" }))
  end)

  it("works in a folder 200 bytes deep", function()
    local world <close> = support.world()
    local deep = world.folder:file(("d"):rep(90) .. "/" .. ("e"):rep(90))
    support.sh{ "mkdir", "-p", deep }
    local vm <close> = support.vm(world, { sock = "api.sock", spawn = { cwd = deep } })
    local sock = deep .. "/api.sock"
    must(world.manager:wait_for_socket(sock))
    assert.are.equal(vm.process:pid(), must(world.manager:find_pid(sock)))
    must(world.manager:send_ctrl_alt_del(sock))
    must(world.manager:wait_for_exit(vm.process, sock, 10))
    local long_name = deep .. "/" .. ("n"):rep(100)
    local err = fails("invalid", fcproc.request(long_name, "GET", "/"))
    assert.is_truthy(err.message:find("85 bytes", 1, true))
  end)

  it("that does not react is waited for and then killed", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world, { boot_args = "fcproc.ignore_cad" })
    must(world.manager:send_ctrl_alt_del(vm.sock))
    support.wait_for_console(vm, "ctrl-alt-del, ignored")
    local err = select(2, world.manager:wait_for_exit(vm.process:pid(), vm.sock, 0.1))
    assert.is_true(err == fcproc.ERR_WAIT_TIMEOUT)
    assert.are.equal("wait_timeout", err.code)
    must(world.manager:kill(vm.process:pid(), vm.sock))
    local gone, exit = world.manager:wait_for_exit(vm.process, vm.sock, 10)
    assert.is_true(gone)
    assert.are.equal(9, exit.signal)
    must(world.manager:kill(vm.process:pid(), vm.sock)) -- gone already is a success
    fails("not_found", world.manager:send_ctrl_alt_del(vm.sock)) -- its socket file is still there
  end)

  it("tells its exit status also to those who are not its parent", function()
    local world <close> = support.world()
    local config = world.folder:file("config.json")
    support.write_file(config, cjson.encode{
      ["boot-source"] = { kernel_image_path = must(fcproc.guest_path()), boot_args = "" },
      ["machine-config"] = { vcpu_count = 1, mem_size_mib = 16 },
    }:gsub("}$", ',"drives":[]}'))
    for _, without in ipairs{ {}, { "pidfd_info" } } do
      local sock = world.folder:file("s" .. #without)
      local parent <close> = must(fcproc.spawn({ "sh", "-c", '"$0" --api-sock "$1" --config-file "$2" '
        .. "> /dev/null & wait", support.firecracker(), sock, config }))
      local manager <close> = must(fcproc.new{ firecracker_bin = support.firecracker(),
        without = without })
      must(manager:wait_for_socket(sock))
      local pid = must(manager:find_pid(sock))
      assert.are_not.equal(parent:pid(), pid)
      support.eventually("it can be told to end", function()
        return manager:send_ctrl_alt_del(sock)
      end)
      local gone, exit = manager:wait_for_exit(pid, sock, 10)
      assert.is_true(gone)
      assert.are.same(#without == 0 and { status = 0 } or nil, exit)
      must(parent:wait(10))
    end
  end)
end)

describe("the built-in guest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("reads the first sector of its disk", function()
    local world <close> = support.world()
    local disk = world.folder:file("disk")
    support.write_file(disk, "hello disk\0" .. ("x"):rep(1013))
    local vm <close> = support.vm(world, { drives = { { drive_id = "d0", path_on_host = disk,
      is_root_device = false, is_read_only = true } } })
    assert.is_truthy(support.read_file(vm.console):find('block 0: 2 sectors, starts "hello disk"', 1, true))
  end)

  it("is deaf, prints for ever, halts, resets and faults when told", function()
    local world <close> = support.world()
    local deaf <close> = support.vm(world, { name = "deaf", boot_args = "fcproc.deaf=300" })
    support.wait_for_console(deaf, "listening")
    must(world.manager:send_ctrl_alt_del(deaf.sock))
    must(deaf.process:wait(10))
    local printer <close> = support.vm(world, { name = "printer", boot_args = "fcproc.print" })
    support.wait_for_console(printer, "line 50")
    must(world.manager:send_ctrl_alt_del(printer.sock))
    must(printer.process:wait(10))
    local halted <close> = support.vm(world, { name = "halted", boot_args = "fcproc.halt" })
    must(world.manager:send_ctrl_alt_del(halted.sock))
    fails("wait_timeout", halted.process:wait(0.2))
    for _, switch in ipairs{ "reset", "triple_fault" } do
      local vm <close> = support.vm(world, { name = switch:gsub("_", ""), wait = false,
        boot_args = "fcproc." .. switch })
      local _, exit = must(vm.process:wait(10))
      assert.are.equal(0, exit.status)
    end
  end)

  it("costs next to nothing when idle", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world)
    local function ticks()
      local stat = support.read_file(("/proc/%d/stat"):format(vm.process:pid())):match("%) (.*)")
      local fields = {}
      for field in stat:gmatch("%S+") do fields[#fields + 1] = tonumber(field) or 0 end
      return fields[12] + fields[13]
    end
    local before = ticks()
    fcproc.runner():run{ "sleep", "1" }
    assert.is_true(ticks() - before <= 20)
  end)
end)

describe("the demo", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("shows each step and leaves nothing", function()
    local result = must(fcproc.runner():run({ support.lua, "examples/hello.lua" }, { env = {
      PATH = os.getenv("PATH") .. ":" .. support.firecracker():match("(.*)/"),
      LUA_PATH = os.getenv("LUA_PATH"), LUA_CPATH = os.getenv("LUA_CPATH"),
    } }))
    assert.is_truthy(result.stdout:find("exit status 0", 1, true))
    assert.is_truthy(result.stdout:find("ms  all of it; nothing is left\n$"))
    assert.is_nil(support.read_file("/run/fcproc-hello/console.log"))
  end)
end)
