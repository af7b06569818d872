-- Files found by names that somebody else may move: known by what they are, opened with another
-- user's rights, and sealed when nobody can write to them any more.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local loop = require "fcproc.loop"
local python = require "spec.support.python"

local must, fails = support.must, support.fails
local PRIVATE <const> = tonumber("600", 8)
local USER <const>, GROUP <const> = 1234, 2345
local MIB <const> = 1 << 20

-- Everything that takes an expectation: each gets the path and it, and none may wait or change what
-- is at the path.
local function uses(dir)
  local own = must(core.process(support.own_pid()))
  return setmetatable({ calls = {
    read = function(path, expected) return core.read_file(path, 0, 10, expected) end,
    own = function(path, expected) return core.own_file(path, 77, 77, 511, expected) end,
    seal = function(path, expected) return core.seal_file(path, 77, 77, 511, expected) end,
    punch = function(path, expected) return core.punch_file(path, 0, expected) end,
    link = function(path, expected) return core.link_file(path, dir:file("made"), expected) end,
    copy = function(path, expected)
      return core.copy_file(path, dir:file("made"), "sparse", PRIVATE, { expected = expected })
    end,
    ["wait for a text"] = function(path, expected)
      return own:wait_text_op(path, "nothing", expected, 0)
    end,
    ["wait for growth"] = function(path, expected)
      local done, err = loop.complete(nil, own:wait_file_op(path, MIB, expected, 0))
      return done, err
    end,
  } }, { __close = function() own:close() end })
end

local function state_of(path)
  local info = must(core.stat(path))
  return { info.type, info.id, info.uid, info.gid, info.mode, info.allocated, info.nlink }
end

-- What is at the path is refused by all, and stays as it is.
local function refused(dir, path, expected, want)
  local all <close> = uses(dir)
  local before = state_of(path)
  for name, call in pairs(all.calls) do
    local ok, err = call(path, expected)
    if ok then error(name .. " took " .. path) end
    assert.are.equal("conflict", err.code, name .. ": " .. tostring(err))
    assert.is_truthy(err.message:find(path, 1, true), err.message)
    if want then assert.is_truthy(err.message:find(want, 1, true), name .. ": " .. err.message) end
  end
  assert.are.same(before, state_of(path))
  assert.is_nil((core.stat(dir:file("made"))))
end

describe("a file that is expected", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is told from every other by its identity, whatever its name", function()
    local dir <close> = support.folder()
    local path = dir:file("file")
    local made, id = core.create_file(path, ("x"):rep(100), PRIVATE)
    assert.is_true(made)
    assert.are.equal(id, must(core.stat(path)).id)
    assert.is_truthy(id:match("^%d+%-%d+%-[1-9]%d*$"), id) -- with the birth: ext4 and tmpfs tell it
    must(core.rename(path, dir:file("moved")))
    assert.are.equal("xx", core.read_file(dir:file("moved"), 0, 2, { id = id }))
    local _, other = core.create_file(path, ("x"):rep(100), PRIVATE)
    assert.are_not.equal(id, other)
    refused(dir, path, { id = id }, "another file")
    -- The same number may be used again: then the birth tells.
    local device, inode, born = other:match("^(%d+)%-(%d+)%-(%d+)$")
    refused(dir, path, { id = ("%s-%s-%d"):format(device, inode, math.tointeger(born) - 1) })
    assert.are.equal("xx", core.read_file(path, 0, 2, { id = ("%s-%s-0"):format(device, inode) }))
    for _, text in ipairs{ "", "garbage", other .. " ", other .. "0", "0-0-0", "-1-2-3", "1-2",
      ("9"):rep(30) .. "-1-1" } do
      refused(dir, path, { id = text })
    end
    local _, written = must(core.write_file(path, "new", PRIVATE))
    assert.are.equal(written, must(core.stat(path)).id)
    refused(dir, path, { id = other })
  end)

  it("is its owner's, with one name: a hard link to another's is refused by each use", function()
    local dir <close> = support.folder()
    local image = dir:file("image")
    must(core.create_file(image, ("x"):rep(100000), PRIVATE))
    support.sh{ "ln", image, dir:file("metrics") }
    refused(dir, dir:file("metrics"), { uid = USER, single = true }, "belongs to uid 0")
    refused(dir, dir:file("metrics"), { single = true }, "2 names")
    must(core.own_file(image, USER, GROUP))
    refused(dir, dir:file("metrics"), { uid = USER, single = true }, "2 names")
    os.remove(image)
    assert.are.equal("x", core.read_file(dir:file("metrics"), 0, 1, { uid = USER, single = true }))
  end)

  it("is no link, folder, FIFO or socket, which are neither followed nor waited for", function()
    local dir <close> = support.folder()
    local _, id = core.create_file(dir:file("file"), "data", PRIVATE)
    support.sh({ "sh", "-ec", [[
      ln -s file link; mkdir folder; mkfifo fifo
      python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
    ]] }, { cwd = dir.path })
    for _, name in ipairs{ "link", "folder", "fifo", "socket" } do
      for _, expected in ipairs{ {}, { id = id }, { uid = 0, single = true } } do
        refused(dir, dir:file(name), expected)
      end
    end
    assert.are.equal("data", core.read_file(dir:file("file")))
  end)

  it("that its owner holds a lease on is not waited for", function()
    local dir <close> = support.folder()
    must(core.create_file(dir:file("file"), "data", PRIVATE))
    local holder <close> = python([[
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
f = open(sys.argv[1], "r+")
fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)
]], nil, dir:file("file"))
    holder:ready()
    local err
    assert.is_true(support.seconds(function() err = fails("busy", core.read_file(dir:file("file"))) end)
      < 1)
    assert.is_truthy(err.message:find("lease", 1, true), err.message)
  end)

  it("is given away by the descriptor that made it, and born closed", function()
    local dir <close> = support.folder()
    must(core.create_file(dir:file("a"), "1", PRIVATE, USER, GROUP))
    must(core.write_file(dir:file("b"), "2", tonumber("640", 8), USER))
    local op = must(core.copy_file(dir:file("a"), dir:file("c"), "sparse", 256,
      { uid = USER, gid = GROUP }))
    local done, _, _, id = loop.complete(nil, op)
    assert.is_true(done)
    assert.are.equal(id, must(core.stat(dir:file("c"))).id)
    local all = {}
    for i, name in ipairs{ "a", "b", "c" } do
      local info = must(core.stat(dir:file(name)))
      all[i] = { info.uid, info.gid, info.mode }
    end
    assert.are.same({ { USER, GROUP, PRIVATE }, { USER, 0, 416 }, { USER, GROUP, 256 } }, all)
  end)

  it("is left alone by a capper once it was replaced", function()
    local dir <close> = support.folder()
    local capper <close> = must(core.capper())
    local log, image = dir:file("log"), dir:file("image")
    local _, id = core.create_file(log, "", PRIVATE, USER, GROUP)
    must(core.create_file(image, ("x"):rep(MIB), PRIVATE))
    must(capper:add(log, 65536, { id = id, uid = USER, single = true }))
    must(capper:add(image, 65536, { uid = 0, single = true }))
    must(core.remove_file(log))
    must(core.create_file(dir:file("precious"), ("x"):rep(MIB), PRIVATE))
    support.sh{ "ln", dir:file("precious"), log }
    support.eventually("the other is held", function()
      return must(core.stat(image)).allocated <= 65536
    end)
    assert.are.equal(MIB, must(core.stat(log)).allocated)
  end)
