-- doctor's checks of files: the binaries, the built-in guest, the runtime folder and its disk.
-- Each returns its status, a message and perhaps a fix.

local core = require "fcproc.core"
local fcproc = require "fcproc"
local mounts = require "fcproc.mounts"

local M = {}

local OLDEST, NEWEST = 1012, 1017 -- Firecracker versions that fcproc is made for: 1.12 to 1.17
local NO_LINKS = 1015             -- from here on the jailer refuses an executable that is a link
local SUN_PATH = 107              -- bytes of a socket's path, without the final zero
local MOST_PATH = 4095            -- of the kernel: PATH_MAX without the final zero
local MOST_INSIDE = 200           -- of a jail's folders and files below it, with the longest id
local LONGEST_ID = 36             -- of a VM: a UUID
local MIB = 1024 * 1024
local LOW_DISK, NO_DISK = 1024 * MIB, 64 * MIB
local LOW_FILES = 1000

local NO_RUNTIME_DIR = "give runtime_dir to fcproc.new"

-- "1.12.1" as 1012.
local function version_number(version)
  local major, minor = version:match("^(%d+)%.(%d+)")
  return major * 1000 + minor
end

-- ---- binaries -----------------------------------------------------------------------------

---@param host fcproc.DoctorHost
function M.binary(host)
  local get = "put Firecracker 1.12 or newer on PATH (https://github.com/firecracker-microvm/"
    .. "firecracker/releases has them; the README says how), or set firecracker_bin"
  local path, err = host.manager:resolve_binary()
  if not path then return "fail", err.message, get end
  local version
  version, err = host.manager:binary_version(host.ctx)
  if not version then return "fail", err.message, get end
  local number = version_number(version)
  if number < OLDEST then
    return "fail", ("%s is version %s, older than 1.12"):format(path, version), get
  end
  if number > NEWEST then
    return "warn", ("%s is version %s; fcproc knows up to 1.17"):format(path, version),
      "look for a newer fcproc, or use Firecracker 1.17"
  end
  return "ok", ("%s, version %s"):format(path, version)
end

-- The jailer beside the binary, else on PATH.
local function find_jailer(binary)
  local real = binary and core.absolute_path(binary)
  local beside = real and core.find_executable(real:gsub("[^/]*$", "jailer"))
  return beside or core.find_executable("jailer")
end

-- The jailer copies the executable into the jail, where a dynamic one finds no loader.
local function is_dynamic(path)
  local head = core.read_file(path, 0, 64)
  if not head or #head < 64 or head:sub(1, 5) ~= "\127ELF\2" then return false end
  local offset, size, count = string.unpack("<I8", head, 33), string.unpack("<I2I2", head, 55)
  for i = 0, count - 1 do
    local kind = core.read_file(path, offset + i * size, 4)
    if kind and #kind == 4 and string.unpack("<I4", kind) == 3 then return true end -- PT_INTERP
  end
  return false
end

local function jailer_refuses(host, binary, number)
  local found = host:run{ "stat", "-c", "%h %F", "--", binary }
  local links, kind = (found and found.stdout or ""):match("^(%d+) ([^\n]+)")
  if number >= NO_LINKS and kind == "symbolic link" then return "is a symbolic link" end
  if number >= NO_LINKS and tonumber(links or 1) > 1 then
    return ("has %s hard links"):format(links)
  end
  if is_dynamic(binary) then return "is dynamically linked, and a jail has no libraries" end
end

---@param host fcproc.DoctorHost
function M.jailer(host)
  local binary = host.manager:resolve_binary()
  local jailer = find_jailer(binary)
  if host:is_rootless() then
    return "ok", "VMs with a network have a jail of fcproc's own; the jailer needs root"
  end
  if not jailer then
    return "warn", "no jailer beside the firecracker binary nor on PATH: VMs run without a jail",
      "put the jailer of the same release beside firecracker"
  end
  local result, err = host:run{ jailer, "--version" }
  local version = result and result.stdout:match("^Jailer v(%d+%.%d+%.%d+[%w.-]*)")
  if not version then
    return "warn", ("%s --version did not answer like the jailer%s"):format(jailer,
      err and ": " .. err.message or ""), "put the jailer of the same release beside firecracker"
  end
  local wanted = binary and host.manager:binary_version(host.ctx)
  if wanted and wanted ~= version then
    return "warn", ("%s is version %s, and firecracker is %s"):format(jailer, version, wanted),
      "use both from one release"
  end
  local problem = binary and jailer_refuses(host, binary, version_number(version))
  if problem then
    return "warn", ("jailer %s refuses %s as the executable: it %s"):format(version, binary, problem),
      "set firecracker_bin to a copy of the statically linked release binary (cp --remove-destination)"
  end
  local as = host.uid == 0 and "" or "; it must be started as root"
  return "ok", ("%s, version %s%s"):format(jailer, version, as)
end

---@param host fcproc.DoctorHost
function M.guest(host)
  local path, err = fcproc.guest_path()
  if path and host:read(path) then return "ok", path end
  if core.arch ~= "x86_64" then
    return "warn", ("there is no built-in guest for %s"):format(core.arch)
  end
  return "warn", err and err.message or path .. " can't be read",
    "make install, or luarocks make: both install guest.elf beside the module"
