-- VMs in a jail: the four shapes in which the jailer starts one, who it then is and what it can
-- reach, cgroups and limits that are in force, and every way in which a start can fail.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"

local must, fails = support.must, support.fails

local UID, GID = 1234, 2345
local SHAPES = {
  foreground = {}, daemonized = { daemonize = true }, ["in a pid namespace"] = { new_pid_ns = true },
  ["daemonized in a pid namespace"] = { daemonize = true, new_pid_ns = true },
}

-- The spec of a jailed VM: jail({ daemonize = true }, { network = true }).
local function jail(jailer, spec)
  local all = { id = "vm", jailer = { uid = UID, gid = GID } }
  for key, value in pairs(jailer or {}) do all.jailer[key] = value end
  for key, value in pairs(spec or {}) do all[key] = value end
  return all
end

local function launch(world, ...) return fcproc.vm.launch(world.manager, jail(...)) end

local function jailer_binary()
  return (support.firecracker():gsub("[^/]*$", "jailer"))
end

-- One line of /proc/PID/status, as a list of words.
local function status_of(pid, name)
  local text = support.read_file(("/proc/%d/status"):format(pid)) or ""
  return support.collect(text:match("\n" .. name .. ":([^\n]*)") or "", "%S+")
end

-- What `find FOLDER -printf FORMAT` says, a line each.
local function find(folder, ...)
  return support.collect(support.sh{ "find", folder, ... }, "[^\n]+")
end

-- The folders of our cgroups, in all hierarchies.
local function cgroups()
  local found = find("/sys/fs/cgroup", "-path", "*/fcproc/*", "-type", "d", "-name", "jx-*")
  table.sort(found)
  return found
end

-- Nothing of the VM is left on the host.
local function assert_gone(world, root)
  assert.are.same({}, must(core.list_dir(world.folder:file("run/.fcproc/leases"))))
  assert.are.same({}, must(core.list_dir(world.folder:file("run/.fcproc/locks"))))
  assert.are.same({ { name = ".fcproc", type = "dir" } }, must(core.list_dir(world.folder:file("run"))))
  assert.are.same({}, cgroups())
  if root then fails("not_found", core.stat(root)) end
end

-- A folder like the one where Firecracker is installed, with these names in it.
local function installed(world, firecracker, jailer)
  support.sh{ "mkdir", world.folder:file("bin") }
  support.sh{ "cp", support.firecracker(), world.folder:file("bin/" .. firecracker) }
  if jailer then support.sh{ "cp", jailer_binary(), world.folder:file("bin/" .. jailer) } end
  return world.folder:file("bin/")
end

describe("a jailed VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for name, shape in pairs(SHAPES) do
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
    -- The program and the kernel are as they were where they come from.
    local open = find(vm.journal.folder, "-perm", "/077", "-printf", "%f\n")
    table.sort(open)
    assert.are.same({ "firecracker", "kernel" }, open)
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
    for _, shape in pairs(SHAPES) do
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

  it("is refused when its name is none that the jailer takes", function()
    local world <close> = support.world()
    local bin = installed(world, "fc", "jailer")
    local manager <close> = must(fcproc.new{ firecracker_bin = bin .. "fc",
      runtime_dir = world.folder:file("run") })
    local err = fails("invalid", fcproc.vm.launch(manager, jail()))
    assert.are.equal("firecracker_bin", err.problems[1].place)
    fails("not_found", core.stat(world.folder:file("run")))
  end)
end)

