-- Reads nft's ruleset in JSON for what drops the guests' packets: those that are forwarded, and those to the
-- host's loopback. A packet must pass the chains of every table at the hook, so that an accept elsewhere does
-- not save it.

local cjson = require "cjson.safe"

local M = {}

-- The interface that a rule's expression compares in this direction, is one of these.
local function compares(expression, key, name)
  local match = type(expression.match) == "table" and expression.match
  local left = match and type(match.left) == "table" and match.left.meta
  if type(left) ~= "table" or left.key ~= key or match.op == "!=" then return false end
  local right = match.right
  if type(right) == "table" then
    for _, one in ipairs(type(right.set) == "table" and right.set or {}) do
      if one == name then return true end
    end
    return false
  end
  return right == name
end

-- The directions ("in", "out") in which a rule accepts the bridge's packets. Established
-- connections alone are enough for the way back.
local function accepts(rule, bridge)
  local accept, from, to, state, other = false, false, false, false, false
  for _, expression in ipairs(rule.expr or {}) do
    if expression.accept ~= nil then
      accept = true
    elseif compares(expression, "iifname", bridge) then
      from = true
    elseif compares(expression, "oifname", bridge) then
      to = true
    elseif expression.match then
      local left = type(expression.match) == "table" and expression.match.left
      local ct = type(left) == "table" and left.ct
      if type(ct) == "table" and ct.key == "state" then state = true else other = true end
    end
  end
  if not accept then return false, false end
  return from and not state, to or (state and not from and not other)
end

-- Does the rule end every packet's way: drop or reject without a condition?
local function ends_all(rule)
  local ends = false
  for _, expression in ipairs(rule.expr or {}) do
    if expression.drop ~= nil or expression.reject ~= nil then
      ends = true
    elseif expression.match ~= nil or expression.vmap ~= nil or expression.xt ~= nil
      or expression.limit ~= nil then
      return false
    end
  end
  return ends
end

-- Where a rule of the user's belongs: Docker asks for its own chain.
local function fix_for(chain, names, bridge)
  local place = names["DOCKER-USER"] and "DOCKER-USER" or chain.name
  local rule = "nft insert rule %s %s %s %s %s accept"
  return rule:format(chain.family, chain.table, place, "iifname", bridge) .. "; "
    .. rule:format(chain.family, chain.table, place, "oifname", bridge)
end

-- Does the rule drop, without another condition, what comes from the bridge for this host's loopback?
local function drops_loopback(rule, bridge)
  local from, to, drop = false, false, false
  for _, expression in ipairs(rule.expr or {}) do
    local match = type(expression.match) == "table" and expression.match
    local left = match and type(match.left) == "table" and match.left.payload
    local prefix = match and type(match.right) == "table" and match.right.prefix
    if compares(expression, "iifname", bridge) then
      from = true
    elseif match and match.op == "==" and type(left) == "table" and left.protocol == "ip"
      and left.field == "daddr" and type(prefix) == "table" and prefix.addr == "127.0.0.0"
      and prefix.len == 8 then
      to = true
    elseif match then
      return false
    end
    drop = drop or expression.drop ~= nil
  end
  return from and to and drop
end

local BEFORE_NAT = -100 -- priority dstnat

---Is what the bridge's guests send to 127.0.0.0/8 dropped before it is this host's?
---@param text string    what `nft -j list ruleset` printed
---@param bridge string
---@return boolean?  nil when the text is no ruleset
function M.guards_loopback(text, bridge)
  local decoded = cjson.decode(text)
  local list = type(decoded) == "table" and decoded.nftables
  if type(list) ~= "table" then return nil end
  local asleep, early = {}, {}
  local function table_of(object) return object.family .. " " .. object.table end
  for _, item in ipairs(list) do
    local chain = item.chain
    if item.table and item.table.flags then
      asleep[item.table.family .. " " .. item.table.name] = true -- dormant
    elseif chain and chain.hook == "prerouting" and (chain.prio or 0) < BEFORE_NAT then
      early[table_of(chain) .. " " .. chain.name] = chain.family == "ip" or chain.family == "inet"
    elseif item.rule and early[table_of(item.rule) .. " " .. item.rule.chain]
      and not asleep[table_of(item.rule)] and drops_loopback(item.rule, bridge) then
      return true
    end
  end
  return false
end

---@class fcproc.Block
---@field name string  "ip filter FORWARD (policy drop)"
---@field fix string   the commands that let the bridge's packets through

---The chains that drop what the bridge forwards; an empty list is good news.
---@param text string    what `nft -j list ruleset` printed
---@param bridge string
---@return fcproc.Block[]?  nil when the text is no ruleset
function M.blocking(text, bridge)
  local decoded = cjson.decode(text)
  local list = type(decoded) == "table" and decoded.nftables
  if type(list) ~= "table" then return nil end
  local chains, names, rules = {}, {}, {} -- by table
  for _, item in ipairs(list) do
    if item.chain then
      local key = item.chain.family .. " " .. item.chain.table
      names[key] = names[key] or {}
      names[key][item.chain.name] = true
      if item.chain.hook == "forward" and item.chain.family ~= "bridge" then
        chains[#chains + 1] = item.chain
      end
    elseif item.rule then
      local key = item.rule.family .. " " .. item.rule.table
      rules[key] = rules[key] or {}
      table.insert(rules[key], item.rule)
    end
  end
  local blocks = {}
  for _, chain in ipairs(chains) do
    local key = chain.family .. " " .. chain.table
    local why = chain.policy == "drop" and "policy drop"
    local way_in, way_out = false, false
    for _, rule in ipairs(rules[key] or {}) do
      local from, to = accepts(rule, bridge)
      way_in, way_out = way_in or from, way_out or to
      if rule.chain == chain.name and ends_all(rule) then why = why or "its last rule" end
    end
    if why and not (way_in and way_out) then
      blocks[#blocks + 1] = {
        name = ("%s %s (%s)"):format(key, chain.name, why), fix = fix_for(chain, names[key], bridge),
      }
    end
  end
  return blocks
end

return M
