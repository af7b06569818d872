-- The checks in front of a request: codes, words, places, versions; and what goes with a request:
-- its limit and its text. What the real Firecracker says to the same is in firecracker/calls_spec.

local support = require "spec.support"
local bodies = require "fcproc.machine.bodies"
local endpoints = require "fcproc.machine.endpoints"
local json = require "fcproc.json"

local must, fails = support.must, support.fails

local BACK_PORTED = { "1.14.4", "1.15.1", "1.16" }

-- The body of such a call, correct but for more.
local good = {
  ["/boot-source"] = { kernel_image_path = "/k" },
  ["/machine-config"] = { vcpu_count = 1, mem_size_mib = 16 },
  ["/drives/a"] = { drive_id = "a", is_root_device = false, path_on_host = "/d" },
  ["/pmem/a"] = { id = "a", path_on_host = "/d" },
  ["/network-interfaces/a"] = { iface_id = "a", host_dev_name = "t" },
  ["/balloon"] = { amount_mib = 0, deflate_on_oom = true },
  ["/snapshot/load"] = { snapshot_path = "/s", mem_backend = { backend_path = "/m",
    backend_type = "File" } },
  ["/mmds/config"] = { network_interfaces = { "a" } },
  ["/metrics"] = { metrics_path = "/m" },
  ["/serial"] = {}, ["/entropy"] = {}, ["/cpu-config"] = {}, ["/logger"] = {},
  ["/hotplug/memory"] = { total_size_mib = 1024 },
}

local function put(version, path, more, started)
  local body = {}
  for name, value in pairs(good[path]) do body[name] = value end
  for name, value in pairs(more or {}) do body[name] = value end
  return endpoints.check(version, started, "PUT", path, body)
end

local function says(code, text, ok, err)
  local message = fails(code, ok, err).message
  assert.is_truthy(message:find(text, 1, true), message)
end

describe("a version", function()
  it("is compared by its numbers", function()
    for _, case in ipairs{
      { "1.12.1", "1.12", true }, { "1.12.1", "1.12.1", true }, { "1.12.1", "1.12.2", false },
      { "1.12.1", "1.13", false }, { "1.9.0", "1.12", false }, { "1.14.0", "1.12", true },
      { "2.0", "1.17", true }, { "v1.14.0", "1.14", true }, { "1.17.0-dev", "1.17", true },
      { "1.12.1", nil, true }, { nil, "1.12", nil }, { "trunk", "1.12", nil }, { nil, nil, true },
      { "1.14.3", BACK_PORTED, false }, { "1.14.4", BACK_PORTED, true }, { "1.14.9", BACK_PORTED, true },
      { "1.15.0", BACK_PORTED, false }, { "1.15.1", BACK_PORTED, true }, { "1.16.0", BACK_PORTED, true },
      { "1.13.9", BACK_PORTED, false }, { "1.17.0-dev", BACK_PORTED, true }, { nil, BACK_PORTED, nil },
    } do
      assert.are.equal(case[3], endpoints.at_least(case[1], case[2]))
    end
  end)

  it("has its snapshot format", function()
    for version, format in pairs{ ["1.11.0"] = "5.0.0", ["1.12.1"] = "6.0.0",
      ["1.13.2"] = "8.0.0", ["1.14.0"] = "8.0.0", ["1.15.1"] = "9.0.0", ["1.16.1"] = "10.0.0" } do
      assert.are.equal(format, endpoints.snapshot_format(version))
    end
    for _, version in ipairs{ "1.9.0", "1.17.0-dev", "1.99.0", "2.12.0", "trunk" } do
      says("unsupported", "--snapshot-version", endpoints.snapshot_format(version))
    end
  end)
end)

