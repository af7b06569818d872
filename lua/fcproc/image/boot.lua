-- The kernel that images are booted with when nobody says which, and its initrd. The store keeps them as
-- one entry, since modules are of one kernel.

local core = require "fcproc.core"
local disks = require "fcproc.resources.disks"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local stores = require "fcproc.image.store"

local M = {}

local NAME = "@kernel"
local READABLE = 384 -- 0600, until the store seals it

---@class fcproc.ImageBoot
---@field kernel string
---@field initrd string?
---@field version string?
---@field source string?

local function boot_of(entry)
  return { kernel = entry.path, initrd = entry.files.initrd and entry.folder .. "/initrd" or nil,
    version = entry.version, source = entry.source }
end

local function hash_of(path, ctx)
  local done, hash = loop.complete(ctx, core.hash_file(path, nil, ctx))
  if not done then return nil, hash end
  return hash
end

---Keeps a kernel, and its initrd, as what images are booted with.
---@param store fcproc.ImageStore
---@param kernel string
---@param initrd string?
---@param ctx fcproc.Context?
---@return fcproc.ImageBoot?
---@return fcproc.Error? err
function M.keep(store, kernel, initrd, ctx)
  local first, err = hash_of(kernel, ctx)
  local second = ""
  if first and initrd then second, err = hash_of(initrd, ctx) end
  if not first or not second then return nil, err end
  local entry
  entry, err = store:make(("kernel-%s-%s"):format(first:sub(1, 32), second:sub(1, 32)), function(folder, own)
    for name, path in pairs{ vmlinux = kernel, initrd = initrd } do
      local copied, why = disks.copy(path, folder .. "/" .. name, "reflink", READABLE, nil, own)
      if not copied then return nil, why end
    end
    return { kind = "kernel", file = "vmlinux", source = core.absolute_path(kernel) }
  end, ctx)
  if not entry then return nil, err end
  local ok
  ok, err = store:keep(NAME, entry.key, ctx)
  if not ok then return nil, err end
  return boot_of(entry)
end

---What images are booted with.
---@param store string|fcproc.ImageStore|nil
---@param ctx fcproc.Context?
---@return fcproc.ImageBoot?
---@return fcproc.Error? err  ERR_NOT_FOUND, with what to do
function M.default(store, ctx) -- luacheck: ignore ctx
  local err
  if type(store) ~= "table" then store, err = stores.open(store) end
  if not store then return nil, err end
  local entry
  entry, err = store:find(NAME)
  if entry then return boot_of(entry) end
  if err.code ~= "not_found" then return nil, err end
  return nil, errors.new{ code = "not_found", op = "image.boot", path = store.path,
    message = "there is no kernel to boot it with: give one (kernel = FILE, --kernel FILE), or keep one for "
      .. "all images (fcproc image kernel --default FILE --initrd FILE)" }
end

return M
