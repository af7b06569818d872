-- create_tap and list_taps against the real kernel, in namespaces of their own.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function link(world, name)
  return support.ip(world.netns, "link", "show", "dev", name)[1]
end

local function names(world)
  local list = {}
  for _, entry in ipairs(support.ip(world.netns, "link")) do list[#list + 1] = entry.ifname end
  table.sort(list)
  return table.concat(list, " ")
end

local function ip(world, ...)
  support.sh({ "ip", ... }, { netns = world.netns })
end

local function with_bridge()
  local world = support.world()
  must(world.manager:ensure_bridge())
  return world
end

describe("create_tap", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("makes a persistent, single-queue TAP with vnet headers, on the bridge, up", function()
    local world <close> = with_bridge()
    local tap = must(world.manager:create_tap("tap0", { uid = 1000, gid = 1001 }))
    local state = link(world, "tap0")
    local data = state.linkinfo.info_data
    assert.are.same({ "tap", true, true, false },
      { data.type, data.persist, data.vnet_hdr, data.multi_queue })
    assert.are.equal("fcbr0", state.master)
    assert.are.equal(tap.ifindex, state.ifindex)
    assert.are.equal(tap.mac, state.address)
    assert.are.equal("02:", tap.mac:sub(1, 3))
    local listed = must(world.manager:list_taps())[1]
    assert.are.same({ 1000, 1001, true, false, false },
      { listed.uid, listed.gid, listed.up, listed.in_use, listed.isolated })
  end)

  it("takes mac, mtu and isolated", function()
    local world <close> = with_bridge()
    must(world.manager:create_tap("tap0", { mac = "02:11:22:33:44:55", mtu = 1400, isolated = true }))
    local state = link(world, "tap0")
    assert.are.same({ "02:11:22:33:44:55", 1400, true },
      { state.address, state.mtu, state.linkinfo.info_slave_data.isolated })
    fails("invalid", world.manager:create_tap("tap1", { mac = "03:00:00:00:00:01" }))
    fails("invalid", world.manager:create_tap("tap1", { mac = "nonsense" }))
    fails("invalid", world.manager:create_tap("tap1", { mtu = 10 }))
  end)

  it("makes an idle TAP right in place, whoever made it", function()
    local world <close> = with_bridge()
    ip(world, "link", "add", "other0", "type", "bridge")
    ip(world, "tuntap", "add", "dev", "tap0", "mode", "tap", "user", "4242")
    ip(world, "link", "set", "tap0", "master", "other0", "address", "02:aa:aa:aa:aa:aa", "mtu", "900")
    ip(world, "link", "set", "tap0", "type", "bridge_slave", "isolated", "on")
    local before = link(world, "tap0")
    local tap = must(world.manager:create_tap("tap0"))
    local state = link(world, "tap0")
    assert.is_false(tap.created)
    assert.are.same({ before.ifindex, "fcbr0", tap.mac, 1500, false }, { state.ifindex, state.master,
      state.address, state.mtu, state.linkinfo.info_slave_data.isolated })
    assert.is_true(state.linkinfo.info_data.vnet_hdr)
    assert.are.equal(0, must(world.manager:list_taps())[1].uid)
    -- And once more, on the same bridge, only isolation differs.
    must(world.manager:create_tap("tap0", { isolated = true }))
    must(world.manager:create_tap("tap0"))
    assert.is_false(link(world, "tap0").linkinfo.info_slave_data.isolated)
    assert.are.equal(before.ifindex, link(world, "tap0").ifindex)
  end)

  it("leaves what is no TAP of ours alone: conflict", function()
    local world <close> = with_bridge()
    ip(world, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip(world, "link", "add", "ifb9", "type", "ifb")
    ip(world, "tuntap", "add", "dev", "tun0", "mode", "tun")
    ip(world, "tuntap", "add", "dev", "multi0", "mode", "tap", "multi_queue")
    for _, name in ipairs{ "veth0", "ifb9", "tun0", "multi0", "lo" } do
      local before = link(world, name)
      fails("conflict", world.manager:create_tap(name))
      fails("conflict", world.manager:delete_tap(name))
      assert.are.same(before, link(world, name))
    end
    fails("conflict", world.manager:create_tap("fcbr0"))
  end)

  it("refuses a name that can't be", function()
    local world <close> = with_bridge()
    local before = names(world)
    for _, name in ipairs{ ("x"):rep(16), "", "a/b", "a b", "a:b", "tap%d", "..", "a\tb" } do
      fails("invalid", world.manager:create_tap(name))
      fails("invalid", world.manager:delete_tap(name))
    end
    assert.has_error(function() world.manager:create_tap(42) end)
    assert.are.equal(before, names(world))
    must(world.manager:create_tap(("x"):rep(15)))
  end)

  it("leaves nothing when there is no bridge, or it is none", function()
    local world <close> = support.world()
    fails("not_found", world.manager:create_tap("tap0"))
    ip(world, "link", "add", "fcbr0", "type", "ifb")
    fails("conflict", world.manager:create_tap("tap0"))
    assert.are.equal("fcbr0 lo", names(world))
  end)

  it("rolls back when the bridge is full", function()
    local world <close> = with_bridge()
    for i = 1, 1023 do must(world.manager:create_tap("t" .. i)) end
    local err = fails("busy", world.manager:create_tap("onemore"))
    assert.is_truthy(err.message:find("1,023", 1, true))
    local all = support.sh({ "ls", "/proc/sys/net/ipv4/conf" }, { netns = world.netns })
    assert.is_nil(all:find("onemore", 1, true))
    must(world.manager:delete_tap("t1"))
    must(world.manager:create_tap("onemore"))
  end)

  it("never takes a TAP from a running VM", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world, { tap = "tap0", boot_args = "ip=172.30.0.2" })
    assert.is_truthy(vm)
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
    fails("busy", world.manager:create_tap("tap0"))
    fails("busy", world.manager:delete_tap("tap0"))
    assert.is_true(must(world.manager:list_taps())[1].in_use)
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
  end)

  it("says which privilege is missing", function()
    local world <close> = with_bridge()
    local script = world.folder:file("try.lua")
    support.write_file(script, [[
      local fcproc = require "fcproc"
      local manager = assert(fcproc.new{ bridge_name = "fcbr0" })
      local _, err = manager:create_tap("tap0")
      print(err.code, err.message)]])
    support.sh{ "chmod", "755", world.folder.path }
    local out = support.sh({ support.lua, script }, { netns = world.netns, uid = 65534, gid = 65534 })
    assert.is_truthy(out:find("^permission"), out)
    assert.are.equal("fcbr0 lo", names(world))
  end)

  it("lets 20 processes race with different names", function()
    local world <close> = with_bridge()
    local gate = world.folder:file("gate")
    local racers = {}
    for i = 1, 20 do
      racers[i] = must(fcproc.spawn({ support.lua, "spec/support/race.lua", gate, "tap" .. i },
        { netns = world.netns }))
    end
    support.write_file(gate, "")
    for _, racer in ipairs(racers) do
      local _, exit = must(racer:wait(30))
      assert.are.equal(0, exit.status)
      racer:close()
    end
    local taps = must(world.manager:list_taps())
    assert.are.equal(20, #taps)
    for _, tap in ipairs(taps) do assert.is_true(tap.up) end
  end)
end)

describe("list_taps", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("names the TAPs of this bridge and nothing else", function()
    local world <close> = support.world()
    assert.are.same({}, must(world.manager:list_taps()))
    must(world.manager:ensure_bridge())
    must(world.manager:create_tap("tap0"))
    ip(world, "tuntap", "add", "dev", "free0", "mode", "tap")
    ip(world, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip(world, "link", "set", "veth0", "master", "fcbr0")
    local taps = must(world.manager:list_taps())
    assert.are.same({ 1, "tap0" }, { #taps, taps[1].name })
  end)
end)

describe("deleting TAPs", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function make(world, n)
    local list = {}
    for i = 1, n do
      list[i] = "d" .. i
      must(world.manager:create_tap(list[i]))
    end
    return list
  end

  it("is idempotent", function()
    local world <close> = with_bridge()
    must(world.manager:create_tap("tap0"))
    must(world.manager:delete_tap("tap0"))
    must(world.manager:delete_tap("tap0"))
    assert.are.equal(0, must(world.manager:delete_taps{}))
  end)

  it("takes 300 at once and no other", function()
    local world <close> = with_bridge()
    must(world.manager:create_tap("stays"))
    assert.are.equal(300, must(world.manager:delete_taps(make(world, 300))))
    assert.are.equal("fcbr0 lo stays", names(world))
  end)

  it("deletes what it can and names the rest", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world, { tap = "used0", boot_args = "ip=172.30.0.2" })
    assert.is_truthy(vm)
    ip(world, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    local list = make(world, 5)
    table.move({ "missing0", "used0", "veth0" }, 1, 3, 6, list)
    local _, err = world.manager:delete_taps(list)
    assert.are.equal("busy", err.code)
    assert.is_truthy(err.message:find("used0", 1, true) and err.message:find("veth0", 1, true))
    assert.are.equal("fcbr0 lo used0 veth0 veth1", names(world))
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
  end)

  it("goes on when its wait is cancelled", function()
    local world <close> = with_bridge()
    local list = make(world, 50)
    local ctx <close> = must(fcproc.context{ timeout = 0.001 })
    fails("deadline", world.manager:delete_taps(list, ctx))
    support.eventually("they are gone", function() return names(world) == "fcbr0 lo" end)
  end)
end)
