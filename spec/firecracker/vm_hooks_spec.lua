-- The hooks of a spec: their order, what they get, and what a failing or raising one leaves: nothing.

local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local STEPS = { "prepare", "drives", "network", "start", "stop", "cleanup" }

describe("a VM's hooks", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  -- Hooks that write their names into the list; the one that is named does as it is told.
  local function hooks(list, special, action)
    local all = {}
    for _, step in ipairs(STEPS) do
      for _, kind in ipairs{ "before_", "after_", "on_failure_" } do
        local name = kind .. step
        all[name] = function(vm, ctx, err)
          list[#list + 1] = name
          if name == special then return action(vm, ctx, err) end
        end
      end
    end
    return all
  end

  it("are called in the order of the steps, and see what is there", function()
    local list = {}
    local all, seen = hooks(list), {}
    function all.before_prepare(vm)
      list[#list + 1] = "before_prepare"
      seen.folder = core.stat(vm.journal.folder) ~= nil
    end
    function all.after_network(vm, ctx)
      list[#list + 1] = "after_network"
      local tap = vm:record().taps[1].name
      for _, link in ipairs(support.ip(world.netns, "link")) do
        if link.ifname == tap then seen.tap = true end
      end
      seen.ctx = ctx
    end
    function all.after_start(vm, ctx)
      list[#list + 1] = "after_start"
      must(must(vm:console()):wait_for("ready", 10, ctx))
      seen.pings = support.pings(world.netns, vm:address())
    end
    function all.after_stop(vm)
      list[#list + 1] = "after_stop"
      seen.alive = vm.machine.process:alive()
    end
    local ctx <close> = must(fcproc.context())
    local vm <close> = must(fcproc.vm.launch(world.manager, { network = true, hooks = all }, ctx))
    must(vm:stop())
    assert.are.equal("before_prepare after_prepare before_drives after_drives before_network "
      .. "after_network before_start after_start before_stop after_stop before_cleanup after_cleanup",
      table.concat(list, " "))
    assert.are.same({ folder = true, tap = true, pings = true, alive = false, ctx = ctx }, seen)
  end)

  it("that fail end the launch, with their error and step, and nothing is left", function()
    for i = 1, 4 do
      for _, kind in ipairs{ "before_", "after_" } do
        local list, name = {}, kind .. STEPS[i]
        local err = fails("invalid", fcproc.vm.launch(world.manager, { network = true,
          hooks = hooks(list, name, function() return nil, "no luck" end) }))
        assert.are.equal(STEPS[i], err.step)
        assert.are.equal(("the hook %s failed: no luck"):format(name), err.message)
        assert.are.equal("on_failure_" .. STEPS[i], list[#list])
        assert.are.equal(name, list[#list - 1])
        vms.nothing_left(world)
      end
    end
  end)

  it("may fail with an error value, which comes back as it is", function()
    local mine = errors.new{ code = "busy", op = "mine", message = "busy here" }
    local got
    local all = { after_drives = function() return nil, mine end,
      on_failure_drives = function(_, _, err) got = err end }
    local err = fails("busy", fcproc.vm.launch(world.manager, { hooks = all }))
    assert.are.equal(mine, err)
    assert.are.equal(mine, got)
  end)

  it("that raise are raised again, once all has been removed", function()
    for i = 1, 4 do
      for _, kind in ipairs{ "before_", "after_" } do
        support.raises("my hook broke", fcproc.vm.launch, world.manager, { network = true,
          hooks = hooks({}, kind .. STEPS[i], function() error("my hook broke") end) })
        vms.nothing_left(world)
      end
    end
    support.raises("so did this", fcproc.vm.launch, world.manager, { network = true, hooks = {
      before_start = function() return nil, "no" end,
      on_failure_start = function() error("so did this") end } })
  end)

  it("may cancel the launch", function()
    local ctx <close> = must(fcproc.context())
    fails("cancelled", fcproc.vm.launch(world.manager, { network = true,
      hooks = { after_network = function() ctx:cancel() end } }, ctx))
  end)

  it("of a stop that fail keep the VM, which can be stopped again", function()
    local broken = true
    local vm <close> = vms.ready(world, { id = "kept", network = true, hooks = {
      before_stop = function() if broken then return nil, "not yet" end end } })
    local err = fails("invalid", vm:stop())
    assert.are.equal("stop", err.step)
    assert.is_true(support.pings(world.netns, vm:address()))
    broken = false
    must(vm:stop())
  end)

  it("of a stop that raise leave it to be stopped again, also by one that waited", function()
    local broken = true
    local vm <close> = vms.ready(world, { id = "kept", network = true, hooks = { before_stop = function()
      fcproc.runner():run{ "sleep", "0.02" }
      if broken then error("not now") end
    end } })
    local results = fcproc.run{
      function() return pcall(vm.stop, vm) end,
      function() return vm:stop() end,
    }
    assert.is_false(results[1][1])
    assert.is_truthy(tostring(results[1][2]):find("not now", 1, true))
    local err = results[2][2]
    assert.is_truthy(err.message:find("was left by an error; try again", 1, true))
    broken = false
    must(vm:stop())
  end)

  it("of a clean-up that fail keep what was made, for the next stop", function()
    local broken = true
    local vm <close> = vms.ready(world, { network = true, hooks = {
      before_cleanup = function() if broken then return nil, "not yet" end end } })
    fails("invalid", vm:stop())
    assert.are.equal("dead", must(vm:info()).state)
    broken = false
    assert.are.equal("gone", must(vm:stop()).step)
  end)

  it("after a clean-up can't bring anything back", function()
    local vm <close> = vms.ready(world, { network = true, hooks = {
      after_cleanup = function() return nil, "too late" end } })
    local err = fails("invalid", vm:stop())
    assert.are.equal("cleanup", err.step)
    vms.nothing_left(world)
    assert.are.equal("exited", must(vm:stop()).outcome)
  end)

  it("do not keep a VM alive that is killed, or goes out of scope", function()
    local calls = 0
    for _, hook in ipairs{ function() return nil, "no" end, function() error("no") end } do
      for _, name in ipairs{ "before_stop", "after_stop", "before_cleanup" } do
        local function count(...)
          calls = calls + 1
          return hook(...)
        end
        local pid
        do
          local vm <close> = vms.ready(world, { id = "closed", hooks = { [name] = count } })
          pid = vm:pid()
        end
        assert.is_nil(fcproc.process(pid), name)
        local vm <close> = vms.ready(world, { id = "killed", hooks = { [name] = count } })
        assert.are.equal("sigkill", must(vm:kill()).step)
        fails("closed", vm:pid())
        vms.nothing_left(world)
      end
    end
    assert.are.equal(12, calls)
  end)
end)
