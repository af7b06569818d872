-- A manager that kills itself: crash.lua JSON, run as a process of its own. The JSON says
--   config   for fcproc.new
--   action   "launch", "stop", "snapshot", "restore"; "found": as "launch", and all is counted;
--            "cycle": says "begins", launches and stops;
--            "hold": launches it, says "holds", and waits for somebody to kill it; "churn": launches
--            and kills it `times` times; "reclaim": so many times
--   spec     of the VM
--   path     the snapshot's
--   at       after which call that changes the host it dies by SIGKILL, counted from the action's
--            begin; without it, it ends by itself and the VM is detached
-- What it does is told on stdout, a line before each.

local cjson = require "cjson"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local json = require "fcproc.json"

local order = json.plain(cjson.decode(arg[1]))
local counting, count = false, 0
local self <close> = assert(core.process(assert(math.tointeger(
  tonumber(core.read_file("/proc/self/stat"):match("^%d+"))))))

local function step(name)
  if not counting then return end
  count = count + 1
  io.stdout:write(("%d %s\n"):format(count, name))
  io.stdout:flush()
  if count == order.at then
    self:signal("KILL")
    core.poll_many({}, {}, 60)
  end
end

local function wrap(object, name)
  local fn = object[name]
  object[name] = function(...)
    local results = table.pack(fn(...))
    step(name)
    return table.unpack(results, 1, results.n)
  end
end

for _, name in ipairs{ "make_dir", "create_file", "write_file", "own_file", "remove_file",
  "remove_tree", "link_file", "bind_file", "unbind_file", "symlink", "rename",
  "copy_file", "lock_file", "spawn", "relay", "hold_netns" } do
  wrap(core, name)
end
for _, name in ipairs{ "release", "signal_number" } do
  wrap(core.process_methods, name)
end

counting = order.action == "found" -- from the namespaces on
local manager <close> = assert(fcproc.new(order.config))
local net = getmetatable(manager.host_net or manager.net).__index
for _, name in ipairs{ "ensure_bridge", "create_tap", "delete_taps", "sysctl" } do wrap(net, name) end
wrap(manager.runner, "run")

local function main()
  if order.action == "launch" or order.action == "found" then
    counting = true
    assert(fcproc.vm.launch(manager, order.spec)):detach()
  elseif order.action == "hold" then
    local vm = assert(fcproc.vm.launch(manager, order.spec))
    assert(assert(vm:console()):wait_for("ready", 5))
    print("holds")
    io.stdout:flush()
    core.poll_many({}, {}, 60)
  elseif order.action == "churn" then
    for _ = 1, order.times do assert(assert(fcproc.vm.launch(manager, order.spec)):kill()) end
  elseif order.action == "reclaim" then
    for _ = 1, order.times do
      local report = assert(fcproc.vm.reclaim(manager))
      for _, failed in ipairs(report.failed) do error(tostring(failed.left[1].err)) end
    end
  elseif order.action == "restore" then
    counting = true
    assert(fcproc.vm.restore(manager, order.path, order.spec)):detach()
  elseif order.action == "cycle" then
    counting = true
    step("begins")
    assert(assert(fcproc.vm.launch(manager, order.spec)):stop())
  else
    local vm = assert(fcproc.vm.launch(manager, order.spec))
    counting = true
    if order.action == "stop" then
      assert(vm:stop{ { "ctrl_alt_del", 0.3 }, { "sigkill", 5 } })
    else
      assert(vm:snapshot(order.path))
      vm:detach()
    end
  end
end

-- Each answer of the API is a moment, too.
local api = require "fcproc.api"
local client_of = api.client
api.client = function(...)
  local client, err = client_of(...)
  local methods = client and getmetatable(client).__index
  if methods and not methods.wrapped then
    methods.wrapped = true
    wrap(methods, "request")
  end
  return client, err
end

main()
