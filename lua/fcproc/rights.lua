-- The capabilities that this process has, which say more than its uid does.

local core = require "fcproc.core"

local M = {}

---Those of the named that it lacks.
---@param wanted table<integer, string>  name by the kernel's number: { [10] = "NET_BIND_SERVICE" }
---@return string? names  "CAP_..., CAP_..."; nil: none is missing, or nobody can tell
function M.missing(wanted)
  local set = (core.read_file("/proc/self/status") or ""):match("CapEff:%s*(%x+)")
  local missing = {}
  for bit, name in pairs(set and wanted or {}) do
    if tonumber(set, 16) & (1 << bit) == 0 then missing[#missing + 1] = "CAP_" .. name end
  end
  table.sort(missing)
  return #missing > 0 and table.concat(missing, ", ") or nil
end

return M
