-- Shared by the specs of jailed VMs.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local traces = require "spec.support.traces"
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

-- Cgroups of VMs of our ids; there may be those of another suite.
local function own_cgroups()
  local found = {}
  for _, id in ipairs{ "vm", M.own_id() } do
    for _, folder in ipairs(traces.own_cgroups(id)) do found[folder] = true end
  end
  return found
end

---The same, launched.
function M.launch(world, ...)
  world.cgroups_before = world.cgroups_before or own_cgroups()
  return fcproc.vm.launch(world.manager, M.jail(...))
end

---An id that tells the cgroups of this run from those of others on this host.
function M.own_id()
  return "spec-" .. support.own_pid()
end

---The cgroup hierarchies of this host: of version 1 there may be some or none, and of version 2 one
---with the controllers that those have not.
---@return table<string, string> v1  controller to where its hierarchy is mounted
---@return string? v2  where that of version 2 is mounted
---@return table<string, boolean> offered  the controllers of version 2
function M.hierarchies()
  local v1, v2, offered = {}, nil, {}
  for line in must(support.read_file("/proc/self/mountinfo")):gmatch("[^\n]+") do
    local point, kind, options = line:match("^%d+ %d+ %S+ %S+ (%S+) .- %- (cgroup2?) %S+ (%S+)")
    if kind == "cgroup2" then
      v2 = v2 or point
    elseif kind then
      for option in options:gmatch("[^,]+") do v1[option] = v1[option] or point end
    end
  end
  local names = v2 and must(support.read_file(v2 .. "/cgroup.controllers")) or ""
  for name in names:gmatch("%S+") do offered[name] = true end
  return v1, v2, offered
end

---The version in which this host has what VMs are mostly limited by.
function M.cgroup_version()
  return M.hierarchies().cpu and 1 or 2
end

-- What a VM can live with, by version: the file, what is written, and how the kernel shows it.
local LIMITS = {
  {
    { "cpu.shares", 512, "512" }, { "memory.limit_in_bytes", "200M", "209715200" },
    { "pids.max", "40", "40" }, { "cpuset.cpus", "0,1", "0-1" }, { "cpuset.mems", "0", "0" },
  },
  {
    { "cpu.weight", 50, "50" }, { "cpu.max", "150000", "150000 100000" },
    { "memory.max", "200M", "209715200" }, { "pids.max", "40", "40" },
    { "cpuset.cpus", "0,1", "0-1" }, { "cpuset.mems", "0", "0" },
    { "hugetlb.2MB.max", "4194304", "4194304" },
  },
}

---Limits of a version, as many as this host has controllers for in it.
---@param version 1|2
---@return table<string, string|integer> groups  as jailer.cgroups
---@return { hierarchy: string, point: string, file: string, shown: string }[] limits  for each: its
---controller, or "" for version 2; where that hierarchy is mounted; the file that holds it; and what that
---file then says
function M.limits(version)
  local v1, v2, offered = M.hierarchies()
  local groups, limits = {}, {}
  for _, limit in ipairs(LIMITS[version]) do
    local file, value, shown = table.unpack(limit)
    local controller = file:match("^%w+")
    local point = v1[controller]
    if version == 2 then point = offered[controller] and v2 end
    if point then
      groups[file] = value
      limits[#limits + 1] = { hierarchy = version == 1 and controller or "", shown = shown .. "\n",
        point = point, file = file }
    end
  end
  return groups, limits
end

---The VM is held to these limits, and there are no other cgroups of its id.
function M.assert_limited(vm, limits)
  local member, folders, seen = {}, {}, {}
  for names, path in must(support.read_file(("/proc/%d/cgroup"):format(vm:pid()))):gmatch(
    "%d+:([^:\n]*):([^\n]*)") do
    for name in (names .. ","):gmatch("([^,]*),") do member[name] = path end
  end
  for _, limit in ipairs(limits) do
    -- A process is in one cgroup of version 2 only, so that is inside of the VM's own.
    local inner = limit.hierarchy == "" and vm:record().jail.cgroup:match("[^/]+$") .. "/" or ""
    local below = ("/fcproc/%s%s"):format(inner, vm.id)
    local folder = limit.point .. below
    check.are.equal(below, member[limit.hierarchy], limit.file)
    check.are.equal(limit.shown, support.read_file(folder .. "/" .. limit.file), limit.file)
    if not seen[folder] then folders[#folders + 1] = folder end
    seen[folder] = true
  end
  table.sort(folders)
  local known = table.move(vm:record().jail.cgroups, 1, #folders, 1, {})
  table.sort(known)
  check.are.same(folders, known)
  if not folders[1]:find(vm:record().jail.cgroup, 1, true) then check.are.same(folders, M.cgroups()) end
end

---The cgroups of version 1 that a jailer made for the VM of that id, in all hierarchies.
function M.cgroups()
  local v1, v2 = M.hierarchies()
  local points, found = {}, {} -- several controllers may share one
  for _, point in pairs(v1) do points[point] = true end
  if v2 then points[v2] = true end
  for point in pairs(points) do
    local folder = ("%s/fcproc/%s"):format(point, M.own_id())
    if core.stat(folder) then found[#found + 1] = folder end
  end
  table.sort(found)
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
  for folder in pairs(world.cgroups_before and own_cgroups() or {}) do
    check.is_true(world.cgroups_before[folder], folder)
  end
  check.are.same({}, (support.leases(world)))
  check.are.same({}, must(core.list_dir(world.folder:file("run/.fcproc/locks"))))
  check.are.same({ { name = ".fcproc", type = "dir" } }, must(core.list_dir(world.folder:file("run"))))
  check.are.same({}, M.cgroups())
  if root then fails("not_found", core.stat(root)) end
end

return M
