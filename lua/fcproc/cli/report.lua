-- How a VM ended, for people and for JSON.

local output = require "fcproc.cli.output"

local M = {}

local EMPTY_LISTS = { "steps", "left" }

---The report as a table that can be written as JSON.
---@param report fcproc.StopReport
---@return table
function M.plain(report)
  local plain = {}
  for key, value in pairs(report) do plain[key] = value end
  plain.left = output.left(report.left)
  for _, name in ipairs(EMPTY_LISTS) do
    if #plain[name] == 0 then plain[name] = nil end
  end
  return plain
end

---The report as a line.
---@param id string
---@param report fcproc.StopReport
---@return string
function M.line(id, report)
  local how = report.step == "gone" and "it had ended"
    or ("ended by %s after %.0f ms"):format(report.step, report.took * 1000)
  local others = report.others and (", with %d other process%s of its jail"):format(report.others,
    report.others == 1 and "" or "es") or ""
  local panic = report.console_panic and ('; its console ends with "%s"'):format(report.console_panic) or ""
  return ("%s: %s%s, all of it is removed%s%s"):format(id, how, others,
    report.description and " (" .. report.description .. ")" or "", panic)
end

return M
