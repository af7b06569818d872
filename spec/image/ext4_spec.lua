-- Trees become ext4 disks: e2fsck finds nothing, Linux reads all that was put in, and the bytes are the
-- same whoever builds.

local support = require "spec.support"
local mounts = require "spec.support.mounts"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local layout = require "fcproc.image.layout"
local output = require "fcproc.image.output"

local must, fails = support.must, support.fails
local MIB <const> = 1 << 20
local TIME <const> = 1700000000

-- What Linux sees below a folder, a line for each name; hard links by the first of their names.
local LIST = [[
import os, stat, sys, hashlib
root, first, lines = sys.argv[1].encode(), {}, []
for folder, dirs, files in os.walk(root):
    for name in [b""] * (folder == root) + dirs + files:
        path = os.path.join(folder, name) if name else folder
        at = path[len(root):].lstrip(b"/")
        if at == b"lost+found": continue
        s = os.lstat(path)
        kind = stat.filemode(s.st_mode)[0]
        line = [repr(at)[1:], kind, "%o" % stat.S_IMODE(s.st_mode)]
        line += [str(s.st_uid), str(s.st_gid), str(s.st_mtime_ns)]
        if kind in "bc": line.append("%d:%d" % (os.major(s.st_rdev), os.minor(s.st_rdev)))
        if kind == "l": line.append(repr(os.readlink(path))[1:])
        if kind == "-":
            line.append(str(s.st_size))
            line.append(hashlib.md5(open(path, "rb").read()).hexdigest())
        if kind != "d" and s.st_nlink > 1: line.append("%d" % s.st_nlink)
        for x in sorted(os.listxattr(path, follow_symlinks=False)):
            line.append("%s=%s" % (x, hashlib.md5(os.getxattr(path, x, follow_symlinks=False)).hexdigest()))
        lines.append(" ".join(line))
lines.sort()
print("\n".join(lines))
]]

local function md5(text)
  return support.sh({ "md5sum" }, { input = text }):match("%x+")
end

local function new_tree(fill)
  local tree = must(imagecore.tree{ spool_folder = "/tmp" })
  fill(tree)
  must(tree:seal())
  return tree
end

local function write(tree, path, options, ctx)
  local given = { format = "ext4", time = TIME }
  for name, value in pairs(options or {}) do given[name] = value end
  return output.write(tree, path, given, ctx)
end

local function check(path)
  support.sh{ "e2fsck", "-fn", path }
end

local function header(path, name)
  return support.sh{ "dumpe2fs", "-h", path }:match(name .. ":%s*([^\n]*)")
end

local function listed(dir, path)
  support.write_file(dir:file("list.py"), LIST)
  mounts(dir, ('mkdir -p "$1/m"; mount -o loop,ro "%s" "$1/m"'):format(path), [[
    support.write_file(dir .. "/listed", support.sh{ "python3", dir .. "/list.py", dir .. "/m" })
  ]])
  return support.read_file(dir:file("listed"))
end

local CAPABILITY = "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
local ACL = "\2\0\0\0\1\0\6\0\255\255\255\255\2\0\4\0\232\3\0\0\4\0\4\0\255\255\255\255"
  .. "\16\0\4\0\255\255\255\255\32\0\4\0\255\255\255\255"

