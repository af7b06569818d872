-- What the bodies of Firecracker's API hold, 1.12 to 1.17, as data: each field with its type, the
-- version that brought it, whether it must be there, and what it may be. endpoints.lua says where
-- each body goes and judges by these tables; json.lua writes by them.
--
-- Firecracker refuses a body with one field that it does not know, so a field's version matters.

local M = {}

---@class fcproc.BodyType
---@field kind "string"|"boolean"|"integer"|"object"|"list"|"map"|"any"|"either"
---@field required boolean?  it must be there
---@field since (string|string[])?  the first version that knows it; see version.at_least
---@field min integer?       of an integer
---@field max integer?       of an integer; of a string in bytes
---@field values table<string, string|true>?  of a string: all it may be, with the first version
---@field fold boolean?      the case of values does not matter
---@field fields table<string, fcproc.BodyType>?  of an object
---@field open boolean?           of an object: fields that it does not know are passed over
---@field bytes boolean?          of a string: it need not be UTF-8, as a path need not be
---@field of fcproc.BodyType?     of a list, or a map: what each of it must be
---@field name (fun(name: string): string?)?  of a map with of: the complaint about a name, or nil
---@field filled boolean?         of a list: not empty
---@field string fcproc.BodyType? of either: what a string must be
---@field table fcproc.BodyType?  of either: what a table must be
---@field rule (fun(value: any): string?)?  what else must hold: the complaint, or nil

-- Types are shared, so a field that adds to one refers to it.
local function extend(type, more)
  return setmetatable(more, { __index = type })
end

local function required(type) return extend(type, { required = true }) end
local function since(version, type) return extend(type, { since = version }) end

local text, flag = { kind = "string" }, { kind = "boolean" }
local U16, U32 = 0xffff, 0xffffffff

local function integer(min, max) return { kind = "integer", min = min, max = max } end
local function list(of) return { kind = "list", of = of } end
local function object(fields, rule) return { kind = "object", fields = fields, rule = rule } end
local function one_of(values, fold) return { kind = "string", values = values, fold = fold } end

-- The largest is what a Lua integer holds; Firecracker's own is twice that.
local count = integer(0)
local path = extend(text, { rule = function(value)
  if value == "" then return "must not be empty" end
  if value:find("\0", 1, true) then return "must not hold a NUL byte" end
end })

local id = extend(text, { rule = function(value)
  if not value:find("^[%w_]+$") then
    return ("must be letters, digits and underscores, not '%s'"):format(value)
  end
end })

local mac = extend(text, { rule = function(value)
  if not value:find("^" .. ("%x%x:"):rep(5) .. "%x%x$") then
    return ("must be six pairs of hex digits with colons, not '%s'"):format(value)
  end
end })

-- IFNAMSIZ is 16 with its NUL.
local interface = extend(path, { max = 15 })

-- RFC 3927 keeps the first and the last 256 addresses; Firecracker refuses them too.
local link_local = extend(text, { rule = function(value)
  local third, fourth = value:match("^169%.254%.(%d%d?%d?)%.(%d%d?%d?)$")
  third, fourth = tonumber(third), tonumber(fourth)
  if not third or third < 1 or third > 254 or fourth > 255 then
    return ("must be a link-local IPv4 address, 169.254.1.0 to 169.254.254.255, not '%s'")
      :format(value)
  end
end })

local bucket = object{
  size = required(count), refill_time = required(count), -- tokens; milliseconds
  one_time_burst = count,
}
local limiter = object{ bandwidth = bucket, ops = bucket }

-- ---- before boot -----------------------------------------------------------------------------

M.boot_source = object{
  kernel_image_path = required(path), initrd_path = path,
  boot_args = extend(text, { max = 2047 }), -- the kernel's 2048 with its NUL
}

local function machine_fields()
  return {
    vcpu_count = integer(1, 32), mem_size_mib = integer(1), smt = flag, track_dirty_pages = flag,
    cpu_template = one_of{ C3 = true, T2 = true, T2S = true, T2CL = true, T2A = true, V1N1 = true,
      None = true },
    huge_pages = one_of{ None = true, ["2M"] = true, Transparent = "1.17" },
  }
end

