-- The manager's configuration, wrong use, the binary, and what it never does.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local raises = support.raises

describe("fcproc.new", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("names the options it knows when one is unknown", function()
    raises("unknown option 'brige_name'; known: bridge_ip, bridge_name", function()
      fcproc.new{ brige_name = "x" }
    end)
    raises("option 'cidr' must be an integer or string, not a table", function()
      fcproc.new{ cidr = {} }
    end)
    raises("options must be a table", function() fcproc.new("x") end)
    raises("unknown 'last' in jailer_uids; known: count, first", function()
      fcproc.new{ jailer_uids = { first = 70000, last = 70009 } }
    end)
    raises("unknown feature 'epoll'", function() fcproc.new{ without = { "epoll" } } end)
    -- All that are known, in order, so that a typo is found at a glance.
    raises("known: bridge_ip, bridge_name, cidr, firecracker_bin, jailer_uids, logger, netns, "
      .. "privilege, runner, runtime_dir, without", function() fcproc.new{ [1] = "x" } end)
  end)

  it("raises for each option of a wrong type, and names it", function()
    for name, bad in pairs{ firecracker_bin = 1, bridge_name = true, bridge_ip = {}, cidr = 24.5,
      runtime_dir = 1, logger = "print", runner = print, privilege = 0, netns = 7,
      jailer_uids = 70000, without = "inotify" } do
      raises(("fcproc.new: option '%s' must be a"):format(name), function()
        fcproc.new{ [name] = bad }
      end)
    end
    local ctx <close> = must(fcproc.context())
    raises("option 'netns' must be a string or fcproc.netns, not a userdata", function()
      fcproc.new{ netns = ctx }
    end)
  end)

  it("refuses values that can never work", function()
    for _, config in ipairs{
      { bridge_ip = "172.30.0.1", cidr = 33 }, { bridge_ip = "fd00::1", cidr = 129 },
      { bridge_ip = "172.30.0.1", cidr = -1 }, { bridge_ip = "172.30.0.1" },
      { bridge_ip = "172.30.0.1", cidr = "many" }, { bridge_ip = "172.30.0", cidr = 24 },
      { bridge_name = ("b"):rep(16) }, { bridge_name = "" }, { bridge_name = "a/b" },
      { bridge_name = "a b" }, { bridge_name = "a\tb" }, { bridge_name = "a:b" },
      { bridge_name = "." }, { bridge_name = ".." }, { bridge_ip = "fd00::1", cidr = -1 },
      { bridge_ip = "172.30.0.1/24", cidr = 24 }, { bridge_ip = "", cidr = 24 },
      { bridge_ip = "172.30.0.1", cidr = "24x" }, { runtime_dir = "" },
      { cidr = 129 }, { cidr = -1 }, { cidr = "many" }, { bridge_name = "x0", cidr = "1299" },
      { runtime_dir = "relative/folder" }, { privilege = "root" }, { jailer_uids = {} },
      { jailer_uids = { first = 0, count = 10 } }, { jailer_uids = { first = 70000, count = 0 } },
      { jailer_uids = { first = 4294967294, count = 2 } },
      { jailer_uids = { first = 70000.5, count = 2 } }, { jailer_uids = { first = "x", count = 2 } },
    } do
      fails("invalid", fcproc.new(config))
    end
    local err = fails("invalid", fcproc.new{ bridge_ip = "172.30.0.1", cidr = 33 })
    assert.is_truthy(err.message:find("33 is out of range: IPv4 has 0 to 32", 1, true))
    for _, cidr in ipairs{ 0, 99, "128" } do must(fcproc.new{ cidr = cidr }):close() end
    err = fails("invalid", fcproc.new{ bridge_ip = "fd00::1", cidr = 129 })
    assert.is_truthy(err.message:find("129 is out of range: IPv6 has 0 to 128", 1, true))
    err = fails("invalid", fcproc.new{ runtime_dir = "relative/folder" })
    assert.is_truthy(err.message:find("absolute path, not 'relative/folder'", 1, true))
    fails("not_found", fcproc.new{ netns = "no-such-namespace" })
  end)

  it("takes the values at the edge", function()
    for _, config in ipairs{
      {}, { bridge_ip = "172.30.0.1", cidr = "24" }, { bridge_ip = "172.30.0.1", cidr = 0 },
      { bridge_ip = "172.30.0.1", cidr = 32 }, { bridge_ip = "fd00::1", cidr = 128 },
      { bridge_name = ("b"):rep(15) }, { runtime_dir = "/" }, { privilege = "direct" },
      { jailer_uids = { first = 4294967294, count = 1 } },
      { without = { "peerpidfd", "pidfd_info", "inotify", "close_range" } },
    } do
      local manager <close> = must(fcproc.new(config))
      assert.is_truthy(manager.runner.run)
    end
  end)

  it("has one name for a runtime folder, whatever leads to it", function()
    local dir <close> = support.folder()
    support.sh{ "ln", "-s", dir.path, dir:file("link") }
    for _, path in ipairs{ "/run", "/run/", "//run", "/link/run", "/none/../run" } do
      if path:find("none", 1, true) then support.sh{ "mkdir", dir:file("none") } end
      local manager <close> = must(fcproc.new{ runtime_dir = dir.path .. path })
      assert.are.equal(dir:file("run"), manager.config.runtime_dir)
    end
    -- What is not there yet is left as it is given, and so is a link in the folder's own place.
    local manager <close> = must(fcproc.new{ runtime_dir = dir:file("new/deep/run") })
    assert.are.equal(dir:file("new/deep/run"), manager.config.runtime_dir)
    local linked <close> = must(fcproc.new{ runtime_dir = dir:file("link") })
    assert.are.equal(dir:file("link"), linked.config.runtime_dir)
  end)

  it("says which setting a call would need", function()
    local manager <close> = must(fcproc.new())
    for call, setting in pairs{ ensure_bridge = "bridge_name", delete_bridge = "bridge_name",
      list_taps = "bridge_name", ensure_socket_dir = "runtime_dir" } do
      local err = fails("invalid", manager[call](manager))
      assert.is_truthy(err.message:find(setting .. " is not configured", 1, true), err.message)
    end
  end)
end)

