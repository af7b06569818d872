-- What a spec may hold, and the collector of its mistakes.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

-- Each value: its types, then a range of numbers or the words that it may be.
M.spec = {
  id = "string", image = "string|table", kernel = "string", initrd = "string", boot_args = "string",
  vcpus = "integer 1 32", mem_mib = "integer 1 1048576", smt = "boolean", cpu_template = "string",
  huge_pages = "string", track_dirty_pages = "boolean", drives = "table",
  pmem = "table", memory_hotplug = "table", serial = "table",
  network = "table|boolean", publish = "table", vsock = "table", mmds = "table", balloon = "table",
  entropy = "boolean|table", jailer = "table", boot = "string =config_file =api",
  seccomp = "string|boolean", log_level = "string =Off =Trace =Debug =Info =Warning =Error",
  console_limit = "integer 65536 1099511627776", timeout = "number 0.001 3600",
  arguments = "table", hooks = "table", cgroup = "string", limits = "table",
  stdin = "integer 0 1048576",
}

-- From a snapshot: what the VM is, it says itself.
M.restore = {}
for _, name in ipairs{ "id", "network", "publish", "jailer", "seccomp", "log_level", "console_limit",
  "timeout", "arguments", "hooks", "cgroup", "stdin", "limits", "track_dirty_pages" } do
  M.restore[name] = M.spec[name]
end
M.restore.paused = "boolean"       -- do not resume it
M.restore.copy = "string =reflink =sparse" -- how its drives are copied
M.restore.any_cpu = "boolean"      -- though the CPU is another
M.restore.drives = "table"         -- where its read-only drives are: id to path
M.restore.huge_pages = "string =Snapshot =None =Transparent" -- what its memory is loaded into
M.restore.clock_realtime = "boolean" -- false: its clock stays behind, though Firecracker could set it
M.restore.verify = "boolean"       -- read all of it first: is it what it was?
M.restore.trust = "boolean"        -- though somebody else could have made it

M.drive = {
  path = "string !", id = "string", read_only = "boolean", root = "boolean",
  copy = "string =reflink =sparse", rate_limit = "table", io_engine = "string =Sync =Async",
  cache_type = "string =Unsafe =Writeback", overlay = "string",
}

-- A file that the guest has as memory.
M.pmem = {
  path = "string !", id = "string", read_only = "boolean", root = "boolean",
  copy = "string =reflink =sparse", rate_limit = "table",
}

M.memory_hotplug = {
  total_mib = "integer 1 4294967295 !", block_mib = "integer 2 4294967295",
  slot_mib = "integer 128 4294967295",
}
M.serial = { path = "string !", rate_limit = "table" }

M.network = {
  address = "string|boolean", mac = "string", tap = "string", isolated = "boolean",
  attach = "boolean", nat = "string|boolean", dns = "table", mtu = "integer 68 65521", rx_limit = "table",
  tx_limit = "table",
}

M.jailer = {
  uid = "integer|string !", gid = "integer 0 4294967294", shared_uid = "boolean",
  allow_root = "boolean", binary = "string",
  daemonize = "boolean", new_pid_ns = "boolean", cgroups = "table",
  cgroup_version = "integer 1 2", parent_cgroup = "string", limits = "table",
}

M.direct_limits = { no_file = "integer 64 1073741816" } -- as sysctl fs.nr_open at most
M.limits = { no_file = "integer 16 1048576", fsize = "integer 1 9007199254740992" }
M.vsock = { cid = "integer 3 4294967294 !" }
M.mmds = { data = "table", version = "string =V1 =V2", address = "string" }
M.balloon = {
  amount_mib = "integer 0 1048576 !", deflate_on_oom = "boolean",
  stats_interval_s = "integer 0 3600", free_page_hinting = "boolean",
  free_page_reporting = "boolean",
}
M.entropy = { rate_limit = "table" }
M.inner = { limits = M.direct_limits, vsock = M.vsock,
  mmds = M.mmds, balloon = M.balloon, entropy = M.entropy,
  memory_hotplug = M.memory_hotplug, serial = M.serial }

-- The steps that hooks hang on.
M.steps = { prepare = true, drives = true, network = true, start = true, stop = true,
  cleanup = true }

M.OVERLAY_ID = "overlay" -- of the drive that is made of a drive's overlay

---The keys of a table, for a message.
function M.names(known)
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

local Check = {}
Check.__index = Check

---@param op string
function M.checker(op)
  return setmetatable({ op = op, problems = {} }, Check)
end

