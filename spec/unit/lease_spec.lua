-- Leases: one VM of the host has a name, whatever its runtime folder; and what is stale goes only when
-- nobody uses what it stands for.

local support = require "spec.support"
local mounts = require "spec.support.mounts"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local lease = require "fcproc.resources.lease"
local namespaces = require "fcproc.resources.namespaces"
local uids = require "fcproc.resources.uids"

local must, fails = support.must, support.fails

-- Names that no other suite on this host has, and three uids that are nobody's.
local OWN = support.own_pid()
local UID = 65600 + OWN % 1400 * 3
local UID_LEASE, DRIVE = ("uid-%d"):format(UID), ("drive-1-%d"):format(OWN)

-- Another manager with a runtime folder of its own, and the leases as it sees them.
local function other(world, name, config)
  local all = { runtime_dir = world.folder:file(name), bridge_name = "fcbr0", netns = world.netns }
  for key, value in pairs(config or {}) do all[key] = value end
  local manager = must(fcproc.new(all))
  return must(lease.open(manager, true)), manager
end

local function own(world)
  return must(lease.open(world.manager, true))
end

-- A VM's folder, which stands behind its leases.
local function make_vm(leases, id)
  support.sh{ "mkdir", "-p", leases.manager.config.runtime_dir .. "/" .. id }
end

-- A process that does this, ended at the end of its block.
local function process(argv, spec)
  local all = { stdout = "null", stderr = "null" }
  for key, value in pairs(spec or {}) do all[key] = value end
  local started = must(fcproc.spawn(argv, all))
  return setmetatable({ pid = started:pid() }, { __close = function()
    started:signal("KILL")
    started:wait(10)
    started:close()
  end })
end

