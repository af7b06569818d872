-- What the kernel holds of NAT's tables: the guests, and whether all is there that belongs to one.
-- Somebody's `nft flush ruleset` takes all of it, another's script a table or a chain.

local nft = require "fcproc.network.nft"
local rules = require "fcproc.network.natrules"

local M = {}

---@class fcproc.NatState
---@field entries fcproc.NatEntry[]  the guests, as the bridge's table tells them
---@field ports { tap: string, port: fcproc.Port }[]
---@field exists boolean   is there a table of the bridge?
---@field complete boolean are both tables there, and at work?
---@field asleep boolean?  one has a flag that keeps it from its work
---@field text string      all of it, as it came
---@field elements table<string, table<string, true>>  by set ("bridge senders"), of both tables when
---                                                     all was asked for
---@field rules table<string, integer>  by chain ("ip forward"), the same
local State = {}
State.__index = State

-- An element of a set or map as text, what it leads to among it, but a verdict; and its comment.
local function read_element(item)
  local element = item.elem
  local value, comment = element and element.val or item, element and element.comment or nil
  local mapped = {}
  if type(value) == "table" and not value.concat then
    value, mapped = value[1], type(value[2]) == "table" and value[2].concat or {}
  end
  local words = {}
  for _, parts in ipairs{ type(value) == "table" and value.concat or { value }, mapped } do
    for _, part in ipairs(parts) do
      words[#words + 1] = type(part) == "number" and ("%d"):format(part) or part
    end
  end
  return table.concat(words, " "), comment
end

local function read_set(state, set)
  local key = set.family .. " " .. set.name
  state.elements[key] = {}
  for _, item in ipairs(set.elem or {}) do
    local text, comment = read_element(item)
    state.elements[key][text] = true
    if key == "bridge senders" then
      local tap, mac, address = text:match("^(%S+) (%S+) (%S+)$")
      local uplink, id = rules.read_comment(comment)
      state.entries[#state.entries + 1] = { tap = tap, mac = mac, address = address, id = id,
        uplink = uplink }
    elseif key == "bridge ports" then
      local tap, port = rules.read_port(text)
      state.ports[#state.ports + 1] = { tap = tap, port = port }
    end
  end
end

local function add_ports(state)
  local by_tap = {}
  for _, entry in ipairs(state.entries) do by_tap[entry.tap] = entry end
  for _, found in ipairs(state.ports) do
    local entry = by_tap[found.tap]
    if entry then
      entry.ports = entry.ports or {}
      table.insert(entry.ports, found.port)
    end
  end
end

---Looks, in one go. Asking for a table that is not there is a failure like any other, so all tables of
---the families are listed.
---@param tables fcproc.NatTables
---@param all boolean  also what is in the ip table: for lacks, which needs more time on a host with
---                    many rules
---@param ctx fcproc.Context?
---@return fcproc.NatState? state
---@return fcproc.Error? err
function M.look(tables, all, ctx)
  local objects, text = nft.list(tables.manager, tables.op,
    all and "list ruleset bridge; list ruleset ip" or "list ruleset bridge; list tables ip", ctx)
  if not objects then return nil, text --[[@as fcproc.Error]] end
  local state = setmetatable({ entries = {}, ports = {}, elements = {}, rules = {}, text = text }, State)
  local found = {}
  for _, object in ipairs(objects) do
    local table_of, set, rule = object.table, object.set or object.map, object.rule
    if table_of and table_of.name == tables.name then
      found[table_of.family] = true
      state.asleep = state.asleep or table_of.flags ~= nil -- "dormant": we give it none
    end
    if set and set.table == tables.name then read_set(state, set) end
    if rule and rule.table == tables.name then
      local key = rule.family .. " " .. rule.chain
      state.rules[key] = (state.rules[key] or 0) + 1
    end
  end
  add_ports(state)
  state.exists = found.bridge == true
  state.complete = state.exists and found.ip == true and not state.asleep
  return state
end

---Is something missing that the guest needs, or in its way? Of a state that all was asked of.
---@param entry fcproc.NatEntry
---@return boolean
function State:lacks(entry)
  if self.asleep then return true end
  for chain, count in pairs(rules.counts(entry)) do
    if self.rules[chain] ~= count then return true end -- one more may let through what ours hold
  end
  for _, wanted in ipairs(rules.elements(entry)) do
    if not (self.elements[wanted[1]] or {})[wanted[2]] then return true end
  end
  return false
end

return M
