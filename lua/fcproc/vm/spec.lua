-- A VM's spec: what may be in it, and what Firecracker is told. The whole of it is checked before
-- anything is made, and every mistake comes back with its place: "drives[2].path: no such file".

local core = require "fcproc.core"
local endpoints = require "fcproc.endpoints"
local guest = require "fcproc.guest"
local jailer = require "fcproc.jailer"
local schema = require "fcproc.vm.schema"

local M = {}

---@class fcproc.DriveSpec
---@field path string               a file or block device
---@field id string?                default "root" for the root drive, else "drive<n>"
---@field read_only boolean?
---@field root boolean?             the guest's root device
---@field copy ("reflink"|"sparse")?  the VM gets a copy of its own; "reflink" becomes a sparse copy
---                                 where the file system can't
---@field rate_limit table?         as the API's rate_limiter
---@field io_engine ("Sync"|"Async")?
---@field cache_type ("Unsafe"|"Writeback")?

---@class fcproc.NetworkSpec
---@field address (string|false)?   the guest's; default: a free one of the bridge's subnet; false: none
---@field mac string?               the guest's; default: from the VM's id
---@field tap string?               the TAP's name; default: from the VM's id
---@field isolated boolean?         can't reach the bridge's other isolated ports; default true
---@field attach boolean?           false: the TAP is on no bridge
---@field nat string?               the uplink through which the guest reaches the world
---@field mtu integer?
---@field rx_limit table?           as the API's rx_rate_limiter
---@field tx_limit table?

---@class fcproc.VmSpec
---@field id string?                1 to 64 letters, digits and dashes; default: a random one
---@field kernel string?            default: the built-in guest
---@field initrd string?
---@field boot_args string?         default: "console=ttyS0 reboot=k panic=1 pci=off"; ip= is added
---@field vcpus integer?            default 1
---@field mem_mib integer?          default 128; 16 for the built-in guest
---@field smt boolean?
---@field cpu_template string?
---@field huge_pages string?
---@field track_dirty_pages boolean?  for diff snapshots
---@field drives fcproc.DriveSpec[]?
---@field network (fcproc.NetworkSpec|fcproc.NetworkSpec[]|true)?
---@field vsock { cid: integer }?   its socket is vsock.sock in the VM's folder
---@field mmds { data: table?, version: string?, address: string? }?
---@field balloon { amount_mib: integer, deflate_on_oom: boolean?, stats_interval_s: integer? }?
---@field entropy (boolean|table)?  true, or { rate_limit = ... }
---@field jailer table?             uid, gid, binary, daemonize, new_pid_ns, cgroups,
---                                 cgroup_version, parent_cgroup, limits
---@field boot ("config_file"|"api")?
---@field seccomp (string|false)?   a filter's file; false: none at all, which is logged
---@field log_level string?
---@field console_limit integer?    bytes kept of console.log and of firecracker.log; default 16 MiB
---@field timeout number?           seconds until its API must answer; default 10
---@field arguments string[]?       more of Firecracker's own arguments
---@field hooks table<string, function>?  before_, after_ and on_failure_ of a step, see steps.lua

M.MAX_ID = 64
local BOOT_ARGS = "console=ttyS0 reboot=k panic=1 pci=off"

local function random_id()
  local file <close> = assert(io.open("/dev/urandom", "rb"))
  local text = assert(file:read(4))
  return "vm-" .. text:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
end

---Can it be a VM's id? (Firecracker panics on one that can't.)
---@param id any
---@return true?
---@return string? reason
function M.check_id(id)
  if type(id) ~= "string" then return nil, "must be a string, not a " .. type(id) end
  if #id < 1 or #id > M.MAX_ID or id:find("[^%w%-]") then
    return nil, ("'%s' can't be an id: 1 to %d letters, digits and dashes"):format(id, M.MAX_ID)
  end
  return true
end

-- ---- drives --------------------------------------------------------------------------------

