-- The tree in memory: what is put in is there, where a chroot would find it.

local support = require "spec.support"
local fcproc = require "fcproc"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"

local must, fails, raises = support.must, support.fails, support.raises

describe("a tree", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("holds what was put into it", function()
    local dir <close> = support.folder()
    local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
    must(tree:put("/etc/hostname", { kind = "file", data = "vm\n", mtime = 5, mtime_ns = 7,
      xattrs = { ["user.b"] = "2\0", ["user.a"] = "", ["security.capability"] = "x" } }))
    must(tree:put("bin", { kind = "symlink", target = "usr/bin" }))
    must(tree:put("usr/bin", { kind = "dir", mode = 493, uid = 4294967294, gid = 70000 }))
    must(tree:put("/bin/sh", { kind = "file", mode = 493, data = "#!" }))
    must(tree:put("/dev/console", { kind = "char", major = 5, minor = 1 }))
    must(tree:put("/dev/disk", { kind = "block", major = 254, minor = 1048575 }))
    must(tree:put("/run/pipe", { kind = "fifo" }))

    local host = must(tree:stat("etc/hostname"))
    assert.are.same({ "file", 420, 0, 0, 3, 5, 7, 1 }, { host.kind, host.mode, host.uid, host.gid,
      host.size, host.mtime, host.mtime_ns, host.nlink })
    assert.are.same({ ["user.b"] = "2\0", ["user.a"] = "", ["security.capability"] = "x" }, host.xattrs)
    assert.are.equal(5, must(tree:stat("/etc")).mtime)
    assert.are.equal("usr/bin", must(tree:stat("/bin")).target)
    assert.are.equal("dir", must(tree:stat("/bin", true)).kind)
    local sh = must(tree:stat("/usr/bin/sh"))
    assert.are.equal(must(tree:stat("/bin/sh")).id, sh.id)
    local folder = must(tree:stat("/usr/bin/"))
    assert.are.same({ 4294967294, 70000, 2 }, { folder.uid, folder.gid, folder.nlink })
    assert.are.same({ 5, 1 }, { must(tree:stat("dev/console")).major, must(tree:stat("dev/console")).minor })
    assert.are.equal(1048575, must(tree:stat("dev/disk")).minor)
    assert.are.equal(6, must(tree:stat("/")).nlink)

    local sealed = must(tree:seal())
    assert.are.same({ entries = 11, inodes = 12, bytes = 5, apparent = 5,
      largest = "etc/hostname" }, sealed)
    fails("invalid", tree:put("/x", { kind = "dir" }))
    must(tree:stat("/etc"))
  end)

  it("finds what a chroot would find, and nothing outside", function()
    local tree <close> = must(imagecore.tree())
    must(tree:put("/a/up", { kind = "symlink", target = "../../../../b" }))
    must(tree:put("/a/root", { kind = "symlink", target = "/" }))
    must(tree:put("/b/c", { kind = "dir" }))
    must(tree:put("/loop", { kind = "symlink", target = "loop" }))
    assert.are.equal(must(tree:stat("/b/c")).id, must(tree:stat("/a/up/c")).id)
    assert.are.equal(must(tree:stat("/b/c")).id, must(tree:stat("/a/root/a/up/c")).id)
    assert.are.equal(must(tree:stat("/")).id, must(tree:stat("/../a/../..")).id)
    fails("invalid", tree:stat("/loop/x"))
    fails("not_found", tree:stat("/b/d"))
    fails("not_found", tree:stat("/b/d/e"))
    fails("invalid", tree:put("/b/../x", { kind = "dir" }))
    fails("invalid", tree:put("/" .. ("x"):rep(256), { kind = "dir" }))
    fails("invalid", tree:put("/" .. ("x/"):rep(2050), { kind = "dir" }))
    fails("conflict", tree:put("/", { kind = "fifo" }))
    must(tree:put("/" .. ("\xff"):rep(255), { kind = "fifo" }))
    fails("conflict", tree:put("/" .. ("\xff"):rep(255) .. "/x", { kind = "dir" }))
    fails("invalid", tree:put("/x", { kind = "file", data = "x" })) -- no place for contents
    raises("kind must be", tree.put, tree, "/x", { kind = "door" })
    raises("zero byte", tree.put, tree, "/x\0", { kind = "dir" })
    fails("invalid", tree:remove("/"))
    fails("not_found", tree:remove("/nothing"))
  end)

  it("counts the names when some are replaced or removed", function()
    local tree <close> = must(imagecore.tree())
    for i = 1, 1000 do must(tree:put(("/d/%d/%d"):format(i % 7, i), { kind = "fifo" })) end
    assert.are.equal(9, must(tree:stat("/d")).nlink)
    must(tree:put("/d/3", { kind = "fifo" }))
    assert.are.equal(8, must(tree:stat("/d")).nlink)
    must(tree:put("/d", { kind = "dir", mode = 448 })) -- keeps its entries
    must(tree:remove("/d/4/4"))
    fails("not_found", tree:stat("/d/4/4"))
    must(tree:stat("/d/4/11"))
    local sealed = must(tree:seal())
    assert.are.equal(1 + 7 + 1000 - 143 - 1, sealed.entries)
    assert.are.equal(sealed.entries + 1, sealed.inodes)
  end)

  it("that is closed by what a call reads is not used by it", function()
    local function closing(tree, fields)
      return setmetatable({}, { __index = function(_, name)
        tree:close()
        return fields[name]
      end })
    end
    local tree = must(imagecore.tree())
    local closed = "attempt to use a closed fcproc.image.tree"
    raises(closed, tree.put, tree, "/x", closing(tree, { kind = "dir" }))
    tree = must(imagecore.tree())
    must(tree:seal())
    raises(closed, tree.write, tree, closing(tree, { format = "tar", fd = 1 }))
  end)
end)

