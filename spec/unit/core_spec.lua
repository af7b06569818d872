-- What only the core sees (parsers of /proc, codes for errnos, times, socket paths): a C program,
-- whose output is the failure message.

local support = require "spec.support"
local fcproc = require "fcproc"

local function run(...)
  local dir <close> = support.folder()
  local program = os.getenv("FCPROC_SPEC_BUILD") .. "/core-test"
  local result, err = fcproc.runner():run({ program, dir.path, ... }, { timeout = 60 })
  assert.are.equal("ok\n", result and result.stdout or err.stdout .. tostring(err))
end

describe("the core by itself", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("reads /proc rightly, whatever a process calls itself, and maps every errno", function()
    run()
  end)

  it("finds an argument also in a command line of 100 kB, behind empty ones", function()
    run(("x"):rep(100000), "", "", "--last", "of them")
  end)
end)
