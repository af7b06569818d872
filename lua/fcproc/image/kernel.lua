-- Kernels: from what distributions ship, a bzImage or one that is packed, to the ELF file that Firecracker
-- boots; and what Firecracker needs that the kernel lacks.

local core = require "fcproc.core"
local elf = require "fcproc.image.elf"
local errors = require "fcproc.error"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local kconfig = require "fcproc.image.kconfig"
local options = require "fcproc.options"

local M = {}

local MOST = 1 << 30 -- bytes that a kernel may have when it is unpacked
local MOST_CONFIG, MOST_PACKED_CONFIG = 4 << 20, 1 << 20
local MOST_PACKED = 3 -- times: a packed bzImage is packed twice, and then there is the kernel
local HEAD = 4096

-- How packed files begin. In a bzImage their size stands behind them, but for gzip, whose own end it is.
local MAGIC = {
  { "gzip", "\x1f\x8b" }, { "xz", "\xfd7zXZ\0", tail = 4 }, { "zstd", "\x28\xb5\x2f\xfd", tail = 4 },
  { "lz4", "\x02\x21\x4c\x18", tail = 4 }, { "lz4", "\x04\x22\x4d\x18", tail = 4 },
  { "bzip2", "BZh", tail = 4 },
  { "lzma", "\x5d\0\0", tail = 4 }, { "lzo", "\x89LZO\0", tail = 4 },
}
local CONFIG_MARK, VERSION_MARK = "IKCFG_ST", "Linux version "

---@class fcproc.Kernel
---@field path string?         of the uncompressed kernel: the target, or the given file if it is one
---@field kind "vmlinux"|"bzImage"|"Image"  what was given, unpacked
---@field packing string?      what packed it, the innermost: "xz", "gzip", ...
---@field machine string       "x86_64", "aarch64"
---@field version string?      "6.1.0-13-amd64"
---@field bytes integer        of the uncompressed kernel
---@field config table<string, string>?  its configuration: { VIRTIO_BLK = "m", ... }
---@field config_from string?  where that was: the kernel's path, or a file's
---@field lacks fcproc.KernelOption[]?  what Firecracker and fcproc's initrd would need; nil: no configuration
---@field modules string[]?    what of it needs an initrd, because it is a module

local function fail(code, path, cause, format, ...)
  return nil, errors.new{ code = code, op = "image.kernel", path = path, cause = cause,
    message = errors.quoted(format:format(...), 2000) }
end

