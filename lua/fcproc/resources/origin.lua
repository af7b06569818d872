-- Whose snapshot it is that is to be restored, and what is believed of it. Its author decides what the
-- guest is; what he must not do is to have files of the host read or written that he could not reach.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

local OTHERS_WRITE = 18 -- 0022

M.REMEDY = "drives = { ID = path }"

---@class fcproc.Origin
---@field reader { uid: integer, gid: integer }?  with whose rights the files in its folder are read; nil:
---                                               with the caller's
---@field single boolean?  each of them must have one name: its folder could be another's by now

local function own_uid()
  local me = core.stat("/proc/self", true)
  return me and me.uid or 0
end

-- Is each file in it ours, and nobody else's to write? Why not.
local function stranger_in(path, uid)
  for _, entry in ipairs(core.list_dir(path) or {}) do
    local file = core.stat(path .. "/" .. entry.name)
    if file and file.uid ~= uid then
      return ("%s/%s belongs to uid %d"):format(path, entry.name, file.uid)
    end
    if file and file.type == "file" and file.mode & OTHERS_WRITE ~= 0 then
      return ("others may write to %s/%s"):format(path, entry.name)
    end
  end
end

local function refuse(path, why, cause)
  return nil, errors.new{ code = "conflict", op = "vm.restore", path = path, cause = cause,
    message = ("the snapshot %s may be anybody's: %s. It names files that Firecracker opens, as root and "
      .. "without a jail: restore it in a jail, or, when you know who made it, with trust = true")
      :format(path, why) }
end

---Looks at where it is. The path leads to it for good when it is a root-only one; else it may be moved.
---@param path string  absolute, without links
---@param jailed boolean
---@param trust boolean?
---@return fcproc.Origin?
---@return fcproc.Error? err  ERR_CONFLICT: root would run it without a jail
function M.of(path, jailed, trust)
  local uid = own_uid()
  if trust or (uid ~= 0 and not jailed) then return {} end -- what a user reads is his own affair
  local safe, err = core.check_dir(path)
  local why = not safe and err.message:match("^(.-);") or err and err.message
  if safe and not jailed then why = stranger_in(path, uid) end
  if not jailed and why then return refuse(path, why, err) end
  if safe or not jailed then return {} end
  local folder
  folder, err = core.stat(path)
  if not folder then return nil, err end
  if folder.uid == uid then return { single = true } end
  return { reader = { uid = folder.uid, gid = folder.gid } }
end

---Is the folder where root makes a snapshot there to stay? Else somebody puts another in its place, and
---what is written there goes wherever that one's links lead.
---@param path string  the folder, just made
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT
function M.check_target(path)
  if own_uid() ~= 0 then return true end
  local safe, err = core.check_dir(path)
  if safe then return true end
  local why = err.message:match("^(.-);") or err.message
  return nil, errors.new{ code = "conflict", op = "vm.snapshot", path = path, cause = err,
    message = ("%s. A snapshot that root writes there may be led anywhere: take a folder of root's, or, "
      .. "when nobody there is to be feared, trust = true"):format(why) }
end

---What a file in it must be that was just looked at.
---@param origin fcproc.Origin
---@param stat fcproc.FileInfo
---@return fcproc.Expected
function M.expected(origin, stat)
  local reader = origin.reader or {}
  return { id = stat.id, single = origin.single, reader_uid = reader.uid, reader_gid = reader.gid }
end

---What a file must be that only the manifest names: one that the jail's user may read himself.
---@param jail { uid: integer, gid: integer }
---@return fcproc.Expected
function M.named_by_manifest(jail)
  return { reader_uid = jail.uid, reader_gid = jail.gid }
end

---Says of a drive that could not be had what to do.
---@param id string
---@param err fcproc.Error
---@return fcproc.Error err
function M.explain_drive(id, err)
  err.message = ("the snapshot's drive '%s': %s; its manifest alone names that file, so the jail's user "
    .. "must be able to read it: let him, or say which file it is, %s"):format(id, err.message, M.REMEDY)
  return err
end

return M
