-- The kernel that images are booted with when nobody says which, and its initrd. The store keeps them as
-- one entry, since modules are of one kernel: what somebody has chosen, else the host's own.

local core = require "fcproc.core"
local disks = require "fcproc.resources.disks"
local errors = require "fcproc.error"
local guest = require "fcproc.guest"
local hash = require "fcproc.hash"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local stores = require "fcproc.image.store"

local M = {}

local CHOSEN, HOSTS = "@kernel", "@host-kernel"
local READABLE = 384 -- 0600, until the store seals it
local MANY = 12      -- digits of a key's parts

---@class fcproc.ImageBoot
---@field kernel string
---@field initrd string?
---@field version string?
---@field source string?
---@field mended string?  what was wrong with the one in the store, in whose place this one is
---@field lacks fcproc.KernelOption[]?  what it would need, of one that was just kept
---@field absent string[]?              modules that there are nowhere, likewise

---@class fcproc.ImageBootOptions
---@field initrd string?   a file; default: made of the kernel's modules
---@field modules string?  their folder; default: lib/modules/VERSION beside the kernel's boot/, or the host's

-- ---- keeping ---------------------------------------------------------------------------------

local function boot_of(entry, more)
  local boot = { kernel = entry.path, initrd = entry.files.initrd and entry.folder .. "/initrd" or nil,
    version = entry.version, source = entry.source, mended = entry.mended }
  for key, value in pairs(more or {}) do boot[key] = value end
  return boot
end

-- Which version of a file, or of what a folder holds, without reading it.
local function look_of(path)
  local stat = path and core.stat(path, true)
  return stat and ("%d-%d-%.9f"):format(stat.ino, stat.size, stat.mtime) or ""
end

-- Of modules their own lists tell, which depmod has written, and of an initrd that is made our init.
local function made_of(modules)
  return hash(core.version, look_of(guest.init_path()), look_of(modules),
    look_of(modules .. "/modules.dep"), look_of(modules .. "/modules.builtin"))
end

local function is_modules(folder)
  return core.stat(folder .. "/modules.dep") or core.stat(folder .. "/kernel")
end

-- Beside the kernel's boot/, as in what a package holds, or where the host has them.
local function find_modules(kernel, version)
  local root = kernel:match("^(.*)/boot/[^/]*$")
  for _, place in ipairs{ root or "", "" } do
    local folder = ("%s/lib/modules/%s"):format(place, version or "")
    if version and is_modules(folder) then return folder end
  end
end

-- The files of an entry. What unpacks kernels and writes initrds is loaded only here.
local function put_files(folder, kernel, opts, ctx)
  local made, err = require("fcproc.image.kernel").kernel(kernel, { to = folder .. "/vmlinux" }, ctx)
  if not made then return nil, err end
  local absent = {}
  if opts.initrd then
    local used
    used, err = disks.copy(opts.initrd, folder .. "/initrd", "reflink", READABLE, nil, ctx)
    if not used then return nil, err end
  elseif opts.modules then
    local initrd
    initrd, err = require("fcproc.image.initrd").initrd({ to = folder .. "/initrd", modules = opts.modules },
      ctx)
    if not initrd then return nil, err end
    for i, module in ipairs(initrd.absent) do absent[i] = module.name end
  end
  return { version = made.version, lacks = made.lacks, absent = absent }
end

local function make(store, key, kernel, opts, ctx, thorough)
  local made
  local entry, err = store:make(key, function(folder, own_ctx)
    local why
    made, why = put_files(folder, kernel, opts, own_ctx)
    if not made then return nil, why end
    return { kind = "kernel", file = "vmlinux", source = kernel, version = made.version }
  end, ctx, thorough)
  if not entry then return nil, err end
  return entry, made
end

local function hash_of(path, ctx)
  local done, digits = loop.complete(ctx, core.hash_file(path, nil, ctx))
  if not done then return nil, digits end
  return digits:sub(1, MANY)
end

local KNOWN = { initrd = "string", modules = "string" }

