-- How a coroutine waits until an operation wants to be stepped: one waiter for plain scripts, one
-- each for cqueues and luv, which are required only when a context asks for them.

local core = require "fcproc.core"

local M = {}

---@class fcproc.Waiter
---@field wait fun(op: fcproc.Operation)       returns when op should be stepped
---@field release fun(op: fcproc.Operation)?   before op is closed
---@field all fun(count: integer, fn: fun())?  runs fn, which must not raise, so many times at once in
---                                            coroutines of the host's loop, and returns after them

-- lua.c's Ctrl-C is a hook: it runs only between instructions, and a signal that comes just before
-- the system call does not wake it. So nobody waits in C for more than a second.
M.LONGEST_POLL = 1

M.poll = {
  wait = function(op)
    local timeout = op:timeout()
    core.poll(op:pollfd(), math.min(timeout or M.LONGEST_POLL, M.LONGEST_POLL))
  end,
}

local function new_cqueues_waiter()
  local cqueues = require "cqueues"
  local condition = require "cqueues.condition"
  return {
    all = function(count, fn)
      local controller, ended, left = cqueues.running(), condition.new(), count
      local own = not controller and cqueues.new()
      for _ = 1, count do
        (controller or own):wrap(function()
          fn()
          left = left - 1
          if left == 0 then ended:signal() end
        end)
      end
      if own then return assert(own:loop()) end
      while left > 0 do ended:wait() end
    end,
    wait = function(op) cqueues.poll(op) end,
    release = function(op) cqueues.cancel(op:pollfd()) end,
  }
end

local function new_luv_waiter()
  local uv = require "luv"

  local close_handles = core.uninterruptible(function(handles)
    for _, handle in ipairs(handles) do
      handle:stop()
      handle:close()
    end
  end)

  local function current()
    local co, is_main = coroutine.running()
    if is_main then
      error("the luv waiter needs a coroutine: call this inside coroutine.wrap(...)()", 0)
    end
    return co
  end

  local function resume(co)
    local ok, err = coroutine.resume(co)
    if not ok then error(err, 0) end
  end

  return {
    all = function(count, fn)
      local co, left, waits = current(), count, false
      for _ = 1, count do
        resume(coroutine.create(function()
          fn()
          left = left - 1
          if left == 0 and waits then resume(co) end
        end))
      end
      waits = true
      if left > 0 then coroutine.yield() end
    end,
    wait = function(op)
      local co = current()
      local handles <close> = setmetatable({}, { __close = close_handles })
      local woken = false
      local function wake()
        if woken then return end
        woken = true
        resume(co)
      end
      handles[1] = uv.new_poll(op:pollfd())
      handles[1]:start("r", wake)
      local timeout = op:timeout()
      if timeout then
        handles[2] = uv.new_timer()
        handles[2]:start(math.ceil(timeout * 1000), 0, wake)
      end
      coroutine.yield()
    end,
  }
end

local makers = { cqueues = new_cqueues_waiter, luv = new_luv_waiter }

---The waiter of that name.
---@param name string
---@return fcproc.Waiter
function M.get(name)
  local waiter = M[name]
  if not waiter then
    waiter = makers[name]()
    M[name] = waiter
  end
  return waiter
end

return M
