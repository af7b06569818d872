-- The end of a VM in this manager's hands: its process by a ladder, then all that was made for it. One
-- caller at a time does that, and the others get what came of it. Methods of a VM, which object.lua
-- mixes in.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local host = require "fcproc.resources.host"
local jailer = require "fcproc.machine.jailer"
local loop = require "fcproc.loop"
local steps = require "fcproc.resources.steps"
local stop = require "fcproc.vm.stop"

local M = {}

local CLEANUP_LIMIT = 60 -- seconds for removing what an ended VM had

---@class fcproc.VmEnd
---@field stopping (true|fcproc.Context)?  somebody is at it; a context, for which others wait
---@field failure fcproc.Error?  of the last try
---@field forced true?  whatever its hooks say
local Ends = {}

-- Who stops a VM holds its latch. The first of the others makes it a context, which they wait for.
function Ends:_close_latch()
  self.stopping, self.failure = true, nil
end

function Ends:_open_latch()
  local latch = self.stopping
  self.stopping = nil
  if latch ~= true then
    latch:cancel()
    latch:close()
  end
end

-- The second caller waits for the first.
local function wait_for_other(self, ctx)
  if self.stopping == true then
    local latch, problem = core.context()
    if not latch then return nil, problem end
    self.stopping = latch
  end
  local done, err = loop.complete(ctx, self.stopping:wait_op(nil, ctx))
  if not done then return nil, err end
  if self.report then return self:stop() end
  return nil, self.failure or errors.new{ code = "busy", op = "vm.stop",
    message = ("the stop of the VM '%s' that was under way was left by an error; try again")
      :format(self.id) }
end

-- Ends the process, and says whether the rest may be removed.
function Ends:_end_process(ctx, ladder, pressed)
  local report, err = stop.process(self, ladder, ctx, pressed)
  local jail = self.journal.record.jail
  if not err and self.unfinished and jail then -- what has ended may be a jailer, with a VMM of its own
    local _
    _, err = jailer.kill_all(jail.root, self.manager.config.without, ctx)
  end
  if err then
    err.report = report
    return nil, err
  end
  return report
end

function Ends:_close_machine()
  if self.machine then self.machine:close() end
  self.machine = nil
end

-- Closes what is held, after its things on the host are gone or have been written down.
function Ends:_forget(report, left, others)
  report.left = left
  report.others = others and (report.others or 0) + others or report.others
  self:_let_go()
  self:_close_machine()
  if #left > 0 then self.journal:close() end
  self.report = report
end

function Ends:_leftover_error(report)
  local names = {}
  for i, entry in ipairs(report.left) do
    names[i] = ("%s (%s)"):format(entry.what, tostring(entry.err))
  end
  return errors.new{ code = "busy", op = "vm.stop", report = report, cause = report.left[1].err,
    message = ("the VM '%s' has ended, but this could not be removed: %s; fcproc.vm.reclaim tries again")
      :format(self.id, table.concat(names, "; ")) }
end

local function stop_now(self, ladder, ctx)
  local report, err = steps.run(self, "stop", self._end_process, ctx, ladder)
  if not report then return nil, err end
  local began = core.now()
  local ok
  ok, err = steps.run(self, "cleanup", function()
    -- Not in the caller's context: half a clean-up helps nobody.
    local own <close> = core.context(nil, CLEANUP_LIMIT, ctx and ctx:waiter())
    local left, others = host.remove(self.manager, { self.journal }, own)
    self:_forget(report, left, others[self.id])
    report.cleanup_took = core.now() - began
    if #left > 0 then return nil, self:_leftover_error(report) end
    return true
  end, ctx)
  if not ok then return nil, err end
  return report
end

---Ends the VM, by a ladder of steps, and removes all that was made for it. Stopping twice gives the
---same report; a second caller at the same time waits for the first.
---
---    local report = assert(vm:stop{ { "ctrl_alt_del", 10 }, { "sigkill", 5 } })
---    print(report.step, report.exit and report.exit.status)
---@param ladder fcproc.Rung[]?  default: ctrl_alt_del for 10 s, sigterm for 3, sigkill for 5
---@param ctx fcproc.Context?
---@return fcproc.StopReport? report
---@return fcproc.Error? err  with report. ERR_WAIT_TIMEOUT: it has not ended; ERR_BUSY: something could
---                           not be removed (report.left); ERR_CLOSED: it was detached; a hook's own
function Ends:stop(ladder, ctx)
  if ladder ~= nil then stop.check_ladder(ladder) end
  ctx = loop.context(ctx)
  if self.report then
    if #self.report.left > 0 then return nil, self:_leftover_error(self.report) end
    return self.report
  end
  if self.stopping then return wait_for_other(self, ctx) end
  if not self.machine then return self:_ended("stop") end
  self:_close_latch()
  -- However this ends, whoever waits goes on.
  local _ <close> = finally(function() self:_open_latch() end)
  local report, err = stop_now(self, ladder or stop.LADDER, ctx)
  self.failure = err
  return report, err
end

---Ends the VM as stop does, with SIGKILL at once, whatever the hooks say.
---@param ctx fcproc.Context?
---@return fcproc.StopReport? report
---@return fcproc.Error? err  as vm:stop's
function Ends:kill(ctx)
  self.forced = true
  return self:stop(stop.KILL, ctx)
end

M.methods = Ends

return M
