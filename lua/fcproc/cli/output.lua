-- What the fcproc command writes: results to stdout, for people or as JSON; what it does and what
-- went wrong to stderr. And which exit status a failure becomes.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local flags = require "fcproc.cli.flags"
local json = require "fcproc.json"

local M = {}

M.WRONG_USE, M.INTERRUPTED, M.SIGNALLED = 2, 130, 128

-- By the error's code; what is not here is 1.
M.statuses = {
  invalid = M.WRONG_USE, not_found = 3, busy = 4, conflict = 4, permission = 5, wait_timeout = 124,
  deadline = 124, cancelled = M.INTERRUPTED,
}

local STDERR, TAIL_LINES = 2, 10
local EPIPE = 32

---@class fcproc.CliOutput
---@field out file*
---@field err file*
---@field json boolean
---@field shows_progress boolean  stderr is a terminal
---@field lost { reason: string, errno: integer }?  why something could not be written
---@field told boolean?           somebody was told of that
local Output = {}
Output.__index = Output

---@param out file*
---@param err file*
---@param as_json boolean?
---@return fcproc.CliOutput
function M.new(out, err, as_json)
  return setmetatable({ out = out, err = err, json = as_json or false,
    shows_progress = err == io.stderr and core.is_terminal(STDERR) }, Output)
end

---The exit status for a failure.
---@param err fcproc.Error
---@return integer
function M.status_of(err)
  if err.code == "cancelled" and err.signal then return M.SIGNALLED + err.signal end
  return M.statuses[err.code] or 1
end

-- ---- stdout --------------------------------------------------------------------------------

---Writes at once.
---@param text string
---@return boolean written  false: it was not, see finish
function Output:write(text)
  local ok, reason, errno = self.out:write(text)
  if ok then ok, reason, errno = self.out:flush() end
  if not ok then self.lost = self.lost or { reason = reason, errno = errno } end
  return ok and true or false
end

---Why something could not be written, for one who tells of it now. That a reader has gone is his
---own business.
---@return string? reason
function Output:trouble()
  local lost = self.lost
  if not lost or lost.errno == EPIPE then return nil end
  self.told = true
  return lost.reason
end

---The status to end with: a result that did not get to where it was to be is no success.
---@param status integer  what the command itself came to
---@return integer status
function Output:finish(status)
  local told = self.told
  local reason = self:trouble()
  if not reason then return status end
  if not told then self:note("the output can't be written: %s", reason) end
  return status == 0 and 1 or status
end

-- lua-cjson escapes each slash, which nobody needs and which hides paths from grep.
---A value as a line of JSON.
---@param value any
---@param list fcproc.BodyType?
---@return string
function M.encode(value, list)
  return (json.write(value, list):gsub("\\/", "/")) .. "\n"
end

---A result: as JSON, or what fn makes of it.
---@param value any
---@param list fcproc.BodyType?  which tables in it are lists, though they are empty
---@param fn fun(value: any): string
---@return boolean written
function Output:result(value, list, fn)
  if self.json then return self:write(M.encode(value, list)) end
  return self:write(errors.shown(fn(value))) -- a path may hold what a terminal obeys
end

---Lines of text in columns.
---@param rows string[][]  the first is the title
---@return string
function M.columns(rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, text in ipairs(row) do widths[i] = math.max(widths[i] or 0, #text) end
  end
  for n, row in ipairs(rows) do
    local cells = {}
    for i, text in ipairs(row) do cells[i] = text .. (" "):rep(widths[i] - #text) end
    lines[n] = table.concat(cells, "  "):gsub(" +$", "") .. "\n"
  end
  return table.concat(lines)
end

---Names and values, one a line; what is nil is left out.
---@param pairs_list { [1]: string, [2]: any }[]
---@return string
function M.fields(pairs_list)
  local rows = {}
  for _, entry in ipairs(pairs_list) do
    if entry[2] ~= nil then rows[#rows + 1] = { entry[1], tostring(entry[2]) } end
  end
  return M.columns(rows)
end

-- ---- stderr --------------------------------------------------------------------------------

---A line for people, whatever stdout is for.
function Output:note(format, ...)
  self.err:write("fcproc: ", errors.shown(format:format(...)), "\n")
end

---The same, only when somebody watches.
function Output:progress(format, ...)
  if self.shows_progress then self:note(format, ...) end
end

-- Firecracker's output and names of files may be anything, and JSON is UTF-8.
---A text as UTF-8, with ? for what is none.
---@param text string
---@return string
function M.readable(text)
  return utf8.len(text) and text or (text:gsub("[\128-\255]", "?"))
end

---An error as a table that can be written as JSON.
---@param err fcproc.Error
---@return table
function M.plain(err)
  local plain = {}
  for _, name in ipairs{ "code", "op", "message", "errno", "path", "pid", "status", "signal", "step",
    "output" } do
    local value = err[name]
    plain[name] = type(value) == "string" and M.readable(value) or value
  end
  plain.message = flags.say(plain.message)
  if err.problems then plain.problems = err.problems end
  if err.left then plain.left = M.left(err.left) end
  if err.cause then plain.cause = M.plain(err.cause) end
  return plain
end

---What could not be removed, likewise.
---@param left fcproc.Left[]
---@return { what: string, error: table }[]
function M.left(left)
  local list = {}
  for i, entry in ipairs(left) do
    local err = entry.err
    list[i] = { what = entry.what, error = errors.is_error(err) and M.plain(err)
      or { message = tostring(err) } }
  end
  return list
end

---The end of what Firecracker said, below a line on stderr.
---@param text string
function Output:quote(text)
  local lines = {}
  for line in text:gmatch("[^\r\n]+") do lines[#lines + 1] = line end
  for i = math.max(1, #lines - TAIL_LINES + 1), #lines do
    self.err:write("  | ", lines[i], "\n")
  end
end

---Tells of a failure: a line on stderr, and below it the end of what Firecracker said.
---@param err fcproc.Error
---@return integer status
function Output:tell(err)
  self:note("%s (%s)", flags.say((err.message:gsub("%s*\n%s*", " "))), err.code)
  self:quote(err.output or "")
  return M.status_of(err)
end

---The same, and with --json the error on stdout.
---@param err fcproc.Error
---@return integer status
function Output:fail(err)
  if self.json then self:write(M.encode{ error = M.plain(err) }) end
  return self:tell(err)
end

---For the manager's logger (--verbose).
---@return fun(level: string, message: string, fields: table)
function Output:logger()
  return function(level, message, fields)
    local words = {}
    for key, value in pairs(fields) do
      words[#words + 1] = ("%s=%s"):format(key,
        math.type(value) == "float" and ("%.4f"):format(value) or tostring(value))
    end
    table.sort(words)
    self:note("%s: %s: %s", level, message, table.concat(words, " "))
  end
end

return M
