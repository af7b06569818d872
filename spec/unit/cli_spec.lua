-- The fcproc command, as far as it needs no VM.

local cjson = require "cjson"
local cli = require "spec.support.cli"
local fcconfig = require "fcproc.cli.fcconfig"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local flags = require "fcproc.cli.flags"
local json = require "fcproc.json"
local output = require "fcproc.cli.output"
local process = require "fcproc.process"
local support = require "spec.support"
local upkeep = require "fcproc.resources.upkeep"
local fcproc = require "fcproc"

local function contains(text, wanted)
  assert.is_truthy(text:find(wanted, 1, true), ("'%s' in:\n%s"):format(wanted, text))
end

describe("the fcproc command without a VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("tells its version and its use in the ways in which others are asked", function()
    local world <close> = cli.world()
    assert.are.equal("fcproc " .. fcproc.VERSION .. "\n", cli.ok(world, "--version"))
    assert.are.equal(cli.ok(world, "--help"), cli.ok(world, "help"))
    assert.are.equal(cli.ok(world, "net", "up", "--help"), cli.ok(world, "help", "net", "up"))
    assert.are.equal(cli.ok(world, "console", "--help"), cli.ok(world, "help", "logs"))
    local out, err = cli.fails(world, 2, "--json", "help", "rnu")
    contains(err, "there is no command 'rnu'")
    assert.are.equal("invalid", cjson.decode(out).error.code)
  end)

  it("names its own option where its version looks for Firecracker in vain", function()
    local world <close> = cli.world()
    local done = cli.run(world, { "version" }, { env = { FCPROC_FIRECRACKER = "/no/firecracker" } })
    contains(done.err, "; install firecracker or set --firecracker")
  end)

  it("advises no function of Lua where it has a command", function()
    for library, command in pairs{
      [select(2, upkeep.explain({}))] = "fcproc net up puts them back",
      ["x (busy): fcproc.vm.reclaim removes what is left of r"] =
        "x (busy): fcproc reclaim removes what is left of r",
    } do
      assert.are.equal(command, flags.say(library))
    end
  end)

  it("ends VMs that are named, or all, and not just any", function()
    local world <close> = cli.world()
    for _, command in ipairs{ "stop", "kill" } do
      contains(select(2, cli.fails(world, 2, command)), command .. ": name VMs, or say --all")
      contains(select(2, cli.fails(world, 2, command, "a", "--all")), "not both")
      assert.are.equal("", cli.ok(world, command, "--all"))
    end
    cli.fails(world, 2, "wait")
  end)

  it("says so when stdin can't be read", function()
    local world <close> = cli.world()
    for _, words in ipairs{ { "run", "--spec", "-" }, { "mmds", "vm", "-" },
      { "api", "vm", "PUT", "/actions", "-" } } do
      local done = cli.run(world, words, { before = { "sh", "-c", 'exec "$@" </', "sh" } })
      contains(done.err, "stdin can't be read: Is a directory")
      assert.are.equal(2, done.status)
    end
  end)

  -- What they are told of the VM, and that its process can't be opened, is made up.
  it("does not take a VM for ended whose process it can't look at", function()
    local world <close> = cli.world()
    local commands, consoles = require "fcproc.cli.vms", require "fcproc.cli.console"
    local facts, open = fcproc.vm.facts, process.open
    local _ <close> = finally(function() fcproc.vm.facts, process.open = facts, open end)
    fcproc.vm.facts = function()
      return { id = "vm", state = "running", console = world.folder:file("console"), identity = { pid = 1 } }
    end
    process.open = function()
      return nil, errors.new{ code = "system", op = "spec", errno = 24, message = "too many open files" }
    end
    support.write_file(world.folder:file("console"), "")
    local said <close> = assert(io.open(world.folder:file("said"), "w"))
    local to = output.new(said, said)
    local asked = { args = { ids = { "vm" }, id = "vm", follow = true }, output = to,
      manager = { config = { without = 0 } } }
    assert.are.equal(1, commands.wait(asked))
    said:flush()
    contains(support.read_file(world.folder:file("said")), "too many open files")
    support.fails("system", consoles.console(asked))
  end)
end)

describe("a mistake in JSON", function()
  it("has the line and the column", function()
    for text, place in pairs{
      ["{"] = "line 1, column 2: expected", ["[1,\n  2,\n  x]"] = "line 3, column 3: ",
      ["\n\n"] = "line 3, column 1: ", ['{"a":1}\n}'] = "line 2, column 1: ",
    } do
      local value, complaint = json.read(text)
      assert.is_nil(value)
      contains(complaint, place)
    end
    assert.are.equal(false, (json.read("false")))
  end)
end)

