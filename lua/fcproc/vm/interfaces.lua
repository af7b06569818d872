-- The network interfaces of a VM's spec, checked: what may be written, and what this host has for it.

local address = require "fcproc.network.address"
local boot = require "fcproc.vm.boot"
local core = require "fcproc.core"
local links = require "fcproc.manager.links"
local schema = require "fcproc.vm.schema"

local M = {}

local function check_once(check, place, value, seen)
  local key = value:lower()
  if seen[key] then check:add(place, "%s is used twice", value) end
  seen[key] = true
end

-- Can it be the guest's address, where its TAP is?
local function check_address(check, manager, interface, place, seen)
  local wanted, config = interface.address, manager.config
  if wanted == false then return end
  if wanted == true then wanted = nil end
  if wanted then check_once(check, place, wanted, seen) end
  local ok, err, subnet = true, nil, nil
  if interface.attach ~= false and config.bridge_ip and not config.bridge_ip:find(":") then
    subnet, err = address.subnet(config.bridge_ip, config.prefix)
    if subnet and wanted then ok, err = address.check(wanted, subnet) end
  elseif wanted then
    ok, err = address.parse(wanted)
  end
  if err or not ok then return check:add(place, "%s", err.message) end
  interface.addressed = (wanted or subnet) ~= nil
end

local function check_dns(check, interface, place)
  local dns = interface.dns
  if not dns or not check:list(dns, place) then return end
  if #dns > address.MOST_DNS then
    check:add(place, "has %d name servers: a kernel's ip= has room for two", #dns)
  end
  for i, server in ipairs(dns) do
    local number, err = address.parse(tostring(server))
    if not number then check:add(("%s[%d]"):format(place, i), "%s", err.message) end
  end
end

-- The uplink, as find tells it: a mistake in the spec, or what the host does not have.
local function check_nat(check, manager, interface, place, find)
  local name = interface.nat
  local ok, err = true, nil
  if name ~= true then ok, err = core.check_ifname(name) end
  if not ok then return check:add(place, "%s", err.message) end
  if interface.attach == false then return check:add(place, "a TAP on no bridge has no NAT") end
  if name == manager.config.bridge_name then
    return check:add(place, "%s is the guests' bridge and can't be their uplink", name)
  end
  name, err = find(name)
  if name then
    interface.nat = name
  elseif err.code == "not_found" then
    check:lack(place, "%s", err.message)
  else
    check:fail(place, err)
  end
end

-- The names that an interface will have, its own or those that come from the VM's id, are this one's alone.
local function check_names(check, manager, interface, id, place, seen)
  local folder, nth = manager.config.runtime_dir, interface.index - 1
  local derived = id and folder
  local tap = interface.tap or derived and address.tap_name(folder, id, nth)
  local mac = interface.mac or derived and address.mac(folder, id, nth)
  if tap then check_once(check, place .. ".tap", tap, seen) end
  if mac then check_once(check, place .. ".mac", mac, seen) end
end

local function check_interface(check, manager, given, index, id, place, seen, find_uplink)
  local interface = check:table(given, place, schema.network)
  if not interface then return end
  local attach = interface.attach ~= false
  if attach and not manager.config.bridge_name then
    check:add(place, "the manager has no bridge: give fcproc.new a bridge_name, or attach = false")
  end
  if interface.tap then
    local ok, err = core.check_ifname(interface.tap)
    if not ok then check:add(place .. ".tap", "%s", err.message) end
  end
  check_address(check, manager, interface, place .. ".address", seen)
  if interface.mac and not links.is_mac(interface.mac) then
    check:add(place .. ".mac", "'%s' is no unicast MAC address: it is written like "
      .. "02:00:00:00:00:01", interface.mac)
  end
  if interface.nat then check_nat(check, manager, interface, place .. ".nat", find_uplink) end
  interface.nat = interface.nat or nil
  for _, name in ipairs{ "rx_limit", "tx_limit" } do
    boot.check_part(check, boot.limiter, interface[name], place .. "." .. name)
  end
  check_dns(check, interface, place .. ".dns")
  interface.index, interface.attach, interface.isolated = index, attach, interface.isolated ~= false
  interface.place = place
  check_names(check, manager, interface, id, place, seen)
  return interface
end

---All of them.
---@param check table
---@param manager fcproc.Manager
---@param network (fcproc.NetworkSpec|fcproc.NetworkSpec[]|true)?
---@param id string?  the VM's, when it can be one
---@param find_uplink fun(wanted: string|true): string?, fcproc.Error?  true: the default one
---@return table[] interfaces  as they will be
function M.check(check, manager, network, id, find_uplink)
  local list, seen = {}, {}
  if not network then return list end
  if network == true then
    network = {}
  elseif next(network) == nil then -- an empty list, which JSON's decoder can't tell from an empty object
    check:add("network", "is empty: true is one interface with defaults; leave it out for none")
    return list
  end
  local several = #network > 0
  if several and not check:list(network, "network") then return list end
  for i, interface in ipairs(several and network or { network }) do
    local place = several and ("network[%d]"):format(i) or "network"
    list[#list + 1] = check_interface(check, manager, interface, i, id, place, seen, find_uplink)
  end
  return list
end

---What needs an address, where fcproc gives none.
---@param check table
---@param manager fcproc.Manager
---@param plan fcproc.VmPlan  is given warnings
function M.check_addressed(check, manager, plan)
  local bridge_ip = manager.config.bridge_ip or ""
  for _, interface in ipairs(plan.network) do
    if interface.nat and not interface.addressed then
      check:add(interface.place .. ".nat", "is for a guest with an IPv4 address, and this one gets none")
    end
    if interface.attach and bridge_ip:find(":", 1, true) and not interface.addressed
      and interface.address ~= false then
      plan.warnings = plan.warnings or {}
      table.insert(plan.warnings, { name = "address", message = ("%s gets no address: the bridge's is IPv6 "
        .. "(%s), and fcproc gives IPv4 ones alone"):format(interface.place, bridge_ip),
        fix = "address it in the guest, and say address = false; or give the manager an IPv4 bridge_ip" })
    end
  end
end

return M
