-- The ports that a VM's spec publishes, checked: what may be written, and what its guest must have.

local publish = require "fcproc.network.publish"
local rights = require "fcproc.rights"

local M = {}

local MOST = 256 -- each takes two leases
local BIND_SERVICE = { [10] = "NET_BIND_SERVICE" }

local function check_text(check, ports, text, place)
  if type(text) ~= "string" then
    return check:add(place, "must be a string, not a %s: %s", type(text), publish.HOW)
  end
  local found, complaint = publish.parse(text)
  if not found then return check:add(place, "%s", complaint) end
  for _, port in ipairs(found) do
    for _, other in ipairs(ports) do
      if publish.clash(port, other) then
        return check:add(place, "%s is published already, as %s", publish.key(port), publish.key(other))
      end
    end
  end
  for _, port in ipairs(found) do
    port.place = place
    ports[#ports + 1] = port
  end
end

-- Low ports are root's, or who the host's owner says.
local function check_low(check, manager, ports)
  local low
  for _, port in ipairs(ports) do
    if not low or port.port < low.port then low = port end
  end
  local missing = low and rights.missing(BIND_SERVICE)
  local start = missing and (manager.host_net or manager.net):sysctl("ipv4/ip_unprivileged_port_start")
  if not start or low.port >= start then return end
  check:deny(low.place, "%s: ports below %d (net.ipv4.ip_unprivileged_port_start) need %s: publish a higher "
    .. "one", publish.key(low), start, missing)
end

---Checks the ports, as `publish` of the spec has them.
---@param check table
---@param manager fcproc.Manager
---@param spec fcproc.VmSpec|fcproc.RestoreSpec
---@return fcproc.Port[] ports
function M.check(check, manager, spec)
  local ports = {}
  for i, text in ipairs(spec.publish and check:list(spec.publish, "publish") and spec.publish or {}) do
    check_text(check, ports, text, ("publish[%d]"):format(i))
  end
  if #ports > MOST then check:add("publish", "%d ports are more than %d", #ports, MOST) end
  check_low(check, manager, ports)
  return ports
end

---The guest that a port leads to has an address on the bridge.
---@param check table
---@param plan fcproc.VmPlan
function M.check_guest(check, plan)
  if #plan.ports == 0 then return end
  for _, interface in ipairs(plan.network) do
    if interface.attach and interface.addressed then return end
  end
  check:add("publish", "needs a guest with an IPv4 address on the bridge: %s", #plan.network == 0
    and "give network = true" or "none of its interfaces has one")
end

return M
