-- Processes that a VMM which was broken into may leave behind in its jail: see stray.py.

local support = require "spec.support"
local fcproc = require "fcproc"

local must = support.must

local M = {}

---Has the process not ended?
function M.alive(pid)
  local stat = support.read_file(("/proc/%s/stat"):format(pid))
  return stat ~= nil and not stat:find("%) [ZX]")
end

---Starts them in the jail of the VM, in its cgroups: `local left <close> = strays.start(vm)`; left.pids.
---Those that a failed test leaves are ended with the block.
---@param vm fcproc.Vm
---@param kinds string?  default: all
function M.start(vm, kinds)
  local jail, procs, pids = vm:record().jail, {}, {}
  for _, folder in ipairs{ jail.cgroup, table.unpack(jail.cgroups) } do
    local path = folder .. "/cgroup.procs"
    if support.read_file(path) ~= "" then procs[#procs + 1] = path end
  end
  local before = {}
  for _, path in ipairs(procs) do
    for pid in support.read_file(path):gmatch("%d+") do before[pid] = true end
  end
  local said = support.sh{ "python3", "-B", "spec/support/stray.py", tostring(vm:pid()), tostring(jail.uid),
    tostring(jail.gid), kinds or "child,session,root,pid_namespace", table.unpack(procs) }
  assert(said == "there\n", said)
  for pid in support.read_file(procs[1]):gmatch("%d+") do
    if not before[pid] then pids[#pids + 1] = pid end
  end
  assert(#pids >= (kinds and 1 or 5), table.concat(pids, " "))
  return setmetatable({ pids = pids }, { __close = function()
    for _, pid in ipairs(pids) do
      local process <close> = M.alive(pid) and fcproc.process(math.tointeger(tonumber(pid)))
      if process then must(process:signal("KILL")) end
    end
  end })
end

return M
