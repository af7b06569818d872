-- Something to do at the end of a block, however it is left: by a return, an error or a cancel.

local Finally = { __close = function(self) self[1]() end }

---    local _ <close> = finally(function() handle:close() end)
---@param fn fun()
---@return table  to be held in a closing variable
return function(fn)
  return setmetatable({ fn }, Finally)
end
