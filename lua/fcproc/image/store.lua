-- Where images are kept: each once, by what it was made of. A folder of the user's own:
--
-- STORE/images/KEY/       image.json, the image, and a folder of links to who needs it (users.lua)
-- STORE/tags/NAME         -> KEY
-- STORE/blobs/sha256/HEX  layers that were downloaded, as an OCI layout has them (download.lua)
-- STORE/partial/KEY/      what is being built, while STORE/locks/KEY is held, or downloaded
--
-- An image comes by one rename, on the disk with all that is in it, and goes by one. So a crash leaves
-- nothing that a name leads to and is not whole.

local core = require "fcproc.core"
local entries = require "fcproc.image.entry"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local loop = require "fcproc.loop"
local making = require "fcproc.image.making"
local options = require "fcproc.options"
local prune = require "fcproc.image.prune"
local references = require "fcproc.image.reference"
local users = require "fcproc.resources.users"

local M = {}

local PRIVATE_DIR = 448 -- 0700
local ROOTS = "/var/lib/fcproc/images"
local FOLDERS = { "images", "tags", "blobs", "blobs/sha256", "partial", "locks" }
local MOST_TAG = 200
local SHORT_KEY = 8  -- digits that are enough of a key
local PAUSE = 0.2    -- seconds between two looks at a lock whose holder may have failed

---@class fcproc.ImageStore
---@field path string
---@field package ready boolean?  its folders are there, and were judged
local Store = {}
Store.__index = Store
M.Store = Store

---Where a user's images are when nobody says otherwise.
---@return string? path
---@return fcproc.Error? err  ERR_INVALID: it has no home
function M.default_path()
  if core.own_uid() == 0 then return ROOTS end
  local data, home = os.getenv("XDG_DATA_HOME"), os.getenv("HOME")
  if data and data:sub(1, 1) == "/" then return data .. "/fcproc/images" end
  if home and home:sub(1, 1) == "/" then return home .. "/.local/share/fcproc/images" end
  return nil, errors.new{ code = "invalid", op = "image.store",
    message = "there is no HOME, or no absolute one, to have images in: say where the store is "
      .. "(store = PATH, --store PATH)" }
end

-- Its folders are made, and judged. What judges them is made for runtime folders.
local function prepare(path)
  local made, err = core.socket_dir(path)
  local ok = made ~= nil or nil
  if ok then ok, err = core.check_dir(path) end
  for _, name in ipairs(ok and FOLDERS or {}) do
    local folder = path .. "/" .. name
    if ok and not core.stat(folder) then ok, err = core.make_dir(folder, PRIVATE_DIR) end
    if ok ~= nil then ok, err = core.check_dir(folder) end
    if not ok then break end
  end
  if ok then return true end
  err.message = err.message:gsub("the runtime folder", "the store"):gsub("runtime_dir", "store")
  return nil, err
end

---Opens a store. Where there is none, one is made when the first image comes into it.
---@param path string?  default: /var/lib/fcproc/images of root, else ~/.local/share/fcproc/images
---@return fcproc.ImageStore? store
---@return fcproc.Error? err  ERR_PERMISSION: it is somebody else's; ERR_CONFLICT: others may write there,
---                           or a link or a file is in the way
function M.open(path)
  local err
  if path == nil then path, err = M.default_path() end
  if path == "" then
    return nil, errors.new{ code = "invalid", op = "image.store", message = "the store's path is empty" }
  end
  if path and path:sub(1, 1) ~= "/" then
    local here
    here, err = core.absolute_path(".")
    path = here and ("%s/%s"):format(here, (path:gsub("^%./+", "")))
  end
  if not path then return nil, err end
  local store = setmetatable({ path = path }, Store)
  if not store:exists() then return store end
  local ok
  ok, err = store:prepare()
  return ok and store, err
end

---Is there one already?
---@return boolean
function Store:exists()
  if self.ready then return true end
  local stat, err = core.stat(self.path)
  return stat ~= nil or err.code ~= "not_found" -- what can't be looked at is judged as if it were there
end

---From now on there is one.
---@return true?
---@return fcproc.Error? err  as fcproc.image.store's
function Store:prepare()
  if self.ready then return true end
  local ok, err = prepare(self.path)
  self.ready = ok
  return ok, err
end

---Where things of a kind are in it.
---@param kind "images"|"tags"|"blobs"|"partial"|"locks"
---@param name string?
---@return string path
function Store:at(kind, name)
  return self.path .. "/" .. kind .. (name and "/" .. name or "")
end

---Where the file of a digest is, or would be.
---@param digest string  "sha256:..."
---@return string path
function Store:blob(digest)
  return self:at("blobs", (digest:gsub("^sha256:", "sha256/")))
end

-- ---- names ---------------------------------------------------------------------------------

