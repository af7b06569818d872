-- fcproc api, metrics, balloon, mmds: what Firecracker itself is asked and told. Reading disturbs
-- nobody, whoever has the VM in his hands; to change something it is taken over.

local bodies = require "fcproc.machine.bodies"
local errors = require "fcproc.error"
local json = require "fcproc.json"
local output = require "fcproc.cli.output"
local vms = require "fcproc.vm"
local with_vm = require("fcproc.cli.vms").with_vm

local M = {}

local function invalid(format, ...)
  return nil, errors.new{ code = "invalid", op = "cli.arguments", message = format:format(...) }
end

-- JSON from the command line, or from stdin. As text, since lua-cjson knows no empty list.
local function given(text, what)
  if text == "-" then
    local read, err = require "fcproc.cli.stdin"()
    if not read then return nil, err end
    text = read
  end
  local value, complaint = json.read(text)
  if value == nil then return invalid("%s is no JSON: %s", what, complaint) end
  return text, value
end

local function ask(cli, fn) return vms.ask(cli.manager, cli.args.id, fn, cli.ctx) end

-- An answer, as JSON for people, too.
local function show(cli, answer, types)
  cli.output:result(answer, types, function() return output.encode(answer, types) end)
end

---fcproc api ID METHOD PATH [BODY]
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.api(cli)
  local args = cli.args
  local method, body = args.method:upper(), nil
  if not args.path:find("^/") then return invalid("the path '%s' must begin with a /", args.path) end
  if args.body then
    local wrong
    body, wrong = given(args.body, "the body")
    if not body then return nil, wrong end
  end
  local function send(vm) return vm:api(method, args.path, body, cli.ctx) end
  local answer, err
  if method == "GET" then answer, err = ask(cli, send) else answer, err = with_vm(cli, send) end
  if answer == nil then return nil, err end
  if answer == true and method ~= "GET" then -- it has nothing to say
    if cli.output.json then cli.output:result({}) end
    return true
  end
  show(cli, json.plain(answer, true), args.path == "/vm/config" and bodies.config or nil)
  return true
end

-- Each number with its path: "net.rx_bytes_count".
local function add_rows(rows, value, path)
  for name, item in pairs(value) do
    local place = path == "" and name or path .. "." .. name
    if type(item) == "table" then add_rows(rows, item, place)
    else rows[#rows + 1] = { place, tostring(item) } end
  end
  return rows
end

---fcproc metrics ID
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.metrics(cli)
  local metrics, err = ask(cli, function(vm) return vm:metrics(cli.ctx) end)
  if not metrics then return nil, err end
  cli.output:result(metrics, nil, function()
    local rows = add_rows({}, metrics, "")
    table.sort(rows, function(a, b) return a[1] < b[1] end)
    return output.columns(rows)
  end)
  return true
end

local function set_balloon(cli, mib)
  local ok, err = with_vm(cli, function(vm) return vm:balloon(mib, cli.ctx) end)
  if not ok then return nil, err end
  cli.output:result({ id = cli.args.id, amount_mib = mib }, nil, function(done)
    return ("%s: its balloon is to be of %d MiB\n"):format(done.id, done.amount_mib)
  end)
  return true
end

---fcproc balloon ID [MIB]
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.balloon(cli)
  if cli.args.mib then return set_balloon(cli, cli.args.mib) end
  local balloon, err = ask(cli, function(vm)
    local found, problem = vm:balloon(nil, cli.ctx)
    if not found then return nil, problem end
    if (found.stats_polling_interval_s or 0) > 0 then
      found.statistics = vm.machine:balloon_statistics(cli.ctx)
    end
    return found
  end)
  if not balloon then return nil, err end
  cli.output:result(balloon, nil, function()
    local rows = add_rows({}, balloon, "")
    table.sort(rows, function(a, b) return a[1] < b[1] end)
    return output.columns(rows)
  end)
  return true
end

---fcproc mmds ID [DATA]
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.mmds(cli)
  local args = cli.args
  if not args.data then
    if args.patch then return invalid("--patch needs data to merge into what is there") end
    local data, err = ask(cli, function(vm) return vm:mmds(nil, cli.ctx) end)
    if data == nil then return nil, err end
    show(cli, data)
    return true
  end
  local text, value = given(args.data, "the metadata")
  if not text then return nil, value end
  if not text:find("^%s*{") then return invalid("the metadata must be a JSON object: {...}") end
  local ok, err = with_vm(cli, function(vm)
    return vm:api(args.patch and "PATCH" or "PUT", "/mmds", text, cli.ctx)
  end)
  if not ok then return nil, err end
  cli.output:result({ id = args.id }, nil, function()
    return ("%s: its metadata is %s\n"):format(args.id, args.patch and "merged" or "replaced")
  end)
  return true
end

return M
