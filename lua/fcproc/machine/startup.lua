-- A Firecracker, or a jailer, that was just spawned, until its VM runs or its API has answered: which
-- process it is, and by what that it is up is known.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local jailer = require "fcproc.machine.jailer"
local launch = require "fcproc.machine.launch"
local loop = require "fcproc.loop"
local outputs = require "fcproc.machine.outputs"
local tail = require "fcproc.tail"

local M = {}

local BOOTED_LIMIT = 1 -- seconds for the log to say that the VM runs, then the API is asked
local EXIT_LIMIT = 1   -- seconds for a process that has ended to be known as that

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
    local progress = self:_leaves() and gone
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

---From the gate to the point where the VM runs, or where its API has answered.
---@param self fcproc.Machine
---@param opts fcproc.Launch
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.bring_up(self, opts, ctx)
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

return M
