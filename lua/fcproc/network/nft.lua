-- Runs nft in the manager's network namespace and tells its failures in its own words. As a command,
-- since libnftables ends the process that uses it when memory runs out or netlink fails.

local cjson = require "cjson.safe"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local programs = require "fcproc.programs"
local tail = require "fcproc.tail"

local M = {}

local OUTPUT_LIMIT = 32 << 20 -- bytes: rulesets of some hosts are long, and half of one is no JSON

-- What nft or ip said, without the copy of the script that nft draws its arrows into.
local function words(err)
  return err.output and (err.output:match("Error: ([^\n]+)") or tail.last_line(err.output))
    or err.message
end

-- Debian packages of the commands used here.
local package_of = { nft = "nftables", ip = "iproute2", ss = "iproute2" }

local function not_installed(op, name, cause)
  return errors.new{ code = "not_found", op = op, cause = cause,
    message = ("%s is not installed: apt install %s"):format(name, package_of[name]) }
end

---Is nft there? Who gives a manager a runner of his own knows himself.
---@param manager fcproc.Manager
---@param op string
---@return true?
---@return fcproc.Error? err  ERR_NOT_FOUND, ERR_PERMISSION
function M.is_installed(manager, op)
  local path, err = programs.find("nft")
  if path or manager.config.runner then return true end
  return nil, err.code == "not_found" and not_installed(op, "nft", err) or err
end

-- By its path, when PATH does not lead there.
local function located(argv)
  local path, on_path = programs.find(argv[1])
  return path and not on_path and { path, table.unpack(argv, 2) } or argv
end

---Runs a command in the manager's namespace.
---@param manager fcproc.Manager
---@param op string        for the error
---@param argv string[]
---@param input string?
---@param ctx fcproc.Context?
---@param outside boolean?  where this process is instead
---@return string? stdout
---@return fcproc.Error? err  ERR_NOT_FOUND: not installed; ERR_PERMISSION; ERR_EXIT_STATUS with
---                            the command's own words
function M.command(manager, op, argv, input, ctx, outside)
  if manager.own_netns then -- which is closed with its manager
    local open, closed = manager:_check_open(op)
    if not open then return nil, closed end
  end
  local result, err = loop.theirs(manager.runner.run, manager.runner, located(argv),
    { netns = not outside and manager.config.netns or nil, input = input, output_limit = OUTPUT_LIMIT,
      session = true }, ctx)
  if result then return result.stdout end
  local code, message = err.code
  if code == "not_found" and package_of[argv[1]] then return nil, not_installed(op, argv[1], err) end
  if code == "exit_status" then
    message = ("%s refused: %s"):format(argv[1], words(err))
    if message:find("not permitted", 1, true) then
      code, message = "permission", message .. "; it needs root or CAP_NET_ADMIN"
    end
  else
    return nil, err
  end
  return nil, errors.new{
    code = code, op = op, message = message, status = err.status, output = err.output, cause = err,
  }
end

---Applies a script: all of it or nothing.
---@param manager fcproc.Manager
---@param op string
---@param script string
---@param ctx fcproc.Context?
---@param dry boolean?  the kernel only says whether it would
---@return true?
---@return fcproc.Error? err
function M.apply(manager, op, script, ctx, dry)
  local argv = dry and { "nft", "--check", "-f", "-" } or { "nft", "-f", "-" }
  local done, err = M.command(manager, op, argv, script, ctx)
  if not done then return nil, err end
  return true
end

-- What a command that answers in JSON answered: a document a line.
local function ask(manager, op, argv, ctx)
  local text, err = M.command(manager, op, argv, nil, ctx)
  if not text then return nil, err --[[@as fcproc.Error]] end
  local answers = {}
  for line in text:gmatch("[^\n]+") do
    local answer = cjson.decode(line)
    if type(answer) ~= "table" then
      return nil, errors.new{
        code = "protocol", op = op, output = text:sub(-200),
        message = ("'%s' did not answer in JSON: is it built with it?"):format(table.concat(argv, " ")),
      }
    end
    answers[#answers + 1] = answer
  end
  return answers, text
end

---The objects in what `nft -j` lists.
---@param manager fcproc.Manager
---@param op string
---@param what string  "list ruleset", or several such with "; " between them
---@param ctx fcproc.Context?
---@return table[]? objects  each { table = {} } or { chain = {} } or { rule = {} } and so on
---@return fcproc.Error|string text
function M.list(manager, op, what, ctx)
  local answers, text = ask(manager, op, { "nft", "-j", what }, ctx)
  if not answers then return nil, text end
  local objects = {}
  for _, answer in ipairs(answers) do
    for _, object in ipairs(answer.nftables or {}) do objects[#objects + 1] = object end
  end
  return objects, text
end

---The links of the namespace, as `ip -json address show` tells them.
---@param manager fcproc.Manager
---@param op string
---@param ctx fcproc.Context?
---@return table[]? links
---@return fcproc.Error|string text
function M.links(manager, op, ctx)
  local answers, err = ask(manager, op, { "ip", "-json", "address", "show" }, ctx)
  return answers and answers[1] or nil, err
end

return M
