-- Whether a VM lives: seen from other PID and time namespaces, with a journal that was damaged, and after
-- the host has booted again. What runs is never removed, and what can't be told stays and is told.

local cjson = require "cjson"
local cli = require "spec.support.cli"
local jails = require "spec.support.jails"
local json = require "fcproc.json"
local lives = require "fcproc.resources.life"
local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local PID_NS = { "unshare", "--pid", "--fork", "--mount-proc", "--kill-child" }
local TIME_NS = { "unshare", "--time", "--boottime", "1000", "--fork" }

-- Runs the command from other namespaces: { status, out, err }.
local function from(namespaces, world, ...)
  local argv = table.move(namespaces, 1, #namespaces, 1, {})
  for _, word in ipairs{ support.lua, "lua/bin/fcproc", ... } do argv[#argv + 1] = word end
  local result, err = fcproc.runner():run(argv, { env = cli.env(world), netns = world.netns, timeout = 60 })
  result = result or err
  return { status = result.status, out = result.stdout, err = result.stderr }
end

local function json_from(namespaces, world, ...)
  local done = from(namespaces, world, "--json", ...)
  return json.plain(cjson.decode(done.out)), done
end

local function journal_of(world, id)
  return ("%s/%s/vm.json"):format(world.manager.config.runtime_dir, id or "vm")
end

-- Changes what the journal says of processes, as somebody would who knows how to.
local function edit(world, change)
  local record = json.plain(cjson.decode(support.read_file(journal_of(world))))
  for _, name in ipairs{ "process", "launcher" } do
    if record[name] then
      change(record[name])
      lives.seal(record[name])
    end
  end
  support.write_file(journal_of(world), json.write(record))
end

-- One that runs without a manager, and is ended with its block if it still does.
local function left_running(world, spec)
  local all = { id = "vm" }
  for key, value in pairs(spec or {}) do all[key] = value end
  local vm = must(fcproc.vm.launch(world.manager, all))
  local socket = vm:record().files.socket
  local process = vms.detach(vm)
  return setmetatable({ process = process, socket = socket }, { __close = function()
    if process:alive() then process:signal("KILL") end
    process:wait(10)
    process:close()
    fcproc.vm.reclaim(world.manager)
  end })
end

local function reclaimed(world, opts)
  return must(fcproc.vm.reclaim(world.manager, opts))
end

describe("a VM that runs, seen from another PID namespace", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function assert_untouched(world, vm)
    assert.is_true(vm.process:alive())
    assert.are.equal("running", must(fcproc.vm.inspect(world.manager, "vm")).state)
  end

  it("is alive since it takes connections: reclaim leaves it, ps shows it, and stop says why not", function()
    local world <close> = support.bridged_world()
    local vm <close> = left_running(world, { network = true })
    local report, done = json_from(PID_NS, world, "reclaim")
    assert.are.same({ { "vm" }, 0 }, { report.alive, done.status })
    local entry = json_from(PID_NS, world, "ps")[1]
    assert.are.equal("running", entry.state)
    assert.is_nil(entry.pid)
    for _, verb in ipairs{ "stop", "kill", "info" } do
      done = from(PID_NS, world, verb, "vm")
      assert.are_not.equal(0, done.status)
      assert.is_truthy(done.err:find("lives (its API socket takes connections)", 1, true), done.err)
      assert.is_truthy(done.err:find("another PID namespace", 1, true), done.err)
    end
    assert_untouched(world, vm)
    -- Said to be dead, it stays all the same.
    report = json_from(PID_NS, world, "reclaim", "--unknown", "vm")
    assert.are.same({ "vm" }, report.alive)
    assert_untouched(world, vm)
  end)

  it("is alive since its drive is in use", function()
    local world <close> = support.world()
    local disk = vms.disk(world, "disk", "text")
    local vm <close> = left_running(world, { drives = { { path = disk } } })
    assert(os.rename(vm.socket, vm.socket .. ".away"))
    assert.are.same({ "vm" }, json_from(PID_NS, world, "reclaim").alive)
    local said = from(PID_NS, world, "stop", "vm").err
    assert.is_truthy(said:find("its drive " .. disk .. " is in use", 1, true), said)
    assert(os.rename(vm.socket .. ".away", vm.socket))
    assert_untouched(world, vm)
  end)

  it("is alive since there are processes in its jail's cgroup", function()
    local world <close> = support.world()
    local vm <close> = left_running(world, { jailer = { uid = jails.UID, gid = jails.GID } })
    assert(os.rename(vm.socket, vm.socket .. ".away"))
    assert.are.same({ "vm" }, json_from(PID_NS, world, "reclaim").alive)
    assert.is_truthy(from(PID_NS, world, "stop", "vm").err:find("processes in its cgroup", 1, true))
    assert(os.rename(vm.socket .. ".away", vm.socket))
    assert_untouched(world, vm)
  end)

  it("is not dead without a journal either", function()
    local world <close> = support.world()
    local vm <close> = left_running(world)
    local text = support.read_file(journal_of(world))
    assert(os.remove(journal_of(world)))
    assert.are.same({ "vm" }, json_from(PID_NS, world, "reclaim").alive)
    support.write_file(journal_of(world), text)
    assert_untouched(world, vm)
  end)

  it("is unknown when nothing shows, and stays; one that is dead, too, unless somebody knows it", function()
    local world <close> = support.world()
    local vm <close> = left_running(world)
    assert(os.rename(vm.socket, vm.socket .. ".away"))
    local report, done = json_from(PID_NS, world, "reclaim")
    assert.are.same({ {}, {}, "vm", 1 },
      { report.alive, report.reclaimed, report.unknown[1].id, done.status })
    assert.is_truthy(done.err:find("can't be told from here", 1, true), done.err)
    assert.is_truthy(done.err:find("reclaim --unknown vm", 1, true), done.err)
    assert.are.equal("unknown", json_from(PID_NS, world, "ps")[1].state)
    assert(os.rename(vm.socket .. ".away", vm.socket))
    assert_untouched(world, vm)
    must(vm.process:signal("KILL"))
    must(vm.process:wait(10))
    assert.are.equal("vm", json_from(PID_NS, world, "reclaim").unknown[1].id)
    assert.are.same({ "vm" }, json_from(PID_NS, world, "reclaim", "--unknown", "vm").reclaimed)
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)

  it("and with the /proc of the old one, which shows other processes than ours", function()
    local world <close> = support.world()
    local vm <close> = left_running(world)
    local namespaces = { "unshare", "--pid", "--fork", "--kill-child" }
    assert.are.same({ "vm" }, json_from(namespaces, world, "reclaim").alive)
    assert_untouched(world, vm)
  end)

  it("is stopped from the host's own, where it can be seen; and is dead when nobody is in its own", function()
    local world <close> = support.world()
    local said = world.folder:file("said")
    -- A manager in a PID namespace of its own, which goes with its first process.
    local function elsewhere()
      os.remove(said)
      local argv = table.move(PID_NS, 1, #PID_NS, 1, {})
      for _, word in ipairs{ "sh", "-c", '"$0" lua/bin/fcproc run --id vm --detach && echo >"$1"; sleep 1000',
        support.lua, said } do argv[#argv + 1] = word end
      local process = must(fcproc.spawn(argv, { env = cli.env(world), netns = world.netns,
        stdout = { file = world.folder:file("out") }, stderr = { file = world.folder:file("out") } }))
      support.eventually("it runs", function() return core.stat(said) or not process:alive() end, 20)
      return setmetatable({}, { __close = function()
        process:signal("KILL")
        process:wait(10)
        process:close()
      end })
    end
    do
      local manager <close> = elsewhere() -- luacheck: ignore manager
      assert.are.same({ "vm" }, reclaimed(world).alive)
      local vm <close> = must(fcproc.vm.adopt(world.manager, "vm"))
      assert.are.equal("ctrl_alt_del", must(vm:stop()).step)
    end
    do
      local manager <close> = elsewhere() -- luacheck: ignore manager
      assert.are.same({ "vm" }, reclaimed(world).alive)
    end
    support.eventually("its namespace is gone", function()
      reclaimed(world)
      return #must(fcproc.vm.list(world.manager)) == 0
    end)
  end)
end)

describe("a VM that runs, seen from another time namespace", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is known by what the kernel calls it, and stopped", function()
    local world <close> = support.world()
    local vm <close> = left_running(world)
    if not must(vm.process:identity()).inode then return end -- Linux 6.9; else as below
    assert.are.same({ "vm" }, json_from(TIME_NS, world, "reclaim").alive)
    assert.are.equal("running", json_from(TIME_NS, world, "info", "vm").state)
    assert.are.equal(0, from(TIME_NS, world, "stop", "vm").status)
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)

  it("whose start time is all that is known is alive and left alone, or unknown", function()
    local world <close> = support.world()
    local vm <close> = left_running(world) -- luacheck: ignore vm
    edit(world, function(identity) identity.inode = nil end)
    assert.are.same({ "vm" }, json_from(TIME_NS, world, "reclaim").alive)
    assert.are.equal("running", json_from(TIME_NS, world, "ps")[1].state)
    assert.are.equal(0, from(TIME_NS, world, "stop", "vm").status) -- by who listens on its socket
    local other <close> = left_running(world)
    edit(world, function(identity) identity.inode = nil end)
    assert(os.rename(other.socket, other.socket .. ".away"))
    assert.are.equal("vm", json_from(TIME_NS, world, "reclaim").unknown[1].id)
    local done = from(TIME_NS, world, "stop", "vm")
    assert.is_truthy(done.err:find("another time namespace", 1, true), done.err)
    assert(os.rename(other.socket .. ".away", other.socket))
    assert.is_true(other.process:alive())
  end)
end)

describe("a journal", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- Each byte of what the journal says of its processes becomes another that might stand there.
  local function flips(text)
    local list = {}
    for from_byte, object in text:gmatch('"[a-z]+":()(%b{})') do
      if object:find('"boot_id"', 1, true) then
        for at = 1, #object do
          local byte = object:sub(at, at)
          local other = byte:find("%d") and tostring((tonumber(byte) + 1) % 10)
            or byte:find("[a-f]") and (byte == "a" and "b" or "a")
          if other then
            local place = from_byte + at - 1
            list[#list + 1] = text:sub(1, place - 1) .. other .. text:sub(place + 1)
          end
        end
      end
    end
    return list
  end

  for _, jailer in ipairs{ false, { uid = jails.UID, gid = jails.GID } } do
    it("with one byte changed costs no VM its life: " .. (jailer and "jailed" or "direct"), function()
      local world <close> = support.world()
      local vm <close> = left_running(world, { jailer = jailer or nil })
      local text = support.read_file(journal_of(world))
      local found, seen = flips(text), 0
      assert.is_true(#found > 80, #found)
      for _, flipped in ipairs(found) do
        support.write_file(journal_of(world), flipped)
        local report = reclaimed(world)
        assert.are.same({}, report.reclaimed, flipped)
        if report.alive[1] then
          seen = seen + 1
          assert.are.equal(vm.process:pid(), must(fcproc.vm.list(world.manager))[1].pid, flipped)
        end
      end
      assert.is_true(seen > #found * 0.9, ("%d of %d"):format(seen, #found))
      support.write_file(journal_of(world), found[3])
      must(must(fcproc.vm.adopt(world.manager, "vm")):kill())
    end)
  end

  it("of a boot that is over names nobody", function()
    local world <close> = support.world()
    local vm <close> = left_running(world)
    must(vm.process:signal("KILL"))
    must(vm.process:wait(10))
    local identity = { pid = support.own_pid() } -- as somebody who has the number now
    edit(world, function(known)
      known.pid, known.boot_id = identity.pid, "00000000-0000-0000-0000-000000000000"
      known.pid_ns = known.pid_ns and known.pid_ns + 1
    end)
    assert.are.equal("dead", must(fcproc.vm.list(world.manager))[1].state)
    assert.are.same({ "vm" }, reclaimed(world).reclaimed)
  end)

  it("of an earlier fcproc, without namespaces and a sum, is judged as it was", function()
    local world <close> = support.world()
    local vm <close> = left_running(world)
    local function old(change)
      local record = json.plain(cjson.decode(support.read_file(journal_of(world))))
      for _, name in ipairs{ "process", "launcher" } do
        local known = record[name]
        if known then
          known.pid_ns, known.time_ns, known.sum = nil, nil, nil
          change(known)
        end
      end
      support.write_file(journal_of(world), json.write(record))
    end
    old(function() end)
    assert.are.same({ "vm" }, reclaimed(world).alive)
    must(vm.process:signal("KILL"))
    must(vm.process:wait(10))
    assert.are.same({ "vm" }, reclaimed(world).reclaimed)
  end)

  it("is the word of whoever says that its VM is dead only where that can't be seen", function()
    local world <close> = support.world()
    local vm <close> = left_running(world)
    assert.are.same({ "vm" }, reclaimed(world, { unknown = { "vm" } }).alive)
    assert.is_true(vm.process:alive())
    support.raises("vm.reclaim", fcproc.vm.reclaim, world.manager, { unknwon = {} })
    local ctx <close> = core.context(nil, 5)
    assert.are.same({ "vm" }, must(fcproc.vm.reclaim(world.manager, ctx)).alive)
    fails("invalid", fcproc.vm.adopt(world.manager, "../vm"))
  end)
end)
