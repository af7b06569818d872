-- Network namespaces by their number, which is all that a journal or a lease can say of one.

local core = require "fcproc.core"
local mounts = require "fcproc.mounts"
local processes = require "fcproc.resources.processes"

local M = {}

local function own_path(manager)
  local netns = manager.config.netns
  return netns and ("/proc/self/fd/%d"):format(netns:fd()) or "/proc/self/ns/net"
end

---The namespace where this process is, as a number.
---@return integer
function M.own()
  local stat = core.stat("/proc/self/ns/net", true)
  return stat and stat.ino or 0
end

---The namespace where the manager makes links, as a number.
---@param manager fcproc.Manager
---@return integer
function M.of(manager)
  local stat = core.stat(own_path(manager), true)
  return stat and stat.ino or 0
end

local function open(look, path, number)
  local stat = core.stat(path, true)
  local netns = stat and stat.ino == number and processes.seen(look, nil, core.netns(path))
  if not netns then return end
  stat = core.stat(("/proc/self/fd/%d"):format(netns:fd()), true)
  if stat and stat.ino == number then return netns end
  netns:close()
end

-- Where it is mounted, also outside of /run/netns.
local function mounted(look, number)
  for _, mount in ipairs(processes.seen(look, {}, mounts.list())) do
    if mount.root == ("net:[%d]"):format(number) then return open(look, mount.point, number) end
  end
end

---Opens one: by the name that it had, by where it is mounted, through a process that is in it, or that
---has it open.
---@param number integer
---@param name string?
---@param manager fcproc.Manager?  whose own it may be
---@return fcproc.Netns? netns  nil: it went with the last that held it, or can't be seen from here
---@return fcproc.Error? err      whether it is there could not be found out
function M.find(number, name, manager)
  local look = {}
  local found = manager and open(look, own_path(manager), number)
    or name and open(look, name:find("/", 1, true) and name or "/run/netns/" .. name, number)
    or mounted(look, number)
  if found then return found end
  for pid in processes.each(look) do
    found = open(look, ("/proc/%d/ns/net"):format(pid), number)
    if found then return found end
  end
  for path, stat in processes.descriptors(look) do
    found = stat.ino == number and open(look, path, number)
    if found then return found end
  end
  return nil, look.err
end

return M
