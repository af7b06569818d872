-- Writes the Lua reference, doc/reference.md, from the annotations in the sources: `make doc`. What is
-- public is asked of the module itself: each function of the facade and of the objects that it hands
-- out is looked up where it is defined, and the comment above it is the text. As a module, for the spec
-- that fails when the page is stale or something public is not told.

local core = require "fcproc.core"
local fcproc = require "fcproc"

local M = {}

local TYPES = "lua/fcproc/core.d.lua" -- of what is defined in C

---@class reference.Section
---@field title string
---@field call string     how a function is written: "fcproc.", "vm:"
---@field of table        name to function
---@field class string?   the class in core.d.lua that tells of those in C
---@field object string?  the class of the object; its fields are told here, those that are public
---@field fields string?   the names of these
---@field text string

local function methods_of(object) return getmetatable(object).__index end

-- A C object's methods, by their names: which of them are public.
local function pick(list)
  local picked = {}
  for name in list:gmatch("%S+") do picked[name] = core end -- any value that is no Lua function
  return picked
end

local function sections()
  local client = assert(fcproc.client("/dev/null"))
  local runner = fcproc.runner()
  local objects = require "fcproc.vm.object"
  local vm = objects.new({}, { id = "", record = { shape = {}, files = {} } })
  local console = assert(require("fcproc.vm.console").new(vm))
  local list = {
    { title = "The module", call = "fcproc.", of = fcproc,
      text = "`local fcproc = require \"fcproc\"`", object = "fcproc",
      fields = "VERSION codes vm image doctor", class = "fcproc.core", only = pick"now" },
    { title = "A manager", call = "manager:", of = require("fcproc.manager").Manager,
      text = "What `fcproc.new` returns. Many coroutines may share one.", object = "fcproc.Manager",
      fields = "runner" },
    { title = "VMs", call = "fcproc.vm.", of = fcproc.vm,
      text = "From a spec to a running VM, and what other managers have left." },
    { title = "A VM", call = "vm:", of = methods_of(vm),
      text = "In the hands of this process until it is stopped or detached. `local vm <close>` ends it.",
      object = "fcproc.Vm", fields = "id report" },
    { title = "A console", call = "console:", of = methods_of(console), text = "What `vm:console` returns.",
      object = "fcproc.Console", fields = "path" },
    { title = "Images", call = "fcproc.image.", of = fcproc.image,
      text = "From an image, an archive or a folder to a disk, see [images](images.md)." },
    { title = "A store of images", call = "store:", of = require("fcproc.image.store").Store,
      text = "What `fcproc.image.store` returns.", object = "fcproc.ImageStore", fields = "path" },
    { title = "A process", call = "process:", of = core.process_methods, class = "fcproc.Process",
      only = pick"pid alive identity wait signal release close",
      text = "What `fcproc.spawn` and `fcproc.process` return: this very process, held by its pidfd." },
    { title = "A context", call = "ctx:", of = {}, class = "fcproc.Context",
      only = pick"with_timeout cancel status remaining close",
      text = "What `fcproc.context` returns: a deadline and a cancel." },
    { title = "A client", call = "client:", of = methods_of(client),
      text = "What `fcproc.client` returns: one connection to an API socket.", object = "fcproc.Client",
      fields = "path" },
    { title = "A runner", call = "runner:", of = methods_of(runner),
      text = "What `fcproc.runner` returns.", object = "fcproc.Runner", fields = "" },
    { title = "A network namespace", call = "netns:", of = {}, class = "fcproc.Netns", only = pick"fd close",
      text = "What `fcproc.netns` and `fcproc.new_netns` return." },
    { title = "An error", call = "err:", of = methods_of(fcproc.ERR_BUSY),
      text = "What comes second when a call fails.", object = "fcproc.Error" },
    { title = "The doctor", call = "fcproc.doctor.", of = fcproc.doctor, text = "What a host lacks." },
  }
  client:close()
  return list
end

-- ---- reading annotations -----------------------------------------------------------------------

local sources = {}

