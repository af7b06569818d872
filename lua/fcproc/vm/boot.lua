-- What Firecracker is told of a VM: its configuration, with names relative to the working folder, and
-- its version's refusals in the words of the spec.

local address = require "fcproc.network.address"
local bodies = require "fcproc.machine.bodies"
local cmdline = require "fcproc.machine.cmdline"
local core = require "fcproc.core"
local endpoints = require "fcproc.machine.endpoints"
local fields = require "fcproc.machine.fields"
local version_of = require "fcproc.machine.version"

local M = {}

-- Firecracker 1.12 leaves it to us to say that there is no PCI; where there is, the guest must look.
local BOOT_ARGS, NO_PCI = "console=ttyS0 reboot=k panic=1", " pci=off"

-- The interface whose address the kernel's command line tells: it has room for one.
local function told(list)
  for i, interface in ipairs(list) do
    if interface.told then return interface, i end
  end
end

---Reads the kernel's command line, and chooses the interface that it tells of.
---@param check table  schema.checker
---@param plan fcproc.VmPlan
function M.read_args(check, plan)
  local complaint
  plan.line, complaint = cmdline.read(plan.spec.boot_args
    or (plan.builtin and "" or BOOT_ARGS .. (plan.pci and "" or NO_PCI)))
  if not plan.line then return check:add("boot_args", "%s", complaint) end
  for _, interface in ipairs(plan.network) do
    interface.told = interface.addressed and not plan.line.addressed and not told(plan.network)
    if interface.dns and not interface.told then
      check:add(interface.place .. ".dns", plan.line.addressed
        and "boot_args address the guest: put the name servers there, into ip="
        or "is told to the first interface that has an address, and this is none")
    end
  end
end

-- The nth disk of a guest: /dev/vda to /dev/vdz, then /dev/vdaa.
local function device(n)
  local letters = ""
  while n > 0 do
    letters = string.char(97 + (n - 1) % 26) .. letters
    n = (n - 1) // 26
  end
  return "/dev/vd" .. letters
end

---Tells the initrd's init which disk is laid over the root: the last. A root comes first, wherever it is.
---@param plan fcproc.VmPlan
---@param drives table[]
function M.tell_overlay(plan, drives)
  local count, line = 0, plan.line
  for _, drive in ipairs(drives) do count = count + (drive.pmem and 0 or 1) end
  if not line or (" " .. line.kernel):find(" fcproc%.overlay=") then return end
  line.kernel = ("%s fcproc.overlay=%s"):format(line.kernel, device(count))
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
      boot_args = cmdline.write(plan.line, (told(taps) or {}).argument),
    },
    ["machine-config"] = {
      vcpu_count = spec.vcpus or 1, mem_size_mib = spec.mem_mib or (plan.builtin and 16 or 128),
      smt = spec.smt, cpu_template = spec.cpu_template, huge_pages = spec.huge_pages,
      track_dirty_pages = spec.track_dirty_pages,
    },
    drives = {},
  }
  for _, drive in ipairs(plan.drives) do
    if drive.pmem then
      config.pmem = config.pmem or {}
      table.insert(config.pmem, { id = drive.id, path_on_host = drive.name, root_device = drive.root,
        read_only = drive.read_only, rate_limiter = drive.rate_limit })
    else
      table.insert(config.drives, {
        drive_id = drive.id, path_on_host = drive.name, is_root_device = drive.root,
        is_read_only = drive.read_only, rate_limiter = drive.rate_limit,
        io_engine = drive.io_engine, cache_type = drive.cache_type,
      })
    end
  end
  for i, interface in ipairs(plan.network) do
    local list = config["network-interfaces"] or {}
    config["network-interfaces"] = list
    local tap = taps[i] or {}
    list[i] = {
      iface_id = "eth" .. (i - 1), host_dev_name = tap.name or "fctap",
      guest_mac = tap.guest_mac, rx_rate_limiter = interface.rx_limit,
      tx_rate_limiter = interface.tx_limit, mtu = plan.tells_mtu and interface.mtu or nil,
    }
  end
  if spec.vsock then config.vsock = { guest_cid = spec.vsock.cid, uds_path = "vsock.sock" } end
  if spec.balloon then
    config.balloon = {
      amount_mib = spec.balloon.amount_mib,
      deflate_on_oom = spec.balloon.deflate_on_oom or false,
      stats_polling_interval_s = spec.balloon.stats_interval_s,
      free_page_hinting = spec.balloon.free_page_hinting,
      free_page_reporting = spec.balloon.free_page_reporting,
    }
  end
  local hotplug, serial = spec.memory_hotplug, spec.serial
  if hotplug then
    config["memory-hotplug"] = { total_size_mib = hotplug.total_mib, block_size_mib = hotplug.block_mib,
      slot_size_mib = hotplug.slot_mib }
  end
  if serial then config.serial = { serial_out_path = serial.path, rate_limiter = serial.rate_limit } end
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

-- ---- what it can't do ------------------------------------------------------------------------

