-- What doctor's checks look at the host with: files, commands, and who we are.

local core = require "fcproc.core"
local finally = require "fcproc.finally"
local rootless = require "fcproc.manager.rootless"

local M = {}

local COMMAND_TIMEOUT = 10       -- seconds: a check never hangs on a command
local MOST_OUTPUT = 64 * 1024 * 1024

---@class fcproc.DoctorHost
---@field manager fcproc.Manager
---@field config table
---@field opts fcproc.DoctorOptions
---@field ctx fcproc.Context?
---@field uid integer  our effective user
local Host = {}
Host.__index = Host

---A whole file, or nil when it can't be read.
---@param path string
---@return string?
function Host:read(path) -- luacheck: ignore self
  return (core.read_file(core.absolute_path(path) or path))
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

---Is the network that of namespaces of an ordinary user's own?
---@return boolean
function Host:is_rootless() return self.config.privilege == "rootless" end

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

---A new folder, of which remove_folder is the end.
---@return string? path
---@return fcproc.Error? err
function Host:make_folder()
  local made, err = self:run_whole{ "mktemp", "-d", "-t", "fcproc-doctor.XXXXXX" }
  if not made then return nil, err end
  return (made.stdout:gsub("\n$", ""))
end

---@param path string
function Host:remove_folder(path) self:run_whole{ "rm", "-rf", "--", path } end

---A network namespace to try things in, like the manager's; it goes when it is closed.
---@param pasta string?  of a rootless one: its path, for an uplink
---@return fcproc.Netns? netns
---@return boolean|fcproc.Error|nil up  there was an uplink; or the error
function Host:scratch(pasta)
  if not self:is_rootless() then return core.netns() end
  local folder, err = self:make_folder()
  if not folder then return nil, err end
  local removing <close> = finally(function() -- luacheck: ignore removing
    self:remove_folder(folder)
  end)
  return rootless.scratch(folder, pasta, self.ctx)
end

---Is a network asked for? Who may make none on this host has VMs without one, and asks by boot, uplink or
---privilege.
---@return boolean
function Host:wants_network()
  return self.opts.boot or self.opts.uplink ~= nil or self:is_rootless() and self.config.chosen
    or rootless.may_make_links()
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
  if rootless.may_make_links() then
    return "warn", ("%s could not be tried: %s"):format(what, err.message),
      "run doctor as root once: a namespace to try in needs CAP_SYS_ADMIN"
  end
  if self:is_rootless() then
    local status, message = self:no_network(what .. " can't be made: there is no namespace for that")
    return status, message, "see the check rootless"
  end
  local status, message = self:no_network(("uid %d may not make %s, nor a namespace to try in: %s")
    :format(self.uid, what, err.message))
  return status, message, "leave out privilege and netns, and give a runtime_dir: then they are in "
    .. "namespaces of your own; or run as root"
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
