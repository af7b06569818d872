-- The disks of a VM's spec, checked: drives and pmem, the copy over a read-only root, and what says where a
-- snapshot's read-only drives are.

local boot = require "fcproc.vm.boot"
local disks = require "fcproc.resources.disks"
local errors = require "fcproc.error"
local schema = require "fcproc.vm.schema"
local sizes = require "fcproc.vm.sizes"

local M = {}

-- One of drives, or of pmem. The guest sees the latter as memory; to the host both are files.
local function check_drive(check, plan, kind, given, place, seen)
  local index, pmem = place:match("%d+"), kind == "pmem"
  local drive = check:table(given, place, pmem and schema.pmem or schema.drive)
  if not drive then return end
  local id = drive.id or (drive.root and "root" or (pmem and "pmem" or "drive") .. index)
  if not id:match("^[%w_]+$") then
    check:add(place .. ".id", "'%s' has other than letters, digits and _", id)
  elseif seen.ids[id] then
    check:add(place .. ".id", "'%s' is %s's too", id, seen.ids[id])
  end
  seen.ids[id] = seen.ids[id] or place
  if drive.root then
    if seen.root then check:add(place .. ".root", "%s is the root already", seen.root) end
    seen.root = seen.root or place
  end
  boot.check_part(check, boot.limiter, drive.rate_limit, place .. ".rate_limit")
  local file = drive.path and check:file(drive.path, place .. ".path",
    (drive.copy or pmem) and "file" or "file|block")
  if not file then return end
  local key = ("%d-%d"):format(file.dev, file.ino)
  local writes = not drive.read_only and not drive.copy
  if writes and seen.files[key] then
    check:add(place .. ".path", "%s is %s's too, and both write", drive.path, seen.files[key])
  end
  if writes then seen.files[key] = place end
  local planned = {
    id = id, path = file.path, read_only = drive.read_only or false, root = drive.root or false,
    copy = drive.copy, name = "drive-" .. id, lease = writes and "drive-" .. key or nil,
    rate_limit = drive.rate_limit, io_engine = drive.io_engine, cache_type = drive.cache_type,
    mode = file.mode, uid = file.uid, gid = file.gid, place = place, block = file.type == "block",
    pmem = pmem, overlay = drive.overlay,
  }
  if not pmem then sizes.drive(check, plan, planned, place .. ".path") end
  if pmem and file.size == 0 then check:add(place .. ".path", "%s is empty", drive.path) end
  sizes.io_engine(check, plan, planned, place .. ".io_engine")
  return planned
end

-- What an object says that its disk is. It may have to be built first, which is not begun for a spec
-- that has a mistake.
local function asked(check, given, place, ctx)
  if type(given) ~= "table" or type(given.disk) ~= "function" then return given end
  if check:failed() then return nil end
  local drive, err = given:disk(ctx)
  if drive then return drive end
  return check:fail(place, errors.is_error(err) and err or errors.new{ code = "invalid", op = check.op,
    message = ("its disk can't be had: %s"):format(tostring(err)) })
end

-- The disk over a read-only root: a copy of the VM's own, which the guest has as its last.
local function check_overlay(check, plan, base, seen)
  local place = base.place .. ".overlay"
  if not base.root or not base.read_only or base.copy then
    return check:add(place, "is for a root that is read-only and no copy: root = true, read_only = true")
  end
  if plan.spec.initrd == nil and not (plan.spec.boot_args or ""):find("%f[%S]init=") then
    sizes.warn(plan, "overlay", "give an initrd that does (fcproc image initrd), or boot_args with an init= "
      .. "that does", "%s: nothing lays it over the root: there is no initrd", place)
  end
  return check_drive(check, plan, "drives", { id = schema.OVERLAY_ID, path = base.overlay, copy = "reflink" },
    place, seen)
end

---All of them, with the overlay last.
---@param check table
---@param plan fcproc.VmPlan  its spec is read; of an overlay its command line is told
---@param ctx fcproc.Context?
---@return table[] drives  as they will be
function M.check(check, plan, ctx)
  local list, seen, overlaid = {}, { ids = {}, files = {} }, nil
  for _, kind in ipairs{ "drives", "pmem" } do
    local given = plan.spec[kind]
    for i, drive in ipairs(given and check:list(given, kind) and given or {}) do
      local place = ("%s[%d]"):format(kind, i)
      drive = asked(check, drive, place, ctx)
      local planned = drive ~= nil and check_drive(check, plan, kind, drive, place, seen) or nil
      list[#list + 1] = planned
      if planned and planned.overlay then overlaid = planned end
    end
  end
  local overlay = overlaid and check_overlay(check, plan, overlaid, seen)
  if overlay then
    list[#list + 1] = overlay
    boot.tell_overlay(plan, list)
  end
  return list
end

---A jailed VMM opens its drives as another user.
---@param check table
---@param drives table[]
---@param jail table?
function M.check_access(check, drives, jail)
  for _, drive in ipairs(drives) do
    if not drive.copy and jail and jail.uid then
      if not disks.allows(drive, jail, drive.read_only and 4 or 6) then
        check:add(drive.place .. ".path", "%s can't be %s by uid %s; chown it, or "
          .. "give the VM a copy (copy = \"reflink\")", drive.path,
          drive.read_only and "read" or "written", jail.uid == "auto" and "\"auto\"" or jail.uid)
      end
    end
  end
end

---Where a snapshot's read-only drives are, by their ids: used as for a launch.
---@param check table
---@param drives table<string, string>?
---@param jail table?
---@return table<string, string> paths  absolute
function M.check_given(check, drives, jail)
  local paths = {}
  for id, path in pairs(drives or {}) do
    local place = "drives." .. tostring(id)
    if type(id) ~= "string" or type(path) ~= "string" then
      check:add(place, "must be the path of a read-only drive by its id: drives = { root = \"/srv/base\" }")
    else
      local file = check:file(path, place, "file|block")
      if file and jail and jail.uid and not disks.allows(file, jail, 4) then
        check:add(place, "%s can't be read by uid %s; chown it", path, jail.uid)
      end
      paths[id] = file and file.path
    end
  end
  return paths
end

return M
