-- The manager: the host-side primitives under the names of the Go package that they replace. It
-- holds its configuration and one netlink socket and nothing that changes, so that any number of
-- coroutines may use one. Processes are in identity.lua and the binary in binary.lua, which this file
-- mixes in.

local aliases = require "fcproc.alias"
local api = require "fcproc.api"
local binary = require "fcproc.manager.binary"
local config = require "fcproc.manager.config"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local identity = require "fcproc.manager.identity"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local rootless = require "fcproc.manager.rootless"
local runner = require "fcproc.runner"

local M = {}

---@class fcproc.Manager: fcproc.ManagerProcesses, fcproc.ManagerBinary
---@field config table
---@field runner fcproc.Runner
---@field net table  its netlink socket
---@field host_net fcproc.Net?  of a rootless one: where this process is
---@field held_anew string?    of a rootless one: why it has started another holder of its namespaces
---@field pasta fcproc.Process?  of a rootless one: what gives its guests their uplink
---@field closed true?
local Manager = {}
Manager.__index = Manager

for _, part in ipairs{ identity, binary } do
  for name, method in pairs(part.methods) do Manager[name] = method end
end

local MOST_ID = 4294967294 -- of users and groups: the kernel's last means "as it is"
local DEFAULT_WAIT = 5 -- seconds until a socket must be there, as in the seed

-- Tells the logger of a change on the host, with how long it took.
function Manager:_log(started, message, fields, level)
  local logger = self.config.logger
  if logger then
    fields.duration = core.now() - started
    loop.theirs(logger, level or "debug", message, fields)
  end
end

-- Holds the files that VMs write to a size. Its thread starts with the first VM.
function Manager:_capper()
  local ok, err = self:_check_open("vm.launch")
  if not ok then return nil, err end
  if not self.capper then self.capper, err = core.capper() end
  return self.capper, err
end

