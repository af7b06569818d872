-- What a kernel's module says of itself, in its section .modinfo: whom it needs and what it is known as.

local elf = require "fcproc.image.elf"

local M = {}

local MOST = 1 << 20

---@class fcproc.ModInfo
---@field version string?   of the kernel that it was built for
---@field depends string[]  modules that must be there before it
---@field before string[]   names that it would like to have before it: modules, or aliases of them
---@field after string[]    and after it
---@field aliases table<string, true>
---@field machine string?   "x86_64", "aarch64"

---A module's name as the kernel compares it.
---@param name string
---@return string
function M.name(name)
  return (name:gsub("-", "_"))
end

local function add_words(list, text, pattern)
  for word in text:gmatch(pattern) do list[#list + 1] = M.name(word) end
end

-- "pre: a b post: c"
local function read_softdep(info, text)
  local list
  for word in text:gmatch("%S+") do
    if word == "pre:" then list = info.before
    elseif word == "post:" then list = info.after
    elseif list then list[#list + 1] = M.name(word) end
  end
end

---Reads "key=value" pairs that end with NULs.
---@param text string
---@return fcproc.ModInfo
function M.parse(text)
  local info = { depends = {}, before = {}, after = {}, aliases = {} }
  for entry in text:gmatch("[^\0]+") do
    local key, value = entry:match("^(%l+)=(.*)$")
    if key == "depends" then add_words(info.depends, value, "[^,%s]+")
    elseif key == "softdep" then read_softdep(info, value)
    elseif key == "alias" then info.aliases[M.name(value)] = true
    elseif key == "vermagic" then info.version = value:match("^%S+") end
  end
  return info
end

---Reads a module.
---@param read fun(offset: integer, size: integer): string?, fcproc.Error?
---@param size integer
---@return fcproc.ModInfo? info
---@return string|fcproc.Error? why
function M.read(read, size)
  local file, err = elf.open(read, size)
  if not file then return nil, err end
  if file.kind ~= "relocatable" then return nil, "it is no kernel module, but an ELF file of another kind" end
  local text
  text, err = elf.section(file, ".modinfo", MOST)
  if not text then return nil, err end
  local info = M.parse(text)
  info.machine = file.machine
  return info
end

return M
