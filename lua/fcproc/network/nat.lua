-- NAT: guests reach the world through a named uplink, and nothing else; and what is sent to a published
-- port of this host is sent on to a guest. The rules are in natrules.lua; whether the host forwards at all,
-- forwarding.lua tells.
--
-- Every change is one nft transaction that builds what is missing, so nobody sees half of it, and
-- one add repairs what a `nft flush ruleset` took. Nothing is kept here: the elements in the kernel,
-- with their comments, are the record.
--
-- The tables go with the last guest, without a lock: every element of `taps` jumps to the chain
-- `guest`, and the kernel refuses to delete a chain that something jumps to. So when another process
-- adds a guest after we have looked, our transaction fails as a whole, and we look again.

local address = require "fcproc.network.address"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local forwarding = require "fcproc.network.forwarding"
local is_mac = require("fcproc.manager.links").is_mac
local loop = require "fcproc.loop"
local nft = require "fcproc.network.nft"
local options = require "fcproc.options"
local publish = require "fcproc.network.publish"
local rules = require "fcproc.network.natrules"
local states = require "fcproc.network.natstate"

local M = {}

local ATTEMPTS = 30 -- each failed one means that another process has got on

---@class fcproc.NatEntry
---@field tap string
---@field address string  the guest's IPv4 address, in the bridge's subnet
---@field mac string      the guest's
---@field uplink string?  the interface that it may use; without one it is only held to its address
---@field id string       the VM's: letters, digits, ".", "_" and "-", at most 64
---@field ports fcproc.Port[]?  what this host sends on to the guest; see publish.lua

local entry_options = { tap = "string", address = "string", mac = "string", uplink = "string",
  id = "string", ports = "table" }
local OPTIONAL = { uplink = true, ports = true }

local function invalid(op, format, ...)
  return nil, errors.new{ code = "invalid", op = op, message = format:format(...) }
end

-- Names come into an nft script, where some letters mean something: a "*" at the end would take all
-- interfaces that begin like it.
local function check_name(op, name)
  local ok, err = core.check_ifname(name)
  if not ok then return nil, err end
  if name:match("^[%w_][%w._@+-]*$") then return true end
  return invalid(op, "the interface name '%s' can't be written in an nft rule: rename it", name)
end

-- The tables of this manager.
local function tables_of(manager, op)
  local c = manager.config
  for _, name in ipairs{ "bridge_name", "runtime_dir" } do
    if not c[name] then return invalid(op, "%s is not configured: give it to fcproc.new", name) end
  end
  local ok, err = check_name(op, c.bridge_name)
  if not ok then return nil, err end
  local hash = address.hash(c.bridge_name, c.runtime_dir) & 0xffffffff
  return { manager = manager, op = op, name = ("fcproc_%08x"):format(hash), bridge = c.bridge_name }
end

local function check_in_subnet(tables, entry)
  local config = tables.manager.config
  if not config.bridge_ip or core.address_family(config.bridge_ip) ~= 4 then return true end
  local subnet, err = address.subnet(config.bridge_ip, config.prefix)
  if not subnet then return nil, err end
  return address.check(entry.address, subnet)
end

-- The entry as it comes into scripts, if it can.
local function check_entry(tables, entry)
  local op = tables.op
  local ok, err = check_name(op, entry.tap)
  if ok and entry.uplink then ok, err = check_name(op, entry.uplink) end
  if ok then ok, err = address.parse(entry.address) end
  if not ok then return nil, err end
  if entry.uplink == tables.bridge then
    return invalid(op, "%s is the guests' bridge and can't be their uplink", entry.uplink)
  end
  if not is_mac(entry.mac) then
    return invalid(op, "'%s' is no unicast MAC address", entry.mac)
  end
  if not entry.id:match("^[%w._-]+$") or #entry.id > 64 then
    return invalid(op, "'%s' is no VM id: letters, digits, '.', '_' and '-', at most 64", entry.id)
  end
  for _, port in ipairs(entry.ports or {}) do
    local complaint = publish.complaint(port)
    if complaint then return invalid(op, "%s", complaint) end
  end
  return { tap = entry.tap, address = entry.address, mac = entry.mac:lower(),
    uplink = entry.uplink, id = entry.id, ports = entry.ports and entry.ports[1] and entry.ports or nil }
