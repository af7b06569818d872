-- Sizes and limits that are compared before anything is made: of disks, of what lies in the guest's
-- memory, of huge pages, of the limits that a jail or a cgroup sets. What can't work is refused; what
-- works only for a while is a warning of the VM.

local console = require "fcproc.vm.console"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local jailer = require "fcproc.machine.jailer"
local version_of = require "fcproc.machine.version"

local M = {}

local MIB = 1024 * 1024
local SECTOR, HEAD = 512, 2048
local PAGE = 4096
local HUGE, HUGE_MIB = "/sys/kernel/mm/hugepages/hugepages-2048kB/", 2
-- Of a guest's memory on x86_64 what is above comes after a gap, and an initrd is put below it.
local LOW_MEMORY = 3328 * MIB
local PT_LOAD = 1

---What is to be said of a VM that is made nevertheless.
---@param plan fcproc.VmPlan
---@param name string
---@param fix string
function M.warn(plan, name, fix, format, ...)
  plan.warnings = plan.warnings or {}
  table.insert(plan.warnings, { name = name, fix = fix, message = errors.shown(format:format(...)) })
end

local function in_mib(bytes) return ("%.4g MiB"):format(bytes / MIB) end

---A VM's memory, given or not.
---@param spec fcproc.VmSpec
---@return integer mib
function M.memory(spec)
  return spec.mem_mib or (spec.kernel == nil and 16 or 128)
end

-- ---- disks -----------------------------------------------------------------------------------

-- Files that hold a disk in a way that Firecracker does not read; where their mark is.
local FORMATS = {
  { 1, "QFI\xfb", "qcow2" }, { 1, "KDMV", "vmdk" }, { 1, "vhdxfile", "vhdx" },
  { 1, "conectix", "vpc" }, { 65, "\x7f\x10\xda\xbe", "vdi" },
}
-- Data may be so; a root can't be.
local COMPRESSED = {
  { 1, "\x1f\x8b\8", "gzip" }, { 1, "\xfd7zXZ\0", "xz" }, { 1, "\x28\xb5\x2f\xfd", "zstd" },
  { 1, "BZh", "bzip2" },
}

