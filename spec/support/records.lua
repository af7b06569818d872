-- Journals and manifests as fcproc writes them, and what an opponent makes of them.

local cjson = require "cjson"

local M = {}

local ANOTHER_BOOT = "11111111-2222-3333-4444-555555555555"

---The journal of a VM: all that one may hold.
---@param folder string      the VM's
---@param id string
---@param identity table?    of the process that it names; default: one of an earlier boot
---@param jailed boolean?
---@return table
function M.journal(folder, id, identity, jailed)
  identity = identity or { pid = 7, start_time = 1, boot_id = ANOTHER_BOOT, inode = 9 }
  local root = jailed and ("%s/jail/firecracker/%s/root"):format(folder, id) or nil
  local inside = root or folder
  return {
    format = 1, id = id, created = 1700000000, boot_id = identity.boot_id, manager = 4194303,
    state = "running", binary = "/usr/bin/firecracker", vcpus = 2, mem_mib = 128, console_limit = 65536,
    seccomp = "off", netns = 4026531840, netns_name = "guests", paused = false,
    snapshot = ("%s/none/snap.%s.partial"):format(folder, id), resume = true,
    files = { folder = inside, socket = inside .. "/api.sock", log = inside .. "/firecracker.log",
      metrics = inside .. "/metrics", console = folder .. "/console.log" },
    shape = { jailed = jailed, daemonize = jailed, new_pid_ns = jailed },
    launcher = identity, process = identity,
    taps = { { name = "fctap0", guest_mac = "06:00:00:00:00:01", mac = "02:00:00:00:00:01", attach = true,
      isolated = true, mtu = 1500, nat = "up0", address = "172.30.0.9", argument = "ip=172.30.0.9",
      told = true, ifindex = 5 },
      { name = "kept0", guest_mac = "06:00:00:00:00:02", attach = false, keep = true } },
    leases = { "drive-2049-42", "tap-4026531840-fctap0", "ip-4026531840-fcbr0-172.30.0.9", "uid-7301" },
    drives = { { id = "root", name = "drive-root", path = "/srv/images/root.ext4", lease = "drive-2049-42",
      placed = "symlink", made = "2049-42-0", root = true, read_only = false, copy = "sparse" } },
    jail = root and { root = root, uid = 7301, gid = 7301, auto = false, placed = { kernel = "link" },
      made = { metrics = "2049-77-1700000000123456789" },
      cgroups = { "/sys/fs/cgroup/fcproc/" .. id } } or nil,
    warnings = { { name = "ip_forward", message = "the host forwards nothing", fix = "sysctl" } },
  }
end

---@return table
function M.manifest()
  return {
    format = 1, id = "model", created = 1700000000, type = "Full", kernel = "6.1.0", page_size = 4096,
    firecracker = { version = "1.12.1", sha256 = ("a"):rep(64), snapshot_format = "6.0.0" },
    huge_pages = "None", hashes = { memory = ("b"):rep(64), vmstate = ("c"):rep(64) },
    cpu = { vendor_id = "GenuineIntel", cpu_family = "6", model = "85", model_name = "Some CPU",
      stepping = "7", microcode = "0x1" },
    vcpus = 1, mem_mib = 16, sizes = { vmstate = 10, memory = 20, ["drive-root"] = 30 },
    drives = { { id = "root", name = "drive-root", path = "/srv/root", root = true },
      { id = "base", name = "drive-base", path = "/srv/base", read_only = true } },
    network = { { tap = "fctap0", guest_mac = "06:00:00:00:00:01", address = "172.30.0.9", attach = true,
      isolated = true, mtu = 1500 } },
  }
end

-- What is put in the place of a value: a table is encoded, a string is JSON as it is.
local VALUES = { "null", "true", "false", "0", "-1", "1", "1.5", "1e999", "-1e999", "nan",
  "18446744073709551616", "9223372036854775807", "4294967296", "1e15", '""', '"x"', '"."', '".."',
  '"../x"', '"../../../../etc/passwd"',
  '"/etc/passwd"', '"/"', '"/etc/../etc"', '"a/b"', '"-rf"', '"a\\u0000b"',
  '"\\u001b[2J"', '"\255\254"', '"%s%n"', "[]", "{}", "[1]", "[null]", '["x"]', "[[[]]]", '{"":1}',
  '{"a":{"b":{}}}', '[{}]', ("[" ):rep(500) .. ("]"):rep(500), ('{"a":'):rep(1100) .. "1" .. ("}"):rep(1100) }
VALUES[#VALUES + 1] = '"' .. ("A"):rep(5000) .. '"'

-- One of each kind, for a spec that has seconds.
local FEW = { "null", "true", "-1", "1.5", "1e999", '""', '"../x"', '"/etc/passwd"', '"a\\u0000b"',
  '"\\u001b[2J"', "[1]", '{"a":{}}' }

local MARK = "@@HERE@@"

---@class fcproc.Mutation
---@field what string  "taps.1.name = []"
---@field text string  JSON

-- Calls fn(table, key, place) for each entry of the table, at every depth.
local function each(value, fn, place)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    local here = (place and place .. "." or "") .. key
    fn(value, key, here)
    if type(value[key]) == "table" then each(value[key], fn, here) end
  end
end

---Every change of one entry: another value, gone, twice, and a stranger beside it.
---@param record table
---@param few boolean?  not all values
---@return fcproc.Mutation[]
function M.mutations(record, few)
  local list = {}
  each(record, function(container, key, place)
    local before = container[key]
    container[key] = MARK
    local text = cjson.encode(record)
    for _, value in ipairs(few and FEW or VALUES) do
      list[#list + 1] = { what = ("%s = %s"):format(place, value:sub(1, 60)),
        text = text:gsub('"' .. MARK .. '"', function() return value end) }
    end
    container[key] = before
    if type(key) == "string" then
      container[key] = nil
      list[#list + 1] = { what = place .. " is gone", text = cjson.encode(record) }
      container[key] = before
      local twice = cjson.encode(record):gsub(('"%s":'):format(key:gsub("%p", "%%%0")),
        ('"%s":7,%%0'):format(key), 1)
      list[#list + 1] = { what = place .. " is there twice", text = twice }
    end
  end)
  return list
end

M.VALUES = VALUES

return M
