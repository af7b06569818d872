-- Which modules of a kernel a guest needs until its root is there, and in which order. What the modules say
-- of themselves decides, not what depmod has written about them: a package may not have been installed.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local modinfo = require "fcproc.image.modinfo"

local M = {}

local MOST_DEPTH, MOST_FILES = 16, 100000
local MOST_CHAIN = 100 -- modules of which each needs the next
local MOST_MODULE, MOST_LIST = 64 << 20, 16 << 20 -- bytes
local PACKED = { [""] = false, [".xz"] = true, [".zst"] = true, [".gz"] = true }

---What Firecracker's devices and the usual roots are driven by.
M.DEFAULT = { "virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "virtio_balloon",
  "vmw_vsock_virtio_transport", "virtio_pmem", "nd_pmem", "virtio_mem", "ext4", "squashfs", "erofs",
  "overlay" }

---@class fcproc.ModuleFile
---@field name string     as the kernel compares it: "virtio_rng"
---@field path string
---@field packed boolean  compressed
---@field data string?    what it unpacks to
---@field size integer

---@class fcproc.AbsentModule
---@field name string
---@field wanted_by string?  the module that needs it; nil: it was asked for
---@field needed boolean     without it the one that wants it can't be loaded

---@class fcproc.ModuleSet
---@field version string?              of the kernel that they are for
---@field machine string?
---@field list fcproc.ModuleFile[]     in the order in which they are loaded
---@field builtin string[]             wanted, and in the kernel itself
---@field absent fcproc.AbsentModule[] wanted, and nowhere

local function fail(code, path, cause, format, ...)
  return nil, errors.new{ code = code, op = "image.modules", path = path, cause = cause,
    message = errors.quoted(format:format(...), 2000) }
end

-- ---- what is there ---------------------------------------------------------------------------

