-- Launches that end too early: cancelled at any moment, or with Firecracker killed or stuck. Whenever
-- it happens, nothing is left.

local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

describe("a launch", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  -- A full spec, so that there is much to leave behind.
  local function spec(boot)
    return { id = "short", network = { {}, {} }, boot = boot, vsock = { cid = 3 },
      drives = { { path = vms.disk(world, "disk", "x"), copy = "sparse" } } }
  end

  it("with a deadline of any length is whole, or leaves nothing", function()
    local ended = {}
    for _, boot in ipairs{ "config_file", "api" } do
      for milliseconds = 0, 60, 3 do
        local ctx <close> = must(fcproc.context{ timeout = milliseconds / 1000 })
        local vm <close>, err = fcproc.vm.launch(world.manager, spec(boot), ctx)
        if vm then
          must(vm:kill())
        else
          fails("deadline", nil, err)
          ended[err.step or "none"] = true
        end
        vms.nothing_left(world)
      end
    end
    assert.is_true(ended.none)
    assert.is_true(ended.start)
  end)

  it("that is cancelled by another coroutine leaves nothing", function()
    for _, pause in ipairs{ 0.001, 0.005, 0.01, 0.02 } do
      local ctx <close> = must(fcproc.context())
      local results = fcproc.run{
        function() return fcproc.vm.launch(world.manager, spec(), ctx) end,
        function()
          fcproc.runner():run{ "sleep", tostring(pause) }
          ctx:cancel()
        end,
      }
      local vm <close>, err = results[1][1], results[1][2]
      if not vm then fails("cancelled", nil, err) else must(vm:kill()) end
      vms.nothing_left(world)
    end
  end)

  it("in a context that has ended makes nothing", function()
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", fcproc.vm.launch(world.manager, spec(), ctx))
    fails("cancelled", fcproc.vm.list(world.manager, ctx))
    fails("cancelled", fcproc.vm.reclaim(world.manager, ctx))
    fails("cancelled", fcproc.vm.adopt(world.manager, "short", ctx))
    if not support.rootless then assert.is_nil(core.stat(world.folder:file("run"))) end
    vms.nothing_left(world)
  end)

  it("whose Firecracker is killed meanwhile tells by what", function()
    for _, boot in ipairs{ "config_file", "api" } do
      for _, signal in ipairs{ "KILL", "TERM" } do
        local all = spec(boot)
        local function kill(vm)
          local identity = vm:record().launcher
          local process <close> = must(fcproc.process(identity))
          process:signal(signal)
        end
        -- The hook that sees the process before the launch has ended is the journal's own log.
        local vm_seen
        all.hooks = { before_start = function(vm) vm_seen = vm end }
        local manager <close> = must(fcproc.new{ runtime_dir = world.folder:file("run"),
          bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24, netns = world.netns,
          firecracker_bin = support.firecracker(),
          logger = function(_, message, fields)
            if message == "journal written" and fields.state == "starting" then kill(vm_seen) end
          end })
        local err = fails("exit_status", fcproc.vm.launch(manager, all))
        assert.are.equal("start", err.step)
        assert.are.equal(signal == "KILL" and 9 or 15, err.signal)
        assert.is_truthy(err.message:find("SIG" .. signal, 1, true), err.message)
        vms.nothing_left(world)
      end
    end
  end)

  it("whose Firecracker never listens ends with its own time-out", function()
    local deaf = world.folder:file("deaf")
    support.write_file(deaf, "#!/bin/sh\nexec sleep 60\n")
    support.sh{ "chmod", "755", deaf }
    local manager <close> = must(fcproc.new{ runtime_dir = world.folder:file("run"),
      firecracker_bin = deaf })
    local err = fails("deadline", fcproc.vm.launch(manager, { timeout = 0.1 }))
    assert.are.equal("start", err.step)
    assert.is_truthy(err.message:find("api socket not ready", 1, true), err.message)
  end)

  it("whose program is no Firecracker shows what it said", function()
    for text, wanted in pairs{ ["echo 'wrong Error: shelf' >&2; exit 3"] = "3: ", ["exit 0"] = "0: ",
      ["kill -SEGV $$"] = "SIGSEGV" } do
      local strange = world.folder:file("strange")
      support.write_file(strange, "#!/bin/sh\n" .. text .. "\n")
      support.sh{ "chmod", "755", strange }
      local manager <close> = must(fcproc.new{ runtime_dir = world.folder:file("run"),
        firecracker_bin = strange })
      local err = fails("exit_status", fcproc.vm.launch(manager, {}))
      assert.is_truthy(err.message:find("start: " .. wanted, 1, true), err.message)
      assert.is_truthy(err.message:find("firecracker_bin: " .. strange, 1, true), err.message)
      if wanted == "3: " then
        assert.is_truthy(err.message:find("wrong Error: shelf", 1, true), err.message)
        assert.is_truthy(err.output:find("wrong Error: shelf", 1, true))
      end
    end
  end)

  it("survives the stop of a VM that hangs: the request's outcome is unknown, then it works again", function()
    local vm <close> = vms.ready(world, { network = true })
    local machine, endpoints = vm.machine, require "fcproc.machine.endpoints"
    must(machine.process:signal("STOP"))
    local limit = endpoints.limit
    endpoints.limit = function() return 0.05 end -- seconds, instead of 35
    local restore <close> = setmetatable({}, { __close = function() endpoints.limit = limit end }) -- luacheck: ignore
    local err = fails("wait_timeout", vm:pause())
    assert.are.equal("unknown", err.state)
    assert.is_truthy(err.message:find("the VM's state now: unknown", 1, true), err.message)
    must(machine.process:signal("CONT"))
    endpoints.limit = limit
    -- Firecracker drops a request whose sender has gone, if it has not read it yet.
    local state = must(vm:info()).state
    assert.is_truthy(state == "paused" or state == "running", state)
    must(vm:resume())
    assert.is_true(support.pings(world.netns, vm:address()))
  end)
end)
