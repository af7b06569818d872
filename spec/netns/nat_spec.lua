-- NAT with real packets: guests on the bridge (namespaces behind veth ports, and once the real
-- Firecracker), the host in a namespace of its own, and a server on the far side of its uplink.

local support = require "spec.support"
local guests = require "spec.support.guests"
local fcproc = require "fcproc"
local loop = require "fcproc.loop"
local nat = require "fcproc.network.nat"

local must, fails, raises = support.must, support.fails, support.raises

local in_host, nft, ruleset = guests.in_host, guests.nft, guests.ruleset
local network, add_veth, add_guest, entry_of = guests.network, guests.add_veth, guests.add_guest,
  guests.entry_of
local pings, reaches = guests.pings, guests.reaches

local UPLINK_IP, SERVER_IP = guests.UPLINK_IP, guests.SERVER_IP
local METADATA_IP = "169.254.169.254"

-- What the guest receives of a text that the other sends to all of the subnet.
local function broadcast(from, to, text)
  local dir <close> = support.folder()
  support.write_file(dir:file("listen.py"), [[
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 7001))
s.settimeout(5)
print("listening", flush=True)
print(s.recv(100).decode(), end="", flush=True)
]])
  local listener <close> = must(fcproc.spawn({ "python3", dir:file("listen.py") },
    { netns = to, stdout = { file = dir:file("log") }, stderr = { file = dir:file("log") } }))
  local function log() return support.read_file(dir:file("log")) or "" end
  support.eventually("it listens", function() return log():find("listening", 1, true) end)
  support.sh({ "python3", "-c", ([[
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.sendto(b"%s", ("172.30.0.255", 7001))
]]):format(text) }, { netns = from })
  must(listener:wait(10))
  return log():match("\n(.*)")
end

local function sorted(entries)
  table.sort(entries, function(a, b) return a.tap < b.tap end)
  return entries
end

local function found(answers)
  local map = {}
  for _, answer in ipairs(answers) do map[answer.name] = answer end
  return map
end