local function machine_rule(config)
  if config.smt == true and config.vcpu_count and config.vcpu_count > 1
    and config.vcpu_count % 2 == 1 then
    return ("with smt vcpu_count must be 1 or even, not %d"):format(config.vcpu_count)
  end
  if (config.huge_pages == "2M" or config.huge_pages == "Transparent") and config.mem_size_mib
    and config.mem_size_mib % 2 == 1 then
    return ("with huge pages mem_size_mib must be even, not %d"):format(config.mem_size_mib)
  end
end

M.machine_update = object(machine_fields(), function(config)
  if next(config) == nil then return "an update must change something" end
  return machine_rule(config)
end)
M.machine_config = object(machine_fields(), machine_rule)
for _, name in ipairs{ "vcpu_count", "mem_size_mib" } do
  M.machine_config.fields[name] = required(M.machine_config.fields[name])
end

-- Numbers are written as text here: "0x1", "0b1", "1"; bitmaps have x for what stays.
local bitmap = required(text)
M.cpu_config = object{
  kvm_capabilities = list(text),
  cpuid_modifiers = list(object{
    leaf = required(text), subleaf = required(text), flags = required(integer(0, U32)),
    modifiers = required(list(object{
      register = required(one_of{ eax = true, ebx = true, ecx = true, edx = true }),
      bitmap = bitmap,
    })),
  }),
  msr_modifiers = list(object{ addr = required(text), bitmap = bitmap }),
  reg_modifiers = list(object{ addr = required(text), bitmap = bitmap }), -- aarch64
  vcpu_features = list(object{ index = required(integer(0, U32)), bitmap = bitmap }), -- aarch64
}

M.drive = object({
  drive_id = required(id), is_root_device = required(flag), partuuid = text,
  cache_type = one_of{ Unsafe = true, Writeback = true },
  path_on_host = path, is_read_only = flag, rate_limiter = limiter,
  io_engine = one_of{ Sync = true, Async = true }, -- Async: host kernel 5.10.51 or newer
  socket = path,
}, function(drive)
  if not drive.path_on_host and not drive.socket then
    return "needs path_on_host, or socket for a vhost-user backend"
  end
  for _, name in ipairs(drive.socket and { "path_on_host", "is_read_only", "rate_limiter",
    "io_engine" } or {}) do
    if drive[name] ~= nil then
      return ("has both socket and %s: a vhost-user backend keeps that to itself"):format(name)
    end
  end
end)
M.drive_update = object{ drive_id = required(id), path_on_host = path, rate_limiter = limiter }

M.pmem = object{
  id = required(id), path_on_host = required(path), root_device = flag, read_only = flag,
  rate_limiter = since("1.16", limiter),
}
M.pmem_update = object{ id = required(id), rate_limiter = limiter }

M.network_interface = object{
  iface_id = required(id), host_dev_name = required(interface), guest_mac = mac,
  rx_rate_limiter = limiter, tx_rate_limiter = limiter,
  mtu = since("1.16", integer(68, U16)),
}
M.network_update = object{ iface_id = required(id), rx_rate_limiter = limiter,
  tx_rate_limiter = limiter }

M.vsock = object{
  guest_cid = required(integer(3, U32)), uds_path = required(path), -- 0 to 2 are the host's own
  vsock_id = text, -- deprecated
}
M.entropy = object{ rate_limiter = limiter }
M.serial = object{ serial_out_path = path, rate_limiter = since("1.16", bucket) }
M.logger = object{
  log_path = path, module = text, show_level = flag, show_log_origin = flag,
  level = one_of({ Error = true, Warning = true, Warn = true, Info = true, Debug = true,
    Trace = true, Off = true }, true),
}
M.metrics = object{
  metrics_path = required(path), emit_id = since("1.17", flag),
  properties = since("1.17", { kind = "map", of = text }),
}

-- ---- before and after ------------------------------------------------------------------------

M.mmds = { kind = "map" }
M.mmds_config = object{
  network_interfaces = required(extend(list(id), { filled = true })),
  version = one_of{ V1 = true, V2 = true }, ipv4_address = link_local, -- V1 is deprecated
  imds_compat = since("1.13", flag),
}

