-- fcproc run and restore: launches a VM, and in the foreground stays with it to its end.
--
-- In the foreground signals are waited for like everything else, beside the work: the first stops
-- the VM by its ladder, a second one kills it. A reader of stdout that goes away (SIGPIPE) counts
-- as a first one. So nothing is left of a VM whose command has been ended, but by SIGKILL.

local console = require "fcproc.cli.console"
local context = require "fcproc.context"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local flags = require "fcproc.cli.flags"
local keyboard = require "fcproc.cli.keys"
local loop = require "fcproc.loop"
local output = require "fcproc.cli.output"
local report_text = require "fcproc.cli.report"
local outputs = require "fcproc.machine.outputs"
local signals = require "fcproc.cli.signals"
local specs = require "fcproc.cli.spec"
local tail = require "fcproc.tail"
local vms = require("fcproc").vm

local M = {}

local INT, PIPE = signals.INT, signals.PIPE
local FAILED = 1
local REMOVE_LIMIT = 30 -- seconds to end a VM that is not to stay
local LIST = { kind = "list" }

local STEPS = { prepare = "choosing names and addresses", drives = "preparing its disks",
  network = "making its network", start = "starting Firecracker", cleanup = "cleaning up" }

-- Tells of each step as it begins, to who watches.
local function add_progress(cli, spec)
  if not cli.output.shows_progress then return end
  spec.hooks = spec.hooks or {}
  for step, text in pairs(STEPS) do
    spec.hooks["before_" .. step] = function(vm)
      cli.output:progress("%s: %s", vm.id, text)
    end
  end
end

local function launch(cli, ctx, keys)
  local spec, err = specs.of(cli.args)
  if not spec then return nil, err end
  for _, note in ipairs(err or {}) do cli.output:note("%s", note) end
  if spec.hooks or spec.stdin then
    return nil, errors.new{ code = "invalid", op = "cli.run",
      message = spec.hooks and "hooks: are functions, which a file can't hold; write a script with fcproc.vm"
        or "stdin: is a descriptor of this process, which a file can't know; --interactive gives it ours" }
  end
  spec.stdin = keys and keys:reader() or nil
  add_progress(cli, spec)
  local vm
  if cli.args.command == "restore" then
    vm, err = vms.restore(cli.manager, cli.args.path, spec, ctx)
  else
    vm, err = vms.launch(cli.manager, spec, ctx)
  end
  if vm then
    for _, warning in ipairs(vm:record().warnings or {}) do
      cli.output:note("warning: %s; fix: %s", flags.say(warning.message),
        flags.say(warning.fix or "none is known"))
    end
    return vm
  end
  if err.code == "permission" then
    err.message = err.message .. "; `fcproc doctor` tells what this host lacks"
  end
  return nil, err
end

-- ---- in the background ---------------------------------------------------------------------

-- In a context of its own: a signal may have ended that of the work.
local function remove(vm)
  local own <close> = context.new{ timeout = REMOVE_LIMIT }
  return vm:kill(own)
end

-- Its guest has ended already: nothing runs in the background.
local function tell_ended(cli, vm)
  local said = vm.machine:output()
  local report, err = remove(vm)
  if not report then return nil, err end
  return nil, errors.new{ code = "exit_status", op = "cli.run", output = said,
    status = report.exit and report.exit.status, signal = report.exit and report.exit.signal,
    message = ("%s: the guest ended at once; %s"):format(cli.args.command,
      report_text.line(vm.id, report)) }
end

local function detached(cli)
  local vm, err = launch(cli, cli.ctx)
  if not vm then return nil, err end
  local info
  info, err = vm:info(cli.ctx)
  if not info then
    local removed, left = remove(vm)
    if not removed then cli.output:note("%s stays: %s", vm.id, flags.say(left.message)) end
    return nil, err
  end
  -- A request that comes while it stops may be left without an answer.
  if info.state == "dead" or (info.state == "unknown" and vm.machine:is_stopping()) then
    return tell_ended(cli, vm)
  end
  vm:detach()
  local types = { fields = { taps = LIST, drives = LIST, ports = LIST } }
  if not cli.output:result(info, types, function() return info.id .. "\n" end) then
    cli.output:note("%s runs all the same", info.id) -- else nobody would know
  end
  return true
end

-- ---- in the foreground ---------------------------------------------------------------------

-- With the VM until it ends by itself, or the context does.
local function accompany(cli, vm, ctx)
  local to = cli.output
  local shown = not to.json and not cli.args.no_console and vm:console()
  if shown then
    local ok, err = console.follow(shown.path, vm.machine.process, 0,
      function(text) return to:write(text) end, ctx)
    if not ok then return nil, err end
  end
  return vm:wait(nil, ctx)
end