describe("a disk", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is what the tree was, as Linux reads it", function()
    local dir <close> = support.folder()
    local long, foreign = ("n"):rep(255), "\xff\xfe-\xc3\xa4 '\"\\\n"
    local target = ("t/"):rep(2047) .. "x"
    local tree <close> = new_tree(function(tree)
      local function put(path, kind, node)
        node.kind, node.mtime = kind, node.mtime or 1600000000
        must(tree:put(path, node))
      end
      put("/", "dir", { mode = 493, mtime = 3 })
      put("/etc", "dir", { mode = 448, uid = 1, gid = 2 })
      put("/etc/hostname", "file", { data = "vm\n", mode = 420, mtime = 1234567890, mtime_ns = 123456789 })
      put("/" .. long, "file", { data = ("0123456789"):rep(2000), uid = 4294967294, gid = 100000 })
      put("/" .. foreign, "file", { data = "", mtime = -5, mtime_ns = 1 })
      put("/later", "file", { data = "x", mtime = 9000000000 })
      put("/fast", "symlink", { target = ("a"):rep(59) })
      put("/slow", "symlink", { target = ("a"):rep(60), uid = 70000 })
      put("/slowest", "symlink", { target = target })
      put("/null", "char", { major = 1, minor = 3, mode = 438 })
      put("/disk", "block", { major = 4095, minor = 1048575 })
      put("/pipe", "fifo", {})
      put("/socket", "socket", {})
      put("/tmp", "dir", { mode = 1023 })
      put("/su", "file", { data = "x", mode = 2541 })
      put("/caps", "file", { data = "x", xattrs = { ["security.capability"] = CAPABILITY } })
      put("/acl", "file", { data = "x", mode = 420, xattrs = { ["system.posix_acl_access"] = ACL } })
      put("/inside", "file", { data = "x", xattrs = { ["user.a"] = "1", ["user.b"] = ("2"):rep(30) } })
      put("/outside", "dir", { xattrs = { ["user.long"] = ("3"):rep(3000), ["trusted.t"] = "\0" } })
      put("/apple", "file", { data = "x", xattrs = { ["com.apple.x"] = "1" } })
      local deep = ""
      for i = 1, 60 do deep = deep .. "/d" .. i end
      put(deep, "dir", {})
      put("/lost+found", "dir", { mode = 448 })
      put("/lost+found/#12", "file", { data = "found" })
    end)
    local path = dir:file("disk")
    local result = must(write(tree, path))
    check(path)
    assert.are.same({ "/apple loses its attribute com.apple.x: Linux has none of the kind" },
      result.warnings)
    assert.are.equal(core.stat(path).size, result.bytes)
    local lines = listed(dir, path)
    local function has(line, ...)
      line = line:format(...)
      assert.is_truthy(("\n" .. lines):find("\n" .. line .. "\n", 1, true), line .. "\n\nis not in\n\n"
        .. lines)
    end
    has("'' d 755 0 0 3000000000")
    has("'etc' d 700 1 2 1600000000000000000")
    has("'etc/hostname' - 644 0 0 1234567890123456789 3 %s", md5("vm\n"))
    has("'%s' - 644 4294967294 100000 1600000000000000000 20000 %s", long, md5(("0123456789"):rep(2000)))
    has([['\xff\xfe-\xc3\xa4 \'"\\\n' - 644 0 0 -4999999999 0 %s]], md5(""))
    has("'later' - 644 0 0 9000000000000000000 1 %s", md5("x"))
    has("'fast' l 777 0 0 1600000000000000000 '%s'", ("a"):rep(59))
    has("'slow' l 777 70000 0 1600000000000000000 '%s'", ("a"):rep(60))
    has("'slowest' l 777 0 0 1600000000000000000 '%s'", target)
    has("'null' c 666 0 0 1600000000000000000 1:3")
    has("'disk' b 600 0 0 1600000000000000000 4095:1048575")
    has("'pipe' p 600 0 0 1600000000000000000")
    has("'socket' s 600 0 0 1600000000000000000")
    has("'tmp' d 1777 0 0 1600000000000000000")
    has("'su' - 4755 0 0 1600000000000000000 1 %s", md5("x"))
    has("'caps' - 644 0 0 1600000000000000000 1 %s security.capability=%s", md5("x"), md5(CAPABILITY))
    has("'acl' - 644 0 0 1600000000000000000 1 %s system.posix_acl_access=%s", md5("x"), md5(ACL))
    has("'inside' - 644 0 0 1600000000000000000 1 %s user.a=%s user.b=%s", md5("x"), md5("1"),
      md5(("2"):rep(30)))
    has("'outside' d 755 0 0 1600000000000000000 trusted.t=%s user.long=%s", md5("\0"),
      md5(("3"):rep(3000)))
    has("'apple' - 644 0 0 1600000000000000000 1 %s", md5("x"))
  end)

  it("has the same bytes for the same tree, whoever builds it and whatever is set there", function()
    local dir <close> = support.folder()
    core.own_file(dir.path, nil, nil, 511)
    -- The names come in another order.
    local script = [[
      local imagecore, output = require "fcproc.imagecore", require "fcproc.image.output"
      local tree = assert(imagecore.tree{ spool_folder = "/tmp" })
      assert(tree:put("/many", { kind = "dir" }))
      for i = tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4]) do
        assert(tree:put("/many/file" .. i, { kind = "file", data = ("x"):rep(i * 7), mtime = i,
          xattrs = { ["user.i"] = ("v"):rep(i) } }))
      end
      assert(tree:put("/dev/null", { kind = "char", major = 1, minor = 3 }))
      assert(tree:seal())
      for _, format in ipairs{ "ext4", "tar", "initrd", "squashfs" } do
        assert(output.write(tree, arg[1] .. "." .. format, { format = format, time = 1700000000 }))
      end
    ]]
    support.write_file(dir:file("build.lua"), script)
    support.write_file(dir:file("mke2fs.conf"), "[defaults]\nblocksize = 1024\nfeatures = quota,verity\n")
    support.sh{ support.lua, dir:file("build.lua"), dir:file("a"), 1, 700, 1 }
    support.sh{ "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env",
      "MKE2FS_CONFIG=" .. dir:file("mke2fs.conf"), "TZ=Asia/Tokyo", "LC_ALL=C", "E2FSPROGS_FAKE_TIME=7",
      "SOURCE_DATE_EPOCH=9", "MKE2FS_DEVICE_SECTSIZE=4096", support.lua, dir:file("build.lua"), dir:file("b"),
      700, 1, -1 }
    for _, format in ipairs{ "ext4", "tar", "initrd", "squashfs" } do
      support.sh{ "cmp", dir:file("a." .. format), dir:file("b." .. format) }
    end
    check(dir:file("b.ext4"))
  end)

  it("takes 60,000 names in a folder, which Linux finds, adds to and removes", function()
    local dir <close> = support.folder()
    local path, many = dir:file("disk"), dir:file("many")
    local tree <close> = new_tree(function(tree)
      for i = 1, 60000 do must(tree:put("/many/" .. i, { kind = "file" })) end
    end)
    must(write(tree, path, { room = "4MiB" }))
    check(path)
    assert.is_truthy(support.sh{ "debugfs", "-R", "htree /many", path }:find("Indirect levels: 0", 1, true))
    -- A folder that Linux looks names up in, adds to and removes from.
    mounts(dir, ('cp "%s" "%s"; mkdir "$1/m"; mount -o loop "%s" "$1/m"'):format(path, many, many), [[
      support.sh{ "python3", "-c", "import os,sys\nos.chdir(sys.argv[1])\n"
        .. "for i in range(1, 60001, 7): os.stat(str(i))\n"
        .. "for i in range(1, 3000): os.unlink(str(i))\n"
        .. "for i in range(1, 30): os.mkdir('dir-%d' % i)\n"
        .. "for i in range(1, 3000): os.symlink('x', 'new-%d' % i)", dir .. "/m/many" }
    ]])
    check(many)
  end)

  it("has two files in the place of one with more than 65,000 names, and says so", function()
    local dir <close> = support.folder()
    mounts(dir, 'mkdir "$1/t" "$1/m"; mount -t tmpfs none "$1/t"', [[
      local imagecore, output = require "fcproc.imagecore", require "fcproc.image.output"
      local jobs = require "fcproc.image.jobs"
      support.sh{ "python3", "-c", "import os, sys\nos.chdir(sys.argv[1])\nopen('0', 'w').write('x' * 5000)\n"
        .. "for i in range(1, 65001): os.link('0', str(i))", dir .. "/t" }
      local tree = must(imagecore.tree())
      must(jobs.run(must(tree:read_folder{ path = dir .. "/t" })))
      must(tree:seal())
      local result = must(output.write(tree, dir .. "/disk", { format = "ext4" }))
      assert(result.warnings[1]:find("/0 has 65001 names") and result.warnings[1]:find("2 files"),
        result.warnings[1])
      support.sh{ "e2fsck", "-fn", dir .. "/disk" }
      support.sh{ "mount", "-o", "loop,ro", dir .. "/disk", dir .. "/m" }
      local counts = support.sh{ "sh", "-c", "cd $0; find . -type f -printf '%i %n %s\n' | sort | uniq -c",
        dir .. "/m" }
      assert(counts:match("^%s*65000 %d+ 65000 5000\n%s*1 %d+ 1 5000\n$"), counts)
    ]])
  end)

  it("leaves holes holes, whatever a file's shape", function()
    local dir <close> = support.folder()
    support.sh{ "sh", "-ec", [[mkdir "$1/in"; cd "$1/in"; truncate -s 99M large; truncate -s 1T larger
      for at in 0 3 50 98; do dd if=/dev/urandom of=large bs=1M count=1 seek=$at conv=notrunc; done
      printf end >>larger]], "sh", dir.path }
    local comb = assert(io.open(dir:file("in/comb"), "wb"))
    for i = 1, 1000, 2 do
      comb:seek("set", i * 4096 + 7)
      comb:write("x")
    end
    comb:close()
    local tree <close> = must(imagecore.tree())
    must(jobs.run(must(tree:read_folder{ path = dir:file("in") })))
    must(tree:seal())
    local path = dir:file("disk")
    assert.is_true(must(write(tree, path)).bytes < 16 * MIB)
    check(path)
    mounts(dir, ('mkdir "$1/m"; mount -o loop,ro "%s" "$1/m"'):format(path), [[
      support.sh{ "cmp", dir .. "/in/large", dir .. "/m/large" }
      support.sh{ "cmp", dir .. "/in/comb", dir .. "/m/comb" }
      assert(support.sh{ "tail", "-c", "5", dir .. "/m/larger" } == "\0\0end")
      assert(core.stat(dir .. "/m/larger").allocated == 4096)
      assert(core.stat(dir .. "/m/large").allocated == 4 << 20)
    ]])
  end)

  it("is as large as it must be, or as it is to be", function()
    local dir <close> = support.folder()
    local path = dir:file("disk")
    support.sh{ "dd", "if=/dev/urandom", "of=" .. dir:file("data"), "bs=1M", "count=30", "status=none" }
    local tree <close> = new_tree(function(tree)
      must(tree:put("/data", { kind = "file", from = dir:file("data") }))
      for i = 1, 3000 do must(tree:put("/" .. i, { kind = "file" })) end
    end)
    must(write(tree, path))
    check(path)
    local least = core.stat(path).size
    assert.is_true(least < 38 * MIB, least)
    assert.is_true(tonumber(header(path, "Free blocks")) < 50)
    must(write(tree, path, { journal = false }))
    check(path)
    assert.is_true(core.stat(path).size < least - 3 * MIB)
    assert.is_nil(header(path, "Journal inode"))
    must(write(tree, path, { room = "100MiB" }))
    check(path)
    assert.is_true(tonumber(header(path, "Free blocks")) >= 25600)
    assert.is_true(tonumber(header(path, "Free inodes")) >= 6400)
    assert.are.equal(300 * 1000 ^ 2 // 4096 * 4096, must(write(tree, path, { size = "300MB" })).bytes)
    check(path)
    must(write(tree, path, { size = "2GiB", label = "root", uuid = "01234567-89ab-cdef-0123-456789abcdef" }))
    check(path)
    assert.are.same({ "524288", "01234567-89ab-cdef-0123-456789abcdef", "root" },
      { header(path, "Block count"), header(path, "Filesystem UUID"),
        header(path, "Filesystem volume name") })
    assert.is_true(core.stat(path).allocated < 34 * MIB, core.stat(path).allocated)
    local err = fails("invalid", write(tree, path, { size = "32MiB" }))
    local mib = err.message:match('give size = "(%d+)MiB"')
    assert.is_truthy(mib, err.message)
    must(write(tree, path, { size = mib .. "MiB" }))
    check(path)
    fails("invalid", write(tree, path, { size = "2G" }))
  end)

  it("fits, whatever its size", function()
    local need = { inodes = 9000, blocks = 40000 }
    for _, extra in ipairs{ 0, 1, 49, 50, 51, 300, 32767, 32768, 300000, 3000000 } do
      need.blocks = 24000 + extra
      for _, journal in ipairs{ true, false } do
        local plan = must(layout.smallest(need, journal, 0))
        assert.is_truthy(layout.given(need, journal, plan.blocks), extra)
        assert.is_nil(layout.given(need, journal, plan.blocks - 60), extra)
      end
    end
  end)

  it("refuses what ext4 can't hold, by its name", function()
    local dir <close> = support.folder()
    local path = dir:file("disk")
    local function refused(text, node, name)
      local tree <close> = new_tree(function(tree) must(tree:put(name or "/it", node)) end)
      local err = fails("invalid", write(tree, path))
      assert.is_truthy(err.message:find(text, 1, true), err.message)
      assert.is_nil(core.stat(path))
    end
    refused("/it are more than ext4 has room for, at user.big of 5000 bytes",
      { kind = "file", xattrs = { ["user.big"] = ("x"):rep(5000) } })
    refused("/it is the device 4096:0", { kind = "char", major = 4096, minor = 0 })
    refused("/lost+found is no folder", { kind = "file" }, "/lost+found")
    local tree <close> = new_tree(function(tree)
      must(tree:put("/it", { kind = "file", data = "x", xattrs = { ["user.big"] = ("x"):rep(5000),
        ["user.other"] = ("y"):rep(60000), ["user.small"] = "z" } }))
      must(tree:put("/more", { kind = "file" }))
    end)
    must(write(tree, path, { ea_inode = true }))
    check(path)
    assert.is_truthy(listed(dir, path):find(("user.big=%s user.other=%s user.small=%s"):format(
      md5(("x"):rep(5000)), md5(("y"):rep(60000)), md5("z")), 1, true))
  end)
end)

