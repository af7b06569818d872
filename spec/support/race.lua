-- One of many racing processes, run inside the namespace: tells that it is there by a line in
-- GATE.waiting, waits for the gate (a file), and then does what it is told:
--   race.lua GATE bridge ADDRESS PREFIX    ensures the bridge
--   race.lua GATE tap NAME                 creates the TAP, and fails unless it was new
--   race.lua GATE churn NAME               creates NAME0 to NAME4 and deletes them, five times

local fcproc = require "fcproc"

local gate, what, first, second = table.unpack(arg)
local is_bridge = what == "bridge"
local manager = assert(fcproc.new{ bridge_name = "fcbr0", bridge_ip = is_bridge and first or nil,
  cidr = is_bridge and second or nil })

local waiting = assert(io.open(gate .. ".waiting", "a"))
waiting:write("here\n")
waiting:close()
assert(manager:wait_for_path(gate, 30))

if is_bridge then
  assert(manager:ensure_bridge())
elseif what == "tap" then
  assert(assert(manager:create_tap(first)).created)
else
  for _ = 1, 5 do
    local names = {}
    for i = 1, 5 do
      names[i] = first .. i - 1
      assert(manager:create_tap(names[i]))
    end
    assert(assert(manager:delete_taps(names)) == #names)
  end
end
