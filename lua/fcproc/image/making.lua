-- How an image comes into a store: built in a folder that nobody else knows, by one at a time, and there by
-- one rename. What is damaged gets its files in place.

local core = require "fcproc.core"
local entries = require "fcproc.image.entry"
local finally = require "fcproc.finally"
local loop = require "fcproc.loop"
local room = require "fcproc.resources.room"
local users = require "fcproc.resources.users"

local M = {}

local PRIVATE_DIR = 448 -- 0700

-- Puts what was built in the place of what is damaged, file by file: the folder stays, with who needs it. A
-- crash between two leaves what is damaged still, and is mended likewise.
local function replace(partial, folder, ctx)
  local list, err = core.list_dir(partial)
  if not list then return nil, err end
  table.sort(list, function(a, b) return a.name ~= entries.FILE and b.name == entries.FILE end)
  for _, item in ipairs(list) do
    local at, ok = folder .. "/" .. item.name, true
    local there = core.stat(at)
    if item.type == "file" then
      if there and there.type == "dir" then ok, err = core.remove_tree(at) end
      if ok then ok, err = core.rename(partial .. "/" .. item.name, at, true) end
    elseif not there then
      ok, err = core.rename(partial .. "/" .. item.name, at, false)
    end
    if not ok then return nil, err end
  end
  return entries.sync(folder, ctx)
end

-- Builds it in a folder that nobody else knows.
local function build_one(store, key, build, ctx)
  local partial, folder = store:at("partial", key), store:at("images", key)
  local whole = false
  local _ <close> = finally(function()
    if not whole then core.remove_tree(partial) end
  end)
  local ok, err = core.remove_tree(partial) -- of one who died
  if ok then ok, err = core.make_dir(partial, PRIVATE_DIR) end
  if not ok then return nil, err end
  local facts
  facts, err = build(partial, ctx)
  if not facts then return nil, err end
  local entry = { key = key }
  for name, value in pairs(facts) do entry[name] = value end
  ok, err = entries.write(partial, entry, ctx)
  if ok then ok, err = core.make_dir(partial .. "/" .. users.NAME, PRIVATE_DIR) end
  if ok and core.stat(folder) then
    ok, err = replace(partial, folder, ctx)
  elseif ok then
    ok, err = core.rename(partial, folder, false)
    whole = ok
  end
  if ok then ok, err = entries.sync(store:at("images"), ctx) end
  if not ok then return nil, err end
  return store:entry(key)
end

-- What is there, if it is whole: by its looks, or by all that is in it.
local function look(store, key, thorough, ctx)
  local entry, err = store:entry(key)
  local ok = entry
  if entry and thorough then ok, err = entries.verify(entry, ctx) end
  if ok then return entry end
  return nil, err
end

---What has the key; made first when it is not there, or damaged: once, however many ask at the same time.
---@param store fcproc.ImageStore
---@param key string
---@param build fun(folder: string, ctx: fcproc.Context?): table?, fcproc.Error?  makes the files in the
---             folder, and tells of them: kind, file (the name of the one that counts), source, ...
---@param ctx fcproc.Context?
---@param thorough boolean?  what is there is read, and compared with what it was
---@return fcproc.StoreEntry? entry  mended: what was wrong with the one that was there
---@return fcproc.Error? err  of the build; ERR_UNSUPPORTED: a newer fcproc's
function M.make(store, key, build, ctx, thorough)
  ctx = loop.context(ctx)
  while true do
    local entry, err = look(store, key, thorough, ctx)
    if entry then return entry end
    local damaged = err.code == "conflict"
    if not damaged and err.code ~= "not_found" then return nil, err end
    local lock
    lock, err = store:_hold(key, not damaged and store:at("images", key) or nil, ctx)
    if lock == nil then return nil, err end
    if lock then
      local _ <close> = finally(function() lock:remove() end)
      local mended
      entry, err = look(store, key, thorough, ctx) -- it came while we did
      if not entry and (err.code == "not_found" or err.code == "conflict") then
        mended = err.code == "conflict" and (err.damage or err.message) or nil
        entry, err = build_one(store, key, build, ctx)
      end
      if not entry then room.tell(err, store.path) end
      if entry then entry.mended = mended end
      return entry, err
    end
  end
end

return M
