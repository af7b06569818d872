-- ELF files, as far as a kernel and its modules are judged: the headers, and where sections lie. What a
-- header says of itself is believed only as far as it lies in the file.

local M = {}

M.MAGIC = "\127ELF"
M.HEAD = 64 -- bytes of an ELF header

local MOST_SECTIONS, MOST_NAMES = 65279, 1 << 20 -- more sections are counted elsewhere
local KINDS = { [1] = "relocatable", [2] = "executable", [3] = "shared" }
local MACHINES = { [62] = "x86_64", [183] = "aarch64" }

---@class fcproc.Elf
---@field kind string     "relocatable", "executable", "shared", or its number
---@field machine string  "x86_64", "aarch64", or its number
---@field read fun(offset: integer, size: integer): string?, fcproc.Error?
---@field size integer
---@field section_count integer
---@field section_at integer
---@field names integer    which section holds their names

-- So many bytes, all of them; or nil and why not: a text, or the error of reading.
local function take(elf, offset, size, what)
  if offset < 0 or size < 0 or offset > elf.size or size > elf.size - offset then
    return nil, ("its %s lie outside of it, as of a file that was cut"):format(what)
  end
  local bytes, err = elf.read(offset, size)
  if not bytes then return nil, err end
  if #bytes < size then return nil, "it became shorter while it was read" end
  return bytes
end

---Reads the header, and looks whether the tables that it tells of lie in the file.
---@param read fun(offset: integer, size: integer): string?, fcproc.Error?
---@param size integer  of the file
---@return fcproc.Elf? elf
---@return string|fcproc.Error? why  what is wrong with it; or the error of reading it
function M.open(read, size)
  local elf = { read = read, size = size }
  local head, err = take(elf, 0, M.HEAD, "first bytes")
  if not head then return nil, err end
  if head:sub(1, 4) ~= M.MAGIC then return nil, "it is no ELF file" end
  if head:sub(5, 6) ~= "\2\1" then return nil, "it is no ELF file of 64 bits, little-endian" end
  local kind, machine, _, _, programs, sections, _, _, program_size, program_count, section_size,
    section_count, names = string.unpack("<I2I2I4i8i8i8I4I2I2I2I2I2I2", head, 17)
  elf.kind, elf.machine = KINDS[kind] or tostring(kind), MACHINES[machine] or tostring(machine)
  if section_count > MOST_SECTIONS then return nil, "it has too many sections" end
  if (program_count > 0 and program_size ~= 56) or (section_count > 0 and section_size ~= 64) then
    return nil, "its tables have entries of a wrong size"
  end
  elf.section_at, elf.section_count, elf.names = sections, section_count, names
  local table_of_programs
  table_of_programs, err = take(elf, programs, program_count * program_size, "program headers")
  if not table_of_programs then return nil, err end
  for i = 0, program_count - 1 do
    local type_of, _, offset, _, _, file_size = string.unpack("<I4I4i8i8i8i8", table_of_programs, i * 56 + 1)
    if type_of == 1 and (offset < 0 or file_size < 0 or offset > size or file_size > size - offset) then
      return nil, "what it loads lies outside of it, as of a file that was cut"
    end
  end
  -- They stand at the end, so that they are what a cut file lacks first.
  elf.sections, err = take(elf, sections, section_count * section_size, "section headers")
  if not elf.sections then return nil, err end
  return elf
end

local function section(elf, index)
  local name, _, _, _, offset, size = string.unpack("<I4I4i8i8i8i8", elf.sections, index * 64 + 1)
  return name, offset, size
end

---What the section of that name holds.
---@param elf fcproc.Elf
---@param wanted string
---@param most integer  bytes
---@return string? bytes
---@return string|fcproc.Error? why
function M.section(elf, wanted, most)
  if elf.names >= elf.section_count then return nil, "its sections have no names" end
  local _, offset, size = section(elf, elf.names)
  if size > MOST_NAMES then return nil, "its sections have too long names" end
  local names, err = take(elf, offset, size, "sections' names")
  if not names then return nil, err end
  for i = 0, elf.section_count - 1 do
    local name
    name, offset, size = section(elf, i)
    if names:sub(name + 1, name + #wanted + 1) == wanted .. "\0" then
      if size > most then return nil, ("its section %s has more than %d bytes"):format(wanted, most) end
      return take(elf, offset, size, "sections")
    end
  end
  return nil, ("it has no section %s"):format(wanted)
end

return M
