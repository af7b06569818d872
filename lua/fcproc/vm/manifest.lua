-- The manifest of a snapshot: what must be the same where it is restored.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local json = require "fcproc.json"
local loop = require "fcproc.loop"
local origins = require "fcproc.resources.origin"
local records = require "fcproc.resources.record"
local version_of = require "fcproc.machine.version"

local M = {}

---@class fcproc.Manifest
---@field format integer
---@field id string            the VM that it was taken of
---@field created integer      when the guest was held for it: its clock says that
---@field type "Full"|"Diff"
---@field firecracker { version: string, sha256: string?, snapshot_format: string? }  the very program that
---                                                           ran; without a hash, when none was asked for
---@field cpu table<string, string>
---@field kernel string        the host's
---@field page_size integer?
---@field vcpus integer
---@field mem_mib integer
---@field huge_pages ("None"|"2M"|"Transparent")?  of the guest's memory
---@field drives table[]
---@field network table[]
---@field sizes table<string, integer>  bytes of each file in the folder
---@field hashes table<string, string>?  of the same files; nil: none were asked for

-- What /proc/cpuinfo says of the first CPU.
local function cpu()
  local found = {}
  local text = core.read_file("/proc/cpuinfo", 0, 65536) or ""
  for line in (text:match("^(.-)\n\n") or text):gmatch("[^\n]+") do
    local name, value = line:match("^([%w_ ]-)%s*:%s*(.*)$")
    if name == "vendor_id" or name == "cpu family" or name == "model" or name == "model name"
      or name == "stepping" or name == "microcode" then
      found[(name:gsub(" ", "_"))] = value
    end
  end
  return found
end

-- ---- writing ---------------------------------------------------------------------------------

local function sha256(path, options, ctx)
  local done, hash = loop.complete(ctx, core.hash_file(path, options, ctx))
  if not done then return nil, hash end
  return hash
end

-- The hash of the program that runs, whatever is at its path by now. nil alone: /proc does not show it.
local function hash_of_program(machine, exe, ctx)
  local hash, err = sha256(exe, { follow = true }, ctx)
  if not machine.process:alive() then return nil, machine:failure("snapshot", err) end
  if not hash and (err.code == "permission" or err.code == "not_found") then return nil end
  return hash, err
end

-- What the program itself calls its format. Not what runs is asked, but what it was started from, if that
-- is the same still: the copy in a jail may be its user's.
local function format_of(vm, exe, hash, ctx)
  local path, version = vm.journal.record.binary, vm.machine.version
  local runs, there = core.stat(exe, true), path and core.stat(path, true)
  local same = runs and there and runs.id == there.id
  if not same and hash and runs and there and runs.size == there.size then
    same = sha256(path, { follow = true }, ctx) == hash
  end
  local format, err
  if same then format, err = vm.manager:snapshot_format(path, ctx) end
  if format then return format end
  local ok, over = loop.check(ctx)
  if not ok then return nil, over end
  if errors.lacks_descriptors(err) then return nil, err end
  return (version_of.snapshot_format(version))
end

-- What its memory is made of, which its API tells; nil: it does not.
local function huge_pages(machine, ctx)
  local config, err = machine:api("GET", "/machine-config", nil, ctx)
  if config == nil and not (err.answered or err.code == "api") then
    return nil, machine:failure("snapshot", err)
  end
  local told = type(config) == "table" and config.huge_pages
  return records.HUGE_PAGES[told] and told or nil
end

