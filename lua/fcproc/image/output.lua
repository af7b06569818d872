-- A tree becomes a file: an ext4 disk, a squashfs, a tar or an initramfs. As an ordinary user; the same
-- tree, options and programs give the same bytes. The target is there whole, or not at all.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local layout = require "fcproc.image.layout"
local loop = require "fcproc.loop"
local options_of = require "fcproc.options"
local process = require "fcproc.process"
local disk_room = require "fcproc.resources.room"
local programs = require "fcproc.programs"
local sizes = require "fcproc.image.size"
local tail = require "fcproc.tail"

local M = {}

-- What Linux 4.14 mounts, and each e2fsprogs that has metadata_csum makes alike.
local FEATURES = "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
  .. "dir_nlink,extra_isize,metadata_csum"
local LABEL_MOST = 16
local EARLIEST = 1     -- 0 is the present to e2fsprogs
local TARGET_FD = 3
local TARGET = "/proc/self/fd/" .. TARGET_FD
local COMPRESSOR = "zstd" -- that kernels from 4.14 on may know, and any host unpacks fast
local ENOSPC, EPIPE = 28, 32
local MIB = 1 << 20
local FULL = MIB -- what is less is as good as nothing
local BYTES = 1 << 40
local APPARENT = 64 << 30 -- a hole costs nothing to who sends one, and here all that is read

local UUID = "^" .. ("%x"):rep(8) .. ("%-" .. ("%x"):rep(4)):rep(3) .. "%-" .. ("%x"):rep(12) .. "$"

---@class fcproc.ImageOutput
---@field format "ext4"|"squashfs"|"tar"|"initrd"
---@field size (string|integer)?  of an ext4 disk; default: as small as it can be
---@field room (string|integer)?  free in it besides
---@field journal boolean?        default: true
---@field time integer?           of the file system itself, in seconds since 1970
---@field ea_inode boolean?       attributes of more than a block, which Linux 4.13 began to read
---@field label string?
---@field uuid string?            default: made of what is in the tree
---@field limits fcproc.ImageLimits?  bytes and apparent count

---@class fcproc.ImageResult
---@field format string
---@field bytes integer
---@field tools table<string, string>  the programs that made it, and their versions
---@field warnings string[]            what could not be kept as it was
---@field size integer?                of the ext4 file system, if it is not the target's

local function fail(code, path, format, ...)
  return nil, errors.new{ code = code, op = "image.write", path = path,
    message = errors.shown(format:format(...)) }
end

---The folder in which a file is, or will be.
---@param path string
---@return string
function M.folder_of(path)
  local folder = path:match("^(.*)/[^/]*$")
  return folder == "" and "/" or folder or "."
end

-- ---- programs --------------------------------------------------------------------------------

local PROGRAMS = {
  ext4 = { name = "mke2fs", package = "e2fsprogs", argument = "-V", version = "mke2fs (%d[%w.%-]*)" },
  squashfs = { name = "tar2sqfs", package = "squashfs-tools-ng", argument = "--version",
    version = "%(squashfs%-tools%-ng%) (%d[%w.%-]*)" },
}

local function find(program)
  return programs.need(program.name, "image.write",
    ("there is no %s here, which is needed for this format (Debian: %s)"):format(program.name,
      program.package))
end

-- Runs one to its end. Its environment is this and no more: none of the user's settings changes the bytes.
local function run(argv, fds, variables, ctx)
  variables.PATH, variables.LC_ALL = "/usr/sbin:/usr/bin:/sbin:/bin", "C"
  local spec = process.spec(argv, { fds = fds, env = variables, session = true })
  local done, result = loop.complete(ctx, core.command(spec, ctx))
  if not done then return nil, result end
  return result
end

---The programs that a format needs, and their versions: with them the bytes may change.
---@param format string
---@param ctx fcproc.Context?
---@return table<string, string>? tools
---@return fcproc.Error? err  ERR_NOT_FOUND: one is not here
function M.tools(format, ctx)
  local program, tools = PROGRAMS[format], imagecore.versions()
  if not program then return tools end
  local path, err = find(program)
  if not path then return nil, err end
  local result
  result, err = run({ path, program.argument }, nil, {}, ctx)
  if not result then return nil, err end
  tools[program.name] = (result.stdout .. result.stderr):match(program.version) or "unknown"
  return tools
end

-- Programs have words of their own for a full disk.
local function program_failed(path, name, result)
  local free = core.disk_free(M.folder_of(path))
  if free and free < FULL then
    return nil, errors.new{ code = "system", op = "image.write", path = path, errno = ENOSPC,
      output = result.stderr, message = ("%s could not make %s: No space left on device"):format(name,
        errors.shown(path)) }
  end
  local words = tail.last_line(result.stderr) or tail.last_line(result.stdout)
  return nil, errors.new{ code = "exit_status", op = "image.write", path = path, status = result.status,
    signal = result.signal, output = result.stderr, message = ("%s could not make %s: %s"):format(name,
      errors.shown(path), words or result.signal and "it was ended by signal " .. result.signal
        or "its exit status is " .. tostring(result.status)) }
