-- One Firecracker process and its API: starting it directly or through the jailer, proving which
-- process it is, asking it, and telling why it did not start. What a VM needs around it (network,
-- disks, a journal) is vm/.

local calls = require "fcproc.machine.calls"
local api = require "fcproc.api"
local core = require "fcproc.core"
local endpoints = require "fcproc.machine.endpoints"
local errors = require "fcproc.error"
local exits = require "fcproc.machine.exit"
local finally = require "fcproc.finally"
local jailer = require "fcproc.machine.jailer"
local launch = require "fcproc.machine.launch"
local loop = require "fcproc.loop"
local outputs = require "fcproc.machine.outputs"
local process = require "fcproc.process"
local remedies = require "fcproc.machine.remedies"
local tail = require "fcproc.tail"

local M = {}

---@class fcproc.Machine: fcproc.MachineCalls
---@field manager fcproc.Manager
---@field files fcproc.MachineFiles  where its socket, console and logs are on the host
---@field process fcproc.Process?    the VMM itself, whoever started it
---@field launcher fcproc.Process?   what was spawned: the VMM, or a jailer that has ended
---@field version string?            "1.12.1", once that was asked for
---@field started boolean?           false before InstanceStart; nil while nobody knows
---@field shape fcproc.MachineShape
---@field binary string?             its executable, when we started it
---@field began number?              when we started it
---@field outer { path: string, oom_kills: integer }?  a cgroup that it was put into
---@field closed true?
---@field waits table<fcproc.Context, true>?  of those who wait without an end of their own
local Machine = {}
Machine.__index = Machine

for name, method in pairs(calls.methods) do Machine[name] = method end

---@class fcproc.MachineShape  how it was started
---@field jailed boolean?
---@field daemonize boolean?    its console is /dev/null
---@field new_pid_ns boolean?   it is PID 1 of a namespace: SIGTERM does nothing

---@class fcproc.MachineFiles
---@field folder string   Firecracker's working folder: the VM's own, or the jail's root
---@field socket string
---@field console string?
---@field log string
---@field metrics string
---@field jail fcproc.MadeIn?  in which folder, socket, log and metrics are

local ENOENT, ENOTSOCK = 2, 88
local BOOTED_LIMIT = 1 -- seconds for the log to say that the VM runs, then the API is asked
local EXIT_LIMIT = 1   -- seconds for a process that has closed its socket to end
local LOG_TAIL = 4096  -- bytes in which its last words are
local ASK_LIMIT = 2    -- seconds for a program to say whether it is a Firecracker
local JAIL_FAILED = 127 -- the status of what makes a rootless jail, if it can't
local STATE_LIMIT = 2  -- seconds to read the state again after a request whose effect is unknown

function Machine:__tostring()
  local state = self.closed and "closed" or self.process and ("pid %d"):format(self.process:pid())
    or "not started"
  return ("fcproc.Machine %s (%s)"):format(self.files.folder, state)
end

-- ---- telling what happened ---------------------------------------------------------------------

---How it ended, as one sentence for the operator.
---@param exit fcproc.Exit?
---@param fault boolean?  what triple_fault has said of it; nil: it is asked
---@return string
function Machine:describe_exit(exit, fault)
  if fault == nil then fault = self:triple_fault(exit) end
  return remedies.oom(exit, self.files.jail, self.outer)
    or exits.describe(exit, { jailer = self.shape.jailed, triple_fault = fault })
end

---Did it end because the guest's CPU gave up? Its log says so; before 1.15 at the level Info only.
---@param exit fcproc.Exit?
---@return true?
function Machine:triple_fault(exit)
  if not exit or (exit.status ~= 0 and exit.status ~= 1) then return nil end
  return exits.is_triple_fault(outputs.read(self.files, "log", -LOG_TAIL) or "") or nil
end

