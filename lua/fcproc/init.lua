-- fcproc: launches, inspects and tears down Firecracker microVMs. This file is only the facade:
-- it says what is public and where it lives.
--
-- Every call that can fail returns nil, err (see error.lua); a wrong argument type raises. Times
-- are seconds. The last argument of what can block is a context (see context.lua).

local api = require "fcproc.api"
local config = require "fcproc.manager.config"
local context = require "fcproc.context"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local guest = require "fcproc.guest"
local loop = require "fcproc.loop"
local manager = require "fcproc.manager"
local options = require "fcproc.options"
local process = require "fcproc.process"
local runner = require "fcproc.runner"

---@class fcproc
---@field VERSION string
---@field codes { name: string, code: string, meaning: string }[]  all codes of errors; fcproc.ERR_BUSY and
---                      so on are sentinels for them
---@field vm table<string, function>      VMs; loaded when it is first used
---@field image table<string, function>   images of disks; loaded when it is first used
---@field doctor table<string, function>  the checks of a host; loaded when it is first used
local M = {
  VERSION = core.version,
  now = core.now,
  new = manager.new,
  context = context.new,
  run = loop.run,
  wait_for_signal = loop.wait_for_signal,
  runner = runner.new,
  request = api.request,
  client = api.client,
  spawn = process.spawn,
  process = process.open,
  codes = errors.codes,
  guest_path = guest.path,
  runtime_dir = config.runtime_dir,
  is_error = errors.is_error,
}

for name, sentinel in pairs(errors.sentinels) do M[name] = sentinel end

---Opens a network namespace: a name is looked for in /run/netns, a path is taken as it is.
---@param name string
---@return fcproc.Netns? netns
---@return fcproc.Error? err  ERR_NOT_FOUND: there is none of that name; ERR_INVALID: it is no
---                           namespace; ERR_PERMISSION
function M.netns(name)
  options.argument(name, "string", "fcproc.netns", "name")
  return core.netns(name)
end

---Makes a network namespace with no name. It lasts as long as this object, or a process in it.
---@return fcproc.Netns? netns
---@return fcproc.Error? err  ERR_PERMISSION: it needs root or CAP_SYS_ADMIN
function M.new_netns()
  return core.netns()
end

-- The flows are loaded when they are first used: scripts that only want primitives don't pay.
return setmetatable(M, { __index = function(_, name)
  if name == "vm" or name == "image" or name == "doctor" then
    local module = require("fcproc." .. name)
    if name == "vm" then
      module._use_images(function(...) return require("fcproc.image.launch").spec(...) end)
    end
    rawset(M, name, module)
    return module
  end
end })
