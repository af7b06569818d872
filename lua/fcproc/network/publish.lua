-- Published ports: what is sent to a port of this host is sent on to a guest. How they are written, and
-- whether a socket has one already.

local address = require "fcproc.network.address"
local errors = require "fcproc.error"
local nft = require "fcproc.network.nft"

local M = {}

local LOOPBACK, ANY = "127.0.0.1", "0.0.0.0"
M.ANY = ANY -- all of the host's addresses
local MOST = 256 -- of a VM: each has two leases
local PROTOCOLS = { tcp = true, udp = true }

---@class fcproc.Port
---@field address string      the host's that it is published at; "0.0.0.0": all of them
---@field port integer        the host's
---@field protocol "tcp"|"udp"
---@field guest_port integer

M.HOW = "it is written like \"8080:80\", \"127.0.0.1:5353:53/udp\" or \"0.0.0.0:8000-8009:80-89\""

local function range_of(text)
  local first, last = text:match("^(%d+)%-(%d+)$")
  first, last = tonumber(first or text:match("^%d+$")), tonumber(last or text:match("^%d+$"))
  if not first then return end
  first, last = math.tointeger(first), math.tointeger(last)
  if first and last and first >= 1 and last <= 65535 and first <= last then return first, last end
end

---The ports that a text stands for: "[ADDRESS:]PORT:GUEST_PORT[/udp]", where either port may be a range.
---@param text string
---@return fcproc.Port[]? ports
---@return string? complaint
function M.parse(text)
  local rest, protocol = text:match("^(.-)/(.*)$")
  rest, protocol = rest or text, protocol or "tcp"
  if not PROTOCOLS[protocol] then return nil, ("'%s' is neither tcp nor udp"):format(protocol) end
  if rest:find("[", 1, true) or rest:find("::", 1, true) then
    return nil, ("'%s': guests have IPv4 addresses, and ports are published at such alone"):format(text)
  end
  local host, outside, inside = rest:match("^(.+):([^:]+):([^:]+)$")
  if not host then outside, inside = rest:match("^([^:]+):([^:]+)$") end
  if not outside then
    return nil, ("'%s' does not name a port of the host and one of the guest: %s"):format(text, M.HOW)
  end
  host = host or LOOPBACK
  if not address.parse(host) then return nil, ("'%s' is no IPv4 address: %s"):format(host, M.HOW) end
  local first, last = range_of(outside)
  local to, to_last = range_of(inside)
  if not first or not to then
    return nil, ("'%s' is no port, 1 to 65535, and no range of such: %s"):format(first and inside or outside,
      M.HOW)
  end
  if last - first ~= to_last - to then
    return nil, ("'%s': the ranges %s and %s differ in length"):format(text, outside, inside)
  end
  if last - first >= MOST then return nil, ("'%s' has more than %d ports"):format(text, MOST) end
  local ports = {}
  for i = 0, last - first do
    ports[i + 1] = { address = host, port = first + i, protocol = protocol, guest_port = to + i }
  end
  return ports
end

---What is wrong with one that came from elsewhere.
---@param port fcproc.Port
---@return string? complaint
function M.complaint(port)
  local function fits(number) return math.type(number) == "integer" and number >= 1 and number <= 65535 end
  if PROTOCOLS[port.protocol] and fits(port.port) and fits(port.guest_port)
    and type(port.address) == "string" and address.parse(port.address) then
    return nil
  end
  return "a published port has an IPv4 address, two ports and tcp or udp"
end

---What it is at the host, for people and for comparison: "127.0.0.1:8080/tcp".
---@param port fcproc.Port
---@return string
function M.key(port)
  return ("%s:%d/%s"):format(port.address, port.port, port.protocol)
end

---Can both be? As of sockets, one at all addresses leaves none for others.
---@param a fcproc.Port
---@param b fcproc.Port
---@return boolean
function M.clash(a, b)
  return a.port == b.port and a.protocol == b.protocol
    and (a.address == b.address or a.address == ANY or b.address == ANY)
