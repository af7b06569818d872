-- Snapshots of real VMs: what is in one, clones of it beside each other, direct and jailed; what is
-- refused, and that nothing is half-made and the VM goes on whatever fails.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local cjson = require "cjson"
local in_mounts = require "spec.support.mounts"

local must, fails = support.must, support.fails

local JAIL = { uid = 1234, gid = 2345 }
local SECTOR = 512

local function names_in(folder)
  local names = {}
  for i, entry in ipairs(must(core.list_dir(folder))) do names[i] = entry.name end
  return names
end

local function sum(folder, ...)
  return support.sh({ "sha256sum", ... }, { cwd = folder })
end

local function pings(world, vm)
  support.eventually("a ping of " .. vm:address(), function()
    return support.pings(world.netns, vm:address())
  end)
end

-- A running VM with a disk, a network and a vsock; more of its spec in opts.
local function launch(world, opts)
  local disk = world.folder:file("disk")
  support.write_file(disk, ("first"):rep(SECTOR * 2))
  support.sh{ "chown", "1234", disk }
  local spec = { id = "original", network = true, vsock = { cid = 3 }, drives = { { path = disk } } }
  for key, value in pairs(opts or {}) do spec[key] = value end
  local vm = must(fcproc.vm.launch(world.manager, spec))
  if not (spec.jailer and spec.jailer.daemonize) then
    must(must(vm:console()):wait_for("fcproc guest: ready", 10))
  end
  return vm, disk
end

local function running(vm)
  return must(vm:info()).state
end

-- A snapshot in a folder of its own, and the world that it was taken in, without the VM.
local function snapshot(opts)
  local world = support.bridged_world()
  local path = world.folder:file("snap")
  local vm <close> = launch(world, opts)
  must(vm:snapshot(path))
  return world, path
end

-- No VM, no lease, no TAP.
local function assert_nothing(world)
  assert.are.same({ ".fcproc" }, names_in(world.folder:file("run")))
  assert.are.same({}, names_in(world.folder:file("run/.fcproc/leases")))
  assert.are.same({}, must(world.manager:list_taps()))
end

-- A copy of the snapshot, changed by a shell command in its folder.
local function changed(path, command)
  support.sh{ "rm", "-rf", path .. "-changed" }
  support.sh{ "cp", "-a", path, path .. "-changed" }
  support.sh({ "sh", "-ec", command }, { cwd = path .. "-changed" })
  return path .. "-changed"
end

