-- Cgroups that are made for one VM. A jailed VM has one of its own, entered before it executes
-- anything: whatever a VMM that was broken into starts is in it, too, and ends with it.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local hash = require "fcproc.hash"
local loop = require "fcproc.loop"
local mounts = require "fcproc.mounts"

local M = {}

M.PARENT = "fcproc" -- the folder of all our cgroups, unless another is asked for

local MODE = 493 -- 0755, as all there
local END_LIMIT = 10 -- seconds for all in one to end
local LEAVE_TRIES, LEAVE_PAUSE = 50, 0.002 -- seconds
local ENOENT, EBUSY = 2, 16
-- Which hierarchies of version 1 serve best: one can hold its processes still, one their number.
local BEST = { "freezer", "pids" }

---Where each cgroup hierarchy is mounted: controller to folder, and "" to the unified one.
---@return table<string, string>?
---@return fcproc.Error? err
function M.hierarchies()
  local found = {}
  local list, err = mounts.list()
  if not list then return nil, err end
  for _, mount in ipairs(list) do
    if mount.kind == "cgroup2" then
      found[""] = found[""] or mount.point
    elseif mount.kind == "cgroup" then
      for option in mount.options:gmatch("[^,]+") do found[option] = found[option] or mount.point end
    end
  end
  return found
end

---What a VM's own cgroup is called: no other VM's on this host is, of whatever runtime folder. It is the
---same when that was moved, and another's in a copy.
---@param folder string  the VM's
---@param id string
---@return string
function M.name(folder, id)
  local stat = core.stat(folder) or {}
  return ("%s.%016x"):format(id, hash(stat.dev or 0, stat.ino or 0))
end

