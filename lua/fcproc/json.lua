-- Writes JSON that Firecracker can read. lua-cjson is right for most, but writes an empty list as
-- an empty object, and numbers with 14 digits at most: a rate limiter of 100 TB becomes 1e+14,
-- which is no integer there. Here the body's type says what is a list, and integers stay integers.

local cjson = require "cjson.safe"
local errors = require "fcproc.error"

local M = {}

local DEEPEST = 100 -- also ends a table that holds itself

---What a null is in a decoded table, and what writes one.
M.null = cjson.null

local function is_list(value)
  local n = 0
  for key in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 then return false end
    n = n + 1
  end
  return n == #value and n > 0
end

---Why a value can't be written as JSON, and where in it; nil when it can.
---@param value any
---@param where string?  the place of value
---@param depth integer?
---@return string? complaint
function M.complaint(value, where, depth)
  where, depth = where or "", depth or 1
  local kind = type(value)
  if kind == "number" then
    if value ~= value or value == math.huge or value == -math.huge then
      return where .. " is no number that JSON has"
    end
  elseif kind == "string" then
    if not utf8.len(value) then return where .. " is not UTF-8" end
  elseif kind == "table" then
    if depth > DEEPEST then
      return ("%s... is nested too deep, or holds itself"):format(where:sub(1, 60))
    end
    local as_list = is_list(value)
    for key, item in pairs(value) do
      if not as_list and type(key) ~= "string" then
        return ("%s is neither a list nor an object: it has the key %s"):format(where,
          tostring(key))
      end
      local place = as_list and ("%s[%d]"):format(where, key) or where .. "." .. key
      local complaint = M.complaint(item, place, depth + 1)
      if complaint then return complaint end
    end
  elseif kind ~= "boolean" and value ~= cjson.null then
    return ("%s is a %s, which JSON does not have"):format(where, kind)
  end
end

-- "line 3, column 7: expected ...": lua-cjson counts bytes, and a file's reader lines.
local function placed(text, complaint)
  local words, at = complaint:match("^(.*) at character (%d+)$")
  if not at then return complaint end
  local before = text:sub(1, tonumber(at) - 1)
  local _, lines = before:gsub("\n", "")
  return ("line %d, column %d: %s"):format(lines + 1, #before:match("[^\n]*$") + 1,
    (words:gsub("^%u", string.lower)))
end

---Reads JSON.
---@param text string
---@return any? value
---@return string? complaint  with line and column
function M.read(text)
  local value, complaint = cjson.decode(text)
  if value == nil then return nil, placed(text, complaint) end
  return value
end

---Makes a decoded answer one that Lua code can use without a thought: whole numbers are integers
---(lua-cjson makes floats of all, and 16 is shown as 16.0), and what is null is not there (a null
---is a value that is true). It changes the table that it is given.
---@param value any
---@param keep_nulls boolean?  the data is somebody's own, where a null may mean something
---@return any value
function M.plain(value, keep_nulls)
  if math.type(value) == "float" then return math.tointeger(value) or value end
  if type(value) ~= "table" then return value end
  for key, item in pairs(value) do
    -- Not in a list, where it would leave a hole.
    local drop = item == cjson.null and not keep_nulls and type(key) == "string"
    if drop then value[key] = nil else value[key] = M.plain(item, keep_nulls) end
  end
  return value
end

-- ---- bytes that are no UTF-8 -------------------------------------------------------------------

-- A path may be any bytes, and JSON holds UTF-8 alone. So what is kept for ourselves has, for a string
-- that is none, a zero byte, which no path has, and its bytes in hexadecimal digits.
local MARK = "\0"

local function map_strings(value, fn)
  if type(value) == "string" then return fn(value) end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = map_strings(item, fn) end
  return copy
end

local function to_digits(text)
  if utf8.len(text) then return text end
  return MARK .. text:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
end

local function from_digits(text)
  if text:sub(1, 1) ~= MARK or text:find("[^%x]", 2) or #text % 2 == 0 then return text end
  local bytes = text:sub(2):gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)
  return utf8.len(bytes) and text or bytes -- to_digits made none of it
end

---A table whose strings JSON can hold, for M.restored to give back.
---@param value table
---@return table
function M.kept(value) return map_strings(value, to_digits) end

---Reads what was written of M.kept.
---@param text string
---@return any? value
function M.restored(text)
  local value = cjson.decode(text)
  if text:find("\\u0000", 1, true) then value = map_strings(value, from_digits) end
  return value
end

-- ---- writing -----------------------------------------------------------------------------------

local write

local function write_list(value, type)
  local parts = {}
  for i, item in ipairs(value) do parts[i] = write(item, type and type.of) end
  return "[" .. table.concat(parts, ",") .. "]"
end

-- In the order of their names, so that one table is one text. In a typed object a null is as good
-- as nothing; in free data it says something (a PATCH of /mmds removes by it).
local function write_object(value, type)
  local fields = type and type.fields
  local names, parts = {}, {}
  for name, item in pairs(value) do
    if not (fields and item == cjson.null) then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do
    parts[i] = cjson.encode(errors.utf8(name)) .. ":" .. write(value[name], fields and fields[name])
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

write = function(value, body_type)
  if math.type(value) == "float" then
    local whole = math.tointeger(value)
    return whole and ("%d"):format(whole) or ("%.17g"):format(value)
  end
  if math.type(value) == "integer" then return ("%d"):format(value) end
  if type(value) == "string" then return cjson.encode(errors.utf8(value)) end
  if type(value) ~= "table" then return cjson.encode(value) end
  if body_type and body_type.kind == "either" then body_type = body_type.table end
  local as_list = is_list(value)
  if body_type and body_type.kind == "list" then as_list = true end
  return (as_list and write_list or write_object)(value, body_type)
end

---Writes a value of which M.complaint had nothing to say; of bytes that are no UTF-8 "\xff" stands there.
---@param value any
---@param type fcproc.BodyType?  which empty tables are lists
---@return string
function M.write(value, type)
  return write(value, type)
end

---The same, five times as fast where lua-cjson does it right: not in order, and with 14 digits of a
---fraction.
---@param value table
---@param type fcproc.BodyType?
---@return string
function M.write_quickly(value, type)
  local text = cjson.encode(value)
  local wrong = not text or text:find("e+", 1, true) -- perhaps an integer that has lost digits
  if not wrong and type then -- {} may be a list, and a null is to be left out
    wrong = text:find("{}", 1, true) or text:find("null", 1, true)
  end
  return wrong and M.write(value, type) or text
end

return M
