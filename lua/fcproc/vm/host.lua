-- What a VM has on the host: leases, disks, TAPs, NAT, a folder. Chosen and written down first,
-- made next, and removed in reverse; removing what is not there is a success.

local address = require "fcproc.vm.address"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local jailer = require "fcproc.jailer"
local launch = require "fcproc.launch"
local lease = require "fcproc.vm.lease"
local loop = require "fcproc.loop"
local nat = require "fcproc.vm.nat"

local M = {}

local READ_ONLY, PRIVATE = 256, 384 -- 0400, 0600

local function fail(code, format, ...)
  return nil, errors.new{ code = code, op = "vm.host", message = format:format(...) }
end

-- Explains an error by what it is about.
local function about(place, err)
  err.message = ("%s: %s"):format(place, err.message)
  return nil, err
end

-- ---- choosing ------------------------------------------------------------------------------

local function choose_tap(journal, interface)
  local manager, id = journal.manager, journal.id
  local place = interface.index == 1 and "network" or ("network[%d]"):format(interface.index)
  local tap = {
    name = interface.tap or address.tap_name(manager.config.runtime_dir, id, interface.index - 1),
    guest_mac = interface.mac or address.mac(id, interface.index - 1), attach = interface.attach,
    isolated = interface.isolated, mtu = interface.mtu, nat = interface.nat,
    -- A TAP that was there before, under a name that somebody chose, is not ours to delete.
    keep = interface.tap and manager.net:link_exists(interface.tap) or nil,
  }
  local ok, err = lease.take(manager, "tap-" .. tap.name, id)
  if not ok then return about(("%s.tap: %s"):format(place, tap.name), err) end
  journal.record.taps[interface.index] = tap
  local config = manager.config
  local has_subnet = interface.attach and config.bridge_ip and config.bridge_ip:find(".", 1, true)
  local wanted = interface.address
  if wanted == true then wanted = nil end
  if wanted == false or not (wanted or has_subnet) then return tap end
  if not has_subnet then -- alone on its TAP: nobody to share an address with, and no gateway
    tap.address, tap.argument = wanted, "ip=" .. wanted
    return tap
  end
  local subnet
  subnet, err = address.subnet(config.bridge_ip, config.prefix)
  if subnet and wanted then ok, err = address.check(wanted, subnet) end
  if not subnet or not ok then return about(place .. ".address", err) end
  tap.address, err = lease.address(manager, id, subnet, wanted)
  if not tap.address then return about(place .. ".address", err) end
  tap.argument = address.guest_argument{ address = tap.address, gateway = subnet.gateway,
    netmask = subnet.netmask, hostname = id, device = "eth" .. (interface.index - 1) }
  return tap
end

---Chooses names and addresses, takes their leases, and puts it all into the record.
---@param journal fcproc.Journal
---@param plan fcproc.VmPlan
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: another VM has the drive, TAP or address
function M.choose(journal, plan)
  local record, manager = journal.record, journal.manager
  local root
  if plan.jailer then
    plan.jailer.base = journal.folder .. "/jail"
    root = jailer.root(plan.jailer, plan.binary, plan.id)
    local version, folders = jailer.cgroups(plan.jailer, plan.id)
    if not version then return nil, folders end
    record.jail = { root = root, uid = plan.jailer.uid, gid = plan.jailer.gid, cgroups = folders }
  end
  record.files = launch.files(journal.folder, root)
  record.shape = jailer.shape(plan.jailer)
  record.binary = plan.binary
  record.netns, record.netns_name = M.namespace(manager), manager.config.netns_name
  record.taps, record.drives = {}, {}
  for i, drive in ipairs(plan.drives or {}) do
    if drive.lease then
      local ok, err = lease.take(manager, drive.lease, plan.id)
      if not ok then
        return about(("drives[%d].path: %s is written by another VM"):format(i, drive.path), err)
      end
    end
    record.drives[i] = { id = drive.id, path = drive.path, name = drive.name, copy = drive.copy,
      read_only = drive.read_only, root = drive.root, lease = drive.lease }
  end
  for _, interface in ipairs(plan.network) do
    local tap, err = choose_tap(journal, interface)
    if not tap then return nil, err end
  end
  return true