describe("the files of a jail", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function disk(world, name, owner, mode)
    local path = name:sub(1, 1) == "/" and name or world.folder:file(name)
    support.sh{ "truncate", "-s", "1M", path }
    support.sh{ "chown", owner, path }
    support.sh{ "chmod", mode, path }
    return path
  end

  it("are linked, or copied when its user can't read them, and info says which", function()
    local world <close> = support.world()
    local mine = disk(world, "mine", "1234:2345", "600")
    local groups = disk(world, "groups", "0:2345", "640")
    local base = disk(world, "base", "0:0", "644")
    local vm <close> = must(launch(world, nil, { drives = {
      { path = mine }, { path = groups, read_only = true }, { path = base, read_only = true },
      { path = base, id = "own", copy = "reflink" } } }))
    local placed = {}
    for i, drive in ipairs(must(vm:info()).drives) do placed[i] = drive.placed end
    assert.are.same({ "link", "link", "link" }, { table.unpack(placed, 1, 3) })
    assert.is_truthy(placed[4] == "sparse" or placed[4] == "reflink")
    local root = vm:record().jail.root
    assert.are.equal(must(core.stat(mine)).ino, must(core.stat(root .. "/drive-drive1")).ino)
    local own = must(core.stat(root .. "/drive-own"))
    assert.are.same({ UID, GID, 384 }, { own.uid, own.gid, own.mode })
    must(vm:stop())
    assert.are.equal(1, must(core.stat(mine)).nlink)
  end)

  it("that its user may not open are named before anything is made", function()
    local world <close> = support.world()
    local good = disk(world, "good", "1234:2345", "600")
    local closed = disk(world, "closed", "0:0", "600")
    for _, read_only in ipairs{ false, true } do
      local err = fails("invalid", launch(world, nil, { drives = { { path = good },
        { path = closed, read_only = read_only } } }))
      assert.are.equal("drives[2].path", err.problems[1].place)
      assert.is_truthy(err.message:find("uid 1234", 1, true), err.message)
      assert.is_truthy(err.message:find(read_only and "read by" or "written by", 1, true))
    end
    fails("not_found", core.stat(world.folder:file("run")))
  end)

  it("on another file system are copied when nobody writes them, and refused when somebody does",
    function()
      local world <close> = support.world()
      local name = "/dev/shm/fcproc-spec-" .. support.own_pid()
      local _ <close> = setmetatable({}, { __close = function() os.remove(name) end })
      disk(world, name, "1234:2345", "600")
      local err = fails("unsupported", launch(world, nil, { drives = { { path = name } } }))
      assert.are.equal("drives", err.step)
      assert.is_truthy(err.message:find("drives[1]: " .. name, 1, true), err.message)
      assert.is_truthy(err.message:find('copy = "reflink"', 1, true))
      assert_gone(world)
      for _, drive in ipairs{ { path = name, read_only = true }, { path = name, copy = "sparse" } } do
        local vm <close> = must(launch(world, nil, { drives = { drive } }))
        assert.are.equal("sparse", must(vm:info()).drives[1].placed)
        local stat = must(core.stat(vm:record().jail.root .. "/drive-drive1"))
        assert.are.same({ UID, drive.copy and 384 or 256 }, { stat.uid, stat.mode })
      end
    end)

  it("can't be where devices and programs are not allowed: said before anything is made", function()
    local dir <close> = support.folder()
    support.sh{ "mkdir", dir:file("a b") }
    local script = dir:file("script.lua")
    support.write_file(script, [[
local support = require "spec.support"
local fcproc = require "fcproc"
local manager <close> = support.must(fcproc.new{ runtime_dir = arg[1] .. "/deeper",
  firecracker_bin = support.firecracker() })
local err = support.fails("invalid", fcproc.vm.launch(manager, { jailer = { uid = 1, gid = 1 } }))
assert(err.problems[1].place == "jailer", err.message)
assert(err.message:find(arg[1] .. " is mounted " .. arg[2], 1, true), err.message)
assert(not require("fcproc.core").stat(arg[1] .. "/deeper"))
local vm <close> = support.must(fcproc.vm.launch(manager, {}))
]])
    for _, option in ipairs{ "nodev", "noexec" } do
      support.sh({ "unshare", "--mount", "sh", "-ec",
        'mount -t tmpfs -o "$2" none "$1" && exec "$0" "$3" "$1" "$2"', support.lua,
        dir:file("a b"), option, script }, { timeout = 60 })
    end
  end)
end)

