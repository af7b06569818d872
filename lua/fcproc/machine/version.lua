-- Firecracker's versions: compared, and what each writes into a snapshot.

local errors = require "fcproc.error"

local M = {}

local NEWEST = "1.17" -- that endpoints.lua and bodies.lua know

local function parts(version)
  local major, minor, patch = version:match("^v?(%d+)%.(%d+)%.?(%d*)")
  if not major then return nil end
  return { tonumber(major), tonumber(minor), tonumber(patch) or 0 }
end

---Is the version this one, or newer? What follows its numbers ("-dev", "-4-gabc") does not count.
---@param version string?  "1.12.1", "v1.12.1"
---@param wanted string?   "1.14"; nil: any will do
---@return boolean? yes    nil when it is not known, or no version
function M.at_least(version, wanted)
  if not wanted then return true end
  local have, want = version and parts(version), parts(wanted)
  if not have then return nil end
  for i = 1, 3 do
    if have[i] ~= want[i] then return have[i] > want[i] end
  end
  return true
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

-- By the minor version, of major 1.
local formats = {
  [10] = "3.0.0", [11] = "5.0.0", [12] = "6.0.0", [13] = "8.0.0", [14] = "8.0.0", [15] = "9.0.0",
  [16] = "10.0.0", [17] = "12.0.0",
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
