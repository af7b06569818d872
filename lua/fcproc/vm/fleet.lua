-- Many VMs of one process at once: stopping them, and removing those of a fleet that did not come up.
-- The descriptors may not suffice for all at the same time. What fails for want of them is tried again
-- with fewer at once, when others have given theirs back: how many there are can't be asked beforehand,
-- since the rest of the program takes and gives some, too.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local host = require "fcproc.resources.host"
local jailer = require "fcproc.machine.jailer"
local loop = require "fcproc.loop"
local process = require "fcproc.process"
local steps = require "fcproc.resources.steps"
local stop = require "fcproc.vm.stop"

local M = {}

local CLEANUP_LIMIT = 60 -- seconds for removing what ended VMs had, however many
local MOST_NAMED = 8 -- VMs in a message

local lacking = errors.lacks_descriptors

local function append(list, more)
  table.move(more, 1, #more, #list + 1, list)
end

-- ---- removing ------------------------------------------------------------------------------

-- What concerns the VM: its own, and what was tried for several at once.
local function left_of(left, id)
  local own = {}
  for _, entry in ipairs(left) do
    if not entry.id or entry.id == id then own[#own + 1] = entry end
  end
  return own
end

local function any_lacking(left)
  for _, entry in ipairs(left) do
    if lacking(entry.err) then return true end
  end
  return false
end

-- host.remove; what lacked descriptors once more, one VM at a time.
local function remove(manager, list, ctx)
  local left, others = host.remove(manager, list, ctx)
  if #list < 2 or not any_lacking(left) then return left, others end
  local still = {}
  for _, journal in ipairs(list) do
    local own = left_of(left, journal.id)
    if any_lacking(own) then
      local more
      own, more = host.remove(manager, { journal }, ctx)
      others[journal.id] = others[journal.id] or more[journal.id]
    end
    append(still, own)
  end
  return still, others
end

-- ---- stopping ------------------------------------------------------------------------------

---@class fcproc.Stopping       one call of stop_all
---@field vms fcproc.Vm[]
---@field ladder table[]
---@field ctx fcproc.Context?
---@field reports fcproc.StopReport[]
---@field ended integer[]       whose process has ended, and of which something may be there yet
---@field latches table<fcproc.Vm, true>  those that are ours to stop
---@field pressed table<fcproc.Vm, true|fcproc.Error>  by the first Ctrl-Alt-Del of all
---@field failure fcproc.Error?  the first that has nothing to do with descriptors

-- One that an earlier try has signalled, and could not wait for, did not go by itself.
local function with_earlier(report, earlier)
  local last = earlier and earlier.steps[#earlier.steps]
  if report.step == "gone" and last and (last.sent or last.name ~= "ctrl_alt_del") then
    last.outcome, report.step, report.steps = "exited", last.name, earlier.steps
  end
  return report
end

local function stop_one(work, i, ctx)
  local vm = work.vms[i]
  if not work.latches[vm] then -- it has ended, or somebody else is at it
    local report, err = vm:stop(work.ladder, ctx)
    work.reports[i] = report
    return err
  end
  local earlier = vm.failure and vm.failure.report
  local report, err = steps.run(vm, "stop", vm._end_process, ctx, work.ladder, work.pressed[vm])
  work.pressed[vm] = nil
  vm.failure = err
  if report then
    work.reports[i] = with_earlier(report, earlier)
    work.ended[#work.ended + 1] = i
  end
  return err
end

-- Whose turn it is, at most so many at once. Those that lacked descriptors, and the error of one.
local function pass(work, turn, limit)
  local functions, short, scarce = { limit = limit }, {}, nil
  local unseen = {}
  for n, i in ipairs(turn) do
    unseen[i] = true
    functions[n] = function(ctx)
      local err = stop_one(work, i, ctx)
      unseen[i] = nil
      if err and lacking(err) then
        short[#short + 1], scarce = i, scarce or err
      else
        work.failure = work.failure or err
      end
    end
  end
  if limit == 1 then -- a run has a descriptor of its own
    for _, fn in ipairs(functions) do fn(work.ctx) end
    return short, scarce
  end
  local ok, raised = pcall(loop.run, functions, work.ctx)
  if not ok and not (errors.is_error(raised) and lacking(raised)) then error(raised, 0) end
  for _, i in ipairs(turn) do
    if unseen[i] then short[#short + 1], scarce = i, scarce or raised end
  end
  return short, scarce
end

-- Removes what the ended ones have. Those that lack descriptors for it keep it, until the last try,
-- for which the processes' own are given back.
local function clean_up(work, last)
  local by_manager = {}
  for _, i in ipairs(work.ended) do
    local vm = work.vms[i]
    local list = by_manager[vm.manager] or {}
    by_manager[vm.manager] = list
    list[#list + 1] = vm.journal
    if last then vm:_close_machine() end
  end
  local kept = {}
  for manager, list in pairs(by_manager) do
    local own <close> = core.context(nil, CLEANUP_LIMIT, work.ctx and work.ctx:waiter())
    local all, others = remove(manager, list, own)
    for _, i in ipairs(work.ended) do
      local vm = work.vms[i]
      local left = vm.manager == manager and left_of(all, vm.id)
      if left and not last and any_lacking(left) then
        kept[#kept + 1] = i
      elseif left then
        vm:_forget(work.reports[i], left, others[vm.id])
        if #left > 0 then work.failure = work.failure or vm:_leftover_error(work.reports[i]) end
      end
    end
  end
  work.ended = kept
end

local function too_few(work, short, scarce)
  return errors.new{ code = scarce.code, op = "vm.stop_all", errno = scarce.errno, cause = scarce,
    step = scarce.step, report = scarce.report,
    message = ("%d of %d VMs are left, since there are too few descriptors to stop even one at a time "
      .. "(%s): close some, or raise ulimit -n, and stop these again"):format(#short, #work.vms,
      scarce.message) }
end

-- The next limit: half of what has just worked at once is sure to find room.
local function stop_in_passes(work, turn)
  local limit = work.ladder.limit
  while true do
    local before = #work.ended
    local short, scarce = pass(work, turn, limit)
    local stopped = #turn - #short
    if #short == 0 then break end
    if limit == 1 and stopped == 0 or not loop.check(work.ctx) then
      work.failure = too_few(work, short, scarce)
      break
    end
    if #work.ended > before then clean_up(work) end
    turn, limit = short, math.max(1, math.min(stopped // 2, limit or math.huge))
  end
end

---Stops many at once; their TAPs go as one link group, and their NAT in one transaction. Those for
---which there are too few descriptors follow when others have given theirs back.
---@param vms fcproc.Vm[]
---@param ladder table[]  with limit: how many stop at once; default: all
---@param ctx fcproc.Context?
---@return fcproc.StopReport[]? reports
---@return fcproc.Error? err
function M.stop_all(vms, ladder, ctx)
  ctx = loop.context(ctx)
  local first, turn = {}, {}
  local latches = {}
  local _ <close> = finally(function()
    for vm in pairs(latches) do vm:_open_latch() end
  end)
  for i, vm in ipairs(vms) do
    if not first[vm] then
      first[vm] = i
      turn[#turn + 1] = i
      if vm.machine and not vm.stopping then
        vm:_close_latch()
        latches[vm] = true
      end
    end
  end
  local work = { vms = vms, ladder = ladder, ctx = ctx, reports = {}, ended = {}, latches = latches,
    pressed = {} }
  local ours = {}
  for vm in pairs(latches) do ours[#ours + 1] = vm end
  work.pressed = stop.press_all(ours, ladder, ctx)
  stop_in_passes(work, turn)
  clean_up(work)
  if #work.ended > 0 then clean_up(work, true) end
  if work.failure then return nil, work.failure end
  for i, vm in ipairs(vms) do work.reports[i] = work.reports[first[vm]] end
  return work.reports
end

-- ---- a launch that failed ------------------------------------------------------------------

local function remove_failed(vm, ctx)
  local jail, ended, err = vm.journal.record.jail, true, nil
  -- What a jailer started, and left behind when there was no descriptor to find it by.
  if jail then ended, err = jailer.kill_all(jail.root, vm.manager.config.without, ctx) end
  if not ended then return { { id = vm.id, what = "its process", err = err } } end
  return (host.remove(vm.manager, { vm.journal }, ctx))
end

---Removes what a VM has that did not come to be, and whose process has been killed.
---@param vm fcproc.Vm
---@param ctx fcproc.Context?
---@return fcproc.Left[] left  what stays, in the hands of the VM's journal
function M.abandon(vm, ctx)
  vm:_let_go()
  if vm.machine then
    vm.machine:kill_now()
    vm.machine = nil
  end
  return remove_failed(vm, ctx)
end

-- Ends one that came up, and that even stop_all could not stop; for that no descriptor is needed.
local function end_at_last(vm, ctx)
  vm.machine.process:signal("KILL")
  local ended, err = process.wait_for_killed(vm.machine.process, vm.manager.config.without, ctx)
  vm:_let_go()
  vm:_close_machine()
  return ended, err
end

-- What has been left of VMs that did not come to be, one by one; their journals are closed then.
local function abandon_again(vms, left, ctx)
  for _, vm in ipairs(vms) do
    local ended, err = true, nil
    if vm.machine then ended, err = end_at_last(vm, ctx) end
    local own = ended and remove_failed(vm, ctx) or { { id = vm.id, what = "its process", err = err } }
    append(left, own)
    if #own > 0 then vm.journal:close() end
  end
end

---Says in the error of a launch what is left of it.
---@param err fcproc.Error
---@param left fcproc.Left[]
function M.tell_left(err, left)
  if #left == 0 then return end
  local names, seen, count = {}, {}, 0
  for _, entry in ipairs(left) do
    local id = entry.id or "?"
    if not seen[id] then
      seen[id] = true
      count = count + 1
      if count <= MOST_NAMED then names[count] = id end
    end
  end
  if count > MOST_NAMED then names[#names + 1] = ("and %d more"):format(count - MOST_NAMED) end
  err.left = left
  err.message = ("%s; not all of it could be removed again (%s: %s): fcproc.vm.reclaim removes what is "
    .. "left of %s"):format(err.message, left[1].what, left[1].err.message, table.concat(names, ", "))
end

---Removes a fleet whose launch has failed: first those that came up, which gives back their
---descriptors, then what could not be removed before.
---@param came_up fcproc.Vm[]
---@param abandoned fcproc.Vm[]
---@param err fcproc.Error?  is told what stays nevertheless
---@param ctx fcproc.Context?
function M.remove_all(came_up, abandoned, err, ctx)
  M.stop_all(came_up, stop.KILL, ctx)
  local left = {}
  for _, vm in ipairs(came_up) do
    if vm.report then
      append(left, vm.report.left)
    elseif vm.machine then
      abandoned[#abandoned + 1] = vm
    end
  end
  abandon_again(abandoned, left, ctx)
  if err then M.tell_left(err, left) end
end

return M
