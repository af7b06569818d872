-- The manager's bridge, and the TAPs on it.

local aliases = require "fcproc.alias"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local options = require "fcproc.options"

local M = {}

local MOST_ID = 4294967294 -- of users and groups: the kernel's last means "as it is"

---@class fcproc.ManagerLinks
local Links = {}

-- ensure_bridge, which tells the bridge's ifindex; of the host's, when that is the net.
function Links:_bridge(ctx, net)
  local ok, err = self:_need("bridge_name", "bridge.ensure")
  if not ok then return nil, err end
  local c, started = self.config, core.now()
  local info
  info, err = (net or self.net):ensure_bridge(c.bridge_name, c.bridge_ip, c.prefix,
    aliases.of(c.runtime_dir), ctx)
  if not info then return nil, err end
  if info.created or info.addressed or info.brought_up then
    self:_log(started, "bridge ensured", { name = c.bridge_name, address = c.bridge_ip,
      prefix = c.prefix, created = info.created, addressed = info.addressed,
      brought_up = info.brought_up })
  end
  return info.ifindex
end

---The bridge exists, has the configured address (if any) and is up. What is right is left alone;
---other addresses on it are, too. Safe when many processes race. Seed: EnsureBridge.
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: a link of another kind has the name; ERR_PERMISSION: it
---                           needs root or CAP_NET_ADMIN; ERR_INVALID: no bridge_name is configured
function Links:ensure_bridge(ctx)
  if self.config.netns then self:_enter() end
  local ifindex, err = self:_bridge(loop.context(ctx))
  if not ifindex then return nil, err end
  return true
end

---The bridge is gone. One with ports is ERR_BUSY, a link of another kind ERR_CONFLICT.
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_BUSY, ERR_CONFLICT; ERR_PERMISSION; ERR_INVALID: no bridge_name is
---                           configured
function Links:delete_bridge(ctx)
  ctx = loop.context(ctx)
  local ok, err = self:_need("bridge_name", "bridge.delete")
  if not ok then return nil, err end
  local there
  there, err = self:_has_links()
  if not there then return there == false or nil, err end
  local started = core.now()
  ok, err = loop.complete(ctx, self.net:delete_bridge(self.config.bridge_name, ctx))
  if not ok then return nil, err end
  self:_log(started, "bridge deleted", { name = self.config.bridge_name })
  return true
end

---@class fcproc.TapOptions
---@field uid integer?       who may open it; default: us
---@field gid integer?
---@field mac string?        "aa:bb:cc:dd:ee:ff", of the host's side; default: from the name
---@field mtu integer?       default 1500
---@field isolated boolean?  can't reach the bridge's other isolated ports
---@field alias string?      its IFLA_IFALIAS, at most 255 bytes; default: tells the runtime folder

---@class fcproc.Tap
---@field name string
---@field ifindex integer
---@field mac string
---@field created boolean  false: an idle one was there and has been made right

local tap_options = {
  uid = "integer", gid = "integer", mac = "string", mtu = "integer", isolated = "boolean",
  alias = "string",
}

---Is it a unicast MAC address, as it is written?
---@param text string
---@return boolean
function M.is_mac(text)
  return text:find("^%x[02468aceACE]" .. (":%x%x"):rep(5) .. "$") ~= nil
end

