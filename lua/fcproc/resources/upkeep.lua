-- The NAT of the VMs that run, as their journals tell it, beside what the kernel holds: what is
-- missing is told and put back, and what is nobody's goes.
--
-- No lock is held meanwhile: that of a VM is its manager's, for as long as he has it. So a VM may end
-- while its NAT is put back, and whoever removes it may have been at its NAT before. Its process is gone
-- before anything of it is removed; hence who still runs after the change will be removed with what we
-- have brought back, and of others we take it away again, under their lock. What slips through, since
-- somebody else has that lock, is nobody's, and goes with the next sweep: by reclaim, or by a launch
-- that wants its address.

local aliases = require "fcproc.alias"
local core = require "fcproc.core"
local journals = require "fcproc.resources.journal"
local localnet = require "fcproc.resources.localnet"
local lives = require "fcproc.resources.life"
local loop = require "fcproc.loop"
local nat = require "fcproc.network.nat"
local publish = require "fcproc.network.publish"

local M = {}

local MOST_NAMED = 8 -- VMs in a message

---@class fcproc.NatMissing
---@field id string       the VM's
---@field tap string
---@field address string  the guest's
---@field uplink string?  by which it can't reach the world now
---@field ports fcproc.Port[]?  that don't lead to it now

---What the VM's record says of its NAT.
---@param record table
---@return fcproc.NatEntry[]
function M.entries(record)
  local entries = {}
  for _, tap in ipairs(record.taps or {}) do
    -- Those of a rootless VM a relay serves.
    local ports = not record.confined and tap.ports and tap.ports[1] and tap.ports or nil
    if (tap.nat or ports) and tap.address then
      entries[#entries + 1] = { tap = tap.name, address = tap.address, mac = (tap.guest_mac or ""):lower(),
        uplink = tap.nat, id = record.id, ports = ports }
    end
  end
  return entries
end