end)

describe("a file opened with another user's rights", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local reader = { reader_uid = USER, reader_gid = GROUP }

  it("is one that this user may read: by its mode, its group, its list, and every folder", function()
    local dir <close> = support.folder()
    support.sh({ "sh", "-ec", [[
      chmod 755 .; mkdir open closed; chmod 700 closed
      for name in open closed; do
        for file in all mine theirs group; do echo data > $name/$file; done
        chmod 644 $name/all; chmod 600 $name/theirs
        chown 1234 $name/mine; chmod 400 $name/mine
        chgrp 2345 $name/group; chmod 640 $name/group
      done
      echo data > open/supplementary; chgrp 1 open/supplementary; chmod 640 open/supplementary
    ]] }, { cwd = dir.path })
    for name, may in pairs{ ["open/all"] = true, ["open/mine"] = true, ["open/group"] = true,
      ["open/theirs"] = false, ["open/supplementary"] = false, ["closed/all"] = false,
      ["closed/mine"] = false } do
      local path = dir:file(name)
      local made = dir:file("made")
      for what, call in pairs{
        read = function() return core.read_file(path, 0, 4, reader) end,
        link = function() return core.link_file(path, made, reader) end,
        copy = function()
          return loop.complete(nil, core.copy_file(path, made, "sparse", 256, { expected = reader }))
        end,
      } do
        if may then
          must(call())
        else
          local err = fails("permission", call())
          assert.is_truthy(err.message:find("uid 1234 can't open", 1, true), what .. err.message)
        end
        assert.are.equal(may and what ~= "read", core.stat(made) ~= nil)
        core.remove_file(made)
      end
    end
    fails("not_found", core.read_file(dir:file("open/none"), 0, 4, reader))
  end)

  it("leaves the caller as it was: rights, descriptors, and what may look at it", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("file"), "data")
    support.sh{ "chmod", "-R", "755", dir.path }
    support.write_file(dir:file("script.lua"), [[
      local core = require "fcproc.core"
      local me = "/proc/" .. core.read_link("/proc/self")
      local function seen()
        return core.read_file("/proc/self/status"):gsub("\nVm.*", "") .. core.stat(me .. "/maps").uid
          .. #core.list_dir(me .. "/fd")
      end
      local before = seen()
      assert(core.stat(me .. "/maps").uid == 1000)
      assert(core.read_file(arg[1], 0, 4, { reader_uid = 1234, reader_gid = 2345 }) == "data")
      assert(not core.read_file(arg[1] .. "x", 0, 4, { reader_uid = 1234, reader_gid = 2345 }))
      local after = seen()
      assert(before == after, before .. "\n" .. after)
      print(os.execute("true"))
    ]])
    -- A user who may become others, since what root's process looks like tells nothing.
    local out = support.sh{ "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups",
      "--inh-caps=+setuid,+setgid", "--ambient-caps=+setuid,+setgid", support.lua,
      dir:file("script.lua"), dir:file("file") }
    assert.are.equal("true\texit\t0\n", out)
    -- One who may not is told so.
    local result, err = fcproc.runner():run{ "setpriv", "--reuid=1000", "--clear-groups",
      support.lua, dir:file("script.lua"), dir:file("file") }
    assert.is_nil(result)
    assert.is_truthy(tostring(err.output or err):find("assertion failed", 1, true), tostring(err))
  end)
