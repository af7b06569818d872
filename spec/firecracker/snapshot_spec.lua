-- Snapshots of real VMs: what is in one, what is refused, and that nothing is half-made and the VM
-- goes on whatever fails.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local jails = require "spec.support.jails"
local in_mounts = require "spec.support.mounts"
local snapshots = require "spec.support.snapshots"

local must, fails = support.must, support.fails
local JAIL, content, names_in = snapshots.JAIL, snapshots.content, snapshots.names_in
local pings, state_of = snapshots.pings, snapshots.state
local launch, assert_nothing = snapshots.launch, snapshots.assert_nothing

describe("a snapshot", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for name, jailer in pairs{ direct = false, jailed = JAIL, daemonized = { uid = 1234, gid = 2345,
    daemonize = true, new_pid_ns = true } } do
    it("is a folder of files that nobody writes, and the VM goes on: " .. name, function()
      if jailer then support.direct_only(pending, snapshots.JAILER) end
      local uid, gid = support.own_ids()
      local world <close> = support.bridged_world()
      local vm <close>, disk = launch(world, { jailer = jailer or nil })
      local path = world.folder:file("snap")
      local manifest = must(vm:snapshot(path .. "/"))
      assert.are.same({ "drive-drive1", "manifest.json", "memory", "vmstate" }, names_in(path))
      for _, file in ipairs{ "drive-drive1", "memory", "vmstate" } do
        local stat = must(core.stat(path .. "/" .. file))
        local grouped = jailer and file ~= "drive-drive1"
        assert.are.same({ grouped and 288 or 256, uid, grouped and 2345 or gid },
          { stat.mode, stat.uid, stat.gid }, file)
        assert.are.equal(stat.size, manifest.sizes[file])
      end
      assert.are.equal(448, must(core.stat(path)).mode)
      assert.are.equal("running", state_of(vm))
      pings(world, vm)
      assert.are.equal(16 * 1024 * 1024, manifest.sizes.memory)
      assert.are.equal(vm:address(), manifest.network[1].address)
      assert.are.equal(must(world.manager:binary_version()), manifest.firecracker.version)
      -- It is of this moment: what comes later is not in it.
      support.write_file(disk, content("later"))
      assert.are.equal("first", support.read_file(path .. "/drive-drive1"):sub(1, 5))
      if jailer then
        assert.is_nil(core.stat(vm:record().jail.root .. "/snapshot-memory"))
        assert.is_nil(core.stat(vm:record().jail.root .. "/snapshot-vmstate"))
      end
      assert.are.same({ "disk", "run", "snap" }, names_in(world.folder.path))
    end)
  end

  it("names the very program that ran, in a jail and where another has its path by now", function()
    for _, jailer in ipairs(snapshots.JAILS) do
      local world <close> = support.world()
      local binary = world.folder:file("firecracker")
      support.sh{ "cp", support.firecracker(), binary }
      local manager <close> = must(fcproc.new{ firecracker_bin = binary,
        runtime_dir = world.folder:file("run2") })
      if jailer then jailer = { uid = 1234, gid = 2345, binary = jails.jailer_binary() } end
      local vm <close> = must(fcproc.vm.launch(manager, { id = "x", jailer = jailer or nil }))
      local ran = support.sh{ "sha256sum", binary }:match("^%x+")
      local named = support.sh{ binary, "--snapshot-version" }:match("v(%d+%.%d+%.%d+)")
      local program = must(vm:snapshot(world.folder:file("before"))).firecracker
      assert.are.same({ ran, named }, { program.sha256, program.snapshot_format })
      -- A script that would say another format, if it were run.
      support.write_file(binary .. ".new", "#!/bin/sh\necho v99.0.0\n")
      support.sh{ "chmod", "755", binary .. ".new" }
      support.sh{ "mv", binary .. ".new", binary }
      program = must(vm:snapshot(world.folder:file("after"))).firecracker
      assert.are.equal(ran, program.sha256)
      assert.are_not.equal("99.0.0", program.snapshot_format)
      must(fcproc.vm.verify(world.folder:file("after")))
    end
  end)

  it("leaves a paused VM paused, and any when asked", function()
    local world <close> = support.bridged_world()
    local vm <close> = launch(world)
    must(vm:snapshot(world.folder:file("one"), { keep_paused = true }))
    assert.are.equal("paused", state_of(vm))
    must(vm:snapshot(world.folder:file("two")))
    assert.are.equal("paused", state_of(vm))
    must(vm:resume())
    pings(world, vm)
  end)

  it("may hold what changed only, is no whole one, and needs the pages to be tracked", function()
    local world <close> = support.bridged_world()
    local vm <close> = launch(world, { track_dirty_pages = true })
    must(vm:snapshot(world.folder:file("full")))
    local manifest = must(vm:snapshot(world.folder:file("diff"), { type = "Diff" }))
    assert.are.equal("Diff", manifest.type)
    local plain <close> = must(fcproc.vm.launch(world.manager, { id = "plain" }))
    local err = fails("api", plain:snapshot(world.folder:file("none"), { type = "Diff" }))
    assert.is_truthy(err.message:find("disabled; launch the VM with track_dirty_pages = true", 1, true),
      err.message)
    must(plain:kill())
    local full = must(core.stat(world.folder:file("full/memory")))
    local diff = must(core.stat(world.folder:file("diff/memory")))
    assert.are.equal(full.size, diff.size)
    assert.is_true(diff.allocated < full.allocated / 4)
    err = fails("conflict", fcproc.vm.restore(world.manager, world.folder:file("diff")))
    assert.is_truthy(err.message:find("is a diff", 1, true), err.message)
    must(vm:stop())
    local clone <close> = must(fcproc.vm.restore(world.manager, world.folder:file("full"),
      { track_dirty_pages = true }))
    assert.are.equal("Diff", must(clone:snapshot(world.folder:file("next"), { type = "Diff" })).type)
    assert.is_true(must(core.stat(world.folder:file("next/memory"))).allocated < full.allocated / 4)
  end)

  it("may hold what changed only in a jail, too", function()
    support.direct_only(pending, snapshots.JAILER)
    local world <close> = support.bridged_world()
    local vm <close> = launch(world, { track_dirty_pages = true, jailer = JAIL })
    must(vm:snapshot(world.folder:file("full")))
    must(vm:snapshot(world.folder:file("diff"), { type = "Diff" }))
    local full = must(core.stat(world.folder:file("full/memory")))
    local diff = must(core.stat(world.folder:file("diff/memory")))
    assert.are.equal(full.size, diff.size)
    assert.is_true(diff.allocated < full.allocated / 4)
    must(vm:stop())
  end)

  it("is not written by root where somebody else may move its folder, unless that is asked for", function()
    support.direct_only(pending, "whom others may deceive is root")
    local world <close> = support.bridged_world()
    support.sh{ "install", "-d", "-o", "4242", world.folder:file("theirs") }
    support.sh{ "install", "-d", "-m", "777", world.folder:file("open") }
    support.sh{ "install", "-d", "-m", "1777", world.folder:file("sticky") }
    for _, jailer in ipairs{ false, JAIL } do
      local vm <close> = launch(world, { jailer = jailer or nil })
      for _, name in ipairs{ "theirs", "open" } do
        local path = world.folder:file(name .. "/snap")
        local err = fails("conflict", vm:snapshot(path))
        assert.is_truthy(err.message:find("trust = true", 1, true), err.message)
        assert.is_nil(err.message:find("runtime_dir", 1, true), err.message)
        assert.are.same({}, names_in(world.folder:file(name)))
        assert.are.equal("running", state_of(vm))
        must(vm:snapshot(path, { trust = true }))
        support.sh{ "rm", "-r", path }
      end
      must(vm:snapshot(world.folder:file("sticky/snap")))
      support.sh{ "rm", "-r", world.folder:file("sticky/snap") }
      must(vm:stop())
    end
    assert_nothing(world)
  end)

  it("refuses what can't be its folder, before the VM is paused", function()
    local world <close> = support.bridged_world()
    local vm <close>, disk = launch(world)
    local partial = world.folder:file("snap.original.partial")
    support.sh{ "mkdir", partial }
    support.write_file(partial .. "/mine", "")
    local state = vm:record().state
    for path, want in pairs{ ["relative"] = "invalid", [disk] = "conflict",
      [world.folder.path .. "/"] = "conflict", [world.folder:file("none/snap")] = "not_found",
      [world.folder:file("disk/snap")] = "not_found", [world.folder:file("snap")] = "conflict" } do
      local err = fails(want, vm:snapshot(path))
      assert.is_truthy(err.message:find((path:gsub("/$", "")), 1, true), err.message)
      assert.are.equal("running", state_of(vm))
      assert.are.equal(state, vm:record().state)
    end
    assert.are.same({ "mine" }, names_in(partial))
    support.raises("type", vm.snapshot, vm, "/x", { type = true })
    assert.are.same({ "disk", "run", "snap.original.partial" }, names_in(world.folder.path))
  end)

  it("is made one at a time of a VM, and of two to one folder one is refused", function()
    local world <close> = support.bridged_world()
    local vm <close> = launch(world)
    local other <close> = must(fcproc.vm.launch(world.manager, { id = "other" }))
    local path = world.folder:file("snap")
    local results = fcproc.run{
      function() return vm:snapshot(path) end,
      function() return vm:snapshot(world.folder:file("second")) end,
    }
    assert.is_truthy(results[1][1], tostring(results[1][2]))
    fails("busy", results[2][1], results[2][2])
    local both = fcproc.run{
      function() return vm:snapshot(path .. "2") end,
      function() return other:snapshot(path .. "2") end,
    }
    local lost = both[1][1] and both[2] or both[1]
    fails("conflict", lost[1], lost[2])
    assert.are.same({ "disk", "run", "snap", "snap2" }, names_in(world.folder.path))
    assert.are.equal("running", state_of(vm))
    assert.are.equal("running", state_of(other))
  end)

  it("that is cancelled in the middle of a drive leaves nothing, and the VM goes on", function()
    local world <close> = support.bridged_world()
    local big = world.folder:file("big")
    support.sh{ "sh", "-c", 'head -c 300000000 /dev/zero | tr "\\0" x > ' .. big }
    local vm <close> = launch(world, { drives = { { path = big } } })
    local ctx <close> = must(fcproc.context())
    local results = fcproc.run{
      function() return vm:snapshot(world.folder:file("snap"), nil, ctx) end,
      function()
        must(world.manager:wait_for_path(world.folder:file("snap.original.partial/drive-drive1"), 10,
          "the copy"))
        must(vm:pause()) -- it is, already
        ctx:cancel()
      end,
    }
    local err = fails("cancelled", results[1][1], results[1][2])
    assert.is_truthy(tostring(err))
    assert.are.same({ "big", "disk", "run" }, names_in(world.folder.path))
    assert.are.equal("running", state_of(vm))
    pings(world, vm)
  end)

  it("of a VM that is killed meanwhile says how it ended, and leaves nothing", function()
    local world <close> = support.bridged_world()
    local vm <close> = launch(world)
    local process <close> = must(fcproc.process(vm:pid()))
    must(process:signal("KILL"))
    must(process:wait(10))
    local err = fails("exit_status", vm:snapshot(world.folder:file("snap")))
    assert.are.equal(9, err.signal)
    assert.are.same({ "disk", "run" }, names_in(world.folder.path))
    must(vm:stop())
    assert_nothing(world)
  end)

  it("in the middle of which the VM is killed says how it ended, and leaves nothing", function()
    local world <close> = support.bridged_world()
    local vm <close> = launch(world)
    local process <close> = must(fcproc.process(vm:pid()))
    local results = fcproc.run{
      function() return vm:snapshot(world.folder:file("snap")) end,
      function()
        local memory = world.folder:file("snap.original.partial/memory")
        if support.rootless then memory = support.vmm_folder(world, "original") .. "/snapshot-memory" end
        must(world.manager:wait_for_path(memory, 10, "it"))
        must(process:signal("KILL"))
      end,
    }
    local err = fails("exit_status", results[1][1], results[1][2])
    assert.are.equal(9, err.signal)
    assert.are.same({ "disk", "run" }, names_in(world.folder.path))
    must(vm:stop())
    assert_nothing(world)
  end)

  it("under which the VM is stopped fails, and leaves nothing", function()
    local world <close> = support.bridged_world()
    local vm <close> = launch(world)
    local results = fcproc.run{
      function() return vm:snapshot(world.folder:file("snap")) end,
      function()
        must(world.manager:wait_for_path(world.folder:file("snap.original.partial"), 10, "it"))
        return vm:kill()
      end,
    }
    assert.is_truthy(results[2][1], tostring(results[2][2]))
    assert.is_truthy(fcproc.is_error(results[1][2]) or results[1][1])
    if not results[1][1] then assert.are.same({ "disk", "run" }, names_in(world.folder.path)) end
    assert_nothing(world)
  end)

  it("that the jail's limit would cut is refused, and the VM, which was warned, goes on", function()
    support.direct_only(pending, snapshots.JAILER)
    local world <close> = support.bridged_world()
    local vm <close> = launch(world, { jailer = { uid = 1234, gid = 2345, limits = { fsize = 8 << 20 } } })
    local err = fails("invalid", vm:snapshot(world.folder:file("snap")))
    assert.is_truthy(err.message:find("jailer.limits.fsize", 1, true), err.message)
    local info = must(vm:info())
    assert.are.same({ "running", "fsize" }, { info.state, info.warnings[1].name })
    assert.are.same({ "disk", "run" }, names_in(world.folder.path))
    must(vm:stop())
  end)

  it("for which the disk has no room leaves nothing, and the VM goes on", function()
    support.direct_only(pending, "only root mounts a folder with little room")
    local dir <close> = support.folder()
    in_mounts(dir, 'mkdir "$1/full" && mount -t tmpfs -o size=20m none "$1/full"', [[
local fcproc = require "fcproc"
for _, jailer in ipairs{ false, { uid = 1234, gid = 2345 } } do
  local run = dir .. "/run"
  local manager <close> = must(fcproc.new{ runtime_dir = run, firecracker_bin = support.firecracker() })
  local disk = dir .. "/disk"
  support.write_file(disk, ("x"):rep(8 * 1024 * 1024))
  support.sh{ "chown", "1234", disk }
  local vm <close> = must(fcproc.vm.launch(manager, { drives = { { path = disk } },
    jailer = jailer or nil }))
  local function attempt(path, want)
    local err = fails(want, vm:snapshot(path))
    assert(err.message:find("No space left on device", 1, true) or err.errno == 28, tostring(err))
    assert(err.message:find("of 20.0 MiB are free in " .. dir .. "/full, and its memory may take 16.0 MiB", 1,
      true), tostring(err))
    assert(must(vm:info()).state == "running")
    assert(#must(core.list_dir(dir .. "/full")) <= 1)
    return err
  end
  attempt(dir .. "/full/snap", "system") -- of the drive, after the memory
  support.write_file(dir .. "/full/ballast", ("x"):rep(4 << 20)) -- of the memory, after the state
  attempt(dir .. "/full/snap", jailer and "system" or "api")
  support.write_file(dir .. "/full/ballast", ("x"):rep(10 << 20))
  local err = attempt(dir .. "/full/snap", "system")
  assert(err.message:find("there is no room for a snapshot", 1, true), "it was begun: " .. tostring(err))
  os.remove(dir .. "/full/ballast")
  must(vm:snapshot(dir .. "/snap" .. (jailer and "-jailed" or "")))
  must(vm:stop())
end
]])
  end)
end)