describe("nat.add", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("lets the guest out through its uplink, and answers back", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    assert.is_false(pings(guest, SERVER_IP)) -- forwarded, but the server knows no way back
    must(nat.add(net.manager, entry))
    reaches(guest, SERVER_IP)
    must(nat.add(net.manager, entry)) -- twice is fine
    reaches(guest, SERVER_IP)
    assert.are.same({ entry }, must(nat.list(net.manager)))
    -- The host itself is reached as before, and reaches the guest.
    reaches(guest, "172.30.0.1")
    assert.is_true(support.pings(net.netns, entry.address))
    -- Data, too; the server sees nobody but the host, and sends no more at a time than gets through.
    in_host(net, "ip", "link", "set", "up0", "mtu", "1300")
    local dir <close> = support.folder()
    support.write_file(dir:file("server.py"), ([[
import socket
listener = socket.create_server(("%s", 7000))
print("listening", flush=True)
stream, peer = listener.accept()
size = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
stream.sendall(("%%s %%s" %% (peer[0], size <= 1260)).encode())
stream.close()
]]):format(SERVER_IP))
    local server <close> = must(fcproc.spawn({ "python3", dir:file("server.py") },
      { netns = net.server, stdout = { file = dir:file("log") } }))
    support.eventually("the server listens", function()
      return (support.read_file(dir:file("log")) or ""):find("listening", 1, true)
    end)
    local seen = support.sh({ "python3", "-c", ([[
import socket
print(socket.create_connection(("%s", 7000), 5).recv(100).decode(), end="")
]]):format(SERVER_IP) }, { netns = guest })
    assert.are.equal(UPLINK_IP .. " True", seen)
    must(server:wait(5))
  end)

  it("is remembered by the kernel, until the connections of a guest are flushed, and of no other", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    local other, other_entry = add_guest(net, 6)
    must(nat.add_all(net.manager, { entry, other_entry }))
    reaches(guest, SERVER_IP)
    reaches(other, SERVER_IP)
    local function flush(...)
      local done, count = loop.complete(nil, must(net.manager.net:flush_conntrack({ ... })))
      must(done, count)
      return count
    end
    assert.are.equal(0, flush("172.30.0.7"))
    assert.is_true(flush("172.30.0.7", entry.address) > 0)
    assert.are.equal(0, flush(entry.address))
    assert.is_true(flush(other_entry.address) > 0)
    local err = fails("invalid", net.manager.net:flush_conntrack({ "there" }))
    assert.are.equal("'there' is no IPv4 address", err.message)
  end)

  it("lets nobody in from the uplink, but where a DNAT rule sends him", function()
    local net <close> = network()
    local _, entry = add_guest(net, 5)
    support.ip(net.server, "route", "add", "172.30.0.0/24", "via", UPLINK_IP)
    reaches(net.server, entry.address)
    must(nat.add(net.manager, entry))
    assert.is_false(pings(net.server, entry.address))
    nft(net, [[table ip theirs {
      chain inwards { type nat hook prerouting priority -100; ip daddr 10.9.0.1 dnat to 172.30.0.5; }
    }]])
    reaches(net.server, UPLINK_IP)
  end)

  it("forwards to the named uplink only", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    local other = add_veth(net, "up1")
    support.ip(net.netns, "addr", "add", "10.8.0.1/24", "dev", "up1")
    support.ip(other, "addr", "add", "10.8.0.2/24", "dev", "eth0")
    support.ip(other, "route", "add", "default", "via", "10.8.0.1")
    reaches(guest, "10.8.0.2")
    must(nat.add(net.manager, entry))
    assert.is_false(pings(guest, "10.8.0.2"))
    reaches(guest, SERVER_IP)
    entry.uplink = "up1"
    must(nat.add(net.manager, entry)) -- it moves
    reaches(guest, "10.8.0.2")
    assert.is_false(pings(guest, SERVER_IP))
    assert.are.same({ entry }, must(nat.list(net.manager)))
  end)

  it("keeps guests apart that would meet in the host's routing, round their isolated ports", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    local other, other_entry = add_guest(net, 6)
    local third, third_entry = add_guest(net, 7) -- without NAT
    local pairs_of = { { guest, entry, other_entry }, { other, other_entry, entry },
      { guest, entry, third_entry }, { third, third_entry, entry } }
    for _, each in ipairs(pairs_of) do
      in_host(net, "ip", "link", "set", each[2].tap, "type", "bridge_slave", "isolated", "on")
      support.ip(each[1], "route", "replace", each[3].address .. "/32", "via", "172.30.0.1")
      for _, name in ipairs{ "all", "eth0" } do -- the host would tell it to send straight
        support.sh({ "sysctl", "-qw", "net.ipv4.conf." .. name .. ".accept_redirects=0" },
          { netns = each[1] })
      end
    end
    for _, each in ipairs(pairs_of) do reaches(each[1], each[3].address) end
    must(nat.add_all(net.manager, { entry, other_entry }))
    local function none_meet()
      for _, each in ipairs(pairs_of) do
        assert.is_false(pings(each[1], each[3].address, each[2].address))
      end
      reaches(other, SERVER_IP)
    end
    in_host(net, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
    none_meet()
    in_host(net, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    none_meet()
    -- The host takes frames for the MAC of a port as it does those for the bridge's own.
    for _, each in ipairs(pairs_of) do
      support.ip(each[1], "neigh", "replace", "172.30.0.1", "dev", "eth0", "lladdr",
        support.ip(net.netns, "link", "show", "dev", each[2].tap)[1].address)
      reaches(each[1], "172.30.0.1")
    end
    none_meet()
  end)

  it("lets frames between guests pass that the bridge shows to the host's IP firewall", function()
    local net <close> = network()
    in_host(net, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    local guest, entry = add_guest(net, 5)
    local other, other_entry = add_guest(net, 6)
    local third, third_entry = add_guest(net, 7) -- without NAT
    must(nat.add_all(net.manager, { entry, other_entry }))
    for _, each in ipairs{ { guest, other_entry }, { other, entry }, { guest, third_entry },
      { third, entry } } do
      reaches(each[1], each[2].address)
    end
    assert.are.equal("from 172.30.0.7", broadcast(third, guest, "from 172.30.0.7"))
    assert.are.equal("from 172.30.0.5", broadcast(guest, third, "from 172.30.0.5"))
    reaches(guest, SERVER_IP)
    -- Whatever MAC the bridge has: that of a bridge that is not ours changes with its ports.
    support.ip(net.netns, "link", "set", "fcbr0", "address", "02:00:00:00:00:99")
    support.ip(guest, "neigh", "flush", "all")
    reaches(guest, third_entry.address)
    reaches(third, entry.address)
    reaches(guest, SERVER_IP)
  end)

  it("drops what bears another's address or MAC, at IP and at ARP", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    local _, other = add_guest(net, 6)
    support.ip(guest, "addr", "add", "172.30.0.77/24", "dev", "eth0")
    reaches(guest, "172.30.0.1", "172.30.0.77")
    must(nat.add_all(net.manager, { entry, other }))
    assert.is_false(pings(guest, "172.30.0.1", "172.30.0.77"))
    assert.is_false(pings(guest, SERVER_IP, "172.30.0.77"))
    reaches(guest, "172.30.0.1", entry.address)
    -- ARP alone: the host asks who has .77, and the guest's answer does not come through.
    in_host(net, "ip", "neigh", "flush", "all")
    assert.is_false(support.pings(net.netns, "172.30.0.77"))
    assert.is_falsy(in_host(net, "ip", "neigh", "show", "172.30.0.77"):find("lladdr", 1, true))
    -- Another guest's address and MAC, both true, but from the wrong port.
    support.ip(guest, "link", "set", "eth0", "address", other.mac)
    assert.is_false(pings(guest, "172.30.0.1", entry.address))
    support.ip(guest, "addr", "add", other.address .. "/24", "dev", "eth0")
    assert.is_false(pings(guest, "172.30.0.1", other.address))
    support.ip(guest, "link", "set", "eth0", "address", entry.mac)
    reaches(guest, "172.30.0.1", entry.address)
  end)

  it("drops ARP whose sender in the text is another than on the frame", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    local _, other = add_guest(net, 6)
    -- What the host has for an address after the guest has asked for the host's, in that name.
    local function planted(mac, address)
      in_host(net, "ip", "neigh", "flush", "all")
      support.sh({ "python3", "-c", ([[
import socket
def mac(text): return bytes.fromhex(text.replace(":", ""))
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
packets.bind(("eth0", 0))
packets.send(b"\xff" * 6 + mac("%s") + bytes.fromhex("0806" "0001" "0800" "06" "04" "0001") + mac("%s")
    + socket.inet_aton("%s") + bytes(6) + socket.inet_aton("172.30.0.1"))
]]):format(entry.mac, mac, address) }, { netns = guest })
      reaches(guest, "172.30.0.1", entry.address) -- what was sent before has arrived
      return in_host(net, "ip", "neigh", "show", address):match("lladdr (%S+)")
    end
    reaches(guest, "172.30.0.1", entry.address)
    assert.are.equal(other.mac, planted(other.mac, "172.30.0.99"))
    must(nat.add_all(net.manager, { entry, other }))
    assert.is_nil(planted(other.mac, "172.30.0.99"))
    assert.are.equal(entry.mac, planted(other.mac, entry.address))
    assert.are.equal(entry.mac, planted(entry.mac, entry.address))
    assert.is_nil(planted(entry.mac, other.address))
  end)

  it("drops IPv6 and what is in a VLAN: neither address could be held against anything", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    support.ip(net.netns, "addr", "add", "fd00:30::1/64", "dev", "fcbr0", "nodad")
    support.ip(guest, "addr", "add", "fd00:30::5/64", "dev", "eth0", "nodad")
    nft(net, [[table bridge probe {
      chain c { type filter hook input priority 0; policy accept; ether type 8021q counter; }
    }]])
    -- Tagged, and else in its own name.
    local function send_tagged()
      local bytes = function(text) return (text:gsub("%X", "")) end
      local bridge = support.ip(net.netns, "link", "show", "dev", "fcbr0")[1].address
      local frame = bytes(bridge) .. bytes(entry.mac) .. "81000007" .. "0800"
        .. "4500001400000000400100" .. "00" .. "ac1e0005" .. "ac1e0001"
      support.sh({ "python3", "-c", ([[
import socket
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
packets.bind(("eth0", 0))
packets.send(bytes.fromhex("%s").ljust(60, bytes(1)))
]]):format(frame) }, { netns = guest })
      reaches(guest, "172.30.0.1") -- what was sent before has arrived
      return tonumber(ruleset(net):match("counter packets (%d+)"))
    end
    reaches(guest, "fd00:30::1")
    assert.are.equal(1, send_tagged())
    must(nat.add(net.manager, entry))
    assert.is_false(pings(guest, "fd00:30::1"))
    assert.are.equal(1, send_tagged())
  end)

  it("keeps the guest from the metadata service, on the host and behind the uplink", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    support.ip(net.netns, "addr", "add", METADATA_IP .. "/32", "dev", "fcbr0")
    reaches(guest, METADATA_IP)
    must(nat.add(net.manager, entry))
    assert.is_false(pings(guest, METADATA_IP))
    support.ip(net.netns, "addr", "del", METADATA_IP .. "/32", "dev", "fcbr0")
    support.ip(net.netns, "route", "add", METADATA_IP, "via", SERVER_IP)
    support.ip(net.server, "addr", "add", METADATA_IP .. "/32", "dev", "eth0")
    assert.is_true(support.pings(net.netns, METADATA_IP)) -- the host may
    assert.is_false(pings(guest, METADATA_IP))
  end)

  it("without an uplink holds a guest to its address and forwards as before", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    entry.uplink = nil
    support.ip(net.server, "route", "add", "172.30.0.0/24", "via", UPLINK_IP)
    must(nat.add(net.manager, entry))
    reaches(guest, SERVER_IP)
    assert.are.same({ entry }, must(nat.list(net.manager)))
    support.ip(net.server, "route", "del", "172.30.0.0/24")
    assert.is_false(pings(guest, SERVER_IP)) -- no NAT
  end)

  it("holds a real VM to its address", function()
    local net <close> = network()
    local vm <close> = support.vm(net, { tap = "fctap2", boot_args = "ip=172.30.0.2" })
    local entry = { tap = vm.tap.name, address = "172.30.0.2", mac = "06:00:ac:1e:00:02",
      uplink = "up0", id = "vm" }
    must(nat.add(net.manager, entry))
    assert.is_true(support.pings(net.netns, "172.30.0.2"))
    entry.address = "172.30.0.3"
    must(nat.add(net.manager, entry))
    in_host(net, "ip", "neigh", "flush", "all")
    assert.is_false(support.pings(net.netns, "172.30.0.2"))
    entry.address = "172.30.0.2"
    must(nat.add(net.manager, entry))
    in_host(net, "ip", "neigh", "flush", "all") -- the host may have just given the guest up
    assert.is_true(support.pings(net.netns, "172.30.0.2"))
    assert.are.same({ entry }, must(nat.list(net.manager)))
    must(nat.remove(net.manager, { entry }))
  end)

  it("replaces what an earlier VM on this TAP had, and refuses an address that another has", function()
    local net <close> = network()
    must(nat.add(net.manager, entry_of(5)))
    local new = entry_of(5, { address = "172.30.0.50", mac = "06:00:00:00:00:50", id = "vm-b" })
    must(nat.add(net.manager, new))
    assert.are.same({ new }, must(nat.list(net.manager)))
    assert.is_nil(ruleset(net):find("172.30.0.5%f[%D]"))
    local before = ruleset(net)
    local err = fails("conflict", nat.add_all(net.manager,
      { entry_of(7), entry_of(6, { address = "172.30.0.50" }) }))
    assert.is_truthy(err.message:find("172.30.0.50, wanted for fctap6, is the address of fctap5 "
      .. "(VM vm-b)", 1, true))
    assert.are.equal(before, ruleset(net)) -- nothing of it
    -- One thing alone is enough to be another guest.
    for field, value in pairs{ mac = "06:00:00:00:00:51", id = "vm-c", uplink = "fctap9" } do
      if field == "uplink" then in_host(net, "ip", "link", "add", value, "type", "bridge") end
      new[field] = value
      must(nat.add(net.manager, new))
      assert.are.same({ new }, must(nat.list(net.manager)))
    end
    -- Two may swap: what goes and what comes is one transaction.
    must(nat.add_all(net.manager, { entry_of(2), entry_of(3) }))
    local two, three = entry_of(2, { address = "172.30.0.3" }), entry_of(3, { address = "172.30.0.2" })
    must(nat.add_all(net.manager, { two, three }))
    assert.are.same({ two, three, new }, sorted(must(nat.list(net.manager))))
  end)

  it("names the interfaces there are when the uplink is not among them", function()
    local net <close> = network()
    local err = fails("not_found", nat.add(net.manager, entry_of(5, { uplink = "eth9" })))
    assert.is_truthy(err.message:find("no uplink eth9; the interfaces here: fcbr0, up0", 1, true))
    assert.are.equal("", ruleset(net))
  end)

  it("lets nothing into the script that it does not mean", function()
    local net <close> = network()
    for _, changes in ipairs{
      { tap = "fc*" }, { tap = "a\"b" }, { tap = "a;b" }, { tap = ("x"):rep(16) }, { uplink = "up*" },
      { uplink = "fcbr0" }, { uplink = "" }, { uplink = "-" }, { mac = "01:00:00:00:00:05" }, { mac = "x" },
      { address = "172.30.0.1" }, { address = "10.0.0.1" }, { address = "0.0.0.0/0" },
      { id = "a b" }, { id = "x\"" }, { id = "" }, { id = ("x"):rep(65) },
    } do
      fails("invalid", nat.add(net.manager, entry_of(5, changes)))
    end
    fails("invalid", nat.add_all(net.manager, { entry_of(5), entry_of(5) }))
    fails("invalid", nat.add_all(net.manager, { entry_of(5), entry_of(6, { address = "172.30.0.5" }) }))
    raises("unknown option 'ip'", nat.add, net.manager, { ip = "x" })
    raises("address must be a string", nat.add, net.manager, { tap = "x", mac = "x", id = "x" })
    assert.are.equal("", ruleset(net))
    must(nat.add_all(net.manager, {}))
    assert.are.equal("", ruleset(net))
    local bare <close> = must(fcproc.new{ bridge_name = "fcbr0" })
    fails("invalid", nat.list(bare))
    fails("invalid", nat.check(net.manager, "up*"))
  end)

  it("mends what a flush of all rules took", function()
    local net <close> = network()
    local guest, entry = add_guest(net, 5)
    must(nat.add(net.manager, entry))
    in_host(net, "nft", "flush", "ruleset")
    assert.are.same({}, must(nat.list(net.manager)))
    must(nat.add(net.manager, entry))
    reaches(guest, SERVER_IP)
    -- Also when only one table is gone; and then the rest goes, too.
    local name = ruleset(net):match("table ip (%S+)")
    in_host(net, "nft", "delete", "table", "ip", name)
    must(nat.add(net.manager, entry))
    reaches(guest, SERVER_IP)
    in_host(net, "nft", "delete", "table", "ip", name)
    must(nat.remove(net.manager, { entry }))
    assert.are.equal("", ruleset(net))
  end)
end)

describe("nat.remove", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("takes the tables away with the last guest, and nothing of anybody else's", function()
    local net <close> = network()
    nft(net, [[
      table ip theirs {
        set s { type ipv4_addr; elements = { 10.0.0.1 }; }
      }
      table bridge theirs {
        chain c { type filter hook input priority 0; policy accept; }
      }
    ]])
    local theirs = ruleset(net)
    local guest, entry = add_guest(net, 5)
    local other <close> = must(fcproc.new{ bridge_name = "fcbr0", netns = net.netns,
      runtime_dir = net.folder:file("other") })
    must(nat.add_all(net.manager, { entry, entry_of(6), entry_of(7, { uplink = false }) }))
    must(nat.add(other, entry_of(8)))
    must(nat.remove(net.manager, { { tap = "fctap6" } }))
    must(nat.remove(net.manager, { entry_of(6), entry_of(9) })) -- gone, never there
    assert.are.same({ entry, entry_of(7, { uplink = false }) }, sorted(must(nat.list(net.manager))))
    reaches(guest, SERVER_IP)
    must(nat.remove(net.manager, must(nat.list(net.manager))))
    assert.are.same({}, must(nat.list(net.manager)))
    assert.are.same({ entry_of(8) }, must(nat.list(other))) -- of another runtime folder
    assert.is_false(pings(guest, SERVER_IP))
    must(nat.remove(other, { entry_of(8) }))
    assert.are.equal(theirs, ruleset(net))
    must(nat.remove(net.manager, { entry }))
    assert.are.equal(theirs, ruleset(net))
  end)

  it("leaves a TAP that has passed to another VM", function()
    local net <close> = network()
    must(nat.add(net.manager, entry_of(5, { id = "new" })))
    must(nat.remove(net.manager, { entry_of(5, { id = "old" }) }))
    assert.are.equal("new", must(nat.list(net.manager))[1].id)
    must(nat.remove(net.manager, { { tap = "fctap5", id = "new" } }))
    assert.are.equal("", ruleset(net))
  end)

  it("removes empty tables that a crash left", function()
    local net <close> = network()
    must(nat.add(net.manager, entry_of(5)))
    local name = ruleset(net):match("table ip (%S+)")
    nft(net, ("flush map bridge %s taps\nflush set bridge %s senders"):format(name, name))
    must(nat.remove(net.manager, {}))
    assert.are.equal("", ruleset(net))
  end)

  it("never takes the tables from under a guest that comes at the same time", function()
    local net <close> = network()
    for round = 1, 3 do
      local functions = {}
      for number = 10, 21 do
        functions[#functions + 1] = function(ctx)
          for _ = 1, 3 do
            must(nat.add(net.manager, entry_of(number), ctx))
            must(nat.remove(net.manager, { entry_of(number) }, ctx))
          end
          if number % 2 == round % 2 then must(nat.add(net.manager, entry_of(number), ctx)) end
        end
      end
      fcproc.run(functions)
      local left = must(nat.list(net.manager))
      assert.are.equal(6, #left)
      local again = {}
      for i, entry in ipairs(left) do
        again[i] = function(ctx) must(nat.remove(net.manager, { entry }, ctx)) end
      end
      fcproc.run(again)
      assert.are.equal("", ruleset(net))
    end
  end)
end)

describe("nat.check", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("finds nothing wrong, and changes nothing", function()
    local net <close> = network()
    local answers = must(nat.check(net.manager, "up0"))
    assert.are.equal(4, #answers)
    for _, answer in ipairs(answers) do
      assert.is_true(answer.ok, answer.name .. ": " .. answer.message)
      assert.is_nil(answer.fix)
    end
    assert.are.equal("", ruleset(net))
    must(nat.add(net.manager, entry_of(5)))
    local before = ruleset(net)
    for _, answer in ipairs(must(nat.check(net.manager, "up0"))) do assert.is_true(answer.ok) end
    assert.are.equal(before, ruleset(net))
  end)

  it("says that forwarding is off, and leaves it off", function()
    local net <close> = network()
    in_host(net, "sysctl", "-qw", "net.ipv4.ip_forward=0")
    local answer = found(must(nat.check(net.manager, "up0"))).ip_forward
    assert.is_false(answer.ok)
    assert.is_truthy(answer.fix:find("sysctl -w net.ipv4.ip_forward=1", 1, true))
    must(nat.add(net.manager, entry_of(5)))
    assert.are.equal("0\n", in_host(net, "cat", "/proc/sys/net/ipv4/ip_forward"))
  end)

  it("says that the uplink is missing, down, or without an address", function()
    local net <close> = network()
    local function answer(name) return found(must(nat.check(net.manager, name))).uplink end
    assert.is_truthy(answer("eth9").message:find("no uplink eth9; the interfaces here", 1, true))
    support.ip(net.netns, "addr", "flush", "dev", "up0")
    assert.is_truthy(answer("up0").message:find("no IPv4 address", 1, true))
    support.ip(net.netns, "link", "set", "up0", "down")
    assert.is_truthy(answer("up0").message:find("up0 is down", 1, true))
    assert.is_truthy(answer("up0").fix:find("ip link set dev up0 up", 1, true))
  end)

  it("says which firewall stops the guests, and the remedy that it names works", function()
    for _, rules in ipairs{
      -- As Docker leaves them; as a host's own; as RHEL's and firewalld's end.
      [[table ip filter {
        chain FORWARD { type filter hook forward priority 0; policy drop;
          oifname "docker0" ct state related,established accept
          iifname "docker0" oifname != "docker0" accept
        }
      }]],
      [[table inet site {
        chain f { type filter hook forward priority 0; policy drop; }
      }]],
      [[table inet site {
        chain f { type filter hook forward priority 10; policy accept;
          iifname "br-*" accept
          counter reject with icmpx admin-prohibited
        }
      }]],
    } do
      local net <close> = network()
      local guest, entry = add_guest(net, 5)
      nft(net, rules)
      local theirs = ruleset(net)
      must(nat.add(net.manager, entry))
      assert.is_false(pings(guest, SERVER_IP))
      local answer = found(must(nat.check(net.manager, "up0"))).forward_policy
      assert.is_false(answer.ok)
      local family, name, chain = rules:match("table (%S+) (%S+) {%s+chain (%S+)")
      assert.is_truthy(answer.message:find(("table %s %s, chain %s"):format(family, name, chain), 1, true))
      if name == "filter" then
        assert.is_truthy(answer.fix:find("iptables -I FORWARD -i fcbr0 -o up0 -j ACCEPT", 1, true))
        nft(net, [[insert rule ip filter FORWARD iifname fcbr0 oifname up0 counter accept
          insert rule ip filter FORWARD iifname up0 oifname fcbr0 ct state established counter accept]])
      else
        nft(net, (answer.fix:gsub("nft insert", "insert")))
      end
      reaches(guest, SERVER_IP)
      assert.is_true(found(must(nat.check(net.manager, "up0"))).forward_policy.ok)
      assert.is_truthy(theirs)
    end
  end)

  it("does not take rules about all but the bridge for the bridge's", function()
    local net <close> = network()
    local function is_open(rules)
      nft(net, "table inet site; delete table inet site; table inet site { chain f { type filter hook "
        .. "forward priority 0; policy drop; " .. rules .. "; }; }")
      return found(must(nat.check(net.manager, "up0"))).forward_policy.ok
    end
    assert.is_true(is_open("iifname fcbr0 accept; oifname fcbr0 accept"))
    assert.is_true(is_open("iifname { x, fcbr0 } accept; oifname fc* accept"))
    assert.is_false(is_open("iifname != fcbr0 accept; oifname fcbr0 accept"))
    assert.is_false(is_open("iifname fcbr0 accept; oifname != fcbr0 accept"))
  end)

  it("names Docker's own place for rules where there is one", function()
    local net <close> = network()
    nft(net, [[table ip filter {
      chain DOCKER-USER { return; }
      chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }
    }]])
    local answer = found(must(nat.check(net.manager, "up0"))).forward_policy
    assert.is_truthy(answer.fix:find("iptables -I DOCKER-USER -i fcbr0 -o up0 -j ACCEPT", 1, true))
    assert.is_truthy(answer.fix:find("iptables -I DOCKER-USER -i up0 -o fcbr0", 1, true))
  end)
end)

describe("NAT on a host that can't", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- A runner that answers for some commands, and runs the others.
  local function pretending(answers)
    local real = fcproc.runner()
    return { run = function(_, argv, opts, ctx)
      local answer = answers[table.concat(argv, " ")] or answers[argv[1]]
      if not answer then return real:run(argv, opts, ctx) end
      return real:run(answer, { input = opts.input }, ctx)
    end }
  end

  it("runs nft and ip beyond the reach of the terminal's Ctrl-C, which is for us", function()
    local seen, real = {}, fcproc.runner()
    local world <close> = support.bridged_world{ runner = { run = function(_, argv, opts, ctx)
      seen[argv[1]] = opts.session
      return real:run(argv, opts, ctx)
    end } }
    must(nat.check(world.manager, "fcbr1"))
    assert.are.same({ true, true }, { seen.nft, seen.ip })
  end)

  it("says that nft is not installed, and how to get it", function()
    local world <close> = support.bridged_world{ runner = pretending{ nft = { "no-such-nft" } } }
    for _, err in ipairs{ fails("not_found", nat.add(world.manager, entry_of(5, { uplink = false }) )),
      fails("not_found", nat.list(world.manager)) } do
      assert.is_truthy(err.message:find("nft is not installed", 1, true))
      assert.is_truthy(err.message:find("apt install nftables", 1, true))
    end
    local answers = found(must(nat.check(world.manager, "fcbr1")))
    assert.is_false(answers.nftables.ok)
    assert.is_nil(answers.forward_policy)
    assert.is_false(answers.ip_forward.ok)
  end)

  it("gives nft's own words when the kernel refuses, and says when it is for want of root", function()
    local world <close> = support.bridged_world{ runner = pretending{ ["nft -f -"] = { "sh", "-c",
      "echo '/dev/stdin:1:1-9: Error: Could not process rule: Operation not supported' >&2; exit 1" } } }
    local err = fails("exit_status", nat.add(world.manager, entry_of(5, { uplink = false })))
    assert.is_truthy(err.message:find("Could not process rule: Operation not supported", 1, true))
    assert.are.equal(1, err.status)
    local dir <close> = support.folder()
    local netns <close> = must(fcproc.new_netns())
    local refused = fails("permission", nat.list(must(fcproc.new{ bridge_name = "fcbr0",
      runtime_dir = dir.path, runner = { run = function(_, argv, opts, ctx)
        return fcproc.runner():run(argv, { uid = 65534, gid = 65534, netns = netns,
          input = opts.input }, ctx)
      end } })))
    assert.is_truthy(refused.message:find("needs root or CAP_NET_ADMIN", 1, true))
  end)

  it("ends with its context", function()
    local world <close> = support.bridged_world{ runner = pretending{ nft = { "sleep", "60" } } }
    local ctx <close> = must(fcproc.context{ timeout = 0.1 })
    fails("deadline", nat.list(world.manager, ctx))
    fails("deadline", nat.check(world.manager, "up0", ctx))
  end)

  it("reads the old iptables by their own command, and says when it can't", function()
    local function answer_with(rules)
      local world <close> = support.bridged_world{ runner = pretending{
        ["cat /proc/net/ip_tables_names"] = { "echo", "nat\nfilter" },
        ["iptables-legacy"] = rules and { "printf", rules } or { "no-such-iptables" } } }
      return found(must(nat.check(world.manager, "up0"))).forward_policy
    end
    assert.is_true(answer_with("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n").ok)
    local stopped = answer_with("-P INPUT ACCEPT\n-P FORWARD DROP\n")
    assert.is_false(stopped.ok)
    assert.is_truthy(stopped.fix:find("iptables-legacy -I FORWARD -i fcbr0 -o up0", 1, true))
    assert.is_true(answer_with("-P FORWARD DROP\n-A FORWARD -i fcbr0 -o up0 -j ACCEPT\n").ok)
    assert.is_truthy(answer_with(nil).message:find("nft can't show", 1, true))
  end)
end)
