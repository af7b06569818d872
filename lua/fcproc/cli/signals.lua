-- The signals that end a command.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"

local M = {}

M.HUP, M.INT, M.QUIT, M.PIPE, M.TERM = 1, 2, 3, 13, 15

local NAMES = { [M.HUP] = "SIGHUP", [M.INT] = "SIGINT", [M.QUIT] = "SIGQUIT", [M.TERM] = "SIGTERM" }

---Those that are to end it. One that we were started to ignore (nohup) stays ignored.
---@return integer[] numbers
function M.wanted()
  local text = core.read_file("/proc/self/status") or ""
  local mask = tonumber(text:match("SigIgn:%s*(%x+)") or "0", 16)
  local list = { M.INT } -- lua.c has set it in any case
  for _, number in ipairs{ M.HUP, M.QUIT, M.TERM } do
    if mask & (1 << (number - 1)) == 0 then list[#list + 1] = number end
  end
  return list
end

---Runs a command's work, which a signal ends as its context's end does: with all of its clean-up.
---@param cli fcproc.Cli
---@param work fun(cli: fcproc.Cli): any ...  with a context of its own
---@return any ...  what the work returned
function M.ending(cli, work)
  local done
  local ok, err = pcall(loop.run, { signals = M.wanted(), function(ctx)
    done = table.pack(work(setmetatable({ ctx = ctx }, { __index = cli })))
  end }, cli.ctx)
  if ok or (done and done[1]) then return table.unpack(done, 1, done.n) end -- a signal may have come too late
  if not errors.is_error(err) or not NAMES[err.signal] then error(err, 0) end
  err.message = ("interrupted by %s"):format(NAMES[err.signal])
  return nil, err
end

return M
