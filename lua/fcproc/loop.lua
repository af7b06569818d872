-- Waiting for operations, and fcproc.run: many functions at once in one Lua state, as coroutines
-- over poll(2), each written in direct style.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local options = require "fcproc.options"
local waiters = require "fcproc.waiters"

local M = {}

local LONGEST_POLL = waiters.LONGEST_POLL
local MOST_SIGNALS = 8

---@class fcproc.Task            one coroutine of a run
---@field co thread
---@field ctx fcproc.Context
---@field tasks fcproc.Task[]?  all that its loop drives; nil: the host's loop (cqueues, luv) does
---@field op fcproc.Operation?  what it waits for
---@field fd integer?           op's descriptor
---@field wake number?          when op wants to be stepped anyway
---@field inner fcproc.Group?   the inner run that it waits for
---@field ended true?           its coroutine has

---@class fcproc.Group           one call of fcproc.run
---@field functions fcproc.Functions
---@field ctx fcproc.Context
---@field next integer          the next function to start
---@field alive integer         tasks not ended
---@field results table[]
---@field failure table?        { value }: the first error

-- Which task a coroutine is. Keyed weakly; a state's own, like everything in Lua.
---@type table<thread, fcproc.Task>
local task_of = setmetatable({}, { __mode = "k" })

---The context to use: the one given, else that of the fcproc.run around this call. Raises when
---what is given is no context.
---@param ctx fcproc.Context?
---@return fcproc.Context?
function M.context(ctx)
  if ctx ~= nil then
    local metatable = type(ctx) == "userdata" and getmetatable(ctx)
    if not metatable or metatable.__name ~= "fcproc.context" then
      options.raise(("the context must come from fcproc.context, not be a %s"):format(type(ctx)))
    end
    return ctx
  end
  local task = task_of[coroutine.running()]
  return task and task.ctx
end

---The same for calls that do not wait: a context that has ended ends them before they begin.
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.check(ctx)
  ctx = M.context(ctx)
  if ctx then return ctx:status() end
  return true
end

-- In a task of fcproc.run: gives the floor to the others.
local task_waiter = {
  wait = function(op)
    local task = task_of[coroutine.running()]
    local timeout = op:timeout()
    task.op, task.fd, task.wake = op, op:pollfd(), timeout and core.now() + timeout
    coroutine.yield()
    task.op = nil
  end,
}

local function pick_waiter(ctx)
  local name = ctx and ctx:waiter()
  if name and name ~= "poll" then return waiters.get(name) end
  local task = task_of[coroutine.running()]
  return task and task.tasks and task_waiter or waiters.poll
end

local function step_until_done(waiter, op, done, ...)
  if done == false then
    waiter.wait(op)
    return step_until_done(waiter, op, op:step())
  end
  return done, ...
end

---Waits for an operation to its end and closes it. Made to be called on the answer of the C
---function that makes the operation.
---@param ctx fcproc.Context?
---@param op fcproc.Operation?
---@param err fcproc.Error?
---@return true? done
---@return any ...  its results, or the error
function M.complete(ctx, op, err)
  if not op then return nil, err end
  local closing <close> = op -- luacheck: ignore closing
  local waiter = pick_waiter(ctx)
  if not waiter.release then return step_until_done(waiter, op, op:step()) end
  local _ <close> = finally(function() waiter.release(op) end)
  return step_until_done(waiter, op, op:step())
end

local function theirs(ok, ...)
  if ok then return ... end
  local err = ...
  if not core.interrupted() then error(err, 0) end
  if errors.is_error(err) then return nil, err end
  return nil, errors.new{ code = "cancelled", op = "policy", message = tostring(err) }
end

---Calls what a policy has given. Where a host interrupts that, our own work goes on: its errors are
---answers then.
---@param fn function
---@param ... any
---@return any ...
function M.theirs(fn, ...)
  return theirs(pcall(fn, ...))
end