describe("the cgroup of a jail", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- The id tells our cgroups from those of others on this host.
  local function limited(world, groups, more)
    local jailer = { cgroups = groups }
    for key, value in pairs(more or {}) do jailer[key] = value end
    return launch(world, jailer, { id = "jx-" .. support.own_pid() })
  end

  for name, shape in pairs(SHAPES) do
    it("holds the VM to its limits and goes with it: " .. name, function()
      local world <close> = support.world()
      local vm <close> = must(limited(world, { ["cpu.shares"] = 512, ["pids.max"] = "40",
        ["memory.limit_in_bytes"] = "200M", ["cpuset.cpus"] = "0,1", ["cpuset.mems"] = "0" }, shape))
      local mine = must(support.read_file(("/proc/%d/cgroup"):format(vm:pid())))
      for _, controller in ipairs{ "cpu", "pids", "memory", "cpuset" } do
        assert.is_truthy(mine:find(":" .. controller .. ":/fcproc/jx-", 1, true), mine)
      end
      assert.are.equal(4, #vm:record().jail.cgroups)
      assert.are.equal(4, #cgroups())
      assert.are.equal("40\n", support.read_file(("/sys/fs/cgroup/pids/fcproc/%s/pids.max"):format(
        vm.id)))
      must(vm:stop())
      assert_gone(world)
    end)
  end

  it("may be one of version 2, beside those of version 1", function()
    local world <close> = support.world()
    for _, version in ipairs{ false, 2 } do
      local vm <close> = must(limited(world, { ["hugetlb.2MB.max"] = "4194304" },
        { cgroup_version = version or nil }))
      assert.is_truthy(support.read_file(("/proc/%d/cgroup"):format(vm:pid())):find("0::/fcproc/jx-",
        1, true))
      must(vm:stop())
    end
    assert_gone(world)
  end)

  it("in a parent of the caller's goes, and the parent stays", function()
    local world <close> = support.world()
    local parent = "/sys/fs/cgroup/pids/fcproc-spec-" .. support.own_pid()
    support.sh{ "mkdir", parent }
    local _ <close> = setmetatable({}, { __close = function() os.remove(parent) end })
    local vm <close> = must(limited(world, { ["pids.max"] = "40" },
      { parent_cgroup = parent:match("[^/]+$") }))
    assert.is_truthy(core.stat(parent .. "/" .. vm.id))
    must(vm:stop())
    fails("not_found", core.stat(parent .. "/" .. vm.id))
    assert.is_truthy(core.stat(parent))
  end)

  it("that can't be had is refused with the reason, and nothing is left", function()
    local world <close> = support.world()
    for _, case in ipairs{
      { { ["cpu.max"] = "1000" }, { cgroup_version = 2 }, "exit_status", "Controller cpu is unavailable" },
      { { ["cpu.shares"] = "512", ["pids.most"] = "9" }, {}, "exit_status", "pids.most" },
      { { ["pids.max"] = "many" }, {}, "exit_status", "pids.max: Invalid argument" },
      { { ["nothing.max"] = "1" }, { cgroup_version = 1 }, "unsupported",
        "no cgroup v1 hierarchy is mounted for nothing.max" },
      { { ["cpu.shares"] = "a=b" }, {}, "invalid", "jailer.cgroups['cpu.shares']" },
      { { ["../x"] = "1" }, {}, "invalid", "jailer.cgroups['../x']" },
    } do
      local err = fails(case[3], limited(world, case[1], case[2]))
      assert.is_truthy(err.message:find(case[4], 1, true), err.message)
      if case[3] ~= "invalid" then assert_gone(world) end
    end
  end)

  it("whose value is not in force ends the VM: a wrapper that drops the limits is found out", function()
    local world <close> = support.world()
    local wrapper = world.folder:file("wrapper")
    -- The jailer ignores what it is told with the other version, and so does this one.
    for what, line in pairs{
      ["is '2' in"] = 'set -- "$@"', ["is not in"] = 'set -- $(echo "$@" | sed "s/--cgroup [^ ]*//g")',
    } do
      support.write_file(wrapper, ('#!/bin/sh\n%s\nexec "%s" "$@"\n'):format(line, jailer_binary()))
      support.sh{ "chmod", "755", wrapper }
      local err = fails("conflict", limited(world, { ["cpu.shares"] = what:find("2") and "0" or "512" },
        { binary = wrapper }))
      assert.is_truthy(err.message:find(what, 1, true), err.message)
      assert_gone(world)
    end
  end)
end)

describe("a jail's failures", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("of the jailer itself are told in its words, with what to look at", function()
    local world <close> = support.world()
    for text, hook in pairs{
      ["Jailer error: Failed to create directory"] = function(vm)
        support.write_file(vm:record().jail.root .. "/dev", "")
      end,
      ["dev/net/tun"] = function(vm)
        support.sh{ "mkdir", "-p", vm:record().jail.root .. "/dev/net/tun" }
      end,
    } do
      local err = fails("exit_status", launch(world, nil, { hooks = { before_start = hook } }))
      assert.is_truthy(err.message:find(text, 1, true), err.message)
      assert.is_truthy(err.output:find("Jailer error", 1, true), err.output)
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
    assert.is_truthy(err.message:find("Deserialization", 1, true), err.message)
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
      cgroups = { ["pids.max"] = "40" } }, { id = "jx-" .. support.own_pid() }))
    local process <close> = must(fcproc.process(vm:pid()))
    must(vm:detach())
    must(process:signal("KILL"))
    must(process:wait(10))
    assert.are.equal(1, #cgroups())
    assert.are.same({ vm.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert_gone(world)
  end)
end)
