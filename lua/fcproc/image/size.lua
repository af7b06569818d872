-- Sizes as people write them: 2GiB is 2^31 bytes, 2GB is 2 * 10^9.

local errors = require "fcproc.error"

local M = {}

local UNITS = { B = 1, KiB = 1 << 10, MiB = 1 << 20, GiB = 1 << 30, TiB = 1 << 40,
  kB = 1000, KB = 1000, MB = 1000 ^ 2, GB = 1000 ^ 3, TB = 1000 ^ 4 }

local MOST = 1 << 50

---Reads a size.
---@param given string|integer  a number is of bytes
---@param what string  for the message
---@return integer? bytes
---@return fcproc.Error? err  ERR_INVALID
function M.parse(given, what)
  local number, unit = tostring(given):match("^%s*(%d+%.?%d*)%s*(%a*)%s*$")
  local factor = unit == "" and 1 or UNITS[unit]
  local bytes = number and factor and math.tointeger(tonumber(number) * factor // 1)
  if bytes and bytes <= MOST and (unit ~= "" or not number:find(".", 1, true)) then return bytes end
  local shown = errors.quoted(tostring(given), 60)
  local reason = "it is written like 2GiB (2 * 1024^3 bytes) or 300MB (300 * 1000^2)"
  if number and unit:find("^[kKmMgGtT]$") then
    local letter = unit:upper()
    reason = ("say %s%siB, of 1024 each, or %s%sB, of 1000"):format(number, letter, number, letter)
  elseif bytes and bytes > MOST then
    reason = "that is more than a disk has"
  end
  return nil, errors.new{ code = "invalid", op = "image.size", message = ("%s: %s is no size: %s")
    :format(what, shown, reason) }
end

---A size for people.
---@param bytes integer
---@return string
function M.text(bytes)
  for _, unit in ipairs{ "TiB", "GiB", "MiB", "KiB" } do
    if bytes >= UNITS[unit] then
      return (("%.1f %s"):format(bytes / UNITS[unit], unit):gsub("%.0 ", " "))
    end
  end
  return bytes .. " B"
end

return M
