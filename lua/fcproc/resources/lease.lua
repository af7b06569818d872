-- Leases: what one VM of the host may have at a time, whatever its runtime folder: the uid of a jail;
-- an address, a MAC and a TAP of a network namespace; a drive that is written. Each is a symbolic link
-- from the name to the VM's folder, which the kernel makes and refuses in one call.
--
-- BASE/.host/leases/NAME             -> RUNTIME_DIR/ID
-- BASE/.host/leases/NAME-shared/KEY  -> RUNTIME_DIR/ID   by each of several that have said so
-- BASE/.host/lock                    held while a stale one is dropped
--
-- BASE is /run/fcproc, or of an ordinary user /run/user/UID/fcproc; where neither can be, it is the
-- runtime folder. A VM takes its leases after it has made its folder, and gives them back before that
-- goes. So one whose folder is not there is stale; but as that may have been removed by hand, also what
-- it stands for must not be in use.

local address = require "fcproc.network.address"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local hash = require "fcproc.hash"
local inuse = require "fcproc.resources.inuse"
local journals = require "fcproc.resources.journal"
local take_old = require "fcproc.resources.oldleases"

local M = {}

local PRIVATE = 448 -- 0700
local OTHERS_WRITE, OTHERS = 18, 63 -- 0022, 0077
local LOCK_TRIES, LOCK_PAUSE = 500, 0.002 -- seconds
-- A runtime folder that is not there may be one of another mount namespace, where a VM is just made.
local LONG_AGO = 3600 -- seconds
local UNWRITABLE = { [1] = true, [13] = true, [30] = true } -- EPERM, EACCES, EROFS

---@class fcproc.Leases  the place where they are
---@field manager fcproc.Manager
---@field base string
---@field folder string?  nil: nobody has made it yet, so that there are none
local Leases = {}
Leases.__index = Leases

-- ---- the place -----------------------------------------------------------------------------

local function folder_of(base)
  return base .. "/.host/leases"
end

-- Nobody else may put anything there.
local function check(base)
  for i, path in ipairs{ base, base .. "/.host", folder_of(base) } do
    local stat, err = core.stat(path)
    if not stat then return nil, err end
    local own = core.own_uid()
    if stat.uid ~= own and own ~= 0 and stat.type == "dir" then
      return nil, errors.new{ code = "permission", op = "vm.lease", path = path,
        message = ("%s belongs to uid %d, and this is uid %d: what VMs have on this host is theirs; do this "
          .. "as that user, or choose another runtime_dir"):format(path, stat.uid, own) }
    end
    local open_to = i == 1 and OTHERS_WRITE or OTHERS
    local problem = stat.type ~= "dir" and "is no folder of its own but a link or a file"
      or stat.uid ~= own and ("belongs to uid %d"):format(stat.uid)
      or stat.mode & open_to ~= 0 and ("is open to others (mode %04o)"):format(stat.mode)
    if problem then
      return nil, errors.new{ code = "conflict", op = "vm.lease", path = path,
        message = ("%s %s, and what VMs have on this host is written there by nobody but us: remove "
          .. "it, or make it ours with mode 0700"):format(path, problem) }
    end
  end
  return true
end

local function make(base)
  for _, path in ipairs{ base, base .. "/.host", folder_of(base) } do
    local made, err = core.make_dir(path, PRIVATE)
    if made == nil then return nil, err end
  end
  return true
end

local function find(manager, making)
  local config = manager.config
  local bases = { config.host_dir, config.runtime_dir }
  for i, base in ipairs(bases) do
    local ok, err = check(base)
    if not ok and making and err.code == "not_found" then
      ok, err = make(base)
      if ok then ok, err = check(base) end
      if not ok and i < #bases and UNWRITABLE[err.errno] then
        manager:_log(core.now(), "the host's leases can't be written down, those of this folder are",
          { path = base, reason = err.message }, "warn")
        err.code = "not_found"
      end
    end
    if ok then return { base = base, folder = folder_of(base) } end
    if err.code ~= "not_found" then return nil, err end
  end
  return { base = config.host_dir }
