-- What Firecracker and the jailer read must be UTF-8: they panic on arguments that are not, and refuse
-- a configuration. A drive's own path they do not see, so it may be any bytes.

local errors = require "fcproc.error"

local M = {}

---@param check table  schema.checker
---@param manager fcproc.Manager
---@param plan fcproc.VmPlan
function M.check(check, manager, plan)
  local spec, jail = plan.spec, plan.jailer
  local function one(place, value)
    if type(value) ~= "string" or utf8.len(value) then return end
    check:add(place, "is not UTF-8, which Firecracker can't read: %s", errors.shown(value))
  end
  one("runtime_dir", manager.config.runtime_dir)
  one("firecracker_bin", plan.binary)
  one("boot_args", spec.boot_args)
  if not jail then -- in one they have names of ours
    one("kernel", plan.kernel)
    one("initrd", plan.initrd)
    one("seccomp", plan.seccomp)
  end
  for i, argument in ipairs(spec.arguments or {}) do one(("arguments[%d]"):format(i), argument) end
  for i, interface in ipairs(plan.network) do one(("network[%d].tap"):format(i), interface.tap) end
  if not jail then return end
  for _, name in ipairs{ "binary", "parent_cgroup" } do one("jailer." .. name, jail[name]) end
  for name, value in pairs(jail.cgroups) do one(("jailer.cgroups['%s']"):format(name), value) end
end

return M
