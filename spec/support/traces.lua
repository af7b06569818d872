-- What VMs have on the host, as a list of lines that can be compared: links, NAT, files, cgroups and
-- processes of one world.

local support = require "spec.support"
local core = require "fcproc.core"
local cgroup = require "fcproc.machine.cgroup"
local cjson = require "cjson"
local fcproc = require "fcproc"

local M = {}

M.lua = support.lua

local function links(world, lines)
  for _, link in ipairs(support.ip(world.netns, "link", "show")) do
    if link.link_type ~= "loopback" then lines[#lines + 1] = "link " .. link.ifname end
  end
end

local function files(world, lines)
  local found = support.sh{ "find", world.folder.path, "-mindepth", "1", "!", "-name", "output",
    "!", "-path", "*/run",
    "!", "-path", "*/run/.fcproc", "!", "-path", "*/run/.fcproc/locks", "!", "-path",
    "*/run/.fcproc/rootless*" }
  for path in found:gmatch("[^\n]+") do
    lines[#lines + 1] = "file " .. path
  end
end

local function leases(world, lines)
  for _, name in ipairs((support.leases(world))) do lines[#lines + 1] = "lease " .. name end
end

local function rules(world, lines)
  local text = support.sh({ "nft", "list", "ruleset" }, { netns = world.netns })
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = "nft " .. line end
end

local function settings(world, lines)
  local name = "ipv4/conf/fcbr0/route_localnet"
  lines[#lines + 1] = ("%s = %s"):format(name, world.manager.net:sysctl(name) or "")
end

---Where cgroup hierarchies are mounted: the points, and that of version 2.
function M.hierarchies()
  local points, unified = {}, nil
  for line in support.read_file("/proc/self/mountinfo"):gmatch("[^\n]+") do
    local point, kind = line:match("^%d+ %d+ %S+ %S+ (%S+) .- %- (cgroup2?) ")
    if point then points[#points + 1] = point end
    if kind == "cgroup2" then unified = unified or point end
  end
  return points, unified
end

---The parent of the cgroups that jailers make for this suite, and for no other on this host.
M.PARENT = "fcproc-spec-" .. support.own_pid()

---Cgroups that VMs of that id have of their own.
function M.own_cgroups(id)
  local found = {}
  for _, point in ipairs(M.hierarchies()) do
    for _, entry in ipairs(core.list_dir(point .. "/" .. cgroup.PARENT) or {}) do
      if entry.type == "dir" and entry.name:match("^([%w%-]+)%.%x+$") == id then
        found[#found + 1] = ("%s/%s/%s"):format(point, cgroup.PARENT, entry.name)
      end
    end
  end
  return found
end

-- The same, and the folders that jailers make, but for their common parent.
local function cgroups(world, lines)
  for _, folder in ipairs(M.own_cgroups(world.id)) do lines[#lines + 1] = "cgroup " .. folder end
  for _, point in ipairs(M.hierarchies()) do
    for _, entry in ipairs(core.list_dir(point .. "/" .. M.PARENT) or {}) do
      if entry.type == "dir" then
        lines[#lines + 1] = ("cgroup %s/%s/%s"):format(point, M.PARENT, entry.name)
      end
    end
  end
end

-- VMMs of the world's VM, jailed or not.
local function processes(world, lines)
  for _, entry in ipairs(core.list_dir("/proc") or {}) do
    local words = entry.name:find("^%d") and core.read_file("/proc/" .. entry.name .. "/cmdline")
    if words and words:find("--id\0" .. world.id .. "\0", 1, true) then
      lines[#lines + 1] = ("process %s: %s"):format(entry.name, (words:gsub("%z", " ")))
    end
  end
end

---@return string[] lines  sorted
function M.of(world)
  local lines = {}
  for _, look in ipairs{ links, files, leases, rules, settings, cgroups, processes } do look(world, lines) end
  table.sort(lines)
  return lines
end

---Fails unless the host is as it was. A process that was killed needs a moment to go; again() is called
---between the looks.
function M.same(before, world, what, again)
  local after
  for _ = 1, 200 do
    after = M.of(world)
    if table.concat(after, "\n") == table.concat(before, "\n") then return end
    if again then again() end
    core.poll_many({}, {}, 0.005)
  end
  local seen = {}
  for _, line in ipairs(before) do seen[line] = true end
  local more = {}
  for _, line in ipairs(after) do
    if not seen[line] then more[#more + 1] = "more: " .. line end
    seen[line] = nil
  end
  for line in pairs(seen) do more[#more + 1] = "less: " .. line end
  error(("%s: the host is not as it was:\n  %s"):format(what, table.concat(more, "\n  ")), 2)
end

---Gives the specs' own cgroup back, if the jailer made one.
function M.drop_cgroups()
  for _, point in ipairs(M.hierarchies()) do os.remove(point .. "/" .. M.PARENT) end
end

---Starts a manager that will crash: see spec/support/crash.lua. Its output goes into a file of the
---world's own. Returns the process.
function M.start(world, order)
  order.config = support.config(world)
  return support.must(fcproc.spawn({ support.lua, "spec/support/crash.lua", cjson.encode(order) },
    { stdout = { file = world.output }, stderr = { file = world.output } }))
end

---The same to its end. Returns true when it killed itself, false when it came through.
function M.crash(world, order)
  local process <close> = M.start(world, order)
  local _, exit = support.must(process:wait(60))
  if exit.signal == 9 then return true end
  if exit.status == 0 then return false end
  error(("the manager ended with %s: %s"):format(exit.status or exit.signal,
    support.read_file(world.output)), 2)
end

---The number of the n-th step of that name, after one of a number, in what a manager wrote: see
---spec/support/crash.lua.
function M.step_of(world, name, nth, after)
  local found
  for number in (support.read_file(world.output) or ""):gmatch("(%d+) " .. name .. "\n") do
    local step = math.tointeger(tonumber(number))
    if step > (after or 0) then
      found, nth = step, nth - 1
      if nth == 0 then break end
    end
  end
  return found or error("no step " .. name)
end

---The world's VM's API socket.
function M.socket(world) return support.vmm_folder(world, world.id) .. "/api.sock" end

---Where a snapshot is written that is not finished, as the VM's journal says.
function M.partial(world)
  local path = ("%s/%s/vm.json"):format(world.manager.config.runtime_dir, world.id)
  return cjson.decode(support.read_file(path)).snapshot
end

---A manager dies in the middle of a snapshot of a new VM: its folder is there, the VM is paused.
function M.crash_in_snapshot(world, path, spec)
  local order = { action = "snapshot", path = path, spec = { id = world.id } }
  for key, value in pairs(spec or {}) do order.spec[key] = value end
  os.remove(world.output)
  assert(not M.crash(world, order)) -- to see its steps
  support.must(support.must(fcproc.vm.adopt(world.manager, world.id)):kill())
  support.sh{ "rm", "-r", path }
  -- After it was marked and the VM paused.
  order.at = M.step_of(world, "request", 1, M.step_of(world, "make_dir", 1))
  assert(M.crash(world, order))
end

---A manager in a process of its own that has a VM in its hands, killed at the end of its block.
function M.holder(world, spec)
  os.remove(world.output)
  local process = M.start(world, { action = "hold", spec = spec })
  local holder = setmetatable({ process = process }, { __close = function()
    process:signal("KILL")
    process:wait(10)
    process:close()
  end })
  support.eventually("it has its VM", function()
    return (support.read_file(world.output) or ""):find("holds", 1, true) or not process:alive()
  end, 20)
  return holder
end

-- What a test that failed half-way has left running.
local function end_vms(world)
  for _, entry in ipairs(fcproc.vm.list(world.manager) or {}) do
    local process <close> = entry.pid and fcproc.process(entry.pid)
    if process then process:signal("KILL") end
  end
end

---A bridged world with an uplink, whose managers write what they do to world.output.
function M.world(config)
  local world = support.bridged_world(config)
  world.id = "crash-" .. world.folder.path:match("[^.]+$") -- nobody else's on this host
  world.output = world.folder:file("output")
  support.sh({ "ip", "tuntap", "add", "up0", "mode", "tap" }, { netns = world.netns })
  support.sh({ "ip", "link", "set", "up0", "up" }, { netns = world.netns })
  local close = getmetatable(world).__close
  return setmetatable(world, { __close = function(self)
    end_vms(self)
    close(self)
  end })
end

return M
