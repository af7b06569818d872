-- Few descriptors: no public call takes a VM that lives for a dead one.

local support = require "spec.support"

describe("with 0 to 10 free descriptors", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("stop and kill end more VMs than there is room for, and adopt keeps no connection", function()
    local dir <close> = support.folder()
    assert.are.equal("ok\n", support.sh({ support.lua, "spec/support/few_ids.lua", dir:file("run"),
      support.firecracker() }, { timeout = 120 }))
  end)

  it("every call works, or says so, and every VM stays", function()
    local dir <close> = support.folder()
    assert.are.equal("ok\n", support.sh({ "prlimit", "--nofile=64:64", support.lua,
      "spec/support/few_vms.lua", dir:file("run"), support.firecracker() }, { timeout = 120 }))
  end)
end)
