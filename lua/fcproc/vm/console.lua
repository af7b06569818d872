-- What a guest has written to its serial console: a file, so that it depends on no reader.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local options = require "fcproc.options"
local outputs = require "fcproc.machine.outputs"
local tail = require "fcproc.tail"

local M = {}

M.LIMIT = 16 * 1024 * 1024 -- bytes kept of each file that a VM writes

-- ---- a kernel's panic --------------------------------------------------------------------------

local PANIC_TAIL = 16384 -- bytes in which a kernel's last words are
local LONGEST = 200 -- bytes of a line that is quoted
local PANIC, STAMP = "Kernel panic %- not syncing", "^%[ *%d+%.%d+%]"

-- What a kernel without times writes after its panic; and Firecracker's own, of what followed.
local LAST_WORDS = { "^ ", "^%-%-%-%[ end ", "^" .. PANIC, "^CPU[: ]", "^Hardware name: ", "^Call [Tt]race:",
  "^Kernel Offset: ", "^Rebooting in ", "^SMP: ", "^Shutting down cpus", "^Modules linked in", "^Code: ",
  "^%u[%u%d]+: ?%x", "^Memory Limit: ", "^PHYS_OFFSET: ", "^Dumping ftrace", "^Error: Run" }

local function is_last_word(line, stamped)
  -- Another kernel's first line: one that was loaded to save the first one's memory.
  if stamped and line:find(STAMP) then return not line:find("] Linux version ", 1, true) end
  for _, pattern in ipairs(LAST_WORDS) do
    if line:find(pattern) and (not stamped or pattern == "^Error: Run") then return true end
  end
  return false
end

---The line of the kernel's panic with which a console ends.
---@param text string
---@return string? line  in printable ASCII, at most 200 bytes
function M.panic_in(text)
  local found, stamped
  for line in text:gmatch("[^\r\n]+") do
    -- A program's line may have been cut off by the kernel's.
    local with_time = line:match("%[ *%d+%.%d+%] " .. PANIC .. ".*")
    local panic = with_time or line:match("^" .. PANIC .. ".*")
    if found and not is_last_word(line, stamped) then found = nil end
    if panic and not found then found, stamped = panic, with_time ~= nil end
  end
  return found and found:gsub("[^ -~]", function(byte) return ("\\x%02x"):format(byte:byte()) end)
    :sub(1, LONGEST)
end

---The same of what a VM has written.
---@param files fcproc.MachineFiles
---@return string?
function M.panic(files)
  local text = files.console and outputs.read(files, "console", -PANIC_TAIL)
  return text and M.panic_in(text) or nil
end

-- ---- the console -------------------------------------------------------------------------------

---@class fcproc.Console
---@field path string
---@field output fcproc.Output
---@field vm fcproc.Vm
local Console = {}
Console.__index = Console

---@param vm fcproc.Vm
---@return fcproc.Console?
---@return fcproc.Error? err
function M.new(vm)
  local record = vm.journal.record
  if record.shape.daemonize then
    return nil, errors.new{ code = "unsupported", op = "vm.console",
      message = ("the VM '%s' has no console: a jailer with daemonize sends it to /dev/null "
        .. "(before Firecracker 1.14 there is no other way; then PUT /serial gives it a file)")
        :format(vm.id) }
  end
  local output = outputs.of(record.files, "console")
  return setmetatable({ vm = vm, path = output.path, output = output }, Console)
end

function Console:__tostring()
  return ("fcproc.Console of '%s' (%s)"):format(self.vm.id, self.path)
end

---The last lines.
---@param lines integer?  default 20
---@return string
function Console:tail(lines)
  return tail.lines(self.output, lines)
end

---All of it that is kept, from a position on.
---@param offset integer?  bytes, default 0
---@return string? text
---@return fcproc.Error? err  ERR_NOT_FOUND: it is gone with its VM
function Console:read(offset)
  return core.read_file(self.path, offset or 0)
end

---Waits until the guest has written this text (no pattern), now or in the past. Wakes when the
---file is written to, and when the VM ends.
---@param text string
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_EXIT_STATUS: the VM ended before, with its output; ERR_CLOSED: it
---                            was stopped or detached
function Console:wait_for(text, timeout, ctx)
  options.argument(text, "string", "console:wait_for", "text")
  options.timeout(timeout, "console:wait_for")
  local machine = self.vm.machine
  if not machine then return self.vm:_ended("console") end
  local found, err = machine:_while_open("console", function(own)
    return tail.wait_for(machine.process, self.output, text, timeout, own)
  end, ctx)
  if found then return true end
  if found == false then err = machine:failure("console") end
  if err.code == "closed" then return self.vm:_ended("console") end
  if found == false then return nil, err end
  if err.code == "wait_timeout" then
    err.message = ("'%s' did not appear on the console of '%s' in %g s; its end: %s"):format(
      text:sub(1, 200), self.vm.id, timeout, tail.quoted(self:tail(3)))
  end
  return nil, err
end

return M
