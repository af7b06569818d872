-- The end of a jail: nobody who was in it outlives its VM, whatever he did to get away.

local support = require "spec.support"
local fcproc = require "fcproc"
local cli = require "spec.support.cli"
local jails = require "spec.support.jails"
local strays = require "spec.support.strays"

local must, fails = support.must, support.fails

local function assert_dead(left)
  for _, pid in ipairs(left.pids) do assert.is_false(strays.alive(pid), pid) end
end

describe("at the end of a jailed VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for name, shape in pairs(jails.SHAPES) do
    it("all who were in its jail have ended: " .. name, function()
      local world <close> = support.bridged_world()
      local vm <close> = must(jails.launch(world, shape, { network = true }))
      assert.is_nil(vm:record().warnings)
      local left <close> = strays.start(vm)
      local report = must(vm:stop())
      assert.is_true(report.others >= #left.pids, report.others)
      assert_dead(left)
      jails.assert_gone(world)
    end)
  end

  it("in the fallbacks of older kernels as well", function()
    local world <close> = support.world{ without = { "cgroup_kill" } }
    local vm <close> = must(jails.launch(world))
    local left <close> = strays.start(vm)
    local report = must(vm:kill())
    assert.is_true(report.others >= #left.pids, report.others)
    jails.assert_gone(world)
  end)

  it("also when a jailer has put it into cgroups, and when it is in one of the caller's", function()
    local world <close> = support.world()
    local _, point = jails.hierarchies()
    local outer = ("%s/fcproc-spec-%d"):format(point, support.own_pid())
    support.sh{ "mkdir", outer }
    local _ <close> = setmetatable({}, { __close = function() assert(os.remove(outer)) end })
    for version = 1, 2 do
      local groups = jails.limits(version)
      local vm <close> = must(jails.launch(world, { cgroups = groups, cgroup_version = version },
        { id = jails.own_id(), cgroup = outer }))
      local inside = support.read_file(("/proc/%d/cgroup"):format(vm:pid()))
      assert.is_truthy(next(groups) == nil or version == 2
        or inside:find(outer:sub(#point + 1) .. "/", 1, true), inside)
      local left <close> = strays.start(vm)
      local report = must(vm:stop())
      assert.is_true(report.others >= #left.pids, report.others)
      assert_dead(left)
      jails.assert_gone(world)
    end
  end)

  it("nothing is said to be gone by who can't see its cgroup", function()
    local world <close> = support.world()
    local vm <close> = must(jails.launch(world))
    local left <close> = strays.start(vm)
    must(vm:detach())
    -- As `ip netns exec` does it: a mount namespace without cgroups.
    local done = cli.run(world, { "kill", "vm" }, { before = { "unshare", "--mount", "sh", "-c",
      'umount --recursive /sys/fs/cgroup && exec "$@"', "sh" } })
    assert.are.equal(4, done.status, done.out .. done.err)
    assert.is_truthy(done.err:find("can't be seen from this mount namespace", 1, true), done.err)
    assert.is_true(strays.alive(left.pids[1]))
    fails("conflict", jails.launch(world, nil, { id = "next" })) -- its uid is not free
    assert.are.same({ "vm" }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert_dead(left)
    jails.assert_gone(world)
  end)

  it("that died with nobody there, by reclaim", function()
    local world <close> = support.world()
    local vm <close> = must(jails.launch(world, { daemonize = true }))
    local left <close> = strays.start(vm)
    local process <close> = must(fcproc.process(vm:pid()))
    must(vm:detach())
    must(process:signal("KILL"))
    must(process:wait(10))
    assert.are.same({ "vm" }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert_dead(left)
    jails.assert_gone(world)
  end)

  it("that died without a journal, by reclaim", function()
    local world <close> = support.world()
    local vm <close> = must(jails.launch(world, { daemonize = true }))
    local left <close> = strays.start(vm, "root") -- the others have the jail as their root, and are alive
    local process <close> = must(fcproc.process(vm:pid()))
    must(vm:detach())
    must(process:signal("KILL"))
    must(process:wait(10))
    assert(os.remove(vm.journal.folder .. "/vm.json"))
    assert.are.same({ "vm" }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert_dead(left)
    jails.assert_gone(world)
  end)

  it("whose launch fails", function()
    local world <close> = support.world()
    local left
    fails("invalid", jails.launch(world, nil, { hooks = { after_start = function(vm)
      left = strays.start(vm)
      return nil, "no"
    end } }))
    local closing <close> = left -- luacheck: ignore closing
    assert_dead(left)
    jails.assert_gone(world)
  end)

  -- Runs a script with a mount namespace of its own, prepared by a shell's command. It gets a folder.
  local function in_other_mounts(command, text)
    local dir <close> = support.folder()
    local script = dir:file("script.lua")
    support.write_file(script, 'local support = require "spec.support"\nlocal fcproc = require "fcproc"\n'
      .. 'local jails, strays = require "spec.support.jails", require "spec.support.strays"\n' .. text)
    support.sh({ "unshare", "--mount", "sh", "-ec", command .. '; exec "$0" "$@"', support.lua, script,
      dir.path }, { timeout = 60 })
  end

  it("where only cgroups of version 1 are mounted", function()
    local v1 = jails.hierarchies()
    for _, controller in ipairs{ "freezer", "pids" } do
      assert.is_truthy(v1[controller], "this host has no controller " .. controller)
      in_other_mounts(([[
awk '$8 == "cgroup2" || $8 == "cgroup" && $10 !~ /%s/ { print $5 }' /proc/self/mountinfo | xargs umount]])
        :format(controller), ([[
local world <close> = support.world()
local vm <close> = support.must(jails.launch(world))
local own = vm:record().jail.cgroup
assert(own:find("/%s/fcproc/vm.", 1, true), own)
local left <close> = strays.start(vm)
local report = support.must(vm:stop())
assert(report.others >= #left.pids)
for _, pid in ipairs(left.pids) do assert(not strays.alive(pid)) end
jails.assert_gone(world)]]):format(controller))
    end
  end)

  it("where none can be written: it is launched, with a warning that its info shows", function()
    for _, case in ipairs{
      { "grep -o ' /sys/fs/cgroup/[^ ]*' /proc/self/mountinfo | xargs -n 1 mount -o remount,bind,ro",
        "mounted read-only" },
      { "umount -l /sys/fs/cgroup", "none is mounted" },
    } do
      in_other_mounts(case[1], ([[
local warned
local world <close> = support.world{ logger = function(level, message)
  warned = level == "warn" and message or warned
end }
local vm <close> = support.must(jails.launch(world))
local warning = support.must(vm:info()).warnings[1]
assert(warning.name == "cgroup" and warning.message:find(%q, 1, true), warning.message)
assert(warned == "the jail has no cgroup of its own", warned)
assert(not vm:record().jail.cgroup)
support.must(vm:stop())
jails.assert_gone(world)]]):format(case[2]))
    end
  end)

  it("no other VM of the same id, in another runtime folder, is touched", function()
    local world <close> = support.world()
    local other <close> = support.world()
    local spec = { id = jails.own_id() }
    for version = 0, 2 do
      local jailer = {}
      if version > 0 then jailer = { cgroups = jails.limits(version), cgroup_version = version } end
      local first <close> = must(jails.launch(world, jailer, spec))
      jailer.uid = 1235
      local second <close> = must(jails.launch(other, jailer, spec))
      local left <close> = strays.start(first)
      first:kill() -- a cgroup of version 1 that the jailers share is left to the other
      assert_dead(left)
      assert.are.equal("running", must(second:info()).state)
      must(second:stop())
      must(fcproc.vm.reclaim(world.manager))
      jails.assert_gone(world)
    end
  end)
end)
