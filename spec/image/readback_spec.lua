-- What a cpio and a squashfs hold, as others read it: each kind, hard links, devices, names as bytes.

local core = require "fcproc.core"
local images = require "spec.support.images"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local output = require "fcproc.image.output"
local support = require "spec.support"

local must = support.must

local LONG <const>, FOREIGN <const> = ("n"):rep(255), "\xff\xfe-\xc3\xa4 '\"\\\n"
local LARGE <const> = ("0123456789"):rep(20000)
local TIME <const> = 1600000000
local AS_NOBODY <const> = { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups" }

local TAR = images.tar{
  { "dir/", kind = "dir", mode = 448, uid = 1, gid = 2, mtime = 5 },
  { "dir/file", data = LARGE, mode = 2541, mtime = TIME, pax = { uid = "4294967294", gid = "100000" } },
  { "dir/twin", kind = "hardlink", target = "dir/file" },
  { "third", kind = "hardlink", target = "dir/file" },
  { FOREIGN, data = "f" }, { LONG, data = "" },
  { "link", kind = "symlink", target = "dir/" .. FOREIGN, mode = 511 },
  { "null", kind = "char", mode = 438, major = 1, minor = 3 },
  { "disk", kind = "block", mode = 384, major = 4095, minor = 1048575 },
  { "pipe", kind = "fifo", mode = 384 },
  { "odd", data = "x", pax = { ["SCHILY.xattr.user.a"] = "b" } },
}

local function nobody(...)
  local argv = table.move(AS_NOBODY, 1, #AS_NOBODY, 1, {})
  return support.sh(table.move({ ... }, 1, select("#", ...), #argv + 1, argv))
end

describe("what is built", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }
  before_each(function()
    core.own_file(dir.path, nil, nil, 511)
  end)

  -- A folder that nobody owns.
  local function room()
    nobody("mkdir", dir:file("room"))
    return dir:file("room")
  end

  ---The warnings.
  local function write(format, more)
    support.write_file(dir:file("a.tar"), TAR)
    local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
    must(jobs.run(must(tree:read_archive{ path = dir:file("a.tar") })))
    must(tree:put("/socket", { kind = "socket", mode = 384 }))
    for path, node in pairs(more or {}) do must(tree:put(path, node)) end
    must(tree:seal())
    return must(output.write(tree, dir:file("out"), { format = format, time = TIME })).warnings
  end

  it("as an initrd is a cpio of all that was put in", function()
    assert.are.same({ "a cpio has no attributes: 1 files lose theirs, first /odd" }, write("initrd"))
    support.sh{ "sh", "-c", 'gzip -dc <"$1" >"$2"', "sh", dir:file("out"), dir:file("cpio") }
    local list = images.uncpio(support.read_file(dir:file("cpio")))
    local found, order = {}, {}
    for i, entry in ipairs(list) do
      found[entry.name], order[i] = entry, entry.name
      assert.are.same({ 0, 0, 0 }, { entry.dev_major, entry.dev_minor, entry.check })
    end
    assert.are.same({ ".", "dir", "dir/file", "dir/twin", "disk", "link", LONG, "null", "odd", "pipe",
      "socket", "third", FOREIGN }, order)
    local function is(name, kind, mode, uid, gid, mtime, data, major, minor)
      local e = found[name]
      assert.are.same({ kind, mode, uid, gid, mtime, data, major or 0, minor or 0 },
        { e.kind, e.mode, e.uid, e.gid, e.mtime, e.data, e.major, e.minor }, name)
    end
    is(".", "dir", 493, 0, 0, 0, "")
    is("dir", "dir", 448, 1, 2, 5, "")
    is("dir/file", "file", 2541, 4294967294, 100000, TIME, LARGE)
    is("dir/twin", "file", 2541, 4294967294, 100000, TIME, "")
    is("third", "file", 2541, 4294967294, 100000, TIME, "")
    is(FOREIGN, "file", 420, 0, 0, 0, "f")
    is(LONG, "file", 420, 0, 0, 0, "")
    is("link", "symlink", 511, 0, 0, 0, "dir/" .. FOREIGN)
    is("null", "char", 438, 0, 0, 0, "", 1, 3)
    is("disk", "block", 384, 0, 0, 0, "", 4095, 1048575)
    is("pipe", "fifo", 384, 0, 0, 0, "")
    is("socket", "socket", 384, 0, 0, 0, "")
    is("odd", "file", 420, 0, 0, 0, "x")
    -- Linux links what has the same number, when it has more than one name.
    for name, entry in pairs(found) do
      local is_link = name:find("^dir/") or name == "third"
      assert.are.same(is_link and { 3, found["dir/file"].ino } or { 1, 0 }, { entry.nlink, entry.ino }, name)
    end
    assert.is_true(found["dir/file"].ino > 0)
    nobody("sh", "-ec", 'cd "$1"; cpio --quiet -idm "dir*" third <"$2"', "sh", room(), dir:file("cpio"))
    local twin, third = core.stat(dir:file("room/dir/twin")), core.stat(dir:file("room/third"))
    assert.are.same({ twin.ino, LARGE }, { third.ino, support.read_file(dir:file("room/third")) })
  end)

  it("as an initrd has no time that a cpio can't tell, and says so", function()
    local warnings = write("initrd", { ["/early"] = { kind = "file", mtime = -5, mtime_ns = 1 },
      ["/late"] = { kind = "file", mtime = 1 << 32 }, ["/last"] = { kind = "file", mtime = (1 << 32) - 1 } })
    assert.are.same({
      "/early is dated out of a cpio's years 1970 to 2106: the nearest is taken",
      "/late is dated out of a cpio's years 1970 to 2106: the nearest is taken",
    }, { warnings[1], warnings[2] })
    local times = {}
    for _, entry in ipairs(images.uncpio(support.sh{ "gzip", "-dc", dir:file("out") })) do
      times[entry.name] = entry.mtime
    end
    assert.are.same({ 0, (1 << 32) - 1, (1 << 32) - 1 }, { times.early, times.late, times.last })
  end)

  it("as a squashfs is what any user reads out of it", function()
    assert.are.same({ "the socket /socket is left out: a tar has none" }, write("squashfs"))
    local list = "\n" .. nobody("rdsquashfs", "-d", dir:file("out"))
    for _, line in ipairs{ "dir dir 0700 1 2", "file dir/file 04755 4294967294 100000",
      "file dir/twin 04755 4294967294 100000", "file third 04755 4294967294 100000",
      "nod disk 0600 0 0 b 4095 1048575", "nod null 0666 0 0 c 1 3", "pipe pipe 0600 0 0",
      "file " .. LONG .. " 0644 0 0", "slink link 0777 0 0 dir/" .. FOREIGN, "file odd 0644 0 0" } do
      assert.is_truthy(list:find("\n" .. line .. "\n", 1, true), line .. "\n\nis not in\n" .. list)
    end
    assert.is_nil(list:find("socket", 1, true))
    assert.are.equal("user.a=b\n", nobody("rdsquashfs", "-x", "odd", dir:file("out")))
    local to = room()
    nobody("rdsquashfs", "-q", "-D", "-T", "-p", to, "-u", "/", dir:file("out"))
    for name, data in pairs{ ["dir/file"] = LARGE, ["dir/twin"] = LARGE, third = LARGE, [FOREIGN] = "f",
      [LONG] = "", odd = "x" } do
      assert.are.equal(data, support.read_file(to .. "/" .. name), name)
    end
    assert.are.same({ 5, TIME }, { core.stat(to .. "/dir").mtime // 1, core.stat(to .. "/third").mtime // 1 })
    assert.are.equal("dir/" .. FOREIGN .. "\n", nobody("readlink", to .. "/link"))
    -- One file of three names.
    local inode = nobody("rdsquashfs", "-s", "dir/file", dir:file("out"))
    assert.is_truthy(inode:find("Hard link count: 3", 1, true) or inode:find("Link count: 3", 1, true), inode)
  end)
end)
