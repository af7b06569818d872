-- VMs in a jail: the four shapes in which the jailer starts one, who it then is, which binaries are
-- taken, and every way in which a start can fail.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local jails = require "spec.support.jails"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails
local jail, launch, status_of = jails.jail, jails.launch, jails.status_of
local assert_gone, cgroups = jails.assert_gone, jails.cgroups
local UID, GID = jails.UID, jails.GID

-- What `find FOLDER -printf FORMAT` says, a line each.
local function find(folder, ...)
  return support.collect(support.sh{ "find", folder, ... }, "[^\n]+")
end

-- A folder like the one where Firecracker is installed, with these names in it.
local function installed(world, firecracker, jailer)
  support.sh{ "mkdir", world.folder:file("bin") }
  support.sh{ "cp", support.firecracker(), world.folder:file("bin/" .. firecracker) }
  if jailer then support.sh{ "cp", jails.jailer_binary(), world.folder:file("bin/" .. jailer) } end
  return world.folder:file("bin/")
end

describe("a jailed VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for name, shape in pairs(jails.SHAPES) do
    it("lives, answers pings, is proved by its socket, and ends: " .. name, function()
      local world <close> = support.bridged_world()
      local vm <close> = must(launch(world, shape, { network = true }))
      assert.are.equal(must(world.manager:find_pid(vm:record().files.socket)), vm:pid())
      assert.are.same({ "1234", "1234", "1234", "1234" }, status_of(vm:pid(), "Uid"))
      assert.are.same({ "2345", "2345", "2345", "2345" }, status_of(vm:pid(), "Gid"))
      assert.are.equal("0000000000000000", status_of(vm:pid(), "CapEff")[1])
      assert.are.equal("2", status_of(vm:pid(), "Seccomp")[1])
      assert.are.equal(shape.new_pid_ns and "1" or nil, status_of(vm:pid(), "NSpid")[2])
      support.eventually("a ping is answered", function()
        return support.pings(world.netns, vm:address())
      end)
      local info = must(vm:info())
      assert.are.equal("running", info.state)
      assert.are.equal(UID, info.jail.uid)
      assert.are.equal("link", info.jail.placed.kernel)
      if shape.daemonize then
        local err = fails("unsupported", vm:console())
        assert.is_truthy(err.message:find("/dev/null", 1, true), err.message)
      else
        must(must(vm:console()):wait_for("fcproc guest: ready", 10))
      end
      local pid, root = vm:pid(), info.jail.root
      local report = must(vm:stop())
      assert.are.equal("ctrl_alt_del", report.step)
      assert.is_nil(report.others)
      local state = status_of(pid, "State")[1] -- of one that is not our child until it is reaped
      assert.is_truthy(state == nil or state == "Z", state)
      assert_gone(world, root)
    end)

    -- One that is our own child would stay a zombie: nobody holds its handle any more.
    local _ = next(shape) and it("is taken over by another manager: " .. name, function()
      local world <close> = support.bridged_world()
      local vm <close> = must(launch(world, shape))
      local pid = vm:pid()
      must(vm:detach())
      local again <close> = must(fcproc.vm.adopt(world.manager, "vm"))
      assert.are.equal(pid, again:pid())
      assert.are.equal("running", must(again:info()).state)
      must(again:stop())
      assert_gone(world)
    end)

    it("that can't start says why and is wholly gone: " .. name, function()
      local world <close> = support.world()
      local filter = world.folder:file("filter")
      support.write_file(filter, "no filter")
      local root
      local err = fails("exit_status", launch(world, shape, { seccomp = filter,
        hooks = { before_start = function(vm) root = vm:record().jail.root end } }))
      assert.are.equal("start", err.step)
      assert.are.equal(1, err.status)
      assert.is_truthy(err.output:find("Filter deserialization failed", 1, true), err.output)
      assert.is_truthy(err.message:find("[Ss]eccomp"), err.message)
      fails("not_found", core.open_by_root("/proc/self/root" .. root))
      assert_gone(world, root)
    end)
  end

  it("is never left behind by a jailer that leaves it, however often it is started", function()
    local world <close> = support.world()
    for i = 1, 10 do
      local vm <close> = must(launch(world, { daemonize = true }, { id = "vm-" .. i }))
      assert.are.equal("running", must(vm:info()).state)
    end
    assert_gone(world)
  end)

  it("sees nothing that others may read, and its folder is closed to them", function()
    local world <close> = support.world()
    local vm <close> = must(launch(world))
    local root = vm:record().jail.root
    assert.are.same({ "drwx------ 0 0" }, find(vm.journal.folder, "-maxdepth", "0", "-printf",
      "%M %U %G\n"))
    assert.are.same({ "drwx------ 1234 2345" }, find(root, "-maxdepth", "0", "-printf", "%M %U %G\n"))
    -- The kernel, and mostly the program, are as they were where they come from.
    local open = find(vm.journal.folder, "-perm", "/077", "-printf", "%f\n")
    table.sort(open)
    assert.are.same(versions.closes_the_copy() and { "kernel" } or { "firecracker", "kernel" }, open)
    for name, mode in pairs{ ["config.json"] = 384, ["firecracker.log"] = 384, metrics = 384,
      ["api.sock"] = 448 } do
      local stat = must(core.stat(root .. "/" .. name))
      assert.are.same({ UID, GID, mode }, { stat.uid, stat.gid, stat.mode }, name)
    end
    for _, name in ipairs{ "vm.json", "console.log" } do
      local stat = must(core.stat(vm.journal.folder .. "/" .. name))
      assert.are.same({ 0, 384 }, { stat.uid, stat.mode }, name)
    end
  end)

  it("has a TAP of its user's", function()
    local world <close> = support.bridged_world()
    local vm <close> = must(launch(world, nil, { network = true }))
    local link = support.ip(world.netns, "link", "show", vm:record().taps[1].name)[1]
    assert.are.equal(UID, math.tointeger(link.linkinfo.info_data.user))
    assert.are.equal(GID, math.tointeger(link.linkinfo.info_data.group))
  end)

  it("that is PID 1 of its namespace is not asked by SIGTERM, and the report says so", function()
    local world <close> = support.world()
    local vm <close> = must(launch(world, { new_pid_ns = true }, { boot_args = "fcproc.ignore_cad" }))
    local report = must(vm:stop{ { "ctrl_alt_del", 0.05 }, { "sigterm", 60 }, { "sigkill", 5 } })
    assert.are.equal("sigkill", report.step)
    assert.are.equal("skipped", report.steps[2].outcome)
    assert.is_truthy(report.steps[2].message:find("PID 1", 1, true))
    assert_gone(world)
  end)

  it("works in a runtime folder whose path has 200 bytes", function()
    local base <close> = support.folder()
    local deep = base.path
    while #deep < 190 do deep = deep .. "/" .. ("d"):rep(math.min(60, 199 - #deep)) end
    local world <close> = support.bridged_world{ runtime_dir = deep .. ("d"):rep(200 - #deep) }
    for _, shape in pairs(jails.SHAPES) do
      local vm <close> = must(launch(world, shape, { network = true, vsock = { cid = 3 } }))
      assert.are.equal("running", must(vm:info()).state)
      must(vm:stop())
    end
  end)
end)

describe("the binaries of a jail", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for _, case in ipairs{
    { "firecracker-v1.12.1", "jailer-v1.12.1" }, { "firecracker-v1.12.1", "jailer" },
    { "firecracker", "jailer" },
  } do
    it("are found beside each other: " .. table.concat(case, ", "), function()
      local world <close> = support.world()
      local bin = installed(world, case[1], case[2])
      local manager <close> = must(fcproc.new{ firecracker_bin = bin .. case[1],
        runtime_dir = world.folder:file("run") })
      local vm <close> = must(fcproc.vm.launch(manager, jail()))
      assert.is_truthy(vm:record().jail.root:find("/jail/" .. case[1] .. "/vm/root", 1, true))
      assert.are.equal("running", must(vm:info()).state)
    end)
  end

  it("may be links, and relative", function()
    local world <close> = support.world()
    local bin = installed(world, "firecracker-v1.12.1", "jailer-v1.12.1")
    support.sh{ "ln", "-s", "firecracker-v1.12.1", bin .. "firecracker" }
    local up = ("../"):rep(20):sub(1, -2)
    for _, path in ipairs{ bin .. "firecracker", up .. bin .. "firecracker" } do
      local manager <close> = must(fcproc.new{ firecracker_bin = path,
        runtime_dir = world.folder:file("run") })
      local vm <close> = must(fcproc.vm.launch(manager, jail()))
      assert.are.equal("running", must(vm:info()).state)
      local direct <close> = must(fcproc.vm.launch(manager, { id = "direct" }))
      assert.are.equal("running", must(direct:info()).state)
    end
  end)

  it("may be named, and one that is not there is refused by its place", function()
    local world <close> = support.world()
    local bin = installed(world, "firecracker", "another-name")
    local manager <close> = must(fcproc.new{ firecracker_bin = bin .. "firecracker",
      runtime_dir = world.folder:file("run") })
    do
      local vm <close> = must(fcproc.vm.launch(manager, jail{ binary = bin .. "another-name" }))
      assert.are.equal("running", must(vm:info()).state)
    end
    for _, path in ipairs{ bin .. "none", bin } do
      local err = fails("invalid", fcproc.vm.launch(manager, jail{ binary = path }))
      assert.are.equal("jailer.binary", err.problems[1].place)
      assert.is_truthy(err.message:find(path, 1, true), err.message)
    end
    assert_gone(world)
  end)

  it("is refused when its name is none that the jailer takes, as before 1.13", function()
    local world <close> = support.world()
    local bin = installed(world, "fc", "jailer")
    local manager <close> = must(fcproc.new{ firecracker_bin = bin .. "fc",
      runtime_dir = world.folder:file("run") })
    if versions.at_least("1.13") then
      local vm <close> = must(fcproc.vm.launch(manager, jail()))
      assert.are.equal("running", must(vm:info()).state)
      return
    end
    local err = fails("invalid", fcproc.vm.launch(manager, jail()))
    assert.are.equal("firecracker_bin", err.problems[1].place)
    fails("not_found", core.stat(world.folder:file("run")))
  end)
end)

describe("a jail's failures", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("of the jailer itself are told in its words, with what to look at", function()
    local world <close> = support.world()
    for text, hook in pairs{
      ["the jailer failed: Failed to create directory"] = function(vm)
        support.write_file(vm:record().jail.root .. "/dev", "")
      end,
      ["dev/net/tun"] = function(vm)
        support.sh{ "mkdir", "-p", vm:record().jail.root .. "/dev/net/tun" }
      end,
    } do
      local err = fails("exit_status", launch(world, nil, { hooks = { before_start = hook } }))
      assert.is_truthy(err.message:find(text, 1, true), err.message)
      assert.is_truthy(err.output:find("Failed to ", 1, true), err.output)
      assert_gone(world)
    end
  end)

  it("when the program is gone meanwhile are told", function()
    local world <close> = support.world()
    local bin = installed(world, "firecracker", "jailer")
    local manager <close> = must(fcproc.new{ firecracker_bin = bin .. "firecracker",
      runtime_dir = world.folder:file("run") })
    local err = fails("exit_status", fcproc.vm.launch(manager, jail(nil, { hooks = {
      before_start = function() os.remove(bin .. "firecracker") end } })))
    assert.is_truthy(err.message:find(bin .. "firecracker", 1, true), err.message)
    assert_gone(world)
  end)

  it("of a seccomp filter that is not there are named, and one that is wrong is decoded", function()
    local world <close> = support.world()
    for _, spec in ipairs{ { seccomp = "/nonexistent/filter" }, jail(nil, { seccomp = "/nonexistent/x" }) } do
      local err = fails("invalid", fcproc.vm.launch(world.manager, spec))
      assert.are.equal("seccomp", err.problems[1].place)
    end
    local filter = world.folder:file("filter")
    support.write_file(filter, "no filter")
    local err = fails("exit_status", fcproc.vm.launch(world.manager, { id = "vm", seccomp = filter }))
    assert.is_truthy(err.message:find("Filter deserialization failed", 1, true), err.message)
    assert_gone(world)
  end)

  it("a seccomp that is off is logged as a warning", function()
    local warnings = {}
    local world <close> = support.world{ logger = function(level, message, fields)
      if level == "warn" then warnings[#warnings + 1] = { message, fields.id } end
    end }
    for _, shape in ipairs{ false, jail() } do
      local spec = shape or { id = "vm" }
      spec.seccomp = false
      local vm <close> = must(fcproc.vm.launch(world.manager, spec))
      assert.are.equal("0", status_of(vm:pid(), "Seccomp")[1])
    end
    assert.are.equal(2, #warnings)
    assert.is_truthy(warnings[1][1]:find("seccomp is off", 1, true))
    assert.are.equal("vm", warnings[1][2])
  end)

  it("of a limit: a file that grew too big is exit 151, and the number of files is in force", function()
    local world <close> = support.world()
    local vm <close> = must(launch(world, { limits = { fsize = 16384, no_file = 64 } },
      { boot_args = "fcproc.print=100000" }))
    local gone, exit = vm:wait(10)
    assert.is_true(gone)
    assert.are.same({ status = 151 }, exit)
    local info = must(vm:info())
    assert.are.equal("dead", info.state)
    assert.is_truthy(info.description:find("fsize", 1, true), info.description)
    must(vm:stop())
    local other <close> = must(launch(world, { limits = { no_file = 64 } }))
    local limits = support.read_file(("/proc/%d/limits"):format(other:pid()))
    assert.is_truthy(limits:find("Max open files%s+64%s+64"), limits)
  end)

  it("is removed with all of it when it dies behind our back, by reclaim", function()
    local world <close> = support.world()
    local vm <close> = must(launch(world, { daemonize = true,
      cgroups = { ["pids.max"] = "40" } }, { id = jails.own_id() }))
    local process <close> = must(fcproc.process(vm:pid()))
    must(vm:detach())
    must(process:signal("KILL"))
    must(process:wait(10))
    assert.are.equal(1, #cgroups())
    assert.are.same({ vm.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert_gone(world)
  end)
end)