local function check_drive(check, drive, index, seen)
  local place = ("drives[%d]"):format(index)
  if not check:table(drive, place, schema.drive) then return end
  local id = drive.id or (drive.root and "root" or "drive" .. index)
  if not id:match("^[%w_]+$") then
    check:add(place .. ".id", "'%s' has other than letters, digits and _", id)
  elseif seen.ids[id] then
    check:add(place .. ".id", "'%s' is drives[%d]'s too", id, seen.ids[id])
  end
  seen.ids[id] = index
  if drive.root then
    if seen.root then check:add(place .. ".root", "drives[%d] is the root already", seen.root) end
    seen.root = index
  end
  if not drive.path then return end
  local file, err = check:file(drive.path, place .. ".path", "file|block", drive.copy and "file")
  if not file then return err end
  local key = ("%d-%d"):format(file.dev, file.ino)
  local writes = not drive.read_only and not drive.copy
  if writes and seen.files[key] then
    check:add(place .. ".path", "%s is drives[%d]'s too, and one of them writes", drive.path,
      seen.files[key])
  end
  if writes then seen.files[key] = index end
  return {
    id = id, path = file.path, read_only = drive.read_only or false, root = drive.root or false,
    copy = drive.copy, name = "drive-" .. id, lease = writes and "drive-" .. key or nil,
    rate_limit = drive.rate_limit, io_engine = drive.io_engine, cache_type = drive.cache_type,
    mode = file.mode, uid = file.uid, gid = file.gid,
  }
end

