-- ensure_bridge against the real kernel, and network namespaces. Removal and races have specs of
-- their own.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails, ip = support.must, support.fails, support.ip

local function bridge(world)
  return ip(world.netns, "addr", "show", "dev", "fcbr0")[1]
end

local function has_address(link, address, prefix)
  for _, entry in ipairs(link.addr_info) do
    if entry["local"] == address and entry.prefixlen == prefix then return entry end
  end
end

describe("ensure_bridge", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("creates the bridge, up, with its address", function()
    local world <close> = support.world()
    must(world.manager:ensure_bridge())
    local link = bridge(world)
    assert.are.equal("bridge", link.linkinfo.info_kind)
    assert.is_true(support.is_up(link))
    assert.is_truthy(has_address(link, "172.30.0.1", 24))
  end)

  it("gives it a MAC of its own, which its ports do not change", function()
    local world <close> = support.world()
    must(world.manager:ensure_bridge())
    local mac = bridge(world).address
    assert.is_truthy(mac:match("^%x[26ae]:")) -- unicast, locally administered
    -- NET_ADDR_SET: somebody chose it. A bridge without takes the lowest of its ports.
    assert.are.equal("3\n", support.sh({ "unshare", "--mount", "sh", "-c",
      "mount -t sysfs fcspec /sys && cat /sys/class/net/fcbr0/addr_assign_type" },
      { netns = world.netns }))
    for _, name in ipairs{ "tap0", "tap1" } do
      must(world.manager:create_tap(name, { mac = "02:00:00:00:00:0" .. name:sub(-1) }))
      assert.are.equal(mac, bridge(world).address)
    end
    must(world.manager:delete_taps{ "tap0", "tap1" })
    assert.are.equal(mac, bridge(world).address)
    -- Nor do two bridges share one.
    local other <close> = support.world()
    must(other.manager:ensure_bridge())
    assert.are_not.equal(mac, bridge(other).address)
  end)

  it("does nothing, and logs nothing, when all is right", function()
    local lines = {}
    local world <close> = support.world{ logger = function(level, message, fields)
      lines[#lines + 1] = { level, message, fields }
    end }
    must(world.manager:ensure_bridge())
    local level, _, fields = table.unpack(lines[1])
    assert.are.same({ "debug", true, true, "fcbr0", "172.30.0.1", 24 },
      { level, fields.created, fields.addressed, fields.name, fields.address, fields.prefix })
    assert.is_true(fields.duration >= 0)
    assert.are.equal(("fcproc:%s/"):format(world.manager.config.runtime_dir), bridge(world).ifalias)
    local before = bridge(world)
    must(world.manager:ensure_bridge())
    assert.are.equal(1, #lines)
    local after = bridge(world)
    assert.are.same({ before.ifindex, before.address, before.flags },
      { after.ifindex, after.address, after.flags })
    local net <close> = must(core.net(world.netns))
    assert.are.same(
      { ifindex = before.ifindex, created = false, addressed = false, brought_up = false },
      must(net:ensure_bridge("fcbr0", "172.30.0.1", 24)))
  end)

  it("brings a bridge up that is down, and leaves the rest of it", function()
    local lines = {}
    local world <close> = support.world{ logger = function(_, _, fields)
      lines[#lines + 1] = fields
    end }
    ip(world.netns, "link", "add", "fcbr0", "address", "02:00:00:00:00:77", "type", "bridge",
      "ageing_time", "1234")
    ip(world.netns, "addr", "add", "172.30.0.1/24", "dev", "fcbr0")
    local before = bridge(world)
    must(world.manager:ensure_bridge())
    local link = bridge(world)
    assert.is_true(support.is_up(link))
    assert.are.same({ before.ifindex, "02:00:00:00:00:77", 1234 },
      { link.ifindex, link.address, link.linkinfo.info_data.ageing_time })
    assert.are.same({ false, false, true },
      { lines[1].created, lines[1].addressed, lines[1].brought_up })
  end)

  it("adds the missing address, up or down", function()
    for _, state in ipairs{ "up", "down" } do
      local world <close> = support.world()
      ip(world.netns, "link", "add", "fcbr0", state, "type", "bridge")
      must(world.manager:ensure_bridge())
      assert.is_true(support.is_up(bridge(world)))
      assert.is_truthy(has_address(bridge(world), "172.30.0.1", 24))
    end
  end)

  it("adds its address beside somebody else's and leaves theirs", function()
    local world <close> = support.world()
    ip(world.netns, "link", "add", "fcbr0", "type", "bridge")
    for _, address in ipairs{ "10.9.8.7/16", "172.30.0.9/24", "172.30.0.1/16", "fd00:9::1/64" } do
      ip(world.netns, "addr", "add", address, "dev", "fcbr0", "nodad")
    end
    local theirs = bridge(world).addr_info
    must(world.manager:ensure_bridge())
    local link = bridge(world)
    assert.is_truthy(has_address(link, "172.30.0.1", 24))
    for _, entry in ipairs(theirs) do
      local now = has_address(link, entry["local"], entry.prefixlen)
      assert.is_truthy(now)
      assert.are.equal(entry.scope, now.scope)
    end
  end)

  it("leaves a link of another kind alone: conflict", function()
    for _, kind in ipairs{ "ifb", "veth" } do
      local world <close> = support.world()
      ip(world.netns, "link", "add", "fcbr0", "type", kind)
      local before = bridge(world)
      local err = fails("conflict", world.manager:ensure_bridge())
      assert.is_true(err == fcproc.ERR_CONFLICT)
      assert.is_truthy(err.message:find(kind, 1, true))
      assert.are.same(before, bridge(world))
    end
    local world <close> = support.world()
    ip(world.netns, "tuntap", "add", "dev", "fcbr0", "mode", "tap")
    local before = bridge(world)
    local err = fails("conflict", world.manager:ensure_bridge())
    assert.is_truthy(err.message:find("TAP", 1, true))
    assert.are.same(before, bridge(world))
  end)

  it("gives an IPv6 address without duplicate detection, with any prefix", function()
    for _, prefix in ipairs{ 64, 128 } do
      local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = prefix }
      must(world.manager:ensure_bridge())
      local entry = has_address(bridge(world), "fd00:30::1", prefix)
      assert.is_truthy(entry)
      assert.is_nil(entry.tentative)
      assert.is_true(entry.nodad)
      must(world.manager:ensure_bridge())
      -- The kernel adds the route to the address itself from a work queue, a moment later.
      support.eventually("it answers", function()
        return support.pings(world.netns, "fd00:30::1")
      end, 15)
    end
  end)

  it("says when the same IPv6 address is there with another prefix", function()
    local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = 64 }
    ip(world.netns, "link", "add", "fcbr0", "type", "bridge")
    ip(world.netns, "addr", "add", "fd00:30::1/80", "dev", "fcbr0")
    local err = fails("conflict", world.manager:ensure_bridge())
    assert.is_truthy(err.message:find("another prefix than /64", 1, true))
    assert.is_truthy(has_address(bridge(world), "fd00:30::1", 80))
  end)

  it("works without an address", function()
    local world <close> = support.world()
    local config = support.config(world)
    config.bridge_name, config.bridge_ip, config.cidr = "plain0", nil, nil
    local manager <close> = must(fcproc.new(config))
    must(manager:ensure_bridge())
    must(manager:ensure_bridge())
    local link = ip(world.netns, "addr", "show", "dev", "plain0")[1]
    assert.is_true(support.is_up(link))
    for _, entry in ipairs(link.addr_info) do assert.are.equal("link", entry.scope) end
  end)

  it("does nothing under a context that has ended", function()
    local world <close> = support.world()
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", world.manager:ensure_bridge(ctx))
    local late <close> = must(fcproc.context{ timeout = 0 })
    fails("deadline", world.manager:ensure_bridge(late))
    assert.are.equal(1, #ip(world.netns, "link"))
  end)

  it("keeps the kernel's errno and its own words", function()
    local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = 64 }
    support.sh({ "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6" },
      { netns = world.netns })
    local err = fails("permission", world.manager:ensure_bridge())
    assert.are.equal(13, err.errno)
    assert.are.equal("bridge.ensure", err.op)
    -- Older kernels have no words for it; ip shows what they are.
    local _, shown = fcproc.runner():run({ "ip", "address", "add", "fd00:30::2/64", "dev", "fcbr0" },
      { netns = world.netns })
    assert.are.equal(shown.output:match("Error: (.-)%.?\n"), err.message:match("%(kernel: (.-)%)"))
  end)
end)

describe("a namespace", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- The namespace of each of our threads, without repetition.
  local function own()
    return support.sh{ "sh", "-c",
      ("readlink /proc/%d/task/*/ns/net | sort -u"):format(support.own_pid()) }
  end

  it("is opened by name or path", function()
    support.direct_only(pending, "an ordinary user's namespaces are not named")
    local name = ("fcspec-%d-%d"):format(support.own_pid(), math.random(1 << 30))
    support.sh{ "ip", "netns", "add", name }
    local tidy <close> = setmetatable({}, { __close = function()
      support.sh{ "ip", "netns", "del", name }
    end })
    assert.is_truthy(tidy)
    for i, where in ipairs{ name, "/run/netns/" .. name } do
      local manager <close> = must(fcproc.new{ bridge_name = "by" .. i, netns = where })
      must(manager:ensure_bridge())
    end
    local opened <close> = must(fcproc.netns(name))
    assert.are.equal(3, #ip(opened, "link"))
    local manager <close> = must(fcproc.new{ bridge_name = "by3", netns = opened })
    must(manager:ensure_bridge())
    assert.are.equal(4, #ip(opened, "link"))
  end)

  it("that is none is told", function()
    fails("not_found", fcproc.netns("no-such-namespace"))
    fails("not_found", fcproc.new{ netns = "no-such-namespace" })
    for _, what in ipairs{ "/dev/null", "/proc/self/ns/mnt", "/tmp", "" } do
      fails("invalid", fcproc.netns(what))
    end
    assert.has_error(function() fcproc.netns(42) end)
  end)

  it("holds all that is made in it, and the caller's own never changes", function()
    local before = own()
    assert.are.equal(1, select(2, before:gsub("\n", "")))
    local host = support.sh{ "ip", "-o", "link" }
    local world <close> = support.world()
    assert.are_not.equal(before, support.sh({ "readlink", "/proc/self/ns/net" },
      { netns = world.netns }))
    must(world.manager:ensure_bridge())
    must(world.manager:create_tap("tap0"))
    must(world.manager:list_taps())
    assert.are.equal(before, own())
    assert.are.equal(3, #ip(world.netns, "link"))
    assert.are.equal(host, support.sh{ "ip", "-o", "link" })
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_bridge())
    -- The removals' thread lives a moment longer than their wait.
    support.eventually("all threads are home", function() return own() == before end)
  end)

  it("may be closed before the manager that works in it", function()
    support.direct_only(pending, "an ordinary user makes network namespaces in one of users only")
    local world <close> = support.world()
    local again <close> = must(fcproc.new_netns())
    local manager <close> = must(fcproc.new{ bridge_name = "fcbr0", netns = again })
    again:close()
    must(manager:ensure_bridge())
    must(manager:create_tap("tap0"))
    must(manager:delete_tap("tap0"))
    assert.are.equal(1, #ip(world.netns, "link")) -- another one has none of it
  end)

  it("has its own links: the same names in two are two", function()
    local one <close> = support.world()
    local two <close> = support.world()
    for _, world in ipairs{ one, two } do
      must(world.manager:ensure_bridge())
      assert.is_true(must(world.manager:create_tap("tap0")).created)
    end
    must(one.manager:delete_tap("tap0"))
    assert.are.equal(0, #must(one.manager:list_taps()))
    assert.are.equal(1, #must(two.manager:list_taps()))
  end)
end)
