-- The API of Firecracker as methods, for any object that has :api(method, path, body, ctx). Without
-- a prefix a method reads; set_ is a PUT, patch_ a PATCH, delete_ a DELETE; the rest are verbs.
-- Bodies are Firecracker's own (bodies.lua has each field with its version); an id is given once, and
-- goes into the path and into the body.

local errors = require "fcproc.error"
local options = require "fcproc.options"

local M = {}

---What a machine can be asked and told. All fail with what endpoints.check says, with ERR_API and
---Firecracker's own words, or as any request does. A call with nothing to tell returns true.
---@class fcproc.MachineCalls
---@field api fun(self, method: string, path: string, body: (table|string)?, ctx: fcproc.Context?): any?, fcproc.Error?
---@field describe fun(self, ctx: fcproc.Context?): table?, fcproc.Error?  id, state ("Not started", "Running", "Paused"), vmm_version, app_name
---@field version_info fun(self, ctx: fcproc.Context?): table?, fcproc.Error?  firecracker_version
---@field vm_config fun(self, ctx: fcproc.Context?): table?, fcproc.Error?  the whole configuration
---@field start fun(self, ctx: fcproc.Context?): boolean?, fcproc.Error?  boots the guest, once
---@field pause fun(self, ctx: fcproc.Context?): boolean?, fcproc.Error?
---@field resume fun(self, ctx: fcproc.Context?): boolean?, fcproc.Error?
---@field flush_metrics fun(self, ctx: fcproc.Context?): boolean?, fcproc.Error?
---@field send_ctrl_alt_del fun(self, ctx: fcproc.Context?): boolean?, fcproc.Error?  x86-64 only
---@field machine_config fun(self, ctx: fcproc.Context?): table?, fcproc.Error?
---@field set_machine_config fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  vcpu_count, mem_size_mib, smt, track_dirty_pages, huge_pages
---@field patch_machine_config fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  some of them, before boot
---@field set_boot_source fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  kernel_image_path, initrd_path, boot_args
---@field set_cpu_config fun(self, template: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  a custom CPU template
---@field set_drive fun(self, id: string, drive: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  path_on_host, is_root_device, is_read_only, rate_limiter; 1.16 with PCI: after boot, too
---@field patch_drive fun(self, id: string, drive: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  path_on_host, rate_limiter, after boot
---@field delete_drive fun(self, id: string, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.16, with PCI
---@field set_pmem fun(self, id: string, pmem: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.14: path_on_host, root_device, read_only
---@field patch_pmem fun(self, id: string, pmem: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.16: rate_limiter
---@field delete_pmem fun(self, id: string, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.16, with PCI
---@field set_network_interface fun(self, id: string, interface: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  host_dev_name, guest_mac, rx_rate_limiter, tx_rate_limiter; 1.16: mtu
---@field patch_network_interface fun(self, id: string, interface: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  the rate limiters, after boot
---@field delete_network_interface fun(self, id: string, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.16, with PCI
---@field set_vsock fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  guest_cid, uds_path
---@field set_entropy fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  rate_limiter
---@field set_serial fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.14: serial_out_path
---@field set_logger fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  log_path, level, show_level, show_log_origin, module
---@field set_metrics fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  metrics_path
---@field mmds fun(self, ctx: fcproc.Context?): table?, fcproc.Error?  the data store
---@field set_mmds fun(self, data: table, ctx: fcproc.Context?): boolean?, fcproc.Error?
---@field patch_mmds fun(self, data: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  a JSON merge patch: a null removes
---@field set_mmds_config fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  network_interfaces, version, ipv4_address
---@field balloon fun(self, ctx: fcproc.Context?): table?, fcproc.Error?
---@field set_balloon fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  amount_mib, deflate_on_oom, stats_polling_interval_s
---@field patch_balloon fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  amount_mib, after boot
---@field balloon_statistics fun(self, ctx: fcproc.Context?): table?, fcproc.Error?
---@field patch_balloon_statistics fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  stats_polling_interval_s
---@field start_balloon_hinting fun(self, config: table?, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.14: acknowledge_on_stop
---@field stop_balloon_hinting fun(self, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.14
---@field balloon_hinting fun(self, ctx: fcproc.Context?): table?, fcproc.Error?  1.14: host_cmd, guest_cmd
---@field memory_hotplug fun(self, ctx: fcproc.Context?): table?, fcproc.Error?  1.14
---@field set_memory_hotplug fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.14: total_size_mib, block_size_mib, slot_size_mib
---@field patch_memory_hotplug fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  1.14: requested_size_mib
---@field create_snapshot fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  snapshot_path, mem_file_path, snapshot_type; the VM must be paused
---@field load_snapshot fun(self, config: table, ctx: fcproc.Context?): boolean?, fcproc.Error?  snapshot_path, mem_backend, resume_vm, network_overrides; when it fails Firecracker exits
M.methods = {}

-- A request that is always the same.
local function fixed(name, method, path, body)
  M.methods[name] = function(self, ctx)
    -- A copy: whoever gets it may change it.
    local own = body and { [next(body)] = body[next(body)] }
    return self:api(method, path, own, ctx)
  end
end

-- One with a body.
local function with_body(name, method, path, optional)
  M.methods[name] = function(self, body, ctx)
    if body ~= nil or not optional then options.argument(body, "table", name, "the body") end
    return self:api(method, path, body, ctx)
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
    return self:api(method, path .. id, body, ctx)
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

fixed("describe", "GET", "/")
fixed("version_info", "GET", "/version")
fixed("vm_config", "GET", "/vm/config")
fixed("start", "PUT", "/actions", { action_type = "InstanceStart" })
fixed("flush_metrics", "PUT", "/actions", { action_type = "FlushMetrics" })
fixed("send_ctrl_alt_del", "PUT", "/actions", { action_type = "SendCtrlAltDel" })
fixed("pause", "PATCH", "/vm", { state = "Paused" })
fixed("resume", "PATCH", "/vm", { state = "Resumed" })

fixed("machine_config", "GET", "/machine-config")
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

fixed("mmds", "GET", "/mmds")
with_body("set_mmds", "PUT", "/mmds")
with_body("patch_mmds", "PATCH", "/mmds")
with_body("set_mmds_config", "PUT", "/mmds/config")

fixed("balloon", "GET", "/balloon")
with_body("set_balloon", "PUT", "/balloon")
with_body("patch_balloon", "PATCH", "/balloon")
fixed("balloon_statistics", "GET", "/balloon/statistics")
with_body("patch_balloon_statistics", "PATCH", "/balloon/statistics")
with_body("start_balloon_hinting", "PATCH", "/balloon/hinting/start", true)
fixed("stop_balloon_hinting", "PATCH", "/balloon/hinting/stop")
fixed("balloon_hinting", "GET", "/balloon/hinting/status")

fixed("memory_hotplug", "GET", "/hotplug/memory")
with_body("set_memory_hotplug", "PUT", "/hotplug/memory")
with_body("patch_memory_hotplug", "PATCH", "/hotplug/memory")

with_body("create_snapshot", "PUT", "/snapshot/create")
with_body("load_snapshot", "PUT", "/snapshot/load")

return M
