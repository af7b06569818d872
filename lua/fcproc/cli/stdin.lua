-- What is given on stdin, for an argument that is "-".

local errors = require "fcproc.error"

---@return string? text
---@return fcproc.Error? err  ERR_INVALID: it is a folder, say
return function()
  local text, reason = io.stdin:read("a")
  if text then return text end
  return nil, errors.new{ code = "invalid", op = "cli.arguments",
    message = ("stdin can't be read: %s"):format(reason or "it is closed") }
end
