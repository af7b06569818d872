-- The rules of NAT, as text for nft. Two tables of one name, one pair for each bridge and runtime
-- folder:
--
--   bridge  what comes from a TAP in `taps` must bear the MAC and the address that `senders` holds
--           for this TAP, and may not go to the metadata service of the cloud that the host is in;
--           everything but IPv4 and ARP is dropped, untagged as a guest sends it. What another port
--           gets, not the host, is marked for the other table
--   ip      forwards from a guest to its uplink and answers back; what else would be forwarded from
--           or to a guest is dropped, unless somebody's DNAT rule sends it there, or it only crosses
--           the bridge
--
--
-- A guest is one element in each set, whatever their number, and no rule of its own; a published port is
-- one, too.

local M = {}

-- TCP between a guest and an uplink begins with segments that fit both ways, since not everybody on the
-- way says that a packet is too long.
--
-- Chains are flushed and filled again, since `add rule` would append to what is there; nobody sees
-- them empty. Guests do not reach each other through the host's routing either, which would go round
-- isolated ports.
-- With net.bridge.bridge-nf-call-iptables a frame from one port to another comes through `forward`
-- too, where nothing tells it from one that the host routes. Its type does before: "other" is what
-- neither bears the bridge's MAC nor that of its port, and so is not the host's. We make that
-- "multicast", since br_netfilter makes it "host"; the host routes nothing but "host", and behind the
-- hooks nobody asks. Comparing the MAC in `forward` would not do: the host takes frames for the port's
-- as well, and the MAC of a bridge that is not ours may change with its ports.
-- Firecracker's own metadata service (MMDS) has the same address, but answers before the TAP.
local BUILD = [[
add table bridge $name
add chain bridge $name guest
add map bridge $name taps { type ifname : verdict; }
add set bridge $name senders { type ifname . ether_addr . ipv4_addr; }
add set bridge $name guests { type ipv4_addr; }
add chain bridge $name prerouting { type filter hook prerouting priority -200; policy accept; }
flush chain bridge $name prerouting
flush chain bridge $name guest
add rule bridge $name prerouting meta pkttype other ip saddr @guests meta pkttype set multicast
add rule bridge $name prerouting meta pkttype other ip daddr @guests meta pkttype set multicast
add rule bridge $name prerouting iifname vmap @taps
add rule bridge $name guest ether type ip iifname . ether saddr . ip saddr @senders \
  ip daddr != 169.254.169.254 accept
add rule bridge $name guest ether type arp iifname . ether saddr . arp saddr ip @senders \
  iifname . arp saddr ether . arp saddr ip @senders accept
add rule bridge $name guest drop
add table ip $name
add set ip $name guests { type ipv4_addr; }
add set ip $name uplinks { type ipv4_addr . ifname; }
add chain ip $name forward { type filter hook forward priority 0; policy accept; }
add chain ip $name postrouting { type nat hook postrouting priority 100; policy accept; }
flush chain ip $name forward
flush chain ip $name postrouting
add rule ip $name forward iifname "$bridge" tcp flags & (syn | rst) == syn \
  tcp option maxseg size set rt mtu
add rule ip $name forward oifname "$bridge" tcp flags & (syn | rst) == syn \
  tcp option maxseg size set rt mtu
add rule ip $name forward ct state established,related accept
add rule ip $name forward iifname "$bridge" ip saddr . oifname @uplinks ct state new accept
add rule ip $name forward oifname "$bridge" ct status dnat accept
add rule ip $name forward iifname "$bridge" oifname "$bridge" meta pkttype != host accept
add rule ip $name forward iifname "$bridge" ip saddr @guests drop
add rule ip $name forward oifname "$bridge" ip daddr @guests drop
add rule ip $name postrouting ip saddr . oifname @uplinks masquerade
]]

