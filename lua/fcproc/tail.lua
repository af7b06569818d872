-- The ends of files that a VM writes: its log and its console.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"

local M = {}

local LINES, BYTES = 20, 8192
local CONSOLE_LINE, LOG_LINE = 200, 1000 -- bytes of one in a message: a guest's, and a VMM's

---The last lines of a file; "" when it can't be read.
---@param output fcproc.Output
---@param lines integer?  default 20
---@return string
function M.lines(output, lines)
  local text = core.read_file(output.path, -BYTES, nil, output.expected) or ""
  -- Hole punching leaves zeros where old output was, and consoles end lines with \r\n.
  text = text:gsub("^%z+", ""):gsub("\r", "")
  local kept = {}
  for line in text:gmatch("[^\n]+") do kept[#kept + 1] = line end
  return table.concat(kept, "\n", math.max(1, #kept - (lines or LINES) + 1))
end

---A guest's words as a message may show them.
---@param text string
---@return string
function M.quoted(text) return errors.quoted(text, CONSOLE_LINE) end

---Several, each under its title, as a message may show them.
---@param list { [1]: string, [2]: fcproc.Output }[]  title and file
---@return string
function M.of(list)
  local parts = {}
  for _, entry in ipairs(list) do
    local text = errors.quoted(M.lines(entry[2]), entry[1] == "console" and CONSOLE_LINE or LOG_LINE)
    if text ~= "" then parts[#parts + 1] = ("%s:\n%s"):format(entry[1], text) end
  end
  return table.concat(parts, "\n")
end

---Waits until the text (no pattern) is in the file, now or in the past. Wakes when the file is
---written to, and when the process that writes it ends.
---@param process fcproc.Process
---@param output fcproc.Output
---@param text string
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return boolean? found  false: the process has ended without it
---@return fcproc.Error? err
function M.wait_for(process, output, text, timeout, ctx)
  local done, found = loop.complete(ctx, process:wait_text_op(output.path, text, output.expected,
    timeout, ctx))
  if not done then return nil, found end
  return found
end

---The last line that is not blank.
---@param text string
---@return string?
function M.last_line(text)
  local found
  for line in text:gmatch("[^\n]+") do
    if not found or line:find("%S") then found = line end
  end
  return found
end

-- What Firecracker puts around the reason in its log.
local WRAPPERS = { "Failed to build MicroVM from Json: ", "Could not Start MicroVM from one single json: ",
  "Internal error while starting microVM: " }

-- Its log has the reason in words, where its stderr has the names of Rust's types.
local function logged_reason(output)
  local reason
  for line in output:gmatch("[^\n]+") do
    reason = line:match("^%d[%d%-T:%.]+ %[[^%]]*%] %w+ error: (.+)") or reason
  end
  for _, wrapper in ipairs(reason and WRAPPERS or {}) do
    if reason:sub(1, #wrapper) == wrapper then reason = reason:sub(#wrapper + 1) end
  end
  return reason and (reason:gsub(" Make sure [^\n]*\\$", "")) -- it goes on in the next line
end

---What a jailer said that failed. Before 1.13 it panics with its words; from then on it writes them, and
---below them the same as Rust writes an error. Firecracker's own have a time.
---@param console string
---@return string? words
function M.jailer_words(console)
  local words = console:match("\nJailer error: ([^\n]+)") or console:match("([^\n]+)\nError: %u%w*[^\n]*$")
  return words and not words:find("^%d+%-%d+%-%d+T") and words or nil
end

---The last line that says what went wrong, without Firecracker's time stamp.
---@param output string
---@return string? words
---@return string? reason  the same in words of the log, where it has them
function M.last_words(output)
  local found
  for line in output:gmatch("[^\n]+") do
    local says = line:find("[Ee]rror") or line:find("panicked")
    if says and not line:find("Firecracker exiting with error", 1, true) then found = line end
  end
  return found and (found:gsub("^%d[%d%-T:%.]+ ?", "")), logged_reason(output)
end

return M