describe("a job", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("ends with its context also where nobody reads what it writes, and leaves the pipe as it was", function()
    local dir <close> = support.folder()
    local data = ("0123456789abcdef"):rep(1 << 16)
    support.write_file(dir:file("file"), data)
    local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
    must(tree:put("/file", { kind = "file", data = data }))
    must(tree:seal())
    local pipe <close> = must(imagecore.pipe())
    for _, begin in ipairs{
      function() return tree:write{ format = "tar", fd = pipe:writer() } end,
      function() return imagecore.unpack{ path = dir:file("file"), fd = pipe:writer() } end,
    } do
      local ctx <close> = must(fcproc.context{ timeout = 0.05 })
      fails("deadline", jobs.run(must(begin()), ctx))
    end
    local said = support.read_file("/proc/self/fdinfo/" .. pipe:writer())
    assert.is_truthy(said:find("flags:%s+02000001\n"), said)
    local reader = must(fcproc.spawn({ "cat" },
      { stdin = pipe:reader(), stdout = { file = dir:file("read") } }))
    must(jobs.run(must(imagecore.unpack{ path = dir:file("file"), fd = pipe:writer() })))
    pipe:close()
    assert.are.same({ true, { status = 0 } }, { reader:wait(10) })
    reader:close()
    assert.are.equal(data, support.read_file(dir:file("read")):sub(-#data))
  end)

  it("keeps the reason of its error behind a name that is long", function()
    local err = fails("not_found", imagecore.hash{ path = "/" .. ("x/"):rep(2000) .. "y" })
    assert.is_truthy(err.message:find(": No such file or directory", 1, true), err.message)
  end)

  it("is waited for under any loop, tells its progress, and can be cancelled", function()
    local dir <close> = support.folder()
    local path = dir:file("data")
    support.write_file(path, ("fcproc\n"):rep(500000))
    local sum = "sha256:" .. support.sh{ "sha256sum", path }:match("^%x+")
    local last
    local result = must(jobs.run(must(imagecore.hash{ path = path }), nil,
      function(progress) last = progress end))
    assert.are.equal(sum, result.digest)
    assert.are.same({ "hashing", 3500000, 3500000 }, { last.step, last.bytes, last.total })
    local results = fcproc.run{
      function() return must(jobs.run(must(imagecore.hash{ path = path }))).digest end,
      function() return must(jobs.run(must(imagecore.hash{ path = path }))).digest end,
    }
    assert.are.same({ sum, sum }, { results[1][1], results[2][1] })
    fails("not_found", imagecore.hash{ path = dir:file("none") })
    fails("conflict", imagecore.hash{ path = dir.path })
    local ctx <close> = must(fcproc.context{})
    ctx:cancel()
    local huge = dir:file("huge")
    support.sh{ "truncate", "-s", "100G", huge }
    local job = must(imagecore.hash{ path = huge })
    fails("cancelled", jobs.run(job, ctx))
    raises("closed", job.fd, job)
    local other <close> = must(imagecore.hash{ path = huge })
    other:cancel()
    must(fcproc.context{}):close()
    local waited = support.must(require("fcproc.loop").complete(nil,
      require("fcproc.core").wait_readable(other:fd())))
    assert.is_true(waited)
    fails("cancelled", other:result())
  end)
end)
