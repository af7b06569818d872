-- Whole trees removed, and locks: what holds across processes and mounts.

local support = require "spec.support"
local mounts = require "spec.support.mounts"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails
local SIGKILL <const> = "KILL"

-- A Lua script in another process, with core and dir.
local function start(dir, name, text)
  support.write_file(dir:file(name), 'local core, dir = require "fcproc.core", arg[1]\n' .. text)
  return must(fcproc.spawn({ support.lua, dir:file(name), dir.path }, { stdout = "null",
    stderr = { file = dir:file(name .. ".err") } }))
end

-- The same script in four, all of which end well.
local function four_at_once(dir, text)
  local processes, failures = {}, {}
  for i = 1, 4 do processes[i] = start(dir, "p" .. i, text) end
  for i, process in ipairs(processes) do
    local _, exit = process:wait(60)
    if exit.status ~= 0 then failures[#failures + 1] = core.read_file(dir:file("p" .. i .. ".err")) end
    process:close()
  end
  assert.are.equal("", table.concat(failures))
end

describe("a tree", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is removed with all that is in it, and missing is fine", function()
    local dir <close> = support.folder()
    support.sh({ "sh", "-ec", [[cd "$1"; mkdir -p t/a/b/c t/empty out/in; touch t/a/f t/a/b/g out/in/x
      mkfifo t/fifo; ln -s ../out t/a/link; ln -s nowhere t/b; chmod 000 t/a/b]], "sh", dir.path })
    assert.are.equal(10, core.remove_tree(dir:file("t/")))
    assert.are.equal(0, core.remove_tree(dir:file("t")))
    assert.are.equal(0, core.remove_tree(dir:file("none/x")))
    assert.are.equal("file", core.stat(dir:file("out/in/x")).type)
    support.sh({ "sh", "-ec", [[cd "$1"; mkdir w
      for i in $(seq 200); do mkdir -p w/$i/x; touch w/$i/x/y w/f$i; done]], "sh", dir.path })
    assert.are.equal(801, core.remove_tree(dir:file("w")))
  end)

  it("is removed at any depth, with few descriptors", function()
    local dir <close> = support.folder()
    support.sh{ "python3", "-c", [[
import os, sys
os.chdir(sys.argv[1])
for i in range(3000):
    os.mkdir("deeper")
    os.chdir("deeper")
    open("file", "w").close()
]], dir.path }
    support.write_file(dir:file("remove.lua"),
      [[assert(require "fcproc.core".remove_tree(arg[1]) == 6000)]])
    support.sh{ "sh", "-ec", 'ulimit -n 20; exec "$0" "$1" "$2"', support.lua,
      dir:file("remove.lua"), dir:file("deeper") }
    fails("not_found", core.stat(dir:file("deeper")))
  end)

  it("is not what a link leads to, nor a file, nor a folder without a name", function()
    local dir <close> = support.folder()
    support.sh({ "sh", "-ec", [[cd "$1"; mkdir t; touch t/f; ln -s t link]], "sh", dir.path })
    for _, name in ipairs{ "link", "link/", "t/f" } do
      local err = fails("conflict", core.remove_tree(dir:file(name)))
      assert.are.equal(dir:file(name), err.path)
    end
    fails("conflict", core.remove_tree(dir:file("t/f/x")))
    for _, path in ipairs{ "/", ".", "..", dir:file("t/."), dir:file("t/.."), "" } do
      fails("invalid", core.remove_tree(path))
    end
    assert.are.equal("file", core.stat(dir:file("t/f")).type)
  end)

  it("with something mounted in it is left there, and the mount is named", function()
    local dir <close> = support.folder()
    mounts(dir, [[
      here=$PWD
      cd "$1"
      for kind in tmpfs bind file top; do mkdir -p $kind/a/b; touch $kind/a/file; done
      mkdir out
      touch out/precious
      mount -t tmpfs none tmpfs/a/b
      touch tmpfs/a/b/precious
      mount --bind out bind/a/b
      mount --bind out/precious file/a/file
      mount --bind out top
      cd "$here"
    ]], [[
      for kind, where in pairs{ tmpfs = "tmpfs/a/b", bind = "bind/a/b", file = "file/a/file",
        top = "top" } do
        local err = fails("busy", core.remove_tree(dir .. "/" .. kind))
        assert(err.message:find(dir .. "/" .. where, 1, true), err.message)
        assert(err.message:find("unmount", 1, true), err.message)
      end
      must(core.stat(dir .. "/tmpfs/a/b/precious"))
      must(core.stat(dir .. "/out/precious"))
      support.sh{ "umount", dir .. "/bind/a/b" }
      must(core.remove_tree(dir .. "/bind"))
      must(core.stat(dir .. "/out/precious"))
    ]])
  end)

  it("is removed by many at once, while others fill it", function()
    local dir <close> = support.folder()
    local text = [[
      for round = 1, 30 do
        for i = 1, 5 do
          core.make_dir(dir .. "/t", 448)
          core.make_dir(dir .. "/t/" .. i, 448)
          core.write_file(dir .. "/t/" .. i .. "/f", "x", 384)
        end
        local removed, err = core.remove_tree(dir .. "/t")
        if not removed then error(err.message) end
      end
    ]]
    four_at_once(dir, text)
    must(core.remove_tree(dir:file("t")))
  end)
end)

