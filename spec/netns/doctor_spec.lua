-- doctor's checks of the network, in namespaces of the test's own: each is made to fail for real,
-- and where the fix is a command, the fix is run and the check must then be content.

local support = require "spec.support"
local helper = require "spec.support.doctor"
local doctor = require "fcproc.doctor"
local guests = require "spec.support.guests"
local lease = require "fcproc.resources.lease"
local namespaces = require "fcproc.resources.namespaces"
local nat = require "fcproc.network.nat"
local must = support.must

local function look(world, opts)
  return helper.by_name(must(doctor.run(world.manager, opts)))
end

local function sh(world, text)
  support.sh({ "sh", "-ec", text }, { netns = world.netns })
end

-- A default route, so that nothing but what the test does is amiss.
local function connect(world)
  sh(world, "ip link add up0 type bridge; ip addr add 198.51.100.1/24 dev up0; ip link set up0 up; "
    .. "ip route add default via 198.51.100.2")
end

describe("doctor, of the network", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("finds nothing amiss where nothing is", function()
    local world <close> = support.bridged_world()
    connect(world)
    sh(world, "sysctl -qw net.ipv4.ip_forward=1")
    local found = look(world, { uplink = "up0" })
    for _, name in ipairs{ "bridge", "nft", "forwarding", "uplink", "firewall", "nat", "localnet", "taps",
      "address",
      "names", "limits" } do
      helper.expect(found[name], "ok", "")
      assert.is_nil(found[name].fix)
    end
    helper.expect(found.uplink, "ok", "up0 is there")
    helper.expect(found.names, "ok", "fcbr0 is our bridge, 5 of 15 bytes")
    helper.expect(look(world).uplink, "ok", "leaves by up0")
  end)

  it("leaves the namespace as it was", function()
    local world <close> = support.world()
    local function state()
      return support.sh({ "sh", "-c", "ip -o link; nft list ruleset; sysctl net.ipv4.ip_forward" },
        { netns = world.netns })
    end
    local before = state()
    look(world)
    assert.are.equal(before, state())
  end)

  it("warns when forwarding is off, and its fix switches it on", function()
    local world <close> = support.world()
    local check = helper.expect(look(world).forwarding, "warn", "net.ipv4.ip_forward is off")
    sh(world, check.fix:match("^[^,]+"))
    helper.expect(look(world).forwarding, "ok", "net.ipv4.ip_forward is on")
  end)

  it("looks at IPv6 forwarding for a bridge with an IPv6 address", function()
    local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = 64 }
    local check = helper.expect(look(world).forwarding, "warn", "net.ipv6.conf.all.forwarding is off")
    sh(world, check.fix:match("^[^,]+"))
    local found = look(world)
    helper.expect(found.forwarding, "ok", "is on")
    helper.expect(found.address, "ok", "fd00:30::1/64: guests get no address from fcproc")
  end)

  it("warns of a host without a default route, and fails for an uplink that is not there", function()
    local world <close> = support.world()
    helper.expect(look(world).uplink, "warn", "no default route")
    helper.expect(look(world, { uplink = "auto" }).uplink, "fail", "no default route")
    helper.expect(look(world, { uplink = "eth9" }).uplink, "fail", "no interface eth9")
    helper.expect(look(world, { uplink = "sixteen-letters-" }).uplink, "fail", "sixteen-letters-")
  end)

  it("warns of another's policy drop, as Docker's, and its fix lets the bridge through", function()
    local world <close> = support.world()
    sh(world, "nft -f - <<'X'\ntable ip filter { chain DOCKER-USER { };\n chain FORWARD { type filter "
      .. "hook forward priority 0; policy drop; jump DOCKER-USER; }; }\nX")
    local check = helper.expect(look(world).firewall, "warn", "ip filter FORWARD (policy drop) drops")
    assert.is_truthy(check.fix:find("DOCKER-USER iifname fcbr0 accept", 1, true))
    sh(world, check.fix)
    helper.expect(look(world).firewall, "ok", "nobody's firewall")
  end)

  it("warns of a chain that ends in a reject, and of one whose accept is another bridge's", function()
    local world <close> = support.world()
    sh(world, "nft -f - <<'X'\ntable inet firewalld { chain forward { type filter hook forward "
      .. "priority 10; policy accept; ct state established,related accept; iifname other0 accept; "
      .. "oifname other0 accept; counter reject; }; }\nX")
    local check = helper.expect(look(world).firewall, "warn", "inet firewalld forward (its last rule)")
    assert.is_truthy(check.fix:find("nft insert rule inet firewalld forward", 1, true))
    sh(world, "nft insert rule inet firewalld forward iifname { fcbr0, x } accept")
    helper.expect(look(world).firewall, "ok", "") -- the way back is that of established ones
  end)

  it("is not misled by drops with a condition, other hooks and half an accept", function()
    local world <close> = support.world()
    sh(world, "nft -f - <<'X'\ntable inet mine { chain input { type filter hook input priority 0; "
      .. "policy drop; };\n chain forward { type filter hook forward priority 0; policy accept; "
      .. "tcp dport 25 drop; }; }\nX")
    helper.expect(look(world).firewall, "ok", "")
    sh(world, "nft add chain inet mine forward '{ policy drop; }'; "
      .. "nft add rule inet mine forward iifname fcbr0 accept")
    helper.expect(look(world).firewall, "warn", "inet mine forward")
  end)

  it("does not take an accept for all but the bridge for the bridge's", function()
    local world <close> = support.world()
    sh(world, "nft -f - <<'X'\ntable inet mine { chain forward { type filter hook forward priority 0; "
      .. "policy drop; iifname != fcbr0 accept; oifname != fcbr0 accept; }; }\nX")
    helper.expect(look(world).firewall, "warn", "inet mine forward (policy drop)")
  end)

  it("reads of two files of udev with one name the one in the stronger folder", function()
    local dir <close> = support.folder()
    for name, policy in pairs{ own = "none", other = "persistent" } do
      support.write_file(dir:file(name), ("[Match]\nOriginalName=*\n[Link]\nMACAddressPolicy=%s\n"):format(
        policy))
    end
    for stronger, status in pairs{ own = "ok", other = "warn" } do
      local weaker = stronger == "own" and "other" or "own"
      local found = helper.after(dir, ([[mount -t tmpfs none /run
        mkdir -p /run/udev /run/systemd/network; : > /run/udev/control
        mkdir -p /etc/systemd; mount -t tmpfs none /etc/systemd; mkdir /etc/systemd/network
        cp "$DIR/%s" /etc/systemd/network/50-a.link; cp "$DIR/%s" /run/systemd/network/50-a.link]]):format(
        stronger, weaker))
      helper.expect(found.udev, status, "udev")
    end
  end)

  it("fails where guests reach the host's loopback, and its fix keeps them from it", function()
    local world <close> = support.bridged_world()
    local localnet = "sysctl -qw net.ipv4.conf.%s.route_localnet=%d"
    helper.expect(look(world).localnet, "ok", "none of this host's")
    for _, name in ipairs{ "fcbr0", "all" } do
      sh(world, localnet:format(name, 1))
      local check = helper.expect(look(world).localnet, "fail", ("conf.%s.route_localnet is on"):format(name))
      sh(world, check.fix)
      helper.expect(look(world).localnet, "ok", "none of this host's")
    end
    sh(world, localnet:format("fcbr0", 1))
    local rules = "table ip guard { chain c { type filter hook prerouting priority %s; %s drop; }; }"
    for _, case in ipairs{ { -300, "iifname fcbr0 ip daddr 127.0.0.0/8", "ok" },
      { 0, "iifname fcbr0 ip daddr 127.0.0.0/8", "fail" }, { -300, "iifname x ip daddr 127.0.0.0/8", "fail" },
      { -300, "iifname fcbr0 ip daddr 127.0.0.0/16", "fail" },
      { -300, "iifname fcbr0 ip daddr 127.0.0.0/8 tcp dport 22", "fail" } } do
      sh(world, ("nft '%s'"):format(rules:format(case[1], case[2])))
      helper.expect(look(world).localnet, case[3], "")
      sh(world, "nft delete table ip guard")
    end
  end)

  it("fails where ours is on, and a flush of all rules took what goes with it", function()
    local net <close> = guests.network()
    local _, entry = guests.add_guest(net, 5)
    entry.ports = { { address = "127.0.0.1", port = 8080, protocol = "tcp", guest_port = 80 } }
    must(nat.add(net.manager, entry))
    local leases = must(lease.open(net.manager, true))
    local name = must(leases:take_shared(("localnet-%d-fcbr0"):format(namespaces.of(net.manager)), "one"))
    must(net.manager.net:sysctl("ipv4/conf/fcbr0/route_localnet", 1))
    helper.expect(look(net).localnet, "ok", "is dropped")
    guests.nft(net, "flush ruleset")
    local check = helper.expect(look(net).localnet, "fail", "guests reach what listens")
    assert.is_truthy(check.fix:find("^fcproc net up puts our rule back"), check.fix)
    must(nat.put_back(net.manager, { entry }))
    helper.expect(look(net).localnet, "ok", "is dropped")
    must(leases:drop(name))
  end)

  it("fails for an address that no host can have, and warns where it leaves no room", function()
    local first <close> = support.world{ bridge_ip = "172.30.0.0" }
    local check = helper.expect(look(first).address, "fail", "first address")
    assert.is_truthy(check.fix:find("172.30.0.1", 1, true))
    local last <close> = support.world{ bridge_ip = "172.30.0.255" }
    helper.expect(look(last).address, "fail", "broadcast address")
    local alone <close> = support.world{ cidr = 32 }
    helper.expect(look(alone).address, "warn", "at most one address for guests")
    local none <close> = support.world{ bridge_ip = "10.0.0.1", cidr = 0 }
    helper.expect(look(none).address, "ok", "10.0.0.1/0")
  end)

  it("warns of a network that another interface leads to", function()
    local world <close> = support.bridged_world()
    helper.expect(look(world).address, "ok", "253 addresses")
    sh(world, "ip link add other0 type bridge; ip addr add 172.30.9.9/16 dev other0; "
      .. "ip link set other0 up")
    helper.expect(look(world).address, "warn", "overlaps with a network that other0 leads to")
  end)

  it("fails when a link of another kind has the bridge's name", function()
    local world <close> = support.world()
    sh(world, "ip tuntap add fcbr0 mode tap")
    helper.expect(look(world).names, "fail", "fcbr0")
  end)

  it("warns of a name that nft and sysctl read differently, and of none", function()
    local starred <close> = support.world{ bridge_name = "fc.br*" }
    helper.expect(look(starred).names, "warn", "fc.br*")
    local dir <close> = support.folder()
    local fcproc = require "fcproc"
    local manager <close> = must(fcproc.new{ runtime_dir = dir.path })
    local found = helper.by_name(must(doctor.run(manager)))
    helper.expect(found.names, "warn", "bridge_name is not configured")
    helper.expect(found.address, "ok", "no bridge_ip is configured")
  end)

  it("warns when a bridge is four fifths full of TAPs", function()
    local world <close> = support.bridged_world()
    local names = {}
    for i = 1, 819 do
      names[i] = "fct" .. i
      must(world.manager:create_tap(names[i]))
    end
    helper.expect(look(world).limits, "warn", "819 TAPs on fcbr0, of 1023 ports")
    must(world.manager:delete_taps(names))
    helper.expect(look(world).limits, "ok", "0 TAPs")
  end)

  it("without nft warns, and fails when an uplink asks for NAT", function()
    local dir <close> = support.folder()
    local hide = 'mkdir "$DIR/empty"; for d in /usr/sbin /sbin; do mount --bind "$DIR/empty" $d; done'
    local found = helper.after(dir, hide)
    helper.expect(found.nft, "warn", "there is no nft")
    helper.expect(found.firewall, "warn", "without nft")
    found = helper.after(dir, hide:gsub("mkdir", "mkdir -p"), nil, { uplink = "lo" })
    helper.expect(found.nft, "fail", "there is no nft")
  end)

  it("finds nft where an ordinary user's PATH does not lead", function()
    local dir <close> = support.folder()
    local found = helper.after(dir, 'export PATH=/usr/bin:/bin')
    helper.expect(found.nft, "ok", "/usr/sbin/nft works")
    helper.expect(found.firewall, "ok", "")
    helper.expect(found.nat, "ok", "")
  end)
end)
