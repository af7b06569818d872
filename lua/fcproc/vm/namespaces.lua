-- Network namespaces by their number, which is all that a journal or a lease can say of one.

local core = require "fcproc.core"
local processes = require "fcproc.vm.processes"

local M = {}

local function own_path(manager)
  local netns = manager.config.netns
  return netns and ("/proc/self/fd/%d"):format(netns:fd()) or "/proc/self/ns/net"
end

---The namespace where the manager makes links, as a number.
---@param manager fcproc.Manager
---@return integer
function M.of(manager)
  local stat = core.stat(own_path(manager), true)
  return stat and stat.ino or 0
end

local function open(path, number)
  local stat = core.stat(path, true)
  local netns = stat and stat.ino == number and core.netns(path)
  if not netns then return end
  stat = core.stat(("/proc/self/fd/%d"):format(netns:fd()), true)
  if stat and stat.ino == number then return netns end
  netns:close()
end

-- Where it is mounted, also outside of /run/netns.
local function mounted(number)
  for line in (core.read_file("/proc/self/mountinfo") or ""):gmatch("[^\n]+") do
    local root, point = line:match("^%d+ %d+ %S+ (%S+) (%S+)")
    if root == ("net:[%d]"):format(number) then return open(point, number) end
  end
end

---Opens one: by the name that it had, by where it is mounted, through a process that is in it, or that
---has it open.
---@param number integer
---@param name string?
---@param manager fcproc.Manager?  whose own it may be
---@return fcproc.Netns?  nil: it went with the last that held it, or can't be seen from here
function M.find(number, name, manager)
  local found = manager and open(own_path(manager), number)
    or name and open(name:find("/", 1, true) and name or "/run/netns/" .. name, number)
    or mounted(number)
  if found then return found end
  for pid in processes.each() do
    found = open(("/proc/%d/ns/net"):format(pid), number)
    if found then return found end
  end
  for path, stat in processes.descriptors() do
    found = stat.ino == number and open(path, number)
    if found then return found end
  end
end

return M