end

---The namespace where the manager makes links, as a number.
---@param manager fcproc.Manager
---@return integer
function M.namespace(manager)
  local netns = manager.config.netns
  local path = netns and ("/proc/self/fd/%d"):format(netns:fd()) or "/proc/self/ns/net"
  local stat = core.stat(path, true)
  return stat and stat.ino or 0
end

-- ---- disks ---------------------------------------------------------------------------------

local function copy(from, to, method, jail, ctx)
  local done, used, bytes = loop.complete(ctx, core.copy_file(from, to, method, PRIVATE, ctx))
  if not done then return nil, used end
  if jail then
    local ok, err = core.own_file(to, jail.uid, jail.gid)
    if not ok then return nil, err end
  end
  return used, bytes
end

-- Into the jail: a hard link, or a copy of what nobody writes. The jail's user must be able to
-- read it, and what it can't read is copied for it.
local function put_into_jail(from, to, jail, writable, ctx)
  local stat, err = core.stat(from)
  if not stat then return nil, err end
  local readable = writable or jail.uid == 0 or stat.mode & 4 ~= 0
  if readable then
    local ok
    ok, err = core.link_file(from, to)
    if ok then return "link" end
    if err.code ~= "unsupported" then return nil, err end
  end
  if writable then
    return fail("unsupported", "%s is on another file system than the jail, and a hard link can't "
      .. "cross: move it, or give the VM a copy (copy = \"reflink\")", from)
  end
  local used
  used, err = copy(from, to, "reflink", jail, ctx)
  if used then core.own_file(to, jail.uid, jail.gid, READ_ONLY) end
  return used, err
end

