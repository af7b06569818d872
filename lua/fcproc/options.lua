-- Checks of arguments. A wrong type or an unknown option is a programmer's mistake and raises;
-- a value that can't work is the caller's input and comes back as nil, err.

local M = {}

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
---@param level integer?                as for error(); the default is the caller's caller
function M.check(options, known, what, level)
  level = (level or 2) + 1
  if options == nil then return end
  if type(options) ~= "table" then
    error(("%s: options must be a table, not a %s"):format(what, type(options)), level)
  end
  for key, value in pairs(options) do
    local types = known[key]
    if not types then
      error(("%s: unknown option '%s'; known: %s"):format(what, tostring(key), sorted_keys(known)),
        level)
    end
    local fits = types == "any" or types == type(value)
    if not fits then
      for accepted in types:gmatch("[^|]+") do
        fits = fits or accepted == type(value) or accepted == math.type(value)
          or (type(value) == "userdata" and accepted == getmetatable(value).__name)
      end
    end
    if not fits then
      error(("%s: option '%s' must be a %s, not a %s"):format(what, key,
        types:gsub("|", " or "), type(value)), level)
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
    error(("%s: %s must be a %s, not a %s"):format(what, name, wanted, type(value)), 3)
  end
end

return M