-- Published ports: what this host sends itself, or gets from anywhere but the bridge, is sent on to the
-- guest. Those of one address are in `published`, those of all in `anywhere`; `ports` of the bridge's table
-- is the record. One on the host's loopback is for this host alone: a neighbour could else send to
-- 127.0.0.1 what is sent on before the kernel finds such an address odd.
--
-- What was sent from 127.0.0.1 leaves by the bridge, and its answers come back by it, only while the
-- bridge has route_localnet. With it a guest would reach the services on the host's loopback: so `loopback`
-- drops, before all else, what comes from the bridge to such an address or bears one.
local BUILD_PORTS = [[
add set bridge $name ports { type ifname . ipv4_addr . inet_proto . inet_service . inet_service; }
add map ip $name published { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
add map ip $name anywhere { type inet_proto . inet_service : ipv4_addr . inet_service; }
add chain ip $name loopback { type filter hook prerouting priority -300; policy accept; }
add chain ip $name inwards { type nat hook prerouting priority -100; policy accept; }
add chain ip $name output { type nat hook output priority -100; policy accept; }
add chain ip $name source { type nat hook postrouting priority 100; policy accept; }
flush chain ip $name loopback
flush chain ip $name inwards
flush chain ip $name output
flush chain ip $name source
add rule ip $name loopback iifname "$bridge" ip daddr 127.0.0.0/8 drop
add rule ip $name loopback iifname "$bridge" ip saddr 127.0.0.0/8 drop
add rule ip $name inwards iifname != "$bridge" ip daddr != 127.0.0.0/8 \
  dnat ip to ip daddr . meta l4proto . th dport map @published
add rule ip $name inwards iifname != "$bridge" ip daddr != 127.0.0.0/8 fib daddr type local \
  dnat ip to meta l4proto . th dport map @anywhere
add rule ip $name output dnat ip to ip daddr . meta l4proto . th dport map @published
add rule ip $name output fib daddr type local dnat ip to meta l4proto . th dport map @anywhere
add rule ip $name source oifname "$bridge" ip saddr 127.0.0.0/8 masquerade
]]

local ADD = [[
add element bridge $name taps { "$tap" : jump guest }
add element bridge $name senders { "$tap" . $mac . $address comment "$uplink $id" }
]]
local ADD_UPLINK = [[
add element bridge $name guests { $address }
add element ip $name guests { $address }
add element ip $name uplinks { $address . "$uplink" }
]]

-- A TAP or sender that is not there fails the transaction: then somebody else has changed it. What
-- goes with them may be missing; added first, it can be deleted.
local REMOVE = [[
delete element bridge $name taps { "$tap" }
delete element bridge $name senders { "$tap" . $mac . $address }
]]
local REMOVE_UPLINK = [[
add element bridge $name guests { $address }
delete element bridge $name guests { $address }
add element ip $name guests { $address }
delete element ip $name guests { $address }
add element ip $name uplinks { $address . "$uplink" }
delete element ip $name uplinks { $address . "$uplink" }
]]
local ADD_PORT = [[
add element bridge $name ports { "$tap" . $host . $protocol . $port . $to }
add element ip $name $map { $key : $address . $to }
]]
local REMOVE_PORT = [[
add element bridge $name ports { "$tap" . $host . $protocol . $port . $to }
delete element bridge $name ports { "$tap" . $host . $protocol . $port . $to }
add element ip $name $map { $key : $address . $to }
delete element ip $name $map { $key : $address . $to }
]]
local REMOVE_TABLES = [[
delete chain bridge $name guest
delete table bridge $name
add table ip $name
delete table ip $name
]]

local NO_UPLINK = "-" -- in a comment

M.ANY = "0.0.0.0" -- all of the host's addresses

---@class fcproc.NatTables
---@field manager fcproc.Manager
---@field op string
---@field name string
---@field bridge string

local function fill(template, tables, entry)
  return (template:gsub("%$(%l+)", function(name)
    return tables[name] or entry[name] or NO_UPLINK
  end))
end

-- Where a port's elements are: the set or map of the ip table, and its key there.
local function key_of(port)
  local key = ("%s . %d"):format(port.protocol, port.port)
  if port.address == M.ANY then return "anywhere", key end
  return "published", port.address .. " . " .. key
end

local function fill_ports(template, tables, entry)
  local parts = {}
  for i, port in ipairs(entry.ports or {}) do
    local map, key = key_of(port)
    parts[i] = fill(template, tables, { tap = entry.tap, address = entry.address, host = port.address,
      protocol = port.protocol, port = port.port, to = port.guest_port, map = map, key = key })
  end
  return table.concat(parts)
end

---Builds what is missing and changes nothing else.
---@param tables fcproc.NatTables
---@param ports boolean?  also what published ports need
---@return string script
function M.build(tables, ports)
  return fill(BUILD .. (ports and BUILD_PORTS or ""), tables, {})
end

---Lets a guest out. Its values have been checked: they are put in as they are.
---@param tables fcproc.NatTables
---@param entry fcproc.NatEntry
---@return string script
function M.add(tables, entry)
  return fill(ADD .. (entry.uplink and ADD_UPLINK or ""), tables, entry)
    .. fill_ports(ADD_PORT, tables, entry)
end

---Takes it back, exactly this one; fails when it is not there any more.
---@param tables fcproc.NatTables
---@param entry fcproc.NatEntry
---@return string script
function M.remove(tables, entry)
  return fill(REMOVE .. (entry.uplink and REMOVE_UPLINK or ""), tables, entry)
    .. fill_ports(REMOVE_PORT, tables, entry)
end

---Removes both tables; fails while there is a guest.
---@param tables fcproc.NatTables
---@return string script
function M.remove_tables(tables)
  return fill(REMOVE_TABLES, tables, {})
end

local function count_rules(script)
  local counts = {}
  for family, chain in script:gmatch("add rule (%l+) %$name (%l+)") do
    local key = family .. " " .. chain
    counts[key] = (counts[key] or 0) + 1
  end
  return counts
end

local COUNTS, PORT_COUNTS = count_rules(BUILD), count_rules(BUILD .. BUILD_PORTS)

---How many rules each chain has ("ip forward"), for whoever looks whether all is there that a guest needs.
---@param entry fcproc.NatEntry
---@return table<string, integer>
function M.counts(entry)
  return entry.ports and PORT_COUNTS or COUNTS
end

---What add puts into the sets, as text: each { set ("bridge taps"), element }.
---@param entry fcproc.NatEntry
---@return string[][]
function M.elements(entry)
  local address, uplink = entry.address, entry.uplink
  local list = { { "bridge taps", entry.tap },
    { "bridge senders", ("%s %s %s"):format(entry.tap, entry.mac, address) } }
  local function add(set, format, ...) list[#list + 1] = { set, format:format(...) } end
  if uplink then
    add("bridge guests", "%s", address)
    add("ip guests", "%s", address)
    add("ip uplinks", "%s %s", address, uplink)
  end
  for _, port in ipairs(entry.ports or {}) do
    local map, key = key_of(port)
    add("bridge ports", "%s %s %s %d %d", entry.tap, port.address, port.protocol, port.port, port.guest_port)
    add("ip " .. map, "%s %s %d", key:gsub(" %. ", " "), address, port.guest_port)
  end
  return list
end

---What an element of `ports` says.
---@param text string
---@return string? tap
---@return fcproc.Port port
function M.read_port(text)
  local tap, host, protocol, port, to = text:match("^(%S+) (%S+) (%S+) (%d+) (%d+)$")
  return tap, { address = host, port = math.tointeger(tonumber(port)), protocol = protocol,
    guest_port = math.tointeger(tonumber(to)) }
end

---What add has written beside a guest.
---@param comment string?
---@return string? uplink
---@return string? id
function M.read_comment(comment)
  local uplink, id = (comment or ""):match("^(%S+) (%S+)$")
  return uplink ~= NO_UPLINK and uplink or nil, id
end

return M
