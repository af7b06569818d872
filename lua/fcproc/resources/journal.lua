-- The journal of a VM, vm.json in its folder: what is made for it on the host is written there
-- before it is made. Whoever holds the VM's lock may change either.
--
-- RUNTIME_DIR/ID/            the VM's folder
-- RUNTIME_DIR/.fcproc/locks/ID     locked by the manager that has the VM
--
-- The lock file is there before the folder is, and goes after it. So a folder that has neither a
-- journal nor a lock file is somebody else's, and is left alone.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local json = require "fcproc.json"
local records = require "fcproc.resources.record"
local room = require "fcproc.resources.room"

local M = {}

local PRIVATE = 384 -- 0600
local MOST_ID = 64 -- bytes, as Firecracker's
local LOCK_TRIES, LOCK_PAUSE = 100, 0.002 -- seconds

---@class fcproc.Journal
---@field manager fcproc.Manager
---@field id string
---@field folder string
---@field lock userdata
---@field record table  what vm.json says
---@field fresh true?  its VM's folder was just made, and nothing has been written
local Journal = {}
Journal.__index = Journal

---@class fcproc.Fleet  what one VM of several that are launched has done or found for the others
---@field folder true?      the runtime folder was seen to
---@field bridge integer?   the bridge's ifindex, which was seen to
---@field pid integer?      ours
---@field namespace integer?  the one in which the manager makes links
---@field leases fcproc.Leases?  where leases are taken
---@field taken_uids integer[][]?  ranges that others give away
---@field binary string?    Firecracker's, absolute
---@field huge_mib integer?  what all of its VMs take of huge pages
---@field huge_free integer?  pages that there were for them
---@field abandoned fcproc.Vm[]?  that failed, and could not be removed as long as the others held on
---@field with_nat fcproc.NatEntry[]?  guests that run, when the kernel's tables were not there
---@field uplinks table<string, { answers: fcproc.NatCheck[]?, asking: fcproc.Context? }>?  see uplinks.lua
---@field uplink string?    the default one
---@field no_uplink fcproc.Error?  why there is none

---The VM's folder.
---@param manager fcproc.Manager
---@param id string
---@return string
function M.folder(manager, id)
  return manager.config.runtime_dir .. "/" .. id
end

---@param manager fcproc.Manager
---@param kind "locks"|"leases"  the latter an earlier fcproc's
---@return string
function M.own_folder(manager, kind)
  return ("%s/.fcproc/%s"):format(manager.config.runtime_dir, kind)
end

---Can it be a VM's? What is found in a folder, a lease or a comment need not be one.
---@param text any
---@return boolean
function M.is_id(text)
  return type(text) == "string" and #text <= MOST_ID and text:find("^[%w%-]+$") ~= nil
end

---Is the runtime folder ours alone, with what is in it? Whoever looks for VMs asks first: in a folder of
---somebody else's, links would lead us, and what its journals say would be done with our rights.
---@param manager fcproc.Manager
---@return true?
---@return fcproc.Error? err  ERR_NOT_FOUND: there is none; ERR_PERMISSION: it is somebody else's;
---                            ERR_CONFLICT: others may write there, or a link is in the way
function M.check_folder(manager)
  local folder = manager.config.runtime_dir
  local ok, err = core.check_dir(folder)
  for _, name in ipairs(ok and { "", "/locks", "/leases" } or {}) do
    if ok then ok, err = core.check_dir(folder .. "/.fcproc" .. name) end
    if not ok and err.code == "not_found" then ok = true end
  end
  if ok then return true end
  err.path = folder
  return nil, err
end

-- The locks' last: when it is there, all are, though a crash came in between.
local function make_folders(manager)
  for _, name in ipairs{ "", "/locks" } do
    local made, err = core.make_dir(manager.config.runtime_dir .. "/.fcproc" .. name, 448) -- 0700
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
  local record = M.read(manager, id)
  local pid, identity = record and record.manager, record and (record.process or record.launcher)
  local here = core.stat("/proc/self/ns/pid", true)
  -- Its number is of the namespace where the VM's was noted down.
  if identity and identity.pid_ns and not (here and here.ino == identity.pid_ns) then return nil end
  return pid and core.stat(("/proc/%d"):format(pid)) and pid or nil
end

local function busy_text(id, pid)
  if pid and pid == M.own_pid() then
    return ("the VM '%s' is in the hands of this very process, pid %d: by another object for it, "
      .. "perhaps of another manager; use that, or detach it first"):format(id, pid)
  end
  return ("the VM '%s' is in the hands of another manager%s; wait for it, or end that process")
    :format(id, pid and (", pid %d"):format(pid) or "")
end

---Takes the VM's lock.
---@param manager fcproc.Manager
---@param id string
---@return userdata? lock
---@return boolean|fcproc.Error created  false: its file was there; ERR_BUSY: another manager has it
function M.lock(manager, id)
  if not M.is_id(id) then
    return nil, errors.new{ code = "invalid", op = "vm.lock", message = "that is no VM's id" }
  end
  local path = M.own_folder(manager, "locks") .. "/" .. id
  local lock, err = core.lock_file(path)
  if lock then return lock, err end
  if err.code == "busy" then
    local pid = M.holder(manager, id)
    err.pid, err.message = pid, busy_text(id, pid)
  end
  return nil, err
