-- The jailer: its arguments, where it puts its root, and the cgroups that it is told to use.

local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local mounts = require "fcproc.mounts"
local process = require "fcproc.process"
local rights = require "fcproc.rights"

local M = {}

local ANSWER_LIMIT = 5 -- seconds

---@class fcproc.Jailer
---@field binary string          the jailer's executable
---@field uid integer
---@field gid integer
---@field base string            --chroot-base-dir, absolute
---@field daemonize boolean?
---@field new_pid_ns boolean?
---@field cgroups table<string, string>?  file to value: { ["cpu.shares"] = "512" }
---@field cgroup_version (1|2)?  default: what this host has
---@field parent_cgroup string?  default: "fcproc"
---@field own_cgroup string      what the VM's own cgroup is called
---@field limits table<string, integer>?  { no_file = n, fsize = bytes }

---How a machine with this jailer runs; nil: without one.
---@param jail fcproc.Jailer?
---@return fcproc.MachineShape
function M.shape(jail)
  if not jail then return {} end
  return { jailed = true, daemonize = jail.daemonize, new_pid_ns = jail.new_pid_ns }
end

---The folder that becomes its root.
---@param jail fcproc.Jailer
---@param firecracker string  the executable's path, without links: the jailer resolves them
---@param id string
---@return string
function M.root(jail, firecracker, id)
  return ("%s/%s/%s/root"):format(jail.base, firecracker:match("[^/]+$"), id)
end

---The process whose root is the folder: the VMM, or a jailer on its way to become it. A look at
---/proc misses it when its parent ended and it began meanwhile. A jailer forks three times at most, so
---one look in four finds what there is.
---@param root string
---@return fcproc.Process? process
---@return fcproc.Error? err  ERR_NOT_FOUND: none
function M.find(root)
  local found, err
  for _ = 1, 4 do
    found, err = core.open_by_root(root)
    if found or err.code ~= "not_found" then return found, err end
  end
  return nil, err
end

---The process that listens on the socket in a jail, if it is in that jail: the jail's user may have moved
---another one's socket there.
---@param root string
---@param socket string
---@param without integer?
---@return fcproc.Process? process
---@return fcproc.Error? err  ERR_NOT_SAME_PROCESS, with its pid: it is not
function M.listener(root, socket, without)
  local peer, err = core.open_listener(socket, without)
  if not peer then return nil, err end
  local inside
  inside, err = peer:in_folder(root)
  if inside then return peer end
  local pid = peer:pid()
  peer:close()
  return nil, err or errors.new{ code = "not_same_process", op = "jailer.listener", pid = pid,
    path = socket, message = ("pid %d listens on %s and is not in that jail: it is another VM's, or "
      .. "nobody's; it was not touched"):format(pid, socket) }
end

---Kills every process whose root is the folder, and waits for its end.
---@param root string
---@param without integer
---@param ctx fcproc.Context?
---@return true? none  there is none any more
---@return fcproc.Error? err
function M.kill_all(root, without, ctx)
  while true do
    local found <close>, err = M.find(root)
    if not found then
      if err.code == "not_found" then return true end
      return nil, err
    end
    found:signal("KILL")
    local gone
    gone, err = process.wait_for_killed(found, without, ctx)
    if not gone then return nil, err end
  end
end

---A jailer beside the Firecracker of that name ("jailer-v1.12.1" of "firecracker-v1.12.1"), or on
---PATH.
---@param firecracker string?
---@return string? path
---@return fcproc.Error? err
function M.find_binary(firecracker)
  local folder, name = (firecracker or ""):match("^(.*/)([^/]*)$")
  for _, beside in ipairs(folder and { (name:gsub("firecracker", "jailer", 1)), "jailer" } or {}) do
    local path = beside ~= name and core.find_executable(folder .. beside)
    if path then return path end
  end
  return core.find_executable("jailer")
end

---The version that a jailer gives for itself.
---@param path string
---@param ctx fcproc.Context?
---@return string? version  nil: it does not say
function M.version(path, ctx)
  local spec = process.spec({ path, "--version" }, { timeout = ANSWER_LIMIT, session = true })
  local done, result = loop.complete(ctx, core.command(spec, ctx))
  return done and result.stdout:match("^Jailer v(%d+%.%d+%.%d+[%w.-]*)") or nil
