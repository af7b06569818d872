-- Leases: names that one VM of a runtime folder may have at a time. Each is a symbolic link from the
-- name to the VM's id, which the kernel makes and refuses in one call.

local address = require "fcproc.vm.address"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local journals = require "fcproc.vm.journal"

local M = {}

local function path_of(manager, name)
  return journals.own_folder(manager, "leases") .. "/" .. name
end

-- A lease whose VM has neither a folder nor a manager was left by a crash in the first moments.
local function drop_if_stale(manager, name, owner)
  if journals.exists(manager, owner) then return false end
  local lock = journals.lock(manager, owner)
  if not lock then return false end
  local stale = not journals.exists(manager, owner)
    and core.read_link(path_of(manager, name)) == owner
  if stale then core.remove_file(path_of(manager, name)) end
  lock:remove()
  return stale
end

---Takes a name.
---@param manager fcproc.Manager
---@param name string  "ip-172.30.0.5", "tap-fctap0", "drive-2049-42"
---@param id string
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT with owner
function M.take(manager, name, id)
  for _ = 1, 3 do
    local ok, err = core.symlink(id, path_of(manager, name))
    if ok then return true end
    if err.code ~= "conflict" then return nil, err end
    local owner, unreadable = core.read_link(path_of(manager, name))
    if owner == id then return true end
    if unreadable and unreadable.code ~= "not_found" then return nil, unreadable end
    if owner and not drop_if_stale(manager, name, owner) then
      return nil, errors.new{ code = "conflict", op = "vm.lease", owner = owner,
        message = ("the VM '%s' has it"):format(owner) }
    end
  end
  return nil, errors.new{ code = "busy", op = "vm.lease",
    message = name .. " goes from hand to hand; try again" }
end

---Whose is it?
---@param manager fcproc.Manager
---@param name string
---@return string? id
function M.owner(manager, name)
  return (core.read_link(path_of(manager, name)))
end

---Gives a name back, if it is this VM's.
---@param manager fcproc.Manager
---@param name string
---@param id string
---@return true?
---@return fcproc.Error? err
function M.release(manager, name, id)
  if M.owner(manager, name) ~= id then return true end
  local removed, err = core.remove_file(path_of(manager, name))
  if removed == nil then return nil, err end
  return true
end

---Takes the wanted address, or a free one: first the one that belongs to the id.
---@param manager fcproc.Manager
---@param id string
---@param subnet fcproc.Subnet
---@param wanted string?
---@return string? address
---@return fcproc.Error? err
function M.address(manager, id, subnet, wanted)
  if wanted then
    local ok, err = M.take(manager, "ip-" .. wanted, id)
    if ok then return wanted end
    err.message = wanted .. ": " .. err.message
    return nil, err
  end
  for candidate in address.candidates(subnet, id) do
    local ok, err = M.take(manager, "ip-" .. candidate, id)
    if ok then return candidate end
    if err.code ~= "conflict" then return nil, err end
  end
  return nil, errors.new{ code = "busy", op = "vm.lease",
    message = ("no address is free in %s/%d; reclaim dead VMs, or take a wider cidr"):format(
      subnet.network, subnet.prefix) }
end

---All leases of a VM, or of all.
---@param manager fcproc.Manager
---@param id string?
---@return { name: string, owner: string }[]
---@return fcproc.Error? err  they could not be listed
function M.list(manager, id)
  local found = {}
  local entries, err = core.list_dir(journals.own_folder(manager, "leases"))
  if not entries then return found, err.code ~= "not_found" and err or nil end
  for _, entry in ipairs(entries) do
    local owner = M.owner(manager, entry.name)
    if owner and (not id or owner == id) then
      found[#found + 1] = { name = entry.name, owner = owner }
    end
  end
  return found
end

---Drops the leases that no VM stands behind.
---@param manager fcproc.Manager
---@return integer dropped
function M.sweep(manager)
  local dropped = 0
  for _, lease in ipairs(M.list(manager)) do
    if drop_if_stale(manager, lease.name, lease.owner) then dropped = dropped + 1 end
  end
  return dropped
end

return M
