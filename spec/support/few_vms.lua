-- The public calls of Lua with 0 to 10 free descriptors, while VMs live: few_vms.lua FOLDER FIRECRACKER,
-- under a low limit of descriptors. Each works, or says that there were too few; none takes a VM that
-- lives for dead. Prints "ok", or what went wrong.

package.path = "./?.lua;" .. package.path
local few = require "spec.support.few"
local fcproc = require "fcproc"
assert(fcproc.doctor) -- loaded, as all the rest

local MOST_FREE = 10

local netns = assert(fcproc.new_netns())
local manager = assert(fcproc.new{ firecracker_bin = arg[2], runtime_dir = arg[1], netns = netns,
  bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24 })
assert(manager:ensure_bridge())
local ours = assert(fcproc.vm.launch(manager, { id = "ours" }))
local free = assert(fcproc.vm.launch(manager, { id = "free", network = true }))
-- Of the same folder, but elsewhere: it must find the VMs' namespace.
local stranger_manager = assert(fcproc.new{ firecracker_bin = arg[2], runtime_dir = arg[1],
  bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24 })
local sock, pid = free.machine.files.socket, free:pid()
local process = assert(fcproc.process(pid))
local identity = assert(process:identity())
local stranger = assert(fcproc.spawn({ "sleep", "600" }, { stdout = "null" }))
assert(free:detach())

-- One who writes to a file that has nothing else to tell of it, as another user.
local drive = arg[1] .. "/.drive"
do
  local file = assert(io.open(drive, "w"))
  file:close()
end
local core = require "fcproc.core"
assert(core.own_file(drive, nil, 64123))
local writer = assert(fcproc.spawn({ "sleep", "600" }, { stdout = { file = drive }, uid = 64123 }))
local drive_stat = assert(core.stat(drive))
local inuse = require "fcproc.resources.inuse"

local function bad_unless(ok, format, ...)
  if not ok then error(format:format(...), 0) end
end

-- Works, or fails for want of descriptors, or as it does with enough of them.
local function right(code, value, err)
  if value ~= nil then return value end
  bad_unless(few.is_shortage(err) or err.code == code, "%s", tostring(err))
end

local function state_of(list, id)
  for _, vm in ipairs(list or {}) do
    if vm.id == id then return vm end
  end
end

-- Lives, or "unknown" for want of descriptors.
local function lives(summary)
  bad_unless(summary and (summary.state == "running" or summary.state == "paused" or few.is_shortage(
    summary.err)), "%s: %s", summary and summary.state, summary and summary.err)
end

local function has(list, id)
  for _, entry in ipairs(list) do
    if entry == id then return true end
  end
end

local function resolved(machine)
  local found, err = manager:resolve_pid(machine, sock)
  bad_unless(found == pid or (found == 0 and few.is_shortage(err)), "%d, %s", found, tostring(err))
end

local function waits(target, path)
  local gone, err = manager:wait_for_exit(target, path, 0.01)
  bad_unless(not gone, "a process that lives is gone")
  right("wait_timeout", nil, err)
end

local function close(handle)
  if handle then handle:close() end
end

