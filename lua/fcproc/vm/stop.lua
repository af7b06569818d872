-- Ending a VM by a ladder: steps with a limit each, tried in turn until the process is gone.
-- Each wakes at the exit itself. What happened is told in a report.

local api = require "fcproc.api"
local console = require "fcproc.vm.console"
local core = require "fcproc.core"
local endpoints = require "fcproc.machine.endpoints"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local options = require "fcproc.options"

local M = {}

---@class fcproc.StopStep
---@field name string
---@field outcome "exited"|"timeout"|"skipped"|"failed"
---@field took number       seconds
---@field message string?   why it was skipped or failed
---@field sent integer?     how often Ctrl-Alt-Del was sent

---@class fcproc.StopReport
---@field outcome "exited"|"running"|"unkillable"  unkillable: in the kernel, where no signal reaches it
---@field step string?      the one that worked; "gone": it had ended by itself
---@field exit fcproc.Exit? how it ended, when it can be known
---@field description string?  how it ended, in a sentence for people
---@field console_panic string?  the last that its console says is this line of a kernel's panic, escaped: the
---                         guest's own words, which may be anything
---@field triple_fault true?   the guest's CPU gave up, as its Firecracker logged
---@field vcpu_error string?  what Firecracker logged of a CPU of the guest that could not go on otherwise
---@field steps fcproc.StopStep[]
---@field took number      seconds, without the clean-up
---@field cleanup_took number?  seconds
---@field left fcproc.Left[]  what could not be removed
---@field others integer?      how many other processes were in the jail's cgroup, and killed

---The default ladder: name, and seconds until the next.
M.LADDER = { { "ctrl_alt_del", 10 }, { "sigterm", 3 }, { "sigkill", 5 } }
M.KILL = { { "sigkill", 5 } }

-- When Ctrl-Alt-Del is sent, in seconds after the step's begin: right after the boot it is lost as
-- long as the guest has no keyboard, and more than 7 in 2 s make systemd reboot by force.
local PRESSES, EVERY = { 0, 0.2, 0.5, 1 }, 2
local ANSWER_LIMIT = 1 -- second for one press
local EXIT_LIMIT = 1   -- second for what is gone to tell its status
local STOPPING_LIMIT = 5 -- seconds for a Firecracker whose guest has ended

-- Of whom that is said, nobody hears Ctrl-Alt-Del. A mere silence may end.
local UNASKABLE = { not_found = true, not_same_process = true, conflict = true, protocol = true }

local function wait(machine, timeout, ctx)
  local gone, exit = machine:wait(timeout, ctx)
  if gone then return true, exit end
  if exit.code == "wait_timeout" then return false end
  return nil, exit
end

-- Each rung waits for the exit until its time is over: true and the exit; false: not yet; nil, err.
local rungs = {}

---The guest ends by itself.
function rungs.wait(machine, limit, ctx)
  return wait(machine, limit, ctx)
end

local HANGS = "the guest has ended, but Firecracker hangs: a request came while it was stopping"

-- Firecracker (1.12 at least) waits for its API thread while it stops, and that for the answer to a
-- request that came meanwhile: for ever. Then the guest has ended, and only a signal helps. Its log
-- tells; a mere silence may be an API that is slow, with a guest that is about to save its files.
local function hangs_after_reset(machine, err, step)
  if err.code ~= "deadline" and err.code ~= "wait_timeout" or not machine.process:alive() then
    return false
  end
  machine:disconnect() -- no answer will come on it, or one to the wrong question
  if not machine:is_stopping() then return false end
  step.message = HANGS
  return true
end

-- What keeps a guest from hearing it. Nothing: it may be pressed; else the rung's answer.
local function look(machine, ctx, step, vm)
  local limited <close> = core.context(ctx, ANSWER_LIMIT)
  local state, err = machine:state(limited)
  if state == "Paused" and machine:resume(ctx) then vm:_note_paused(false) end
  if state == "Not started" then return "skip", "its guest was never started" end
  if err and hangs_after_reset(machine, err, step) then return false end
  if err and UNASKABLE[err.code] and not errors.lacks_descriptors(err) then
    local gone, exit = machine:ended_by(err, ctx)
    if gone then return true, exit end
    return "skip", "it can't be asked: " .. err.message
  end
end

local KEYS = endpoints.encode("PUT", "/actions", { action_type = "SendCtrlAltDel" })

local function press(machine, left, ctx)
  left = math.max(left, 0)
  local limited <close> = core.context(ctx or core.default_context(), math.min(ANSWER_LIMIT, left))
  -- Most need no second, and what the connection holds serves the next VM.
  local _ <close> = finally(function() machine:disconnect() end)
  return machine:api("PUT", "/actions", KEYS, limited)
