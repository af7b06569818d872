-- Runs commands for flows and scripts: no shell, output captured up to a limit, ended with the
-- context. The primitives never use it.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local process = require "fcproc.process"
local tail = require "fcproc.tail"

local M = {}

---@class fcproc.RunOptions
---@field input string?         for its standard input; default: nothing
---@field env table<string, string>?
---@field cwd string?
---@field timeout number?       seconds; its end is ERR_WAIT_TIMEOUT
---@field output_limit integer? bytes kept: stdout's first, stderr's last; default 1 MiB
---@field netns fcproc.Netns?
---@field umask integer?
---@field uid integer?
---@field gid integer?
---@field session boolean?     a session of its own: the terminal's Ctrl-C is not for it

---@class fcproc.RunResult
---@field status integer  0
---@field stdout string
---@field stderr string
---@field stdout_truncated boolean?
---@field stderr_truncated boolean?

---@class fcproc.Runner
local Runner = {}
Runner.__index = Runner

local run_options = {
  input = "string", env = "table", cwd = "string", timeout = "number", output_limit = "integer",
  netns = "fcproc.netns", umask = "integer", uid = "integer", gid = "integer",
  session = "boolean",
}

local ERROR_OUTPUT = 2000 -- bytes of stderr in an error
local SUDO_GRACE = 2      -- seconds between SIGTERM, which sudo relays, and SIGKILL, which it can't

local function failure(argv, result)
  local output = result.stderr:sub(-ERROR_OUTPUT)
  local last_line = tail.last_line(output)
  local ending = result.signal and ("was ended by signal %d"):format(result.signal)
    or ("failed with exit status %s"):format(result.status or "unknown")
  return errors.new{
    code = "exit_status", op = "command.run", status = result.status, signal = result.signal,
    output = output, stdout = result.stdout, stderr = result.stderr,
    message = ("'%s' %s%s"):format(table.concat(argv, " "), ending,
      last_line and ": " .. last_line or ""),
  }
end

local function run(argv, opts, ctx)
  ctx = loop.context(ctx)
  local done, result = loop.complete(ctx, core.command(process.spec(argv, opts), ctx))
  if not done then return nil, result end
  if result.status ~= 0 then return nil, failure(argv, result) end
  return result
end

---Runs a command to its end. When the context or the time-out ends it, it is killed.
---@param argv (string|number)[]
---@param opts fcproc.RunOptions?
---@param ctx fcproc.Context?
---@return fcproc.RunResult? result
---@return fcproc.Error? err  ERR_EXIT_STATUS with status or signal, output, stdout and stderr;
---                           ERR_NOT_FOUND, ERR_PERMISSION: it could not be started; ERR_WAIT_TIMEOUT
function Runner:run(argv, opts, ctx) -- luacheck: ignore self
  options.argument(argv, "table", "runner:run", "argv")
  options.check(opts, run_options, "runner:run")
  return run(argv, opts, ctx)
end

---The same through `sudo -n --`, which never asks for a password. It is ended by SIGTERM, which
---sudo passes on, and by SIGKILL 2 s later, which it can't: the command may then survive.
---@param argv (string|number)[]
---@param opts fcproc.RunOptions?
---@param ctx fcproc.Context?
---@return fcproc.RunResult? result
---@return fcproc.Error? err  as runner:run's; ERR_EXIT_STATUS also when sudo would have to ask for a
---                           password
function Runner:run_sudo(argv, opts, ctx) -- luacheck: ignore self
  options.argument(argv, "table", "runner:run_sudo", "argv")
  options.check(opts, run_options, "runner:run_sudo")
  local with_grace = { end_signal = core.signals.TERM, grace = SUDO_GRACE }
  for key, value in pairs(opts or {}) do with_grace[key] = value end
  local result, err = run({ "sudo", "-n", "--", table.unpack(argv) }, with_grace, ctx)
  if err and (err.code == "cancelled" or err.code == "deadline" or err.code == "wait_timeout") then
    err.message = err.message .. "; a command under sudo may survive this"
  end
  return result, err
end

---A runner of commands: no shell. It is what a manager has when it is given none.
---@return fcproc.Runner
function M.new()
  return setmetatable({}, Runner)
end

return M