describe("a target", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function small() return new_tree(function(tree) must(tree:put("/x", { kind = "file" })) end) end

  local function names(path)
    local list = {}
    for i, entry in ipairs(must(core.list_dir(path))) do list[i] = entry.name end
    return table.concat(list, " ")
  end

  it("that is closed stays for the job on it", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("from"), ("x"):rep(8 << 20))
    local target = must(imagecore.target(dir:file("to")))
    local job = must(target:copy(dir:file("from")))
    target:close()
    must(jobs.run(job))
    target = must(imagecore.target(dir:file("to")))
    must(jobs.run(must(target:copy(dir:file("from")))))
    job = must(target:publish())
    target:close()
    assert.are.equal(8 << 20, must(jobs.run(job)).bytes)
    assert.are.equal("from to", names(dir.path))
  end)

  it("is replaced whole, and only when it is a file", function()
    local dir <close> = support.folder()
    local tree <close> = small()
    support.sh{ "sh", "-ec", 'cd "$1"; mkdir folder; ln -s old link; mkfifo fifo; echo old >old', "sh",
      dir.path }
    for _, name in ipairs{ "folder", "link", "fifo", "folder/." } do
      fails(name == "folder/." and "invalid" or "conflict", write(tree, dir:file(name)))
    end
    fails("not_found", write(tree, dir:file("none/x")))
    local before = names(dir.path)
    local held <close> = assert(io.open(dir:file("old")))
    must(write(tree, dir:file("old")))
    assert.are.equal("old\n", held:read("a"))
    assert.are.equal(before, names(dir.path))
    -- With the mode and the owner that it had, but not where anybody could have put it.
    local function replaced(folder_mode, folder_owner, mode, owner)
      support.sh{ "chown", folder_owner, dir.path }
      support.sh{ "chown", owner, dir:file("old") }
      support.sh{ "chmod", folder_mode, dir.path }
      support.sh{ "chmod", mode, dir:file("old") }
      must(write(tree, dir:file("old")))
      return (support.sh{ "stat", "-c", "%a %u:%g", dir:file("old") }:gsub("\n", ""))
    end
    assert.are.equal("640 1234:5678", replaced("755", "0:0", "640", "1234:5678"))
    assert.are.equal("600 0:0", replaced("1777", "0:0", "600", "0:0"))
    assert.are.equal("600 1234:5678", replaced("770", "1234:0", "600", "1234:5678"))
    for _, folder in ipairs{ "1777", "775" } do
      assert.are.equal("644 0:0", replaced(folder, "0:0", "666", "1234:5678"))
    end
    assert.are.equal("755 0:0", replaced("755", "0:0", "4755", "0:0"))
    check(dir:file("old"))
    fails("conflict", write(tree, dir:file("old") .. "/x/y"))
    fails("invalid", write(tree, dir:file("x"), { format = "qcow2" }))
    fails("invalid", write(tree, dir:file("x"), { format = "tar", size = "1GiB" }))
    fails("invalid", write(tree, dir:file("x"), { uuid = "1" }))
    fails("invalid", write(tree, dir:file("x"), { label = ("x"):rep(17) }))
    assert.are.equal(before, names(dir.path))
  end)

  it("is not there when the disk is full, read only, or the build is cancelled", function()
    local dir <close> = support.folder()
    mounts(dir, 'mkdir "$1/full" "$1/ro"; mount -t tmpfs -o size=3m none "$1/full"; '
      .. 'mount -t tmpfs -o ro none "$1/ro"; dd if=/dev/urandom of="$1/data" bs=1M count=5 status=none', [[
      local imagecore, output = require "fcproc.imagecore", require "fcproc.image.output"
      local fcproc = require "fcproc"
      local tree = must(imagecore.tree())
      must(tree:put("/data", { kind = "file", from = dir .. "/data" }))
      must(tree:seal())
      for _, format in ipairs{ "ext4", "tar", "squashfs", "initrd" } do
        local value, err = output.write(tree, dir .. "/full/x", { format = format, time = 1 })
        assert(not value)
        assert(err.code == "system" and err.errno == 28
          and err.message:find("No space left on device; 0%.%d of 3%.0 MiB are free in "), tostring(err))
        assert(err.path == dir .. "/full/x")
        assert(#core.list_dir(dir .. "/full") == 0)
        value, err = output.write(tree, dir .. "/ro/x", { format = format, time = 1 })
        assert(not value and err.errno == 30 and err.path == dir .. "/ro/x", tostring(err))
        local ctx = must(fcproc.context())
        ctx:cancel()
        fails("cancelled", output.write(tree, dir .. "/x", { format = format, time = 1 }, ctx))
        local late = must(fcproc.context())
        value, err = output.write(tree, dir .. "/x", { format = format, time = 1 }, late,
          function(progress) late:cancel() end)
        assert(value or err.code == "cancelled", tostring(err))
        assert(value or not core.stat(dir .. "/x"))
        core.remove_file(dir .. "/x")
      end
    ]])
  end)

  it("leaves nothing when who builds it is killed", function()
    local dir <close> = support.folder()
    support.sh{ "dd", "if=/dev/urandom", "of=" .. dir:file("data"), "bs=1M", "count=4", "status=none" }
    support.write_file(dir:file("build.lua"), [[
      local imagecore, output = require "fcproc.imagecore", require "fcproc.image.output"
      local tree = assert(imagecore.tree())
      for i = 1, 8 do assert(tree:put("/" .. i, { kind = "file", from = arg[1] .. "/data" })) end
      assert(tree:seal())
      while true do assert(output.write(tree, arg[1] .. "/disk", { format = "ext4", time = 1 })) end
    ]])
    for i = 1, 4 do
      local builder <close> = must(fcproc.spawn{ support.lua, dir:file("build.lua"), dir.path })
      core.poll_many({}, {}, 0.02 + i * 0.04)
      must(builder:signal("KILL"))
      must(builder:wait(5))
      if core.stat(dir:file("disk")) then check(dir:file("disk")) end
      os.remove(dir:file("disk"))
      assert.are.equal("build.lua data", names(dir.path))
    end
  end)
end)