local function named(list, head)
  for _, entry in ipairs(list) do
    if head:sub(entry[1], entry[1] + #entry[2] - 1) == entry[2] then return entry[3] end
  end
end

-- A table of partitions, and no file system that only has the same last bytes in its boot sector.
local function has_partitions(head)
  if head:sub(SECTOR + 1, SECTOR + 8) == "EFI PART" then return true end
  if head:sub(511, 512) ~= "\x55\xaa" or head:sub(1081, 1082) == "\x53\xef" then return false end
  local used = false
  for at = 447, 495, 16 do
    local status, kind, first, count = head:byte(at), head:byte(at + 4), string.unpack("<I4I4", head, at + 8)
    if status & 0x7f ~= 0 or (kind ~= 0 and (first == 0 or count == 0)) then return false end
    used = used or kind ~= 0
  end
  return used
end

---Can the guest use it as a disk?
---@param check table  schema.checker
---@param plan fcproc.VmPlan
---@param drive table   as planned: path, root, read_only
---@param place string  of its path
function M.drive(check, plan, drive, place)
  local size, head = core.disk_look(drive.path, HEAD)
  if not size then
    -- In a jail its user may read what we can't.
    if plan.jailer and head.code == "permission" then return end
    return check:add(place, "%s", head.message)
  end
  drive.size = size
  local format, packed = named(FORMATS, head), drive.root and named(COMPRESSED, head)
  if size < SECTOR then
    check:add(place, "%s has %d bytes, and a disk has %d or more: make it as large as the guest needs it "
      .. "(truncate -s 1G FILE)", drive.path, size, SECTOR)
  elseif format then
    check:add(place, "%s is a %s image, and Firecracker reads raw ones: qemu-img convert -O raw it",
      drive.path, format)
  elseif packed then
    check:add(place, "%s is compressed (%s), and can't be a root: unpack it", drive.path, packed)
  else
    if size % SECTOR ~= 0 then
      M.warn(plan, "drive", ("truncate -s %%%d it"):format(SECTOR), "%s: %s has %d bytes, which is no "
        .. "multiple of %d: the guest does not see the last %d", place, drive.path, size, SECTOR,
        size % SECTOR)
    end
    if drive.root and has_partitions(head) then
      M.warn(plan, "drive", "leave root out, and name the partition in boot_args: root=/dev/vda1 rw",
        "%s: %s has a table of partitions, and root = true makes the whole disk the root", place,
        drive.path)
    end
  end
end

---What the copies of its drives take, where no blocks are shared.
---@param plan fcproc.VmPlan
---@return integer bytes
function M.copies(plan)
  local sum = 0
  for _, drive in ipairs(plan.drives or {}) do sum = sum + (drive.copy and drive.size or 0) end
  return sum
end

---Why a VMM of this user has no io_uring; nil: nothing is known of that.
---@param uid integer|string
---@param disabled string?  what sysctl kernel.io_uring_disabled says
---@param group string?     and kernel.io_uring_group, whose members have it all the same
---@return string? reason
function M.without_io_uring(uid, disabled, group)
  disabled = (disabled or ""):match("%d")
  if disabled == "2" then return "sysctl kernel.io_uring_disabled is 2" end
  if disabled == "1" and uid ~= 0 and (group or ""):match("%S+") == "-1" then
    return ("sysctl kernel.io_uring_disabled is 1, and its user %s is not root"):format(uid)
  end
end

local function sysctl(name) return core.read_file("/proc/sys/kernel/" .. name) end

---Can the drive be asynchronous here?
---@param check table
---@param plan fcproc.VmPlan
---@param drive table
---@param place string
function M.io_engine(check, plan, drive, place)
  if drive.io_engine ~= "Async" then return end
  local uid = plan.jailer and plan.jailer.uid or core.own_uid()
  local reason = M.without_io_uring(uid, sysctl("io_uring_disabled"), sysctl("io_uring_group"))
  if reason then
    check:add(place, "Async needs io_uring, and %s: io_engine = \"Sync\" does without", reason)
  end
end

-- ---- what lies in the guest's memory ---------------------------------------------------------

-- Where the kernel ends in the guest's memory; nil where that is not known.
local function kernel_end(path, head)
  if core.arch ~= "x86_64" then return nil end
  if head:sub(1, 4) ~= "\x7fELF" then -- a bzImage, put at 1 MiB, and unpacked above
    local stat = core.stat(path, true)
    return stat and MIB + stat.size
  end
  if #head < 64 then return nil end
  local offset, size, count = string.unpack("<I8", head, 33), string.unpack("<I2I2", head, 55)
  if size < 56 or count > 256 or offset < 0 then return nil end
  local table_, last = core.read_file(path, offset, size * count), nil
  if not table_ or #table_ < size * count then return nil end
  for i = 0, count - 1 do
    local at = i * size + 1
    local address, in_memory = string.unpack("<i8", table_, at + 24), string.unpack("<i8", table_, at + 40)
    if string.unpack("<I4", table_, at) == PT_LOAD and address >= 0 and in_memory >= 0 then
      last = math.max(last or 0, address + in_memory)
    end
  end
  return last
end

---Has the guest's memory room for its kernel and its initrd? Firecracker puts the initrd at the end,
---over what is there.
---@param check table
---@param plan fcproc.VmPlan
function M.boot(check, plan)
  local spec = plan.spec
  local initrd = plan.initrd and core.stat(plan.initrd, true)
  if initrd and initrd.size == 0 then
    return check:add("initrd", "%s is empty", plan.initrd)
  end
  if not plan.kernel or not (initrd or spec.kernel or spec.mem_mib) then return end
  local memory, size = M.memory(spec) * MIB, initrd and initrd.size or 0
  local head = core.read_file(plan.kernel, 0, 64)
  local last, low = head and kernel_end(plan.kernel, head) or 0, math.min(memory, LOW_MEMORY)
  if last > low then
    return check:add("mem_mib", "is %d, and the kernel %s needs %s alone", memory // MIB, plan.kernel,
      in_mib(last))
  end
  if initrd and (low - size) // PAGE * PAGE < last then
    check:add("initrd", "%s has %s, and the kernel ends at %s: together they do not fit into the %d MiB of "
      .. "the guest's memory: give mem_mib = %d, and more for what is unpacked of it", plan.initrd,
      in_mib(size), in_mib(last), memory // MIB, (last + size + PAGE) // MIB + 1)
  end
end

local function huge(name)
  return math.tointeger(tonumber((core.read_file(HUGE .. name) or ""):match("%d+")))
end

-- How many pages there are for who comes now; nil: nobody knows.
local function free_huge_pages()
  local free = huge("free_hugepages")
  if not free then return core.stat("/sys/kernel/mm") and 0 or nil end
  local more = (huge("nr_overcommit_hugepages") or 0) - (huge("surplus_hugepages") or 0)
  return math.max(0, free - (huge("resv_hugepages") or 0) + math.max(0, more))
end

local function wants_huge(spec) return type(spec) == "table" and spec.huge_pages == "2M" end

---The huge pages that all of these take, in MiB.
---@param list fcproc.VmSpec[]
---@return integer mib
function M.huge_memory(list)
  local sum = 0
  for _, spec in ipairs(list) do
    local mib = wants_huge(spec) and M.memory(spec)
    sum = sum + (math.type(mib) == "integer" and mib or 0)
  end
  return sum
end

---Are there huge pages for it, and for all of its fleet? Without, the VMM ends with SIGBUS as soon as
---the guest touches one that is not there.
---@param check table
---@param plan fcproc.VmPlan
---@param fleet fcproc.Fleet  with huge_mib: what all of it takes
function M.huge_pages(check, plan, fleet)
  if not wants_huge(plan.spec) then return end
  -- Looked at once: those that have started have some already.
  fleet.huge_free = fleet.huge_free or free_huge_pages()
  local mib, free = fleet.huge_mib or M.memory(plan.spec), fleet.huge_free
  local missing = free and (mib + HUGE_MIB - 1) // HUGE_MIB - free or 0
  if missing > 0 then
    check:add("huge_pages", "%d MiB%s take %d pages of %d MiB, and %d are free on this host: sysctl -w "
      .. "vm.nr_hugepages=%d", mib, fleet.huge_mib and " of all these VMs" or "", missing + free, HUGE_MIB,
      free, (huge("nr_hugepages") or 0) + missing)
  end
end

-- ---- limits ----------------------------------------------------------------------------------

---May the VMM have so many descriptors?
---@param check table
---@param plan fcproc.VmPlan
function M.descriptors(check, plan)
  local wanted = (plan.spec.limits or {}).no_file
  if not wanted then return end
  if plan.jailer then
    return check:add("limits", "are those of a VM without a jail: in one they are jailer.limits")
  end
  local hard = (core.read_file("/proc/self/limits") or ""):match("Max open files%s+%S+%s+(%d+)")
  if hard and wanted > tonumber(hard) and core.own_uid() ~= 0 then
    check:add("limits.no_file", "%d is more than this process may give: ulimit -Hn is %s", wanted, hard)
  end
end

-- The least memory that a cgroup, or one that it is in, allows.
local function cgroup_limit(folder)
  local least, where
  while core.stat(folder .. "/cgroup.procs") do
    for _, name in ipairs{ "memory.max", "memory.limit_in_bytes" } do
      local bytes = tonumber((core.read_file(folder .. "/" .. name) or ""):match("%d+"))
      if bytes and bytes < (least or math.huge) then least, where = bytes, folder .. "/" .. name end
    end
    folder = folder:match("^(.+)/[^/]+$") or ""
  end
  return least, where
end

local MEMORY_FILES = { "memory.max", "memory.high", "memory.limit_in_bytes" }

local function check_memory(plan, mib)
  local function compare(bytes, where)
    if not bytes or bytes >= mib * MIB then return end
    M.warn(plan, "memory", "raise it, to more than the guest's memory, or lower mem_mib",
      "%s allows %s, and the guest has %d MiB: the VM is killed for want of memory, or crawls, once the "
      .. "guest uses it", where, in_mib(bytes), mib)
  end
  local jail = plan.jailer
  for _, name in ipairs(jail and MEMORY_FILES or {}) do
    local value = (jail.cgroups or {})[name]
    if value then compare(jailer.number_of(value), ("jailer.cgroups['%s']"):format(name)) end
  end
  if plan.spec.cgroup then compare(cgroup_limit(plan.spec.cgroup)) end
end

-- Of a file of the VM's only its start is given back: what has been written counts, however much.
local function check_fsize(plan)
  local fsize = plan.jailer and plan.jailer.limits and plan.jailer.limits.fsize
  if not fsize then return end
  local short, limit = {}, plan.spec.console_limit or console.LIMIT
  if fsize < limit then
    short[1] = ("its %slog may be %s"):format(plan.jailer.daemonize and "" or "console or ", in_mib(limit))
  end
  for i, drive in ipairs(plan.drives or {}) do
    if not drive.read_only and fsize < (drive.size or 0) and not drive.block then
      short[#short + 1] = ("drives[%d] has %s"):format(i, in_mib(drive.size))
    end
  end
  if #short > 0 then
    M.warn(plan, "fsize", "raise it to what all that it writes may hold in its life, or leave it out",
      "jailer.limits.fsize ends the VM (SIGXFSZ) when it has written %s of any file in all its life, and %s",
      in_mib(fsize), table.concat(short, "; "))
  end
end

---What works until a limit is reached.
---@param plan fcproc.VmPlan
---@param mib integer  the guest's memory
function M.limits(plan, mib)
  check_memory(plan, mib)
  check_fsize(plan)
end

-- ---- snapshots -------------------------------------------------------------------------------

local function refuse(code, vm, format, ...)
  return nil, errors.new{ code = code, op = "vm.snapshot", pid = vm:pid(), message = format:format(...) }
end

---Can the VM write a snapshot that can be restored? A memory file that is over its limit kills it.
---@param vm fcproc.Vm
---@param opts fcproc.SnapshotOptions
---@return true?
---@return fcproc.Error? err
function M.snapshot(vm, opts)
  local record, version = vm.journal.record, vm.machine.version
  local text = core.read_file(("/proc/%d/limits"):format(vm:pid())) or ""
  local fsize = math.tointeger(tonumber(text:match("Max file size%s+(%d+)")))
  if fsize and record.mem_mib and fsize < record.mem_mib * MIB then
    return refuse("invalid", vm, "the VM may write files of %s (%s), and that of its memory would have %d "
      .. "MiB: it would be killed; launch it with more", in_mib(fsize),
      record.jail and "jailer.limits.fsize" or "ulimit -f of who launched it", record.mem_mib)
  end
  if record.huge_pages == "2M" and not opts.for_uffd and version_of.at_least(version, "1.17") == false then
    return refuse("unsupported", vm, "a VM with huge pages can't be restored from its memory's file by "
      .. "Firecracker %s (>= 1.17 can): launch it without, or give for_uffd = true when you have a handler "
      .. "of page faults to load it with", version)
  end
  return true
end

return M
