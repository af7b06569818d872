-- Reclaim removes what dead VMs left and nothing else, also beside launches and other reclaims; and
-- VMs outlive their manager, its terminal and its cgroup.

local cjson = require "cjson"
local support = require "spec.support"
local traces = require "spec.support.traces"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local lease = require "fcproc.resources.lease"
local namespaces = require "fcproc.resources.namespaces"
local nat = require "fcproc.network.nat"

local must = support.must

local function kill(pid)
  local process <close> = must(fcproc.process(pid))
  must(process:signal("KILL"))
  must(process:wait(5))
end

local function pid_of(world, id)
  for _, entry in ipairs(must(fcproc.vm.list(world.manager))) do
    if entry.id == id then return entry.pid end
  end
end

-- A VM that died with nobody there.
local function leave_dead(world, spec)
  os.remove(world.output)
  assert.is_false(traces.crash(world, { action = "launch", spec = spec }))
  kill(pid_of(world, spec.id))
end

local function link_names(netns)
  local names = {}
  for _, link in ipairs(support.ip(netns, "link", "show")) do names[link.ifname] = true end
  return names
end

describe("reclaim", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has nothing to do where there is nothing", function()
    local world <close> = support.world()
    assert.are.same({ reclaimed = {}, alive = {}, busy = {}, unknown = {}, failed = {}, leases = 0, taps = 0,
      nat = 0, relays = {} },
      must(fcproc.vm.reclaim(world.manager)))
    -- An ordinary user's is made with his namespaces.
    if not support.rootless then assert.is_nil(core.stat(world.manager.config.runtime_dir)) end
  end)

  it("touches nothing that is alive or somebody else's", function()
    local world <close> = traces.world()
    local run = world.manager.config.runtime_dir
    local held <close> = must(fcproc.vm.launch(world.manager, { id = world.id, network = { nat = "up0" } }))
    assert.is_false(traces.crash(world, { action = "launch",
      spec = { id = "free", network = { nat = "up0" } } }))
    support.sh{ "mkdir", "-p", run .. "/backups/old", run .. "/" .. ("n"):rep(70) }
    support.write_file(run .. "/backups/old/file", "dear")
    support.write_file(run .. "/note", "dear")
    support.sh{ "ln", "-s", world.folder.path, run .. "/elsewhere" }
    support.sh({ "ip", "tuntap", "add", "foreign0", "mode", "tap" }, { netns = world.netns })
    support.sh({ "nft", "add", "table", "ip", "foreign" }, { netns = world.netns })
    local before = traces.of(world)
    for _ = 1, 2 do
      local report = must(fcproc.vm.reclaim(world.manager))
      assert.are.same({ {}, {}, 0 }, { report.reclaimed, report.failed, report.leases })
      table.sort(report.alive)
      assert.are.same({ world.id, "free" }, report.alive)
      traces.same(before, world, "after reclaim")
    end
    assert.is_true(support.pings(world.netns, held:address()))
    must(must(fcproc.vm.adopt(world.manager, "free")):kill())
    must(held:kill())
    assert.is_truthy(core.stat(run .. "/backups/old/file"))
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)

  it("drops leases and locks that no VM stands behind", function()
    local world <close> = traces.world()
    must(must(fcproc.vm.launch(world.manager, { id = world.id })):kill())
    local before = traces.of(world)
    local leases = must(lease.open(world.manager, true))
    local ip = ("ip-%d-fcbr0-172.30.0.9"):format(namespaces.of(world.manager))
    must(leases:take(ip, "ghost"))
    must(leases:take("drive-1-2", "ghost"))
    support.write_file(world.manager.config.runtime_dir .. "/.fcproc/locks/phantom", "")
    assert.are.equal(2, must(fcproc.vm.reclaim(world.manager)).leases)
    traces.same(before, world, "after reclaim")
    -- And a launch that needs one takes it at once.
    must(leases:take(ip, "ghost"))
    must(must(fcproc.vm.launch(world.manager, { network = { address = "172.30.0.9" } })):kill())
    traces.same(before, world, "after the launch")
  end)

  it("removes NAT that came when its VM was gone: from an nft that has outlived its manager", function()
    local world <close> = traces.world()
    must(must(fcproc.vm.launch(world.manager, { id = "first" })):kill())
    local before = traces.of(world)
    must(nat.add(world.manager, { tap = "late0", address = "172.30.0.77",
      mac = "06:00:00:00:00:77", uplink = "up0", id = world.id }))
    local living <close> = must(fcproc.vm.launch(world.manager, { id = "living", network = { nat = "up0" } }))
    assert.are.equal(1, must(fcproc.vm.reclaim(world.manager)).nat)
    local entries = must(nat.list(world.manager))
    assert.are.same({ 1, "living" }, { #entries, entries[1].id })
    must(living:kill())
    traces.same(before, world, "after reclaim")
  end)

  it("keeps a TAP that was there before under a name that somebody chose", function()
    local world <close> = traces.world()
    must(world.manager:create_tap("mine0"))
    leave_dead(world, { id = "a", network = { { tap = "mine0" }, { tap = "made0" } } })
    assert.is_true(link_names(world.netns).made0)
    assert.are.same({ "a" }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert.is_true(link_names(world.netns).mine0)
    assert.is_nil(link_names(world.netns).made0)
    must(must(fcproc.vm.launch(world.manager, { network = { tap = "mine0" } })):kill())
    assert.is_true(link_names(world.netns).mine0)
  end)

  it("finds TAPs in the namespace where they were made", function()
    support.direct_only(pending, "an ordinary user makes network namespaces in one of users only")
    local world <close> = traces.world()
    leave_dead(world, { id = world.id, network = { nat = "up0" } })
    local other <close> = must(fcproc.new_netns())
    local c = world.manager.config
    local manager <close> = must(fcproc.new{ bridge_name = c.bridge_name, bridge_ip = c.bridge_ip,
      cidr = c.prefix, runtime_dir = c.runtime_dir, netns = other })
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(manager)).reclaimed)
    local names = link_names(world.netns)
    names.lo, names.fcbr0, names.up0 = nil, nil, nil
    assert.are.same({}, names)
    assert.are.equal("", support.sh({ "nft", "list", "ruleset" }, { netns = world.netns }))
  end)

  it("tells what it can't remove, keeps the journal, and removes it when it can", function()
    support.direct_only(pending, "only root mounts what can't be removed")
    for _, inside in ipairs{ "folder", "snapshot" } do
      local world <close> = traces.world()
      must(must(fcproc.vm.launch(world.manager, { id = "first" })):kill())
      local before = traces.of(world)
      local path = world.folder:file("snap")
      traces.crash_in_snapshot(world, path, { network = { nat = "up0" } })
      kill(must(fcproc.vm.list(world.manager))[1].pid)
      local place = (inside == "folder" and world.manager.config.runtime_dir .. "/" .. world.id
        or traces.partial(world)) .. "/mounted"
      support.sh{ "mkdir", place }
      support.sh{ "mount", "-t", "tmpfs", "none", place }
      local unmount <close> = setmetatable({}, { __close = function()
        support.sh{ "sh", "-c", 'umount "$1" 2>/dev/null || true', "sh", place }
      end })
      for _ = 1, 2 do
        local report = must(fcproc.vm.reclaim(world.manager))
        assert.are.same({}, report.reclaimed)
        assert.are.equal(world.id, report.failed[1].id)
        assert.are.equal("busy", report.failed[1].left[1].err.code)
        assert.is_truthy(place:find(report.failed[1].left[1].what, 1, true))
      end
      assert.are.equal("dead", must(fcproc.vm.list(world.manager))[1].state)
      getmetatable(unmount).__close()
      assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
      traces.same(before, world, "after reclaim")
    end
  end)

  it("races with launches and other reclaims, and nobody is hurt", function()
    local world <close> = traces.world()
    must(must(fcproc.vm.launch(world.manager, { id = "first" })):kill())
    local before = traces.of(world)
    local living <close> = must(fcproc.vm.launch(world.manager, { id = world.id, network = { nat = "up0" } }))
    for i = 1, 4 do leave_dead(world, { id = "dead" .. i, network = { nat = "up0" } }) end
    local processes = {}
    for i = 1, 2 do
      processes[i] = traces.start(world, { action = "churn", times = 10,
        spec = { id = "churn" .. i, network = { nat = "up0" } } })
      processes[i + 2] = traces.start(world, { action = "reclaim", times = 30 })
    end
    for _, process in ipairs(processes) do
      local _, exit = must(process:wait(60))
      process:close()
      assert.are.same({ status = 0 }, exit, support.read_file(world.output))
    end
    assert.is_true(support.pings(world.netns, living:address()))
    must(living:kill())
    must(fcproc.vm.reclaim(world.manager))
    traces.same(before, world, "after the race")
  end)
end)

