-- The short forms of `make soak`: VMs come and go, many at a time, and leave nothing; managers are killed
-- while others take over. As an ordinary user's they are longer in `make soak`, by the environment.

local support = require "spec.support"
local siege = require "spec.support.siege"

local CYCLES, AT_ONCE = math.tointeger(tonumber(os.getenv("FCPROC_SPEC_CYCLES"))) or 60, 20
local ROUNDS = math.tointeger(tonumber(os.getenv("FCPROC_SPEC_ROUNDS"))) or 8
local SEED = support.soak and os.time() or 20261130

describe(("%d VMs, %d at a time,"):format(CYCLES, AT_ONCE), function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- In a process of its own: of this one's memory the specs before have their share.
  it("leave no link, file, process or descriptor, and memory as it was", function()
    local told = support.sh({ "env", "LUA_PATH=./?.lua;./?/init.lua;" .. os.getenv("LUA_PATH"), support.lua,
      "spec/support/soak.lua", tostring(CYCLES), tostring(AT_ONCE) })
    assert.is_truthy(told:find("^" .. CYCLES .. " VMs started and stopped"), told)
  end)
end)

describe("managers that are killed while two others adopt, kill and reclaim", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it(("leave nothing, and two VMs in the midst of it with their network (seed %d)"):format(SEED), function()
    assert.are.equal(ROUNDS, siege.run(ROUNDS, SEED).rounds)
  end)
end)
