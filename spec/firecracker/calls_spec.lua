-- The typed calls and whole configuration files with the real Firecracker.

local support = require "spec.support"
local bare_vm = require "spec.support.bare"
local endpoints = require "fcproc.machine.endpoints"
local fcproc = require "fcproc"
local json = require "fcproc.json"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails
local VERSION = versions.real()

describe("the typed calls", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("configure, boot, pause, save and load a VM", function()
    local world <close> = support.world()
    local vm <close> = bare_vm(world, "vm")
    assert.are.equal(VERSION, must(vm:version_info()).firecracker_version)
    assert.is_true(must(vm:set_machine_config{ vcpu_count = 1, mem_size_mib = 32 }))
    must(vm:patch_machine_config{ mem_size_mib = 16 })
    must(vm:set_boot_source{ kernel_image_path = must(fcproc.guest_path()) })
    local drive = { path_on_host = "/dev/null", is_root_device = false, is_read_only = true }
    must(vm:set_drive("scratch", drive))
    assert.is_nil(drive.drive_id, "what the caller gave is the caller's")
    must(vm:set_entropy{})
    must(vm:set_cpu_config{})
    assert.are.equal(16, must(vm:machine_config()).mem_size_mib)
    assert.are.equal("scratch", must(vm:vm_config()).drives[1].drive_id)
    must(vm:set_mmds{ secret = "x", kept = { 1, 2 } })
    must(vm:patch_mmds{ secret = json.null })
    assert.are.same({ kept = { 1, 2 } }, must(vm:mmds()))
    fails("conflict", vm:pause())
    assert.are.equal("Not started", must(vm:describe()).state)
    must(vm:start())
    fails("conflict", vm:start())
    fails("conflict", vm:set_boot_source{ kernel_image_path = "/x" })
    local files = { snapshot_path = vm.dir .. "/state", mem_file_path = vm.dir .. "/memory" }
    local err = fails("conflict", vm:create_snapshot(files))
    assert.is_truthy(err.message:find("pause it first", 1, true))
    must(vm:pause())
    assert.are.equal("Paused", must(vm:describe()).state)
    must(vm:create_snapshot(files))
    must(vm:resume())
    must(vm:flush_metrics())
    must(vm:patch_drive("scratch", { path_on_host = "/dev/null" }))
    must(vm:send_ctrl_alt_del())

    local copy <close> = bare_vm(world, "copy")
    must(copy:load_snapshot{ snapshot_path = files.snapshot_path, resume_vm = true,
      mem_backend = { backend_type = "File", backend_path = files.mem_file_path },
      network_overrides = {} })
    assert.are.equal("Running", must(copy:describe()).state)
  end)

  it("name the snapshots' format as the binary does", function()
    local printed = support.sh{ support.firecracker(), "--snapshot-version" }
    if VERSION:find("-dev", 1, true) then return end -- its format goes on to change until it is released
    assert.are.equal(printed:match("%d+%.%d+%.%d+"), endpoints.snapshot_format(VERSION))
  end)
end)

describe("a configuration file", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- Starts a Firecracker with it; what it wrote, and how it ended, or nil when it answers. One that
  -- is expected to end is asked nothing: a request that waits while a file is refused may turn the
  -- refusal into a signal that its seccomp filter forbids.
  local function start(world, text, ends)
    local file, sock = world.folder:file("config.json"), world.folder:file("api.sock")
    local console = world.folder:file("console.log")
    support.write_file(file, text)
    support.sh{ "rm", "-f", sock, console }
    local process <close> = must(fcproc.spawn({ support.firecracker(), "--api-sock", sock,
      "--config-file", file, "--level", "Error" },
      { stdout = { file = console }, stderr = { file = console }, netns = world.netns,
        session = true }))
    local ended
    support.eventually("Firecracker answers or ends", function()
      if ends or not process:alive() then
        local _
        _, ended = must(process:wait(10))
        return true
      end
      -- It listens before it reads the file, and answers after.
      return fcproc.request(sock, "GET", "/")
    end)
    if not ended then
      process:signal("KILL")
      must(process:wait(10))
    end
    return ended, support.read_file(console)
  end

  it("that the check lets pass is read, empty lists and nulls and all", function()
    local world <close> = support.world()
    local config = {
      ["boot-source"] = { kernel_image_path = must(fcproc.guest_path()),
        initrd_path = json.null },
      drives = {}, ["network-interfaces"] = {}, ["machine-config"] = { vcpu_count = 1,
        mem_size_mib = 16 }, entropy = {}, balloon = { amount_mib = 1, deflate_on_oom = false },
      vsock = { guest_cid = 3, uds_path = world.folder:file("v.sock") },
      logger = json.null,
    }
    must(endpoints.check_config(VERSION, config))
    local ended, output = start(world, endpoints.encode_config(config))
    assert.is_nil(ended, output)
  end)

  it("of a VM that runs is one again", function()
    local world <close> = support.world()
    local vm <close> = support.listening_vm(world)
    local config = must(fcproc.request(vm.sock, "GET", "/vm/config"))
    must(endpoints.check_config(VERSION, config))
    local ended, output = start(world, endpoints.encode_config(config))
    assert.is_nil(ended, output)
  end)

  it("that the check refuses is refused, or read over", function()
    local world <close> = support.world()
    local function config(fields)
      local whole = { ["boot-source"] = { kernel_image_path = must(fcproc.guest_path()) },
        drives = {}, ["machine-config"] = { vcpu_count = 1, mem_size_mib = 16 } }
      for name, value in pairs(fields) do whole[name] = value end
      return whole
    end
    for _, case in ipairs{
      { "unsupported", config{ ["cpu-config"] = { kvm_capabilities = {} } }, "expected path string",
        since = "1.13" },
      { "unsupported", config{ ["network-interfaces"] = { { iface_id = "a", host_dev_name = "t",
        mtu = 1500 } } }, "unknown field `mtu`", since = "1.16" },
      { "invalid", config{ ["machine-config"] = { vcpu_count = 1 } }, "missing field `mem_size_mib`" },
      { "invalid", { ["boot-source"] = { kernel_image_path = "/x" } }, "missing field `drives`" },
      { "invalid", config{ balloon = { amount_mib = 17, deflate_on_oom = false } }, "alloon" },
      { "unsupported", config{ serial = { serial_out_path = "/x" } } },
      { "unsupported", config{ pmem = {} }, since = "1.14" },
      { "invalid", config{ netwrk = {} } },
    } do
      local known = case.since and versions.at_least(case.since)
      if known then
        must(endpoints.check_config(VERSION, case[2]))
      else
        fails(case[1], endpoints.check_config(VERSION, case[2]))
      end
      local ends = case[3] and not known
      local ended, output = start(world, endpoints.encode_config(case[2]), ends)
      if ends then
        assert.are.same({ status = 1 }, ended)
        assert.is_truthy(output:find(case[3], 1, true), output)
      elseif not known then
        assert.is_nil(ended, output) -- it starts, without what was asked for
      end
    end
  end)
end)
