-- The short forms of `make soak`: VMs come and go, many at a time, and leave nothing; managers are killed
-- while others take over.

local support = require "spec.support"
local siege = require "spec.support.siege"

local CYCLES, AT_ONCE = 60, 20

describe("sixty VMs, twenty at a time,", function()
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

  it("leave nothing, and two VMs in the midst of it with their network", function()
    assert.are.equal(8, siege.run(8, 20261130).rounds)
  end)
end)
