-- fcproc ps, info, wait, stop, kill, pause, resume, snapshot, verify: VMs that are there already.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local exits = require "fcproc.machine.exit"
local finally = require "fcproc.finally"
local flags = require "fcproc.cli.flags"
local journals = require "fcproc.resources.journal"
local output = require "fcproc.cli.output"
local process = require "fcproc.process"
local publish = require "fcproc.network.publish"
local report_text = require "fcproc.cli.report"
local stop = require "fcproc.vm.stop"
local vms = require "fcproc.vm"

local M = {}

local LIST = { kind = "list" }
local VMS = { kind = "list", of = { fields = { ports = LIST } } }
local WITH_MANIFEST = { fields = { manifest = { fields = { drives = LIST, network = LIST } } } }

local function age(created)
  if not created then return "-" end
  local seconds = math.max(os.time() - created, 0)
  for _, unit in ipairs{ { 86400, "d" }, { 3600, "h" }, { 60, "min" } } do
    if seconds >= unit[1] then return ("%d %s"):format(seconds // unit[1], unit[2]) end
  end
  return seconds .. " s"
end

---fcproc ps
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.ps(cli)
  local list, err = vms.list(cli.manager, cli.ctx)
  if not list then return nil, err end
  if cli.args.quiet then
    for i, vm in ipairs(list) do list[i] = vm.id end
  end
  cli.output:result(list, cli.args.quiet and LIST or VMS, function()
    if cli.args.quiet then return #list > 0 and table.concat(list, "\n") .. "\n" or "" end
    local rows = { { "ID", "STATE", "PID", "ADDRESS", "AGE", "MANAGED", "PORTS" } }
    for _, vm in ipairs(list) do
      rows[#rows + 1] = { vm.id, vm.state, vm.pid and tostring(vm.pid) or "-", vm.address or "-",
        age(vm.created), vm.managed and "yes" or "no", publish.text(vm.ports) }
    end
    return output.columns(rows)
  end)
  return true
end

local function info_text(info)
  local list = {
    { "id", info.id }, { "state", info.state },
    { "why", info.err and flags.say(info.err.message) },
    { "pid", info.pid }, { "address", info.address },
    { "ports", info.ports[1] and publish.text(info.ports) or nil },
    { "vcpus", info.vcpus }, { "memory", info.mem_mib and info.mem_mib .. " MiB" },
    { "firecracker", info.version }, { "binary", info.binary }, { "folder", info.folder },
    { "console", info.console },
    { "manager", info.managed and (info.manager and "pid " .. info.manager or "yes") or nil },
  }
  for _, tap in ipairs(info.taps or {}) do
    list[#list + 1] = { "network", ("%s%s%s%s%s"):format(tap.name,
      tap.guest_mac and ", guest " .. tap.guest_mac or "", tap.address and ", " .. tap.address or "",
      tap.told and " (told at boot)" or "", tap.nat and ", NAT by " .. tap.nat or "") }
  end
  for _, drive in ipairs(info.drives or {}) do
    list[#list + 1] = { "drive", ("%s: %s%s"):format(drive.id, drive.path,
      drive.read_only and ", read only" or drive.copy and ", a copy of it" or "") }
  end
  for _, warning in ipairs(info.warnings or {}) do
    list[#list + 1] = { "warning", ("%s; %s"):format(flags.say(warning.message),
      flags.say(warning.fix or "no fix is known")) }
  end
  list[#list + 1] = { "created", info.created and age(info.created) .. " ago" }
  return output.fields(list)
end

---fcproc info ID
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.info(cli)
  local info, err = vms.inspect(cli.manager, cli.args.id, cli.ctx)
  if not info then return nil, err end
  if cli.output.json then info.err = info.err and output.plain(info.err) end
  cli.output:result(info, { fields = { taps = LIST, drives = LIST, ports = LIST } }, info_text)
  return true
end

-- ---- ending --------------------------------------------------------------------------------

-- The VM's process, which may have ended.
local function process_of(cli, id)
  local info, err = vms.facts(cli.manager, id, cli.ctx)
  if not info then return { id = id, err = err } end
  if info.state == "making" then
    return { id = id, err = errors.new{ code = "busy", op = "cli.wait",
      message = ("the VM '%s' is being made or removed; wait for it while `fcproc ps` shows that it runs")
        :format(id) } }
  end
  local handle
  if info.identity then handle, err = process.open(info.identity) end
  if err and err.code ~= "not_found" then return { id = id, err = err } end
  return { id = id, handle = handle, files = info.files }
end

-- How it ended, as JSON has it.
local function wait_for(cli, found)
  if found.err then return nil, found.err end
  if not found.handle then return { id = found.id, had_ended = true } end
  local gone, exit = process.wait(found.handle, nil, cli.manager.config.without, cli.ctx)
  if not gone then return nil, exit end
  return { id = found.id, had_ended = false, exit = exit }
end

local function wait_line(ended, files)
  local how = ended.had_ended and "it had ended" or "ended"
  local cpu = files and exits.cpu_end(ended.exit, files) or {}
  return ("%s: %s%s\n"):format(ended.id, how, ended.exit and ", " .. exits.describe(ended.exit, {
    triple_fault = cpu.triple_fault, vcpu_error = cpu.vcpu_error }) or "")
end

---fcproc wait ID...
---@param cli fcproc.Cli
---@return integer status
function M.wait(cli)
  local found, list, status = {}, {}, 0
  local _ <close> = finally(function()
    for _, entry in ipairs(found) do
      if entry.handle then entry.handle:close() end
    end
  end)
  -- All of them before the first wait: they may go together.
  for i, id in ipairs(cli.args.ids) do found[i] = process_of(cli, id) end
  for i, entry in ipairs(found) do
    local ended, err = wait_for(cli, entry)
    local bad = ended and ended.exit and ended.exit.status ~= 0 and 1 or 0
    if err then bad = cli.output:tell(err) end
    if status == 0 then status = bad end
    list[i] = ended or { id = entry.id, error = output.plain(err) }
    if ended and not cli.output.json then cli.output:write(wait_line(ended, entry.files)) end
  end
  if cli.output.json then cli.output:result(list, LIST) end
  return status
end

-- The VMs that the arguments name.
local function named(cli)
  local args = cli.args
  if args.all and #args.ids == 0 then return journals.ids(cli.manager) end
  if not args.all and #args.ids > 0 then return args.ids end
  return nil, errors.new{ code = "invalid", op = "cli.arguments",
    message = ("%s: name VMs, or say --all%s"):format(args.command, args.all and "; not both" or "") }
end

local function stop_command(cli, ladder)
  local ids, err = named(cli)
  if not ids then return nil, err end
  if #ids > 0 then
    cli.output:progress("stopping %s", #ids > 8 and #ids .. " VMs" or table.concat(ids, " "))
  end
  local results, status, list = vms.stop_ids(cli.manager, ids, ladder, cli.ctx), 0, {}
  for i = cli.args.all and #results or 0, 1, -1 do
    local failure, folder = results[i].err, journals.folder(cli.manager, results[i].id)
    local faster = failure and failure.code == "not_found" and not core.stat(folder) -- its manager was
    if faster then table.remove(results, i) end
  end
  for i, result in ipairs(results) do
    list[i] = { id = result.id, report = result.report and report_text.plain(result.report),
      error = result.err and output.plain(result.err) }
    if result.err then
      local failed = cli.output:tell(result.err)
      status = status == 0 and failed or status
    elseif not cli.output.json then
      cli.output:write(report_text.line(result.id, result.report) .. "\n")
    end
  end
  if cli.output.json then cli.output:result(list, LIST) end
  return status
end

---fcproc stop ID...
---@param cli fcproc.Cli
---@return integer? status
---@return fcproc.Error? err
function M.stop(cli)
  return stop_command(cli, cli.args.ladder)
end

---fcproc kill ID...
---@param cli fcproc.Cli
---@return integer? status
---@return fcproc.Error? err
function M.kill(cli)
  return stop_command(cli, stop.KILL)
end

-- ---- changing ------------------------------------------------------------------------------

---Takes the VM over, does something to it, and lets it go.
---@param cli fcproc.Cli
---@param fn fun(vm: fcproc.Vm): any ...
---@return any ...  what fn returned; nil, err
function M.with_vm(cli, fn)
  local vm, err = vms.adopt(cli.manager, cli.args.id, cli.ctx)
  if not vm then return nil, err end
  local _ <close> = finally(function() vm:detach() end)
  return fn(vm)
end

local function change(cli, method, word)
  local ok, err = M.with_vm(cli, function(vm) return vm[method](vm, cli.ctx) end)
  if not ok then return nil, err end
  cli.output:result({ id = cli.args.id, state = word }, nil, function(done)
    return ("%s: %s\n"):format(done.id, done.state)
  end)
  return true
end

---fcproc pause ID
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.pause(cli)
  return change(cli, "pause", "paused")
end

---fcproc resume ID
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.resume(cli)
  return change(cli, "resume", "running")
end

---fcproc snapshot ID PATH
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.snapshot(cli)
  local path, args = cli.args.path, cli.args
  if path:sub(1, 1) ~= "/" then
    local here, err = core.absolute_path(".")
    if not here then return nil, err end
    path = here .. "/" .. path
  end
  cli.output:progress("writing the snapshot of %s to %s", args.id, path)
  local manifest, err = M.with_vm(cli, function(vm)
    return vm:snapshot(path, { type = args.diff and "Diff" or "Full",
      keep_paused = args.keep_paused, hash = not args.no_hash, trust = args.trust }, cli.ctx)
  end)
  if not manifest then return nil, err end
  cli.output:result({ id = args.id, path = path, manifest = manifest }, WITH_MANIFEST, function(done)
    return ("%s: its snapshot is in %s\n"):format(done.id, done.path)
  end)
  return true
end

---fcproc verify PATH
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.verify(cli)
  local manifest, err = vms.verify(cli.args.path, cli.ctx)
  if not manifest then return nil, err end
  cli.output:result({ path = cli.args.path, manifest = manifest }, WITH_MANIFEST, function(done)
    return ("%s: is what it was when it was made\n"):format(done.path)
  end)
  return true
end

return M