end

-- Looks, makes a script of what is there, applies it; again when somebody was quicker, or when the
-- script says so. An empty one is the end.
local function change(tables, all, make_script, ctx)
  ctx = loop.context(ctx)
  local seen, failure
  for _ = 1, ATTEMPTS do
    local now, err = states.look(tables, all, ctx)
    if not now then return nil, err end
    if now.text == seen then return nil, failure end -- nobody was: it is the kernel's last word
    local script, again = make_script(now)
    if not script then return nil, again end
    if script == "" then return true end
    local ok
    ok, err = nft.apply(tables.manager, tables.op, script, ctx)
    if ok and not again then return true end
    if not ok and err.code ~= "exit_status" then return nil, err end
    seen, failure = not ok and now.text or nil, err
  end
  return nil, failure or errors.new{
    code = "busy", op = tables.op,
    message = ("the guests of table %s changed %d times meanwhile"):format(tables.name, ATTEMPTS),
  }
end

local function check_uplinks(tables, entries, ctx)
  local wanted
  for _, entry in ipairs(entries) do wanted = wanted or entry.uplink end
  if not wanted then return true end
  local links, err = nft.links(tables.manager, tables.op, ctx)
  if not links then return nil, err end
  for _, entry in ipairs(entries) do
    local link = true
    if entry.uplink then link, err = forwarding.find_link(links, entry.uplink, tables.op) end
    if not link then return nil, err end
  end
  return true
end

local function same(a, b)
  if #(a.ports or {}) ~= #(b.ports or {}) then return false end
  local ports = {}
  for _, port in ipairs(a.ports or {}) do ports[publish.key(port)] = port.guest_port end
  for _, port in ipairs(b.ports or {}) do
    if ports[publish.key(port)] ~= port.guest_port then return false end
  end
  return a.tap == b.tap and a.mac == b.mac and a.address == b.address and a.uplink == b.uplink
    and a.id == b.id
end

-- Is there one that publishes?
local function any_ports(entries)
  for _, entry in ipairs(entries) do
    if entry.ports then return true end
  end
  return false
end

-- Takes out a guest that the kernel has, of which somebody may have removed a part.
local function take_out(tables, now, there)
  local whole = (now.elements["bridge taps"] or {})[there.tap]
  return (whole and "" or rules.add(tables, there)) .. rules.remove(tables, there)
end