describe("a Firecracker configuration as a spec", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function spec_of(text)
    return fcconfig.spec(json.plain((json.read(text))))
  end

  it("says all that a spec has a place for, and with an old version's names", function()
    local spec, notes = spec_of[[{
      "boot-source": { "kernel_image_path": "k", "initrd_path": null, "boot_args": "ip=172.30.0.9::x a" },
      "machine-config": { "vcpu_count": 2, "mem_size_mib": 64, "ht_enabled": false, "cpu_template": "T2" },
      "drives": [ { "drive_id": "rootfs", "path_on_host": "r", "is_root_device": true,
        "is_read_only": false, "partuuid": null, "rate_limiter": null, "io_engine": "Sync" } ],
      "network-interfaces": [ { "iface_id": "eth0", "host_dev_name": "tap0",
        "guest_mac": "06:00:00:00:00:09", "rx_rate_limiter": { "ops": { "size": 1, "refill_time": 1 } } } ],
      "vsock": { "guest_cid": 3, "uds_path": "v.sock", "vsock_id": "1" },
      "balloon": { "amount_mib": 1, "deflate_on_oom": true, "stats_polling_interval_s": 2 },
      "entropy": {}, "mmds-config": { "network_interfaces": ["eth0"] }, "cpu-config": null,
      "pmem": [ { "id": "p", "path_on_host": "f", "root_device": false, "read_only": true } ],
      "memory-hotplug": { "total_size_mib": 128, "slot_size_mib": 128, "block_size_mib": 2 },
      "logger": { "log_path": "l", "level": "warn" }, "metrics": { "metrics_path": "m" } }]]
    assert.are.same({
      kernel = "k", boot_args = "ip=172.30.0.9::x a", vcpus = 2, mem_mib = 64, smt = false,
      cpu_template = "T2", drives = { { id = "rootfs", path = "r", root = true, read_only = false,
        io_engine = "Sync" } },
      network = { { tap = "tap0", mac = "06:00:00:00:00:09", address = "172.30.0.9",
        rx_limit = { ops = { size = 1, refill_time = 1 } } } },
      vsock = { cid = 3 }, balloon = { amount_mib = 1, deflate_on_oom = true, stats_interval_s = 2 },
      entropy = true, mmds = { version = "V1" }, log_level = "Warning",
      pmem = { { id = "p", path = "f", root = false, read_only = true } },
      memory_hotplug = { total_mib = 128, slot_mib = 128, block_mib = 2 },
    }, spec)
    assert.are.same({
      "logger.log_path is not used: it is firecracker.log in the VM's folder",
      "metrics.metrics_path is not used: they are in metrics in the VM's folder",
      "network-interfaces[1].host_dev_name: the TAP tap0 is made, put on the bridge, and removed with the VM",
      "vsock.uds_path is not used: its socket is vsock.sock in the VM's folder",
    }, notes)
  end)

  it("is refused with the names of what a spec has no place for", function()
    local err = support.fails("invalid", spec_of[[{ "boot-source": {}, "cpu-config": "f",
      "machine-config": { "vcpus": 1 }, "drives": [{ "socket": "s" }, 7], "vsock": true,
      "network-interfaces": [{ "iface_id": "a" }, { "iface_id": "b" }], "pmem": [],
      "serial": { "serial_out_path": "s" },
      "mmds-config": { "network_interfaces": ["b"] } }]])
    for _, part in ipairs{ "boot-source.kernel_image_path: is missing", "cpu-config: a VM's spec has no",
      "drives[1].socket: a VM's spec", "drives[2]: must be an object", "machine-config.vcpus: a VM's spec",
      "serial: Firecracker reads it over",
      "mmds-config.network_interfaces: a VM's spec has all", "vsock: must be an object" } do
      contains(err.message, part)
    end
    assert.are.equal(8, #err.problems)
  end)

  it("has the guest's address from its boot arguments, where they say one", function()
    local text = [[{ "boot-source": { "kernel_image_path": "k", "boot_args": "%s" },
      "network-interfaces": [ { "iface_id": "eth0", "host_dev_name": "tap0" } ] }]]
    for words, address in pairs{ ["a ip=dhcp"] = false, ["ip=off"] = false, ["ip=10.0.0.2"] = "10.0.0.2" } do
      assert.are.equal(address, spec_of(text:format(words)).network[1].address)
    end
    for _, words in ipairs{ "", "server_ip=1.2.3.4", "a -- ip=10.0.0.2" } do
      assert.is_nil(spec_of(text:format(words)).network[1].address)
    end
  end)
end)

describe("a VM's spec in a file", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is an object, and no empty list boots a VM", function()
    local world <close> = cli.world()
    for text, problem in pairs{
      ["[]"] = "it begins with [", [" [{}]"] = "it begins with [", ["7"] = "it begins with 7",
      [""] = "line 1, column 1: expected value", ['{"id":"a",\n}'] = "line 2, column 1: expected object key",
      ['{"network":[]}'] = "network: is empty: true is one interface with defaults; leave it out for none",
      ['{"network":{}}'] = "network: is empty", ['{"machine-config":{}}'] = "kernel_image_path: is missing",
      ['{"boot-source":{"kernel_image_path":"/no/kernel"}}'] = "kernel: no such file: /no/kernel",
    } do
      local done = cli.run(world, { "run", "--spec", "-", "-d" }, { input = text })
      assert.are.equal(2, done.status)
      contains(done.err, problem)
    end
    local done = cli.run(world, { "restore", "/", "--spec", "-" }, { input = '{"boot-source":{}}' })
    assert.are.equal(2, done.status)
    contains(done.err, "a snapshot says itself what its VM is")
    assert.are.equal(2, cli.run(world, { "restore", "/", "--spec", "-" }, { input = "[]" }).status)
  end)
end)