---A mistake and its place.
---@return nil
function Check:add(place, format, ...)
  self.problems[#self.problems + 1] = { place = place, text = format:format(...) }
end

---What this Firecracker is too old for.
---@return nil
function Check:refuse(place, format, ...)
  self:add(place, format, ...)
  self.problems[#self.problems].code = "unsupported"
end

---What the caller has no right to.
---@return nil
function Check:deny(place, format, ...)
  self:add(place, format, ...)
  self.problems[#self.problems].code = "permission"
end

---What the host does not have.
---@return nil
function Check:lack(place, format, ...)
  self:add(place, format, ...)
  self.problems[#self.problems].code = "not_found"
end

---What went wrong on the way, which is no mistake in the spec; the first is told, and alone.
---@param place string  "": its message says enough
---@param err fcproc.Error
---@return nil
function Check:fail(place, err)
  if place ~= "" then err.message = ("%s: %s"):format(place, err.message) end
  self.failure = self.failure or err
end

---Was there any?
---@return boolean
function Check:failed()
  return #self.problems > 0 or self.failure ~= nil
end

-- "drives[10]" comes after "drives[2]".
local function sort_key(problem)
  return (problem.place:gsub("%d+", function(digits) return ("%9s"):format(digits) end))
    .. "\0" .. problem.text
end

---All of them as one error.
---@return fcproc.Error
function Check:error()
  if self.failure then return self.failure end
  table.sort(self.problems, function(a, b) return sort_key(a) < sort_key(b) end)
  local lines, code = {}, self.problems[1].code or "invalid"
  for i, problem in ipairs(self.problems) do
    lines[i] = (problem.place ~= "" and problem.place .. ": " or "") .. problem.text
    if problem.code ~= code then code = "invalid" end
  end
  return errors.new{ code = code, op = self.op, problems = self.problems,
    message = table.concat(lines, "; ") }
end

local function fits(types, value)
  for accepted in types:gmatch("[^|]+") do
    if accepted == type(value) or accepted == math.type(value) then return true end
  end
  return false
end

local function wanted(types)
  return (types:match("^[aio]") and "an " or "a ") .. types:gsub("|", " or ")
end

-- The keys that each set of rules asks for: found once, since the rules never change.
local required = setmetatable({}, { __index = function(known, rules)
  local keys = {}
  for key, rule in pairs(rules) do
    if rule:find("!", 1, true) then keys[#keys + 1] = key end
  end
  known[rules] = keys
  return keys
end })

-- Says what is wrong with a value, or that nothing is.
local function check_value(self, place, value, rule)
  local types, rest = rule:match("^(%S+)(.*)$")
  if not fits(types, value) then
    -- "a number" would say little where a number is asked for.
    local is = math.type(value) == "float" and ("not %s"):format(value) or "not a " .. type(value)
    return self:add(place, "must be %s, %s", wanted(types), is)
  end
  local low, high = rest:match("(%-?[%d.]+) (%-?[%d.]+)")
  if low and not (value >= tonumber(low) and value <= tonumber(high)) then -- NaN is in no range
    return self:add(place, "%s is out of range: %s to %s", tostring(value), low, high)
  end
  local words = {}
  for word in rest:gmatch("=(%S+)") do
    if word == value then return true end
    words[#words + 1] = word
  end
  if #words > 0 then
    return self:add(place, "'%s' is none of %s", value, table.concat(words, ", "))
  end
  if type(value) == "string" and value:find("%z") then
    return self:add(place, "holds a NUL byte")
  end
  return true
end

---Looks at a table's fields. The good ones come back, so that one mistake does not hide the next.
---@param value any
---@param place string
---@param rules table<string, string>
---@return table? good  nil: it is no table
function Check:table(value, place, rules)
  if type(value) ~= "table" then
    return self:add(place, "must be a table, not a %s", type(value))
  end
  local good, dot = {}, place == "" and "" or place .. "."
  for key, field in pairs(value) do
    if not rules[key] then
      self:add(dot .. tostring(key), "unknown; known: %s", M.names(rules))
    elseif check_value(self, dot .. key, field, rules[key]) then
      good[key] = field
    end
    if place == "" and M.inner[key] and type(field) == "table" then
      good[key] = self:table(field, key, M.inner[key])
    end
  end
  for _, key in ipairs(required[rules]) do
    if value[key] == nil then self:add(dot .. key, "is missing") end
  end
  return good
end

---Is it a list?
function Check:list(value, place)
  local n = 0
  for _ in pairs(value) do n = n + 1 end
  if n == #value then return true end
  self:add(place, "must be a list: { {...}, {...} }")
  return false
end

local kind_names = { file = "a file", block = "a block device", dir = "a folder" }

---Looks at a file, following links.
---@param path string
---@param place string
---@param kinds string  "file|block": what it may be
---@return table? stat  with path, absolute
function Check:file(path, place, kinds)
  local stat, err = core.stat(path, true)
  if not stat then
    return self:add(place, "%s", err.errno == 2 and ("no such file: " .. path) or err.message)
  end
  if not ("|" .. kinds .. "|"):find("|" .. stat.type .. "|", 1, true) then
    local names = kinds:gsub("%a+", kind_names):gsub("|", " or ")
    return self:add(place, "%s must be %s%s", path, names,
      kind_names[stat.type] and ", and is " .. kind_names[stat.type] or "")
  end
  stat.path, err = core.absolute_path(path)
  if not stat.path then return self:add(place, "%s", err.message) end
  return stat
end

return M
