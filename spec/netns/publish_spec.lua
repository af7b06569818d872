-- Published ports with real traffic: guests on the bridge, this host, and another one on the far side of
-- its uplink. Who reaches what, and what a guest must not reach.

local support = require "spec.support"
local guests = require "spec.support.guests"
local traffic = require "spec.support.traffic"
local fcproc = require "fcproc"
local nat = require "fcproc.network.nat"
local publish = require "fcproc.network.publish"

local must, fails = support.must, support.fails
local network, add_guest, entry_of = guests.network, guests.add_guest, guests.entry_of
local in_host, ruleset = guests.in_host, guests.ruleset
local UPLINK_IP, SERVER_IP = guests.UPLINK_IP, guests.SERVER_IP

local function ports_of(...)
  local ports = {}
  for _, text in ipairs{ ... } do
    local list, complaint = publish.parse(text)
    assert(list, complaint)
    table.move(list, 1, #list, #ports + 1, ports)
  end
  return ports
end

local function route_localnet(net, value)
  return must(net.manager.net:sysctl("ipv4/conf/fcbr0/route_localnet", value))
end

-- The guests in the kernel, whose ports come in no order.
local function listed(net)
  local entries = must(nat.list(net.manager))
  for _, entry in ipairs(entries) do
    table.sort(entry.ports or {}, function(a, b)
      return a.port * 65536 + a.guest_port < b.port * 65536 + b.guest_port
    end)
  end
  return entries
end

-- A guest with these ports, in the kernel as a launch has them.
local function published(net, number, ...)
  local guest, entry = add_guest(net, number)
  entry.ports = ports_of(...)
  must(nat.add(net.manager, entry))
  route_localnet(net, 1)
  guests.reaches(guest, "172.30.0.1")
  return guest, entry
end

describe("publish.parse", function()
  it("reads an address, a port of each side and a protocol, and ranges", function()
    local function text(written) return publish.text(ports_of(written)) end
    assert.are.equal("127.0.0.1:8080->80/tcp", text("8080:80"))
    assert.are.equal("127.0.0.1:5353->53/udp", text("127.0.0.1:5353:53/udp"))
    assert.are.equal("0.0.0.0:8000-8009->80-89/tcp", text("0.0.0.0:8000-8009:80-89"))
    assert.are.equal(10, #ports_of("8000-8009:80-89"))
    assert.are.same({ address = "127.0.0.1", port = 1, protocol = "tcp", guest_port = 65535 },
      ports_of("1:65535")[1])
  end)

  it("says what is wrong with others", function()
    for written, complaint in pairs{
      ["80"] = "does not name a port of the host and one of the guest", [""] = "does not",
      ["a:80"] = "'a' is no port", ["0:80"] = "'0' is no port", ["80:65536"] = "'65536' is no port",
      ["99999999999999999999:1"] = "is no port", ["2-1:2-1"] = "'2-1' is no port",
      ["80:80/sctp"] = "neither tcp nor udp", ["[::1]:80:80"] = "IPv4", ["::1:80:80"] = "IPv4",
      ["localhost:80:80"] = "'localhost' is no IPv4 address", ["08080:80:80"] = "'08080' is no IPv4 address",
      ["1-2:80"] = "differ in length", ["1-257:1-257"] = "more than 256 ports",
    } do
      local ports, said = publish.parse(written)
      assert.is_nil(ports)
      assert.is_truthy(said:find(complaint, 1, true), written .. ": " .. said)
    end
  end)
end)

describe("a published port", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- The table of doc/networking.md: from where it is reached, and which address the guest sees.
  it("is reached from where its address is, by TCP and UDP", function()
    local net <close> = network()
    local guest, entry = published(net, 5, "5353:53/udp", UPLINK_IP .. ":5354:53/udp",
      "0.0.0.0:5355:53/udp", "8000-8001:80-81", "8080:80", UPLINK_IP .. ":8081:80", "0.0.0.0:8082:80")
    local servers <close> = traffic.serve(guest, "tcp,0.0.0.0,80", -- luacheck: ignore
      "tcp,0.0.0.0,81", "udp,0.0.0.0,53")
    assert.are.same({ entry }, listed(net))
    assert.are.same({}, must(nat.missing(net.manager, { entry })))
    local rows = {
      { tcp = 8080, udp = 5353, loopback = "172.30.0.1", own = "-", other = "-" },
      { tcp = 8081, udp = 5354, loopback = "-", own = UPLINK_IP, other = SERVER_IP },
      { tcp = 8082, udp = 5355, loopback = "172.30.0.1", own = UPLINK_IP, other = SERVER_IP },
    }
    for _, row in ipairs(rows) do
      local function both(host)
        return ("tcp,%s,%d"):format(host, row.tcp), ("udp,%s,%d"):format(host, row.udp)
      end
      assert.are.same({ row.loopback, row.loopback }, traffic.ask(net.netns, both("127.0.0.1")))
      assert.are.same({ row.own, row.own }, traffic.ask(net.netns, both(UPLINK_IP)))
      assert.are.same({ row.other, row.other }, traffic.ask(net.server, both(UPLINK_IP)))
    end
    assert.are.same({ "172.30.0.1", "172.30.0.1" },
      traffic.ask(net.netns, "tcp,127.0.0.1,8000", "tcp,127.0.0.1,8001"))
    -- Nobody gets in but by these; and the guest reaches the world as before.
    support.ip(net.server, "route", "add", "172.30.0.0/24", "via", UPLINK_IP)
    traffic.none(net.server, "tcp,172.30.0.5,80", "tcp," .. UPLINK_IP .. ",80")
    guests.reaches(guest, SERVER_IP)
  end)

  it("without an uplink holds the guest to its address, and is reached all the same", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    entry.uplink, entry.ports = nil, ports_of("0.0.0.0:8080:80")
    must(nat.add(net.manager, entry))
    local servers <close> = traffic.serve(guest, "tcp,0.0.0.0,80") -- luacheck: ignore
    support.eventually("it is reached", function()
      return traffic.ask(net.server, "tcp," .. UPLINK_IP .. ",8080")[1] == SERVER_IP
    end)
    must(nat.remove(net.manager, { entry }))
    assert.are.equal("", ruleset(net))
  end)

  it("leads nowhere once it is removed, and others' stay", function()
    local net <close> = network()
    local guest, entry = published(net, 5, "8080:80", "0.0.0.0:8081:80")
    local other, other_entry = published(net, 6, "8082:80")
    local servers <close> = traffic.serve(guest, "tcp,0.0.0.0,80") -- luacheck: ignore
    local others <close> = traffic.serve(other, "tcp,0.0.0.0,80") -- luacheck: ignore
    local function ask()
      return traffic.ask(net.netns, "tcp,127.0.0.1,8080", "tcp,127.0.0.1,8081", "tcp,127.0.0.1,8082")
    end
    assert.are.same({ "172.30.0.1", "172.30.0.1", "172.30.0.1" }, ask())
    must(nat.remove(net.manager, { { tap = entry.tap } }))
    assert.are.same({ "-", "-", "172.30.0.1" }, ask())
    assert.are.same({ other_entry }, listed(net))
    must(nat.remove(net.manager, { other_entry }))
    assert.are.equal("", ruleset(net))
  end)

  it("is put back with the rest after somebody's flush of all rules", function()
    local net <close> = network()
    local guest, entry = published(net, 5, "8080:80", "0.0.0.0:53:53/udp")
    local _, plain = add_guest(net, 6)
    must(nat.add(net.manager, plain))
    local servers <close> = traffic.serve(guest, "tcp,0.0.0.0,80", "udp,0.0.0.0,53") -- luacheck: ignore
    local name = ruleset(net):match("table ip (%S+)")
    for _, damage in ipairs{ "flush ruleset", "delete table ip " .. name,
      "flush chain ip " .. name .. " loopback",
      "delete element ip " .. name .. " published { 127.0.0.1 . tcp . 8080 }",
      "flush map ip " .. name .. " anywhere", "delete table bridge " .. name } do
      guests.nft(net, damage)
      local missing = must(nat.missing(net.manager, { entry }))
      assert.are.equal(entry, missing[1], damage)
      must(nat.put_back(net.manager, { entry, plain }))
      assert.are.same({}, must(nat.missing(net.manager, { entry, plain })), damage)
      assert.are.same({ "172.30.0.1", UPLINK_IP },
        traffic.ask(net.netns, "tcp,127.0.0.1,8080", "udp," .. UPLINK_IP .. ",53"), damage)
    end
    -- Another guest's add alone brings it back when the tables are gone.
    guests.nft(net, "flush ruleset")
    must(nat.add_all(net.manager, { plain }, nil, function() return { entry } end))
    assert.are.same({}, must(nat.missing(net.manager, { entry, plain })))
  end)

  it("is one guest's: another that wants it is refused, and changes come whole", function()
    local net <close> = network()
    must(nat.add(net.manager, entry_of(5, { ports = ports_of("8080:80") })))
    local before = ruleset(net)
    local rival = entry_of(6, { ports = ports_of("8081:80", "8080:80") })
    local err = fails("conflict", nat.add(net.manager, rival))
    assert.is_truthy(err.message:find("127.0.0.1:8080/tcp, wanted for fctap6, is published for fctap5 "
      .. "(VM vm-5)", 1, true))
    assert.are.equal(before, ruleset(net))
    -- The same TAP with others, and with none.
    local changed = entry_of(5, { ports = ports_of("8080:81", "8090:80/udp") })
    must(nat.add(net.manager, changed))
    assert.are.same({ changed }, listed(net))
    must(nat.add(net.manager, entry_of(5)))
    assert.are.same({ entry_of(5) }, listed(net))
    for _, port in ipairs{ { address = "1; x", port = 1, guest_port = 1, protocol = "tcp" },
      { address = "127.0.0.1", port = 0, guest_port = 1, protocol = "tcp" },
      { address = "127.0.0.1", port = 1.5, guest_port = 1, protocol = "tcp" },
      { address = "127.0.0.1", port = 1, guest_port = 1, protocol = "tcp }" }, {} } do
      fails("invalid", nat.add(net.manager, entry_of(5, { ports = { port } })))
    end
  end)

  it("at the host's loopback is no neighbour's, whatever he sends", function()
    local net <close> = network()
    local guest = published(net, 5, "8080:80")
    local servers <close> = traffic.serve(guest, "tcp,0.0.0.0,80") -- luacheck: ignore
    -- He sends to the host's MAC what is for 127.0.0.1.
    support.ip(net.server, "addr", "del", "127.0.0.1/8", "dev", "lo")
    support.ip(net.server, "route", "add", "127.0.0.1/32", "via", UPLINK_IP, "src", SERVER_IP)
    must(require("fcproc.core").net(net.server)):sysctl("ipv4/conf/eth0/route_localnet", 1)
    guests.nft(net, [[table ip probe {
      chain c { type filter hook prerouting priority -400; iifname "up0" ip daddr 127.0.0.1 counter; }
    }]])
    traffic.none(net.server, "tcp,127.0.0.1,8080," .. SERVER_IP)
    assert.is_true(tonumber(ruleset(net):match("counter packets (%d+)")) > 0) -- it came
    assert.are.same({ "172.30.0.1" }, traffic.ask(net.netns, "tcp,127.0.0.1,8080"))
  end)
end)

describe("publish.check_sockets", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("tells who has a port already, at this address or all of them", function()
    local net <close> = network()
    local servers <close> = traffic.serve(net.netns, "tcp,127.0.0.1,8080", "udp,0.0.0.0,53",
      "tcp," .. UPLINK_IP .. ",81")
    for _, text in ipairs{ "8080:80", "0.0.0.0:8080:80", "53:53/udp", UPLINK_IP .. ":53:53/udp",
      "0.0.0.0:81:80" } do
      local err = fails("conflict", publish.check_sockets(net.manager, ports_of("9000:1", text), false))
      assert.are.equal(servers.pid, err.pid)
      assert.is_truthy(err.message:find(("in use by pid %d (python3"):format(servers.pid), 1, true))
    end
    must(publish.check_sockets(net.manager,
      ports_of(UPLINK_IP .. ":8080:80", "8080:80/udp", "53:53", "81:80"), false))
  end)

  it("knows a socket of IPv6 that takes IPv4 as well", function()
    local net <close> = network()
    local script = [[
import socket, time
a = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
b = socket.create_server(("::", 8081), family=socket.AF_INET6, dualstack_ipv6=False)
print("listening", flush=True)
time.sleep(60)
]]
    local dir <close> = support.folder()
    local server <close> = must(fcproc.spawn({ "python3", "-c", script },
      { netns = net.netns, stdout = { file = dir:file("log") } }))
    support.eventually("it listens", function()
      return support.read_file(dir:file("log")) == "listening\n"
    end)
    fails("conflict", publish.check_sockets(net.manager, ports_of("8080:80"), false))
    must(publish.check_sockets(net.manager, ports_of("8081:80"), false))
    server:signal("KILL")
    must(server:wait(5))
  end)
end)

describe("a guest with route_localnet on its bridge", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- What a guest sends to a loopback address of the host, by its own routes; and under such an address.
  local function attack(guest)
    local asked = {}
    for _, host in ipairs{ "127.0.0.1", "127.0.0.53", "127.255.255.254" } do
      for _, kind in ipairs{ "tcp", "udp" } do
        asked[#asked + 1] = ("%s,%s,7000,172.30.0.5"):format(kind, host)
      end
    end
    -- By the host's other addresses nothing leads there either.
    for _, host in ipairs{ "172.30.0.1", UPLINK_IP } do
      for _, kind in ipairs{ "tcp", "udp" } do
        for _, port in ipairs{ 7000, 8080, 8081 } do
          asked[#asked + 1] = ("%s,%s,%d"):format(kind, host, port)
        end
      end
    end
    traffic.none(guest, table.unpack(asked))
  end

  it("reaches no service on the host's loopback, by any address, before, while and after", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    local other = add_guest(net, 6) -- without NAT, on the same bridge
    for _, each in ipairs{ guest, other } do
      local own = must(require("fcproc.core").net(each))
      support.ip(each, "addr", "del", "127.0.0.1/8", "dev", "lo")
      support.ip(each, "route", "add", "127.0.0.0/8", "via", "172.30.0.1")
      must(own:sysctl("ipv4/conf/eth0/route_localnet", 1))
      own:close()
    end
    support.ip(other, "addr", "add", "172.30.0.5/24", "dev", "eth0") -- the spoofer
    local servers <close> = traffic.serve(net.netns, "tcp,127.0.0.1,7000", -- luacheck: ignore
      "udp,127.0.0.1,7000", "tcp,127.0.0.53,7000", "udp,127.0.0.53,7000", "tcp,127.255.255.254,7000",
      "udp,127.255.255.254,7000")
    assert.are.same({ "127.0.0.1" }, traffic.ask(net.netns, "tcp,127.0.0.1,7000"))
    attack(guest)
    entry.ports = ports_of("8080:80", "0.0.0.0:8081:81")
    must(nat.add(net.manager, entry))
    attack(guest)
    route_localnet(net, 1)
    attack(guest)
    attack(other)
    in_host(net, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    attack(guest)
    in_host(net, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
    -- What is sent under a loopback address is dropped, too.
    guests.nft(net, [[table ip probe {
      chain c { type filter hook prerouting priority -200; ip saddr 127.0.0.0/8 iifname "fcbr0" counter; }
    }]])
    support.ip(other, "addr", "add", "127.0.0.9/32", "dev", "eth0")
    in_host(net, "sysctl", "-qw", "net.ipv4.conf.fcbr0.accept_local=1", "net.ipv4.conf.fcbr0.rp_filter=0",
      "net.ipv4.conf.all.rp_filter=0")
    traffic.none(other, "udp,172.30.0.1,7001,127.0.0.9")
    assert.are.equal("0", ruleset(net):match("counter packets (%d+)"))
    route_localnet(net, 0)
    must(nat.remove(net.manager, { entry }))
    attack(guest)
  end)

  it("would reach them without our chain", function() -- so that the attack is one
    local net <close> = network()
    local guest = add_guest(net, 5)
    local own = must(require("fcproc.core").net(guest))
    support.ip(guest, "addr", "del", "127.0.0.1/8", "dev", "lo")
    support.ip(guest, "route", "add", "127.0.0.0/8", "via", "172.30.0.1")
    must(own:sysctl("ipv4/conf/eth0/route_localnet", 1))
    own:close()
    guests.reaches(guest, "172.30.0.1")
    local servers <close> = traffic.serve(net.netns, "tcp,127.0.0.1,7000") -- luacheck: ignore
    traffic.none(guest, "tcp,127.0.0.1,7000,172.30.0.5")
    route_localnet(net, 1)
    assert.are.same({ "172.30.0.5" }, traffic.ask(guest, "tcp,127.0.0.1,7000,172.30.0.5"))
  end)
end)
