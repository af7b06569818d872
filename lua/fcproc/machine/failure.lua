-- Why a Firecracker did not start, did not answer, or has ended: by how its process went, and by what it,
-- or its jailer, wrote last. Methods of a machine, which machine.lua mixes in.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local exits = require "fcproc.machine.exit"
local outputs = require "fcproc.machine.outputs"
local remedies = require "fcproc.remedies"
local tail = require "fcproc.tail"

local M = {}

local ENOENT, ENOTSOCK = 2, 88
local EXIT_LIMIT = 1   -- seconds for a process that has closed its socket to end
local LOG_TAIL = 4096  -- bytes in which its last words are
local ASK_LIMIT = 2    -- seconds for a program to say whether it is a Firecracker
local JAIL_FAILED = 127 -- the status of what makes a rootless jail, if it can't

---@class fcproc.MachineFailure
local Failure = {}

---How it ended, as one sentence for the operator.
---@param exit fcproc.Exit?
---@param cpu fcproc.CpuEnd?  what cpu_end has said of it; nil: it is asked
---@param step string?  of a ladder, that has ended it
---@return string
function Failure:describe_exit(exit, cpu, step)
  cpu = cpu or self:cpu_end(exit)
  return exits.oom(exit, self.files.jail, self.outer)
    or exits.as_asked(step, exit)
    or exits.describe(exit, { jailer = self.shape.jailed, triple_fault = cpu.triple_fault,
      vcpu_error = cpu.vcpu_error })
end

---What a CPU of the guest has to do with it.
---@param exit fcproc.Exit?
---@return fcproc.CpuEnd
function Failure:cpu_end(exit) return exits.cpu_end(exit, self.files) end

---The end of the log and of the console, for an error.
---@return string
function Failure:output()
  local list = { { "log", outputs.of(self.files, "log") } }
  if self.files.console then list[2] = { "console", outputs.of(self.files, "console") } end
  return tail.of(list)
end

---Has its guest ended, and is Firecracker about to? As its log says.
---@return boolean
function Failure:is_stopping()
  return (outputs.read(self.files, "log", -LOG_TAIL) or ""):find("Vmm is stopping", 1, true) ~= nil
end

-- Does the jailer start the VMM as another process, and leave?
function Failure:_leaves()
  return self.shape.daemonize or self.shape.new_pid_ns
end

local function log_is_empty(self)
  return (outputs.read(self.files, "log", 0, 1) or "") == ""
end

-- One that ends as no Firecracker does, has not said in its log that it is one, and does not when asked.
local function is_stranger(self, exit)
  if not exit or not self.binary or exits.is_usual(exit) then return false end
  if not log_is_empty(self) then return false end
  local bounded <close> = core.context(nil, ASK_LIMIT)
  local version, err = self.manager:binary_version(bounded)
  return not version and err.code == "unsupported"
end

-- Want of a right: EPERM and EACCES.
local function is_denied(words)
  return words:find("os error 1)", 1, true) ~= nil or words:find("os error 13)", 1, true) ~= nil
end

-- The words of a jailer that failed, before there was a Firecracker.
local function jailer_words(self, exit)
  if not self.shape.jailed or not exit or not self.files.console then return nil end
  if exit.signal ~= 6 and exit.status ~= 1 or not log_is_empty(self) then return nil end
  return tail.jailer_words(errors.shown(tail.lines(outputs.of(self.files, "console"))))
end

-- The words of what makes a rootless jail, the same.
local function jail_words(self, exit)
  if not exit or exit.status ~= JAIL_FAILED or not self.files.console then return nil end
  return tail.lines(outputs.of(self.files, "console")):match("fcproc%-rootless: ([^\n]+)")
end

