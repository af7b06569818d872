-- Files and folders of the core: made, looked at, written, read, linked, given away, removed. Whole
-- trees and locks are below; copies are in copy_spec.

local support = require "spec.support"
local mounts = require "spec.support.mounts"
local core = require "fcproc.core"

local must, fails = support.must, support.fails
local PRIVATE <const>, ANYBODY <const> = tonumber("700", 8), tonumber("666", 8)
local ENOSPC <const>, EROFS <const>, EXDEV <const> = 28, 30, 18

-- Each kind of thing in a folder: "file", "dir", "link", "dirlink" (to a folder), "fifo", "socket".
local function one_of_each(dir)
  support.write_file(dir:file("file"), "data")
  support.sh({ "sh", "-ec", 'cd "$1"; mkdir dir; ln -s file link; ln -s dir dirlink; mkfifo fifo',
    "sh", dir.path })
  support.sh{ "python3", "-c", "import socket, sys\n"
    .. "socket.socket(socket.AF_UNIX).bind(sys.argv[1])", dir:file("socket") }
end

-- A conflict at the path, which is still what it was.
local function conflicts(path, call, ...)
  local before = must(core.stat(path))
  local err = fails("conflict", call(path, ...))
  assert.are.equal(path, err.path)
  assert.are.same(before, must(core.stat(path)))
  return err
end

describe("a folder", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is made with exactly its mode, one level, and left alone when it is there", function()
    local dir <close> = support.folder()
    local path = dir:file("new/")
    assert.is_true(core.make_dir(path, tonumber("1777", 8)))
    assert.are.equal(tonumber("1777", 8), core.stat(path).mode)
    assert.is_false(core.make_dir(path, PRIVATE))
    assert.are.equal(tonumber("1777", 8), core.stat(path).mode)
    local err = fails("not_found", core.make_dir(dir:file("a/b"), PRIVATE))
    assert.are.equal(dir:file("a/b"), err.path)
    support.sh{ "chmod", "g+s", dir.path } -- a setgid parent hands it on
    must(core.make_dir(dir:file("plain"), PRIVATE))
    assert.are.equal(PRIVATE, core.stat(dir:file("plain")).mode)
  end)

  it("is not made where something else is, a link to a folder neither", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    for name, word in pairs{ file = "a file", link = "a symbolic link", socket = "a socket",
      dirlink = "a symbolic link", fifo = "a device or FIFO" } do
      local err = conflicts(dir:file(name), core.make_dir, PRIVATE)
      assert.is_truthy(err.message:find(word, 1, true), err.message)
      fails("conflict", core.make_dir(dir:file(name) .. "/", PRIVATE))
    end
    assert.are.equal(20, fails("conflict", core.make_dir(dir:file("file/x"), PRIVATE)).errno)
  end)

  it("is listed, sorted, with what each is", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    local seen = {}
    for i, entry in ipairs(must(core.list_dir(dir.path .. "//"))) do
      seen[i] = entry.name .. " " .. entry.type
      assert.are.equal(entry.type, core.stat(dir:file(entry.name)).type)
    end
    assert.are.equal("dir dir, dirlink link, fifo other, file file, link link, socket socket",
      table.concat(seen, ", "))
    assert.are.same({}, core.list_dir(dir:file("dir")))
    fails("not_found", core.list_dir(dir:file("none")))
    for _, name in ipairs{ "file", "dirlink", "dirlink/", "fifo" } do
      fails("conflict", core.list_dir(dir:file(name)))
    end
    for i = 1, 1000 do support.write_file(dir:file("dir/" .. i), "") end
    assert.are.equal(1000, #core.list_dir(dir:file("dir")))
  end)
end)

