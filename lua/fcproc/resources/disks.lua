-- A VM's disks: links to files, or copies; and what a jail needs in it.

local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local origins = require "fcproc.resources.origin"
local users = require "fcproc.resources.users"

local M = {}

local READ_ONLY, PRIVATE = 256, 384 -- 0400, 0600

---Copies a file, a chunk at a time, so that others run and it can be cancelled.
---@param from string
---@param to string
---@param method ("reflink"|"sparse")
---@param mode integer
---@param opts fcproc.CopyOptions?
---@param ctx fcproc.Context?
---@return ("reflink"|"sparse")? used
---@return string|fcproc.Error id  the copy's
function M.copy(from, to, method, mode, opts, ctx)
  local done, used, _, id = loop.complete(ctx, core.copy_file(from, to, method, mode, opts, ctx))
  if not done then return nil, used end
  return used, id
end

---May the jail's user do this with the file?
---@param file { mode: integer, uid: integer, gid: integer }
---@param jail { uid: integer, gid: integer }
---@param wanted integer  4: read, 2: write
---@return boolean
function M.allows(file, jail, wanted)
  local shift = file.uid == jail.uid and 6 or file.gid == jail.gid and 3 or 0 -- "auto" is nobody's yet
  return jail.uid == 0 or file.mode >> shift & wanted == wanted
end

---Into the jail: a hard link, when it may be one, or a copy that its user can only read.
---@param from string
---@param to string
---@param jail { uid: integer, gid: integer }
---@param may_link boolean
---@param expected fcproc.Expected  what is to be at from
---@param ctx fcproc.Context?
---@return ("link"|"reflink"|"sparse")? placed
---@return fcproc.Error? err
function M.link_or_copy(from, to, jail, may_link, expected, ctx)
  if may_link then
    local ok, err = core.link_file(from, to, expected)
    if ok then return "link" end
    if err.code ~= "unsupported" then return nil, err end
  end
  local used, err = M.copy(from, to, "reflink", READ_ONLY, { expected = expected, uid = jail.uid,
    gid = jail.gid }, ctx)
  if not used then return nil, err end
  return used
end

-- The same for what many VMs may share: where a link can't cross to the jail's file system, a mount can.
local function share_or_copy(from, to, jail, may_share, expected, ctx)
  if may_share then
    local ok, err = core.link_file(from, to, expected)
    if ok then return "link" end
    if err.code == "unsupported" then ok, err = core.bind_file(from, to, expected) end
    if ok then return "mount" end
    if err.code ~= "unsupported" then return nil, err end
  end
  return M.link_or_copy(from, to, jail, false, expected, ctx)
end

-- What the VMM writes must be the file itself.
local function link_only(from, to, expected)
  local ok, err = core.link_file(from, to, expected)
  if ok then return "link", expected.id end
  if err.code ~= "unsupported" then return nil, err end
  return nil, errors.new{ code = "unsupported", op = "vm.host",
    message = ("%s is on another file system than the jail, and a hard link can't cross: move it, or "
      .. "give the VM a copy (copy = \"reflink\")"):format(from) }
end

-- What the jail's user can't read is copied for it. What is placed is what was looked at. Of one that
-- is written its identity follows.
local function put_into_jail(from, to, jail, writable, ctx)
  local file, err = core.stat(from)
  if not file then return nil, err end
  local expected = { id = file.id }
  if writable then return link_only(from, to, expected) end
  return share_or_copy(from, to, jail, M.allows(file, jail, 4), expected, ctx)
end

-- A copy of the VM's own, which is the jail user's then. Of a snapshot's drive it is of the file that
-- was looked at.
local function copy_for(drive, planned, to, jail, ctx)
  local opts = { uid = jail and jail.uid, gid = jail and jail.gid }
  if planned.origin then
    local file, err = core.stat(drive.path)
    if not file then return nil, err end
    opts.expected = origins.expected(planned.origin, file)
  end
  return M.copy(drive.path, to, drive.copy, PRIVATE, opts, ctx)
end

-- What a drive in a jail must be, which the VMM writes to, so that its contents may leave the jail.
-- Before they were noted, a lease told which file it is; and of a copy of its own that it is its user's.
local function expected_in_jail(record, drive)
  local leased = drive.lease and drive.lease:match("^drive%-(%d+%-%d+)$")
  if drive.made then return { id = drive.made } end
  if drive.copy then return { uid = record.jail.uid, single = true } end
  return { id = leased and leased .. "-0" or "unknown" }
