-- Snapshots that somebody else may have made: their manifest and their files reach nothing of the host
-- that the jail's user, or who made them, could not reach; and root runs none without a jail unasked.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local cjson = require "cjson"
local cli = require "spec.support.cli"
local snapshots = require "spec.support.snapshots"

local must, fails = support.must, support.fails
local JAIL, content = snapshots.JAIL, snapshots.content
local assert_nothing = snapshots.assert_nothing
local OWNER <const> = 4242

-- A world that others may look into, with a snapshot in a folder of its own.
local function snapshot()
  local world = support.bridged_world()
  support.sh{ "chmod", "755", world.folder.path }
  local base, path = world.folder:file("base"), world.folder:file("snaps/snap")
  support.write_file(base, content("base"))
  support.sh{ "chmod", "644", base }
  support.sh{ "mkdir", world.folder:file("snaps") }
  local vm <close> = snapshots.launch(world, { drives = { { path = base, id = "base", read_only = true },
    { path = base, id = "own", copy = "sparse" } } })
  must(vm:snapshot(path))
  return world, path, base
end

-- Its read-only drive's path is another.
local function names(path, drive_path)
  local manifest = cjson.decode(support.read_file(path .. "/manifest.json"))
  manifest.drives[1].path = drive_path
  support.write_file(path .. "/manifest.json", cjson.encode(manifest))
end

describe("a path that only a manifest names", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is used when the jail's user may read it himself, and else is not, whoever copies", function()
    local world <close>, path, base = snapshot()
    do
      local vm <close> = must(fcproc.vm.restore(world.manager, path, { jailer = JAIL }))
      assert.are.equal("link", must(vm:info()).drives[1].placed)
      must(vm:stop())
    end
    support.sh({ "sh", "-ec", [[
      mkdir closed; chmod 700 closed; cp -p base closed/base
      cp base secret; chmod 600 secret; ln -s base linked
    ]] }, { cwd = world.folder.path })
    for name, code in pairs{ ["closed/base"] = "permission", secret = "permission", linked = "conflict" } do
      names(path, world.folder:file(name))
      for _, jailer in ipairs{ JAIL, { uid = "auto" } } do
        local err = fails(code, fcproc.vm.restore(world.manager, path, { jailer = jailer }))
        for _, text in ipairs{ "'base'", world.folder:file(name), "drives = { ID = path }" } do
          assert.is_truthy(err.message:find(text, 1, true), err.message)
        end
        assert_nothing(world)
      end
    end
    -- The caller's own word counts as at a launch.
    for name, code in pairs{ ["closed/base"] = false, base = false, secret = "invalid", none = "invalid" } do
      local vm, err = fcproc.vm.restore(world.manager, path, { jailer = JAIL,
        drives = { base = world.folder:file(name) } })
      if code then
        fails(code, vm, err)
        assert.is_truthy(err.message:find("drives.base", 1, true), err.message)
      else
        must(vm, err)
        assert.are.equal(world.folder:file(name), vm:record().drives[1].path)
        assert.are.equal(must(core.stat(world.folder:file(name))).ino,
          must(core.stat(vm:record().files.folder .. "/drive-base")).ino)
        must(vm:stop())
      end
    end
    for id, text in pairs{ own = "that drive itself", other = "no such drive" } do
      local err = fails("invalid", fcproc.vm.restore(world.manager, path, { jailer = JAIL,
        drives = { base = base, [id] = base } }))
      assert.is_truthy(err.message:find(text, 1, true), err.message)
    end
    fails("invalid", fcproc.vm.restore(world.manager, path, { drives = { base } }))
    -- On another file system it is mounted, as what its user has opened.
    local elsewhere = "/dev/shm/fcproc-spec-" .. support.own_pid()
    local _ <close> = setmetatable({}, { __close = function() os.remove(elsewhere) end })
    support.write_file(elsewhere, content("base"))
    support.sh{ "chmod", "600", elsewhere }
    names(path, elsewhere)
    fails("permission", fcproc.vm.restore(world.manager, path, { jailer = JAIL }))
    support.sh{ "chmod", "644", elsewhere }
    local vm <close> = must(fcproc.vm.restore(world.manager, path, { jailer = JAIL }))
    assert.are.equal("mount", must(vm:info()).drives[1].placed)
    must(vm:stop())
    assert_nothing(world)
  end)
end)

