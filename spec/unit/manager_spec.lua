-- The manager's configuration, wrong use, the binary, and what it never does.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function raises(text, fn)
  local ok, err = pcall(fn)
  assert.is_false(ok)
  assert.is_truthy(tostring(err):find(text, 1, true), tostring(err))
end

describe("fcproc.new", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("names the options it knows when one is unknown", function()
    raises("unknown option 'brige_name'; known: bridge_ip, bridge_name", function()
      fcproc.new{ brige_name = "x" }
    end)
    raises("option 'cidr' must be a integer or string, not a table", function()
      fcproc.new{ cidr = {} }
    end)
    raises("options must be a table", function() fcproc.new("x") end)
    raises("unknown feature 'epoll'", function() fcproc.new{ without = { "epoll" } } end)
  end)

  it("refuses values that can never work", function()
    for _, config in ipairs{
      { bridge_ip = "172.30.0.1", cidr = 33 }, { bridge_ip = "fd00::1", cidr = 129 },
      { bridge_ip = "172.30.0.1", cidr = -1 }, { bridge_ip = "172.30.0.1" },
      { bridge_ip = "172.30.0.1", cidr = "many" }, { bridge_ip = "172.30.0", cidr = 24 },
      { bridge_name = ("b"):rep(16) }, { bridge_name = "" }, { bridge_name = "a/b" },
      { bridge_name = "a b" }, { runtime_dir = "relative/folder" }, { privilege = "root" },
    } do
      fails("invalid", fcproc.new(config))
    end
    local manager <close> = must(fcproc.new{ bridge_ip = "172.30.0.1", cidr = "24" })
    assert.is_truthy(manager)
  end)

  it("says which setting a call would need", function()
    local manager <close> = must(fcproc.new())
    for _, call in ipairs{ "ensure_bridge", "delete_bridge", "list_taps", "ensure_socket_dir" } do
      local err = fails("invalid", manager[call](manager))
      assert.is_truthy(err.message:find("is not configured", 1, true))
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
    assert.is_truthy(err.message:find("firecracker binary not configured; install firecracker", 1, true))
    err = fails("not_found", resolve("/no/such/firecracker"))
    assert.is_truthy(err.message:find("not found at /no/such/firecracker; install", 1, true))
    err = fails("not_found", resolve("no-such-firecracker"))
    assert.is_truthy(err.message:find('"no-such-firecracker" not found in PATH; install', 1, true))
    assert.is_true(err.cause == fcproc.ERR_NOT_FOUND)
    fails("invalid", resolve("/tmp/"))
    fails("permission", resolve("/etc/passwd"))
  end)

  it("tells its version", function()
    local manager <close> = must(fcproc.new{ firecracker_bin = support.firecracker() })
    assert.is_truthy(must(manager:binary_version()):match("^%d+%.%d+%.%d+"))
    local other <close> = must(fcproc.new{ firecracker_bin = "/bin/true" })
    fails("unsupported", other:binary_version())
  end)

  it("comes with a guest", function()
    assert.is_truthy(support.read_file(must(fcproc.guest_path())):match("^\127ELF"))
  end)
end)

describe("the primitives", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("never call the runner", function()
    local function forbidden() error("a primitive called the runner") end
    local world <close> = support.world{ runner = { run = forbidden, run_sudo = forbidden } }
    local manager = world.manager
    must(manager:ensure_bridge())
    must(manager:ensure_socket_dir())
    must(manager:create_tap("tap0"))
    must(manager:list_taps())
    must(manager:resolve_binary())
    must(manager:binary_version())
    local vm <close> = support.vm(world, { tap = "tap1" })
    must(manager:wait_for_socket(vm.sock))
    must(manager:ensure_socket_access(vm.sock, "api"))
    must(manager:find_pid(vm.sock))
    assert.are.equal(vm.process:pid(), manager:resolve_pid(vm.process, vm.sock))
    must(manager:send_ctrl_alt_del(vm.sock))
    must(manager:wait_for_exit(vm.process, vm.sock, 10))
    must(manager:kill(vm.process, vm.sock))
    must(manager:delete_taps{ "tap0", "tap1" })
    must(manager:delete_bridge())
  end)

  it("tell the logger of every change with its duration", function()
    local seen = {}
    local world <close> = support.world{ logger = function(level, message, fields)
      assert.are.equal("debug", level)
      assert.are.equal("number", type(fields.duration))
      seen[#seen + 1] = message
    end }
    must(world.manager:ensure_bridge())
    must(world.manager:ensure_socket_dir())
    must(world.manager:create_tap("tap0"))
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_bridge())
    assert.are.same({ "bridge ensured", "runtime folder ensured", "TAP created", "TAPs deleted",
      "bridge deleted" }, seen)
  end)

  it("refuse what is no context, and closed handles", function()
    local world <close> = support.world()
    raises("the context must come from fcproc.context", function() world.manager:ensure_bridge(5) end)
    local manager = must(fcproc.new{ bridge_name = "x0" })
    manager:close()
    manager:close()
    raises("closed fcproc.net", function() manager:ensure_bridge() end)
    raises("unknown option 'colour'", function() world.manager:create_tap("t", { colour = 1 }) end)
  end)
end)
