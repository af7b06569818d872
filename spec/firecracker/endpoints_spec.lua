-- The table of endpoints.lua against the real Firecracker: what it lets pass is accepted in
-- the states it says, what it refuses is refused there too, and the fields are the same.

local support = require "spec.support"
local bare_vm = require "spec.support.bare"
local endpoints = require "fcproc.machine.endpoints"
local fcproc = require "fcproc"
local judge = require "fcproc.machine.fields"
local version_of = require "fcproc.machine.version"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails
local VERSION = versions.real()

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
    { "PATCH", "/vm", { state = "Paused" } },
    { "PUT", "/snapshot/create", { snapshot_path = vm.dir .. "/state",
      mem_file_path = vm.dir .. "/memory", snapshot_type = "Full" } },
    { "PUT", "/snapshot/load", { snapshot_path = vm.dir .. "/state", mem_backend = {
      backend_type = "File", backend_path = vm.dir .. "/memory" } }, after_only = true },
    { "PATCH", "/vm", { state = "Resumed" } },
    { "PUT", "/actions", { action_type = "SendCtrlAltDel" } }, -- the guest may be gone after it
  }
end

local function refused_by_the_real_one(vm, method, path, body, text)
  local err = fails("api", vm.raw(method, path, body))
  assert.are.equal(400, err.status)
  if text then assert.is_truthy(err.message:find(text, 1, true), err.message) end
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
        local text = endpoints.encode(method, path, body)
        local allowed, refusal = endpoints.check(VERSION, state == "after", method, path, body)
        seen[method .. " " .. path:gsub("a_1$", "{id}"):gsub("eth0$", "{id}")] = true
        if not allowed then
          assert.is_true(refusal.code == "conflict" or refusal.code == "unsupported", what)
          refused_by_the_real_one(vm, method, path, text,
            ("not supported %s starting the microVM"):format(state == "before" and state or "after"))
        elseif request.after_only and state == "before" then
          assert.is_true(allowed) -- the files are made after boot; its own spec is below
        elseif state == "after" and method == "PUT" and path:find("^/[dn][re].*/") -- it would be plugged in
          and versions.at_least("1.16") then
          refused_by_the_real_one(vm, method, path, text, "PCI is not enabled")
        elseif path == "/balloon" and method == "PATCH" then
          -- Not refused for the state: our guest has no driver for it.
          refused_by_the_real_one(vm, method, path, text, "Device not activated")
        else
          must(vm.raw(method, path, text))
        end
      end
    end
    for _, entry in ipairs(endpoints.list) do
      local name = entry.method .. " " .. entry.path
      assert.are.equal(not entry.since, seen[name] or false, name)
    end
  end)

  it("of a later version is refused by the table and by the real one", function()
    local world <close> = support.world()
    local vm <close> = bare_vm(world, "vm")
    local count = 0
    for _, entry in ipairs(endpoints.list) do
      if versions.lacks(entry.since) then
        count = count + 1
        local path = entry.path:gsub("{id}", "x")
        local err = fails("unsupported", endpoints.check(VERSION, nil, entry.method, path, {}))
        assert.is_truthy(err.message:find("needs Firecracker >= " .. entry.since, 1, true))
        -- 1.12's server knows no DELETE and then closes the connection.
        local client <close> = must(fcproc.client(vm.sock))
        local answer, refusal = client:request(entry.method, path,
          entry.method ~= "GET" and entry.method ~= "DELETE" and "{}" or nil)
        assert.is_nil(answer)
        assert.is_truthy(refusal.message:find("nvalid request method and/or path", 1, true)
          or refusal.message:find("Unrecognized", 1, true)
          or refusal.message:find("Invalid HTTP Method", 1, true), refusal.message)
      end
    end
    assert.is_true(count > 10 or versions.at_least("1.14"))
  end)
end)

