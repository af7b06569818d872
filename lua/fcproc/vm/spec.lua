-- A VM's spec: what may be in it, and what Firecracker is told. The whole of it is checked before
-- anything is made, and every mistake comes back with its place: "drives[2].path: no such file".

local address = require "fcproc.network.address"
local arguments = require "fcproc.machine.arguments"
local boot = require "fcproc.vm.boot"
local bytes = require "fcproc.vm.bytes"
local core = require "fcproc.core"
local disks = require "fcproc.resources.disks"
local errors = require "fcproc.error"
local guest = require "fcproc.guest"
local jailer = require "fcproc.machine.jailer"
local loop = require "fcproc.loop"
local nft = require "fcproc.network.nft"
local publish = require "fcproc.vm.publish"
local rootless = require "fcproc.vm.rootless"
local schema = require "fcproc.vm.schema"
local sizes = require "fcproc.vm.sizes"
local uplinks = require "fcproc.network.uplinks"
local version_of = require "fcproc.machine.version"

local M = {}

---@class fcproc.DriveSpec
---@field path string               a file or block device
---@field id string?                default "root" for the root drive, else "drive<n>"
---@field read_only boolean?
---@field root boolean?             the guest's root device
---@field copy ("reflink"|"sparse")?  the VM gets a copy of its own; "reflink" becomes a sparse copy
---                                 where the file system can't
---@field rate_limit table?         as the API's rate_limiter
---@field io_engine ("Sync"|"Async")?
---@field cache_type ("Unsafe"|"Writeback")?
---@field overlay string?           of a read-only root: a file with an empty file system, of which the VM
---                                 gets a copy of its own as its last disk. Its name is told to the
---                                 initrd's init, as fcproc.overlay=/dev/vdb, which lays it over the root

---@class fcproc.DiskObject         what may be in drives, too: anything that has a disk(self, ctx)
---@field disk fun(self: fcproc.DiskObject, ctx: fcproc.Context?): fcproc.DriveSpec?, fcproc.Error?

---@class fcproc.BalloonSpec
---@field amount_mib integer
---@field deflate_on_oom boolean?
---@field stats_interval_s integer?
---@field free_page_hinting boolean?    from Firecracker 1.14 on
---@field free_page_reporting boolean?  from Firecracker 1.14 on

---@class fcproc.PmemSpec          a file that the guest has as memory: /dev/pmem0
---@field path string
---@field id string?                default "root" for the root, else "pmem<n>"
---@field read_only boolean?
---@field root boolean?             the guest's root device
---@field copy ("reflink"|"sparse")?  the VM gets a copy of its own
---@field rate_limit table?         as the API's rate_limiter; from Firecracker 1.16 on

---@class fcproc.NetworkSpec
---@field address (string|false)?   the guest's; default: a free one of the bridge's subnet; false: none
---@field mac string?               the guest's; default: from the VM's id
---@field tap string?               the TAP's name; default: from the VM's id
---@field isolated boolean?         can't reach the bridge's other isolated ports; default true
---@field attach boolean?           false: the TAP is on no bridge
---@field nat (string|boolean)?     the uplink through which the guest reaches the world; true: that of the
---                                 default route, or of rootless VMs what pasta gives them
---@field dns string[]?             at most two name servers, IPv4; see boot_args
---@field mtu integer?            the TAP's; from Firecracker 1.16 on the guest is told it, too
---@field rx_limit table?           as the API's rx_rate_limiter
---@field tx_limit table?           as the API's tx_rate_limiter

---@class fcproc.JailerSpec
---@field uid integer|"auto"        the jail's own user; "auto": a free one of the manager's jailer_uids
---@field gid integer?              needed with a number; with "auto": the same number as the uid
---@field shared_uid boolean?       other jails may have this uid, too
---@field allow_root boolean?       uid may be 0, which is logged
---@field binary string?            the jailer; default: the one beside Firecracker, or on PATH
---@field daemonize boolean?        cut off from the terminal; there is no console then
---@field new_pid_ns boolean?       PID 1 of a namespace of its own, where SIGTERM does nothing
---@field cgroups table<string, string|integer>?  file to value: { ["cpu.max"] = "50000 100000" }
---@field cgroup_version (1|2)?     default: the one that serves all of cgroups
---@field parent_cgroup string?     below the hierarchy, "a/b"; default: "fcproc"
---@field limits { no_file: integer?, fsize: integer? }?  descriptors; bytes of a file

