-- Archives into the tree: what GNU tar and Python write is there, byte by byte, whatever packed it.

local support = require "spec.support"
local fcproc = require "fcproc"
local uv = require "luv"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"

local must, fails = support.must, support.fails

local function read(tree, options)
  local job <close> = must(tree:read_archive(options)) -- luacheck: ignore
  return jobs.run(job)
end

-- What the specs' folder holds; names are bytes.
local FOLDER = [[
import os, sys
os.chdir(sys.argv[1])
def write(name, data, mode=0o644):
    with open(name, "wb") as f: f.write(data)
    os.chmod(name, mode)
os.makedirs("usr/bin")
write("usr/bin/tool", b"#!/bin/sh\n", 0o4755)
os.link("usr/bin/tool", "usr/bin/alias")
os.symlink("usr/bin", "bin")
write("e\u0301".encode(), b"decomposed")
write("\u00e9".encode(), b"composed")
write(b"bad\xff\xfename", b"no UTF-8")
write(b"n" * 255, b"long")
os.makedirs("d/" * 30)
write("d/" * 30 + "deep" * 50, b"deep")
os.symlink(b"to\xff", b"sym\xff")
with open("sparse", "wb") as f:
    for at in (0, 500000, 1 << 20): f.seek(at); f.write(b"data at %d" % at)
    f.truncate(3 << 20)
with open("zeros", "wb") as f: f.write(bytes(200000))
with open("big", "wb") as f: f.write(bytes(range(256)) * 1000 + bytes(300000) + b"end")
write("empty", b"")
os.mkfifo("pipe")
os.setxattr("usr/bin/tool", "user.note", b"a\0b")
os.utime("empty", ns=(0, -315619199750000000))
os.utime("big", ns=(0, 1234567890123456789))
]]

