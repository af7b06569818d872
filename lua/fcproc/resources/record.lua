-- What a VM's journal (vm.json) and a snapshot's manifest (manifest.json) may say. Both are read by
-- root and may have been written by anybody: by a crash, a backup, another host, an opponent. So all
-- of it is judged here, once, when it is read, and nobody doubts a type or a name after that.
--
-- A NEW FIELD OF EITHER IS ADDED HERE, with its type and range: what is not in these tables is passed
-- over unjudged (a later fcproc may have written it) and must not be used. Nothing here says that a
-- fact is true. What can be worked out from the VM's id and folder is worked out (see places), and
-- what names something outside of them is proved where it is used.

local cgroups = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local fields = require "fcproc.machine.fields"
local json = require "fcproc.json"
local launch = require "fcproc.machine.launch"

local M = {}

M.FORMAT = 1
M.HUGE_PAGES = { None = true, ["2M"] = true, Transparent = true } -- Firecracker's words
M.LIMIT = 1024 * 1024 -- bytes of a file; the largest that we write have a few KiB

-- ---- what values may be ----------------------------------------------------------------------

-- Types are shared, so a field that adds to one refers to it.
local function extend(type, more) return setmetatable(more, { __index = type }) end
local function required(type) return extend(type, { required = true }) end
local function integer(min, max) return { kind = "integer", min = min, max = max } end
local function list(of) return { kind = "list", of = of } end
local function object(known, rule)
  return { kind = "object", fields = known, open = true, rule = rule }
end
local function one_of(...)
  local values = {}
  for _, value in ipairs{ ... } do values[value] = true end
  return { kind = "string", values = values }
end

local function string_with(pattern, max, says)
  return { kind = "string", max = max, rule = function(value)
    if not value:find(pattern) then return "must be " .. says end
  end }
end

local flag = { kind = "boolean" }
local number, I32, U32 = integer(0), integer(0, 0x7fffffff), integer(0, 0xfffffffe)
-- Shown to people: no control characters, which a terminal obeys.
local text = string_with("^[%C\n\t]*$", 4096, "text without control characters")
local word = string_with("^[%w_.+-]+$", 64, "letters, digits, '_', '.', '+' and '-'")
local mac = string_with("^" .. ("%x%x:"):rep(5) .. "%x%x$", 17, "a MAC address")
local ipv4 = string_with("^%d%d?%d?%.%d%d?%d?%.%d%d?%d?%.%d%d?%d?$", 15, "an IPv4 address")

local function check_path(value)
  if value:sub(1, 1) ~= "/" or value:find("\0", 1, true) then return "must be an absolute path" end
  if (value .. "/"):find("/%.%.?/") then return "must be a path without '.' and '..'" end
end
local path = { kind = "string", bytes = true, max = 4095, rule = check_path }

-- The name of a file in a folder of ours.
local function check_name(value)
  if not value:find("^[%w_][%w_.:-]*$") or #value > 255 then return "can't be the name of a file there" end
end
local name = { kind = "string", rule = check_name }

local interface = { kind = "string", rule = function(value)
  if value:find("\0", 1, true) or not core.check_ifname(value) then return "can't be an interface's name" end
end }

-- A network namespace: one of `ip netns`, or a path.
local namespace = { kind = "string", bytes = true, max = 4095, rule = function(value)
  if value:find("/", 1, true) then return check_path(value) end
  return check_name(value)
end }

local drive_id = string_with("^[%w_]+$", 64, "letters, digits and '_'")
local file_id = string_with("^%d+%-%d+%-%d+$", 63, "a file's identity")
local how = one_of("reflink", "sparse")
local placed = one_of("reflink", "sparse", "link", "mount", "symlink")

-- ---- the journal -----------------------------------------------------------------------------

local boot_id = string_with("^[%x-]+$", 36, "a boot's id")
local identity = object{ pid = required(integer(1, 0x7fffffff)), start_time = required(number),
  boot_id = required(boot_id), inode = number, pid_ns = number, time_ns = number, sum = word }

local port_number = integer(1, 65535)
local port = object{ address = required(ipv4), port = required(port_number),
  protocol = required(one_of("tcp", "udp")), guest_port = required(port_number) }

local tap = object({
  name = required(interface), guest_mac = mac, mac = mac, attach = flag, isolated = flag,
  mtu = integer(68, 65535), nat = interface, keep = flag, address = ipv4, argument = text, told = flag,
  ifindex = I32, ports = list(port),
}, function(value)
  if value.attach and not value.guest_mac then return "guest_mac is missing" end
end)

local drive = object{
  id = required(drive_id), name = required(name), path = required(path), copy = how,
  read_only = flag, root = flag, lease = name, placed = placed, made = file_id,
}

-- What is one VM's on the host: see lease.lua.
local lease = { kind = "string", bytes = true, max = 255, rule = function(value)
  local inner = value:match("^%l+%-%d+[%w_.@+-]*%-shared/%x+$") or value:match("^uid%-%d+$")
    or value:match("^drive%-%d+%-%d+$") or value:match("^%l+%-%d+%-[^/%z]+$")
  if not inner then return "must be the name of a lease" end
end }

