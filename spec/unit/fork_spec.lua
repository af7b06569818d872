-- A fork of the host that closes its copies: a C program, whose output is the failure message.

local support = require "spec.support"
local fcproc = require "fcproc"

describe("a fork of the host", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("closes its copies of everything and harms nothing of ours", function()
    local dir <close> = support.folder()
    local program = os.getenv("FCPROC_SPEC_BUILD") .. "/fork-test"
    local result, err = fcproc.runner():run({ program, dir.path }, { timeout = 120 })
    assert.are.equal("ok\n", result and result.stdout or (err.stdout or "") .. tostring(err))
  end)
end)
