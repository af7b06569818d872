-- What a jail has on the host: its files, linked or copied, and cgroups that are in force.

local support = require "spec.support"
local core = require "fcproc.core"
local jails = require "spec.support.jails"

local must, fails = support.must, support.fails
local launch, assert_gone = jails.launch, jails.assert_gone
local UID, GID = jails.UID, jails.GID

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

  it("on another file system are mounted or copied when nobody writes them, and refused when somebody does",
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
        assert.are.equal(drive.copy or "mount", must(vm:info()).drives[1].placed)
        local stat = must(core.stat(vm:record().jail.root .. "/drive-drive1"))
        assert.are.same({ UID, 384 }, { stat.uid, stat.mode })
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

  local function limited(world, groups, more)
    local jailer = { cgroups = groups }
    for key, value in pairs(more or {}) do jailer[key] = value end
    return launch(world, jailer, { id = jails.own_id() })
  end

  for name, shape in pairs(jails.SHAPES) do
    it("holds the VM to its limits and goes with it: " .. name, function()
      local world <close> = support.world()
      local groups, limits = jails.limits(jails.cgroup_version())
      local asked = {}
      for file in pairs(groups) do asked[file:match("^%w+")] = true end
      for _, controller in ipairs{ "cpu", "pids", "memory", "cpuset" } do
        assert.is_true(asked[controller], "this host has no controller " .. controller)
      end
      local vm <close> = must(limited(world, groups, shape))
      jails.assert_limited(vm, limits)
      must(vm:stop())
      assert_gone(world)
    end)
  end

  it("may be one of version 2, also beside those of version 1", function()
    local world <close> = support.world()
    local groups, limits = jails.limits(2)
    for _, version in ipairs{ false, 2 } do
      local more = { cgroup_version = version or nil }
      if #limits > 0 then
        local vm <close> = must(limited(world, groups, more))
        jails.assert_limited(vm, limits)
        must(vm:stop())
      else -- all controllers are of version 1 here
        local _, v2 = jails.hierarchies()
        fails(v2 and "exit_status" or "unsupported", limited(world, { ["nothing.max"] = "1" }, more))
      end
    end
    assert_gone(world)
  end)

  it("in a parent of the caller's goes, and the parent stays", function()
    local world <close> = support.world()
    local v1, v2 = jails.hierarchies()
    local parent = (v1.pids or v2) .. "/fcproc-spec-" .. support.own_pid()
    support.sh{ "mkdir", parent }
    local _ <close> = setmetatable({}, { __close = function() os.remove(parent) end })
    local vm <close> = must(limited(world, { ["pids.max"] = "40" },
      { parent_cgroup = parent:match("[^/]+$") }))
    local folder = vm:record().jail.cgroups[1]
    assert.are.equal(1, folder:find(parent .. "/", 1, true), folder)
    assert.are.equal("40\n", support.read_file(folder .. "/pids.max"))
    must(vm:stop())
    fails("not_found", core.stat(folder))
    assert.is_truthy(core.stat(parent))
  end)

  -- A file of each version, asked of the other, and what comes of it.
  local function of_the_other_version()
    local v1, v2 = jails.hierarchies()
    if not v1.cpu then
      return { { { ["cpu.shares"] = "512" }, {}, "exit_status", "cpu.shares" },
        { { ["cpu.shares"] = "512" }, { cgroup_version = 1 }, "unsupported",
          "no cgroup v1 hierarchy is mounted for cpu.shares: is it a file of v2?" } }
    end
    return { { { ["cpu.max"] = "1000" }, {}, "exit_status", "cpu.max" },
      v2 and { { ["cpu.max"] = "1000" }, { cgroup_version = 2 }, "unsupported",
        "a hierarchy of version 1 has it" }
      or { { ["cpu.max"] = "1000" }, { cgroup_version = 2 }, "unsupported",
        "no cgroup v2 hierarchy is mounted for cpu.max: is it a file of v1?" } }
  end

  it("that can't be had is refused with the reason, and nothing is left", function()
    local world <close> = support.world()
    local first, second = table.unpack(of_the_other_version())
    for _, case in ipairs{ first, second,
      { { ["cpuset.mems"] = "0", ["pids.most"] = "9" }, {}, "exit_status", "pids.most" },
      { { ["pids.max"] = "many" }, {}, "exit_status", "pids.max: Invalid argument" },
      { { ["nothing.max"] = "1" }, { cgroup_version = 1 }, "unsupported",
        "no cgroup v1 hierarchy is mounted for nothing.max" },
      { { ["cpu.shares"] = "a=b" }, {}, "invalid", "jailer.cgroups['cpu.shares']" },
      { { ["pids.max"] = "9" }, { parent_cgroup = "../x" }, "invalid", "jailer.parent_cgroup" },
      { { ["pids.max"] = "9" }, { parent_cgroup = "/x" }, "invalid", "jailer.parent_cgroup" },
      { { ["pids.max"] = "9" }, { parent_cgroup = "" }, "invalid", "jailer.parent_cgroup" },
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
    local low = jails.cgroup_version() == 1 and { "cpu.shares", "0", "2" } or { "memory.low", "1", "0" }
    for what, line in pairs{
      [("is '%s' in"):format(low[3])] = 'set -- "$@"', -- the kernel's least, or by whole pages
      ["is not in"] = 'set -- $(echo "$@" | sed "s/--cgroup [^ ]*//g")',
    } do
      support.write_file(wrapper, ('#!/bin/sh\n%s\nexec "%s" "$@"\n'):format(line, jails.jailer_binary()))
      support.sh{ "chmod", "755", wrapper }
      local err = fails("conflict", limited(world, what == "is not in" and { ["pids.max"] = "40" }
        or { [low[1]] = low[2] }, { binary = wrapper }))
      assert.is_truthy(err.message:find(what, 1, true), err.message)
      assert_gone(world)
    end
  end)
end)