describe("a check", function()
  it("names the version that brought an endpoint", function()
    for _, case in ipairs{
      { "PUT", "/serial", "1.14" }, { "PUT", "/pmem/a", "1.14" }, { "GET", "/hotplug/memory", "1.14" },
      { "PATCH", "/balloon/hinting/start", "1.14" }, { "PATCH", "/pmem/a", "1.16" },
      { "DELETE", "/drives/a", "1.16" }, { "DELETE", "/network-interfaces/a", "1.16" },
    } do
      local err = fails("unsupported", endpoints.check("1.12.1", nil, case[1], case[2]))
      assert.are.equal(("%s %s needs Firecracker >= %s, this is 1.12.1"):format(case[1], case[2],
        case[3]), err.message)
    end
    must(put("1.14.0", "/serial"))
    must(endpoints.check("1.16.0", true, "DELETE", "/drives/a"))
  end)

  it("knows a field by its back-ports, too, and names them", function()
    for version, known in pairs{ ["1.12.1"] = false, ["1.14.3"] = false, ["1.14.4"] = true,
      ["1.15.0"] = false, ["1.15.1"] = true, ["1.16.0"] = true, ["1.17.0-dev"] = true } do
      local ok, err = put(version, "/snapshot/load", { clock_realtime = true })
      assert.are.equal(known, ok == true, version)
      assert.are.equal(not known and "snapshot/load.clock_realtime needs Firecracker >= 1.16 (or 1.14.4, "
        .. "1.15.1), this is " .. version or nil, err and err.message)
    end
  end)

  it("names the version that brought a field or a value", function()
    for _, case in ipairs{
      { "/network-interfaces/a", "network-interfaces.mtu", 1500, "1.16" },
      { "/mmds/config", "mmds/config.imds_compat", true, "1.13" },
      { "/balloon", "balloon.free_page_hinting", true, "1.14" },
      { "/balloon", "balloon.free_page_reporting", true, "1.14" },
      { "/pmem/a", "pmem.rate_limiter", {}, "1.16" },
      { "/serial", "serial.rate_limiter", { size = 1, refill_time = 1 }, "1.16" },
      { "/snapshot/load", "snapshot/load.track_dirty_pages", true, "1.13" },
      { "/snapshot/load", "snapshot/load.vsock_override", { uds_path = "/v" }, "1.16" },
      { "/snapshot/load", "snapshot/load.huge_pages", "None", "1.17" },
      { "/metrics", "metrics.emit_id", true, "1.17" },
      { "/metrics", "metrics.properties", { a = "b" }, "1.17" },
      { "/machine-config", "machine-config.huge_pages", "Transparent", "1.17",
        "machine-config.huge_pages = Transparent" },
    } do
      local path, place, value, since = case[1], case[2], case[3], case[4]
      local field = place:match("[^.]+$")
      local before = ("1.%d.9"):format(tonumber(since:match("%.(%d+)")) - 1)
      -- The endpoint itself may be as new.
      if not (path == "/serial" or path == "/pmem/a") or before >= "1.14" then
        local err = fails("unsupported", put(before, path, { [field] = value }))
        assert.are.equal(("%s needs Firecracker >= %s, this is %s"):format(case[5] or place, since,
          before), err.message)
      end
      for _, version in ipairs{ since .. ".0", "1.18.0", "2.0.0" } do
        must(put(version, path, { [field] = value }))
      end
      must(put(nil, path, { [field] = value })) -- not known, not judged by
      must(put("a fork", path, { [field] = value }))
    end
  end)

  it("leaves to a later Firecracker what it does not know itself", function()
    must(endpoints.check("1.18.0", true, "PUT", "/teleport", { anywhere = true }))
    must(endpoints.check("1.18.0", true, "POST", "/vm", "x"))
    must(put("1.18.0", "/entropy", { quality = "good" }))
    must(endpoints.check("1.18.0", true, "PUT", "/actions", { action_type = "Dance" }))
    must(put("1.18.0", "/drives/a", { io_engine = "Magic" }))
    says("invalid", "must be true or false", put("1.18.0", "/drives/a",
      { is_root_device = 1 }))
    says("invalid", "unknown field", put("1.17.3", "/entropy", { quality = "good" }))
    says("invalid", "no such endpoint", endpoints.check(nil, true, "PUT", "/teleport", {}))
  end)

  it("knows what works before boot, after it, and while paused", function()
    says("conflict", "PUT /boot-source works before boot only; this VM has started",
      put("1.12.1", "/boot-source", nil, true))
    says("conflict", "PATCH /vm works after boot only; this VM has not started",
      endpoints.check("1.12.1", false, "PATCH", "/vm", { state = "Paused" }))
    for action, started in pairs{ InstanceStart = true, FlushMetrics = false,
      SendCtrlAltDel = false } do
      local body = { action_type = action }
      says("conflict", action .. " works", endpoints.check("1.12.1", started, "PUT", "/actions", body))
      must(endpoints.check("1.12.1", not started, "PUT", "/actions", body))
      must(endpoints.check("1.12.1", nil, "PUT", "/actions", body))
    end
    says("unsupported", "PUT /drives/a after boot needs Firecracker >= 1.16, this is 1.15.0",
      put("1.15.0", "/drives/a", nil, true))
    must(put("1.16.0", "/drives/a", nil, true))
    must(put(nil, "/drives/a", nil, true))
    -- The words of GET / do as well.
    local files = { snapshot_path = "/s", mem_file_path = "/m" }
    for state, code in pairs{ ["Not started"] = "conflict", Running = "conflict", Paused = false } do
      local ok, err = endpoints.check("1.12.1", state, "PUT", "/snapshot/create", files)
      if code then fails(code, ok, err) else must(ok, err) end
    end
    must(endpoints.check("1.12.1", true, "PUT", "/snapshot/create", files))
  end)

  it("says which endpoint, method or field may be meant", function()
    for _, case in ipairs{
      { "PUT", "/drive/a", "did you mean /drives/{id}?" },
      { "PUT", "/machine_config", "did you mean /machine-config?" },
      { "PUT", "/snapshot/laod", "did you mean /snapshot/load?" },
      { "PUT", "/drives/a-b", "an id must be letters, digits and underscores" },
      { "DELETE", "/drives/{id}", "an id must be" },
      { "PUT", "/drives/", "no such endpoint" }, { "PUT", "/drives", "no such endpoint" },
      { "GET", "version", "did you mean /version?" }, { "GET", "", "no such endpoint" },
      { "GET", "/vsock", "there is no such method here; known: PUT" },
      { "POST", "/machine-config", "known: GET, PATCH, PUT" },
      { "get", "/version", "known: GET" },
      { "GET", ("x"):rep(100000), "no such endpoint" },
    } do
      says("invalid", case[3], endpoints.check("1.16.0", nil, case[1], case[2], {}))
    end
    says("invalid", "drives.rate_limiter.bandwidth: unknown field 'siez'; did you mean 'size'?; "
      .. "known: one_time_burst, refill_time, size", put("1.12.1", "/drives/a",
      { rate_limiter = { bandwidth = { siez = 1 } } }))
    says("invalid", "unknown field 'zzzzzzzz'; known: ", put("1.12.1", "/entropy", { zzzzzzzz = 1 }))
    says("invalid", "unknown field '1'", put("1.12.1", "/entropy", { "x" }))
  end)

  it("names the place of what can't be", function()
    for _, case in ipairs{
      { "/machine-config", { vcpu_count = 33 },
        "machine-config.vcpu_count must be an integer from 1 to 32, not 33" },
      { "/machine-config", { vcpu_count = "2" }, "vcpu_count must be an integer, not a string" },
      { "/machine-config", { vcpu_count = 1.5 }, "not 1.5" },
      { "/machine-config", { vcpu_count = 0 / 0 }, "must be an integer from 1" },
      { "/machine-config", { vcpu_count = 3, smt = true }, "with smt vcpu_count must be 1 or even, not 3" },
      { "/machine-config", { mem_size_mib = 0 }, "must be an integer of 1 or more, not 0" },
      { "/machine-config", { mem_size_mib = 17, huge_pages = "2M" }, "must be even, not 17" },
      { "/machine-config", { mem_size_mib = json.null }, "mem_size_mib is missing" },
      { "/network-interfaces/a", { host_dev_name = ("t"):rep(16) }, "has 16 bytes, and at most 15 work" },
      { "/network-interfaces/a", { mtu = 67 }, "from 68 to 65535, not 67" },
      { "/network-interfaces/a", { mtu = 65536 }, "from 68 to 65535" },
      { "/network-interfaces/a", { guest_mac = "06:00" }, "six pairs of hex digits" },
      { "/boot-source", { boot_args = ("a"):rep(2048) }, "has 2048 bytes, and at most 2047 work" },
      { "/boot-source", { kernel_image_path = "" }, "must not be empty" },
      { "/boot-source", { kernel_image_path = "/a\0b" }, "NUL" },
      { "/boot-source", { boot_args = "\xff" }, "is not UTF-8" },
      { "/boot-source", { boot_args = true }, "boot_args must be a string, not a boolean" },
      { "/drives/a", { drive_id = "b" }, "drives.drive_id is 'b', and must be the path's 'a'" },
      { "/drives/a", { io_engine = "sync" }, "must be one of Async, Sync, not 'sync'" },
      { "/drives/a", { path_on_host = json.null }, "needs path_on_host, or socket" },
      { "/drives/a", { socket = "/s" }, "both socket and path_on_host" },
      { "/drives/a", { rate_limiter = { ops = { size = -1, refill_time = 1 } } },
        "drives.rate_limiter.ops.size must be an integer of 0 or more, not -1" },
      { "/drives/a", { rate_limiter = { ops = { size = 1 } } },
        "drives.rate_limiter.ops.refill_time is missing" },
      { "/drives/a", { rate_limiter = 7 }, "drives.rate_limiter must be a table, not a number" },
      { "/mmds/config", { network_interfaces = {} }, "must not be empty" },
      { "/mmds/config", { network_interfaces = "a" }, "must be a list, not a string" },
      { "/mmds/config", { network_interfaces = { a = "a" } }, "must be a list: it has the key a" },
      { "/mmds/config", { network_interfaces = { "a", 7 } }, "network_interfaces[2] must be a string" },
      { "/mmds/config", { ipv4_address = "169.254.0.1" }, "link-local" },
      { "/snapshot/load", { mem_backend = json.null }, "needs mem_backend" },
      { "/snapshot/load", { mem_file_path = "/m" }, "leave out mem_file_path" },
      { "/snapshot/load", { huge_pages = "2M" }, "the backend Uffd only" },
      { "/snapshot/load", { network_overrides = { { iface_id = "a" } } },
        "network_overrides[1].host_dev_name is missing" },
      { "/snapshot/load", { vsock_override = {} }, "vsock_override.uds_path is missing" },
      { "/hotplug/memory", { total_size_mib = 1000 }, "multiple of slot_size_mib (128)" },
      { "/hotplug/memory", { total_size_mib = 0 }, "multiple of slot_size_mib" },
      { "/hotplug/memory", { total_size_mib = 1 << 32 }, "from 0 to 4294967295, not 4294967296" },
      { "/metrics", { properties = { a = 1 } }, "metrics.properties.a must be a string, not a number" },
      { "/metrics", { properties = { "a" } }, "metrics.properties must be a table with names" },
      { "/hotplug/memory", { block_size_mib = 3 }, "power of two" },
      { "/hotplug/memory", { block_size_mib = 1 }, "of 2 or more" },
      { "/hotplug/memory", { slot_size_mib = 130, block_size_mib = 4.0 }, "multiple of block_size_mib (4)" },
      { "/cpu-config", { cpuid_modifiers = { { leaf = "1", subleaf = "0", flags = 0,
        modifiers = { { register = "rax", bitmap = "0b1" } } } } },
        "cpu-config.cpuid_modifiers[1].modifiers[1].register must be one of eax" },
    } do
      says("invalid", case[3], put("1.17.0", case[1], case[2]))
    end
    says("invalid", "an update must change something",
      endpoints.check("1.12.1", false, "PATCH", "/machine-config", {}))
  end)

  it("lets a null stand for nothing where nothing may stand", function()
    must(put("1.12.1", "/drives/a", { rate_limiter = json.null, mtu = json.null, socket = json.null }))
    must(put("1.12.1", "/machine-config", { smt = json.null, vcpu_count = 3 }))
  end)

  it("lets deprecated fields pass", function()
    must(endpoints.check("1.16.0", false, "PUT", "/snapshot/load", { snapshot_path = "/s",
      mem_file_path = "/m", enable_diff_snapshots = true }))
    must(endpoints.check("1.16.0", false, "PUT", "/vsock", { guest_cid = 3, uds_path = "/v",
      vsock_id = "v" }))
    must(put("1.16.0", "/machine-config", { cpu_template = "T2" }))
  end)

  it("wants a body where there is one, and only there", function()
    says("invalid", "PUT /vsock needs a body", endpoints.check("1.12.1", false, "PUT", "/vsock"))
    says("invalid", "GET /vm/config takes no body",
      endpoints.check("1.12.1", false, "GET", "/vm/config", {}))
    says("invalid", "vsock must be a table, not a number",
      endpoints.check("1.12.1", false, "PUT", "/vsock", 7))
    must(endpoints.check("1.14.0", true, "PATCH", "/balloon/hinting/start"))
    must(endpoints.check("1.14.0", true, "PATCH", "/balloon/hinting/start",
      { acknowledge_on_stop = true }))
    must(endpoints.check("1.14.0", true, "PATCH", "/balloon/hinting/stop"))
  end)

  it("reads a body that is text", function()
    must(endpoints.check("1.12.1", true, "PATCH", "/vm", '{"state": "Paused"}'))
    says("invalid", "vm.state must be one of Paused, Resumed, not 'Stopped'",
      endpoints.check("1.12.1", true, "PATCH", "/vm", '{"state": "Stopped"}'))
    says("invalid", "the body is no JSON", endpoints.check("1.12.1", true, "PATCH", "/vm", "{"))
    for _, text in ipairs{ "null", "7", '"x"', "" } do
      fails("invalid", endpoints.check("1.12.1", true, "PATCH", "/vm", text))
    end
  end)

  it("raises for what is no method or path", function()
    support.raises("method must be a string, not a nil", endpoints.check, "1.12.1", nil, nil, "/")
    support.raises("path must be a string, not a table", endpoints.check, "1.12.1", nil, "GET", {})
  end)

  it("of free data wants only that JSON has it", function()
    local function mmds(data) return endpoints.check("1.12.1", true, "PUT", "/mmds", data) end
    must(mmds{})
    must(mmds{ a = { 1, "x", { b = json.null } }, c = 0.5, d = false })
    local loop = {}
    loop.again = loop
    for text, data in pairs{
      ["mmds.a[2] is a function"] = { a = { 1, print } }, ["a table with names"] = { 1, 2 },
      ["mmds.a is neither a list nor an object: it has the key"] = { a = { [1] = 1, x = 2 } },
      ["mmds.b is no number"] = { b = 1 / 0 }, ["mmds.c is not UTF-8"] = { c = "\xff" },
      ["holds itself"] = loop, ["has the key 3"] = { d = { [3] = 1 } },
    } do
      says("invalid", text, mmds(data))
    end
  end)
end)

