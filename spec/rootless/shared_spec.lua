-- The specs that an ordinary user shares with root: the same files, which everywhere else run as root, run
-- here as such a user's. What only root has is told by the tests themselves: see support.direct_only.
-- The rest of the list takes `make soak`, which sets FCPROC_SPEC_SOAK.

local rootless = require "spec.support.rootless"
local support = require "spec.support"

support.need_root()
support.need_kvm()

local LIST = { "netns/bridge", "netns/race", "netns/removal", "firecracker/vm_launch", "firecracker/vm_stop",
  "firecracker/adopt", "firecracker/crash" }
local REST = { "netns/tap", "firecracker/crash", "firecracker/vm_hooks", "firecracker/vm_conflict",
  "firecracker/vm_files", "firecracker/vm_fleet", "firecracker/vm_cancel", "firecracker/vm_closed",
  "firecracker/vm_console", "firecracker/reclaim", "firecracker/snapshot", "firecracker/restore",
  "firecracker/soak" }

describe("as an ordinary user's", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local only = os.getenv("FCPROC_SPEC_SHARED")
  for _, name in ipairs(only and { only } or support.soak and REST or LIST) do
    it(("spec/%s_spec.lua passes"):format(name), function()
      local output = rootless.specs{ ("spec/%s_spec.lua"):format(name) }
      io.write("  ", (output:gsub("\n", "\n  ")), "\n")
    end)
  end
end)
