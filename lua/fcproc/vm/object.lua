-- A VM in the hands of this manager: what can be asked of it and done to it. How it is ended is in
-- teardown.lua, which this file mixes in.

local console = require "fcproc.vm.console"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local json = require "fcproc.json"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local outputs = require "fcproc.machine.outputs"
local ports = require "fcproc.resources.ports"
local relays = require "fcproc.resources.relay"
local snapshot = require "fcproc.vm.snapshot"
local teardown = require "fcproc.vm.teardown"
local upkeep = require "fcproc.resources.upkeep"

local M = {}

---@class fcproc.Vm: fcproc.VmEnd
---@field id string
---@field manager fcproc.Manager
---@field journal fcproc.Journal
---@field machine fcproc.Machine?  nil while it is being made
---@field hooks table<string, function>
---@field snapshotting boolean?  a snapshot is being made
---@field unfinished boolean?  it was taken over, and its launch may have been cut off
---@field unwritten boolean?  its journal does not know whether it is paused
---@field report fcproc.StopReport?  once it has been stopped
local Vm = {}
Vm.__index = Vm

for name, method in pairs(teardown.methods) do Vm[name] = method end

local CLOSE_LIMIT = 30 -- seconds that a closing variable may take
local STATE_LIMIT = 1 -- second for the API to tell the state

---@param manager fcproc.Manager
---@param journal fcproc.Journal
---@param hooks table<string, function>?
---@return fcproc.Vm
function M.new(manager, journal, hooks)
  return setmetatable({ id = journal.id, manager = manager, journal = journal, hooks = hooks or {} },
    Vm)
end

-- Using it after its end.
function Vm:_ended(op)
  local what = self.detached and "was detached" or (self.report or self.stopping) and "was stopped"
    or "has not been started yet"
  return nil, errors.new{ code = "closed", op = "vm." .. op,
    message = ("the VM '%s' %s"):format(self.id, what) }
end

-- The answer; or, when there is none because the VMM has ended, how that came. Another coroutine may have
-- stopped or detached the VM meanwhile.
local function explained(self, op, machine, answer, err)
  if answer == nil and (err.code == "not_found" or err.code == "protocol") then
    err = machine:failure(op, err)
  end
  if answer == nil and err.code == "closed" then return self:_ended(op) end
  if answer == nil and (err.code == "not_found" or err.code == "protocol") then
    if err.code == "not_found" and machine.process:alive() then
      err.code = "conflict"
      err.message = ("%s: the VM '%s' runs, as pid %d, but its API socket is gone or was replaced (%s); stop "
        .. "and kill end it all the same"):format(op, self.id, machine.process:pid(), err.message)
    end
    return nil, err
  end
  return answer, err
end

-- ---- asking --------------------------------------------------------------------------------

---The VM's record: what was made for it, as vm.json has it. For looking at: fields may come and go.
---@return table<string, any> record  taps, drives, files, jail, leases, process, created, ...
function Vm:record()
  return self.journal.record
end

---The VMM's pid.
---@return integer? pid
---@return fcproc.Error? err  ERR_CLOSED: it was stopped or detached
function Vm:pid()
  if not self.machine then return self:_ended("pid") end
  return self.machine.process:pid()
end

---The first address that a guest's interface was given.
---@return string?
function Vm:address()
  for _, tap in ipairs(self.journal.record.taps or {}) do
    if tap.address then return tap.address end
  end
end

---A request as it is, to this VM's Firecracker.
---@param method string
---@param target string
---@param body table|string|nil
---@param ctx fcproc.Context?
---@return any? answer
---@return fcproc.Error? err  ERR_API: Firecracker refused it; ERR_EXIT_STATUS: it has ended;
---                           ERR_WAIT_TIMEOUT: no answer within the endpoint's limit; ERR_PROTOCOL: an
---                           answer that can't be; ERR_NOT_SAME_PROCESS: another listens at its socket;
---                           ERR_CLOSED: it was stopped or detached
function Vm:api(method, target, body, ctx)
  local machine = self.machine
  if not machine then return self:_ended("api") end
  return explained(self, "api", machine, machine:api(method, target, body, ctx))
end

---What is known of it without its API: all but the state and the version.
---@return table info  as Vm:info gives it
function Vm:_facts()
  local record = self.journal.record
  local info = {
    id = self.id, binary = record.binary, files = record.files, taps = record.taps,
    drives = record.drives, created = record.created, folder = self.journal.folder,
    address = self:address(), vcpus = record.vcpus, mem_mib = record.mem_mib, jail = record.jail,
    warnings = record.warnings, ports = upkeep.ports(record),
  }
  if self.machine then
    info.pid, info.uptime = self:pid(), os.time() - record.created
  end
  return info
end

local function told_dead(machine, info, exit)
  info.state, info.exit, info.uptime = "dead", exit, nil
  info.description = machine:describe_exit(exit)
  return info
end

