-- A Linux guest and its managers: it outlives each, goes on when one is killed, and is only removed
-- when it is dead.

local support = require "spec.support"
local linux = require "spec.support.linux"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local ID = "kept"

-- A process with a manager of its own in the world's namespace; see manager.lua.
local function start(world, what)
  return must(fcproc.spawn({ support.lua, "spec/support/linux/manager.lua",
    world.manager.config.runtime_dir, ID, what }, { netns = world.netns }))
end

-- The guest says another number than it has.
local function goes_on(vm)
  local text, last = must(must(vm:console()):read()), 0
  for number in text:gmatch("linux guest: count (%d+)\n") do last = tonumber(number) end
  linux.wait_for(vm, ("linux guest: count %d"):format(last + 1))
end

local function adopt(world) return must(fcproc.vm.adopt(world.manager, ID)) end

describe("a Linux guest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("outlives its managers, and is reclaimed once it is dead", function()
    local world <close> = support.world()
    do
      local launcher <close> = start(world, "detach")
      local gone, exit = launcher:wait(linux.TIMEOUT)
      assert.is_true(gone)
      assert.are.same({ status = 0 }, exit)
    end
    -- Whatever fails, the VM does not outlive the test.
    local _ <close> = setmetatable({}, { __close = function()
      local vm = fcproc.vm.adopt(world.manager, ID)
      if vm then vm:kill() end
    end })
    local pid, address
    do
      local vm = adopt(world)
      goes_on(vm)
      pid, address = vm:pid(), vm:address()
      must(vm:detach())
    end
    do
      local holder <close> = start(world, "stay")
      must(world.manager:wait_for_path(world.manager.config.runtime_dir .. ".held", linux.TIMEOUT))
      fails("busy", fcproc.vm.adopt(world.manager, ID))
      must(holder:signal("KILL"))
      must(holder:wait(linux.TIMEOUT))
    end
    assert.are.same({ ID }, must(fcproc.vm.reclaim(world.manager)).alive)
    assert.is_true(support.pings(world.netns, address))
    do
      local vm = adopt(world)
      assert.are.equal(pid, vm:pid())
      goes_on(vm)
      must(vm.machine.process:signal("KILL")) -- behind the manager's back
      must(vm:wait(linux.TIMEOUT))
      must(vm:detach())
    end
    fails("not_found", fcproc.vm.adopt(world.manager, ID))
    assert.are.same({ ID }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    linux.nothing_left(world)
  end)
end)