---@class fcproc.RestoreSpec
---@field id string?                as in fcproc.VmSpec
---@field network (fcproc.NetworkSpec|fcproc.NetworkSpec[]|true)?  one for each of the snapshot's, or none:
---                                 the guest keeps its address and MAC
---@field publish string[]?         as in fcproc.VmSpec: a snapshot has none
---@field jailer fcproc.JailerSpec?
---@field stdin integer?
---@field hooks table<string, function>?
---@field cgroup string?
---@field limits { no_file: integer? }?
---@field seccomp (string|false)?
---@field log_level string?
---@field console_limit integer?
---@field timeout number?
---@field arguments string[]?
---@field track_dirty_pages boolean?
---@field paused boolean?           do not let it run yet
---@field copy ("reflink"|"sparse")?  how its drives are copied; default "reflink"
---@field any_cpu boolean?          though this host's CPU is another than the snapshot's
---@field drives table<string, string>?  where its read-only drives are: path by id
---@field huge_pages ("Snapshot"|"None"|"Transparent")?  what its memory is loaded into; from Firecracker
---                                 1.17 on
---@field clock_realtime boolean?   false: its clock goes on where it was, though Firecracker (1.16, 1.15.1,
---                                 1.14.4; x86_64) could set it forward, which is the default
---@field verify boolean?           read the snapshot whole first: is it what it was when it was made?
---@field trust boolean?            by root and without a jail, though somebody else could have made it

---@class fcproc.VmSpec
---@field id string?                1 to 64 letters, digits and dashes; default: a random one
---@field image (string|fcproc.ImageSpec)?  its root: the name of an image in the store, or a path; or a
---                                 table with one: { "debian12", overlay = "4GiB" }
---@field kernel string?            default: the built-in guest; of an image the store's, or the host's
---@field initrd string?
---@field boot_args string?         default: "console=ttyS0 reboot=k panic=1 pci=off", without pci=off when
---                                 arguments have --enable-pci. Without an ip= of its own, one is added
---                                 that tells the first interface with an address its address and name
---                                 servers. A kernel with IP_PNP reads it (and shows the servers in
---                                 /proc/net/pnp), or the guest's init
---@field vcpus integer?            default 1
---@field mem_mib integer?          default 128; 16 for the built-in guest
---@field smt boolean?               two threads a core
---@field cpu_template string?      one of Firecracker's own: "T2", "V1N1", ...
---@field huge_pages string?        "2M"; default "None"
---@field track_dirty_pages boolean?  for diff snapshots
---@field drives (fcproc.DriveSpec|fcproc.DiskObject)[]?
---@field pmem fcproc.PmemSpec[]?   from Firecracker 1.14 on
---@field memory_hotplug { total_mib: integer, block_mib: integer?, slot_mib: integer? }?  what can be added
---                                 while it runs, by PATCH /hotplug/memory; from Firecracker 1.14 on
---@field serial { path: string, rate_limit: table? }?  where the guest's serial console goes in place of
---                                 console(), as Firecracker sees the path; from Firecracker 1.14 on
---@field network (fcproc.NetworkSpec|fcproc.NetworkSpec[]|true)?  true: one, all of it chosen
---@field publish string[]?         ports of this host that lead to the guest: "8080:80" (at 127.0.0.1),
---                                 "127.0.0.1:5353:53/udp", "0.0.0.0:8000-8009:80-89"; at most 256
---@field vsock { cid: integer }?   its socket is vsock.sock in info().files.folder
---@field mmds { data: table?, version: ("V1"|"V2")?, address: string? }?  the metadata service; default "V2"
---@field balloon fcproc.BalloonSpec?
---@field entropy (boolean|table)?  true, or { rate_limit = ... }
---@field jailer fcproc.JailerSpec?
---@field cgroup string?           a cgroup's folder, into which the VMM is put before it runs: else it
---                                 is in its manager's, and ends with it when that is killed
---@field limits { no_file: integer? }?  without a jailer: descriptors of the VMM; default 2048
---@field boot ("config_file"|"api")?  how it is told its configuration; default "config_file"
---@field seccomp (string|false)?   a filter's file; false: none at all, which is logged
---@field log_level string?         Off, Error, Warning, Info, Debug, Trace; of firecracker.log
---@field console_limit integer?    bytes kept of console.log and of firecracker.log; default 16 MiB
---@field timeout number?           seconds until its API must answer; default 10
---@field arguments string[]?       more of Firecracker's own arguments, but none that fcproc gives itself
---@field stdin integer?            a descriptor that the guest's console reads; default: there is nothing to
---                                 read. When its other end is closed, nothing more comes
---@field hooks table<string, function>?  before_, after_ and on_failure_ of a step, the steps
---                                 being prepare, drives, network, start, stop, cleanup. Called with the
---                                 VM, the context and, on failure, the error; nil, err fails the step

