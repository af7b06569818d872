-- The built-in guest: a kernel of a few KiB that proves that this host can run VMs.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

local found = {} -- for each search path: where it is does not change

---Where it is: beside the C module, or where the library was installed.
---@return string? path  absolute
---@return fcproc.Error? err  ERR_NOT_FOUND; there is none for aarch64
function M.path()
  if found[package.cpath] then return found[package.cpath] end
  local module = package.searchpath("fcproc.core", package.cpath)
  local beside = module and module:gsub("[^/]*$", "guest.elf")
  local path = beside and core.absolute_path(beside)
  found[package.cpath] = path
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
