-- Few descriptors: every function of the C module answers rightly, or that there are too few; and so does
-- what is built on them.

local support = require "spec.support"

describe("with 0 to 10 free descriptors", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("every function of the C module works, or says so", function()
    local dir <close> = support.folder()
    assert.are.equal("ok\n", support.sh({ "prlimit", "--nofile=64:64", support.lua,
      "spec/support/few_core.lua", dir.path, support.firecracker() }, { timeout = 120 }))
  end)

  it("whoever waits for another one works, or says so", function()
    assert.are.equal("ok\n", support.sh{ "prlimit", "--nofile=64:64", support.lua,
      "spec/support/few_lua.lua" })
  end)
end)
