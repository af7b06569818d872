-- What a VM is when it runs: the same in both ways to boot, with all the devices of its spec.

local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails

local BUCKET = { size = 1000, refill_time = 100 }

describe("a launched VM", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  it("is what its spec says, the same by file and by API", function()
    local spec = {
      id = "same", vcpus = 2, mem_mib = 32, boot_args = "a=b", track_dirty_pages = true,
      drives = {
        { path = vms.disk(world, "one", "one"), read_only = true, io_engine = "Sync" },
        { path = vms.disk(world, "two", "two"), id = "data", copy = "reflink",
          cache_type = "Writeback" },
        { path = vms.disk(world, "three", "three"), root = true,
          rate_limit = { bandwidth = BUCKET } },
      },
      network = { { address = "172.30.0.10" }, { mac = "02:00:00:00:00:09", tx_limit = { ops = BUCKET } } },
      vsock = { cid = 7 }, balloon = { amount_mib = 4, stats_interval_s = 1 },
      entropy = { rate_limit = { ops = BUCKET } },
      mmds = { data = { instance = { id = 5 } }, version = "V1", address = "169.254.170.2" },
    }
    local seen = {}
    for _, boot in ipairs{ "config_file", "api" } do
      spec.boot, spec.limits = boot, boot == "api" and { no_file = 4096 } or nil
      local vm <close> = vms.ready(world, spec)
      local soft, hard = support.read_file(("/proc/%d/limits"):format(vm:pid())):match(
        "Max open files%s+(%d+)%s+(%d+)")
      assert.are.same(boot == "api" and { "4096", "4096" } or { "2048", "2048" }, { soft, hard })
      local whole = must(vm:api("GET", "/vm/config"))
      table.sort(whole.drives, function(a, b) return a.drive_id < b.drive_id end) -- 1.17: in any order
      table.sort(whole["mmds-config"].network_interfaces)
      table.sort(whole["network-interfaces"], function(a, b) return a.iface_id < b.iface_id end)
      seen[#seen + 1] = whole
      assert.are.same({ instance = { id = 5 } }, must(vm:mmds()))
      must(vm:stop())
    end
    assert.are.same(seen[1], seen[2])
    local config = seen[1]
    assert.are.equal(2, config["machine-config"].vcpu_count)
    assert.are.equal(32, config["machine-config"].mem_size_mib)
    assert.is_true(config["machine-config"].track_dirty_pages)
    assert.are.equal("a=b ip=172.30.0.10::172.30.0.1:255.255.255.0:same:eth0:off",
      config["boot-source"].boot_args)
    local drives = {}
    for _, drive in ipairs(config.drives) do drives[drive.drive_id] = drive end
    assert.is_true(drives.root.is_root_device)
    assert.are.equal(1000, drives.root.rate_limiter.bandwidth.size)
    assert.is_true(drives.drive1.is_read_only)
    assert.are.equal("Writeback", drives.data.cache_type)
    assert.are.equal("02:00:00:00:00:09", config["network-interfaces"][2].guest_mac)
    assert.are.equal(7, config.vsock.guest_cid)
    assert.are.equal(4, config.balloon.amount_mib)
    assert.are.equal(1000, config.entropy.rate_limiter.ops.size)
    assert.are.same({ "eth0", "eth1" }, config["mmds-config"].network_interfaces)
  end)

  it("knows nothing of our environment", function()
    assert.is_truthy(os.getenv("PATH"))
    for _, jailer in ipairs{ false, not support.rootless and { uid = 1234, gid = 2345 } or nil } do
      local vm <close> = must(fcproc.vm.launch(world.manager, { id = "bare", jailer = jailer or nil }))
      assert.are.equal("", support.read_file(("/proc/%d/environ"):format(vm:pid())))
      must(vm:kill())
    end
  end)

  it("of an empty spec is the built-in guest, with 16 MiB and a random id", function()
    local vm <close> = vms.ready(world, {})
    assert.is_truthy(vm.id:find("^vm%-%x%x%x%x%x%x%x%x$"))
    local info = must(vm:info())
    assert.are.same({ "running", 1, 16 }, { info.state, info.vcpus, info.mem_mib })
    assert.are.equal(versions.real(), info.version)
    assert.are.equal(vm:pid(), info.pid)
    assert.is_nil(info.address)
  end)

  it("reads its drives: the root first, else the first; a copy is its own", function()
    local path = vms.disk(world, "disk", "the original")
    do
      local vm <close> = vms.ready(world, { drives = { { path = path, read_only = true } } })
      vms.shows(vm, 'block 0: 128 sectors, starts "the original"')
    end
    do
      local root = vms.disk(world, "root", "the root")
      local vm <close> = vms.ready(world, { drives = { { path = path }, { path = root, root = true } } })
      vms.shows(vm, 'starts "the root"')
      if not support.rootless then -- in his jail it has its own name
        assert.are.equal(path, core.read_link(must(vm:info()).folder .. "/drive-drive1"))
      end
    end
    for _, method in ipairs{ "reflink", "sparse" } do
      local vm <close> = vms.ready(world, { drives = { { path = path, copy = method } } })
      vms.shows(vm, 'starts "the original"')
      local copy = must(vm:info()).files.folder .. "/drive-drive1"
      local stat = must(core.stat(copy))
      assert.are.same({ "file", 384, 65536 }, { stat.type, stat.mode & 511, stat.size })
      support.sh({ "sh", "-c", 'printf changed | dd of="$1" conv=notrunc status=none', "sh", copy })
      assert.are.equal("the original", support.read_file(path):match("^%Z+"))
    end
  end)

  it("has two interfaces, on ports that are isolated unless it says otherwise", function()
    local vm <close> = vms.ready(world, { id = "nets", boot_args = "server_ip=1 -- ip=no",
      network = { { address = "172.30.0.20", mtu = 1400, dns = { "1.1.1.1" } }, { isolated = false },
      { attach = false, address = "10.9.9.9", tap = "alone0" }, { address = false } } })
    assert.is_true(support.pings(world.netns, "172.30.0.20"))
    local links, taps = {}, must(vm:info()).taps
    for _, link in ipairs(support.ip(world.netns, "link")) do links[link.ifname] = link end
    local function port(i) return links[taps[i].name].linkinfo.info_slave_data end
    assert.are.equal(1400, links[taps[1].name].mtu)
    assert.is_true(port(1).isolated)
    assert.is_false(port(2).isolated)
    assert.is_nil(links.alone0.master)
    assert.is_true(port(4).isolated)
    -- What others see of it, and what others do to it, is told.
    local function warnings()
      local found = {}
      for _, warning in ipairs(must(vm:info()).warnings or {}) do found[warning.name] = warning end
      return found
    end
    local told = warnings()
    assert.is_nil(told.tap)
    assert.is_truthy(told.mtu.message:find("lowered that of the bridge fcbr0 from 1500 to 1400", 1, true))
    support.ip(world.netns, "link", "set", taps[1].name, "nomaster")
    support.ip(world.netns, "link", "set", taps[2].name, "down")
    support.ip(world.netns, "link", "set", "alone0", "down")
    local tap = warnings().tap
    assert.are.equal(("%s of nets is off the bridge, %s of nets is down, alone0 of nets is down: such a "
      .. "guest reaches nobody"):format(taps[1].name, taps[2].name), tap.message)
    assert.are.equal(("ip link set %s master fcbr0 up; ip link set %s master fcbr0 up; ip link set alone0 up")
      :format(taps[1].name, taps[2].name), tap.fix)
    for command in tap.fix:gmatch("[^;]+") do support.sh({ "sh", "-c", command }, { netns = world.netns }) end
    assert.is_nil(warnings().tap)
    support.ip(world.netns, "link", "delete", "fcbr0")
    assert.is_truthy(warnings().tap.message:find(taps[1].name .. " of nets is off the bridge", 1, true))
    assert.are.equal("172.30.0.20", must(vm:info()).address)
    assert.are.equal("10.9.9.9", taps[3].address)
    assert.is_nil(taps[4].address)
    vms.shows(vm, "ip 172.30.0.20", "device net at",
      "server_ip=1 ip=172.30.0.20::172.30.0.1:255.255.255.0:nets:eth0:off:1.1.1.1"
      .. versions.added_args() .. " virtio_mmio.device=4K@", " -- ip=no")
    assert.is_true(taps[1].told)
    assert.is_nil(taps[2].told or taps[3].told)
    assert.are_not.equal(taps[1].address, taps[2].address)
    assert.are.equal(4, #support.collect(vms.console(vm), "device net at"))
  end)

  it("has a vsock socket, born private, in its folder", function()
    local vm <close> = vms.ready(world, { vsock = { cid = 3 } })
    local stat = must(core.stat(must(vm:info()).files.folder .. "/vsock.sock"))
    assert.are.same({ "socket", 384 }, { stat.type, stat.mode & 511 })
    vms.shows(vm, "device type 19")
  end)

  it("has entropy without a limit, and metadata that comes later", function()
    local vm <close> = vms.ready(world, { entropy = true, network = true, mmds = {} })
    vms.shows(vm, "device type 4 at")
    must(vm:mmds{ late = { yes = true } })
    assert.are.same({ late = { yes = true } }, (must(vm:mmds())))
    must(vm:api("PATCH", "/mmds", { more = 1 }))
    assert.are.same({ late = { yes = true }, more = 1 }, (must(vm:mmds())))
  end)

  it("has a balloon to be asked", function()
    local vm <close> = vms.ready(world, { balloon = { amount_mib = 1 } })
    assert.are.equal(1, must(vm:balloon()).amount_mib)
    local err = fails("api", vm:balloon(2)) -- this guest has no driver for it
    assert.are.equal(400, err.status)
    assert.is_truthy(err.message:find("Device not activated", 1, true), err.message)
  end)

  it("without a balloon says so", function()
    local vm <close> = vms.ready(world, {})
    assert.are.equal(400, fails("api", vm:balloon()).status)
  end)

  it("tells its metrics", function()
    local vm <close> = vms.ready(world, { network = true })
    assert.is_true(support.pings(world.netns, vm:address()))
    local first = must(vm:metrics())
    assert.is_true(first.net.tx_packets_count > 0)
    assert.is_true(must(vm:metrics()).utc_timestamp_ms >= first.utc_timestamp_ms)
  end)

  it("is paused and resumed, any number of times", function()
    local vm <close> = vms.ready(world, { network = true })
    for _ = 1, 2 do
      assert.is_true(must(vm:pause()))
      assert.is_true(must(vm:pause()))
      assert.are.equal("paused", must(vm:info()).state)
      assert.is_true(must(vm:resume()))
      assert.is_true(must(vm:resume()))
      assert.are.equal("running", must(vm:info()).state)
    end
    assert.is_true(support.pings(world.netns, vm:address()))
  end)

  it("that can't start says why, and nothing is left of it", function()
    local elf = world.folder:file("elf")
    support.write_file(elf, "\127ELF" .. ("\0"):rep(2000))
    for boot, text in pairs{ config_file = "Cannot load kernel", api = "kernel" } do
      local err = fails(boot == "api" and "api" or "exit_status",
        fcproc.vm.launch(world.manager, { id = "bad", kernel = elf, boot = boot }))
      assert.are.equal("start", err.step)
      assert.is_truthy(err.message:find(text, 1, true), err.message)
      assert.is_truthy(err.output:find("Running Firecracker", 1, true))
      vms.nothing_left(world)
    end
    local err = fails("exit_status", fcproc.vm.launch(world.manager, { arguments = { "--nonsense" } }))
    assert.are.equal(153, err.status)
    assert.is_truthy(err.message:find("bad arguments", 1, true))
    err = fails("exit_status", fcproc.vm.launch(world.manager, { seccomp = elf }))
    assert.are.equal(1, err.status)
  end)

  it("starts at every log level, without seccomp, and with Firecracker's own arguments", function()
    for _, level in ipairs{ "Off", "Error", "Warning", "Info", "Debug" } do
      local vm <close> = vms.ready(world, { log_level = level })
      local log = support.read_file(must(vm:info()).files.log)
      assert.are.equal(level == "Info" or level == "Debug",
        log:find("Running Firecracker", 1, true) ~= nil)
    end
    local vm <close> = vms.ready(world, { seccomp = false, arguments = { "--show-level" } })
    local status = support.read_file(("/proc/%d/status"):format(vm:pid()))
    assert.are.equal("0", status:match("Seccomp:%s+(%d)"))
  end)
end)

describe("a VM with NAT on a host that does not forward", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("runs, and is told what keeps it in and what mends that; nothing is switched on", function()
    local told, flushed = {}, nil
    local world <close> = support.bridged_world{ logger = function(level, message, fields)
      if level == "warn" then told[#told + 1] = message end
      if message == "connections flushed" then flushed = fields end
    end }
    local netns = world.netns
    support.sh({ "ip", "link", "add", "up0", "type", "veth", "peer", "name", "far0" }, { netns = netns })
    support.sh({ "ip", "addr", "add", "10.9.9.1/24", "dev", "up0" }, { netns = netns })
    support.sh({ "ip", "link", "set", "up0", "up" }, { netns = netns })
    support.sh({ "ip", "link", "set", "far0", "up" }, { netns = netns })
    support.sh({ "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward" }, { netns = netns })
    local vm <close> = must(fcproc.vm.launch(world.manager, { network = { nat = "up0" } }))
    local warnings = must(vm:info()).warnings
    assert.are.equal(1, #warnings)
    assert.are.equal("ip_forward", warnings[1].name)
    assert.are.same({ warnings[1].message }, told)
    assert.is_truthy(warnings[1].fix:find("ip_forward", 1, true))
    assert.are.equal("0\n", support.sh({ "cat", "/proc/sys/net/ipv4/ip_forward" }, { netns = netns }))
    -- What the kernel remembers of it goes with it.
    must(must(vm:console()):wait_for("ready", 10))
    local address = must(vm:info()).address
    assert.is_true(support.pings(netns, address))
    must(vm:stop())
    assert.are.same({ address, 1 }, { flushed.first, flushed.count })
  end)
end)
