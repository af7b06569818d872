-- Firecracker's versions: compared, and what each writes into a snapshot.

local errors = require "fcproc.error"

local M = {}

local NEWEST = "1.17" -- that endpoints.lua and bodies.lua know

local function parts(version)
  local major, minor, patch = version:match("^v?(%d+)%.(%d+)%.?(%d*)")
  if not major then return nil end
  return { tonumber(major), tonumber(minor), tonumber(patch) or 0 }
end

local function reaches(have, want)
  for i = 1, 3 do
    if have[i] ~= want[i] then return have[i] > want[i] end
  end
  return true
end

---Is the version this one, or newer? What follows its numbers ("-dev", "-4-gabc") does not count.
---@param version string?  "1.12.1", "v1.12.1"
---@param wanted (string|string[])?   "1.14"; a list: the last, and before it the patches of older
---                                   versions that have it as well; nil: any will do
---@return boolean? yes    nil when it is not known, or no version
function M.at_least(version, wanted)
  if not wanted then return true end
  local have = version and parts(version)
  if not have then return nil end
  local list = type(wanted) == "table" and wanted or { wanted }
  for i = 1, #list - 1 do
    local want = parts(list[i])
    if have[1] == want[1] and have[2] == want[2] and have[3] >= want[3] then return true end
  end
  return reaches(have, parts(list[#list]))
end

---The version that brought something, in words: "1.16", or "1.16 (or 1.14.4, 1.15.1)".
---@param wanted string|string[]
---@return string
function M.words(wanted)
  if type(wanted) == "string" then return wanted end
  local n = #wanted
  return ("%s (or %s)"):format(wanted[n], table.concat(wanted, ", ", 1, n - 1))
end

-- "1.17.4" is known: a patch adds nothing to the API.
---True for a version of which this module may not know all.
---@param version string?
---@return boolean
function M.beyond_the_table(version)
  local have, newest = version and parts(version), parts(NEWEST)
  if not have then return false end
  return have[1] > newest[1] or (have[1] == newest[1] and have[2] > newest[2])
end

-- By the minor version, of major 1. 1.17's was another at each time that it was asked.
local formats = {
  [11] = "5.0.0", [12] = "6.0.0", [13] = "8.0.0", [14] = "8.0.0", [15] = "9.0.0",
  [16] = "10.0.0",
}

---The format of the snapshots that a version writes, as --snapshot-version prints it. Another
---major number is not read: keep the binary with its snapshots.
---@param version string
---@return string? format
---@return fcproc.Error? err  ERR_UNSUPPORTED: not known
function M.snapshot_format(version)
  local have = parts(version)
  local format = have and have[1] == 1 and formats[have[2]]
  if format then return format end
  return nil, errors.new{
    code = "unsupported", op = "snapshot.format",
    message = ("the snapshot format of Firecracker %s is not known; ask the binary: "
      .. "firecracker --snapshot-version"):format(version),
  }
end

return M
