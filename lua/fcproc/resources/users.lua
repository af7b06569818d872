-- Who needs a disk that its owner may want to remove. Who keeps such disks makes a folder beside each,
-- in which every VM and every snapshot that reads the disk puts a link to its own folder. So the owner
-- asks nobody: a link whose folder is not there any more counts for nothing.

local core = require "fcproc.core"
local hash = require "fcproc.hash"

local M = {}

M.NAME = ".fcproc-users"

local SAME_HASH = 8 -- users of one folder whose names are the same
local YOUNG = 60 -- seconds, in which a snapshot gets the name that its link has already

-- Nil where nobody wants to know. Root writes only where nobody else can: the disk may be one that a
-- snapshot's manifest names.
local function folder_of(disk)
  local folder = disk:match("^(.*)/") .. "/" .. M.NAME
  return core.stat(folder) and core.check_dir(folder) and folder or nil
end

local function names(folder, user)
  local at, number = -1, hash(user)
  return function()
    at = at + 1
    if at < SAME_HASH then return ("%s/%016x-%d"):format(folder, number, at) end
  end
end

local function link(folder, user)
  local ok, err
  for name in names(folder, user) do
    ok, err = core.symlink(user, name)
    if ok or core.read_link(name) == user then return true end
    if err.code ~= "conflict" then return nil, err end
  end
  return nil, err
end

local function add(disk, user)
  local folder, ok, err = folder_of(disk), true, nil
  if folder then ok, err = link(folder, user) end
  if not ok then return nil, err end
  ok, err = core.stat(disk, true) -- it may just have been going
  if not ok and err.code == "not_found" then return nil, err end
  return true
end

local function remove(disk, user)
  local folder = folder_of(disk)
  if not folder then return end
  for name in names(folder, user) do
    local owner = core.read_link(name)
    if owner == user then core.remove_file(name) end
    if not owner or owner == user then return end
  end
end

local function is_shared(drive) return drive.read_only and not drive.copy end

---The disks are this one's, too, that it reads and does not write.
---@param drives table[]  of a record
---@param user string     the folder of a VM or a snapshot, absolute
---@return true?
---@return fcproc.Error? err  ERR_NOT_FOUND: one has just been removed
function M.add(drives, user)
  for i, drive in ipairs(drives) do
    local ok, err = true, nil
    if is_shared(drive) then ok, err = add(drive.path, user) end
    if not ok then
      err.message = ("drives[%d]: %s"):format(i, err.message)
      return nil, err
    end
  end
  return true
end

---They are not any more. What stays counts for nothing once its folder is gone.
---@param drives table[]
---@param user string
function M.remove(drives, user)
  for _, drive in ipairs(drives) do
    if is_shared(drive) then remove(drive.path, user) end
  end
end

---Those that are there, or just coming. Links to what is gone are removed.
---@param folder string  where the disk is
---@return string[]? users
---@return fcproc.Error? err
function M.list(folder)
  local entries, err = core.list_dir(folder .. "/" .. M.NAME)
  if not entries then
    if err.code == "not_found" then return {} end
    return nil, err
  end
  local list = {}
  for _, entry in ipairs(entries) do
    local name = ("%s/%s/%s"):format(folder, M.NAME, entry.name)
    local itself, user = core.stat(name), core.read_link(name)
    local there, unseen
    if user then there, unseen = core.stat(user) end
    if there or (unseen and unseen.code ~= "not_found") or (itself and os.time() - itself.mtime < YOUNG) then
      list[#list + 1] = user
    elseif user then
      core.remove_file(name)
    end
  end
  return list
end

return M