---The end of the log and of the console, for an error.
---@return string
function Machine:output()
  local list = { { "log", outputs.of(self.files, "log") } }
  if self.files.console then list[2] = { "console", outputs.of(self.files, "console") } end
  return tail.of(list)
end

---Has its guest ended, and is Firecracker about to? As its log says.
---@return boolean
function Machine:is_stopping()
  return (outputs.read(self.files, "log", -LOG_TAIL) or ""):find("Vmm is stopping", 1, true) ~= nil
end

-- Does the jailer start the VMM as another process, and leave?
local function leaves(self)
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
    return ("%s: the jail failed: %s"):format(step, errors.shown(words)),
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
  local how = last and exits.describe(exit) or self:describe_exit(exit)
  if last and exit and exit.status == 1 then how = "1: a general failure" end -- the words say which
  if step == "start" and exit and exit.status == 0 then
    how = "0: it ended before the VM was seen to run: the guest ended at once"
  end
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
function Machine:ended_by(err, ctx)
  local gone, exit = self:wait(is_cut_off(err) and EXIT_LIMIT or 0, ctx)
  if gone then return true, exit end
  return false
end

-- Used after its handles were closed, maybe by another coroutine in the middle of a call.
local function closed(step)
  return errors.new{ code = "closed", op = "machine." .. step,
    message = "the VM is not in our hands any more: it was stopped or detached" }
end

-- Why the step failed: the cause as it is, or how the process ended meanwhile.
function Machine:failure(step, cause)
  if self.closed then return closed(step) end
  local subject, exit = self.process or self.launcher, nil
  local dead = subject and not subject:alive()
  if dead or (subject and cause and is_cut_off(cause)) then
    local gone, how = subject:wait(EXIT_LIMIT)
    dead, exit = gone, gone and how
    -- A jailer that has left its VMM behind: its status is not the VMM's.
    if subject ~= self.process and leaves(self) and exit and exit.status == 0 then exit = nil end
  end
  local output = self:output()
  -- An answer says why, also when it ended right after it.
  if cause and (cause.code == "api" or not dead) then
    cause.output = cause.output or output
    if cause.code == "api" then cause.message = cause.message .. remedies.of(cause.message) end
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

-- ---- the API -----------------------------------------------------------------------------------

local STATES = { ["Not started"] = true, Running = true, Paused = true }

-- A VMM may have been broken into, and answers what it likes.
local function odd_answer(self, target, wanted)
  return errors.new{ code = "protocol", op = "api.request", path = self.files.socket, answered = true,
    message = ("GET %s: the answer from %s is not %s: that is no Firecracker, or it has been broken into")
      :format(target, self.files.socket, wanted) }
end

-- Asks this VMM or nobody, whatever has become of the socket's path: a jail's user can move it.
local function new_client(self)
  if self.closed then return nil, closed("api") end
  return api.client(self.files.socket, self.process)
end

local function client_of(self)
  if self.client then return self.client end
  local client, err = new_client(self)
  if not client then return nil, err end
  self.client = client
  return client
end

local function starts(method, target, body)
  if method ~= "PUT" or type(body) ~= "table" then return false end
  return target == "/snapshot/load"
    or (target == "/actions" and body.action_type == "InstanceStart")
end

