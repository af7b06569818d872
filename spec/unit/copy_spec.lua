-- Copies of drives by sharing blocks or data, with their holes; and logs that give back their start.

local support = require "spec.support"
local mounts = require "spec.support.mounts"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local loop = require "fcproc.loop"

local must, fails = support.must, support.fails
local PRIVATE <const> = tonumber("600", 8)
local MIB <const> = 1 << 20

-- A file with data at each of the offsets (MiB), one MiB long, and of this size (MiB).
local function sparse_file(path, size, ...)
  support.sh{ "truncate", "-s", size .. "M", path }
  for _, at in ipairs{ ... } do
    support.sh{ "dd", "if=/dev/urandom", "of=" .. path, "bs=1M", "count=1", "seek=" .. at,
      "conv=notrunc", "status=none" }
  end
end

describe("a copy", function()
  setup(function() -- luv's own loop keeps its descriptors
    local uv = require "luv"
    local timer = uv.new_timer()
    timer:start(1, 0, function() timer:close() end)
    uv.run()
  end)
  before_each(support.before_each)
  after_each(support.after_each)

  it("has the data, the holes and the mode, and no more on the disk", function()
    local dir <close> = support.folder()
    local from, to = dir:file("from"), dir:file("to")
    sparse_file(from, 500, 0, 37, 38, 400)
    for _, method in ipairs{ "sparse", "reflink" } do
      local done, used, bytes = loop.complete(nil, core.copy_file(from, to, method,
        tonumber("664", 8)))
      must(done, used)
      support.sh{ "cmp", from, to }
      local info = must(core.stat(to))
      assert.are.equal(500 * MIB, info.size)
      assert.are.equal(tonumber("664", 8), info.mode)
      assert.are.equal(used == "reflink" and 0 or 4 * MIB, bytes)
      assert.is_true(info.allocated <= core.stat(from).allocated + MIB)
      must(core.remove_file(to))
    end
    for _, size in ipairs{ 0, 3 } do -- nothing at all, and nothing but a hole
      support.sh{ "truncate", "-s", "0", from }
      support.sh{ "truncate", "-s", size .. "M", from }
      local _, _, bytes = loop.complete(nil, core.copy_file(from, to, "sparse", PRIVATE))
      assert.are.equal(0, bytes)
      assert.are.equal(size * MIB, core.stat(to).size)
      must(core.remove_file(to))
    end
  end)

  it("goes to another file system, which may have no holes to tell of", function()
    local dir <close> = support.folder()
    sparse_file(dir:file("from"), 50, 0, 20, 49)
    mounts(dir, 'mkdir "$1/t" "$1/r"; mount -t tmpfs none "$1/t"; mount -t ramfs none "$1/r"', [[
      for _, to in ipairs{ "/t/to", "/r/to" } do
        local done, used, bytes = complete(core.copy_file(dir .. "/from", dir .. to, "reflink", 384))
        assert(done and used == "sparse" and bytes == 3 << 20, tostring(used))
        support.sh{ "cmp", dir .. "/from", dir .. to }
        done, used = complete(core.copy_file(dir .. to, dir .. to .. "2", "sparse", 384))
        assert(done, tostring(used))
        support.sh{ "cmp", dir .. "/from", dir .. to .. "2" }
      end
      assert(core.stat(dir .. "/t/to").allocated == 3 << 20)
      fails("unsupported", core.punch_file(dir .. "/r/to", 1 << 20))
    ]])
  end)

  it("shares the blocks where the file system can", function()
    local dir <close> = support.folder()
    support.sh{ "truncate", "-s", "400M", dir:file("image") }
    support.sh{ "mkfs.xfs", "-q", "-m", "reflink=1", dir:file("image") }
    mounts(dir, 'mkdir "$1/x"; mount -o loop "$1/image" "$1/x"', [[
      local from, to = dir .. "/x/from", dir .. "/x/to"
      support.sh{ "dd", "if=/dev/urandom", "of=" .. from, "bs=1M", "count=100", "status=none" }
      local function free()
        return tonumber(support.sh{ "stat", "-f", "-c", "%f", from }) * 4096
      end
      support.sh{ "sync", from }
      local before = free()
      local done, used, bytes = complete(core.copy_file(from, to, "reflink", 384))
      assert(done and used == "reflink" and bytes == 0, tostring(used))
      support.sh{ "sync", to }
      assert(before - free() < 4 << 20)
      support.sh{ "cmp", from, to }
      local sum = support.sh{ "md5sum", from }
      support.sh{ "dd", "if=/dev/zero", "of=" .. to, "bs=1M", "count=1", "conv=notrunc",
        "status=none" }
      assert(support.sh{ "md5sum", from } == sum)
      fails("conflict", core.copy_file(from, to, "reflink", 384))
    ]])
  end)

  it("is made only from a file and only where nothing is", function()
    local dir <close> = support.folder()
    local from, to = dir:file("from"), dir:file("to")
    support.write_file(from, "data")
    support.sh({ "sh", "-ec", [[cd "$1"; mkdir dir; ln -s from link; mkfifo fifo; ln -s x broken]],
      "sh", dir.path })
    for _, name in ipairs{ "dir", "link", "fifo" } do
      fails("conflict", core.copy_file(dir:file(name), to, "sparse", PRIVATE))
    end
    for _, name in ipairs{ "dir", "link", "fifo", "broken", "from", "dir/" } do
      local err = fails("conflict", core.copy_file(from, dir:file(name), "sparse", PRIVATE))
      assert.are.equal(dir:file(name), err.path)
    end
    assert.are.equal("data", core.read_file(from))
    fails("not_found", core.copy_file(dir:file("none"), to, "sparse", PRIVATE))
    fails("not_found", core.copy_file(from, dir:file("none/x"), "sparse", PRIVATE))
    fails("not_found", core.stat(to))
    fails("not_found", core.stat(dir:file("x")))
    support.raises("invalid option 'rsync'", core.copy_file, from, to, "rsync", PRIVATE)
  end)

  it("is cancelled or abandoned between two pieces, and removed", function()
    local dir <close> = support.folder()
    local from, to = dir:file("from"), dir:file("to")
    support.sh{ "dd", "if=/dev/zero", "of=" .. from, "bs=1M", "count=50", "status=none" }
    local ctx <close> = must(fcproc.context())
    do
      local op <close> = must(core.copy_file(from, to, "sparse", PRIVATE, nil, ctx))
      assert.is_false(op:step())
      assert.are.equal(0, op:timeout())
      assert.is_true(core.stat(to).allocated > 0)
      ctx:cancel()
      local err = fails("cancelled", op:step())
      assert.are.equal(to, err.path)
      assert.is_truthy(err.message:find("of 52428800 bytes", 1, true), err.message)
      fails("not_found", core.stat(to))
    end
    local op = must(core.copy_file(from, to, "sparse", PRIVATE))
    assert.is_false(op:step())
    op:close()
    fails("not_found", core.stat(to))
    -- What has its name by then is not its own.
    op = must(core.copy_file(from, to, "sparse", PRIVATE))
    support.sh{ "rm", to }
    support.write_file(to, "another's")
    op:close()
    assert.are.equal("another's", core.read_file(to))
  end)

  it("lets others run between two pieces, in any loop", function()
    local dir <close> = support.folder()
    local from = dir:file("from")
    support.sh{ "dd", "if=/dev/zero", "of=" .. from, "bs=1M", "count=100", "status=none" }
    local order = {}
    local results = fcproc.run{
      function()
        local done, err = loop.complete(nil, core.copy_file(from, dir:file("a"), "sparse", PRIVATE))
        order[#order + 1] = "copy"
        return done, err
      end,
      function()
        local op = core.wait_path(dir:file("a"), false, 5, "the copy")
        local done, err = loop.complete(nil, op)
        order[#order + 1] = "other"
        return done, err
      end,
    }
    for i = 1, 2 do must(results[i][1], results[i][2]) end
    assert.are.same({ "other", "copy" }, order)
    local function copy(waiter, to)
      local ctx <close> = must(fcproc.context{ waiter = waiter })
      must(loop.complete(ctx, core.copy_file(from, to, "sparse", PRIVATE, nil, ctx)))
      support.sh{ "cmp", from, to }
    end
    local cqueues = require "cqueues"
    local queue = cqueues.new()
    queue:wrap(copy, "cqueues", dir:file("b"))
    assert(queue:loop())
    local uv = require "luv"
    local finished
    coroutine.wrap(function()
      copy("luv", dir:file("c"))
      finished = true
    end)()
    uv.run()
    assert.is_true(finished)
  end)

  it("of a file that grows meanwhile is what it was at the beginning", function()
    local dir <close> = support.folder()
    local from, to = dir:file("from"), dir:file("to")
    support.sh{ "dd", "if=/dev/zero", "of=" .. from, "bs=1M", "count=20", "status=none" }
    local op <close> = must(core.copy_file(from, to, "sparse", PRIVATE))
    assert.is_false(op:step())
    support.sh{ "dd", "if=/dev/zero", "of=" .. from, "bs=1M", "count=5", "seek=20", "conv=notrunc",
      "status=none" }
    local done, used, bytes
    repeat done, used, bytes = op:step() until done ~= false
    must(done, used)
    assert.are.equal(20 * MIB, bytes)
    assert.are.equal(20 * MIB, core.stat(to).size)
  end)

  it("that does not fit, or whose source shrinks, is removed", function()
    local dir <close> = support.folder()
    local from, to = dir:file("from"), dir:file("to")
    support.sh{ "dd", "if=/dev/zero", "of=" .. from, "bs=1M", "count=50", "status=none" }
    mounts(dir, 'mkdir "$1/t"; mount -t tmpfs -o size=20M none "$1/t"', [[
      local done, err = complete(core.copy_file(dir .. "/from", dir .. "/t/to", "sparse", 384))
      assert(not done and err.code == "system" and err.errno == 28 and err.path == dir .. "/t/to"
        and err.message:find("is full", 1, true), tostring(err))
      assert(#core.list_dir(dir .. "/t") == 0)
    ]])
    local op <close> = must(core.copy_file(from, to, "sparse", PRIVATE))
    assert.is_false(op:step())
    support.sh{ "truncate", "-s", "17M", from }
    local done, err
    repeat done, err = op:step() until done ~= false
    fails("busy", done, err)
    fails("not_found", core.stat(to))
  end)
end)

describe("a log", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("gives back its start when it is too long on the disk, and its writer goes on", function()
    local dir <close> = support.folder()
    local path = dir:file("log")
    local writer <close> = assert(io.open(path, "a"))
    for i = 1, 20000 do writer:write(("%09d\n"):format(i)) end
    writer:flush()
    assert.are.equal(0, core.punch_file(path, MIB)) -- short enough
    local allocated = core.stat(path).allocated
    local freed = must(core.punch_file(path, 100000))
    local info = core.stat(path)
    assert.are.equal(200000, info.size)
    assert.are.equal(allocated - info.allocated, freed)
    assert.is_true(info.allocated >= 50000 and info.allocated <= 50000 + 2 * 4096)
    assert.are.equal(0, core.punch_file(path, 100000))
    writer:write("the end\n")
    writer:flush()
    assert.are.equal("000020000\nthe end\n", core.read_file(path, -18))
    assert.are.equal(("\0"):rep(4096), core.read_file(path, 0, 4096))
    for _, name in ipairs{ ".", "link", "fifo" } do
      support.sh({ "sh", "-ec", [[cd "$1"; ln -sf log link; mkfifo fifo || true]], "sh", dir.path })
      fails("conflict", core.punch_file(dir:file(name), 0))
    end
    fails("not_found", core.punch_file(dir:file("none"), 0))
  end)
end)
