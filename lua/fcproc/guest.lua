-- The built-in guest: a kernel of a few KiB that proves that this host can run VMs. And the init that a
-- distribution's kernel gets from fcproc.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

local found = {} -- for each name and search path: where they are does not change

-- A file for guests: beside the C module, or where the library was installed.
local function find(name, what, op)
  local key = name .. "\0" .. package.cpath
  if found[key] then return found[key] end
  local module = package.searchpath("fcproc.core", package.cpath)
  local beside = module and module:gsub("[^/]*$", name)
  local path = beside and core.absolute_path(beside)
  found[key] = path
  if path then return path end
  local installed = core.guest_path():gsub("[^/]*$", name)
  local cause
  path, cause = core.absolute_path(installed)
  if path then return path end
  return nil, errors.new{
    code = cause.code, op = op, path = installed, cause = cause,
    message = ("%s is neither beside the module nor at %s"):format(what, installed),
  }
end

---Where it is: beside the C module, or where the library was installed.
---@return string? path  absolute
---@return fcproc.Error? err  ERR_NOT_FOUND; there is none for aarch64
function M.path()
  return find("guest.elf", "the built-in guest", "guest.path")
end

---Where the guests' /init is: a static program for an initrd.
---@return string? path  absolute
---@return fcproc.Error? err  ERR_NOT_FOUND
function M.init_path()
  return find("init", "the guests' init", "guest.init_path")
end

return M
