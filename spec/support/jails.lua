-- Shared by the specs of jailed VMs.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local check = require "luassert" -- outside of specs `assert` is the plain one

local must, fails = support.must, support.fails

local M = { UID = 1234, GID = 2345 }

---What the jailer can be told of how it starts a VM.
M.SHAPES = {
  foreground = {}, daemonized = { daemonize = true }, ["in a pid namespace"] = { new_pid_ns = true },
  ["daemonized in a pid namespace"] = { daemonize = true, new_pid_ns = true },
}

---The spec of a jailed VM: jail({ daemonize = true }, { network = true }).
function M.jail(jailer, spec)
  local all = { id = "vm", jailer = { uid = M.UID, gid = M.GID } }
  for key, value in pairs(jailer or {}) do all.jailer[key] = value end
  for key, value in pairs(spec or {}) do all[key] = value end
  return all
end

---The same, launched.
function M.launch(world, ...)
  return fcproc.vm.launch(world.manager, M.jail(...))
end

---An id that tells the cgroups of this run from those of others on this host.
function M.own_id()
  return "spec-" .. support.own_pid()
end

---The cgroups of the VM of that id, in all hierarchies.
function M.cgroups()
  local found = {}
  for _, hierarchy in ipairs(must(core.list_dir("/sys/fs/cgroup"))) do
    local folder = ("/sys/fs/cgroup/%s/fcproc/%s"):format(hierarchy.name, M.own_id())
    if core.stat(folder) then found[#found + 1] = folder end
  end
  return found
end

function M.jailer_binary()
  return (support.firecracker():gsub("[^/]*$", "jailer"))
end

---One line of /proc/PID/status, as a list of words.
function M.status_of(pid, name)
  local text = support.read_file(("/proc/%d/status"):format(pid)) or ""
  return support.collect(text:match("\n" .. name .. ":([^\n]*)") or "", "%S+")
end

---Nothing of the VM is left on the host.
function M.assert_gone(world, root)
  check.are.same({}, must(core.list_dir(world.folder:file("run/.fcproc/leases"))))
  check.are.same({}, must(core.list_dir(world.folder:file("run/.fcproc/locks"))))
  check.are.same({ { name = ".fcproc", type = "dir" } }, must(core.list_dir(world.folder:file("run"))))
  check.are.same({}, M.cgroups())
  if root then fails("not_found", core.stat(root)) end
end

return M