describe("an ordinary user", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local USER = 65534

  it("is told whose VMs are, and that they are not his", function()
    local world <close> = cli.world()
    support.sh{ "chmod", "755", world.folder.path }
    support.must(world.manager:ensure_socket_dir())
    support.sh{ "install", "-d", "-m", "700", world.folder:file("run/.fcproc"),
      world.folder:file("run/a") }
    for _, command in ipairs{
      "ps", "info a", "console a", "wait a", "stop a", "kill a", "kill --all",
      "pause a", "api a GET /", "metrics a", "mmds a {}", "snapshot a /tmp/x", "reclaim", "net show",
      "net clean", "run" } do
      local args = support.collect(command, "%S+")
      local done = cli.run(world, args, { uid = USER, gid = USER })
      assert.are.equal(5, done.status, command .. ": " .. done.err)
      contains(done.err, "belongs to uid 0, and this is uid 65534")
    end
  end)

  it("is told what a TAP that was made for him would have to be, and that another is not his", function()
    local world <close> = cli.world()
    support.sh{ "chmod", "755", world.folder.path }
    support.sh{ "install", "-d", "-m", "1777", world.folder:file("open") }
    support.must(world.manager:ensure_bridge())
    local function prepare(name, owner, ...)
      support.ip(world.netns, "tuntap", "add", name, "mode", "tap", "vnet_hdr", table.unpack(owner))
      for _, words in ipairs{ ... } do
        support.ip(world.netns, "link", "set", name, table.unpack(support.collect(words, "%S+")))
      end
    end
    prepare("mine0", { "user", "65534" })
    prepare("mine1", { "user", "65534" }, "master fcbr0", "mtu 1400", "up")
    prepare("roots", { "user", "0" })
    prepare("nobodys", {})
    -- /dev/net/tun is everybody's, as on most hosts.
    local before = { "unshare", "--mount", "--propagation", "private", "sh", "-ec",
      "mkdir $1; mount -t tmpfs -o mode=755 none $1; mknod -m 666 $1/tun c 10 200; "
      .. "mount --bind $1/tun /dev/net/tun; shift; exec setpriv --reuid 65534 --regid 65534 --clear-groups "
      .. '"$@"', "sh", world.folder:file("dev") }
    for name, wanted in pairs{
      mine0 = "would have to be made on the bridge fcbr0, up, isolated, of MAC ",
      mine1 = "would have to be made isolated, of MTU 1500 (it is 1400), of MAC ",
      nobodys = "would have to be made on the bridge fcbr0, up",
      roots = "belongs to uid 0, not to this one (65534)",
    } do
      local done = cli.run(world, { "run", "--tap", name }, { before = before,
        env = { FCPROC_RUNTIME_DIR = world.folder:file("open/run") } })
      assert.are.equal(5, done.status)
      contains(done.err, "the TAP " .. name .. " is there, and ")
      contains(done.err, wanted)
      support.sh{ "rmdir", world.folder:file("dev") }
    end
    -- And nothing of it was changed.
    local shown = support.sh({ "ip", "-d", "link", "show", "nobodys" }, { netns = world.netns })
    assert.is_nil(shown:find(" user ", 1, true), shown)
  end)
end)