local function magic_of(head)
  for _, magic in ipairs(MAGIC) do
    if head:sub(1, #magic[2]) == magic[2] then return magic end
  end
end

-- Documentation/arch/x86/boot.rst: where the packed kernel lies in a bzImage.
local function read_bzimage(name, head, size)
  local function number(format, at) return (string.unpack(format, head, at + 1)) end
  if #head < 0x264 or number("<I2", 0x206) < 0x208 then
    return fail("unsupported", name, nil, "%s is a kernel from before Linux 2.6.24, whose packed part "
      .. "nobody tells of", name)
  end
  local sectors = number("<I1", 0x1f1)
  local from = ((sectors == 0 and 4 or sectors) + 1) * 512 + number("<I4", 0x248)
  local len = number("<I4", 0x24c)
  if len < 8 or from > size or len > size - from then
    return fail("invalid", name, nil, "%s was cut, or is damaged: its packed kernel is said to be at byte "
      .. "%d, of %d bytes, and it has %d", name, from, len, size)
  end
  local version_at = number("<I2", 0x20e) + 0x200
  local version = head:sub(version_at + 1, version_at + 100):match("^%d[%w._+~-]*")
  return { from = from, len = len, version = version }
end

-- Reads of a path, or of a target that has no path yet.
local function reader_of(source)
  return function(offset, size)
    local file <close>, text = io.open(source, "rb")
    if not file then return fail("system", source, nil, "can't open it: %s", text) end
    local ok, problem = file:seek("set", offset)
    local bytes = ok and (size == 0 and "" or file:read(size) or "")
    if bytes then return bytes end
    return fail("system", source, nil, "can't read it: %s", problem)
  end
end

-- For what is only looked at: it gets no name.
local function temporary()
  return ("%s/.fcproc-%016x"):format(os.getenv("TMPDIR") or "/tmp", math.random(0))
end

-- Unpacks into a file without a name, in the folder of path. Returns it, and the job's result.
local function unpack_to(path, job_options, ctx, progress)
  local target, result, job, err
  target, err = imagecore.target(path)
  if not target then return nil, err end
  job_options.fd, job_options.limit = target:fd(), MOST
  job_options.marks = { CONFIG_MARK, VERSION_MARK }
  job, err = imagecore.unpack(job_options)
  if job then result, err = jobs.run(job, ctx, progress) end
  if result then return target, result end
  target:close()
  return nil, err
end

-- An uncompressed kernel is read to its end only to find the marks.
local function scan(path, ctx, progress)
  local job, err = imagecore.unpack{ path = path, marks = { CONFIG_MARK, VERSION_MARK },
    limit = math.maxinteger }
  local result
  if job then result, err = jobs.run(job, ctx, progress) end
  if not result then return nil, err end
  return result.marks
end

local function version_at(source, offset)
  local text = reader_of(source)(offset + #VERSION_MARK, 100)
  return text and text:match("^%d[%w._+~-]*")
end

-- The configuration: the kernel's own, or what the distribution has put beside it.
local function read_config(kernel, path, found, ctx)
  local mark = found.marks[1]
  if mark and mark + #CONFIG_MARK < found.size then
    local from = mark + #CONFIG_MARK
    local job = imagecore.unpack{ path = found.source, from = from,
      len = math.min(found.size - from, MOST_PACKED_CONFIG), limit = MOST_CONFIG, keep = true }
    local result, err
    if job then result, err = jobs.run(job, ctx) end
    if err and (err.code == "cancelled" or err.code == "deadline") then return nil, err end
    if result and result.packed and result.data:find("CONFIG_", 1, true) then
      kernel.config, kernel.config_from = kconfig.parse(result.data), path
      return true
    end
  end
  if not kernel.version then return true end
  local folder, version = path:match("^(.*)/[^/]*$"), kernel.version
  local places = { ("%s/config-%s"):format(folder, version), "/boot/config-" .. version,
    ("/lib/modules/%s/config"):format(version) }
  -- Newer packages have all of a kernel in the folder of its modules.
  if folder:match("[^/]*$") == version then table.insert(places, 1, folder .. "/config") end
  for _, beside in ipairs(places) do
    local text = core.read_file(beside, 0, MOST_CONFIG)
    if text then
      kernel.config, kernel.config_from = kconfig.parse(text), beside
      return true
    end
  end
  return true
end

---@class fcproc.KernelPart  a step on the way to the uncompressed kernel
---@field ready boolean?  there is nothing to unpack any more
---@field kind string?
---@field from integer?   what is to be unpacked
---@field len integer?
---@field bytes integer?  so many (less 4 GiB's multiples) shall come out
---@field packing string?
---@field version string?

-- The bzImage in the source, without what is behind the packed kernel.
local function part_of_bzimage(name, found, head)
  local part, err = read_bzimage(name, head, found.size)
  if not part then return nil, err end
  local read = reader_of(found.source)
  local tail
  head, err = read(part.from, 16)
  if head then tail, err = read(part.from + part.len - 4, 4) end
  if not tail then return nil, err end
  if #tail < 4 then return fail("invalid", name, nil, "%s became shorter while it was read", name) end
  part.kind, part.bytes = "bzImage", string.unpack("<I4", tail)
  local magic = magic_of(head)
  if magic then part.len = part.len - (magic.tail or 0) end
  if not magic and head:sub(1, 4) == elf.MAGIC then part.len = part.len - 4
  elseif not magic then
    return fail("invalid", name, nil, "%s is a bzImage, but nobody knows what packed the kernel in it", name)
  end
  return part, magic
end

-- What the source is, by its first bytes.
local function part_of(name, found)
  local head, err = reader_of(found.source)(0, math.min(found.size, HEAD))
  if not head then return nil, err end
  if head:sub(1, 4) == elf.MAGIC then return { ready = true, kind = "vmlinux" } end
  if head:sub(0x39, 0x3c) == "ARM\x64" then return { ready = true, kind = "Image" } end
  local part, magic = {}, magic_of(head)
  if head:sub(0x203, 0x206) == "HdrS" and head:sub(0x1ff, 0x200) == "\x55\xaa" then
    part, magic = part_of_bzimage(name, found, head)
    if not part then return nil, magic end
  elseif not magic then
    return fail("invalid", name, nil, "%s is no kernel that is known here: neither an ELF file, nor a "
      .. "bzImage, nor either of them packed by gzip, xz, zstd, lz4, bzip2 or lzma", name)
  end
  if magic and magic[1] == "lzo" then
    return fail("unsupported", name, nil, "%s is packed by lzo, which can't be unpacked here", name)
  end
  part.packing = magic and magic[1]
  return part
end

-- Is what has come out a kernel, and whole?
local function judge(kernel, name, found, kind)
  if kind == "Image" then
    kernel.machine = "aarch64"
    return true
  end
  local file, why = elf.open(reader_of(found.source), found.size)
  if not file and errors.is_error(why) then return nil, why end
  if not file then return fail("invalid", name, nil, "%s is damaged, or no kernel: %s", name, why) end
  if file.kind ~= "executable" then -- "shared" is what programs are today
    return fail("invalid", name, nil, "%s is no kernel, but an ELF file of another kind: %s", name, file.kind)
  end
  kernel.machine = file.machine
  return true
end

-- Unpacks it, as often as it is packed: found.source is then what is uncompressed, in found.target if it had
-- to be unpacked.
local function unpack_all(kernel, name, found, given, ctx)
  for _ = 1, MOST_PACKED do
    local part, err = part_of(name, found)
    if not part then return nil, err end
    kernel.kind, kernel.version = kernel.kind or part.kind, kernel.version or part.version
    kernel.packing = part.packing or kernel.packing
    if part.ready then
      local ok
      ok, err = judge(kernel, name, found, part.kind)
      if ok and not found.marks then
        found.marks, err = scan(found.source, ctx, given.progress)
      end
      return found.marks and ok, err
    end
    local target, result = unpack_to(given.to or temporary(),
      { path = found.source, from = part.from, len = part.len }, ctx, given.progress)
    if not target then return nil, result end
    if found.target then found.target:close() end
    found.target, found.marks = target, result.marks
    found.source, found.size = "/proc/self/fd/" .. target:fd(), result.bytes
    if part.bytes and part.bytes ~= found.size & 0xffffffff then
      return fail("invalid", name, nil, "%s is damaged: what it holds should have %d bytes, and has %d",
        name, part.bytes, found.size)
    end
  end
  return fail("invalid", name, nil, "%s is packed more often than a kernel is", name)
end

local kernel_options = { to = "string", progress = "function" }

---@class fcproc.KernelOptions
---@field to string?  where the uncompressed kernel is written to: whole, or not at all. Without it the kernel
---               is only looked at
---@field progress fun(progress: fcproc.JobProgress)?

---Makes of a distribution's kernel (a bzImage as /boot/vmlinuz, or an ELF file, either of them also packed by
---gzip, xz, zstd, lz4, bzip2 or lzma) the uncompressed one that every Firecracker boots; and compares its
---configuration, which is in it or beside it (config-VERSION), or in /boot or its modules' folder, with what
---is needed.
---@param path string
---@param opts fcproc.KernelOptions?
---@param ctx fcproc.Context?
---@return fcproc.Kernel? kernel
---@return fcproc.Error? err  ERR_INVALID: no kernel, or a damaged one; ERR_UNSUPPORTED: packed by lzo
function M.kernel(path, opts, ctx)
  options.argument(path, "string", "image.kernel", "path")
  options.check(opts, kernel_options, "image.kernel")
  local given = opts or {}
  local real, err = core.absolute_path(path)
  if not real then return nil, err end
  local info
  info, err = core.stat(real)
  if not info then return nil, err end
  if info.type ~= "file" then return fail("conflict", path, nil, "%s is no regular file", path) end
  local kernel, found = {}, { source = real, size = info.size }
  local closing <close> = setmetatable({}, { __close = function() -- luacheck: ignore closing
    if found.target then found.target:close() end
  end })
  local ok
  ok, err = unpack_all(kernel, path, found, given, ctx)
  if not ok then return nil, err end
  kernel.bytes = found.size
  if found.marks[2] and not kernel.version then
    kernel.version = version_at(found.source, found.marks[2])
  end
  ok, err = read_config(kernel, real, found, ctx)
  if not ok then return nil, err end
  if kernel.config then kernel.lacks, kernel.modules = kconfig.judge(kernel.config, kernel.machine) end
  if not given.to then
    kernel.path = not found.target and real or nil
    return kernel
  end
  if not found.target then
    found.target, err = unpack_to(given.to, { path = real }, ctx, given.progress)
    if not found.target then return nil, err end
  end
  local job
  job, err = found.target:publish()
  if job then ok, err = jobs.run(job, ctx) else ok = nil end
  if not ok then return nil, err end
  kernel.path = given.to
  return kernel
end

return M