M.MAX_ID = 64

local function random_id()
  local file <close> = assert(io.open("/dev/urandom", "rb"))
  local text = assert(file:read(4))
  return "vm-" .. text:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
end

---Can it be a VM's id? (Firecracker panics on one that can't.)
---@param id any
---@return true?
---@return string? reason
function M.check_id(id)
  if type(id) ~= "string" then return nil, "must be a string, not a " .. type(id) end
  if #id < 1 or #id > M.MAX_ID or id:find("[^%w%-]") then
    return nil, ("'%s' can't be an id: 1 to %d letters, digits and dashes"):format(id, M.MAX_ID)
  end
  return true
end

-- ---- drives --------------------------------------------------------------------------------

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

local function check_drives(check, plan, ctx)
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

-- A jailed VMM opens its drives as another user.
local function check_access(check, drives, jail)
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

-- Where a snapshot's read-only drives are, by their ids: used as for a launch.
local function check_given(check, drives, jail)
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

-- ---- network -------------------------------------------------------------------------------

local function check_once(check, place, value, seen)
  local key = value:lower()
  if seen[key] then check:add(place, "%s is used twice", value) end
  seen[key] = true
end

-- Can it be the guest's address, where its TAP is?
local function check_address(check, manager, interface, place, seen)
  local wanted, config = interface.address, manager.config
  if wanted == false then return end
  if wanted == true then wanted = nil end
  if wanted then check_once(check, place, wanted, seen) end
  local ok, err, subnet = true, nil, nil
  if interface.attach ~= false and config.bridge_ip and not config.bridge_ip:find(":") then
    subnet, err = address.subnet(config.bridge_ip, config.prefix)
    if subnet and wanted then ok, err = address.check(wanted, subnet) end
  elseif wanted then
    ok, err = address.parse(wanted)
  end
  if err or not ok then return check:add(place, "%s", err.message) end
  interface.addressed = (wanted or subnet) ~= nil
end

