-- VMs restored from snapshots: direct and jailed, beside each other, and what can't be restored.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local cjson = require "cjson"
local snapshots = require "spec.support.snapshots"

local must, fails = support.must, support.fails
local JAIL, content, names_in = snapshots.JAIL, snapshots.content, snapshots.names_in
local pings, state_of = snapshots.pings, snapshots.state
local launch, assert_nothing = snapshots.launch, snapshots.assert_nothing
local snapshot = snapshots.snapshot

local function sum(folder, ...)
  return support.sh({ "sha256sum", ... }, { cwd = folder })
end

-- A copy of the snapshot, changed by a shell command in its folder.
local function changed(path, command)
  support.sh{ "rm", "-rf", path .. "-changed" }
  support.sh{ "cp", "-a", path, path .. "-changed" }
  if support.rootless then support.sh{ "chmod", "-R", "u+w", path .. "-changed" } end
  support.sh({ "sh", "-ec", command }, { cwd = path .. "-changed" })
  return path .. "-changed"
end

describe("a restored VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for from, to in pairs{ direct = false, jailed = false, ["direct, into a jail"] = JAIL,
    ["jailed, into a jail of its group"] = { uid = 4321, gid = 2345, new_pid_ns = true },
    ["jailed, into another jail"] = { uid = 4321, gid = 4321, daemonize = true } } do
    it("answers pings, with a disk of its own, and can be snapshotted again: " .. from, function()
      if to or from:find("^jailed") then support.direct_only(pending, snapshots.JAILER) end
      local world <close>, path = snapshot{ jailer = from:find("^jailed") and JAIL or nil }
      local before = sum(path, "memory", "vmstate", "drive-drive1")
      local vm <close> = must(fcproc.vm.restore(world.manager, path, { id = "clone",
        jailer = to or nil }))
      assert.are.equal("running", state_of(vm))
      pings(world, vm)
      local mine = vm:record().files.folder .. "/drive-drive1"
      assert.are.equal(384, must(core.stat(mine)).mode)
      assert.are.equal("first", support.read_file(mine):sub(1, 5))
      support.write_file(mine, content("clone"))
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

  it("shares its memory by a link with no user who could write to it", function()
    support.direct_only(pending, snapshots.JAILER)
    local world <close>, path = snapshot{ jailer = JAIL }
    support.sh{ "chmod", "711", world.folder.path, path }
    for what, case in pairs{
      ["of its group"] = { "true", true }, ["the owner"] = { "chown 1234 memory vmstate", false },
      ["another group"] = { "chgrp 7 memory vmstate; chmod o+r memory vmstate", false },
      ["a group that writes"] = { "chmod g+w memory vmstate", false },
    } do
      local there = changed(path, case[1])
      local vm <close> = must(fcproc.vm.restore(world.manager, there, { id = "clone", jailer = JAIL }))
      local jail = must(vm:info()).jail
      for _, name in ipairs{ "memory", "vmstate" } do
        assert.are.equal(case[2], jail.placed[name] == "link", what)
        local one, other = must(core.stat(there .. "/" .. name)), must(core.stat(jail.root .. "/" .. name))
        assert.are.equal(case[2], one.ino == other.ino, what)
      end
      must(vm:kill())
    end
  end)

  it("has all its interfaces, and shares the drives that nobody writes", function()
    local world <close> = support.bridged_world()
    support.sh{ "chmod", "755", world.folder.path } -- the jail's user must be able to read it himself
    local base, path = world.folder:file("base"), world.folder:file("snap")
    support.write_file(base, content("base"))
    do
      local vm <close> = launch(world, { network = { {}, { isolated = false } },
        drives = { { path = base, read_only = true } } })
      assert.are.equal(0, must(vm:snapshot(path)).sizes["drive-drive1"] or 0)
    end
    assert.are.same({ "manifest.json", "memory", "vmstate" }, names_in(path))
    for _, jailer in ipairs(snapshots.JAILS) do
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
    assert.are.equal("paused", state_of(vm))
    must(vm:resume())
    pings(world, vm)
  end)

  it("has namesakes in other networks, each with a TAP, a vsock and a folder of its own", function()
    local first <close>, path = snapshot()
    local second <close> = support.bridged_world()
    local before = sum(path, "memory", "vmstate", "drive-drive1")
    local a <close> = must(fcproc.vm.restore(first.manager, path, { id = "a" }))
    local b <close> = must(fcproc.vm.restore(second.manager, path, { id = "b" }))
    local c <close> = must(fcproc.vm.restore(first.manager, path, { id = "c", jailer = snapshots.JAILS[2],
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
    assert.are.equal("running", state_of(c))
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
        local copy = support.vmm_folder(world, "clone") .. "/drive-drive1"
        must(world.manager:wait_for_path(copy, 10, "the copy"))
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
    refused('{"format": [1]}', "has the format table")
    refused('{"format": 1}', "cpu is missing")
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
      refused(cjson.encode(manifest), "is damaged: " .. place .. " ")
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
    for _, field in ipairs{ "vendor_id", "cpu_family", "model" } do -- each decides alone
      for _, value in ipairs{ "another", false } do
        err = fails("conflict", edited(function(m) m.cpu[field] = value or nil end))
        assert.is_truthy(err.message:find("was made on another CPU", 1, true), err.message)
      end
    end
    local same <close> = must(edited(function(m)
      m.cpu.model_name, m.cpu.stepping, m.cpu.microcode = "Abacus", "99", nil
    end))
    must(same:stop())
    err = fails("conflict", edited(function(m)
      m.drives[1].read_only, m.drives[1].path = true, "/nonexistent/base"
    end))
    assert.is_truthy(err.message:find("'drive1'", 1, true) and err.message:find("/nonexistent/base", 1,
      true), err.message)
    assert_nothing(world)
  end)

  it("does not say how large a file was that may have been cut", function()
    local world <close>, path = snapshot()
    for _, name in ipairs{ "memory", "vmstate" } do
      local there = changed(path, "truncate -s 1M " .. name)
      local manifest = cjson.decode(support.read_file(path .. "/manifest.json"))
      manifest.sizes[name] = nil
      support.write_file(there .. "/manifest.json", cjson.encode(manifest))
      local err = fails("conflict", fcproc.vm.restore(world.manager, there))
      assert.is_truthy(err.message:find("does not tell the size of its " .. name, 1, true), err.message)
      assert_nothing(world)
    end
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
    local daemon = not support.rootless and { uid = 1, gid = 1, daemonize = true } or nil
    for _, jailer in ipairs{ false, snapshots.JAILS[2], daemon } do
      local err = fails("api", fcproc.vm.restore(world.manager, there, { jailer = jailer or nil }))
      assert.are.equal("start", err.step)
      assert.is_truthy(err.message:find("CRC64 validation failed", 1, true), err.message)
      assert.is_truthy(err.output:find("Running Firecracker", 1, true), err.output)
      assert_nothing(world)
    end
  end)
end)