---What it is and how it does. One that does not tell its state within a second, or tells none that there
---is, has the state "unknown"; the rest is known all the same.
---@param ctx fcproc.Context?
---@return fcproc.VmInfo? info  without managed, manager, console and identity, which inspect adds;
---                             state may be "not started", "stopped", "detached" (what it does since
---                             then this object can't tell) or "dead", too; "unknown": err says why
---@return fcproc.Error? err  only the context's
function Vm:info(ctx)
  local info, machine = self:_facts(), self.machine
  if not machine then
    info.state = self.detached and "detached" or (self.report or self.stopping) and "stopped" or "not started"
    return info
  end
  if not machine.process:alive() then
    local gone, exit = machine:wait(1, ctx)
    return told_dead(machine, info, gone and exit or nil)
  end
  local bounded <close> = core.context(ctx or core.default_context(), STATE_LIMIT)
  local state, err = machine:state(bounded)
  if state then
    info.state, info.version = state:lower(), machine.version
  else
    local lasts, ended = loop.check(ctx)
    if not lasts then return nil, ended end
    local gone, exit = machine:ended_by(err, ctx)
    if gone then return told_dead(machine, info, exit) end
    if machine.closed then return self:info(ctx) end -- by another coroutine
    machine:disconnect() -- its answer may still come, to the wrong question
    info.state, info.err = "unknown", err
  end
  local record = self.journal.record
  for _, look in ipairs(self.manager.closed and {} or { upkeep.warning, ports.warning, relays.warning }) do
    local warning, failed = look(self.manager, record, ctx)
    if failed then return nil, failed end
    if warning then
      info.warnings = table.move(info.warnings or {}, 1, #(info.warnings or {}), 1, {})
      table.insert(info.warnings, warning)
    end
  end
  return info
end

---The guest's console: console.path, console:tail(lines), console:wait_for(text, timeout, ctx).
---@return fcproc.Console? console
---@return fcproc.Error? err  ERR_UNSUPPORTED: a daemonized jailer has closed it
function Vm:console()
  if not self.machine then return self:_ended("console") end
  return console.new(self)
end

---The newest metrics, after they were flushed.
---@param ctx fcproc.Context?
---@return table<string, any>? metrics  Firecracker's own names and numbers
---@return fcproc.Error? err  ERR_PROTOCOL: the file has no line of metrics; ERR_CONFLICT: a jail's user
---                           has replaced it; as vm:api's
function Vm:metrics(ctx)
  local machine = self.machine
  if not machine then return self:_ended("metrics") end
  local ok, err = explained(self, "metrics", machine, machine:flush_metrics(ctx))
  if not ok then return nil, err end
  local path = machine.files.metrics
  local text
  text, err = outputs.read(machine.files, "metrics", -262144)
  if not text then return nil, err end
  -- The last whole line: the greedy .* goes to the end at once, which "[^\n]+\n*$" would try from
  -- every byte.
  local last = text:match("^.*\n(.+)\n") or text:match("^(.+)\n")
  local metrics = last and json.read(last)
  if type(metrics) == "table" then return json.plain(metrics) end
  return nil, errors.new{ code = "protocol", op = "vm.metrics", path = path,
    message = path .. " does not end with a line of metrics" }
end

---The metadata that the guest sees: reads it, or replaces it when data is given.
---@param data table<string, any>?  what there is instead from now on
---@param ctx fcproc.Context?
---@return table|true|nil data  as it is; true when it was replaced
---@return fcproc.Error? err  ERR_INVALID: data that JSON can't hold; as vm:api's
function Vm:mmds(data, ctx)
  local machine = self.machine
  if not machine then return self:_ended("mmds") end
  if data then return explained(self, "mmds", machine, machine:set_mmds(data, ctx)) end
  return explained(self, "mmds", machine, machine:mmds(ctx))
end

---The balloon: reads it, or asks it to grow or shrink.
---@param amount_mib integer?
---@param ctx fcproc.Context?
---@return table|true|nil balloon  as the API gives it: amount_mib, ...; true when it was asked to change
---@return fcproc.Error? err  ERR_API: it has none; ERR_INVALID: no amount; as vm:api's
function Vm:balloon(amount_mib, ctx)
  local machine = self.machine
  if not machine then return self:_ended("balloon") end
  if amount_mib then
    return explained(self, "balloon", machine, machine:patch_balloon({ amount_mib = amount_mib }, ctx))
  end
  return explained(self, "balloon", machine, machine:balloon(ctx))
end

local function written(vm)
  local record, list = vm.journal.record, {}
  for i, which in ipairs{ "console", "log", "metrics" } do list[i] = outputs.of(record.files, which) end
  return list, record.console_limit or console.LIMIT
end

-- What the VM writes is held to its size from now on, whatever this process is busy with.
function Vm:_hold()
  local list, limit = written(self)
  for _, output in ipairs(list) do
    local capper, ok, err
    capper, err = self.manager:_capper()
    if capper then ok, err = capper:add(output.path, limit, output.expected) end
    if not ok then return nil, err end
  end
  self.held = true
  return true
end

function Vm:_let_go()
  local capper = self.manager.capper -- none when the manager was closed first
  for _, output in ipairs(self.held and capper and written(self) or {}) do
    capper:remove(output.path)
  end
  self.held = nil
end

---Holds console, log and metrics to their size at once: the oldest bytes are given back to the file
---system, where it can punch holes. As long as this manager has the VM, that is done once a second.
function Vm:cap()
  local list, limit = written(self)
  -- There may be no such file, or in a jail another.
  for _, output in ipairs(list) do core.punch_file(output.path, limit, output.expected) end
end

-- ---- doing ---------------------------------------------------------------------------------

-- Writes down whether it is paused, for list, which asks no VM.
function Vm:_note_paused(paused)
  local record = self.journal.record
  paused = paused or nil
  if record.paused == paused then return end
  record.paused = paused
  self.journal:try_save(record.state)
end

-- Writes it down, as whoever asks for the list must know it. What can't be is not said to be done.
local function set_paused(self, paused, machine, ok, err)
  ok, err = explained(self, paused and "pause" or "resume", machine, ok, err)
  if not ok then return nil, err end
  local record = self.journal.record
  paused = paused or nil
  if not self.machine then return true end -- it may have been let go meanwhile
  if record.paused == paused and not self.unwritten then return true end
  record.paused = paused
  ok, err = self.journal:save(record.state)
  self.unwritten = not ok or nil
  if ok then return true end
  if not paused then
    err.message = ("the VM '%s' goes on, but who lists it is told that it is paused, since its journal could "
      .. "not be written: %s"):format(self.id, err.message)
    return nil, err
  end
  record.paused = nil
  local own <close> = core.context(nil, STATE_LIMIT)
  local goes_on, why = machine:resume(own)
  if not goes_on then record.paused = true end
  err.message = ("the VM '%s' is not paused, since its journal could not be written: %s"):format(self.id,
    err.message)
  if not goes_on then
    err.message = ("the VM '%s' is paused, and who lists it is not told: its journal could not be written, "
      .. "and it could not be let go on (%s)"):format(self.id, why.message)
  end
  return nil, err
end

---Stops the guest's CPUs. Paused already is a success.
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  as vm:api's
function Vm:pause(ctx)
  if not self.machine then return self:_ended("pause") end
  return set_paused(self, true, self.machine, self.machine:pause(ctx))
end

---Lets the guest's CPUs go on. Running already is a success.
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err  as vm:api's
function Vm:resume(ctx)
  if not self.machine then return self:_ended("resume") end
  return set_paused(self, false, self.machine, self.machine:resume(ctx))
end

---Waits until it has ended by itself. Its files and network stay until stop, or reclaim.
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return true? gone
---@return fcproc.Exit|fcproc.Error|nil exit  how it ended; nil when nobody can tell; or the error:
---                                           ERR_WAIT_TIMEOUT, ERR_CLOSED
function Vm:wait(timeout, ctx)
  options.timeout(timeout, "vm:wait")
  local machine = self.machine
  if not machine then return self:_ended("wait") end
  local gone, exit = machine:_while_open("wait", function(own) return machine:wait(timeout, own) end, ctx)
  if not gone and exit.code == "closed" then return self:_ended("wait") end
  return gone, exit
end

---Writes a snapshot, with a manifest, into a new folder. The VM is paused meanwhile.
---@param path string  absolute; it must not exist
---@param opts fcproc.SnapshotOptions?
---@param ctx fcproc.Context?
---@return fcproc.Manifest? manifest  what manifest.json says
---@return fcproc.Error? err  ERR_CONFLICT: something is at the path; ERR_NOT_FOUND: the folder above it
---                           is not there; ERR_INVALID: no absolute path; ERR_BUSY: another is being
---                           made; ERR_API: Firecracker refused it. Nothing of it is left, and the VM
---                           goes on
function Vm:snapshot(path, opts, ctx)
  if not self.machine then return self:_ended("snapshot") end
  local manifest, err = snapshot.create(self, path, opts, loop.context(ctx))
  if not manifest and err.code == "closed" then return self:_ended("snapshot") end
  return manifest, err
end

---Lets it go: the VM runs on without this manager, and can be adopted by any.
---@return true?
---@return fcproc.Error? err  ERR_CLOSED: it was stopped or detached; ERR_BUSY: another coroutine stops it
---                           or makes a snapshot of it
function Vm:detach()
  if not self.machine then return self:_ended("detach") end
  if self.stopping or self.snapshotting then
    return nil, errors.new{ code = "busy", op = "vm.detach",
      message = ("the VM '%s' can't be let go of: %s"):format(self.id,
        self.stopping and "it is being stopped" or "a snapshot of it is being made") }
  end
  self:cap()
  self:_let_go()
  self.detached = true
  self.machine:close()
  self.machine = nil
  self.journal:close()
  return true
end

function Vm:__tostring()
  local machine = self.machine
  local state = machine and not machine.closed and ("pid %d"):format(machine.process:pid())
    or self.detached and "detached" or (self.report or self.stopping) and "stopped" or "not started"
  return ("fcproc.Vm '%s' (%s)"):format(self.id, state)
end

-- Going out of scope ends the VM at once and removes all of it, in a context of its own.
Vm.__close = core.uninterruptible(function(self)
  if not self.machine then return end
  local ctx <close> = core.context(nil, CLOSE_LIMIT)
  self:kill(ctx)
end)

return M