end

---Copies what a drive holds now: from a jail that very file, whatever has its name there by now.
---@param record table
---@param drive table  of the record
---@param to string
---@param method ("reflink"|"sparse")
---@param ctx fcproc.Context?
---@return ("reflink"|"sparse")? used
---@return fcproc.Error? err  ERR_CONFLICT: it is nowhere any more
function M.save(record, drive, to, method, ctx)
  local inside = record.files.folder .. "/" .. drive.name
  if not record.jail then
    return M.copy(drive.copy and inside or drive.path, to, method, READ_ONLY, nil, ctx)
  end
  local opts = { expected = expected_in_jail(record, drive) }
  if not drive.copy then -- there first, where the jail's user can't move it
    local used, err = M.copy(drive.path, to, method, READ_ONLY, opts, ctx)
    if used or (err.code ~= "conflict" and err.code ~= "not_found") then return used, err end
  end
  return M.copy(inside, to, method, READ_ONLY, opts, ctx)
end

-- The folders above the jail's root, which the jailer expects or makes with the caller's umask.
local function make_jail(journal, jail)
  local path = journal.folder
  for name in jail.root:sub(#path + 2):gmatch("[^/]+") do
    path = path .. "/" .. name
    local made, err = core.make_dir(path, 448)
    if made == nil then return nil, err end
  end
  local ok, err = core.own_file(jail.root, jail.uid, jail.gid)
  if not ok then return nil, err end
  for _, folder in ipairs(jail.cgroups) do
    local made
    made, err = cgroup.make(folder)
    if made == nil then return nil, err end
  end
  if jail.cgroup then cgroup.make(cgroup.start(jail)) end -- if it can be, which the start sees to
  return true
end

---Takes away what was mounted in a jail. What is there is asked for where no record tells.
---@param record table
---@return true?
---@return fcproc.Error? err
function M.unmount(record)
  local root, names = record.jail.root, { "kernel", "initrd", "seccomp" }
  for _, drive in ipairs(record.drives or {}) do
    if drive.read_only then names[#names + 1] = drive.name end
  end
  for _, entry in ipairs(record.rebuilt and core.list_dir(root) or {}) do
    if entry.name:find("^drive%-") then names[#names + 1] = entry.name end
  end
  for _, name in ipairs(names) do
    local done, err = core.unbind_file(root .. "/" .. name)
    if done == nil then return nil, err end
  end
  return true
end

---The VM's disks, and what a jail needs besides.
---@param journal fcproc.Journal
---@param plan fcproc.VmPlan
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.make(journal, plan, ctx)
  local record = journal.record
  local jail, inside = record.jail, record.files.folder
  local ok, err
  if jail then
    ok, err = make_jail(journal, jail)
    jail.placed = {}
    for _, name in ipairs(ok and { "kernel", "initrd", "seccomp" } or {}) do
      if ok and plan[name] then
        ok, err = put_into_jail(plan[name], inside .. "/" .. name, jail, false, ctx)
        jail.placed[name] = ok
      end
    end
    if not ok then return nil, err end
  end
  if record.confined then
    ok, err = core.make_dir(inside, 448)
    if ok == nil then return nil, err end
  end
  ok, err = users.add(record.drives, journal.folder)
  if not ok then return nil, err end
  for i, drive in ipairs(record.drives) do
    local to = inside .. "/" .. drive.name
    if drive.copy then
      ok, err = copy_for(drive, plan.drives[i], to, jail, ctx)
    elseif jail and plan.drives[i].named_by_manifest then
      ok, err = share_or_copy(drive.path, to, jail, true, origins.named_by_manifest(jail), ctx)
      if not ok then origins.explain_drive(drive.id, err) end
    elseif jail then
      ok, err = put_into_jail(drive.path, to, jail, not drive.read_only, ctx)
    else
      ok, err = core.symlink(drive.path, to)
    end
    if not ok then
      err.message = ("drives[%d]: %s"):format(i, err.message)
      return nil, err
    end
    drive.placed = ok == true and "symlink" or ok
    drive.made = jail and not drive.read_only and err or nil -- its identity
  end
  return true
end

return M