end

---Is it reached at the host's loopback?
---@param ports fcproc.Port[]
---@return boolean
function M.at_loopback(ports)
  for _, port in ipairs(ports) do
    if port.address == ANY or port.address:find("^127%.") then return true end
  end
  return false
end

---Is one reached from elsewhere?
---@param ports fcproc.Port[]
---@return boolean
function M.at_others(ports)
  for _, port in ipairs(ports) do
    if not port.address:find("^127%.") then return true end
  end
  return false
end

local function follows(a, b)
  return a.address == b.address and a.protocol == b.protocol and b.port == a.port + 1
    and b.guest_port == a.guest_port + 1
end

---All of them, for people, ranges as such: "127.0.0.1:8080->80/tcp, 0.0.0.0:53->53/udp".
---@param ports fcproc.Port[]
---@return string
function M.text(ports)
  local parts, i = {}, 1
  while i <= #ports do
    local first = ports[i]
    while ports[i + 1] and follows(ports[i], ports[i + 1]) do i = i + 1 end
    local last = ports[i]
    local range = last ~= first
    parts[#parts + 1] = ("%s:%d%s->%d%s/%s"):format(first.address, first.port,
      range and "-" .. last.port or "", first.guest_port, range and "-" .. last.guest_port or "",
      first.protocol)
    i = i + 1
  end
  return table.concat(parts, ", ")
end

---The UDP ports, as net:flush_conntrack has them: what was sent there before is remembered as sent to this
---host, and goes there for as long as it goes on.
---@param ports fcproc.Port[]
---@return string[]
function M.udp(ports)
  local list = {}
  for _, port in ipairs(ports) do
    if port.protocol == "udp" then list[#list + 1] = ("udp:%d"):format(port.port) end
  end
  return list
end

-- ---- sockets -------------------------------------------------------------------------------

-- What `ss` lists: protocol, address (of IPv6 that of an IPv4 one, or "*"), port, and who.
local function read_sockets(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local protocol, host, port = line:match("^(%l+)%s+%S+%s+%d+%s+%d+%s+(%S+):(%d+)%s")
    if protocol then
      host = host:gsub("%%.*$", ""):gsub("^%[::ffff:([%d.]+)%]$", "%1")
      list[#list + 1] = { protocol = protocol, address = host == "*" and ANY or host,
        port = math.tointeger(tonumber(port)), line = line }
    end
  end
  return list
end

local function who(line)
  local name, pid = line:match('users:%(%("([^"]*)",pid=(%d+)')
  if not name then return "a socket of another process" end
  return ("pid %s (%s)"):format(pid, errors.shown(name))
end

-- The first of the ports that a socket has.
local function taken(manager, ports, users, outside, ctx)
  local argv = { "ss", users and "-Hlntup" or "-Hlntu" }
  local text, err = nft.command(manager, "vm.publish", argv, nil, ctx, outside)
  if not text then return nil, err end
  local sockets = read_sockets(text)
  for i, port in ipairs(ports) do
    for _, socket in ipairs(sockets) do
      if M.clash(port, socket) then return port, socket, i end
    end
  end
  return false
end

---Is one in use by a socket of this host? Its connections would never reach it.
---@param manager fcproc.Manager
---@param ports fcproc.Port[]
---@param outside boolean  not in the manager's namespace, but where this process is
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT, with who has it
function M.check_sockets(manager, ports, outside, ctx)
  local found, socket = taken(manager, ports, false, outside, ctx)
  if found == nil then return nil, socket end
  if not found then return true end
  local port, seen = taken(manager, { found }, true, outside, ctx) -- who they are takes longer to find
  if not port then port, seen = found, socket end
  return nil, errors.new{ code = "conflict", op = "vm.publish", pid = math.tointeger(tonumber(
    seen.line:match("pid=(%d+)"))),
    message = ("publish: %s is in use by %s: end that, or publish another port"):format(M.key(port),
      who(seen.line)) }
end

return M
