-- Hand-made kernels and modules: as much of them as is read, and one that runs.

local support = require "spec.support"

local M = {}

-- An ELF file: sections are { name, content }, segments contents.
function M.elf(kind, sections, segments, machine)
  local names, list, body = "\0", {}, {}
  local at = 64 + #segments * 56
  local function put(text)
    local offset = at
    body[#body + 1], at = text, at + #text
    return offset
  end
  local programs = {}
  for i, text in ipairs(segments) do
    programs[i] = string.pack("<I4I4i8i8i8i8i8i8", 1, 5, put(text), 0, 0, #text, #text, 4096)
  end
  local function header(name, offset, size)
    list[#list + 1] = string.pack("<I4I4i8i8i8i8I4I4i8i8", name, 1, 0, 0, offset, size, 0, 0, 1, 0)
  end
  header(0, 0, 0)
  for _, section in ipairs(sections) do
    local name = #names
    names = names .. section[1] .. "\0"
    header(name, put(section[2]), #section[2])
  end
  local name = #names
  names = names .. ".shstrtab\0"
  header(name, put(names), #names)
  local head = "\127ELF\2\1\1" .. ("\0"):rep(9) .. string.pack("<I2I2I4i8i8i8I4I2I2I2I2I2I2", kind,
    machine or 62, 1, 0, #segments > 0 and 64 or 0, at, 0, 64, 56, #segments, 64, #list, #list - 1)
  return head .. table.concat(programs) .. table.concat(body) .. table.concat(list)
end

---A module: its lines of .modinfo, "depends=a,b", ....
function M.module(lines, machine)
  local text = table.concat(lines, "\0") .. "\0"
  return M.elf(1, { { ".text", ("\x90"):rep(64) }, { ".modinfo", text } }, {}, machine)
end

---Writes modules { ["kernel/fs/ext4.ko"] = { "depends=..." } or the file's text } into a folder.
function M.folder_of(dir, files)
  local made = {}
  for path, lines in pairs(files) do
    local full = dir:file(path)
    local folder = full:match("^(.*)/")
    if not made[folder] then support.sh{ "mkdir", "-p", folder } end
    made[folder] = true
    support.write_file(full, type(lines) == "table" and M.module(lines) or lines)
  end
  return dir.path
end

---What a program makes of the text: M.packed("xz -c", text).
function M.packed(dir, command, text)
  support.write_file(dir:file("plain"), text)
  support.sh({ "sh", "-c", command .. ' <"$1" >"$2"', "sh", dir:file("plain"), dir:file("packed") })
  return support.read_file(dir:file("packed"))
end

---A kernel with its banner, and a configuration in it if one is given packed.
function M.vmlinux(version, config)
  return M.elf(2, { { ".text", ("\x90"):rep(3000) } }, { "Linux version " .. version
    .. " (who@where) #1 SMP\n\0" .. (config and "IKCFG_ST" .. config .. "IKCFG_ED" or "") })
end

---A kernel that writes to a port for some tenths of a second, and jumps to where no memory is: KVM gives up
---on it.
function M.lost()
  local code = "\xb9\0\x80\0\0\xe6\x80\xe2\xfc\xb8\0\0\0\x30\xff\xe0"
  local at = 1 << 20
  local head = "\127ELF\2\1\1" .. ("\0"):rep(9) .. string.pack("<I2I2I4i8i8i8I4I2I2I2I2I2I2", 2, 62, 1,
    at, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    .. string.pack("<I4I4i8i8i8i8i8i8", 1, 5, 4096, at, at, #code, #code, 4096)
  return head .. ("\0"):rep(4096 - #head) .. code
end

---A bzImage around a payload, which is as the kernel's build has left it. fields: len, what the header says.
function M.bzimage(payload, version, fields)
  local head = ("\0"):rep(0x1f1) .. "\1" .. ("\0"):rep(12) .. "\x55\xaa" .. "\xeb\x66HdrS"
    .. string.pack("<I2", fields and fields.protocol or 0x20f) .. ("\0"):rep(6) .. string.pack("<I2", 0x100)
  head = head .. ("\0"):rep(0x248 - #head)
    .. string.pack("<I4I4", fields and fields.offset or 16, fields and fields.len or #payload)
  head = head .. ("\0"):rep(0x300 - #head) .. version .. " (who@where) #1\0"
  head = head .. ("\0"):rep(1024 - #head)
  return head .. ("\xcc"):rep(16) .. payload .. ("\xcc"):rep(32)
end

return M