end

---Opens the place.
---@param manager fcproc.Manager
---@param making boolean?  makes it, to take some
---@return fcproc.Leases?
---@return fcproc.Error? err  ERR_CONFLICT: it is not ours alone
function M.open(manager, making)
  local old = journals.own_folder(manager, "leases")
  old = core.stat(old) and old
  local place, err = find(manager, making or old)
  if not place then return nil, err end
  place.manager = manager
  setmetatable(place, Leases)
  if old then take_old(place, old) end
  return place
end

function Leases:_path(name)
  return self.folder .. "/" .. name
end

function Leases:_owner_text(id)
  return journals.folder(self.manager, id)
end

---One at a time, in all processes. Whoever holds it must not wait: another coroutine would, for the lock.
---@param name string?  of what; default: dropping what is stale, so that nobody drops what has just been
---                     taken anew
---@return userdata? held  to be removed
---@return fcproc.Error? err
function Leases:lock(name)
  local path = self.base .. "/.host/" .. (name and "lock-" .. name or "lock")
  local held, err
  for _ = 1, LOCK_TRIES do
    held, err = core.lock_file(path)
    if held or err.code ~= "busy" then break end
    core.poll_many({}, {}, LOCK_PAUSE)
  end
  return held, err
end

-- ---- whose it is -----------------------------------------------------------------------------

---@class fcproc.LeaseOwner
---@field manager fcproc.Manager
---@field folder string  the runtime folder
---@field id string

local function parse(self, text)
  local folder, id = (text or ""):match("^(/.*)/([%w%-]+)$")
  return folder and { manager = self.manager, folder = folder, id = id } or nil
end

---Whose is it?
---@param name string
---@return fcproc.LeaseOwner?
function Leases:owner(name)
  return self.folder and parse(self, core.read_link(self:_path(name))) or nil
end

---Is it this VM's?
---@param name string
---@param id string  of a VM of this manager's runtime folder
---@return boolean
function Leases:holds(name, id)
  return self.folder ~= nil and core.read_link(self:_path(name)) == self:_owner_text(id)
end

---The VM in words, for a message.
---@param owner fcproc.LeaseOwner
---@return string
function Leases:describe(owner)
  if owner.folder == self.manager.config.runtime_dir then return ("the VM '%s'"):format(owner.id) end
  return ("the VM '%s' of %s"):format(owner.id, owner.folder)
end

local function conflict(self, owner, format)
  return errors.new{ code = "conflict", op = "vm.lease", owner = owner.id, folder = owner.folder,
    message = (format or "%s has it"):format(self:describe(owner)) }
end

-- Does a VM stand behind it, or may one?
local function has_vm(self, name, owner)
  local place = { config = { runtime_dir = owner.folder } }
  local there, err = core.stat(journals.folder(place, owner.id))
  if there or err.code ~= "not_found" or journals.is_locked(place, owner.id) then return true end
  if owner.folder == self.manager.config.runtime_dir or core.stat(owner.folder) then return false end
  local link = core.stat(self:_path(name))
  return link ~= nil and os.time() - link.mtime < LONG_AGO
end

-- Removes it if no VM stands behind it. Who has what it stands for, if not.
local function drop_if_stale(self, name, owner)
  if has_vm(self, name, owner) then return false end
  local held <close> = self:lock()
  if not held then return false end
  local now, by = self:owner(name), nil
  local stale = now and now.folder == owner.folder and now.id == owner.id and not has_vm(self, name, owner)
  if stale then by = inuse.by(name, owner) end
  if stale and not by then core.remove_file(self:_path(name)) end
  held:remove()
  return stale and not by, by
end

-- ---- taking ----------------------------------------------------------------------------------