describe("a tree that bears a mark", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- A folder of ours with the mark in it, and what the script makes there.
  local function marked(dir, script)
    support.sh({ "sh", "-ec", 'cd "$1"; mkdir -m 700 t; touch t/.mark; cd t; ' .. script, "sh", dir.path })
    return dir:file("t")
  end

  it("is removed with all that is in it, other files of the mark's name, too", function()
    local dir <close> = support.folder()
    local path = marked(dir, "mkdir -p a/b; touch f a/.mark a/b/.mark")
    assert.are.equal(7, must(core.remove_tree(path, ".mark")))
    fails("not_found", core.stat(path))
  end)

  it("keeps all of it when others may be in it, or the mark is none of ours", function()
    for _, script in ipairs{ "chmod 750 .", "chmod 707 .", "chmod 702 .", "chown 1234 .", "chown 1234 .mark",
      "rm .mark", "rm .mark; ln -s f .mark", "rm .mark; mkdir .mark" } do
      local dir <close> = support.folder()
      local path = marked(dir, "touch f; " .. script)
      local err = fails("conflict", core.remove_tree(path, ".mark"))
      assert.are.equal(path, err.path)
      assert.are.equal("file", must(core.stat(path .. "/f")).type, script)
    end
  end)
end)

describe("a lock", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is one's at a time, in a process and between two, and ends with its holder", function()
    local dir <close> = support.folder()
    local path = dir:file("lock")
    do
      local lock <close>, created = must(core.lock_file(path))
      assert.is_true(created)
      local err = fails("busy", core.lock_file(path))
      assert.are.equal(path, err.path)
      assert.is_truthy(lock)
    end
    assert.are.equal(tonumber("600", 8), core.stat(path).mode) -- it stays
    local holder = start(dir, "holder", [[
      local lock = assert(core.lock_file(dir .. "/lock"))
      assert(core.create_file(dir .. "/held", "", 384))
      core.poll_many({}, {}, 60)
      lock:close()
    ]])
    support.eventually("the other one holds it", function() return core.stat(dir:file("held")) end)
    fails("busy", core.lock_file(path))
    must(holder:signal(SIGKILL))
    must(holder:wait(10))
    holder:close()
    must(core.lock_file(path)):close()
  end)

  it("is released with its handle although a child holds the descriptor", function()
    local dir <close> = support.folder()
    local lock = must(core.lock_file(dir:file("lock"), tonumber("640", 8)))
    local fd
    for number, target in pairs(support.descriptors()) do
      if target == dir:file("lock") then fd = tonumber(number) end
    end
    local child = must(fcproc.spawn({ "sleep", "60" }, { fds = { [5] = fd } }))
    lock:close()
    must(core.lock_file(dir:file("lock"))):close()
    must(child:signal(SIGKILL))
    must(child:wait(10))
    child:close()
  end)

  it("is removed only by its holder, only its own file", function()
    local dir <close> = support.folder()
    local path = dir:file("lock")
    local lock = must(core.lock_file(path))
    assert.is_true(lock:remove())
    fails("not_found", core.stat(path))
    support.raises("closed", lock.remove, lock)
    lock:close()
    lock = must(core.lock_file(path))
    support.sh{ "rm", path }
    local other = must(core.lock_file(path)) -- the first one's file is no file any more
    assert.is_true(lock:remove())
    fails("busy", core.lock_file(path))
    other:close()
  end)

  it("is made nowhere but in a file of its own", function()
    local dir <close> = support.folder()
    support.sh({ "sh", "-ec", [[cd "$1"; mkdir d; ln -s target link; mkfifo fifo]], "sh", dir.path })
    for _, name in ipairs{ "d", "link", "fifo", "x/" } do
      fails("conflict", core.lock_file(dir:file(name)))
    end
    fails("not_found", core.stat(dir:file("target")))
    fails("not_found", core.lock_file(dir:file("none/x")))
  end)

  it("keeps many apart that take and remove it", function()
    local dir <close> = support.folder()
    local text = [[
      for round = 1, 200 do
        local lock, err
        repeat
          lock, err = core.lock_file(dir .. "/lock")
          if not lock and err.code ~= "busy" then error(err.message) end
        until lock
        assert(core.create_file(dir .. "/inside", "", 384), "two hold it")
        assert(core.remove_file(dir .. "/inside"))
        assert(lock:remove())
      end
    ]]
    four_at_once(dir, text)
    fails("not_found", core.stat(dir:file("lock")))
  end)
end)
