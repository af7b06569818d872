-- The store of images: each is there once and whole, and stays as long as anybody needs it.

local support = require "spec.support"
local boots = require "fcproc.image.boot"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local disks = require "fcproc.image.disk"
local entries = require "fcproc.image.entry"
local images = require "spec.support.stored"
local kernels = require "spec.support.kernels"
local prune = require "fcproc.image.prune"
local scratch = require "fcproc.image.scratch"
local sizes = require "fcproc.image.size"
local stores = require "fcproc.image.store"
local users = require "fcproc.resources.users"

local must, fails = support.must, support.fails

local building, disk_text = images.building, images.disk_text

local function names_in(path)
  local names = {}
  for i, entry in ipairs(must(core.list_dir(path))) do names[i] = entry.name end
  return table.concat(names, " ")
end

describe("a store", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }
  local store

  before_each(function()
    store = must(stores.open(dir:file("store")))
    must(store:prepare())
  end)

  it("is made when something comes into it, and not by who looks", function()
    local path = dir:file("none/store")
    local none = must(stores.open(path))
    assert.are.same({}, must(none:list()))
    assert.are.same({}, must(none:tags()))
    assert.are.equal(0, must(none:prune{ all = true }).bytes)
    assert.is_false(none:untag("one"))
    fails("not_found", none:find("one"))
    fails("not_found", fcproc.image.verify("one", { store = path }))
    fails("not_found", disks.disk("one", { store = path }))
    assert.is_nil(core.stat(dir:file("none")))
    must(none:make("aaaa1111", building"one"))
    assert.are.equal(1, #must(must(stores.open(path)):list()))
    fails("invalid", stores.open"")
    local here = must(core.absolute_path("."))
    assert.are.equal(here .. "/no/store", must(stores.open"no/store").path)
    assert.are.equal(here .. "/no", must(stores.open"./no").path)
  end)

  it("is called a store in what is said of it", function()
    support.sh{ "mkdir", "-m", "777", dir:file("open") }
    for _, path in ipairs{ dir:file("open/store"), "/proc/1/store", "/dev/null/store" } do
      local none, err = stores.open(path)
      if none then err = select(2, none:make("aaaa1111", building"one")) end
      assert.is_truthy(err)
      assert.is_nil(err.message:find("runtime", 1, true), err.message)
    end
    support.write_file(dir:file("open/file"), "x")
    support.sh{ "chmod", "755", dir:file("open") }
    support.sh{ "chmod", "777", store.path }
    for _, path in ipairs{ dir:file("open/file"), "/etc", store.path } do
      local err = fails("conflict", stores.open(path))
      assert.is_nil(err.message:find("runtime", 1, true), err.message)
    end
  end)

  -- Nothing of a build, and no lock, is left.
  local function assert_quiet()
    assert.are.equal("", names_in(store:at("partial")))
    assert.are.equal("", (names_in(store:at("locks")):gsub("@tags", "")))
  end

  it("has what was built, whole, and its names", function()
    local entry = must(store:make("aaaa1111", building"one"))
    assert.are.same({ "aaaa1111", "ext4", "tar:one" }, { entry.key, entry.kind, entry.source })
    assert.are.equal(store.path .. "/images/aaaa1111/disk.ext4", entry.path)
    assert.are.same({ 292, 448 }, { must(core.stat(entry.path)).mode, must(core.stat(entry.folder)).mode })
    assert.are.equal(2048, entry.files["disk.ext4"].bytes)
    must(store:tag("debian:12", "aaaa1111"))
    must(store:tag("docker.io/library/debian", "aaaa1111"))
    for _, name in ipairs{ "debian:12", "docker.io/library/debian", "aaaa1111" } do
      assert.are.equal("aaaa1111", must(store:find(name)).key)
    end
    must(store:make("bbbb2222", building"two"))
    must(store:tag("debian:12", "bbbb2222"))
    assert.are.equal("bbbb2222", must(store:find("debian:12")).key)
    local list = must(store:list())
    assert.are.same({ "aaaa1111", "bbbb2222" }, { list[1].key, list[2].key })
    assert.are.same({ { "docker.io/library/debian" }, { "debian:12" }, {} },
      { list[1].tags, list[2].tags, list[1].users })
    must(store:untag("debian:12"))
    local err = fails("not_found", store:find("debian:12"))
    assert.is_truthy(err.message:find("fcproc image build SOURCE --name debian:12", 1, true), err.message)
    fails("not_found", store:tag("x", "cccc3333"))
    for _, bad in ipairs{ "", "a b", "../x", "a//b", "a/", "-a", "@kernels", ("x"):rep(300), "tar:x",
      "oci-archive:x", "docker:x", "docker-daemon:x:y" } do
      fails("invalid", store:tag(bad, "aaaa1111"))
    end
    fails("not_found", store:find("../images/aaaa1111"))
    fails("not_found", store:entry("../images"))
    assert_quiet()
  end)

  it("builds once, however many ask at the same time", function()
    local built, tasks = 0, {}
    local function build(folder, ctx)
      built = built + 1
      must(fcproc.runner():run({ "sleep", "0.05" }, nil, ctx)) -- others run meanwhile
      return building"one"(folder)
    end
    for i = 1, 10 do
      tasks[i] = function(ctx) return must(must(stores.open(store.path)):make("aaaa1111", build, ctx)) end
    end
    for _, result in ipairs(fcproc.run(tasks)) do assert.are.equal("aaaa1111", result[1].key) end
    assert.are.equal(1, built)
    assert_quiet()
  end)

  it("is left as it was by a build that fails, raises or is cancelled, and the next one builds", function()
    local failure = select(2, core.stat("/nowhere"))
    assert.are.equal(failure, fails("not_found", store:make("aaaa1111", function(folder)
      support.write_file(folder .. "/half", "x")
      return nil, failure
    end)))
    support.raises("a mistake", store.make, store, "aaaa1111", function() error("a mistake") end)
    fails("invalid", store:make("aaaa1111", building("one", { kind = "zip" })))
    fails("invalid", store:make("aaaa1111", building("one", { source = "\27[2J" })))
    local ctx <close> = must(fcproc.context{ timeout = 0.02 })
    fails("deadline", store:make("aaaa1111", function(_, own)
      return fcproc.runner():run({ "sleep", "5" }, nil, own)
    end, ctx))
    assert_quiet()
    assert.are.equal("", names_in(store:at("images")))
    local held <close> = must(core.lock_file(store:at("locks", "aaaa1111")))
    local late <close> = must(fcproc.context{ timeout = 0.02 })
    fails("deadline", store:make("aaaa1111", building"one", late))
    must(held:remove())
    must(store:make("aaaa1111", building"one"))
    assert_quiet()
  end)

  it("goes on after a builder that died at any moment", function()
    local script = ([[
      local stores, core = require "fcproc.image.store", require "fcproc.core"
      local store = assert(stores.open(%q))
      local at = tonumber(arg[1])
      for _, name in ipairs{ "make_dir", "own_file", "sync", "hash_file", "write_file", "rename",
        "symlink" } do
        local real = core[name]
        core[name] = function(...)
          at = at - 1
          if at == 0 then core.process(tonumber((core.read_link("/proc/self")))):signal_number(9) end
          return real(...)
        end
      end
      assert(store:make("aaaa1111", function(folder)
        assert(core.create_file(folder .. "/disk.ext4", ("x"):rep(4096), 384))
        return { kind = "ext4", file = "disk.ext4" }
      end))
      assert(store:tag("one", "aaaa1111"))
    ]]):format(store.path)
    support.write_file(dir:file("builder.lua"), script)
    local steps, runner = 0, fcproc.runner()
    repeat
      steps = steps + 1
      local ok = runner:run{ support.lua, dir:file("builder.lua"), steps }
      local there = store:entry("aaaa1111") -- all of it, or nothing
      if there then must(entries.verify(there)) end
      must(prune.prune(store))
      assert_quiet()
      assert.is_true(ok == nil or store:find("one") ~= nil)
      -- The thread that read it to verify it may not have closed it yet.
      support.eventually("all is pruned", function()
        return #must(prune.prune(store, { all = true })).kept == 0
      end)
      assert.are.equal("", names_in(store:at("images")))
      assert.are.equal("", names_in(store:at("tags")))
    until ok
    assert.is_true(steps > 10)
  end)

  it("that is somebody else's, or that others may write to, is refused", function()
    local err = fails("conflict", stores.open(dir:file("link") .. (function()
      support.sh{ "ln", "-s", store.path, dir:file("link") }
      return ""
    end)()))
    assert.is_truthy(err.message:find(dir:file("link"), 1, true))
    support.sh{ "chmod", "777", store:at("images") }
    fails("conflict", stores.open(store.path))
    support.sh{ "chmod", "700", store:at("images") }
    support.sh{ "rmdir", store:at("tags") }
    support.sh{ "ln", "-s", store:at("images"), store:at("tags") }
    fails("conflict", stores.open(store.path))
    support.sh{ "rm", store:at("tags") }
    must(stores.open(store.path))
    support.sh{ "chown", "1234", store.path }
    fails("conflict", stores.open(store.path))
    support.sh{ "chown", "0", store.path }
    support.sh{ "chown", "1234", store:at("images") }
    fails("permission", stores.open(store.path))
    support.write_file(dir:file("file"), "")
    fails("conflict", stores.open(dir:file("file")))
  end)

  it("says what is damaged, and takes nothing of it", function()
    local entry = must(store:make("aaaa1111", building"one"))
    must(store:tag("one", "aaaa1111"))
    local json = support.read_file(entry.folder .. "/image.json")
    local function damage(text, fn)
      fn()
      local err = fails("conflict", store:find("one"))
      assert.is_truthy(err.message:find(text, 1, true), err.message)
      assert.are.equal("conflict", must(store:list())[1].err.code)
      support.write_file(entry.folder .. "/image.json", json)
    end
    local function saying(from, to)
      return function()
        assert.is_truthy(json:find(from, 1, true))
        support.write_file(entry.folder .. "/image.json", (json:gsub(from:gsub("%p", "%%%0"), to)))
      end
    end
    damage("no JSON", saying("{", ""))
    damage("key is no key", saying('"key":"aaaa1111"', '"key":"../../etc"'))
    damage("it says that it is aaaa2222", saying('"key":"aaaa1111"', '"key":"aaaa2222"'))
    damage("there is no other.ext4", saying('"file":"disk.ext4"', '"file":"other.ext4"'))
    damage("can't be the name of a file", saying('"files":{"disk.ext4"', '"files":{"../disk.ext4"'))
    damage("kind must be one of", saying('"kind":"ext4"', '"kind":"zip"'))
    damage("must be a SHA-256", saying(entry.files["disk.ext4"].hash, "00"))
    fails("unsupported", (function()
      saying('"format":1', '"format":2')()
      return store:find("one")
    end)())
    support.write_file(entry.folder .. "/image.json", json)
    must(entries.verify(must(store:find("one"))))
    local text = disk_text("two")
    support.write_file(entry.path, text)
    assert.is_truthy(fails("conflict", entries.verify(must(store:find("one")))).message
      :find("is not what it was", 1, true))
    damage("had 2048", function() support.write_file(entry.path, text:sub(2)) end)
    must(prune.prune(store))
    assert.are.equal("", names_in(store:at("images")))
  end)

  it("has what is damaged built anew, in its place, for who needs it", function()
    local entry = must(store:make("aaaa1111", building"one"))
    must(store:tag("one", "aaaa1111"))
    local user, path = dir:file("vm"), entry.folder .. "/image.json"
    support.sh{ "mkdir", user }
    must(users.add({ { path = entry.path, read_only = true } }, user))
    local json, whole = support.read_file(path), support.read_file(entry.path)
    local stood = core.stat(entry.folder).ino
    local function damage(text, fn, thorough)
      fn()
      local built = 0
      local function build(folder)
        built = built + 1
        return building"one"(folder)
      end
      local tasks = {}
      for i = 1, thorough and 3 or 1 do
        tasks[i] = function(ctx) return must(store:make("aaaa1111", build, ctx, thorough)).mended or "" end
      end
      local said = {}
      for i, result in ipairs(fcproc.run(tasks)) do said[i] = result[1] end
      assert.is_truthy(table.concat(said):find(text, 1, true), table.concat(said))
      assert.are.equal(1, built)
      assert.are.equal(whole, support.read_file(entry.path))
      must(entries.verify(must(store:find("one"))))
      assert.are.same({ user }, users.list(entry.folder))
      assert.are.equal(stood, core.stat(entry.folder).ino)
      assert_quiet()
    end
    damage("had 2048", function() support.write_file(entry.path, "x") end)
    damage("is no JSON", function() support.write_file(path, "") end)
    damage("it has no image.json", function() os.remove(path) end)
    damage("no file disk.ext4 any more", function()
      os.remove(entry.path)
      support.sh{ "mkdir", "-p", entry.path .. "/x" }
    end)
    damage("somebody else may write", function() support.sh{ "chmod", "666", entry.path } end)
    local other = disk_text("two")
    support.write_file(entry.path, other)
    assert.is_nil(must(store:make("aaaa1111", building"one")).mended) -- by its looks it is whole
    assert.is_nil(must(store:make("aaaa1111", building"one")).mended)
    damage("is not what it was", function() end, true)
    support.write_file(entry.path, "x")
    local failure = select(2, core.stat("/nowhere"))
    assert.are.equal(failure, fails("not_found", store:make("aaaa1111", function() return nil, failure end)))
    assert.are.equal("x", support.read_file(entry.path)) -- a build that fails changes nothing
    support.write_file(path, (json:gsub('"format":1', '"format":2')))
    fails("unsupported", store:make("aaaa1111", building"one"))
  end)

  it("is pruned of what nobody needs, and of nothing else", function()
    for i, key in ipairs{ "aaaa1111", "bbbb2222", "cccc3333", "dddd4444" } do
      must(store:make(key, building(key, { blobs = { "sha256:" .. ("%x"):format(i):rep(64) } })))
    end
    for i = 1, 5 do support.write_file(store:blob("sha256:" .. ("%x"):format(i):rep(64)), "blob") end
    must(scratch.template(store, "64MiB"))
    must(store:tag("named", "aaaa1111"))
    must(store:_keep("@kernel", "dddd4444"))
    support.sh{ "mkdir", dir:file("vm") }
    local drives = { { path = must(store:entry("bbbb2222")).path, read_only = true } }
    must(users.add(drives, dir:file("vm")))
    support.sh{ "mkdir", store:at("partial", "eeee5555"), store:at("partial", "ffff6666") }
    local building_it <close> = must(core.lock_file(store:at("locks", "ffff6666")))
    local told = must(prune.prune(store, { dry_run = true }))
    assert.are.equal(5, #must(store:list()))
    local report = must(prune.prune(store))
    assert.are.same(told.removed, report.removed)
    local removed = {}
    for i, entry in ipairs(report.removed) do removed[i] = entry.what .. " " .. entry.key end
    assert.are.same({ "leftover eeee5555", "image cccc3333" }, removed) -- blobs stay while one is built
    assert.are.same({ { key = "bbbb2222", why = dir:file("vm") .. " needs it" } }, report.kept)
    must(building_it:remove())
    support.sh{ "rmdir", store:at("partial", "ffff6666") }
    report = must(prune.prune(store))
    removed = {}
    for i, entry in ipairs(report.removed) do removed[i] = entry.what .. " " .. entry.key end
    assert.are.same({ "blob " .. ("3"):rep(64), "blob " .. ("5"):rep(64) }, removed)
    -- In use by a process, whoever it is.
    do
      local open <close> = assert(io.open(must(store:entry("aaaa1111")).path))
      report = must(prune.prune(store, { all = true }))
      assert.are.equal("a process has its disk.ext4 open", report.kept[1].why)
      assert.is_truthy(open)
    end
    assert.are.equal("aaaa1111 bbbb2222 dddd4444", names_in(store:at("images")))
    assert.are.equal("", names_in(store:at("blobs", "sha256"))) -- of images that stay, too
    users.remove(drives, dir:file("vm"))
    must(prune.prune(store, { all = true }))
    assert.are.equal("dddd4444", names_in(store:at("images")))
    assert.are.equal("@kernel", names_in(store:at("tags")))
    assert.is_true(report.bytes > 0)
  end)

  it("brings an image back that somebody came to need while it was going", function()
    must(store:make("aaaa1111", building"one"))
    local drives = { { path = must(store:entry("aaaa1111")).path, read_only = true } }
    local rename = core.rename
    core.rename = function(...) -- luacheck: ignore
      core.rename = rename -- luacheck: ignore
      must(users.add(drives, dir.path))
      return rename(...)
    end
    local report = must(prune.prune(store))
    assert.are.same({ dir.path .. " needs it" }, { report.kept[1].why })
    must(store:entry("aaaa1111"))
    users.remove(drives, dir.path)
    support.sh{ "mv", must(store:entry("aaaa1111")).folder, store:at("partial", "@going-aaaa1111") }
    fails("not_found", users.add(drives, dir.path))
    must(prune.prune(store))
    assert_quiet()
  end)
end)

describe("an image as a disk", function()
  it("is a base that is shared, with an empty disk over it", function()
    local dir <close> = support.folder()
    local store = must(stores.open(dir:file("store")))
    must(store:tag("one", must(store:make("aaaa1111", building"one")).key))
    must(store:make("bbbb2222", building("two", { kind = "tar" })))
    local disk = must(disks.disk("one", { store = store.path }))
    local drive = must(disk:disk())
    assert.are.same({ must(store:find("one")).path, true, true }, { drive.path, drive.root, drive.read_only })
    local size, head = core.disk_look(drive.overlay, 4096)
    assert.are.equal(2 << 30, size)
    assert.are.equal("\x53\xef", head:sub(1081, 1082))
    assert.is_true(must(core.stat(drive.overlay)).allocated < 1 << 20)
    support.sh{ "env", "PATH=/usr/sbin:/usr/bin:/bin", "e2fsck", "-fn", drive.overlay }
    assert.are.equal(drive.overlay, must(must(disks.disk("one", { store = store })):disk()).overlay)
    local given = { store = store, id = "base", root = false, io_engine = "Sync", rate_limit = { ops = {} } }
    drive = must(must(disks.disk("one", given)):disk())
    assert.are.same({ "base", false, true, "Sync", {} }, { drive.id, drive.root, drive.read_only,
      drive.io_engine, drive.rate_limit.ops })
    assert.is_nil(drive.overlay)
    drive = must(must(disks.disk("one", { store = store, copy = "reflink" })):disk())
    assert.are.same({ "reflink", false }, { drive.copy, drive.read_only })
    drive = must(must(disks.disk("one", { store = store, overlay = false })):disk())
    assert.are.same({ true }, { drive.read_only, drive.overlay })
    drive = must(must(disks.disk(must(store:find("one")).path, { store = store, overlay = "16MiB" })):disk())
    assert.are.equal(16 << 20, (core.disk_look(drive.overlay, 0)))
    fails("not_found", disks.disk("two", { store = store }))
    -- No registry is asked, nothing is built.
    for ref, says in pairs{ ["docker://one"] = false, ["docker://two"] = "asks no registry unless",
      ["dir:/etc"] = "fcproc image build dir:/etc --name NAME" } do
      local found, err = disks.disk(ref, { store = store })
      assert.are.equal(not says, found ~= nil)
      assert.is_true(not says or (err.code == "invalid" and err.message:find(says, 1, true) ~= nil))
    end
    fails("invalid", disks.disk("bbbb2222", { store = store }))
    for _, overlay in ipairs{ "1GiB", true } do
      fails("invalid", disks.disk("one", { store = store, overlay = overlay, copy = "sparse" }))
    end
    fails("invalid", must(disks.disk("one", { store = store, overlay = "2G" })):disk())
    fails("invalid", must(disks.disk("one", { store = store, overlay = "1MiB" })):disk())
    support.write_file(dir:file("text"), ("x"):rep(4096))
    fails("invalid", disks.disk(dir:file("text"), { store = store }))
    support.raises("unknown option 'size'", disks.disk, "one", { size = 1 })
  end)
end)

describe("what boots images", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }
  local store

  before_each(function()
    store = must(stores.open(dir:file("store")))
  end)

  it("is kept in the store, once, and stays", function()
    local kernel, initrd = images.kernel(dir)
    must(boots.keep(store, kernel))
    assert.is_nil(must(boots.default(store.path)).initrd)
    local kept = must(boots.keep(store, kernel, { initrd = initrd }))
    local boot = must(boots.default(store))
    assert.are.same({ kept.kernel, kept.initrd }, { boot.kernel, boot.initrd })
    assert.are.equal(kept.kernel, must(boots.keep(store, kernel, { initrd = initrd })).kernel)
    assert.are.equal(support.read_file(kernel), support.read_file(kept.kernel))
    assert.are.equal(support.read_file(initrd), support.read_file(kept.initrd))
    assert.is_nil(kept.mended)
    support.write_file(kept.initrd, ("j"):rep(512)) -- damaged: keeping it again mends it
    local mended = must(boots.keep(store, kernel, { initrd = initrd }))
    assert.are.equal("its initrd is not what it was", mended.mended)
    assert.are.equal(support.read_file(initrd), support.read_file(kept.initrd))
    must(prune.prune(store, { all = true }))
    assert.are.equal(kept.kernel, must(boots.default(store)).kernel)
    assert.are.equal(1, #must(store:list()))
    fails("not_found", boots.keep(store, "/nowhere"))
    fails("not_found", boots.keep(store, kernel, { initrd = "/nowhere" }))
    fails("invalid", boots.keep(store, kernel, { modules = dir.path }))
    support.write_file(dir:file("text"), "hello")
    fails("invalid", boots.keep(store, dir:file("text")))
    support.raises("unknown option 'gzip'", boots.keep, store, kernel, { gzip = true })
  end)

  -- A distribution's kernel with modules, as they lie in its package.
  local function package(version)
    local root = dir:file("package")
    support.sh{ "mkdir", "-p", root .. "/boot" }
    local vmlinux = kernels.vmlinux(version)
    local packed = kernels.packed(dir, "xz --check=crc32 -c", vmlinux)
    support.write_file(root .. "/boot/vmlinuz-" .. version,
      kernels.bzimage(packed .. string.pack("<I4", #vmlinux), version))
    kernels.folder_of({ path = root, file = function(_, name) return root .. "/" .. name end }, {
      [("lib/modules/%s/kernel/virtio_blk.ko"):format(version)] = { "name=virtio_blk", "depends=",
        "vermagic=" .. version .. " SMP" },
    })
    return root .. "/boot/vmlinuz-" .. version, ("%s/lib/modules/%s"):format(root, version), vmlinux
  end

  it("is a distribution's kernel, unpacked, with an initrd of the modules beside it", function()
    local kernel, modules, vmlinux = package("6.1.0-13-amd64")
    local kept = must(boots.keep(store, kernel))
    assert.are.equal(vmlinux, support.read_file(kept.kernel))
    assert.are.same({ "6.1.0-13-amd64", kernel }, { kept.version, kept.source })
    local names = support.sh({ "sh", "-c", 'cpio --quiet -t <"$1"', "sh", kept.initrd })
    assert.is_truthy(names:find("modules/virtio_blk.ko", 1, true), names)
    assert.are.equal(kept.initrd, must(boots.keep(store, kernel, { modules = modules })).initrd)
    assert.are.equal("6.1.0-13-amd64", must(boots.default(store)).version)
  end)

  it("is told how to get where there is none", function()
    local host = boots.host
    local unreadable
    boots.host = function() return nil, unreadable end
    local first = fails("not_found", boots.default(store)).message
    unreadable = "/boot/vmlinuz-6"
    local second = fails("not_found", boots.default(store)).message
    boots.host = function() return { kernel = "/etc/hostname", release = "6" } end
    local third = fails("invalid", boots.default(store)).message
    boots.host = host
    for message, says in pairs{ [first] = "boot it with: give one (kernel = FILE, --kernel FILE)",
      [second] = "since the host's own, /boot/vmlinuz-6, can't be read",
      [third] = "the host's own kernel can't" } do
      assert.is_truthy(message:find(says, 1, true), message)
      assert.is_truthy(message:find("fcproc image kernel --default FILE", 1, true), message)
    end
  end)

  it("is the host's own where none was kept, looked at anew when that changes", function()
    local kernel, modules, vmlinux = package("6.1.0-13-amd64")
    local host = { kernel = kernel, modules = modules, release = "6.1.0-13-amd64" }
    local first = must(boots.of_host(store, host))
    assert.are.equal(vmlinux, support.read_file(first.kernel))
    assert.is_truthy(first.initrd)
    assert.are.equal(first.kernel, must(boots.of_host(store, host)).kernel)
    support.sh{ "touch", "-d", "2 hours ago", kernel }
    local second = must(boots.of_host(store, host))
    assert.are_not.equal(first.kernel, second.kernel)
    must(prune.prune(store))
    assert.is_nil(core.stat(first.kernel))
    assert.is_truthy(core.stat(second.kernel))
  end)
end)

describe("a size", function()
  it("is written with its unit", function()
    for text, bytes in pairs{ ["2GiB"] = 2 << 30, ["300MB"] = 300000000, ["1.5KiB"] = 1536, ["512"] = 512,
      [4096] = 4096, ["1 TiB"] = 1 << 40 } do
      assert.are.equal(bytes, must(sizes.parse(text, "size")))
    end
    for text, says in pairs{ ["2G"] = "say 2GiB, of 1024 each, or 2GB, of 1000", ["x"] = "like 2GiB",
      ["-1"] = "like 2GiB", ["1.5"] = "like 2GiB", ["5000TiB"] = "more than a disk has",
      [""] = "like 2GiB" } do
      assert.is_truthy(fails("invalid", sizes.parse(text, "size")).message:find(says, 1, true))
    end
    assert.are.same({ "2 GiB", "1.5 KiB", "7 B" }, { sizes.text(2 << 30), sizes.text(1536), sizes.text(7) })
  end)
end)
