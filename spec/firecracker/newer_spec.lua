-- What Firecracker 1.14 brought to a VM's spec, with the real one: it works, or is refused by its name.

local support = require "spec.support"
local fcproc = require "fcproc"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails

describe("a VM with pmem, memory to plug in, a serial file and a hinting balloon", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("runs from 1.14 on, and is refused before", function()
    local world <close> = support.world()
    local disk, serial = world.folder:file("disk"), world.folder:file("serial")
    support.write_file(disk, ("x"):rep(4096))
    local spec = { id = "new", pmem = { { path = disk, copy = "sparse" } }, serial = { path = serial },
      mem_mib = 128, memory_hotplug = { total_mib = 256 },
      balloon = { amount_mib = 1, free_page_hinting = true, free_page_reporting = true } }
    if not versions.at_least("1.14") then
      local err = fails("unsupported", fcproc.vm.launch(world.manager, spec))
      assert.is_truthy(err.message:find("needs Firecracker >= 1.14", 1, true), err.message)
      return
    end
    local vm <close> = must(fcproc.vm.launch(world.manager, spec))
    local config = must(vm.machine:vm_config())
    assert.are.equal("pmem1", config.pmem[1].id)
    assert.are.equal(256, must(vm.machine:memory_hotplug()).total_size_mib)
    assert.is_true(must(vm:balloon()).free_page_hinting)
    support.eventually("the console is in the file", function()
      return (support.read_file(serial) or ""):find("fcproc guest: ready", 1, true)
    end)
    assert.are.equal("exited", must(vm:stop()).outcome)
  end)
end)
