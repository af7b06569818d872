-- Programs of the host: on PATH, or where administration programs are. An ordinary user's PATH leaves
-- those folders out on Debian.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

local ADMIN_FOLDERS = { "/usr/sbin/", "/sbin/", "/usr/local/sbin/" }

---@param name string
---@return string? path
---@return boolean|fcproc.Error on_path  does PATH lead there? Or the error: ERR_NOT_FOUND;
---                                      ERR_PERMISSION: it can't be executed
function M.find(name)
  local path, err = core.find_executable(name)
  if path then return path, true end
  if err.code ~= "not_found" then return nil, err end
  for _, folder in ipairs(ADMIN_FOLDERS) do
    path = core.find_executable(folder .. name)
    if path then return path, false end
  end
  return nil, err
end

---The same of one that is needed.
---@param name string
---@param op string
---@param missing string  the message when it is not there, which says what installs it
---@return string? path
---@return fcproc.Error? err  ERR_NOT_FOUND; ERR_PERMISSION: it can't be executed
function M.need(name, op, missing)
  local path, err = M.find(name)
  if path then return path end
  ---@cast err fcproc.Error
  if err.code ~= "not_found" then return nil, err end
  return nil, errors.new{ code = "not_found", op = op, message = missing }
end

return M
