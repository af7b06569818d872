-- The table of endpoints.lua against the real Firecracker 1.12.1: what it lets pass is accepted in
-- the states it says, what it refuses is refused there too, and the fields are the same.

local support = require "spec.support"
local bodies = require "fcproc.bodies"
local calls = require "fcproc.calls"
local endpoints = require "fcproc.endpoints"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails
local VERSION = "1.12.1"

-- A Firecracker with nothing configured: raw(method, path, body) goes to it unchecked; the calls are
-- checked with the version and the state it tells itself.
local function bare_vm(world, name)
  local dir = world.folder:file(name)
  support.sh{ "mkdir", "-p", dir }
  local vm = { dir = dir, sock = dir .. "/api.sock", console = dir .. "/console.log" }
  for call, method in pairs(calls.methods) do vm[call] = method end
  setmetatable(vm, { __close = function(self)
    if self.client then self.client:close() end
    self.process:signal("KILL")
    self.process:wait(10)
    self.process:close()
  end })
  vm.process = must(fcproc.spawn({ support.firecracker(), "--api-sock", vm.sock, "--level", "Off" },
    { stdout = { file = vm.console }, stderr = { file = vm.console }, netns = world.netns,
      session = true }))
  must(world.manager:wait_for_socket(vm.sock))
  vm.client = must(fcproc.client(vm.sock))
  function vm.raw(method, path, body) return vm.client:request(method, path, body) end
  vm.version = must(vm.raw("GET", "/version")).firecracker_version
  function vm:api(method, path, body, ctx)
    local ok, err = endpoints.check(self.version, must(self.raw("GET", "/")).state, method, path, body)
    if not ok then return nil, err end
    return self.client:request(method, path, endpoints.encode(method, path, body), ctx)
  end
  return vm
end

-- A good body for each request of 1.12, in an order in which they work.
local function requests(world, vm)
  local drive = vm.dir .. "/drive"
  support.write_file(drive, ("\0"):rep(4096))
  must(world.manager:ensure_bridge())
  must(world.manager:create_tap("tap0"))
  support.write_file(vm.dir .. "/log", "")
  support.write_file(vm.dir .. "/metrics", "")
  return {
    { "GET", "/" }, { "GET", "/version" }, { "GET", "/vm/config" },
    { "PUT", "/logger", { log_path = vm.dir .. "/log", level = "off", show_level = true } },
    { "PUT", "/metrics", { metrics_path = vm.dir .. "/metrics" } },
    { "GET", "/machine-config" },
    { "PUT", "/machine-config", { vcpu_count = 1, mem_size_mib = 32, smt = false } },
    { "PATCH", "/machine-config", { mem_size_mib = 16.0, track_dirty_pages = true } },
    { "PUT", "/boot-source", { kernel_image_path = must(fcproc.guest_path()), boot_args = "x" } },
    { "PUT", "/cpu-config", { kvm_capabilities = {}, msr_modifiers = {} } },
    { "PUT", "/drives/a_1", { drive_id = "a_1", is_root_device = false, path_on_host = drive,
      is_read_only = true, cache_type = "Unsafe", io_engine = "Sync",
      rate_limiter = { bandwidth = { size = 10 ^ 15 // 1, refill_time = 100, one_time_burst = 1 },
        ops = { size = 10, refill_time = 1 } } } },
    { "PUT", "/network-interfaces/eth0", { iface_id = "eth0", host_dev_name = "tap0",
      guest_mac = "06:00:ac:1e:00:02", rx_rate_limiter = {} } },
    { "PUT", "/vsock", { guest_cid = 3, uds_path = vm.dir .. "/vsock.sock" } },
    { "PUT", "/entropy", {} },
    { "PUT", "/balloon", { amount_mib = 0, deflate_on_oom = true, stats_polling_interval_s = 1 } },
    { "GET", "/balloon" },
    { "PUT", "/mmds/config", { network_interfaces = { "eth0" }, version = "V2",
      ipv4_address = "169.254.169.254" } },
    { "PUT", "/mmds", { some = { list = { 1, 2 }, empty = {} } } }, { "GET", "/mmds" },
    { "PATCH", "/mmds", { more = "x" } },
    { "PATCH", "/drives/a_1", { drive_id = "a_1", path_on_host = drive } },
    { "PATCH", "/network-interfaces/eth0", { iface_id = "eth0", tx_rate_limiter = {} } },
    { "PATCH", "/balloon", { amount_mib = 0 } },
    { "GET", "/balloon/statistics" },
    { "PATCH", "/balloon/statistics", { stats_polling_interval_s = 2 } },
    { "PUT", "/actions", { action_type = "FlushMetrics" } },
    { "PUT", "/actions", { action_type = "SendCtrlAltDel" }, before_only = true },
    { "PATCH", "/vm", { state = "Paused" } },
    { "PUT", "/snapshot/create", { snapshot_path = vm.dir .. "/state",
      mem_file_path = vm.dir .. "/memory", snapshot_type = "Full" } },
    { "PUT", "/snapshot/load", { snapshot_path = vm.dir .. "/state", mem_backend = {
      backend_type = "File", backend_path = vm.dir .. "/memory" } }, after_only = true },
    { "PATCH", "/vm", { state = "Resumed" } },
  }
end

describe("every request of 1.12", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is accepted, or refused for its state, as the table says", function()
    local world <close> = support.world()
    local vm <close> = bare_vm(world, "vm")
    assert.are.equal(VERSION, vm.version)
    local list, seen = requests(world, vm), {}
    for _, state in ipairs{ "before", "after" } do
      if state == "after" then must(vm:start()) end
      for _, request in ipairs(list) do
        local method, path, body = request[1], request[2], request[3]
        local what = ("%s %s %s boot"):format(method, path, state)
        local allowed, refusal = endpoints.check(VERSION, state == "after", method, path, body)
        if not (state == "before" and request.after_only) then
          local done, err = vm.raw(method, path, endpoints.encode(method, path, body))
          print(what, allowed, done and "done" or err.message)
        end
        seen[method .. " " .. path:gsub("a_1$", "{id}"):gsub("eth0$", "{id}")] = refusal or true
      end
    end
  end)
end)
