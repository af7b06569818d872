-- The manager: the host-side primitives under the names of the Go package that they replace. It
-- holds its configuration and one netlink socket and nothing that changes, so that any number of
-- coroutines may use one. Processes are in identity.lua, the binary in binary.lua, the bridge and the TAPs
-- in links.lua, which this file mixes in.

local api = require "fcproc.api"
local binary = require "fcproc.manager.binary"
local config = require "fcproc.manager.config"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local identity = require "fcproc.manager.identity"
local links = require "fcproc.manager.links"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local rootless = require "fcproc.manager.rootless"
local runner = require "fcproc.runner"

local M = {}

---@class fcproc.Manager: fcproc.ManagerProcesses, fcproc.ManagerBinary, fcproc.ManagerLinks
---@field config table
---@field runner fcproc.Runner
---@field net table  its netlink socket
---@field host_net fcproc.Net?  of a rootless one: where this process is
---@field held_anew string?    of a rootless one: why it has started another holder of its namespaces
---@field keepers fcproc.Keepers?  of a rootless one: who keeps its namespaces
---@field closed true?
local Manager = {}
Manager.__index = Manager

for _, part in ipairs{ identity, binary, links } do
  for name, method in pairs(part.methods) do Manager[name] = method end
end

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

-- Namespaces that somebody has made meanwhile are the manager's from now on; false: there are none yet.
local function enter_made(self)
  local netns, err = rootless.find(self)
  if netns then return move_into(self, netns) end
  if err then return nil, err end
  return false
end

-- What stands in the place of the netlink socket of a namespace that nobody has made yet: there is nothing
-- in it; and it is made for whoever makes something, not for who only looks.
local function nowhere(self)
  local function look(name, otherwise)
    return function(_, ...)
      local there, err = enter_made(self)
      if there then return self.net[name](self.net, ...) end
      if err then return nil, err end
      return otherwise(...)
    end
  end
  local function nothing() return false end
  local function missing(name)
    return nil, errors.new{ code = "not_found", op = "net.link", message = "there is no link " .. name }
  end
  local net = { close = function() end, link_exists = look("link_exists", nothing),
    link_mtu = look("link_mtu", missing), link_index = look("link_index", function() end),
    list_taps = look("list_taps", function() return {} end) }
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

-- Can there be links? false: not in namespaces that nobody has made yet.
function Manager:_has_links()
  if self.config.privilege ~= "rootless" or self.config.netns then return true end
  local ok, err = self:_check_open("manager.rootless")
  if not ok then return nil, err end
  return enter_made(self)
end

-- What is not configured and is needed now.
function Manager:_need(name, op)
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
  rootless.forget(self)
  if self.capper then self.capper:close() end
  self.capper = nil
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

-- ---- files and sockets --------------------------------------------------------------------

---The runtime folder exists, is ours and has mode 0700. Seed: EnsureSocketDir.
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: a link, a file or somebody else's folder is there;
---                           ERR_PERMISSION: it can't be made; ERR_INVALID: no runtime_dir is
---                           configured
function Manager:ensure_socket_dir(ctx)
  local ok, err = loop.check(ctx)
  if ok then ok, err = self:_need("runtime_dir", "socket_dir.ensure") end
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
