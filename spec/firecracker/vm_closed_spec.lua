-- Objects after their end, and while another coroutine ends them: nil and an error, never a raised one.

local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

-- What is public on the object: all functions of its metatable.
local function methods_of(object)
  local names = {}
  for name, value in pairs(getmetatable(object).__index) do
    if type(value) == "function" and name:find("^%a") then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- Arguments that are right, for those that look at them.
local ARGUMENTS = {
  vm = { api = { "GET", "/" }, snapshot = { "/tmp/fcproc-spec-never" }, wait = { 10 }, mmds = { { a = 1 } } },
  machine = { patch_drive = { "id", {} }, set_mmds = { {} },
    api = { "GET", "/" }, call = { "GET", "/" }, wait = { 10 }, failure = { "spec" },
    ended_by = { errors.new{ code = "api", op = "spec", message = "" } } },
  console = { wait_for = { "never", 10 } },
  client = { request = { "GET", "/" } },
}

-- Calls every method; none may raise. The outcome of each: an error's code, or "fine".
local function outcomes(kind, object, ctx)
  local seen = {}
  for _, name in ipairs(methods_of(object)) do
    local arguments = ARGUMENTS[kind][name] or {}
    local ok, answer, err = pcall(object[name], object, table.unpack(arguments))
    if ok or not tostring(answer):find("must be a", 1, true) then -- an argument's type is not the point
      assert.is_true(ok, ("%s:%s raised: %s"):format(kind, name, tostring(answer)))
      seen[name] = errors.is_error(err) and err.code or "fine"
      if seen[name] == "closed" then assert.is_nil(answer) end
      if errors.is_error(answer) then seen[name] = answer.code end -- machine:failure gives it alone
    end
  end
  return seen, ctx
end

local NEEDS_THE_VM = { "api", "balloon", "console", "detach", "metrics", "mmds", "pause", "pid", "resume",
  "snapshot", "wait" }

describe("objects of a VM", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  it("are closed after its stop, and after it was detached", function()
    local vm <close> = vms.ready(world, { id = "one" })
    local console, machine = must(vm:console()), vm.machine
    assert.is_truthy(tostring(vm):find("^fcproc%.Vm 'one' %(pid %d+%)$"), tostring(vm))
    must(vm:detach())
    assert.are.equal("fcproc.Vm 'one' (detached)", tostring(vm))
    assert.are.equal("detached", must(vm:info()).state)
    local function all_closed(gone, kept, words)
      local seen = outcomes("vm", gone)
      for _, name in ipairs(NEEDS_THE_VM) do assert.are.equal("closed", seen[name], name) end
      local _, err = gone:pid()
      assert.is_truthy(err.message:find(words, 1, true), err.message)
      local of_machine = outcomes("machine", kept)
      for _, name in ipairs{ "api", "call", "state", "wait", "failure", "pause", "describe", "vm_config",
        "patch_drive", "set_mmds" } do
        assert.are.equal("closed", of_machine[name], name)
      end
    end
    all_closed(vm, machine, "was detached")
    fails("closed", console:wait_for("never", 10))
    fails("closed", vm:stop())
    local again <close> = must(fcproc.vm.adopt(world.manager, "one"))
    local its = again.machine
    console = must(again:console())
    must(again:kill())
    assert.are.equal("stopped", must(again:info()).state)
    all_closed(again, its, "was stopped")
    fails("closed", console:wait_for("never", 10))
    fails("not_found", console:read())
    must(again:stop()) -- the same report
  end)

  it("tell all who use them when another coroutine lets go of the VM", function()
    for _, ending in ipairs{ "detach", "kill" } do
      local vm <close> = vms.ready(world, { id = ending, mmds = { data = { a = 1 } }, network = true })
      local console, machine = must(vm:console()), vm.machine
      local started = core.now()
      local calls = {
        function() return vm:wait() end,
        function() return console:wait_for("never") end,
        function() return vm:info() end,
        function() return vm:metrics() end,
        function() return vm:mmds() end,
        function() return vm:balloon() end,
        function() return vm:pause() end,
        function() return vm:resume() end,
        function() return machine:vm_config() end,
        function() return machine:api("GET", "/") end,
        function() return vm[ending](vm) end,
        function() return vm:detach() end,
      }
      local results = fcproc.run(calls)
      assert.is_true(core.now() - started < 30)
      for i = 1, #calls - 2 do
        local answer, err = results[i][1], results[i][2]
        assert.is_true(answer ~= nil or errors.is_error(err), ending .. " " .. i)
      end
      must(results[#calls - 1][1], results[#calls - 1][2])
      fails(ending == "kill" and "busy" or "closed", results[#calls][1], results[#calls][2])
      if ending == "detach" then
        fails("closed", results[1][1], results[1][2])
        fails("closed", results[2][1], results[2][2])
        must(must(fcproc.vm.adopt(world.manager, ending)):kill())
      else
        assert.are.same({ true, { signal = 9 } }, { results[1][1], results[1][2] })
      end
    end
  end)

  it("end with their VM while a snapshot of it is made, and detach waits for no snapshot", function()
    local vm <close> = vms.ready(world, { id = "one" })
    local results = fcproc.run{
      function() return vm:snapshot(world.folder:file("snapshot")) end,
      function() return vm:detach() end,
      function() return vm:kill() end,
    }
    assert.is_true(results[1][1] ~= nil or errors.is_error(results[1][2]))
    fails("busy", results[2][1], results[2][2])
    must(results[3][1], results[3][2])
  end)

  it("can be stopped when their manager was closed, and tell that it was", function()
    local manager = must(fcproc.new{ runtime_dir = world.folder:file("run"), bridge_name = "fcbr0",
      bridge_ip = "172.30.0.1", cidr = 24, netns = world.netns, firecracker_bin = support.firecracker() })
    local vm <close> = must(fcproc.vm.launch(manager, { network = true }))
    local results = fcproc.run{
      function() return fcproc.vm.launch(manager, { id = "second", network = true }) end,
      function() return manager:delete_taps{ "none1", "none2" } end,
      function() manager:close() end,
    }
    fails("closed", results[1][1], results[1][2])
    must(results[2][1], results[2][2])
    assert.are.equal("running", must(vm:info()).state)
    fails("closed", fcproc.vm.launch(manager, {}))
    must(vm:kill())
  end)

  it("tell a hook that the VM has not been started yet, not that it was stopped", function()
    local told
    local vm <close> = must(fcproc.vm.launch(world.manager, { hooks = { before_start = function(early)
      told = { select(2, early:pid()).message, early:info().state, tostring(early) }
    end } }))
    assert.is_truthy(told[1]:find("has not been started yet", 1, true), told[1])
    assert.are.same({ "not started", ("fcproc.Vm '%s' (not started)"):format(vm.id) }, { told[2], told[3] })
  end)

  it("answer nil and closed for a client that was closed, also while it waits for its answer", function()
    local vm <close> = vms.ready(world, {})
    local client = must(fcproc.client(vm.machine.files.socket))
    local results = fcproc.run{
      function() return client:request("GET", "/") end,
      function() client:close() end,
    }
    assert.is_true(results[1][1] ~= nil or errors.is_error(results[1][2]))
    client:close()
    assert.are.same({ request = "closed", close = "fine" }, (outcomes("client", client)))
  end)
end)
