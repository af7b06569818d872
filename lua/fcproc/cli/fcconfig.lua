-- From a Firecracker configuration, the file for its --config-file, to a VM's spec. What a spec has no
-- place for is refused with its name: a VM without it would be another. What fcproc decides itself
-- (names of sockets and logs) is told.

local cmdline = require "fcproc.machine.cmdline"
local schema = require "fcproc.vm.schema"

local M = {}

-- What only such a file has at its top.
local TELLING = { "boot-source", "machine-config", "network-interfaces", "mmds-config", "cpu-config",
  "memory-hotplug", "logger", "metrics" }

---Is the table one?
---@param value table
---@return boolean
function M.is_one(value)
  for _, name in ipairs(TELLING) do
    if value[name] ~= nil then return true end
  end
  return false
end

-- Each section's fields: the spec's name; or a function that puts the value into the spec; or, when
-- fcproc decides that itself, "!" and what it does.
local OURS = "!"

local sections = {
  ["boot-source"] = { kernel_image_path = "kernel", initrd_path = "initrd", boot_args = "boot_args" },
  ["machine-config"] = {
    vcpu_count = "vcpus", mem_size_mib = "mem_mib", smt = "smt", ht_enabled = "smt",
    cpu_template = "cpu_template", track_dirty_pages = "track_dirty_pages", huge_pages = "huge_pages",
  },
  drives = {
    drive_id = "id", path_on_host = "path", is_root_device = "root", is_read_only = "read_only",
    rate_limiter = "rate_limit", io_engine = "io_engine", cache_type = "cache_type",
  },
  ["network-interfaces"] = {
    iface_id = function() end, -- they are eth0, eth1, ... in their order
    host_dev_name = "tap", guest_mac = "mac", mtu = "mtu", rx_rate_limiter = "rx_limit",
    tx_rate_limiter = "tx_limit",
    allow_mmds_requests = function(_, value, state) state.mmds = state.mmds or value end, -- before 1.0
  },
  vsock = { guest_cid = "cid", vsock_id = function() end,
    uds_path = OURS .. "its socket is vsock.sock in the VM's folder" },
  balloon = { amount_mib = "amount_mib", deflate_on_oom = "deflate_on_oom",
    stats_polling_interval_s = "stats_interval_s", free_page_hinting = "free_page_hinting",
    free_page_reporting = "free_page_reporting" },
  pmem = { id = "id", path_on_host = "path", root_device = "root", read_only = "read_only",
    rate_limiter = "rate_limit" },
  ["memory-hotplug"] = { total_size_mib = "total_mib", block_size_mib = "block_mib",
    slot_size_mib = "slot_mib" },
  entropy = { rate_limiter = "rate_limit" },
  ["mmds-config"] = { version = "version", ipv4_address = "address",
    network_interfaces = function(_, value, state) state.mmds_interfaces = value end },
  logger = {
    level = function(_, value, state) state.log_level = value end,
    log_path = OURS .. "it is firecracker.log in the VM's folder",
    show_level = OURS .. "the log has it", show_log_origin = OURS .. "the log is without it",
    module = OURS .. "the log is of all modules",
  },
  metrics = { metrics_path = OURS .. "they are in metrics in the VM's folder" },
}

-- A spec's name for a section that becomes a table of its own.
local tables = { vsock = "vsock", balloon = "balloon", entropy = "entropy", ["mmds-config"] = "mmds",
  ["memory-hotplug"] = "memory_hotplug" }
local lists = { drives = "drives", pmem = "pmem", ["network-interfaces"] = "network" }

local function convert_fields(state, from, fields, place)
  local made = {}
  if type(from) ~= "table" then
    state.check:add(place, "must be an object")
    return made
  end
  for name, value in pairs(from) do
    local field, here = fields[name], place .. "." .. name
    if type(field) == "function" then
      field(made, value, state)
    elseif not field then
      state.check:add(here, "a VM's spec has no place for it")
    elseif field:sub(1, 1) == OURS then
      state.notes[#state.notes + 1] = ("%s is not used: %s"):format(here, field:sub(2))
    else
      made[field] = value
    end
  end
  return made
end

-- The kernel's ip= is what the guest will have, so the VM's address is that one.
local function guest_address(boot_args)
  local line = type(boot_args) == "string" and cmdline.read(boot_args)
  if not line or not line.addressed then return nil end
  return line.address:match("^(%d+%.%d+%.%d+%.%d+)") or false -- dhcp, off: none of ours
end

local function convert_network(spec, state)
  local network = spec.network
  local address = guest_address(spec.boot_args)
  if not network then return end
  if address ~= nil then network[1].address = address end
  for i, interface in ipairs(network) do
    if interface.tap then
      state.notes[#state.notes + 1] = ("network-interfaces[%d].host_dev_name: the TAP %s is made, put on the "
        .. "bridge, and removed with the VM"):format(i, tostring(interface.tap))
    end
  end
end

local function convert_mmds(spec, state, config)
  local names = state.mmds_interfaces
  if type(names) == "table" and #names < #(config["network-interfaces"] or {}) then
    state.check:add("mmds-config.network_interfaces", "a VM's spec has all of its interfaces reach the "
      .. "metadata, not some")
  end
  if state.mmds and not spec.mmds then spec.mmds = {} end
  if spec.mmds then spec.mmds.version = spec.mmds.version or "V1" end -- Firecracker's default
end

-- A section into the spec: a list, a table of its own, or fields beside the others.
local function convert_section(spec, state, name, section)
  local fields = sections[name]
  local empty = type(section) == "table" and next(section) == nil
  if not fields then
    if not empty then
      state.check:add(name, name == "serial" and "Firecracker reads it over in such a file; a spec has "
        .. '"serial": {"path": ...}' or "a VM's spec has no place for it")
    end
  elseif not lists[name] then
    local made, target = convert_fields(state, section, fields, name), tables[name]
    if target then spec[target] = made end
    for field, value in pairs(target and {} or made) do spec[field] = value end
  elseif type(section) ~= "table" or (not empty and #section == 0) then
    state.check:add(name, "must be a list")
  elseif not empty then
    local list = {}
    for i, entry in ipairs(section) do
      list[i] = convert_fields(state, entry, fields, ("%s[%d]"):format(name, i))
    end
    spec[lists[name]] = list
  end
end

-- "warn" as Firecracker takes it, too.
local function level_of(level)
  if type(level) ~= "string" then return level end
  level = level:sub(1, 1):upper() .. level:sub(2):lower()
  return level == "Warn" and "Warning" or level
end

---The spec that the configuration describes.
---@param config table  decoded, without nulls
---@return table? spec
---@return fcproc.Error|string[] err  ERR_INVALID with problems; or what is told of it, a line each
function M.spec(config)
  local state, spec = { notes = {}, check = schema.checker("cli.spec") }, {}
  for name, section in pairs(config) do convert_section(spec, state, name, section) end
  if spec.kernel == nil then state.check:add("boot-source.kernel_image_path", "is missing") end
  if spec.entropy and next(spec.entropy) == nil then spec.entropy = true end
  spec.log_level = level_of(state.log_level)
  convert_network(spec, state)
  convert_mmds(spec, state, config)
  if state.check:failed() then
    local err = state.check:error()
    err.message = "of the Firecracker configuration: " .. err.message
    return nil, err
  end
  table.sort(state.notes)
  return spec, state.notes
end

return M
