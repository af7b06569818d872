-- A snapshot that is to last: in which order what is done, what its manifest says of it, and what a
-- restore believes. Firecracker is fake_api.lua, which writes what it is told: versions that are not
-- at hand are said to be there.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local finally = require "fcproc.finally"
local journals = require "fcproc.resources.journal"
local restoring = require "fcproc.vm.restore"
local snapshots = require "spec.support.snapshots"

local must, fails = support.must, support.fails
local FOLDER = "%.vm%.partial"

-- Wraps the functions of an object until it is closed: fn(name, ...) is called before each.
local function watch(object, names, fn)
  local before = {}
  for _, name in ipairs(names) do
    before[name] = rawget(object, name) or false
    local original = object[name]
    object[name] = function(...)
      fn(name, ...)
      return original(...)
    end
  end
  return finally(function()
    for name, original in pairs(before) do object[name] = original or nil end
  end)
end

-- A VM with a drive that it writes.
local function vm_with_drive(world)
  local vm = snapshots.slow_vm(world, 0, 0)
  local disk = world.folder:file("disk")
  support.write_file(disk, snapshots.content("disk"))
  vm.journal.record.drives = { { id = "a", name = "drive-a", path = disk } }
  must(vm.journal:save("running"))
  return vm
end

-- What is done to it while it is snapshotted, in turn; look(name) is called meanwhile.
local function steps_of(vm, path, opts, look)
  local steps = {}
  local function add(text) steps[#steps + 1] = text end
  local function file(name)
    return (name:gsub("^.*" .. FOLDER .. "$", "the folder"):gsub("^.*/", ""))
  end
  do
    local _ <close> = watch(core, { "copy_file", "seal_file", "sync", "hash_file", "write_file", "rename" },
      function(name, first)
        if look then look(name) end
        if first:find(FOLDER) or name == "copy_file" or first == path:match("^(.*)/") then
          if name == "write_file" then add("manifest") else
            add(name:match("%l+") .. " " .. (first == path:match("^(.*)/") and "the parent" or file(first)))
          end
        elseif name == "hash_file" and first:find("/exe$") then
          add("hash the program")
        end
      end)
    local _ <close> = watch(vm.machine, { "pause", "create_snapshot", "resume" }, add)
    must(vm:snapshot(path, opts))
  end
  return steps
end

describe("a snapshot", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has its name when all is on the disk, and holds the VM up for its state and drives only", function()
    local world <close> = support.world()
    local vm <close> = vm_with_drive(world)
    local while_hashing
    local steps = steps_of(vm, world.folder:file("snap"), nil, function(name)
      if name == "hash_file" then while_hashing = must(journals.read(world.manager, "vm")) end
    end)
    local at = {}
    for i, step in ipairs(steps) do at[step] = at[step] or i end
    for _, pair in ipairs{ { "hash the program", "pause" }, { "pause", "create_snapshot" },
      { "create_snapshot", "copy disk" }, { "copy disk", "resume" }, { "resume", "seal vmstate" },
      { "seal vmstate", "sync vmstate" }, { "seal memory", "sync memory" }, { "resume", "sync drive-a" },
      { "sync memory", "hash memory" }, { "sync drive-a", "hash drive-a" }, { "hash memory", "manifest" },
      { "hash drive-a", "manifest" }, { "manifest", "sync manifest.json" },
      { "sync manifest.json", "sync the folder" }, { "sync the folder", "rename the folder" },
      { "rename the folder", "sync the parent" } } do
      local first, second = at[pair[1]], at[pair[2]]
      assert.is_true(first ~= nil and second ~= nil and first < second,
        table.concat(pair, " < ") .. "\n" .. table.concat(steps, "\n"))
    end
    assert.are.equal("sync the parent", steps[#steps])
    -- Whoever takes it over now finds one that runs, and has only to remove.
    assert.are.same({ "snapshotting" }, { while_hashing.state, while_hashing.resume, while_hashing.paused })
    assert.is_truthy(while_hashing.snapshot)
  end)

  it("that is paused afterwards is told as such while it is finished", function()
    local world <close> = support.world()
    local vm <close> = vm_with_drive(world)
    local while_hashing
    local steps = steps_of(vm, world.folder:file("snap"), { keep_paused = true }, function(name)
      if name == "hash_file" then while_hashing = must(journals.read(world.manager, "vm")) end
    end)
    assert.is_falsy((table.concat(steps, "\n") .. "\n"):find("resume\n", 1, true))
    assert.is_true(while_hashing.paused)
    assert.is_true(must(journals.read(world.manager, "vm")).paused)
  end)

  it("whose program was replaced tells of the one that runs", function()
    local world <close> = support.world()
    local vm <close> = vm_with_drive(world)
    local manifest = must(vm:snapshot(world.folder:file("snap")))
    local runs = support.sh{ "sha256sum", ("/proc/%d/exe"):format(vm:pid()) }:match("^%x+")
    assert.are.equal(runs, manifest.firecracker.sha256) -- Lua's, and not record.binary's
    assert.are.equal("2M", manifest.huge_pages)
    assert.is_true(math.abs(manifest.created - os.time()) < 60)
    assert.are.equal("6.0.0", manifest.firecracker.snapshot_format) -- by the version that its API tells
    vm.journal.record.binary = world.folder:file("same")
    must(core.symlink(must(core.read_link(("/proc/%d/exe"):format(vm:pid()))), world.folder:file("same")))
    world.manager.snapshot_format = function(_, path)
      assert.are.equal(world.folder:file("same"), path)
      return "11.0.0"
    end
    manifest = must(vm:snapshot(world.folder:file("again"), { hash = false }))
    assert.are.equal("11.0.0", manifest.firecracker.snapshot_format) -- it names it itself
    assert.is_nil(manifest.firecracker.sha256)
  end)

  it("is verified file by file, whatever holes a copy has", function()
    local world <close> = support.world()
    local vm <close> = vm_with_drive(world)
    local path, copy = world.folder:file("snap"), world.folder:file("copy")
    local manifest = must(vm:snapshot(path))
    assert.are.same(manifest.hashes, must(fcproc.vm.verify(path)).hashes)
    for _, name in ipairs{ "memory", "vmstate", "drive-a" } do
      assert.are.equal(64, #manifest.hashes[name])
      support.sh{ "cp", "-r", "--sparse=always", path, copy }
      must(fcproc.vm.verify(copy))
      support.sh{ "chmod", "u+w", copy .. "/" .. name }
      local text = support.read_file(copy .. "/" .. name)
      support.write_file(copy .. "/" .. name, text:sub(1, 2) .. "\1" .. text:sub(4))
      local err = fails("conflict", fcproc.vm.verify(copy))
      assert.is_truthy(err.message:find("its " .. name .. " is not what it was", 1, true), err.message)
      support.sh{ "rm", "-rf", copy }
    end
    fails("not_found", fcproc.vm.verify(copy))
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", fcproc.vm.verify(path, ctx))
  end)

  it("without hashes can be restored, and not be verified", function()
    local world <close> = support.world()
    local vm <close> = vm_with_drive(world)
    local path = world.folder:file("snap")
    local steps = table.concat(steps_of(vm, path, { hash = false }), "\n")
    assert.is_falsy(steps:find("hash", 1, true), steps)
    assert.is_truthy(steps:find("sync memory", 1, true), steps)
    local err = fails("unsupported", fcproc.vm.verify(path))
    assert.is_truthy(err.message:find("made without", 1, true), err.message)
  end)
end)

describe("a restore", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- A snapshot's folder, and a manager whose Firecracker says to be another.
  local function snapshot(world, change)
    local path = world.folder:file("snap")
    do
      local vm <close> = vm_with_drive(world)
      must(vm:snapshot(path))
    end
    return function(version, format, spec)
      world.manager.binary_version = function() return version end
      world.manager.snapshot_format = function() return format end
      local file = path .. "/manifest.json"
      local manifest = require("cjson").decode(support.read_file(file))
      manifest.firecracker = { version = version, snapshot_format = format }
      change(manifest)
      support.sh{ "chmod", "u+w", file }
      support.write_file(file, require("cjson").encode(manifest))
      local plan = { spec = spec or {}, network = {}, given = {} }
      local ok, err = restoring.plan(world.manager, path, plan)
      if not ok then return nil, err end
      return plan
    end
  end

  -- What it sends for such a plan.
  local function body_of(plan)
    local sent
    local vm = { journal = { record = { taps = {} } }, machine = { version = "1.17.0",
      load_snapshot = function(_, body)
        sent = body
        return true
      end } }
    must(restoring.load(vm, plan))
    return sent
  end

  it("sets the guest's clock forward where Firecracker does, and else says how late it is", function()
    local world <close> = support.world()
    local restore = snapshot(world, function(manifest)
      manifest.huge_pages, manifest.created = "None", os.time() - 32
    end)
    for version, sets in pairs{ ["1.12.1"] = false, ["1.14.3"] = false, ["1.14.4"] = true,
      ["1.15.0"] = false, ["1.15.1"] = true, ["1.16.1"] = true, ["1.17.0-dev"] = true } do
      sets = sets and core.arch == "x86_64"
      local plan = must(restore(version, "8.0.0"))
      assert.are.equal(sets or nil, body_of(plan).clock_realtime, version)
      local warning = (plan.warnings or {})[1]
      assert.are.equal(not sets, warning ~= nil, version)
      if warning then
        assert.are.equal("clock", warning.name)
        assert.is_truthy(warning.message:find("it is 3%d s late"), warning.message)
      end
      plan = must(restore(version, "8.0.0", { clock_realtime = false }))
      assert.is_nil(body_of(plan).clock_realtime)
      assert.is_nil(plan.warnings)
    end
    local err = fails("unsupported", restore("1.15.0", "9.0.0", { clock_realtime = true }))
    assert.is_truthy(err.message:find("clock_realtime needs Firecracker >= 1.16 (or 1.14.4, 1.15.1), this is "
      .. "1.15.0", 1, true), err.message)
  end)

  it("into other pages than the snapshot's needs 1.17, and huge ones are loaded from no file", function()
    local world <close> = support.world()
    local pages = "2M"
    local restore = snapshot(world, function(manifest) manifest.huge_pages = pages end)
    for _, spec in ipairs{ {}, { huge_pages = "Snapshot" } } do
      local err = fails("unsupported", restore("1.17.0", "12.0.0", spec))
      assert.is_truthy(err.message:find("Uffd", 1, true), err.message)
    end
    assert.are.equal("Transparent", body_of(must(restore("1.17.0", "12.0.0",
      { huge_pages = "Transparent" }))).huge_pages)
    fails("unsupported", restore("1.12.1", "6.0.0"))
    local err = fails("unsupported", restore("1.16.1", "10.0.0", { huge_pages = "None" }))
    assert.is_truthy(err.message:find("huge_pages needs Firecracker >= 1.17, this is 1.16.1", 1, true),
      err.message)
    pages = "None"
    assert.is_nil(body_of(must(restore("1.12.1", "6.0.0", { track_dirty_pages = true }))).huge_pages)
  end)

  it("goes by the format that the binary names, since builds of one version may differ", function()
    local world <close> = support.world()
    local theirs = "11.0.0"
    local restore = snapshot(world, function(manifest)
      manifest.huge_pages, manifest.firecracker.snapshot_format = nil, theirs
    end)
    must(restore("1.17.0-dev", "11.0.0"))
    must(restore("1.17.0-dev", "11.2.0"))
    must(restore("1.16.1", "10.0.0")) -- of a release the version says it
    local err = fails("conflict", restore("1.17.0-dev", "12.0.0"))
    assert.is_truthy(err.message:find("(format 11.0.0), and this is 1.17.0-dev (format 12.0.0)", 1, true),
      err.message)
    theirs = nil
    must(restore("1.17.0-dev", "12.0.0"))
  end)

  it("reads the snapshot whole when it is asked to", function()
    local world <close> = support.world()
    local restore = snapshot(world, function(manifest) manifest.huge_pages = nil end)
    must(restore("1.12.1", "6.0.0", { verify = true }))
    local memory = world.folder:file("snap/memory")
    support.sh{ "chmod", "u+w", memory }
    support.write_file(memory, "WRITTEN")
    must(restore("1.12.1", "6.0.0"))
    local err = fails("conflict", restore("1.12.1", "6.0.0", { verify = true }))
    assert.is_truthy(err.message:find("its memory is not what it was", 1, true), err.message)
  end)
end)

describe("a binary", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("names the format of its snapshots", function()
    local world <close> = support.world()
    local named = support.sh{ support.firecracker(), "--snapshot-version" }:match("v(%d+%.%d+%.%d+)")
    assert.are.equal(named, must(world.manager:snapshot_format()))
    local err = fails("unsupported", world.manager:snapshot_format("/bin/true"))
    assert.is_truthy(err.message:find("/bin/true --snapshot-version did not answer", 1, true), err.message)
  end)
end)