M.balloon = object{
  amount_mib = required(integer(0, U32)), deflate_on_oom = required(flag),
  stats_polling_interval_s = integer(0, U16),
  free_page_hinting = since("1.14", flag), free_page_reporting = since("1.14", flag),
}
M.balloon_update = object{ amount_mib = required(integer(0, U32)) }
M.balloon_statistics = object{ stats_polling_interval_s = required(integer(0, U16)) }
M.hinting_start = object{ acknowledge_on_stop = flag }

local function power_of_two(value) return value & (value - 1) == 0 end

M.memory_hotplug = object({
  total_size_mib = required(integer(0, U32)), block_size_mib = integer(2),
  slot_size_mib = integer(128),
}, function(config)
  local total = math.tointeger(config.total_size_mib)
  local block = math.tointeger(config.block_size_mib or 2)
  local slot = math.tointeger(config.slot_size_mib or 128)
  if not power_of_two(block) then
    return ("block_size_mib must be a power of two, not %d"):format(block)
  end
  if slot % block ~= 0 then
    return ("slot_size_mib must be a multiple of block_size_mib (%d), not %d"):format(block, slot)
  end
  if total < slot or total % slot ~= 0 then
    return ("total_size_mib must be a multiple of slot_size_mib (%d), not %d"):format(slot, total)
  end
end)
M.memory_hotplug_update = object{ requested_size_mib = required(integer(0, U32)) }

-- ---- the VM ----------------------------------------------------------------------------------

M.action = object{ action_type = required(one_of{ InstanceStart = true, FlushMetrics = true,
  SendCtrlAltDel = true }) }
M.vm_state = object{ state = required(one_of{ Paused = true, Resumed = true }) }

M.snapshot_create = object{
  snapshot_path = required(path), mem_file_path = required(path),
  snapshot_type = one_of{ Full = true, Diff = true },
}
M.snapshot_load = object({
  snapshot_path = required(path), resume_vm = flag,
  mem_backend = object{ backend_path = required(path),
    backend_type = required(one_of{ File = true, Uffd = true }) },
  mem_file_path = path, enable_diff_snapshots = flag, -- both deprecated
  network_overrides = list(object{ iface_id = required(id), host_dev_name = required(interface) }),
  track_dirty_pages = since("1.13", flag),
  vsock_override = since("1.16", object{ uds_path = required(path) }),
  clock_realtime = since({ "1.14.4", "1.15.1", "1.16" }, flag), -- x86-64
  huge_pages = since("1.17", one_of{ Snapshot = true, None = true, Transparent = true,
    ["2M"] = true }),
}, function(load)
  if not load.mem_backend and not load.mem_file_path then
    return "needs mem_backend: { backend_type = \"File\", backend_path = ... }"
  end
  if load.mem_backend and load.mem_file_path then
    return "has both mem_backend and mem_file_path: leave out mem_file_path, which is deprecated"
  end
  if load.huge_pages == "2M" and not (load.mem_backend
    and load.mem_backend.backend_type == "Uffd") then
    return "huge_pages = 2M works with the backend Uffd only"
  end
end)

-- ---- the file for --config-file --------------------------------------------------------------

-- Not here: serial, which Firecracker reads over without a word.
M.config = object({
  ["boot-source"] = required(M.boot_source), drives = required(list(M.drive)),
  ["machine-config"] = M.machine_config,
  -- A path to a file; since 1.13 the template itself, too.
  ["cpu-config"] = { kind = "either", string = path, table = since("1.13", M.cpu_config) },
  ["network-interfaces"] = list(M.network_interface), balloon = M.balloon, vsock = M.vsock,
  logger = M.logger, metrics = M.metrics, ["mmds-config"] = M.mmds_config, entropy = M.entropy,
  pmem = since("1.14", list(M.pmem)), ["memory-hotplug"] = since("1.14", M.memory_hotplug),
}, function(config)
  local machine = config["machine-config"]
  local memory = machine and machine.mem_size_mib or 128
  if config.balloon and config.balloon.amount_mib > memory then
    return ("balloon.amount_mib is %d, and the VM has %d MiB"):format(config.balloon.amount_mib,
      memory)
  end
end)

return M
