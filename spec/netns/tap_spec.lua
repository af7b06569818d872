-- create_tap and list_taps against the real kernel and a real Firecracker, in namespaces of their
-- own. ifb stands for the simple virtual links of other kinds: every kernel has it.

local support = require "spec.support"
local aliases = require "fcproc.alias"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails, ip = support.must, support.fails, support.ip

local US = core.own_uid() -- an ordinary user's group has the same number

-- The link's whole state but the timers, so that states can be compared.
local function link(world, name)
  local state = ip(world.netns, "link", "show", "dev", name)[1]
  local info = state.linkinfo or {}
  for _, part in pairs{ info.info_data or {}, info.info_slave_data or {} } do
    for key in pairs(part) do
      if key:find("_timer$") then part[key] = nil end
    end
  end
  return state
end

-- The links by name, so that a test sees that none came or went.
local function names(world)
  local list = support.sh({ "ls", "-I", "all", "-I", "default", "-I", "uplink0", "/proc/sys/net/ipv4/conf" },
    { netns = world.netns })
  return (list:gsub("\n$", ""):gsub("\n", " "))
end

describe("create_tap", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("makes a persistent, single-queue TAP with vnet headers, on the bridge, up", function()
    local lines = {}
    local world <close> = support.bridged_world{ logger = function(level, message, fields)
      lines[#lines + 1] = { level, message, fields }
    end }
    local tap = must(world.manager:create_tap("tap0", { uid = 1000, gid = 1001 }))
    local state = link(world, "tap0")
    local data = state.linkinfo.info_data
    assert.are.same({ "tap", true, true, false, false },
      { data.type, data.persist, data.vnet_hdr, data.multi_queue, data.pi })
    assert.are.equal("fcbr0", state.master)
    assert.is_true(support.is_up(state))
    assert.are.same({ "tap0", state.ifindex, state.address, true },
      { tap.name, tap.ifindex, tap.mac, tap.created })
    local listed = must(world.manager:list_taps())[1]
    assert.are.same({ 1000, 1001, true, false, false },
      { listed.uid, listed.gid, listed.up, listed.in_use, listed.isolated })
    local level, message, fields = table.unpack(lines[#lines])
    assert.are.same({ "debug", "TAP created", "tap0", "fcbr0", 1000 },
      { level, message, fields.name, fields.bridge, fields.uid })
    assert.is_true(fields.duration >= 0)
  end)

  it("gives it to us when no owner is named", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("tap0"))
    local listed = must(world.manager:list_taps())[1]
    assert.are.same({ US, US }, { listed.uid, listed.gid })
  end)

  it("takes mac, mtu and isolated", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("tap0",
      { mac = "02:11:22:33:44:55", mtu = 1400, isolated = true }))
    local state = link(world, "tap0")
    assert.are.same({ "02:11:22:33:44:55", 1400, true },
      { state.address, state.mtu, state.linkinfo.info_slave_data.isolated })
  end)

  it("takes every MTU that a TAP can have", function()
    local world <close> = support.bridged_world()
    for _, mtu in ipairs{ 68, 65521 } do
      must(world.manager:create_tap("tap0", { mtu = mtu }))
      assert.are.equal(mtu, link(world, "tap0").mtu)
    end
    for _, mtu in ipairs{ 67, 65522 } do
      fails("invalid", world.manager:create_tap("tap1", { mtu = mtu }))
    end
  end)

  it("makes no IPv6 address on a bridge's port, whose search for routers would go to the guest", function()
    local world <close> = support.bridged_world()
    local alone = must(fcproc.new{ netns = world.netns })
    must(world.manager:create_tap("tap0", { isolated = true }))
    must(world.manager:create_tap("tap1", { mtu = 1280 }))
    must(world.manager:create_tap("tap2", { mtu = 1279 })) -- has no IPv6 that could be told so
    must(alone:create_tap("tap3"))
    assert.are.same({ "none", "none", "eui64" }, { link(world, "tap0").inet6_addr_gen_mode,
      link(world, "tap1").inet6_addr_gen_mode, link(world, "tap3").inet6_addr_gen_mode })
    for name, addresses in pairs{ tap0 = 0, tap1 = 0, tap2 = 0, tap3 = 1 } do
      local found = ip(world.netns, "-6", "address", "show", "dev", name)
      assert.are.equal(addresses, #((found[1] or {}).addr_info or {}), name)
      assert.is_true(support.is_up(link(world, name)))
    end
    alone:close()
  end)

  it("believes the ifindex that the bridge is said to have, unless that fails", function()
    local world <close> = support.bridged_world()
    local net <close> = must(core.net(world.netns))
    local bridge = must(net:ensure_bridge("fcbr0")).ifindex
    must(net:create_tap("tap0", "fcbr0", nil, nil, nil, nil, true, bridge))
    ip(world.netns, "link", "delete", "fcbr0")
    local err = fails("not_found", net:create_tap("tap1", "fcbr0", nil, nil, nil, nil, true, bridge))
    assert.is_truthy(err.message:find("fcbr0", 1, true))
    must(world.manager:ensure_bridge())
    must(net:create_tap("tap2", "fcbr0", nil, nil, nil, nil, true, bridge)) -- another one now
    local state = link(world, "tap2")
    assert.are.same({ "fcbr0", true }, { state.master, state.linkinfo.info_slave_data.isolated })
    assert.are.equal("fcbr0 lo tap0 tap2", names(world))
  end)

  it("has a MAC that its name alone decides, locally administered", function()
    local first
    for _ = 1, 2 do
      local world <close> = support.bridged_world()
      local mac = must(world.manager:create_tap("tap0")).mac
      first = first or mac
      assert.are.equal(first, mac)
      assert.is_truthy(mac:match("^02:"))
      assert.are_not.equal(mac, must(world.manager:create_tap("tap1")).mac)
    end
  end)

  it("works without a bridge, and takes a TAP off its bridge then", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("tap0"))
    local plain <close> = must(fcproc.new{ netns = world.netns })
    must(plain:create_tap("tap0"))
    must(plain:create_tap("tap1"))
    for _, name in ipairs{ "tap0", "tap1" } do
      assert.is_nil(link(world, name).master)
      assert.is_true(support.is_up(link(world, name)))
    end
  end)

  it("brings the bridge up that it puts the TAP on", function()
    local world <close> = support.bridged_world()
    ip(world.netns, "link", "set", "fcbr0", "down")
    must(world.manager:create_tap("tap0"))
    assert.is_true(support.is_up(link(world, "fcbr0")))
  end)

  it("leaves the ifindex and the counters of one that is right", function()
    local world <close> = support.world()
    do
      local vm <close> = support.vm(world, { tap = "tap0", boot_args = "ip=172.30.0.2" })
      assert.is_truthy(vm)
      assert.is_true(support.pings(world.netns, "172.30.0.2"))
    end
    local function statistics()
      local state = ip(world.netns, "-s", "link", "show", "dev", "tap0")[1]
      return state.ifindex, state.stats64.rx.packets, state.stats64.tx.packets
    end
    local ifindex, received, sent = statistics()
    assert.is_true(received > 0 and sent > 0)
    local tap = must(world.manager:create_tap("tap0"))
    local ifindex_after, received_after, sent_after = statistics()
    assert.is_false(tap.created)
    assert.are.same({ ifindex, received }, { ifindex_after, received_after })
    assert.is_true(sent_after >= sent)
    -- And a new VM works on it.
    local vm <close> = support.vm(world, { name = "next", tap = "tap0",
      boot_args = "ip=172.30.0.2" })
    assert.is_truthy(vm)
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
  end)
end)

describe("create_tap on an idle TAP", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- What differs, and how somebody has made it so.
  local differences = {
    ["owner and group"] = function(world)
      must(world.manager:create_tap("tap0", { uid = 4242, gid = 4343 }))
    end,
    ["its master"] = function(world)
      ip(world.netns, "link", "add", "other0", "type", "bridge")
      ip(world.netns, "link", "set", "tap0", "master", "other0")
    end,
    ["no master"] = function(world) ip(world.netns, "link", "set", "tap0", "nomaster") end,
    ["its MAC"] = function(world)
      ip(world.netns, "link", "set", "tap0", "address", "02:aa:aa:aa:aa:aa")
    end,
    ["its MTU"] = function(world) ip(world.netns, "link", "set", "tap0", "mtu", "900") end,
    ["isolated"] = function(world)
      ip(world.netns, "link", "set", "tap0", "type", "bridge_slave", "isolated", "on")
    end,
    ["down"] = function(world) ip(world.netns, "link", "set", "tap0", "down") end,
    ["everything"] = function(world)
      ip(world.netns, "link", "del", "tap0")
      ip(world.netns, "link", "add", "other0", "type", "bridge")
      -- As another than root in the namespace, whom an ordinary user's has not.
      ip(world.netns, "tuntap", "add", "dev", "tap0", "mode", "tap",
        table.unpack(not support.rootless and { "user", "4242", "group", "4343" } or {}))
      ip(world.netns, "link", "set", "tap0", "master", "other0", "address", "02:aa:aa:aa:aa:aa",
        "mtu", "900", "down")
      ip(world.netns, "link", "set", "tap0", "type", "bridge_slave", "isolated", "on")
    end,
  }

  for what, change in pairs(differences) do
    it("makes it right in place: " .. what, function()
      local world <close> = support.bridged_world()
      local wanted = must(world.manager:create_tap("tap0"))
      change(world)
      local before = link(world, "tap0")
      local tap = must(world.manager:create_tap("tap0"))
      local state = link(world, "tap0")
      local listed = must(world.manager:list_taps())[1]
      assert.is_false(tap.created)
      assert.are.equal(before.ifindex, tap.ifindex)
      assert.are.same({ ifindex = before.ifindex, mtu = 1500, mac = wanted.mac, master = "fcbr0",
        isolated = false, up = true, vnet_hdr = true, persist = true, uid = US, gid = US },
        { ifindex = state.ifindex, mtu = state.mtu, mac = state.address, master = state.master,
          isolated = state.linkinfo.info_slave_data.isolated, up = support.is_up(state),
          vnet_hdr = state.linkinfo.info_data.vnet_hdr, persist = state.linkinfo.info_data.persist,
          uid = listed.uid, gid = listed.gid })
    end)
  end

  it("gives it new options in place", function()
    local world <close> = support.bridged_world()
    local first = must(world.manager:create_tap("tap0"))
    local tap = must(world.manager:create_tap("tap0",
      { uid = 7, gid = 8, mac = "02:00:00:00:00:07", mtu = 1300, isolated = true }))
    assert.are.equal(first.ifindex, tap.ifindex)
    local listed = must(world.manager:list_taps())[1]
    assert.are.same({ name = "tap0", ifindex = first.ifindex, uid = 7, gid = 8, mtu = 1300,
      mac = "02:00:00:00:00:07", isolated = true, up = true, in_use = false,
      alias = aliases.of(world.manager.config.runtime_dir),
      master = must(world.manager.net:link_index(world.manager.config.bridge_name)) }, listed)
  end)

  it("tells whose it is now", function()
    local world <close> = support.bridged_world()
    ip(world.netns, "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")
    ip(world.netns, "link", "set", "tap0", "alias", "somebody's")
    local run = world.manager.config.runtime_dir
    for _, case in ipairs{ { nil, ("fcproc:%s/"):format(run) }, { "web", "web" },
      { ("x"):rep(255), ("x"):rep(255) }, { "", nil } } do
      must(world.manager:create_tap("tap0", { alias = case[1] }))
      assert.are.equal(case[2], link(world, "tap0").ifalias)
      assert.are.equal(case[2], must(world.manager:list_taps())[1].alias)
    end
    fails("invalid", world.manager:create_tap("tap0", { alias = ("x"):rep(256) }))
    fails("invalid", world.manager:create_tap("tap0", { alias = "a\0b" }))
    must(world.manager:create_tap("tap1", { alias = "from its first message on" }))
    assert.are.equal("from its first message on", link(world, "tap1").ifalias)
    local alone <close> = must(fcproc.new{ netns = world.netns })
    must(alone:create_tap("tap2")) -- on no bridge
    assert.are.equal("fcproc:", link(world, "tap2").ifalias)
    local all = {}
    for _, tap in ipairs(must(world.manager.net:list_taps())) do
      if tap.name ~= "uplink0" then all[#all + 1] = tap.name end
    end
    table.sort(all)
    assert.are.same({ "tap0", "tap1", "tap2" }, all)
    assert.are.equal(2, #must(world.manager:list_taps()))
  end)
end)

-- Attaches to tap0 as a VMM does, and runs the lines given. The device keeps what they set.
local USER = [[
import ctypes, fcntl, os, platform, socket, struct, sys, time
TUNSETIFF, TUNSETOFFLOAD, TUNSETTXFILTER = 0x400454ca, 0x400454d0, 0x400454d1
TUNGETVNETHDRSZ, TUNSETVNETHDRSZ = 0x800454d7, 0x400454d8
TUNSETVNETLE, TUNGETVNETLE, TUNSETFILTEREBPF = 0x400454dc, 0x800454dd, 0x800454e1
tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", b"tap0", 0x5002)) # TAP, NO_PI, VNET_HDR

def integer(request):
    return struct.unpack("i", fcntl.ioctl(tap, request, bytes(4)))[0]

# What the device offers of TCP segmentation: ETHTOOL_GTSO.
def segmentation():
    value = ctypes.create_string_buffer(struct.pack("II", 0x1e, 0))
    ask = bytearray(struct.pack("16sP", b"tap0", ctypes.addressof(value)))
    fcntl.ioctl(socket.socket(), 0x8946, ask) # SIOCETHTOOL
    return struct.unpack("II", value[:8])[1]

# A socket filter that lets nothing through: r0 = 0; exit.
def load_program():
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xb7, 0, 0, 0, 0x95, 0, 0, 0))
    license = ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(struct.pack("=IIQQ", 1, 2, ctypes.addressof(code),
        ctypes.addressof(license)).ljust(128, b"\0"))
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, 5, attr, 128) # bpf, BPF_PROG_LOAD
    if fd < 0: raise OSError(ctypes.get_errno(), "bpf")
    return fd

# Does a broadcast that the bridge sends come out of the TAP?
def hears_broadcasts():
    bridge = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    bridge.bind(("fcbr0", 0))
    frame = b"\xff" * 6 + b"\x02fcspe" + b"\x88\xb5" + b"fcproc-spec".ljust(50, b"\0")
    for _ in range(30):
        bridge.send(frame)
        time.sleep(0.05)
        try:
            while True:
                if b"fcproc-spec" in os.read(tap, 2048): return True
        except BlockingIOError:
            pass
    return False
]]

