-- What is begun by several is told by each when there are too few descriptors, with 0 to 12 free ones:
-- few_lua.lua, under a low limit of descriptors. Prints "ok", or what went wrong.

package.path = "./?.lua;" .. package.path
local few = require "spec.support.few"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcproc = require "fcproc"
local machines = require "fcproc.machine"
local objects = require "fcproc.vm.object"
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

try("fcproc.run with signals", function()
  fcproc.run{ function() end, signals = { "USR1" } }
  return true
end)

print(#bad == 0 and "ok" or table.concat(bad, "\n"))
