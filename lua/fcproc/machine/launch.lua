-- What must be on disk and on the command line before a Firecracker starts. All names that it sees
-- are relative to its working folder, which is the VM's own or the root of its jail: so a snapshot
-- that holds them can be restored in any other folder.

local arguments = require "fcproc.machine.arguments"
local core = require "fcproc.core"
local endpoints = require "fcproc.machine.endpoints"
local jailer = require "fcproc.machine.jailer"
local json = require "fcproc.json"
local outputs = require "fcproc.machine.outputs"

local M = {}

local PRIVATE = 384 -- 0600
-- Firecracker makes room for as many descriptors as it may have: for the usual million, 9 MB of kernel
-- memory. The jailer gives it so many.
local DESCRIPTORS = 2048

M.TIMEOUT = 10 -- seconds until its API must listen

-- What the log says when a VM from a configuration file runs, and the levels that leave it out.
M.BOOTED = "Successfully started microvm"
M.VERSION = "Running Firecracker v(%d+%.%d+%.%d+[%w.-]*)"
local QUIET = { Off = true, Error = true, Warning = true }

---Does the log not say that the VM runs?
---@param opts fcproc.Launch
---@return boolean
function M.is_quiet(opts)
  return QUIET[opts.log_level] or arguments.has(opts.arguments, "--module")
end

---@class fcproc.Launch
---@field id string
---@field binary string           Firecracker's executable
---@field files fcproc.MachineFiles
---@field config table?           as for --config-file; nil: started empty, for a snapshot
---@field boot ("config_file"|"api")?  default "config_file"
---@field metadata table?         the MMDS data store at boot
---@field jailer fcproc.Jailer?
---@field inside boolean?         it is in the manager's rootless namespaces
---@field jail string[]?          what is in its jail there, as for core.spawn
---@field log_level string?       default "Info"
---@field seccomp (string|false)? a filter's file (absolute; in a jail it is the root's "seccomp"), or
---                               false for none; default: the built-in ones
---@field arguments string[]?     more of Firecracker's own
---@field timeout number?         seconds, default 10
---@field stdin integer?          what the guest's console reads; default: nothing
---@field cgroup string?          where it shall be born, if that can be
---@field no_file integer?        descriptors that it may have; default 2048. In a jail the jailer sets it
---@field before_release (fun(launcher: fcproc.Process): true?, fcproc.Error?)?
---       called while the process waits at its gate: to write down who it is

-- sun_path has room for 107 bytes. A longer path is given by its name in the working folder.
local MOST_SOCKET_PATH = 107

---Where a VM's files are.
---@param folder string   the VM's
---@param jail table?     with its root
---@param confined table?  of a rootless jail, in which it is a folder of the VM's
---@return fcproc.MachineFiles
function M.files(folder, jail, confined)
  local inside = jail and jail.root or confined and folder .. "/vmm" or folder
  local files = {
    folder = inside, socket = inside .. "/api.sock", log = inside .. "/firecracker.log",
    metrics = inside .. "/metrics", console = folder .. "/console.log",
  }
  -- Not one of its fields: those are shown and written down, and the jail is already.
  return setmetatable(files, { __index = { jail = jail or confined } })
end

---Writes a file that the VMM may read: in a jail it is the jail user's.
---@param opts fcproc.Launch
---@param name string
---@param text string
---@return true?
---@return fcproc.Error? err
function M.write(opts, name, text)
  return outputs.make(opts.files, opts.jailer, name, text, PRIVATE, true)
end

-- Firecracker before 1.14 wants its log and its metrics file to be there.
local function make_outputs(opts)
  for _, name in ipairs{ "firecracker.log", "metrics" } do
    local made, err = outputs.make(opts.files, opts.jailer, name, "", PRIVATE)
    if not made then return nil, err end
  end
  return true
end

