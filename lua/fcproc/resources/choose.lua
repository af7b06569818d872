-- What a VM will have on the host: the names and numbers, each leased and put into the record, before
-- anything is made.

local address = require "fcproc.network.address"
local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local jailer = require "fcproc.machine.jailer"
local inuse = require "fcproc.resources.inuse"
local journals = require "fcproc.resources.journal"
local launch = require "fcproc.machine.launch"
local lease = require "fcproc.resources.lease"
local lives = require "fcproc.resources.life"
local namespaces = require "fcproc.resources.namespaces"
local publish = require "fcproc.network.publish"
local uids = require "fcproc.resources.uids"

local M = {}

-- Explains an error by what it is about.
local function about(place, err)
  err.message = ("%s: %s"):format(place, err.message)
  return nil, err
end

local function place_of(interface)
  return interface.index == 1 and "network" or ("network[%d]"):format(interface.index)
end

-- A VM of this id may run on whose folder somebody removed: what it has is none of the new one's.
local function check_former(journal, leases, name)
  if not leases:holds(name, journal.id) then return true end
  local by = inuse.by(name, { manager = journal.manager, folder = journal.manager.config.runtime_dir,
    id = journal.id })
  if not by then return true end
  return nil, errors.new{ code = "conflict", op = "vm.lease", message = ("a VM '%s' whose folder was "
    .. "removed has it yet (%s): fcproc.vm.reclaim tells what to do, or choose another id"):format(
      journal.id, by) }
end

