-- Empty disks, for what a VM writes over a root that it shares with others. One of each size is kept in
-- the store, so that a VM's own is a copy of some blocks.

local core = require "fcproc.core"
local loop = require "fcproc.loop"
local process = require "fcproc.process"
local programs = require "fcproc.programs"
local errors = require "fcproc.error"
local sizes = require "fcproc.image.size"

local M = {}

M.DEFAULT = "2GiB"

local LEAST = 16 << 20
local MIB = 1 << 20
local TIMEOUT = 60 -- seconds
-- No journal: the disk goes with its VM. No tables that a kernel would write later: they are holes.
local FEATURES = "none,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,"
  .. "dir_nlink,extra_isize,metadata_csum,64bit"

-- A file of holes: in one that it makes itself, mke2fs writes zeros.
local function make_sparse(path, bytes)
  local made, err = core.create_file(path, "", 384)
  if not made then return nil, err end
  local file, reason = io.open(path, "r+b")
  local ok = file
  if ok then ok, reason = file:seek("set", bytes - 1) end
  if ok then ok, reason = file:write("\0") end
  if file then
    local closed, unwritten = file:close()
    ok, reason = ok and closed, reason or unwritten
  end
  if ok then return true end
  return nil, errors.new{ code = "system", op = "image.scratch", path = path, message = tostring(reason) }
end

local function format(path, bytes, ctx)
  local mke2fs, err = programs.need("mke2fs", "image.scratch",
    "mke2fs is not installed, which formats a VM's own disk: apt install e2fsprogs")
  if not mke2fs then return nil, err end
  local made
  made, err = make_sparse(path, bytes)
  if not made then return nil, err end
  local spec = process.spec({ mke2fs, "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES, "-E",
    "lazy_itable_init=0,root_owner=0:0", "-L", "overlay", path, bytes // 1024 .. "k" },
    { timeout = TIMEOUT, session = true, env = { MKE2FS_CONFIG = "/dev/null", LC_ALL = "C" } })
  local done, result = loop.complete(ctx, core.command(spec, ctx))
  if not done then return nil, result end
  if result.status == 0 then return true end
  return nil, errors.new{ code = "exit_status", op = "image.scratch", status = result.status,
    output = result.stderr, message = ("mke2fs failed: %s"):format(errors.quoted(
    result.stderr:match("[^\n]+") or "it said nothing", 300)) }
end

---An empty file system of that size, which is made when it is first asked for.
---@param store fcproc.ImageStore
---@param size string|integer  "2GiB", or bytes
---@param ctx fcproc.Context?
---@return string? path
---@return fcproc.Error? err  ERR_INVALID: it is no size; ERR_NOT_FOUND: there is no mke2fs
function M.template(store, size, ctx)
  local bytes, err = sizes.parse(size, "overlay")
  if not bytes then return nil, err end
  bytes = (bytes + MIB - 1) // MIB * MIB
  if bytes < LEAST then
    return nil, errors.new{ code = "invalid", op = "image.scratch",
      message = ("overlay: %s is too small: it takes %s"):format(sizes.text(bytes), sizes.text(LEAST)) }
  end
  local entry
  entry, err = store:make(("scratch-%d"):format(bytes), function(folder, own_ctx)
    local ok, why = format(folder .. "/scratch.ext4", bytes, own_ctx)
    if not ok then return nil, why end
    return { kind = "scratch", file = "scratch.ext4" }
  end, ctx)
  return entry and entry.path, err
end

return M
