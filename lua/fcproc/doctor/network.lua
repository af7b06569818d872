-- doctor's checks of the network: bridges, nft, forwarding, the uplink, other people's firewalls,
-- the bridge's address and name. What must be tried is tried in a new network namespace. Each
-- returns its status, a message and perhaps a fix.

local core = require "fcproc.core"
local localnet = require "fcproc.resources.localnet"
local managers = require "fcproc.manager"
local own = require "fcproc.doctor.rootless"
local ports = require "fcproc.resources.ports"
local programs = require "fcproc.programs"
local relays = require "fcproc.resources.relay"
local ruleset = require "fcproc.doctor.ruleset"
local upkeep = require "fcproc.resources.upkeep"

local M = {}

local AS_ROOT = "run doctor as root, or with CAP_NET_ADMIN"

-- Namespaces of a user's own that nobody has made yet: in there is nothing of anybody.
local function is_unmade(host) return host:is_rootless() and not host.config.netns end

-- ---- bridges ------------------------------------------------------------------------------

---@param host fcproc.DoctorHost
function M.bridge(host)
  local netns <close>, err = host:scratch()
  if not netns then return host:no_scratch("bridges and TAPs", err --[[@as fcproc.Error]]) end
  local manager <close>, problem = managers.new{
    netns = netns, bridge_name = ("fcdoc%06x"):format(math.random(0, 0xffffff)),
    bridge_ip = "192.0.2.1", cidr = 24,
  }
  if not manager then return "fail", problem.message, AS_ROOT end
  local ok
  ok, err = manager:ensure_bridge(host.ctx)
  if not ok then
    return "fail", err.message, "modprobe bridge; in a container, load it on the host"
  end
  ok, err = manager:create_tap("fcdoctap", nil, host.ctx)
  if ok then ok, err = manager:delete_tap("fcdoctap", host.ctx) end
  if not ok then
    local status, message = "fail", err.message
    if err.code == "permission" then status, message = host:no_network(message) end
    return status, message, "see the check tun"
  end
  ok, err = manager:delete_bridge(host.ctx)
  if not ok then return "fail", err.message, AS_ROOT end
  return "ok", "a bridge with a TAP was made and deleted in a new network namespace"
    .. (host:is_rootless() and " of your own" or "")
end

-- ---- nft ----------------------------------------------------------------------------------

local NAT = [[
table ip fcproc_doctor {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 192.0.2.0/24 masquerade
  }
}
]]

---@param host fcproc.DoctorHost
function M.nft(host)
  -- Without it VMs run, and reach their host.
  local bad = host.opts.uplink and "fail" or "warn"
  local nft = programs.find("nft")
  if not nft then
    return bad, "there is no nft: guests can't be given the world by NAT", "apt-get install nftables"
  end
  local ok, err
  if not is_unmade(host) then
    ok, err = host:run({ nft, "list", "tables" }, { netns = host.config.netns })
    if not ok then return bad, err.message, AS_ROOT end
  end
  local netns <close>, problem = host:scratch()
  if not netns then return host:no_scratch("NAT", problem --[[@as fcproc.Error]]) end
  ok, err = host:run({ nft, "-f", "-" }, { netns = netns, input = NAT })
  if not ok then
    return bad, "masquerading can't be set up: " .. err.message,
      "modprobe nft_masq nft_chain_nat (kernel: CONFIG_NFT_MASQ, CONFIG_NFT_NAT)"
  end
  return "ok", nft .. " works; a masquerading table was made in a new network namespace"
end

-- ---- forwarding ---------------------------------------------------------------------------

local function where(host)
  return host.config.netns and " in the manager's network namespace" or ""
end

local function bridge_family(host)
  return host.config.bridge_ip and core.address_family(host.config.bridge_ip) or 4
end

---@param host fcproc.DoctorHost
function M.forwarding(host)
  if is_unmade(host) then return "ok", "namespaces of your own forward from their beginning on" end
  local name = bridge_family(host) == 6 and "net.ipv6.conf.all.forwarding" or "net.ipv4.ip_forward"
  local value = host:read_net("/proc/sys/" .. name:gsub("%.", "/"))
  if not value then
    return "warn", ("%s can't be read%s"):format(name, where(host)), "see that /proc is mounted"
  end
  if value:find("^[1-9]") then return "ok", ("%s is on%s"):format(name, where(host)) end
  return "warn", ("%s is off%s: guests reach this host, and nothing beyond it"):format(
    name, where(host)), ("sysctl -w %s=1, and the line %s=1 in /etc/sysctl.d/50-fcproc.conf"):format(
      name, name)
end

---@class fcproc.Route  of IPv4
---@field interface string
---@field network integer
---@field mask integer

