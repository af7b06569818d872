-- What is changed in a tree for a microVM, and what is found in it that will hurt there.

local edits = require "fcproc.image.edits"
local imagecore = require "fcproc.imagecore"
local looks = require "fcproc.image.looks"
local platforms = require "fcproc.image.platform"
local support = require "spec.support"

local must = support.must
local AMD64 = { os = "linux", architecture = "amd64" }

local function tree_of(files)
  local tree = must(imagecore.tree{ spool_folder = "/tmp" })
  for path, what in pairs(files) do
    if type(what) == "string" then what = { kind = "file", data = what, mode = 493 } end
    must(tree:put(path, what))
  end
  return tree
end

local function link(target) return { kind = "symlink", target = target } end

-- The head of an ELF file with an interpreter.
local function elf(machine, interpreter)
  local head = "\x7fELF\2\1\1" .. ("\0"):rep(9)
    .. string.pack("<I2I2I4I8I8I8I4I2I2I2I2I2I2", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
  local text = interpreter and interpreter .. "\0" or ""
  local kind = interpreter and 3 or 1
  return head .. string.pack("<I4I4I8I8I8I8I8I8", kind, 4, 120, 0, 0, #text, #text, 1) .. text
end

describe("a tree before it is written", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function applied(tree, options)
    local list = {}
    for i, edit in ipairs(must(edits.apply(tree, options or {}, 1000))) do
      list[i] = edit.action .. " " .. edit.path
    end
    return list
  end

  it("gets what is mounted on, a link for its resolver, and no machine's id", function()
    local tree <close> = tree_of{ ["/etc/resolv.conf"] = "", ["/etc/machine-id"] = "0123\n",
      ["/var/lib/dbus/machine-id"] = "0123\n", ["/proc"] = { kind = "dir", mode = 448 } }
    assert.are.same({ "folder /dev", "folder /sys", "folder /run", "folder /tmp", "link /etc/resolv.conf",
      "empty /etc/machine-id", "link /var/lib/dbus/machine-id" }, applied(tree))
    assert.are.equal(1023, must(tree:stat("/tmp")).mode)
    assert.are.equal(448, must(tree:stat("/proc")).mode)
    assert.are.equal("/run/fcproc/resolv.conf", must(tree:stat("/etc/resolv.conf")).target)
    assert.are.equal(0, must(tree:stat("/etc/machine-id")).size)
    assert.are.equal(493, must(tree:stat("/etc/machine-id")).mode)
    assert.are.same({}, applied(tree)) -- nothing is left to do
  end)

  it("keeps what it has of these", function()
    local tree <close> = tree_of{ ["/etc/resolv.conf"] = "nameserver 1.1.1.1\n", ["/run"] = link"var/run",
      ["/etc/machine-id"] = "uninitialized\n", ["/tmp"] = link"var/tmp", ["/var/tmp"] = { kind = "dir" },
      ["/var/run"] = { kind = "dir" }, ["/sys"] = "a file" }
    assert.are.same({ "folder /dev", "folder /proc" }, applied(tree))
    local as_it_is <close> = tree_of{}
    assert.are.same({}, applied(as_it_is, { as_is = true }))
    assert.is_nil(as_it_is:stat("/dev"))
  end)

  it("gets what the caller puts in, after what he takes out", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("program"), "#!/bin/sh\n")
    support.sh{ "chmod", "755", dir:file("program") }
    support.sh{ "touch", "-d", "@5000", dir:file("program") }
    local tree <close> = tree_of{ ["/usr/bin/old"] = "x", ["/bin"] = link"usr/bin",
      ["/etc/hostname"] = link"/gone" }
    assert.are.same({ "remove /usr/share/doc", "remove /usr/bin/old", "put /bin/program",
      "folder /dev", "put /dev/null",
      "put /etc/hostname", "folder /opt", "folder /opt/a", "put /opt/a/b" },
      applied(tree, { as_is = true, remove = { "/usr/share/doc", "/usr/bin/old" }, overlay = {
        ["/etc/hostname"] = "vm\n", ["/bin/program"] = { from = dir:file("program"), uid = 5 },
        ["/opt/a/b"] = { target = "c" },
        ["/dev/null"] = { kind = "char", major = 1, minor = 3, mode = 438, mtime = 7.5 } } }))
    assert.is_nil(tree:stat("/usr/bin/old"))
    local put = must(tree:stat("/usr/bin/program"))
    assert.are.same({ 493, 5, 5000 }, { put.mode, put.uid, put.mtime })
    assert.are.equal("vm\n", must(tree:read("/etc/hostname", 100)))
    assert.are.same({ "file", 420, 1000 }, { must(tree:stat("/etc/hostname")).kind,
      must(tree:stat("/etc/hostname")).mode, must(tree:stat("/etc/hostname")).mtime })
    assert.are.same({ 3, 7 }, { must(tree:stat("/dev/null")).minor, must(tree:stat("/dev/null")).mtime })
  end)

  it("is not changed by what can't be meant", function()
    local tree <close> = tree_of{ ["/etc"] = "a file" }
    for path, what in pairs{ ["etc/x"] = "x", ["/a/../b"] = "x", ["/a/./b"] = "x", ["/"] = "x",
      ["/a\0"] = "x", ["/ok1"] = 5, ["/ok3"] = { data = "x", target = "y" },
      ["/ok4"] = { what = 1 }, ["/ok5"] = { mode = "755" }, ["/ok6"] = { data = "x", mode = 33188 },
      ["/ok7"] = { data = "x", uid = -1 }, ["/ok8"] = { kind = "door" }, ["/ok9"] = { from = "/a\0" },
      ["/ok10"] = { data = "x", mtime = 1 / 0 }, ["/ok11"] = { data = "x", xattrs = { "user.x" } } } do
      local err = support.fails("invalid", edits.check{ overlay = { [path] = what } })
      assert.is_truthy(err.message:find("overlay " .. path:gsub("%z", "\\x00"), 1, true), err.message)
    end
    support.fails("invalid", edits.apply(tree, { overlay = { ["/ok2"] = { from = "/tmp" } } }, 0))
    support.fails("not_found", edits.apply(tree, { overlay = { ["/x"] = { from = "/nowhere" } } }, 0))
    support.fails("conflict", edits.apply(tree, { overlay = { ["/etc/x"] = "x" } }, 0))
    local err = support.fails("invalid", edits.check{ remove = { "relative" } })
    assert.is_truthy(err.message:find("remove relative", 1, true), err.message)
  end)
end)

describe("what will hurt", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function told(files, platform, config)
    local tree <close> = tree_of(files)
    local warnings, init = looks.at(tree, platform or AMD64, config)
    local names = {}
    for i, warning in ipairs(warnings) do
      names[i] = warning.name
      assert.is_true(#warning.fix > 0 and #warning.message > 0)
    end
    return table.concat(names, " "), init, warnings
  end

  it("is nothing in a system that is whole", function()
    local interpreter = "/lib64/ld-linux-x86-64.so.2"
    local names, init = told{ ["/sbin/init"] = link"../lib/systemd/systemd", ["/lib"] = link"usr/lib",
      ["/usr/lib/systemd/systemd"] = elf(62, interpreter), ["/lib64"] = link"usr/lib64",
      ["/usr/lib64/ld-linux-x86-64.so.2"] = elf(62), ["/etc/fstab"] = "# <file system>\n"
        .. "/dev/vda / ext4 ro 0 1\nproc /proc proc defaults 0 0\nUUID=1 /data ext4 nofail 0 0\n" }
    assert.are.equal("", names)
    assert.are.equal("/sbin/init", init)
  end)

  it("is the first program: none, a link to nowhere, another machine's, or without what runs it", function()
    local names, _, warnings = told({ ["/bin/app"] = elf(62) }, nil,
      { Entrypoint = { "/bin/app" }, Cmd = { "-x" } })
    assert.are.equal("no_init", names)
    assert.is_truthy(warnings[1].message:find("its own command is: /bin/app -x", 1, true))
    for expected, files in pairs{
      dangling_init = { ["/sbin/init"] = link"/lib/systemd/systemd" },
      foreign_init = { ["/sbin/init"] = elf(183) },
      missing_interpreter = { ["/sbin/init"] = elf(62, "/lib/ld-musl-x86_64.so.1") },
      bad_init = { ["/sbin/init"] = "hello" },
    } do
      assert.are.equal(expected, (told(files)))
    end
    assert.are.equal("bad_init", (told{ ["/sbin/init"] = { kind = "dir" } }))
    assert.are.equal("bad_init", (told{ ["/sbin/init"] = { kind = "file", data = elf(62), mode = 420 } }))
    assert.are.equal("missing_interpreter", (told{ ["/sbin/init"] = "#!/bin/bash\n" }))
    assert.are.equal("foreign_init", (told{ ["/sbin/init"] = "#! /bin/sh -e\n", ["/bin/sh"] = elf(40) }))
    assert.are.equal("", (told{ ["/sbin/init"] = elf(3) })) -- a 64-bit kernel runs it
    assert.are.equal("", (told({ ["/sbin/init"] = elf(183) }, platforms.parse("arm64"))))
    assert.are.equal("missing_interpreter", (told{ ["/sbin/init"] = "#!/a\n", ["/a"] = "#!/b\n" }))
    told{ ["/sbin/init"] = "#!/sbin/init\n" } -- and ends
    _, _, warnings = told{ ["/sbin/init"] = link"x\27[2J\nfcproc: all is well" }
    assert.is_truthy(warnings[1].message:find([[x\x1b[2J\nfcproc: all is well]], 1, true))
  end)

  it("is a getty on a console that is not there, or none on the one that is", function()
    local init = elf(62)
    assert.are.equal("getty no_console", (told{ ["/sbin/init"] = init,
      ["/etc/inittab"] = "tty1::respawn:/sbin/getty 38400 tty1\n#ttyS0::respawn:/sbin/getty ttyS0\n" }))
    assert.are.equal("", (told{ ["/sbin/init"] = init,
      ["/etc/inittab"] = "::sysinit:/etc/rc\nttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100\n" }))
    assert.are.equal("", (told{ ["/sbin/init"] = init,
      ["/etc/inittab"] = "T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n" }))
    assert.are.equal("getty", (told{ ["/sbin/init"] = init,
      ["/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service"] = link"/lib/x",
      ["/etc/systemd/system/getty.target.wants/getty@tty1.service"] = link"/lib/x" }))
  end)

  it("is another machine's disk, and Firecracker's own fcnet", function()
    local _, _, warnings = told{ ["/sbin/init"] = elf(62), ["/usr/local/bin/fcnet-setup.sh"] = "x",
      ["/etc/fstab"] = "UUID=12 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\n" }
    assert.are.equal(3, #warnings)
    assert.is_truthy(warnings[1].message:find("mounts UUID=12 on /", 1, true))
    assert.are.same({ "fstab", "fstab", "fcnet" }, { warnings[1].name, warnings[2].name, warnings[3].name })
  end)

  it("is found in any bytes, without harm", function()
    for length = 0, 130, 7 do
      told{ ["/sbin/init"] = elf(62, "/x"):sub(1, length) }
      told{ ["/sbin/init"] = "\x7fELF\1\2" .. ("\xff"):rep(length) }
      told{ ["/sbin/init"] = "\x7fELF\2\1" .. ("\xff"):rep(length), ["/etc/fstab"] = ("\xff "):rep(length),
        ["/etc/inittab"] = ("\xff:"):rep(length) }
    end
  end)
end)
