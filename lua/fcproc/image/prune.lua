-- Removes from a store what nobody needs. An image that a VM or a snapshot needs is never removed: who
-- comes to need one puts his link into its folder and then looks whether it is there yet; here its folder
-- gets another name first, and then its links are looked at once more. So one of both sees the other.

local core = require "fcproc.core"
local downloads = require "fcproc.image.download"
local finally = require "fcproc.finally"
local users = require "fcproc.resources.users"

local M = {}

local GOING = "@going-"
local YOUNG = 3600 -- seconds, in which a file may be of a build that has not begun

---@class fcproc.PruneOptions
---@field all boolean?  also images that have a name, empty disks for overlays, and all downloads
---@field dry_run boolean?  only tell

---@class fcproc.Pruned
---@field removed { what: "image"|"blob"|"leftover", key: string, tags: string[]?, bytes: integer }[]
---@field kept { key: string, why: string }[]  images that could have gone
---@field bytes integer  on the disk, of all that were removed

-- What a folder takes, by its files; those that are elsewhere, too, stay there.
local function bytes_in(folder)
  local sum = 0
  for _, item in ipairs(core.list_dir(folder) or {}) do
    local path = folder .. "/" .. item.name
    local stat = core.stat(path)
    if item.type == "dir" then
      sum = sum + bytes_in(path)
    elseif stat and stat.type == "file" and stat.nlink == 1 then
      sum = sum + stat.allocated
    end
  end
  return sum
end

-- Who needs it: a VM, a snapshot, or a process that has it open.
local function need_of(folder)
  local list, err = users.list(folder)
  if not list then return err.message end
  if #list > 0 then return ("%s needs it"):format(table.concat(list, ", ")) end
  for _, item in ipairs(core.list_dir(folder) or {}) do
    if item.type == "file" and core.file_in_use(folder .. "/" .. item.name) then
      return "a process has its " .. item.name .. " open"
    end
  end
end

-- Gone, or back where it was because somebody came.
local function finish_going(store, key)
  local going = store:at("partial", GOING .. key)
  local need = need_of(going)
  if need and core.rename(going, store:at("images", key), false) then return nil, need end
  local removed, err = core.remove_tree(going)
  if not removed then return nil, err.message end
  return true
end

local function remove_image(store, key)
  local ok, err = core.rename(store:at("images", key), store:at("partial", GOING .. key), false)
  if not ok then return nil, err.message end
  return finish_going(store, key)
end

-- The locks of builders who died.
local function sweep_locks(store)
  for _, item in ipairs(core.list_dir(store:at("locks")) or {}) do
    local lock = item.name ~= "@tags" and core.lock_file(store:at("locks", item.name))
    if lock then lock:remove() end
  end
end

-- What those who build or download have left when they died; where the lock is held, one is at work.
local function sweep(store, report, dry)
  local busy = false
  if not dry then core.remove_file(store:at("partial", "@tag")) end
  for _, item in ipairs(core.list_dir(store:at("partial")) or {}) do
    local key, folder = item.name, store:at("partial", item.name)
    if key:sub(1, #GOING) == GOING then
      if not dry then finish_going(store, key:sub(#GOING + 1)) end
    elseif item.type == "dir" then
      local lock = core.lock_file(downloads.lock_of(folder) or store:at("locks", key))
      busy = busy or not lock
      if lock then
        table.insert(report.removed, { what = "leftover", key = key, bytes = bytes_in(folder) })
        if not dry then core.remove_tree(folder) end
        lock:remove()
      end
    elseif not dry and os.time() - (core.stat(folder) or { mtime = os.time() }).mtime > YOUNG then
      core.remove_file(folder)
    end
  end
  if not dry then sweep_locks(store) end
  return busy
end

local function sweep_blobs(store, needed, report, dry)
  for _, item in ipairs(core.list_dir(store:at("blobs", "sha256")) or {}) do
    local path = store:at("blobs", "sha256/" .. item.name)
    local stat = core.stat(path)
    if stat and stat.type == "file" and not needed[item.name] and not core.file_in_use(path) then
      table.insert(report.removed, { what = "blob", key = item.name, bytes = stat.allocated })
      if not dry then core.remove_file(path) end
    end
  end
end

-- May it go? Those that we keep by a name of our own, as the kernel that is the default, are in use.
local function may_go(image, all)
  for _, tag in ipairs(image.tags) do
    if tag:sub(1, 1) == "@" then return false end
  end
  return image.err ~= nil or all or (#image.tags == 0 and image.kind ~= "scratch")
end

---Removes what nobody needs.
---@param store fcproc.ImageStore
---@param opts fcproc.PruneOptions?
---@param ctx fcproc.Context?
---@return fcproc.Pruned? report
---@return fcproc.Error? err
function M.prune(store, opts, ctx)
  opts = opts or {}
  local report, needed = { removed = {}, kept = {}, bytes = 0 }, {}
  local lock, err = store:_hold("@tags", nil, ctx)
  if not lock then return nil, err end
  local _ <close> = finally(function() lock:close() end)
  local busy = sweep(store, report, opts.dry_run)
  local list
  list, err = store:list()
  if not list then return nil, err end
  for _, image in ipairs(list) do
    local gone, bytes = false, bytes_in(image.folder)
    if may_go(image, opts.all) then
      local why
      why = need_of(image.folder)
      if not why and not opts.dry_run then why = select(2, remove_image(store, image.key)) end
      gone = not why
      if why then table.insert(report.kept, { key = image.key, why = why }) end
    end
    if gone then
      table.insert(report.removed, { what = "image", key = image.key, tags = image.tags, bytes = bytes })
      for _, tag in ipairs(opts.dry_run and {} or image.tags) do store:_forget(tag) end
    elseif not opts.all then
      for _, digest in ipairs(image.blobs or {}) do needed[digest:match("%x+$")] = true end
    end
  end
  if not busy then sweep_blobs(store, needed, report, opts.dry_run) end
  for _, entry in ipairs(report.removed) do report.bytes = report.bytes + entry.bytes end
  return report
end

return M
