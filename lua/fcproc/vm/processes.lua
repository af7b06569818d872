-- All processes of the host, and what they have open, as far as /proc shows them.

local core = require "fcproc.core"

local M = {}

local HOSTS_OWN = 4026531836 -- the number of the first PID namespace, since Linux 3.8

---Do we see every process of the host? Not from another PID namespace than its own.
---@return boolean
function M.all_seen()
  local stat = core.stat("/proc/self/ns/pid", true)
  return stat ~= nil and stat.ino == HOSTS_OWN
end

---The pids.
---@return fun(): integer?
function M.each()
  local entries, at = core.list_dir("/proc") or {}, 0
  return function()
    repeat at = at + 1 until not entries[at] or entries[at].name:find("^%d+$")
    return entries[at] and math.tointeger(tonumber(entries[at].name))
  end
end

---Descriptors of all processes that we may look at: where each is, and what it leads to.
---@return fun(): string?, table?, integer?  path, stat, pid
function M.descriptors()
  return coroutine.wrap(function()
    for pid in M.each() do
      local folder = ("/proc/%d/fd"):format(pid)
      for _, entry in ipairs(core.list_dir(folder) or {}) do
        local path = folder .. "/" .. entry.name
        local stat = core.stat(path, true)
        if stat then coroutine.yield(path, stat, pid) end
      end
    end
  end)
end

---The pid of one with that real uid which has not ended.
---@param uid integer
---@return integer? pid
---@return string? name
function M.of_user(uid)
  for pid in M.each() do
    local status = core.read_file(("/proc/%d/status"):format(pid)) or ""
    local name, state, real = status:match("^Name:%s*([^\n]*).-\nState:%s*(%a).-\nUid:%s*(%d+)")
    if tonumber(real) == uid and state ~= "Z" and state ~= "X" then return pid, name end
  end
end

return M