end

-- What a jailer needs, by the kernel's numbers.
local CAPABILITIES = { [0] = "CHOWN", [6] = "SETGID", [7] = "SETUID", [18] = "SYS_CHROOT",
  [21] = "SYS_ADMIN", [27] = "MKNOD" }

---The capabilities that a jailer needs and this process lacks.
---@return string? names  nil: none is missing
function M.missing_rights()
  return rights.missing(CAPABILITIES)
end

-- ---- where it can be -------------------------------------------------------------------------

---Can a jail be in the folder? It holds device files and a program.
---@param folder string  absolute; it need not be there yet
---@return true?
---@return fcproc.Error? err  ERR_UNSUPPORTED: mounted nodev or noexec
function M.check_place(folder)
  while folder ~= "" and not core.stat(folder) do folder = folder:match("^(.*)/[^/]*$") end
  folder = folder == "" and "/" or core.absolute_path(folder) or folder
  local best, err = mounts.of(folder)
  if not best then return nil, err end
  local option = ("," .. best.own .. ","):match(",(nodev),") or ("," .. best.own .. ","):match(
    ",(noexec),")
  if not option then return true end
  return nil, errors.new{ code = "unsupported", op = "jailer.place", path = folder,
    message = ("%s is mounted %s, and a jail holds %s: take a runtime_dir on another file system, "
      .. "or remount it"):format(best.point, option,
      option == "nodev" and "device files" or "a program") }
end

-- ---- cgroups ---------------------------------------------------------------------------------

local function controller_of(file)
  return file:match("^([%w_]+)%.")
end

local function has_controller(point, name)
  local text = core.read_file(point .. "/cgroup.controllers")
  return not text or (" " .. text):find("%s" .. name .. "%f[^%w_]") ~= nil
end

-- Of version 2 a process is in one cgroup only, so that of the jailer is inside of the VM's own.
local function parent_of(jail, version)
  local parent = jail.parent_cgroup or cgroup.PARENT
  return version == 2 and parent .. "/" .. jail.own_cgroup or parent
end

