-- ensure_bridge and delete_bridge against the real kernel, in namespaces of their own.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function bridge(world, name)
  local links = support.ip(world.netns, "addr", "show", "dev", name or "fcbr0")
  return links[1]
end

local function has_address(link, address, prefix)
  for _, entry in ipairs(link.addr_info) do
    if entry["local"] == address and entry.prefixlen == prefix then return entry end
  end
end

local function is_up(link)
  for _, flag in ipairs(link.flags) do
    if flag == "UP" then return true end
  end
  return false
end

describe("ensure_bridge", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("creates the bridge, up, with its address and a MAC of its own", function()
    local world <close> = support.world()
    must(world.manager:ensure_bridge())
    local link = bridge(world)
    assert.are.equal("bridge", link.linkinfo.info_kind)
    assert.is_true(is_up(link))
    assert.is_truthy(has_address(link, "172.30.0.1", 24))
    assert.is_truthy(link.address:match("^%x[26ae]:"))
    -- A bridge without a MAC of its own takes that of its first port.
    must(world.manager:create_tap("tap0", { mac = "02:00:00:00:00:01" }))
    assert.are.equal(link.address, bridge(world).address)
    must(world.manager:delete_tap("tap0"))
    assert.are.equal(link.address, bridge(world).address)
  end)

  it("does nothing, and logs nothing, when all is right", function()
    local lines = {}
    local world <close> = support.world{ logger = function(level, message, fields)
      lines[#lines + 1] = { level, message, fields }
    end }
    must(world.manager:ensure_bridge())
    assert.are.equal("debug", lines[1][1])
    assert.is_true(lines[1][3].created)
    assert.is_true(lines[1][3].duration >= 0)
    local before = bridge(world)
    must(world.manager:ensure_bridge())
    assert.are.equal(1, #lines)
    assert.are.same(before.ifindex, bridge(world).ifindex)
  end)

  it("brings a bridge up that is down", function()
    local world <close> = support.world()
    support.sh({ "ip", "link", "add", "fcbr0", "type", "bridge" }, { netns = world.netns })
    must(world.manager:ensure_bridge())
    assert.is_true(is_up(bridge(world)))
    assert.is_truthy(has_address(bridge(world), "172.30.0.1", 24))
  end)

  it("adds its address beside somebody else's and leaves theirs", function()
    local world <close> = support.world()
    support.sh({ "ip", "link", "add", "fcbr0", "type", "bridge" }, { netns = world.netns })
    support.sh({ "ip", "addr", "add", "10.9.8.7/16", "dev", "fcbr0" }, { netns = world.netns })
    must(world.manager:ensure_bridge())
    assert.is_truthy(has_address(bridge(world), "172.30.0.1", 24))
    assert.is_truthy(has_address(bridge(world), "10.9.8.7", 16))
  end)

  it("leaves a link of another kind alone: conflict", function()
    for _, kind in ipairs{ "ifb", "veth" } do
      local world <close> = support.world()
      support.sh({ "ip", "link", "add", "fcbr0", "type", kind }, { netns = world.netns })
      local before = bridge(world)
      local err = fails("conflict", world.manager:ensure_bridge())
      assert.is_true(err == fcproc.ERR_CONFLICT)
      assert.is_truthy(err.message:find(kind, 1, true))
      assert.are.same(before, bridge(world))
      fails("conflict", world.manager:delete_bridge())
      assert.are.same(before, bridge(world))
    end
  end)

  it("gives an IPv6 address that is usable at once", function()
    local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = 64 }
    must(world.manager:ensure_bridge())
    local entry = has_address(bridge(world), "fd00:30::1", 64)
    assert.is_truthy(entry)
    assert.is_nil(entry.tentative)
    must(world.manager:ensure_bridge())
  end)

  it("says when the same IPv6 address is there with another prefix", function()
    local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = 64 }
    support.sh({ "ip", "link", "add", "fcbr0", "type", "bridge" }, { netns = world.netns })
    support.sh({ "ip", "addr", "add", "fd00:30::1/80", "dev", "fcbr0" }, { netns = world.netns })
    fails("conflict", world.manager:ensure_bridge())
  end)

  it("works without an address", function()
    local netns <close> = must(fcproc.new_netns())
    local manager <close> = must(fcproc.new{ bridge_name = "plain0", netns = netns })
    must(manager:ensure_bridge())
    must(manager:ensure_bridge())
  end)

  it("does nothing under a context that has ended", function()
    local world <close> = support.world()
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", world.manager:ensure_bridge(ctx))
    assert.are.equal(1, #support.ip(world.netns, "link"))
  end)

  it("keeps the kernel's errno and its own words", function()
    local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = 64 }
    support.sh({ "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6" },
      { netns = world.netns })
    local err = fails("permission", world.manager:ensure_bridge())
    assert.are.equal(13, err.errno)
    assert.is_truthy(err.message:find("(kernel: ", 1, true))
  end)

  it("lets 20 processes race: one bridge, one address", function()
    local world <close> = support.world()
    local gate = world.folder:file("gate")
    local racers = {}
    for i = 1, 20 do
      racers[i] = must(fcproc.spawn({ support.lua, "spec/support/race.lua", gate, "bridge" },
        { netns = world.netns }))
    end
    support.write_file(gate, "")
    for _, racer in ipairs(racers) do
      local _, exit = must(racer:wait(30))
      assert.are.equal(0, exit.status)
      racer:close()
    end
    assert.are.equal(2, #support.ip(world.netns, "link"))
    local addresses = 0
    for _, entry in ipairs(bridge(world).addr_info) do
      if entry.family == "inet" then addresses = addresses + 1 end
    end
    assert.are.equal(1, addresses)
  end)
end)

describe("delete_bridge", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is idempotent, and refuses while there are ports", function()
    local world <close> = support.world()
    must(world.manager:ensure_bridge())
    must(world.manager:create_tap("tap0"))
    local err = fails("busy", world.manager:delete_bridge())
    assert.is_truthy(err.message:find("1 port", 1, true))
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_bridge())
    must(world.manager:delete_bridge())
    assert.are.equal(1, #support.ip(world.netns, "link"))
  end)
end)

describe("a namespace", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is opened by name or path, and the caller's own never changes", function()
    local own = support.sh{ "readlink", "/proc/self/ns/net" }
    local name = "fcspec" .. support.own_pid()
    support.sh{ "ip", "netns", "add", name }
    local tidy <close> = setmetatable({}, { __close = function()
      support.sh{ "ip", "netns", "del", name }
    end })
    assert.is_truthy(tidy)
    for _, netns in ipairs{ name, "/run/netns/" .. name } do
      local manager <close> = must(fcproc.new{ bridge_name = "fcbr0", netns = netns })
      must(manager:ensure_bridge())
    end
    local opened <close> = must(fcproc.netns(name))
    assert.are.equal(2, #support.ip(opened, "link"))
    assert.are.equal(own, support.sh{ "readlink", "/proc/self/ns/net" })
  end)

  it("that is none is told", function()
    fails("not_found", fcproc.netns("no-such-namespace"))
    fails("invalid", fcproc.netns("/dev/null"))
    fails("invalid", fcproc.netns("/proc/self/ns/mnt"))
  end)
end)