-- Names of modules by what the folder holds, in the order of their paths.
local function add_folder(found, folder, depth)
  if depth > MOST_DEPTH then
    return fail("invalid", folder, nil, "%s is too deep for a kernel's modules", folder)
  end
  local entries, err = core.list_dir(folder)
  if not entries then return nil, err end
  for _, entry in ipairs(entries) do
    local path = folder .. "/" .. entry.name
    if entry.type == "dir" then
      local ok
      ok, err = add_folder(found, path, depth + 1)
      if not ok then return nil, err end
    elseif entry.type == "file" then
      local name, packing = entry.name:match("^([%w_-]+)%.ko(%.?%w*)$")
      if name and PACKED[packing] ~= nil then
        found.count = found.count + 1
        if found.count > MOST_FILES then
          return fail("invalid", folder, nil, "%s holds too many files", folder)
        end
        name = modinfo.name(name)
        -- "updates" comes after "kernel", and is what shall be loaded.
        found.files[name] = { name = name, path = path, packed = PACKED[packing] }
        found.names[#found.names + 1] = name
      end
    end
  end
  return true
end

-- modules.builtin has paths, modules.builtin.modinfo what they say of themselves: "name.key=value".
local function read_builtin(found, folder)
  local text, err = core.read_file(folder .. "/modules.builtin", 0, MOST_LIST)
  if not text and err.code ~= "not_found" then return nil, err end
  for name in (text or ""):gmatch("([^/\n]+)%.ko") do found.builtin[modinfo.name(name)] = true end
  text, err = core.read_file(folder .. "/modules.builtin.modinfo", 0, MOST_LIST)
  if not text and err.code ~= "not_found" then return nil, err end
  for entry in (text or ""):gmatch("[^\0]+") do
    local name, alias = entry:match("^([^.=]+)%.alias=(.*)$")
    if name then found.builtin_alias[modinfo.name(alias)] = modinfo.name(name) end
  end
  return true
end

-- ---- one module --------------------------------------------------------------------------------

-- The module's file with what it says of itself, read once.
local function load(found, name)
  local file = found.files[name]
  if not file or file.info then return file end
  local info, err = core.stat(file.path)
  if not info then return nil, err end
  if info.size > MOST_MODULE then
    return fail("invalid", file.path, nil, "%s is too large for a module", file.path)
  end
  file.size = info.size
  if file.packed then
    file.data, err = found.unpack(file.path, MOST_MODULE)
    if not file.data then return nil, err end
    file.size = #file.data
  end
  local why
  file.info, why = modinfo.read(function(offset, size)
    if file.data then return file.data:sub(offset + 1, offset + size) end
    return core.read_file(file.path, offset, size)
  end, file.size)
  if file.info then return file end
  if errors.is_error(why) then return nil, why end
  return fail("invalid", file.path, nil, "%s is damaged, or no module: %s", file.path, why)
end

-- ---- aliases -----------------------------------------------------------------------------------

-- Those that depmod knows by the name, whose own words are looked at all the same.
local function hinted(found, alias)
  if not found.hints then
    found.hints = {}
    local text = core.read_file(found.folder .. "/modules.alias", 0, MOST_LIST)
    for pattern, name in (text or ""):gmatch("alias ([^%s*?[]+) (%S+)\n") do
      local key = modinfo.name(pattern)
      found.hints[key] = found.hints[key] or {}
      table.insert(found.hints[key], modinfo.name(name))
    end
  end
  return found.hints[alias] or {}
end

-- Without depmod: what softdeps name by an alias are algorithms.
local function likely(found)
  if not found.likely then
    found.likely = {}
    for _, name in ipairs(found.names) do
      local path = found.files[name].path:sub(#found.folder + 1)
      local algorithm = path:find("/crypto/", 1, true) and not path:find("/drivers/", 1, true)
      if algorithm or path:find("/lib/", 1, true) then
        found.likely[#found.likely + 1] = name
      end
    end
  end
  return found.likely
end

-- The modules that are known as the alias.
local function known_as(found, alias)
  for _, candidates in ipairs{ hinted(found, alias), likely(found) } do
    local names, seen = {}, {}
    for _, name in ipairs(candidates) do
      local file, err = load(found, name)
      if err then return nil, err end
      if file and file.info.aliases[alias] and not seen[name] then
        names[#names + 1], seen[name] = name, true
      end
    end
    if #names > 0 then
      table.sort(names)
      return names
    end
  end
  return {}
end

-- ---- the order ----------------------------------------------------------------------------------

local visit

local function note_builtin(set, name)
  if not set.noted[name] then
    set.noted[name] = true
    set.builtin[#set.builtin + 1] = name
  end
  return true
end

-- Adds what the name stands for. Returns whether it is there then; nil and an error.
local function want(found, set, name, wanted_by, needed)
  if found.files[name] then return visit(found, set, name, wanted_by) end
  if found.builtin[name] then return note_builtin(set, name) end
  local names, err = known_as(found, name)
  if not names then return nil, err end
  for _, other in ipairs(names) do
    local ok
    ok, err = visit(found, set, other, wanted_by)
    if ok == nil then return nil, err end
  end
  if #names > 0 then return true end
  if found.builtin_alias[name] then return note_builtin(set, found.builtin_alias[name]) end
  local mark = "absent " .. name
  if not set.noted[mark] then
    set.noted[mark] = true
    set.absent[#set.absent + 1] = { name = name, wanted_by = wanted_by, needed = needed }
  end
  return false
end

local function want_all(found, set, names, wanted_by, needed)
  local all = true
  for _, name in ipairs(names) do
    local there, err = want(found, set, name, wanted_by, needed)
    if there == nil then return nil, err end
    all = all and there
  end
  return all
end

local function same(found, set, file)
  local info = file.info
  for _, key in ipairs{ "version", "machine" } do
    if info[key] and set[key] and info[key] ~= set[key] then
      return fail("invalid", file.path, nil, "%s is for %s, and others in %s are for %s: they are of "
        .. "different kernels", file.path, info[key], found.folder, set[key])
    end
    set[key] = set[key] or info[key]
  end
  return true
end

-- Adds a module that is there, after what it needs. Returns whether it can be loaded.
function visit(found, set, name, wanted_by)
  local state = set.state[name]
  if state == "open" then -- a softdep may lead back to who has it
    if set.soft > 0 then return true end
    return fail("invalid", found.folder, nil, "the modules of %s need each other in a circle: %s, by %s",
      found.folder, name, tostring(wanted_by))
  end
  if state ~= nil then return state end
  if set.chain == MOST_CHAIN then
    return fail("invalid", found.folder, nil, "the modules of %s need each other in a chain of more "
      .. "than %d, to %s", found.folder, MOST_CHAIN, name)
  end
  local file, err = load(found, name)
  if not file then return nil, err end
  local ok
  ok, err = same(found, set, file)
  if not ok then return nil, err end
  set.state[name] = "open"
  set.chain, set.soft = set.chain + 1, set.soft + 1
  ok, err = want_all(found, set, file.info.before, name, false)
  set.soft = set.soft - 1
  if ok == nil then return nil, err end
  local whole
  whole, err = want_all(found, set, file.info.depends, name, true)
  if whole == nil then return nil, err end
  set.state[name] = whole
  if not whole then
    set.chain = set.chain - 1
    return false
  end
  set.list[#set.list + 1] = { name = name, path = file.path, packed = file.packed, data = file.data,
    size = file.size }
  ok, err = want_all(found, set, file.info.after, name, false)
  if ok == nil then return nil, err end
  set.chain = set.chain - 1
  return true
end

---Chooses, of a kernel's modules, those of the names and all that they need.
---@param folder string    "/lib/modules/6.1.0-13-amd64"
---@param names string[]
---@param unpack fun(path: string, limit: integer): string?, fcproc.Error?  what a compressed file holds
---@return fcproc.ModuleSet? set
---@return fcproc.Error? err  ERR_NOT_FOUND: no modules there; ERR_INVALID: damaged ones, or not of one kernel
function M.choose(folder, names, unpack)
  local found = { folder = folder, files = {}, names = {}, builtin = {}, builtin_alias = {}, count = 0,
    unpack = unpack }
  local ok, err = add_folder(found, folder, 0)
  if ok then ok, err = read_builtin(found, folder) end
  if not ok then return nil, err end
  if found.count == 0 and not next(found.builtin) then
    return fail("not_found", folder, nil, "%s holds no modules: give the folder of one kernel's, as "
      .. "/lib/modules/6.1.0-13-amd64", folder)
  end
  local set = { list = {}, builtin = {}, absent = {}, state = {}, noted = {}, soft = 0, chain = 0 }
  for _, name in ipairs(names) do
    local there
    there, err = want(found, set, modinfo.name(name), nil, true)
    if there == nil then return nil, err end
  end
  return { version = set.version, machine = set.machine, list = set.list, builtin = set.builtin,
    absent = set.absent }
end

return M