-- Closes what a call opened, with descriptors to do it.
local later = {}
local function afterwards(fn) later[#later + 1] = fn end

local calls = {
  { "find_pid", function()
    local found = right(nil, manager:find_pid(sock))
    bad_unless(found == nil or found == pid, "pid %s", found)
  end },
  { "open_process", function() close(right(nil, manager:open_process(sock))) end },
  { "resolve_pid", function() resolved() end },
  { "resolve_pid of a machine", function() resolved{ pid = function() return pid end } end },
  { "process", function()
    close(right(nil, fcproc.process(pid)))
    close(right(nil, fcproc.process(identity)))
    right(nil, process:identity())
    bad_unless(process:alive(), "not alive")
  end },
  { "wait_for_exit", function()
    waits(pid, sock)
    waits(pid)
    waits(process, sock)
  end },
  { "kill of a stranger", function()
    right("not_same_process", manager:kill(stranger:pid(), sock))
    bad_unless(stranger:alive(), "the stranger was killed")
  end },
  { "wait", function() right("wait_timeout", nil, select(2, process:wait(0.01))) end },
  { "spawn", function()
    local child = right(nil, fcproc.spawn({ "true" }, { stdout = "null" }))
    if child then
      afterwards(function()
        assert(child:wait(10))
        child:close()
      end)
    end
  end },
  { "run", function() right(nil, manager.runner:run{ "true" }) end },
  { "binary_version", function() right(nil, manager:binary_version()) end },
  { "sockets and folders", function()
    right(nil, manager:ensure_socket_dir())
    right(nil, manager:ensure_socket_access(sock))
    right(nil, manager:wait_for_socket(sock, 2))
    right(nil, manager:wait_for_path(sock, 2))
  end },
  { "bridge and TAPs", function()
    right(nil, manager:ensure_bridge())
    right(nil, manager:create_tap("tapfew"))
    right(nil, manager:list_taps())
    right(nil, manager:delete_tap("tapfew"))
  end },
  { "list", function()
    local list = right(nil, fcproc.vm.list(manager))
    if list then
      lives(state_of(list, "free"))
      lives(state_of(list, "ours"))
    end
  end },
  { "inspect", function()
    for _, id in ipairs{ "free", "ours" } do
      local info = right(nil, fcproc.vm.inspect(manager, id))
      if info then lives(info) end
    end
  end },
  { "adopt", function()
    right("busy", fcproc.vm.adopt(manager, "ours"))
    local vm = right(nil, fcproc.vm.adopt(manager, "free"))
    if vm then afterwards(function() assert(vm:detach()) end) end
  end },
  { "reclaim", function()
    local report = right(nil, fcproc.vm.reclaim(manager))
    if report then
      bad_unless(not has(report.reclaimed, "free") and not has(report.reclaimed, "ours"),
        "a VM that lives was reclaimed")
      for _, failed in ipairs(report.failed) do right(nil, nil, failed.left[1].err) end
    end
  end },
  { "remove_dead", function()
    bad_unless(not fcproc.vm.remove_dead(manager, "free"), "it was removed")
  end },
  { "vm:info", function()
    local info = right(nil, ours:info())
    if info then lives(info) end
  end },
  { "vm:wait", function()
    local gone, err = ours:wait(0.01)
    bad_unless(not gone, "gone")
    right("wait_timeout", nil, err)
  end },
  { "console and record", function()
    ours:record()
    local console = right(nil, ours:console())
    if console then right(nil, console:read()) end
  end },
  { "pause and resume", function()
    right(nil, ours:pause())
    right(nil, ours:resume())
  end },
  { "snapshot", function()
    local manifest = right(nil, ours:snapshot(arg[1] .. "/.snapshot"))
    if manifest then manager.runner:run{ "rm", "-r", arg[1] .. "/.snapshot" } end
  end },
  { "launch", function()
    local vm = right(nil, fcproc.vm.launch(manager, { id = "new" }))
    -- Of one that failed there may be a rest, for want of descriptors to remove it.
    afterwards(function()
      if vm then assert(vm:kill()) end
      bad_unless(#assert(fcproc.vm.reclaim(manager)).failed == 0, "its rest can't be reclaimed")
    end)
  end },
  { "who has what a lease stands for", function()
    local owner = { manager = manager, folder = arg[1], id = "nobody" }
    for _, name in ipairs{ "uid-64123", ("drive-%d-%d"):format(drive_stat.dev, drive_stat.ino) } do
      bad_unless(inuse.by(name, owner), "nobody has %s", name)
    end
  end },
  { "reclaim of a dead one", function()
    -- Dead, with a TAP in a namespace that another manager has to find.
    afterwards(function()
      local report = assert(fcproc.vm.reclaim(manager))
      bad_unless(#report.failed == 0, "its rest can't be reclaimed")
      local taps = assert(manager:list_taps())
      bad_unless(#taps == 1, "%d TAPs are there, and one VM has one", #taps)
    end)
    local report = right(nil, fcproc.vm.reclaim(stranger_manager))
    for _, failed in ipairs(report and report.failed or {}) do right(nil, nil, failed.left[1].err) end
  end, function()
    local vm = assert(fcproc.vm.launch(manager, { id = "dead", network = true }))
    local vmm = assert(fcproc.process(assert(vm.machine.process:identity())))
    assert(vm:detach())
    assert(vmm:signal("KILL"))
    assert(vmm:wait(10))
    vmm:close()
  end },
  { "doctor", function() fcproc.doctor.run(manager) end },
}

local bad = {}
for _, call in ipairs(calls) do
  for n = 0, MOST_FREE do
    local ctx <close> = assert(fcproc.context{ timeout = 60 })
    if call[3] then call[3]() end
    local ok, problem = few.with(n, call[2], ctx)
    if not ok then bad[#bad + 1] = ("%s with %d free: %s"):format(call[1], n, tostring(problem)) end
    for _, fn in ipairs(later) do fn() end
    later = {}
    if not process:alive() or not ours.machine.process:alive() then
      bad[#bad + 1] = ("%s with %d free ended a VM"):format(call[1], n)
      break
    end
  end
end
for _, one in ipairs{ stranger, writer } do
  one:signal("KILL")
  one:wait(10)
end
local vm = fcproc.vm.adopt(manager, "free")
if not vm then bad[#bad + 1] = "the VM is not to be found any more" end
if vm then vm:kill() end
ours:kill()
manager:close()
stranger_manager:close()
print(#bad == 0 and "ok" or table.concat(bad, "\n"))
