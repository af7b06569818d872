-- Error values: what every call that fails returns after nil.
-- They are made here and by the C module, with one metatable. Never used as table keys: compare
-- with a sentinel (err == fcproc.ERR_BUSY), walk causes with err:is(...), or look at err.code.

local core = require "fcproc.core"

---@class fcproc.Error
---@field code string        one of fcproc.codes ("busy", "not_found", ...): stable
---@field op string          what was being done ("tap.create")
---@field message string     what failed, on what, why, and what to do next: not stable
---@field errno integer?     the kernel's errno
---@field pid integer?       the process it is about
---@field path string?       the file or socket it is about
---@field status integer?    the HTTP status, or the exit status of a command
---@field answered boolean?  the server did answer, though not as it should
---@field signal integer?    the signal that ended a command
---@field layer string?      the digest of the image's layer that it is about
---@field output string?     the end of a failed command's stderr
---@field stdout string?     what a command that did not end had written
---@field stderr string?     the same
---@field cause fcproc.Error? the failure below this one
---@operator concat(any): string
local Error = {}

local M = {}

local metatable = core.error_metatable
metatable.__index = Error

---True if this error, or one that caused it, has the sentinel's code.
---@param sentinel fcproc.Error  fcproc.ERR_*
---@return boolean
function Error:is(sentinel)
  local err = self
  while err do
    if err.code == sentinel.code then return true end
    err = err.cause
  end
  return false
end

-- The C module's, with which a state is content that has not loaded this: bytes are as they are there.
local plain = metatable.__tostring

metatable.__tostring = core.uninterruptible(function(err) -- a host prints it after it has interrupted
  return M.shown(plain(err))
end)

function metatable.__concat(a, b)
  return tostring(a) .. tostring(b)
end

-- Only a sentinel equals an error, so that two unrelated failures are never the same.
function metatable.__eq(a, b)
  return a.code == b.code and (a.sentinel or b.sentinel) and not (a.sentinel and b.sentinel) or false
end

---@type table<string, fcproc.Error>  ERR_WAIT_TIMEOUT and so on
M.sentinels = {}
---@type { name: string, code: string, meaning: string }[]
M.codes = core.codes

for _, entry in ipairs(core.codes) do
  M.sentinels["ERR_" .. entry.name] = setmetatable({
    code = entry.code, op = "fcproc", message = entry.meaning, sentinel = true,
  }, metatable)
end

---Makes an error. fields needs code, op and message.
---@param fields table
---@return fcproc.Error
function M.new(fields)
  return setmetatable(fields, metatable)
end

-- What a terminal obeys: the ASCII controls but the line's end and the tab, and UTF-8's of 0x80 to 0x9f.
local CONTROLS = { "[%z\1-\8\11-\31\127]", "\xc2[\x80-\x9f]" }

local function escaped(bytes)
  return (bytes:gsub(".", function(byte) return ("\\x%02x"):format(byte:byte()) end))
end

---Bytes that may be none of UTF-8 as text that is: "\xff" for each that is not.
---@param bytes string
---@return string
function M.utf8(bytes)
  local parts, from = {}, 1
  local _, bad = utf8.len(bytes)
  if not bad then return bytes end
  while bad do
    parts[#parts + 1] = bytes:sub(from, bad - 1) .. escaped(bytes:sub(bad, bad))
    from = bad + 1
    _, bad = utf8.len(bytes, from)
  end
  return table.concat(parts) .. bytes:sub(from)
end

---A guest's or a VMM's words, or a file's name, fit to be shown in a message: "\x1b" for what a terminal
---would obey, and for what is not UTF-8.
---@param text string
---@return string
function M.shown(text)
  for _, pattern in ipairs(CONTROLS) do text = text:gsub(pattern, escaped) end
  return M.utf8(text)
end

local CUT = "..."

---The same, each line cut to so many bytes.
---@param text string
---@param most integer
---@return string
function M.quoted(text, most)
  return (M.shown(text):gsub("[^\n]+", function(line)
    if #line <= most then return nil end
    line = line:sub(1, most - #CUT)
    while not utf8.len(line) do line = line:sub(1, -2) end -- in the middle of a character
    return line .. CUT
  end))
end

local ENFILE, EMFILE = 23, 24

---Did it, or what caused it, come from the process or the host having no descriptor to give?
---@param err fcproc.Error?
---@return boolean
function M.lacks_descriptors(err)
  while err do
    if err.errno == EMFILE or err.errno == ENFILE then return true end
    err = err.cause
  end
  return false
end

---True for the values that this module and the C module make.
---@param value any
---@return boolean
function M.is_error(value)
  return type(value) == "table" and getmetatable(value) == metatable
end

return M
