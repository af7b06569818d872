-- fcproc run -i: what comes from our stdin is what the guest's console reads. A terminal is raw
-- meanwhile, and has its settings back before the VM is stopped.

local console = require "fcproc.cli.console"
local context = require "fcproc.context"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local loop = require "fcproc.loop"

local M = {}

local STDIN = 0

local function invalid(text)
  return nil, errors.new{ code = "invalid", op = "cli.run", message = text }
end

---The keys, when they are asked for.
---@param args table
---@return fcproc.Keys|false|nil keys
---@return fcproc.Error? err
function M.open(args)
  if not args.interactive then return false end
  if args.detach then return invalid("--interactive is of the foreground: not with --detach") end
  if args.spec == "-" then return invalid("--interactive and --spec - both read stdin: give a file") end
  return core.keys()
end

---How the VM is stopped from where its keys come from.
---@param keys fcproc.Keys|false
---@return string
function M.way_out(keys)
  return keys and core.is_terminal(STDIN) and "Ctrl-]" or "Ctrl-C"
end

---Runs the work, and passes the keys on until it has ended; without keys, the work alone.
---@param keys fcproc.Keys|false
---@param ctx fcproc.Context
---@param escaped fun()  called when Ctrl-] was typed
---@param work fun(ctx: fcproc.Context): any ...
---@return any ...  what the work returned
function M.during(keys, ctx, escaped, work)
  if not keys then return work(ctx) end
  local held <close> = keys -- luacheck: ignore held
  local failure
  -- Raw before anything of the guest is shown, to which somebody may answer.
  local typing <close> = context.new{ parent = ctx }
  local op, err = keys:copy_op(STDIN, nil, typing)
  if not op then return nil, err end
  local results = table.pack(console.watched(ctx, function(run_ctx)
    local _ <close> = finally(function() typing:cancel() end)
    return work(run_ctx)
  end, function()
    local done, was_escaped = loop.complete(typing, op)
    if done and was_escaped then
      keys:close() -- before it is told, so that a Ctrl-C from then on is a signal again
      escaped()
    end
    if not done and was_escaped.code ~= "cancelled" and was_escaped.code ~= "deadline" then
      failure = was_escaped
      escaped()
    end
  end))
  if failure then return nil, failure end
  return table.unpack(results, 1, results.n)
end

return M