end

-- The same, for which the folders are made when they are not there. The runtime folder is seen to
-- once for all VMs of a fleet.
local function lock_in_folder(manager, id, fleet)
  local ok, err = fleet and fleet.folder, nil
  if not ok then
    ok, err = manager:ensure_socket_dir()
    if ok then ok, err = M.check_folder(manager) end
  end
  if not ok then return nil, err end
  local lock, created = M.lock(manager, id)
  if lock or created.code ~= "not_found" then
    if fleet then fleet.folder = true end
    return lock, created
  end
  ok, err = manager:ensure_socket_dir()
  if ok then ok, err = make_folders(manager) end
  if not ok then return nil, err end
  return M.lock(manager, id)
end

---Takes the VM's lock, for which the folders are made when they are not there.
---@param manager fcproc.Manager
---@param id string
---@return userdata? lock
---@return boolean|fcproc.Error created
function M.lock_for(manager, id)
  return lock_in_folder(manager, id)
end

---Has a manager the VM's lock? Looks only.
---@param manager fcproc.Manager
---@param id string
---@return boolean
function M.is_locked(manager, id)
  return core.lock_taken(M.own_folder(manager, "locks") .. "/" .. id) == true
end

---Is there a VM of that id, or what is left of one?
---@param manager fcproc.Manager
---@param id string
---@return boolean
---@return fcproc.Error? err  ERR_PERMISSION: it can't be seen from here
function M.exists(manager, id)
  if not M.is_id(id) then return false end
  local folder = M.folder(manager, id)
  -- The folder last: it goes before its lock does.
  local ours, err = core.stat(M.own_folder(manager, "locks") .. "/" .. id)
  if not ours and err.code == "permission" then return false, err end
  ours = ours or core.stat(folder .. "/vm.json")
  return ours ~= nil and core.stat(folder) ~= nil
end

---The same for who needs it to be there.
---@param manager fcproc.Manager
---@param id string
---@param op string
---@return true?
---@return fcproc.Error? err  ERR_NOT_FOUND: no such VM
function M.find(manager, id, op)
  local ok, err = M.check_folder(manager)
  if ok then
    ok, err = M.exists(manager, id)
    if ok then return true end
  end
  if err and err.code ~= "not_found" then return nil, err end
  return M.missing(manager, id, op)
end

local booted

local function boot_id()
  booted = booted or (core.read_file("/proc/sys/kernel/random/boot_id") or ""):match("%S+")
  return booted
end

---Was it written before the host booted? Then links, cgroups and processes are gone by themselves.
---@param record table
---@return boolean
function M.is_of_earlier_boot(record)
  return record.boot_id ~= nil and record.boot_id ~= boot_id()
end

local function new(manager, id, lock, record)
  return setmetatable({ manager = manager, id = id, lock = lock, record = record,
    folder = M.folder(manager, id) }, Journal)
end

-- For a moment a lock may be nobody's: a sweep holds that of a VM that is not there, to see that it is
-- free; and of a manager that was killed a child may have it yet, on its way to its own end.
local function lock_patiently(manager, id, fleet)
  local lock, err
  for _ = 1, LOCK_TRIES do
    lock, err = lock_in_folder(manager, id, fleet)
    if lock or err.code ~= "busy" or err.pid then break end
    core.poll_many({}, {}, LOCK_PAUSE)
  end
  return lock, err
end

