-- Initrds: the modules that a distribution's kernel needs until its root is there, and fcproc's init, which
-- loads them, follows ip=, and mounts the root, or a disk of the VM's own over it.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local guest = require "fcproc.guest"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local modules = require "fcproc.image.modules"
local options = require "fcproc.options"

local M = {}

local FOLDERS = { "/dev", "/proc", "/sys", "/run", "/root", "/modules" }

---@class fcproc.InitrdOptions
---@field to string          where it is written to: whole, or not at all
---@field modules string?    the folder of one kernel's modules, as /lib/modules/6.1.0-13-amd64; without
---                          it the kernel has all that it needs built in
---@field more string[]?     further modules, by name
---@field gzip boolean?      smaller, and slower to boot: by default it is not packed
---@field init string?       another init than fcproc's: a static program
---@field progress fun(progress: fcproc.JobProgress)?

---@class fcproc.Initrd
---@field path string
---@field bytes integer
---@field version string?  of the kernel that it is for
---@field machine string?
---@field modules string[]  in the order in which they are loaded
---@field builtin string[]  wanted, and in the kernel itself
---@field absent fcproc.AbsentModule[]  wanted, and nowhere

local initrd_options = { to = "string", modules = "string", more = "table", gzip = "boolean",
  init = "string", progress = "function" }

-- What a compressed module holds.
local function unpacker(ctx)
  return function(path, limit)
    local job, result, err
    job, err = imagecore.unpack{ path = path, limit = limit, keep = true }
    if job then result, err = jobs.run(job, ctx) end
    if not result then return nil, err end
    return result.data
  end
end

local function choose(opts, ctx)
  if not opts.modules then return { list = {}, builtin = {}, absent = {} } end
  local names = table.move(modules.DEFAULT, 1, #modules.DEFAULT, 1, {})
  for _, name in ipairs(opts.more or {}) do
    options.argument(name, "string", "image.initrd", "a name in more")
    names[#names + 1] = name
  end
  return modules.choose((opts.modules:gsub("(.)/+$", "%1")), names, unpacker(ctx))
end

-- Puts all that the initrd holds into the tree.
local function fill(tree, init, set)
  local ok, err = tree:put("/init", { kind = "file", mode = 493, from = init, mtime = 0 })
  for _, folder in ipairs(FOLDERS) do
    if ok then ok, err = tree:put(folder, { kind = "dir", mode = 493, mtime = 0 }) end
  end
  -- The kernel opens it for init before that can mount anything.
  if ok then
    ok, err = tree:put("/dev/console", { kind = "char", mode = 384, major = 5, minor = 1, mtime = 0 })
  end
  local lines = {}
  for i, file in ipairs(set.list) do
    lines[i] = file.name .. ".ko\n"
    if ok then
      ok, err = tree:put(("/modules/%s.ko"):format(file.name), { kind = "file", mode = 420, mtime = 0,
        data = file.data, from = not file.data and file.path or nil })
    end
  end
  if ok then
    ok, err = tree:put("/modules/list", { kind = "file", mode = 420, mtime = 0, data = table.concat(lines) })
  end
  if ok then ok, err = tree:seal() end
  return ok, err
end

local function write(tree, opts, ctx)
  local target <close>, err = imagecore.target(opts.to)
  if not target then return nil, err end
  local job, ok
  job, err = tree:write{ format = "cpio", fd = target:fd(), gzip = opts.gzip }
  if job then ok, err = jobs.run(job, ctx, opts.progress) end
  if not ok then return nil, err end
  job, err = target:publish()
  if not job then return nil, err end
  return jobs.run(job, ctx)
end

---Makes an initrd for a stock kernel. The same modules and the same init give the same bytes.
---@param opts fcproc.InitrdOptions
---@param ctx fcproc.Context?
---@return fcproc.Initrd? initrd
---@return fcproc.Error? err  ERR_NOT_FOUND: no modules, or no init there; ERR_INVALID: damaged modules
function M.initrd(opts, ctx)
  options.argument(opts, "table", "image.initrd", "options")
  options.check(opts, initrd_options, "image.initrd")
  options.argument(opts.to, "string", "image.initrd", "to")
  local init, err
  if opts.more and #opts.more > 0 and not opts.modules then
    return nil, errors.new{ code = "invalid", op = "image.initrd",
      message = "more modules (more, --module) are looked for where modules (--modules) says" }
  end
  if opts.init then init, err = core.absolute_path(opts.init) else init, err = guest.init_path() end
  if not init then return nil, err end
  local set
  set, err = choose(opts, ctx)
  if not set then return nil, err end
  local tree <close>, cause = imagecore.tree{ spool_folder = opts.to:match("^(.*/)[^/]*$") or "." }
  if not tree then return nil, cause end
  local ok
  ok, err = fill(tree, init, set)
  if not ok then return nil, err end
  local written
  written, err = write(tree, opts, ctx)
  if not written then return nil, err end
  local names = {}
  for i, file in ipairs(set.list) do names[i] = file.name end
  return { path = opts.to, bytes = written.bytes, version = set.version, machine = set.machine,
    modules = names, builtin = set.builtin, absent = set.absent }
end

return M
