-- Files, folders and sockets: waiting for them, and making them ours.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

-- Does something a moment later, while the block waits.
local function later(argv)
  local text = "sleep 0.1; exec \"$@\""
  local process = must(fcproc.spawn({ "sh", "-c", text, "later", table.unpack(argv) }))
  return setmetatable({}, { __close = function()
    process:wait(10)
    process:close()
  end })
end

for _, without in ipairs{ {}, { "inotify" } } do
  describe("wait_for_path" .. (without[1] and " without inotify" or ""), function()
    before_each(support.before_each)
    after_each(support.after_each)

    it("returns when the path is there, or comes", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      must(manager:wait_for_path(dir.path, 0))
      local file <close> = later{ "touch", dir:file("file") }
      must(manager:wait_for_path(dir:file("file"), 10))
      local tree <close> = later{ "mkdir", "-p", dir:file("a/b/c/d") }
      must(manager:wait_for_path(dir:file("a/b/c/d"), 10))
      support.sh{ "mkdir", "-p", dir:file("x/y") }
      support.write_file(dir:file("x/y/z"), "")
      local moved <close> = later{ "mv", dir:file("x"), dir:file("w") }
      must(manager:wait_for_path(dir:file("w/y/z"), 10))
      support.sh{ "ln", "-s", dir:file("target"), dir:file("link") }
      local target <close> = later{ "touch", dir:file("target") }
      must(manager:wait_for_path(dir:file("link"), 10))
      assert.is_truthy(file and tree and moved and target)
    end)

    it("says what was not ready", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      local path = dir:file("no/such/file")
      local err = fails("deadline", manager:wait_for_path(path, 0.05, "api socket"))
      assert.is_truthy(err.message:find("api socket not ready: " .. path, 1, true))
      assert.are.equal(path, err.path)
      assert.is_true(err == fcproc.ERR_DEADLINE)
    end)
  end)
end

describe("wait_for_path", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("returns at once with any error but 'missing'", function()
    local dir <close> = support.folder()
    local manager <close> = must(fcproc.new())
    support.write_file(dir:file("file"), "")
    local err = fails("system", manager:wait_for_path(dir:file("file/below"), 60))
    assert.are.equal(20, err.errno) -- ENOTDIR
    support.sh{ "ln", "-s", "loop", dir:file("loop") }
    fails("system", manager:wait_for_path(dir:file("loop"), 60)) -- ELOOP
    fails("invalid", manager:wait_for_path("", 1))
    assert.has_error(function() manager:wait_for_path(nil, 1) end)
    assert.has_error(function() manager:wait_for_path("x", -1) end)
  end)

  it("waits for a hundred at once, and is cancelled", function()
    local dir <close> = support.folder()
    local manager <close> = must(fcproc.new())
    local functions = {}
    for i = 1, 100 do
      functions[i] = function() return manager:wait_for_path(dir:file("f" .. i), 20) end
    end
    functions[101] = function()
      for i = 1, 100 do support.write_file(dir:file("f" .. i), "") end
    end
    for i, result in ipairs(fcproc.run(functions)) do
      assert.is_true(i == 101 or result[1])
    end
    local ctx <close> = must(fcproc.context())
    local results = fcproc.run{
      function() return manager:wait_for_path(dir:file("never"), 60, nil, ctx) end,
      function() coroutine.yield() ctx:cancel() end,
    }
    fails("cancelled", results[1][1], results[1][2])
  end)
end)

local bind = [[
import os, socket, sys
os.umask(0)
os.chdir(os.path.dirname(sys.argv[1]))
s = socket.socket(socket.AF_UNIX)
s.bind(os.path.basename(sys.argv[1]))
]]

describe("ensure_socket_access", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function mode_of(path)
    return support.sh{ "stat", "-c", "%a %u:%g", path }
  end

  it("makes a socket ours and private, at any depth, and then leaves it alone", function()
    local dir <close> = support.folder()
    local deep = dir:file(("d"):rep(100) .. "/" .. ("e"):rep(100))
    support.sh{ "mkdir", "-p", deep }
    local lines = 0
    local manager <close> = must(fcproc.new{ logger = function() lines = lines + 1 end })
    for _, path in ipairs{ dir:file("s"), deep .. "/s" } do
      support.sh{ "python3", "-c", bind, path }
      support.sh{ "chown", "65534:65534", path }
      assert.are.equal("777 65534:65534\n", mode_of(path))
      must(manager:ensure_socket_access(path, "api socket"))
      assert.are.equal("600 0:0\n", mode_of(path))
      must(manager:ensure_socket_access(path, "api socket"))
    end
    assert.are.equal(2, lines)
  end)

  it("never goes through a link, and touches nothing but sockets", function()
    local dir <close> = support.folder()
    local manager <close> = must(fcproc.new())
    support.sh{ "python3", "-c", bind, dir:file("s") }
    support.sh{ "ln", "-s", "s", dir:file("link") }
    support.write_file(dir:file("file"), "")
    support.sh{ "chmod", "644", dir:file("file") }
    fails("conflict", manager:ensure_socket_access(dir:file("link")))
    fails("conflict", manager:ensure_socket_access(dir:file("file")))
    assert.are.equal("777 0:0\n", mode_of(dir:file("s")))
    assert.are.equal("644 0:0\n", mode_of(dir:file("file")))
  end)
end)

describe("ensure_socket_dir", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("makes the folder and its parents, private, and tightens a loose one", function()
    local dir <close> = support.folder()
    local manager <close> = must(fcproc.new{ runtime_dir = dir:file("a/b/c") })
    must(manager:ensure_socket_dir())
    assert.are.equal("700\n", support.sh{ "stat", "-c", "%a", dir:file("a/b/c") })
    support.sh{ "chmod", "755", dir:file("a/b/c") }
    must(manager:ensure_socket_dir())
    assert.are.equal("700\n", support.sh{ "stat", "-c", "%a", dir:file("a/b/c") })
  end)

  it("refuses a link, a file, somebody else's folder", function()
    local dir <close> = support.folder()
    support.sh{ "mkdir", dir:file("real"), dir:file("theirs") }
    support.sh{ "chmod", "755", dir:file("real") }
    support.sh{ "ln", "-s", "real", dir:file("link") }
    support.sh{ "chown", "65534", dir:file("theirs") }
    support.write_file(dir:file("file"), "")
    for _, name in ipairs{ "link", "file", "theirs" } do
      local manager <close> = must(fcproc.new{ runtime_dir = dir:file(name) })
      local err = fails("conflict", manager:ensure_socket_dir())
      assert.are.equal(dir:file(name), err.path)
    end
    assert.are.equal("755\n", support.sh{ "stat", "-c", "%a", dir:file("real") })
  end)
end)
