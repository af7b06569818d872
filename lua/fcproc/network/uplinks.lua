-- What keeps guests from their uplink. Whether the host forwards is its owner's business, so it is
-- told, in the record and the log, and not changed.

local cjson = require "cjson.safe"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local forwarding = require "fcproc.network.forwarding"
local loop = require "fcproc.loop"
local nat = require "fcproc.network.nat"
local nft = require "fcproc.network.nft"
local publish = require "fcproc.network.publish"
local rootless = require "fcproc.manager.rootless"

local M = {}

-- What nat.check says of an uplink, which takes some 50 ms: asked by the first VM of a fleet that
-- comes here, for whom the others wait. When it gets no answer, the next one asks.
-- Without an uplink: of what comes in for published ports alone.
local function answers_for(manager, name, fleet, ctx)
  local uplinks, uplink = fleet.uplinks or {}, name or ""
  fleet.uplinks = uplinks
  while uplinks[uplink] and uplinks[uplink].asking do
    local done, err = loop.complete(ctx, uplinks[uplink].asking:wait_op(nil, ctx))
    if not done then return nil, err end
  end
  local known = uplinks[uplink] or {}
  uplinks[uplink] = known
  if known.answers then return known.answers end
  local asking <close>, err = core.context()
  if not asking then return nil, err end
  local _ <close> = finally(function() -- before it is closed: whoever waits looks again
    known.asking = nil
    asking:cancel()
  end)
  known.asking = asking
  known.answers, err = nat.check(manager, name, ctx)
  return known.answers, err
end

local function warn(manager, record, entry, answer, started)
  record.warnings = record.warnings or {}
  table.insert(record.warnings, { name = answer.name, message = answer.message, fix = answer.fix })
  manager:_log(started, answer.message, { id = record.id, uplink = entry.uplink, fix = answer.fix },
    "warn")
end

---The interface that leads to the world: of rootless namespaces what pasta gives them, else that of the
---default route.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return string? name
---@return fcproc.Error? err  ERR_NOT_FOUND: there is none
function M.default(manager, ctx)
  if manager.config.privilege == "rootless" then return rootless.uplink(manager, ctx) end
  local op = "nat.uplink"
  local text, err = nft.command(manager, op, { "ip", "-4", "-json", "route", "show", "default" }, nil, ctx)
  if not text then return nil, err end
  local routes = cjson.decode(text)
  local best
  for _, route in ipairs(type(routes) == "table" and routes or {}) do
    local better = type(route.dev) == "string" and (not best or (route.metric or 0) < (best.metric or 0))
    if better then best = route end
  end
  if best then return best.dev end
  return nil, errors.new{ code = "not_found", op = op,
    message = "there is no default route, whose interface would be the uplink: name one" }
end

---The interface of that name, where the manager's guests are.
---@param manager fcproc.Manager
---@param name string
---@param ctx fcproc.Context?
---@return string? name
---@return fcproc.Error? err  ERR_NOT_FOUND: there is none, with those that there are
function M.find(manager, name, ctx)
  local is_rootless = manager.config.privilege == "rootless"
  -- That one may be on its way.
  if is_rootless and name == rootless.UPLINK then return rootless.uplink(manager, ctx) end
  local there, err = manager.net:link_exists(name)
  if there then return name end
  local links
  if not err then links, err = nft.links(manager, "nat.uplink", ctx) end
  if not links then return nil, err end
  there, err = forwarding.find_link(links, name, "nat.uplink")
  if there then return name end
  local hint = "; name the one that leads to the world, or say nat = true: that of the default route"
  if is_rootless then
    hint = "; in namespaces of your own nat = true is what pasta gives them: " .. rootless.UPLINK
  end
  err.message = err.message .. hint
  return nil, err
end

---Puts into the record what keeps the VM's guests from their uplinks.
---@param manager fcproc.Manager
---@param record table
---@param entries fcproc.NatEntry[]
---@param fleet fcproc.Fleet
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  nothing was found out
function M.check(manager, record, entries, fleet, ctx)
  local told = {}
  for _, entry in ipairs(entries) do
    local started, key = core.now(), entry.uplink or ""
    if entry.uplink or publish.at_others(entry.ports or {}) then
      local answers, err = answers_for(manager, entry.uplink, fleet, ctx)
      if not answers then return nil, err end
      for _, answer in ipairs(not told[key] and answers or {}) do
        if not answer.ok then warn(manager, record, entry, answer, started) end
      end
      told[key] = true
    end
  end
  return true
end

return M