-- The API's names, and the spec's.
local names = {
  { "^the configuration: ", "" },
  { "^PUT /serial", "serial" }, { "^machine%-config%.", "" }, { "^boot%-source%.", "" },
  { "^network%-interfaces%[", "network[" },
  { "^mmds%-config%.", "mmds." }, { "vcpu_count", "vcpus" }, { "mem_size_mib", "mem_mib" },
  { "kernel_image_path", "kernel" }, { "initrd_path", "initrd" }, { "guest_cid", "cid" },
  { "([rt]x)_rate_limiter", "%1_limit" }, { "rate_limiter", "rate_limit" },
  { "ipv4_address", "address" }, { "stats_polling_interval_s", "stats_interval_s" },
  { "^memory%-hotplug", "memory_hotplug" }, { "(%l+)_size_mib", "%1_mib" },
  { "serial_out_path", "path" },
}

local function add_body_error(check, err)
  local text = err.message
  for _, name in ipairs(names) do text = text:gsub(name[1], name[2]) end
  local place, rest = text:match("^([%w_]+[%w_%.%[%]]*):? (.*)$")
  if not place then place, rest = "", text end
  if err.code == "unsupported" then return check:refuse(place, "%s", rest) end
  return check:add(place, "%s", rest)
end

---Checks a part of the spec that goes to the API as it is.
---@param check table      schema.checker
---@param body_type fcproc.BodyType
---@param value any
---@param place string
function M.check_part(check, body_type, value, place)
  if value == nil then return end
  local ok, err = fields.check(nil, body_type, value, place)
  if not ok then add_body_error(check, err) end
end

M.limiter = bodies.entropy.fields.rate_limiter
M.data = bodies.mmds

-- ip= as it will be, or longer: no address of the subnet is longer than its last.
local function longest_argument(manager, plan)
  local interface, i = told(plan.network)
  if not interface then return nil end
  local subnet = interface.attach and address.subnet(manager.config.bridge_ip, manager.config.prefix) or nil
  local wanted = type(interface.address) == "string" and interface.address
  return (address.told(plan.id, i, wanted or subnet.broadcast, subnet, interface.dns))
end

-- Has the kernel's command line room for all that comes to it?
local function check_room(check, manager, plan, ctx)
  local argument = longest_argument(manager, plan)
  local given, config, pci = cmdline.write(plan.line, argument), M.config(plan, {}), plan.pci
  local function over(version)
    return #given + cmdline.added(version, config, pci, core.arch) - cmdline.MOST
  end
  if over("1.17") <= 0 then return end -- no version adds more
  local version, reason = manager:binary_version(ctx)
  if not version then return check:add("firecracker_bin", "%s", reason.message) end
  local much = over(version)
  if much <= 0 then return end
  local ours = argument and ("ip= of %d bytes, "):format(#argument) or ""
  check:add("boot_args", "the kernel's command line would have %d bytes too many: it has room for %d, and %s"
    .. "what Firecracker %s adds (root=, each device), %d bytes, come to the %d here", much, cmdline.MOST,
    ours, version, cmdline.added(version, config, pci, core.arch), #cmdline.write(plan.line))
end

local function wants_mtu(plan)
  for _, interface in ipairs(plan.network) do
    if interface.mtu then return true end
  end
  return false
end

-- Of these the schema has said all that the version's table would.
local PLAIN = { id = true, kernel = true, initrd = true, vcpus = true, mem_mib = true, network = true,
  jailer = true, log_level = true, console_limit = true, timeout = true, hooks = true, cgroup = true,
  boot = true, seccomp = true, arguments = true, stdin = true }

local function is_plain(plan)
  for name in pairs(plan.spec) do
    if not PLAIN[name] then return false end
  end
  for _, interface in ipairs(plan.network) do
    if interface.rx_limit or interface.tx_limit or interface.mtu then return false end
  end
  return not plan.compressed and not plan.pci
end

---Refused here, with its name, is what this Firecracker is too old for. Its version is asked for
---only when something newer than the oldest that we know is wanted: asking costs a process.
---@param check table  schema.checker
---@param manager fcproc.Manager
---@param plan fcproc.VmPlan
---@param ctx fcproc.Context?
function M.check_version(check, manager, plan, ctx)
  check_room(check, manager, plan, ctx)
  if check:failed() or is_plain(plan) then return end
  local config = M.config(plan, {}) -- the names that are chosen later are of no matter here
  local serial = config.serial
  config.serial = nil -- it is a request of its own
  local ok, err = endpoints.check_config("1.12.0", config)
  if ok and not serial and not plan.compressed and not plan.pci and not wants_mtu(plan) then return end
  if not ok and err.code ~= "unsupported" then return add_body_error(check, err) end
  local version, reason = manager:binary_version(ctx)
  if not version then return check:add("firecracker_bin", "%s", reason.message) end
  ok, err = endpoints.check_config(version, config)
  if not ok then add_body_error(check, err) end
  if serial then
    ok, err = endpoints.check(version, false, "PUT", "/serial", serial)
    if not ok then add_body_error(check, err) end
  end
  if plan.compressed and version_of.at_least(version, "1.17") == false then
    check:refuse("kernel", "%s is a bzImage, which needs Firecracker >= 1.17, this is %s: extract the "
      .. "vmlinux in it", plan.kernel, version)
  end
  if plan.pci and version_of.at_least(version, "1.13") == false then
    check:refuse("arguments", "--enable-pci needs Firecracker >= 1.13, this is %s", version)
  end
  plan.tells_mtu = version_of.at_least(version, "1.16") == true
end

return M