local function lines_of(path)
  if not sources[path] then
    local lines = {}
    for line in io.lines(path) do lines[#lines + 1] = line end
    sources[path] = lines
  end
  return sources[path]
end

-- "integer? the rest" into the type and the rest; a type may have blanks inside of brackets and after
-- a colon or comma.
local function split_type(text)
  local depth, at = 0, 1
  while at <= #text do
    local char = text:sub(at, at)
    if char:find("[%({<%[]") then depth = depth + 1 end
    if char:find("[%)}>%]]") then depth = depth - 1 end
    if char == " " and depth <= 0 and not text:sub(1, at - 1):find("[:,|]$") then break end
    at = at + 1
  end
  return text:sub(1, at - 1), (text:sub(at):gsub("^%s+", ""))
end

-- The comment of `---` lines that ends above the line: text, parameters, results.
local function read_comment(path, line)
  local lines, first = lines_of(path), line
  while first > 1 and lines[first - 1]:find("^%-%-%-") do first = first - 1 end
  local doc, last = { text = {}, params = {}, returns = {}, path = path, line = line }, nil
  for at = first, line - 1 do
    local body = lines[at]:sub(4)
    local tag, rest = body:match("^@(%a+)%s+(.*)$")
    if tag == "param" then
      local name, described = rest:match("^(%S+)%s+(.*)$")
      local kind, text = split_type(described)
      last = { name = name:gsub("%?$", ""), type = name:find("%?$") and kind .. "?" or kind, text = text }
      table.insert(doc.params, last)
    elseif tag == "return" then
      local kind, text = split_type(rest)
      local value, err = kind:match("^([%w_.?]+), (fcproc%.Error%?)$") -- in core.d.lua
      if value then
        table.insert(doc.returns, { type = value, text = "" })
        kind = err
      end
      local name, after = text:match("^([%a_][%w_]*%.*)%s*(.*)$")
      if name and (after == "" or text:find("^[%w_.]+  ")) then text = after else name = nil end
      last = { type = kind, name = name, text = text }
      table.insert(doc.returns, last)
    elseif tag then
      last = nil
    elseif last and body:find("^%s%s%s") then
      last.text = (last.text .. " " .. body:gsub("^%s+", ""))
    else
      last = nil
      -- What it was called before is of interest in the sources only.
      table.insert(doc.text, (body:gsub("%s*Seed: %w+%.$", "")))
    end
  end
  return doc
end

-- Where the function is defined: its file and the line of its head.
local function place_of(fn)
  local info = debug.getinfo(fn, "S")
  local path = info.source:match("^@%./(.*)$") or info.source:match("^@(.*)$")
  return path, info.linedefined, info.lastlinedefined
end

-- Does the function of these lines return something?
local function answers(path, line, last)
  for at = line, last do
    local text = lines_of(path)[at]
    if text:find("^%s+return %S") or text:find("%f[%w]return [^\"]+ end$") then return true end
  end
  return false
end

local function parameters_of(fn)
  local names, info = {}, debug.getinfo(fn, "u")
  for i = 1, info.nparams do
    local name = debug.getlocal(fn, i)
    if name ~= "self" and name ~= "_" then names[#names + 1] = name end
  end
  return names
end

-- The functions of a class in core.d.lua: name to line.
local function declared(class)
  local found, owner = {}, nil
  for at, line in ipairs(lines_of(TYPES)) do
    local name = line:match("^%-%-%-@class (%S+)")
    if name then owner = name end
    local fn = line:match("^function core%.([%w_]+)%(")
    if fn then owner = "fcproc.core" end
    local method = fn or line:match("^function %u%w*:([%w_]+)%(")
    if method and owner == class then found[method] = at end
  end
  return found
end

-- In C it can't be read from the source.
local ANSWERLESS = { close = true, cancel = true }

local function read_section(section)
  local functions = {}
  for name, value in pairs(section.of) do
    if type(value) == "function" and not name:find("^_") and debug.getinfo(value, "S").what ~= "C"
      and (not section.only or section.only[name] or section.of == fcproc) then
      local path, line, last = place_of(value)
      local doc = read_comment(path, line)
      doc.answers = answers(path, line, last)
      doc.name, doc.names = name, parameters_of(value)
      functions[#functions + 1] = doc
    end
  end
  for name, line in pairs(section.class and declared(section.class) or {}) do
    if section.only[name] then
      local doc = read_comment(TYPES, line)
      doc.name, doc.names = name, {}
      doc.answers = not ANSWERLESS[name]
      for word in lines_of(TYPES)[line]:match("%((.-)%)"):gmatch("[%w_]+") do
        doc.names[#doc.names + 1] = word
      end
      functions[#functions + 1] = doc
    end
  end
  table.sort(functions, function(a, b) return a.name < b.name end)
  return functions
end

-- All ---@class blocks of the sources: name to { text, fields, parent }.
local function classes()
  local found = {}
  local listing <close> = assert(io.popen("find lua/fcproc -name '*.lua' | LC_ALL=C sort"))
  for path in listing:lines() do
    local class, last
    for _, line in ipairs(lines_of(path)) do
      local name, parent, text = line:match("^%-%-%-@class ([%w_.]+):? ?([%w_.]*)%s*(.*)$")
      local field = line:match("^%-%-%-@field (.*)$")
      if name then
        class = { name = name, parent = parent ~= "" and parent or nil, text = text, fields = {} }
        -- "@class name  text" has no parent.
        if class.parent and not class.parent:find("%.") then
          class.text, class.parent = (parent .. " " .. text), nil
        end
        found[name], last = class, nil
      elseif field and class then
        local key, rest = field:match("^(%b[])%s+(.*)$")
        if not key then key, rest = field:match("^(%S+)%s+(.*)$") end
        local kind, described = split_type(rest)
        last = { name = key, type = kind, text = described }
        table.insert(class.fields, last)
      elseif line:find("^%-%-%-%s%s%s") and last then
        last.text = (last.text .. " " .. line:sub(4):gsub("^%s+", ""))
      else
        class, last = nil, nil
      end
    end
  end
  return found
end

-- ---- writing -----------------------------------------------------------------------------------

local function code(text) return "`" .. text .. "`" end

-- A type in a table or a list: with a bar it would be a new column.
local function type_text(text) return code(text):gsub("|", "\\|") end

local function anchor(name) return (name:lower():gsub("[^%w_-]", "")) end

local function write_function(out, call, doc)
  out("### " .. code(("%s%s(%s)"):format(call, doc.name, table.concat(doc.names, ", "))))
  out("")
  for _, line in ipairs(doc.text) do out(line) end
  if #doc.text > 0 then out("") end
  for _, param in ipairs(doc.params) do
    local text = param.text ~= "" and ": " .. param.text or ""
    out(("- %s %s%s"):format(code(param.name), code(param.type), text))
  end
  for _, result in ipairs(doc.returns) do
    out(("- returns %s%s%s"):format(code(result.type), result.name and " " .. result.name or "",
      result.text ~= "" and ": " .. result.text or ""))
  end
  if #doc.params + #doc.returns > 0 then out("") end
end

local function write_fields(out, fields)
  if #fields == 0 then return end
  out("| field | type | |")
  out("|---|---|---|")
  for _, field in ipairs(fields) do
    local text = field.text:gsub("|", "\\|")
    out(("| %s | %s | %s |"):format(code(field.name), type_text(field.type), text))
  end
  out("")
end

local function write_class(out, class)
  out("### " .. code(class.name))
  out("")
  if class.text ~= "" then out(class.text .. "\n") end
  if class.parent then out(("All of %s, and:\n"):format(code(class.parent))) end
  write_fields(out, class.fields)
end

-- The names of our types in a text.
local function types_in(text)
  local names = {}
  for name in text:gmatch("fcproc%.%u%w*") do names[#names + 1] = name end
  return names
end

-- The fields of a section's object that are public.
local function fields_of(section, all)
  local class, shown = all[section.object], {}
  local wanted = section.fields and pick(section.fields)
  for _, field in ipairs(class and class.fields or {}) do
    if not wanted or wanted[field.name] then shown[#shown + 1] = field end
  end
  return shown
end

---All that is public: the sections with their functions, and the types that they speak of.
---@return reference.Section[] list
---@return table[] types
---@return string[] unknown  names of types that nobody declares
function M.read()
  local list, all, wanted, queue, types, unknown = sections(), classes(), {}, {}, {}, {}
  for _, section in ipairs(list) do
    wanted[section.object or section.class or ""] = true -- told in its section
  end
  local function want(text)
    for _, name in ipairs(types_in(text)) do
      if not wanted[name] then
        wanted[name] = true
        queue[#queue + 1] = name
      end
    end
  end
  for _, section in ipairs(list) do
    section.functions, section.shown = read_section(section), fields_of(section, all)
    for _, field in ipairs(section.shown) do want(field.type) end
    for _, doc in ipairs(section.functions) do
      for _, part in ipairs(doc.params) do want(part.type) end
      for _, part in ipairs(doc.returns) do want(part.type) end
    end
  end
  while #queue > 0 do
    local name = table.remove(queue)
    local class = all[name]
    if class then
      types[#types + 1] = class
      want(class.parent or "")
      for _, field in ipairs(class.fields) do want(field.type) end
    else
      unknown[#unknown + 1] = name
    end
  end
  table.sort(types, function(a, b) return a.name < b.name end)
  return list, types, unknown
end

-- What is told of the errors of a call: their codes, or that they are another's.
local function tells_errors(text)
  return text:find("ERR_%u") or text:find("%f[%w]as [%l_.]+[:.][%l_]+") or text:find("only the context's")
end

---What is not told of something public, one line each.
---@return string[]
function M.gaps()
  local gaps = {}
  local list, types, unknown = M.read()
  for _, section in ipairs(list) do
    for _, doc in ipairs(section.functions) do
      local function gap(text)
        gaps[#gaps + 1] = ("%s%s (%s:%d): %s"):format(section.call, doc.name, doc.path, doc.line, text)
      end
      local text = table.concat(doc.text, " ")
      if not text:find("%w") then gap("says nothing") end
      local told = {}
      for _, param in ipairs(doc.params) do told[param.name] = true end
      for _, name in ipairs(doc.names) do
        if not told[name] then gap("no @param " .. name) end
        told[name] = nil
      end
      for name in pairs(told) do gap("there is no parameter " .. name) end
      if doc.answers and #doc.returns == 0 then gap("no @return") end
      for _, result in ipairs(doc.returns) do
        if result.type:find("fcproc.Error", 1, true) and not tells_errors(result.text .. " " .. text) then
          gap("does not say which errors")
        end
        if result.type:find("^table%??$") and result.text == "" then gap("a table of what?") end
      end
      for _, param in ipairs(doc.params) do
        if param.type:find("^table%??$") and param.text == "" then gap(param.name .. ": a table of what?") end
      end
    end
  end
  for _, class in ipairs(types) do
    for _, field in ipairs(class.fields) do
      if field.type:find("^table%??$") and field.text == "" then
        gaps[#gaps + 1] = ("%s.%s: a table of what?"):format(class.name, field.name)
      end
    end
  end
  for _, name in ipairs(unknown) do gaps[#gaps + 1] = name .. ": nobody declares it" end
  return gaps
end

local HEAD = [[
# The Lua reference

Written by `make doc` from the annotations in the sources; do not edit it here. Every call that can fail
returns nil and an [error](errors.md). Times are seconds. A `?` after a type: it may be left out, or be
nil. `ctx` is a [context](contexts.md): without one, that of the `fcproc.run` around the call.

Not told each time: whatever takes a `ctx` also fails with ERR_CANCELLED or ERR_DEADLINE when that ends, and
any call with ERR_SYSTEM or ERR_NOMEM when the kernel can't give what it takes. A wrong type raises.
]]

---The page.
---@return string
function M.write()
  local lines = {}
  local function out(text) lines[#lines + 1] = text end
  local list, types = M.read()
  out(HEAD)
  for _, section in ipairs(list) do
    out(("- [%s](#%s)"):format(section.title, anchor(section.title:gsub(" ", "-"))))
  end
  out("- [Types](#types)")
  out("")
  for _, section in ipairs(list) do
    out("## " .. section.title)
    out("")
    out(section.text)
    out("")
    write_fields(out, section.shown)
    for _, doc in ipairs(section.functions) do write_function(out, section.call, doc) end
  end
  out("## Types")
  out("")
  for _, class in ipairs(types) do write_class(out, class) end
  while lines[#lines] == "" do table.remove(lines) end
  return table.concat(lines, "\n") .. "\n"
end

if arg and arg[0] and arg[0]:find("reference%.lua$") then io.write(M.write()) end

return M