describe("the binary", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function resolve(name)
    local manager <close> = must(fcproc.new{ firecracker_bin = name })
    return manager:resolve_binary()
  end

  it("is found, or the message says how to get it", function()
    assert.are.equal(support.firecracker(), must(resolve(support.firecracker())))
    assert.is_truthy(must(resolve("sh")):match("/sh$"))
    local err = fails("not_found", resolve(""))
    assert.is_truthy(err.message:find("firecracker binary not configured; install", 1, true))
    err = fails("not_found", resolve("/no/such/firecracker"))
    assert.is_truthy(err.message:find("not found at /no/such/firecracker; install", 1, true))
    err = fails("not_found", resolve("no-such-firecracker"))
    assert.is_truthy(err.message:find('"no-such-firecracker" not found in PATH; install', 1, true))
    assert.is_true(err.cause == fcproc.ERR_NOT_FOUND)
    for code, path in pairs{ invalid = "/tmp", permission = "/etc/passwd" } do
      err = fails(code, resolve(path))
      assert.is_truthy(err.message:find("firecracker binary " .. path, 1, true), err.message)
      assert.is_truthy(err.message:find("; install firecracker or set firecracker_bin", 1, true))
      assert.are.equal(path, err.path)
    end
    fails("invalid", resolve("/dev/null"))
    fails("invalid", resolve("/tmp/"))
  end)

  it("is the first on PATH that is a program, and never one of the current folder", function()
    local dir <close> = support.folder()
    for _, name in ipairs{ "folder", "text", "program", "here" } do
      support.sh{ "mkdir", dir:file(name) }
    end
    support.sh{ "mkdir", dir:file("folder/vmm") }
    for _, name in ipairs{ "text/vmm", "program/vmm", "here/vmm", "text/only" } do
      support.write_file(dir:file(name), "#!/bin/sh\n")
    end
    support.sh{ "chmod", "755", dir:file("program/vmm"), dir:file("here/vmm") }
    support.write_file(dir:file("resolve.lua"), [[
      local path, err = assert(require "fcproc".new{ firecracker_bin = arg[1] }):resolve_binary()
      print(path or err.code .. " " .. err.message)
    ]])
    local here = support.sh{ "pwd" }:gsub("\n", "/")
    local function absolute(templates) -- the script runs in another folder
      return (templates:gsub("[^;]+", function(template)
        return template:match("^/") and template or here .. template
      end))
    end
    local lua = must(core.find_executable(support.lua))
    local function resolve_on(path, name)
      return support.sh({ lua, dir:file("resolve.lua"), name }, { cwd = dir:file("here"), env = {
        PATH = path, LUA_PATH = absolute(package.path), LUA_CPATH = absolute(package.cpath),
      } })
    end
    local folders = dir:file("folder") .. ":" .. dir:file("text") .. ":"
    assert.are.equal(dir:file("program/vmm") .. "\n",
      resolve_on(folders .. dir:file("program"), "vmm"))
    for _, try in ipairs{
      { folders, "only", "^permission .*cannot be executed.*; install" },
      { "::" .. folders, "vmm", "^permission " }, -- it is in the current folder, too
      { ":" .. dir:file("folder"), "vmm", "^not_found .*not found in PATH" },
    } do
      local answer = resolve_on(try[1], try[2])
      assert.is_truthy(answer:match(try[3]), answer)
    end
  end)

  it("tells its version", function()
    local manager <close> = must(fcproc.new{ firecracker_bin = support.firecracker() })
    assert.is_truthy(must(manager:binary_version()):match("^%d+%.%d+%.%d+"))
    local other <close> = must(fcproc.new{ firecracker_bin = "/bin/true" })
    local err = fails("unsupported", other:binary_version())
    assert.is_truthy(err.message:find("/bin/true --version", 1, true))
    assert.are.equal("/bin/true", err.path)
    local missing <close> = must(fcproc.new{ firecracker_bin = "/no/such/firecracker" })
    fails("not_found", missing:binary_version())
  end)

  it("is asked for it once, as long as it is the same file; a script each time", function()
    local command, asked = core.command, 0
    core.command = function(...)
      asked = asked + 1
      return command(...)
    end
    local restored <close> = setmetatable({}, { __close = function() core.command = command end })
    assert.is_truthy(restored)
    local dir <close> = support.folder()
    local path, version = dir:file("firecracker"), nil
    local manager <close> = must(fcproc.new{ firecracker_bin = path })
    local function asks()
      local before = asked
      local told = must(manager:binary_version())
      version = version or told
      assert.are.equal(version, told)
      return asked - before
    end
    support.sh{ "cp", support.firecracker(), path }
    assert.are.equal(1, asks())
    assert.are.equal(0, asks())
    support.sh{ "cp", support.firecracker(), path .. ".new" }
    support.sh{ "mv", path .. ".new", path }
    assert.are.equal(1, asks())
    support.sh{ "touch", path }
    assert.are.equal(1, asks())
    support.sh{ "rm", path }
    support.write_file(path, ("#!/bin/sh\nexec %s \"$@\"\n"):format(support.firecracker()))
    support.sh{ "chmod", "755", path }
    assert.are.equal(1, asks())
    assert.are.equal(1, asks())
    support.sh{ "ln", "-sf", support.firecracker(), path }
    assert.are.equal(1, asks())
    assert.are.equal(1, asks())
  end)

  it("has so many seconds to tell it, and is ended then", function()
    local command, limits = core.command, {}
    local dir <close> = support.folder()
    support.write_file(dir:file("hangs"), "#!/bin/sh\nexec sleep 60\n")
    support.sh{ "chmod", "755", dir:file("hangs") }
    local manager <close> = must(fcproc.new{ firecracker_bin = dir:file("hangs") })
    core.command = function(spec, ctx) -- the limit as it is, and the wait a short one
      limits[#limits + 1], spec.timeout = spec.timeout, spec.timeout and 0.01
      return command(spec, ctx)
    end
    local restored <close> = setmetatable({}, { __close = function() core.command = command end })
    assert.is_truthy(restored)
    local ctx <close> = must(fcproc.context{ timeout = 5 })
    fails("wait_timeout", manager:binary_version(ctx))
    assert.are.same({ 5 }, limits)
  end)

  it("comes with a guest", function()
    local path = must(fcproc.guest_path())
    assert.are.equal("/", path:sub(1, 1))
    assert.is_truthy(support.read_file(path):match("^\127ELF"))
  end)
end)

describe("the primitives", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("never call the runner", function()
    local function forbidden() error("a primitive called the runner") end
    local world <close> = support.world{ runner = { run = forbidden, run_sudo = forbidden } }
    local manager = world.manager
    assert.are.equal(forbidden, manager.runner.run) -- it is the one that was given
    must(manager:ensure_bridge())
    must(manager:ensure_socket_dir())
    must(manager:create_tap("tap0"))
    must(manager:list_taps())
    must(manager:resolve_binary())
    must(manager:binary_version())
    local vm <close> = support.vm(world, { tap = "tap1" })
    must(manager:wait_for_path(vm.sock))
    must(manager:wait_for_socket(vm.sock))
    must(manager:ensure_socket_access(vm.sock, "api"))
    must(manager:find_pid(vm.sock))
    must(manager:open_process(vm.sock)):close()
    assert.are.equal(vm.process:pid(), manager:resolve_pid(vm.process, vm.sock))
    must(manager:send_ctrl_alt_del(vm.sock))
    must(manager:wait_for_exit(vm.process, vm.sock, 10))
    must(manager:kill(vm.process, vm.sock))
    local second <close> = support.vm(world, { name = "second" })
    must(manager:kill(second.process:pid(), second.sock))
    must(manager:wait_for_exit(second.process:pid(), second.sock, 10))
    must(manager:delete_taps{ "tap0", "tap1" })
    must(manager:delete_bridge())
  end)

  it("tell the logger of every change with its duration, and of nothing else", function()
    local seen, fields_of = {}, {}
    local world <close> = support.world{ logger = function(level, message, fields)
      assert.are.equal("debug", level)
      assert.are.equal("number", type(fields.duration))
      assert.is_true(fields.duration >= 0 and fields.duration < 60)
      seen[#seen + 1] = message
      fields_of[message] = fields
    end }
    local manager = world.manager
    local function once(call, ...)
      must(manager[call](manager, ...))
      return must(manager[call](manager, ...)) -- nothing is left to do, and nothing is told
    end
    once("ensure_bridge")
    once("ensure_socket_dir")
    must(manager:create_tap("tap0", { mtu = 1400 }))
    once("delete_tap", "tap0")
    must(manager:delete_taps{ "tap1", "tap2" })
    must(manager:list_taps())
    must(manager:delete_bridge())
    assert.are.same({ "bridge ensured", "runtime folder ensured", "TAP created", "TAPs deleted",
      "bridge deleted" }, seen)
    local bridge, tap = fields_of["bridge ensured"], fields_of["TAP created"]
    assert.are.same({ "fcbr0", "172.30.0.1", 24, true },
      { bridge.name, bridge.address, bridge.prefix, bridge.created })
    assert.are.same({ "tap0", "fcbr0", 1400, true }, { tap.name, tap.bridge, tap.mtu, tap.created })
    assert.are.equal(world.folder:file("run"), fields_of["runtime folder ensured"].path)
    assert.are.equal("tap0", fields_of["TAPs deleted"].names)

    seen = {}
    local vm <close> = support.vm(world)
    support.sh{ "chmod", "644", vm.sock }
    once("ensure_socket_access", vm.sock, "api socket")
    must(manager:find_pid(vm.sock))
    must(manager:send_ctrl_alt_del(vm.sock))
    must(manager:wait_for_exit(vm.process, vm.sock, 10))
    must(manager:kill(vm.process)) -- is gone
    local second <close> = support.vm(world, { name = "second" })
    must(manager:kill(second.process, second.sock))
    assert.are.same({ "socket made ours", "Ctrl-Alt-Del sent", "process killed" }, seen)
    assert.are.equal(second.process:pid(), fields_of["process killed"].pid)
    assert.are.equal(vm.sock, fields_of["socket made ours"].path)
  end)

  it("tell it of no change that failed", function()
    local seen = {}
    local world <close> = support.world{ bridge_name = "lo", logger = function(_, message)
      seen[#seen + 1] = message
    end }
    fails("conflict", world.manager:ensure_bridge())
    fails("conflict", world.manager:delete_bridge())
    local ctx <close> = must(fcproc.context{ timeout = 0.05 })
    fails("deadline", world.manager:send_ctrl_alt_del(world.folder:file("none"), ctx))
    assert.are.same({}, seen)
  end)

  it("raise for arguments of a wrong type, before anything is done", function()
    local world <close> = support.world()
    local manager = world.manager
    for call, arguments in pairs{
      create_tap = { 5 }, delete_tap = {}, delete_taps = { "tap0" }, wait_for_path = { 5 },
      wait_for_socket = {}, ensure_socket_access = { {} }, find_pid = {}, send_ctrl_alt_del = { 5 },
      wait_for_exit = { "42" }, kill = { "42" }, open_process = {},
    } do
      assert.is_false(pcall(manager[call], manager, table.unpack(arguments)), call)
    end
    for name, bad in pairs{ uid = "root", gid = {}, mac = 1, mtu = "big", isolated = 1 } do
      raises(("create_tap: option '%s' must be a"):format(name), function()
        manager:create_tap("tap0", { [name] = bad })
      end)
    end
    for _, name in ipairs{ ("t"):rep(16), "", "a/b", "a b" } do
      fails("invalid", manager:create_tap(name))
      fails("invalid", manager:delete_tap(name))
    end
    assert.are.equal(1, #support.ip(world.netns, "link")) -- lo, and nothing was made
  end)

  it("refuse what is no context, and closed handles", function()
    local world <close> = support.world()
    raises("the context must come from fcproc.context", function()
      world.manager:ensure_bridge(5)
    end)
    local manager = must(fcproc.new{ bridge_name = "x0" })
    manager:close()
    manager:close()
    for _, call in ipairs{ "ensure_bridge", "delete_bridge", "list_taps" } do
      fails("closed", manager[call](manager))
    end
    fails("closed", manager:create_tap("tap0"))
    fails("closed", manager:delete_tap("tap0"))
    raises("unknown option 'colour'", function() world.manager:create_tap("t", { colour = 1 }) end)
  end)
end)
