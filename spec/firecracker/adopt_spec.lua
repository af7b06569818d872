-- VMs that change hands: detached and adopted from another process, held by one manager at a time,
-- and what a journal that is lost, cut, foreign or old leads to.

local cjson = require "cjson"
local in_mounts = require "spec.support.mounts"
local support = require "spec.support"
local traces = require "spec.support.traces"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function journal_path(world)
  return ("%s/%s/vm.json"):format(world.manager.config.runtime_dir, world.id)
end

-- Another process launches a VM and ends.
local function left_running(world, spec)
  local all = { id = world.id, network = { nat = "up0" } }
  for key, value in pairs(spec or {}) do all[key] = value end
  os.remove(world.output)
  assert.is_false(traces.crash(world, { action = "launch", spec = all }))
end

local function listed(world)
  local list = must(fcproc.vm.list(world.manager))
  assert.are.equal(1, #list)
  return list[1]
end

-- Ends the VM behind everybody's back.
local function kill(pid)
  local process <close> = must(fcproc.process(pid))
  must(process:signal("KILL"))
  must(process:wait(5))
end

local function edit(world, change)
  local record = cjson.decode(support.read_file(journal_path(world)))
  change(record)
  support.write_file(journal_path(world), cjson.encode(record):gsub("(%d+)%.0+([,}])", "%1%2"))
end

describe("a VM that changes hands", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has lost its socket: it is known by its process, and can be ended", function()
    local world <close> = traces.world()
    left_running(world)
    assert(os.remove(traces.socket(world)))
    edit(world, function(record) record.created = record.created - 60 end) -- it has long started
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
    assert.are.equal("sigkill", must(vm:kill()).step)
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)

  it("was detached by another process: it is listed, adopted, and its guest is as before", function()
    local world <close> = traces.world()
    left_running(world)
    local entry = listed(world)
    assert.are.same({ world.id, "running", false, "172.30.0" },
      { entry.id, entry.state, entry.managed, entry.address:match("^%d+%.%d+%.%d+") })
    do
      local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
      assert.is_true(listed(world).managed)
      assert.are.equal(entry.pid, vm:pid())
      assert.is_true(support.pings(world.netns, vm:address()))
      assert.are.equal("running", must(vm:info()).state)
      must(must(vm:console()):wait_for("fcproc guest: ready", 5))
      assert.are.equal("ctrl_alt_del", must(vm:stop()).step)
    end
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
    fails("not_found", fcproc.vm.adopt(world.manager, world.id))
  end)

  it("is paused or not in the list as it was left, and as adopt finds it", function()
    local world <close> = traces.world()
    local vm = must(fcproc.vm.launch(world.manager, { id = world.id }))
    local function is(state)
      assert.are.equal(state, listed(world).state)
      assert.are.equal(state, must(fcproc.vm.inspect(world.manager, world.id)).state)
    end
    local function again()
      must(vm:detach())
      vm = must(fcproc.vm.adopt(world.manager, world.id))
    end
    is("running")
    for _ = 1, 2 do must(vm:pause()) end
    is("paused")
    again()
    is("paused")
    must(vm:resume())
    is("running")
    must(vm:api("PATCH", "/vm", { state = "Paused" })) -- as somebody else might
    assert.are.equal("running", listed(world).state)
    again()
    is("paused")
    must(vm:kill())
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)

  it("is not paused when the journal has no room for it", function()
    support.direct_only(pending, "only root mounts a folder with little room")
    local dir <close> = support.folder()
    in_mounts(dir, 'mkdir "$1/run" && mount -t tmpfs -o nr_inodes=40,mode=700 none "$1/run"', [[
local fcproc = require "fcproc"
local said = {}
local manager <close> = must(fcproc.new{ runtime_dir = dir .. "/run",
  firecracker_bin = support.firecracker(), logger = function(level, text, fields)
    if level == "warn" then said[#said + 1] = text .. ": " .. fields.reason end
  end })
local vm <close> = must(fcproc.vm.launch(manager, { id = "a" }))
local n = 0
while true do
  local file = io.open(("%s/run/ballast%d"):format(dir, n), "w")
  if not file then break end
  file:close()
  n = n + 1
end
local _, err = vm:pause()
assert(err and err.errno == 28, tostring(err))
assert(must(vm:info()).state == "running" and #said == 0, said[1])
for i = 0, n - 1 do os.remove(("%s/run/ballast%d"):format(dir, i)) end
must(vm:pause())
assert(must(fcproc.vm.list(manager))[1].state == "paused")
must(vm:stop())
]])
  end)

  it("is in one manager's hands at a time, and free when that dies", function()
    local world <close> = traces.world()
    do
      local holder <close> = traces.holder(world, { id = world.id }) -- luacheck: ignore holder
      assert.is_true(listed(world).managed)
      assert.are.equal("running", listed(world).state)
      local err = fails("busy", fcproc.vm.adopt(world.manager, world.id))
      assert.is_truthy(err.message:find("another manager", 1, true))
      err = select(2, fcproc.vm.launch(world.manager, { id = world.id }))
      assert.are.equal("busy", err.code)
      assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).alive)
    end
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
    fails("busy", fcproc.vm.adopt(world.manager, world.id)) -- also within one process
    fails("busy", fcproc.vm.launch(world.manager, { id = world.id }))
    must(vm:detach())
    fails("closed", vm:stop())
    fails("conflict", fcproc.vm.launch(world.manager, { id = world.id }))
    must(must(fcproc.vm.adopt(world.manager, world.id)):kill())
  end)

  it("is dead: adopting says so, listing too, and the next launch asks for a reclaim", function()
    local world <close> = traces.world()
    local before = traces.of(world)
    left_running(world)
    kill(listed(world).pid)
    assert.are.same({ "dead", false }, { listed(world).state, listed(world).managed })
    local err = fails("not_found", fcproc.vm.adopt(world.manager, world.id))
    assert.is_truthy(err.message:find("reclaim", 1, true))
    fails("conflict", fcproc.vm.launch(world.manager, { id = world.id }))
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    traces.same(before, world, "after reclaim")
  end)

  it("dies in its manager's hands: info, stop and the reclaim of others tell", function()
    local world <close> = traces.world()
    local vm <close> = must(fcproc.vm.launch(world.manager, { id = world.id, network = true }))
    kill(vm:pid())
    local info = must(vm:info())
    assert.are.equal("dead", info.state)
    assert.are.same({ signal = 9 }, info.exit)
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).busy)
    local report = must(vm:stop())
    assert.are.same({ "exited", "gone" }, { report.outcome, report.step })
    assert.is_truthy(report.description:find("SIGKILL", 1, true), report.description)
  end)

  it("has lost its journal: it is not reclaimed while it lives, and can be ended", function()
    for what, text in pairs{ garbage = "garbage", empty = "", list = "[]", truncated = '{"format": 1, "id"',
      ["without a file"] = false, zeros = ("\0"):rep(4096), long = (" "):rep(2 << 20) .. "{}" } do
      local world <close> = traces.world()
      local before = traces.of(world)
      left_running(world)
      if text then support.write_file(journal_path(world), text) else os.remove(journal_path(world)) end
      local links = support.ip(world.netns, "link", "show")
      assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).alive, what)
      assert.are.same(#links, #support.ip(world.netns, "link", "show"))
      assert.are.equal("running", listed(world).state, what)
      local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
      must(vm:kill())
      traces.same(before, world, what)
    end
  end)

  it("has lost its journal and its life: all of it is found", function()
    local jailed = { uid = 1234, gid = 1234, daemonize = true }
    for _, jail in ipairs{ false, not support.rootless and jailed or nil } do
      local world <close> = traces.world()
      local before = traces.of(world)
      left_running(world, { jailer = jail or nil })
      os.remove(journal_path(world))
      assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).alive)
      kill(listed(world).pid)
      fails("not_found", fcproc.vm.adopt(world.manager, world.id))
      assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
      traces.same(before, world, "after reclaim")
    end
  end)

  it("was made by a newer fcproc, or its folder was copied: nobody touches it", function()
    local world <close> = traces.world()
    left_running(world)
    for code, change in pairs{
      unsupported = function(record) record.format = 2 end,
      conflict = function(record) record.id = "another" end,
    } do
      local original = support.read_file(journal_path(world))
      edit(world, change)
      local before = traces.of(world)
      fails(code, fcproc.vm.adopt(world.manager, world.id))
      assert.are.equal("unknown", listed(world).state)
      assert.are.equal(code, listed(world).err.code)
      local report = must(fcproc.vm.reclaim(world.manager))
      assert.are.same({ {}, {} }, { report.reclaimed, report.alive })
      assert.are.equal(world.id, report.failed[1].id)
      assert.are.equal(code, report.failed[1].left[1].err.code)
      traces.same(before, world, "after reclaim")
      support.write_file(journal_path(world), original)
    end
    must(must(fcproc.vm.adopt(world.manager, world.id)):kill())
  end)

  it("is from before a reboot: dead, whoever has its pid and its TAP's name now", function()
    local world <close> = traces.world()
    left_running(world, { network = { tap = "mine0" } })
    kill(listed(world).pid)
    support.sh({ "ip", "link", "set", "mine0", "alias", "another's" }, { netns = world.netns })
    local links = #support.ip(world.netns, "link", "show")
    edit(world, function(record)
      record.boot_id = "11111111-2222-3333-4444-555555555555"
      record.launcher.boot_id = record.boot_id
      record.launcher.pid = support.own_pid()
    end)
    assert.are.equal("dead", listed(world).state)
    fails("not_found", fcproc.vm.adopt(world.manager, world.id))
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    -- The TAP of that time is gone, so this one is somebody else's.
    assert.are.equal(links, #support.ip(world.netns, "link", "show"))
  end)

  it("has left its pid to another process: dead", function()
    local world <close> = traces.world()
    left_running(world)
    kill(listed(world).pid)
    local other <close> = must(fcproc.spawn{ "sleep", "60" })
    edit(world, function(record)
      record.launcher.pid, record.launcher.inode = other:pid(), nil
      if record.process then record.process.pid, record.process.inode = other:pid(), nil end
    end)
    assert.are.equal("dead", listed(world).state)
    fails("not_found", fcproc.vm.adopt(world.manager, world.id))
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert.is_true(other:alive())
    must(other:signal("KILL"))
    must(other:wait(5))
  end)

  it("does not answer: it is taken over all the same, and ended", function()
    local world <close> = traces.world()
    left_running(world)
    do
      local process <close> = must(fcproc.process(listed(world).pid))
      must(process:signal("STOP"))
    end
    local ctx <close> = must(fcproc.context{ timeout = 60 })
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id, ctx))
    assert.are.equal("sigkill", must(vm:kill()).step)
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
    assert.is_nil(core.stat(journal_path(world)))
  end)
end)
