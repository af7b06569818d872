-- An image as a VM's disk: what a spec's drives may hold.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local scratch = require "fcproc.image.scratch"
local stores = require "fcproc.image.store"

local M = {}

---@class fcproc.ImageDiskOptions
---@field overlay (string|integer|false)?  what the VM may write over the image, which it shares with others:
---                                 "4GiB"; default "2GiB". It needs an initrd, see fcproc.image.initrd.
---                                 false: the VM can't write
---@field copy ("reflink"|"sparse")?  the VM writes to a copy of its own instead
---@field root boolean?             the guest's root device; default true
---@field pull boolean?             an image that is not in the store is taken from a registry
---@field store (string|fcproc.ImageStore)?  default: the user's own
---@field id string?                as in fcproc.DriveSpec, as the rest
---@field rate_limit table?         as the API's rate_limiter
---@field io_engine ("Sync"|"Async")?
---@field cache_type ("Unsafe"|"Writeback")?

local known = { overlay = "string|integer|boolean", copy = "string", root = "boolean", pull = "boolean",
  store = "string|table", id = "string", rate_limit = "table", io_engine = "string", cache_type = "string" }

---Which file system a disk has that a guest can mount, by its first 2048 bytes.
---@param head string
---@return ("ext4"|"squashfs"|"erofs")?
function M.file_system(head)
  if head:sub(1081, 1082) == "\x53\xef" then return "ext4" end
  if head:sub(1, 4) == "hsqs" then return "squashfs" end
  if head:sub(1025, 1028) == "\xe2\xe1\xf5\xe0" then return "erofs" end
end

local HEAD = 2048

local function invalid(format, ...)
  return nil, errors.new{ code = "invalid", op = "image.disk", message = format:format(...) }
end

-- A file, which may be an image that nobody has put into a store.
local function of_path(path)
  local absolute, err = core.absolute_path(path)
  if not absolute then return nil, err end
  local size, head = core.disk_look(absolute, HEAD)
  if not size then return nil, head end
  if M.file_system(head) then return { path = absolute } end
  return invalid("%s holds no file system that a guest can mount: build an image of it (fcproc image build)",
    errors.quoted(path, 200))
end

---Is it written as a path is? All else may be a name.
---@param ref string
---@return boolean
function M.is_path(ref) return ref:find("^%.?%.?/") ~= nil end

local SOURCES = { dir = true, tar = true, oci = true, ["oci-archive"] = true, ["docker-archive"] = true }

-- From a registry into the store, when that has none of the name. Who does not ask for it never gets there.
local function pull(ref, store, ctx)
  local there = ref:gsub("^docker://", "")
  local name = there:gsub("@sha256:", ".") -- which is no name's
  local image, err = store:find(name)
  if image or err.code ~= "not_found" then return image, err end
  local build = require("fcproc.image.build").build -- loaded only where something is built
  local built
  built, err = build("docker://" .. there, nil, { name = name, store = store }, ctx)
  if not built then return nil, err end
  return store:find(name)
end

local function of_store(ref, store, asked, ctx)
  if asked then return pull(ref, store, ctx) end
  local transport = ref:match("^([%l-]+):")
  if ref:find("^docker://") then
    local image, err = store:find((ref:gsub("^docker://", "")))
    if image or err.code ~= "not_found" then return image, err end
    return invalid("%s is not in the store, and a launch asks no registry unless it is told to (pull = true, "
      .. "--pull)", errors.quoted(ref, 120))
  elseif SOURCES[transport] and not store:find(ref) then
    return invalid("%s is no image yet: fcproc image build %s --name NAME puts it into the store, and NAME "
      .. "is one", errors.quoted(ref, 120), errors.quoted(ref, 120))
  end
  return store:find(ref)
end

---What a name or a path leads to.
---@param ref string
---@param opts { store: string|fcproc.ImageStore|nil, pull: boolean? }
---@param ctx fcproc.Context?
---@return { path: string, kind: string? }?
---@return fcproc.Error|fcproc.ImageStore store
function M.find(ref, opts, ctx)
  local store, err = opts.store, nil
  if type(store) ~= "table" then store, err = stores.open(store) end
  if not store then return nil, err end
  local image
  if M.is_path(ref) then image, err = of_path(ref) else image, err = of_store(ref, store, opts.pull, ctx) end
  if not image then return nil, err end
  if image.kind and image.kind ~= "ext4" and image.kind ~= "squashfs" then
    return invalid("%s is no disk: it is %s", errors.quoted(ref, 80), options.a(image.kind))
  end
  return image, store
end

---An image of the store, or a file with a file system, as a disk. One that a VM writes to is its own:
---by default what it writes goes to an empty disk over the image, which all VMs share.
---
---    local disk = assert(fcproc.image.disk("debian12", { overlay = "4GiB" }))
---    local vm = fcproc.vm.launch(manager, { kernel = kernel, initrd = initrd, drives = { disk } })
---@param ref string
---@param opts fcproc.ImageDiskOptions?
---@param ctx fcproc.Context?
---@return fcproc.DiskObject? disk
---@return fcproc.Error? err  ERR_NOT_FOUND: there is no such image; ERR_INVALID; ERR_CONFLICT: it is
---                           damaged; ERR_PERMISSION: the store is somebody else's
function M.disk(ref, opts, ctx)
  options.argument(ref, "string", "image.disk", "ref")
  options.check(opts, known, "image.disk")
  opts = opts or {}
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local image, store = M.find(ref, opts, ctx)
  if not image then return nil, store end
  local overlay = opts.overlay
  if overlay == nil then overlay = not opts.copy and opts.root ~= false end
  if overlay == true then overlay = scratch.DEFAULT end
  if overlay and opts.copy then return invalid("overlay and copy: give one of them") end
  local drive = { path = image.path, root = opts.root ~= false, copy = opts.copy, read_only = not opts.copy,
    id = opts.id, rate_limit = opts.rate_limit, io_engine = opts.io_engine, cache_type = opts.cache_type }
  return {
    image = image,
    disk = function(_, own_ctx)
      if overlay then
        local why
        drive.overlay, why = scratch.template(store, overlay, own_ctx)
        if not drive.overlay then return nil, why end
      end
      return drive
    end,
  }
end

return M
