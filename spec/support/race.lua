-- One of many racing processes: waits for the gate (a file), then makes the bridge or a TAP.
-- Run inside the namespace: race.lua GATE bridge|TAPNAME

local fcproc = require "fcproc"

local gate, what = arg[1], arg[2]
local manager = assert(fcproc.new{ bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24 })
assert(manager:wait_for_path(gate, 20))
if what == "bridge" then
  assert(manager:ensure_bridge())
else
  assert(manager:create_tap(what))
end