---The ports of this host that lead to the VM.
---@param record table
---@return fcproc.Port[]
function M.ports(record)
  local ports = {}
  for _, tap in ipairs(record.taps or {}) do
    for _, port in ipairs(tap.ports or {}) do ports[#ports + 1] = port end
  end
  return ports
end

-- The NAT of the record's VM if it runs, on this bridge, in this namespace.
local function append_running(list, manager, record, taps)
  local entries, running = M.entries(record), nil
  for _, entry in ipairs(entries) do
    local tap = taps[entry.tap]
    local owner = tap and tap.alias and aliases.id_of(manager.config.runtime_dir, tap.alias)
    if tap and (not tap.alias or owner == record.id) then
      -- A TAP in use says so as well, but a VMM can deny its own.
      if running == nil then running = tap.in_use or lives.is_alive(record, manager.config.without) end
      if running then list[#list + 1] = entry end
    end
  end
end

-- The NAT of VMs that run: of one, when its record is given, else of all.
local function running(manager, ctx, only)
  if not (manager.config.bridge_name and manager.config.runtime_dir) then return {} end
  local list, taps = {}, {}
  local found, err = manager:list_taps(ctx)
  if not found then return nil, err end
  if #found == 0 then return list end
  for _, tap in ipairs(found) do taps[tap.name] = tap end
  local records
  records, err = journals.records(manager, only)
  if not records then return nil, err end
  for _, record in ipairs(records) do append_running(list, manager, record, taps) end
  return list
end

local function find_missing(manager, ctx, only)
  local entries, err = running(manager, ctx, only)
  if not entries then return nil, err --[[@as fcproc.Error]] end
  local missing
  missing, err = nat.missing(manager, entries, ctx)
  if not missing then return nil, err --[[@as fcproc.Error]] end
  return missing, #entries
end

---What the kernel does not hold of the NAT of the VMs that run: such a guest reaches nothing, or may send
---under any address. Looks only; one look for all VMs.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return fcproc.NatMissing[]? missing
---@return integer|fcproc.Error count  of the guests' interfaces with NAT; or the error, as
---                                    fcproc.vm.ensure_nat's
function M.missing(manager, ctx)
  return find_missing(manager, loop.context(ctx))
end

-- Takes away again what has come back of VMs that ended meanwhile.
local function drop_ended(manager, back, ctx)
  local still, entries = {}, running(manager, ctx)
  for _, entry in ipairs(entries or back) do still[entry.tap .. " " .. entry.id] = true end
  for _, entry in ipairs(back) do
    if not still[entry.tap .. " " .. entry.id] then M.drop(manager, entry, ctx) end
  end
end

---Removes a guest's NAT if its VM is not there any more. Under the VM's lock, so that no new one of that
---id is harmed; while somebody else has it, nothing is removed.
---@param manager fcproc.Manager
---@param entry fcproc.NatEntry
---@param ctx fcproc.Context?
---@return boolean removed
function M.drop(manager, entry, ctx)
  local id = entry.id
  local lock = id and not journals.exists(manager, id) and journals.lock(manager, id)
  if not lock then return false end
  local removed = not journals.exists(manager, id) and nat.remove(manager, { entry }, ctx)
  lock:remove()
  return removed and true or false
end

---Removes the NAT of VMs that are gone: an nft that was under way when its manager died ends its work all
---the same, perhaps after somebody has reclaimed the VM.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return integer removed
function M.sweep(manager, ctx)
  local removed = 0
  for _, entry in ipairs(manager.config.bridge_name and nat.list(manager, ctx) or {}) do
    if M.drop(manager, entry, ctx) then removed = removed + 1 end
  end
  return removed
end

---The NAT of all VMs that run is in the kernel: puts back what is not, in one transaction.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return fcproc.NatMissing[]? back  what was missing
---@return fcproc.Error? err  ERR_NOT_FOUND: nft is not installed; ERR_PERMISSION; ERR_CONFLICT: an
---                           address is another's there; ERR_BUSY: others changed the tables all the
---                           time; ERR_EXIT_STATUS with nft's own words
function M.ensure(manager, ctx)
  ctx = loop.context(ctx)
  local entries, err = running(manager, ctx)
  if not entries then return nil, err end
  local back
  back, err = nat.put_back(manager, entries, ctx)
  if not back then return nil, err end
  if #back > 0 then drop_ended(manager, back, ctx) end
  local ok
  ok, err = localnet.ensure(manager)
  if not ok then return nil, err end
  return back
end

---With route_localnet on the bridge for our VMs, and without the chain that a flush of all rules has taken,
---guests reach this host's loopback: then their NAT comes back, and with it the chain. What keeps it from
---that is for the log, and for doctor.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
function M.guard(manager, ctx)
  local started = core.now()
  if not localnet.is_ours(manager) then return end
  local back, err = M.ensure(manager, ctx)
  if not back then
    manager:_log(started, "whether guests are kept from the loopback is unknown", { reason = err.message },
      "warn")
  end
end

---Lets a new VM's guests out, and with them those of VMs that run, should the tables have been taken
---away.
---@param manager fcproc.Manager
---@param entries fcproc.NatEntry[]
---@param fleet fcproc.Fleet
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.add(manager, entries, fleet, ctx)
  local function others() -- read once for a fleet: who has ended since then is dropped again
    fleet.with_nat = fleet.with_nat or running(manager, ctx) or {}
    return fleet.with_nat
  end
  local ok, back = nat.add_all(manager, entries, ctx, others)
  -- The address is ours by its lease, so that whoever has it in the kernel should not be there.
  if not ok and back.code == "conflict" and M.sweep(manager, ctx) > 0 then
    ok, back = nat.add_all(manager, entries, ctx, others)
  end
  if not ok then return nil, back --[[@as fcproc.Error]] end
  if #back > 0 then drop_ended(manager, back, ctx) end
  return true
end

---In words, for people: whose NAT is missing, and what that means.
---@param missing fcproc.NatMissing[]
---@return string message
---@return string fix
function M.explain(missing)
  local names, seen, count, ports = {}, {}, 0, {}
  for _, entry in ipairs(missing) do
    table.move(entry.ports or {}, 1, #(entry.ports or {}), #ports + 1, ports)
    if not seen[entry.id] then
      seen[entry.id], count = true, count + 1
      if count <= MOST_NAMED then names[count] = entry.id end
    end
  end
  if count > MOST_NAMED then names[#names + 1] = ("and %d more"):format(count - MOST_NAMED) end
  return ("the kernel has lost rules of NAT (a firewall that was restarted takes them: nft flush "
    .. "ruleset): %s can't reach the world, or can send under any address%s%s"):format(
    table.concat(names, ", "), #ports > 0 and ", or is not reached at its published ports" or "",
    publish.at_loopback(ports) and "; and guests may reach what listens at this host's loopback alone"
    or ""), "fcproc net up puts them back, as fcproc.vm.ensure_nat(manager) does"
end

---For the information on one VM.
---@param manager fcproc.Manager
---@param record table
---@param ctx fcproc.Context?
---@return { name: string, message: string, fix: string }? warning
---@return fcproc.Error? err  only the context's
function M.warning(manager, record, ctx)
  if manager.closed or #M.entries(record) == 0 then return end
  local missing, err = find_missing(manager, ctx, record)
  if missing then
    if #missing == 0 then return end
    local message, fix = M.explain(missing)
    return { name = "nat", message = message, fix = fix }
  end
  local ok, ended = loop.check(ctx)
  if not ok then return nil, ended end
  return { name = "nat", message = "whether its NAT is in place can't be told: "
    .. (err --[[@as fcproc.Error]]).message,
    fix = "look as root" }
end

return M
