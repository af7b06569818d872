-- The jailer: its arguments, where it puts its root, and the cgroups that it makes.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

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
---@param firecracker string  the executable's path
---@param id string
---@return string
function M.root(jail, firecracker, id)
  return ("%s/%s/%s/root"):format(jail.base, firecracker:match("[^/]+$"), id)
end

-- Where each cgroup hierarchy is mounted: controller to folder, and "" to the unified one.
---@return table<string, string>
function M.hierarchies()
  local found = {}
  local file <close> = io.open("/proc/self/mountinfo")
  for line in file and file:lines() or function() end do
    local point, kind, options = line:match("^%d+ %d+ %S+ %S+ (%S+) .- %- (%S+) %S+ (%S+)")
    if kind == "cgroup2" then
      found[""] = found[""] or point
    elseif kind == "cgroup" then
      for option in options:gmatch("[^,]+") do found[option] = found[option] or point end
    end
  end
  return found
end

local function controller_of(file)
  return file:match("^([%w_]+)%.")
end

---The cgroup version that serves all the controllers, and the folders that the jailer will make.
---@param jail fcproc.Jailer
---@param id string
---@return (1|2)? version
---@return string[]|fcproc.Error folders
function M.cgroups(jail, id)
  local files = {}
  for file in pairs(jail.cgroups or {}) do files[#files + 1] = file end
  if #files == 0 then return 2, {} end
  table.sort(files)
  local hierarchies, folders, seen = M.hierarchies(), {}, {}
  local version = jail.cgroup_version
    or (hierarchies[controller_of(files[1]) or ""] and 1 or 2)
  local parent = jail.parent_cgroup or "fcproc"
  for _, file in ipairs(files) do
    local point = hierarchies[version == 1 and controller_of(file) or ""]
    if not point then
      return nil, errors.new{ code = "unsupported", op = "jailer.cgroups",
        message = ("jailer.cgroups: no cgroup v%d hierarchy is mounted for %s"):format(version,
          file) }
    end
    local folder = ("%s/%s/%s"):format(point, parent, id)
    if not seen[folder] then folders[#folders + 1] = folder end
    seen[folder] = true
  end
  return version, folders
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
  local argv = { jail.binary, "--id", id, "--exec-file", firecracker, "--uid", jail.uid, "--gid",
    jail.gid, "--chroot-base-dir", jail.base }
  local function add(...)
    for _, argument in ipairs{ ... } do argv[#argv + 1] = argument end
  end
  if next(jail.cgroups or {}) then
    add("--cgroup-version", version, "--parent-cgroup", jail.parent_cgroup or "fcproc")
    for file, value in pairs(jail.cgroups) do add("--cgroup", file .. "=" .. value) end
  end
  for name, value in pairs(jail.limits or {}) do
    add("--resource-limit", ("%s=%d"):format(name:gsub("_", "-"), value))
  end
  if jail.daemonize then add("--daemonize") end
  if jail.new_pid_ns then add("--new-pid-ns") end
  add("--")
  return argv
end

---Are the limits in force? The jailer leaves them out without a word on a host with the other
---cgroup version, so the process's cgroup and each value are read back.
---@param jail fcproc.Jailer
---@param id string
---@param pid integer
---@return true?
---@return fcproc.Error? err
function M.check_cgroups(jail, id, pid)
  if not next(jail.cgroups or {}) then return true end
  local version, folders = M.cgroups(jail, id)
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
  for file, value in pairs(jail.cgroups) do
    for _, folder in ipairs(folders) do
      local text = core.read_file(folder .. "/" .. file)
      if text and text:gsub("%s+$", "") ~= value then
        return fail("%s is '%s' in %s, not '%s'", file, text:gsub("%s+$", ""), folder, value)
      end
    end
  end
  return true
end

return M
