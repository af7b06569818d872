-- The manifest of a snapshot: what must be the same where it is restored.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local json = require "fcproc.json"
local loop = require "fcproc.loop"
local records = require "fcproc.resources.record"
local version_of = require "fcproc.machine.version"

local M = {}

---@class fcproc.Manifest
---@field format integer
---@field id string            the VM that it was taken of
---@field created integer
---@field type "Full"|"Diff"
---@field firecracker { version: string, sha256: string, snapshot_format: string? }
---@field cpu table<string, string>
---@field kernel string        the host's
---@field page_size integer?
---@field vcpus integer
---@field mem_mib integer
---@field drives table[]
---@field network table[]
---@field sizes table<string, integer>  bytes of each file in the folder

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

local function sha256(path, ctx)
  local done, hash = loop.complete(ctx, core.hash_file(path, { follow = true }, ctx))
  if not done then return nil, hash end
  return hash
end

---Describes a VM that is being snapshotted.
---@param vm fcproc.Vm
---@param kind "Full"|"Diff"
---@param ctx fcproc.Context?
---@return fcproc.Manifest?
---@return fcproc.Error? err
function M.of(vm, kind, ctx)
  local record = vm.journal.record
  local hash, err = sha256(record.binary, ctx)
  if not hash then return nil, err end
  local manifest = {
    format = records.FORMAT, id = vm.id, created = os.time(), type = kind,
    firecracker = { version = vm.machine.version, sha256 = hash,
      snapshot_format = version_of.snapshot_format(vm.machine.version) },
    cpu = cpu(), kernel = (core.read_file("/proc/sys/kernel/osrelease") or ""):match("%S*"),
    vcpus = record.vcpus, mem_mib = record.mem_mib, drives = {}, network = {},
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

---Writes it beside the files that it tells the sizes of.
---@param path string  the snapshot's folder
---@param manifest fcproc.Manifest
---@return true?
---@return fcproc.Error? err
function M.write(path, manifest)
  local entries, err = core.list_dir(path)
  if not entries then return nil, err end
  manifest.sizes = {}
  for _, entry in ipairs(entries) do
    if entry.name:sub(1, 1) ~= "." then -- the mark of a snapshot that is being made
      local stat
      stat, err = core.stat(path .. "/" .. entry.name)
      if not stat then return nil, err end
      manifest.sizes[entry.name] = stat.size
    end
  end
  return core.write_file(path .. "/manifest.json", json.write(manifest) .. "\n", 384)
end

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

-- The major number: another one is not read.
local function major(format)
  return format and format:match("^%d+")
end

---Can it be restored here?
---@param manager fcproc.Manager
---@param path string
---@param manifest fcproc.Manifest
---@param any_cpu boolean?
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.check(manager, path, manifest, any_cpu, ctx)
  if manifest.type ~= "Full" then
    return conflict(path, "is a diff: merge it into its full one first (snapshot-editor)")
  end
  local version, err = manager:binary_version(ctx)
  if not version then return nil, err end
  local theirs = manifest.firecracker
  local here = version_of.snapshot_format(version)
  if theirs.version ~= version and major(here) ~= major(theirs.snapshot_format) then
    return conflict(path, "was made by Firecracker %s (format %s), and this is %s (format %s): use "
      .. "the binary that made it", theirs.version, theirs.snapshot_format or "unknown", version,
      here or "unknown")
  end
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
  return check_sizes(path, manifest)
end

return M
