-- The folder of a snapshot that is being made, beside the one that it becomes. The VM's journal names
-- it, and a journal proves nothing: so there is a mark in it, a file of ours where only we can write,
-- without which nobody removes it.

local core = require "fcproc.core"
local loop = require "fcproc.loop"

local M = {}

local PRIVATE_DIR, PRIVATE = 448, 384 -- 0700, 0600

local function mark_of(id) return ".fcproc-" .. id end

---Where the snapshot is until it is whole.
---@param path string  where it will be
---@param id string
---@return string
function M.path(path, id)
  return ("%s.%s.partial"):format(path, id)
end

---@param partial string
---@param id string
---@return boolean? made  false: there is something already
---@return fcproc.Error? err
function M.make(partial, id)
  local made, err = core.make_dir(partial, PRIVATE_DIR)
  if not made then return made, err end
  made, err = core.create_file(partial .. "/" .. mark_of(id), "", PRIVATE)
  if made then return true end
  core.remove_tree(partial)
  return nil, err
end

---It is whole: it becomes the snapshot.
---@param partial string
---@param path string
---@param id string
---@return true?
---@return fcproc.Error? err
function M.finish(partial, path, id)
  local ok, err = core.rename(partial, path, false)
  if not ok then return nil, err end
  core.remove_file(path .. "/" .. mark_of(id)) -- in the way of nothing if it stays
  return true
end

---Once its name is one of the folder's above it for good, the snapshot outlasts a power loss.
---@param path string
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.sync_parent(path, ctx)
  local parent = path:match("^(.*)/[^/]*$")
  local done, err = loop.complete(ctx, core.sync(parent == "" and "/" or parent, ctx))
  if done then return true end
  err.message = ("the snapshot is in %s, but may not be there any more after a power loss: %s"):format(path,
    err.message)
  return nil, err
end

---Removes it with what is in it. None is fine.
---@param partial string
---@param id string
---@return integer? removed
---@return fcproc.Error? err  ERR_CONFLICT: nothing shows that it is ours, and it was not touched
function M.remove(partial, id)
  return core.remove_tree(partial, mark_of(id))
end

return M