describe("a VM outlives", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- Still answers, and its console goes on after its manager's end.
  local function lives_on(world)
    local entry = must(fcproc.vm.list(world.manager))[1]
    assert.are.same({ "running", false }, { entry.state, entry.managed })
    assert.is_true(support.pings(world.netns, entry.address))
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
    local report = must(vm:stop())
    assert.are.equal("ctrl_alt_del", report.step)
  end

  local function order_of(world, spec)
    return cjson.encode{ action = "hold", spec = spec, config = support.config(world) }
  end

  local function wait_for_hold(world, process)
    support.eventually("it has its VM", function()
      return (support.read_file(world.output) or ""):find("holds", 1, true) or not process:alive()
    end, 20)
  end

  it("its manager", function()
    local world <close> = traces.world()
    do
      local holder <close> = traces.holder(world, { id = world.id, network = true }) -- luacheck: ignore
    end
    lives_on(world)
  end)

  it("its manager's terminal", function()
    local world <close> = traces.world()
    -- The terminal's other end goes with python: the manager gets SIGHUP, and with it its session.
    local terminal <close> = must(fcproc.spawn({ "python3", "-c", "import pty, sys; pty.spawn(sys.argv[1:])",
      support.lua, "spec/support/crash.lua", order_of(world, { id = world.id, network = true }) },
      { stdout = { file = world.output }, stderr = { file = world.output } }))
    wait_for_hold(world, terminal)
    must(terminal:signal("KILL"))
    must(terminal:wait(10))
    support.eventually("its manager is gone", function()
      return not must(fcproc.vm.list(world.manager))[1].managed
    end)
    lives_on(world)
  end)

  local function cgroup(root, name)
    local path = ("%s/%s"):format(root, name)
    support.sh{ "mkdir", path }
    return setmetatable({ path = path }, { __close = function()
      support.eventually("the cgroup is empty", function() return os.remove(path) end)
    end })
  end

  for _, own in ipairs{ true, false } do
    it(own and "its manager's cgroup, when it has one of its own"
      or "not its manager's cgroup without one, and is reclaimed", function()
      support.direct_only(pending, "only root makes cgroups")
      local world <close> = traces.world()
      local _, root = traces.hierarchies()
      assert.is_truthy(root, "this needs a cgroup2 mount")
      local managers <close> = cgroup(root, world.id .. "-manager")
      local vms <close> = cgroup(root, world.id .. "-vms")
      local process <close> = must(fcproc.spawn({ "sh", "-c",
        'echo $$ >"$1/cgroup.procs" && shift && exec "$@"', "sh", managers.path, support.lua,
        "spec/support/crash.lua",
        order_of(world, { id = world.id, network = true, cgroup = own and vms.path or nil }) },
        { stdout = { file = world.output }, stderr = { file = world.output } }))
      wait_for_hold(world, process)
      local entry = must(fcproc.vm.list(world.manager))[1]
      local inside = support.read_file((own and vms or managers).path .. "/cgroup.procs")
      assert.is_truthy(("\n" .. inside):find(("\n%d\n"):format(entry.pid), 1, true))
      support.write_file(managers.path .. "/cgroup.kill", "1")
      must(process:wait(10))
      if own then
        lives_on(world)
      else
        support.eventually("it is dead", function()
          return must(fcproc.vm.list(world.manager))[1].state == "dead"
        end)
        assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
      end
    end)
  end

  it("no mistake in the cgroup: it is refused before anything is made", function()
    local world <close> = traces.world()
    local before = traces.of(world)
    local err = support.fails("invalid", fcproc.vm.launch(world.manager, { cgroup = world.folder.path }))
    assert.is_truthy(err.message:find("cgroup: ", 1, true))
    traces.same(before, world, "after the refusal")
  end)
end)