-- Adds Firecracker's own to the jailer's, or to its binary.
local function add_arguments(argv, opts)
  local socket = "api.sock"
  if not opts.jailer and #opts.files.socket <= MOST_SOCKET_PATH then socket = opts.files.socket end
  local function add(name, value)
    argv[#argv + 1] = name
    argv[#argv + 1] = value
  end
  add("--api-sock", socket)
  add("--log-path", "firecracker.log")
  add("--level", opts.log_level or "Info")
  add("--metrics-path", "metrics")
  if not opts.jailer then add("--id", opts.id) end
  if opts.config and opts.boot ~= "api" then add("--config-file", "config.json") end
  if opts.metadata and opts.boot ~= "api" then add("--metadata", "metadata.json") end
  if opts.seccomp == false then add("--no-seccomp") end
  if opts.seccomp then add("--seccomp-filter", opts.jailer and "seccomp" or opts.seccomp) end
  for _, argument in ipairs(opts.arguments or {}) do add(argument) end
end

-- Of a rootless manager only what is in its namespaces.
local function netns_of(manager, opts)
  if manager.config.privilege == "rootless" and not opts.inside then return nil end
  return manager.config.netns
end

---Writes what the start needs and returns how to spawn it.
---@param manager fcproc.Manager
---@param opts fcproc.Launch
---@return table? spec  as core.spawn takes it
---@return fcproc.Error? err
function M.prepare(manager, opts)
  local ok, err = make_outputs(opts)
  if ok and opts.config and opts.boot ~= "api" then
    ok, err = M.write(opts, "config.json", endpoints.encode_config(opts.config))
  end
  if ok and opts.metadata and opts.boot ~= "api" then
    ok, err = M.write(opts, "metadata.json", json.write(opts.metadata))
  end
  if not ok then return nil, err end
  if opts.seccomp == false then
    manager:_log(core.now(), "seccomp is off: a guest that breaks into Firecracker has all its system "
      .. "calls", { id = opts.id }, "warn")
  end
  local argv = { opts.binary }
  if opts.jailer then
    argv, err = jailer.arguments(opts.jailer, opts.binary, opts.id)
    if not argv then return nil, err end
  end
  add_arguments(argv, opts)
  -- A jailer with daemonize cuts its VMM off from both; until then it may have something to say.
  local out = { file = opts.files.console }
  return {
    argv = argv, stdin = opts.stdin, stdout = out, stderr = out, env = {}, session = true,
    netns = netns_of(manager, opts), jail = opts.jail, cwd = opts.files.folder, cgroup = opts.cgroup,
    gate = opts.before_release and true or nil,
    -- Sockets are born 0600. The jailer makes folders, which need their x.
    umask = opts.jailer and 63 or 127,
    no_file = not opts.jailer and (opts.no_file or DESCRIPTORS) or nil,
    without = manager.config.without,
  }
end

local function put(list, target, body)
  if body then list[#list + 1] = { method = "PUT", target = target, body = body } end
end

---The same configuration as requests, for boot = "api".
---@param config table
---@param metadata table?
---@return { method: string, target: string, body: table }[]
function M.requests(config, metadata)
  local list = {}
  for _, name in ipairs{ "machine-config", "cpu-config", "boot-source" } do
    put(list, "/" .. name, config[name])
  end
  for _, drive in ipairs(config.drives or {}) do put(list, "/drives/" .. drive.drive_id, drive) end
  for _, device in ipairs(config.pmem or {}) do put(list, "/pmem/" .. device.id, device) end
  for _, interface in ipairs(config["network-interfaces"] or {}) do
    put(list, "/network-interfaces/" .. interface.iface_id, interface)
  end
  for _, name in ipairs{ "vsock", "balloon", "entropy", "serial" } do
    put(list, "/" .. name, config[name])
  end
  put(list, "/hotplug/memory", config["memory-hotplug"])
  put(list, "/mmds/config", config["mmds-config"])
  put(list, "/mmds", metadata)
  put(list, "/actions", { action_type = "InstanceStart" })
  return list
end

return M