---Where a VM's own cgroup may be, the best place first. Version 2 can end all who are in one at once.
---@param folder string  the VM's
---@param id string
---@param outer string?  the cgroup that the VM shall be in: in that one's hierarchy it is inside of it
---@return string[]? folders
---@return fcproc.Error? err
function M.places(folder, id, outer)
  local points, seen, folders = {}, {}, {}
  local mounted, err = M.hierarchies()
  if not mounted then return nil, err end
  local function add(point)
    if point and not seen[point] then points[#points + 1] = point end
    seen[point or false] = true
  end
  add(mounted[""])
  for _, controller in ipairs(BEST) do add(mounted[controller]) end
  local others = {}
  for controller, point in pairs(mounted) do
    if controller:find("^%w+$") then others[#others + 1] = point end
  end
  table.sort(others)
  for _, point in ipairs(others) do add(point) end
  local name = M.name(folder, id)
  for i, point in ipairs(points) do
    local inside = outer and (outer .. "/"):find(point .. "/", 1, true) == 1
    folders[i] = ("%s/%s"):format(inside and outer or point .. "/" .. M.PARENT, name)
  end
  return folders
end

local function make_below(folder)
  local made, err = core.make_dir(folder, MODE)
  local parent = folder:match("^(.+)/[^/]+$")
  if made ~= nil or err.code ~= "not_found" or not parent then return made, err end
  made, err = make_below(parent)
  if made == nil then return nil, err end
  return core.make_dir(folder, MODE)
end

---Makes a cgroup, and what is missing above it.
---@param folder string
---@return boolean? created  false: it was there
---@return fcproc.Error? err
function M.make(folder)
  local made, err
  for _ = 1, 10 do -- our parent folder goes with the last that leaves, which may be now
    made, err = make_below(folder)
    if made ~= nil or err.code ~= "not_found" then break end
  end
  return made, err
end

---Puts a process into a cgroup.
---@param folder string
---@param pid integer
---@return true?
---@return fcproc.Error? err  ERR_NOT_FOUND, ERR_PERMISSION, or as the kernel has it
function M.enter(folder, pid)
  local ok, err = core.enter_cgroup(folder, pid)
  if ok then return true end
  err.message = "cgroup: " .. err.message
  return nil, err
end

---Is a cgroup that a jailer uses inside of the VM's own?
---@param jail table  the record's
---@param folder string
---@return boolean
function M.is_inside(jail, folder)
  return jail.cgroup ~= nil and folder:find(jail.cgroup .. "/", 1, true) == 1
end

---Where the VMM begins. A jailer that puts it into a cgroup inside of its own can do so only while
---nobody is in that itself: cgroups of version 2 have processes or children with limits, not both.
---@param jail table  the record's
---@return string? folder
function M.start(jail)
  local inner = jail.cgroups[1] and M.is_inside(jail, jail.cgroups[1])
  return inner and jail.cgroup .. "/start" or jail.cgroup
end

-- The own cgroup of a jail, and those inside of it.
local function own_of(jail)
  local own = {}
  for _, folder in ipairs(jail.cgroups or {}) do
    if M.is_inside(jail, folder) then own[#own + 1] = folder end
  end
  if own[1] then own[#own + 1] = M.start(jail) end
  own[#own + 1] = jail.cgroup
  return own
end

---Is the process in the cgroup that was made for the VM alone? Who is, is the VM's.
---@param record table
---@param pid integer
---@return boolean? yes
---@return fcproc.Error? err  it could not be found out
function M.has(record, pid)
  for _, folder in ipairs(record.jail and own_of(record.jail) or {}) do
    local yes, err = core.cgroup_holds(folder, pid)
    if yes or err then return yes, err end
  end
  return false
end

---Is anybody in it?
---@param jail table  the record's
---@return boolean
function M.populated(jail)
  for _, folder in ipairs(own_of(jail)) do
    if core.cgroup_holds(folder) then return true end
  end
  return false
end

---How many processes the kernel has killed there for want of memory; v2 and v1 tell it in different files.
---@param folder string
---@return integer
function M.oom_kills(folder)
  local text = core.read_file(folder .. "/memory.events") or core.read_file(folder .. "/memory.oom_control")
  return math.tointeger(tonumber((text or ""):match("%f[%w]oom_kill (%d+)"))) or 0
end

---The cgroup in which the kernel has killed for want of memory since the VM came; nil: in none of its own.
---@param jail table?  the record's
---@param outer { path: string, oom_kills: integer }?  that it was put into, and how many had been killed then
---@return string? folder
function M.oom_killed(jail, outer)
  for _, folder in ipairs(jail and jail.cgroups or {}) do
    if M.oom_kills(folder) > 0 then return folder end
  end
  if jail and jail.cgroup and M.oom_kills(jail.cgroup) > 0 then return jail.cgroup end
  if outer and M.oom_kills(outer.path) > outer.oom_kills then return outer.path end
end

local function drop_parent(folder)
  local parent = folder:match("^(.*/" .. M.PARENT .. ")/[^/]+$")
  if parent then os.remove(parent) end -- refused as long as another is in it
end

local function is_in_hierarchy(folder)
  local mounted, err = M.hierarchies()
  if not mounted then return nil, err end
  for _, point in pairs(mounted) do
    if folder:sub(1, #point + 1) == point .. "/" then return true end
  end
  return false
end

---Removes a cgroup that may be others', too, if nobody is in it.
---@param folder string
---@return true?
---@return fcproc.Error? err
function M.leave(folder)
  local there, unseen = is_in_hierarchy(folder)
  if not there then
    return nil, unseen or errors.new{ code = "conflict", op = "cgroup.remove", path = folder,
      message = folder .. " is in no mounted cgroup hierarchy, and was not touched" }
  end
  local ok, message, errno
  for _ = 1, LEAVE_TRIES do -- the last process that left it may be in it for a moment yet
    ok, message, errno = os.remove(folder)
    if ok or errno ~= EBUSY then break end
    core.poll_many({}, {}, LEAVE_PAUSE)
  end
  if not ok and errno ~= ENOENT then
    return nil, errors.new{ code = errno == EBUSY and "busy" or "system", op = "cgroup.remove",
      errno = errno, path = folder, message = "can't remove the cgroup " .. message }
  end
  drop_parent(folder)
  return true
end

-- Kills all who are in it, and removes it; and our own parent folder when it was the last. One that
-- can't be seen from here is not one that is gone.
local function remove(folder, without, ctx)
  local there, unseen = is_in_hierarchy(folder)
  if not there then
    return nil, unseen or errors.new{ code = "busy", op = "cgroup.remove", path = folder,
      message = ("the cgroup %s, in which others of the jail may run on, can't be seen from this mount "
        .. "namespace (`ip netns exec` hides it): call fcproc outside, with --netns NAME for the network")
        :format(folder) }
  end
  local done, killed = loop.complete(ctx, core.remove_cgroup(folder, END_LIMIT, without, ctx))
  if not done then return nil, killed end
  drop_parent(folder)
  return killed
end

---Ends whoever is in the cgroup that was made for the VM alone, and removes all that it has.
---@param jail table  the record's
---@param without integer
---@param ctx fcproc.Context?
---@return integer? killed    how many there were
---@return fcproc.Error? err  with its path
function M.remove_all(jail, without, ctx)
  local killed = 0
  for _, folder in ipairs(own_of(jail)) do
    local n, err = remove(folder, without, ctx)
    if not n then
      err.path = folder
      return nil, err
    end
    killed = killed + n
  end
  for _, folder in ipairs(jail.cgroups) do
    if not M.is_inside(jail, folder) then
      local left, err = M.leave(folder)
      if not left then return nil, err end
    end
  end
  return killed
end

return M
