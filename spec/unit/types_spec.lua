-- The types: what the C module binds is what core.d.lua declares, read from the sources and asked
-- of the loaded module; and every public function says what it takes.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

-- What each type of the C module is called in core.d.lua. The guard is never seen in Lua.
local class_of = {
  ["fcproc.context"] = "Context", ["fcproc.op"] = "Operation", ["fcproc.process"] = "Process",
  ["fcproc.netns"] = "Netns", ["fcproc.net"] = "Net", ["fcproc.client"] = "CoreClient",
  ["fcproc.capper"] = "Capper",
  ["fcproc.keys"] = "Keys",
  ["fcproc.lock"] = "Lock",
}
local image_class_of = { ["fcproc.image.tree"] = "Tree", ["fcproc.image.job"] = "Job",
  ["fcproc.image.target"] = "Target", ["fcproc.image.pipe"] = "Pipe" }

-- What Lua files add to a type of the C module.
local added_in_lua = { ["Process:wait"] = true, ["Process:signal"] = true }

local function files(pattern)
  local list = {}
  for name in support.sh{ "git", "ls-files", "--cached", "--others", "--exclude-standard", pattern }
    :gmatch("[^\n]+") do
    list[#list + 1] = name
  end
  assert.is_true(#list > 0, pattern)
  return list
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

-- Every function of a Lua file: { name, parameters, comment }, the comment being the block of lines
-- directly above it.
local function functions_of(path)
  local list, block = {}, {}
  for line in (support.read_file(path) .. "\n"):gmatch("([^\n]*)\n") do
    local name, parameters = line:match("^function ([%w_.:]+)%((.-)%)")
    if name then
      local comment = table.concat(block, "\n")
      list[#list + 1] = { name = name, parameters = parameters, comment = comment }
    end
    if line:match("^%-%-") then block[#block + 1] = line else block = {} end
  end
  return list
end

-- "Class:method" and "core.name" for all that the luaL_Reg tables of a binding hold.
local function bound_names(module, pattern, header)
  local type_names, names, entries = {}, {}, 0
  header = support.read_file(header)
  for macro, text in header:gmatch('#define (TYPE_%w+)%s+"([%w.]+)"') do
    type_names[macro] = text
  end
  for _, path in ipairs(files(pattern)) do
    local text = support.read_file(path)
    local owner = {} -- luaL_Reg table to what it is for
    for macro, reg in text:gmatch("[%l_]+%(L, (TYPE_%w+), ([%w_]+)[,)]") do
      owner[reg] = class_of[type_names[macro]] or image_class_of[type_names[macro]]
      if owner[reg] then names[owner[reg] .. ":close"] = true end -- bind_type adds it
    end
    for reg in text:gmatch("luaL_setfuncs%(L, ([%w_]+), 0%)") do
      owner[reg] = owner[reg] or module
    end
    for reg in text:gmatch("luaL_newlib%(L, ([%w_]+)%)") do owner[reg] = module end
    for reg, body in text:gmatch("static const luaL_Reg ([%w_]+)%[%] = (%b{})") do
      for name in body:gmatch('{%s*"([%w_]+)"%s*,') do
        assert.is_truthy(owner[reg], ("%s: nobody uses %s, which holds %s"):format(path, reg, name))
        names[owner[reg] .. (owner[reg] == module and "." or ":") .. name] = true
        entries = entries + 1
      end
    end
    -- No other way in: each table is one of those that were read.
    local _, mentioned = text:gsub("luaL_Reg [%w_]+%[", "")
    local _, read = text:gsub("static const luaL_Reg [%w_]+%[%] = {", "")
    assert.are.equal(mentioned, read, path)
  end
  assert.is_true(entries > (module == "core" and 30 or 5), "the tables were not understood")
  return names
end

describe("core.d.lua", function()
  local declared = functions_of("lua/fcproc/core.d.lua")

  it("declares every function that a luaL_Reg table binds, and no other", function()
    local names = {}
    for _, fn in ipairs(declared) do names[fn.name] = true end
    assert.are.same(sorted(bound_names("core", "csrc/lua/*.c", "csrc/lua/binding.h")), sorted(names))
  end)

  it("has its like for imagecore", function()
    local names = {}
    for _, fn in ipairs(functions_of("lua/fcproc/imagecore.d.lua")) do
      names[fn.name] = true
      for parameter in fn.parameters:gmatch("[%w_]+") do
        assert.is_truthy(fn.comment:find("---@param " .. parameter .. " ", 1, true),
          ("%s: no ---@param %s"):format(fn.name, parameter))
      end
    end
    assert.are.same(sorted(bound_names("imagecore", "csrc/image/bind*.c", "csrc/image/bind.h")),
      sorted(names))
  end)

  it("declares what the loaded module holds, and no other", function()
    local module, types = {}, {}
    local class, is_core
    for line in support.read_file("lua/fcproc/core.d.lua"):gmatch("[^\n]+") do
      class = line:match("^%-%-%-@class ([%w.]+)")
      if class then is_core = class == "fcproc.core" end
      local field = is_core and line:match("^%-%-%-@field ([%w_]+)")
      if field then module[field] = true end
    end
    for _, fn in ipairs(declared) do
      local owner, name = fn.name:match("^([%w_]+)[.:]([%w_]+)$")
      if owner == "core" then
        module[name] = true
      else
        types[owner .. ":" .. name] = true
      end
    end
    assert.are.same(sorted(core), sorted(module))

    local loaded = {}
    for type_name, owner in pairs(class_of) do
      for name in pairs(debug.getregistry()[type_name].__index) do
        local full = owner .. ":" .. name
        if not added_in_lua[full] then loaded[full] = true end
      end
    end
    assert.are.same(sorted(loaded), sorted(types))
  end)

  it("names every parameter with its type, and says what each function does", function()
    for _, fn in ipairs(declared) do
      for parameter in fn.parameters:gmatch("[%w_]+") do
        assert.is_truthy(fn.comment:find("---@param " .. parameter .. " ", 1, true),
          ("%s: no ---@param %s"):format(fn.name, parameter))
      end
      assert.is_truthy(fn.comment:find("^%-%-%-[%w{]") or fn.comment:find("\n%-%-%-[%w{]"),
        fn.name .. ": not a word on what it does")
    end
  end)

  it("uses no class that nobody declares", function()
    local classes, used = {}, {}
    for _, path in ipairs(files("lua/fcproc/*.lua")) do
      local text = support.read_file(path)
      for class in text:gmatch("%-%-%-@[ac]l[ia]%l+ ([%w.]+)") do classes[class] = true end
      for line in text:gmatch("%-%-%-@[prfo]%l+ [^\n]+") do
        -- Types come before two spaces; after them come words.
        for class in (line:gsub("^(%-%-%-@%l+ [%w_]+)%s+", "%1 "):match("^(.-)  ") or line)
          :gmatch("fcproc%.%u%w*") do
          used[class] = path
        end
      end
    end
    assert.is_true(#sorted(used) > 10)
    for class, path in pairs(used) do
      if class ~= "fcproc.ERR" then assert.is_true(classes[class], path .. " uses " .. class) end
    end
  end)
end)

describe("every public function", function()
  it("has a comment directly above it", function()
    local seen = 0
    for _, path in ipairs(files("lua/fcproc/*.lua")) do
      for _, fn in ipairs(functions_of(path)) do
        if not fn.name:match("[.:]_") then
          seen = seen + 1
          assert.is_true(fn.comment ~= "", ("%s: %s has no comment"):format(path, fn.name))
        end
      end
    end
    assert.is_true(seen > 60)
  end)

  -- Where the facade's functions and the methods of what they return are written.
  local places = {}
  local named = "api context doctor error guest init loop manager manager/config manager/identity "
    .. "manager/links process runner"
  for name in named:gmatch("%S+") do
    places["lua/fcproc/" .. name .. ".lua"] = true
  end
  -- In those files, but shared by our own files only.
  local own = { ["M.exit_or_nil"] = true, ["M.wait"] = true }

  it("that a script can reach names every parameter with its type", function()
    for path in pairs(places) do
      for _, fn in ipairs(functions_of(path)) do
        local public = not fn.name:match("[.:]_") and not own[fn.name]
        for parameter in (public and fn.parameters or ""):gmatch("[%w_]+") do
          assert.is_truthy(fn.comment:find("%-%-%-@param " .. parameter .. " "),
            ("%s: %s has no ---@param %s"):format(path, fn.name, parameter))
        end
      end
    end
    for name, value in pairs(fcproc) do
      if type(value) == "function" and value ~= core.now then
        local file = debug.getinfo(value, "S").source:match("lua/fcproc/(.+)$")
        assert.is_true(places["lua/fcproc/" .. file], name .. " is written in " .. file)
      end
    end
  end)
end)
