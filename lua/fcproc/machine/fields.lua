-- Judges a table by a type as in bodies.lua, and says what is wrong, where, and what would be right.

local errors = require "fcproc.error"
local json = require "fcproc.json"
local version_of = require "fcproc.machine.version"

local M = {}

local LONGEST = 500 -- a message shows what was given, which may be a file by mistake

local function complain(code, format, ...)
  local message = format:format(...)
  if #message > LONGEST then message = message:sub(1, LONGEST) .. "..." end
  return errors.new{ code = code, op = "api.check", message = message }
end

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- The same for the fields of a type, which never change: sorting took most of a check's time.
local names_of = setmetatable({}, { __mode = "k", __call = function(known, fields)
  known[fields] = known[fields] or sorted(fields)
  return known[fields]
end })

-- How many letters must be changed to make b of a (Levenshtein).
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local changed = diagonal + (a:byte(i) == b:byte(j) and 0 or 1)
      diagonal = row[j]
      row[j] = math.min(changed, row[j] + 1, row[j - 1] + 1)
    end
  end
  return row[#b]
end

---The name that the writer may have meant.
---@param name string
---@param known string[]
---@return string? nearest
function M.nearest(name, known)
  local best, least = nil, math.max(2, #name // 3) + 1
  for _, candidate in ipairs(known) do
    -- What is much longer can't be near, and a name from elsewhere may be megabytes.
    if math.abs(#name - #candidate) < least then
      local d = distance(name:lower(), candidate:lower())
      if d < least then best, least = candidate, d end
    end
  end
  return best
end

local function join(place, name)
  return place == "" and name or place .. "." .. name
end

local judge -- (version, type, value, place) -> fcproc.Error?

local function too_new(version, since, place)
  if version_of.at_least(version, since) ~= false then return nil end
  return complain("unsupported", "%s needs Firecracker >= %s, this is %s", place, version_of.words(since),
    version)
end

local function wrong(place, wanted, value)
  local is = type(value)
  if value == json.null then is = "null" end
  return complain("invalid", "%s must be %s, not a %s", place, wanted, is)
end

local function at(place)
  return place == "" and "the configuration" or place
end

-- One for each kind: what is wrong with the value, or nil.
local judges = {}

judges.boolean = function(_, _, value, place)
  if type(value) ~= "boolean" then return wrong(place, "true or false", value) end
end

judges.integer = function(_, type, value, place)
  local whole = math.type(value) and math.tointeger(value)
  if not math.type(value) then return wrong(place, "an integer", value) end
  local min, max = type.min, type.max
  if whole and whole >= min and (not max or whole <= max) then return nil end
  return complain("invalid", "%s must be an integer %s, not %s", place,
    max and ("from %d to %d"):format(min, max) or ("of %d or more"):format(min), value)
end

judges.string = function(version, body_type, value, place)
  if type(value) ~= "string" then return wrong(place, "a string", value) end
  if not body_type.bytes and not utf8.len(value) then
    return complain("invalid", "%s is not UTF-8", place)
  end
  if body_type.max and #value > body_type.max then
    return complain("invalid", "%s has %d bytes, and at most %d work", place, #value, body_type.max)
  end
  local values = body_type.values
  if not values then return nil end
  local since = values[value]
  if body_type.fold then
    for known, its in pairs(values) do
      if known:lower() == value:lower() then since = its end
    end
  end
  if since == true then return nil end
  if since then return too_new(version, since, ("%s = %s"):format(place, value)) end
  if version_of.beyond_the_table(version) then return nil end
  return complain("invalid", "%s must be one of %s, not '%s'", place,
    table.concat(sorted(values), ", "), value)
end

judges.list = function(version, body_type, value, place)
  if type(value) ~= "table" then return wrong(place, "a list", value) end
  for key in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 or key > #value then
      return complain("invalid", "%s must be a list: it has the key %s", place, tostring(key))
    end
  end
  if body_type.filled and #value == 0 then
    return complain("invalid", "%s must not be empty", place)
  end
  for i, item in ipairs(value) do
    local err = judge(version, body_type.of, item, ("%s[%d]"):format(place, i))
    if err then return err end
  end
end

local function unknown_field(fields, name, place)
  local known = sorted(fields)
  local near = type(name) == "string" and M.nearest(name, known)
  return complain("invalid", "%s: unknown field '%s'%s; known: %s",
    at(place), tostring(name),
    near and ("; did you mean '%s'?"):format(near) or "", table.concat(known, ", "))
end

judges.object = function(version, body_type, value, place)
  if type(value) ~= "table" then return wrong(at(place), "a table", value) end
  local fields, present = body_type.fields, {}
  for name, field in pairs(value) do
    if field ~= json.null then present[name] = field end
  end
  for name in pairs(present) do
    -- What a later Firecracker than the table does not know, it says itself.
    if not fields[name] and not body_type.open
      and not (type(name) == "string" and version_of.beyond_the_table(version)) then
      return unknown_field(fields, name, place)
    end
  end
  -- In the order of their names, so that of two mistakes the same one is always told first.
  for _, name in ipairs(names_of(fields)) do
    local type, its_place = fields[name], join(place, name)
    if present[name] == nil then
      if type.required then return complain("invalid", "%s is missing", its_place) end
    else
      local err = too_new(version, type.since, its_place)
        or judge(version, type, present[name], its_place)
      if err then return err end
    end
  end
  local complaint = body_type.rule and body_type.rule(present)
  if complaint then return complain("invalid", "%s: %s", at(place), complaint) end
end

judges.map = function(version, body_type, value, place)
  if type(value) ~= "table" or #value > 0 then return wrong(place, "a table with names", value) end
  if body_type.of then
    for _, name in ipairs(sorted(value)) do
      local complaint = body_type.name and body_type.name(name)
      if complaint then return complain("invalid", "%s: '%s' %s", place, name, complaint) end
      local err = judge(version, body_type.of, value[name], join(place, name))
      if err then return err end
    end
  end
  local complaint = json.complaint(value, place)
  return complaint and complain("invalid", "%s", complaint)
end

judges.either = function(version, body_type, value, place)
  if type(value) == "string" then return judge(version, body_type.string, value, place) end
  if type(value) ~= "table" then return wrong(place, "a string or a table", value) end
  return too_new(version, body_type.table.since, place .. " as a table")
    or judge(version, body_type.table, value, place)
end

judge = function(version, body_type, value, place)
  local err = judges[body_type.kind](version, body_type, value, place)
  if err then return err end
  if body_type.kind == "string" and body_type.rule then
    local complaint = body_type.rule(value)
    return complaint and complain("invalid", "%s %s", place, complaint)
  end
end

---Checks a value.
---@param version string?  of the binary; nil: not known
---@param body_type fcproc.BodyType
---@param value any
---@param place string     what to call it in an error
---@return boolean? ok
---@return fcproc.Error? err
function M.check(version, body_type, value, place)
  local err = judge(version, body_type, value, place)
  if err then return nil, err end
  return true
end

return M
