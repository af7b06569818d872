-- Cancels that Lua can't send: from another thread and from a signal handler, to every kind of
-- wait. A C program, whose output is the failure message.

local support = require "spec.support"
local fcproc = require "fcproc"

describe("a cancel", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("from another thread or a signal handler ends every kind of wait at once", function()
    local dir <close> = support.folder()
    local program = os.getenv("FCPROC_SPEC_BUILD") .. "/cancel-test"
    local result, err = fcproc.runner():run({ program, dir.path }, { timeout = 120 })
    local out = result and result.stdout or (err.stdout or "") .. tostring(err)
    assert.is_truthy(result and out:find("\nok\n$"), out)
  end)
end)
