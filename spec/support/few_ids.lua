-- More VMs than the descriptors suffice for are ended by their ids: few_ids.lua FOLDER FIRECRACKER. Prints
-- "ok", or what went wrong.

package.path = "./?.lua;" .. package.path
local support = require "spec.support"
local few = require "spec.support.few"
local cjson = require "cjson"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local COUNT, LIMIT = 28, 56

local manager = assert(fcproc.new{ firecracker_bin = arg[2], runtime_dir = arg[1] })

local function descriptors() return #assert(core.list_dir("/proc/self/fd")) end

local function launch()
  local specs, ids = {}, {}
  for i = 1, COUNT do
    ids[i] = "vm" .. i
    specs[i] = { id = ids[i] }
  end
  for _, vm in ipairs(assert(fcproc.vm.launch_all(manager, specs))) do assert(vm:detach()) end
  return ids
end

local function command(...)
  local argv = { "prlimit", ("--nofile=%d:%d"):format(LIMIT, LIMIT), support.lua, "lua/bin/fcproc",
    "--runtime-dir", arg[1], "--firecracker", arg[2], "--json", ... }
  return manager.runner:run(argv)
end

local function all_ended(ids, text)
  local list = cjson.decode(text)
  assert(#list == #ids, text)
  for i, ended in ipairs(list) do
    assert(ended.id == ids[i] and ended.report.outcome == "exited", cjson.encode(ended))
  end
  assert(#assert(fcproc.vm.list(manager)) == 0)
end

local ids = launch()
do -- a process for the manager: a lock and a pidfd
  collectgarbage()
  collectgarbage("stop")
  local before = descriptors()
  local vm = assert(fcproc.vm.adopt(manager, ids[1]))
  -- What its waits had may be closed in a thread after they ended.
  support.eventually("adopt keeps two", function() return descriptors() - before <= 2 end)
  assert(vm:detach())
  -- What nobody has any more is collected when there is no room.
  local own = math.tointeger(tonumber(core.read_link("/proc/self")))
  for _ = 1, 20 do fcproc.process(own) end
  few.hold()
  vm = assert(fcproc.vm.adopt(manager, ids[1]))
  collectgarbage("restart")
  few.give(math.huge)
  assert(vm:detach())
end
all_ended(ids, assert(command("kill", table.unpack(ids))).stdout)
ids = launch()
-- One of its kind that is not there, one twice, one that has ended by itself.
local process = assert(fcproc.process(assert(fcproc.vm.inspect(manager, ids[1])).identity))
process:signal("KILL")
assert(process:wait(10))
local endings = fcproc.vm.stop_ids(manager, { "none", ids[1], ids[2], ids[1] }, { { "sigkill", 5 } })
assert(#endings == 3 and endings[1].err.code == "not_found")
assert(endings[2].report.step == "gone" and endings[3].report.step == "sigkill")
for _, ended in ipairs(fcproc.vm.stop_ids(manager, table.move(ids, 3, #ids, 1, {}), { { "sigkill", 5 } })) do
  assert(ended.report, tostring(ended.err))
end
assert(#assert(fcproc.vm.list(manager)) == 0)
print("ok")
