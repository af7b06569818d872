-- One side of `make bench`, in a process of its own: makes TAPs, the bridge ensured for each, and tells
-- how long each took, in seconds. A line with a number makes so many; "first" makes one by a manager of
-- its own.
--
--     taps.lua FOLDER FIRECRACKER direct|rootless

local fcproc = require "fcproc"

local folder, firecracker, kind = table.unpack(arg)

local function open()
  return assert(fcproc.new{ bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24, runtime_dir = folder,
    firecracker_bin = firecracker, privilege = kind == "rootless" and kind or nil })
end

local manager <close> = open()
assert(manager:ensure_bridge())

local function make(by, names)
  for _, name in ipairs(names) do
    assert(by:ensure_bridge())
    assert(by:create_tap(name))
  end
end

for line in io.lines() do
  local names = {}
  for i = 1, tonumber(line) or 1 do names[i] = "bench" .. i end
  local started = fcproc.now()
  local other <close> = line == "first" and open() or nil
  make(other or manager, names)
  local took = fcproc.now() - started
  assert(manager:delete_taps(names))
  io.write(("%.9f\n"):format(took / #names))
  io.flush()
end