end

-- ---- sizes -----------------------------------------------------------------------------------

-- Numbers of blocks; nil for what is not given.
local function blocks_of(given, what)
  if given == nil then return nil end
  local bytes, err = sizes.parse(given, what)
  if not bytes then return nil, err end
  return bytes // layout.BLOCK
end

local function too_small(tree_need, output, target, blocks)
  local least = layout.smallest(tree_need, output.journal ~= false, 0)
  return fail("invalid", target, "%s (%d bytes) is too small: what is to be in it needs %d MiB with its %d "
    .. "inodes%s: give size = \"%dMiB\" or more", tostring(output.size), blocks * layout.BLOCK,
    -(-least.blocks * layout.BLOCK // MIB), tree_need.inodes, least.journal > 0 and " and a journal" or "",
    -(-least.blocks * layout.BLOCK // MIB))
end

local function plan_of(need, output, target)
  local journal = output.journal ~= false
  local size, err = blocks_of(output.size, "size")
  if err then return nil, err end
  local room
  room, err = blocks_of(output.room, "room")
  if err then return nil, err end
  if size then
    local plan = layout.given({ inodes = need.inodes, blocks = need.blocks + (room or 0) }, journal, size)
    if plan then return plan end
    return too_small(need, output, target, size)
  end
  local plan = layout.smallest(need, journal, room or 0)
  if plan then return plan end
  return fail("invalid", target, "what is to be in it is more than an ext4 file system of 16 TiB holds")
end

-- ---- formats ---------------------------------------------------------------------------------

-- Numbers that look random, and are the same for the same tree.
local function uuid_from(digest, first)
  local hex = digest:match("%x+$"):sub(first, first + 31)
  local variant = ("%x"):format(8 | tonumber(hex:sub(17, 17), 16) & 3)
  return ("%s-%s-8%s-%s%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(14, 16), variant,
    hex:sub(18, 20), hex:sub(21, 32))
end

-- The file is all zeros: a journal that is not written has the same bytes, and takes no room.
local function format_ext4(path, target, plan, need, output, ctx)
  local program, err = find(PROGRAMS.ext4)
  if not program then return nil, err end
  local features = FEATURES
  if plan.journal > 0 then features = features .. ",has_journal" end
  if output.ea_inode then features = features .. ",ea_inode" end
  local argv = { program, "-q", "-F", "-t", "ext2", "-T", "default", "-b", layout.BLOCK, "-I", layout.INODE,
    "-N", plan.inodes, "-m", 0, "-O", features, "-U", output.uuid or uuid_from(need.digest, 1), "-E",
    ("hash_seed=%s,lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0,nodiscard")
      :format(uuid_from(need.digest, 33)) }
  local function add(...) table.move({ ... }, 1, 2, #argv + 1, argv) end
  if plan.journal > 0 then add("-J", "size=" .. plan.journal * layout.BLOCK // MIB) end
  if output.label then add("-L", output.label) end
  add(TARGET, plan.blocks)
  local time = tostring(math.max(output.time or 0, EARLIEST))
  local result
  result, err = run(argv, { [TARGET_FD] = target:fd() }, { MKE2FS_CONFIG = "/dev/null",
    E2FSPROGS_FAKE_TIME = time, SOURCE_DATE_EPOCH = time }, ctx)
  if not result then return nil, err end
  if result.status ~= 0 then return program_failed(path, "mke2fs", result) end
  return true
end

local function write_tree(tree, options, ctx, progress)
  local job, err = tree:write(options)
  if not job then return nil, err end
  return jobs.run(job, ctx, progress)
end

local writers = {}

-- Each: the tree into the target; what Tree:write answered, or nil and the error.
function writers.ext4(tree, path, target, output, ctx, progress)
  local need, err = tree:measure()
  if not need then return nil, err end
  local plan
  plan, err = plan_of(need, output, path)
  if not plan then return nil, err end
  local ok
  ok, err = target:resize(plan.blocks * layout.BLOCK)
  if not ok then return nil, err end
  ok, err = format_ext4(path, target, plan, need, output, ctx)
  if not ok then return nil, err end
  return write_tree(tree, { format = "ext4", fd = target:fd(), time = output.time }, ctx, progress)
end

-- As docker import and others take it.
function writers.tar(tree, _, target, _, ctx, progress)
  return write_tree(tree, { format = "tar", fd = target:fd() }, ctx, progress)
end

-- As Linux unpacks it.
function writers.initrd(tree, _, target, _, ctx, progress)
  return write_tree(tree, { format = "cpio", fd = target:fd(), gzip = true }, ctx, progress)
end

-- tar2sqfs reads a tar while it is written. Whichever fails first ends the other: a pipe without a reader
-- ends the job, and one without a writer the program.
function writers.squashfs(tree, path, target, output, ctx, progress)
  local program, err = find(PROGRAMS.squashfs)
  if not program then return nil, err end
  local pipe
  pipe, err = imagecore.pipe()
  if not pipe then return nil, err end
  local _ <close> = pipe
  local job
  job, err = tree:write{ format = "tar", fd = pipe:writer() }
  if not job then return nil, err end
  local closing <close> = job -- luacheck: ignore closing
  local command
  command, err = core.command(process.spec({ program, "-q", "-f", "-s", "-c", COMPRESSOR, TARGET }, {
    session = true, stdin = pipe:reader(), fds = { [TARGET_FD] = target:fd() },
    env = { PATH = "/usr/bin:/bin", LC_ALL = "C",
      SOURCE_DATE_EPOCH = tostring(output.time or 0) } }), ctx)
  pipe:close()
  local done, result = loop.complete(ctx, command, err)
  if progress then progress(job:progress()) end
  local written
  written, err = jobs.run(job, ctx)
  if not done then return nil, result end
  -- What the pipe broke of is told by who closed it.
  if result.status ~= 0 and (written or err.errno == EPIPE) then
    return program_failed(path, "tar2sqfs", result)
  end
  return written, err
end

-- In an ext4 and a tar holes stay holes; the rest has them as zeros.
local function check_amount(sealed, output, target)
  local holes = output.format ~= "ext4" and output.format ~= "tar"
  local limits = output.limits or {}
  local amount = holes and sealed.apparent or sealed.bytes
  local limit = holes and (limits.apparent or APPARENT) or (limits.bytes or BYTES)
  if amount <= limit then return true end
  return fail("invalid", target, "what is to be in it has %d bytes%s, and the limit is %d; the largest is "
    .. "/%s: leave it out (remove, --remove), or raise the limit (limits.%s, --max-size)", amount,
    holes and (" with its holes, which are zeros in its format %s"):format(output.format) or "", limit,
    sealed.largest, holes and "apparent" or "bytes")
end

-- ---- the whole -------------------------------------------------------------------------------

---Can a file of that name be made?
---@param path string
---@return true?
---@return fcproc.Error? err
function M.check_file(path)
  local made, err = imagecore.target(path)
  if made then
    made:close()
    return true
  end
  err.path = path
  return nil, err
end

---Is the target one that can be made so? Before anything is read for it.
---@param target string?  nil: what it is made of is all that is judged
---@param output fcproc.ImageOutput
---@return true?
---@return fcproc.Error? err
function M.check(target, output)
  local format = output.format or "ext4"
  if not writers[format] then
    return fail("invalid", target, "there is no format '%s': it is ext4, squashfs, tar or initrd",
      tostring(format))
  end
  for _, name in ipairs{ "size", "room", "journal", "label", "uuid", "ea_inode" } do
    if output[name] ~= nil and format ~= "ext4" then
      return fail("invalid", target, "%s is for ext4, and %s has none", name, options_of.a(format))
    end
  end
  for _, name in ipairs{ "size", "room" } do
    local _, err = blocks_of(output[name], name)
    if err then return nil, err end
  end
  if output.label and (#output.label > LABEL_MOST or output.label:find("%c")) then
    return fail("invalid", target, "the label '%s' has more than the %d bytes that ext4 has for one, or what "
      .. "can't be printed", output.label, LABEL_MOST)
  end
  if output.uuid and not output.uuid:match(UUID) then
    return fail("invalid", target, "'%s' is no UUID", output.uuid)
  end
  if PROGRAMS[format] then
    local path, err = find(PROGRAMS[format])
    if not path then return nil, err end
  end
  if not target then return true end
  return M.check_file(target)
end

local function explained(err, target)
  err.path = err.path or target
  disk_room.tell(err, M.folder_of(target))
  return err
end

---Writes a tree, which is sealed then.
---@param tree fcproc.Tree
---@param target string
---@param output fcproc.ImageOutput
---@param ctx fcproc.Context?
---@param progress fun(progress: fcproc.JobProgress)?
---@return fcproc.ImageResult? result
---@return fcproc.Error? err
function M.write(tree, target, output, ctx, progress)
  local ok, err = M.check(target, output)
  local sealed
  if ok then sealed, err = tree:seal() end
  ok = sealed
  if ok then ok, err = check_amount(sealed, output, target) end
  if not ok then return nil, err end
  ctx = loop.context(ctx)
  local tools
  tools, err = M.tools(output.format, ctx)
  if not tools then return nil, err end
  local file
  file, err = imagecore.target(target)
  if not file then return nil, explained(err, target) end
  local _ <close> = finally(function() file:close() end)
  local written
  written, err = writers[output.format](tree, target, file, output, ctx, progress)
  if not written then return nil, explained(err, target) end
  local job
  job, err = file:publish()
  if not job then return nil, err end
  local published
  published, err = jobs.run(job, ctx, progress)
  if not published then return nil, explained(err, target) end
  return { format = output.format, bytes = published.bytes, tools = tools, warnings = written.warnings }
end

return M
