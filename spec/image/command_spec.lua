-- fcproc image build, inspect and verify, as an ordinary user types them.

local cjson = require "cjson"
local cli = require "spec.support.cli"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local imagecore = require "fcproc.imagecore"
local images = require "spec.support.images"
local support = require "spec.support"

local must = support.must

local NOBODY = 65534
local LONG = ("n"):rep(255)

local TAR = images.tar{
  { "etc/", kind = "dir" }, { "etc/hostname", data = "x\n" }, { "sbin/", kind = "dir" },
  { "sbin/init", data = "#!/bin/sh\n", mode = 493 }, { "bin/", kind = "dir" },
  { "bin/sh", data = "x", mode = 493 },
  { "caf\xc3\xa9", data = "UTF-8" }, { "cafe\xcc\x81", data = "another" }, { "caf\xe9", data = "Latin-1" },
  { LONG, data = "long" }, { "link", kind = "symlink", target = "caf\xe9" },
}

describe("fcproc image", function()
  before_each(support.before_each)

  local world
  before_each(function()
    world = cli.world()
    support.write_file(world.folder:file("root.tar"), TAR)
    support.sh{ "chmod", "755", world.folder.path }
    support.sh{ "mkdir", "-m", "700", world.folder:file("own") }
    support.sh{ "chown", "65534:65534", world.folder:file("own") }
  end)
  after_each(function() getmetatable(world).__close(world) end)
  after_each(support.after_each)

  local function own(name) return world.folder:file("own/" .. name) end

  -- As somebody without any right.
  local function run(args, more)
    local opts = { uid = NOBODY, gid = NOBODY, env = { HOME = world.folder:file("own") } }
    for key, value in pairs(more or {}) do opts.env[key] = value end
    return cli.run(world, args, opts)
  end

  local function works(args, more)
    local done = run(args, more)
    if done.status ~= 0 then error(done.out .. done.err, 2) end
    return done.out, done.err
  end

  it("builds, tells what it changed and what will hurt, and verifies", function()
    support.write_file(world.folder:file("motd"), "hello\n")
    local out, err = works{ "image", "build", world.folder:file("root.tar"), own("disk.ext4"),
      "--size", "32MiB", "--overlay", "/etc/motd=" .. world.folder:file("motd"),
      "--manifest", own("manifest.json") }
    assert.is_truthy(out:find("disk.ext4: ext4, 32 MiB, ", 1, true), out)
    assert.is_truthy(out:find("put +/etc/motd +asked for\n") and out:find("link +/etc/resolv.conf"), out)
    assert.is_truthy(err:find("warning: what /sbin/init is run by, /bin/sh, is neither", 1, true), err)
    assert.are.equal(32 << 20, core.stat(own("disk.ext4")).size)
    assert.is_truthy(works{ "image", "verify", own("disk.ext4"), "--manifest", own("manifest.json") }
      :find("whole (digest, e2fsck)", 1, true))
    support.sh{ "sh", "-c", "printf x | dd status=none conv=notrunc of=" .. own("disk.ext4") }
    assert.are.equal(4, run{ "image", "verify", own("disk.ext4"), "--manifest", own("manifest.json") }.status)
    out = works{ "image", "inspect", "tar:" .. world.folder:file("root.tar") }
    assert.is_truthy(out:find("init +/sbin/init\n") and out:find("\nbad_init: ", 1, true), out)
  end)

  it("tells that a manifest can't be written before there is a target", function()
    local source = world.folder:file("root.tar")
    for manifest, status in pairs{ [own("none/x")] = 3, [world.folder:file("x")] = 5, [own("")] = 2,
      [own("../own/disk")] = 2, ["/dev/stdout"] = 4 } do
      local done = run{ "image", "build", source, own("disk"), "--manifest", manifest }
      assert.are.equal(status, done.status, done.err)
      assert.is_nil(core.stat(own("disk")))
    end
  end)

  it("makes a store when there is something for it, wherever that is said to be", function()
    local path = own("deep/store")
    assert.is_truthy(works{ "image", "--store", path, "list" }:find("^IMAGE"))
    works{ "image", "--store", path, "prune", "--all" }
    for _, args in ipairs{ { "verify", "web" }, { "inspect", "web" }, { "build", "web", own("x") } } do
      assert.are.equal(3, run{ "image", "--store", path, table.unpack(args) }.status)
    end
    assert.is_nil(core.stat(own("deep")))
    local here = must(core.absolute_path("."))
    local done = run{ "image", "--store", "no/store", "verify", "web" }
    assert.is_truthy(done.err:find(here .. "/no/store", 1, true), done.err)
    local args = { "image", "--store", path, "build", world.folder:file("root.tar"), "--name", "web" }
    works(args)
    assert.is_truthy(works(args):find("which the store had", 1, true))
    local target = cjson.decode((works{ "--json", "image", "--store", path, "list" }))[1].path
    support.write_file(target, "damaged")
    local out = works(args)
    assert.is_truthy(out:find("the store's was damaged: its disk.ext4 has 7 bytes, and had ", 1, true), out)
    out = works{ "image", "--store", path, "verify", "web" }
    assert.is_truthy(out:find("whole (store, e2fsck)", 1, true), out)
  end)

  it("says the same as JSON", function()
    local source = world.folder:file("root.tar")
    local text = works{ "--json", "image", "build", source, own("x.tar"), "--format", "tar" }
    local report = cjson.decode(text)
    assert.are.equal("tar", report.format)
    assert.are.equal("bad_init", report.warnings[1].name)
    assert.are.equal(#report.edits, #report.manifest.edits)
    text = works{ "--json", "image", "build", source, own("y.tar"), "--format", "tar", "--as-is" }
    assert.is_truthy(text:find('"edits":[]', 1, true) and not text:find('"edits":{}', 1, true), text)
  end)

  it("ends with the status of what went wrong", function()
    local source = world.folder:file("root.tar")
    for status, args in pairs{
      [2] = { source, own("x"), "--size", "1M" },
      [3] = { world.folder:file("nowhere.tar"), own("x") },
      [4] = { source, world.folder:file("own") }, [5] = { source, world.folder:file("not-mine") },
    } do
      local done = run{ "--json", "image", "build", table.unpack(args) }
      assert.are.equal(status, done.status, done.err)
      assert.is_truthy(cjson.decode(done.out).error.message)
    end
    assert.are.equal(2, run{ "image", "build", source, own("x"), "--format", "qcow2" }.status)
    for _, size in ipairs{ "10", "10x" } do
      assert.are.equal(2, run{ "image", "build", source, own("x"), "--max-size", size }.status)
      assert.are.equal(2, run{ "image", "inspect", source, "--max-size", size }.status)
    end
    local done = run{ "image", "build", source }
    assert.are.equal(2, done.status)
    assert.is_truthy(done.err:find("no target is given: name the file", 1, true), done.err)
    assert.are.equal(3, run{ "image", "build", "no-such-name", own("x") }.status)
    assert.are.equal(124, run{ "--timeout", "0", "image", "build", source, own("x") }.status)
    local pipe <close> = must(imagecore.pipe())
    do
      local waiting <close> = cli.start(world, { "--timeout", "0.3", "image", "build", "tar:-",
        world.folder:file("x") }, { stdin = pipe:reader() })
      assert.are.equal(124, waiting:wait())
      assert.are.equal("fcproc: reading was not finished when the context's deadline passed (deadline)\n",
        support.read_file(waiting.err))
    end
    for _, from in ipairs{ "tar:-", "docker-archive:-", "tar:/dev/null" } do
      done = cli.run(world, { "image", "build", from, world.folder:file("x") }, { input = "" })
      assert.are.equal(2, done.status)
      assert.is_truthy(done.err:find(from:find("-", 1, true) and "standard input is empty"
        or "/dev/null is empty", 1, true), done.err)
    end
    assert.are.equal("", support.sh{ "ls", "-A", world.folder:file("own") })
  end)

  it("makes an initrd, and says when it has no modules", function()
    local _, err = works{ "image", "initrd", own("initrd") }
    assert.is_truthy(err:find("warning: it has no modules", 1, true), err)
    local done = run{ "image", "initrd", own("other"), "--module", "virtio_blk" }
    assert.are.equal(2, done.status)
    assert.is_truthy(done.err:find("are looked for where modules (--modules) says", 1, true), done.err)
  end)

  it("reads names in any locale as the bytes that they are", function()
    support.sh{ "localedef", "-i", "en_US", "-f", "ISO-8859-1", world.folder:file("latin") }
    support.sh{ "chmod", "-R", "a+rX", world.folder:file("latin") }
    support.write_file(world.folder:file("build.lua"), [[
      assert(os.setlocale("") == os.getenv("LC_ALL"))
      local report = assert(require("fcproc").image.build(arg[1], arg[2], { as_is = true }))
      assert(#report.notes == 0, report.notes[1])
    ]])
    local first
    for _, locale in ipairs{ "C", "C.UTF-8", "latin" } do
      local env = { LC_ALL = locale, LOCPATH = locale == "latin" and world.folder.path or nil }
      support.sh({ support.lua, world.folder:file("build.lua"), world.folder:file("root.tar"), own("disk") },
        { uid = NOBODY, gid = NOBODY, env = cli.env(world, env) })
      local text = support.read_file(own("disk"))
      first = first or text
      assert.is_true(first == text, locale)
    end
  end)

  it("reads standard input", function()
    local done = cli.run(world, { "image", "build", "tar:-", own("out.tar"), "--format", "tar" },
      { uid = NOBODY, gid = NOBODY, input = images.gzip(TAR) })
    assert.are.equal(0, done.status, done.err)
    local found = images.untar(support.read_file(own("out.tar")))
    assert.are.equal("UTF-8", found["caf\xc3\xa9"].data)
    assert.are.equal("another", found["cafe\xcc\x81"].data)
    assert.are.equal("Latin-1", found["caf\xe9"].data)
    assert.are.equal("long", found[LONG].data)
    assert.are.equal("caf\xe9", found.link.target)
  end)

  it("ends by a signal as by its context's end, with nothing left, and tells it", function()
    local store = world.folder:file("store")
    for name, number in pairs{ TERM = 15, HUP = 1, INT = 2, QUIT = 3 } do
      local pipe <close> = must(imagecore.pipe())
      local build <close> = cli.start(world, { "--json", "image", "--store", store, "build", "tar:-",
        world.folder:file("copy"), "--name", "web" }, { stdin = pipe:reader() })
      support.eventually("it builds", function()
        return #(core.list_dir(store .. "/partial") or {}) > 0
      end)
      must(build.process:signal(name))
      assert.are.equal(128 + number, build:wait())
      local err = cjson.decode(support.read_file(build.out)).error
      assert.are.same({ "cancelled", "interrupted by SIG" .. name, number }, { err.code, err.message,
        err.signal })
      assert.are.equal("fcproc: interrupted by SIG" .. name .. " (cancelled)\n", support.read_file(build.err))
      for _, folder in ipairs{ "partial", "images", "tags" } do
        assert.are.equal(0, #must(core.list_dir(store .. "/" .. folder)), folder)
      end
      assert.are.equal(0, #must(core.list_dir(store .. "/locks")))
    end
    -- One that it was started to ignore stays ignored.
    local pipe <close> = must(imagecore.pipe())
    local build <close> = cli.start(world, { "image", "build", "tar:-", world.folder:file("copy") },
      { stdin = pipe:reader(), before = { "nohup" } })
    support.eventually("it builds", function()
      local status = support.read_file(("/proc/%d/status"):format(build.process:pid()))
      return tonumber(status:match("SigBlk:%s*(%x+)"), 16) & 1 << 14 ~= 0 -- it waits for SIGTERM
    end)
    must(build.process:signal("HUP"))
    must(build.process:signal("TERM"))
    assert.are.equal(143, build:wait())
  end)

  it("shows how far it is at a terminal, and nothing of that elsewhere", function()
    local argv = { "python3", "spec/support/terminal.py", "--", support.lua, "lua/bin/fcproc",
      "image", "build", world.folder:file("root.tar"), world.folder:file("disk") }
    local shown = must(fcproc.runner():run(argv, { env = cli.env(world) })).stdout
    assert.is_truthy(shown:find("\r\27[Kreading", 1, true), shown)
    assert.is_truthy(shown:find("\r\27[Kfcproc: warning: ", 1, true), shown) -- the line has gone
    local _, err = works{ "image", "build", world.folder:file("root.tar"), own("disk") }
    assert.is_nil(err:find("\27", 1, true))
  end)
end)

describe("the line of a progress", function()
  local progress = require "fcproc.cli.progress"

  it("has a bar when the end is known, and a rate", function()
    local function line(step, bytes, total, entries, seconds)
      return progress.line({ step = step, bytes = bytes, total = total, entries = entries }, seconds)
    end
    assert.are.equal("reading", line("reading", 0, 0, 0, 0))
    local bar = ("#"):rep(12) .. (" "):rep(12)
    assert.are.equal("writing  [" .. bar .. "]  50%  1.0 MiB  512.0 KiB/s  7 entries",
      line("writing", 1 << 20, 2 << 20, 7, 2))
    assert.is_truthy(line("x", 5, 3, 0, 0):find("100%", 1, true))
  end)
end)
