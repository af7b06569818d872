-- The manager's process side: finding the Firecracker behind an API socket, waiting for its end,
-- killing it. A number is only ever a hint: the process is opened, then proved to be a Firecracker
-- of ours, then used, all through one pidfd.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local process = require "fcproc.process"

local M = {}

local ESRCH = 3

---@class fcproc.ManagerProcesses
local Processes = {}

local function is_process(value)
  local metatable = type(value) == "userdata" and getmetatable(value)
  return metatable and metatable.__name == "fcproc.process" or false
end

local function check_target(target, what)
  if math.type(target) == "integer" or is_process(target) then return end
  if type(target) == "table" and math.type(target.pid) == "integer" and target.boot_id then return end
  options.raise(("%s: expected a pid, a process or its identity, not a %s"):format(what, type(target)))
end

local function check_socket(api_sock, what)
  if api_sock ~= nil and type(api_sock) ~= "string" then
    options.raise(("%s: api_sock must be a string, not a %s"):format(what, type(api_sock)))
  end
end

-- Does the process listen there? Both pidfds are alive after the comparison, so that an equal number
-- is the same process. nil: that can't be told, as of a server whose queue is full.
local function listens(self, candidate, api_sock)
  local peer <close>, err = core.open_listener(api_sock, self.config.without)
  if peer then return peer:pid() == candidate:pid() and peer:alive() and candidate:alive() end
  if err.code == "not_found" then return false end
  err.path = api_sock
  return nil, err
end

-- "yes", "no" or "exiting": is the open process a Firecracker of ours? nil: that can't be told.
--  1. it was recorded at its spawn; or
--  2. it is the live peer of the API socket; or
--  3. its executable is the configured binary and its --api-sock is exactly this path, or, when
--     no path is given, one inside our runtime folder.
local function prove(self, candidate, api_sock)
  if candidate:recorded() then return "yes" end
  local peer, unseen = false, nil
  if api_sock then peer, unseen = listens(self, candidate, api_sock) end
  if peer then return "yes" end
  local exe, err = self:resolve_binary()
  local proof = "no"
  if exe and (api_sock or self.config.runtime_dir) then
    proof, err = candidate:matches(exe, api_sock, self.config.runtime_dir)
  elseif not exe and err.code ~= "not_found" then
    proof = nil
  end
  if not proof then return nil, err end
  if proof == "no" and unseen and candidate:alive() then return nil, unseen end
  return proof
end

-- One that lives, and of which nothing tells that it is what the caller means.
local function not_ours(op, candidate, api_sock, hint)
  return errors.new{
    code = "not_same_process", op = op, pid = candidate:pid(), path = api_sock,
    message = ("pid %d is not a Firecracker of ours%s; %s"):format(candidate:pid(), api_sock
      and (": it neither listens on %s nor was started with it"):format(api_sock)
      or " (give its API socket, to prove it)", hint),
  }
end

-- Opens what the caller named. A process object is handed on as it is; only what was opened here
-- is closed here, which the second value does. A recorded identity is proof of itself.
local function open_target(target)
  if is_process(target) then return target, nil end
  local opened, err = core.process(target)
  return opened, opened, err
end

-- Starting, Firecracker does not listen yet; hanging, its queue is full: then its own arguments
-- tell. A dead listener (ESRCH) is the answer, though: the path is taken.
local function open_by_arguments(self, api_sock, listener_error)
  if listener_error.errno ~= ESRCH
    and (listener_error.code == "not_found" or listener_error.code == "busy") then
    local exe = self:resolve_binary()
    local found, err
    if exe then found, err = core.open_api_sock(exe, api_sock) end
    if found then return found end
    if err and err.code ~= "not_found" then listener_error = err end
  end
  listener_error.path = api_sock
  return nil, listener_error
end

---The pid of the Firecracker that listens on the API socket; else of the one that was started
---with exactly this --api-sock. Seed: FindPID.
---@param api_sock string
---@param ctx fcproc.Context?
---@return integer? pid
---@return fcproc.Error? err  ERR_NOT_FOUND: none; ERR_BUSY: the listener's queue is full, and no
---                           Firecracker was started with it; ERR_CONFLICT: a symbolic link is there
function Processes:find_pid(api_sock, ctx)
  options.argument(api_sock, "string", "find_pid", "api_sock")
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local pid
  pid, err = core.listener_pid(api_sock, self.config.without)
  if pid then return pid end
  local found <close>, reason = open_by_arguments(self, api_sock, err)
  if not found then return nil, reason end
  return found:pid()
end