-- The names of the files, sorted.
local function files_of(jail)
  local files = {}
  for file in pairs(jail.cgroups or {}) do files[#files + 1] = file end
  table.sort(files)
  return files
end

---The cgroup version that serves all the files, and the folders that the jailer will use.
---@param jail fcproc.Jailer
---@param id string
---@return (1|2)? version
---@return string[]|fcproc.Error folders
---@return table<string, string>? folder_of  file to folder
function M.cgroups(jail, id)
  local files = files_of(jail)
  if #files == 0 then return 2, {}, {} end
  local folders, folder_of, seen = {}, {}, {}
  local mounted, err = cgroup.hierarchies()
  if not mounted then return nil, err end
  local version = jail.cgroup_version or (mounted[controller_of(files[1]) or ""] and 1 or 2)
  for _, file in ipairs(files) do
    local point = mounted[version == 1 and controller_of(file) or ""]
    if not point then
      return nil, errors.new{ code = "unsupported", op = "jailer.cgroups",
        message = ("jailer.cgroups: no cgroup v%d hierarchy is mounted for %s: is it a file of v%d? "
          .. "(see /proc/self/mountinfo)"):format(version, file, 3 - version) }
    end
    local controller = controller_of(file)
    if version == 2 and controller ~= "cgroup" and not has_controller(point, controller) then
      return nil, errors.new{ code = "unsupported", op = "jailer.cgroups", path = point,
        message = ("jailer.cgroups: %s: there is no '%s' in %s/cgroup.controllers: %s"):format(file,
          controller, point, mounted[controller] and "a hierarchy of version 1 has it"
          or "it has to be in cgroup.subtree_control of the cgroups above (systemd: Delegate=yes), or in the "
          .. "kernel") }
    end
    local folder = ("%s/%s/%s"):format(point, parent_of(jail, version), id)
    folder_of[file] = folder
    if not seen[folder] then folders[#folders + 1] = folder end
    seen[folder] = true
  end
  return version, folders, folder_of
end

---The command line up to Firecracker's own arguments.
---@param jail fcproc.Jailer
---@param firecracker string
---@param id string
---@return string[]? argv
---@return fcproc.Error? err
function M.arguments(jail, firecracker, id)
  local version, err = M.cgroups(jail, id)
  if not version then return nil, err end
  local argv = { jail.binary, "--id", id, "--exec-file", firecracker, "--uid", tostring(jail.uid), "--gid",
    tostring(jail.gid), "--chroot-base-dir", jail.base }
  local function add(...)
    for _, argument in ipairs{ ... } do argv[#argv + 1] = tostring(argument) end
  end
  if next(jail.cgroups or {}) then
    add("--cgroup-version", version, "--parent-cgroup", parent_of(jail, version))
    for _, file in ipairs(files_of(jail)) do add("--cgroup", file .. "=" .. jail.cgroups[file]) end
  end
  for name, value in pairs(jail.limits or {}) do
    add("--resource-limit", ("%s=%d"):format(name:gsub("_", "-"), value))
  end
  if jail.daemonize then add("--daemonize") end
  if jail.new_pid_ns then add("--new-pid-ns") end
  add("--")
  return argv
end

local UNITS = { k = 1024, m = 1048576, g = 1073741824 }

---The number that "64M" is in a cgroup's file.
---@param text string
---@return integer? number  nil: it is none
function M.number_of(text)
  local number, unit = text:match("^(%d+)([kKmMgG]?)$")
  if number then return tonumber(number) * (UNITS[unit:lower()] or 1) end
end

-- "0,1" as "0-1".
local function members_of(text)
  local members = {}
  for part in text:gmatch("[^,]+") do
    local first, last = part:match("^(%d+)%-?(%d*)$")
    if not first then return nil end
    for i = tonumber(first), tonumber(last) or tonumber(first) do members[#members + 1] = i end
  end
  return table.concat(members, ",")
end

local PAGE = 65536 -- the largest to which a limit of memory is rounded down

-- Is what the file says what was written there? The kernel rounds, sorts and completes.
local function in_force(wanted, shown)
  shown = shown:gsub("%s+$", "")
  if shown == wanted then return true end
  local a, b = M.number_of(wanted), M.number_of(shown)
  if a and b then return a >= b and a - b < PAGE and b > 0 end
  local members = members_of(wanted)
  if members and members == members_of(shown) then return true end
  -- "50000" of cpu.max is shown as "50000 100000"; a file of many lines has ours among them.
  for line in shown:gmatch("[^\n]+") do
    if line == wanted or line:sub(1, #wanted + 1) == wanted .. " " then return true end
  end
  return false
end

---Are the limits in force? The jailer leaves them out without a word on a host with the other
---cgroup version, so the process's cgroup and each value are read back.
---@param jail fcproc.Jailer
---@param id string
---@param pid integer
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: one is not
function M.check_cgroups(jail, id, pid)
  local version, folders, folder_of = M.cgroups(jail, id)
  if not version then return nil, folders end
  local function fail(format, ...)
    return nil, errors.new{ code = "conflict", op = "jailer.cgroups", pid = pid,
      message = "jailer.cgroups: " .. format:format(...) }
  end
  for _, folder in ipairs(folders) do
    local procs = core.read_file(folder .. "/cgroup.procs") or ""
    if not ("\n" .. procs):find("\n" .. pid .. "\n", 1, true) then
      return fail("pid %d is not in %s: the limits are not in force", pid, folder)
    end
  end
  for _, file in ipairs(files_of(jail)) do
    local wanted = jail.cgroups[file]
    local shown, err = core.read_file(folder_of[file] .. "/" .. file)
    if not shown then return fail("%s can't be read back: %s", file, err.message) end
    if not in_force(wanted, shown) then
      return fail("%s is '%s' in %s, not '%s'", file, shown:gsub("%s+$", ""), folder_of[file], wanted)
    end
  end
  return true
end

return M
