-- What the specs of doctor share: a run of it in a process of its own, whose mounts, limits and user
-- a shell has set before, and what a run has found.

local cjson = require "cjson"
local support = require "spec.support"

local M = {}

local SCRIPT = [[
  local cjson, fcproc = require "cjson", require "fcproc"
  local doctor = require "fcproc.doctor"
  local given = cjson.decode(arg[1])
  for _, part in pairs(given) do -- cjson reads every number as a float
    for key, value in pairs(part) do
      if type(value) == "number" then part[key] = math.tointeger(value) end
    end
  end
  local manager <close> = assert(fcproc.new(given.config))
  print(cjson.encode(assert(doctor.run(manager, given.opts))))
]]

---The checks by name.
function M.by_name(checks)
  local map = {}
  for _, check in ipairs(checks) do map[check.name] = check end
  return map
end

---doctor.run in a new mount namespace, after the shell commands of setup. They may use $DIR, a
---folder of the test's own. Returns the checks by name.
---@param dir table       support.folder()
---@param setup string
---@param config table?   for fcproc.new
---@param opts table?     for doctor.run
function M.after(dir, setup, config, opts)
  support.write_file(dir:file("doctor.lua"), SCRIPT)
  local given = cjson.encode{ config = M.config(dir, config), opts = opts or { boot = false } }
  local out = support.sh{ "unshare", "--mount", "--propagation", "private", "env",
    "DIR=" .. dir.path, "sh", "-ec", setup .. '\nexec $RUN "$@"', "sh", support.lua,
    dir:file("doctor.lua"), given }
  return M.by_name(cjson.decode(out))
end

---A configuration whose folder is the test's.
function M.config(dir, config)
  local full = { bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24,
    runtime_dir = dir:file("run"), firecracker_bin = support.firecracker() }
  for key, value in pairs(config or {}) do full[key] = value or nil end
  return full
end

---Fails unless the check has this status and a message with this text; a warning or failure has a
---fix. Returns the check.
function M.expect(check, status, text)
  if check.status ~= status or not check.message:find(text, 1, true) then
    error(("expected %s with '%s', got %s: %s"):format(status, text, check.status, check.message), 2)
  end
  if status ~= "ok" and not check.fix then error(check.name .. ": no fix is given", 2) end
  return check
end

return M
