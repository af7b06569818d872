-- Threads that share a context, which Lua has not: a C program, whose output is the failure message.
-- It also runs under ThreadSanitizer: make test SANITIZE=thread.

local support = require "spec.support"
local fcproc = require "fcproc"

local function run(name)
  local dir <close> = support.folder()
  local program = os.getenv("FCPROC_SPEC_BUILD") .. "/" .. name
  local result, err = fcproc.runner():run({ program, dir.path }, { timeout = 120 })
  local out = result and result.stdout .. result.stderr
    or (err.stdout or "") .. (err.output or "") .. tostring(err)
  assert.are.equal("ok\n", out)
end

describe("a host with threads", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("shares its root context between operations of all of them", function() run("threads-test") end)
end)
