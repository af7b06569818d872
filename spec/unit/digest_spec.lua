-- Hashes of files, and files that are to last: by a thread, so that nobody else waits.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local in_mounts = require "spec.support.mounts"
local loop = require "fcproc.loop"

local must, fails = support.must, support.fails

local BLOCK = 4096

local function hash(path, options)
  return must(select(2, must(loop.complete(nil, core.hash_file(path, options)))))
end

local function by_command(path)
  return support.sh{ "sha256sum", path }:match("^%x+")
end

-- What the documentation says of a hash by blocks, and sha256sum of that.
local function by_definition(folder, data)
  local parts = { ("<i8"):pack(#data) }
  for at = 0, #data - 1, BLOCK do
    local block = data:sub(at + 1, at + BLOCK)
    if block:find("[^\0]") then parts[#parts + 1] = ("<i8"):pack(at) .. block end
  end
  support.write_file(folder:file("definition"), table.concat(parts))
  return by_command(folder:file("definition"))
end

describe("a file's hash", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is sha256sum's", function()
    local dir <close> = support.folder()
    for _, size in ipairs{ 0, 1, BLOCK, 64 * BLOCK, 64 * BLOCK + 1, 300000 } do
      local path = dir:file(tostring(size))
      support.write_file(path, ("fcproc\0"):rep(size // 7 + 1):sub(1, size))
      assert.are.equal(by_command(path), hash(path), size)
    end
    local link = dir:file("link")
    must(core.symlink(dir:file("1"), link))
    fails("conflict", core.hash_file(link))
    assert.are.equal(hash(dir:file("1")), hash(link, { follow = true }))
    assert.are.equal(by_command("/proc/self/exe"):len(), #hash("/proc/self/exe", { follow = true }))
  end)

  it("by blocks is as it is defined, however many holes the file has", function()
    local dir <close> = support.folder()
    for i, data in ipairs{ "", "x", ("\0"):rep(BLOCK + 5), ("a"):rep(BLOCK) .. ("\0"):rep(BLOCK) .. "b",
      ("\0"):rep(200 * BLOCK) .. "middle" .. ("\0"):rep(300 * BLOCK) .. "end",
      ("\0"):rep(3 * BLOCK) .. ("z"):rep(100 * BLOCK) } do
      local dense, sparse = dir:file("dense" .. i), dir:file("sparse" .. i)
      support.write_file(dense, data)
      support.sh{ "cp", "--sparse=always", dense, sparse }
      local want = by_definition(dir, data)
      assert.are.equal(want, hash(dense, { blocks = true }), i)
      assert.are.equal(want, hash(sparse, { blocks = true }), i)
    end
  end)

  it("by blocks reads no hole", function()
    local dir <close> = support.folder()
    local path = dir:file("huge")
    support.sh{ "truncate", "-s", "4T", path } -- to read it would take hours
    local empty = hash(path, { blocks = true })
    support.sh({ "sh", "-c", 'printf x | dd of="$1" bs=1 seek=1000000000000 conv=notrunc status=none', "sh",
      path })
    assert.are_not.equal(empty, hash(path, { blocks = true }))
    support.sh{ "truncate", "-s", "4T", path }
    local ctx <close> = must(fcproc.context{ timeout = 0.05 })
    local err = fails("deadline", loop.complete(ctx, core.hash_file(path, nil, ctx)))
    assert.is_truthy(err.message:find("of 4398046511104 bytes", 1, true), err.message)
    assert.are.equal(path, err.path)
  end)

  it("tells what it can't read, and of what it is not", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("a"), "a")
    support.write_file(dir:file("b"), "b")
    fails("not_found", core.hash_file(dir:file("none")))
    fails("conflict", core.hash_file(dir.path))
    fails("conflict", core.hash_file(dir.path, { follow = true }))
    local expected = { id = must(core.stat(dir:file("b"))).id }
    fails("conflict", core.hash_file(dir:file("a"), { expected = expected }))
    assert.are.equal(hash(dir:file("b")), hash(dir:file("b"), { expected = expected }))
    local op <close> = must(core.hash_file(dir:file("a")))
    op:close()
  end)

  it("without libcrypto is unsupported, and says what to install", function()
    local dir <close> = support.folder()
    in_mounts(dir, [[
for f in $(ldconfig -p | sed -n 's/.*libcrypto.so.* => //p'); do mount --bind /dev/null "$f"; done]], [[
local err = fails("unsupported", core.hash_file(arg[0]))
assert(err.message:find("libssl3", 1, true), tostring(err))
must(complete(core.sync(arg[0])))
]])
  end)
end)

describe("a sync", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is of files and folders, and follows no link", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("a"), "a")
    must(core.symlink("a", dir:file("link")))
    must(loop.complete(nil, core.sync(dir:file("a"))))
    must(loop.complete(nil, core.sync(dir.path)))
    must(loop.complete(nil, core.sync("/proc"))) -- which has nothing to say of it
    fails("conflict", core.sync(dir:file("link")))
    local err = fails("not_found", core.sync(dir:file("none")))
    assert.are.equal(dir:file("none"), err.path)
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", core.sync(dir.path, ctx))
  end)
end)