-- Not in it is `files`: where they are is worked out.
local journal = object{
  created = required(number), boot_id = boot_id, manager = integer(1, 0x7fffffff),
  state = word, paused = flag, rebuilt = flag, process = identity, launcher = identity,
  relay = identity, binary = path,
  vcpus = integer(1, 1024), mem_mib = integer(1, 1 << 32), console_limit = number, seccomp = word,
  huge_pages = word, outer = object{ path = required(path), oom_kills = required(number) },
  shape = required(object{ jailed = flag, daemonize = flag, new_pid_ns = flag }),
  netns = number, netns_name = namespace,
  taps = required(list(tap)), drives = required(list(drive)),
  leases = list(lease),
  jail = object{ root = required(path), uid = U32, gid = U32, auto = flag, cgroups = list(path),
    cgroup = path,
    placed = { kind = "map", name = check_name, of = placed },
    made = { kind = "map", name = check_name, of = file_id } },
  confined = object{ made = { kind = "map", name = check_name, of = file_id } },
  snapshot = path, resume = flag,
  warnings = list(object{ name = text, message = text, fix = text }),
}

-- ---- the manifest ----------------------------------------------------------------------------

local manifest = object{
  id = required(string_with("^[%w-]+$", 64, "a VM's id")), created = number,
  type = required(one_of("Full", "Diff")), vcpus = required(integer(1, 1024)),
  mem_mib = required(integer(1, 1 << 32)), page_size = number, kernel = text,
  firecracker = required(object{ version = required(string_with("^v?%d+%.%d+[%w_.+-]*$", 64, "a version")),
    sha256 = text, snapshot_format = word }),
  cpu = required{ kind = "map", name = check_name, of = text },
  huge_pages = { kind = "string", values = M.HUGE_PAGES },
  sizes = required{ kind = "map", name = check_name, of = number },
  hashes = { kind = "map", name = check_name, of = string_with("^%x+$", 64, "a hash") },
  drives = required(list(object{ id = required(drive_id), name = required(name), path = required(path),
    read_only = flag, root = flag })),
  network = required(list(object{ tap = interface, guest_mac = required(mac), address = ipv4,
    attach = flag, isolated = flag, mtu = integer(68, 65535) })),
}

-- ---- judging ---------------------------------------------------------------------------------

-- What is wrong with the record, in words that are fit to be shown.
local function complaint(type, record)
  local ok, err = fields.check(nil, type, record, "")
  if ok then
    -- Its name in our folders comes from its id, and from nothing else.
    for i, entry in ipairs(record.drives) do
      if entry.name ~= "drive-" .. entry.id then
        return ("drives[%d].name must be 'drive-%s'"):format(i, entry.id)
      end
    end
    return nil
  end
  return (err.message:gsub("%c", "?"))
end

---A text as a table, whole numbers as integers; nil: it is none.
---@param json_text string
---@return table?
function M.decode(json_text)
  local record = #json_text <= M.LIMIT and json.restored(json_text)
  if type(record) ~= "table" then return nil end
  return json.plain(record)
end

-- Where the VM's things are: worked out from its folder and id, whatever the record says of them.
-- Returns what it says that can't be.
local function places(record, folder, id)
  local jail = record.jail
  if jail then
    -- All that is taken from it is the name of the program, which is a name below the folder.
    local program = jail.root:match("/jail/([^/]+)/" .. id:gsub("%-", "%%-") .. "/root$")
    if not program then return "jail.root must be the jail's root in the VM's folder" end
    jail.root = ("%s/jail/%s/%s/root"):format(folder, program, id)
    jail.cgroups = jail.cgroups or {}
    jail.uid = jail.uid or (core.stat(jail.root) or {}).uid -- which its user can't give away
    for i, cgroup in ipairs(jail.cgroups) do
      if cgroup:match("[^/]+$") ~= id then return ("jail.cgroups[%d] must be that of '%s'"):format(i, id) end
    end
    -- That of another folder, of which this one is a copy, is not its own.
    if jail.cgroup and jail.cgroup:match("[^/]+$") ~= cgroups.name(folder, id) then
      for i = #jail.cgroups, 1, -1 do
        if cgroups.is_inside(jail, jail.cgroups[i]) then table.remove(jail.cgroups, i) end
      end
      jail.cgroup = nil
    end
  end
  local confined = record.confined
  if confined then confined.uid = core.own_uid() end
  if jail and confined then return "confined and jail can't both be" end
  record.files, record.shape.jailed = launch.files(folder, jail, confined), jail and true or nil
  local partial = ("/[^/]+%%.%s%%.partial$"):format((id:gsub("%-", "%%-")))
  if record.snapshot and not record.snapshot:find(partial) then
    return ("snapshot must be a path that ends with '.%s.partial'"):format(id)
  end
end

---Judges a decoded journal of this format, and completes it.
---@param record table
---@param folder string  the VM's
---@param id string
---@return string? complaint  nil: all that it says can be
function M.check_journal(record, folder, id)
  return complaint(journal, record) or places(record, folder, id)
end

---Judges a decoded manifest of this format.
---@param record table
---@return string? complaint
function M.check_manifest(record)
  return complaint(manifest, record)
end

return M
