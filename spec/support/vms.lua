-- For the specs of whole VMs: the built-in guest's disks, its readiness, and what is left of a VM.

local core = require "fcproc.core"
local fcproc = require "fcproc"
local support = require "spec.support"

local must = support.must

local M = {}

---A world with a bridge for each test of the describe block around: `local world = vms.worlds(busted)`.
---After each test nothing of a VM may be left in it.
---@param busted { before_each: function, after_each: function }
function M.worlds(busted)
  local world = {}
  busted.before_each(function()
    support.before_each()
    setmetatable(world, { __index = support.bridged_world() })
  end)
  busted.after_each(function()
    local current = getmetatable(world).__index
    local ok, err = pcall(M.nothing_left, current)
    getmetatable(current).__close(current)
    setmetatable(world, nil)
    support.after_each()
    if not ok then error(err, 0) end
  end)
  return world
end

---A disk of 64 KiB that starts with the text.
function M.disk(world, name, text)
  local path = world.folder:file(name)
  support.write_file(path, text .. ("\0"):rep(65536 - #text))
  return path
end

---Launches one whose guest is ready.
function M.ready(world, spec, ctx)
  local vm, err = fcproc.vm.launch(world.manager, spec, ctx)
  must(vm, err)
  local ok, reason = must(vm:console()):wait_for("fcproc guest: ready", 10)
  if not ok then
    vm:kill()
    must(ok, reason)
  end
  return vm
end

---The VM's whole console.
function M.console(vm)
  return must(must(vm:console()):read())
end

---Fails unless the console holds each text.
function M.shows(vm, ...)
  local text = M.console(vm)
  for _, wanted in ipairs{ ... } do
    if not text:find(wanted, 1, true) then
      error(("'%s' is not on the console:\n%s"):format(wanted, text), 2)
    end
  end
end

---Detaches it, and returns its process: it stays our child, which is to be reaped when it has ended.
function M.detach(vm)
  local child = vm.machine.process
  vm.machine.process, vm.machine.launcher = nil, nil
  must(vm:detach())
  return child
end

-- Names of files in the runtime folder, but its own empty folders.
local function files(world)
  local run = world.manager.config.runtime_dir
  if not core.stat(run) then return "" end
  return (support.sh{ "find", run, "-mindepth", "1", "-not", "-path", run .. "/.fcproc",
    "-not", "-path", run .. "/.fcproc/locks", "-not", "-path", run .. "/.fcproc/rootless*" })
end

---What there is of VMs on the host: files, links, processes.
function M.traces(world)
  local found = { files(world), table.concat((support.leases(world)), "\n") }
  if found[2] == "" then found[2] = nil end
  for _, link in ipairs(support.ip(world.netns, "link")) do
    if link.ifname ~= "lo" and link.ifname ~= "fcbr0" then found[#found + 1] = link.ifname end
  end
  for _, entry in ipairs(must(core.list_dir("/proc"))) do
    local arguments = entry.name:match("^%d+$")
      and (core.read_file("/proc/" .. entry.name .. "/cmdline") or ""):gsub("%z", " ")
    if arguments and arguments:find(world.folder.path, 1, true)
      and arguments:find("--api-sock", 1, true) then
      found[#found + 1] = arguments
    end
  end
  return table.concat(found, "\n")
end

---Fails if there is anything of a VM.
function M.nothing_left(world)
  local found = M.traces(world)
  if found ~= "" then error("left over:\n" .. found, 2) end
end

return M
