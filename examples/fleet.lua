-- Twenty VMs at once on one bridge, each pinged, all stopped together.
-- Run as root, or as a user of the group kvm. It works in a network namespace and a folder of its own,
-- and leaves nothing.
--
--     lua5.4 examples/fleet.lua [how many]

local fcproc = require "fcproc"

collectgarbage("generational") -- a fleet makes much that is soon of no use

local DIR = assert(fcproc.runtime_dir()) .. "-fleet"
local AT_ONCE = 8 -- more at a time than there are CPUs gains little

-- Something to do at the end of the block, however it is left.
local function finally(fn)
  return setmetatable({}, { __close = fn })
end

local function timed(text, fn)
  local started = fcproc.now()
  local result = assert(fn())
  print(("%8.1f ms  %s"):format((fcproc.now() - started) * 1000, text))
  return result
end

local function main(count)
  -- An ordinary user may make none here: his manager has one of his own.
  local own <close>, refused = fcproc.new_netns()
  local manager <close> = assert(fcproc.new{
    bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24, runtime_dir = DIR, netns = own,
  })
  assert(own or manager.config.privilege == "rootless", refused)
  local _ <close> = finally(function() manager.runner:run{ "rm", "-rf", DIR } end)
  local ctx <close> = assert(fcproc.context{ timeout = 120 })

  local specs = {}
  for i = 1, count do specs[i] = { id = "vm-" .. i, network = true } end
  -- All or none: when one can't start, those that did are removed again.
  local vms = timed(("launch %d VMs"):format(count), function()
    return fcproc.vm.launch_all(manager, specs, AT_ONCE, ctx)
  end)
  -- They end with this block, whatever happens in it.
  local _ <close> = finally(function()
    for _, vm in ipairs(vms) do vm:kill() end
  end)

  timed("each answers a ping", function()
    local pings = { limit = AT_ONCE }
    for i, vm in ipairs(vms) do
      pings[i] = function(run_ctx)
        assert(assert(vm:console()):wait_for("fcproc guest: ready", 30, run_ctx))
        assert(manager.runner:run({ "ping", "-c", "1", "-W", "5", vm:address() },
          { netns = manager.config.netns }, run_ctx))
      end
    end
    return fcproc.run(pings, ctx)
  end)

  local reports = timed("stop them all", function() return fcproc.vm.stop_all(vms, nil, ctx) end)
  local by_step = {}
  for _, report in ipairs(reports) do by_step[report.step] = (by_step[report.step] or 0) + 1 end
  for step, n in pairs(by_step) do print(("             %d ended by %s"):format(n, step)) end
  print(("             %d VMs are left"):format(#assert(fcproc.vm.list(manager, ctx))))
end

local ok, err = pcall(main, math.tointeger(tonumber(arg and arg[1])) or 20)
if not ok then
  io.stderr:write("fleet: ", tostring(err), "\n")
  os.exit(1)
end
