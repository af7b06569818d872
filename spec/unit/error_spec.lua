-- Error values: fields, sentinels, printing, causes.

local support = require "spec.support"
local errors = require "fcproc.error"
local fcproc = require "fcproc"

describe("an error", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("equals the sentinel of its code and nothing else", function()
    local err = errors.new{ code = "busy", op = "tap.create", message = "tap0 is in use" }
    assert.is_true(err == fcproc.ERR_BUSY)
    assert.is_true(fcproc.ERR_BUSY == err)
    assert.is_false(err == fcproc.ERR_CONFLICT)
    assert.is_false(err == errors.new{ code = "busy", op = "x", message = "y" })
  end)
end)