local function check_dns(check, interface, place)
  local dns = interface.dns
  if not dns or not check:list(dns, place) then return end
  if #dns > address.MOST_DNS then
    check:add(place, "has %d name servers: a kernel's ip= has room for two", #dns)
  end
  for i, server in ipairs(dns) do
    local number, err = address.parse(tostring(server))
    if not number then check:add(("%s[%d]"):format(place, i), "%s", err.message) end
  end
end

local function check_nat(check, manager, interface, place, uplink)
  if interface.nat == true then
    local name, err = uplink()
    if not name then return check:add(place, "%s", err.message) end
    interface.nat = name
  end
  local ok, err = core.check_ifname(interface.nat)
  if not ok then
    check:add(place, "%s", err.message)
  elseif interface.attach == false then
    check:add(place, "a TAP on no bridge has no NAT")
  elseif interface.nat == manager.config.bridge_name then
    check:add(place, "%s is the guests' bridge and can't be their uplink", interface.nat)
  else
    local there, reason = manager.net:link_exists(interface.nat)
    if not there then
      check:add(place, "%s", reason and reason.message or ("there is no interface %s; name the one that "
        .. "leads to the world"):format(interface.nat))
    end
  end
end

-- The names that an interface will have, its own or those that come from the VM's id, are this one's alone.
local function check_names(check, manager, interface, id, place, seen)
  local folder, nth = manager.config.runtime_dir, interface.index - 1
  local derived = id and folder
  local tap = interface.tap or derived and address.tap_name(folder, id, nth)
  local mac = interface.mac or derived and address.mac(folder, id, nth)
  if tap then check_once(check, place .. ".tap", tap, seen) end
  if mac then check_once(check, place .. ".mac", mac, seen) end
end

local function check_interface(check, manager, given, index, id, place, seen, uplink)
  local interface = check:table(given, place, schema.network)
  if not interface then return end
  local attach = interface.attach ~= false
  if attach and not manager.config.bridge_name then
    check:add(place, "the manager has no bridge: give fcproc.new a bridge_name, or attach = false")
  end
  if interface.tap then
    local ok, err = core.check_ifname(interface.tap)
    if not ok then check:add(place .. ".tap", "%s", err.message) end
  end
  check_address(check, manager, interface, place .. ".address", seen)
  if interface.mac and not interface.mac:match("^%x[02468aceACE]" .. (":%x%x"):rep(5) .. "$") then
    check:add(place .. ".mac", "'%s' is no unicast MAC address: it is written like "
      .. "02:00:00:00:00:01", interface.mac)
  end
  if interface.nat then check_nat(check, manager, interface, place .. ".nat", uplink) end
  interface.nat = interface.nat or nil
  for _, name in ipairs{ "rx_limit", "tx_limit" } do
    boot.check_part(check, boot.limiter, interface[name], place .. "." .. name)
  end
  check_dns(check, interface, place .. ".dns")
  interface.index, interface.attach, interface.isolated = index, attach, interface.isolated ~= false
  interface.place = place
  check_names(check, manager, interface, id, place, seen)
  return interface
end

local function check_network(check, manager, network, id, uplink)
  local list, seen = {}, {}
  if not network then return list end
  if network == true then
    network = {}
  elseif next(network) == nil then -- an empty list, which JSON's decoder can't tell from an empty object
    check:add("network", "is empty: true is one interface with defaults; leave it out for none")
    return list
  end
  local several = #network > 0
  if several and not check:list(network, "network") then return list end
  for i, interface in ipairs(several and network or { network }) do
    local place = several and ("network[%d]"):format(i) or "network"
    list[#list + 1] = check_interface(check, manager, interface, i, id, place, seen, uplink)
  end
  return list
end

-- ---- the rest ------------------------------------------------------------------------------

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

local function check_jailer(check, manager, spec, binary, ctx)
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

local function check_hooks(check, hooks)
  for name, hook in pairs(hooks or {}) do
    local place = "hooks." .. tostring(name)
    local step = type(name) == "string"
      and (name:match("^before_(.*)") or name:match("^after_(.*)") or name:match("^on_failure_(.*)"))
    if not step or not schema.steps[step] then
      check:add(place, "unknown; known: before_, after_ and on_failure_ of %s",
        schema.names(schema.steps))
    elseif type(hook) ~= "function" then
      check:add(place, "must be a function, not a %s", type(hook))
    end
  end
end

-- Firecracker's own arguments.
local function check_arguments(check, given)
  for i, argument in ipairs(given and check:list(given, "arguments") and given or {}) do
    local place = ("arguments[%d]"):format(i)
    if type(argument) ~= "string" or argument:find("%z") then
      check:add(place, "must be a string%s", type(argument) == "string" and " without a NUL byte"
        or ", not a " .. type(argument))
    else
      local complaint = arguments.complaint(argument)
      if complaint then check:add(place, "%s", complaint) end
    end
  end
end

-- Those, and its filter, which is a file or none at all.
local function check_command(check, plan)
  local spec = plan.spec
  check_arguments(check, spec.arguments)
  plan.pci = arguments.enables_pci(spec.arguments)
  if spec.seccomp == true then
    check:add("seccomp", "must be a filter's file, or false: the built-in filters are the default")
  elseif spec.seccomp then
    plan.seccomp = (check:file(spec.seccomp, "seccomp", "file") or {}).path
    spec.seccomp = plan.seccomp
  end
end

-- Firecracker says of a file that is no kernel only that its magic number is wrong.
local function check_kernel(check, plan, kernel)
  local file = check:file(kernel, "kernel", "file")
  if not file then return end
  plan.kernel = file.path
  local text, err = core.read_file(file.path, 0, 1024)
  if not text then return check:add("kernel", "%s", err.message) end
  if core.arch ~= "x86_64" then
    if text:sub(57, 60) ~= "ARM\x64" then check:add("kernel", "%s is no arm64 Image", kernel) end
    return
  end
  plan.compressed = text:sub(0x203, 0x206) == "HdrS"
  if text:sub(1, 4) ~= "\x7fELF" and not plan.compressed then
    check:add("kernel", "%s is no kernel: Firecracker boots an uncompressed vmlinux, an ELF file",
      kernel)
  end
end

-- What a snapshot does not say itself.
local function check_restored(check, plan)
  plan.given = check_given(check, plan.spec.drives, plan.jailer)
  for _, interface in ipairs(plan.network) do
    if interface.dns then
      check:add(interface.place .. ".dns", "a restored guest was told its name servers when it booted")
    end
  end
end

-- What needs an address, where fcproc gives none.
local function check_addressed(check, manager, plan)
  local bridge_ip = manager.config.bridge_ip or ""
  for _, interface in ipairs(plan.network) do
    if interface.nat and not interface.addressed then
      check:add(interface.place .. ".nat", "is for a guest with an IPv4 address, and this one gets none")
    end
    if interface.attach and bridge_ip:find(":", 1, true) and not interface.addressed
      and interface.address ~= false then
      plan.warnings = plan.warnings or {}
      table.insert(plan.warnings, { name = "address", message = ("%s gets no address: the bridge's is IPv6 "
        .. "(%s), and fcproc gives IPv4 ones alone"):format(interface.place, bridge_ip),
        fix = "address it in the guest, and say address = false; or give the manager an IPv4 bridge_ip" })
    end
  end
end

-- What a snapshot would say itself.
local function check_machine(check, plan, fleet, ctx)
  local spec = plan.spec
  plan.builtin = spec.kernel == nil
  if spec.image ~= nil then check:add("image", "is known to fcproc.vm alone: require \"fcproc\"") end
  if spec.kernel then
    check_kernel(check, plan, spec.kernel)
  else
    local err
    plan.kernel, err = guest.path()
    if not plan.kernel then check:add("kernel", "none is given, and %s", err.message) end
  end
  boot.read_args(check, plan)
  plan.initrd = spec.initrd and (check:file(spec.initrd, "initrd", "file") or {}).path
  plan.drives = check_drives(check, plan, ctx)
  check_access(check, plan.drives, plan.jailer)
  sizes.boot(check, plan)
  sizes.huge_pages(check, plan, fleet)
  sizes.limits(plan, sizes.memory(spec))
  if spec.serial and spec.boot == "config_file" then
    check:add("boot", "must be \"api\" for serial, of which a configuration file can't tell")
  elseif spec.serial then
    spec.boot = "api"
  end
  if type(spec.entropy) == "table" then
    boot.check_part(check, boot.limiter, spec.entropy.rate_limit, "entropy.rate_limit")
  end
  if plan.pci and plan.line and (" " .. plan.line.kernel):find(" pci=[^ ]*%f[%w]off%f[^%w]") then
    check:add("boot_args", "has pci=off, and arguments have --enable-pci: the guest would find no device")
  elseif plan.pci and plan.builtin then
    plan.warnings = plan.warnings or {}
    table.insert(plan.warnings, { name = "pci", message = "the built-in guest knows no PCI: with "
      .. "--enable-pci it finds no device", fix = "leave out --enable-pci, or give a kernel" })
  end
  if spec.mmds then
    boot.check_part(check, boot.data, spec.mmds.data, "mmds.data")
    if #plan.network == 0 then check:add("mmds", "is reached over the network: give a network") end
  end
end

local function find_binary(check, manager, fleet)
  if fleet.binary then return fleet.binary end
  local binary, err = manager:resolve_binary()
  if binary then binary, err = core.absolute_path(binary) end
  if not binary then check:add("firecracker_bin", "%s", err.message) end
  fleet.binary = binary
  return binary
end

---@class fcproc.VmPlan        a spec that was checked, with everything chosen that could be
---@field id string
---@field binary string
---@field kernel string?
---@field builtin boolean      the built-in guest
---@field line fcproc.CommandLine?  the kernel's, but for what is added
---@field drives table[]
---@field network table[]
---@field ports fcproc.Port[]  that are published
---@field jailer table?
---@field inside boolean?      it is in the manager's rootless namespaces, and in a jail there
---@field spec fcproc.VmSpec
---@field seccomp string?      the filter's file
---@field compressed boolean?  the kernel is a bzImage
---@field pci boolean          its devices are on PCI
---@field warnings fcproc.VmWarning[]?
---@field tells_mtu boolean?   Firecracker tells the guest its interfaces' MTU
---@field hooks table<string, function>

-- The namespaces of one that is rootless are there before its network is looked at.
local function enter(check, manager, spec, plan)
  local inside, err = rootless.decide(manager, spec.network)
  plan.inside = inside
  if inside == nil then return check:add("network", "%s", err.message) end
  local ok = true
  if inside and spec.network then ok, err = manager:_enter() end
  if not ok then check:fail("", err) end
  if inside and spec.jailer then
    check:deny("jailer", "needs root; a rootless VMM is in a jail of its own kind without it")
  end
end

-- NAT is nft's, and so are ports of this host; those of a rootless VM a relay serves.
local function check_nft(check, manager, plan)
  local needed = #plan.ports > 0 and not plan.inside
  for _, interface in ipairs(plan.network) do needed = needed or interface.nat end
  local ok, err = true, nil
  if needed then ok, err = nft.is_installed(manager, check.op) end
  if not ok then check:fail("", err) end
end

---Checks a spec whole.
---@param manager fcproc.Manager
---@param spec fcproc.VmSpec
---@param restoring boolean?  from a snapshot, which says itself what the VM is
---@param ctx fcproc.Context?
---@param fleet fcproc.Fleet?  default: one VM alone
---@return fcproc.VmPlan? plan
---@return fcproc.Error? err  ERR_INVALID with problems: { {place, text}, ... }; what the context's end, or
---                            the host, kept from being checked, alone
function M.plan(manager, spec, restoring, ctx, fleet)
  fleet = fleet or {}
  local check = schema.checker("vm." .. (restoring and "restore" or "launch"))
  if not manager.config.runtime_dir then
    check:add("manager", "has no runtime_dir: give it to fcproc.new")
  end
  spec = check:table(spec, "", restoring and schema.restore or schema.spec) or {}
  local id = spec.id or random_id()
  local ok, reason = M.check_id(id)
  if not ok then check:add("id", "%s", reason) end
  if ok and id:find("^%-") then check:add("id", "'%s' would be taken for an option: no dash first", id) end
  local binary = find_binary(check, manager, fleet)
  local plan = { id = id, binary = binary, spec = spec, hooks = spec.hooks or {} }
  plan.jailer = check_jailer(check, manager, spec, binary, ctx)
  enter(check, manager, spec, plan)
  plan.network = check_network(check, manager, spec.network, ok and id or nil, function()
    if fleet.uplink then return fleet.uplink end
    local uplink
    uplink, reason = uplinks.default(manager, ctx)
    fleet.uplink = uplink
    return uplink, reason
  end)
  plan.ports = publish.check(check, manager, spec)
  check_nft(check, manager, plan)
  check_hooks(check, spec.hooks)
  if spec.stdin and plan.jailer and plan.jailer.daemonize then
    check:add("stdin", "a jailer with daemonize closes it: there is no console then")
  end
  check_command(check, plan)
  sizes.descriptors(check, plan)
  if spec.cgroup and not core.stat(spec.cgroup .. "/cgroup.procs") then
    check:add("cgroup", "%s is no cgroup's folder: it has no cgroup.procs", spec.cgroup)
  end
  if restoring then check_restored(check, plan) else check_machine(check, plan, fleet, ctx) end
  bytes.check(check, manager, plan)
  if not restoring and not check:failed() then
    check_addressed(check, manager, plan)
    publish.check_guest(check, plan)
  end
  if not restoring and not check:failed() then boot.check_version(check, manager, plan, ctx) end
  if not check:failed() then return plan end
  -- What was asked meanwhile has not answered, and that is no mistake in the spec.
  local on, over = loop.check(ctx)
  return nil, on and check:error() or over
end

---The configuration, as for --config-file.
M.config = boot.config

return M