---What find_pid finds, as a process handle, which stays that process whatever becomes of the number.
---@param api_sock string
---@return fcproc.Process? process
---@return fcproc.Error? err  as manager:find_pid's
function Processes:open_process(api_sock)
  options.argument(api_sock, "string", "open_process", "api_sock")
  local found, err = core.open_listener(api_sock, self.config.without)
  if found then return found end
  return open_by_arguments(self, api_sock, err)
end

---find_pid, else what machine:pid() says if that still is a Firecracker of ours, else 0:
---test for pid > 0. Seed: ResolvePID.
---@param machine { pid: fun(self): integer? }?
---@param api_sock string
---@param ctx fcproc.Context?
---@return integer pid
---@return fcproc.Error? err  with 0: it could not be found out, as manager:find_pid's;
---                           ERR_NOT_SAME_PROCESS: what machine:pid() says lives, and is not proved to be
---                           it; without: there is none
function Processes:resolve_pid(machine, api_sock, ctx)
  local pid, err = self:find_pid(api_sock, ctx)
  if pid then return pid end
  if is_process(machine) then return machine:alive() and machine:pid() or 0 end
  if err.code == "not_found" then err = nil end
  pid = machine and machine:pid()
  if math.type(pid) ~= "integer" or pid <= 0 then return 0, err end
  local candidate <close>, reason = core.process(pid)
  if not candidate then return 0, reason.code ~= "not_found" and reason or nil end
  if not candidate:alive() then return 0 end
  local proof, unseen = prove(self, candidate, api_sock)
  if proof == "yes" then return pid end
  if proof == "no" and candidate:alive() then
    unseen = not_ours("process.resolve", candidate, api_sock, "what machine:pid() says is not believed")
  end
  return 0, unseen
end

---Waits until the process is gone. Gone is also a pid of 0 or less. A number may be anybody's: one that
---is alive, and not provably the VM's, is an error. A process object or a recorded identity is that very
---process, which is gone when somebody else has its number. Seed: WaitForExit.
---@param target integer|fcproc.Process|fcproc.Identity
---@param api_sock string?  proves whose the number is; default: any socket in runtime_dir
---@param timeout number?   seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return true? gone
---@return fcproc.Exit|fcproc.Error|nil exit  nil when nobody can tell how it ended; or the error:
---                                           ERR_WAIT_TIMEOUT; ERR_NOT_SAME_PROCESS: the
---                                           number is somebody else's, or its socket another
function Processes:wait_for_exit(target, api_sock, timeout, ctx)
  check_target(target, "wait_for_exit")
  check_socket(api_sock, "wait_for_exit")
  options.timeout(timeout, "wait_for_exit")
  ctx = loop.context(ctx)
  if math.type(target) == "integer" and target <= 0 then return true end
  local candidate, opened, err = open_target(target)
  local closing <close> = opened -- luacheck: ignore closing
  if not candidate then
    if err.code == "not_found" then return true end
    return nil, err
  end
  if opened then
    local proof, reason = prove(self, candidate, api_sock)
    if not proof then return nil, reason end
    if proof == "no" and not candidate:alive() then return true end
    if proof == "no" then
      return nil, not_ours("process.wait", candidate, api_sock,
        "whether the VM has ended can't be told by this number; a process object can")
    end
  end
  return process.wait(candidate, timeout, self.config.without, ctx)
end

---SIGKILL, through a pidfd whose process was proved to be a Firecracker of ours. One that is gone
---already is a success. Wait for its exit afterwards. Seed: Kill.
---@param target integer|fcproc.Process|fcproc.Identity
---@param api_sock string?  proves whose the number is; default: any socket in runtime_dir
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  ERR_NOT_SAME_PROCESS: it is something else; ERR_INVALID: a pid <= 0
---@overload fun(self, target: integer|fcproc.Process, ctx: fcproc.Context): true?, fcproc.Error?
function Processes:kill(target, api_sock, ctx)
  check_target(target, "kill")
  if type(api_sock) == "userdata" and ctx == nil then api_sock, ctx = nil, api_sock end
  check_socket(api_sock, "kill")
  local ok, err = loop.check(ctx)
  if not ok then return nil, err end
  local started = core.now()
  local candidate, opened
  candidate, opened, err = open_target(target)
  local closing <close> = opened -- luacheck: ignore closing
  if not candidate then
    if err.code == "not_found" then return true end
    return nil, err
  end
  local proof, reason = prove(self, candidate, api_sock)
  if not proof then return nil, reason end
  if proof == "exiting" or not candidate:alive() then return true end
  if proof == "no" then
    return nil, not_ours("process.kill", candidate, api_sock, "it was not signalled")
  end
  ok, err = candidate:signal("KILL")
  if not ok and err.code ~= "not_found" then return nil, err end
  self:_log(started, "process killed", { pid = candidate:pid(), api_sock = api_sock })
  return true
end

M.methods = Processes

return M
