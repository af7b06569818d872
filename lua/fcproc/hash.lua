-- One number for several texts, the same at each start.

local byte = string.byte

---The 64 bit FNV-1a hash of the texts, each ended by a NUL so that their borders count. It is
---quick and stable and no secret: who may choose ids may choose them to collide.
---@param ... string|integer
---@return integer
return function(...)
  local hash = 0xcbf29ce484222325
  for _, value in ipairs{ ... } do
    local text = tostring(value)
    for at = 1, #text do hash = (hash ~ byte(text, at)) * 0x100000001b3 end
    hash = hash * 0x100000001b3
  end
  -- The last bytes reach the high bits late, and takers of a few bits take the low ones.
  return hash ~ (hash >> 32)
end
