-- The short forms of `make soak`: VMs come and go, many at a time, and leave nothing; managers are killed
-- while others take over.

local support = require "spec.support"
local siege = require "spec.support.siege"
local soak = require "spec.support.soak"

local CYCLES, AT_ONCE = 60, 20
local MOST_KIB = 1024

describe("sixty VMs, twenty at a time,", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("leave no link, file, process or descriptor, and memory as it was", function()
    local result = soak.run(CYCLES, AT_ONCE)
    assert.is_true(result.descriptors <= 0, result.descriptors .. " descriptors")
    -- ASan keeps freed memory for a while, to see who uses it.
    local most = MOST_KIB * (support.lua:find("lua-host", 1, true) and 64 or 1)
    assert.is_true(result.grown_kib < most, result.grown_kib .. " KiB")
    local ended = 0
    for _, n in pairs(result.steps) do ended = ended + n end
    assert.are.equal(CYCLES, ended)
  end)
end)

describe("managers that are killed while two others adopt, kill and reclaim", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("leave nothing, and two VMs in the midst of it with their network", function()
    assert.are.equal(8, siege.run(8, 20261130).rounds)
  end)
end)
