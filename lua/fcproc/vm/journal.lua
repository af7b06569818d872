-- The journal of a VM, vm.json in its folder: what is made for it on the host is written there
-- before it is made. Whoever holds the VM's lock may change either.
--
-- RUNTIME_DIR/ID/            the VM's folder
-- RUNTIME_DIR/.fcproc/locks/ID     locked (flock) by the manager that has the VM
-- RUNTIME_DIR/.fcproc/leases/NAME  a symbolic link: NAME belongs to the VM that it points to

local core = require "fcproc.core"
local errors = require "fcproc.error"
local json = require "fcproc.json"

local M = {}

local FORMAT = 1

---@class fcproc.Journal
---@field manager fcproc.Manager
---@field id string
---@field folder string
---@field lock userdata
---@field record table  what vm.json says
local Journal = {}
Journal.__index = Journal

---The VM's folder.
---@param manager fcproc.Manager
---@param id string
---@return string
function M.folder(manager, id)
  return manager.config.runtime_dir .. "/" .. id
end

---@param manager fcproc.Manager
---@param kind "locks"|"leases"
---@return string
function M.own_folder(manager, kind)
  return ("%s/.fcproc/%s"):format(manager.config.runtime_dir, kind)
end

local function make_folders(manager)
  local ok, err = manager:ensure_socket_dir()
  if not ok then return nil, err end
  for _, name in ipairs{ "", "/locks", "/leases" } do
    local made
    made, err = core.make_dir(manager.config.runtime_dir .. "/.fcproc" .. name, 448) -- 0700
    if made == nil then return nil, err end
  end
  return true
end

---Our own pid, for the journal: so that others can say who has the VM.
---@return integer?
function M.own_pid()
  return tonumber((core.read_link("/proc/self")))
end

---Which process has the VM's lock, as its journal says; nil: nobody knows.
---@param manager fcproc.Manager
---@param id string
---@return integer? pid
function M.holder(manager, id)
  local pid = M.read(manager, id).manager
  return pid and core.stat(("/proc/%d"):format(pid)) and pid or nil
end

---Takes the VM's lock.
---@param manager fcproc.Manager
---@param id string
---@return userdata? lock
---@return fcproc.Error? err  ERR_BUSY: another manager has it
function M.lock(manager, id)
  local path = M.own_folder(manager, "locks") .. "/" .. id
  local lock, err = core.lock_file(path)
  if lock then return lock end
  if err.code == "busy" then
    err.pid = M.holder(manager, id)
    err.message = ("the VM '%s' is in the hands of another manager%s; wait for it, or end that "
      .. "process"):format(id, err.pid and (", pid %d"):format(err.pid) or "")
  end
  return nil, err
end

---Has a manager the VM's lock? Looks only.
---@param manager fcproc.Manager
---@param id string
---@return boolean
function M.is_locked(manager, id)
  return core.lock_taken(M.own_folder(manager, "locks") .. "/" .. id) == true
end

---Does the VM have a folder?
---@param manager fcproc.Manager
---@param id string
---@return boolean
function M.exists(manager, id)
  return core.stat(M.folder(manager, id)) ~= nil
end

local function new(manager, id, lock, record)
  return setmetatable({ manager = manager, id = id, lock = lock, record = record,
    folder = M.folder(manager, id) }, Journal)
end

---The lock and the folder of a new VM.
---@param manager fcproc.Manager
---@param id string
---@return fcproc.Journal?
---@return fcproc.Error? err  ERR_CONFLICT: there is a VM, alive or dead, of that id
function M.create(manager, id)
  local ok, err = make_folders(manager)
  if not ok then return nil, err end
  local lock
  lock, err = M.lock(manager, id)
  if not lock then return nil, err end
  local folder = M.folder(manager, id)
  local made
  made, err = core.make_dir(folder, 448)
  if made then
    return new(manager, id, lock, { format = FORMAT, id = id, created = os.time(),
      manager = M.own_pid() })
  end
  lock:close()
  return nil, err or errors.new{
    code = "conflict", op = "vm.launch", path = folder,
    message = ("there is a VM '%s' already: %s. Adopt it when it runs, reclaim it when it is dead")
      :format(id, folder),
  }
end

---The error for a VM that is not there.
---@param manager fcproc.Manager
---@param id string
---@param op string
---@return nil
---@return fcproc.Error err
function M.missing(manager, id, op)
  return nil, errors.new{ code = "not_found", op = op, path = M.folder(manager, id),
    message = ("there is no VM '%s' in %s"):format(id, manager.config.runtime_dir) }
end

---The lock and the journal of a VM that is there. A folder whose journal was never written, or
---cut by a crash of the host, has a record that says so.
---@param manager fcproc.Manager
---@param id string
---@return fcproc.Journal?
---@return fcproc.Error? err  ERR_NOT_FOUND: no such VM; ERR_BUSY: another manager has it
function M.open(manager, id)
  if not M.exists(manager, id) then return M.missing(manager, id, "vm.adopt") end
  local ok, err = make_folders(manager)
  if not ok then return nil, err end
  local lock
  lock, err = M.lock(manager, id)
  if not lock then return nil, err end
  if not M.exists(manager, id) then -- it went while we came
    lock:remove()
    return M.missing(manager, id, "vm.adopt")
  end
  return new(manager, id, lock, M.read(manager, id))
end

---What the journal says; without the lock it may be about to change.
---@param manager fcproc.Manager
---@param id string
---@return table record
function M.read(manager, id)
  local text = core.read_file(M.folder(manager, id) .. "/vm.json")
  local record = text and json.read(text)
  if type(record) ~= "table" or record.format ~= FORMAT then
    return { format = FORMAT, id = id, state = "unknown" }
  end
  return json.plain(record)
end

---The ids of all VMs that have a folder, alive or dead.
---@param manager fcproc.Manager
---@return string[]? ids
---@return fcproc.Error? err
function M.ids(manager)
  local entries, err = core.list_dir(manager.config.runtime_dir)
  if not entries then
    if err.code == "not_found" then return {} end
    return nil, err
  end
  local ids = {}
  for _, entry in ipairs(entries) do
    if entry.type == "dir" and entry.name:sub(1, 1) ~= "." then ids[#ids + 1] = entry.name end
  end
  return ids
end

---Writes the journal, in one rename.
---@param state string
---@return true?
---@return fcproc.Error? err
function Journal:save(state)
  local started = core.now()
  self.record.state = state
  local ok, err = core.write_file(self.folder .. "/vm.json", json.write(self.record), 384) -- 0600
  if not ok then return nil, err end
  self.manager:_log(started, "journal written", { id = self.id, state = state })
  return true
end

---Releases the lock; the VM and its folder stay.
function Journal:close()
  self.lock:close()
end

---The VM's folder goes, then its lock.
---@return true?
---@return fcproc.Error? err
function Journal:remove()
  local removed, err = core.remove_tree(self.folder)
  if not removed then return nil, err end
  self.lock:remove()
  return true
end

return M
