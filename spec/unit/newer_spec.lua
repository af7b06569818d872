-- What a spec may ask of newer Firecrackers: what they are told, and what older ones are refused. The
-- binaries are fakes that only tell their version.

local fcproc = require "fcproc"
local launch = require "fcproc.machine.launch"
local specs = require "fcproc.vm.spec"
local support = require "spec.support"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails

describe("a spec for newer Firecrackers", function()
  local world, file

  before_each(function()
    support.before_each()
    world = support.world()
    file = world.folder:file("pmem")
    support.write_file(file, ("x"):rep(4096))
  end)

  after_each(function()
    getmetatable(world).__close(world)
    support.after_each()
  end)

  local function plan_of(version, spec)
    local manager <close> = versions.pretend(world, version)
    return specs.plan(manager, spec)
  end

  local function config_of(version, spec)
    return specs.config(must(plan_of(version, spec)), {})
  end

  local function refuses(version, code, wanted, spec)
    local err = fails(code, plan_of(version, spec))
    assert.is_truthy(err.message:find(wanted, 1, true), err.message)
  end

  it("has pmem, which is a file of the VM's like a drive", function()
    local spec = { pmem = { { path = file, root = true, read_only = true },
      { path = file, copy = "sparse" } } }
    local config = config_of("1.14.0", spec)
    assert.are.same({ { id = "root", path_on_host = "drive-root", root_device = true, read_only = true },
      { id = "pmem2", path_on_host = "drive-pmem2", root_device = false, read_only = false } }, config.pmem)
    assert.are.same({}, config.drives)
    refuses("1.13.2", "unsupported", "pmem: needs Firecracker >= 1.14, this is 1.13.2", spec)
    spec.pmem[1].rate_limit = { ops = { size = 1, refill_time = 1 } }
    refuses("1.15.1", "unsupported", "pmem[1].rate_limit: needs Firecracker >= 1.16", spec)
    must(plan_of("1.16.0", spec))
  end)

  it("has pmem with drives' rules", function()
    support.write_file(world.folder:file("empty"), "")
    support.write_file(world.folder:file("disk"), ("x"):rep(4096))
    local disk = world.folder:file("disk")
    for wanted, spec in pairs{
      ["pmem[1].path: no such file"] = { pmem = { { path = "/nowhere" } } },
      ["pmem[1].path: /dev/null must be a file"] = { pmem = { { path = "/dev/null" } } },
      ["pmem[1].cache_type: unknown"] = { pmem = { { path = file, cache_type = "Unsafe" } } },
      ["pmem: must be a list"] = { pmem = { path = file } },
      ["empty is empty"] = { pmem = { { path = world.folder:file("empty") } } },
      ["pmem[1].root: drives[1] is the root already"] = { drives = { { path = disk, root = true } },
        pmem = { { path = file, root = true } } },
      ["is pmem[1]'s too, and both write"] = { pmem = { { path = file }, { path = file } } },
      ["pmem[1].id: 'a' is drives[1]'s too"] = { drives = { { path = disk, id = "a" } },
        pmem = { { path = file, id = "a" } } },
      ["pmem[1].path: " .. file .. " can't be written by uid 1234"] = { pmem = { { path = file } },
        jailer = { uid = 1234, gid = 1234, binary = versions.fake(world, "9.9.9") } },
    } do
      refuses("1.17.0", "invalid", wanted, spec)
    end
    local plan = must(plan_of("1.14.0", { pmem = { { path = file } } }))
    assert.is_truthy(plan.drives[1].lease:find("^drive%-"), "nobody else may write it")
  end)

  it("has memory to be plugged in", function()
    local spec = { memory_hotplug = { total_mib = 1024, block_mib = 4, slot_mib = 256 } }
    assert.are.same({ total_size_mib = 1024, block_size_mib = 4, slot_size_mib = 256 },
      config_of("1.14.0", spec)["memory-hotplug"])
    refuses("1.13.2", "unsupported", "memory_hotplug: needs Firecracker >= 1.14, this is 1.13.2", spec)
    refuses("1.14.0", "invalid", "total_mib must be a multiple of slot_mib (128), not 100",
      { memory_hotplug = { total_mib = 100 } })
    refuses("1.14.0", "invalid", "memory_hotplug.total_mib: 4294967296 is out of range",
      { memory_hotplug = { total_mib = 4294967296 } })
  end)

  it("has a file for the serial console, which is told by a request", function()
    local spec = { serial = { path = "/var/log/guest" } }
    local plan = must(plan_of("1.14.0", spec))
    assert.are.equal("api", plan.spec.boot)
    local told
    for _, request in ipairs(launch.requests(specs.config(plan, {}))) do
      if request.target == "/serial" then told = request.body end
    end
    assert.are.same({ serial_out_path = "/var/log/guest" }, told)
    refuses("1.13.2", "unsupported", "serial: needs Firecracker >= 1.14, this is 1.13.2", spec)
    spec.boot = "config_file"
    refuses("1.14.0", "invalid", "boot: must be \"api\" for serial", spec)
    spec = { serial = { path = "/var/log/guest", rate_limit = { size = 1, refill_time = 1 } } }
    refuses("1.15.0", "unsupported", "serial.rate_limit: needs Firecracker >= 1.16", spec)
    must(plan_of("1.16.0", spec))
  end)

  it("has a balloon that hints and reports", function()
    for _, name in ipairs{ "free_page_hinting", "free_page_reporting" } do
      local spec = { balloon = { amount_mib = 1, [name] = true } }
      assert.is_true(config_of("1.14.0", spec).balloon[name])
      refuses("1.13.2", "unsupported", ("balloon.%s: needs Firecracker >= 1.14"):format(name), spec)
    end
  end)

  it("asks no binary for its version when all is old", function()
    local manager <close> = must(fcproc.new{ runtime_dir = world.folder:file("run"),
      firecracker_bin = support.lua }) -- it would not answer
    must(specs.plan(manager, { balloon = { amount_mib = 1, stats_interval_s = 1 } }))
  end)
end)
