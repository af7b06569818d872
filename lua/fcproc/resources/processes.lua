-- All processes of the host, and what they have open, as far as /proc shows them. What is not found may
-- be there all the same when we lacked descriptors to look: a look that is given gets that error.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

local HOSTS_OWN = 4026531836 -- the number of the first PID namespace, since Linux 3.8

---Do we see every process of the host? Not from another PID namespace than its own.
---@return boolean
function M.all_seen()
  local stat = core.stat("/proc/self/ns/pid", true)
  return stat ~= nil and stat.ino == HOSTS_OWN
end

---@class fcproc.Look
---@field err fcproc.Error?  why not all was seen

-- The value, or an empty one; the look is told when it was we who could not look.
local function seen(look, missing, value, err)
  if value ~= nil then return value end
  if look and errors.lacks_descriptors(err) then look.err = look.err or err end
  return missing
end

M.seen = seen

---The pids.
---@param look fcproc.Look?
---@return fun(): integer?
function M.each(look)
  local entries, at = seen(look, {}, core.list_dir("/proc")), 0
  return function()
    repeat at = at + 1 until not entries[at] or entries[at].name:find("^%d+$")
    return entries[at] and math.tointeger(tonumber(entries[at].name))
  end
end

---Descriptors of all processes that we may look at: where each is, and what it leads to.
---@param look fcproc.Look?
---@return fun(): string?, table?, integer?  path, stat, pid
function M.descriptors(look)
  return coroutine.wrap(function()
    for pid in M.each(look) do
      local folder = ("/proc/%d/fd"):format(pid)
      for _, entry in ipairs(seen(look, {}, core.list_dir(folder))) do
        local path = folder .. "/" .. entry.name
        local stat = core.stat(path, true)
        if stat then coroutine.yield(path, stat, pid) end
      end
    end
  end)
end

---The pid of one that has a TAP open, as far as it lets us look.
---@param name string
---@param netns integer  the number of the network namespace, in which it is, too
---@return integer? pid
---@return string? name  of its program
function M.of_tap(name, netns)
  for path, _, pid in M.descriptors() do
    if (core.read_link(path) or ""):find("/net/tun", 1, true) then
      local info = core.read_file((path:gsub("/fd/", "/fdinfo/"))) or ""
      local place = info:match("\niff:%s*(%S+)") == name and core.stat(("/proc/%d/ns/net"):format(pid), true)
      if place and place.ino == netns then
        return pid, (core.read_file(("/proc/%d/comm"):format(pid)) or "?"):match("[^\n]*")
      end
    end
  end
end

---The pid of one with that real uid which has not ended.
---@param uid integer
---@return integer? pid
---@return string? name
---@return fcproc.Error? err  whether there is one could not be found out
function M.of_user(uid)
  local look = {}
  for pid in M.each(look) do
    local status = seen(look, "", core.read_file(("/proc/%d/status"):format(pid)))
    local name, state, real = status:match("^Name:%s*([^\n]*).-\nState:%s*(%a).-\nUid:%s*(%d+)")
    if tonumber(real) == uid and state ~= "Z" and state ~= "X" then return pid, name end
  end
  return nil, nil, look.err
end

return M