local function use_tap(world, lines)
  return support.sh({ "python3", "-c", USER .. lines }, { netns = world.netns })
end

describe("create_tap on a TAP that earlier users have changed", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local form = [[print(integer(TUNGETVNETHDRSZ), integer(TUNGETVNETLE), segmentation())]]

  it("resets the form of its frames and its offloads", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("tap0"))
    assert.are.equal("10 0 0\n", use_tap(world, form))
    use_tap(world, [[
fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("i", 12))
fcntl.ioctl(tap, TUNSETVNETLE, struct.pack("i", 1))
fcntl.ioctl(tap, TUNSETOFFLOAD, 1 | 2) # checksums, TSO4
]])
    assert.are.equal("12 1 1\n", use_tap(world, form))
    assert.is_false(must(world.manager:create_tap("tap0")).created)
    assert.are.equal("10 0 0\n", use_tap(world, form))
  end)

  -- Each keeps broadcasts from the next user.
  for what, lines in pairs{
    ["filter of addresses"] = [[
fcntl.ioctl(tap, TUNSETTXFILTER, struct.pack("HH6s", 0, 1, b"\x02\0\0\0\0\1"))]],
    ["eBPF filter"] = [[
fcntl.ioctl(tap, TUNSETFILTEREBPF, struct.pack("i", load_program()))]],
  } do
    it("removes a " .. what, function()
      if what == "eBPF filter" then support.direct_only(pending, "no ordinary user may load eBPF") end
      local world <close> = support.bridged_world()
      must(world.manager:create_tap("tap0"))
      assert.are.equal("True\n", use_tap(world, "print(hears_broadcasts())"))
      use_tap(world, lines)
      assert.are.equal("False\n", use_tap(world, "print(hears_broadcasts())"))
      must(world.manager:create_tap("tap0"))
      assert.are.equal("True\n", use_tap(world, "print(hears_broadcasts())"))
    end)
  end

  it("resets its queue, and removes queueing disciplines with their filters", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("tap0"))
    local function state()
      return support.sh({ "sh", "-ec", "tc qdisc show dev tap0; tc filter show dev tap0 ingress; "
        .. "tc filter show dev tap0 egress; ip link show dev tap0" }, { netns = world.netns })
    end
    local before = state()
    assert.is_truthy(before:find("qlen 1000", 1, true))
    for _, commands in ipairs{
      "ip link set dev tap0 txqueuelen 7",
      "tc qdisc add dev tap0 root tbf rate 8kbit burst 2kb latency 1s",
      "tc qdisc add dev tap0 clsact; tc filter add dev tap0 egress protocol all u32 "
        .. "match u32 0 0 classid 1:1",
      "tc qdisc add dev tap0 ingress; tc filter add dev tap0 ingress protocol all u32 "
        .. "match u32 0 0 classid 1:1",
    } do
      support.sh({ "sh", "-ec", commands }, { netns = world.netns })
      assert.are_not.equal(before, state())
      assert.is_false(must(world.manager:create_tap("tap0")).created)
      assert.are.equal(before, state(), commands)
    end
  end)

  it("keeps one isolated that was so on another bridge", function()
    local world <close> = support.bridged_world()
    local other <close> = must(fcproc.new{ bridge_name = "other0", netns = world.netns })
    must(other:ensure_bridge())
    must(other:create_tap("tap0", { isolated = true }))
    assert.is_true(link(world, "tap0").linkinfo.info_slave_data.isolated)
    must(world.manager:create_tap("tap0", { isolated = true }))
    local state = link(world, "tap0")
    assert.are.same({ "fcbr0", true }, { state.master, state.linkinfo.info_slave_data.isolated })
  end)
