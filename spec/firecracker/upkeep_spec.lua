-- The NAT of VMs that run, after a flush of all rules of the host: told by the doctor, the information on a
-- VM and fcproc net show, put back by fcproc net up and the next launch, and never of a VM that has ended.

local support = require "spec.support"
local command = require "spec.support.cli"
local guests = require "spec.support.guests"
local helper = require "spec.support.doctor"
local doctor = require "fcproc.doctor"
local fcproc = require "fcproc"
local nat = require "fcproc.network.nat"

local must = support.must
local MISSING = "the kernel has lost rules of NAT"

local function flush(net) guests.in_host(net, "nft", "flush", "ruleset") end

local function launch(net, id, fields)
  local network = { nat = "up0" }
  for key, value in pairs(fields or {}) do network[key] = value end
  return must(fcproc.vm.launch(net.manager, { id = id, network = network }))
end

-- Whose NAT the kernel has.
local function held(net)
  local ids = {}
  for _, entry in ipairs(must(nat.list(net.manager))) do ids[#ids + 1] = entry.id end
  table.sort(ids)
  return table.concat(ids, " ")
end

local function missing(net)
  local ids = {}
  for _, entry in ipairs(must(fcproc.vm.missing_nat(net.manager))) do ids[#ids + 1] = entry.id end
  table.sort(ids)
  return table.concat(ids, " ")
end

-- Another manager of the same host, which calls fn before its first change of the rules.
local function interrupted(net, fn)
  local real, called = fcproc.runner(), false
  local c = net.manager.config
  return must(fcproc.new{ bridge_name = c.bridge_name, bridge_ip = c.bridge_ip, cidr = c.prefix,
    runtime_dir = c.runtime_dir, netns = net.netns, firecracker_bin = support.firecracker(),
    runner = { run = function(_, argv, opts, ctx)
      if not called and table.concat(argv, " ") == "nft -f -" then
        called = true
        fn()
      end
      return real:run(argv, opts, ctx)
    end } })
end

describe("NAT that a flush of all rules took", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is told by doctor, info and net show, and put back by net up", function()
    local net <close> = guests.network(command.world)
    must(net.manager:ensure_bridge())
    local function look() return helper.by_name(must(doctor.run(net.manager))).nat end
    helper.expect(look(), "ok", "no VM that runs has NAT")
    local first <close> = launch(net, "first")
    local plain <close> = must(fcproc.vm.launch(net.manager, { id = "plain", network = true }))
    local second = launch(net, "second")
    must(second:detach())
    local before = guests.ruleset(net)
    helper.expect(look(), "ok", "the NAT of the VMs that run, 2 interfaces")
    assert.is_nil(must(first:info()).warnings)
    assert.are.same({}, command.json(net, "net", "show").nat_missing)
    assert.are.same({}, command.json(net, "net", "up").nat_put_back)
    flush(net)
    local check = helper.expect(look(), "fail", "ruleset): first, second can't reach the world")
    assert.is_truthy(check.fix:find("fcproc net up", 1, true))
    assert.is_nil(must(plain:info()).warnings)
    local warning = must(first:info()).warnings[1]
    assert.are.equal("nat", warning.name)
    assert.is_truthy(warning.message:find(MISSING, 1, true))
    assert.is_truthy(command.ok(net, "info", "second"):find(MISSING, 1, true))
    assert.are.equal("nat", command.json(net, "info", "second").warnings[1].name)
    local shown = command.ok(net, "net", "show")
    assert.is_truthy(shown:find("NAT MISSING", 1, true))
    assert.is_truthy(shown:find("fcproc net up puts them back", 1, true))
    assert.are.equal(2, #command.json(net, "net", "show").nat_missing)
    assert.are.equal("", guests.ruleset(net)) -- all of this has only looked
    local done = command.ok(net, "net", "up")
    assert.is_truthy(done:find("first: its NAT by up0 was missing, and is back\n", 1, true))
    assert.is_truthy(done:find("second: its NAT by up0 was missing, and is back\n", 1, true))
    assert.are.equal(before, guests.ruleset(net))
    helper.expect(look(), "ok", "2 interfaces")
    assert.is_nil(must(first:info()).warnings)
    must(must(fcproc.vm.adopt(net.manager, "second")):kill())
  end)

  it("comes back with the next VM that has NAT, also with one of a fleet", function()
    local net <close> = guests.network()
    local first <close> = launch(net, "first")
    flush(net)
    do
      local plain <close> = must(fcproc.vm.launch(net.manager, { id = "plain", network = true }))
      assert.are.equal("first", missing(net))
      assert.is_truthy(plain)
    end
    local second <close> = launch(net, "second")
    assert.are.same({ "first second", "" }, { held(net), missing(net) })
    flush(net)
    local fleet = must(fcproc.vm.launch_all(net.manager, { { id = "a", network = { nat = "up0" } },
      { id = "b", network = { nat = "up0" } }, { id = "c", network = { nat = "up0" } } }))
    assert.are.same({ "a b c first second", "" }, { held(net), missing(net) })
    must(fcproc.vm.stop_all(fleet, { { "sigkill", 5 } }))
    must(first:kill())
    must(second:kill())
    assert.are.equal("", guests.ruleset(net))
  end)

  it("does not come back of a VM that is dead, on another bridge, or in another namespace", function()
    local net <close> = guests.network()
    local vm = launch(net, "first")
    local record = vm:record()
    assert.is_truthy(record.process or record.launcher)
    flush(net)
    local c = net.manager.config
    local other <close> = must(fcproc.new{ bridge_name = "fcbr9", bridge_ip = "172.31.0.1", cidr = 24,
      runtime_dir = c.runtime_dir, netns = net.netns })
    must(other:ensure_bridge())
    assert.are.same({}, must(fcproc.vm.missing_nat(other)))
    assert.are.same({}, must(fcproc.vm.ensure_nat(other)))
    local netns <close> = must(fcproc.new_netns())
    local elsewhere <close> = must(fcproc.new{ bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24,
      runtime_dir = c.runtime_dir, netns = netns })
    must(elsewhere:ensure_bridge())
    assert.are.same({}, must(fcproc.vm.ensure_nat(elsewhere)))
    local process <close> = must(fcproc.process(vm:pid()))
    must(vm:detach())
    must(process:signal("KILL"))
    must(process:wait(5))
    assert.are.same({}, must(fcproc.vm.ensure_nat(net.manager)))
    assert.are.equal("", guests.ruleset(net))
    assert.are.same({ "first" }, must(fcproc.vm.reclaim(net.manager)).reclaimed)
  end)

  it("goes again when its VM was removed while it came back", function()
    local net <close> = guests.network()
    local vm, staying <close> = launch(net, "going"), launch(net, "staying")
    flush(net)
    local manager <close> = interrupted(net, function() must(vm:kill()) end)
    assert.are.equal(2, #must(fcproc.vm.ensure_nat(manager)))
    assert.are.equal("staying", held(net))
    assert.is_truthy(staying)
  end)

  it("stays when a new VM of that id was there before it came back", function()
    local net <close> = guests.network()
    local vm, again = launch(net, "same"), nil
    flush(net)
    local manager <close> = interrupted(net, function()
      must(vm:kill())
      again = launch(net, "same")
    end)
    must(fcproc.vm.ensure_nat(manager))
    assert.are.same({ "same", "" }, { held(net), missing(net) })
    must(again:kill())
    assert.are.equal("", guests.ruleset(net))
  end)

  it("goes again of a VM that ended while a launch brought it back, and keeps no address from a new one",
    function()
      local net <close> = guests.network()
      local vm = launch(net, "going")
      flush(net)
      local manager <close> = interrupted(net, function() must(vm:kill()) end)
      local next_one <close> = must(fcproc.vm.launch(manager, { id = "next", network = { nat = "up0" } }))
      assert.are.equal("next", held(net))
      -- One that nobody could remove at once.
      must(nat.add(net.manager, guests.entry_of(77, { id = "ghost" })))
      local third <close> = launch(net, "third", { address = "172.30.0.77" })
      assert.are.equal("next third", held(net))
      assert.is_truthy(next_one and third)
    end)
end)
