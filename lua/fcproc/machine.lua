-- One Firecracker process and its API: starting it directly or through the jailer, asking it, and
-- ending it. What follows its spawn is in startup.lua; why it failed or ended, failure.lua tells, which
-- this file mixes in. What a VM needs around it (network, disks, a journal) is vm/.

local calls = require "fcproc.machine.calls"
local api = require "fcproc.api"
local core = require "fcproc.core"
local endpoints = require "fcproc.machine.endpoints"
local errors = require "fcproc.error"
local failures = require "fcproc.machine.failure"
local finally = require "fcproc.finally"
local jailer = require "fcproc.machine.jailer"
local launch = require "fcproc.machine.launch"
local loop = require "fcproc.loop"
local outputs = require "fcproc.machine.outputs"
local process = require "fcproc.process"
local startup = require "fcproc.machine.startup"

local M = {}

---@class fcproc.Machine: fcproc.MachineCalls, fcproc.MachineFailure
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

for _, part in ipairs{ calls, failures } do
  for name, method in pairs(part.methods) do Machine[name] = method end
end

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

local STATE_LIMIT = 2 -- seconds to read the state again after a request whose effect is unknown

function Machine:__tostring()
  local state = self.closed and "closed" or self.process and ("pid %d"):format(self.process:pid())
    or "not started"
  return ("fcproc.Machine %s (%s)"):format(self.files.folder, state)
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
  if self.closed then return nil, failures.closed("api") end
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
    local own <close>, reason = new_client(self)
    if own then answer, err = own:request(method, target, text, ctx, limit) else err = reason end
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
  up, err = startup.bring_up(self, opts, ctx)
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
  if self.closed then return nil, failures.closed("wait") end
  return process.wait(self.process, timeout, self.manager.config.without, loop.context(ctx))
end

-- Calls fn with a context that also ends when the handles are closed, which only another coroutine can do:
-- for waits that may have no other end. The answer; or, when they were, that.
function Machine:_while_open(step, fn, ctx)
  ctx = loop.context(ctx)
  if self.closed then return nil, failures.closed(step) end
  local own <close> = coroutine.isyieldable() and core.context(ctx or core.default_context()) or nil
  self.waits = self.waits or {}
  if own then self.waits[own] = true end
  local _ <close> = finally(function()
    if own then self.waits[own] = nil end
  end)
  local answer, err = fn(own or ctx)
  if answer == nil and self.closed then return nil, failures.closed(step) end
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