-- Left by an earlier VM of that id, or somebody removed our folder: who just drops it has the lock.
local function take_again(self, name, id)
  local held <close>, err = self:lock()
  if not held then return nil, err end
  local ours = self:holds(name, id)
  held:remove()
  return ours
end

---Takes a name.
---@param name string  "ip-4026531840-fcbr0-172.30.0.5", "drive-2049-42"; chosen in choose.lua
---@param id string
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT with owner and folder
function Leases:take(name, id)
  local text = self:_owner_text(id)
  for _ = 1, 3 do
    local ok, err = core.symlink(text, self:_path(name))
    if ok then return true end
    if err.code ~= "conflict" then return nil, err end
    local there, unreadable = core.read_link(self:_path(name))
    if unreadable and unreadable.code ~= "not_found" then return nil, unreadable end
    if there == text then
      ok, err = take_again(self, name, id)
      if ok or err then return ok, err end
    elseif there then
      local owner = parse(self, there)
      if not owner then
        return nil, errors.new{ code = "conflict", op = "vm.lease", path = self:_path(name),
          message = ("%s leads to '%s', which is no VM's folder: remove it"):format(self:_path(name),
            there) }
      end
      if not drop_if_stale(self, name, owner) then return nil, conflict(self, owner) end
    end
  end
  return nil, errors.new{ code = "busy", op = "vm.lease",
    message = name .. " goes from hand to hand; try again" }
end

---Gives a name back, if it is this VM's.
---@param name string
---@param id string
---@return true?
---@return fcproc.Error? err
function Leases:release(name, id)
  if not self:holds(name, id) then return true end
  return self:drop(name)
end

---Takes a name for this VM alone, when others may share it.
---@param name string
---@param id string
---@return true?
---@return fcproc.Error? err
function Leases:take_alone(name, id)
  local ok, err = self:take(name, id)
  if not ok then return nil, err end
  -- Both write down first and look then: so of two at once one sees the other.
  local shared = name .. "-shared"
  if not core.stat(self:_path(shared)) then return true end
  for _, one in ipairs(self:sharers(name)) do
    local owner = self:owner(one)
    if owner and not drop_if_stale(self, one, owner) then
      self:release(name, id)
      return nil, conflict(self, owner, "%s shares it")
    end
  end
  os.remove(self:_path(shared))
  return true
end

---Takes a name beside others who share it.
---@param name string
---@param id string
---@return string? name  of the lease
---@return fcproc.Error? err  ERR_CONFLICT: somebody has it alone
function Leases:take_shared(name, id)
  local shared = name .. "-shared"
  local own = ("%s/%016x"):format(shared, hash(self:_owner_text(id)))
  local ok, err
  for _ = 1, 10 do -- the last of the others may just remove the folder
    local made
    made, err = core.make_dir(self:_path(shared), PRIVATE)
    if made ~= nil then ok, err = self:take(own, id) end
    if ok or err.code ~= "not_found" then break end
  end
  if not ok then return nil, err end
  local owner = self:owner(name)
  if owner and not drop_if_stale(self, name, owner) then
    self:release(own, id)
    return nil, conflict(self, owner, "%s has it for itself alone")
  end
  return own
end

