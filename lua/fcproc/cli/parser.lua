-- The fcproc command's arguments.

local argparse = require "argparse"

local M = {}

local EPILOG = [[
Options may also come from the environment: FCPROC_RUNTIME_DIR, FCPROC_BRIDGE,
FCPROC_BRIDGE_IP, FCPROC_FIRECRACKER, FCPROC_NETNS, FCPROC_STORE.

Exit status: 0 done; 1 failed, or the output could not be written; 2 wrong
use, or a value that can never work; 3 no such VM or file; 4 in use, or in the
way; 5 a permission is missing; 124 timed out; 130 interrupted (143: by
SIGTERM, 131: by SIGQUIT, 129: by SIGHUP). With --json an error is {"error": {...}} on stdout,
beside its line on stderr.]]

-- An option's default: from the environment, unless it is empty there.
local function from_env(name, default)
  local value = os.getenv(name)
  return value ~= "" and value or default
end

-- A converter: argparse's own message names neither the option nor what it wants.
local function whole_of(option)
  return function(text)
    local number = text:find("^%d+$") and math.tointeger(tonumber(text))
    if number then return number end
    return nil, ("malformed %s '%s': a whole number"):format(option, text)
  end
end

local function seconds(text)
  local number = tonumber(text)
  if number and number >= 0 and number < 1e9 then return number end
  return nil, ("malformed --timeout '%s': a number of seconds, 0 or more"):format(text)
end

local function address_and_prefix(text)
  local address, prefix = text:match("^([^/]+)/(%d+)$")
  if address then return { address = address, prefix = math.tointeger(tonumber(prefix)) } end
  return nil, ("malformed --bridge-ip '%s': it is written like 172.30.0.1/24"):format(text)
end

local function user_and_group(text)
  local uid, gid = text:match("^(%d+):(%d+)$")
  if uid then return { uid = math.tointeger(tonumber(uid)), gid = math.tointeger(tonumber(gid)) } end
  return nil, ("malformed user '%s': it is written like 1000:1000"):format(text)
end

local function jail_user(text)
  if text == "auto" then return { uid = "auto" } end
  local user = user_and_group(text)
  if user then return user end
  return nil, ("malformed --jailer '%s': it is written like 1000:1000, or is auto"):format(text)
end

local function drive_path(text)
  local key, value = text:match("^([^=]+)=(.+)$")
  if key then return { key = key, value = value } end
  return nil, ("malformed --drive '%s': of a snapshot it is written like base=/srv/base.ext4"):format(text)
end

local function key_and_value(text)
  local key, value = text:match("^([^=]+)=(.*)$")
  if key then return { key = key, value = value } end
  return nil, ("malformed --cgroup '%s': it is written like cpu.shares=512"):format(text)
end

-- The words after a path, from its end: /disk.img:ro:copy. What names it may be as well is looked at later.
local function drive(text)
  local words = { ro = "read_only", root = "root", copy = "copy" }
  local made = { longer = {} }
  while true do
    local path, word = text:match("^(.+):(%a+)$")
    if not path or not words[word] then break end
    made[words[word]] = word == "copy" and "reflink" or true
    table.insert(made.longer, text)
    text = path
  end
  made.path = text
  return made
end

local function overlay_size(text)
  if text == "none" then return false end
  return text
end

