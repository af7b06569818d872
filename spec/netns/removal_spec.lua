-- delete_tap, delete_taps and delete_bridge against the real kernel and a real Firecracker, in
-- namespaces of their own.

local support = require "spec.support"
local aliases = require "fcproc.alias"
local fcproc = require "fcproc"
local host = require "fcproc.resources.host"
local journals = require "fcproc.resources.journal"
local lease = require "fcproc.resources.lease"
local namespaces = require "fcproc.resources.namespaces"
local strays = require "fcproc.resources.strays"

local must, fails, ip = support.must, support.fails, support.ip

-- The names of all links, sorted, in one line.
local function left(world)
  local list = {}
  for _, entry in ipairs(ip(world.netns, "link")) do list[#list + 1] = entry.ifname end
  table.sort(list)
  return table.concat(list, " ")
end

local function make(world, n, prefix)
  local list = {}
  for i = 1, n do
    list[i] = (prefix or "d") .. i
    must(world.manager:create_tap(list[i]))
  end
  return list
end

describe("delete_tap", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is idempotent, and a missing TAP is fine", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("tap0"))
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_tap("never0"))
    assert.are.equal(0, must(world.manager:delete_taps{}))
    assert.are.equal(0, must(world.manager:delete_taps{ "never0", "never1" }))
    assert.are.equal("fcbr0 lo", left(world))
  end)

  it("leaves what is no TAP of ours alone: conflict", function()
    local world <close> = support.bridged_world()
    ip(world.netns, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip(world.netns, "link", "add", "ifb9", "type", "ifb")
    ip(world.netns, "tuntap", "add", "dev", "tun0", "mode", "tun")
    ip(world.netns, "tuntap", "add", "dev", "multi0", "mode", "tap", "multi_queue")
    for name, what in pairs{ veth0 = "a veth,", ifb9 = "an? ifb,", tun0 = "a TUN,",
      multi0 = "multi%-queue", lo = "the loopback," } do
      local before = ip(world.netns, "link", "show", "dev", name)
      local err = fails("conflict", world.manager:delete_tap(name))
      assert.is_truthy(err.message:find(name .. " is " .. what)
        or err.message:find(name .. " is a " .. what), err.message)
      assert.are.same(before, ip(world.netns, "link", "show", "dev", name))
    end
    fails("conflict", world.manager:delete_tap("fcbr0"))
    assert.are.equal("fcbr0 ifb9 lo multi0 tun0 veth0 veth1", left(world))
  end)

  it("leaves a TAP that a running VM uses, until it is gone", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world, { tap = "tap0", boot_args = "ip=172.30.0.2" })
    local err = fails("busy", world.manager:delete_tap("tap0"))
    assert.is_true(err == fcproc.ERR_BUSY)
    assert.is_truthy(err.message:find("tap0", 1, true))
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
    vm.process:signal("KILL")
    must(vm.process:wait(10))
    must(world.manager:delete_tap("tap0")) -- at once: gone means that the TAP is free
    assert.are.equal("fcbr0 lo", left(world))
  end)

  it("gives the name free for a new one", function()
    local world <close> = support.bridged_world()
    local last = 0
    for _ = 1, 5 do
      local tap = must(world.manager:create_tap("tap0"))
      assert.is_true(tap.created)
      assert.is_true(tap.ifindex > last)
      last = tap.ifindex
      must(world.manager:delete_tap("tap0"))
    end
    local vm <close> = support.vm(world, { tap = "tap0", boot_args = "ip=172.30.0.2" })
    assert.is_truthy(vm)
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
  end)

  it("tells the logger of what it changed, and only of that", function()
    local lines = {}
    local world <close> = support.bridged_world{ logger = function(level, message, fields)
      lines[#lines + 1] = { level, message, fields }
    end }
    must(world.manager:create_tap("tap0"))
    local before = #lines
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_tap("tap0"))
    assert.are.equal(before + 1, #lines)
    local level, message, fields = table.unpack(lines[#lines])
    assert.are.same({ "debug", "TAPs deleted", "tap0", 1 },
      { level, message, fields.names, fields.deleted })
  end)
end)

describe("delete_taps", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("takes 50 in one go and no other", function()
    local world <close> = support.bridged_world()
    make(world, 3, "stays")
    ip(world.netns, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip(world.netns, "link", "set", "veth0", "master", "fcbr0")
    assert.are.equal(50, must(world.manager:delete_taps(make(world, 50))))
    assert.are.equal("fcbr0 lo stays1 stays2 stays3 veth0 veth1", left(world))
    assert.are.equal(3, #must(world.manager:list_taps()))
  end)

  it("takes 300, which is more than it holds at once", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("stays"))
    assert.are.equal(300, must(world.manager:delete_taps(make(world, 300))))
    assert.are.equal("fcbr0 lo stays", left(world))
  end)

  it("takes a name that is given twice once", function()
    local world <close> = support.bridged_world()
    make(world, 2)
    assert.are.equal(2, must(world.manager:delete_taps{ "d1", "d2", "d1", "d2" }))
    assert.are.equal("fcbr0 lo", left(world))
  end)

  it("takes those that others made, with and without a bridge", function()
    local world <close> = support.bridged_world()
    local list = make(world, 2)
    ip(world.netns, "tuntap", "add", "dev", "free0", "mode", "tap")
    list[3] = "free0"
    assert.are.equal(3, must(world.manager:delete_taps(list)))
    assert.are.equal("fcbr0 lo", left(world))
  end)

  it("deletes what it can and names the rest", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world, { tap = "used0", boot_args = "ip=172.30.0.2" })
    assert.is_truthy(vm)
    ip(world.netns, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip(world.netns, "link", "add", "ifb9", "type", "ifb")
    local list = make(world, 5)
    table.move({ "missing0", "used0", "veth0", "ifb9" }, 1, 4, 6, list)
    local err = fails("busy", world.manager:delete_taps(list))
    for _, name in ipairs{ "used0", "veth0", "ifb9" } do
      assert.is_truthy(err.message:find(name, 1, true), err.message)
    end
    assert.is_nil(err.message:find("missing0", 1, true) or err.message:find("d1", 1, true))
    assert.are.equal("fcbr0 ifb9 lo used0 veth0 veth1", left(world))
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
  end)

  it("deletes none when one name can't be", function()
    local world <close> = support.bridged_world()
    make(world, 2)
    fails("invalid", world.manager:delete_taps{ "d1", "a/b", "d2" })
    fails("invalid", world.manager:delete_taps{ "d1", "" })
    assert.has_error(function() world.manager:delete_taps{ "d1", 42 } end)
    assert.has_error(function() world.manager:delete_taps("d1") end)
    assert.are.equal("d1 d2 fcbr0 lo", left(world))
  end)

  it("goes on when its wait is ended", function()
    local world <close> = support.bridged_world()
    local list = make(world, 150)
    local ctx <close> = must(fcproc.context{ timeout = 0.001 })
    fails("deadline", world.manager:delete_taps(list, ctx))
    support.eventually("they are gone", function() return left(world) == "fcbr0 lo" end)
    -- The same by a cancel from another coroutine.
    make(world, 150)
    local cancelled <close> = must(fcproc.context())
    must(fcproc.run{
      function() fails("cancelled", world.manager:delete_taps(list, cancelled)) end,
      function() cancelled:cancel() end,
    })
    support.eventually("they are gone", function() return left(world) == "fcbr0 lo" end)
  end)

  it("does nothing under a context that has ended", function()
    local world <close> = support.bridged_world()
    local list = make(world, 2)
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", world.manager:delete_taps(list, ctx))
    fails("cancelled", world.manager:delete_bridge(ctx))
    assert.are.equal("d1 d2 fcbr0 lo", left(world))
  end)

  it("works in many coroutines at once", function()
    local world <close> = support.bridged_world()
    local functions = {}
    for i = 1, 10 do
      local list = make(world, 5, ("c%d-"):format(i))
      functions[i] = function() return must(world.manager:delete_taps(list)) end
    end
    must(fcproc.run(functions))
    assert.are.equal("fcbr0 lo", left(world))
  end)

  it("leaves none when two remove the same at once, though each holds some from the other",
    function()
      local world <close> = support.bridged_world()
      local list = make(world, 10)
      local function remove()
        local deleted, err = world.manager:delete_taps(list)
        if not deleted then assert.are.equal("busy", err.code) end
      end
      must(fcproc.run{ remove, remove })
      assert.are.equal("fcbr0 lo", left(world))
    end)
end)

describe("delete_bridge", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is idempotent, and a missing bridge is fine", function()
    local world <close> = support.world()
    must(world.manager:delete_bridge())
    must(world.manager:ensure_bridge())
    must(world.manager:delete_bridge())
    must(world.manager:delete_bridge())
    assert.are.equal("lo", left(world))
    must(world.manager:ensure_bridge())
    assert.are.equal("fcbr0 lo", left(world))
  end)

  it("refuses while there are ports, of whatever kind, and counts them", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("tap0"))
    local err = fails("busy", world.manager:delete_bridge())
    assert.is_truthy(err.message:find("1 port;", 1, true), err.message)
    ip(world.netns, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip(world.netns, "link", "set", "veth0", "master", "fcbr0")
    err = fails("busy", world.manager:delete_bridge())
    assert.is_truthy(err.message:find("2 ports;", 1, true), err.message)
    must(world.manager:delete_tap("tap0"))
    fails("busy", world.manager:delete_bridge())
    ip(world.netns, "link", "del", "veth0")
    must(world.manager:delete_bridge())
    assert.are.equal("lo", left(world))
  end)

  it("leaves a link of another kind alone: conflict", function()
    for _, kind in ipairs{ "ifb", "veth" } do
      local world <close> = support.world()
      ip(world.netns, "link", "add", "fcbr0", "type", kind)
      local before = ip(world.netns, "link", "show", "dev", "fcbr0")
      local err = fails("conflict", world.manager:delete_bridge())
      assert.is_truthy(err.message:find(kind, 1, true))
      assert.are.same(before, ip(world.netns, "link", "show", "dev", "fcbr0"))
    end
  end)

  it("leaves other bridges alone", function()
    local world <close> = support.bridged_world()
    local other <close> = must(fcproc.new{ bridge_name = "other0", netns = world.netns })
    must(other:ensure_bridge())
    must(other:create_tap("tap0"))
    must(world.manager:delete_bridge())
    assert.are.equal("lo other0 tap0", left(world))
  end)

  it("of two at once works in coroutines", function()
    local world <close> = support.bridged_world()
    local other <close> = must(fcproc.new{ bridge_name = "other0", netns = world.netns })
    must(other:ensure_bridge())
    local lists = { make(world, 5, "a"), make(world, 5, "b") }
    must(fcproc.run{
      function() must(world.manager:delete_taps(lists[1])) end,
      function() must(world.manager:delete_taps(lists[2])) end,
      function() must(other:delete_bridge()) end,
    })
    must(fcproc.run{
      function() must(world.manager:delete_bridge()) end,
      function() must(world.manager:delete_bridge()) end,
    })
    assert.are.equal("lo", left(world))
  end)

  it("without a name to work on is told", function()
    local manager <close> = must(fcproc.new())
    for _, call in ipairs{ "ensure_bridge", "delete_bridge", "list_taps" } do
      local err = fails("invalid", manager[call](manager))
      assert.is_truthy(err.message:find("bridge_name", 1, true))
    end
  end)
end)

describe("the TAPs of VMs that are gone", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function names(world)
    local list = {}
    for i, tap in ipairs(must(world.manager:list_taps())) do list[i] = tap.name end
    return list
  end

  it("go, and with them the leases by which they are kept from others meanwhile", function()
    local world <close> = support.bridged_world()
    local manager = world.manager
    must(manager:ensure_socket_dir())
    must(manager:create_tap("stray0", { alias = aliases.of(manager.config.runtime_dir, "gone") }))
    must(manager:create_tap("other0"))
    assert.are.same({ "stray0" }, must(strays.remove(manager)))
    assert.are.same({ "other0" }, names(world))
    assert.is_nil(must(lease.open(manager)):owner(("tap-%d-stray0"):format(namespaces.of(manager))))
  end)

  it("of an earlier boot are gone already: what has their names is somebody else's", function()
    local world <close> = support.bridged_world()
    local manager = world.manager
    local journal = must(journals.create(manager, "old", {}))
    local record, lease_name = journal.record, ("tap-%d-tap0"):format(namespaces.of(manager))
    record.taps, record.drives, record.leases = { { name = "tap0" } }, {}, { lease_name }
    record.netns, record.boot_id = namespaces.of(manager), "11111111-2222-3333-4444-555555555555"
    must(must(lease.open(manager, true)):take(lease_name, "old"))
    must(manager:create_tap("tap0"))
    assert.are.same({}, (host.remove(manager, { journal })))
    assert.are.same({ "tap0" }, names(world))
    assert.is_false(journals.exists(manager, "old"))
  end)
end)