-- In a C host that has set a log: its function takes one line.
local function host_logger(level, message, fields)
  local words = {}
  for key, value in pairs(fields) do words[#words + 1] = ("%s=%s"):format(key, tostring(value)) end
  table.sort(words)
  local line = message .. ": " .. table.concat(words, " ")
  core.host_log(level, (line:gsub("%z", "?")))
end

-- From here on the manager's network is that of the namespace.
local function move_into(self, netns)
  local net, err = core.net(netns)
  if not net then
    netns:close()
    return nil, err
  end
  self.config.netns, self.own_netns, self.net = netns, netns, net
  return true
end

-- What stands in the place of the netlink socket of a namespace that nobody has made yet: there is nothing
-- in it; and it is made for whoever makes something.
local function nowhere(self)
  local function nothing() return false end
  local function missing(_, name)
    return nil, errors.new{ code = "not_found", op = "net.link", message = "there is no link " .. name }
  end
  local net = { close = function() end, link_exists = nothing, link_mtu = missing,
    link_index = function() end,
    list_taps = function() return {} end }
  return setmetatable(net, { __index = function(_, name)
    return function(_, ...)
      local ok, err = self:_enter()
      if not ok then return nil, err end
      return self.net[name](self.net, ...)
    end
  end })
end

-- A rootless manager's namespaces are there, and it is in them.
function Manager:_enter()
  if self.config.privilege ~= "rootless" then return true end
  if self.config.netns then
    rootless.mend(self)
    return true
  end
  local ok, err = self:_check_open("manager.rootless")
  if not ok then return nil, err end
  local netns
  netns, err = rootless.ensure(self)
  if not netns then return nil, err end
  return move_into(self, netns)
end

local function need(self, name, op)
  if self.config[name] then return true end
  return nil, errors.new{
    code = "invalid", op = op, message = ("%s is not configured: give it to fcproc.new"):format(name),
  }
end

---Makes a manager. It closes its netlink socket when collected, or with :close(), or as
---`local manager <close>`.
---
---    local manager = assert(fcproc.new{
---      bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24, runtime_dir = "/run/fcproc",
---    })
---@param settings fcproc.Config?
---@return fcproc.Manager? manager
---@return fcproc.Error? err  ERR_INVALID for values that can't work; unknown keys raise
function M.new(settings)
  local checked, err = config.check(settings)
  if not checked then return nil, err end
  local net, netns
  if type(checked.netns) == "string" then
    netns, err = core.netns(checked.netns)
    if not netns then return nil, err end
    checked.netns = netns
  end
  checked.logger = checked.logger or core.host_logging() and host_logger or nil
  local self = setmetatable({ config = checked, own_netns = netns,
    runner = checked.runner or runner.new() }, Manager)
  net, err = core.net(checked.netns)
  if not net then return nil, err end
  self.net = net
  if checked.privilege ~= "rootless" then return self end
  self.host_net, self.net = net, nowhere(self)
  local found, ok
  found, err = rootless.find(self)
  ok = found or not err
  if found then ok, err = move_into(self, found) end
  if ok then return self end
  self:close()
  return nil, err
end

local function closed_error(op)
  return errors.new{ code = "closed", op = op,
    message = "the manager was closed: make another with fcproc.new" }
end

-- What stands in the place of a closed manager's netlink socket, whoever is about to use it.
local closed_net = setmetatable({ close = function() end }, { __index = function(_, name)
  return function() return nil, closed_error("manager." .. name) end
end })

---Closes the netlink socket. Nothing on the host changes. What needs it, or a VM of this manager, is
---ERR_CLOSED from then on, also in the middle of a call; the VMs can still be stopped.
function Manager:close()
  self.closed = true
  self.net:close()
  self.net = closed_net
  if self.host_net then self.host_net:close() end
  if self.pasta then self.pasta:close() end
  if self.capper then self.capper:close() end
  self.capper, self.pasta = nil, nil
  if self.own_netns then self.own_netns:close() end
end

Manager.__close = core.uninterruptible(Manager.close)

function Manager:__tostring()
  return ("fcproc.Manager %s%s"):format(self.config.runtime_dir or "without a runtime_dir",
    self.closed and " (closed)" or "")
end

-- For what goes on with VMs: it needs the manager's namespace and its threads.
function Manager:_check_open(op)
  if not self.closed then return true end
  return nil, closed_error(op)
end

-- ---- network ------------------------------------------------------------------------------

-- ensure_bridge, which tells the bridge's ifindex; of the host's, when that is the net.
function Manager:_bridge(ctx, net)
  local ok, err = need(self, "bridge_name", "bridge.ensure")
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
function Manager:ensure_bridge(ctx)
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
function Manager:delete_bridge(ctx)
  ctx = loop.context(ctx)
  local ok, err = need(self, "bridge_name", "bridge.delete")
  if not ok then return nil, err end
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

local function check_tap(opts)
  local mac = opts.mac
  if mac and not mac:match("^%x[02468aceACE]" .. (":%x%x"):rep(5) .. "$") then
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
function Manager:create_tap(name, opts, ctx)
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
function Manager:delete_taps(names, ctx)
  options.argument(names, "table", "delete_taps", "names")
  ctx = loop.context(ctx)
  if #names == 0 then return 0 end
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
function Manager:delete_tap(name, ctx)
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
function Manager:list_taps(ctx)
  ctx = loop.context(ctx)
  local ok, err = need(self, "bridge_name", "tap.list")
  if not ok then return nil, err end
  return self.net:list_taps(self.config.bridge_name, ctx)
end

-- ---- files and sockets --------------------------------------------------------------------

---The runtime folder exists, is ours and has mode 0700. Seed: EnsureSocketDir.
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: a link, a file or somebody else's folder is there;
---                           ERR_PERMISSION: it can't be made; ERR_INVALID: no runtime_dir is
---                           configured
function Manager:ensure_socket_dir(ctx)
  local ok, err = loop.check(ctx)
  if ok then ok, err = need(self, "runtime_dir", "socket_dir.ensure") end
  if not ok then return nil, err end
  local started = core.now()
  local changed
  changed, err = core.socket_dir(self.config.runtime_dir)
  if changed == nil then
    err.path = self.config.runtime_dir
    return nil, err
  end
  if changed then self:_log(started, "runtime folder ensured", { path = self.config.runtime_dir }) end
  return true
end

---The path exists. Missing parents are waited for; any error but "missing" comes back at once.
---Seed: waitForPath.
---@param path string
---@param timeout number?  seconds, default 5; its end is ERR_DEADLINE "<label> not ready: <path>"
---@param label string?    for the message; default "path"
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_DEADLINE: not there in time; ERR_PERMISSION: a folder above it can't
---                           be entered
function Manager:wait_for_path(path, timeout, label, ctx)
  options.argument(path, "string", "wait_for_path", "path")
  options.timeout(timeout, "wait_for_path")
  ctx = loop.context(ctx)
  local done, err = loop.complete(ctx, core.wait_path(path, false, timeout or DEFAULT_WAIT,
    label or "path", self.config.without, ctx))
  if done then return true end
  err.path = path
  return nil, err
end

---A connect to the socket succeeds: what "ready" means.
---@param path string
---@param timeout number?  seconds, default 5
---@param label string?
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_DEADLINE: nobody listens in time; ERR_CONFLICT: a symbolic link is
---                           there; ERR_PERMISSION
function Manager:wait_for_socket(path, timeout, label, ctx)
  options.argument(path, "string", "wait_for_socket", "path")
  options.timeout(timeout, "wait_for_socket")
  ctx = loop.context(ctx)
  local done, err = loop.complete(ctx, core.wait_path(path, true, timeout or DEFAULT_WAIT,
    label or "socket", self.config.without, ctx))
  if done then return true end
  err.path = path
  return nil, err
end

---Waits up to 5 s for the socket, then makes it ours with mode 0600; does nothing when it is.
---Never through a symbolic link. Seed: EnsureSocketAccess.
---@param path string
---@param label string?  for the message; default "socket"
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_DEADLINE: not there in time; ERR_CONFLICT: it is no socket;
---                           ERR_PERMISSION: it can't be made ours
function Manager:ensure_socket_access(path, label, ctx)
  options.argument(path, "string", "ensure_socket_access", "path")
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local started = core.now()
  local changed
  changed, err = core.socket_access(path) -- first: the wait would follow a link
  if changed == nil and err.code == "not_found" then
    ok, err = self:wait_for_path(path, nil, label or "socket", ctx)
    if not ok then return nil, err end
    started = core.now()
    changed, err = core.socket_access(path)
  end
  if changed == nil then
    err.path = path
    return nil, err
  end
  if changed then self:_log(started, "socket made ours", { path = path, label = label }) end
  return true
end

---Asks the guest to shut down, as Ctrl-Alt-Del on its keyboard. An accepted request does not mean
---that the guest reacts: wait for its exit. Seed: SendCtrlAltDel.
---@param api_sock string
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_UNSUPPORTED on aarch64; ERR_API with Firecracker's own words; as
---                           manager:ensure_socket_access's; as client:request's
function Manager:send_ctrl_alt_del(api_sock, ctx)
  options.argument(api_sock, "string", "send_ctrl_alt_del", "api_sock")
  if core.arch ~= "x86_64" then
    return nil, errors.new{
      code = "unsupported", op = "api.request",
      message = "SendCtrlAltDel exists on x86_64 only; stop the VM by a command in the guest",
    }
  end
  local ok, err = self:ensure_socket_access(api_sock, "firecracker api socket", ctx)
  if not ok then return nil, err end
  local started = core.now()
  ok, err = api.request(api_sock, "PUT", "/actions", { action_type = "SendCtrlAltDel" }, ctx)
  if not ok then return nil, err end
  self:_log(started, "Ctrl-Alt-Del sent", { api_sock = api_sock })
  return true
end

M.Manager = Manager

return M
