-- The TAPs of VMs that run, as somebody else may have left them: off the bridge, down, or gone. Such a
-- guest reaches nobody, and nothing in it tells why. Only told, as for a network that people change.

local lives = require "fcproc.resources.life"
local journals = require "fcproc.resources.journal"
local loop = require "fcproc.loop"
local namespaces = require "fcproc.resources.namespaces"

local M = {}

local MOST_NAMED = 8 -- in a message

---@class fcproc.PortProblem
---@field id string    the VM's
---@field tap string
---@field what "off the bridge"|"down"|"gone"
---@field attach boolean?  it belongs on the bridge

local function by_name(list)
  local map = {}
  for _, tap in ipairs(list) do map[tap.name] = tap end
  return map
end

local function append(found, taps, manager, record)
  local alive
  for _, tap in ipairs(record.netns == namespaces.of(manager) and record.taps or {}) do
    local there = taps.all[tap.name]
    local what = not there and "gone"
      or tap.attach and there.master ~= taps.bridge and "off the bridge"
      or not there.up and "down"
    if what and alive == nil then
      alive = lives.is_alive(record, manager.config.without)
    end
    if what and alive then
      found[#found + 1] = { id = record.id, tap = tap.name, what = what, attach = tap.attach }
    end
  end
end

---What is wrong with the TAPs of the VMs that run.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@param only table?  the record of the one VM to look at
---@return fcproc.PortProblem[]? found
---@return fcproc.Error? err
function M.wrong(manager, ctx, only)
  local found = {}
  if not (manager.config.bridge_name and manager.config.runtime_dir) then return found end
  if only and not (only.taps or {})[1] then return found end
  local all, err = manager.net:list_taps(nil, ctx)
  if not all then return nil, err end
  local bridge
  bridge, err = manager.net:link_index(manager.config.bridge_name)
  if err then return nil, err end
  local taps = { all = by_name(all), bridge = bridge or 0 } -- nothing is on one that is gone
  local records
  records, err = journals.records(manager, only)
  if not records then return nil, err end
  for _, record in ipairs(records) do append(found, taps, manager, record) end
  return found
end

---In words, for people.
---@param found fcproc.PortProblem[]
---@param bridge string
---@return string message
---@return string fix
function M.explain(found, bridge)
  local texts, fixes = {}, {}
  for i, one in ipairs(found) do
    if i > MOST_NAMED then
      texts[#texts + 1] = ("and %d more"):format(#found - MOST_NAMED)
      break
    end
    texts[i] = ("%s of %s is %s"):format(one.tap, one.id, one.what)
    fixes[i] = one.what == "gone" and ("stop %s and launch it again"):format(one.id)
      or ("ip link set %s %sup"):format(one.tap, one.attach and ("master %s "):format(bridge) or "")
  end
  return table.concat(texts, ", ") .. ": such a guest reaches nobody", table.concat(fixes, "; ")
end

---For the information on one VM.
---@param manager fcproc.Manager
---@param record table
---@param ctx fcproc.Context?
---@return fcproc.VmWarning? warning
---@return fcproc.Error? err  only the context's
function M.warning(manager, record, ctx)
  local found = M.wrong(manager, ctx, record)
  if not found then -- what else there is to tell is told all the same
    local ok, err = loop.check(ctx)
    return nil, not ok and err or nil
  end
  if #found == 0 then return end
  local message, fix = M.explain(found, manager.config.bridge_name)
  return { name = "tap", message = message, fix = fix }
end

return M
