-- What specs of NAT share: a host in a namespace of its own with a bridge and an uplink, guests on the
-- bridge (namespaces behind veth ports), and a server on the far side of the uplink.

local support = require "spec.support"
local fcproc = require "fcproc"

local must = support.must
local M = {}

M.UPLINK_IP, M.SERVER_IP = "10.9.0.1", "10.9.0.2"

---Runs a command in the host's namespace. Its stdout.
function M.in_host(net, ...) return support.sh({ ... }, { netns = net.netns }) end

---Gives nft a script there.
function M.nft(net, script)
  support.sh({ "nft", "-f", "-" }, { netns = net.netns, input = script })
end

---All rules there.
function M.ruleset(net) return M.in_host(net, "nft", "list", "ruleset") end

---A veth from the host, to an "eth0" in a new namespace.
function M.add_veth(net, name)
  local netns = must(fcproc.new_netns())
  net.opened[#net.opened + 1] = netns
  M.in_host(net, "ip", "link", "add", name, "up", "type", "veth", "peer", "name", "eth0", "netns",
    ("/proc/%d/fd/%d"):format(support.own_pid(), netns:fd()))
  support.ip(netns, "link", "set", "eth0", "up")
  return netns
end

---The host with its bridge, an uplink up0 and a server that knows no way back to the guests:
---`local net <close> = guests.network()`. make: what makes it, by default support.bridged_world.
function M.network(make)
  local net = (make or support.bridged_world)()
  net.opened = {}
  local close = getmetatable(net).__close
  setmetatable(net, { __close = function(self)
    for _, netns in ipairs(self.opened) do netns:close() end
    close(self)
  end })
  net.server = M.add_veth(net, "up0")
  support.ip(net.netns, "addr", "add", M.UPLINK_IP .. "/24", "dev", "up0")
  support.ip(net.server, "addr", "add", M.SERVER_IP .. "/24", "dev", "eth0")
  M.in_host(net, "sysctl", "-qw", "net.ipv4.ip_forward=1")
  return net
end

---What lets the guest of that number out. changes: other fields; uplink = false: none.
function M.entry_of(number, changes)
  local entry = { tap = "fctap" .. number, address = "172.30.0." .. number, uplink = "up0",
    mac = ("06:00:00:00:00:%02x"):format(number), id = "vm-" .. number }
  for key, value in pairs(changes or {}) do entry[key] = value end
  entry.uplink = entry.uplink or nil
  return entry
end

---A guest, and the entry that lets it out. The name of the bridge's port is the TAP's.
function M.add_guest(net, number)
  local entry = M.entry_of(number)
  local netns = M.add_veth(net, entry.tap)
  M.in_host(net, "ip", "link", "set", entry.tap, "master", "fcbr0")
  support.ip(netns, "link", "set", "eth0", "address", entry.mac)
  support.ip(netns, "addr", "add", entry.address .. "/24", "dev", "eth0")
  support.ip(netns, "route", "add", "default", "via", "172.30.0.1")
  return netns, entry
end

---Does the address answer? from: an address of the guest's; then the wait is short.
function M.pings(netns, address, from)
  return fcproc.runner():run({ "ping", "-c", "1", "-W", from and "0.5" or "1", "-I", from or "eth0",
    address }, { netns = netns }) ~= nil
end

---Sooner or later: a link that has just come up may lose the first packets.
function M.reaches(netns, address, from)
  support.eventually("a ping to " .. address, function() return M.pings(netns, address, from) end)
end

return M
