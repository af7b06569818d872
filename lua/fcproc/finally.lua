-- Something to do at the end of a block, however it is left: by a return, an error or a cancel.

---    local _ <close> = finally(function() handle:close() end)
---@param fn fun()
---@return table  to be held in a closing variable
return function(fn)
  return setmetatable({}, { __close = function() fn() end })
end