describe("stat", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("tells what stat(1) does, of a link or of what it leads to", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    support.sh{ "truncate", "-s", "1M", dir:file("file") }
    local info = must(core.stat(dir:file("file")))
    assert.are.equal(support.sh{ "stat", "-c", "%s %d %i %u %g %h", dir:file("file") },
      ("%d %d %d %d %d %d\n"):format(info.size, info.dev, info.ino, info.uid, info.gid, info.nlink))
    local told = tonumber(support.sh{ "stat", "-c", "%.9Y", dir:file("file") })
    assert.is_true(math.abs(told - info.mtime) < 1e-5) -- as near as a float comes
    assert.is_true(info.allocated < info.size)
    assert.are.equal("link", core.stat(dir:file("link")).type)
    assert.are.equal("link", core.stat(dir:file("dirlink/")).type)
    assert.are.equal(info.ino, core.stat(dir:file("link"), true).ino)
    local err = fails("not_found", core.stat(dir:file(("long/"):rep(150))))
    assert.is_truthy(err.message:find("No such file", 1, true), err.message) -- whatever its length
    fails("invalid", core.stat(("n"):rep(300)))
    fails("conflict", core.stat(dir:file("file/x")))
  end)
end)

describe("a file", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is made with exactly its mode and content, and left alone when it is there", function()
    local dir <close> = support.folder()
    assert.is_true(core.create_file(dir:file("new"), "a\0b", ANYBODY))
    assert.are.equal(ANYBODY, core.stat(dir:file("new")).mode)
    assert.are.equal("a\0b", core.read_file(dir:file("new")))
    support.write_file(dir:file("new"), "text")
    assert.is_false(core.create_file(dir:file("new"), "", PRIVATE))
    assert.are.equal("text", core.read_file(dir:file("new")))
    one_of_each(dir)
    for _, name in ipairs{ "dir", "link", "dirlink", "fifo", "socket" } do
      conflicts(dir:file(name), core.create_file, "", PRIVATE)
    end
    fails("not_found", core.create_file(dir:file("none/x"), "", PRIVATE))
  end)

  it("is written as a whole, and what a crash left is replaced", function()
    local dir <close> = support.folder()
    local path, temporary = dir:file("state"), dir:file(".state.new")
    must(core.write_file(path, "one\0two", ANYBODY))
    assert.are.equal("one\0two", core.read_file(path))
    assert.are.equal(ANYBODY, core.stat(path).mode)
    support.write_file(temporary, "half")
    must(core.write_file(path, "", PRIVATE))
    assert.are.equal("", core.read_file(path))
    -- A link there would be somebody's trap.
    support.write_file(dir:file("victim"), "safe")
    support.sh{ "ln", "-s", "victim", temporary }
    must(core.write_file(path, ("x"):rep(1 << 20), PRIVATE))
    assert.are.equal(1 << 20, core.stat(path).size)
    support.sh{ "ln", "-sf", "victim", path }
    must(core.write_file(path, "new", PRIVATE))
    assert.are.equal("file", core.stat(path).type)
    assert.are.equal("safe", core.read_file(dir:file("victim")))
    fails("not_found", core.stat(temporary))
    support.sh{ "mkdir", dir:file("folder"), dir:file(".busy.new") }
    fails("conflict", core.write_file(dir:file("folder"), "x", PRIVATE))
    fails("not_found", core.stat(dir:file(".folder.new")))
    fails("conflict", core.write_file(dir:file("busy"), "x", PRIVATE))
    for _, name in ipairs{ "a/", ".", ".." } do
      fails("conflict", core.write_file(dir:file(name), "x", PRIVATE))
    end
    fails("not_found", core.write_file(dir:file("none/x"), "x", PRIVATE))
    fails("invalid", core.write_file(dir:file(("n"):rep(253)), "x", PRIVATE))
  end)

  it("is read from anywhere, and nothing else is, nor waited for", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    support.write_file(dir:file("file"), "0123456789")
    local path = dir:file("file")
    assert.are.equal("789", core.read_file(path, 7))
    assert.are.equal("89", core.read_file(path, -2))
    assert.are.equal("0123456789", core.read_file(path, -99))
    assert.are.equal("78", core.read_file(path, -3, 2))
    assert.are.equal("", core.read_file(path, 99))
    assert.are.equal("", core.read_file(path, 0, 0))
    assert.are.equal("0123456789", core.read_file(path, 0, math.maxinteger))
    assert.is_true(#core.read_file("/proc/self/maps") > 4096) -- its size is 0
    support.sh{ "truncate", "-s", "17M", path }
    assert.are.equal(16 << 20, #core.read_file(path))
    for _, name in ipairs{ "dir", "link", "dirlink", "fifo", "socket" } do
      conflicts(dir:file(name), core.read_file)
    end
    fails("not_found", core.read_file(dir:file("none")))
    support.raises("a limit must be", core.read_file, path, 0, -1)
  end)

  it("is given away with its mode, a link never through", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    for _, name in ipairs{ "file", "dir", "fifo", "socket" } do
      must(core.own_file(dir:file(name), 1001, 1002, tonumber("4710", 8)))
      local info = core.stat(dir:file(name))
      assert.are.same({ 1001, 1002, tonumber("4710", 8) }, { info.uid, info.gid, info.mode })
    end
    -- A change of the owner takes the setuid bit: it is kept when the mode says so, and only then.
    must(core.own_file(dir:file("file"), 1005, 1002, tonumber("4710", 8)))
    assert.are.equal(tonumber("4710", 8), core.stat(dir:file("file")).mode)
    must(core.own_file(dir:file("file"), 1001))
    assert.are.equal(tonumber("710", 8), core.stat(dir:file("file")).mode)
    must(core.own_file(dir:file("file"), nil, 1003))
    assert.are.equal(1001, core.stat(dir:file("file")).uid)
    must(core.own_file(dir:file("dirlink/"), 1004))
    assert.are.equal(1004, core.stat(dir:file("dirlink")).uid)
    conflicts(dir:file("dirlink"), core.own_file, nil, nil, PRIVATE)
    assert.are.equal(1001, core.stat(dir:file("dir")).uid)
    fails("not_found", core.own_file(dir:file("none"), 1))
    support.raises("no user or group number", core.own_file, dir.path, 4294967295)
    support.raises("a mode must be", core.own_file, dir.path, 1, 1, 8192)
  end)

  it("is removed, whatever kind, but no folder", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    for _, name in ipairs{ "link", "dirlink", "fifo", "socket", "file" } do
      assert.is_true(core.remove_file(dir:file(name)))
      assert.is_false(core.remove_file(dir:file(name)))
    end
    conflicts(dir:file("dir"), core.remove_file)
    assert.is_false(core.remove_file(dir:file("none/x")))
  end)

  it("is seen at a second place by a mount, read-only and on any file system", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    support.write_file(dir:file("file"), "data")
    mounts(dir, 'mkdir "$1/other"; mount -t tmpfs none "$1/other"', [[
      local file, place = dir .. "/file", dir .. "/other/place"
      local id = must(core.stat(file)).id
      must(core.bind_file(file, place, { id = id }))
      assert(must(core.stat(place)).id == id and must(core.read_file(place)) == "data")
      local opened, reason = io.open(place, "r+b")
      assert(not opened and reason:find("Read%-only"), reason)
      fails("conflict", core.bind_file(file, place)) -- there is something
      fails("conflict", core.bind_file(dir .. "/dir", dir .. "/other/x"))
      fails("conflict", core.bind_file(dir .. "/link", dir .. "/other/x"))
      fails("conflict", core.bind_file(file, dir .. "/other/x", { id = "1-1-1" }))
      fails("not_found", core.bind_file(file, dir .. "/none/x"))
      local held <close> = assert(io.open(place))
      assert(must(core.unbind_file(place)))
      assert(core.unbind_file(place) == false and core.stat(place).size == 0)
      assert(held:read("a") == "data")
      assert(core.unbind_file(file) == false and core.unbind_file(dir .. "/none/x") == false)
      assert(core.unbind_file(dir .. "/other") == false) -- a folder is none of ours
      support.sh{ "ln", "-s", place, dir .. "/other/led" }
      must(core.bind_file(file, dir .. "/other/again"))
      assert(core.unbind_file(dir .. "/other/led") == false)
      assert(must(core.unbind_file(dir .. "/other/again")))
      assert(must(core.read_file(file)) == "data" and core.stat(file).nlink == 1)
      assert(#must(core.list_dir(dir .. "/other")) == 3)
    ]])
    -- Without the right to mount, a copy is what is left.
    support.sh({ "chmod", "777", dir.path })
    support.write_file(dir:file("try.lua"), ([[
      local ok, err = require "fcproc.core".bind_file(%q, %q)
      assert(not ok and err.code == "unsupported" and err.message:find("CAP_SYS_ADMIN"), tostring(err))
    ]]):format(dir:file("file"), dir:file("place")))
    support.sh({ support.lua, dir:file("try.lua") }, { uid = 65534, gid = 65534 })
    assert.is_nil(core.stat(dir:file("place")))
  end)

  it("gets another name by a hard link, only itself and only on its file system", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    must(core.link_file(dir:file("file"), dir:file("second")))
    assert.are.equal(core.stat(dir:file("file")).ino, core.stat(dir:file("second")).ino)
    for _, name in ipairs{ "dir", "link", "dirlink", "fifo", "socket" } do
      fails("conflict", core.link_file(dir:file(name), dir:file("third")))
      fails("conflict", core.link_file(dir:file("file"), dir:file(name)))
    end
    fails("not_found", core.link_file(dir:file("none"), dir:file("third")))
    fails("not_found", core.link_file(dir:file("file"), dir:file("none/x")))
    local err = fails("unsupported", core.link_file(dir:file("file"), "/dev/shm/fcproc-spec-link"))
    assert.are.equal(EXDEV, err.errno)
    assert.are.equal("/dev/shm/fcproc-spec-link", err.path)
  end)

  it("is renamed, over another only when asked", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    support.write_file(dir:file("other"), "")
    fails("conflict", core.rename(dir:file("file"), dir:file("other")))
    fails("conflict", core.rename(dir:file("dir"), dir:file("dirlink")))
    must(core.rename(dir:file("file"), dir:file("other"), true))
    assert.are.equal("data", core.read_file(dir:file("other")))
    must(core.rename(dir:file("dir"), dir:file("moved")))
    fails("not_found", core.rename(dir:file("file"), dir:file("x")))
    fails("conflict", core.rename(dir:file("other"), dir:file("moved"), true))
    fails("unsupported", core.rename(dir:file("other"), "/dev/shm/fcproc-spec-rename"))
    fails("invalid", core.rename(dir:file("moved"), dir:file("moved/x"), true))
    fails("unsupported", core.rename(dir:file("moved"), dir:file("moved/x")))
  end)
end)

describe("a symbolic link as a lease", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is had by one, whom the others are told", function()
    local dir <close> = support.folder()
    one_of_each(dir)
    local path = dir:file("lease")
    must(core.symlink("vm-7", path))
    assert.are.equal("vm-7", core.read_link(path))
    local err = fails("conflict", core.symlink("vm-8", path))
    assert.is_truthy(err.message:find("'vm-7'", 1, true), err.message)
    assert.are.equal("vm-7", core.read_link(path))
    err = conflicts(dir:file("file"), function(at) return core.symlink("vm-8", at) end)
    assert.is_truthy(err.message:find("is a file", 1, true), err.message)
    conflicts(dir:file("dir"), core.read_link)
    fails("not_found", core.read_link(dir:file("none")))
    fails("not_found", core.symlink("vm-8", dir:file("none/x")))
    must(core.symlink(("t"):rep(4095), dir:file("long")))
    assert.are.equal(4095, #core.read_link(dir:file("long")))
    fails("invalid", core.symlink(("t"):rep(4096), dir:file("longer")))
  end)
end)

describe("what is somebody else's", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is refused, and the message says what to look at", function()
    local dir <close> = support.folder()
    support.sh({ "sh", "-ec", [[cd "$1"; mkdir -p t/x; touch t/f; chown -R 1000 t; chmod 700 t]],
      "sh", dir.path })
    -- Root without its privileges over files.
    mounts(dir, [[exec setpriv --bounding-set=-all --inh-caps=-all "$0" "$1/script.lua" "$1"]], [[
      for _, made in ipairs{ { core.read_file(dir .. "/t/f") }, { core.list_dir(dir .. "/t") },
        { core.make_dir(dir .. "/t/y", 448) }, { core.write_file(dir .. "/t/y", "", 384) },
        { core.create_file(dir .. "/t/y", "", 384) }, { core.remove_file(dir .. "/t/f") },
        { core.own_file(dir .. "/t", 0) }, { core.own_file(dir .. "/t", nil, nil, 511) },
        { core.symlink("x", dir .. "/t/y") }, { core.lock_file(dir .. "/t/lock") },
        { core.rename(dir .. "/t", dir .. "/t/x/t") }, { core.remove_tree(dir .. "/t") },
        { core.copy_file(dir .. "/script.lua", dir .. "/t/y", "sparse", 384) } } do
        local err = fails("permission", table.unpack(made))
        assert(err.errno == 1 or err.errno == 13)
        assert(err.message:find("look at who owns", 1, true), err.message)
      end
    ]])
  end)
end)

describe("a file system", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("that is full or read-only says so, and the old file stands", function()
    local dir <close> = support.folder()
    mounts(dir, [[
      mkdir "$1/full" "$1/ro"
      mount -t tmpfs -o size=1M,nr_inodes=6 none "$1/full"
      echo old >"$1/full/state"
      mkdir "$1/ro/old"
      echo old >"$1/ro/state"
      mount --bind "$1/ro" "$1/ro"
      mount -o remount,bind,ro "$1/ro"
    ]], ([[
      local ENOSPC, EROFS = %d, %d
      local function is(errno, text, ...)
        local err = fails("system", ...)
        assert(err.errno == errno and err.message:find(text, 1, true), tostring(err))
      end
      local full, ro = dir .. "/full/", dir .. "/ro/"
      is(ENOSPC, "is full", core.write_file(full .. "state", ("x"):rep(2 << 20), 384))
      assert(core.read_file(full .. "state") == "old\n")
      assert(#core.list_dir(full) == 1)
      for i = 1, 9 do core.create_file(full .. i, "", 384) end
      is(ENOSPC, "is full", core.create_file(full .. "more", "", 384))
      core.remove_file(full .. "9")
      is(ENOSPC, "is full", core.create_file(full .. "9", ("x"):rep(2 << 20), 384))
      assert(not core.stat(full .. "9"))
      core.create_file(full .. "9", "", 384)
      is(ENOSPC, "is full", core.make_dir(full .. "dir", 448))
      is(ENOSPC, "is full", core.symlink("x", full .. "link"))
      is(ENOSPC, "is full", core.lock_file(full .. "lock"))
      for _, made in ipairs{ { core.write_file(ro .. "state", "x", 384) },
        { core.create_file(ro .. "x", "", 384) }, { core.make_dir(ro .. "x", 448) },
        { core.symlink("x", ro .. "x") }, { core.remove_file(ro .. "state") },
        { core.own_file(ro .. "state", 1) }, { core.rename(ro .. "state", ro .. "x") },
        { core.link_file(ro .. "state", ro .. "x") }, { core.lock_file(ro .. "x") },
        { core.punch_file(ro .. "state", 0) },
        { core.copy_file(ro .. "state", ro .. "x", "sparse", 384) } } do
        is(EROFS, "mounted read-only", table.unpack(made))
      end
      -- What is there is there, though.
      assert(core.make_dir(ro .. "old", 448) == false)
      assert(core.create_file(ro .. "state", "", 384) == false)
      assert(core.read_file(ro .. "state") == "old\n")
    ]]):format(ENOSPC, EROFS))
  end)
end)

describe("a capper", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("holds a file to a size while another process writes, until told to leave it", function()
    local dir <close> = support.folder()
    local capper <close> = must(core.capper())
    local held, free = dir:file("held"), dir:file("free")
    must(capper:add(held, 65536))
    must(capper:add(dir:file("none"), 65536))
    must(capper:add(free, 65536))
    capper:remove(free)
    for _, path in ipairs{ held, free } do
      support.sh{ "sh", "-c", ("head -c 1000000 /dev/zero | tr '\\0' x >> %s"):format(path) }
    end
    support.eventually("the file is held", function()
      return must(core.stat(held)).allocated <= 65536
    end)
    assert.are.equal(1000000, must(core.stat(held)).size)
    assert.are.equal("xxx", must(core.read_file(held, -3)))
    assert.is_true(must(core.stat(free)).allocated >= 1000000)
  end)
end)
