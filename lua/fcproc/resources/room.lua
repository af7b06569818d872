-- How much room there is, for an error that says that there is none.

local core = require "fcproc.core"

local M = {}

local ENOSPC = 28
local MIB = 1024 * 1024
local FREE = "MiB are free in "

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