-- What is chosen for one VM: its record's list of leases, where those are, what comes before the
-- names of those that are one's on a bridge, and the addresses that its interfaces have or were promised.
local function taker(journal, leases, network)
  local record, addresses = journal.record, {}
  for _, interface in ipairs(network) do
    if type(interface.address) == "string" then addresses[interface.address] = true end
  end
  local scope = ("%d-%s-"):format(record.netns, journal.manager.config.bridge_name or "")
  local function note(name)
    record.leases[#record.leases + 1] = name
    return name
  end
  return { leases = leases, id = journal.id, scope = scope, addresses = addresses, note = note,
    take = function(name)
      local ok, err = check_former(journal, leases, name)
      if not ok then return nil, err end
      return leases:take(note(name), journal.id)
    end }
end

local function choose_tap(journal, taking, interface)
  local manager, id = journal.manager, journal.id
  local runtime_dir, place = manager.config.runtime_dir, place_of(interface)
  local tap = {
    name = interface.tap or address.tap_name(runtime_dir, id, interface.index - 1),
    guest_mac = interface.mac or address.mac(runtime_dir, id, interface.index - 1),
    attach = interface.attach, isolated = interface.isolated, mtu = interface.mtu, nat = interface.nat,
    told = interface.told or nil,
  }
  local ok, err = taking.take(("tap-%d-%s"):format(journal.record.netns, tap.name))
  if not ok then return about(("%s.tap: %s"):format(place, tap.name), err) end
  -- A TAP that was there before, under a name that somebody chose, is not ours to delete. Asked once
  -- the name is leased: it may have been that of a VM that was just going.
  local net = journal.record.confined and manager.net or manager.host_net or manager.net
  if interface.tap then
    local there
    there, err = net:link_exists(interface.tap)
    if there == nil then return about(place .. ".tap", err) end
    tap.keep = there or nil
  end
  journal.record.taps[interface.index] = tap
  local config = manager.config
  local has_subnet = interface.attach and config.bridge_ip and config.bridge_ip:find(".", 1, true)
  local wanted = interface.address
  if wanted == true then wanted = nil end
  if wanted == false or not (wanted or has_subnet) then return tap end
  if not has_subnet then -- alone on its TAP: nobody to share an address with, and no gateway
    tap.address = wanted
    tap.argument = address.told(id, interface.index, wanted, nil, interface.dns)
    return tap
  end
  local subnet
  subnet, err = address.subnet(config.bridge_ip, config.prefix)
  if subnet and wanted then ok, err = address.check(wanted, subnet) end
  if not subnet or not ok then return about(place .. ".address", err) end
  local prefix = "ip-" .. taking.scope
  tap.address, err = taking.leases:take_address(prefix, id, subnet, wanted, taking.addresses)
  if not tap.address then return about(place .. ".address", err) end
  taking.note(prefix .. tap.address)
  taking.addresses[tap.address] = true
  tap.argument = address.told(id, interface.index, tap.address, subnet, interface.dns)
  return tap
end

local function choose_drive(record, taking, i, drive)
  if drive.lease then
    local ok, err = taking.take(drive.lease)
    if not ok then
      return about(("drives[%d].path: %s%s"):format(i, drive.path,
        err.code == "conflict" and " is written by another VM" or ""), err)
    end
  end
  record.drives[i] = { id = drive.id, path = drive.path, name = drive.name, copy = drive.copy,
    read_only = drive.read_only, root = drive.root }
  return true
end

-- Who the jail's user is, and where it will be.
local function choose_jail(journal, taking, plan, fleet)
  local jail, asked = plan.jailer, plan.jailer.uid
  if math.type(asked) == "integer" and not jail.shared_uid then
    local ok, err = check_former(journal, taking.leases, ("uid-%d"):format(asked))
    if not ok then return about(("jailer.uid: %d"):format(asked), err) end
  end
  local uid, gid, name = uids.take(taking.leases, plan.id, jail, fleet)
  if not uid then return nil, gid end
  jail.uid, jail.gid = uid, gid
  if name then taking.note(name) end
  if jail.uid == 0 then
    journal.manager:_log(core.now(), "the jail's user is root: whoever breaks into Firecracker leaves "
      .. "its jail", { id = plan.id }, "warn")
  end
  jail.own_cgroup = cgroup.name(journal.folder, plan.id)
  local version, folders = jailer.cgroups(jail, plan.id)
  if not version then return nil, folders end
  local own = version == 2 and folders[1] and folders[1]:match("^(.*)/")
  if not own then
    local places, err = cgroup.places(journal.folder, plan.id, plan.spec.cgroup)
    if not places then return nil, err end
    own = places[1]
  end
  jail.base = journal.folder .. "/jail"
  journal.record.jail = { root = jailer.root(jail, plan.binary, plan.id), uid = jail.uid, gid = jail.gid,
    cgroups = folders, auto = asked == "auto" or nil, cgroup = own }
  return true
end

-- The ports that lead to the guest. One at all of the host's addresses is this VM's alone.
local function choose_ports(journal, taking, ports)
  local record, target = journal.record, nil
  for _, tap in ipairs(record.taps) do target = target or tap.attach and tap.address and tap or nil end
  if not target then
    return nil, errors.new{ code = "invalid", op = "vm.publish",
      message = "publish: needs a guest with an IPv4 address on the bridge" }
  end
  target.ports = {}
  for i, port in ipairs(ports) do
    local name = ("port-%d-%s-%d"):format(record.netns, port.protocol, port.port)
    local ok, err
    if port.address == publish.ANY then
      ok, err = taking.leases:take_alone(name, taking.id)
      if ok then taking.note(name) end
    else
      ok, err = taking.leases:take_shared(name, taking.id)
      if ok then
        taking.note(ok)
        ok, err = taking.take(("%s-%s"):format(name, port.address))
      end
    end
    if err and err.owner then
      err.message = "is published by " .. taking.leases:describe{ folder = err.folder, id = err.owner }
    end
    if not ok then return about(("%s: %s"):format(port.place, publish.key(port)), err) end
    target.ports[i] = { address = port.address, port = port.port, protocol = port.protocol,
      guest_port = port.guest_port }
  end
  return true
end

-- None for a VM without a jail, a network and drives of its own.
local function needs_leases(plan)
  local needed = plan.jailer or plan.network[1]
  for _, drive in ipairs(plan.drives or {}) do needed = needed or drive.lease end
  return needed
end

local function choose(journal, plan, fleet)
  local record, manager = journal.record, journal.manager
  if plan.inside == false and manager.config.privilege == "rootless" then
    record.netns = namespaces.own()
  else
    fleet.namespace = fleet.namespace or namespaces.of(manager)
    record.netns, record.netns_name = fleet.namespace, manager.config.netns_name
  end
  record.confined = plan.inside and { uid = core.own_uid() } or nil
  record.taps, record.drives, record.leases = {}, {}, {}
  local ok, err = true, nil
  if not fleet.leases and needs_leases(plan) then
    fleet.leases, err = lease.open(manager, true)
    if not fleet.leases then return nil, err end
  end
  local taking = taker(journal, fleet.leases, plan.network)
  if plan.jailer then ok, err = choose_jail(journal, taking, plan, fleet) end
  if not ok then return nil, err end
  record.files = launch.files(journal.folder, record.jail, record.confined)
  record.shape = jailer.shape(plan.jailer)
  record.binary = plan.binary
  for i, drive in ipairs(plan.drives or {}) do
    ok, err = choose_drive(record, taking, i, drive)
    if not ok then return nil, err end
  end
  for _, interface in ipairs(plan.network) do
    local tap
    tap, err = choose_tap(journal, taking, interface)
    if not tap then return nil, err end
    if tap.attach then -- a bridge with two of one MAC sends to either
      ok, err = taking.take("mac-" .. taking.scope .. tap.guest_mac:lower())
      if not ok then return about(("%s.mac: %s"):format(place_of(interface), tap.guest_mac), err) end
    end
  end
  if #plan.ports == 0 then return true end
  return choose_ports(journal, taking, plan.ports)
end

-- Is the VM dead that has what this one was to have?
local function is_dead(manager, owner, folder)
  local there = { config = { runtime_dir = folder } }
  local record = journals.read(there, owner)
  local life <close> = record and not journals.is_locked(there, owner)
    and lives.of(record, manager.config.without) or nil
  return life and life.state == "dead"
end

---Chooses names and addresses, takes their leases, and puts it all into the record.
---@param journal fcproc.Journal
---@param plan fcproc.VmPlan
---@param fleet fcproc.Fleet
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: another VM has the uid, drive, TAP, address, MAC or port
function M.names(journal, plan, fleet)
  local ok, err = choose(journal, plan, fleet)
  if ok then return true end
  if err.code == "conflict" and err.owner and is_dead(journal.manager, err.owner, err.folder) then
    err.message = ("%s; that VM is dead: fcproc.vm.reclaim%s frees what it had"):format(err.message,
      err.folder == journal.manager.config.runtime_dir and "" or " with its runtime_dir")
  end
  return nil, err
end

return M