end)

describe("create_tap refuses", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("a link that is no TAP of ours, untouched: conflict", function()
    local world <close> = support.bridged_world()
    ip(world.netns, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip(world.netns, "link", "add", "ifb9", "type", "ifb")
    ip(world.netns, "tuntap", "add", "dev", "tun0", "mode", "tun")
    ip(world.netns, "tuntap", "add", "dev", "multi0", "mode", "tap", "multi_queue")
    for name, word in pairs{ veth0 = "veth", ifb9 = "ifb", tun0 = "TUN", multi0 = "multi-queue",
      lo = "loopback" } do
      local before = link(world, name)
      local err = fails("conflict", world.manager:create_tap(name, { uid = 1, mtu = 1000 }))
      assert.is_true(err == fcproc.ERR_CONFLICT)
      assert.is_truthy(err.message:find(word, 1, true), err.message)
      assert.are.same(before, link(world, name))
    end
    fails("conflict", world.manager:create_tap("fcbr0"))
    assert.are.equal("fcbr0 ifb9 lo multi0 tun0 veth0 veth1", names(world))
  end)

  it("a name that can't be, before it asks the kernel anything", function()
    -- There is no bridge, and the context has ended: whoever looked would answer otherwise.
    local world <close> = support.world()
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    local before = names(world)
    for _, name in ipairs{ ("x"):rep(16), "", "a/b", "a b", "a:b", "tap%d", ".", "..", "a\tb",
      "a\nb" } do
      fails("invalid", world.manager:create_tap(name, nil, ctx))
      fails("invalid", world.manager:create_tap(name))
      fails("invalid", world.manager:delete_tap(name))
    end
    assert.has_error(function() world.manager:create_tap("a\0b") end)
    assert.has_error(function() world.manager:create_tap(42) end)
    assert.are.equal(before, names(world))
    must(world.manager:ensure_bridge())
    must(world.manager:create_tap(("x"):rep(15)))
  end)

  it("options that can't be", function()
    local world <close> = support.bridged_world()
    for _, opts in ipairs{ { mac = "03:00:00:00:00:01" }, { mac = "nonsense" }, { mac = "" },
      { mtu = 67 }, { mtu = 65522 }, { mtu = -1 } } do
      fails("invalid", world.manager:create_tap("tap0", opts))
    end
    assert.has_error(function() world.manager:create_tap("tap0", { mtu = "1500" }) end)
    assert.has_error(function() world.manager:create_tap("tap0", { mct = "x" }) end)
    assert.are.equal("fcbr0 lo", names(world))
  end)

  it("to work under a context that has ended", function()
    local world <close> = support.bridged_world()
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", world.manager:create_tap("tap0", nil, ctx))
    fails("cancelled", world.manager:list_taps(ctx))
    assert.are.equal("fcbr0 lo", names(world))
  end)

  it("when there is no bridge, or another link in its place, and leaves no TAP", function()
    local world <close> = support.world()
    fails("not_found", world.manager:create_tap("tap0"))
    assert.are.equal("lo", names(world))
    ip(world.netns, "link", "add", "fcbr0", "type", "ifb")
    local before = link(world, "fcbr0")
    fails("conflict", world.manager:create_tap("tap0"))
    assert.are.same(before, link(world, "fcbr0"))
    assert.are.equal("fcbr0 lo", names(world))
  end)

  it("when the bridge is full, and rolls back", function()
    local world <close> = support.bridged_world()
    ip(world.netns, "tuntap", "add", "dev", "idle0", "mode", "tap")
    for i = 1, 1023 do must(world.manager:create_tap("t" .. i)) end
    local before = names(world)
    for _, name in ipairs{ "onemore", "idle0" } do
      local err = fails("busy", world.manager:create_tap(name))
      assert.is_truthy(err.message:find("1,023", 1, true))
    end
    assert.are.equal(before, names(world))
    assert.are.equal(1023, #must(world.manager:list_taps()))
    must(world.manager:delete_tap("t1"))
    must(world.manager:create_tap("onemore"))
  end)

  it("what the kernel refuses, with its errno and its own words, and rolls back", function()
    local world <close> = support.bridged_world()
    local net <close> = must(core.net(world.netns))
    local _, err = net:create_tap("tap0", "fcbr0", nil, nil, nil, 70000) -- past the manager's check
    assert.are.same({ "system", 22 }, { err.code, err.errno })
    assert.is_truthy(err.message:find("(kernel: ", 1, true), err.message)
    assert.are.equal("fcbr0 lo", names(world))
  end)

  it("a TAP that a running VM uses, and the VM's network goes on", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world, { tap = "tap0", boot_args = "ip=172.30.0.2" })
    assert.is_truthy(vm)
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
    local before = link(world, "tap0")
    local err = fails("busy", world.manager:create_tap("tap0", { uid = 7, mtu = 900,
      mac = "02:00:00:00:00:07", isolated = true }))
    assert.is_true(err == fcproc.ERR_BUSY)
    assert.are.equal(16, err.errno)
    fails("busy", world.manager:create_tap("tap0"))
    assert.are.same(before, link(world, "tap0"))
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
  end)

  it("without the privilege, and says which is missing", function()
    support.direct_only(pending, "what forbids an ordinary user's namespaces has specs of its own")
    local world <close> = support.bridged_world()
    local script = world.folder:file("try.lua")
    support.write_file(script, [[
      local fcproc = require "fcproc"
      local manager = assert(fcproc.new{ bridge_name = "fcbr0", bridge_ip = "10.0.0.1", cidr = 8 })
      for _, call in ipairs{ "ensure_bridge", "create_tap" } do
        local _, err = manager[call](manager, call == "create_tap" and "tap0" or nil)
        print(err.code, err.message)
      end]])
    support.sh{ "chmod", "755", world.folder.path }
    -- Once as the host has /dev/net/tun, and once with one that everybody may open.
    for _, set_up in ipairs{ "true", 'mknod "$1/tun" c 10 200 && chmod 666 "$1/tun" && '
      .. 'mount --bind "$1/tun" /dev/net/tun' } do
      local out = support.sh({ "unshare", "--mount", "sh", "-c",
        set_up .. ' && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$2" "$1/try.lua"',
        "sh", world.folder.path, support.lua }, { netns = world.netns })
      local _, lines = out:gsub("permission\t[^\n]*CAP_NET_ADMIN", "")
      assert.are.equal(2, lines, out)
    end
    assert.are.equal("fcbr0 lo", names(world))
  end)
end)

describe("list_taps", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is empty without a bridge, and a conflict when the name is another link's", function()
    local world <close> = support.world()
    assert.are.same({}, must(world.manager:list_taps()))
    ip(world.netns, "link", "add", "fcbr0", "type", "ifb")
    fails("conflict", world.manager:list_taps())
  end)

  it("names the TAPs of this bridge and nothing else", function()
    local world <close> = support.bridged_world()
    assert.are.same({}, must(world.manager:list_taps()))
    must(world.manager:create_tap("tap0"))
    ip(world.netns, "tuntap", "add", "dev", "free0", "mode", "tap")
    ip(world.netns, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip(world.netns, "link", "set", "veth0", "master", "fcbr0")
    local other <close> = must(fcproc.new{ bridge_name = "other0", netns = world.netns })
    must(other:ensure_bridge())
    must(other:create_tap("tap1"))
    local taps = must(world.manager:list_taps())
    assert.are.same({ 1, "tap0" }, { #taps, taps[1].name })
    taps = must(other:list_taps())
    assert.are.same({ 1, "tap1" }, { #taps, taps[1].name })
  end)

  it("tells which are in use, down, isolated, and whose they are", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world, { tap = "used0" })
    must(world.manager:create_tap("idle0", { uid = 5, gid = 6, mtu = 1400, isolated = true,
      mac = "02:00:00:00:00:05" }))
    ip(world.netns, "link", "set", "idle0", "down")
    local function by_name()
      local taps = {}
      for _, tap in ipairs(must(world.manager:list_taps())) do taps[tap.name] = tap end
      return taps
    end
    local taps, alias = by_name(), aliases.of(world.manager.config.runtime_dir)
    local bridge = link(world, world.manager.config.bridge_name).ifindex
    assert.are.equal(bridge, must(world.manager.net:link_index(world.manager.config.bridge_name)))
    assert.are.same({ name = "idle0", ifindex = link(world, "idle0").ifindex, uid = 5, gid = 6,
      mtu = 1400, mac = "02:00:00:00:00:05", isolated = true, up = false, in_use = false, alias = alias,
      master = bridge }, taps.idle0)
    assert.are.same({ name = "used0", ifindex = vm.tap.ifindex, uid = US, gid = US, mtu = 1500,
      mac = vm.tap.mac, isolated = false, up = true, in_use = true, alias = alias, master = bridge },
      taps.used0)
    ip(world.netns, "link", "set", "idle0", "nomaster")
    for _, tap in ipairs(must(world.manager.net:list_taps())) do taps[tap.name] = tap end
    assert.are.same({ nil, bridge }, { taps.idle0.master, taps.used0.master })
    assert.are.equal(0, select("#", world.manager.net:link_index("none0")))
    vm.process:signal("KILL")
    must(vm.process:wait(10))
    assert.is_false(by_name().used0.in_use)
  end)
end)
