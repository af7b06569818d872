-- What a store says of one of its entries, image.json, judged when it is read: it may be a backup's or
-- another host's, or a crash's.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local fields = require "fcproc.machine.fields"
local json = require "fcproc.json"
local loop = require "fcproc.loop"

local M = {}

M.FORMAT, M.FILE = 1, "image.json"

local LIMIT = 1 << 20
local OTHERS_WRITE = 18 -- 0022

local function text(most, pattern, says)
  return { kind = "string", bytes = true, max = most, rule = function(value)
    if not value:find(pattern) then return says end
  end }
end
local function required(type) return setmetatable({ required = true }, { __index = type }) end
local plain = text(4096, "^%C*$", "must have no control characters")
local hash = text(64, "^" .. ("%x"):rep(64) .. "$", "must be a SHA-256")
local size = { kind = "integer", min = 0 }
local file_name = text(100, "^[%w][%w._-]*$", "can't be the name of a file there")

---What a key may be; it is the name of a folder.
---@param key any
---@return boolean
function M.is_key(key)
  return type(key) == "string" and #key <= 100 and key:find("^[%w][%w_-]*$") ~= nil
end

---@class fcproc.StoreEntry
---@field key string
---@field kind "ext4"|"squashfs"|"tar"|"initrd"|"kernel"|"scratch"
---@field file string        the name of the file that counts, in files
---@field files table<string, { bytes: integer, hash: string }>  as a snapshot's: holes cost nothing
---@field created integer    seconds since 1970
---@field source string?     what it was built of, as it was given
---@field digest string?     of that: "sha256:..."
---@field platform string?
---@field version string?    a kernel's
---@field blobs string[]?    the digests of what it was built of, which the store keeps with it
---@field folder string      where it is: not written down
---@field path string        and the file that counts
---@field mended string?      what was wrong with the one that it has just replaced: not written down

local known = { kind = "object", open = true, fields = {
  format = required{ kind = "integer", min = 1 }, key = required(text(100, "^[%w][%w_-]*$", "is no key")),
  kind = required{ kind = "string", values = { ext4 = true, squashfs = true, tar = true, initrd = true,
    kernel = true, scratch = true } },
  file = required(file_name), created = required(size),
  files = required{ kind = "map", name = file_name.rule,
    of = { kind = "object", open = true, fields = { bytes = required(size), hash = required(hash) } } },
  source = plain, digest = text(71, "^sha256:%x+$", "must be sha256: and its digits"), platform = plain,
  version = plain, blobs = { kind = "list", of = text(71, "^sha256:%x+$", "must be a digest") },
} }

local function damaged(folder, format, ...)
  local again = folder:find("/kernel%-[^/]*$") and "keep it again (fcproc image kernel --default FILE)"
    or "build it again"
  local damage = errors.shown(format:format(...))
  return nil, errors.new{ code = "conflict", op = "image.store", path = folder, damage = damage,
    message = ("%s is damaged: %s; %s, which replaces it"):format(folder, damage, again) }
end

---Reads one, and looks whether its files are there.
---@param folder string
---@param key string
---@return fcproc.StoreEntry?
---@return fcproc.Error? err  ERR_NOT_FOUND: there is none; ERR_CONFLICT: it is damaged; ERR_UNSUPPORTED:
---                           a newer fcproc made it
function M.read(folder, key)
  local written, err = core.read_file(folder .. "/" .. M.FILE, 0, LIMIT + 1)
  if not written then
    if err.code == "not_found" and core.stat(folder) then return damaged(folder, "it has no %s", M.FILE) end
    return nil, err
  end
  local entry = #written <= LIMIT and json.read(written) or nil
  if type(entry) ~= "table" then return damaged(folder, "its %s is no JSON", M.FILE) end
  entry = json.plain(entry)
  if math.type(entry.format) == "integer" and entry.format > M.FORMAT then
    return nil, errors.new{ code = "unsupported", op = "image.store", path = folder,
      message = ("%s is of a newer fcproc (format %d): use that"):format(folder, entry.format) }
  end
  local ok, why = fields.check(nil, known, entry, "")
  if not ok then return damaged(folder, "%s", why.message) end
  if entry.key ~= key then return damaged(folder, "it says that it is %s", entry.key) end
  if not entry.files[entry.file] then return damaged(folder, "there is no %s among its files", entry.file) end
  for name, facts in pairs(entry.files) do
    local stat = core.stat(folder .. "/" .. name)
    if not stat or stat.type ~= "file" then return damaged(folder, "it has no file %s any more", name) end
    if stat.size ~= facts.bytes then
      return damaged(folder, "its %s has %d bytes, and had %d", name, stat.size, facts.bytes)
    end
    if stat.uid ~= core.own_uid() or stat.mode & OTHERS_WRITE ~= 0 then
      return damaged(folder, "somebody else may write to its %s", name)
    end
  end
  entry.folder, entry.path = folder, folder .. "/" .. entry.file
  return entry
end

local function hash_of(path, ctx)
  local done, found = loop.complete(ctx, core.hash_file(path, { blocks = true }, ctx))
  if not done then return nil, found end
  return found
end

---Reads all that it has, and compares.
---@param entry fcproc.StoreEntry
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: a file of it is not what it was
function M.verify(entry, ctx)
  for name, facts in pairs(entry.files) do
    local found, err = hash_of(entry.folder .. "/" .. name, ctx)
    if not found then return nil, err end
    if found ~= facts.hash then return damaged(entry.folder, "its %s is not what it was", name) end
  end
  return true
end

-- Onto the disk, with what is in it.
local function sync(path, ctx)
  local done, err = loop.complete(ctx, core.sync(path, ctx))
  return done or nil, err
end

---Makes an entry of a folder: its files are nobody's to write any more, and on the disk.
---@param folder string
---@param entry table  key, kind, file and what else is known
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.write(folder, entry, ctx)
  local list, err = core.list_dir(folder)
  if not list then return nil, err end
  entry.format, entry.created, entry.files = M.FORMAT, os.time(), {}
  for _, item in ipairs(list) do
    local path = folder .. "/" .. item.name
    if item.type == "file" then
      local ok
      ok, err = core.own_file(path, nil, nil, 292) -- 0444
      if ok then ok, err = sync(path, ctx) end
      if not ok then return nil, err end
      local hashed
      hashed, err = hash_of(path, ctx)
      if not hashed then return nil, err end
      entry.files[item.name] = { bytes = core.stat(path).size, hash = hashed }
    end
  end
  local ok, why = fields.check(nil, known, entry, "")
  if not ok then return nil, why end
  ok, err = core.write_file(folder .. "/" .. M.FILE, json.write(entry, known) .. "\n", 420)
  if ok then ok, err = sync(folder .. "/" .. M.FILE, ctx) end
  if ok then ok, err = sync(folder, ctx) end
  return ok, err
end

M.sync = sync

return M
