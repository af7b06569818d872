-- What the kernel holds of NAT's tables: the guests, and whether all is there that belongs to one.
-- Somebody's `nft flush ruleset` takes all of it, another's script a table or a chain.

local nft = require "fcproc.network.nft"
local rules = require "fcproc.network.natrules"

local M = {}

---@class fcproc.NatState
---@field entries fcproc.NatEntry[]  the guests, as the bridge's table tells them
---@field exists boolean   is there a table of the bridge?
---@field complete boolean are both tables there, and at work?
---@field asleep boolean?  one has a flag that keeps it from its work
---@field text string      all of it, as it came
---@field elements table<string, table<string, true>>  by set ("bridge senders"), of both tables when
---                                                     all was asked for
---@field rules table<string, integer>  by chain ("ip forward"), the same
local State = {}
State.__index = State

-- An element of a set or map as text, and its comment.
local function read_element(item)
  local element = item.elem
  local value, comment = element and element.val or item, element and element.comment or nil
  if type(value) == "table" and not value.concat then value = value[1] end -- of a map, with its verdict
  local parts = type(value) == "table" and value.concat or { value }
  return table.concat(parts, " "), comment
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
  local state = setmetatable({ entries = {}, elements = {}, rules = {}, text = text }, State)
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
  state.exists = found.bridge == true
  state.complete = state.exists and found.ip == true and not state.asleep
  return state
end

---Is something missing that the guest needs, or in its way? Of a state that all was asked of.
---@param entry fcproc.NatEntry
---@return boolean
function State:lacks(entry)
  if self.asleep then return true end
  for chain, count in pairs(rules.counts) do
    if self.rules[chain] ~= count then return true end -- one more may let through what ours hold
  end
  for set, element in pairs(rules.elements(entry)) do
    if not (self.elements[set] or {})[element] then return true end
  end
  return false
end

return M