describe("a lease", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is one VM's of the host, and tells whose", function()
    local world <close> = support.world()
    local here = own(world)
    local there, manager = other(world, "elsewhere")
    make_vm(here, "web")
    must(here:take(DRIVE, "web"))
    must(here:take(DRIVE, "web"))
    assert.is_true(here:holds(DRIVE, "web"))
    assert.is_false(there:holds(DRIVE, "web"))
    local err = fails("conflict", here:take(DRIVE, "db"))
    assert.are.same({ "the VM 'web' has it", "web", world.folder:file("run") },
      { err.message, err.owner, err.folder })
    err = fails("conflict", there:take(DRIVE, "web"))
    assert.are.equal(("the VM 'web' of %s has it"):format(world.folder:file("run")), err.message)
    must(there:release(DRIVE, "web")) -- not its own
    assert.is_true(here:holds(DRIVE, "web"))
    must(here:release(DRIVE, "web"))
    must(there:take(DRIVE, "web"))
    assert.are.same({}, (here:list("web")))
    assert.are.same({ { name = DRIVE, owner = "web", folder = manager.config.runtime_dir } },
      (there:list("web")))
    must(there:release(DRIVE, "web"))
    manager:close()
  end)

  it("that leads to no VM is left for a person", function()
    local world <close> = support.world()
    local leases = own(world)
    local path = leases.folder .. "/" .. DRIVE
    local _ <close> = setmetatable({}, { __close = function() os.remove(path) end })
    must(core.symlink("somewhere", path))
    local err = fails("conflict", leases:take(DRIVE, "web"))
    assert.is_truthy(err.message:find("leads to 'somewhere', which is no VM's folder", 1, true))
    assert.are.equal(0, (leases:sweep()))
    assert.are.equal("somewhere", core.read_link(path))
  end)

  it("is written where nobody else can write", function()
    for _, case in ipairs{
      { "mkdir /run/fcproc; chown 1000 /run/fcproc", "/run/fcproc belongs to uid 1000" },
      { "mkdir -m 777 /run/fcproc", "/run/fcproc is open to others (mode 0777)" },
      { "mkdir /run/x; ln -s x /run/fcproc", "/run/fcproc is no folder of its own but a link" },
      { "touch /run/fcproc", "/run/fcproc is no folder of its own but a link or a file" },
      { "mkdir -m 700 /run/fcproc; mkdir -m 755 /run/fcproc/.host",
        "/run/fcproc/.host is open to others (mode 0755)" },
      { "mkdir -m 700 /run/fcproc /run/fcproc/.host; touch /run/fcproc/.host/leases",
        "/run/fcproc/.host/leases is no folder of its own but a link or a file" },
    } do
      local dir <close> = support.folder()
      mounts(dir, "mount -t tmpfs none /run; " .. case[1], ([[
        local manager = must(require "fcproc".new{ runtime_dir = dir .. "/run" })
        local lease = require "fcproc.resources.lease"
        local err = fails("conflict", lease.open(manager, true))
        assert(err.message:find(%q, 1, true), err.message)
      ]]):format(case[2]))
    end
  end)

  it("is the runtime folder's where the host's can't be written", function()
    local dir <close> = support.folder()
    mounts(dir, "mount -t tmpfs none /run; mount -o remount,ro /run", [[
      local lines = {}
      local manager = must(require "fcproc".new{ runtime_dir = dir .. "/run",
        logger = function(level, message)
          if level == "warn" then lines[#lines + 1] = message end
        end })
      must(manager:ensure_socket_dir())
      local lease = require "fcproc.resources.lease"
      local leases = must(lease.open(manager, true))
      must(leases:take("drive-1-2", "web"))
      assert(core.read_link(dir .. "/run/.host/leases/drive-1-2") == dir .. "/run/web")
      assert(lines[1]:find("^the host's leases can't be written down"), lines[1])
      assert(must(lease.open(manager)):holds("drive-1-2", "web"))
      must(manager:ensure_socket_dir()) -- it is ours, with that in it
      assert(#must(require "fcproc".vm.list(manager)) == 0)
    ]])
  end)

  it("of an ordinary user is his own", function()
    local dir <close> = support.folder()
    support.sh{ "chown", "65533:65533", dir.path }
    local text = ([[
      local manager = assert(require "fcproc".new{ runtime_dir = "%s/run" })
      print(manager.config.host_dir)
      assert(manager:ensure_socket_dir())
      local leases = assert(require "fcproc.resources.lease".open(manager, true))
      assert(leases:take("drive-1-2", "web"))
      assert(leases:release("drive-1-2", "web"))
    ]]):format(dir.path)
    -- Where the checkout is, he need not get to.
    support.sh{ "sh", "-ec", 'cp -r lua build "$1"; chmod -R a+rX "$1/lua" "$1/build"', "sh", dir.path }
    local env = { LUA_PATH = dir:file("lua/?.lua") .. ";" .. dir:file("lua/?/init.lua") .. ";;",
      LUA_CPATH = (os.getenv("FCPROC_SPEC_BUILD") or "build") and dir:file("build/?.so") .. ";;",
      PATH = os.getenv("PATH") }
    local out = must(fcproc.runner():run({ support.lua, "-e", text },
      { uid = 65533, gid = 65533, env = env, cwd = dir.path })).stdout
    assert.are.equal(dir:file("run") .. "\n", out) -- without a /run/user/65533
    assert.are.equal("dir", must(core.stat(dir:file("run/.host/leases"))).type)
  end)
end)

describe("a stale lease", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("gives way to a launch, and to a sweep of its folder", function()
    local world <close> = support.world()
    local leases = own(world)
    make_vm(leases, "web")
    must(leases:take(DRIVE, "web"))
    fails("conflict", leases:take(DRIVE, "db"))
    support.sh{ "rmdir", world.folder:file("run/web") }
    must(leases:take(DRIVE, "db"))
    assert.are.equal(1, (leases:sweep()))
    assert.are.same({}, (support.leases(world)))
  end)

  it("is not one whose VM is being made or removed", function()
    local world <close> = support.world()
    local leases = own(world)
    must(leases:take(DRIVE, "web"))
    support.sh{ "mkdir", "-p", world.folder:file("run/.fcproc/locks") }
    local lock <close> = must(core.lock_file(world.folder:file("run/.fcproc/locks/web")))
    fails("conflict", leases:take(DRIVE, "db"))
    assert.are.equal(0, (leases:sweep()))
    lock:remove()
    assert.are.equal(1, (leases:sweep()))
  end)

  it("of a folder that is not there stays for an hour: it may be in another mount namespace", function()
    local world <close> = support.world()
    local here = own(world)
    local there, manager = other(world, "elsewhere")
    must(there:take(DRIVE, "web"))
    local err = fails("conflict", here:take(DRIVE, "db"))
    assert.are.equal(("the VM 'web' of %s has it"):format(world.folder:file("elsewhere")), err.message)
    assert.are.equal(0, (here:sweep()))
    support.sh{ "touch", "-h", "-d", "2 hours ago", there.folder .. "/" .. DRIVE }
    must(here:take(DRIVE, "db"))
    assert.are.equal(1, (here:sweep()))
    manager:close()
  end)

  it("stays while a process has what it stands for", function()
    local world <close> = support.bridged_world()
    local leases = own(world)
    local disk = world.folder:file("disk")
    support.write_file(disk, "x")
    local file = must(core.stat(disk))
    local netns = namespaces.of(world.manager)
    local names = { drive = ("drive-%d-%d"):format(file.dev, file.ino), uid = ("uid-%d"):format(UID),
      tap = ("tap-%d-tap0"):format(netns), ip = ("ip-%d-fcbr0-172.30.0.9"):format(netns),
      mac = ("mac-%d-fcbr0-06:00:00:00:00:09"):format(netns) }
    for _, name in pairs(names) do must(leases:take(name, "web")) end
    do
      local _ <close> = process({ "sh", "-c", 'exec 3>>"$1"; exec sleep 60', "sh", disk })
      local _ <close> = process({ "sleep", "60" }, { uid = UID, gid = UID })
      local vm <close> = support.listening_vm(world, { tap = "tap0" })
      support.sh({ "ip", "link", "set", "tap0", "alias",
        ("fcproc:%s/web"):format(world.folder:file("run")) }, { netns = world.netns })
      support.eventually("they have begun", function()
        return core.uid_in_use(UID) and vm.process:alive()
          and support.sh{ "sh", "-c", 'ls -l /proc/[0-9]*/fd 2>/dev/null | grep -cF "$1" || true', "sh",
            disk } ~= "0\n"
      end)
      local dropped, kept = leases:sweep()
      local said = {}
      for _, entry in ipairs(kept) do said[entry.lease.name] = entry.by end
      assert.are.equal(0, dropped)
      assert.is_truthy(said[names.drive]:find("^pid %d+ writes to it"))
      assert.is_truthy(said[names.uid]:find("^pid %d+ %(sleep%) has it"))
      for _, kind in ipairs{ "tap", "ip", "mac" } do
        assert.is_truthy(said[names[kind]]:find(("the TAP tap0 is in use by pid %d ("):format(
          vm.process:pid()), 1, true), said[names[kind]])
      end
      for _, name in pairs(names) do fails("conflict", leases:take(name, "db")) end
    end
    -- A reader is not what a lease of a drive is about.
    local _ <close> = process({ "sh", "-c", 'exec 3<"$1"; exec sleep 60', "sh", disk })
    assert.are.equal(5, (leases:sweep()))
  end)

  it("of a namespace that is gone is stale, and of one that somebody only holds open is not", function()
    local world <close> = support.world()
    local leases = own(world)
    must(leases:take(("tap-1-t%d"):format(OWN), "web"))
    assert.are.equal(1, (leases:sweep()))
    local second <close> = must(fcproc.new_netns())
    local number = must(core.stat(("/proc/self/fd/%d"):format(second:fd()), true)).ino
    local found <close> = namespaces.find(number)
    assert.are.equal(number, must(core.stat(("/proc/self/fd/%d"):format(found:fd()), true)).ino)
    assert.is_nil(namespaces.find(1))
  end)

  it("of a namespace that is kept at a place with a blank in its name is not stale", function()
    local dir <close> = support.folder()
    mounts(dir, 'mkdir "$1/a b"; touch "$1/a b/ns"; unshare --net="$1/a b/ns" true', [[
      local namespaces = require "fcproc.resources.namespaces"
      local number = must(core.stat(dir .. "/a b/ns", true)).ino
      local found <close> = namespaces.find(number)
      assert(must(core.stat(("/proc/self/fd/%d"):format(must(found):fd()), true)).ino == number)
    ]])
  end)

  it("is dropped by one of many at once, and what is taken then stays", function()
    local world <close> = support.world()
    local leases = own(world)
    local script = ([[
      local fcproc, lease = require "fcproc", require "fcproc.resources.lease"
      local manager = assert(fcproc.new{ runtime_dir = %q, bridge_name = "fcbr0" })
      local leases, id, name, won = assert(lease.open(manager, true)), arg[1], arg[2], 0
      for _ = 1, 300 do
        local ok, err = leases:take(name, id)
        assert(ok or err.code == "conflict" or err.code == "busy", tostring(err))
        if ok then
          won = won + 1
          assert(leases:holds(name, id), "lost")
          assert(leases:release(name, id))
        end
        leases:take(name, "ghost")
        leases:sweep()
      end
      io.write(won)
    ]]):format(world.folder:file("run"))
    support.write_file(world.folder:file("race.lua"), script)
    local functions = {}
    for i = 1, 4 do
      local id = "vm" .. i
      make_vm(leases, id)
      functions[i] = function(ctx)
        return fcproc.runner():run({ support.lua, world.folder:file("race.lua"), id,
          UID_LEASE }, { timeout = 60 }, ctx)
      end
    end
    for _, result in ipairs(fcproc.run(functions)) do
      assert.is_true(tonumber(must(result[1], result[2]).stdout) > 0)
    end
    leases:sweep()
    assert.are.same({}, (support.leases(world)))
  end)
end)

describe("a uid", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function take(leases, id, jail, fleet)
    return uids.take(leases, id, jail, fleet or {})
  end

  it("is one jail's, or that of all who say so", function()
    local world <close> = support.world()
    local leases, there = own(world), other(world, "elsewhere")
    for _, id in ipairs{ "a", "b", "c" } do make_vm(leases, id) make_vm(there, id) end
    local alone, shared = { uid = UID, gid = 7 }, { uid = UID, gid = 7, shared_uid = true }
    assert.are.same({ UID, 7, UID_LEASE }, { take(leases, "a", alone) })
    for _, jail in ipairs{ alone, shared } do
      local err = fails("conflict", take(there, "b", jail))
      assert.is_truthy(err.message:find(("^jailer.uid: %d: the VM 'a' of /tmp/"):format(UID)), err.message)
      assert.is_truthy(err.message:find("or say shared_uid = true for both", 1, true))
    end
    must(leases:release(UID_LEASE, "a"))
    local _, _, first = take(leases, "a", shared)
    local _, _, second = take(there, "a", shared)
    assert.are_not.equal(first, second)
    local err = fails("conflict", take(leases, "b", alone))
    assert.is_truthy(err.message:find("shares it", 1, true), err.message)
    assert.is_nil(leases:owner(UID_LEASE))
    must(leases:release(first, "a"))
    fails("conflict", take(leases, "b", alone))
    must(there:release(second, "a"))
    assert.is_nil(core.stat(leases.folder .. "/" .. UID_LEASE .. "-shared"))
    must(take(leases, "b", alone))
  end)

  it("that is shared by one whose folder is gone is free for another alone", function()
    local world <close> = support.world()
    local leases = own(world)
    make_vm(leases, "b")
    must(take(leases, "ghost", { uid = UID, gid = 7, shared_uid = true }))
    must(take(leases, "b", { uid = UID, gid = 7 }))
    assert.is_nil(core.stat(leases.folder .. "/" .. UID_LEASE .. "-shared"))
    must(leases:release(UID_LEASE, "b"))
    must(take(leases, "ghost", { uid = UID, gid = 7, shared_uid = true }))
    assert.are.equal(1, (leases:sweep()))
    assert.is_nil(core.stat(leases.folder .. "/" .. UID_LEASE .. "-shared"))
  end)

  it("of root needs none", function()
    local world <close> = support.world()
    assert.are.same({ 0, 0 }, { take(own(world), "a", { uid = 0, gid = 0 }) })
    assert.are.same({}, (support.leases(world)))
  end)

  it("\"auto\" is free: no jail's, no process's, and none that others give away", function()
    local world <close> = support.world()
    local leases, manager = other(world, "elsewhere", { jailer_uids = { first = UID, count = 3 } })
    for _, id in ipairs{ "a", "b", "c", "d" } do make_vm(leases, id) end
    local taken = {}
    for _, id in ipairs{ "a", "b", "c" } do
      local uid, gid, name = take(leases, id, { uid = "auto" })
      assert.are.same({ uid, ("uid-%d"):format(uid) }, { gid, name })
      assert.is_nil(taken[uid])
      taken[uid] = id
    end
    local err = fails("busy", take(leases, "d", { uid = "auto" }))
    assert.is_truthy(err.message:find(("no uid of %d to %d is free; reclaim dead VMs"):format(UID,
      UID + 2), 1, true))
    for uid, id in pairs(taken) do must(leases:release(("uid-%d"):format(uid), id)) end
    -- The same VM gets the same again, and a gid that is asked for.
    local uid, gid = take(leases, "a", { uid = "auto", gid = 9 })
    assert.are.same({ "a", 9 }, { taken[uid], gid })
    must(leases:release(("uid-%d"):format(uid), "a"))
    do
      local _ <close> = process({ "sleep", "60" }, { uid = uid, gid = uid })
      support.eventually("it has begun", function() return core.uid_in_use(uid) end)
      local next_uid = take(leases, "a", { uid = "auto" })
      assert.are_not.equal(uid, next_uid)
      must(leases:release(("uid-%d"):format(next_uid), "a"))
    end
    for _, ranges in ipairs{ { { UID, UID + 1 } }, { { UID + 1, UID + 2 } },
      { { 1, UID }, { UID + 2, 1e9 } } } do
      local free = take(leases, "a", { uid = "auto" }, { taken_uids = ranges })
      for _, range in ipairs(ranges) do assert.is_false(free >= range[1] and free <= range[2]) end
      must(leases:release(("uid-%d"):format(free), "a"))
    end
    manager:close()
  end)

  it("that a file gives to somebody is not free", function()
    for file, line in pairs{ passwd = "x:x:%d:1::/:/bin/sh", group = "x:x:%d:", subuid = "x:%d:1",
      subgid = "x:%d:1" } do
      local dir <close> = support.folder()
      support.write_file(dir:file(file), line:format(UID) .. "\n")
      local etc = 'cp -a /etc "$1/etc"; mount --bind "$1/etc" /etc; cp "$1/%s" /etc/%s; '
      mounts(dir, etc:format(file, file), ([[
        local manager = must(require "fcproc".new{ runtime_dir = dir .. "/run",
          jailer_uids = { first = %d, count = 2 } })
        local leases = must(require "fcproc.resources.lease".open(manager, true))
        local uid, _, name = require "fcproc.resources.uids".take(leases, "a", { uid = "auto" }, {})
        assert(uid == %d, tostring(uid))
        must(leases:release(name, "a"))
      ]]):format(UID, UID + 1))
    end
  end)

  it("is never one's alone and shared, however many try", function()
    local world <close> = support.world()
    local leases = own(world)
    local script = ([[
      local fcproc, lease, core = require "fcproc", require "fcproc.resources.lease", require "fcproc.core"
      local manager = assert(fcproc.new{ runtime_dir = %q, bridge_name = "fcbr0" })
      local leases, id = assert(lease.open(manager, true)), arg[1]
      local marks, uid, won = arg[2], arg[3], 0
      local alone = id == "vm1" or id == "vm2"
      for _ = 1, 400 do
        local name, err
        if alone then
          name, err = leases:take_alone(uid, id)
          name = name and uid
        else
          name, err = leases:take_shared(uid, id)
        end
        assert(name or err.code == "conflict" or err.code == "busy", tostring(err))
        if name then
          won = won + 1
          local mine = marks .. "/" .. (alone and "alone" or "shared-" .. id)
          assert(core.symlink(id, mine))
          for _, entry in ipairs(assert(core.list_dir(marks))) do
            assert(entry.name:find("^shared") and not alone or entry.name == "alone" and alone, entry.name)
          end
          assert(core.remove_file(mine))
          assert(leases:release(name, id))
        end
      end
      io.write(won)
    ]]):format(world.folder:file("run"))
    support.write_file(world.folder:file("race.lua"), script)
    support.sh{ "mkdir", world.folder:file("marks") }
    local functions = {}
    for i = 1, 4 do
      local id = "vm" .. i
      make_vm(leases, id)
      functions[i] = function(ctx)
        return fcproc.runner():run({ support.lua, world.folder:file("race.lua"), id,
          world.folder:file("marks"), UID_LEASE }, { timeout = 60 }, ctx)
      end
    end
    local all = 0
    for _, result in ipairs(fcproc.run(functions)) do all = all + must(result[1], result[2]).stdout end
    assert.is_true(all > 100)
    assert.are.same({}, (support.leases(world)))
  end)
end)

describe("leases of an earlier fcproc", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("are held on the host, too, as long as their VM is there", function()
    local world <close> = support.bridged_world()
    local run = world.folder:file("run")
    support.sh{ "sh", "-ec", 'umask 077; mkdir -p "$1/.fcproc/leases" "$1/.fcproc/locks" "$1/web"; '
      .. 'cd "$1/.fcproc/leases"; for name in ip-172.30.0.9 tap-tap0 "$2"; do ln -s web "$name"; done; '
      .. 'ln -s ghost ip-172.30.0.10', "sh", run, DRIVE }
    local leases = own(world)
    local netns = namespaces.of(world.manager)
    assert.are.same({ DRIVE, ("ip-%d-fcbr0-172.30.0.9"):format(netns),
      ("tap-%d-tap0"):format(netns) }, (support.leases(world)))
    local err = fails("conflict", leases:take(("ip-%d-fcbr0-172.30.0.9"):format(netns), "db"))
    assert.are.equal("web", err.owner)
    assert.is_nil(core.read_link(run .. "/.fcproc/leases/ip-172.30.0.10"))
    assert.are.equal("web", core.read_link(run .. "/.fcproc/leases/ip-172.30.0.9"))
    support.sh{ "rmdir", run .. "/web" }
    assert.are.equal(3, (own(world):sweep()))
    assert.are.same({}, must(core.list_dir(run .. "/.fcproc/leases")))
  end)
end)
