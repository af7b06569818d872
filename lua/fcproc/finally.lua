-- Something to do at the end of a block, however it is left: by a return, an error, a cancel or an
-- interrupt, which does not end it in the middle.

local core = require "fcproc.core"

local Finally = { __close = core.uninterruptible(function(self) self[1]() end) }

---    local _ <close> = finally(function() handle:close() end)
---@param fn fun()
---@return table  to be held in a closing variable
return function(fn)
  return setmetatable({ fn }, Finally)
end
