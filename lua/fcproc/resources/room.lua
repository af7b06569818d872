-- How much room there is, for an error that says that there is none.

local core = require "fcproc.core"
local mounts = require "fcproc.mounts"

local M = {}

local ENOSPC = 28
local MIB = 1024 * 1024
local FREE = "MiB are free in "

-- Which do not pack what is written, so that so many bytes take so many.
local PLAIN = { ext2 = true, ext3 = true, ext4 = true, xfs = true, tmpfs = true }

---Is it certain that so much does not fit there?
---@param folder string
---@param wanted integer  bytes, none of them holes
---@return boolean
function M.is_short(folder, wanted)
  local free, path = core.disk_free(folder), core.absolute_path(folder)
  if not free or free >= wanted or not path then return false end
  local mount = mounts.of(path)
  return mount ~= nil and PLAIN[mount.kind] == true
end

---Says in the error of a full disk, once, how much is free there, and how much was wanted.
---@param err fcproc.Error?
---@param folder string    where it was written
---@param wanted integer?  bytes
---@param what string?     what they are
function M.tell(err, folder, wanted, what)
  if not err or not (err.errno == ENOSPC or err.message:find("os error 28", 1, true)) then return end
  if err.message:find(FREE, 1, true) then return end
  local free, total, files = core.disk_free(folder)
  if not free then return end
  err.message = ("%s; %.1f of %.1f %s%s%s%s"):format(err.message, free / MIB, total / MIB, FREE, folder,
    files == 0 and ", and no file can be made any more" or "",
    wanted and wanted > 0 and (", and %s may take %.1f MiB"):format(what, wanted / MIB) or "")
end

return M
