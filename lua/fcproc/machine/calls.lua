-- The API of Firecracker as methods, for any object that has :call(method, path, body, ctx). Without
-- a prefix a method reads; set_ is a PUT, patch_ a PATCH, delete_ a DELETE; the rest are verbs.
-- Bodies are Firecracker's own (bodies.lua has each field with its version); an id is given once,
-- and goes into the path and into the body.

local errors = require "fcproc.error"
local json = require "fcproc.json"
local options = require "fcproc.options"

local M = {}

---@alias fcproc.Read fun(self, ctx: fcproc.Context?): table?, fcproc.Error?
---@alias fcproc.Act fun(self, ctx: fcproc.Context?): true?, fcproc.Error?
---@alias fcproc.Write fun(self, body: table, ctx: fcproc.Context?): true?, fcproc.Error?
---@alias fcproc.WriteOptional fun(self, body: table?, ctx: fcproc.Context?): true?, fcproc.Error?
---@alias fcproc.WriteDevice fun(self, id: string, body: table, ctx: fcproc.Context?): true?, fcproc.Error?
---@alias fcproc.DeleteDevice fun(self, id: string, ctx: fcproc.Context?): true?, fcproc.Error?

---What a machine can be asked and told; after each name what its answer, or its body, may hold. All
---fail with what endpoints.check says, with ERR_API and Firecracker's own words, or as any request
---does. Where Firecracker has nothing to answer they return true.
---@class fcproc.MachineCalls
---@field describe fcproc.Read  id, state ("Not started", "Running", "Paused"), vmm_version
---@field version_info fcproc.Read  firecracker_version
---@field vm_config fcproc.Read  the whole configuration
---@field start fcproc.Act  boots the guest, once
---@field pause fcproc.Act
---@field resume fcproc.Act
---@field flush_metrics fcproc.Act
---@field send_ctrl_alt_del fcproc.Act  x86-64 only
---@field machine_config fcproc.Read
---@field set_machine_config fcproc.Write  vcpu_count, mem_size_mib, smt, huge_pages
---@field patch_machine_config fcproc.Write  some of them, before boot
---@field set_boot_source fcproc.Write  kernel_image_path, initrd_path, boot_args
---@field set_cpu_config fcproc.Write  a custom CPU template
---@field set_drive fcproc.WriteDevice  path_on_host, is_root_device, is_read_only; after boot: 1.16
---@field patch_drive fcproc.WriteDevice  path_on_host, rate_limiter, after boot
---@field delete_drive fcproc.DeleteDevice  1.16, with PCI
---@field set_pmem fcproc.WriteDevice  1.14: path_on_host, root_device, read_only
---@field patch_pmem fcproc.WriteDevice  1.16: rate_limiter
---@field delete_pmem fcproc.DeleteDevice  1.16, with PCI
---@field set_network_interface fcproc.WriteDevice  host_dev_name, guest_mac; 1.16: mtu
---@field patch_network_interface fcproc.WriteDevice  the rate limiters, after boot
---@field delete_network_interface fcproc.DeleteDevice  1.16, with PCI
---@field set_vsock fcproc.Write  guest_cid, uds_path
---@field set_entropy fcproc.Write  rate_limiter
---@field set_serial fcproc.Write  1.14: serial_out_path
---@field set_logger fcproc.Write  log_path, level, show_level, show_log_origin, module
---@field set_metrics fcproc.Write  metrics_path
---@field mmds fcproc.Read  the data store
---@field set_mmds fcproc.Write
---@field patch_mmds fcproc.Write  a JSON merge patch: a null removes
---@field set_mmds_config fcproc.Write  network_interfaces, version, ipv4_address
---@field balloon fcproc.Read
---@field set_balloon fcproc.Write  amount_mib, deflate_on_oom, stats_polling_interval_s
---@field patch_balloon fcproc.Write  amount_mib, after boot
---@field balloon_statistics fcproc.Read
---@field patch_balloon_statistics fcproc.Write  stats_polling_interval_s
---@field start_balloon_hinting fcproc.WriteOptional  1.14: acknowledge_on_stop
---@field stop_balloon_hinting fcproc.Act  1.14
---@field balloon_hinting fcproc.Read  1.14: host_cmd, guest_cmd
---@field memory_hotplug fcproc.Read  1.14
---@field set_memory_hotplug fcproc.Write  1.14: total_size_mib, block_size_mib, slot_size_mib
---@field patch_memory_hotplug fcproc.Write  1.14: requested_size_mib
---@field create_snapshot fcproc.Write  snapshot_path, mem_file_path; of a paused VM
---@field load_snapshot fcproc.Write  snapshot_path, mem_backend; if it fails, Firecracker exits
M.methods = {}

