-- Is what a lease stands for in use? A lease outlives the folder that somebody removed by hand, and
-- is dropped only when nobody has its uid, its TAP, or its drive any more. In doubt somebody has.

local aliases = require "fcproc.alias"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local namespaces = require "fcproc.resources.namespaces"
local processes = require "fcproc.resources.processes"

local M = {}

local WRITES = 128 -- 0200, in the mode of a link in /proc/PID/fd

local UNSEEN = "whoever may have it can't be seen from this PID namespace"

local function uid_by(_, uid)
  if not processes.all_seen() then return UNSEEN end
  local used, err = core.uid_in_use(math.tointeger(tonumber(uid)))
  if used == nil then return err.message end
  if not used then return end
  local pid, name, unseen = processes.of_user(tonumber(uid))
  if unseen then return unseen.message end
  return pid and ("pid %d (%s) has it"):format(pid, name)
end

local function drive_by(_, dev, ino)
  if not processes.all_seen() then return UNSEEN end
  dev, ino = tonumber(dev), tonumber(ino)
  local look = {}
  for path, stat, pid in processes.descriptors(look) do
    local link = stat.dev == dev and stat.ino == ino and core.stat(path)
    if link and link.mode & WRITES ~= 0 then return ("pid %d writes to it"):format(pid) end
  end
  return look.err and look.err.message
end

---Says of a TAP in use by whom.
---@param name string
---@param namespace integer
---@return string text
---@return integer? pid
function M.tap(name, namespace)
  local pid, program = processes.of_tap(name, namespace)
  return ("the TAP %s is in use by %s"):format(name, pid and ("pid %d (%s)"):format(pid,
    errors.shown(program)) or "a running process"), pid
end

---The error of TAPs that can't be removed, with who has them where that can be known.
---@param names string[]
---@param namespace integer
---@param err fcproc.Error
---@return fcproc.Error err
function M.explain(names, namespace, err)
  if err.code ~= "busy" then return err end
  local parts = {}
  for _, name in ipairs(names) do
    local text, pid = M.tap(name, namespace)
    if pid then
      parts[#parts + 1] = ("%s: end that process (kill %d)"):format(text, pid)
      err.pid = err.pid or pid
    end
  end
  if parts[1] then err.message = table.concat(parts, "; ") end
  return err
end

-- Of its address and MAC the VM's TAPs tell.
local function network_by(owner, number, tap)
  number = math.tointeger(tonumber(number))
  local netns <close>, unseen = namespaces.find(number, nil, owner.manager)
  if unseen then return unseen.message end
  if not netns then return not processes.all_seen() and UNSEEN or nil end
  local net <close>, err = core.net(netns)
  local taps
  if net then taps, err = net:list_taps() end
  if not taps then return err.message end
  local alias, kept = aliases.of(owner.folder, owner.id), aliases.of(owner.folder, owner.id, true)
  for _, entry in ipairs(taps) do
    if entry.in_use and (entry.alias == alias or entry.alias == kept or entry.name == tap) then
      return (M.tap(entry.name, number))
    end
  end
end

---Who has the TAPs of a VM that has no folder any more.
---@param namespace integer
---@param owner { manager: fcproc.Manager, folder: string, id: string }
---@return string? by
function M.by_network(namespace, owner)
  return network_by(owner, namespace)
end

-- It is to be put back before its lease goes: see localnet.lua. With its namespace it has gone.
local function localnet_by(owner, number)
  local netns <close>, unseen = namespaces.find(math.tointeger(tonumber(number)), nil, owner.manager)
  if unseen then return unseen.message end
  if netns then return "a bridge has route_localnet for it" end
  return not processes.all_seen() and UNSEEN or nil
end

local kinds = {
  { "^uid%-(%d+)", uid_by }, { "^drive%-(%d+)%-(%d+)$", drive_by },
  { "^tap%-(%d+)%-(.+)$", network_by }, { "^ip%-(%d+)%-", network_by }, { "^mac%-(%d+)%-", network_by },
  { "^port%-(%d+)%-", network_by }, { "^localnet%-(%d+)%-", localnet_by },
}

---Who has what the lease stands for?
---@param name string  the lease's
---@param owner { manager: fcproc.Manager, folder: string, id: string }  folder: the runtime folder
---@return string? by  nil: nobody
function M.by(name, owner)
  for _, kind in ipairs(kinds) do
    local first, second = name:match(kind[1])
    if first then return kind[2](owner, first, second) end
  end
  return "its name says nothing of what it stands for"
end

return M
