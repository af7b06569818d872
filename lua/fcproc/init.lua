-- fcproc: launches, inspects and tears down Firecracker microVMs. This file is only the facade:
-- it says what is public and where it lives.
--
-- Every call that can fail returns nil, err (see error.lua); a wrong argument type raises. Times
-- are seconds. The last argument of what can block is a context (see context.lua).

local api = require "fcproc.api"
local context = require "fcproc.context"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local manager = require "fcproc.manager"
local options = require "fcproc.options"
local process = require "fcproc.process"
local runner = require "fcproc.runner"
local vm = require "fcproc.vm"

---@class fcproc
local M = {
  VERSION = core.version,
  now = core.now,
  new = manager.new,
  context = context.new,
  run = loop.run,
  runner = runner.new,
  request = api.request,
  client = api.client,
  spawn = process.spawn,
  process = process.open,
  codes = errors.codes,
  vm = vm,
  is_error = errors.is_error,
}

for name, sentinel in pairs(errors.sentinels) do M[name] = sentinel end

---Opens a network namespace: a name is looked for in /run/netns, a path is taken as it is.
---@param name string
---@return fcproc.Netns? netns
---@return fcproc.Error? err
function M.netns(name)
  options.argument(name, "string", "fcproc.netns", "name")
  return core.netns(name)
end

---Makes a network namespace with no name. It lasts as long as this object, or a process in it.
---@return fcproc.Netns? netns
---@return fcproc.Error? err
function M.new_netns()
  return core.netns()
end

---The built-in guest: a kernel of a few KiB that proves that this host can run VMs. It is beside
---the C module, or where the library was installed.
---@return string? path  absolute
---@return fcproc.Error? err  ERR_NOT_FOUND; there is none for aarch64
function M.guest_path()
  local module = package.searchpath("fcproc.core", package.cpath)
  local beside = module and module:gsub("[^/]*$", "guest.elf")
  local path = beside and core.absolute_path(beside)
  if path then return path end
  local installed = core.guest_path()
  local cause
  path, cause = core.absolute_path(installed)
  if path then return path end
  return nil, errors.new{
    code = cause.code, op = "guest.path", path = installed, cause = cause,
    message = ("the built-in guest is neither beside the module nor at %s"):format(installed),
  }
end

return M
