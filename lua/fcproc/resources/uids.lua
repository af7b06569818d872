-- Users of jails. A uid is one jail's on this host: of two with one uid, a process in either could
-- kill, trace and read the other.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local hash = require "fcproc.hash"

local M = {}

local HINT = "a process in one jail could kill and trace the other: give each a uid of its own, or "
  .. 'uid = "auto"; or say shared_uid = true for both'

-- Numbers that others give away: users and groups that are there, and what is kept for the
-- namespaces of users.
local function add_numbers(taken, path, count)
  local file, err = core.absolute_path(path) -- some hosts have it elsewhere, and a link to it
  local text
  if file then text, err = core.read_file(file) end
  if not text and err.code ~= "not_found" then return nil, err end
  for line in (text or ""):gmatch("[^\n]+") do
    local first, n
    if count then
      first, n = line:match("^[^:]*:(%d+):(%d+)")
    else
      first, n = line:match("^[^:]*:[^:]*:(%d+):"), 1
    end
    first, n = tonumber(first), tonumber(n)
    if first and n and n > 0 then taken[#taken + 1] = { first, first + n - 1 } end
  end
  return true
end

local function taken_numbers()
  local taken, ok, err = {}, true, nil
  for _, path in ipairs{ "/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid" } do
    if ok then ok, err = add_numbers(taken, path, path:find("sub", 1, true)) end
  end
  if not ok then return nil, err end
  return taken
end

local function is_taken(taken, uid)
  for _, range in ipairs(taken) do
    if uid >= range[1] and uid <= range[2] then return true end
  end
  return false
end

-- A free one of the manager's range, each time the same first.
local function take_free(leases, id, fleet)
  local config = leases.manager.config
  local first, count = config.jailer_uids.first, config.jailer_uids.count
  if not fleet.taken_uids then
    local taken, err = taken_numbers()
    if not taken then return nil, err end
    fleet.taken_uids = taken
  end
  local start = (hash(config.runtime_dir, id, "uid") & 0xffffffff) % count
  for step = 0, count - 1 do
    local uid = first + (start + step) % count
    if not is_taken(fleet.taken_uids, uid) and core.uid_in_use(uid) == false then
      local name = ("uid-%d"):format(uid)
      local ok, err = leases:take_alone(name, id)
      if ok then return uid, name end
      if err.code ~= "conflict" then return nil, err end
    end
  end
  return nil, errors.new{ code = "busy", op = "vm.lease",
    message = ("no uid of %d to %d is free; reclaim dead VMs, or give fcproc.new wider jailer_uids")
      :format(first, first + count - 1) }
end

---The uid and gid of a jail, and the lease of the uid.
---@param leases fcproc.Leases
---@param id string
---@param jail { uid: integer|"auto", gid: integer?, shared_uid: boolean? }
---@param fleet fcproc.Fleet
---@return integer? uid
---@return integer|fcproc.Error gid
---@return string? lease  its name; nil: nobody needs one, as of root
function M.take(leases, id, jail, fleet)
  local uid = jail.uid
  if uid == "auto" then
    local free, name = take_free(leases, id, fleet)
    if free then return free, jail.gid or free, name end
    name.message = "jailer.uid: " .. name.message
    return nil, name
  end
  if uid == 0 then return uid, jail.gid end -- root is held by no jail
  local name = ("uid-%d"):format(uid)
  local ok, err
  if jail.shared_uid then
    name, err = leases:take_shared(name, id)
    ok = name
  else
    ok, err = leases:take_alone(name, id)
  end
  if ok then return uid, jail.gid, name end
  err.message = ("jailer.uid: %d: %s%s"):format(uid, err.message,
    err.owner and "; " .. HINT or "")
  return nil, err
end

return M
