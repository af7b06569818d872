-- Runtime folders that are full, read-only, deep, or hold what does not belong there: exact errors,
-- and nothing half-made.

local support = require "spec.support"
local mounts = require "spec.support.mounts"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local ENOSPC, EROFS = 28, 30

describe("a runtime folder", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("that is full ends the launch at any step, and nothing is left", function()
    support.direct_only(pending, "only root mounts such a folder")
    local dir <close> = support.folder()
    support.write_file(dir:file("disk"), ("x"):rep(65536))
    support.sh{ "mkdir", dir:file("full") }
    mounts(dir, "", ([[
      local vms = require "spec.support.vms"
      local fcproc = require "fcproc"
      local full, steps = dir .. "/full", {}
      local function try(option, copy)
        support.sh{ "mount", "-t", "tmpfs", "-o", option, "none", full }
        local world <close> = support.bridged_world{ runtime_dir = full .. "/run" }
        local vm, err = fcproc.vm.launch(world.manager, { id = "a", network = true, vsock = { cid = 3 },
          drives = { { path = dir .. "/disk", copy = copy } }, mmds = { data = { a = 1 } } })
        if vm then
          must(vm:stop())
        elseif err.code == "exit_status" then -- Firecracker itself met it
          assert(err.output:find("code: %d", 1, true), err.output)
        else
          assert(err.errno == %d, tostring(err))
          assert(err.message:find(full, 1, true), tostring(err))
          steps[err.step or "none"] = true
        end
        vms.nothing_left(world)
        support.sh{ "umount", full }
        return vm ~= nil
      end
      local inodes = 1
      while not try("nr_inodes=" .. inodes) do inodes = inodes + 1 end
      assert(inodes > 10, inodes)
      assert(steps.none and steps.prepare and steps.drives and steps.start)
      local pages = 12
      while not try(("size=%%dk"):format(pages * 4), "sparse") do pages = pages + 1 end
      assert(pages > 16, pages)
    ]]):format(ENOSPC, ENOSPC))
  end)

  it("that fills up later keeps neither the VM nor its stop from working", function()
    support.direct_only(pending, "only root mounts such a folder")
    local dir <close> = support.folder()
    support.sh{ "mkdir", dir:file("full") }
    mounts(dir, 'mount -t tmpfs -o size=1M none "$1/full"', [[
      local vms = require "spec.support.vms"
      local full = dir .. "/full"
      local world <close> = support.bridged_world{ runtime_dir = full .. "/run" }
      local vm <close> = vms.ready(world, { id = "a", network = true })
      support.sh({ "sh", "-c", 'cat /dev/zero >"$1/ballast" || true', "sh", full })
      assert(support.pings(world.netns, vm:address()))
      local paused, err = vm:pause() -- of which nobody else would know
      assert(not paused and err.errno == 28, tostring(err))
      assert(must(vm:info()).state == "running")
      must(vm:detach())
      local again <close> = must(require "fcproc".vm.adopt(world.manager, "a")) -- it can't be noted
      local report = must(again:stop())
      assert(report.step == "ctrl_alt_del")
      support.sh{ "rm", full .. "/ballast" }
      vms.nothing_left(world)
    ]])
  end)

  it("that is read-only ends the launch before anything is made", function()
    support.direct_only(pending, "only root mounts such a folder")
    local dir <close> = support.folder()
    support.sh{ "mkdir", "-p", dir:file("ro/run/.fcproc/locks") }
    support.sh{ "chmod", "-R", "700", dir:file("ro/run") }
    mounts(dir, 'mount --bind "$1/ro" "$1/ro"; mount -o remount,bind,ro "$1/ro"', ([[
      local vms = require "spec.support.vms"
      local fcproc = require "fcproc"
      for _, run in ipairs{ "/ro/run", "/ro/new" } do
        local world <close> = support.bridged_world{ runtime_dir = dir .. run }
        local vm, err = fcproc.vm.launch(world.manager, { network = true })
        assert(not vm and err.errno == %d, tostring(err))
        assert(err.message:find(dir .. run, 1, true), tostring(err))
        vms.nothing_left(world)
        assert(#must(fcproc.vm.list(world.manager)) == 0)
      end
    ]]):format(EROFS))
  end)

  it("that holds something else where a VM's files should be says what, and leaves it", function()
    for _, case in ipairs{
      { "touch a", "conflict", "run/a is a file and should be a folder" },
      { "mkdir a", "conflict", "run/a is there already and is no VM's" },
      { "ln -s /tmp a", "conflict", "run/a is a symbolic link and should be a folder" },
      { "rmdir .fcproc/locks; touch .fcproc/locks", "conflict", "is a file and should be a folder" },
      { "mkdir .fcproc/locks/a", "conflict", "there is a folder where a file should be" },
      { "ln -s /nowhere .fcproc/locks/a", "conflict", "there is a symbolic link" },
      not support.rootless and { "chown 1000 .", "conflict", "belongs to uid 1000, not to us" } or nil,
    } do
      local world <close> = support.bridged_world()
      local run = world.folder:file("run")
      support.sh{ "sh", "-ec", 'umask 077; mkdir -p "$1/.fcproc/locks"; cd "$1"; '
        .. case[1], "sh", run }
      local before = support.sh{ "find", run, "-not", "-name", "a" }
      local err = fails(case[2], fcproc.vm.launch(world.manager,
        { id = "a", network = { address = "172.30.0.7" } }))
      assert.is_truthy(err.message:find(case[3], 1, true), case[1] .. ": " .. err.message)
      assert.are.equal(before, support.sh{ "find", run, "-not", "-name", "a" })
      assert.are.same({}, must(world.manager:list_taps()))
    end
  end)

  it("200 bytes deep works: console, API, vsock, adoption and stop", function()
    local folder <close> = support.folder()
    local deep = folder:file(("d"):rep(90) .. "/" .. ("e"):rep(90))
    support.sh{ "mkdir", "-p", deep }
    local world <close> = support.bridged_world{ runtime_dir = deep .. "/run" }
    for _, boot in ipairs{ "config_file", "api" } do
      local vm <close> = vms.ready(world, { id = ("deep"):rep(16), network = true, vsock = { cid = 3 },
        boot = boot, drives = { { path = vms.disk(world, "disk", "deep"), copy = "sparse" } } })
      assert.is_true(#must(vm:info()).files.socket > 200)
      assert.is_true(support.pings(world.netns, vm:address()))
      assert.are.equal("socket", must(core.stat(must(vm:info()).files.folder .. "/vsock.sock")).type)
      vms.shows(vm, 'starts "deep"')
      must(vm:metrics())
      local child <close> = vms.detach(vm)
      local taken <close> = must(fcproc.vm.adopt(world.manager, ("deep"):rep(16)))
      assert.are.equal("ctrl_alt_del", must(taken:stop()).step)
      must(child:wait(5))
      vms.nothing_left(world)
    end
  end)

  it("200 bytes deep works in a jail, too", function()
    support.direct_only(pending, "the jailer is root's")
    local folder <close> = support.folder()
    local deep = folder:file(("d"):rep(90) .. "/" .. ("e"):rep(90))
    support.sh{ "mkdir", "-p", deep }
    local world <close> = support.bridged_world{ runtime_dir = deep .. "/run" }
    local vm <close> = vms.ready(world, { id = "deep", network = true, vsock = { cid = 3 },
      jailer = { uid = 1000, gid = 1000 } })
    assert.is_true(support.pings(world.netns, vm:address()))
    assert.are.equal("running", must(vm:info()).state)
    assert.are.equal("ctrl_alt_del", must(vm:stop()).step)
    vms.nothing_left(world)
  end)

  it("that went away while the VM ran is no obstacle to its end", function()
    local world <close> = support.bridged_world()
    local vm <close> = vms.ready(world, { network = true })
    support.sh{ "rm", "-rf", must(vm:info()).folder }
    must(vm:stop{ { "ctrl_alt_del", 0.1 }, { "sigkill", 5 } })
    vms.nothing_left(world)
  end)
end)
