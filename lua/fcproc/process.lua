-- Processes: starting one, opening one by number or recorded identity, waiting, signalling.
-- The handle is the C module's; this file adds what waits and what checks options.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local options = require "fcproc.options"

local M = {}

local KILLED_LIMIT = 2 -- seconds

---@class fcproc.Exit
---@field status integer?  the exit status
---@field signal integer?  or the signal that ended it

-- nil for an end that nobody can tell any more.
function M.exit_or_nil(exit)
  if exit and (exit.status or exit.signal) then return exit end
end

---@class fcproc.Process
local Process = core.process_methods

---Waits until the process has ended. A child is reaped; of any other process the status is known
---where the kernel tells it (PIDFD_GET_INFO, Linux 6.15) once its parent has reaped it.
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return true? gone
---@return fcproc.Exit|fcproc.Error|nil exit  nil when it can't be known; or the error: ERR_WAIT_TIMEOUT
function Process:wait(timeout, ctx)
  options.timeout(timeout, "process:wait")
  return M.wait(self, timeout, 0, loop.context(ctx))
end

---The same with kernel features to do without, for the manager.
function M.wait(process, timeout, without, ctx)
  local done, exit = loop.complete(ctx, process:wait_op(timeout, without, ctx))
  if not done then return nil, exit end
  return true, M.exit_or_nil(exit)
end

---Waits for one that was killed: when there is no descriptor for an operation, by its own.
---@param process fcproc.Process
---@param without integer
---@param ctx fcproc.Context?
---@return true? gone
---@return fcproc.Exit|fcproc.Error|nil exit
function M.wait_for_killed(process, without, ctx)
  local gone, exit = M.wait(process, nil, without, ctx)
  if gone or not errors.lacks_descriptors(exit) then return gone, exit end
  core.poll(process:pidfd(), KILLED_LIMIT)
  if process:alive() then return nil, exit end
  return true
end

---Sends a signal through the pidfd: this very process or none.
---@param signal string|integer  "TERM", "KILL", ... or a number
---@return true?
---@return fcproc.Error? err  ERR_NOT_FOUND: it is gone; ERR_PERMISSION; an unknown name raises
function Process:signal(signal)
  local number = math.type(signal) == "integer" and signal or core.signals[signal]
  if not number then
    options.raise(("process:signal: unknown signal '%s'"):format(tostring(signal)))
  end
  return self:signal_number(number)
end

---@class fcproc.SpawnOptions
---@field env table<string, string>?  the whole environment; default: ours
---@field cwd string?
---@field stdin ("null"|"inherit"|integer|{file: string})?   default "null"
---@field stdout ("null"|"inherit"|integer|{file: string})?  default "inherit"; a file is appended to
---@field stderr ("null"|"inherit"|integer|{file: string})?  default "inherit"
---@field fds table<integer, integer>?  number in the child (3 and up) to descriptor: no others pass
---@field umask integer?
---@field uid integer?
---@field gid integer?
---@field session boolean?  a session of its own: survives the terminal and our process group
---@field netns fcproc.Netns?
---@field gate boolean?     executes nothing until process:release(); ends if we die before
---@field no_file integer?  descriptors that it may have; default: our limits. A hard limit that we may not
---                         raise stays
---@field without integer?  bits of core.without

M.spawn_options = {
  env = "table", cwd = "string", stdin = "string|integer|table", stdout = "string|integer|table",
  stderr = "string|integer|table", fds = "table", umask = "integer", uid = "integer",
  gid = "integer", session = "boolean", netns = "fcproc.netns", gate = "boolean",
  no_file = "integer", without = "integer",
}

---The table that core.spawn and core.command take.
---@param argv (string|number)[]
---@param opts table?
---@return table
function M.spec(argv, opts)
  local spec = {}
  for key, value in pairs(opts or {}) do spec[key] = value end
  spec.argv = {}
  for i, argument in ipairs(argv) do
    spec.argv[i] = type(argument) == "number" and tostring(argument) or argument
  end
  if spec.env then
    local env = {}
    for name, value in pairs(spec.env) do env[#env + 1] = ("%s=%s"):format(name, value) end
    spec.env = env
  end
  return spec
end

---Starts a process: no shell, no descriptors but the given ones. The handle does not end it.
---
---    local process <close> = assert(fcproc.spawn({ "sleep", "5" }, { stdout = "null" }))
---    local gone, exit = process:wait(10)
---@param argv (string|number)[]  argv[1] is looked for on PATH when it has no slash
---@param opts fcproc.SpawnOptions?
---@param ctx fcproc.Context?
---@return fcproc.Process? process
---@return fcproc.Error? err  ERR_NOT_FOUND: no such program, folder or interpreter; ERR_PERMISSION: it
---                           may not be executed; ERR_INVALID: what can't work; errno, and the step
---                           that failed in the message
function M.spawn(argv, opts, ctx)
  options.argument(argv, "table", "fcproc.spawn", "argv")
  options.check(opts, M.spawn_options, "fcproc.spawn")
  return core.spawn(M.spec(argv, opts), loop.context(ctx))
end

---Opens a process by its number, or by what process:identity() returned: then only that very
---process is found, never one that has its number now.
---@param which integer|fcproc.Identity
---@return fcproc.Process? process
---@return fcproc.Error? err  ERR_NOT_FOUND: it is gone; ERR_INVALID: a pid of 0 or less
function M.open(which)
  if type(which) ~= "table" then options.argument(which, "integer", "fcproc.process", "pid") end
  return core.process(which)
end

return M