local function ladder(text)
  local steps = {}
  for part in text:gmatch("[^,]+") do
    local name, limit = part:match("^([%l_]+):([%d.]+)$")
    local known = name == "ctrl_alt_del" or name == "wait" or name == "sigterm" or name == "sigkill"
    if not known or not tonumber(limit) then
      return nil, ("malformed --ladder '%s': steps are like ctrl_alt_del:10,sigterm:3,sigkill:5; "
        .. "there are ctrl_alt_del, wait, sigterm, sigkill"):format(part)
    end
    steps[#steps + 1] = { name, tonumber(limit) }
  end
  if #steps == 0 then return nil, "--ladder has no step" end
  return steps
end

-- ---- the commands --------------------------------------------------------------------------

local function add_network(command)
  command:option("--net", "A network interface; its address is a free one unless one is given.")
    :args("?"):count("*"):argname("<address>"):target("networks")
  command:option("--nat", "Let the guest out to the world by this interface of the host; auto: "
    .. "the host's own uplink.")
    :argname("<uplink>")
  command:option("-p --publish", "A port of this host that leads to the guest, at 127.0.0.1 unless another "
    .. "address is given; 0.0.0.0: at all of them. Several may be given, and ranges: 8000-8009:80-89.")
    :argname("<[address:]port:port[/udp]>"):count("*"):target("publish")
  command:option("--tap", "The TAP's name."):argname("<name>")
  command:option("--mac", "The guest's MAC address."):argname("<mac>")
end

local function add_jailer(command)
  command:option("--jailer", "Run Firecracker in a jail, as this user and group, which no other VM's "
    .. "jail has; auto: as a free one.")
    :argname("<uid:gid|auto>"):convert(jail_user)
  command:flag("--daemonize", "Jailer: cut its ties to the terminal; there is no console then.")
  command:flag("--new-pid-ns", "Jailer: a PID namespace of its own.")
  command:option("--cgroup", "Jailer: a cgroup setting, as cpu.shares=512; several may be given.")
    :argname("<file=value>"):count("*"):convert(key_and_value):target("cgroups")
end

local function add_launching(command)
  command:option("--id", "The VM's name; default: a random one."):argname("<id>")
  add_network(command)
  add_jailer(command)
  command:option("--spec", "A JSON file with the VM's spec, or a Firecracker configuration; options add "
    .. "to it. Its relative paths are from the current folder. -: stdin.")
    :argname("<file>")
  command:flag("-d --detach", "Leave it running in the background, and print its id.")
  command:flag("-i --interactive", "In the foreground: the guest's console reads what is typed, or comes "
    .. "from stdin. Ctrl-] stops the VM then.")
  command:flag("--no-console", "In the foreground: do not show the guest's console.")
  command:flag("--ignore-panic", "In the foreground: a guest whose kernel panics has not failed.")
end

local function add_ladder(command)
  command:option("--ladder", "How to end it; default: ctrl_alt_del:10,sigterm:3,sigkill:5")
    :argname("<step:seconds,...>"):convert(ladder)
end

local function add_store(command)
  command:option("--store", "Where images are kept; default: /var/lib/fcproc/images of root, else "
    .. "~/.local/share/fcproc/images."):argname("<folder>"):default(from_env("FCPROC_STORE"))
end

local function add_ids(command)
  command:argument("id"):args("*"):target("ids")
  command:flag("-a --all", "All VMs of the runtime folder.")
end

local function add_vms(parser, command)
  local run = command(parser, "run", "Launch a VM; without a kernel, the built-in guest.")
  add_launching(run)
  run:option("--image", "An image as its root: the name of one in the store, or a path. Without --kernel it "
    .. "is booted by the store's kernel."):argname("<ref>")
  run:option("--overlay", "With --image: what the VM may write over it, which goes with the VM; default: "
    .. "2GiB; none: it is read-only."):argname("<size|none>"):convert(overlay_size)
  run:flag("--copy", "With --image: the VM writes to a copy of its own.")
  run:flag("--pull", "With --image: take one that is not in the store from a registry.")
  add_store(run)
  run:option("--kernel", "An uncompressed kernel."):argname("<file>")
  run:option("--initrd", "An initial RAM disk."):argname("<file>")
  run:option("--boot-args", "The kernel's command line."):argname("<text>")
  run:option("--vcpus", "CPUs; default: 1."):argname("<n>"):convert(whole_of("--vcpus"))
  run:option("--mem", "Memory in MiB; default: 128, and 16 for the built-in guest.")
    :argname("<mib>"):convert(whole_of("--mem"))
  run:option("--drive", "A disk; after it :ro, :root (the guest's root device), :copy (the VM gets "
    .. "a copy of its own). Several may be given.")
    :argname("<path[:ro][:root][:copy]>"):count("*"):convert(drive):target("drives")
  run:option("--vsock", "A vsock with this context id, 3 or more."):argname("<cid>")
    :convert(whole_of("--vsock"))
  add_ladder(run)

  local restore = command(parser, "restore", "Launch a VM from a snapshot.")
  restore:argument("path", "The snapshot's folder.")
  add_launching(restore)
  restore:flag("--paused", "Do not let it run yet; only with --detach.")
  restore:flag("--any-cpu", "Though this host's CPU is another than the snapshot's.")
  restore:option("--drive", "Where a read-only drive of the snapshot is; several may be given.")
    :argname("<id=path>"):count("*"):convert(drive_path):target("drive_paths")
  restore:flag("--verify", "First read all of it: is it what it was when it was made?")
  restore:flag("--trust", "As root and without a jail, though somebody else could have made it.")
  add_ladder(restore)

  local ps = command(parser, "ps", "List the VMs, alive and dead.")
  ps:flag("-q --quiet", "Only their ids, one a line.")
  command(parser, "info", "All about a VM."):argument("id")
  local console = command(parser, "console logs", "What a guest wrote to its console.")
  console:argument("id")
  console:flag("-f --follow", "Go on until the VM ends.")
  console:option("-n --lines", "Begin with the last lines."):argname("<n>")
    :convert(whole_of("--lines"))
  command(parser, "wait", "Wait until VMs have ended, whoever has them; nothing is removed.")
    :argument("id"):args("+"):target("ids")
  local stop = command(parser, "stop", "Stop VMs, gently first, and remove all that they had.")
  add_ids(stop)
  add_ladder(stop)
  add_ids(command(parser, "kill", "Stop VMs at once, and remove all that they had."))
  command(parser, "pause", "Stop a VM's CPUs."):argument("id")
  command(parser, "resume", "Let them go on."):argument("id")
  local snapshot = command(parser, "snapshot", "Write a VM's snapshot into a new folder.")
  snapshot:argument("id")
  snapshot:argument("path", "The folder; it must not be there.")
  snapshot:flag("--diff", "Only what changed since the last one; the VM needs track_dirty_pages.")
  snapshot:flag("--keep-paused", "Do not let it go on afterwards.")
  snapshot:flag("--no-hash", "Without the hashes that verify compares.")
  snapshot:flag("--trust", "As root, though somebody else may move the folder that it is in.")
  command(parser, "verify", "Read a snapshot whole: is it what it was when it was made?")
    :argument("path", "The snapshot's folder.")
  local reclaim = command(parser, "reclaim", "Remove what dead VMs left. VMs that run are not touched.")
  reclaim:option("--unknown", "A VM that can't be judged from here, and that you know to be dead; several "
    .. "may be given."):argname("<id>"):count("*")
end

-- What Firecracker itself is asked and told.
local function add_requests(parser, command)
  local api = command(parser, "api", "Send a request to a VM's Firecracker, as it is, and print the "
    .. "answer. All but GET takes the VM over for it.")
  api:argument("id")
  api:argument("method", "GET, PUT, PATCH or DELETE.")
  api:argument("path", "As /machine-config.")
  api:argument("body", "JSON. -: stdin."):args("?")
  command(parser, "metrics", "A VM's newest metrics, in Firecracker's own names."):argument("id")
  local balloon = command(parser, "balloon", "A VM's balloon; with a size, what it is to grow or shrink to.")
  balloon:argument("id")
  balloon:argument("mib"):args("?"):convert(whole_of("balloon"))
  local mmds = command(parser, "mmds", "The metadata that a guest sees; with data, what replaces it.")
  mmds:argument("id")
  mmds:argument("data", "A JSON object. -: stdin."):args("?")
  mmds:flag("--patch", "Merge the data into what is there; a null removes.")
end

local function add_host(parser, command)
  local net = command(parser, "net", "The bridge of the VMs.")
  net:command_target("net_command")
  net:require_command(true)
  command(net, "up", "The bridge is there, has its address and is up.")
  command(net, "down", "The bridge is gone; refused while a VM is on it.")
  command(net, "show", "The bridge, its TAPs, the leases and the guests with NAT; also TAPs whose VM "
    .. "is not there any more.")
  command(net, "clean", "Remove the TAPs whose VM is not there any more; refused while one is in use.")
  local doctor = command(parser, "doctor", "Check what the host can do, and say what mends it.")
  doctor:flag("--boot", "Prove it: boot the built-in guest on a TAP and ping it.")
  doctor:option("--uplink", "Check NAT by this interface, too; auto: as --nat auto."):argname("<interface>")
  doctor:option("--user", "Who is to run Firecracker."):argname("<uid:gid>"):convert(user_and_group)
  command(parser, "version", "The versions of fcproc, Firecracker and the kernel.")
end

local function add_reading(command)
  command:option("--max-size", "How much it may hold, holes and all; default: 1TiB of an archive, 64GiB with "
    .. "holes in a squashfs or an initrd."):argname("<size>")
  command:option("--platform", "As linux/arm64; default: this host's."):argname("<os/arch>")
  command:option("--authfile", "Credentials for registries, as skopeo login writes them."):argname("<file>")
  command:option("--policy", "skopeo's policy.json: which images are trusted."):argname("<file>")
  command:flag("--no-tls-verify", "A registry without TLS, or without a certificate that is known.")
end

local function add_image_builds(image, command)
  local build = command(image, "build", "Build a disk, as an ordinary user.")
  build:argument("source", "dir:FOLDER, tar:FILE, oci:FOLDER, oci-archive:FILE, docker-archive:FILE, "
    .. "docker://NAME, a path, or the name of a tar in the store.")
  build:argument("target", "The file; it is replaced. With --name it may be left out."):args("?")
  build:option("--format", "What it is to be; default: ext4."):argname("<format>")
    :choices{ "ext4", "squashfs", "tar", "initrd" }
  build:option("--size", "The disk's, as 2GiB; default: as small as it can be."):argname("<size>")
  build:option("--room", "What is to be free in it, as 300MiB."):argname("<size>")
  build:flag("--no-journal", "ext4 without a journal: for a disk that is only read.")
  build:option("--overlay", "A file of the host to be put into it; several may be given.")
    :argname("<path=file>"):count("*")
  build:option("--remove", "What is to be left out; several may be given."):argname("<path>"):count("*")
  build:flag("--as-is", "Without what a microVM needs: mount points, resolv.conf, an empty machine-id.")
  build:option("--manifest", "Write what it was made of into this file."):argname("<file>")
  build:option("--name", "A name for it in the store."):argname("<tag>")
  add_reading(build)
  local verify = command(image, "verify", "Is a disk that was built whole? Nothing is changed.")
  verify:argument("ref", "Its path, or its name in the store.")
  verify:option("--manifest", "What build --manifest wrote: it is still that very file."):argname("<file>")
  local inspect = command(image, "inspect", "What is in an image, and what will hurt when it is booted.")
  inspect:argument("source", "As of build.")
  add_reading(inspect)
end

local function add_images(parser, command)
  local image = command(parser, "image", "Images: what VMs have as their roots.")
  image:command_target("image_command")
  image:require_command(true)
  add_store(image)
  add_image_builds(image, command)
  command(image, "list", "The images that there are, their names, and how many VMs and snapshots need each.")
  local prune = command(image, "prune", "Remove the images without a name that no VM and no snapshot needs, "
    .. "and what else is of no use.")
  prune:flag("--all", "Also those with a name, and all downloads.")
  prune:flag("--dry-run", "Only tell what would be removed.")
  local kernel = command(image, "kernel", "What images are booted with; of a kernel, what it is and lacks.")
  kernel:argument("path", "A distribution's kernel, as /boot/vmlinuz-VERSION."):args("?")
  kernel:option("--to", "Write it there, uncompressed, as every Firecracker boots it."):argname("<file>")
  kernel:option("--default", "Boot images with this kernel from now on; the store keeps it uncompressed, "
    .. "with an initrd of its modules."):argname("<file>")
  kernel:option("--initrd", "With --default: this initrd."):argname("<file>")
  kernel:option("--modules", "With --default: where its modules are; default: /lib/modules/VERSION, beside "
    .. "the kernel's boot/ or of this host."):argname("<folder>")
  local initrd = command(image, "initrd", "Make an initrd that lets a distribution's kernel find its root.")
  initrd:argument("target", "The file.")
  initrd:option("--modules", "The kernel's modules, as /lib/modules/VERSION."):argname("<folder>")
  initrd:option("--module", "One more module; several may be given."):argname("<name>"):count("*")
  initrd:flag("--gzip", "Smaller, and slower to boot.")
end

-- help [COMMAND...]
local function add_help_command(parser, command, help)
  local made, asked = command(parser, "help", "How fcproc, or one of its commands, is used."), parser
  made._is_help_command = true -- its argument is completed with the commands' names
  made:argument("name", "A command."):args("*"):convert(function(name)
    for _, known in ipairs(asked._commands) do
      for _, alias in ipairs(known._aliases) do
        if alias == name then
          asked = known
          return name
        end
      end
    end
    return nil, ("there is no command '%s'"):format(name)
  end)
  made:action(function() help(asked:get_help()) end)
end

---The parser. help(text) is called, and must not return, when a help text or the version is asked for.
---@param help fun(text: string)
---@return table parser  argparse's
function M.new(help)
  local function add_help(parser)
    parser:add_help{ name = "-h --help", description = "Show this and end.",
      action = function() help(parser:get_help()) end }
  end
  local function command(parser, name, description)
    local made = parser:command(name, description)
    made:add_help(false)
    add_help(made)
    return made
  end
  local parser = argparse("fcproc", "Launches, inspects and tears down Firecracker microVMs.", EPILOG)
  parser:add_help(false)
  add_help(parser)
  parser:command_target("command")
  parser:option("--runtime-dir", "Where the VMs' folders are; default: /run/fcproc, and of an ordinary user "
    .. "~/.local/state/fcproc."):argname("<folder>"):default(from_env("FCPROC_RUNTIME_DIR"))
  parser:option("--bridge", "The VMs' bridge."):argname("<name>")
    :default(from_env("FCPROC_BRIDGE", "fcbr0"))
  parser:option("--bridge-ip", "Its address."):argname("<address/prefix>")
    :default(from_env("FCPROC_BRIDGE_IP", "172.30.0.1/24")):convert(address_and_prefix)
  parser:option("--firecracker", "The binary; default: the one on PATH."):argname("<path>")
    :default(from_env("FCPROC_FIRECRACKER"))
  parser:option("--netns", "The network namespace of bridge and TAPs."):argname("<name>")
    :default(from_env("FCPROC_NETNS"))
  parser:option("--timeout", "Give up after so many seconds; run stops its VM then.")
    :argname("<seconds>"):convert(seconds)
  parser:flag("--json", "Results as JSON.")
  parser:flag("-v --verbose", "Tell of each change on the host, on stderr.")
  parser:flag("--version", "Show the version of fcproc and end."):action(function()
    help("fcproc " .. require("fcproc.core").version) -- the pages are written without the C module
  end)
  add_vms(parser, command)
  add_requests(parser, command)
  add_images(parser, command)
  add_host(parser, command)
  add_help_command(parser, command, help)
  return parser
end

return M
