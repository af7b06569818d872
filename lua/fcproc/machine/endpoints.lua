-- Firecracker's API, 1.12 to 1.17: which requests there are, since when, before boot or after, how
-- long each may take, and a check in front of the request, so that a mistake is told at once and
-- in words that name the field, the version and the way out. No request is made here.

local bodies = require "fcproc.machine.bodies"
local errors = require "fcproc.error"
local fields = require "fcproc.machine.fields"
local json = require "fcproc.json"
local options = require "fcproc.options"
local version_of = require "fcproc.machine.version"

local M = {}

M.at_least = version_of.at_least
M.snapshot_format = version_of.snapshot_format

-- ---- the table -------------------------------------------------------------------------------

local ORDINARY = 10   -- seconds
local BOOT = 30       -- it reads the kernel and the initrd
local VCPU = 35       -- Firecracker itself waits 30 s for a vCPU
local SNAPSHOT = 300  -- it writes or reads the guest's memory

---@class fcproc.Endpoint
---@field method string
---@field path string              with {id} for an id
---@field since string?            the first version that knows it
---@field before boolean?          it works before boot
---@field after (boolean|string)?  it works after boot; a version: from that one on
---@field paused boolean?          after boot, and paused
---@field body fcproc.BodyType?    none: the request has no body
---@field optional boolean?        the body may be left out
---@field id string?               the field that repeats the id of the path
---@field limit number?            seconds; default: ORDINARY
M.list = {}