-- What only one guest can have: its address, and each published port.
local function claims_of(entry)
  local claims = { entry.address }
  for _, port in ipairs(entry.ports or {}) do claims[#claims + 1] = publish.key(port) end
  return claims
end

-- Who wants what this one has.
local function rival_of(claimed, entry)
  for _, claim in ipairs(claims_of(entry)) do
    if claimed[claim] then return claimed[claim], claim end
  end
end

-- The script that brings in the wanted, and of those to be put back as many as can be: these have run
-- before, and whatever else claims their TAP, address or port was left over.
local function compose(tables, now, wanted, back)
  local script, taps, claimed, brought = { "" }, {}, {}, {}
  for i, list in ipairs{ wanted, back } do
    for _, entry in ipairs(list) do
      if i == 1 or not taps[entry.tap] and not rival_of(claimed, entry) then
        taps[entry.tap] = entry
        for _, claim in ipairs(claims_of(entry)) do claimed[claim] = { entry = entry, back = i == 2 } end
        brought[#brought + 1] = entry
      end
    end
  end
  for _, there in ipairs(now.entries) do
    local entry, rival, claim = taps[there.tap], rival_of(claimed, there)
    if entry and not same(entry, there) or not entry and rival and rival.back then
      script[#script + 1] = take_out(tables, now, there)
    elseif rival and not entry then
      return nil, errors.new{
        code = "conflict", op = tables.op,
        message = ("%s, wanted for %s, is %s %s (VM %s): take another, or remove that"):format(claim,
          rival.entry.tap, claim == there.address and "the address of" or "published for", there.tap,
          there.id or "unknown"),
      }
    end
  end
  script[1] = rules.build(tables, any_ports(brought) or any_ports(now.entries))
  for _, entry in ipairs(brought) do script[#script + 1] = rules.add(tables, entry) end
  return table.concat(script), nil, table.move(brought, #wanted + 1, #brought, 1, {})
end

-- Those that can be written into a script. They come from journals.
local function writable(tables, entries)
  local list = {}
  for _, entry in ipairs(entries) do list[#list + 1] = check_entry(tables, entry) end
  return list
end

---Lets several guests out, in one transaction. Those that are there stay, and a TAP whose guest had
---another address, MAC or uplink gets the new one. An uplink must exist; whether the host forwards
---at all, nat.check tells.
---@param manager fcproc.Manager
---@param entries fcproc.NatEntry[]
---@param ctx fcproc.Context?
---@param others (fun(): fcproc.NatEntry[])?  asked when the tables are not there, as after a flush of
---                                            all rules: guests that run, and are put back with these
---@return true?
---@return fcproc.NatEntry[]|fcproc.Error? back  those of others; or the error. ERR_NOT_FOUND: no such
---                            uplink, or no nft; ERR_CONFLICT: another TAP has the address; ERR_INVALID
function M.add_all(manager, entries, ctx, others)
  options.argument(entries, "table", "nat.add", "entries")
  local tables, err = tables_of(manager, "nat.add")
  if not tables then return nil, err end
  local wanted, taps, addresses, started = {}, {}, {}, core.now()
  for i, given in ipairs(entries) do
    options.check(given, entry_options, "nat.add")
    for name in pairs(entry_options) do
      if not OPTIONAL[name] then options.argument(given[name], "string", "nat.add", name) end
    end
    local entry, ok
    entry, err = check_entry(tables, given)
    if entry then ok, err = check_in_subnet(tables, entry) end
    if not ok then return nil, err end
    if taps[entry.tap] or addresses[entry.address] then
      return invalid("nat.add", "%s with %s is in the list twice", entry.tap, entry.address)
    end
    taps[entry.tap], addresses[entry.address], wanted[i] = entry, entry, entry
  end
  if #wanted == 0 then return true, {} end
  local ok, back
  ok, err = check_uplinks(tables, wanted, ctx)
  if not ok then return nil, err end
  ok, err = change(tables, false, function(now)
    local script, problem
    script, problem, back = compose(tables, now, wanted,
      not now.complete and others and writable(tables, others()) or {})
    return script, problem
  end, ctx)
  if not ok then return nil, err end
  manager:_log(started, "NAT added", { table = tables.name, guests = #wanted, first = wanted[1].id,
    address = wanted[1].address, uplink = wanted[1].uplink, put_back = #back > 0 and #back or nil })
  return true, back
end

---The same for one.
---@param manager fcproc.Manager
---@param entry fcproc.NatEntry
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.add(manager, entry, ctx)
  local ok, err = M.add_all(manager, { entry }, ctx)
  if not ok then return nil, err --[[@as fcproc.Error]] end
  return true
end

---These guests are out, in one transaction, and with the last one so are the tables. Those that are
---not there are fine. A TAP that has passed to another VM (the ids differ) stays; without an id, it
---goes whoever's it is.
---@param manager fcproc.Manager
---@param entries { tap: string, id: string? }[]  or what nat.list gives; none: only empty tables go
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.remove(manager, entries, ctx)
  options.argument(entries, "table", "nat.remove", "entries")
  local tables, err = tables_of(manager, "nat.remove")
  if not tables then return nil, err end
  local going, started, removed = {}, core.now(), 0
  for _, entry in ipairs(entries) do
    options.argument(entry.tap, "string", "nat.remove", "tap")
    going[entry.tap] = entry
  end
  local ok
  ok, err = change(tables, false, function(now)
    local script = { "" }
    for _, there in ipairs(now.entries) do
      local entry = going[there.tap]
      if entry and (not entry.id or not there.id or entry.id == there.id) then
        script[#script + 1] = take_out(tables, now, there)
      end
    end
    if not now.exists or #script == 1 and #now.entries > 0 then return "" end
    removed = removed + #script - 1
    script[1] = rules.build(tables, any_ports(now.entries))
    local last = #script - 1 == #now.entries
    if last then script[#script + 1] = rules.remove_tables(tables) end
    -- Two that each leave only the other's guest: whoever comes second finds the tables empty.
    return table.concat(script), not last
  end, ctx)
  if not ok then return nil, err end
  if removed > 0 then manager:_log(started, "NAT removed", { table = tables.name, guests = removed }) end
  return true
end

---What the kernel holds, so that what a crash left can be found.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return fcproc.NatEntry[]? entries
---@return fcproc.Error? err
function M.list(manager, ctx)
  local tables, err = tables_of(manager, "nat.list")
  if not tables then return nil, err end
  local now
  now, err = states.look(tables, false, loop.context(ctx))
  if not now then return nil, err end
  return now.entries
end

---Which of these guests, that run, the kernel does not hold, or not whole: they have no NAT, or may send
---under any address. One look for all.
---@param manager fcproc.Manager
---@param entries fcproc.NatEntry[]
---@param ctx fcproc.Context?
---@return fcproc.NatEntry[]? missing
---@return fcproc.Error? err
function M.missing(manager, entries, ctx)
  if #entries == 0 then return {} end
  local tables, err = tables_of(manager, "nat.missing")
  if not tables then return nil, err end
  local now
  now, err = states.look(tables, true, loop.context(ctx))
  if not now then return nil, err end
  local missing = {}
  for _, entry in ipairs(entries) do
    if now:lacks(entry) then missing[#missing + 1] = entry end
  end
  return missing
end

---Puts back what is missing of these guests, that run, in one transaction.
---@param manager fcproc.Manager
---@param entries fcproc.NatEntry[]
---@param ctx fcproc.Context?
---@return fcproc.NatEntry[]? back  those that were missing
---@return fcproc.Error? err
function M.put_back(manager, entries, ctx)
  if #entries == 0 then return {} end
  local tables, err = tables_of(manager, "nat.put_back")
  if not tables then return nil, err end
  local usable, started, back = writable(tables, entries), core.now(), {}
  local ok
  ok, err = change(tables, true, function(now)
    back = {}
    for _, entry in ipairs(usable) do
      if now:lacks(entry) then back[#back + 1] = entry end
    end
    if #back == 0 then return "" end
    return compose(tables, now, {}, usable)
  end, ctx)
  if not ok then return nil, err end
  if #back > 0 then
    manager:_log(started, "NAT put back", { table = tables.name, guests = #back, first = back[1].id })
  end
  return back
end

---Can guests get out through the uplink, and is what is sent to published ports let in? Each answer says
---what is wrong and what mends it. Nothing is changed.
---@param manager fcproc.Manager
---@param uplink string?
---@param ctx fcproc.Context?
---@return fcproc.NatCheck[]? answers  named "nftables", "ip_forward", "uplink", "forward_policy"
---@return fcproc.Error? err           cancelled, or the manager has no bridge: nothing was found out
function M.check(manager, uplink, ctx)
  if uplink ~= nil then options.argument(uplink, "string", "nat.check", "uplink") end
  local tables, err = tables_of(manager, "nat.check")
  local ok = tables
  if ok and uplink then ok, err = check_name("nat.check", uplink) end
  if not ok then return nil, err end
  return forwarding.check(manager, { bridge = tables.bridge, uplink = uplink,
    script = rules.build(tables) }, loop.context(ctx))
end

return M
