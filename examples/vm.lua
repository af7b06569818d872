-- A VM's whole life: launched from a spec with a network, pinged, snapshotted, cloned, stopped.
-- Run as root, or as a user of the group kvm. It works in a network namespace and a folder of its own,
-- and leaves nothing.
--
--     lua5.4 examples/vm.lua

local fcproc = require "fcproc"

local DIR = assert(fcproc.runtime_dir()) .. "-vm"

-- Something to do at the end of the block, however it is left.
local function finally(fn)
  return setmetatable({}, { __close = fn })
end

local function main()
  -- An ordinary user may make none here: his manager has one of his own.
  local own <close>, refused = fcproc.new_netns()
  local manager <close> = assert(fcproc.new{
    bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24, runtime_dir = DIR, netns = own,
  })
  assert(own or manager.config.privilege == "rootless", refused)
  local _ <close> = finally(function() manager.runner:run{ "rm", "-rf", DIR } end)
  local ctx <close> = assert(fcproc.context{ timeout = 60 }) -- for everything together

  -- No kernel: the built-in guest. network = true: a free address, a TAP on the bridge.
  local vm <close> = assert(fcproc.vm.launch(manager, { id = "first", vcpus = 1, network = true }, ctx))
  print(("%s runs: pid %d, address %s"):format(vm.id, vm:pid(), vm:address()))
  assert(assert(vm:console()):wait_for("fcproc guest: ready", 10, ctx))

  local ping = assert(manager.runner:run({ "ping", "-c", "1", "-W", "5", vm:address() },
    { netns = manager.config.netns }, ctx))
  print(ping.stdout:match("%d+ bytes from [^\n]+"))

  -- A snapshot, and the VM goes on. A clone has its address, so first the original is stopped.
  local manifest = assert(vm:snapshot(DIR .. "/.snapshot", nil, ctx))
  print(("a snapshot of %d MiB, by Firecracker %s"):format(manifest.mem_mib,
    manifest.firecracker.version))
  local report = assert(vm:stop(nil, ctx))
  print(("%s: %s by %s, status %d"):format(vm.id, report.outcome, report.step, report.exit.status))

  local clone <close> = assert(fcproc.vm.restore(manager, DIR .. "/.snapshot", { id = "clone" }, ctx))
  print(("%s runs: pid %d, address %s"):format(clone.id, clone:pid(), clone:address()))
  assert(manager.runner:run({ "ping", "-c", "1", "-W", "5", clone:address() },
    { netns = manager.config.netns }, ctx))
  -- Our own ladder: what is tried, and for how long.
  report = assert(clone:stop({ { "ctrl_alt_del", 10 }, { "sigkill", 5 } }, ctx))
  print(("%s: %s by %s"):format(clone.id, report.outcome, report.step))
end

local ok, err = pcall(main)
if not ok then
  io.stderr:write("vm: ", tostring(err), "\n")
  os.exit(1)
end