---Who shares a name, by their leases.
---@param name string
---@return string[] names
function Leases:sharers(name)
  local names = {}
  for _, entry in ipairs(self.folder and core.list_dir(self:_path(name .. "-shared")) or {}) do
    names[#names + 1] = ("%s-shared/%s"):format(name, entry.name)
  end
  return names
end

---Removes a lease, whoever's it is.
---@param name string
---@return true?
---@return fcproc.Error? err
function Leases:drop(name)
  local removed, err = core.remove_file(self:_path(name))
  if removed == nil then return nil, err end
  local shared = name:match("^(.*%-shared)/")
  if shared then os.remove(self:_path(shared)) end -- refused while another has it, too
  return true
end

---Takes the wanted address, or a free one: first the one that belongs to the VM.
---@param prefix string  of the lease's name
---@param id string
---@param subnet fcproc.Subnet
---@param wanted string?
---@param own table<string, true>  those of the VM's other interfaces, whose leases are its own as well
---@return string? address
---@return fcproc.Error? err
function Leases:take_address(prefix, id, subnet, wanted, own)
  if wanted then
    local ok, err = self:take(prefix .. wanted, id)
    if ok then return wanted end
    err.message = wanted .. ": " .. err.message
    return nil, err
  end
  for candidate in address.candidates(subnet, self.manager.config.runtime_dir, id) do
    if not own[candidate] then
      local ok, err = self:take(prefix .. candidate, id)
      if ok then return candidate end
      if err.code ~= "conflict" then return nil, err end
    end
  end
  return nil, errors.new{ code = "busy", op = "vm.lease",
    message = ("no address is free in %s/%d; fcproc.vm.reclaim frees those of dead VMs, or take a wider cidr")
      :format(subnet.network, subnet.prefix) }
end

---Takes again what was lost of a living VM's leases.
---@param names string[]
---@param id string
function Leases:restore(names, id)
  for _, name in ipairs(names) do
    if not self:owner(name) then
      local started = core.now()
      local shared = name:match("^(.*%-shared)/")
      if shared then core.make_dir(self:_path(shared), PRIVATE) end
      local ok, err = self:take(name, id)
      self.manager:_log(started, ok and "a lease that was gone has been taken again"
        or "a lease that was gone could not be taken again", { id = id, name = name,
        reason = err and err.message }, "warn")
    end
  end
end

-- ---- all of them -----------------------------------------------------------------------------

---@class fcproc.Lease
---@field name string
---@field owner string   the VM's id
---@field folder string  its runtime folder

---All leases of the host, or of one VM.
---@param id string?  of a VM of this manager's runtime folder
---@return fcproc.Lease[] leases
---@return fcproc.Error? err  they could not be listed
function Leases:list(id)
  local found = {}
  local function add(name)
    local owner = self:owner(name)
    if owner and (not id or owner.id == id and owner.folder == self.manager.config.runtime_dir) then
      found[#found + 1] = { name = name, owner = owner.id, folder = owner.folder }
    end
  end
  if not self.folder then return found end
  local entries, err = core.list_dir(self.folder)
  if not entries then return found, err.code ~= "not_found" and err or nil end
  for _, entry in ipairs(entries) do
    if entry.type == "dir" then
      for _, inner in ipairs(core.list_dir(self:_path(entry.name)) or {}) do
        add(entry.name .. "/" .. inner.name)
      end
    else
      add(entry.name)
    end
  end
  return found
end

---The names of the VM's leases. A record tells all of them, but one that was rebuilt, or that an earlier
---fcproc has written.
---@param journal fcproc.Journal
---@return string[]? names
---@return fcproc.Error? err  they could not be listed
function Leases:names_of(journal)
  local record = journal.record
  if record.leases and not record.rebuilt then return record.leases end
  local found, err = self:list(journal.id)
  if err then return nil, err end
  local names = {}
  for i, entry in ipairs(found) do names[i] = entry.name end
  return names
end

---Drops the leases that no VM of this runtime folder, nor of one that is gone, stands behind.
---@return integer dropped
---@return { lease: fcproc.Lease, by: string }[] kept  of this folder without a VM, and in use all the same
function Leases:sweep()
  local dropped, kept = 0, {}
  for _, lease in ipairs(self:list()) do
    local own = lease.folder == self.manager.config.runtime_dir
    local owner = { manager = self.manager, folder = lease.folder, id = lease.owner }
    if own or not core.stat(lease.folder) then
      local gone, by = drop_if_stale(self, lease.name, owner)
      if gone then
        dropped = dropped + 1
        local shared = lease.name:match("^(.*%-shared)/")
        if shared then os.remove(self:_path(shared)) end
      elseif own and by then
        kept[#kept + 1] = { lease = lease, by = by }
      end
    end
  end
  return dropped, kept
end

return M