describe("a configuration", function()
  local function config(more)
    local whole = { ["boot-source"] = { kernel_image_path = "/k" }, drives = {} }
    for name, value in pairs(more) do whole[name] = value end
    return whole
  end

  it("is checked wholly, and the place is named", function()
    must(endpoints.check_config("1.12.1", config{}))
    must(endpoints.check_config("1.12.1", config{ ["cpu-config"] = "/template.json",
      logger = json.null, balloon = { amount_mib = 128, deflate_on_oom = true } }))
    must(endpoints.check_config("1.14.0", config{ ["cpu-config"] = {}, pmem = { good["/pmem/a"] },
      ["memory-hotplug"] = { total_size_mib = 128 } }))
    local drive = { drive_id = "b", is_root_device = false, path_on_host = "/d" }
    for _, case in ipairs{
      { "unsupported", { pmem = {} }, "pmem needs Firecracker >= 1.14, this is 1.12.1" },
      { "unsupported", { ["cpu-config"] = {} }, "cpu-config as a table needs Firecracker >= 1.13" },
      { "unsupported", { serial = {} }, "send PUT /serial before the start" },
      { "unsupported", { ["network-interfaces"] = { { iface_id = "a", host_dev_name = "t",
        mtu = 9000 } } }, "network-interfaces[1].mtu needs Firecracker >= 1.16, this is 1.12.1" },
      { "invalid", { drives = { drive, { drive_id = "c", is_root_device = false, path_on_host = "/d",
        rate_limiter = { bandwidth = {} } } } },
        "drives[2].rate_limiter.bandwidth.refill_time is missing" },
      { "invalid", { drives = json.null }, "drives is missing" },
      { "invalid", { ["boot-source"] = {} }, "boot-source.kernel_image_path is missing" },
      { "invalid", { ["machine-config"] = { vcpu_count = 3, mem_size_mib = 16, smt = true } },
        "machine-config: with smt" },
      { "invalid", { balloon = { amount_mib = 129, deflate_on_oom = true } },
        "the configuration: balloon.amount_mib is 129, and the VM has 128 MiB" },
      { "invalid", { drivs = {} }, "the configuration: unknown field 'drivs'; did you mean 'drives'?" },
      { "invalid", { ["cpu-config"] = 7 }, "cpu-config must be a string or a table" },
    } do
      says(case[1], case[3], endpoints.check_config("1.12.1", config(case[2])))
    end
    must(endpoints.check_config("1.18.0", config{ serial = {} }))
    local long = fails("invalid", endpoints.check_config("1.12.1", config{ [("x"):rep(1e6)] = 1 }))
    assert.is_true(#long.message < 1000)
    says("invalid", "the configuration must be a table", endpoints.check_config("1.12.1", "x"))
  end)

  it("is written with its empty lists as lists", function()
    assert.are.equal('{"boot-source":{"kernel_image_path":"\\/k"},"drives":[],"entropy":{},'
      .. '"network-interfaces":[]}', endpoints.encode_config(config{ ["network-interfaces"] = {},
      entropy = {}, vsock = json.null }))
  end)
end)

describe("what goes with a request", function()
  it("is a limit", function()
    for _, case in ipairs{ { "PUT", "/snapshot/create", 300 }, { "PUT", "/snapshot/load", 300 },
      { "PUT", "/actions", 30 }, { "PATCH", "/vm", 35 }, { "GET", "/", 10 },
      { "PUT", "/drives/a", 10 }, { "PUT", "/elsewhere", 10 } } do
      assert.are.equal(case[3], endpoints.limit(case[1], case[2]))
    end
  end)

  it("is a text, always the same for the same table", function()
    local function text(path, body) return endpoints.encode("PUT", path, body) end
    assert.are.equal("{}", text("/entropy", {}))
    assert.are.equal('{"a":{},"b":[1,2],"c":null}', text("/mmds", { a = {}, b = { 1, 2 },
      c = json.null }))
    assert.are.equal('{"kvm_capabilities":[],"msr_modifiers":[]}', text("/cpu-config",
      { kvm_capabilities = {}, msr_modifiers = {} }))
    assert.are.equal('{"rate_limiter":{"ops":{"refill_time":100,"size":9223372036854775807}}}',
      text("/drives/a", { rate_limiter = { ops = { size = math.maxinteger, refill_time = 100.0 } },
        socket = json.null }))
    assert.are.equal('{"network_overrides":[]}', text("/snapshot/load", { network_overrides = {} }))
    assert.are.equal('{"a":0.5,"b":"\\"\\n"}', text("/elsewhere", { b = '"\n', a = 0.5 }))
    assert.are.equal("as it is", text("/vm", "as it is"))
    assert.is_nil(text("/vm", nil))
  end)
end)

describe("the table", function()
  local function walk(type, place, visit)
    visit(type, place)
    for name, field in pairs(type.fields or {}) do walk(field, place .. "." .. name, visit) end
    for _, part in ipairs{ "of", "string", "table" } do
      if type[part] then walk(type[part], place, visit) end
    end
  end

  it("is well made: every type is judged, every version is one", function()
    local kinds = { string = 1, boolean = 1, integer = 1, object = 1, list = 1, map = 1, either = 1 }
    for name, body in pairs(bodies) do
      walk(body, name, function(type, place)
        assert.is_truthy(kinds[type.kind], place)
        local since = type.since
        local brought = _G.type(since) == "table" and since[#since] or since
        assert.is_true(brought == nil or brought:find("^1%.1[2-7]$") ~= nil, place)
        assert.is_true(type.kind ~= "integer" or math.type(type.min) == "integer", place)
      end)
    end
    local seen = {}
    for _, entry in ipairs(endpoints.list) do
      local name = entry.method .. " " .. entry.path
      assert.is_nil(seen[name], name .. " is there twice")
      seen[name] = true
      assert.is_truthy(entry.before or entry.after, name)
      assert.are.equal(entry.path:find("{id}", 1, true) ~= nil and entry.body ~= nil,
        entry.id ~= nil, name)
      assert.is_true(not entry.id or entry.body.fields[entry.id].required, name)
    end
    assert.are.equal(41, #endpoints.list)
  end)
end)