-- Every name of the host's folder is in the tree, as it is there.
local CHECK = [[
import os, stat, sys
def kind(m):
    for name, is_kind in (("file", stat.S_ISREG), ("dir", stat.S_ISDIR), ("symlink", stat.S_ISLNK),
        ("fifo", stat.S_ISFIFO)):
        if is_kind(m): return name
root = sys.argv[1].encode()
for folder, dirs, names in os.walk(root):
    for name in dirs + names:
        path = os.path.join(folder, name)
        st = os.lstat(path)
        row = [os.path.relpath(path, root).hex(), kind(st.st_mode), oct(st.st_mode & 0o7777),
            str(st.st_uid), str(st.st_gid), str(st.st_mtime_ns // 10**9), str(st.st_mtime_ns % 10**9)]
        if kind(st.st_mode) == "file": row.append(str(st.st_nlink))
        if kind(st.st_mode) == "symlink": row.append(os.readlink(path).hex())
        print(" ".join(row))
]]

local function hex(bytes) return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end

local function rows(dir, tree, path, list, without_fraction)
  for _, name in ipairs(must(tree:list(path))) do
    local at = path .. "/" .. name
    local st = must(tree:stat(at))
    local row = { hex(at:sub(2)), st.kind, ("0o%o"):format(st.mode), st.uid, st.gid, st.mtime,
      without_fraction and 0 or st.mtime_ns }
    if st.kind == "file" then
      row[#row + 1] = st.nlink
      assert.is_true(must(tree:read(at, 1 << 30)) == support.read_file(dir:file("in") .. at), at)
    end
    if st.kind == "symlink" then row[#row + 1] = hex(st.target) end
    list[#list + 1] = table.concat(row, " ")
    if st.kind == "dir" then rows(dir, tree, at, list, without_fraction) end
  end
  return list
end

local function lines(text) return support.collect(text, "[^\n]+") end

describe("an archive", function()
  local dir, wanted

  setup(function()
    dir = support.folder()
    os.execute("mkdir " .. dir:file("in"))
    support.sh{ "python3", "-c", FOLDER, dir:file("in") }
    wanted = lines(support.sh{ "python3", "-c", CHECK, dir:file("in") })
    table.sort(wanted)
    support.sh{ "tar", "-C", dir:file("in"), "--format=posix", "--xattrs", "-Scf", dir:file("pax.tar"), "." }
    support.sh{ "tar", "-C", dir:file("in"), "--format=gnu", "-Scf", dir:file("gnu.tar"), "." }
  end)
  teardown(function() getmetatable(dir).__close(dir) end)
  before_each(support.before_each)
  after_each(support.after_each)

  local function holds(tree, without_fraction)
    local list, expected = rows(dir, tree, "", {}, without_fraction), wanted
    if without_fraction then
      expected = {}
      for i, row in ipairs(wanted) do
        local parts = support.collect(row, "%S+")
        -- GNU tar writes what is before the epoch in full seconds further back.
        parts[7] = "0"
        expected[i] = table.concat(parts, " ")
      end
      table.sort(expected)
    end
    table.sort(list)
    assert.are.same(expected, list)
  end

  it("of GNU tar's, in both formats, is in the tree as it is on the disk", function()
    for _, format in ipairs{ "pax", "gnu" } do
      local tree <close> = must(imagecore.tree())
      local result = must(read(tree, { path = dir:file(format .. ".tar") }))
      assert.are.same({}, result.warnings)
      assert.are.equal(#wanted + 1, result.entries)
      holds(tree, format == "gnu")
      if format == "pax" then
        assert.are.same({ ["user.note"] = "a\0b" }, must(tree:stat("usr/bin/alias")).xattrs)
      end
      local sealed = must(tree:seal())
      assert.are.equal(#wanted, sealed.entries)
      assert.is_true(sealed.bytes < 1000000, sealed.bytes) -- holes are no contents
    end
  end)

  it("is understood by what it is, packed by anything, from a file, a pipe or a part of a file", function()
    local digest = support.sh{ "sha256sum", dir:file("pax.tar") }:match("^%x+")
    for _, argv in ipairs{ { "cat" }, { "gzip", "-c" }, { "bzip2", "-c" }, { "xz", "-c" }, { "zstd", "-qc" },
      { "lzma", "-c" } } do
      local packed = dir:file("packed")
      support.sh{ "sh", "-c", 'from=$1 to=$2; shift 2; "$@" <"$from" >"$to"', "sh", dir:file("pax.tar"),
        packed, table.unpack(argv) }
      local sum = "sha256:" .. support.sh{ "sha256sum", packed }:match("^%x+")
      do
        local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
        local result = must(read(tree, { path = packed, digest = sum, diff_id = "sha256:" .. digest }))
        assert.are.equal(sum, result.digest)
        assert.are.equal(#support.read_file(packed), result.packed_bytes)
        holds(tree)
      end
      do
        local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
        local pipe = dir:file("pipe")
        support.sh{ "mkfifo", pipe }
        local writer = must(fcproc.spawn{ "sh", "-c", "exec cat " .. packed .. " >" .. pipe })
        must(read(tree, { path = pipe }))
        assert.are.same({ true, { status = 0 } }, { writer:wait(10) })
        writer:close()
        os.remove(pipe)
        holds(tree)
      end
      do
        support.write_file(dir:file("part"), ("x"):rep(777) .. support.read_file(packed) .. "tail")
        local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
        must(read(tree, { path = dir:file("part"), offset = 777, length = #support.read_file(packed) }))
        holds(tree)
      end
      do
        local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
        local fd = uv.fs_open(packed, "r", 0)
        must(read(tree, { fd = fd }))
        uv.fs_close(fd)
        holds(tree)
      end
    end
  end)

  -- What the script writes into a pipe; $1 is the archive, packed by gzip in two members.
  local function piped(script, ctx)
    local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
    local pipe = dir:file("pipe")
    support.sh{ "sh", "-c", 'rm -f "$2"; mkfifo "$2"; head -c 70000 "$1" | gzip -nc >"$3"; '
      .. 'tail -c +70001 "$1" | gzip -nc >"$4"; cat "$3" "$4" >"$5"', "sh", dir:file("pax.tar"), pipe,
      dir:file("1.gz"), dir:file("2.gz"), dir:file("both.gz") }
    local writer <close> = must(fcproc.spawn{ "sh", "-c", script, "sh", dir:file("both.gz"), pipe,
      tostring(#support.read_file(dir:file("1.gz")) + 1) })
    local job <close> = must(tree:read_archive{ path = pipe }) -- luacheck: ignore
    local done, err = jobs.run(job, ctx)
    if done then
      assert.are.same({ true, { status = 0 } }, { writer:wait(10) })
      holds(tree)
    else
      writer:signal("KILL")
      writer:wait(10)
    end
    return done, err
  end

  it("is understood also where the first byte of what packed it comes alone", function()
    for _, first in ipairs{ "1", "$3" } do
      must(piped(('n=%s; exec >"$2"; head -c $n "$1"; sleep 0.05; tail -c +$((n + 1)) "$1"'):format(first)))
    end
    local ctx <close> = must(fcproc.context{ timeout = 0.3 })
    fails("deadline", piped('exec >"$2"; head -c "$3" "$1"; exec sleep 20', ctx))
  end)

  it("has its like in a folder, whose files are read when they are copied", function()
    local tree <close> = must(imagecore.tree())
    local job = must(tree:read_folder{ path = dir:file("in") })
    fails("busy", tree:stat("/"))
    assert.are.same({ warnings = {} }, must(jobs.run(job)))
    holds(tree)
    assert.are.same({ ["user.note"] = "a\0b" }, must(tree:stat("usr/bin/alias")).xattrs)
    assert.are.equal(#wanted, must(tree:seal()).entries)
    assert.are.equal("d", must(tree:list("/"))[4])
  end)
end)

describe("a folder", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("whose file was changed or replaced since is no source of its contents", function()
    local dir <close> = support.folder()
    support.sh{ "sh", "-c", [[mkdir -p $0/in/a
      echo one >$0/in/a/x; echo two >$0/in/y; echo three >$0/in/z; echo secret >$0/secret]], dir.path }
    local tree <close> = must(imagecore.tree())
    must(jobs.run(must(tree:read_folder{ path = dir:file("in") })))
    assert.are.equal("one\n", must(tree:read("a/x", 100)))
    support.sh{ "sh", "-c", "mv $0/in/a $0/in/b && ln -s ../in/b $0/in/a && echo more >>$0/in/y "
      .. "&& ln -sf ../secret $0/in/z", dir.path }
    fails("invalid", tree:read("a/x", 100))
    fails("busy", tree:read("y", 100))
    fails("invalid", tree:read("z", 100))
    fails("not_found", tree:read_folder{ path = dir:file("none") })
    fails("conflict", tree:read_folder{ path = dir:file("secret") })
  end)

  it("with another file system in it keeps to its own where that is asked", function()
    local tree <close> = must(imagecore.tree())
    must(jobs.run(must(tree:read_folder{ path = "/dev", one_file_system = true })))
    assert.are.equal("char", must(tree:stat("null")).kind)
    assert.are.same({ 1, 3 }, { must(tree:stat("null")).major, must(tree:stat("null")).minor })
    assert.are.same({}, must(tree:list("pts")))
  end)
end)