-- What a task does: the group's functions, one after another, as long as there are any. Each is
-- under pcall, so that an error unwinds inside the coroutine, where closing variables may wait.
local work = core.uninterruptible(function(group)
  local functions = group.functions
  while group.next <= #functions and not group.failure do
    local index = group.next
    group.next = index + 1
    local result = table.pack(pcall(functions[index], group.ctx))
    if result[1] then
      group.results[index] = table.pack(table.unpack(result, 2, result.n))
    else
      group.failure = group.failure or { result[2] }
      group.ctx:cancel()
    end
  end
  group.alive = group.alive - 1
end)

local function concurrency(group)
  return math.min(#group.functions, group.functions.limit or #group.functions)
end

-- As coroutines of cqueues or luv, whose loop goes on with what else it has meanwhile.
local function run_in_host(host, group)
  host.all(concurrency(group), function()
    local co = coroutine.running()
    task_of[co] = { ctx = group.ctx, co = co }
    work(group)
    task_of[co] = nil
  end)
end

local function add_tasks(group, tasks)
  for _ = 1, concurrency(group) do
    local task = { ctx = group.ctx, tasks = tasks }
    task.co = coroutine.create(core.uninterruptible(function()
      work(group)
      task.ended = true
    end))
    task_of[task.co] = task
    tasks[#tasks + 1] = task
    group.alive = group.alive + 1
  end
end

local function resume(task)
  local ok, err = coroutine.resume(task.co)
  if not ok then error(err, 0) end -- not a function's error: those are caught in work
end

-- Resumes each task that can go on, until the group has ended. Ctrl-C or a host's interrupt may leave it
-- by an error at any instruction, and it is called again: all that it needs to know is in the tasks,
-- which change only inside the coroutines, where lua.c's hook does not come and a host's spares it.
---@param tasks fcproc.Task[]
---@param group fcproc.Group
local function drive(tasks, group)
  local fds, polled, ready, runnable = {}, {}, {}, {}
  while group.alive > 0 do
    local now, n, runs = core.now(), 0, 0
    local wake = now + LONGEST_POLL
    for i = #tasks, 1, -1 do
      local task = tasks[i]
      if task.ended then
        table.remove(tasks, i)
      elseif task.op then
        n = n + 1
        fds[n], polled[n] = task.fd, task
        if task.wake and task.wake < wake then wake = task.wake end
      elseif not task.inner or task.inner.alive == 0 then
        runs = runs + 1
        runnable[runs] = task
        wake = now
      end
    end
    for i = #fds, n + 1, -1 do fds[i], polled[i] = nil, nil end
    core.poll_many(fds, ready, math.max(wake - now, 0))
    now = core.now()
    for i = 1, n do
      local task = polled[i]
      if ready[i] or (task.wake and task.wake <= now) then resume(task) end
    end
    for i = 1, runs do resume(runnable[i]) end
  end
end

-- Numbers of signals; raises for what is none.
local function signal_numbers(names, what)
  if type(names) ~= "table" or #names < 1 or #names > MOST_SIGNALS then
    options.raise(("%s: signals must be a list of 1 to %d names"):format(what, MOST_SIGNALS))
  end
  local numbers, name_of = {}, {}
  for i, name in ipairs(names) do
    numbers[i] = math.type(name) == "integer" and name or core.signals[name]
    if not numbers[i] then options.raise(("%s: unknown signal '%s'"):format(what, tostring(name))) end
    name_of[numbers[i]] = name
  end
  return numbers, name_of
end

---Waits until one of these signals comes. From the first call on they do nothing else to this thread: none
---ends the process, and one that comes between two waits ends the next.
---@param names string[]  "TERM", "INT", "HUP", ...
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return string? name
---@return fcproc.Error? err  ERR_WAIT_TIMEOUT; ERR_INVALID: one that can't be waited for
function M.wait_for_signal(names, timeout, ctx)
  local numbers, name_of = signal_numbers(names, "fcproc.wait_for_signal")
  options.timeout(timeout, "fcproc.wait_for_signal")
  ctx = M.context(ctx)
  local got, number = M.complete(ctx, core.wait_signal(numbers, timeout, ctx))
  if not got then return nil, number end
  return name_of[number]
end

local function run_until_signal(functions, ctx)
  local numbers, name_of = signal_numbers(functions.signals, "fcproc.run")
  local inner, results = { limit = functions.limit }, nil
  for key, fn in pairs(functions) do
    if key ~= "signals" then inner[key] = fn end
  end
  local first <close>, err = core.wait_signal(numbers, 0) -- from here on none is lost
  if not first then error(err, 3) end
  local watch <close> = core.context(M.context(ctx) or core.default_context())
  M.run({
    function(own)
      local _ <close> = finally(function() watch:cancel() end)
      results = M.run(inner, own)
    end,
    function()
      local got, number = M.complete(watch, core.wait_signal(numbers, nil, watch))
      if not got then return end
      error(errors.new{ code = "cancelled", op = "run", signal = number,
        message = ("the signal %s came"):format(name_of[number]) }, 0)
    end,
  }, ctx)
  return results
end

---@class fcproc.Functions
---@field [integer] fun(ctx: fcproc.Context): any ...
---@field limit integer?  at most so many run at once; default: all
---@field signals string[]?  end them when one of these comes ("TERM", "INT", ...)

---Runs functions concurrently and returns when all have ended. Each gets the run's context, which
---is also the default of every fcproc call inside it. When one raises, or Ctrl-C comes, that
---context is cancelled, the others go on to their end (so that their closing variables run), and
---the error is raised again. Runs nest.
---
---With `signals = { "TERM", "INT" }` it is also cancelled when one of these comes, and what is raised then
---is an ERR_CANCELLED with `signal`, its number: so a script ends its VMs. As with
---`fcproc.wait_for_signal`, from then on they do nothing else to this thread.
---
---    local results = fcproc.run{
---      function(ctx) return fcproc.request(sock1, "GET", "/version", nil, ctx) end,
---      function(ctx) return fcproc.request(sock2, "GET", "/version", nil, ctx) end,
---    }
---    print(results[1][1].firecracker_version)
---@param functions fcproc.Functions
---@param ctx fcproc.Context?
---@return table[] results  for each function, table.pack of what it returned
function M.run(functions, ctx)
  options.argument(functions, "table", "fcproc.run", "functions")
  if functions.signals ~= nil then return run_until_signal(functions, ctx) end
  for key, fn in pairs(functions) do
    if key ~= "limit" and (math.type(key) ~= "integer" or type(fn) ~= "function") then
      options.raise("fcproc.run: functions must be a list of functions, and perhaps limit = n and "
        .. "signals = { names }")
    end
  end
  local limit = functions.limit
  if limit ~= nil and (math.type(limit) ~= "integer" or limit < 1) then
    options.raise("fcproc.run: limit must be a whole number of 1 or more")
  end
  local parent = M.context(ctx)
  local own <close>, err = core.context(parent or core.default_context())
  if not own then error(err, 2) end
  local group = { functions = functions, ctx = own, next = 1, alive = 0, results = {} }
  local task = task_of[coroutine.running()]
  local name = own:waiter()
  local host = name and name ~= "poll" and waiters.get(name)
  if host then
    run_in_host(host, group)
  elseif task and task.tasks then -- inside another run: its loop drives these too
    local _ <close> = finally(function()
      if group.alive > 0 then
        group.failure = group.failure or {}
        own:cancel()
        while group.alive > 0 do coroutine.yield() end
      end
      task.inner = nil
    end)
    add_tasks(group, task.tasks)
    task.inner = group
    while group.alive > 0 do coroutine.yield() end
  else
    local tasks = {}
    local _ <close> = finally(function()
      if group.alive == 0 then return end
      group.failure = group.failure or {} -- none begins any more
      own:cancel()
      drive(tasks, group)
    end)
    add_tasks(group, tasks)
    drive(tasks, group)
  end
  if group.failure then error(group.failure[1], 0) end
  return group.results
end

return M
