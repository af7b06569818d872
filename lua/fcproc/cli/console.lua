-- A guest's console on stdout: what is there, and what comes. It is a file, so it can be read
-- whoever has the VM in his hands.

local context = require "fcproc.context"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local loop = require "fcproc.loop"
local output = require "fcproc.cli.output"
local process = require "fcproc.process"
local vms = require "fcproc.vm"

local M = {}

local CHUNK = 65536
local STDOUT = 1

-- Writes what is in the file from the position on. The position after it; nil, err.
local function copy(path, from, write)
  while true do
    local text, err = core.read_file(path, from, CHUNK)
    if not text then return nil, err end
    from = from + #text
    -- Zeros are where the oldest output was given back to the file system.
    local shown = text:gsub("%z+", "")
    if shown ~= "" and not write(shown) then
      return nil, errors.new{ code = "closed", op = "cli.console",
        message = "nobody reads the output any more" }
    end
    if #text < CHUNK then return from end
  end
end

---Writes the console to its end, and goes on until the process has ended.
---@param path string
---@param writer fcproc.Process?  nil: only what is there
---@param from integer            bytes
---@param write fun(text: string): boolean
---@param ctx fcproc.Context?
---@param tick fun()?             called from time to time
---@return true?
---@return fcproc.Error? err  ERR_CLOSED: it could not be written
function M.follow(path, writer, from, write, ctx)
  while true do
    local alive = writer and writer:alive() -- before the look: what it wrote last counts
    local upto, err = copy(path, from, write)
    if not upto then return nil, err end
    from = upto
    if not alive then return true end
    local done
    done, err = loop.complete(ctx, writer:wait_file_op(path, from, nil, nil, ctx))
    if not done then return nil, err end
  end
end

---Runs the work beside watchers, which end with it. Each gets a context that Ctrl-C cancels.
---@param ctx fcproc.Context?
---@param work fun(ctx: fcproc.Context): any ...
---@param ... fun(ctx: fcproc.Context)
---@return any ...  what the work returned
function M.watched(ctx, work, ...)
  local watching, ended
  local functions = { function(run_ctx)
    local made <close> = context.new{ parent = run_ctx }
    watching = made
    local _ <close> = finally(function()
      ended = true
      made:cancel()
    end)
    return work(run_ctx)
  end }
  for _, watcher in ipairs{ ... } do
    functions[#functions + 1] = function()
      if not ended then watcher(watching) end
    end
  end
  local results = loop.run(functions, ctx)
  return table.unpack(results[1], 1, results[1].n)
end

---A watcher that calls the function when nobody reads stdout any more.
---@param cli fcproc.Cli
---@param gone fun()
---@return fun(ctx: fcproc.Context)
function M.reader(cli, gone)
  return function(ctx)
    if cli.output.out ~= io.stdout then return end
    if loop.complete(ctx, core.wait_reader(STDOUT, nil, ctx)) then gone() end
  end
end

-- Where the last lines begin.
local function start_of(path, lines)
  if not lines then return 0 end
  local stat, err = core.stat(path)
  if not stat then return nil, err end
  local from = math.max(stat.size - lines * 256 - 4096, 0) -- long lines: fewer of them
  local text
  text, err = core.read_file(path, from)
  if not text then return nil, err end
  local starts = { 1 }
  for at in text:gmatch("\n()") do
    if at <= #text then starts[#starts + 1] = at end
  end
  if lines <= 0 then return from + #text end
  return from + starts[math.max(#starts - lines + 1, 1)] - 1
end

---fcproc console ID
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.console(cli)
  local info, err = vms.facts(cli.manager, cli.args.id, cli.ctx)
  if not info then return nil, err end
  if not info.console then
    return nil, errors.new{ code = "unsupported", op = "cli.console",
      message = ("the VM '%s' has no console: it was never started, or a jailer with --daemonize has "
        .. "closed it"):format(cli.args.id) }
  end
  local opened
  if cli.args.follow and info.identity then opened, err = process.open(info.identity) end
  local writer <close> = opened
  if err and err.code ~= "not_found" then return nil, err end
  local to, from = cli.output
  from, err = start_of(info.console, cli.args.lines)
  if not from then return nil, err end
  if not to.json then
    local reading
    local ok
    ok, err = M.watched(cli.ctx, function(ctx)
      local until_unread <close> = context.new{ parent = ctx }
      reading = until_unread
      return M.follow(info.console, writer, from, function(text) return to:write(text) end, reading)
    end, M.reader(cli, function() reading:cancel() end))
    if ok or err.code == "closed" then return true end
    if err.code == "cancelled" and cli.ctx:status() then return true end
    return nil, err
  end
  local parts = {}
  local ok
  ok, err = M.follow(info.console, writer, from, function(text)
    parts[#parts + 1] = text
    return true
  end, cli.ctx)
  if not ok then return nil, err end
  to:result({ id = info.id, console = output.readable(table.concat(parts)) })
  return true
end

return M