---A request as it is: no check against the version. One at a time goes over one connection.
---@param method string
---@param target string
---@param body table|string|nil
---@param ctx fcproc.Context?
---@return any? answer
---@return fcproc.Error? err  as fcproc.request; one that timed out has `state`, as read afterwards
function Machine:api(method, target, body, ctx)
  ctx = loop.context(ctx)
  local client, answer, err
  client, err = client_of(self)
  if not client then return nil, err end
  local text, limit = endpoints.encode(method, target, body), endpoints.limit(method, target)
  answer, err = client:request(method, target, text, ctx, limit)
  if err and err.code == "busy" then -- another coroutine waits for its answer on that connection
    local own <close> = new_client(self)
    if own then
      answer, err = own:request(method, target, text, ctx, limit)
    end
  end
  if err and err.code == "wait_timeout" then
    self.client = client:close() -- its answer may still come, to the wrong question
    local again <close> = new_client(self)
    local seen = again and again:request("GET", "/", nil, ctx, STATE_LIMIT)
    local state = type(seen) == "table" and seen.state
    err.state = STATES[state] and state or "unknown"
    err.message = ("%s; the VM's state now: %s"):format(err.message, err.state)
  end
  if answer ~= nil and starts(method, target, body) then self.started = true end
  -- The data store is the user's own, and may be anything.
  if answer ~= nil and method == "GET" and target ~= "/mmds" and type(answer) ~= "table" then
    return nil, odd_answer(self, target, "an object")
  end
  return answer, err
end

---A request that is checked first: an endpoint or field newer than this Firecracker, one that does
---not belong before or after the boot, an unknown name or a value out of range come back without
---having been sent. The typed calls use it.
---@param method string
---@param target string
---@param body table?
---@param ctx fcproc.Context?
---@return any? answer
---@return fcproc.Error? err  ERR_UNSUPPORTED, ERR_CONFLICT or ERR_INVALID from the check
function Machine:call(method, target, body, ctx)
  local ok, err = true, nil
  if not self.version and self.started ~= nil then -- its log said that it runs
    self.version = (outputs.read(self.files, "log", 0, 1024) or ""):match(launch.VERSION)
  end
  if not self.version then ok, err = self:state(ctx) end
  if ok then ok, err = endpoints.check(self.version, self.started, method, target, body) end
  if not ok then return nil, err end
  return self:api(method, target, body, ctx)
end

---"Not started", "Running" or "Paused".
---@param ctx fcproc.Context?
---@return string? state
---@return fcproc.Error? err
function Machine:state(ctx)
  local info, err = self:api("GET", "/", nil, ctx)
  if not info then return nil, err end
  if not STATES[info.state] or type(info.vmm_version) ~= "string"
    or not info.vmm_version:find("^%d+%.%d+[%w.+-]*$") then
    return nil, odd_answer(self, "/", "a state and a version")
  end
  self.version = info.vmm_version
  self.started = info.state ~= "Not started"
  return info.state
end

---Closes the API connection; the next request opens it again.
function Machine:disconnect()
  if self.client then self.client = self.client:close() end
end

-- ---- starting ----------------------------------------------------------------------------------

-- Returns when the API's socket listens. A jailer that ends with 0 has made progress: the VMM is its
-- child, or with daemonize its child's child, and it is that one's end which matters from then on.
local function wait_for_socket(self, timeout, ctx)
  local watched, deadline = self.launcher, core.now() + timeout
  while true do
    local done, listens = loop.complete(ctx, watched:wait_server_op(self.files.socket,
      math.max(deadline - core.now(), 0), "firecracker api socket", self.manager.config.without, ctx))
    if not done then return nil, self:failure("start", listens) end
    if listens then return true end
    local gone, exit = watched:wait(EXIT_LIMIT)
    local progress = leaves(self) and gone
      and (watched ~= self.launcher or (exit and exit.status == 0))
    if not progress then return nil, self:failure("start") end
    local err
    watched, err = jailer.find(self.files.folder)
    if not watched then return nil, self:failure("start", err) end
    if self.process then self.process:close() end
    self.process = watched
  end
end

-- Which process is the VMM: our own child, or the socket's peer that is in the jail. A wrapper's number
-- proves nothing.
local function prove(self)
  if not self.shape.jailed then
    self.process = self.launcher
    return true
  end
  local peer, err = jailer.listener(self.files.folder, self.files.socket,
    self.manager.config.without)
  if not peer then return nil, self:failure("start", err) end
  if self.process and self.process ~= self.launcher then self.process:close() end
  self.process = peer
  return true
end