---Can it be a tag?
---@param name any
---@return true?
---@return fcproc.Error? err
function M.check_tag(name)
  local good = type(name) == "string" and #name <= MOST_TAG and name:find("^[%w][%w._/:-]*$")
    and not name:find("//", 1, true) and not name:find("[/:]$") and not name:find("%.%.", 1)
  local ref = good and references.parse(name)
  if good and not (ref and ref.transport == "store") then
    return nil, errors.new{ code = "invalid", op = "image.tag",
      message = ("%s can't be an image's name: %s: before it says where a source is"):format(
        errors.quoted(name, 80), name:match("^[^:]*")) }
  end
  if good then return true end
  return nil, errors.new{ code = "invalid", op = "image.tag",
    message = ("%s can't be an image's name: letters, digits and - . _ / : between them"):format(
      errors.quoted(tostring(name), 80)) }
end

-- As the name of a file; those of our own begin with an "@", as no tag does.
local function encoded(name)
  return (name:gsub("[/:%%]", function(c) return ("%%%02x"):format(c:byte()) end))
end

local function decoded(name)
  return (name:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- Holds a lock of the store. Meanwhile something may come that makes it needless: then there is none.
function Store:_hold(name, wanted, ctx)
  local ready, unusable = self:prepare()
  if not ready then return nil, unusable end
  local path = self:at("locks", name)
  while true do
    local ok, err = loop.check(ctx)
    local lock
    if ok then lock, err = core.lock_file(path) end
    if lock then return lock end
    if err.code ~= "busy" then return nil, err end
    local there
    there, err = loop.complete(ctx, core.wait_path(wanted or path .. ".none", false, PAUSE, "the image", 0,
      ctx))
    if there then return false end
    if err.code ~= "deadline" then return nil, err end
  end
end

-- Tags are given and images removed one at a time.
function Store:_with_tags(ctx, fn)
  local lock, err = self:_hold("@tags", nil, ctx)
  if not lock then return nil, err end
  local _ <close> = finally(function() lock:close() end)
  return fn()
end

---Names an image. A name that another had passes to it.
---@param name string
---@param key string
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_NOT_FOUND: there is no such image; ERR_INVALID
function Store:tag(name, key, ctx)
  local ok, err = M.check_tag(name)
  if not ok then return nil, err end
  return self:_keep(name, key, ctx)
end

---The same for any name, also one of our own, which begins with "@" and keeps the image from being removed.
---@param name string
---@param key string
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_NOT_FOUND: there is no such image
function Store:_keep(name, key, ctx)
  return self:_with_tags(ctx, function()
    local entry, err = self:entry(key)
    if not entry then return nil, err end
    local new = self:at("partial", "@tag")
    core.remove_file(new) -- of one who died
    local ok
    ok, err = core.symlink(key, new)
    if ok then ok, err = core.rename(new, self:at("tags", encoded(name)), true) end
    if ok then ok, err = entries.sync(self:at("tags"), ctx) end
    return ok, err
  end)
end

---A name is nobody's any more.
---@param name string
---@param ctx fcproc.Context?
---@return boolean? removed
---@return fcproc.Error? err  ERR_CANCELLED, ERR_DEADLINE, or as the file system has it
function Store:untag(name, ctx)
  if not self:exists() then return false end
  return self:_with_tags(ctx, function() return self:_forget(name) end)
end

-- The same for who holds that lock.
function Store:_forget(name) return core.remove_file(self:at("tags", encoded(name))) end

---All names.
---@return table<string, string[]>? tags  those of each key, in order
---@return fcproc.Error? err  ERR_PERMISSION, or as the file system has it
function Store:tags()
  if not self:exists() then return {} end
  local list, err = core.list_dir(self:at("tags"))
  if not list then return nil, err end
  local tags = {}
  for _, item in ipairs(list) do
    local key = core.read_link(self:at("tags", item.name))
    if key then
      tags[key] = tags[key] or {}
      table.insert(tags[key], decoded(item.name))
    end
  end
  return tags
end

-- ---- finding -------------------------------------------------------------------------------

---What is there by its key.
---@param key string
---@return fcproc.StoreEntry?
---@return fcproc.Error? err  ERR_NOT_FOUND; ERR_CONFLICT: it is damaged; ERR_UNSUPPORTED: a newer fcproc's
function Store:entry(key)
  if not entries.is_key(key) then
    return nil, errors.new{ code = "not_found", op = "image.store", path = self.path,
      message = ("%s is no key of an image"):format(errors.quoted(tostring(key), 120)) }
  end
  local entry, err = entries.read(self:at("images", key), key)
  if not entry and err.code == "not_found" then
    err.message = ("there is no image %s in %s"):format(key, self.path)
  end
  return entry, err
end

-- The whole key of which that is the beginning.
function Store:_key(short)
  if #short < SHORT_KEY or short:find("%X") then return nil end
  local found
  for _, item in ipairs(core.list_dir(self:at("images")) or {}) do
    if item.name:sub(1, #short) == short then
      if found then return nil end
      found = item.name
    end
  end
  return found
end

---What has the name, or a key that begins so. Nothing is looked for anywhere else.
---@param name string
---@return fcproc.StoreEntry?
---@return fcproc.Error? err  ERR_NOT_FOUND, with what to do
function Store:find(name)
  local key = core.read_link(self:at("tags", encoded(name))) or self:_key(name)
  local entry, err
  if key then entry, err = self:entry(key) end
  if entry or (err and err.code ~= "not_found") then return entry, err end
  return nil, errors.new{ code = "not_found", op = "image.store", path = self.path,
    message = ("there is no image %s in %s: fcproc image list shows what there is, and fcproc image build "
      .. "SOURCE --name %s makes one"):format(errors.quoted(name, 80), self.path, name) }
end

---What is in the store as a source of another image.
---@param ref { name: string }
---@param opts { store: string|fcproc.ImageStore|nil }
---@return fcproc.StoreEntry? tar
---@return fcproc.Error err  ERR_NOT_FOUND: there is none of that name; ERR_UNSUPPORTED: of a disk no other
---                          can be built
function M.source(ref, opts)
  local store, err = opts.store, nil
  if type(store) ~= "table" then store, err = M.open(store) end
  local entry
  if store then entry, err = store:find(ref.name) end
  if not entry then return nil, err --[[@as fcproc.Error]] end
  if entry.kind == "tar" then return entry end
  return nil, errors.new{ code = "unsupported", op = "image.source", path = entry.path,
    message = ("%s is a finished %s in the store, which can't be read as a source: take what it was built "
      .. "of, %s, or keep it as a tar (format = \"tar\", --format tar)")
      :format(ref.name, entry.kind, errors.quoted(entry.source or "what it came from", 200)) }
end

---@class fcproc.StoredImage: fcproc.StoreEntry
---@field tags string[]
---@field users string[]    folders of VMs and snapshots that need it
---@field err fcproc.Error?  why it can't be used; then there is only its key

---All that there is, the oldest first.
---@return fcproc.StoredImage[]? images
---@return fcproc.Error? err  ERR_PERMISSION, or as the file system has it; of a damaged one err is in it
function Store:list()
  if not self:exists() then return {} end
  local tags, err = self:tags()
  local items
  if tags then items, err = core.list_dir(self:at("images")) end
  if not items then return nil, err end
  local list = {}
  for _, item in ipairs(items) do
    local entry, why = self:entry(item.name)
    if entry or why.code ~= "not_found" then
      entry = entry or { key = item.name, folder = self:at("images", item.name), created = 0, err = why }
      entry.tags, entry.users = tags[item.name] or {}, users.list(entry.folder) or {}
      list[#list + 1] = entry
    end
  end
  table.sort(list, function(a, b)
    if a.created ~= b.created then return a.created < b.created end
    return a.key < b.key
  end)
  return list
end

---Removes what nobody needs: images without a name that no VM, no snapshot and no process has, downloads,
---and what crashes left.
---@param opts fcproc.PruneOptions?
---@param ctx fcproc.Context?
---@return fcproc.Pruned? report
---@return fcproc.Error? err  ERR_CANCELLED, ERR_DEADLINE, or as the file system has it
function Store:prune(opts, ctx)
  options.check(opts, { all = "boolean", dry_run = "boolean" }, "store:prune")
  if not self:exists() then return { removed = {}, kept = {}, bytes = 0 } end
  return prune.prune(self, opts, ctx)
end

---Keeps a kernel, and its initrd, as what images are booted with: a distribution's as it is, unpacked.
---@param kernel string
---@param opts fcproc.ImageBootOptions?
---@param ctx fcproc.Context?
---@return fcproc.ImageBoot? boot
---@return fcproc.Error? err  ERR_INVALID: it is no kernel, or the modules are none; ERR_NOT_FOUND
function Store:keep_kernel(kernel, opts, ctx)
  return require("fcproc.image.boot").keep(self, kernel, opts, ctx)
end

-- ---- making --------------------------------------------------------------------------------

---What has the key; made first when it is not there, or damaged: once, however many ask at the same time.
---@param key string
---@param build fun(folder: string, ctx: fcproc.Context?): table?, fcproc.Error?  makes the files in the
---             folder, and tells of them: kind, file (the name of the one that counts), source, ...
---@param ctx fcproc.Context?
---@param thorough boolean?  what is there is read, and compared with what it was
---@return fcproc.StoreEntry? entry  mended: what was wrong with the one that was there
---@return fcproc.Error? err  of the build; ERR_UNSUPPORTED: a newer fcproc's
function Store:make(key, build, ctx, thorough)
  return making.make(self, key, build, ctx, thorough)
end

return M