local function add(path, method, entry)
  entry.path, entry.method = path, method
  M.list[#M.list + 1] = entry
end

add("/", "GET", { before = true, after = true })
add("/version", "GET", { before = true, after = true })
add("/vm/config", "GET", { before = true, after = true })
add("/vm", "PATCH", { after = true, body = bodies.vm_state, limit = VCPU })
-- Its states are those of the action.
add("/actions", "PUT", { before = true, after = true, body = bodies.action, limit = BOOT })
add("/machine-config", "GET", { before = true, after = true })
add("/machine-config", "PUT", { before = true, body = bodies.machine_config })
add("/machine-config", "PATCH", { before = true, body = bodies.machine_update })
add("/boot-source", "PUT", { before = true, body = bodies.boot_source })
add("/cpu-config", "PUT", { before = true, body = bodies.cpu_config })
add("/drives/{id}", "PUT", { before = true, after = "1.16", body = bodies.drive, id = "drive_id" })
add("/drives/{id}", "PATCH", { after = true, body = bodies.drive_update, id = "drive_id" })
add("/drives/{id}", "DELETE", { since = "1.16", after = true })
add("/pmem/{id}", "PUT", { since = "1.14", before = true, after = "1.16", body = bodies.pmem,
  id = "id" })
add("/pmem/{id}", "PATCH", { since = "1.16", after = true, body = bodies.pmem_update, id = "id" })
add("/pmem/{id}", "DELETE", { since = "1.16", after = true })
add("/network-interfaces/{id}", "PUT", { before = true, after = "1.16",
  body = bodies.network_interface, id = "iface_id" })
add("/network-interfaces/{id}", "PATCH", { after = true, body = bodies.network_update,
  id = "iface_id" })
add("/network-interfaces/{id}", "DELETE", { since = "1.16", after = true })
add("/vsock", "PUT", { before = true, body = bodies.vsock })
add("/entropy", "PUT", { before = true, body = bodies.entropy })
add("/serial", "PUT", { since = "1.14", before = true, body = bodies.serial })
add("/logger", "PUT", { before = true, body = bodies.logger })
add("/metrics", "PUT", { before = true, body = bodies.metrics })
add("/mmds", "GET", { before = true, after = true })
add("/mmds", "PUT", { before = true, after = true, body = bodies.mmds })
add("/mmds", "PATCH", { before = true, after = true, body = bodies.mmds })
add("/mmds/config", "PUT", { before = true, body = bodies.mmds_config })
add("/balloon", "GET", { before = true, after = true })
add("/balloon", "PUT", { before = true, body = bodies.balloon })
add("/balloon", "PATCH", { after = true, body = bodies.balloon_update })
add("/balloon/statistics", "GET", { after = true })
add("/balloon/statistics", "PATCH", { after = true, body = bodies.balloon_statistics })
add("/balloon/hinting/start", "PATCH", { since = "1.14", after = true, optional = true,
  body = bodies.hinting_start })
add("/balloon/hinting/stop", "PATCH", { since = "1.14", after = true })
add("/balloon/hinting/status", "GET", { since = "1.14", after = true })
add("/hotplug/memory", "GET", { since = "1.14", after = true })
add("/hotplug/memory", "PUT", { since = "1.14", before = true, body = bodies.memory_hotplug })
add("/hotplug/memory", "PATCH", { since = "1.14", after = true,
  body = bodies.memory_hotplug_update })
add("/snapshot/create", "PUT", { after = true, paused = true, body = bodies.snapshot_create,
  limit = SNAPSHOT })
add("/snapshot/load", "PUT", { before = true, body = bodies.snapshot_load, limit = SNAPSHOT })

local actions = {
  InstanceStart = { before = true },
  FlushMetrics = { after = true },
  SendCtrlAltDel = { after = true },
}

local by_path, paths = {}, {}
for _, entry in ipairs(M.list) do
  if not by_path[entry.path] then
    by_path[entry.path] = {}
    paths[#paths + 1] = entry.path
  end
  by_path[entry.path][entry.method] = entry
end

-- ---- the check -------------------------------------------------------------------------------

local function fail(code, format, ...)
  return nil, errors.new{ code = code, op = "api.check", message = format:format(...) }
end

-- The path as the table has it, and the id in it.
local function find_path(path)
  local head, id = path:match("^(/[^/]+/)([%w_]+)$")
  local with_id = head and head .. "{id}"
  if with_id and by_path[with_id] then return with_id, id end
  if by_path[path] and not path:find("{", 1, true) then return path end
end

local function methods_of(path)
  local names = {}
  for method in pairs(by_path[path]) do names[#names + 1] = method end
  table.sort(names)
  return table.concat(names, ", ")
end

local function find(version, method, path)
  local known, id = find_path(path)
  if known and by_path[known][method] then return by_path[known][method], id end
  -- What a later one than this table can do, it says itself.
  if version_of.beyond_the_table(version) then return true end
  if known then
    return fail("invalid", "%s %s: there is no such method here; known: %s", method, path,
      methods_of(known))
  end
  local first = path:match("^(/[^/]+/)[^/]+$")
  if first and by_path[first .. "{id}"] then
    return fail("invalid", "%s %s: an id must be letters, digits and underscores", method, path)
  end
  -- Once as it is, and once as if its last part were an id.
  local near = fields.nearest(path, paths) or first and fields.nearest(first .. "{id}", paths)
  return fail("invalid", "%s %s: there is no such endpoint%s", method, path:sub(1, 200),
    near and ("; did you mean %s?"):format(near) or "")
end

-- started: nil (not known), false, true, or the state that GET / tells.
local function check_state(entry, what, version, started)
  if started == nil then return true end
  if started == false or started == "Not started" then
    if entry.before then return true end
    return fail("conflict", "%s works after boot only; this VM has not started", what)
  end
  if entry.after == true then
    if entry.paused and started == "Running" then
      return fail("conflict", "%s works while the VM is paused only; this VM is running: pause it "
        .. "first", what)
    end
    return true
  end
  if entry.after then
    if version_of.at_least(version, entry.after) ~= false then return true end
    return fail("unsupported", "%s after boot needs Firecracker >= %s, this is %s", what,
      entry.after, version)
  end
  return fail("conflict", "%s works before boot only; this VM has started", what)
end

-- The body as a table. Text is what the raw way sends.
local function decoded(entry, what, body)
  if body == nil then
    if not entry.body or entry.optional then return nil end
    return fail("invalid", "%s needs a body", what)
  end
  if not entry.body then return fail("invalid", "%s takes no body", what) end
  if type(body) ~= "string" then return body end
  local value, reason = json.read(body)
  if value == nil then return fail("invalid", "%s: the body is no JSON: %s", what, reason) end
  return value
end

---Checks a request before it is made.
---@param version string?  of the binary ("1.12.1"); nil: not known, and not judged by
---@param started (boolean|string)?  has it booted, or its state as GET / tells it; nil: not known
---@param method string
---@param path string      "/drives/rootfs"
---@param body (table|string)?
---@return boolean? ok
---@return fcproc.Error? err  ERR_UNSUPPORTED: the binary is too old; ERR_CONFLICT: not before, or
---                            not after, boot; ERR_INVALID: Firecracker could not but refuse it
function M.check(version, started, method, path, body)
  options.argument(method, "string", "endpoints.check", "method")
  options.argument(path, "string", "endpoints.check", "path")
  local what = method .. " " .. path
  local entry, id = find(version, method, path)
  if not entry then return nil, id end
  if entry == true then return true end
  if version_of.at_least(version, entry.since) == false then
    return fail("unsupported", "%s needs Firecracker >= %s, this is %s", what, entry.since, version)
  end
  local ok, err = check_state(entry, what, version, started)
  if not ok then return nil, err end
  local value
  value, err = decoded(entry, what, body)
  if err then return nil, err end
  if value == nil then return true end
  local place = entry.path:sub(2):gsub("/{id}$", "")
  ok, err = fields.check(version, entry.body, value, place)
  if not ok then return nil, err end
  if entry.id and value[entry.id] ~= id then
    return fail("invalid", "%s: %s.%s is '%s', and must be the path's '%s'", what, place, entry.id,
      value[entry.id], id)
  end
  local action = entry.path == "/actions" and value.action_type
  if actions[action] then return check_state(actions[action], action, version, started) end
  return true
end

---Checks a whole configuration, the table that becomes the file for --config-file. Firecracker
---reads over names at its top that it does not know, so that a device would just be missing.
---@param version string?
---@param config table
---@return boolean? ok
---@return fcproc.Error? err  as for check; it names the place: "drives[2].rate_limiter.bandwidth"
function M.check_config(version, config)
  if type(config) == "table" and config.serial ~= nil and config.serial ~= json.null
    and not version_of.beyond_the_table(version) then
    return fail("unsupported", "serial: Firecracker reads it over in a configuration file; send "
      .. "PUT /serial before the start instead")
  end
  return fields.check(version, bodies.config, config, "")
end

-- ---- what goes with a request ----------------------------------------------------------------

---How long a request may take, in seconds, before its outcome must be called unknown.
---@param method string
---@param path string
---@return number seconds
function M.limit(method, path)
  local known = find_path(path)
  local entry = known and by_path[known][method]
  return entry and entry.limit or ORDINARY
end

---Writes the body of a request that check let pass, as JSON. Text stays as it is.
---@param method string
---@param path string
---@param body (table|string)?
---@return string? text  nil without a body
function M.encode(method, path, body)
  if type(body) ~= "table" then return body end
  local known = find_path(path)
  local entry = known and by_path[known][method]
  return json.write(body, entry and entry.body)
end

---Writes a configuration that check_config let pass, as JSON: its sections in order.
---@param config table
---@return string
function M.encode_config(config)
  local names, sections = {}, {}
  for name, section in pairs(config) do
    if section ~= json.null then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do
    sections[i] = ('"%s":%s'):format(name,
      json.write_quickly(config[name], bodies.config.fields[name]))
  end
  return "{" .. table.concat(sections, ",") .. "}"
end

return M