local function configure(self, config, metadata, ctx)
  for _, request in ipairs(launch.requests(config, metadata)) do
    local ok, err = self:call(request.method, request.target, request.body, ctx)
    if not ok then return nil, self:failure("configure", err) end
  end
  return true
end

local FIRST_LOOK, MOST = 0.001, 0.05 -- seconds between looks, doubling

-- Where the log does not say that the VM runs: one that was built has a thread for each CPU. They are looked
-- for while the end of the process is waited for.
local function boots_by_cpus(self, ctx)
  local tasks, step = ("/proc/%d/task"):format(self.process:pid()), FIRST_LOOK
  local deadline = core.now() + BOOTED_LIMIT
  while core.now() < deadline do
    for _, task in ipairs(core.list_dir(tasks) or {}) do
      local name = core.read_file(("%s/%s/comm"):format(tasks, task.name)) or ""
      if name:find("^fc_vcpu") then
        self.started = true
        return true
      end
    end
    local gone, err = self:wait(step, ctx)
    if gone then return nil, self:failure("start") end
    if err.code ~= "wait_timeout" then return nil, self:failure("start", err) end
    step = math.min(step * 2, MOST)
  end
  return false
end

-- A request that waits while Firecracker builds the VM from its file hides why that failed: it is
-- answered with a panic and status 148 instead of the reason. And one that comes while a guest ends in
-- its first moments may hang for ever, with Firecracker. So the log is asked, which has a line for the
-- VM that runs; where that does not come in time, or not at all (false), the API is.
local function boots_by_log(self, opts, ctx)
  if not opts.config or opts.boot == "api" then return false end
  if launch.is_quiet(opts) then return boots_by_cpus(self, ctx) end
  local found, err = tail.wait_for(self.process, outputs.of(self.files, "log"), launch.BOOTED,
    BOOTED_LIMIT, ctx)
  if found == false then return nil, self:failure("start") end
  if err and err.code ~= "wait_timeout" then
    if err.code == "deadline" or err.code == "cancelled" then -- the wait knows only of a text in a file
      err.message = err.code == "cancelled" and "cancelled before the VM was seen to start"
        or ("the VM was not seen to start within %.3g s"):format(core.now() - self.began)
    end
    return nil, self:failure("start", err)
  end
  self.started = found == true
  return self.started
end

-- The VM runs, or the API of an empty Firecracker has answered.
local function wait_until_up(self, opts, ctx)
  local up, err
  if not self.shape.jailed then -- it listens before its log has that line
    self.process = self.launcher
    up, err = boots_by_log(self, opts, ctx)
    if up ~= false then return up, err end
  end
  up, err = wait_for_socket(self, opts.timeout or launch.TIMEOUT, ctx)
  if up then up, err = prove(self) end
  if up and self.shape.jailed then
    up, err = boots_by_log(self, opts, ctx)
    if up ~= false then return up, err end
    up = true
  end
  if not up then return nil, err end
  up, err = self:state(ctx)
  if not up then return nil, self:failure("start", err) end
  return true
end

-- The program that was to be started may be none.
local function cannot_execute(opts, reason)
  if reason.op ~= "executable.find" and not reason.message:find("execute", 1, true) then return reason end
  local what = opts.jailer and "jailer.binary" or "firecracker_bin"
  return errors.new{ code = "invalid", op = "machine.start", errno = reason.errno, cause = reason,
    message = ("%s: %s; name a Firecracker's program there"):format(what, reason.message) }
end

-- From the gate to the point where the VM runs, or where its API has answered.
local function bring_up(self, opts, ctx)
  if opts.before_release then
    local known, err = opts.before_release(self.launcher)
    if not known then return nil, err end
    self.launcher:release(false) -- whether it could execute is asked below, and is the better reason
  end
  local ok, err = wait_until_up(self, opts, ctx)
  if opts.before_release and (ok or not self.launcher:alive()) then
    local executed, reason = self.launcher:release()
    if not executed then ok, err = nil, cannot_execute(opts, reason) end
  end
  if ok and opts.config and opts.boot == "api" then
    ok, err = configure(self, opts.config, opts.metadata, ctx)
  end
  if not ok then return nil, err end
  -- A connection costs its VM four descriptors and 50 KiB here; to open it again takes 0.1 ms.
  self:disconnect()
  return true
