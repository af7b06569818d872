-- Many VMs at once, in each loop: all of them, or none.

local support = require "spec.support"
local vms = require "spec.support.vms"
local cjson = require "cjson"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

-- Runs the function where the waiter's loop runs.
local loops = {
  poll = function(fn) fn() end,
  cqueues = function(fn)
    local loop = require("cqueues").new()
    loop:wrap(fn)
    assert(loop:loop())
  end,
  luv = function(fn)
    local ok, err = true, nil
    coroutine.wrap(function() ok, err = pcall(fn) end)()
    require("luv").run()
    if not ok then error(err, 0) end
  end,
}

describe("a fleet", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  setup(function() -- luv's own loop keeps its descriptors
    local uv = require "luv"
    local timer = uv.new_timer()
    timer:start(1, 0, function() timer:close() end)
    uv.run()
  end)

  local function fleet(n)
    local list = {}
    for i = 1, n do list[i] = { id = "fleet-" .. i, network = true } end
    return list
  end

  for name, loop in pairs(loops) do
    it("asks once what keeps its guests in, and tells each VM, under " .. name, function()
      local asked, dry, told = 0, "nft --check -f -", 0
      local config = world.manager.config
      local manager <close> = must(fcproc.new{ bridge_name = config.bridge_name,
        bridge_ip = config.bridge_ip, cidr = config.prefix, netns = config.netns,
        runtime_dir = config.runtime_dir, firecracker_bin = config.firecracker_bin,
        logger = function(level) told = told + (level == "warn" and 1 or 0) end,
        runner = { run = function(_, argv, opts, ctx)
          if table.concat(argv, " ") == dry then asked = asked + 1 end
          return fcproc.runner():run(argv, opts, ctx)
        end } })
      support.sh({ "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1" },
        { netns = world.netns })
      local list = fleet(5)
      for i, spec in ipairs(list) do spec.network = { nat = i < 5 and "up0" or "up1" } end
      loop(function()
        local ctx <close> = must(fcproc.context{ waiter = name })
        local all = must(fcproc.vm.launch_all(manager, list, nil, ctx))
        assert.are.equal(2, asked)
        for i, vm in ipairs(all) do
          local warnings = must(vm:info(ctx)).warnings
          local found = {}
          for _, warning in ipairs(warnings) do found[warning.name] = warning.message end
          assert.is_truthy(found.uplink:find(i < 5 and "up0" or "up1", 1, true))
          told = told - #warnings
        end
        assert.are.equal(0, told)
        must(fcproc.vm.stop_all(all, { { "sigkill", 5 } }, ctx))
      end)
      support.ip(world.netns, "link", "delete", "up0")
    end)

    it("of 20 comes up and goes, under " .. name, function()
      loop(function()
        local ctx <close> = must(fcproc.context{ waiter = name })
        local all = must(fcproc.vm.launch_all(world.manager, fleet(20), name == "luv" and 4 or nil, ctx))
        assert.are.equal(20, #all)
        local addresses = {}
        for i, vm in ipairs(all) do
          assert.are.equal("fleet-" .. i, vm.id)
          assert.is_nil(addresses[vm:address()])
          addresses[vm:address()] = true
        end
        assert.is_true(support.pings(world.netns, all[20]:address()))
        local reports = must(fcproc.vm.stop_all(all, nil, ctx))
        assert.are.equal(20, #reports)
        for _, report in ipairs(reports) do assert.are.equal("exited", report.outcome) end
        vms.nothing_left(world)
      end)
    end)

    it("of which one fails is removed, under " .. name, function()
      loop(function()
        local ctx <close> = must(fcproc.context{ waiter = name })
        local list = fleet(6)
        list[4].hooks = { after_network = function() return nil, "not this one" end }
        local err = fails("invalid", fcproc.vm.launch_all(world.manager, list, 2, ctx))
        assert.is_truthy(err.message:find("not this one", 1, true))
        vms.nothing_left(world)
      end)
    end)
  end

  it("that is cancelled on its way is removed", function()
    local ctx <close> = must(fcproc.context())
    local list, up = fleet(6), 0
    for _, spec in ipairs(list) do
      spec.hooks = { after_start = function()
        up = up + 1
        if up == 3 then ctx:cancel() end
      end }
    end
    fails("cancelled", fcproc.vm.launch_all(world.manager, list, 2, ctx))
    vms.nothing_left(world)
    -- The same where the cancelled context is the default one, of the run around it.
    up, list = 0, fleet(6)
    local results
    results = fcproc.run{ function(run_ctx)
      for _, spec in ipairs(list) do
        spec.hooks = { after_start = function()
          up = up + 1
          if up == 3 then run_ctx:cancel() end
        end }
      end
      return fcproc.vm.launch_all(world.manager, list, 2)
    end }
    fails("cancelled", results[1][1], results[1][2])
  end)

  it("whose hook raises is removed, and the error raised again", function()
    local list = fleet(4)
    list[3].hooks = { before_start = function() error("my hook broke") end }
    support.raises("my hook broke", fcproc.vm.launch_all, world.manager, list)
  end)

  it("has the mistakes of any of its specs told", function()
    local list = fleet(2)
    list[2].vcpus = 0
    local err = fails("invalid", fcproc.vm.launch_all(world.manager, list))
    assert.is_truthy(err.message:find("vcpus: 0 is out of range", 1, true))
    assert.are.same({}, must(fcproc.vm.launch_all(world.manager, {})))
    assert.are.same({}, must(fcproc.vm.stop_all({})))
    support.raises("list must be a table", fcproc.vm.launch_all, world.manager, 1)
    support.raises("vm:stop", fcproc.vm.stop_all, {}, { { "nothing", 1 } })
  end)

  it("is stopped by its ladder, each VM as it needs", function()
    local list = fleet(4)
    list[2].boot_args = "fcproc.ignore_cad"
    local all = must(fcproc.vm.launch_all(world.manager, list))
    must(all[3].machine.process:signal("KILL"))
    must(all[3]:wait(10))
    must(all[4]:stop())
    for _, vm in ipairs{ all[1], all[2] } do must(must(vm:console()):wait_for("ready", 10)) end
    local reports = must(fcproc.vm.stop_all(all, { { "ctrl_alt_del", 1 }, { "sigkill", 5 } }))
    local steps = {}
    for i, report in ipairs(reports) do steps[i] = report.step end
    assert.are.same({ "ctrl_alt_del", "sigkill", "gone", all[4].report.step }, steps)
    assert.are.same(reports, must(fcproc.vm.stop_all(all)))
  end)

  it("is asked all at once, but for one with a hook; one that hangs holds up none", function()
    local list, order = fleet(6), {}
    list[2].hooks = { before_stop = function(vm) order[#order + 1] = vm.machine.process:alive() end }
    local all = must(fcproc.vm.launch_all(world.manager, list))
    for _, vm in ipairs(all) do must(must(vm:console()):wait_for("ready", 10)) end
    must(all[3].machine.process:signal("STOP"))
    local reports = must(fcproc.vm.stop_all(all, { { "ctrl_alt_del", 1 }, { "sigkill", 5 } }))
    assert.are.same({ true }, order)
    for i, report in ipairs(reports) do
      local wanted = i == 3 and "sigkill" or "ctrl_alt_del"
      assert.are.equal(wanted, report.step)
      assert.are.equal(i ~= 3 and 1 or nil, report.steps[1].sent)
    end
    assert.are.equal("timeout", reports[3].steps[1].outcome)
  end)

  it("may name a VM twice, and be stopped by several at once", function()
    local all = must(fcproc.vm.launch_all(world.manager, fleet(3)))
    local a, b, c = all[1], all[2], all[3]
    local results = fcproc.run{
      function() return fcproc.vm.stop_all{ a, b, a } end,
      function() return fcproc.vm.stop_all{ b, c, b } end,
      function() return a:stop() end,
      function() return c:kill() end,
    }
    for _, result in ipairs(results) do must(result[1], result[2]) end
    local one, two = results[1][1], results[2][1]
    assert.are.same({ 3, 3 }, { #one, #two })
    assert.are.equal(one[1], one[3])
    assert.are.equal(one[2], two[1])
    assert.are.equal(one[1], results[3][1])
    assert.are.equal(two[2], results[4][1])
  end)

  it("runs beside other work in one fcproc.run", function()
    local results = fcproc.run{
      function()
        local vm <close> = vms.ready(world, { id = "one", network = true })
        return support.pings(world.netns, vm:address())
      end,
      function()
        local all = must(fcproc.vm.launch_all(world.manager, fleet(5), 2))
        return #must(fcproc.vm.stop_all(all))
      end,
      function() return must(fcproc.runner():run{ "echo", "beside" }).stdout end,
    }
    assert.are.same({ true, 5, "beside\n" }, { results[1][1], results[2][1], results[3][1] })
  end)

  -- In a process of its own, which a shell has given few descriptors.
  local function with_descriptors(most, count)
    local script = ([[
      local fcproc = require "fcproc"
      local list = {}
      for i = 1, %d do list[i] = { id = "f" .. i, network = true } end
      local config = require("fcproc.json").plain(require("cjson").decode(%q))
      local manager <close> = assert(fcproc.new(config))
      local fleet, err = fcproc.vm.launch_all(manager, list, 8)
      if not fleet then
        local left = err.left and err.left[1]
        return print("launch", err.errno, left and left.what .. ": " .. tostring(left.err))
      end
      local reports, failure = fcproc.vm.stop_all(fleet)
      print("stop", reports and #reports, failure)
    ]]):format(count, cjson.encode(support.config(world)))
    -- An ordinary user's hard limit is one for all of his managers, too: unix(7), ETOOMANYREFS.
    local line = ('ulimit %s %d && exec "$1" -e "$2"'):format(support.rootless and "-Sn" or "-n", most)
    return must(fcproc.runner():run({ "sh", "-c", line, "sh", support.lua, script },
      { timeout = 60 })).stdout
  end

  it("is stopped also where there are too few descriptors to stop all at once", function()
    assert.are.equal("stop\t25\tnil\n", with_descriptors(support.rootless and 130 or 100, 25))
    vms.nothing_left(world)
  end)

  it("leaves nothing when it needs more descriptors than there are", function()
    assert.are.equal("launch\t24\tnil\n", with_descriptors(64, 50))
    vms.nothing_left(world)
  end)
end)
