-- Ends VMs by their ids, whoever has launched them, however few descriptors there are: as many are taken
-- over at a time as there is room for, and what is needed to end those stays free.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local fleets = require "fcproc.vm.fleet"
local loop = require "fcproc.loop"
local reclaim = require "fcproc.resources.reclaim"
local recover = require "fcproc.vm.recover"

local M = {}

local RESERVE = 32 -- descriptors: with NAT, a jail and the wait, one VM's end takes some 20

---@class fcproc.Ending       what became of one
---@field id string
---@field report fcproc.StopReport?  nil: it could not be taken over
---@field err fcproc.Error?

-- Holds up to so many descriptors until it is closed.
local function reserve(n)
  local held = {}
  for i = 1, n do
    held[i] = core.context()
    if not held[i] then break end
  end
  return finally(function()
    for _, one in ipairs(held) do one:close() end
  end)
end

-- Takes over as many as there is room for. Those, by their ids; those that are dead; those that are left;
-- and the error of the first that there was no room for.
local function take_some(manager, ids, results, room, ctx)
  local _ <close> = reserve(room)
  local taken, dead, left, scarce = {}, {}, {}, nil
  for i, id in ipairs(ids) do
    local vm, err = recover.adopt_to_kill(manager, id, ctx)
    if vm then
      taken[#taken + 1] = vm
    elseif errors.lacks_descriptors(err) then
      return taken, dead, table.move(ids, i, #ids, 1, left), err
    elseif err.state == "dead" then
      dead[#dead + 1] = id
    else
      results[id] = { id = id, err = err }
    end
  end
  return taken, dead, left, scarce
end

local function end_taken(taken, results, ladder, ctx)
  local _, failure = fleets.stop_all(taken, ladder, ctx)
  for _, vm in ipairs(taken) do
    local result, report = { id = vm.id, report = vm.report }, vm.report
    results[vm.id] = result
    if not report then result.err = failure elseif #report.left > 0 then _, result.err = vm:stop() end
    if vm.machine then vm:detach() end -- it has not ended: whoever tries next may have it
  end
end

---Takes each over, without a word to its API, and ends them together, or in turns; what a dead one left is
---removed.
---@param manager fcproc.Manager
---@param ids string[]
---@param ladder fcproc.FleetLadder
---@param ctx fcproc.Context?
---@return fcproc.Ending[] endings  in the order of the ids, each once
function M.stop_ids(manager, ids, ladder, ctx)
  ctx = loop.context(ctx)
  local results, order, turn = {}, {}, {}
  for _, id in ipairs(ids) do
    if not results[id] then
      results[id] = { id = id }
      turn[#turn + 1], order[#order + 1] = id, id
    end
  end
  local room = RESERVE
  while #turn > 0 do
    local taken, dead, left, scarce = take_some(manager, turn, results, room, ctx)
    end_taken(taken, results, ladder, ctx)
    for _, id in ipairs(dead) do -- it ended by itself: what it left goes
      local removed, err = reclaim.remove_dead(manager, id, ctx)
      results[id] = { id = id, err = err, report = removed
        and { outcome = "exited", step = "gone", steps = {}, took = 0, left = {} } or nil }
    end
    if #left == #turn then -- not even one found room beside what was kept free
      if room == 0 then break end
      room = room // 2
    end
    turn = left
    for _, id in ipairs(left) do results[id].err = scarce end
  end
  for i, id in ipairs(order) do order[i] = results[id] end
  return order
end

return M