-- A path for each body that a request takes whole, with a field set that lets the parser reach it.
local function body_requests()
  local list = {}
  for _, entry in ipairs(endpoints.list) do
    if entry.body and entry.body.kind == "object" and not entry.since then
      list[#list + 1] = { entry.method, entry.path:gsub("{id}", "x"), entry.body }
    end
  end
  return list
end

-- Of the two the table says more: Firecracker reads over unknown names in these.
local reads_over = { ["PUT /metrics"] = true, ["PUT /snapshot/load vsock_override"] = true }
local for_aarch64 = { reg_modifiers = true, vcpu_features = true }

describe("the fields", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("are those that the real one names, no more and no fewer", function()
    local world <close> = support.world()
    local vm <close> = bare_vm(world, "vm")
    local function compare(what, message, type)
      local theirs, ours = {}, {}
      local named = message:match("unknown field `zz`, expected (.-) at line")
      assert.is_truthy(named, what .. ": " .. message)
      for name in named:gmatch("`([%w_]+)`") do theirs[#theirs + 1] = name end
      for name, field in pairs(type.fields) do
        if endpoints.at_least(VERSION, field.since) and not for_aarch64[name] then
          ours[#ours + 1] = name
        end
      end
      table.sort(theirs)
      table.sort(ours)
      assert.are.same(theirs, ours, what)
    end
    for _, request in ipairs(body_requests()) do
      local method, path, type = request[1], request[2], request[3]
      local what = method .. " " .. path
      if not reads_over[what] then
        compare(what, fails("api", vm.raw(method, path, '{"zz":1}')).message, type)
      end
      for name, field in pairs(type.fields) do
        local known = endpoints.at_least(VERSION, field.since)
        if known and field.kind == "object" and not reads_over[what .. " " .. name] then
          local text = ('{"%s":{"zz":1}}'):format(name)
          compare(what .. " " .. name, fails("api", vm.raw(method, path, text)).message, field)
        end
      end
    end
  end)

  it("and values that are too new are refused by the table and by the real one", function()
    local world <close> = support.world()
    local vm <close> = bare_vm(world, "vm")
    local samples = { boolean = true, integer = 1500, object = { uds_path = "/x" }, map = {} }
    local count = 0
    for _, request in ipairs(body_requests()) do
      local method, path, type = request[1], request[2], request[3]
      for name, field in pairs(type.fields) do
        if versions.lacks(field.since) then
          count = count + 1
          local value = samples[field.kind]
          if field.values then value = next(field.values) end
          local err = fails("unsupported", judge.check(VERSION,
            { kind = "object", fields = { [name] = field } }, { [name] = value }, "x"))
          assert.are.equal(("x.%s needs Firecracker >= %s, this is %s"):format(name,
            version_of.words(field.since), VERSION), err.message)
          if not reads_over[method .. " " .. path] then
            refused_by_the_real_one(vm, method, path, { [name] = value },
              ("unknown field `%s`"):format(name))
          end
        end
      end
    end
    assert.is_true(count >= 9 or versions.at_least("1.13"), count)
    if not versions.lacks("1.17") then return end
    local thp = { vcpu_count = 1, mem_size_mib = 16, huge_pages = "Transparent" }
    fails("unsupported", endpoints.check(VERSION, false, "PUT", "/machine-config", thp))
    refused_by_the_real_one(vm, "PUT", "/machine-config", thp, "unknown variant `Transparent`")
    -- Nobody but the table would tell that these do nothing.
    local metrics = { metrics_path = "/dev/null", emit_id = true }
    fails("unsupported", endpoints.check(VERSION, false, "PUT", "/metrics", metrics))
    must(vm.raw("PUT", "/metrics", metrics))
  end)

  it("with values that can't be are refused by both, and the last that can be by neither", function()
    local world <close> = support.world()
    local vm <close> = bare_vm(world, "vm")
    local guest = must(fcproc.guest_path())
    must(world.manager:ensure_bridge())
    must(world.manager:create_tap("tap0"))
    local function machine(fields)
      local body = { vcpu_count = 1, mem_size_mib = 16 }
      for name, value in pairs(fields) do body[name] = value end
      return { "PUT", "/machine-config", body }
    end
    local function drive(fields)
      local body = { drive_id = "a", is_root_device = false, path_on_host = "/dev/null" }
      for name, value in pairs(fields) do body[name] = value ~= "none" and value or nil end
      return { "PUT", "/drives/a", body }
    end
    local function interface(fields)
      local body = { iface_id = "a", host_dev_name = "tap0" }
      for name, value in pairs(fields) do body[name] = value end
      return { "PUT", "/network-interfaces/a", body }
    end
    local function boot(args)
      return { "PUT", "/boot-source", { kernel_image_path = guest, boot_args = args } }
    end
    local function mmds(fields) return { "PUT", "/mmds/config", fields } end
    local function load(fields)
      fields.snapshot_path = "/nowhere"
      return { "PUT", "/snapshot/load", fields }
    end
    for _, request in ipairs{
      machine{ vcpu_count = 0 }, machine{ vcpu_count = 33 }, machine{ vcpu_count = 3, smt = true },
      machine{ vcpu_count = 1.5 }, machine{ vcpu_count = "1" }, machine{ vcpu_count = -1 },
      machine{ mem_size_mib = 0 }, machine{ mem_size_mib = 17, huge_pages = "2M" },
      machine{ smt = 1 }, machine{ cpu_template = "T3" }, machine{ huge_pages = "1G" },
      { "PUT", "/machine-config", { vcpu_count = 1 } }, { "PATCH", "/machine-config", {} },
      drive{ drive_id = "b" }, drive{ io_engine = "sync" }, drive{ cache_type = "None" },
      drive{ path_on_host = "none" }, drive{ socket = "/x" }, drive{ is_root_device = "none" },
      drive{ rate_limiter = { ops = { size = 1 } } },
      drive{ rate_limiter = { ops = { size = -1, refill_time = 1 } } },
      { "PUT", "/drives/a-b", { drive_id = "a-b", is_root_device = false, path_on_host = "/x" } },
      interface{ guest_mac = "06:00" }, interface{ guest_mac = "06-00-ac-1e-00-02" },
      interface{ host_dev_name = ("t"):rep(16) }, interface{ iface_id = "b" },
      boot(("a"):rep(2048)),
      mmds{ network_interfaces = {} }, mmds{ network_interfaces = { "a" }, version = "V3" },
      mmds{ network_interfaces = { "a" }, ipv4_address = "169.254.0.1" },
      mmds{ network_interfaces = { "a" }, ipv4_address = "10.0.0.1" },
      mmds{ network_interfaces = { "a" }, ipv4_address = "169.254.255.1" },
      load{}, load{ mem_file_path = "/x", mem_backend = { backend_path = "/x",
        backend_type = "File" } }, load{ mem_backend = { backend_path = "/x" } },
      load{ mem_backend = { backend_path = "/x", backend_type = "file" } },
      { "PUT", "/logger", { level = "loud" } }, { "PUT", "/metrics", {} },
      { "PUT", "/vsock", { guest_cid = "3", uds_path = vm.dir .. "/v" } },
      { "PUT", "/vsock", { guest_cid = 2 ^ 32, uds_path = vm.dir .. "/v" } },
      { "PUT", "/balloon", { amount_mib = 0, deflate_on_oom = true,
        stats_polling_interval_s = 65536 } },
      { "PUT", "/actions", { action_type = "Dance" } }, { "PATCH", "/vm", { state = "Running" } },
    } do
      local method, path, body = request[1], request[2], request[3]
      fails("invalid", endpoints.check(VERSION, nil, method, path, body))
      refused_by_the_real_one(vm, method, path, endpoints.encode(method, path, body))
    end
    for _, request in ipairs{
      machine{ vcpu_count = 32 }, machine{ vcpu_count = 3 }, machine{ vcpu_count = 2, smt = true },
      machine{ mem_size_mib = 1 }, machine{ cpu_template = "T2CL" },
      machine{ mem_size_mib = 18, huge_pages = "2M" }, machine{},
      { "PATCH", "/machine-config", { smt = false } },
      drive{ rate_limiter = { ops = { size = math.maxinteger, refill_time = 0 } } },
      drive{ cache_type = "Writeback", is_read_only = true, partuuid = "0eaa91a0-01" },
      interface{ guest_mac = "06:00:AC:1e:00:02" },
      boot(("a"):rep(2047)),
      mmds{ network_interfaces = { "a" }, ipv4_address = "169.254.254.255" },
      mmds{ network_interfaces = { "a" }, ipv4_address = "169.254.1.0", version = "V1" },
      { "PUT", "/logger", { level = "WARN" } },
      { "PUT", "/vsock", { guest_cid = 2 ^ 32 - 1, uds_path = vm.dir .. "/v", vsock_id = "v" } },
      { "PUT", "/balloon", { amount_mib = 1, deflate_on_oom = true,
        stats_polling_interval_s = 65535 } },
      { "PUT", "/cpu-config", { kvm_capabilities = { "!56" }, msr_modifiers = { { addr = "0x10a",
        bitmap = "0b1" } }, cpuid_modifiers = { { leaf = "0x1", subleaf = "0x0", flags = 0,
        modifiers = { { register = "eax", bitmap = "0bx1" } } } } } },
    } do
      local method, path, body = request[1], request[2], request[3]
      must(endpoints.check(VERSION, false, method, path, body))
      must(vm.raw(method, path, endpoints.encode(method, path, body)))
    end
  end)
end)