end)

describe("a file is sealed", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- A page of the file stays a buffer of io_uring, without a descriptor or a mapping of it: "go" is read
  -- into it when the second file appears. Prints what the kernel said to that.
  local PINNER = [[
import ctypes, mmap, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + \
    [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
source = open("/proc/self/exe", "rb")
fd = os.open(sys.argv[1], os.O_RDWR)
page = libc.mmap(None, 4096, 3, 1, fd, 0)
parameters = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 4, parameters)
array = struct.unpack_from("10I", parameters, 40)[6]
sq, sqes = mmap.mmap(ring, array + 16, offset=0), mmap.mmap(ring, 256, offset=0x10000000)
vector = struct.pack("QQ", page, 4096)
done = libc.syscall(427, ring, 0, vector, 1)
print("pinned" if done == 0 else "refused", flush=True)
libc.munmap(page, 4096); os.close(fd)
def spoil():
    struct.pack_into("BBHiQQIIQH", sqes, 0, 4, 0, 0, source.fileno(), 0, page, 4, 0, 0, 0)
    struct.pack_into("I", sq, array, 0)
    tail = struct.unpack_from("10I", parameters, 40)[1]
    struct.pack_into("I", sq, tail, 1)
    libc.syscall(426, ring, 1, 1, 1, None, 0)
print("ready.", flush=True)
while not os.path.exists(sys.argv[1] + ".go"): time.sleep(0.01)
spoil()
os.unlink(sys.argv[1] + ".go")
]]

  it("only where its pages can't be pinned by somebody who has closed it", function()
    local dir <close> = support.folder()
    for _, path in ipairs{ dir:file("file"), "/dev/shm/fcproc-spec-pin-" .. support.own_pid() } do
      local _ <close> = setmetatable({}, { __close = function() os.remove(path) end })
      must(core.create_file(path, ("x"):rep(8192), PRIVATE))
      local pinner <close> = python(PINNER, nil, path)
      pinner:ready()
      local sealed = core.seal_file(path, 0, 0, 256)
      support.write_file(path .. ".go", "")
      support.eventually("it is used", function() return core.stat(path .. ".go") == nil end)
      local spoilt = support.read_file(path):sub(1, 4) ~= "xxxx"
      assert.is_false(sealed and spoilt, path .. " was written to when it was sealed")
      assert.are.equal(pinner:output():find("pinned", 1, true) ~= nil, spoilt)
    end
  end)

  local WRITER = [[
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
if sys.argv[2] == "mapped":
    m = mmap.mmap(fd, 4096)
    os.close(fd)
if sys.argv[2] == "reader":
    r = os.open(sys.argv[1], os.O_RDONLY)
    m = mmap.mmap(r, 4096, prot=mmap.PROT_READ)
    os.close(fd)
]]

  for _, kind in ipairs{ "ext4", "tmpfs" } do
    it("when nobody can write to it any more: " .. kind, function()
      local dir <close> = support.folder()
      local path = dir:file("file")
      if kind == "tmpfs" then path = "/dev/shm/fcproc-spec-seal-" .. support.own_pid() end
      local _ <close> = setmetatable({}, { __close = function() os.remove(path) end })
      local is = support.sh{ "stat", "-f", "-c", "%T", path:match("^(.*)/") }
      assert.is_truthy(is:find(kind == "tmpfs" and "^tmpfs" or "^ext"), is)
      for writer, want in pairs{ open = false, mapped = false, reader = true } do
        os.remove(path)
        local _, id = core.create_file(path, ("x"):rep(8192), PRIVATE, USER, GROUP)
        do
          local program <close> = python(WRITER, nil, path, writer)
          program:ready()
          -- What is in memory can't be asked.
          assert.are.equal(want and kind == "ext4", core.seal_file(path, 0, GROUP, 288,
            { id = id, uid = USER, single = true }), writer)
          local info = must(core.stat(path))
          assert.are.same({ 0, GROUP, 288 }, { info.uid, info.gid, info.mode })
        end
        assert.are.equal(kind == "ext4", core.seal_file(path, 0, 0, 256, { id = id }), writer)
        support.sh{ "ln", path, path .. ".2" }
        assert.is_false(core.seal_file(path, 0, 0, 256, { id = id }))
        os.remove(path .. ".2")
      end
    end)
  end
end)
