-- fcproc reclaim, net, doctor, version: the host around the VMs.

local core = require "fcproc.core"
local doctor = require "fcproc.doctor"
local errors = require "fcproc.error"
local flags = require "fcproc.cli.flags"
local lease = require "fcproc.resources.lease"
local namespaces = require "fcproc.resources.namespaces"
local nat = require "fcproc.network.nat"
local nft = require "fcproc.network.nft"
local output = require "fcproc.cli.output"
local strays = require "fcproc.resources.strays"
local ports = require "fcproc.resources.ports"
local relays = require "fcproc.resources.relay"
local rootless = require "fcproc.manager.rootless"
local upkeep = require "fcproc.resources.upkeep"
local vms = require "fcproc.vm"

local M = {}

local LIST = { kind = "list" }

-- Relays of published ports that were started again, as lines; and whether all could be.
local function tell_relays(cli, mended)
  local lines, all = {}, true
  for _, entry in ipairs(mended) do
    if entry.err then
      cli.output:note("%s: the relay of its published ports has ended, and could not be started again: %s",
        entry.id, flags.say(tostring(entry.err)))
      entry.err, all = output.plain(entry.err), false
    else
      lines[#lines + 1] = ("%s: the relay of its published ports had ended, and is back\n"):format(entry.id)
    end
  end
  return lines, all
end

---fcproc reclaim
---@param cli fcproc.Cli
---@return integer|true|nil done
---@return fcproc.Error? err
function M.reclaim(cli)
  local report, err = vms.reclaim(cli.manager, { unknown = cli.args.unknown }, cli.ctx)
  if not report then return nil, err end
  for _, entry in ipairs(report.unknown) do
    cli.output:note("%s", flags.say(tostring(entry.err)))
    entry.err = output.plain(entry.err)
  end
  for _, failed in ipairs(report.failed) do
    for _, entry in ipairs(failed.left) do
      cli.output:note("%s: %s stays: %s", failed.id, entry.what, flags.say(tostring(entry.err)))
    end
    failed.left = output.left(failed.left)
  end
  local relay_lines, relayed = tell_relays(cli, report.relays)
  local types = { fields = { relays = LIST, reclaimed = LIST, alive = LIST, busy = LIST, failed = LIST,
    unknown = LIST } }
  cli.output:result(report, types, function()
    local lines = {}
    for _, id in ipairs(report.reclaimed) do lines[#lines + 1] = ("%s: reclaimed\n"):format(id) end
    for _, id in ipairs(report.alive) do lines[#lines + 1] = ("%s: runs, not touched\n"):format(id) end
    for _, id in ipairs(report.busy) do
      lines[#lines + 1] = ("%s: in the hands of another manager, not touched\n"):format(id)
    end
    if report.leases > 0 then
      lines[#lines + 1] = ("%d leases without a VM: dropped\n"):format(report.leases)
    end
    if report.taps > 0 then
      lines[#lines + 1] = ("%d TAPs without a VM: removed\n"):format(report.taps)
    end
    return table.concat(lines) .. table.concat(relay_lines)
  end)
  return #report.failed + #report.unknown == 0 and relayed and true or 1
end

-- ---- the bridge ----------------------------------------------------------------------------

-- What the bridge is to be: the manager's configuration.
local function bridge_of(cli)
  local config = cli.manager.config
  return { bridge = config.bridge_name, address = config.bridge_ip, prefix = config.prefix }
end

-- An ordinary user's bridge is in namespaces that end with his last VM. Are there none?
local function is_none_yet(manager)
  return manager.config.privilege == "rootless" and not rootless.state(manager.config)
end

local function net_up(cli)
  if is_none_yet(cli.manager) then
    return nil, errors.new{ code = "unsupported", op = "net.up",
      message = ("the bridge %s of a user without CAP_NET_ADMIN lives as long as his VMs: the first one "
        .. "makes it (fcproc run --net), and there is none yet"):format(cli.manager.config.bridge_name) }
  end
  local ok, err = cli.manager:ensure_bridge(cli.ctx)
  if not ok then return nil, err end
  local shown = bridge_of(cli)
  shown.nat_put_back, err = vms.ensure_nat(cli.manager, cli.ctx)
  if not shown.nat_put_back then return nil, err end
  shown.relays = relays.mend(cli.manager)
  local relay_lines, relayed = tell_relays(cli, shown.relays)
  cli.output:result(shown, { fields = { nat_put_back = LIST, relays = LIST } }, function(b)
    local text = { ("%s is up, %s/%d\n"):format(b.bridge, b.address, b.prefix) }
    for _, entry in ipairs(b.nat_put_back) do
      text[#text + 1] = ("%s: its NAT%s was missing, and is back\n"):format(entry.id,
        entry.uplink and " by " .. entry.uplink or "")
    end
    return table.concat(text) .. table.concat(relay_lines)
  end)
  return relayed or 1
end

-- A VM that lives in an ordinary user's namespaces on no bridge: of those that are on it the bridge tells.
local function check_unused(cli)
  local state = rootless.state(cli.manager.config)
  local list, err = vms.list(cli.manager, cli.ctx)
  if not list then return nil, err end
  for _, vm in ipairs(list) do
    local net = state and vm.pid and core.stat(("/proc/%d/ns/net"):format(vm.pid), true)
    if net and net.ino == state.netns then
      return nil, errors.new{ code = "busy", op = "net.down",
        message = ("the VM '%s' is in the namespaces that would end"):format(vm.id) }
    end
  end
  return true
end

local function net_down(cli)
  local manager, name = cli.manager, cli.args.bridge
  local is_rootless = manager.config.privilege == "rootless"
  local there = manager.net:link_exists(name) ~= false
  local ok, err, ended = true, nil, false
  if is_rootless then ok, err = check_unused(cli) end
  if ok and there then ok, err = manager:delete_bridge(cli.ctx) end
  if ok and is_rootless then
    ended, err = rootless.down(manager, cli.ctx)
    ok = ended ~= nil
  end
  if not ok then
    if err.code == "busy" then err.message = err.message .. ": `fcproc net show` names their VMs, and "
      .. "`fcproc stop` ends those" end
    return nil, err
  end
  cli.output:result({ bridge = name, removed = there, namespaces_ended = ended }, nil, function()
    return name .. (there and " is gone\n" or ended and ": there was none; the holder of its namespaces "
      .. "has ended\n" or is_rootless and ": there is none; it goes with the last VM\n"
      or ": there is none\n")
  end)
  return true
end

-- What the bridge really has: whether it is up, and its addresses but for the kernel's own of its
-- link. Neither when ip can't tell.
local function look_at_bridge(cli, shown)
  local links, err = nft.links(cli.manager, "cli.net", cli.ctx)
  if not links then return cli.output:note("the bridge's addresses can't be read: %s", err.message) end
  for _, link in ipairs(links) do
    if link.ifname == shown.bridge then
      shown.exists, shown.up, shown.addresses = true, false, {}
      for _, flag in ipairs(link.flags) do shown.up = shown.up or flag == "UP" end
      for _, entry in ipairs(link.addr_info) do
        if entry.scope ~= "link" or entry["local"] == shown.address then
          table.insert(shown.addresses, ("%s/%d"):format(entry["local"], entry.prefixlen))
        end
      end
    end
  end
end

local function bridge_text(shown)
  if not shown.exists then
    return ("%s: there is none; %s makes it"):format(shown.bridge, shown.rootless and "the first VM"
      or "fcproc net up")
  end
  local wanted, found = ("%s/%d"):format(shown.address, shown.prefix), false
  if not shown.addresses then return shown.bridge end
  for _, address in ipairs(shown.addresses) do found = found or address == wanted:lower() end
  local parts = { shown.bridge, table.unpack(shown.addresses) }
  if not shown.up then parts[#parts + 1] = "down" end
  if not found then parts[#parts + 1] = "without " .. wanted end
  return table.concat(parts, ", ") .. ((not found or not shown.up) and "; fcproc net up mends it" or "")
end

local function stray_text(list)
  if #list == 0 then return end
  local rows = { { "STRAY TAP", "VM THAT WAS", "STATE" } }
  for _, stray in ipairs(list) do
    rows[#rows + 1] = { stray.name, stray.id, stray.in_use and "in use" or "idle" }
  end
  return output.columns(rows) .. "fcproc net clean removes those that are idle\n"
end

local function show_text(shown)
  local text = { ("bridge  %s\n"):format(bridge_text(shown)) }
  local rows = { { "TAP", "VM", "STATE", "MAC", "ISOLATED" } }
  for _, tap in ipairs(shown.taps) do
    rows[#rows + 1] = { tap.name, tap.vm or "-", not tap.up and "down" or tap.in_use and "in use" or "idle",
      tap.mac,
      tap.isolated and "yes" or "no" }
  end
  if #rows > 1 then text[#text + 1] = output.columns(rows) end
  rows = { { "LEASE", "VM" } }
  for _, entry in ipairs(shown.leases) do
    rows[#rows + 1] = { entry.name, entry.folder == shown.folder and entry.owner
      or entry.folder .. "/" .. entry.owner }
  end
  if #rows > 1 then text[#text + 1] = output.columns(rows) end
  if #shown.tap_problems > 0 then
    text[#text + 1] = table.concat({ ports.explain(shown.tap_problems, shown.bridge) }, "; ") .. "\n"
  end
  text[#text + 1] = stray_text(shown.strays)
  rows = { { "NAT", "VM", "ADDRESS", "UPLINK" } }
  for _, entry in ipairs(shown.nat or {}) do
    rows[#rows + 1] = { entry.tap, entry.id or "-", entry.address, entry.uplink or "-" }
  end
  if #rows > 1 then text[#text + 1] = output.columns(rows) end
  rows = { { "NAT MISSING", "VM", "ADDRESS", "UPLINK" } }
  for _, entry in ipairs(shown.nat_missing or {}) do
    rows[#rows + 1] = { entry.tap, entry.id, entry.address, entry.uplink or "-" }
  end
  if #rows > 1 then
    text[#text + 1] = output.columns(rows) .. "\n"
      .. flags.say(table.concat({ upkeep.explain(shown.nat_missing) }, "; ")) .. "\n"
  end
  return table.concat(text, "\n")
end

local function net_show(cli)
  local manager, shown = cli.manager, bridge_of(cli)
  local err
  shown.rootless = manager.config.privilege == "rootless"
  shown.exists = manager.net:link_exists(shown.bridge) and true or false
  if shown.exists then look_at_bridge(cli, shown) end
  shown.taps, err = manager:list_taps(cli.ctx)
  if not shown.taps then return nil, err end
  shown.tap_problems, err = ports.wrong(manager, cli.ctx)
  if not shown.tap_problems then return nil, err end
  shown.strays, err = strays.list(manager, cli.ctx)
  if not shown.strays then return nil, err end
  local leases
  leases, err = lease.open(manager)
  if not leases then return nil, err end
  shown.leases, shown.folder = {}, manager.config.runtime_dir
  local namespace = namespaces.of(manager)
  for _, entry in ipairs((leases:list())) do
    local kind, number = entry.name:match("^(%l+)%-(%d+)%-")
    local here = (kind == "tap" or kind == "ip" or kind == "mac") and tonumber(number) == namespace
    if here or entry.folder == shown.folder then table.insert(shown.leases, entry) end
  end
  for _, tap in ipairs(shown.taps) do
    local owner = leases:owner(("tap-%d-%s"):format(namespace, tap.name))
    tap.vm = owner and (owner.folder == shown.folder and owner.id or owner.folder .. "/" .. owner.id)
  end
  if is_none_yet(manager) then
    shown.nat, shown.nat_missing = {}, {}
  else
    shown.nat, err = nat.list(manager, cli.ctx)
    if shown.nat then shown.nat_missing, err = vms.missing_nat(manager, cli.ctx) end
  end
  if not shown.nat_missing then cli.output:note("the guests with NAT can't be read: %s", err.message) end
  local lists = { addresses = LIST, taps = LIST, leases = LIST, strays = LIST, nat = LIST,
    tap_problems = LIST,
    nat_missing = LIST }
  cli.output:result(shown, { fields = lists }, show_text)
  return true
end

local function net_clean(cli)
  local removed, left = strays.remove(cli.manager, cli.ctx)
  if not removed then return nil, left end
  for _, entry in ipairs(left) do
    cli.output:note("%s: %s stays: %s", entry.id, entry.what, flags.say(tostring(entry.err)))
  end
  cli.output:result({ removed = removed, left = output.left(left) },
    { fields = { removed = LIST, left = LIST } }, function()
      local lines = {}
      for i, name in ipairs(removed) do lines[i] = name .. ": removed\n" end
      return table.concat(lines)
    end)
  return #left == 0 and true or 1
end

local net = { up = net_up, down = net_down, show = net_show, clean = net_clean }

---fcproc net up|down|show|clean
---@param cli fcproc.Cli
---@return integer|true|nil done
---@return fcproc.Error? err
function M.net(cli)
  return net[cli.args.net_command](cli)
end

-- ---- what it can do ------------------------------------------------------------------------

---fcproc doctor
---@param cli fcproc.Cli
---@return integer|true|nil done
---@return fcproc.Error? err
function M.doctor(cli)
  local to, args = cli.output, cli.args
  local user = args.user or {}
  local checks, err = doctor.run(cli.manager, {
    boot = args.boot, uplink = args.uplink, uid = user.uid, gid = user.gid,
    progress = function(check) -- which is what comes back in the list, too
      check.message, check.fix = flags.say(check.message), check.fix and flags.say(check.fix)
      if to.json then to:progress("%s: %s", check.name, check.status)
      else to:write(doctor.format(check) .. "\n") end
    end,
  }, cli.ctx)
  if not checks then return nil, err end
  local failed = 0
  for _, check in ipairs(checks) do failed = failed + (check.status == "fail" and 1 or 0) end
  to:result(checks, LIST, function()
    return failed == 0 and "VMs can run here\n"
      or ("%d of %d checks failed\n"):format(failed, #checks)
  end)
  return failed == 0 and true or 1
end

---fcproc version
---@param cli fcproc.Cli
---@return integer|true|nil done
---@return fcproc.Error? err
function M.version(cli)
  local versions = { fcproc = core.version, lua = _VERSION,
    kernel = (core.read_file("/proc/sys/kernel/osrelease") or ""):match("%S*") }
  local err
  versions.firecracker, err = cli.manager:binary_version(cli.ctx)
  if not versions.firecracker then
    if err.code == "cancelled" or err.code == "deadline" then return nil, err end
    cli.output:note("%s", flags.say(err.message))
  end
  cli.output:result(versions, nil, function()
    return output.fields{ { "fcproc", versions.fcproc }, { "firecracker", versions.firecracker or "-" },
      { "kernel", versions.kernel }, { "lua", versions.lua } }
  end)
  return true
end

return M
