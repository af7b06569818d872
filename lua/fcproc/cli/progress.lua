-- A line on the terminal that tells how far something is, and that is gone when it is over.

local core = require "fcproc.core"

local M = {}

local WIDTH, EVERY = 24, 0.1 -- columns of the bar; seconds
local UNITS = { "B", "KiB", "MiB", "GiB", "TiB" }

local function amount(bytes)
  local unit = 1
  while bytes >= 1024 and unit < #UNITS do bytes, unit = bytes / 1024, unit + 1 end
  return (unit == 1 and "%d %s" or "%.1f %s"):format(bytes, UNITS[unit])
end

---@class fcproc.CliProgress
---@field output fcproc.CliOutput
---@field step string?
---@field began number   when the step did
---@field shown number?  when the line was last written
local Progress = {}
Progress.__index = Progress

---What the line says.
---@param at fcproc.ImageProgress
---@param seconds number  since the step began
---@return string
function M.line(at, seconds)
  local parts = { at.step or "working" }
  if (at.total or 0) > 0 then
    local share = math.min(at.bytes / at.total, 1)
    local full = math.floor(share * WIDTH)
    parts[2] = ("[%s%s] %3d%%"):format(("#"):rep(full), (" "):rep(WIDTH - full), math.floor(share * 100))
  end
  if (at.bytes or 0) > 0 then
    parts[#parts + 1] = amount(at.bytes)
    if seconds > 0.2 then parts[#parts + 1] = amount(at.bytes / seconds) .. "/s" end
  end
  if (at.entries or 0) > 0 then parts[#parts + 1] = at.entries .. " entries" end
  return table.concat(parts, "  ")
end

---Tells how far it is.
---@param at fcproc.ImageProgress
function Progress:tell(at)
  local now = core.now()
  if at.step ~= self.step then self.step, self.began, self.shown = at.step, now, nil end
  if self.shown and now - self.shown < EVERY then return end
  self.shown = now
  self.output.err:write("\r\27[K", M.line(at, now - self.began))
  self.output.err:flush()
end

---Takes the line away.
function Progress:close()
  if self.began then
    self.output.err:write("\r\27[K")
    self.output.err:flush()
  end
  self.began = nil
end

Progress.__close = core.uninterruptible(Progress.close)

---@param output fcproc.CliOutput
---@return fcproc.CliProgress
---@return fun(at: fcproc.ImageProgress)? tell  nil: nobody watches
function M.new(output)
  local progress = setmetatable({ output = output }, Progress)
  return progress, output.shows_progress and function(at) progress:tell(at) end or nil
end

return M