---The lock and the folder of a new VM.
---@param manager fcproc.Manager
---@param id string
---@param fleet fcproc.Fleet
---@return fcproc.Journal?
---@return fcproc.Error? err  ERR_CONFLICT: there is a VM, alive or dead, of that id
function M.create(manager, id, fleet)
  local lock, created = lock_patiently(manager, id, fleet)
  if not lock then return nil, created end
  local folder = M.folder(manager, id)
  local made, err = core.make_dir(folder, 448)
  if made then
    fleet.pid = fleet.pid or M.own_pid()
    local journal = new(manager, id, lock, { format = records.FORMAT, id = id, created = os.time(),
      boot_id = boot_id(), manager = fleet.pid })
    journal.fresh = true
    return journal
  end
  -- A lock file left here would make a stranger's folder look like ours.
  local ours = not created or core.stat(folder .. "/vm.json")
  if created then lock:remove() else lock:close() end
  return nil, err or not ours and errors.new{ code = "conflict", op = "vm.launch", path = folder,
    message = ("%s is there already and is no VM's: remove it, or choose another id"):format(folder),
  } or errors.new{
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

---The lock and the journal of a VM that is there.
---@param manager fcproc.Manager
---@param id string
---@return fcproc.Journal? journal  its record is nil when there is none that can be read: see err
---@return fcproc.Error? err  ERR_NOT_FOUND: no such VM; ERR_BUSY: another manager has it
function M.open(manager, id)
  local there, err = M.find(manager, id, "vm.adopt")
  if not there then return nil, err end
  local lock
  lock, err = lock_patiently(manager, id)
  if not lock then return nil, err end
  if not core.stat(M.folder(manager, id)) then -- it went while we came
    lock:remove()
    return M.missing(manager, id, "vm.adopt")
  end
  local record
  record, err = M.read(manager, id)
  return new(manager, id, lock, record), err
end

local function unreadable(code, path, format, ...)
  return nil, errors.new{ code = code, op = "vm.journal", path = path,
    message = ("the journal %s %s"):format(path, format:format(...)) }
end

---What the journal says; without the lock it may be about to change. A crash of the host can cut it,
---which is as good as none. One that is whole and says what no fcproc writes was tampered with or
---damaged in some other way, and is for a person to look at.
---@param manager fcproc.Manager
---@param id string
---@return table? record
---@return fcproc.Error? err  ERR_NOT_FOUND: none was written yet; ERR_PROTOCOL: cut or garbage;
---                            ERR_UNSUPPORTED: of a newer fcproc; ERR_CONFLICT: another VM's, or it
---                            says what can't be; ERR_PERMISSION: the folder is somebody else's
function M.read(manager, id)
  local folder = M.folder(manager, id)
  local path = folder .. "/vm.json"
  local ok, err = core.check_dir(folder)
  if not ok then return nil, err end
  local text
  text, err = core.read_file(path, 0, records.LIMIT + 1)
  if not text then return nil, err end
  local record = records.decode(text)
  if not record or record.format == nil then return unreadable("protocol", path, "is not whole") end
  if math.type(record.format) == "integer" and record.format > records.FORMAT then
    return unreadable("unsupported", path, "has the format %d, this fcproc knows %d: use the one "
      .. "that wrote it", record.format, records.FORMAT)
  end
  local complaint
  if record.format ~= records.FORMAT then
    complaint = ("format must be %d"):format(records.FORMAT)
  elseif not M.is_id(record.id) then
    complaint = "id must be letters, digits and dashes"
  elseif record.id ~= id then
    return unreadable("conflict", path, "is that of the VM '%s': the folder was copied or renamed",
      record.id)
  end
  complaint = complaint or records.check_journal(record, folder, id)
  if not complaint then return record end
  return unreadable("conflict", path, "says what can't be, so nothing of the VM is touched: %s. Mend "
    .. "it, or remove it: then the VM is judged by its folder, its socket and its leases", complaint)
end

---The ids of all VMs that have a folder, alive or dead.
---@param manager fcproc.Manager
---@return string[]? ids
---@return fcproc.Error? err
function M.ids(manager)
  local ok, err = M.check_folder(manager)
  local entries
  if ok then entries, err = core.list_dir(manager.config.runtime_dir) end
  if not entries then
    if err.code == "not_found" then return {} end
    return nil, err
  end
  local ids = {}
  for _, entry in ipairs(entries) do
    local name = entry.name
    if entry.type == "dir" and M.exists(manager, name) then ids[#ids + 1] = name end
  end
  return ids
end

---What the journals tell: of one VM, when its record is given, else of all. A journal that can't be
---read is left out: it is told by who lists VMs.
---@param manager fcproc.Manager
---@param only table?
---@return table[]? records
---@return fcproc.Error? err
function M.records(manager, only)
  if only then return { only } end
  local ids, err = M.ids(manager)
  if not ids then return nil, err end
  local list = {}
  for _, id in ipairs(ids) do list[#list + 1] = M.read(manager, id) end
  return list
end

---Removes the lock files of VMs that are not there, which a crash between lock and folder leaves.
---@param manager fcproc.Manager
function M.sweep(manager)
  for _, entry in ipairs(core.list_dir(M.own_folder(manager, "locks")) or {}) do
    local lock = not core.stat(M.folder(manager, entry.name)) and M.lock(manager, entry.name)
    if lock and core.stat(M.folder(manager, entry.name)) then
      lock:close()
    elseif lock then
      lock:remove()
    end
  end
end

---Writes the journal, in one rename: but for the first time, where a crash may leave it cut, which
---is as good as none.
---@param state string
---@return true?
---@return fcproc.Error? err
function Journal:save(state)
  local started = core.now()
  self.record.state = state
  local path, text = self.folder .. "/vm.json", json.write_quickly(self.record)
  if not utf8.len(text) then text = json.write(json.kept(self.record)) end
  local ok, err = (self.fresh and core.create_file or core.write_file)(path, text, PRIVATE)
  if not ok then
    room.tell(err, self.folder)
    return nil, err
  end
  self.fresh = nil
  if self.manager.config.logger then
    self.manager:_log(started, "journal written", { id = self.id, state = state })
  end
  return true
end

---The same for what must not fail because of it, as a full disk must not keep a VM from being ended:
---that it could not be written is logged, and what is written is still true, or an adopt finds out.
---@param state string
function Journal:try_save(state)
  local started = core.now()
  local saved, err = self:save(state)
  if saved then return end
  self.manager:_log(started, "the journal could not be written", { id = self.id, reason = err.message },
    "warn")
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