end

-- ---- the runtime folder -------------------------------------------------------------------

-- Whether the names in it find room. Where a socket's path is too long for an address, we and
-- Firecracker use its name in the VM's folder.
local function room_for_names(folder)
  if #folder > MOST_PATH - MOST_INSIDE then
    return "warn", ("its path of %d bytes leaves too little of the kernel's %d for what a VM has in "
      .. "it"):format(#folder, MOST_PATH), "choose a shorter runtime_dir"
  end
  local left = SUN_PATH - #folder - #"//api.sock"
  if left >= LONGEST_ID then
    return "ok", ("room for an id of %d bytes in a socket's path"):format(left)
  end
  return "ok", ("its path of %d bytes makes those of sockets longer than an address (%d): other "
    .. "programs reach them from within a VM's folder"):format(#folder, SUN_PATH)
end

local function folder_state(host, folder)
  local found = host:run{ "stat", "-c", "%u %a %F", "--", folder }
  if not found then return nil end
  local uid, mode, kind = found.stdout:match("^(%d+) (%d+) ([^\n]+)")
  return tonumber(uid), mode, kind
end

---@param host fcproc.DoctorHost
function M.runtime(host)
  local folder = host.config.runtime_dir
  if not folder then return "warn", "runtime_dir is not configured", NO_RUNTIME_DIR end
  local status, room, fix = room_for_names(folder)
  local uid, mode, kind = folder_state(host, folder)
  if kind and kind ~= "directory" then
    return "fail", ("%s is no folder of its own but a %s"):format(folder, kind),
      "remove it, or choose another runtime_dir"
  end
  if uid and uid ~= host.uid then
    return "fail", ("%s belongs to uid %d, not to us (uid %d)"):format(folder, uid, host.uid),
      "choose another runtime_dir, or run as that user"
  end
  -- Files are made there, gone at once: permissions, read-only mounts and quotas all show.
  local parent, err = host:existing(folder)
  local usable
  if parent then usable, err = core.reflink_check(parent) end
  if not usable and err.code ~= "unsupported" then
    return "fail", ("%s can't be %s: %s"):format(folder, uid and "written to" or "made", err.message),
      "choose a runtime_dir that this user may write to (as root /run/fcproc)"
  end
  local safe, unsafe = core.check_dir(folder)
  if not safe and unsafe.code == "conflict" then
    return "fail", unsafe.message, "choose a runtime_dir where nobody else may write above it"
  end
  local state = not uid and "can be made" or mode == "700" and "is ours, mode 0700"
    or ("is ours; its mode 0%s will be made 0700"):format(mode)
  return status, ("%s %s; %s"):format(folder, state, room), fix
end

local function in_units(bytes)
  if bytes >= 1024 * MIB then return ("%.1f GiB"):format(bytes / (1024 * MIB)) end
  return ("%.1f MiB"):format(bytes / MIB)
end

-- The runtime folder or what it will be made in; or what the check answers without one.
local function disk_folder(host)
  local folder = host.config.runtime_dir
  if not folder then return nil, "warn", "runtime_dir is not configured", NO_RUNTIME_DIR end
  local parent, err = host:existing(folder)
  if parent then return parent end
  return nil, "fail", err.message, "choose another runtime_dir"
end

---@param host fcproc.DoctorHost
function M.disk(host)
  local folder, status, message, fix = disk_folder(host)
  if not folder then return status, message, fix end
  local free, total, files = core.disk_free(folder)
  if not free then return "fail", total.message, "choose another runtime_dir" end
  status = free < NO_DISK and "fail" or free < LOW_DISK and "warn" or "ok"
  message = ("%s free of %s on the disk of %s"):format(in_units(free), in_units(total),
    host.config.runtime_dir)
  local kind = (mounts.of(core.absolute_path(folder) or folder) or {}).kind
  local in_memory = kind == "tmpfs" and host.uid ~= 0 -- root's /run/fcproc is meant to be one
  if in_memory then
    message = message .. "; it is a tmpfs, where disks and snapshots of VMs take memory"
    if status == "ok" then status = "warn" end
  elseif kind == "ext4" then
    message = message .. "; it is an ext4, where after thousands of VMs each costs up to 4 ms of CPU for the "
      .. "files that it makes, and 1.1 on a tmpfs (as root /run/fcproc)"
  end
  if files and files < LOW_FILES then
    message = message .. (", and only %d more files"):format(files)
    if status == "ok" then status = "warn" end
  end
  fix = in_memory and "choose a runtime_dir on a disk, as ~/.local/state/fcproc"
    or status ~= "ok" and "make room there, or choose a runtime_dir on another disk: consoles, "
    .. "snapshots and disks of VMs grow" or nil
  return status, message, fix
end

---@param host fcproc.DoctorHost
function M.reflink(host)
  local folder, status, message, fix = disk_folder(host)
  if not folder then return status, message, fix end
  local ok, err = core.reflink_check(folder)
  if ok then return "ok", "a VM's disk can share blocks with its image: copies cost nothing" end
  if err.code == "unsupported" then -- slower, and nothing is wrong
    return "ok", err.message .. "; copies are sparse instead (XFS or btrfs would share)"
  end
  return "fail", err.message, "make room there, or choose a runtime_dir that can be written to"
end

return M