-- By the ladder; a second signal ends that context, and the VM is killed.
local function end_vm(vm, ladder, urgent)
  local report, err = vm:stop(ladder, urgent)
  if report or urgent:status() then return report, err end
  return remove(vm)
end

local function began(cli, vm, started, keys)
  cli.output:note("%s runs, %s%s; %s stops it", vm.id, "pid " .. vm:pid(),
    vm:address() and ", address " .. vm:address() or "", keyboard.way_out(keys))
  cli.output:progress("%s: started in %.0f ms", vm.id, (core.now() - started) * 1000)
end

-- A guest's kernel that panics, or whose CPU gives up, ends its Firecracker as one that was told to end.
local function status_of_end(cli, report)
  if report.console_panic or report.triple_fault then return cli.args.ignore_panic and 0 or FAILED end
  return report.exit and report.exit.status == 0 and not report.vcpu_error and 0 or FAILED
end

-- Why it ends before its guest wanted to. Of a reader that has gone nothing is said: `| head` is use.
local function tell_why_stopped(cli, vm, why)
  local lost = cli.output:trouble()
  if not lost and (why.code == "closed" or why.code == "cancelled") then return end
  cli.output:note("%s is stopped: %s", vm.id, lost and "the output can't be written: " .. lost
    or why.code == "deadline" and "its time is up" or why.message)
end

-- The work itself. state.signal: the first that came.
local function work(cli, state)
  local started = core.now()
  local vm, err = launch(cli, state.patience, state.keys)
  if not vm then return nil, err end
  local holding <close> = vm -- luacheck: ignore holding
  began(cli, vm, started, state.keys)
  local gone, why = keyboard.during(state.keys, state.patience, function() state.interrupt(INT) end,
    function(ctx) return accompany(cli, vm, ctx) end)
  if not gone and not state.signal then tell_why_stopped(cli, vm, why) end
  local log = gone and errors.shown(tail.lines(outputs.of(vm:record().files, "log"))) -- it goes with the VM
  local report
  report, err = end_vm(vm, cli.args.ladder, state.urgent)
  if not report then return nil, err end
  cli.output:note("%s", report_text.line(vm.id, report))
  if gone and not (report.exit and report.exit.status == 0 and not report.vcpu_error) then
    cli.output:quote(log)
  end
  if cli.output.json then
    cli.output:result({ id = vm.id, report = report_text.plain(report) })
  end
  if state.signal then return 128 + state.signal end
  if gone then return status_of_end(cli, report) end
  return why.code == "deadline" and output.status_of(why) or FAILED
end

-- Waits for signals until its context ends.
local function watch(state, numbers, ctx)
  while true do
    local got, number = loop.complete(ctx, core.wait_signal(numbers, nil, ctx))
    if not got then return end
    state.interrupt(number)
  end
end

-- A signal, or what is as good as one.
local function interrupt(cli, state, number)
  if state.signal or number == PIPE then
    if state.signal and number ~= PIPE then
      cli.output:note("killing it")
      state.urgent:cancel()
    end
  else
    state.signal = number
    cli.output:note("stopping; once more kills it")
  end
  state.patience:cancel()
end

local function foreground(cli, keys)
  local numbers = signals.wanted()
  numbers[#numbers + 1] = PIPE
  -- From here on no signal ends us in the middle of something.
  local first, err = core.wait_signal(numbers, 0)
  if not first then return nil, err end
  first:close()
  local patience <close> = context.new{ timeout = cli.args.timeout }
  local urgent <close> = context.new()
  local state = { patience = patience, urgent = urgent, keys = keys }
  function state.interrupt(number) interrupt(cli, state, number) end
  local status, failure = console.watched(nil, function() return work(cli, state) end,
    function(ctx) watch(state, numbers, ctx) end,
    console.reader(cli, function() patience:cancel() end))
  if status then return status end
  if state.signal and failure.code == "cancelled" then
    failure.signal, failure.message = state.signal, "interrupted; nothing is left"
  end
  return nil, failure
end

local function run(cli)
  local keys, err = keyboard.open(cli.args)
  if keys == nil then return nil, err end
  if cli.args.detach then return signals.ending(cli, detached) end
  if cli.args.paused then
    return nil, errors.new{ code = "invalid", op = "cli.run",
      message = "--paused needs --detach: in the foreground nobody could resume it" }
  end
  if not keys then return foreground(cli, false) end
  local held <close> = keys -- luacheck: ignore held
  return foreground(cli, keys)
end

---fcproc run
---@param cli fcproc.Cli
---@return integer|true|nil status
---@return fcproc.Error? err
function M.run(cli)
  return run(cli)
end

---fcproc restore PATH
---@param cli fcproc.Cli
---@return integer|true|nil status
---@return fcproc.Error? err
function M.restore(cli)
  return run(cli)
end

return M
