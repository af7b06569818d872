-- The files that a VMM writes: its console, its log, its metrics. The latter two are in its working
-- folder, which in a jail is the jail user's: he may have put anything under their names, at any time.
-- So they are used through here alone, and what is used is what was made, or nothing.

local core = require "fcproc.core"

local M = {}

---@class fcproc.Output  a file that is written by somebody else
---@field path string
---@field expected fcproc.Expected?  nil: where it is, only we make files

---@class fcproc.MadeIn  a jail, as far as its files go
---@field uid integer?
---@field made table<string, string>?  the identities of the files that we made in its root, by their
---                                    names; without one the file must still be the jail user's alone

---What a file in a jail must be that is the jail user's to write.
---@param jail fcproc.MadeIn?
---@param name string
---@return fcproc.Expected? expected  nil: there is no jail
function M.expected(jail, name)
  if not jail then return nil end
  return { id = jail.made and jail.made[name], uid = jail.uid, single = true }
end

local function name_of(path) return path:match(".*/(.*)") end

---@param files fcproc.MachineFiles
---@param which "console"|"log"|"metrics"
---@return fcproc.Output
function M.of(files, which)
  local path = files[which]
  -- The console is above the jail's root.
  local expected = which ~= "console" and M.expected(files.jail, name_of(path)) or nil
  return { path = path, expected = expected }
end

---Makes one, or a file that the VMM reads, in its working folder; in a jail it is the jail user's, and
---which file it is is noted.
---@param files fcproc.MachineFiles
---@param owner { uid: integer, gid: integer }?  the jail's
---@param name string
---@param text string
---@param mode integer
---@param replace boolean?  one that is there already, else it stays; in a jail it never does
---@return true?
---@return fcproc.Error? err
function M.make(files, owner, name, text, mode, replace)
  local path, uid, gid = files.folder .. "/" .. name, nil, nil
  if owner then uid, gid = owner.uid, owner.gid end
  local made, id = core.create_file(path, text, mode, uid, gid)
  if made == false and (owner or replace) then
    made, id = core.write_file(path, text, mode, uid, gid)
  end
  if made == nil then return nil, id end
  local jail = files.jail
  if jail and id then
    jail.made = jail.made or {}
    jail.made[name] = id
  end
  return true
end

---Reads one; see core.read_file.
---@param files fcproc.MachineFiles
---@param which "console"|"log"|"metrics"
---@param offset integer?
---@param limit integer?
---@return string? text
---@return fcproc.Error? err  ERR_CONFLICT: in a jail it was replaced
function M.read(files, which, offset, limit)
  local output = M.of(files, which)
  return core.read_file(output.path, offset, limit, output.expected)
end

return M
