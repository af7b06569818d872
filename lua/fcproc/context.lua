-- Contexts: a deadline and a cancel, the last argument of everything that can block.

local core = require "fcproc.core"
local options = require "fcproc.options"

local M = {}

---@class fcproc.ContextOptions
---@field timeout number?           seconds from now
---@field parent fcproc.Context?    ends this one too
---@field waiter ("poll"|"cqueues"|"luv")?  how calls under it wait; default: the parent's, else poll

---Makes a context. Seconds count from now; cancelling the parent cancels it.
---
---    local ctx <close> = fcproc.context{ timeout = 30 }
---    local ok, err = manager:wait_for_exit(pid, sock, 10, ctx)
---@param opts fcproc.ContextOptions?
---@return fcproc.Context? context
---@return fcproc.Error? err  ERR_SYSTEM: no descriptor is left; ERR_NOMEM
function M.new(opts)
  options.check(opts, {
    timeout = "number", parent = "fcproc.context", waiter = "string",
  }, "fcproc.context")
  opts = opts or {}
  local waiter = opts.waiter
  if waiter and waiter ~= "poll" and waiter ~= "cqueues" and waiter ~= "luv" then
    options.raise(("fcproc.context: unknown waiter '%s'; known: cqueues, luv, poll"):format(waiter))
  end
  return core.context(opts.parent, opts.timeout, waiter)
end

return M