describe("a snapshot", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for name, jailer in pairs{ direct = false, jailed = JAIL, daemonized = { uid = 1234, gid = 2345,
    daemonize = true, new_pid_ns = true } } do
    it("is a folder of files that nobody writes, and the VM goes on: " .. name, function()
      local world <close> = support.bridged_world()
      local vm <close>, disk = launch(world, { jailer = jailer or nil })
      local path = world.folder:file("snap")
      local manifest = must(vm:snapshot(path .. "/"))
      assert.are.same({ "drive-drive1", "manifest.json", "memory", "vmstate" }, names_in(path))
      for _, file in ipairs{ "drive-drive1", "memory", "vmstate" } do
        local stat = must(core.stat(path .. "/" .. file))
        local grouped = jailer and file ~= "drive-drive1"
        assert.are.same({ grouped and 288 or 256, 0, grouped and 2345 or 0 },
          { stat.mode, stat.uid, stat.gid }, file)
        assert.are.equal(stat.size, manifest.sizes[file])
      end
      assert.are.equal(448, must(core.stat(path)).mode)
      assert.are.equal("running", running(vm))
      pings(world, vm)
      assert.are.equal(16 * 1024 * 1024, manifest.sizes.memory)
      assert.are.equal(vm:address(), manifest.network[1].address)
      assert.are.equal(must(world.manager:binary_version()), manifest.firecracker.version)
      -- It is of this moment: what comes later is not in it.
      support.write_file(disk, ("later"):rep(SECTOR * 2))
      assert.are.equal("first", support.read_file(path .. "/drive-drive1"):sub(1, 5))
      if jailer then
        assert.is_nil(core.stat(vm:record().jail.root .. "/snapshot-memory"))
        assert.is_nil(core.stat(vm:record().jail.root .. "/snapshot-vmstate"))
      end
      assert.are.same({ "disk", "run", "snap" }, names_in(world.folder.path))
    end)
  end

  it("leaves a paused VM paused, and any when asked", function()
    local world <close> = support.bridged_world()
    local vm <close> = launch(world)
    must(vm:snapshot(world.folder:file("one"), { keep_paused = true }))
    assert.are.equal("paused", running(vm))
    must(vm:snapshot(world.folder:file("two")))
    assert.are.equal("paused", running(vm))
    must(vm:resume())
    pings(world, vm)
  end)

  it("may hold what changed only, is no whole one, and needs the pages to be tracked", function()
    local world <close> = support.bridged_world()
    local vm <close> = launch(world, { track_dirty_pages = true })
    must(vm:snapshot(world.folder:file("full")))
    local manifest = must(vm:snapshot(world.folder:file("diff"), { type = "Diff" }))
    assert.are.equal("Diff", manifest.type)
    local full = must(core.stat(world.folder:file("full/memory")))
    local diff = must(core.stat(world.folder:file("diff/memory")))
    assert.are.equal(full.size, diff.size)
    assert.is_true(diff.allocated < full.allocated / 4)
    local err = fails("conflict", fcproc.vm.restore(world.manager, world.folder:file("diff")))
    assert.is_truthy(err.message:find("is a diff", 1, true), err.message)
    must(vm:stop())
    local clone <close> = must(fcproc.vm.restore(world.manager, world.folder:file("full"),
      { track_dirty_pages = true }))
    assert.are.equal("Diff", must(clone:snapshot(world.folder:file("next"), { type = "Diff" })).type)
    assert.is_true(must(core.stat(world.folder:file("next/memory"))).allocated < full.allocated / 4)
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
      assert.are.equal("running", running(vm))
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
    assert.are.equal("running", running(vm))
    assert.are.equal("running", running(other))
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
        ctx:cancel()
      end,
    }
    local err = fails("cancelled", results[1][1], results[1][2])
    assert.is_truthy(tostring(err))
    assert.are.same({ "big", "disk", "run" }, names_in(world.folder.path))
    assert.are.equal("running", running(vm))
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
        must(world.manager:wait_for_path(world.folder:file("snap.original.partial/memory"), 10, "it"))
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

  it("for which the disk has no room leaves nothing, and the VM goes on", function()
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
    assert(must(vm:info()).state == "running")
    assert(#must(core.list_dir(dir .. "/full")) <= 1)
  end
  attempt(dir .. "/full/snap", "system") -- of the drive, after the memory
  support.write_file(dir .. "/full/ballast", ("x"):rep(10 * 1024 * 1024))
  if not jailer then attempt(dir .. "/full/snap", "api") else attempt(dir .. "/full/snap", "system") end
  os.remove(dir .. "/full/ballast")
  must(vm:snapshot(dir .. "/snap" .. (jailer and "-jailed" or "")))
  must(vm:stop())
end
]])
  end)
end)

