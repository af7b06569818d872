-- Two that want the same: the second is refused and told who has it, and the first is unharmed.

local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

describe("a second VM", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  -- Refused, with this text; the first goes on as before, and only what it has is there.
  local function refused(first, code, text, manager, spec)
    local before = vms.traces(world)
    local err = fails(code, fcproc.vm.launch(manager, spec))
    assert.is_truthy(err.message:find(text, 1, true), err.message)
    assert.are.equal(before, vms.traces(world))
    assert.is_true(support.pings(world.netns, first:address()))
    assert.are.equal("running", must(first:info()).state)
    return err
  end

  it("of the same id is refused, by this manager and by another", function()
    local first <close> = vms.ready(world, { id = "one", network = true })
    local here = "the VM 'one' is in the hands of this very process, pid "
    local err = refused(first, "busy", here, world.manager, { id = "one", network = true })
    assert.are.equal(tonumber(must(core.read_link("/proc/self"))), err.pid)
    local other <close> = must(fcproc.new(support.config(world)))
    refused(first, "busy", here, other, { id = "one" })
    local report = must(fcproc.vm.reclaim(other))
    assert.are.same({}, report.reclaimed)
    assert.is_true(support.pings(world.netns, first:address()))
  end)

  it("with the same writable drive is refused; readers and copies are not", function()
    local disk = vms.disk(world, "disk", "shared")
    local link = world.folder:file("link")
    support.sh{ "ln", "-s", disk, link }
    local first <close> = vms.ready(world, { id = "one", network = true, drives = { { path = disk } } })
    for _, path in ipairs{ disk, link } do
      local err = refused(first, "conflict", "the VM 'one' has it", world.manager,
        { drives = { { path = path } } })
      assert.is_truthy(err.message:find("drives[1].path: " .. disk .. " is written by another VM", 1, true),
        err.message)
      assert.are.equal("one", err.owner)
      assert.are.equal("prepare", err.step)
    end
    local copy <close> = vms.ready(world, { drives = { { path = disk, copy = "reflink" } } })
    vms.shows(copy, 'starts "shared"')
  end)

  it("with the same TAP is refused", function()
    local first <close> = vms.ready(world, { id = "one", network = { tap = "fctap7" } })
    refused(first, "conflict", "network.tap: fctap7: the VM 'one' has it", world.manager,
      { network = { tap = "fctap7" } })
    refused(first, "conflict", "network[2].tap: fctap7", world.manager,
      { network = { {}, { tap = "fctap7" } } })
  end)

  it("with the same address is refused, and gets another by itself", function()
    local first <close> = vms.ready(world, { id = "one", network = { address = "172.30.0.77" } })
    refused(first, "conflict", "network.address: 172.30.0.77: the VM 'one' has it", world.manager,
      { network = { address = "172.30.0.77" } })
    local second <close> = vms.ready(world, { id = "two", network = true })
    assert.are_not.equal("172.30.0.77", second:address())
    assert.is_true(support.pings(world.netns, second:address()))
  end)

  it("can have all of it once the first has been stopped", function()
    local disk = vms.disk(world, "disk", "shared")
    local spec = { id = "one", drives = { { path = disk } },
      network = { tap = "fctap7", address = "172.30.0.77" } }
    for _ = 1, 2 do
      local vm <close> = vms.ready(world, spec)
      assert.is_true(support.pings(world.netns, "172.30.0.77"))
      must(vm:stop())
    end
  end)

  it("can't take a TAP from a stranger, nor a link that is none", function()
    support.sh({ "ip", "link", "add", "other7", "type", "bridge" }, { netns = world.netns })
    local err = fails("conflict", fcproc.vm.launch(world.manager, { network = { tap = "other7" } }))
    assert.are.equal("network", err.step)
    assert.are.equal(1, #support.ip(world.netns, "link", "show", "other7"))
    support.sh({ "ip", "link", "del", "other7" }, { netns = world.netns })
    -- One that was there stays.
    must(world.manager:create_tap("mine0"))
    do
      local vm <close> = vms.ready(world, { network = { tap = "mine0" } })
      assert.is_true(support.pings(world.netns, vm:address()))
    end
    assert.are.equal(1, #support.ip(world.netns, "link", "show", "mine0"))
    must(world.manager:delete_tap("mine0"))
  end)

  it("finds no address where all are taken", function()
    local narrow <close> = support.bridged_world{ cidr = 30 }
    local first <close> = vms.ready(narrow, { id = "one", network = true })
    assert.are.equal("172.30.0.2", first:address())
    local err = fails("busy", fcproc.vm.launch(narrow.manager, { network = true }))
    assert.is_truthy(err.message:find("no address is free in 172.30.0.0/30", 1, true), err.message)
    must(first:stop())
    vms.nothing_left(narrow)
  end)

  it("of the same id, at the same moment, is one of two", function()
    local results = fcproc.run{
      function() return fcproc.vm.launch(world.manager, { id = "race", network = true }) end,
      function() return fcproc.vm.launch(world.manager, { id = "race", network = true }) end,
    }
    local won = results[1][1] and 1 or 2
    local vm <close> = must(results[won][1], results[won][2])
    fails("busy", results[3 - won][1], results[3 - won][2])
    must(must(vm:console()):wait_for("ready", 10))
    assert.is_true(support.pings(world.netns, vm:address()))
  end)
end)
