-- One of many racing processes: makes a manager of the JSON, tells that it is there by a line in
-- GATE.waiting, waits for the gate (a file), and then does what it is told:
--   race.lua GATE JSON bridge ADDRESS PREFIX    ensures the bridge
--   race.lua GATE JSON tap NAME                 creates the TAP, and fails unless it was new
--   race.lua GATE JSON churn NAME               creates NAME0 to NAME4 and deletes them, five times

local cjson = require "cjson"
local fcproc = require "fcproc"
local json = require "fcproc.json"

local gate, config, what, first, second = table.unpack(arg)
local is_bridge = what == "bridge"
config = json.plain(cjson.decode(config))
config.bridge_ip, config.cidr = is_bridge and first or nil, is_bridge and second or nil
local manager = assert(fcproc.new(config))

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
