-- What is begun by several is told by each when there are too few descriptors, with 0 to 12 free ones:
-- few_lua.lua, under a low limit of descriptors. Prints "ok", or what went wrong.

package.path = "./?.lua;" .. package.path
local few = require "spec.support.few"
local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcproc = require "fcproc"
local jailer = require "fcproc.machine.jailer"
local machines = require "fcproc.machine"
local objects = require "fcproc.vm.object"
local specs = require "fcproc.vm.spec"
local uplinks = require "fcproc.network.uplinks"

local bad = {}

-- Each answers, or says by an error of ours that there were too few.
local function try(name, fn)
  for free = 0, 12 do
    local ok, value, err = few.with(free, fn)
    if not ok then err = value end
    if (not ok or value == nil) and not few.is_shortage(err) then
      bad[#bad + 1] = ("%s with %d free: %s"):format(name, free, tostring(err))
    end
  end
end

try("a second stop", function()
  local vm = objects.new({}, { id = "vm" })
  vm:_close_latch()
  local ctx <close> = core.context(nil, 0.001)
  if not ctx then return true end
  local report, err = vm:stop(nil, ctx)
  vm:_open_latch()
  if err and err.code == "deadline" then return true end
  return report, err
end)

try("uplinks.check", function()
  local manager = { config = { bridge_name = "fcbr0", runtime_dir = "/none" }, runner = fcproc.runner(),
    _log = function() end }
  local ok, err = uplinks.check(manager, { id = "vm" }, { { uplink = "lo" } }, {})
  if err and not few.is_shortage(err) then return true end -- there is no nft, or no bridge
  return ok, err
end)

try("a request beside another's", function()
  local machine = machines.attach({}, nil, { socket = "/dev/null" }, {})
  machine.client = { request = function()
    return nil, errors.new{ code = "busy", op = "spec", message = "it waits for its answer" }
  end }
  local answer, err = machine:api("GET", "/")
  if err and err.code == "not_found" then return true end -- that is no socket
  return answer, err
end)

-- What is looked at in files, where each call has its usual refusal besides.
local manager = assert(fcproc.new{ runtime_dir = "/none/of/these" })
local _, hierarchy = next(cgroup.hierarchies())
local folder = hierarchy .. "/fcproc-spec-none"
for name, call in pairs{
  ["a spec without an id"] = { specs.plan, manager, { kernel = "/none" } },
  ["a jail's place"] = { jailer.check_place, "/" },
  ["a jail's cgroups"] = { jailer.cgroups, { cgroups = { ["no_such.file"] = "1" } }, "vm" },
  ["a cgroup's places"] = { function()
    local places, err = cgroup.places("/none", "vm")
    return places and assert(places[1], "there are none"), err
  end },
  ["leaving a cgroup"] = { cgroup.leave, folder },
  ["the end of a jail"] = { cgroup.remove_all, { cgroups = {}, cgroup = folder }, 0 },
} do
  local _, usual = call[1](table.unpack(call, 2))
  try(name, function()
    local value, err = call[1](table.unpack(call, 2))
    if value == nil and usual and err.message == usual.message then return true end
    return value, err
  end)
end

try("fcproc.run with signals", function()
  fcproc.run{ function() end, signals = { "USR1" } }
  return true
end)

print(#bad == 0 and "ok" or table.concat(bad, "\n"))
