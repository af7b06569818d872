-- Many processes at once on one bridge, each in an interpreter of its own, all let go at the same
-- moment in one namespace.

local cjson = require "cjson"
local support = require "spec.support"
local fcproc = require "fcproc"

local must = support.must

-- Starts a racer for each list of arguments, opens the gate when all stand before it, and fails
-- unless each ends well.
local function race(world, each)
  local gate = world.folder:file("gate")
  local racers <close> = setmetatable({}, { __close = function(self)
    for _, racer in ipairs(self) do
      if racer:alive() then racer:signal("KILL") end
      racer:wait(10)
      racer:close()
    end
  end })
  local output = world.folder:file("output")
  for i, arguments in ipairs(each) do
    racers[i] = must(fcproc.spawn(
      { support.lua, "spec/support/race.lua", gate, cjson.encode(support.config(world)),
        table.unpack(arguments) }, { stdout = { file = output }, stderr = { file = output } }))
  end
  support.eventually("all wait at the gate", function()
    local _, there = (support.read_file(gate .. ".waiting") or ""):gsub("\n", "")
    return there == #each
  end, 60)
  support.write_file(gate, "")
  local failed = 0
  for _, racer in ipairs(racers) do
    local _, exit = must(racer:wait(60))
    if exit.status ~= 0 then failed = failed + 1 end
  end
  if failed > 0 then
    error(("%d of %d failed:\n%s"):format(failed, #each, support.read_file(output)), 2)
  end
end

local function times(n, make)
  local list = {}
  for i = 1, n do list[i] = make(i) end
  return list
end

-- The configured addresses of the bridge, without those that IPv6 brings by itself.
local function addresses(world)
  local found = {}
  for _, entry in ipairs(support.ip(world.netns, "addr", "show", "dev", "fcbr0")[1].addr_info) do
    if entry.scope ~= "link" then
      found[#found + 1] = ("%s/%d"):format(entry["local"], entry.prefixlen)
    end
  end
  table.sort(found)
  return table.concat(found, " ")
end

describe("20 processes at once", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("ensure one bridge: all succeed, one bridge, one address", function()
    for _, address in ipairs{ "172.30.0.1/24", "fd00:30::1/64" } do
      local world <close> = support.world()
      local ip, prefix = address:match("(.*)/(.*)")
      race(world, times(20, function() return { "bridge", ip, prefix } end))
      assert.are.equal(2, #support.ip(world.netns, "link")) -- with lo
      assert.are.equal(address, addresses(world))
    end
  end)

  it("ensure one bridge with two addresses: all succeed, and both are there", function()
    local world <close> = support.world()
    race(world, times(20, function(i) return { "bridge", "172.30." .. i % 2 .. ".1", "24" } end))
    assert.are.equal(2, #support.ip(world.netns, "link"))
    assert.are.equal("172.30.0.1/24 172.30.1.1/24", addresses(world))
  end)

  it("create TAPs of different names: all there, on the bridge, up", function()
    local world <close> = support.world()
    must(world.manager:ensure_bridge())
    race(world, times(20, function(i) return { "tap", "tap" .. i } end))
    local seen, count = {}, 0
    for _, tap in ipairs(must(world.manager:list_taps())) do
      assert.is_true(tap.up)
      assert.is_false(tap.in_use)
      assert.is_nil(seen[tap.mac])
      seen[tap.mac], count = tap.name, count + 1
    end
    assert.are.equal(20, count)
    for i = 1, 20 do
      local state = support.ip(world.netns, "link", "show", "dev", "tap" .. i)[1]
      assert.are.equal("fcbr0", state.master)
      assert.is_true(state.linkinfo.info_data.persist)
    end
  end)

  it("create and delete TAPs of their own: nobody loses one to another's removal", function()
    local world <close> = support.world()
    must(world.manager:ensure_bridge())
    local stays = must(world.manager:create_tap("stays"))
    race(world, times(20, function(i) return { "churn", ("c%d-"):format(i) } end))
    local left = must(world.manager:list_taps())
    assert.are.same({ 1, stays.ifindex }, { #left, left[1].ifindex })
  end)
end)
