-- What a VM is called on the network: the IPv4 arithmetic of the bridge's subnet, and names derived
-- from the VM's id and its runtime folder, so that the same VM gets the same address, MAC and TAP each
-- time, and one of another folder others. Nothing here asks the system: whether an address or a name is
-- taken is for the caller to see.

local errors = require "fcproc.error"
local hash_of = require "fcproc.hash"
local options = require "fcproc.options"

local M = {}

local byte = string.byte

local LONGEST, SHORTEST = 8, 30 -- prefixes: from 16 million hosts to one guest beside the gateway

local function invalid(op, format, ...)
  return nil, errors.new{ code = "invalid", op = op, message = format:format(...) }
end

M.hash = hash_of

---The number that a dotted IPv4 address stands for.
---@param text string  "172.30.0.5"; no leading zeros, which some read as octal
---@return integer? address
---@return fcproc.Error? err  ERR_INVALID
function M.parse(text)
  options.argument(text, "string", "address.parse", "text")
  local a, b, c, d = text:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$")
  if a and not text:find("%f[%d]0%d") then
    a, b, c, d = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
    if a <= 255 and b <= 255 and c <= 255 and d <= 255 then return a << 24 | b << 16 | c << 8 | d end
  end
  return invalid("address.parse", "'%s' is no IPv4 address: it is written like 172.30.0.5", text)
end

---@param address integer
---@return string
function M.format(address)
  return ("%d.%d.%d.%d"):format(address >> 24 & 255, address >> 16 & 255, address >> 8 & 255,
    address & 255)
end

---@class fcproc.Subnet
---@field network string
---@field broadcast string
---@field gateway string  the bridge's address
---@field netmask string
---@field prefix integer

-- The subnet that was asked for last, and what its addresses are as numbers: a manager has one
-- bridge, and each of its VMs asks.
local last = { subnet = {}, first = 0, size = 0, gateway = 0 }

---The subnet of the bridge's address. /31 and /32 are refused: they have no room for a guest
---beside the gateway.
---@param bridge_ip string
---@param prefix integer  8 to 30
---@return fcproc.Subnet? subnet
---@return fcproc.Error? err  ERR_INVALID
function M.subnet(bridge_ip, prefix)
  options.argument(prefix, "integer", "address.subnet", "prefix")
  if last.subnet.gateway == bridge_ip and last.subnet.prefix == prefix then return last.subnet end
  local gateway, err = M.parse(bridge_ip)
  if not gateway then return nil, err end
  if prefix < LONGEST or prefix > SHORTEST then
    return invalid("address.subnet", "guests can't be addressed in %s/%d: the prefix must be from "
      .. "%d to %d", bridge_ip, prefix, LONGEST, SHORTEST)
  end
  local mask = 0xffffffff << (32 - prefix) & 0xffffffff
  local network, broadcast = gateway & mask, gateway | ~mask & 0xffffffff
  if gateway == network or gateway == broadcast then
    return invalid("address.subnet", "%s is the %s address of its own /%d: give the bridge one "
      .. "between %s and %s", bridge_ip, gateway == network and "network" or "broadcast", prefix,
      M.format(network), M.format(broadcast))
  end
  last = { first = network + 1, size = broadcast - network - 1, gateway = gateway, subnet = {
    network = M.format(network), broadcast = M.format(broadcast), gateway = bridge_ip,
    netmask = M.format(mask), prefix = prefix,
  } }
  return last.subnet
end

-- The same as numbers.
local function numbers_of(subnet)
  if last.subnet == subnet then return last.first, last.size, last.gateway end
  local first = M.parse(subnet.network) + 1
  return first, M.parse(subnet.broadcast) - first, M.parse(subnet.gateway)
end

---Can a guest have this address?
---@param text string
---@param subnet fcproc.Subnet
---@return true?
---@return fcproc.Error? err  ERR_INVALID, with the reason
function M.check(text, subnet)
  local address, err = M.parse(text)
  if not address then return nil, err end
  for _, name in ipairs{ "network", "broadcast", "gateway" } do
    if text == subnet[name] then
      return invalid("address.check", "%s is the %s address of %s/%d: no guest can have it", text,
        name, subnet.network, subnet.prefix)
    end
  end
  if address < M.parse(subnet.network) or address > M.parse(subnet.broadcast) then
    return invalid("address.check", "%s is outside the bridge's subnet %s/%d", text, subnet.network,
      subnet.prefix)
  end
  return true
end