---Keeps a kernel, and its initrd, as what images are booted with: a distribution's as it is, unpacked.
---@param store fcproc.ImageStore
---@param kernel string
---@param opts fcproc.ImageBootOptions?
---@param ctx fcproc.Context?
---@return fcproc.ImageBoot?
---@return fcproc.Error? err  ERR_INVALID: it is no kernel, or the modules are none; ERR_NOT_FOUND
function M.keep(store, kernel, opts, ctx)
  options.argument(kernel, "string", "store:keep_kernel", "kernel")
  options.check(opts, KNOWN, "store:keep_kernel")
  opts = opts or {}
  local path, err = core.absolute_path(kernel)
  if not path then return nil, err end
  if opts.modules and not is_modules(opts.modules) then
    return nil, errors.new{ code = "invalid", op = "image.keep_kernel", path = opts.modules,
      message = ("%s has no kernel's modules: it is written like /lib/modules/VERSION"):format(opts.modules) }
  elseif opts.modules and opts.initrd then
    return nil, errors.new{ code = "invalid", op = "image.keep_kernel",
      message = "initrd and modules: of modules an initrd is made, so give one of them" }
  end
  local first, second
  first, err = hash_of(path, ctx)
  if first and opts.initrd then second, err = hash_of(opts.initrd, ctx) end
  if not first or (opts.initrd and not second) then return nil, err end
  local look
  if not opts.initrd and not opts.modules then
    look, err = require("fcproc.image.kernel").kernel(path, nil, ctx)
    if not look then return nil, err end
  end
  local modules = opts.modules or (look and find_modules(path, look.version))
  second = second or modules and ("%016x"):format(made_of(modules)) or "none"
  local entry, made = make(store, ("kernel-%s-%s"):format(first, second), path,
    { initrd = opts.initrd, modules = modules }, ctx, true)
  if not entry then return nil, made end
  local ok
  ok, err = store:_keep(CHOSEN, entry.key, ctx)
  if not ok then return nil, err end
  return boot_of(entry, made)
end

-- ---- the default -----------------------------------------------------------------------------

---The kernel that runs here, where it is a file that we may read.
---@return { kernel: string, modules: string?, release: string }? host
---@return string? unreadable  where it is, and may not be read
function M.host()
  local release = (core.read_file("/proc/sys/kernel/osrelease") or ""):match("%S+") or "-"
  local unreadable
  for _, path in ipairs{ "/boot/vmlinuz-" .. release, ("/lib/modules/%s/vmlinuz"):format(release) } do
    if core.read_file(core.absolute_path(path) or path, 0, 1) then
      return { kernel = core.absolute_path(path), release = release,
        modules = "/lib/modules/" .. release }
    end
    if core.stat(path, true) then unreadable = path end
  end
  return nil, unreadable
end

---The same kept in the store: once for each version of it, and looked at no more than that.
---@param store fcproc.ImageStore
---@param host { kernel: string, modules: string?, release: string }
---@param ctx fcproc.Context?
---@return fcproc.ImageBoot?
---@return fcproc.Error? err
function M.of_host(store, host, ctx)
  local modules = host.modules and is_modules(host.modules) and host.modules or nil
  local key = ("host-%s-%016x"):format((host.release:gsub("[^%w]", "_"):sub(1, 60)),
    hash(look_of(host.kernel), modules and made_of(modules) or 0))
  local kept = store:find(HOSTS)
  if kept and kept.key == key then return boot_of(kept) end
  local entry, made = make(store, key, host.kernel, { modules = modules }, ctx)
  if not entry then return nil, made end
  local ok, err = store:_keep(HOSTS, key, ctx)
  if not ok then return nil, err end
  return boot_of(entry, made)
end

---What images are booted with: what was kept, else the host's own kernel.
---@param store string|fcproc.ImageStore|nil
---@param ctx fcproc.Context?
---@return fcproc.ImageBoot?
---@return fcproc.Error? err  ERR_NOT_FOUND, with what to do
function M.default(store, ctx)
  local err
  if type(store) ~= "table" then store, err = stores.open(store) end
  if not store then return nil, err end
  local entry
  entry, err = store:find(CHOSEN)
  if entry then return boot_of(entry) end
  if err.code ~= "not_found" then return nil, err end
  local host, unreadable = M.host()
  if host then
    local boot
    boot, err = M.of_host(store, host, ctx)
    if boot then return boot end
    err.message = ("the host's own kernel can't boot it: %s; keep another for all images (fcproc image "
      .. "kernel --default FILE)"):format(err.message)
    return nil, err
  end
  return nil, errors.new{ code = "not_found", op = "image.boot", path = store.path,
    message = ("there is no kernel to boot it with%s: give one (kernel = FILE, --kernel FILE), or keep one "
      .. "for all images (fcproc image kernel --default FILE)"):format(unreadable
      and (", since the host's own, %s, can't be read"):format(unreadable) or "") }
end

return M