-- The folders above the jail's root, which the jailer expects or makes with the caller's umask.
local function make_jail(journal, jail)
  local path = journal.folder
  for name in jail.root:sub(#path + 2):gmatch("[^/]+") do
    path = path .. "/" .. name
    local made, err = core.make_dir(path, 448)
    if made == nil then return nil, err end
  end
  return core.own_file(jail.root, jail.uid, jail.gid)
end

---The VM's disks, and what a jail needs besides.
---@param journal fcproc.Journal
---@param plan fcproc.VmPlan
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.make_drives(journal, plan, ctx)
  local record = journal.record
  local jail, inside = record.jail, record.files.folder
  local ok, err
  if jail then
    ok, err = make_jail(journal, jail)
    for _, name in ipairs(ok and { "kernel", "initrd" } or {}) do
      if ok and plan[name] then
        ok, err = put_into_jail(plan[name], inside .. "/" .. name, jail, false, ctx)
      end
    end
    if not ok then return nil, err end
  end
  for i, drive in ipairs(record.drives) do
    local to = inside .. "/" .. drive.name
    if drive.copy then
      ok, err = copy(drive.from or drive.path, to, drive.copy, jail, ctx)
      drive.copied = ok or nil
    elseif jail then
      ok, err = put_into_jail(drive.path, to, jail, not drive.read_only, ctx)
    else
      ok, err = core.symlink(drive.path, to)
    end
    if not ok then return about(("drives[%d]"):format(i), err) end
  end
  return true
end

-- ---- network -------------------------------------------------------------------------------

local function nat_entries(record)
  local entries = {}
  for _, tap in ipairs(record.taps or {}) do
    if tap.nat and tap.address then
      entries[#entries + 1] = { tap = tap.name, address = tap.address, mac = tap.guest_mac,
        uplink = tap.nat, id = record.id }
    end
  end
  return entries
end

---The bridge, the TAPs and their NAT.
---@param journal fcproc.Journal
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.make_network(journal, ctx)
  local manager, record = journal.manager, journal.record
  local jail, bridge = record.jail or {}, nil
  for _, tap in ipairs(record.taps) do
    local err
    if tap.attach and not bridge then
      bridge, err = manager:ensure_bridge(ctx)
      if not bridge then return nil, err end
    end
    local started = core.now()
    local made
    made, err = manager.net:create_tap(tap.name, tap.attach and manager.config.bridge_name or nil,
      jail.uid, jail.gid, nil, tap.mtu, tap.attach and tap.isolated or nil, ctx)
    if not made then return nil, err end
    tap.mac, tap.ifindex = made.mac, made.ifindex
    manager:_log(started, "TAP created", { name = tap.name, ifindex = made.ifindex, id = journal.id })
  end
  local entries = nat_entries(record)
  if #entries > 0 then return nat.add_all(manager, entries, ctx) end
  return true
end

-- ---- removing ------------------------------------------------------------------------------

-- TAPs are looked for where they were made. A nameless namespace that is not the manager's went
-- with the last process in it.
local function namespace_of(manager, record)
  if not record.netns or record.netns == M.namespace(manager) then return manager end
  local netns = record.netns_name and core.netns(record.netns_name)
  if not netns then return nil end
  local other = require("fcproc.manager").new{
    bridge_name = manager.config.bridge_name, runtime_dir = manager.config.runtime_dir,
    netns = netns,
  }
  if other and M.namespace(other) == record.netns then return other, netns end
  if other then other:close() end
  netns:close()
end

local function our_taps(manager, record)
  local names = {}
  for _, tap in ipairs(record.taps or {}) do
    if not tap.keep and lease.owner(manager, "tap-" .. tap.name) == record.id then
      names[#names + 1] = tap.name
    end
  end
  return names
end

---@class fcproc.Left  what could not be removed
---@field what string
---@field err fcproc.Error

local function note(left, what, ok, err)
  if not ok then left[#left + 1] = { what = what, err = err } end
end

-- All the VMs' TAPs as one link group, and their NAT in one transaction.
local function remove_networks(manager, journals, ctx, left)
  local by_namespace = {}
  for _, journal in ipairs(journals) do
    local key = journal.record.netns or 0
    by_namespace[key] = by_namespace[key] or {}
    table.insert(by_namespace[key], journal)
  end
  for _, group in pairs(by_namespace) do
    local there, netns = namespace_of(manager, group[1].record)
    if there then
      local names, entries = {}, {}
      for _, journal in ipairs(group) do
        for _, name in ipairs(our_taps(manager, journal.record)) do names[#names + 1] = name end
        for _, entry in ipairs(nat_entries(journal.record)) do entries[#entries + 1] = entry end
      end
      if #entries > 0 then note(left, "NAT", nat.remove(there, entries, ctx)) end
      note(left, "TAPs " .. table.concat(names, " "), there:delete_taps(names, ctx))
      if there ~= manager then there:close() end
      if netns then netns:close() end
    end
  end
end

local function remove_rest(manager, journal, names, left)
  local record = journal.record
  if record.snapshot then
    note(left, record.snapshot, core.remove_tree(record.snapshot))
  end
  for _, folder in ipairs(record.jail and record.jail.cgroups or {}) do
    if core.stat(folder) then note(left, folder, os.remove(folder)) end
  end
  for _, name in ipairs(names) do note(left, name, lease.release(manager, name, record.id)) end
  note(left, journal.folder, journal:remove())
end

---Removes what VMs that have ended have on the host. What could not be removed stays in the
---journal of its VM, for reclaim.
---@param manager fcproc.Manager
---@param journals fcproc.Journal[]
---@param ctx fcproc.Context?
---@return fcproc.Left[] left  empty: nothing is left
function M.remove(manager, journals, ctx)
  local left = {}
  remove_networks(manager, journals, ctx, left)
  if #left > 0 then return left end
  -- All are listed once: once for each VM would be the square of the fleet's size.
  local names = {}
  for _, entry in ipairs(lease.list(manager, #journals == 1 and journals[1].record.id or nil)) do
    names[entry.owner] = names[entry.owner] or {}
    table.insert(names[entry.owner], entry.name)
  end
  for _, journal in ipairs(journals) do
    remove_rest(manager, journal, names[journal.record.id] or {}, left)
  end
  return left
end

return M
