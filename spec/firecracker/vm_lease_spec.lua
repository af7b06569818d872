-- What is one VM's on the whole host, with real VMs: the uid of a jail, and a MAC, an address and a TAP
-- of a bridge, whatever the runtime folders; and what somebody removed by hand under a VM that runs.

local jails = require "spec.support.jails"
local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local lease = require "fcproc.resources.lease"

local must, fails = support.must, support.fails

local UID = 7301

-- Another manager on the same bridge, with a runtime folder of its own.
local function neighbour(world, config)
  local all = { runtime_dir = world.folder:file("other"), bridge_name = "fcbr0",
    bridge_ip = "172.30.0.1", cidr = 24, netns = world.netns, firecracker_bin = support.firecracker() }
  for key, value in pairs(config or {}) do all[key] = value end
  return must(fcproc.new(all))
end

local function jailed(id, fields)
  local jail = { uid = UID, gid = UID }
  for key, value in pairs(fields or {}) do jail[key] = value end
  return { id = id, jailer = jail, network = true }
end

describe("the uid of a jail", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  it("is that of one living jail, whatever its runtime folder", function()
    local other <close> = neighbour(world)
    local first <close> = vms.ready(world, jailed("one"))
    for manager, owner in pairs{ [world.manager] = "the VM 'one' has it",
      [other] = ("the VM 'one' of %s has it"):format(world.folder:file("run")) } do
      for _, fields in ipairs{ {}, { shared_uid = true } } do
        local before = vms.traces(world)
        local err = fails("conflict", fcproc.vm.launch(manager, jailed("two", fields)))
        assert.are.equal("one", err.owner)
        assert.is_truthy(err.message:find(("jailer.uid: %d: %s"):format(UID, owner):sub(1, -8), 1, true),
          err.message)
        assert.is_truthy(err.message:find('uid = "auto"; or say shared_uid = true for both', 1, true))
        assert.are.equal(before, vms.traces(world))
      end
    end
    assert.is_true(support.pings(world.netns, first:address()))
    must(first:kill())
    local second <close> = vms.ready(world, jailed("two")) -- it is free again
    must(second:kill())
  end)

  it("is shared by those who all say so, and by nobody else", function()
    local first <close> = vms.ready(world, jailed("one", { shared_uid = true }))
    local second <close> = vms.ready(world, jailed("two", { shared_uid = true }))
    local err = fails("conflict", fcproc.vm.launch(world.manager, jailed("three")))
    assert.is_truthy(err.message:find("shares it", 1, true), err.message)
    must(first:kill())
    fails("conflict", fcproc.vm.launch(world.manager, jailed("three")))
    must(second:kill())
    local third <close> = must(fcproc.vm.launch(world.manager, jailed("three")))
    must(third:kill())
  end)

  it("\"auto\" is a free one of the range, for a fleet too, and a gid with it", function()
    local manager <close> = neighbour(world, { jailer_uids = { first = 70500, count = 40 } })
    local list, seen = {}, {}
    for i = 1, 8 do list[i] = { id = "auto" .. i, jailer = { uid = "auto" }, network = true } end
    local fleet = must(fcproc.vm.launch_all(manager, list))
    for _, vm in ipairs(fleet) do
      local jail = vm:record().jail
      assert.is_true(jail.uid >= 70500 and jail.uid < 70540 and not seen[jail.uid])
      assert.are.equal(jail.uid, jail.gid)
      assert.are.equal(tostring(jail.uid), jails.status_of(vm:pid(), "Uid")[1])
      assert.are.equal(jail.uid, must(core.stat(jail.root)).uid)
      seen[jail.uid] = true
    end
    must(fcproc.vm.stop_all(fleet, { limit = 8, { "sigkill", 5 } }))
    local full <close> = neighbour(world, { jailer_uids = { first = 70500, count = 1 } })
    local vm <close> = must(fcproc.vm.launch(full, { id = "a", jailer = { uid = "auto" } }))
    fails("busy", fcproc.vm.launch(full, { id = "b", jailer = { uid = "auto" } }))
    must(vm:kill())
  end)

  it("\"auto\" is given back only when nobody has it any more", function()
    local vm <close> = must(fcproc.vm.launch(world.manager, { id = "one", jailer = { uid = "auto" } }))
    local uid = vm:record().jail.uid
    local stranger <close> = must(fcproc.spawn({ "sleep", "60" }, { uid = uid, gid = uid }))
    support.eventually("it has begun", function() return core.uid_in_use(uid) end)
    local err = fails("busy", vm:kill())
    assert.is_truthy(err.message:find(("pid %d is in it yet, or has its uid %d: end it"):format(
      stranger:pid(), uid), 1, true), err.message)
    assert.are.same({ ("uid-%d"):format(uid) }, (support.leases(world)))
    assert.are.equal("one", must(fcproc.vm.reclaim(world.manager)).failed[1].id)
    must(stranger:signal("KILL"))
    must(stranger:wait(10))
    assert.are.same({ "one" }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
  end)

  it("is root's only when asked for, and then it is logged", function()
    local lines = {}
    local manager <close> = neighbour(world, { logger = function(level, message)
      if level == "warn" then lines[#lines + 1] = message end
    end })
    local err = fails("invalid", fcproc.vm.launch(manager, { jailer = { uid = 0, gid = 0 } }))
    assert.is_truthy(err.message:find("jailer.uid: 0 is root, whom a jail does not hold", 1, true))
    assert.are.same({}, lines)
    local vm <close> = must(fcproc.vm.launch(manager, { jailer = { uid = 0, gid = 0, allow_root = true } }))
    assert.are.equal("0", jails.status_of(vm:pid(), "Uid")[1])
    assert.is_truthy(lines[1]:find("the jail's user is root", 1, true))
    must(vm:kill())
  end)

  it("of a restored VM is its own, too", function()
    local first <close> = vms.ready(world, jailed("one"))
    local path = world.folder:file("snap")
    must(first:snapshot(path))
    local err = fails("conflict", fcproc.vm.restore(world.manager, path,
      { id = "two", jailer = { uid = UID, gid = UID } }))
    assert.is_truthy(err.message:find("the VM 'one' has it", 1, true), err.message)
    must(first:kill())
    local second <close> = must(fcproc.vm.restore(world.manager, path,
      { id = "two", jailer = { uid = "auto", gid = UID } }))
    assert.are.equal("Running", must(second.machine:state()))
    must(second:kill())
  end)
end)

describe("two runtime folders on one bridge", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  it("give the same id another MAC, address and TAP, and both guests answer", function()
    local other <close> = neighbour(world)
    local first <close> = vms.ready(world, { id = "web", network = true })
    local second <close> = must(fcproc.vm.launch(other, { id = "web", network = true }))
    must(must(second:console()):wait_for("fcproc guest: ready", 10))
    local a, b = first:record().taps[1], second:record().taps[1]
    for _, field in ipairs{ "name", "guest_mac", "address" } do
      assert.are_not.equal(a[field], b[field], field)
    end
    assert.is_true(support.pings(world.netns, a.address))
    assert.is_true(support.pings(world.netns, b.address))
    must(second:kill())
    assert.is_true(support.pings(world.netns, a.address))
  end)

  it("give no MAC, address, TAP or written drive to two, and say who has it where", function()
    local other <close> = neighbour(world)
    local disk = vms.disk(world, "disk", "shared")
    local first <close> = vms.ready(world, { id = "web", drives = { { path = disk } },
      network = { address = "172.30.0.77", mac = "06:00:00:00:00:77", tap = "fctap7" } })
    local owner = ("the VM 'web' of %s has it"):format(world.folder:file("run"))
    for text, spec in pairs{
      ["network.address: 172.30.0.77: "] = { network = { address = "172.30.0.77" } },
      ["network.mac: 06:00:00:00:00:77: "] = { network = { mac = "06:00:00:00:00:77" } },
      ["network.tap: fctap7: "] = { network = { tap = "fctap7" } },
      [("drives[1].path: %s is written by another VM: "):format(disk)] = { drives = { { path = disk } } },
    } do
      spec.id = "web"
      local err = fails("conflict", fcproc.vm.launch(other, spec))
      assert.are.equal(text .. owner, err.message:sub(-#(text .. owner)))
      assert.are.same({ "web", world.folder:file("run") }, { err.owner, err.folder })
    end
    assert.is_true(support.pings(world.netns, first:address()))
    -- Each bridge, and each network namespace, has its own.
    local bridge <close> = neighbour(world, { bridge_name = "fcbr1", bridge_ip = "172.30.0.2" })
    must(bridge:ensure_bridge())
    local second <close> = must(fcproc.vm.launch(bridge, { id = "db",
      network = { address = "172.30.0.77", mac = "06:00:00:00:00:77" } }))
    local apart <close> = support.bridged_world()
    local third <close> = vms.ready(apart, { id = "web",
      network = { address = "172.30.0.77", mac = "06:00:00:00:00:77", tap = "fctap7" } })
    must(third:kill())
    must(second:kill())
    must(bridge:delete_bridge())
    must(first:kill())
  end)
end)

-- ---- removed by hand -------------------------------------------------------------------------

local HANDS = {
  ["its runtime folder"] = function(world) support.sh{ "rm", "-rf", world.folder:file("run") } end,
  [".fcproc"] = function(world) support.sh{ "rm", "-rf", world.folder:file("run/.fcproc") } end,
  ["its lock"] = function(world) support.sh{ "rm", world.folder:file("run/.fcproc/locks/vm") } end,
  ["its leases"] = function(world)
    local names, leases = support.leases(world)
    for _, name in ipairs(names) do must(core.remove_file(leases.folder .. "/" .. name)) end
  end,
}

describe("a VM that runs, and somebody removed", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  local function launch()
    local disk = vms.disk(world, "disk", "mine")
    return vms.ready(world, { id = "vm", network = true, drives = { { path = disk } } })
  end

  local function taps()
    local names = {}
    for _, tap in ipairs(must(world.manager:list_taps())) do names[#names + 1] = tap.name end
    return names
  end

  local function kill(pid)
    local process <close> = must(fcproc.process(pid))
    must(process:signal("KILL"))
    must(process:wait(10))
  end

  -- Nothing of it goes, and nothing is said to have gone.
  local function lives_through_reclaim(address, lost)
    local before = support.leases(world)
    local report = must(fcproc.vm.reclaim(world.manager))
    assert.are.same({ {}, 0, 0 }, { report.reclaimed, report.taps, report.leases })
    assert.are.equal(1, #taps())
    assert.are.same(before, (support.leases(world)))
    assert.are.equal(4, #before + (lost and 4 or 0))
    assert.is_true(support.pings(world.netns, address))
    return report
  end

  for what, remove in pairs(HANDS) do
    it(what .. ", ends by its object, and nothing stays", function()
      for _, how in ipairs{ "kill", "stop" } do
        local vm = launch()
        local address = vm:address()
        remove(world)
        lives_through_reclaim(address, what == "its leases")
        local report = must(vm[how](vm, how == "stop" and { { "sigterm", 5 }, { "sigkill", 5 } } or nil))
        assert.are.same({}, report.left)
        vms.nothing_left(world)
      end
    end)

    it(what .. ", is adopted or left alone, and in the end nothing stays", function()
      local vm = launch()
      local address = vm:address()
      local child <close> = vms.detach(vm)
      remove(world)
      local report = lives_through_reclaim(address, what == "its leases")
      if what == "its runtime folder" then
        fails("not_found", fcproc.vm.adopt(world.manager, "vm"))
        assert.are.equal("vm", report.failed[1].id)
        local said = {}
        for _, entry in ipairs(report.failed[1].left) do
          assert.are.equal("busy", entry.err.code)
          said[#said + 1] = entry.what:match("^%S+ ?%l* ?%l*")
        end
        assert.are.equal(5, #said, table.concat(said, ", ")) -- the TAP and four leases
        must(child:signal("KILL"))
        must(child:wait(10))
        report = must(fcproc.vm.reclaim(world.manager))
        -- The lease of the TAP went with that.
        assert.are.same({ {}, 1, 3, {} }, { report.reclaimed, report.taps, report.leases, report.failed })
      else
        local taken <close> = must(fcproc.vm.adopt(world.manager, "vm"))
        assert.are.equal(4, #support.leases(world)) -- those that were lost are there again
        assert.are.same({}, must(taken:kill()).left)
        must(child:wait(10))
      end
      vms.nothing_left(world)
    end)

    it(what .. ", dies, and reclaim leaves nothing", function()
      local vm = launch()
      local pid = vm:pid()
      local child <close> = vms.detach(vm)
      remove(world)
      kill(pid)
      must(child:wait(10))
      local report = must(fcproc.vm.reclaim(world.manager))
      assert.are.same({}, report.failed)
      assert.are.same({}, taps())
      vms.nothing_left(world)
    end)
  end

  it("journal, leases and lock, dies: its TAP is known by its alias", function()
    local vm = launch()
    local pid = vm:pid()
    local child <close> = vms.detach(vm)
    HANDS["its leases"](world)
    support.sh{ "rm", world.folder:file("run/vm/vm.json") }
    kill(pid)
    must(child:wait(10))
    assert.are.same({ "vm" }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    vms.nothing_left(world)
  end)

  it("folder and leases, which may be in one place: its TAP is told, and goes when it has ended", function()
    local vm = launch()
    local address = vm:address()
    local child <close> = vms.detach(vm)
    HANDS["its leases"](world)
    HANDS["its runtime folder"](world)
    local report = must(fcproc.vm.reclaim(world.manager))
    assert.are.same({ {}, 0, "vm" }, { report.reclaimed, report.taps, report.failed[1].id })
    assert.is_truthy(report.failed[1].left[1].err.message:find("the VM 'vm' runs, and its folder was "
      .. "removed; end its process", 1, true))
    assert.is_true(support.pings(world.netns, address))
    must(child:signal("KILL"))
    must(child:wait(10))
    report = must(fcproc.vm.reclaim(world.manager))
    assert.are.same({ 1, {} }, { report.taps, report.failed })
    vms.nothing_left(world)
  end)

  it("a jail's folder with the rest: its uid stays its own", function()
    local vm = vms.ready(world, jailed("vm"))
    local child <close> = vms.detach(vm)
    support.sh{ "rm", "-rf", world.folder:file("run") }
    local report = must(fcproc.vm.reclaim(world.manager))
    assert.are.same({ 0, 0 }, { report.leases, report.taps })
    local err = fails("conflict", fcproc.vm.launch(world.manager, jailed("two")))
    assert.are.equal("vm", err.owner)
    must(child:signal("KILL"))
    must(child:wait(10))
    local second <close> = must(fcproc.vm.launch(world.manager, jailed("two")))
    must(second:kill())
    must(fcproc.vm.reclaim(world.manager))
    vms.nothing_left(world)
  end)

  it("nothing: a TAP that was there before and stays is no stray", function()
    must(world.manager:create_tap("mine0"))
    local vm <close> = vms.ready(world, { id = "vm", network = { tap = "mine0" } })
    must(vm:kill())
    assert.are.equal(0, must(fcproc.vm.reclaim(world.manager)).taps)
    assert.are.same({ "mine0" }, taps())
    must(world.manager:delete_tap("mine0"))
  end)

  it("its folder: the next VM with its TAP's name keeps that", function()
    local vm = launch()
    local name = vm:record().taps[1].name
    local child <close> = vms.detach(vm)
    support.sh{ "rm", "-rf", world.folder:file("run") }
    must(child:signal("KILL"))
    must(child:wait(10))
    local second <close> = vms.ready(world, { id = "second", network = { tap = name } })
    local report = must(fcproc.vm.reclaim(world.manager))
    assert.are.equal(0, report.taps)
    assert.is_true(support.pings(world.netns, second:address()))
    must(second:kill())
    must(world.manager:delete_tap(name)) -- it was there before, so it stayed
    must(lease.open(world.manager)):sweep()
  end)
end)
