-- Whose a link is, in its IFLA_IFALIAS: it lasts as long as the link does, whatever happened to the
-- journal and the leases of its VM.
--
-- fcproc:RUNTIME_DIR/ID   a TAP of that VM
-- fcproc:RUNTIME_DIR/ID+  a TAP that it uses, which was there before and stays
-- fcproc:RUNTIME_DIR/     the bridge, and TAPs of nobody's
-- fcproc:#HASH/...        where the folder's name is too long for an alias

local hash = require "fcproc.hash"

local M = {}

M.MOST = 255 -- bytes, the kernel's limit
local LONGEST_ID = 64

local function prefix_of(runtime_dir)
  if not runtime_dir then return "fcproc:" end
  local prefix = ("fcproc:%s/"):format(runtime_dir)
  if #prefix + LONGEST_ID + 1 <= M.MOST then return prefix end
  return ("fcproc:#%016x/"):format(hash(runtime_dir))
end

---The alias of a VM's link, or of one that belongs to the folder as a whole.
---@param runtime_dir string?
---@param id string?
---@param kept boolean?  it is not ours to delete
---@return string
function M.of(runtime_dir, id, kept)
  return prefix_of(runtime_dir) .. (id or "") .. (kept and "+" or "")
end

---Of which VM of the folder a link is, and goes with it.
---@param runtime_dir string
---@param alias string?
---@return string? id  nil: of none of this folder
function M.id_of(runtime_dir, alias)
  local prefix = prefix_of(runtime_dir)
  if not alias or alias:sub(1, #prefix) ~= prefix then return end
  local id = alias:sub(#prefix + 1)
  return id:find("^[%w%-]+$") and #id <= LONGEST_ID and id or nil
end

return M
