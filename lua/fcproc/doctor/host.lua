-- What doctor's checks look at the host with: files, commands, and who we are.

local core = require "fcproc.core"

local M = {}

local COMMAND_TIMEOUT = 10       -- seconds: a check never hangs on a command
local MOST_OUTPUT = 64 * 1024 * 1024

-- Where administration programs are when a user's PATH leaves them out.
local ADMIN_FOLDERS = { "/usr/sbin/", "/sbin/", "/usr/local/sbin/" }

---@class fcproc.DoctorHost
---@field manager fcproc.Manager
---@field config table
---@field opts fcproc.DoctorOptions
---@field ctx fcproc.Context?
---@field uid integer  our effective user
local Host = {}
Host.__index = Host

M.CAP_NET_ADMIN = 12
M.CAP_SYS_ADMIN = 21

---A whole file, or nil when it can't be read.
---@param path string
---@return string?
function Host:read(path) -- luacheck: ignore self
  local file <close> = io.open(path, "rb")
  return file and file:read("a")
end

---A file of /proc that differs from one network namespace to another, as the manager's has it.
---@param path string
---@return string?
function Host:read_net(path)
  if not self.config.netns then return self:read(path) end
  local result = self:run({ "cat", path }, { netns = self.config.netns })
  return result and result.stdout
end

---Runs a command to its end.
---@param argv string[]
---@param opts fcproc.RunOptions?
---@return fcproc.RunResult? result
---@return fcproc.Error? err
function Host:run(argv, opts)
  local all = { timeout = COMMAND_TIMEOUT, output_limit = MOST_OUTPUT }
  for key, value in pairs(opts or {}) do all[key] = value end
  return self.manager.runner:run(argv, all, self.ctx)
end

---The same for a command that makes or removes something: it is not ended with our context, so
---that what it makes is always known, and removed all the same.
---@param argv string[]
---@return fcproc.RunResult? result
---@return fcproc.Error? err
function Host:run_whole(argv)
  local own <close>, err = core.context(nil, COMMAND_TIMEOUT)
  if not own then return nil, err end
  return self.manager.runner:run(argv, nil, own)
end

---A program of the administrator: its path, and whether PATH leads there.
---@param name string
---@return string? path
---@return boolean|fcproc.Error on_path
function Host:program(name) -- luacheck: ignore self
  local path, err = core.find_executable(name)
  if path then return path, true end
  for _, folder in ipairs(ADMIN_FOLDERS) do
    path = core.find_executable(folder .. name)
    if path then return path, false end
  end
  return nil, err
end

---Have we a capability, by its number?
---@param bit integer
---@return boolean
function Host:capable(bit)
  local set = tonumber((self:read("/proc/self/status") or ""):match("CapEff:%s*(%x+)") or "0", 16)
  return set >> bit & 1 == 1
end

---The path or its nearest parent that exists.
---@param path string  absolute
---@return string? folder
---@return fcproc.Error? err
function Host:existing(path) -- luacheck: ignore self
  while true do
    local found, err = core.absolute_path(path)
    if found then return found end
    if err.code ~= "not_found" or path == "/" then return nil, err end
    path = path:match("^(/.+)/[^/]*$") or "/"
  end
end

---A network namespace to try things in; it goes when it is closed.
---@return fcproc.Netns? netns
---@return fcproc.Error? err
function Host:scratch() -- luacheck: ignore self
  return core.netns()
end

---Is a network asked for? Who may make none himself has VMs without one, and asks by boot or uplink.
---@return boolean
function Host:wants_network()
  return self.opts.boot or self.opts.uplink ~= nil or self:capable(M.CAP_NET_ADMIN)
end

---What is said of a network that can't be: a failure only of what was asked for.
---@param message string
---@return "fail"|"warn" status, string message
function Host:no_network(message)
  if self:wants_network() then return "fail", message end
  return "warn", message .. "; VMs without a network run"
end

---What to say when there is no namespace to try in. Status, message, fix.
---@param what string  what would have been tried
---@param err fcproc.Error
---@return string status, string message, string fix
function Host:no_scratch(what, err)
  if self:capable(M.CAP_NET_ADMIN) then
    return "warn", ("%s could not be tried: %s"):format(what, err.message),
      "run doctor as root once: a namespace to try in needs CAP_SYS_ADMIN"
  end
  local status, message = self:no_network(("uid %d may not make %s, nor a namespace to try in: %s")
    :format(self.uid, what, err.message))
  return status, message, "run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
end

---@param manager fcproc.Manager
---@param opts fcproc.DoctorOptions
---@param ctx fcproc.Context?
---@return fcproc.DoctorHost
function M.new(manager, opts, ctx)
  local self = setmetatable({ manager = manager, config = manager.config, opts = opts, ctx = ctx },
    Host)
  local status = self:read("/proc/self/status") or ""
  self.uid = tonumber(status:match("Uid:%s*%d+%s+(%d+)")) or -1
  return self
end

return M