local function check_drives(check, spec)
  local list, seen = {}, { ids = {}, files = {} }
  if spec.drives == nil or not check:list(spec.drives, "drives") then return list end
  for i, drive in ipairs(spec.drives) do list[#list + 1] = check_drive(check, drive, i, seen) end
  return list
end

-- A jailed VMM opens its drives as another user.
local function check_access(check, drives, jail)
  for i, drive in ipairs(drives) do
    if not drive.copy and jail and jail.uid ~= 0 then
      local shift = drive.uid == jail.uid and 6 or drive.gid == jail.gid and 3 or 0
      local bits = (drive.mode >> shift) & 7
      local wanted = drive.read_only and 4 or 6
      if bits & wanted ~= wanted then
        check:add(("drives[%d].path"):format(i), "%s can't be %s by uid %d; chown it, or give "
          .. "the VM a copy (copy = \"reflink\")", drive.path,
          drive.read_only and "read" or "written", jail.uid)
      end
    end
  end
end

-- ---- network -------------------------------------------------------------------------------

local function check_interface(check, manager, interface, index, place, seen)
  if not check:table(interface, place, schema.network) then return end
  local attach = interface.attach ~= false
  if attach and not manager.config.bridge_name then
    check:add(place, "the manager has no bridge: give fcproc.new a bridge_name, or attach = false")
  end
  if interface.tap then
    local ok, err = core.check_ifname(interface.tap)
    if not ok then check:add(place .. ".tap", "%s", err.message) end
    if seen[interface.tap] then check:add(place .. ".tap", "'%s' is used twice", interface.tap) end
    seen[interface.tap] = true
  end
  if interface.address then
    if seen[interface.address] then
      check:add(place .. ".address", "%s is used twice", interface.address)
    end
    seen[interface.address] = true
  end
  if interface.mac and not interface.mac:match("^%x[02468aceACE]" .. (":%x%x"):rep(5) .. "$") then
    check:add(place .. ".mac", "'%s' is no unicast MAC address", interface.mac)
  end
  if interface.nat and not attach then
    check:add(place .. ".nat", "a TAP on no bridge has no NAT")
  end
  local copy = {}
  for key, value in pairs(interface) do copy[key] = value end
  copy.index, copy.attach, copy.isolated = index, attach, interface.isolated ~= false
  return copy
end

local function check_network(check, manager, spec)
  local network, list, seen = spec.network, {}, {}
  if network == nil or network == false then return list end
  if network == true then network = {} end
  if type(network) ~= "table" then
    check:add("network", "must be a table or true, not a %s", type(network))
    return list
  end
  local several = #network > 0
  for i, interface in ipairs(several and network or { network }) do
    local place = several and ("network[%d]"):format(i) or "network"
    list[#list + 1] = check_interface(check, manager, interface, i, place, seen)
  end
  return list
end

-- ---- the rest ------------------------------------------------------------------------------

local function check_jailer(check, manager, spec, binary)
  local jail = spec.jailer
  if jail == nil or not check:table(jail, "jailer", schema.jailer) then return end
  local path, err
  if jail.binary then path, err = core.find_executable(jail.binary) else
    path, err = jailer.find_binary(binary)
  end
  if not path then check:add("jailer.binary", "%s", err.message) end
  if jail.limits then check:table(jail.limits, "jailer.limits", schema.limits) end
  for key, value in pairs(jail.cgroups or {}) do
    local place = ("jailer.cgroups['%s']"):format(tostring(key))
    if type(key) ~= "string" or not key:match("^[%w_]+%.[%w_.]+$") then
      check:add(place, "is no cgroup file: they are written like 'cpu.max'")
    elseif type(value) ~= "string" and math.type(value) ~= "integer" then
      check:add(place, "must be a string or a whole number")
    elseif tostring(value):find("=", 1, true) then
      check:add(place, "the jailer can't set a value with a '=': write it yourself after the start")
    end
  end
  local parent = jail.parent_cgroup
  if parent and (parent:find("^/") or ("/" .. parent .. "/"):find("/%.*/")) then
    check:add("jailer.parent_cgroup", "'%s' must be a path below the hierarchy, like 'a/b'", parent)
  end
  local place
  place, err = jailer.check_place(manager.config.runtime_dir or "/")
  if not place then check:add("jailer", "%s", err.message) end
  if binary and not binary:match("[^/]*$"):find("firecracker", 1, true) then
    check:add("firecracker_bin", "the jailer refuses a program without 'firecracker' in its name: %s",
      binary)
  end
  local copy = {}
  for key, value in pairs(jail) do copy[key] = value end
  copy.binary = path and core.absolute_path(path)
  copy.cgroups = {}
  for key, value in pairs(jail.cgroups or {}) do copy.cgroups[tostring(key)] = tostring(value) end
  return copy, manager
end

local function check_hooks(check, hooks)
  if hooks == nil then return end
  if type(hooks) ~= "table" then return check:add("hooks", "must be a table") end
  for name, hook in pairs(hooks) do
    local place = "hooks." .. tostring(name)
    local step = type(name) == "string"
      and (name:match("^before_(.*)") or name:match("^after_(.*)") or name:match("^on_failure_(.*)"))
    if not step or not schema.steps[step] then
      check:add(place, "unknown; known: before_, after_ and on_failure_ of %s",
        schema.names(schema.steps))
    elseif type(hook) ~= "function" then
      check:add(place, "must be a function, not a %s", type(hook))
    end
  end
end

-- Refused here, with its name, what this Firecracker is too old for. Its version is asked for only
-- when something newer than the oldest that we know is wanted: asking costs a process.
local function check_version(check, manager, config, ctx)
  local ok, err = endpoints.check_config("1.12.0", config)
  if not ok and err.code == "unsupported" then
    local version
    version, err = manager:binary_version(ctx)
    if not version then return check:add("firecracker_bin", "%s", err.message) end
    ok, err = endpoints.check_config(version, config)
  end
  if not ok then check:add("firecracker", "%s", err.message) end
end

---@class fcproc.VmPlan        a spec that was checked, with everything chosen that could be
---@field id string
---@field binary string
---@field kernel string?
---@field builtin boolean      the built-in guest
---@field drives table[]
---@field network table[]
---@field jailer table?
---@field seccomp string?      a filter's file
---@field spec fcproc.VmSpec   as it was given
---@field hooks table<string, function>

---Checks a spec whole.
---@param manager fcproc.Manager
---@param spec fcproc.VmSpec
---@param restoring boolean?  from a snapshot, which says itself what the VM is
---@param ctx fcproc.Context?
---@return fcproc.VmPlan? plan
---@return fcproc.Error? err  ERR_INVALID with problems: { {place, text}, ... }
function M.plan(manager, spec, restoring, ctx)
  local check = schema.checker("vm." .. (restoring and "restore" or "launch"))
  if not manager.config.runtime_dir then
    check:add("manager", "has no runtime_dir: give it to fcproc.new")
  end
  check:table(spec, "", restoring and schema.restore or schema.spec)
  if check:failed() then return nil, check:error() end -- types are wrong: no use in going on
  local id = spec.id or random_id()
  local ok, reason = M.check_id(id)
  if not ok then check:add("id", "%s", reason) end
  local binary, err = manager:resolve_binary()
  if binary then binary, err = core.absolute_path(binary) end
  if not binary then check:add("firecracker_bin", "%s", err.message) end
  local plan = { id = id, binary = binary, spec = spec, hooks = spec.hooks or {} }
  if type(spec.seccomp) == "string" then
    plan.seccomp = (check:file(spec.seccomp, "seccomp", "file") or {}).path
  end
  plan.jailer = check_jailer(check, manager, spec, binary)
  plan.network = check_network(check, manager, spec)
  check_hooks(check, spec.hooks)
  if not restoring then
    local kernel = spec.kernel
    plan.builtin = kernel == nil
    if not kernel then
      kernel, err = guest.path()
      if not kernel then check:add("kernel", "none is given, and %s", err.message) end
    end
    plan.kernel = kernel and (check:file(kernel, "kernel", "file") or {}).path
    plan.initrd = spec.initrd and (check:file(spec.initrd, "initrd", "file") or {}).path
    plan.drives = check_drives(check, spec)
    check_access(check, plan.drives, plan.jailer)
  end
  if check:failed() then return nil, check:error() end
  if not restoring then
    -- The names that only exist once the rest is made are of no matter to the check.
    check_version(check, manager, M.config(plan, {}), ctx)
    if check:failed() then return nil, check:error() end
  end
  return plan
end

-- ---- what Firecracker is told --------------------------------------------------------------

local function boot_args(plan, taps)
  local spec = plan.spec
  local words = { spec.boot_args or (not plan.builtin and BOOT_ARGS) or nil }
  local first = taps[1]
  if first and first.argument and not (spec.boot_args or ""):find("%f[%w]ip=") then
    words[#words + 1] = first.argument
  end
  return table.concat(words, " ")
end

---The configuration, as for --config-file, with names relative to the working folder.
---@param plan fcproc.VmPlan
---@param taps table[]  as chosen: name, guest_mac, argument
---@return table
function M.config(plan, taps)
  local spec = plan.spec
  local config = {
    ["boot-source"] = {
      kernel_image_path = plan.jailer and "kernel" or plan.kernel,
      initrd_path = plan.initrd and (plan.jailer and "initrd" or plan.initrd) or nil,
      boot_args = boot_args(plan, taps),
    },
    ["machine-config"] = {
      vcpu_count = spec.vcpus or 1, mem_size_mib = spec.mem_mib or (plan.builtin and 16 or 128),
      smt = spec.smt, cpu_template = spec.cpu_template, huge_pages = spec.huge_pages,
      track_dirty_pages = spec.track_dirty_pages,
    },
    drives = {},
  }
  for i, drive in ipairs(plan.drives) do
    config.drives[i] = {
      drive_id = drive.id, path_on_host = drive.name, is_root_device = drive.root,
      is_read_only = drive.read_only, rate_limiter = drive.rate_limit,
      io_engine = drive.io_engine, cache_type = drive.cache_type,
    }
  end
  for i, interface in ipairs(plan.network) do
    local list = config["network-interfaces"] or {}
    config["network-interfaces"] = list
    local tap = taps[i] or {}
    list[i] = {
      iface_id = "eth" .. (i - 1), host_dev_name = tap.name or "fctap",
      guest_mac = tap.guest_mac, rx_rate_limiter = interface.rx_limit,
      tx_rate_limiter = interface.tx_limit,
    }
  end
  if spec.vsock then config.vsock = { guest_cid = spec.vsock.cid, uds_path = "vsock.sock" } end
  if spec.balloon then
    config.balloon = {
      amount_mib = spec.balloon.amount_mib,
      deflate_on_oom = spec.balloon.deflate_on_oom or false,
      stats_polling_interval_s = spec.balloon.stats_interval_s,
    }
  end
  if spec.entropy then
    config.entropy = { rate_limiter = type(spec.entropy) == "table" and spec.entropy.rate_limit or nil }
  end
  if spec.mmds then
    local names = {}
    for i in ipairs(plan.network) do names[i] = "eth" .. (i - 1) end
    config["mmds-config"] = {
      version = spec.mmds.version or "V2", network_interfaces = names,
      ipv4_address = spec.mmds.address,
    }
  end
  return config
end

return M