-- One that reads. The data store is the user's own, and keeps its nulls.
local function read(name, path, keep_nulls)
  M.methods[name] = function(self, ctx)
    local answer, err = self:call("GET", path, nil, ctx)
    if answer == nil then return nil, err end
    return json.plain(answer, keep_nulls)
  end
end

-- A request that is always the same.
local function fixed(name, method, path, body)
  M.methods[name] = function(self, ctx)
    local own = nil -- a copy, for whoever gets it may change it
    for key, value in pairs(body or {}) do own = { [key] = value } end
    return self:call(method, path, own, ctx)
  end
end

-- One with a body.
local function with_body(name, method, path, optional)
  M.methods[name] = function(self, body, ctx)
    if body ~= nil or not optional then options.argument(body, "table", name, "the body") end
    return self:call(method, path, body, ctx)
  end
end

-- One on a device: the id is in the path, and in the body where there is one.
local function on_device(name, method, path, field)
  local function request(self, id, body, ctx)
    -- Else an id with a slash in it would be another endpoint.
    if not id:find("^[%w_]+$") then
      return nil, errors.new{ code = "invalid", op = "api." .. name, message = (
        "%s: an id must be letters, digits and underscores, not '%s'"):format(name, id) }
    end
    return self:call(method, path .. id, body, ctx)
  end
  if not field then
    M.methods[name] = function(self, id, ctx)
      options.argument(id, "string", name, "id")
      return request(self, id, nil, ctx)
    end
    return
  end
  M.methods[name] = function(self, id, body, ctx)
    options.argument(id, "string", name, "id")
    options.argument(body, "table", name, "the body")
    local full = { [field] = id }
    -- An id in the body wins here, so that one that differs is found and told.
    for key, value in pairs(body) do full[key] = value end
    return request(self, id, full, ctx)
  end
end

read("describe", "/")
read("version_info", "/version")
read("vm_config", "/vm/config")
fixed("start", "PUT", "/actions", { action_type = "InstanceStart" })
fixed("flush_metrics", "PUT", "/actions", { action_type = "FlushMetrics" })
fixed("send_ctrl_alt_del", "PUT", "/actions", { action_type = "SendCtrlAltDel" })
fixed("pause", "PATCH", "/vm", { state = "Paused" })
fixed("resume", "PATCH", "/vm", { state = "Resumed" })

read("machine_config", "/machine-config")
with_body("set_machine_config", "PUT", "/machine-config")
with_body("patch_machine_config", "PATCH", "/machine-config")
with_body("set_boot_source", "PUT", "/boot-source")
with_body("set_cpu_config", "PUT", "/cpu-config")

for name, device in pairs{
  drive = { "/drives/", "drive_id" },
  pmem = { "/pmem/", "id" },
  network_interface = { "/network-interfaces/", "iface_id" },
} do
  on_device("set_" .. name, "PUT", device[1], device[2])
  on_device("patch_" .. name, "PATCH", device[1], device[2])
  on_device("delete_" .. name, "DELETE", device[1])
end

with_body("set_vsock", "PUT", "/vsock")
with_body("set_entropy", "PUT", "/entropy")
with_body("set_serial", "PUT", "/serial")
with_body("set_logger", "PUT", "/logger")
with_body("set_metrics", "PUT", "/metrics")

read("mmds", "/mmds", true)
with_body("set_mmds", "PUT", "/mmds")
with_body("patch_mmds", "PATCH", "/mmds")
with_body("set_mmds_config", "PUT", "/mmds/config")

read("balloon", "/balloon")
with_body("set_balloon", "PUT", "/balloon")
with_body("patch_balloon", "PATCH", "/balloon")
read("balloon_statistics", "/balloon/statistics")
with_body("patch_balloon_statistics", "PATCH", "/balloon/statistics")
with_body("start_balloon_hinting", "PATCH", "/balloon/hinting/start", true)
fixed("stop_balloon_hinting", "PATCH", "/balloon/hinting/stop")
read("balloon_hinting", "/balloon/hinting/status")

read("memory_hotplug", "/hotplug/memory")
with_body("set_memory_hotplug", "PUT", "/hotplug/memory")
with_body("patch_memory_hotplug", "PATCH", "/hotplug/memory")

with_body("create_snapshot", "PUT", "/snapshot/create")
with_body("load_snapshot", "PUT", "/snapshot/load")

return M
