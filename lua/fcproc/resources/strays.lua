-- TAPs that are provably ours and no VM's: their alias names a VM of this runtime folder, and there is
-- none of that id. So it is when somebody removed a VM's folder by hand.

local aliases = require "fcproc.alias"
local errors = require "fcproc.error"
local inuse = require "fcproc.resources.inuse"
local journals = require "fcproc.resources.journal"
local lease = require "fcproc.resources.lease"
local namespaces = require "fcproc.resources.namespaces"

local M = {}

---@class fcproc.Stray
---@field name string
---@field id string      of the VM whose it was
---@field alias string
---@field in_use boolean  that VM runs on, known to nobody

-- Neither is there a VM, nor is one just made or removed.
local function is_nobodys(manager, id)
  local there, err = journals.exists(manager, id)
  return not there and not err and not journals.is_locked(manager, id)
end

---The strays of the manager's network namespace.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return fcproc.Stray[]?
---@return fcproc.Error? err
function M.list(manager, ctx)
  local taps, err = manager.net:list_taps(nil, ctx)
  if not taps then return nil, err end
  local strays = {}
  for _, tap in ipairs(taps) do
    local id = aliases.id_of(manager.config.runtime_dir, tap.alias)
    if id and is_nobodys(manager, id) then
      strays[#strays + 1] = { name = tap.name, id = id, alias = tap.alias, in_use = tap.in_use }
    end
  end
  return strays
end

---The TAPs with these aliases, each leased to its VM: so nobody else takes one that we are about to
---remove. Give the leases back.
---@param there fcproc.Manager  of the namespace where they are
---@param leases fcproc.Leases
---@param ids table<string, string>  alias to id
---@param ctx fcproc.Context?
---@return string[]? names
---@return fcproc.Error|string[] held  the leases' names
function M.hold(there, leases, ids, ctx)
  local number, leased, names, held = namespaces.of(there), {}, {}, {}
  for pass = 1, 2 do -- once for the names, and once again when nobody can take them any more
    local taps, err = there.net:list_taps(nil, ctx)
    if not taps then return nil, err end
    for _, tap in ipairs(taps) do
      local id, name = ids[tap.alias or ""], ("tap-%d-%s"):format(number, tap.name)
      if id and pass == 1 and leases:take(name, id) then
        leased[tap.name], held[#held + 1] = true, name
      elseif id and pass == 2 and leased[tap.name] then
        names[#names + 1] = tap.name
      end
    end
    if #held == 0 then break end
  end
  return names, held
end

local function remove_one(manager, leases, stray, ctx)
  if stray.in_use then
    local text, pid = inuse.tap(stray.name, namespaces.of(manager))
    return nil, errors.new{ code = "busy", op = "vm.reclaim", pid = pid, message = ("%s: the VM "
      .. "'%s' runs, and its folder was removed; end its process%s"):format(text, stray.id,
        pid and (" (kill %d)"):format(pid) or "") }
  end
  local lock <close>, err = journals.lock_for(manager, stray.id)
  if not lock then return nil, err end
  local names, held, deleted = {}, {}, nil
  if not journals.exists(manager, stray.id) then
    names, held = M.hold(manager, leases, { [stray.alias] = stray.id }, ctx)
  end
  err = not names and held or nil
  if names and #names > 0 then deleted, err = manager:delete_taps(names, ctx) end
  for _, name in ipairs(names and held or {}) do leases:release(name, stray.id) end
  lock:remove()
  return deleted and names, err
end

---Removes them, each under the lock of its VM.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return string[]? removed  names
---@return fcproc.Left[]|fcproc.Error left
function M.remove(manager, ctx)
  local strays, err = M.list(manager, ctx)
  if not strays then return nil, err end
  local leases
  leases, err = lease.open(manager, #strays > 0)
  if not leases then return nil, err end
  local removed, left = {}, {}
  for _, stray in ipairs(strays) do
    local names, problem = remove_one(manager, leases, stray, ctx)
    table.move(names or {}, 1, names and #names or 0, #removed + 1, removed)
    if problem then left[#left + 1] = { id = stray.id, what = "TAP " .. stray.name, err = problem } end
  end
  return removed, left
end

return M
