-- A VM's spec: what may be in it, and the plan that comes of it. The whole of it is checked before
-- anything is made, and every mistake comes back with its place: "drives[2].path: no such file". Its
-- larger parts are checked in files of their own: drives.lua, interfaces.lua, jail.lua, publish.lua.

local arguments = require "fcproc.machine.arguments"
local boot = require "fcproc.vm.boot"
local bytes = require "fcproc.vm.bytes"
local core = require "fcproc.core"
local drives = require "fcproc.vm.drives"
local guest = require "fcproc.guest"
local interfaces = require "fcproc.vm.interfaces"
local jail = require "fcproc.vm.jail"
local loop = require "fcproc.loop"
local nft = require "fcproc.network.nft"
local publish = require "fcproc.vm.publish"
local rootless = require "fcproc.vm.rootless"
local schema = require "fcproc.vm.schema"
local sizes = require "fcproc.vm.sizes"
local uplinks = require "fcproc.network.uplinks"

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
  local uuid, err = core.read_file("/proc/sys/kernel/random/uuid")
  if not uuid then return nil, err end
  return "vm-" .. uuid:sub(1, 8)
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

-- Given, or a random one; nil: there is none that can be.
local function choose_id(check, spec)
  local id, err = spec.id, nil
  if id == nil then id, err = random_id() end
  if err then return check:fail("id", err) end
  local ok, reason = M.check_id(id)
  if not ok then return check:add("id", "%s", reason) end
  if id:find("^%-") then check:add("id", "'%s' would be taken for an option: no dash first", id) end
  return id
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
  plan.given = drives.check_given(check, plan.spec.drives, plan.jailer)
  for _, interface in ipairs(plan.network) do
    if interface.dns then
      check:add(interface.place .. ".dns", "a restored guest was told its name servers when it booted")
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
  plan.drives = drives.check(check, plan, ctx)
  drives.check_access(check, plan.drives, plan.jailer)
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
---@return fcproc.Error? err  ERR_INVALID with problems: { {place, text}, ... }, or what they all are:
---                            ERR_NOT_FOUND, ERR_PERMISSION, ERR_UNSUPPORTED; what the context's end, or
---                            the host, kept from being checked, alone
function M.plan(manager, spec, restoring, ctx, fleet)
  fleet = fleet or {}
  local check = schema.checker("vm." .. (restoring and "restore" or "launch"))
  if not manager.config.runtime_dir then
    check:add("manager", "has no runtime_dir: give it to fcproc.new")
  end
  spec = check:table(spec, "", restoring and schema.restore or schema.spec) or {}
  local id = choose_id(check, spec)
  local binary = find_binary(check, manager, fleet)
  local plan = { id = id, binary = binary, spec = spec, hooks = spec.hooks or {} }
  plan.jailer = jail.check(check, manager, spec, binary, ctx)
  enter(check, manager, spec, plan)
  plan.network = interfaces.check(check, manager, spec.network, id, function(wanted)
    if wanted ~= true then return uplinks.find(manager, wanted, ctx) end
    local uplink, err = fleet.uplink, fleet.no_uplink
    if not uplink and not err then uplink, err = uplinks.default(manager, ctx) end
    fleet.uplink, fleet.no_uplink = uplink, err and err.code == "not_found" and err or nil
    return uplink, err
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
    interfaces.check_addressed(check, manager, plan)
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