local function check_tap(opts)
  local mac = opts.mac
  if mac and not M.is_mac(mac) then
    return nil, errors.new{
      code = "invalid", op = "tap.create",
      message = ("'%s' is no unicast MAC address: it is written like 02:00:00:00:00:01"):format(mac),
    }
  end
  for _, key in ipairs{ "uid", "gid" } do
    local id = opts[key]
    if id and (id < 0 or id > MOST_ID) then
      return nil, errors.new{
        code = "invalid", op = "tap.create",
        message = ("a %s of %d is out of range: 0 to %d"):format(key, id, MOST_ID),
      }
    end
  end
  if opts.mtu and (opts.mtu < 68 or opts.mtu > 65521) then
    return nil, errors.new{
      code = "invalid", op = "tap.create",
      message = ("an MTU of %d is out of range: 68 to 65521"):format(opts.mtu),
    }
  end
  if opts.alias and (#opts.alias > aliases.MOST or opts.alias:find("%z")) then
    return nil, errors.new{
      code = "invalid", op = "tap.create",
      message = ("an alias has at most %d bytes, and no NUL"):format(aliases.MOST),
    }
  end
  return true
end

---A persistent TAP on the bridge, both up. An idle TAP of that name is made right in place: its
---ifindex and counters stay. Seed: CreateTap.
---@param name string  1 to 15 bytes
---@param opts fcproc.TapOptions?
---@param ctx fcproc.Context?
---@return fcproc.Tap? tap
---@return fcproc.Error? err  ERR_BUSY: a process uses it; ERR_CONFLICT: it is something else;
---                            ERR_NOT_FOUND: there is no bridge; ERR_INVALID: no usable name
function Links:create_tap(name, opts, ctx)
  options.argument(name, "string", "create_tap", "name")
  options.check(opts, tap_options, "create_tap")
  ctx = loop.context(ctx)
  opts = opts or {}
  local ok, err = check_tap(opts)
  if not ok then return nil, err end
  local started = core.now()
  local tap
  tap, err = self.net:create_tap(name, self.config.bridge_name, opts.uid, opts.gid, opts.mac,
    opts.mtu, opts.isolated, nil, opts.alias or aliases.of(self.config.runtime_dir), ctx)
  if not tap then return nil, err end
  self:_log(started, "TAP created", { name = name, bridge = self.config.bridge_name,
    ifindex = tap.ifindex, mac = tap.mac, mtu = opts.mtu, uid = opts.uid, gid = opts.gid,
    isolated = opts.isolated, created = tap.created })
  return tap
end

---None of the TAPs is there any more. Several go as one link group, which is many times faster
---than one by one. Those in use (ERR_BUSY) and links of other kinds (ERR_CONFLICT) stay, and the
---error names them; the others are gone all the same.
---@param names string[]
---@param ctx fcproc.Context?  ends the wait; a removal that has begun goes on
---@return integer? deleted  how many there were
---@return fcproc.Error? err
function Links:delete_taps(names, ctx)
  options.argument(names, "table", "delete_taps", "names")
  ctx = loop.context(ctx)
  if #names == 0 then return 0 end
  local there, err = self:_has_links()
  if not there then return there == false and 0 or nil, err end
  local started = core.now()
  local done, deleted = loop.complete(ctx, self.net:delete_taps(names, ctx))
  if not done then return nil, deleted end
  if deleted > 0 then
    self:_log(started, "TAPs deleted", { names = table.concat(names, " "), deleted = deleted })
  end
  return deleted
end

---The TAP is not there any more, as with delete_taps.
---@param name string
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_BUSY: a process uses it; ERR_CONFLICT: it is something else;
---                           ERR_PERMISSION
function Links:delete_tap(name, ctx)
  options.argument(name, "string", "delete_tap", "name")
  local deleted, err = self:delete_taps({ name }, ctx)
  if not deleted then return nil, err end
  return true
end

---@class fcproc.TapState
---@field name string
---@field ifindex integer
---@field mac string
---@field mtu integer
---@field uid integer?
---@field gid integer?
---@field up boolean
---@field isolated boolean
---@field alias string?
---@field in_use boolean  a process has it open
---@field master integer?  the ifindex of the bridge that it is on

---The TAPs on the bridge; none when there is no bridge.
---@param ctx fcproc.Context?
---@return fcproc.TapState[]? taps
---@return fcproc.Error? err  ERR_CONFLICT: the bridge is none; ERR_INVALID: no bridge_name is
---                           configured
function Links:list_taps(ctx)
  ctx = loop.context(ctx)
  local ok, err = self:_need("bridge_name", "tap.list")
  if not ok then return nil, err end
  return self.net:list_taps(self.config.bridge_name, ctx)
end

M.methods = Links

return M
