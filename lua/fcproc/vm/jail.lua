-- The jailer of a VM's spec, checked: its program, who the jail's user is to be, its cgroups.

local core = require "fcproc.core"
local jailer = require "fcproc.machine.jailer"
local schema = require "fcproc.vm.schema"
local version_of = require "fcproc.machine.version"

local M = {}

local function check_cgroups(check, cgroups)
  local copy = {}
  for key, value in pairs(cgroups or {}) do
    local place = ("jailer.cgroups['%s']"):format(tostring(key))
    if type(key) ~= "string" or not key:match("^[%w_]+%.[%w_.]+$") then
      check:add(place, "is no cgroup file: they are written like 'cpu.max'")
    elseif type(value) ~= "string" and math.type(value) ~= "integer" then
      check:add(place, "must be a string or a whole number")
    elseif tostring(value):find("=", 1, true) then
      check:add(place, "the jailer can't set a value with a '=': write it yourself after the start")
    end
    copy[tostring(key)] = tostring(value)
  end
  return copy
end

local MOST_UID = 4294967294

-- Who the jail's user is to be. A mistake there is not made many by those that follow from it.
local function check_user(check, jail)
  local uid, place = jail.uid, "jailer.uid"
  local before = #check.problems
  if math.type(uid) == "integer" and (uid < 0 or uid > MOST_UID) then
    check:add(place, "%d is out of range: 0 to %d", uid, MOST_UID)
  elseif type(uid) == "string" and uid ~= "auto" then
    check:add(place, "'%s' must be a whole number, or \"auto\": a free one", uid)
  elseif uid == 0 and not jail.allow_root then
    check:add(place, "0 is root, whom a jail does not hold: give another, or \"auto\"; allow_root = true "
      .. "when it must be")
  elseif uid == "auto" and jail.shared_uid then
    check:add("jailer.shared_uid", "\"auto\" is a uid for this VM alone: give the one that is shared")
  end
  if #check.problems > before then jail.uid = nil end
  if jail.gid == nil and uid ~= "auto" then check:add("jailer.gid", "is missing") end
end

-- Before 1.13 the jailer takes no program without that in its name.
local function check_name(check, jail, binary, ctx)
  if not binary or not jail.binary or binary:match("[^/]*$"):find("firecracker", 1, true) then return end
  local version = jailer.version(jail.binary, ctx)
  if version_of.at_least(version, "1.13") == false then
    check:add("firecracker_bin", "the jailer %s refuses a program without 'firecracker' in its name: %s",
      version, binary)
  end
end

---@param check table
---@param manager fcproc.Manager
---@param spec fcproc.VmSpec|fcproc.RestoreSpec
---@param binary string?  Firecracker's
---@param ctx fcproc.Context?
---@return table? jail  as it will be; nil: there is none
function M.check(check, manager, spec, binary, ctx)
  local jail = spec.jailer and check:table(spec.jailer, "jailer", schema.jailer)
  if not jail then return end
  check_user(check, jail)
  local path, err
  if jail.binary then
    path, err = core.find_executable(jail.binary)
  else
    path, err = jailer.find_binary(binary)
  end
  if not path then check:add("jailer.binary", "%s", err.message) end
  jail.binary = path and core.absolute_path(path)
  if jail.limits then check:table(jail.limits, "jailer.limits", schema.limits) end
  jail.cgroups = check_cgroups(check, jail.cgroups)
  local parent = jail.parent_cgroup
  if parent and (parent:find("^/") or ("/" .. parent .. "/"):find("/%.*/")) then
    check:add("jailer.parent_cgroup", "'%s' must be a path below the hierarchy, like 'a/b'", parent)
  end
  local place
  place, err = jailer.check_place(manager.config.runtime_dir or "/")
  if not place then check:add("jailer", "%s", err.message) end
  check_name(check, jail, binary, ctx)
  local missing = jailer.missing_rights()
  if missing then check:deny("jailer", "needs root, who has %s", missing) end
  return jail
end

return M
