-- One measurement of `make bench`, in a process of its own, so that its CPU time and its peak memory
-- are its own: a fleet from nothing to running and to gone. Prints what bench-bare-vms prints.
--
--     fleet.lua FOLDER FIRECRACKER N [BRIDGE|- [sigkill|ctrl_alt_del [ROUNDS [KIND]]]]
--
-- KIND: rootless, in namespaces of the user's own; jailer, each by Firecracker's, under a uid of its own.

local core = require "fcproc.core"
local fcproc = require "fcproc"

collectgarbage("generational") -- as the README says of scripts that start fleets

local folder, firecracker, n, bridge = arg[1], arg[2], tonumber(arg[3]), arg[4]
local step, rounds, kind = arg[5] or "sigkill", tonumber(arg[6]) or 1, arg[7]
local FIRST_UID = 200000
if bridge == "-" then bridge = nil end
local manager <close> = assert(fcproc.new{
  runtime_dir = folder, firecracker_bin = firecracker, bridge_name = bridge,
  bridge_ip = bridge and "172.30.0.1", cidr = bridge and 24, privilege = kind == "rootless" and kind or nil,
})
if kind == "rootless" then assert(manager:ensure_bridge()) end -- the others' is there
-- Loaded before the clock starts, as the C program is; libcurl, too, where it is needed.
local vm = fcproc.vm
if step == "ctrl_alt_del" then fcproc.client(folder .. "/none"):close() end

local function memory()
  local file <close> = assert(io.open("/proc/self/status"))
  local text = file:read("a")
  return tonumber(text:match("VmHWM:%s*(%d+)")), tonumber(text:match("RssAnon:%s*(%d+)"))
end

local specs = {}
for i = 1, n do
  local uid = FIRST_UID + i
  specs[i] = { id = "v" .. i, network = bridge and true or nil,
    jailer = kind == "jailer" and { uid = uid, gid = uid } or nil }
end

-- What starting this process has set in motion settles first, here as in bare C: it makes the first
-- VM's start 2 ms slower or faster.
core.poll_many({}, {}, 0.05)

local before, up, down, end_cpu = os.clock(), 0, 0, 0
for _ = 1, rounds do
  local began = fcproc.now()
  local fleet = assert(vm.launch_all(manager, specs))
  up = up + fcproc.now() - began
  -- A guest that has no keyboard yet would have to be asked again, which is waited for and no work.
  if step == "ctrl_alt_del" then core.poll_many({}, {}, 0.3) end
  local running, used = fcproc.now(), os.clock()
  assert(vm.stop_all(fleet, { { step, 5 } }))
  down = down + fcproc.now() - running
  end_cpu = end_cpu + os.clock() - used
end
local cpu = os.clock()
local hwm, anonymous = memory()
io.write(('{"up":%.6f,"down":%.6f,"cpu":%.6f,"flow":%.6f,"end_cpu":%.6f,"hwm":%d,"anon":%d}\n'):format(
  up / rounds, down / rounds, cpu, (cpu - before) / rounds, end_cpu / rounds, hwm, anonymous))
