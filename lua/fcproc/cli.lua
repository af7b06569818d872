-- The fcproc command, as a function: what the script that is installed calls. The script alone ends
-- the process.

local config = require "fcproc.manager.config"
local context = require "fcproc.context"
local errors = require "fcproc.error"
local managers = require "fcproc.manager"
local output = require "fcproc.cli.output"
local parsers = require "fcproc.cli.parser"

local M = {}

-- Where each command is.
local modules = {
  run = "run", restore = "run", ps = "vms", info = "vms", console = "console", wait = "vms",
  stop = "vms", kill = "vms", pause = "vms", resume = "vms", snapshot = "vms", verify = "vms",
  api = "requests", metrics = "requests", balloon = "requests", mmds = "requests",
  image = "image", reclaim = "host", net = "host", doctor = "host", version = "host",
}

-- Is an error to be JSON? Asked when the arguments themselves are the error.
local function wants_json(argv)
  for _, word in ipairs(argv) do
    if word == "--" then return false end
    if word == "--json" then return true end
  end
  return false
end

-- A number below 0 is a value that some option can't have, and no option by itself.
local function with_numbers(argv)
  local words = {}
  for _, word in ipairs(argv) do
    local before = words[#words]
    if before and before:find("^%-%-%a[%a-]*$") and word:find("^%-%.?%d") then
      words[#words] = before .. "=" .. word
    else
      words[#words + 1] = word
    end
  end
  return words
end

-- The arguments, or the status to end with.
local function parse(argv, out, err)
  local help
  local parser = parsers.new(function(text)
    help = text
    error("help", 0)
  end)
  local called, ok, args = pcall(parser.pparse, parser, with_numbers(argv))
  local to = output.new(out, err, wants_json(argv))
  if help then
    to:write(help .. "\n")
    return nil, to:finish(0)
  end
  if not called then error(ok, 0) end
  if ok then return args end
  return nil, to:finish(to:fail(errors.new{ code = "invalid", op = "cli.arguments",
    message = args:gsub("\n", "; ") .. "; see fcproc --help" }))
end

---@class fcproc.Cli  what a command gets
---@field args table
---@field output fcproc.CliOutput
---@field manager fcproc.Manager
---@field ctx fcproc.Context

local function run(args, to)
  local folder, homeless = args.runtime_dir, nil
  if not folder then folder, homeless = config.runtime_dir() end
  if not folder then return to:fail(homeless) end
  local manager <close>, err = managers.new{
    runtime_dir = folder,
    bridge_name = args.bridge, bridge_ip = args.bridge_ip.address,
    cidr = args.bridge_ip.prefix, firecracker_bin = args.firecracker, netns = args.netns,
    logger = args.verbose and to:logger() or nil,
  }
  if not manager then return to:fail(err) end
  local ctx <close> = context.new{ timeout = args.timeout }
  local commands = require("fcproc.cli." .. modules[args.command])
  local done, failure = commands[args.command]{ args = args, output = to, manager = manager, ctx = ctx }
  if done then return math.type(done) == "integer" and done or 0 end
  return to:fail(failure)
end

---Runs the command.
---@param argv string[]
---@param out file*
---@param err file*
---@return integer status  the exit status, see the end of fcproc --help
function M.main(argv, out, err)
  local args, status = parse(argv, out, err)
  if not args then return status end
  local to = output.new(out, err, args.json)
  local ok, result = pcall(run, args, to)
  if ok then return to:finish(result) end
  -- lua.c's Ctrl-C is an error that comes from anywhere; closing variables have run.
  if type(result) == "string" and result:find("interrupted!", 1, true) then
    return to:finish(to:fail(errors.new{ code = "cancelled", op = "cli", message = "interrupted" }))
  end
  if errors.is_error(result) then return to:finish(to:fail(result)) end
  to:note("a mistake in fcproc: %s", tostring(result))
  return 1
end

return M