---Describes a VM that is to be snapshotted.
---@param vm fcproc.Vm
---@param kind "Full"|"Diff"
---@param hashed boolean
---@param ctx fcproc.Context?
---@return fcproc.Manifest?
---@return fcproc.Error? err
function M.of(vm, kind, hashed, ctx)
  local record, machine = vm.journal.record, vm.machine
  local exe, hash, err = ("/proc/%d/exe"):format(machine.process:pid()), nil, nil
  if hashed then hash, err = hash_of_program(machine, exe, ctx) end
  if err then return nil, err end
  local format, pages
  format, err = format_of(vm, exe, hash, ctx)
  if err then return nil, err end
  pages, err = huge_pages(machine, ctx)
  if err then return nil, err end
  local manifest = {
    format = records.FORMAT, id = vm.id, created = os.time(), type = kind,
    firecracker = { version = machine.version, sha256 = hash, snapshot_format = format },
    cpu = cpu(), kernel = (core.read_file("/proc/sys/kernel/osrelease") or ""):match("%S*"),
    vcpus = record.vcpus, mem_mib = record.mem_mib, huge_pages = pages, drives = {}, network = {},
  }
  for i, drive in ipairs(record.drives) do
    manifest.drives[i] = { id = drive.id, name = drive.name, read_only = drive.read_only or nil,
      root = drive.root or nil, path = drive.path }
  end
  for i, tap in ipairs(record.taps) do
    manifest.network[i] = { tap = tap.name, guest_mac = tap.guest_mac, address = tap.address,
      attach = tap.attach, isolated = tap.isolated, mtu = tap.mtu }
  end
  return manifest
end

local function sync(path, ctx)
  local done, err = loop.complete(ctx, core.sync(path, ctx))
  return done or nil, err
end

-- The files in it, each on the disk, by their names: their sizes, and their hashes.
local function look_at(path, hashed, ctx)
  local entries, err = core.list_dir(path)
  if not entries then return nil, err end
  local sizes, hashes = {}, hashed and {} or nil
  for _, entry in ipairs(entries) do
    local name, file = entry.name, path .. "/" .. entry.name
    if name:sub(1, 1) ~= "." then -- the mark of a snapshot that is being made
      local stat, ok
      stat, err = core.stat(file)
      if stat then ok, err = sync(file, ctx) end
      if not ok then return nil, err end
      sizes[name] = stat.size
    end
  end
  for name in pairs(hashes and sizes or {}) do
    hashes[name], err = sha256(path .. "/" .. name, { blocks = true }, ctx)
    if err then return nil, err end
  end
  return sizes, hashes
end

---Writes it beside the files that it tells of, and all of them to the disk.
---@param path string  the snapshot's folder
---@param manifest fcproc.Manifest
---@param hashed boolean
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.write(path, manifest, hashed, ctx)
  local sizes, hashes = look_at(path, hashed, ctx)
  if not sizes then return nil, hashes end
  manifest.sizes, manifest.hashes = sizes, hashes
  local file = path .. "/manifest.json"
  local ok, err = core.write_file(file, json.write(json.kept(manifest)) .. "\n", 384)
  if ok then ok, err = sync(file, ctx) end
  if ok then ok, err = sync(path, ctx) end
  return ok, err
end

-- ---- reading ---------------------------------------------------------------------------------

---Reads a snapshot's manifest.
---@param path string
---@return fcproc.Manifest?
---@return fcproc.Error? err  ERR_NOT_FOUND: no snapshot; ERR_PROTOCOL: damaged
function M.read(path)
  local text, err = core.read_file(path .. "/manifest.json", 0, records.LIMIT + 1)
  if not text then
    if err.errno == 2 or err.errno == 20 then -- ENOENT, ENOTDIR
      err.code, err.message = "not_found", ("%s is no snapshot: it has no manifest.json"):format(path)
    end
    return nil, err
  end
  local function damaged(format, ...)
    return nil, errors.new{ code = "protocol", op = "vm.restore", path = path,
      message = ("%s/manifest.json %s"):format(path, format:format(...)) }
  end
  local manifest = records.decode(text)
  if not manifest then return damaged("is damaged: it is no JSON object") end
  if manifest.format ~= records.FORMAT then
    local format = manifest.format
    return damaged("has the format %s, and this fcproc reads %d: it is damaged, or of another fcproc",
      math.type(format) and format or type(format), records.FORMAT)
  end
  local complaint = records.check_manifest(manifest)
  if complaint then return damaged("is damaged: %s", complaint) end
  return manifest
end

local function conflict(path, format, ...)
  return nil, errors.new{ code = "conflict", op = "vm.restore", path = path,
    message = ("the snapshot %s "):format(path) .. format:format(...) }
