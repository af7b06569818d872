-- From the arguments of fcproc run and restore to a VM's spec. What can't work, the flow tells.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcconfig = require "fcproc.cli.fcconfig"
local json = require "fcproc.json"

local M = {}

local function invalid(format, ...)
  return nil, errors.new{ code = "invalid", op = "cli.spec", message = format:format(...) }
end

-- The spec in a file, which may also be a Firecracker configuration; and what is to be told of it.
local function read(path, restoring)
  local text, err
  if path == "-" then text, err = require "fcproc.cli.stdin"() else text, err = core.read_file(path) end
  if not text then return nil, err end
  local spec, complaint = json.read(text)
  -- An empty list is decoded as an empty object.
  if type(spec) ~= "table" or not text:find("^%s*{") then
    return invalid("%s is no JSON object with a VM's spec: %s", path == "-" and "stdin" or path,
      complaint or "it begins with " .. errors.shown(text:match("%S") or "nothing"))
  end
  spec = json.plain(spec)
  if not fcconfig.is_one(spec) then return spec end
  if restoring then
    return invalid("%s is a Firecracker configuration; a snapshot says itself what its VM is", path)
  end
  return fcconfig.spec(spec)
end

-- The interfaces of --net, --nat, --tap and --mac; the last three belong to the first. A port that is
-- published needs one.
local function add_networks(spec, args)
  local list = {}
  for i, given in ipairs(args.networks) do list[i] = { address = given[1] } end
  local needed = #args.publish > 0 and spec.network == nil and args.command == "run"
  if #list == 0 and not (args.nat or args.tap or args.mac or needed) then return true end
  if spec.network ~= nil then
    return invalid("the network is in --spec already: give it there or by options, not both")
  end
  list[1] = list[1] or {}
  list[1].nat, list[1].tap, list[1].mac = args.nat == "auto" or args.nat, args.tap, args.mac
  spec.network = list
  return true
end

local function add_ports(spec, args)
  if #args.publish == 0 then return true end
  if spec.publish ~= nil and type(spec.publish) ~= "table" then return invalid("publish: no list") end
  spec.publish = spec.publish or {}
  for _, text in ipairs(args.publish) do table.insert(spec.publish, text) end
  return true
end

local function add_jailer(spec, args)
  local jail = spec.jailer
  if args.jailer then
    jail = jail or {}
    jail.uid, jail.gid = args.jailer.uid, args.jailer.gid
  end
  local more = args.daemonize or args.new_pid_ns or #args.cgroups > 0
  if more and type(jail) ~= "table" then
    return invalid("--daemonize, --new-pid-ns and --cgroup are the jailer's: give --jailer UID:GID, "
      .. "or --jailer auto")
  end
  if not jail then return true end
  jail.daemonize = args.daemonize or jail.daemonize
  jail.new_pid_ns = args.new_pid_ns or jail.new_pid_ns
  for _, setting in ipairs(args.cgroups) do
    jail.cgroups = jail.cgroups or {}
    jail.cgroups[setting.key] = setting.value
  end
  spec.jailer = jail
  return true
end

-- A file whose very name ends like a word never wins: who may make "base.img:ro" would turn another's
-- read-only drive into his own.
local function check_name(drive)
  for _, name in ipairs(drive.longer) do
    if core.stat(name) then
      return invalid("ambiguous --drive '%s': there is a file of that very name; one that ends like :ro, "
        .. ":root or :copy is given by --spec", name)
    end
  end
  drive.longer = nil
  return true
end

---The spec that the arguments describe.
---@param args table
---@return table? spec
---@return fcproc.Error|string[]|nil err  or what is to be told of it, a line each
function M.of(args)
  local spec, notes = {}, nil
  if args.spec then
    spec, notes = read(args.spec, args.command == "restore")
    if not spec then return nil, notes end
  end
  local options = { id = args.id, kernel = args.kernel, initrd = args.initrd,
    boot_args = args.boot_args, vcpus = args.vcpus, mem_mib = args.mem, paused = args.paused,
    any_cpu = args.any_cpu, verify = args.verify, trust = args.trust,
    vsock = args.vsock and { cid = args.vsock } or nil }
  for name, value in pairs(options) do spec[name] = value end
  if args.image then
    if spec.image ~= nil then return invalid("the image is in --spec already: give it once") end
    spec.image = { args.image, overlay = args.overlay, copy = args.copy and "reflink" or nil,
      pull = args.pull or nil, store = args.store }
  elseif args.overlay ~= nil or args.copy or args.pull then
    return invalid("--overlay, --copy and --pull are for --image REF")
  end
  if args.drives and #args.drives > 0 then
    if spec.drives ~= nil and type(spec.drives) ~= "table" then return invalid("drives: no list") end
    spec.drives = spec.drives or {}
    for _, drive in ipairs(args.drives) do
      local ok, ambiguous = check_name(drive)
      if not ok then return nil, ambiguous end
      table.insert(spec.drives, drive)
    end
  end
  for _, drive in ipairs(args.drive_paths or {}) do
    if spec.drives ~= nil and type(spec.drives) ~= "table" then return invalid("drives: no table") end
    spec.drives = spec.drives or {}
    spec.drives[drive.key] = drive.value
  end
  local ok, err = add_networks(spec, args)
  if ok then ok, err = add_ports(spec, args) end
  if ok then ok, err = add_jailer(spec, args) end
  if not ok then return nil, err end
  return spec, notes
end

return M
