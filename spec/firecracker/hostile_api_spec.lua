-- A VMM that was broken into answers what it likes, and its jail's user moves its socket to where he
-- likes: what is meant for it reaches no other VM, and it is ended all the same.

local cjson = require "cjson"
local cli = require "spec.support.cli"
local jails = require "spec.support.jails"
local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local EVIL_UID, VICTIM_UID = 7301, 7302
local QUICK = { { "ctrl_alt_del", 0.5 }, { "sigterm", 5 }, { "sigkill", 5 } }

local function ending(process)
  return setmetatable({}, { __close = function()
    process:signal("KILL")
    process:wait(10)
    process:close()
  end })
end

-- How many requests a Firecracker has seen, by its own log.
local function requests_of(vm)
  return #support.collect(support.read_file(vm:record().files.log), "API server received")
end

local function is_running(vm)
  local answer = must(vm:api("GET", "/"))
  assert.are.equal("Running", answer.state)
end

-- What the journal of "evil" says, changed.
local function change_record(world, change)
  local path = world.manager.config.runtime_dir .. "/evil/vm.json"
  local record = cjson.decode(support.read_file(path))
  change(record)
  support.write_file(path, (cjson.encode(record):gsub("(%d+)%.0+([,}])", "%1%2")))
end

-- ---- a socket that leads elsewhere -------------------------------------------------------------

-- What the jail's user can put in the place of his socket. Each answers with what is to be ended with it.
local places = {
  ["a link to another VM's"] = function(sock, victim)
    support.sh{ "ln", "-sfn", victim, sock }
  end,
  ["another VM's, by a hard link"] = function(sock, victim)
    os.remove(sock)
    support.sh{ "ln", victim, sock }
  end,
  ["one on which a process of his own listens"] = function(sock)
    os.remove(sock)
    local fake = must(core.absolute_path("spec/support/fake_api.lua"))
    local own = must(fcproc.spawn({ support.lua, fake, "api.sock", "running" }, { stdout = "null",
      cwd = sock:match("^(.*)/"), uid = EVIL_UID, gid = EVIL_UID }))
    local manager <close> = must(fcproc.new())
    must(manager:wait_for_socket(sock))
    return ending(own)
  end,
  ["a file"] = function(sock)
    os.remove(sock)
    support.write_file(sock, "")
  end,
  ["nothing"] = function(sock) os.remove(sock) end,
}