end

-- One that runs, and of which nothing keeps it from hearing.
local function hears(vm)
  return vm.machine.started and not vm.journal.record.paused
end

---The first Ctrl-Alt-Del of many at once, which takes a third of what as many single ones do. Not of those
---that would be asked something first, or have a hook that is called first.
---@param vms fcproc.Vm[]
---@param ladder table[]
---@param ctx fcproc.Context?
---@return table<fcproc.Vm, true|fcproc.Error> pressed
function M.press_all(vms, ladder, ctx)
  local rung, pressed = ladder[1], {}
  if rung[1] ~= "ctrl_alt_del" or core.arch ~= "x86_64" or ladder.limit or #vms < 2 then return pressed end
  local asked, machines = {}, {}
  for _, vm in ipairs(vms) do
    if hears(vm) and not next(vm.hooks) then
      asked[#asked + 1], machines[#machines + 1] = vm, vm.machine
    end
  end
  local outcomes = api.request_all(machines, "PUT", "/actions", KEYS, math.min(ANSWER_LIMIT, rung[2]), ctx)
  for i, outcome in ipairs(outcomes or {}) do -- any other failure is looked into when it is their turn
    if outcome == true or outcome.code == "wait_timeout" then pressed[asked[i]] = outcome end
  end
  return pressed
end

---The guest is asked, again and again. One that is known to run is not looked at before the first time.
function rungs.ctrl_alt_del(machine, limit, ctx, step, vm, pressed)
  if core.arch ~= "x86_64" then return "skip", "there is none on this architecture" end
  local began, presses = core.now(), 0
  local due, looked = not hears(vm), false
  local function look_once()
    if looked then return end
    looked = true
    local left = math.max(limit - (core.now() - began), 0)
    local bounded <close> = core.context(ctx or core.default_context(), left)
    return look(machine, bounded, step, vm)
  end
  while true do
    local answer, more
    if due then answer, more = look_once() end
    if answer ~= nil then return answer, more end
    local ok, err = pressed == true, pressed
    if pressed == nil then ok, err = press(machine, limit - (core.now() - began), ctx) end
    pressed = nil
    if ok then step.sent = (step.sent or 0) + 1 else step.message = err.message end
    if not ok and hangs_after_reset(machine, err, step) then return false end
    -- It could not be asked, which is no reason to kill it.
    if not ok and not step.sent and errors.lacks_descriptors(err) then return nil, err end
    if not ok then answer, more = look_once() end
    if answer ~= nil then return answer, more end
    due, presses = true, presses + 1
    local next_press = PRESSES[presses + 1] or PRESSES[#PRESSES] + (presses + 1 - #PRESSES) * EVERY
    local function left(moment) return math.max(math.min(moment, limit) - (core.now() - began), 0) end
    local gone, exit = wait(machine, left(next_press), ctx)
    if gone or gone == nil then return gone, exit end
    if next_press >= limit then return false end
    if machine:is_stopping() then -- one more would be such a request
      gone, exit = wait(machine, math.min(STOPPING_LIMIT, left(limit)), ctx)
      if gone == false then step.message = HANGS end
      return gone, exit
    end
  end
end

local function by_signal(name)
  return function(machine, limit, ctx, step)
    if name == "TERM" and machine.shape.new_pid_ns then
      return "skip", "it is PID 1 of a namespace of its own, where SIGTERM has no effect"
    end
    local ok, err = machine.process:signal(name)
    if not ok and err.code ~= "not_found" then
      step.message = err.message
      return "fail"
    end
    return wait(machine, limit, ctx)
  end
end

rungs.sigterm, rungs.sigkill = by_signal("TERM"), by_signal("KILL")

---Raises unless it is a ladder: a list of { name or function, seconds }.
---@param ladder any
function M.check_ladder(ladder)
  if type(ladder) ~= "table" or #ladder == 0 then
    options.raise("vm:stop: the ladder must be a list of steps: { {'ctrl_alt_del', 10}, {'sigkill', 5} }")
  end
  for i, step in ipairs(ladder) do
    local known = type(step) == "table" and (rungs[step[1]] or type(step[1]) == "function")
    if not known or type(step[2]) ~= "number" or step[2] < 0
      or step[2] ~= step[2] then -- NaN
      options.raise(("vm:stop: step %d must be { name, seconds }; names: ctrl_alt_del, wait, sigterm, "
        .. "sigkill, or a function; seconds: 0 or more"):format(i))
    end
  end
end

---@class fcproc.Rung  one step of a ladder
---@field [1] ("ctrl_alt_del"|"wait"|"sigterm"|"sigkill")|fun(vm: fcproc.Vm, ctx: fcproc.Context?)  what is
---                     done; wait: nothing
---@field [2] number    seconds that the exit is waited for until the next

---@class fcproc.FleetLadder  a ladder as for vm:stop; without steps: the default one
---@field [integer] fcproc.Rung
---@field limit integer?  how many VMs stop at once; default: all

---The ladder that stop_all goes by. Raises unless it is one.
---@param ladder fcproc.FleetLadder?
---@return fcproc.FleetLadder
function M.fleet_ladder(ladder)
  if ladder == nil then return M.LADDER end
  if type(ladder) ~= "table" then
    options.raise(("vm.stop_all: options must be a table, not a %s"):format(type(ladder)))
  end
  for key in pairs(ladder) do
    if key ~= "limit" and math.type(key) ~= "integer" then
      options.raise(("vm.stop_all: unknown option '%s'; known: limit, and the steps of a ladder"):format(
        tostring(key)))
    end
  end
  if next(ladder) == nil then return M.LADDER end
  local limit = ladder.limit
  if limit ~= nil and (math.type(limit) ~= "integer" or limit < 1) then
    options.raise("vm.stop_all: limit must be a whole number of 1 or more")
  end
  if not limit or #ladder > 0 then
    M.check_ladder(ladder)
    return ladder
  end
  return table.move(M.LADDER, 1, #M.LADDER, 1, { limit = limit })
end

-- A function as a rung: it does what it will, then the exit is waited for.
local function custom(fn, vm)
  return function(machine, limit, ctx, step)
    local ok, err = fn(vm, ctx)
    if ok == nil and err then step.message = tostring(err) end
    return wait(machine, limit, ctx)
  end
end

-- A process in the kernel that even SIGKILL does not reach: state D, and where it sleeps.
local function unkillable(pid)
  local stat = core.read_file(("/proc/%d/stat"):format(pid))
  if not stat or stat:match("%) (%a)") ~= "D" then return nil end
  local channel = core.read_file(("/proc/%d/wchan"):format(pid))
  return ("pid %d is in uninterruptible sleep (D)%s"):format(pid,
    channel and channel ~= "0" and " in " .. channel or "")
end

-- One step, with its entry in the report. true: the process is gone.
local function climb(vm, rung, report, ctx, pressed)
  local name = type(rung[1]) == "function" and "function" or rung[1]
  local step, began = { name = name }, core.now()
  report.steps[#report.steps + 1] = step
  local fn = rungs[rung[1]] or custom(rung[1], vm)
  local gone, exit = fn(vm.machine, rung[2], ctx, step, vm, pressed)
  step.took = core.now() - began
  if gone == true then
    step.outcome, report.outcome, report.step, report.exit = "exited", "exited", name, exit
    return true
  elseif gone == "skip" then
    step.outcome, step.message = "skipped", exit
  elseif gone == "fail" then
    step.outcome = "failed"
  elseif gone == nil then
    step.outcome = "failed"
    return nil, exit
  else
    step.outcome = "timeout"
  end
  return false
end

---Ends the process.
---@param vm fcproc.Vm
---@param ladder table[]
---@param ctx fcproc.Context?
---@param pressed (true|fcproc.Error)?  what its first Ctrl-Alt-Del was answered with, where press_all has
---                                    sent it
---@return fcproc.StopReport report
---@return fcproc.Error? err  the context ended first
function M.process(vm, ladder, ctx, pressed)
  local began = core.now()
  local report = { outcome = "running", steps = {}, left = {} }
  local machine = vm.machine
  local gone, exit, err
  if not pressed and not machine.process:alive() then gone, exit = wait(machine, EXIT_LIMIT) end
  if gone then
    report.outcome, report.step, report.exit = "exited", "gone", exit
  else
    for _, rung in ipairs(ladder) do
      gone, err = climb(vm, rung, report, ctx, pressed)
      pressed = nil
      if gone or gone == nil then break end
    end
  end
  report.took = core.now() - began
  if gone then
    local cpu = machine:cpu_end(report.exit)
    report.triple_fault, report.vcpu_error = cpu.triple_fault, cpu.vcpu_error
    report.description = machine:describe_exit(report.exit, cpu, report.step)
    report.console_panic = console.panic(machine.files)
    return report
  end
  if err then return report, err end
  local why = unkillable(machine.process:pid())
  if why then report.outcome = "unkillable" end
  if not why then
    local last = report.steps[#report.steps].message
    why = ("every step of the ladder ran out of time%s; try one with sigkill"):format(
      last and " (" .. last .. ")" or "")
  end
  return report, errors.new{
    code = "wait_timeout", op = "vm.stop", pid = machine.process:pid(),
    message = ("the VM '%s' has not ended: %s"):format(vm.id, why),
  }
end

return M
