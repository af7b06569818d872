-- Forces the reuse of a pid and shows that the stranger who got it is safe. Run inside a PID
-- namespace of its own (unshare --pid --fork --mount-proc), where ns_last_pid may be written:
-- reuse.lua FIRECRACKER FOLDER. Prints "ok".

local fcproc = require "fcproc"
local take_number = require "spec.support.number"

local firecracker, folder = arg[1], arg[2]
local sock = folder .. "/api.sock"
local manager = assert(fcproc.new{ firecracker_bin = firecracker, runtime_dir = folder })

local function spawn(argv)
  return assert(fcproc.spawn(argv, { stdout = "null", stderr = "null" }))
end

local vm = spawn{ firecracker, "--api-sock", sock }
local pid, identity = vm:pid(), assert(vm:identity())
assert(manager:wait_for_socket(sock))
assert(manager:find_pid(sock) == pid)
assert(assert(fcproc.process(identity)):recorded())
assert(manager:kill(pid, sock))
assert(manager:wait_for_exit(vm, sock, 10)) -- reaps it: the number is free

local stranger = take_number(pid)

do -- the handle of the dead one has no identity, least of all the stranger's
  local none, err = vm:identity()
  assert(not none and err == fcproc.ERR_NOT_FOUND, tostring(err))
end

local _, err = manager:kill(pid, sock)
assert(err == fcproc.ERR_NOT_SAME_PROCESS, tostring(err))
_, err = manager:kill(pid)
assert(err == fcproc.ERR_NOT_SAME_PROCESS, tostring(err))
assert(manager:kill(vm)) -- the handle means the dead one: gone already
_, err = fcproc.process(identity)
assert(err == fcproc.ERR_NOT_FOUND, tostring(err))
local started = fcproc.now()
for _, path in ipairs{ sock, false } do -- the number alone may be the VM's or not
  _, err = manager:wait_for_exit(pid, path or nil, 30)
  assert(err == fcproc.ERR_NOT_SAME_PROCESS, tostring(err))
end
assert(manager:wait_for_exit(vm, sock, 30))
assert(manager:wait_for_exit(identity, sock, 30)) -- is another's number now: it is gone
assert(manager:kill(identity))
assert(fcproc.now() - started < 10)
local resolved
resolved, err = manager:resolve_pid({ pid = function() return pid end }, sock)
assert(resolved == 0 and err == fcproc.ERR_NOT_SAME_PROCESS, tostring(err))
assert(manager:resolve_pid(vm, sock) == 0)
assert(not manager:find_pid(sock))
assert(stranger:alive())
stranger:signal("KILL")
stranger:wait(5)
print("ok")
