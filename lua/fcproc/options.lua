-- Checks of arguments. A wrong type or an unknown option is a programmer's mistake and raises;
-- a value that can't work is the caller's input and comes back as nil, err.

local M = {}

-- Where fcproc's own files are, as Lua names their chunks: "@/usr/share/lua/5.4/fcproc/", or "=fcproc." in
-- a C host. A host may have no debug library: then an error names no line.
local getinfo = type(debug) == "table" and debug.getinfo
local OWN = getinfo and getinfo(1, "S").source:gsub("options%.?%a*$", "")

local function is_own(source)
  return source:sub(1, #OWN) == OWN or source == "=fcproc" or source:sub(1, 2) == "=["
end

---Raises an error that names the line of the caller's script, however deep in our own code it is found.
---@param message string
function M.raise(message)
  local level = 2
  local info = getinfo and getinfo(level, "S")
  while info and is_own(info.source) do
    level = level + 1
    info = getinfo(level, "S")
  end
  error(message, info and level or 0)
end

---A word with its article.
---@param word string
---@return string
function M.a(word) return (word:find("^[aeiou]") and "an " or "a ") .. word end

local function sorted_keys(known)
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

---Raises unless every key of options is known and of one of its types ("string|number").
---@param options table?
---@param known table<string, string>  option name to accepted types, by type() or math.type()
---@param what string                   for the message: "fcproc.new"
function M.check(options, known, what)
  if options == nil then return end
  if type(options) ~= "table" then
    M.raise(("%s: options must be a table, not a %s"):format(what, type(options)))
  end
  for key, value in pairs(options) do
    local types = known[key]
    if not types then
      M.raise(("%s: unknown option '%s'; known: %s"):format(what, tostring(key), sorted_keys(known)))
    end
    local fits = types == "any" or types == type(value)
    if not fits then
      for accepted in types:gmatch("[^|]+") do
        fits = fits or accepted == type(value) or accepted == math.type(value)
          or (type(value) == "userdata" and accepted == getmetatable(value).__name)
      end
    end
    if not fits then
      M.raise(("%s: option '%s' must be %s, not a %s"):format(what, key, M.a(types:gsub("|", " or ")),
        type(value)))
    end
  end
end

---Raises unless value has the type.
---@param value any
---@param wanted string
---@param what string
---@param name string
function M.argument(value, wanted, what, name)
  if type(value) ~= wanted and math.type(value) ~= wanted then
    M.raise(("%s: %s must be %s, not a %s"):format(what, name, M.a(wanted), type(value)))
  end
end

---Raises unless value is seconds, or nil.
---@param value any
---@param what string
function M.timeout(value, what)
  if value ~= nil then M.argument(value, "number", what, "timeout") end
end

return M
