-- The steps of a flow, in order, with the hooks that a spec hangs on them: before_NAME, after_NAME
-- and on_failure_NAME. A hook that returns nil, err fails its step; one that raises does, too, and
-- its error is raised again once all has been cleaned up. A VM that is killed, or goes out of scope, is
-- not kept alive by its hooks: they are called, and what they say or raise then counts for nothing.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

local function call_hook(vm, hooks, name, ctx, err)
  local hook = hooks[name]
  if not hook then return true end
  if vm.forced then
    pcall(hook, vm, ctx, err)
    return true
  end
  local ok, reason = hook(vm, ctx, err)
  if ok == nil and reason ~= nil then
    if errors.is_error(reason) then return nil, reason end
    return nil, errors.new{ code = "invalid", op = "vm.hook",
      message = ("the hook %s failed: %s"):format(name, tostring(reason)) }
  end
  return true
end

---Runs one step between its hooks.
---@param vm fcproc.Vm
---@param name string
---@param fn fun(vm: fcproc.Vm, ctx: fcproc.Context?, ...: any): any?, fcproc.Error?
---@param ctx fcproc.Context?
---@param ... any  what else fn gets
---@return any? result
---@return fcproc.Error? err  with step
function M.run(vm, name, fn, ctx, ...)
  local hooks, started = vm.hooks, core.now()
  local hooked = next(hooks) ~= nil
  local ok, err, result = true, nil, nil
  if hooked then ok, err = call_hook(vm, hooks, "before_" .. name, ctx) end
  if ok then
    result, err = fn(vm, ctx, ...)
    ok = result
  end
  if ok and hooked then ok, err = call_hook(vm, hooks, "after_" .. name, ctx) end
  if ok then
    if vm.manager.config.logger then
      vm.manager:_log(started, "VM step done", { id = vm.id, step = name })
    end
    return result
  end
  err.step = err.step or name
  if hooked then call_hook(vm, hooks, "on_failure_" .. name, ctx, err) end
  return nil, err
end

return M