-- How it ended, in a message; and whether that was for want of a right.
local function explain_end(self, step, exit, output)
  local words = jail_words(self, exit)
  if words then
    return ("%s: the jail failed: %s%s"):format(step, errors.shown(words), remedies.of(words)),
      words:find("Permission denied", 1, true) or words:find("not permitted", 1, true)
  end
  words = jailer_words(self, exit)
  if words then
    return ("%s: the jailer failed: %s%s"):format(step, words, remedies.of(words)), is_denied(words)
  end
  -- What it said last is of interest unless it was killed, or ended well; and it tells which of the
  -- two failed.
  local killed = exit and (exit.signal and exit.signal ~= 6 or exit.status == 0)
  local last, reason
  if not killed then last, reason = tail.last_words(output) end
  local cpu = self:cpu_end(exit)
  local how = last and exits.describe(exit) or self:describe_exit(exit, cpu)
  if last and exit and exit.status == 1 then how = "1: a general failure" end -- the words say which
  if step == "start" and exit and exit.status == 0 then
    how = "0: it ended before the VM was seen to run: the guest ended at once"
  end
  if cpu.vcpu_error then how, last, reason = self:describe_exit(exit, cpu), nil, nil end
  if self.shape.daemonize and not last and not killed and log_is_empty(self) then
    how = how .. ", and what it wrote went to /dev/null: try once without daemonize"
  end
  local message = ("%s: %s%s"):format(step, how, last and last ~= how and (": " .. last) or "")
  if reason and exit then -- of a status that may mean many things, the reason says which
    message = ("%s: %s (%s: %s)"):format(step, reason, how, last)
  end
  if is_stranger(self, exit) then
    message = ("%s; firecracker_bin: %s wrote nothing into its log: is it a Firecracker?"):format(message,
      self.binary)
  end
  message = message .. remedies.of(("%s %s"):format(reason or "", last or ""))
  return message, reason and is_denied(reason)
end

-- Can the end of the process be the cause? It closes its socket some milliseconds before, and leaves
-- the file where it is.
local function is_cut_off(err)
  return (err.code == "not_found" or err.code == "protocol") and not err.status and not err.answered
    and err.errno ~= ENOENT and err.errno ~= ENOTSOCK
end

---Has it ended, that it failed to answer like that?
---@param err fcproc.Error  of a request
---@param ctx fcproc.Context?
---@return boolean gone
---@return fcproc.Exit? exit
function Failure:ended_by(err, ctx)
  local gone, exit = self:wait(is_cut_off(err) and EXIT_LIMIT or 0, ctx)
  if gone then return true, exit end
  return false
end

---The error of a use after its handles were closed, maybe by another coroutine in the middle of a call.
---@param step string
---@return fcproc.Error
function M.closed(step)
  return errors.new{ code = "closed", op = "machine." .. step,
    message = "the VM is not in our hands any more: it was stopped or detached" }
end

-- Why the step failed: the cause as it is, or how the process ended meanwhile.
function Failure:failure(step, cause)
  if self.closed then return M.closed(step) end
  local subject, exit = self.process or self.launcher, nil
  local dead = subject and not subject:alive()
  if dead or (subject and cause and is_cut_off(cause)) then
    local gone, how = subject:wait(EXIT_LIMIT)
    dead, exit = gone, gone and how
    -- A jailer that has left its VMM behind: its status is not the VMM's.
    if subject ~= self.process and self:_leaves() and exit and exit.status == 0 then exit = nil end
  end
  local output = self:output()
  -- An answer says why, also when it ended right after it.
  if cause and (cause.code == "api" or not dead) then
    cause.output = cause.output or output
    return cause
  end
  if subject and not exit then -- nobody's child: its log may tell
    local status = output:match("Firecracker exiting [^\n]*exit_code=(%d+)")
    exit = status and { status = math.tointeger(tonumber(status)) }
  end
  local message, denied = explain_end(self, step, exit, output)
  return errors.new{
    code = denied and "permission" or "exit_status", op = "machine." .. step, status = exit and exit.status,
    signal = exit and exit.signal, output = output, cause = cause, path = self.files.log, message = message,
  }
end

M.methods = Failure

return M