---@param host fcproc.DoctorHost
---@return fcproc.Route[]
local function routes(host)
  local list = {}
  -- Addresses there are in the machine's own byte order.
  local function number(hex) return string.unpack(">I4", string.pack("=I4", tonumber(hex, 16))) end
  for interface, network, mask in (host:read_net("/proc/net/route") or "")
    :gmatch("([^%s]+)\t(%x%x%x%x%x%x%x%x)\t%x+\t%x+\t%d+\t%d+\t%d+\t(%x%x%x%x%x%x%x%x)") do
    list[#list + 1] = { interface = interface, network = number(network), mask = number(mask) }
  end
  return list
end

local function has_link(host, name)
  for link in (host:read_net("/proc/net/dev") or ""):gmatch("\n%s*([^%s:]+):") do
    if link == name then return true end
  end
  return false
end

---@param host fcproc.DoctorHost
function M.uplink(host)
  if host:is_rootless() then return own.uplink(host) end
  local name = host.opts.uplink
  if name and name ~= "auto" then
    local ok, err = core.check_ifname(name)
    if not ok then return "fail", err.message, "give the uplink as `ip link` names it" end
    if has_link(host, name) then return "ok", ("%s is there%s"):format(name, where(host)) end
    return "fail", ("there is no interface %s%s"):format(name, where(host)),
      "give the uplink as `ip link` names it"
  end
  for _, route in ipairs(routes(host)) do
    if route.mask == 0 then
      return "ok", ("the default route%s leaves by %s"):format(where(host), route.interface)
    end
  end
  return name and "fail" or "warn",
    ("there is no default route%s: guests reach no further than we do"):format(
    where(host)), "name the uplink, or give this host a default route"
end

-- ---- firewall -----------------------------------------------------------------------------

-- The old iptables, which nft does not show.
local function legacy_drop(host)
  local names = host:read_net("/proc/net/ip_tables_names") or ""
  local program = names:find("filter", 1, true) and programs.find("iptables-legacy")
  local result = program and host:run({ program, "-S", "FORWARD" }, { netns = host.config.netns })
  return result and result.stdout:find("-P FORWARD DROP", 1, true) ~= nil
end

---@param host fcproc.DoctorHost
function M.firewall(host)
  local bridge = host.config.bridge_name or "fcbr0"
  if is_unmade(host) then return "ok", "in namespaces of your own nobody's firewall drops anything" end
  local nft = programs.find("nft")
  if not nft then
    return "warn", "other people's firewall can't be looked at without nft", "apt-get install nftables"
  end
  local result, err = host:run({ nft, "-j", "list", "ruleset" }, { netns = host.config.netns })
  if not result then return "warn", "the firewall can't be looked at: " .. err.message, AS_ROOT end
  local blocks = ruleset.blocking(result.stdout, bridge)
  if not blocks then
    return "warn", "nft -j list ruleset did not answer with a ruleset", "use nft 0.9.1 or newer"
  end
  local names, fixes = {}, {}
  for _, block in ipairs(blocks) do
    names[#names + 1] = block.name
    fixes[#fixes + 1] = block.fix
  end
  if legacy_drop(host) then
    names[#names + 1] = "iptables-legacy FORWARD"
    fixes[#fixes + 1] = ("iptables-legacy -I FORWARD -i %s -j ACCEPT; iptables-legacy -I FORWARD -o %s "
      .. "-j ACCEPT"):format(bridge, bridge)
  end
  if #names == 0 then return "ok", "nobody's firewall drops what is forwarded from " .. bridge end
  local bridged = host:read_net("/proc/sys/net/bridge/bridge-nf-call-iptables") or ""
  return "warn", ("%s drops what is forwarded, and has no rule for %s: guests reach nothing beyond "
    .. "this host%s; an accept in another table does not help"):format(table.concat(names, " and "),
      bridge, bridged:find("^1") and ", nor each other (bridge-nf-call-iptables is on)" or ""),
    table.concat(fixes, "; ")
end

-- What we have put into the kernel ourselves, and who restarts his firewall may have taken away.
---@param host fcproc.DoctorHost
function M.nat(host)
  local missing, count = upkeep.missing(host.manager, host.ctx)
  if not missing then
    local err = count --[[@as fcproc.Error]]
    return "warn", "whether the guests' NAT is in place can't be told: " .. err.message, AS_ROOT
  end
  if #missing > 0 then return "fail", upkeep.explain(missing) end
  if count == 0 then return "ok", "no VM that runs has NAT" end
  return "ok", ("the kernel holds the NAT of the VMs that run, %d interfaces"):format(count)
end

-- With it guests reach what listens at the host's loopback alone, unless that is dropped before.
---@param host fcproc.DoctorHost
function M.localnet(host)
  local bridge, on = host.config.bridge_name or "fcbr0", nil
  if host:is_rootless() then
    local lost = relays.lost(host.manager)
    if #lost == 0 then return "ok", "ports of your own namespaces' VMs are published without it" end
    return "fail", ("the relay of published ports has ended: those of %s lead nowhere"):format(
      table.concat(lost, ", ")), "fcproc.vm.reclaim starts it again"
  end
  for _, name in ipairs(has_link(host, bridge) and { bridge, "all" } or {}) do
    local value = host:read_net(("/proc/sys/net/ipv4/conf/%s/route_localnet"):format(name))
    on = on or value and value:find("^[1-9]") and name
  end
  if not on then return "ok", "guests' packets to a loopback address are none of this host's" end
  local nft = programs.find("nft")
  local result, err = nil, nil
  if nft then result, err = host:run({ nft, "-j", "list", "ruleset" }, { netns = host.config.netns }) end
  local guarded = result and ruleset.guards_loopback(result.stdout, bridge)
  if guarded then
    return "ok", ("route_localnet is on, and what %s sends to 127.0.0.0/8 is dropped"):format(bridge)
  end
  local message = ("net.ipv4.conf.%s.route_localnet is on%s, and no rule drops what %s sends to 127.0.0.0/8")
    :format(on, where(host), bridge)
  if guarded == nil then
    return "warn", message .. ", as far as can be seen: " .. (err and err.message or "there is no nft"),
      AS_ROOT
  end
  message = message .. ": guests reach what listens at this host's loopback alone"
  if on == bridge and host.config.runtime_dir and localnet.is_ours(host.manager) then
    return "fail", message, "fcproc net up puts our rule back for VMs that run, as "
      .. "fcproc.vm.ensure_nat(manager) does; where none does, fcproc reclaim switches route_localnet off"
  end
  return "fail", message, ("sysctl -w net.ipv4.conf.%s.route_localnet=0"):format(on)
end

-- Others may have taken a guest's TAP off the bridge, or down.
---@param host fcproc.DoctorHost
function M.taps(host)
  local found, err = ports.wrong(host.manager, host.ctx)
  if not found then
    return "warn", "the TAPs of the VMs can't be looked at: " .. err.message,
      host:is_rootless() and "see the check runtime" or AS_ROOT
  end
  if #found == 0 then return "ok", "the TAPs of the VMs that run are up, and where they belong" end
  return "fail", ports.explain(found, host.config.bridge_name)
end

-- ---- address and names --------------------------------------------------------------------

local function ipv4(number)
  return ("%d.%d.%d.%d"):format(number >> 24, number >> 16 & 255, number >> 8 & 255, number & 255)
end

---@param host fcproc.DoctorHost
function M.address(host)
  local address, prefix = host.config.bridge_ip, host.config.prefix
  if not address then
    return "ok", "no bridge_ip is configured: the bridge joins guests, not this host"
  end
  local full = ("%s/%d"):format(address, prefix)
  if prefix >= (bridge_family(host) == 4 and 31 or 127) then
    return "warn", ("%s leaves at most one address for guests"):format(full),
      "choose a shorter prefix, such as 24"
  end
  if bridge_family(host) == 6 then
    return "ok", full .. ": guests get no address from fcproc, which gives IPv4 ones alone"
  end
  local number = 0
  for byte in address:gmatch("%d+") do number = number << 8 | tonumber(byte) end
  local mask = 0xffffffff << (32 - prefix) & 0xffffffff
  local network, host_bits = number & mask, number & ~mask & 0xffffffff
  if host_bits == 0 or host_bits == ~mask & 0xffffffff then
    return "fail", ("%s is the %s address of its network, which no host can have"):format(full,
      host_bits == 0 and "first" or "broadcast"), "use the one after it: "
      .. ipv4(network + 1)
  end
  for _, route in ipairs(routes(host)) do
    local common = route.mask & mask
    if route.mask ~= 0 and route.interface ~= host.config.bridge_name
      and route.network & common == network & common then
      return "warn", ("%s overlaps with a network that %s leads to%s: one of them will not be "
        .. "reached"):format(full, route.interface, where(host)),
        "choose another bridge_ip (look at `ip route`)"
    end
  end
  return "ok", ("%s: %d addresses for guests, and no other route there"):format(full,
    (~mask & 0xffffffff) - 2)
end

---@param host fcproc.DoctorHost
function M.names(host)
  local name = host.config.bridge_name
  if not name then return "warn", "bridge_name is not configured", "give bridge_name to fcproc.new" end
  local ok, err = core.check_ifname(name)
  if not ok then return "fail", err.message, "choose a bridge_name of at most 15 bytes" end
  local taps
  taps, err = host.manager:list_taps(host.ctx)
  if not taps then
    return "fail", err.message, err.code == "conflict" and "choose another bridge_name" or AS_ROOT
  end
  -- nft reads a star as "whatever follows", and sysctl a full stop as a folder.
  if name:find("[^%w_-]") then
    return "warn", ("the bridge's name %s has letters in it that nft and sysctl read differently")
      :format(name), "use letters, digits, - and _ in bridge_name"
  end
  return "ok", ("%s is %s, %d of 15 bytes"):format(name,
    has_link(host, name) and "our bridge" or "free", #name)
end

return M