describe("a restored VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for from, to in pairs{ direct = false, jailed = false, ["direct, into a jail"] = JAIL,
    ["jailed, into a jail of its group"] = { uid = 4321, gid = 2345, new_pid_ns = true },
    ["jailed, into another jail"] = { uid = 4321, gid = 4321, daemonize = true } } do
    it("answers pings, with a disk of its own, and can be snapshotted again: " .. from, function()
      local world <close>, path = snapshot{ jailer = from:find("^jailed") and JAIL or nil }
      local before = sum(path, "memory", "vmstate", "drive-drive1")
      local vm <close> = must(fcproc.vm.restore(world.manager, path, { id = "clone",
        jailer = to or nil }))
      assert.are.equal("running", running(vm))
      pings(world, vm)
      local mine = vm:record().files.folder .. "/drive-drive1"
      assert.are.equal(384, must(core.stat(mine)).mode)
      assert.are.equal("first", support.read_file(mine):sub(1, 5))
      support.write_file(mine, ("clone"):rep(SECTOR * 2))
      if to then
        local memory = must(core.stat(vm:record().jail.root .. "/memory"))
        local linked = from:find("of its group", 1, true) ~= nil
        assert.are.same(linked and { 0, 2345, 288 } or { to.uid, to.gid, 256 },
          { memory.uid, memory.gid, memory.mode })
        assert.are.equal(linked, must(vm:info()).jail.placed.memory == "link")
      end
      local again = world.folder:file("again")
      must(vm:snapshot(again))
      assert.are.equal("clone", support.read_file(again .. "/drive-drive1"):sub(1, 5))
      pings(world, vm)
      assert.are.equal("ctrl_alt_del", must(vm:stop()).step)
      assert.are.equal(before, sum(path, "memory", "vmstate", "drive-drive1"))
      assert_nothing(world)
      local next_one <close> = must(fcproc.vm.restore(world.manager, again))
      pings(world, next_one)
      must(next_one:stop())
    end)
  end

  it("has all its interfaces, and shares the drives that nobody writes", function()
    local world <close> = support.bridged_world()
    local base, path = world.folder:file("base"), world.folder:file("snap")
    support.write_file(base, ("base"):rep(SECTOR))
    do
      local vm <close> = launch(world, { network = { {}, { isolated = false } },
        drives = { { path = base, read_only = true } } })
      assert.are.equal(0, must(vm:snapshot(path)).sizes["drive-drive1"] or 0)
    end
    assert.are.same({ "manifest.json", "memory", "vmstate" }, names_in(path))
    for _, jailer in ipairs{ false, JAIL } do
      local vm <close> = must(fcproc.vm.restore(world.manager, path, { jailer = jailer or nil }))
      pings(world, vm)
      assert.are.equal(2, #vm:record().taps)
      assert.are.equal(2, #must(world.manager:list_taps()))
      assert.are.equal(jailer and "link" or "symlink", must(vm:info()).drives[1].placed)
      must(vm:stop())
    end
    assert_nothing(world)
    os.remove(base)
    local err = fails("conflict", fcproc.vm.restore(world.manager, path))
    assert.is_truthy(err.message:find(base, 1, true), err.message)
  end)

  it("stays paused when asked", function()
    local world <close>, path = snapshot()
    local vm <close> = must(fcproc.vm.restore(world.manager, path, { paused = true }))
    assert.are.equal("paused", running(vm))
    must(vm:resume())
    pings(world, vm)
  end)

  it("has namesakes in other networks, each with a TAP, a vsock and a folder of its own", function()
    local first <close>, path = snapshot()
    local second <close> = support.bridged_world()
    local before = sum(path, "memory", "vmstate", "drive-drive1")
    local a <close> = must(fcproc.vm.restore(first.manager, path, { id = "a" }))
    local b <close> = must(fcproc.vm.restore(second.manager, path, { id = "b" }))
    local c <close> = must(fcproc.vm.restore(first.manager, path, { id = "c", jailer = JAIL,
      network = { attach = false } }))
    assert.are.equal(a:address(), b:address())
    pings(first, a)
    pings(second, b)
    local taps, folders, sockets = {}, {}, {}
    for _, vm in ipairs{ a, b, c } do
      local record = vm:record()
      taps[record.taps[1].name], folders[record.files.folder] = true, true
      local vsock = record.files.folder .. "/vsock.sock"
      assert.are.equal("socket", must(core.stat(vsock)).type)
      assert.are.equal(vm:pid(), must(first.manager:find_pid(vsock)))
      sockets[vsock] = true
      assert.are.equal(a:record().taps[1].guest_mac, record.taps[1].guest_mac)
    end
    for _, set in ipairs{ taps, folders, sockets } do
      local n = 0
      for _ in pairs(set) do n = n + 1 end
      assert.are.equal(3, n)
    end
    must(a:stop())
    pings(second, b)
    assert.are.equal("running", running(c))
    must(b:stop())
    must(c:stop())
    assert.are.equal(before, sum(path, "memory", "vmstate", "drive-drive1"))
    assert_nothing(first)
    assert_nothing(second)
  end)

  it("on the bridge of its namesake is refused, with what to do, and the first is unharmed", function()
    local world <close>, path = snapshot()
    local first <close> = must(fcproc.vm.restore(world.manager, path, { id = "first" }))
    local err = fails("conflict", fcproc.vm.restore(world.manager, path, { id = "second" }))
    assert.are.equal("first", err.owner)
    for _, text in ipairs{ first:address(), "'first'", "attach = false", "network namespace" } do
      assert.is_truthy(err.message:find(text, 1, true), err.message)
    end
    pings(world, first)
    must(first:stop())
    assert_nothing(world)
  end)

  it("without an address has its MAC alone on the bridge", function()
    local world <close>, path = snapshot{ network = { address = false } }
    local first <close> = must(fcproc.vm.restore(world.manager, path, { id = "first" }))
    local err = fails("conflict", fcproc.vm.restore(world.manager, path, { id = "second" }))
    assert.is_truthy(err.message:find("network.mac", 1, true), err.message)
    must(first:stop())
    assert_nothing(world)
  end)

  it("must be given as many interfaces as it has, or none", function()
    local world <close>, path = snapshot()
    local err = fails("invalid", fcproc.vm.restore(world.manager, path, { network = { {}, {} } }))
    assert.is_truthy(err.message:find("the snapshot has 1 interface", 1, true), err.message)
    assert_nothing(world)
  end)

  it("that is cancelled in the middle of its drive leaves nothing", function()
    local big <close> = support.folder()
    support.sh{ "sh", "-c", 'head -c 300000000 /dev/zero | tr "\\0" x > ' .. big:file("big") }
    local world <close>, path = snapshot{ drives = { { path = big:file("big") } } }
    local ctx <close> = must(fcproc.context())
    local results = fcproc.run{
      function() return fcproc.vm.restore(world.manager, path, { id = "clone" }, ctx) end,
      function()
        must(world.manager:wait_for_path(world.folder:file("run/clone/drive-drive1"), 10, "the copy"))
        ctx:cancel()
      end,
    }
    fails("cancelled", results[1][1], results[1][2])
    assert_nothing(world)
  end)
end)

describe("a snapshot that can't be restored", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is none: no folder, a file, an empty one", function()
    local world <close> = support.bridged_world()
    support.sh{ "mkdir", world.folder:file("empty") }
    support.write_file(world.folder:file("file"), "")
    for _, name in ipairs{ "none", "empty", "file" } do
      local err = fails("not_found", fcproc.vm.restore(world.manager, world.folder:file(name)))
      assert.is_truthy(err.message:find(world.folder:file(name), 1, true), err.message)
    end
  end)

  it("has a damaged manifest, and the place is named", function()
    local world <close>, path = snapshot()
    local good = cjson.decode(support.read_file(path .. "/manifest.json"))
    local function refused(text, want)
      local there = changed(path, "true")
      support.write_file(there .. "/manifest.json", text)
      local err = fails("protocol", fcproc.vm.restore(world.manager, there))
      assert.is_truthy(err.message:find(want, 1, true), err.message)
    end
    for _, text in ipairs{ "", "garbage", "7", '"format"', "\0\1" } do refused(text, "no JSON object") end
    refused("{}", "has the format nil")
    refused('{"format": 99}', "has the format 99")
    refused('{"format": 1}', "id is missing or wrong")
    for place, change in pairs{
      cpu = function(m) m.cpu = cjson.null end,
      firecracker = function(m) m.firecracker = "1.12.1" end,
      ["firecracker.version"] = function(m) m.firecracker.version = 7 end,
      sizes = function(m) m.sizes = nil end,
      vcpus = function(m) m.vcpus = 1.5 end,
      type = function(m) m.type = "Half" end,
      drives = function(m) m.drives = "all" end,
      ["drives[1]"] = function(m) m.drives[1] = "x" end,
      ["drives[1].name"] = function(m) m.drives[1].name = "../../x" end,
      ["drives[1].path"] = function(m) m.drives[1].path = 7 end,
      ["network[1].guest_mac"] = function(m) m.network[1].guest_mac = nil end,
      ["network[1].address"] = function(m) m.network[1].address = {} end,
    } do
      local manifest = cjson.decode(cjson.encode(good))
      change(manifest)
      refused(cjson.encode(manifest), place .. " is missing or wrong")
    end
    assert_nothing(world)
  end)

  it("was made elsewhere: another Firecracker, another CPU, without its drive", function()
    local world <close>, path = snapshot()
    local function edited(change, spec)
      local manifest = cjson.decode(support.read_file(path .. "/manifest.json"))
      change(manifest)
      local there = changed(path, "true")
      support.write_file(there .. "/manifest.json", cjson.encode(manifest))
      return fcproc.vm.restore(world.manager, there, spec)
    end
    local function another_cpu(m) m.cpu.model, m.cpu.model_name = "99", "Abacus" end
    local err = fails("conflict", edited(function(m)
      m.firecracker = { version = "1.3.0", snapshot_format = "1.0.0" }
    end))
    assert.is_truthy(err.message:find("was made by Firecracker 1.3.0", 1, true), err.message)
    err = fails("conflict", edited(another_cpu))
    assert.is_truthy(err.message:find("Abacus", 1, true) and err.message:find("any_cpu", 1, true))
    local vm <close> = must(edited(another_cpu, { any_cpu = true }))
    must(vm:stop())
    err = fails("conflict", edited(function(m)
      m.drives[1].read_only, m.drives[1].path = true, "/nonexistent/base"
    end))
    assert.is_truthy(err.message:find("'drive1'", 1, true) and err.message:find("/nonexistent/base", 1,
      true), err.message)
    assert_nothing(world)
  end)

  it("was cut or lost a file, which is seen before anything is made", function()
    local world <close>, path = snapshot()
    for command, want in pairs{
      ["truncate -s 1M memory"] = "its memory has 1048576 bytes",
      ["truncate -s 100 vmstate"] = "its vmstate has 100 bytes",
      ["rm memory"] = "no file memory", ["rm vmstate"] = "no file vmstate",
      ["rm drive-drive1"] = "needs the drive 'drive1'",
      ["truncate -s 0 drive-drive1"] = "its drive-drive1 has 0 bytes",
    } do
      local err = fails("conflict", fcproc.vm.restore(world.manager, changed(path, command)))
      assert.is_truthy(err.message:find(want, 1, true), err.message)
      assert_nothing(world)
    end
  end)

  it("is refused by Firecracker: its words are told, and nothing is left", function()
    local world <close>, path = snapshot()
    local there = changed(path, "printf x | dd of=vmstate bs=1 seek=200 conv=notrunc status=none")
    for _, jailer in ipairs{ false, JAIL, { uid = 1, gid = 1, daemonize = true } } do
      local err = fails("api", fcproc.vm.restore(world.manager, there, { jailer = jailer or nil }))
      assert.are.equal("start", err.step)
      assert.is_truthy(err.message:find("CRC64 validation failed", 1, true), err.message)
      assert.is_truthy(err.output:find("Running Firecracker", 1, true), err.output)
      assert_nothing(world)
    end
  end)
end)