describe("a jail's user who moves his socket", function()
  support.need_root()
  before_each(support.before_each)
  after_each(support.after_each)

  -- His VM and the one that he is after, let go so that nobody has a connection to it.
  local function both(world)
    local victim = must(jails.launch(world, { uid = VICTIM_UID, gid = VICTIM_UID }, { id = "victim" }))
    local evil = must(jails.launch(world, { uid = EVIL_UID, gid = EVIL_UID }, { id = "evil" }))
    is_running(victim)
    return victim, evil
  end

  for name, put in pairs(places) do
    it("puts there " .. name .. ": nobody else is asked, and each call says why", function()
      local world <close> = cli.world()
      local victim <close>, first = both(world)
      local sock, seen = first:record().files.socket, requests_of(victim)
      local pid = first:pid()
      must(first:detach())
      local own <close> = put(sock, victim:record().files.socket)
      assert.is_truthy(own or true)
      do
        local evil <close> = must(fcproc.vm.adopt(world.manager, "evil"))
        assert.are.equal(pid, evil:pid())
        local calls = {
          pause = function() return evil:pause() end,
          resume = function() return evil:resume() end,
          snapshot = function() return evil:snapshot(world.folder:file("snapshot")) end,
          metrics = function() return evil:metrics() end,
          mmds = function() return evil:mmds() end,
          api = function() return evil:api("PUT", "/actions", { action_type = "SendCtrlAltDel" }) end,
        }
        for what, call in pairs(calls) do
          local answer, err = call()
          assert.is_nil(answer, what)
          assert.is_truthy(err.code == "not_same_process" or err.code == "conflict"
            or err.code == "not_found", what .. ": " .. tostring(err))
          assert.is_truthy(err.message:find(sock, 1, true), err.message)
          if err.code == "not_same_process" then assert.are.equal("integer", math.type(err.pid)) end
        end
        local info = must(evil:info())
        assert.are.same({ "unknown", pid }, { info.state, info.pid })
        assert.is_truthy(info.err.message:find(sock, 1, true))
        local report = must(evil:stop())
        local step = report.steps[1]
        assert.are.same({ "ctrl_alt_del", "skipped" }, { step.name, step.outcome })
        assert.is_truthy(step.message:find(sock, 1, true), step.message)
        assert.are.equal("sigterm", report.step)
      end
      assert.are.equal(seen, requests_of(victim))
      is_running(victim)
      assert.is_nil(core.stat(world.folder:file("snapshot")))
      fails("not_found", fcproc.vm.inspect(world.manager, "evil"))
    end)
  end

  it("while a request is on its way over a connection that stands reaches his own VMM or nobody", function()
    local world <close> = cli.world()
    local victim <close>, evil = both(world)
    local closing <close> = evil -- luacheck: ignore closing
    local sock, seen = evil:record().files.socket, requests_of(victim)
    must(evil:api("GET", "/"))
    support.sh{ "ln", "-sfn", victim:record().files.socket, sock }
    fails("conflict", evil:pause())
    os.remove(sock)
    must(evil:pause()) -- its own, which has answered before
    assert.are.equal(seen, requests_of(victim))
    must(evil:kill())
    is_running(victim)
  end)

  it("can't keep the command from ending his VM, nor send it elsewhere", function()
    for _, command in ipairs{ "stop", "kill" } do
      local world <close> = cli.world()
      local victim <close>, evil = both(world)
      local sock, seen = evil:record().files.socket, requests_of(victim)
      must(evil:detach())
      support.sh{ "ln", "-sfn", victim:record().files.socket, sock }
      for _, args in ipairs{ { "pause", "evil" }, { "snapshot", "evil", world.folder:file("s") } } do
        local done = cli.run(world, args)
        assert.are_not.equal(0, done.status)
        assert.is_truthy(done.err:find("symbolic link", 1, true), done.err)
      end
      cli.ok(world, command, "evil")
      assert.are.equal(seen, requests_of(victim))
      is_running(victim)
      assert.are.equal(1, #must(fcproc.vm.list(world.manager)))
    end
  end)

  -- As a manager leaves it that dies before it has written down who the VMM is.
  for what, shape in pairs{ plain = {}, daemonized = { daemonize = true } } do
    it("whose VM's launch was cut off does not make it another's: " .. what, function()
      local world <close> = cli.world()
      local victim <close> = must(jails.launch(world, { uid = VICTIM_UID, gid = VICTIM_UID },
        { id = "victim" }))
      local seen = requests_of(victim)
      for _, command in ipairs{ "stop", "kill" } do
        local evil = must(jails.launch(world,
          { uid = EVIL_UID, gid = EVIL_UID, daemonize = shape.daemonize }, { id = "evil" }))
        local sock, pid = evil:record().files.socket, evil:pid()
        must(evil:detach())
        os.remove(sock)
        support.sh{ "ln", victim:record().files.socket, sock }
        change_record(world, function(record) record.state, record.process = "starting", nil end)
        local evils <close> = must(fcproc.process(pid))
        cli.ok(world, command, "evil")
        assert.is_false(evils:alive())
        fails("not_found", fcproc.vm.inspect(world.manager, "evil"))
      end
      assert.are.equal(seen, requests_of(victim))
      is_running(victim)
    end)
  end

  it("as a jailer that is none hands in another VM's socket: that is not taken for the new one's",
    function()
      local world <close> = cli.world()
      local victim <close> = must(jails.launch(world, { uid = VICTIM_UID, gid = VICTIM_UID },
        { id = "victim" }))
      local seen, sock = requests_of(victim), victim:record().files.socket
      local wrapper = world.folder:file("jailer")
      local root = ("%s/evil/jail/firecracker/evil/root"):format(world.manager.config.runtime_dir)
      support.write_file(wrapper, ('#!/bin/sh\n/bin/ln "%s" "%s/api.sock"\nexec /bin/sleep 30\n'):format(
        sock, root))
      support.sh{ "chmod", "755", wrapper }
      local err = fails("not_same_process", jails.launch(world,
        { uid = EVIL_UID, gid = EVIL_UID, binary = wrapper }, { id = "evil" }))
      assert.are.equal(victim:pid(), err.pid)
      assert.are.equal(seen, requests_of(victim))
      is_running(victim)
      assert.are.equal(1, #must(fcproc.vm.list(world.manager)))
    end)
end)

-- ---- answers ------------------------------------------------------------------------------------

-- The ways in which the fake VMM answers, or does not, and what a call that reads says of it.
local answers = {
  object = "protocol", list = "protocol", filled_list = "protocol", null = "protocol", no = "protocol",
  number = "protocol", word = "protocol", wrong_types = "protocol", nulls = "protocol",
  unknown_state = "protocol", no_version = "protocol", deep = "protocol", nothing = "protocol",
  elsewhere = "api", escapes = "api", garbage = "protocol", slams = "protocol", no_json = "protocol",
  huge_body = "protocol", half_body = "protocol", silent = "deadline", drip = "deadline",
  endless = "deadline",
}

describe("a VMM that answers in the way", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- A manager whose Firecracker is the fake that answers so.
  local function world_of(mode)
    local world = cli.world()
    local fake = world.folder:file("firecracker")
    support.write_file(fake, ('#!/bin/sh\nexec "%s" "%s" vmm %s "$@"\n'):format(
      must(core.find_executable(support.lua)), must(core.absolute_path("spec/support/fake_api.lua")), mode))
    support.sh{ "chmod", "755", fake }
    world.fake = must(fcproc.new{ runtime_dir = world.folder:file("run"), netns = world.netns,
      firecracker_bin = fake })
    local close = getmetatable(world).__close
    return setmetatable(world, { __close = function(self)
      self.fake:close()
      close(self)
    end })
  end

  local function launch(world)
    local vm = must(fcproc.vm.launch(world.fake, { id = "evil" }))
    must(world.fake:wait_for_socket(vm:record().files.socket))
    return vm
  end

  for mode, code in pairs(answers) do
    it(("'%s' raises nowhere, and is stopped"):format(mode), function()
      local world <close> = world_of(mode)
      must(launch(world):detach())
      local info
      assert.is_true(support.seconds(function()
        info = must(fcproc.vm.inspect(world.fake, "evil"))
      end) < 4)
      assert.are.equal("unknown", info.state)
      assert.are.equal(code, info.err.code)
      assert.is_nil(info.err.message:find("%c"), info.err.message)
      assert.are.equal("running", must(fcproc.vm.list(world.fake))[1].state)
      local vm <close> = must(fcproc.vm.adopt(world.fake, "evil"))
      -- What they answer is the VMM's; that they answer, and how, is ours.
      local ctx <close> = must(fcproc.context{ timeout = 2 })
      for what, answer in pairs{
        pause = table.pack(vm:pause(ctx)), resume = table.pack(vm:resume(ctx)),
        metrics = table.pack(vm:metrics(ctx)), mmds = table.pack(vm:mmds(nil, ctx)),
        balloon = table.pack(vm:balloon(nil, ctx)), set = table.pack(vm:mmds({ a = 1 }, ctx)),
        config = table.pack(vm.machine:vm_config(ctx)), version = table.pack(vm.machine:version_info(ctx)),
        state = table.pack(vm.machine:state(ctx)), get = table.pack(vm:api("GET", "/balloon", nil, ctx)),
        snapshot = table.pack(vm:snapshot(world.folder:file("s"), nil, ctx)),
      } do
        local value, err = answer[1], answer[2]
        local ok = value == nil and fcproc.is_error(err)
          or value == true or type(value) == "table" or what == "mmds"
        assert.is_true(ok, ("%s: %s, %s"):format(what, tostring(value), tostring(err)))
      end
      local report = must(vm:stop(QUICK))
      assert.are.equal("sigterm", report.step)
      assert.are.equal(code == "protocol" and "skipped" or "timeout", report.steps[1].outcome)
      assert.are.same({}, must(fcproc.vm.list(world.fake)))
    end)
  end

  it("'running' and does nothing is ended, too: Ctrl-Alt-Del is no end", function()
    local world <close> = world_of("running")
    must(launch(world):detach())
    local vm <close> = must(fcproc.vm.adopt(world.fake, "evil"))
    assert.are.equal("running", must(vm:info()).state)
    local report = must(vm:stop(QUICK))
    assert.are.equal("timeout", report.steps[1].outcome)
    assert.is_true(report.steps[1].sent > 0)
    assert.are.equal("sigterm", report.step)
  end)

  it("'stuck', in the middle of a snapshot that its manager did not live to end, is stopped", function()
    local world <close> = world_of("stuck")
    must(launch(world):detach())
    change_record(world, function(record)
      record.snapshot, record.resume = world.folder:file("s.evil.partial"), true
    end)
    local vm <close> = must(fcproc.vm.adopt(world.fake, "evil"))
    assert.are.equal("paused", must(vm:info()).state)
    assert.are.equal("sigterm", must(vm:stop(QUICK)).step)
    assert.are.same({}, must(fcproc.vm.list(world.fake)))
  end)

  it("'silent' is killed by the command at once, and seen by it before", function()
    local world <close> = world_of("silent")
    must(launch(world):detach())
    assert.is_true(support.seconds(cli.ok, world, "ps") < 1)
    assert.is_true(support.seconds(cli.ok, world, "console", "evil") < 1)
    assert.is_truthy(cli.ok(world, "info", "evil"):find("state +unknown\nwhy +GET /"))
    local info = cli.json(world, "info", "evil")
    assert.are.same({ "unknown", "deadline" }, { info.state, info.err.code })
    local report = must(fcproc.vm.reclaim(world.fake))
    assert.are.same({ "evil" }, report.alive)
    assert.is_true(support.seconds(cli.ok, world, "--timeout", "2", "kill", "evil") < 2)
    assert.are.same({}, must(fcproc.vm.list(world.fake)))
  end)
end)

describe("a Firecracker that does not answer", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("as it was stopped (SIGSTOP) is killed by the command at once", function()
    local world <close> = cli.world()
    local vm = must(fcproc.vm.launch(world.manager, { id = "still" }))
    must(vm.machine.process:signal("STOP"))
    must(vm:detach())
    assert.is_true(support.seconds(function()
      local text = cli.ok(world, "--timeout", "2", "info", "still")
      assert.is_truthy(text:find("unknown", 1, true), text)
    end) < 2)
    local took = support.seconds(cli.ok, world, "--timeout", "2", "kill", "still")
    assert.is_true(took < 1.5, took)
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)

  it("is asked nothing by a ladder of signals", function()
    local world <close> = cli.world()
    local vm = must(fcproc.vm.launch(world.manager, { id = "still" }))
    must(vm.machine.process:signal("STOP"))
    must(vm:detach())
    local took = support.seconds(cli.ok, world, "--timeout", "2", "stop", "--ladder", "sigkill:2", "still")
    assert.is_true(took < 1.5, took)
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)

  it("as its socket is gone is told so at once, and stopped without Ctrl-Alt-Del", function()
    local world <close> = cli.world()
    local vm = must(fcproc.vm.launch(world.manager, { id = "deaf" }))
    must(os.remove(vm:record().files.socket))
    must(vm:detach())
    cli.ok(world, "console", "deaf")
    for _, verb in ipairs{ "pause", "resume" } do -- it is there, and in the way of what is asked
      local done = cli.run(world, { verb, "deaf" })
      assert.are.equal(4, done.status, done.err)
      assert.is_truthy(done.err:find(verb .. ": the VM 'deaf' runs", 1, true), done.err)
    end
    local list = cli.json(world, "stop", "deaf")
    local steps = list[1].report.steps
    assert.are.same({ "ctrl_alt_del", "skipped", "sigterm", "exited" },
      { steps[1].name, steps[1].outcome, steps[2].name, steps[2].outcome })
    assert.is_truthy(steps[1].message:find("api.sock", 1, true), steps[1].message)
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)
end)