end

---Starts a Firecracker: spawns it or a jailer, waits until its API answers and, with a whole
---configuration, until the VM runs. On a failure nothing of it is left but its files.
---@param manager fcproc.Manager
---@param opts fcproc.Launch  see launch.lua
---@param ctx fcproc.Context?
---@return fcproc.Machine? machine
---@return fcproc.Error? err  with output: the end of its log and console
function M.start(manager, opts, ctx)
  ctx = loop.context(ctx)
  local self = setmetatable({
    manager = manager, files = opts.files, shape = jailer.shape(opts.jailer), started = false,
    binary = opts.binary, began = core.now(),
  }, Machine)
  local launcher
  local spawn, err = manager:_check_open("machine.start")
  if spawn then spawn, err = launch.prepare(manager, opts) end
  if spawn then launcher, err = core.spawn(spawn, ctx) end
  if not launcher then return nil, err end
  self.launcher = launcher
  local up = false
  local _ <close> = finally(function()
    if not up then self:kill_now() end
  end)
  up, err = bring_up(self, opts, ctx)
  if not up then return nil, err end
  return self
end

---Attaches to one that runs already, by its recorded identity.
---@param manager fcproc.Manager
---@param process_handle fcproc.Process
---@param files fcproc.MachineFiles
---@param shape fcproc.MachineShape
---@return fcproc.Machine
function M.attach(manager, process_handle, files, shape)
  return setmetatable({ manager = manager, process = process_handle, files = files, shape = shape },
    Machine)
end

-- ---- ending ------------------------------------------------------------------------------------

-- SIGKILL, and wait for the end; for failed starts and closing, so with a limit of its own and
-- whatever has become of the caller's context.
function Machine:kill_now()
  if self.closed then return end
  local ctx <close> = core.context(nil, 10)
  local function kill(handle)
    if handle:alive() then handle:signal("KILL") end
    return process.wait_for_killed(handle, self.manager.config.without, ctx)
  end
  for _, handle in ipairs{ self.process or self.launcher, self.launcher } do kill(handle) end
  -- One that a jailer left behind, and that was not proved to be the VMM.
  if self.shape.jailed then jailer.kill_all(self.files.folder, self.manager.config.without, ctx) end
  self:close()
end

---Waits for its end.
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return true? gone
---@return fcproc.Exit|fcproc.Error|nil exit
function Machine:wait(timeout, ctx)
  if self.closed then return nil, closed("wait") end
  return process.wait(self.process, timeout, self.manager.config.without, loop.context(ctx))
end

-- Calls fn with a context that also ends when the handles are closed, which only another coroutine can do:
-- for waits that may have no other end. The answer; or, when they were, that.
function Machine:_while_open(step, fn, ctx)
  ctx = loop.context(ctx)
  if self.closed then return nil, closed(step) end
  local own <close> = coroutine.isyieldable() and core.context(ctx or core.default_context()) or nil
  self.waits = self.waits or {}
  if own then self.waits[own] = true end
  local _ <close> = finally(function()
    if own then self.waits[own] = nil end
  end)
  local answer, err = fn(own or ctx)
  if answer == nil and self.closed then return nil, closed(step) end
  return answer, err
end

---Closes the handles; the VMM goes on. Who waits for it is told.
function Machine:close()
  self.closed = true
  for own in pairs(self.waits or {}) do own:cancel() end
  self:disconnect()
  if self.launcher and self.launcher ~= self.process then self.launcher:close() end
  if self.process then self.process:close() end
end

return M