---All addresses that guests can have, each once, from a place that depends on folder and id: the first
---free one is the same at every start of this VM, as long as nobody else has taken it.
---
---    for candidate in address.candidates(subnet, runtime_dir, id) do
---      if not taken[candidate] then return candidate end
---    end
---@param subnet fcproc.Subnet
---@param runtime_dir string
---@param id string
---@return fun(): string?
function M.candidates(subnet, runtime_dir, id)
  options.argument(runtime_dir, "string", "address.candidates", "runtime_dir")
  options.argument(id, "string", "address.candidates", "id")
  local first, size, gateway = numbers_of(subnet)
  local start, step = (hash_of(runtime_dir, id) & 0xffffffff) % size, -1
  return function()
    local address
    repeat
      step = step + 1
      if step >= size then return nil end
      address = first + (start + step) % size
    until address ~= gateway
    return M.format(address)
  end
end

---@class fcproc.GuestArgument
---@field address string
---@field gateway string?
---@field netmask string?  default: that of the address's class
---@field hostname string
---@field device string?  default "eth0"
---@field dns string[]?   at most MOST_DNS; the guest's kernel shows them in /proc/net/pnp

M.MOST_DNS = 2

local argument_options = {
  address = "string", gateway = "string", netmask = "string", hostname = "string",
  device = "string", dns = "table",
}

local function check_name(name)
  if name:match("^[%w][%w._-]*$") and #name <= 64 then return true end
  return invalid("address.guest_argument", "'%s' can't be a name in the ip= argument: letters, "
    .. "digits, '.', '_' and '-', at most 64", name)
end

---The kernel argument that addresses a Linux guest before its init starts (needs CONFIG_IP_PNP):
---"ip=172.30.0.5::172.30.0.1:255.255.255.0:vm1:eth0:off".
---@param fields fcproc.GuestArgument
---@return string? argument
---@return fcproc.Error? err  ERR_INVALID: no address, or a name that would end the argument
function M.guest_argument(fields)
  options.check(fields, argument_options, "address.guest_argument")
  local device = fields.device or "eth0"
  local ok, err = M.parse(fields.address)
  if ok and fields.gateway then ok, err = M.parse(fields.gateway) end
  if ok and fields.netmask then ok, err = M.parse(fields.netmask) end
  if ok then ok, err = check_name(fields.hostname) end
  if ok then ok, err = check_name(device) end
  if not ok then return nil, err end
  local argument = ("ip=%s::%s:%s:%s:%s:off"):format(fields.address, fields.gateway or "",
    fields.netmask or "", fields.hostname, device)
  if not fields.dns then return argument end
  for _, text in ipairs(fields.dns) do
    ok, err = M.parse(text)
    if not ok then return nil, err end
    argument = argument .. ":" .. text
  end
  if #fields.dns <= M.MOST_DNS then return argument end
  return invalid("address.guest_argument", "%d name servers: the ip= argument has room for two",
    #fields.dns)
end

---The argument for one of a VM's interfaces.
---@param id string
---@param index integer  of the interface, from 1
---@param text string    its address
---@param subnet fcproc.Subnet?  nil: it is alone on its TAP
---@param dns string[]?
---@return string? argument
---@return fcproc.Error? err
function M.told(id, index, text, subnet, dns)
  return M.guest_argument{ address = text, gateway = subnet and subnet.gateway,
    netmask = subnet and subnet.netmask, hostname = id, device = "eth" .. (index - 1), dns = dns }
end

---A MAC for the guest's side: unicast, locally administered.
---@param runtime_dir string
---@param id string
---@param index integer?  of the VM's interface, from 0, the default
---@return string  "06:xx:xx:xx:xx:xx"
function M.mac(runtime_dir, id, index)
  options.argument(runtime_dir, "string", "address.mac", "runtime_dir")
  options.argument(id, "string", "address.mac", "id")
  local hash = hash_of(runtime_dir, id, index or 0)
  return ("06:%02x:%02x:%02x:%02x:%02x"):format(hash & 255, hash >> 8 & 255, hash >> 16 & 255,
    hash >> 24 & 255, hash >> 32 & 255)
end

local DIGITS = "0123456789abcdefghjkmnpqrstvwxyz" -- no i, l, o, u: names are read aloud

---The name of a VM's TAP: "fc" and 13 letters and digits, all that an interface's name has room
---for. VMs of different runtime folders get different ones.
---@param runtime_dir string
---@param id string
---@param index integer?  of the VM's interface, from 0, the default
---@return string
function M.tap_name(runtime_dir, id, index)
  options.argument(runtime_dir, "string", "address.tap_name", "runtime_dir")
  options.argument(id, "string", "address.tap_name", "id")
  local hash = hash_of(runtime_dir, id, index or 0)
  local letters = {}
  for i = 1, 13 do letters[i] = byte(DIGITS, (hash >> 5 * (i - 1) & 31) + 1) end
  return "fc" .. string.char(table.unpack(letters))
end

return M
