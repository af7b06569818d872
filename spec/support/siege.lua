-- Managers that are killed at random moments while two others adopt, kill and reclaim what they made:
-- `make soak`, or siege.lua ROUNDS [SEED]; as a module, a short form for the specs. Two VMs that nobody
-- may touch, the sentinels, are looked at in each round: their process and their network.
--
-- siege.lua JSON is one of the managers, as a process of its own:
--   role     "maker": launches `count` VMs, by root also jailed ones; "meddler": goes on until it is killed
--   config   for fcproc.new
--   prefix   of the ids that it may make, or take

local cjson = require "cjson"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local json = require "fcproc.json"
local support = require "spec.support"
local traces = require "spec.support.traces"

local must = support.must

local M = {}

local VMS = 6         -- that a maker launches in a round
local FIRST_UID = 7500

-- ---- the managers ------------------------------------------------------------------------------

local roles = {}

function roles.maker(manager, order)
  for i = 1, order.count do
    local spec = { id = order.prefix .. i, network = true }
    if i % 3 == 0 and not support.rootless then
      spec.jailer = { uid = order.uid + i, gid = order.uid + i }
    end
    if i % 3 == 1 then spec.network = { nat = support.rootless or "up0" } end
    assert(fcproc.vm.launch(manager, spec)):detach()
  end
end

-- What a meddler may be told when another was quicker.
local LOST = { busy = true, not_found = true }

local function meddle(manager, id)
  local vm, err = fcproc.vm.adopt(manager, id)
  local ok = vm
  if vm then
    local what = math.random(3)
    if what == 1 then
      ok, err = vm:kill()
    elseif what == 2 then
      ok, err = vm:stop{ { "ctrl_alt_del", 0.5 }, { "sigkill", 5 } }
    else
      ok, err = vm:pause()
      vm:detach()
    end
  end
  if not ok and not LOST[err.code] then error(("%s: %s\n%s"):format(id, tostring(err), err.output or "")) end
end

function roles.meddler(manager, order)
  while true do
    for _, entry in ipairs(assert(fcproc.vm.list(manager))) do
      if entry.id:find(order.prefix, 1, true) == 1 and math.random(2) == 1 then
        meddle(manager, entry.id)
      end
    end
    local report = assert(fcproc.vm.reclaim(manager))
    for _, failed in ipairs(report.failed) do
      local err = failed.left[1].err
      if not LOST[err.code] then error(("%s: %s"):format(failed.id, tostring(err))) end
    end
    core.poll_many({}, {}, math.random(20) / 1000)
  end
end

-- ---- the siege ---------------------------------------------------------------------------------

local function start(world, order)
  order.config = support.config(world)
  local out = world.folder:file("output")
  return must(fcproc.spawn({ support.lua, "spec/support/siege.lua", cjson.encode(order) },
    { stdout = { file = out }, stderr = { file = out } }))
end

-- By SIGKILL, unless it has ended by itself, which only a maker may, and only well.
local function finish(world, process, role)
  if process:alive() then process:signal("KILL") end
  local _, exit = must(process:wait(10))
  process:close()
  if exit.signal == 9 or (role == "maker" and exit.status == 0) then return end
  error(("a %s ended with %s:\n%s"):format(role, exit.status or exit.signal,
    support.read_file(world.output) or ""))
end

local function check_sentinels(world, sentinels, round)
  for _, sentinel in ipairs(sentinels) do
    if not sentinel.process:alive() then error(("round %d: a sentinel died"):format(round)) end
    if not support.pings(world.netns, sentinel.address) then
      error(("round %d: the sentinel %s does not answer"):format(round, sentinel.address))
    end
  end
end

-- Ends what the managers have left, but for the sentinels.
local function clear(world)
  support.eventually("all VMs but the sentinels are gone", function()
    must(fcproc.vm.reclaim(world.manager))
    local left = 0
    for _, entry in ipairs(must(fcproc.vm.list(world.manager))) do
      if entry.id:find(world.prefix, 1, true) == 1 then
        left = left + 1
        local vm, err = fcproc.vm.adopt(world.manager, entry.id)
        if vm then must(vm:kill()) elseif not LOST[err.code] then error(tostring(err)) end
      end
    end
    return left == 0
  end, 30)
end

local function sentinel(world, name)
  local vm = must(fcproc.vm.launch(world.manager, { id = world.id .. "-" .. name, network = true }))
  must(must(vm:console()):wait_for("fcproc guest: ready", 10))
  local found = { id = vm.id, address = vm:address(), process = vm.machine.process }
  vm.machine.process, vm.machine.launcher = nil, nil -- it stays our child, to be reaped in the end
  must(vm:detach())
  return found
end

---@param rounds integer
---@param seed integer
---@return { rounds: integer, launched: integer, killed: integer, seconds: number }  a fault raises
function M.run(rounds, seed)
  local world <close> = traces.world()
  math.randomseed(seed)
  world.prefix = world.id .. "-made-"
  local began, result = fcproc.now(), { rounds = rounds, launched = rounds * VMS, killed = 0 }
  local sentinels = { sentinel(world, "a"), sentinel(world, "b") }
  local before = traces.of(world)
  for round = 1, rounds do
    os.remove(world.output)
    local meddlers = {}
    for i = 1, 2 do
      meddlers[i] = start(world, { role = "meddler", prefix = world.prefix, seed = seed + 10 * round + i })
    end
    local maker = start(world, { role = "maker", prefix = world.prefix, count = VMS, uid = FIRST_UID,
      seed = seed + 10 * round })
    local ended = maker:wait(0.02 + math.random() * 0.4)
    if not ended then result.killed = result.killed + 1 end
    finish(world, maker, "maker")
    finish(world, meddlers[1], "meddler") -- in the middle of whatever it does
    core.poll_many({}, {}, math.random() * 0.1)
    finish(world, meddlers[2], "meddler")
    check_sentinels(world, sentinels, round)
    clear(world)
  end
  os.remove(world.output)
  traces.same(before, world, "after the siege", function() must(fcproc.vm.reclaim(world.manager)) end)
  for _, one in ipairs(sentinels) do
    must(must(fcproc.vm.adopt(world.manager, one.id)):kill())
    must(one.process:wait(10))
    one.process:close()
  end
  result.seconds = fcproc.now() - began
  return result
end

local first = arg and arg[0] and arg[0]:find("siege%.lua$") and arg[1]
if first and first:find("^{") then
  local order = json.plain(cjson.decode(first))
  math.randomseed(order.seed)
  local manager <close> = assert(fcproc.new(order.config))
  roles[order.role](manager, order)
elseif first then
  local seed = math.tointeger(tonumber(arg[2])) or os.time()
  print(("siege of %s rounds, seed %d"):format(first, seed))
  local result = M.run(assert(math.tointeger(tonumber(first))), seed)
  print(("%d VMs asked for in %d rounds, %d managers killed while they launched, %.1f s; the "
    .. "sentinels ran and answered, nothing is left"):format(result.launched, result.rounds,
    result.killed, result.seconds))
end

return M
