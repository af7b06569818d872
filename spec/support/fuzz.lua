-- Makes hostile texts of good ones, and counts what a reader makes of them. See spec/fuzz.

local cjson = require "cjson"
local records = require "spec.support.records"
local core = require "fcproc.core"

local M = {}

local random = math.random

local function pick(list) return list[random(#list)] end

-- All places of a record: { table, key }.
local function places(value, found)
  found = found or {}
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end) -- one seed, one run
  for _, key in ipairs(keys) do
    found[#found + 1] = { value, key }
    if type(value[key]) == "table" then places(value[key], found) end
  end
  return found
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local new = {}
  for key, item in pairs(value) do new[key] = copy(item) end
  return new
end

-- Changes of the record itself.
local changes = {
  function(list) -- another place's value
    local from, to = pick(list), pick(list)
    to[1][to[2]] = copy(from[1][from[2]])
  end,
  function(list)
    local to = pick(list)
    if math.type(to[2]) ~= "integer" then to[1][to[2]] = nil end
  end,
  function(list) -- a number near a limit
    local to = pick(list)
    to[1][to[2]] = pick{ -1, 0, 1, 2, 255, 65535, 65536, 2 ^ 31 - 1, 2 ^ 31, 2 ^ 32 - 1, 2 ^ 32, 2 ^ 53, 0.5 }
  end,
  function(list) -- a path that leads elsewhere
    local to = pick(list)
    local value = to[1][to[2]]
    if type(value) == "string" then
      to[1][to[2]] = pick{ "../" .. value, value .. "/..", value .. "/../../x", "/" .. value, value .. "/x",
        value:upper(), value .. ".partial", value:rep(50), value:sub(2), " " .. value, value .. "\n" }
    end
  end,
}

local function change_record(record)
  for _ = 1, random(3) do
    local list = places(record)
    if #list == 0 then break end
    local ok = pcall(pick(changes), list)
    assert(ok)
  end
  local text
  local ok = pcall(function() text = cjson.encode(record) end)
  return ok and text or "{}"
end

-- Changes of its text.
local cuts = {
  function(text) return text:sub(1, random(0, #text)) end,
  function(text) return text:sub(random(#text)) end,
  function(text) -- one byte
    local at = random(#text)
    return text:sub(1, at - 1) .. string.char(random(0, 255)) .. text:sub(at + 1)
  end,
  function(text)
    local from, to = random(#text), random(#text)
    return text:sub(1, from) .. text:sub(to)
  end,
  function(text) return text:rep(random(2, 40)) end,
  function(text) -- a value, by one that may be anything
    local at = random(#text)
    local from, to = text:find(":[^,{}%[%]]+", at)
    if not from then return text end
    return text:sub(1, from) .. pick(records.VALUES) .. text:sub(to + 1)
  end,
}

---A hostile text of a good record, which is changed.
---@param record table
---@return string
function M.text(record)
  local text = random(4) > 1 and change_record(record) or cjson.encode(record)
  while random(3) == 1 and #text > 0 and #text < 4 << 20 do text = pick(cuts)(text) end
  return text
end

---Runs fn over and over. It gets nothing, and returns the text that it was about; it raises for what
---must not be. Ends the process, with 1 when it did.
---@param name string
---@param fn fun(): string, boolean  the text, and whether it was read
---@param last fun(): string          the text that was tried last
function M.run(name, fn, last)
  local seconds = tonumber(arg[1]) or 30
  local seed = math.tointeger(tonumber(arg[2])) or os.time()
  math.randomseed(seed)
  local began, n, read = core.now(), 0, 0
  while core.now() - began < seconds do
    n = n + 1
    local ok, result = xpcall(fn, debug.traceback)
    if not ok then
      io.stderr:write(("%s, seed %d, text %d: %s\n%s\n"):format(name, seed, n, result, last():sub(1, 20000)))
      return false
    end
    if result then read = read + 1 end
  end
  print(("%s: %d texts in %d s, %d of them were read, seed %d"):format(name, n, seconds, read, seed))
  return true
end

return M