end

-- A file that was cut would fail late, or as a SIGBUS in the middle of the guest's life.
local function check_sizes(path, manifest)
  for _, name in ipairs{ "vmstate", "memory" } do
    if not manifest.sizes[name] then return conflict(path, "does not tell the size of its %s", name) end
  end
  for name, size in pairs(manifest.sizes) do
    local stat = core.stat(("%s/%s"):format(path, name))
    if not stat then return conflict(path, "has no file %s any more", name) end
    if stat.size ~= size then
      return conflict(path, "is damaged: its %s has %d bytes, and had %d", name, stat.size, size)
    end
  end
  return true
end

---Does each of its files hold what it held when the snapshot was made?
---@param path string
---@param manifest fcproc.Manifest
---@param origin fcproc.Origin?  with whose rights they are read; nil: the caller's
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: one does not; ERR_UNSUPPORTED: it has no hashes
function M.verify(path, manifest, origin, ctx)
  local ok, err = check_sizes(path, manifest)
  if not ok then return nil, err end
  local hashes = manifest.hashes
  for name in pairs(manifest.sizes) do
    if not (hashes and hashes[name]) then
      return nil, errors.new{ code = "unsupported", op = "vm.verify", path = path,
        message = ("the snapshot %s has no hash of its %s: it was made without, or by an earlier fcproc")
          :format(path, name) }
    end
    local file = ("%s/%s"):format(path, name)
    local stat, unseen = core.stat(file)
    if not stat then return nil, unseen end
    local expected = origin and origins.expected(origin, stat)
    local hash, unread = sha256(file, { blocks = true, expected = expected }, ctx)
    if not hash then return nil, unread end
    if hash ~= hashes[name] then
      return conflict(path, "is damaged: its %s is not what it was when the snapshot was made", name)
    end
  end
  return true
end

-- The major number: another one is not read.
local function major(format)
  return format and format:match("^%d+")
end

-- Can this binary read it? A build between two releases is known by its format alone.
local function check_version(manager, path, theirs, ctx)
  local version, err = manager:binary_version(ctx)
  if not version then return nil, err end
  if theirs.version == version and not version:find("-", 1, true) then return version end
  local here
  here, err = manager:snapshot_format(nil, ctx)
  if not here and err.code ~= "unsupported" then return nil, err end
  here = here or version_of.snapshot_format(version)
  local known = here and theirs.snapshot_format
  if major(here) == major(theirs.snapshot_format) or (theirs.version == version and not known) then
    return version
  end
  return conflict(path, "was made by Firecracker %s (format %s), and this is %s (format %s): use "
    .. "the binary that made it", theirs.version, theirs.snapshot_format or "unknown", version,
    here or "unknown")
end

---Can it be restored here?
---@param manager fcproc.Manager
---@param path string
---@param manifest fcproc.Manifest
---@param any_cpu boolean?
---@param ctx fcproc.Context?
---@return string? version  of the Firecracker here
---@return fcproc.Error? err
function M.check(manager, path, manifest, any_cpu, ctx)
  if manifest.type ~= "Full" then
    return conflict(path, "is a diff: merge it into its full one first (snapshot-editor)")
  end
  local version, err = check_version(manager, path, manifest.firecracker, ctx)
  if not version then return nil, err end
  local host = cpu()
  for _, name in ipairs(any_cpu and {} or { "vendor_id", "cpu_family", "model" }) do
    if host[name] ~= manifest.cpu[name] then
      return conflict(path, "was made on another CPU (%s %s, here %s): its guest may crash; any_cpu "
        .. "= true tries all the same", manifest.cpu.vendor_id or "?",
        manifest.cpu.model_name or "?", host.model_name or "?")
    end
  end
  for _, drive in ipairs(manifest.drives) do
    local file = ("%s/%s"):format(path, drive.name)
    if not drive.read_only and not core.stat(file) then
      return conflict(path, "needs the drive '%s', and there is no %s", drive.id, file)
    end
  end
  local ok
  ok, err = check_sizes(path, manifest)
  if not ok then return nil, err end
  return version
end

return M