describe("a snapshot that others could have written to", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local CHANGES = {
    ["its folder is another user's"] = "chown 4242 snap",
    ["others may write in its folder"] = "chmod 777 snap",
    ["a folder above is another user's"] = "chown 4242 .",
    ["others may write in a folder above"] = "chmod 777 .",
    ["a file of it is another user's"] = "chown 4242 snap/vmstate",
    ["others may write to a file of it"] = "chmod 666 snap/drive-own",
  }

  it("is run without a jail by root only when asked", function()
    local world <close>, path = snapshot()
    local snaps = world.folder:file("snaps")
    do
      local vm <close> = must(fcproc.vm.restore(world.manager, path))
      must(vm:stop())
    end
    for what, command in pairs(CHANGES) do
      support.sh{ "cp", "-a", snaps, snaps .. ".kept" }
      support.sh({ "sh", "-ec", command }, { cwd = snaps })
      local err = fails("conflict", fcproc.vm.restore(world.manager, path))
      assert.is_truthy(err.message:find("trust = true", 1, true), what .. ": " .. err.message)
      assert.is_nil(err.message:find("runtime_dir", 1, true), err.message)
      assert_nothing(world)
      local vm <close> = must(fcproc.vm.restore(world.manager, path, { trust = true }))
      must(vm:stop())
      support.sh{ "rm", "-r", snaps }
      support.sh{ "mv", snaps .. ".kept", snaps }
    end
    assert_nothing(world)
  end)

  it("and whose drive is elsewhere is run by the command with --trust and --drive", function()
    local world <close>, path, base = snapshot()
    support.sh{ "chown", tostring(OWNER), path }
    support.sh{ "mv", base, base .. ".moved" }
    local trust, drive = { "--trust" }, { "--drive", "base=" .. base .. ".moved" }
    for _, case in ipairs{ { {}, drive, "--trust" }, { trust, {}, "--drive ID=PATH" },
      { trust, { "--drive", "base" }, "malformed --drive 'base'" } } do
      local argv = { "restore", path, "-d", "--id", "clone" }
      for _, options in ipairs{ case[1], case[2] } do table.move(options, 1, #options, #argv + 1, argv) end
      local done = cli.run(world, argv)
      assert.are_not.equal(0, done.status)
      assert.is_truthy(done.err:find(case[3], 1, true), done.err)
    end
    cli.ok(world, "restore", path, "-d", "--id", "clone", "--trust", table.unpack(drive))
    local vm <close> = must(fcproc.vm.adopt(world.manager, "clone"))
    assert.are.equal(base .. ".moved", vm:record().drives[1].path)
    must(vm:stop())
    assert_nothing(world)
  end)

  it("is run in a jail, but its files are read with the rights of who has its folder", function()
    local world <close>, path = snapshot()
    local secret = world.folder:file("secret")
    support.write_file(secret, content("a secret of the host"))
    support.sh{ "chmod", "600", secret }
    support.sh{ "chown", "-R", ("%d:%d"):format(OWNER, OWNER), path }
    do
      local vm <close> = must(fcproc.vm.restore(world.manager, path, { jailer = JAIL }))
      assert.are.equal("running", must(vm:info()).state)
      must(vm:stop())
    end
    for _, name in ipairs{ "memory", "vmstate", "drive-own" } do
      for link, code in pairs{ ["ln"] = "permission", ["ln -s"] = "conflict" } do
        support.sh{ "cp", "-a", path, path .. ".kept" }
        support.sh{ "sh", "-c", ("%s -f '%s' '%s/%s'"):format(link, secret, path, name) }
        local manifest = cjson.decode(support.read_file(path .. "/manifest.json"))
        manifest.sizes[name] = must(core.stat(path .. "/" .. name)).size
        support.write_file(path .. "/manifest.json", cjson.encode(manifest))
        local err = fails(code, fcproc.vm.restore(world.manager, path, { jailer = JAIL }))
        assert.is_truthy(err.message:find(path .. "/" .. name, 1, true), err.message)
        assert_nothing(world)
        support.sh{ "rm", "-r", path }
        support.sh{ "mv", path .. ".kept", path }
      end
    end
    -- A folder of root's that others may have moved there: a second name of a file may be anything's.
    support.sh{ "chown", "-R", "0:0", path }
    support.sh{ "chown", tostring(OWNER), world.folder:file("snaps") }
    support.sh{ "ln", path .. "/memory", world.folder:file("second") }
    local err = fails("conflict", fcproc.vm.restore(world.manager, path, { jailer = JAIL }))
    assert.is_truthy(err.message:find("2 names", 1, true), err.message)
    os.remove(world.folder:file("second"))
    local vm <close> = must(fcproc.vm.restore(world.manager, path, { jailer = JAIL }))
    must(vm:stop())
    assert_nothing(world)
  end)
end)
