-- Every function of the C module with 0 to 10 free descriptors: few_core.lua FOLDER FIRECRACKER, under a
-- low limit of descriptors. Each answers as it does with enough of them, or that there were too few.
-- Prints "ok", or what went wrong.

package.path = "./?.lua;" .. package.path
local few = require "spec.support.few"
local core = require "fcproc.core"

local MOST_FREE = 10

-- A C host's, which plain Lua has not.
core.host_logging, core.host_log = function() return true end, function() end

-- What they answer is the same each time, so that a wrong answer shows.
local COMPARED = {}
for name in ("alive recorded matches listener_pid link_exists lock_taken find_executable absolute_path "
  .. "check_ifname address_family is_terminal"):gmatch("%S+") do
  COMPARED[name] = true
end
-- How often these are called is up to the clock.
local POLLING = { step = true, timeout = true, pollfd = true, poll = true, poll_many = true }

local answers

local function outcome(name, value, err)
  if value == nil and type(err) == "table" then
    return { name = name, answer = "error " .. err.code, shortage = few.is_shortage(err),
      message = err.message }
  end
  if name:find("^open_") or name == "process" then return { name = name, answer = "pid " .. value:pid() } end
  return { name = name, answer = COMPARED[name] and tostring(value) or "fine" }
end

local function recorded(functions)
  for name, fn in pairs(functions) do
    if type(fn) == "function" and name ~= "pid" then
      functions[name] = function(...)
        local result = table.pack(fn(...))
        if answers and not (POLLING[name] and not (result[1] == nil and result[2])) then
          answers[#answers + 1] = outcome(name, result[1], result[2])
        end
        return table.unpack(result, 1, result.n)
      end
    end
  end
end

recorded(core)
for key, metatable in pairs(debug.getregistry()) do
  if type(key) == "string" and key:find("^fcproc%.") and type(metatable) == "table"
    and type(metatable.__index) == "table" then
    recorded(metatable.__index)
  end
end

local calls, finish = assert(loadfile("spec/support/oom_calls.lua"))(arg[1], arg[2])

local function run(free, call)
  answers = {}
  local ok, problem
  if free then ok, problem = few.with(free, call) else ok, problem = pcall(call) end
  local said = answers
  answers = nil
  return said, ok, problem
end

local sock = arg[1] .. "/api.sock"
for name, fn in pairs{
  ["open_listener, without SO_PEERPIDFD"] = function()
    return core.open_listener(sock, core.without.peerpidfd)
  end,
  ["listener_pid, without SO_PEERPIDFD"] = function()
    return core.listener_pid(sock, core.without.peerpidfd)
  end,
} do
  calls[#calls + 1] = { name, function()
    local found, err = fn()
    if not found then error(err.message, 0) end
  end }
end

-- Puts things right again. A server that has ten connections, those of given up requests among them,
-- refuses more until they are answered.
local function settle(after, well)
  for _ = 1, 100 do
    if pcall(after, well) then return end
    core.poll_many({}, {}, 0.02)
  end
  after(well)
end

local bad = {}
for _, case in ipairs(calls) do
  local name, call, after = table.unpack(case)
  local usual, well, problem = run(nil, call)
  if after then settle(after, well) end
  assert(well, problem)
  for free = 0, MOST_FREE do
    local said, ok, raised = run(free, call)
    local short = false
    for i, one in ipairs(said) do
      short = short or one.shortage
      local expected = usual[i]
      if not expected or expected.name ~= one.name then break end -- it went another way
      if one.answer ~= expected.answer and not one.shortage then
        bad[#bad + 1] = ("%s with %d free: %s says '%s' (%s), not '%s'"):format(name, free, one.name,
          one.answer, one.message or "", expected.answer)
      end
    end
    -- request_all tells it of one server, and succeeds itself.
    short = short or not ok and tostring(raised):find("Too many open files", 1, true) ~= nil
    if not ok and not short then
      bad[#bad + 1] = ("%s with %d free: raised %s"):format(name, free, tostring(raised))
    end
    if after then settle(after, ok and not short) end
  end
end
finish()
print(#bad == 0 and "ok" or table.concat(bad, "\n"))
