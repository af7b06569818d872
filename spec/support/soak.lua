-- Starts and stops VMs again and again, many at a time, and tells what is left: `make soak`, or
-- soak.lua CYCLES AT_ONCE; as a module, a short form for the specs.

local support = require "spec.support"
local traces = require "spec.support.traces"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must = support.must

local M = {}

local MOST_KIB = 1024

-- Resident memory of this process in KiB, without garbage.
local function resident()
  for _ = 1, 3 do collectgarbage() end
  return tonumber(support.read_file("/proc/self/status"):match("VmRSS:%s*(%d+)"))
end

local function count_descriptors()
  local n = 0
  for _ in pairs(support.descriptors()) do n = n + 1 end
  return n
end

local function cycle(world, number)
  local vm <close> = must(fcproc.vm.launch(world.manager, {
    id = ("%s-%d"):format(world.id, number), network = { nat = support.rootless or "up0" },
    drives = { { path = world.folder:file("disk"), copy = "sparse" } },
  }))
  must(must(vm:console()):wait_for("fcproc guest: ready", 30))
  local report = must(vm:stop())
  return report.step
end

local function run(world, first, last, at_once, steps)
  local functions = { limit = at_once }
  for number = first, last do
    functions[#functions + 1] = function()
      local step = cycle(world, number)
      steps[step] = (steps[step] or 0) + 1
    end
  end
  fcproc.run(functions)
end

---@param cycles integer
---@param at_once integer
---@return { steps: table<string, integer>, seconds: number, grown_kib: integer, descriptors: integer }
---        what is left raises
function M.run(cycles, at_once)
  local world <close> = traces.world()
  support.write_file(world.folder:file("disk"), ("x"):rep(65536))
  local warm, steps = math.max(cycles // 4, at_once), {}
  run(world, 1, at_once, at_once, steps) -- makes the runtime folder
  local began, before, descriptors = fcproc.now(), traces.of(world), count_descriptors()
  run(world, at_once + 1, warm, at_once, steps)
  local kib = resident()
  run(world, warm + 1, cycles, at_once, steps)
  local result = { steps = steps, seconds = fcproc.now() - began, grown_kib = resident() - kib }
  traces.same(before, world, "after the soak")
  for _ = 1, 200 do -- a thread that removes links has its socket for a moment yet
    result.descriptors = count_descriptors() - descriptors
    if result.descriptors <= 0 then break end
    core.poll_many({}, {}, 0.01)
  end
  return result
end

if arg and arg[0] and arg[0]:find("soak%.lua$") then
  local cycles, at_once = math.tointeger(tonumber(arg[1])), math.tointeger(tonumber(arg[2]))
  local result = M.run(cycles or 1000, at_once or 20)
  local steps = {}
  for name, n in pairs(result.steps) do steps[#steps + 1] = ("%d by %s"):format(n, name) end
  print(("%d VMs started and stopped in %.1f s: %s"):format(cycles or 1000, result.seconds,
    table.concat(steps, ", ")))
  print(("memory grew by %d KiB after the warm-up, descriptors by %d; no link, file or process left")
    :format(result.grown_kib, result.descriptors))
  -- ASan keeps freed memory for a while, to see who uses it.
  local most = MOST_KIB * (support.sanitized and 64 or 1)
  os.exit(result.grown_kib < most and result.descriptors <= 0)
end

return M
