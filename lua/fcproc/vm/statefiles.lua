-- The two files that Firecracker writes for a snapshot, and reads for a restore. In a jail it writes
-- them where its user may move and replace everything, and may hold open what he likes.

local core = require "fcproc.core"
local disks = require "fcproc.resources.disks"
local origins = require "fcproc.resources.origin"
local outputs = require "fcproc.machine.outputs"

local M = {}

M.NAMES = { "vmstate", "memory" }

local READ_ONLY, GROUP_READ, PRIVATE = 256, 288, 384 -- 0400, 0440, 0600

local function name_in_jail(name) return "snapshot-" .. name end

---The jail that it is in, the jailer's or a rootless one; nil: none.
---@param record table
---@return table?
function M.jail_of(record) return record.jail or record.confined end

---Where they are in Firecracker's eyes.
---@param record table  with the snapshot that is made
---@return string prefix
function M.prefix(record)
  return M.jail_of(record) and name_in_jail("") or record.snapshot .. "/"
end

---Makes them in a jail, so that what arrives can be told from what somebody else puts there. Which they
---are must be written down before they are written to.
---@param record table
---@return true?
---@return fcproc.Error? err
function M.make(record)
  for _, name in ipairs(M.jail_of(record) and M.NAMES or {}) do
    local made, err = outputs.make(record.files, record.jail, name_in_jail(name), "", PRIVATE)
    if not made then return nil, err end
  end
  return true
end

---Removes them from the jail.
---@param record table
function M.discard(record)
  local jail = M.jail_of(record)
  for _, name in ipairs(jail and M.NAMES or {}) do
    core.remove_file(record.files.folder .. "/" .. name_in_jail(name)) -- a name there, whatever it is
    if jail.made then jail.made[name_in_jail(name)] = nil end
  end
end

-- A copy in the place of what somebody may have open for writing.
local function replace_by_copy(path, expected, owner, mode, ctx)
  local copy = path .. ".copy"
  local ok, err = disks.copy(path, copy, "reflink", mode, { expected = expected, uid = owner.uid,
    gid = owner.gid }, ctx)
  if ok then ok, err = core.rename(copy, path, true) end
  return ok, err
end

-- Out of the jail by a link to the very file, where that can be, else by a copy of it. What is expected
-- there; false: nobody else ever had it.
local function fetch(record, name, to, owner, mode, ctx)
  local from = record.files.folder .. "/" .. name_in_jail(name)
  local expected = outputs.expected(M.jail_of(record), name_in_jail(name))
  local ok, err = core.link_file(from, to, expected)
  if ok then
    core.remove_file(from)
    return { id = expected.id }
  end
  if err.code ~= "unsupported" then return nil, err end -- else it is on another file system
  ok, err = disks.copy(from, to, "reflink", mode, { expected = expected, uid = owner.uid,
    gid = owner.gid }, ctx)
  if not ok then return nil, err end
  return false
end

---Puts them into the snapshot's folder, once they are written. There they are nobody's to write any
---more: clones map the memory as it is. Those of a jail its group may read, so that clones in jails of
---that group can do with a link; nobody else gets to the folder.
---@param record table
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: in the jail another file has been put in the place of one
function M.take(record, ctx)
  local own, err = core.stat(record.snapshot)
  if not own then return nil, err end
  local jail = M.jail_of(record)
  local gid = jail and jail.gid
  local owner, mode = { uid = own.uid, gid = gid or own.gid }, gid and GROUP_READ or READ_ONLY
  for _, name in ipairs(M.NAMES) do
    local path, expected = record.snapshot .. "/" .. name, nil
    if jail then expected, err = fetch(record, name, path, owner, mode, ctx) end
    if jail and expected == nil then return nil, err end
    local sealed = expected == false
    if not sealed then
      sealed, err = core.seal_file(path, owner.uid, owner.gid, mode, expected)
    end
    if sealed == false then sealed, err = replace_by_copy(path, expected, owner, mode, ctx) end
    if not sealed then return nil, err end
  end
  return true
end

---Puts them where a jailed VMM can read them, from a snapshot's folder: links, when the jail's user can
---read and, not owning them, never write them; else copies.
---@param record table
---@param folder string  the snapshot's
---@param origin fcproc.Origin
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.place(record, folder, origin, ctx)
  local jail = record.jail
  for _, name in ipairs(jail and M.NAMES or {}) do
    local from = folder .. "/" .. name
    local stat, err = core.stat(from)
    if not stat then return nil, err end
    local reads_only = jail.uid ~= 0 and jail.uid ~= stat.uid and jail.gid == stat.gid
      and stat.mode & 63 == GROUP_READ & 63 -- 077: what group and others may
    local method
    method, err = disks.link_or_copy(from, jail.root .. "/" .. name, jail, reads_only,
      origins.expected(origin, stat), ctx)
    if not method then return nil, err end
    jail.placed[name] = method
  end
  return true
end

return M
