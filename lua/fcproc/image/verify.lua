-- Is a disk, or what else was built, whole?

local archives = require "fcproc.image.archive"
local core = require "fcproc.core"
local disks = require "fcproc.image.disk"
local errors = require "fcproc.error"
local imagecore = require "fcproc.imagecore"
local loop = require "fcproc.loop"
local options_of = require "fcproc.options"
local programs = require "fcproc.programs"
local runner = require "fcproc.runner"
local tail = require "fcproc.tail"

local M = {}

local KNOWN = { digest = "string", store = "string|table", progress = "function" }
local HEAD = 2048
local CLEAN, UNCORRECTED = 0, 4 -- of e2fsck

---@class fcproc.VerifyOptions
---@field digest string?  what the file must be, as a build's report or manifest told: "sha256:..."
---@field store (string|fcproc.ImageStore)?
---@field progress fun(progress: fcproc.ImageProgress)?

---@class fcproc.VerifyReport
---@field path string
---@field format string   "ext4", "squashfs", "other"
---@field digest string?
---@field checked string[]  "e2fsck", "digest", "store"; of a squashfs alone "size": it is not cut

local function damaged(path, format, ...)
  return nil, errors.new{ code = "conflict", op = "image.verify", path = path,
    message = errors.quoted(("%s: %s"):format(path, format:format(...)), 1000) }
end

local function format_of(path)
  local size, head = core.disk_look(path, HEAD)
  if not size then return nil, head end
  local format = disks.file_system(head)
  return format ~= "erofs" and format or "other", size, head -- "other": which nothing here can check
end

-- Nothing is changed (-n), whatever is found.
local function check_ext4(path, ctx)
  local program, err = programs.need("e2fsck", "image.verify",
    "an ext4 disk is checked by e2fsck, which is not installed (Debian: e2fsprogs)")
  if not program then return nil, err end
  local done, failure = runner.new():run({ program, "-fn", "--", path }, { session = true }, ctx)
  if done then return true end
  if failure.code ~= "exit_status" or not failure.status then return nil, failure end
  if failure.status & UNCORRECTED == CLEAN then return nil, failure end
  return damaged(path, "e2fsck finds that its file system is damaged: %s",
    tail.last_line(failure.stdout or "") or "it does not say how")
end

-- It has no sums: only how long it must be is known (bytes_used in its superblock).
local function check_squashfs(path, size, head)
  if #head < 96 then return damaged(path, "its squashfs is cut") end
  local used = string.unpack("<I8", head, 41)
  if used < 96 or used > size then
    return damaged(path, "its squashfs is cut: of %d bytes there are %d", used, size)
  end
  return true
end

---Checks a disk that was built: its file system, and whether it still is what it was.
---@param ref string  a path, or a name in the store
---@param options fcproc.VerifyOptions?
---@param ctx fcproc.Context?
---@return fcproc.VerifyReport? report
---@return fcproc.Error? err  ERR_CONFLICT: it is damaged, or another; ERR_NOT_FOUND; ERR_UNSUPPORTED: there
---                           is nothing to check it by
function M.verify(ref, options, ctx)
  options_of.argument(ref, "string", "image.verify", "ref")
  options_of.check(options, KNOWN, "image.verify")
  options = options or {}
  ctx = loop.context(ctx)
  local path, checked, err = ref, {}, nil
  if not disks.is_path(ref) and not core.stat(ref, true) then
    local store, entry = options.store, nil
    if type(store) ~= "table" then store, err = require("fcproc.image.store").open(store) end
    if store then entry, err = store:find(ref) end
    local ok = entry
    if ok then ok, err = require("fcproc.image.entry").verify(entry, ctx) end
    if not ok then return nil, err end
    path, checked[1] = entry.path, "store"
  end
  local format, size, head = format_of(path)
  if not format then return nil, size end
  local digest
  if options.digest then
    local hashed
    hashed, err = archives.run({ ctx = ctx, progress = options.progress }, imagecore.hash{ path = path })
    if not hashed then return nil, err end
    digest = hashed.digest
    if digest ~= options.digest then return damaged(path, "is %s, and not %s", digest, options.digest) end
    checked[#checked + 1] = "digest"
  end
  if format == "ext4" then
    local ok
    ok, err = check_ext4(path, ctx)
    if not ok then return nil, err end
    checked[#checked + 1] = "e2fsck"
  end
  if format == "squashfs" and #checked == 0 then
    local ok
    ok, err = check_squashfs(path, size, head)
    if not ok then return nil, err end
    checked[1] = "size"
  end
  if #checked == 0 then
    return nil, errors.new{ code = "unsupported", op = "image.verify", path = path,
      message = ("%s is no disk, and by itself there is nothing to compare it with: give what its build told "
        .. "(--manifest FILE, digest = ...)"):format(errors.quoted(path, 200)) }
  end
  return { path = path, format = format, digest = digest, checked = checked }
end

return M
