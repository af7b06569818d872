-- Waiting for a job of fcproc.imagecore: under whatever loop the context names, with its progress told.

local core = require "fcproc.core"
local loop = require "fcproc.loop"

local M = {}

local SLICE = 0.1 -- seconds between two reports of progress

---Waits for the job's end, and closes it. When the context ends first, the job is cancelled, and what it
---has begun is undone before this returns.
---@param job fcproc.Job
---@param ctx fcproc.Context?
---@param progress fun(progress: fcproc.JobProgress)?  called at most ten times a second, and at the end
---@return table? result
---@return fcproc.Error? err  the job's; or ERR_CANCELLED, ERR_DEADLINE
function M.run(job, ctx, progress)
  local closing <close> = job -- luacheck: ignore closing
  ctx = loop.context(ctx)
  while true do
    local ready, err = loop.complete(ctx, core.wait_readable(job:fd(), progress and SLICE, ctx))
    if progress then progress(job:progress()) end
    if ready then return job:result() end
    if err.code ~= "wait_timeout" then
      -- What it waits for is a descriptor, which tells nobody what was not done.
      err.message = err.message:gsub("^nothing to read from descriptor %d+",
        (job:progress().step or "working") .. " was not finished")
      return nil, err
    end
  end
end

return M
