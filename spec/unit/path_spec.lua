-- Files, folders and sockets: waiting for them, and making them ours.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local loop = require "fcproc.loop"
local mounted = require "spec.support.mounts"

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

-- Waits by the operation's descriptor and timer alone, as a host's own loop does, and not for long.
local function soon(fn)
  local result
  local took = support.seconds(function() result = fcproc.run{ fn }[1] end)
  must(result[1], result[2])
  assert.is_true(took < 5, took)
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

    it("notices what no watch sees: behind a dangling link, in a folder that was made again", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      support.sh{ "ln", "-s", dir:file("away"), dir:file("link") }
      local target <close> = later{ "mkdir", "-p", dir:file("away/b/c") }
      soon(function() return manager:wait_for_path(dir:file("link/b/c"), 10) end)
      support.sh{ "mkdir", "-p", dir:file("a/b/c") }
      local again <close> = later{ "sh", "-c", "cd " .. dir.path
        .. " && mv a old && mkdir -p a/b/c && touch a/b/c/file" }
      soon(function() return manager:wait_for_path(dir:file("a/b/c/file"), 10) end)
      assert.is_truthy(target and again)
    end)

    it("notices a mount", function()
      local dir <close> = support.folder()
      mounted(dir, "true", [[
        local fcproc = require "fcproc"
        local manager = must(fcproc.new{ without = { ]] .. (without[1] and "'inotify'" or "") .. [[ } })
        local took = support.seconds(function() fcproc.run{
          function() must(manager:wait_for_path(dir .. "/a/b/file", 10)) end,
          function()
            support.sh{ "mkdir", "-p", dir .. "/a/b" }
            support.sh{ "sleep", "0.1" }
            support.sh{ "mount", "-t", "tmpfs", "none", dir .. "/a" }
            support.sh{ "mkdir", dir .. "/a/b" }
            support.sh{ "touch", dir .. "/a/b/file" }
          end,
        } end)
        assert(took < 5, took)]])
    end)

    it("says what was not ready", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      local path = dir:file("no/such/file")
      local err = fails("deadline", manager:wait_for_path(path, 0.05, "api socket"))
      assert.is_truthy(err.message:find("api socket not ready: " .. path, 1, true))
      assert.are.equal(path, err.path)
      assert.is_true(err == fcproc.ERR_DEADLINE)
      err = fails("deadline", manager:wait_for_path(path, 0))
      assert.is_truthy(err.message:find("path not ready: " .. path, 1, true))
      -- The context's end, when it is sooner, says so; the text still tells what for.
      local ctx <close> = must(fcproc.context{ timeout = 0.05 })
      err = fails("deadline", manager:wait_for_path(path, 60, "api socket", ctx))
      assert.is_truthy(err.message:find("not ready: " .. path .. " when the context's", 1, true))
    end)

    it("returns at once with any error but 'missing'", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      support.write_file(dir:file("file"), "")
      support.sh{ "ln", "-s", "loop", dir:file("loop") }
      local took = support.seconds(function()
        local err = fails("system", manager:wait_for_path(dir:file("file/below"), 60))
        assert.are.equal(20, err.errno) -- ENOTDIR
        assert.are.equal(dir:file("file/below"), err.path)
        err = fails("system", manager:wait_for_path(dir:file("loop"), 60))
        assert.are.equal(40, err.errno) -- ELOOP
        fails("invalid", manager:wait_for_path(dir:file(("n"):rep(300)), 60)) -- ENAMETOOLONG
      end)
      assert.is_true(took < 30)
    end)

    it("waits for a hundred at once", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      local functions = {}
      for i = 1, 100 do
        functions[i] = function() return manager:wait_for_path(dir:file("f" .. i), 60) end
      end
      functions[101] = function()
        for i = 1, 100 do support.write_file(dir:file("f" .. i), "") end
      end
      local results
      local took = support.seconds(function() results = fcproc.run(functions) end)
      for i = 1, 100 do assert.is_true(results[i][1], tostring(results[i][2])) end
      assert.is_true(took < 30)
    end)

    it("is cancelled by another coroutine, and then before it begins", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      local ctx <close> = must(fcproc.context())
      local results
      local took = support.seconds(function()
        results = fcproc.run{
          function() return manager:wait_for_path(dir:file("never"), 60, "it", ctx) end,
          function()
            manager:wait_for_path(dir:file("never"), 0.1)
            ctx:cancel()
          end,
        }
      end)
      local err = fails("cancelled", results[1][1], results[1][2])
      assert.is_truthy(err.message:find("it not ready", 1, true))
      assert.is_true(took < 30)
      fails("cancelled", manager:wait_for_path(dir:file("never"), 60, nil, ctx))
      must(manager:wait_for_path(dir.path, 60, nil, ctx)) -- a result beats the cancel
    end)
  end)
end

describe("wait_for_path", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- A user has 128 inotify instances by default, and closing one takes the kernel some 14 ms.
  it("uses the instance of the wait before, whatever its context was", function()
    local function instances()
      local n = 0
      for _, entry in ipairs(must(core.list_dir("/proc/self/fd"))) do
        local target = core.read_link("/proc/self/fd/" .. entry.name)
        if target and target:find("inotify", 1, true) then n = n + 1 end
      end
      return n
    end
    local dir <close> = support.folder()
    local manager <close> = must(fcproc.new{})
    do
      local ctx <close> = must(fcproc.context())
      for i = 1, 20 do
        fails("deadline", manager:wait_for_path(dir:file("none" .. i), 0.001, nil,
          i % 2 == 0 and ctx or nil))
        assert.are.equal(1, instances())
        support.write_file(dir:file("other" .. i), "")
      end
      local waits = {}
      for i = 1, 20 do
        waits[i] = function()
          fails("deadline", manager:wait_for_path(dir:file("none" .. i), 0.1, nil, ctx))
        end
      end
      loop.run(waits, ctx)
      support.eventually("at most eight are kept", function() return instances() <= 8 end)
    end
    support.eventually("none is left", function() return instances() == 0 end)
  end)

  it("takes a relative path, and refuses what is none", function()
    local manager <close> = must(fcproc.new())
    must(manager:wait_for_path("Makefile", 60))
    fails("deadline", manager:wait_for_path("no-such-file", 0.05))
    fails("invalid", manager:wait_for_path("", 1))
    assert.has_error(function() manager:wait_for_path(nil, 1) end)
    assert.has_error(function() manager:wait_for_path("x", -1) end)
    assert.has_error(function() manager:wait_for_path("x", "soon") end)
    assert.has_error(function() manager:wait_for_path("a\0b", 1) end)
  end)
end)

-- A socket made step by step: `socket.lua NAME AFTER GO`. It is bound AFTER ms after the start, by
-- a relative name, so that its folder may be as deep as it likes, and listens once the file GO is
-- there; without GO the program ends, and leaves it behind.
local socket_lua = [[
local uv = require "luv"
local name, after, go = arg[1], tonumber(arg[2]), arg[3]
local server, timer = uv.new_pipe(false), uv.new_timer()
local function listen()
  if not uv.fs_stat(go) then return end
  timer:stop()
  assert(server:listen(16, function()
    local peer = uv.new_pipe(false)
    server:accept(peer)
    peer:close()
  end))
end
timer:start(after, 0, function()
  assert(server:bind(name))
  if not go then os.exit(0, false) end
  timer:start(0, 5, listen)
end)
uv.run()
]]

-- Starts it for a path; opts are those of fcproc.spawn. The end of the block ends it.
local function socket(dir, path, after, go, opts)
  support.write_file(dir:file("socket.lua"), socket_lua)
  local full = { cwd = path:match("^(.*)/"), umask = 0 }
  for key, value in pairs(opts or {}) do full[key] = value end
  local process = must(fcproc.spawn({ "lua5.4", dir:file("socket.lua"), path:match("[^/]*$"), after,
    go }, full))
  return setmetatable({ process = process }, { __close = function()
    if process:alive() then process:signal("KILL") end
    process:wait(10)
    process:close()
  end })
end

-- A socket file that nobody listens on.
local function bind(dir, path, opts)
  local making <close> = socket(dir, path, 0, nil, opts)
  local _, exit = must(making.process:wait(10))
  assert.are.equal(0, exit.status)
end

-- A folder with a path of more than the 107 bytes that a socket's address can hold.
local function deep_folder(dir)
  local deep = dir:file(("d"):rep(100) .. "/" .. ("e"):rep(100))
  support.sh{ "mkdir", "-p", deep }
  return deep
end

for _, without in ipairs{ {}, { "inotify" } } do
  describe("wait_for_socket" .. (without[1] and " without inotify" or ""), function()
    before_each(support.before_each)
    after_each(support.after_each)

    it("returns when a connect succeeds, not when the file is there, at any depth", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      for i, path in ipairs{ dir:file("s"), deep_folder(dir) .. "/s" } do
        local server <close> = socket(dir, path, 100, dir:file("go" .. i))
        must(manager:wait_for_path(path, 30))
        fails("deadline", manager:wait_for_socket(path, 0, "api socket")) -- bound, and no more
        local go <close> = later{ "touch", dir:file("go" .. i) }
        must(manager:wait_for_socket(path, 30, "api socket"))
        must(manager:wait_for_socket(path, 0)) -- once more, at once
        assert.is_true(server.process:alive() and go ~= nil)
      end
    end)

    it("takes one whose queue is full for what it is: it listens", function()
      local dir <close> = support.folder()
      local full <close> = support.full_queue(dir)
      local manager <close> = must(fcproc.new{ without = without })
      must(manager:wait_for_socket(full.sock, 0))
      local op <close> = must(full.process:wait_server_op(full.sock, 0, "server"))
      assert.are.same({ true, true }, { loop.complete(nil, op) })
    end)

    it("says what was not ready, and is cancelled", function()
      local dir <close> = support.folder()
      local manager <close> = must(fcproc.new{ without = without })
      bind(dir, dir:file("dead"))
      for _, name in ipairs{ "dead", "missing", "no/folder/s" } do
        local err = fails("deadline", manager:wait_for_socket(dir:file(name), 0.1, "api socket"))
        assert.is_truthy(err.message:find("api socket not ready: " .. dir:file(name), 1, true))
        assert.are.equal(dir:file(name), err.path)
        local ctx <close> = must(fcproc.context())
        local results
        local took = support.seconds(function()
          results = fcproc.run{
            function() return manager:wait_for_socket(dir:file(name), 60, nil, ctx) end,
            function() coroutine.yield() ctx:cancel() end,
          }
        end)
        fails("cancelled", results[1][1], results[1][2])
        assert.is_true(took < 30)
      end
    end)
  end)
end

describe("ensure_socket_access", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function mode_of(path)
    return support.sh{ "stat", "-c", "%a %u:%g", path }
  end

  it("makes a socket ours and private, at any depth, and then leaves it alone", function()
    local dir <close> = support.folder()
    local deep = deep_folder(dir)
    local lines = 0
    local manager <close> = must(fcproc.new{ logger = function() lines = lines + 1 end })
    for _, path in ipairs{ dir:file("s"), deep .. "/s" } do
      support.sh{ "chmod", "777", path:match("^(.*)/") }
      bind(dir, path, { uid = 65534, gid = 65534 })
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
    bind(dir, dir:file("s"))
    support.sh{ "chown", "65534:65533", dir:file("s") }
    support.sh{ "ln", "-s", "s", dir:file("link") }
    support.write_file(dir:file("file"), "")
    support.sh{ "mkdir", "-m", "755", dir:file("folder") }
    support.sh{ "mkfifo", "-m", "644", dir:file("fifo") }
    support.sh{ "chmod", "644", dir:file("file") }
    for _, name in ipairs{ "link", "file", "folder", "fifo" } do
      local err = fails("conflict", manager:ensure_socket_access(dir:file(name)))
      assert.are.equal(dir:file(name), err.path)
    end
    assert.are.equal("777 65534:65533\n", mode_of(dir:file("s")))
    assert.are.equal("644 0:0\n", mode_of(dir:file("file")))
    assert.are.equal("755 0:0\n", mode_of(dir:file("folder")))
    assert.are.equal("644 0:0\n", mode_of(dir:file("fifo")))
  end)

  it("waits for a socket that comes later, and says which one did not", function()
    local dir <close> = support.folder()
    local manager <close> = must(fcproc.new())
    local server <close> = socket(dir, dir:file("s"), 100, dir.path)
    must(manager:ensure_socket_access(dir:file("s"), "api socket"))
    assert.are.equal("600 0:0\n", mode_of(dir:file("s")))
    must(manager:wait_for_socket(dir:file("s"), 30))
    assert.is_true(server.process:alive())
    local ctx <close> = must(fcproc.context{ timeout = 0.1 })
    local err = fails("deadline", manager:ensure_socket_access(dir:file("t"), "api socket", ctx))
    assert.is_truthy(err.message:find("api socket not ready: " .. dir:file("t"), 1, true))
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
    assert.are.equal("65534\n", support.sh{ "stat", "-c", "%u", dir:file("theirs") })
    local below <close> = must(fcproc.new{ runtime_dir = dir:file("file/below") })
    assert.are.equal(20, fails("conflict", below:ensure_socket_dir()).errno) -- ENOTDIR
    fails("invalid", fcproc.new{ runtime_dir = "relative/folder" })
  end)

  it("refuses a link to a folder in which nothing else is wrong", function()
    local dir <close> = support.folder()
    for name, target in pairs{ relative = "real", absolute = dir:file("real") } do
      local real <close> = must(fcproc.new{ runtime_dir = dir:file("real") })
      must(real:ensure_socket_dir()) -- ours, private, and made for this
      core.make_dir(dir:file("real/.fcproc"), 448)
      support.sh{ "ln", "-s", target, dir:file(name) }
      local linked <close> = must(fcproc.new{ runtime_dir = dir:file(name) })
      local err = fails("conflict", linked:ensure_socket_dir())
      assert.is_truthy(err.message:find("a link or a file", 1, true), err.message)
    end
  end)

  it("does nothing when all is right, and nothing under a context that has ended", function()
    local dir <close> = support.folder()
    local lines = 0
    local manager <close> = must(fcproc.new{ runtime_dir = dir:file("run"), logger = function()
      lines = lines + 1
    end })
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", manager:ensure_socket_dir(ctx))
    assert.are.equal("", support.sh{ "ls", dir.path })
    for _ = 1, 3 do must(manager:ensure_socket_dir()) end
    assert.are.equal(1, lines)
  end)

  it("is safe when many processes make it at once", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("make.lua"), [[
      local fcproc = require "fcproc"
      local manager = assert(fcproc.new{ runtime_dir = arg[1] })
      assert(manager:ensure_socket_dir())
    ]])
    local functions = {}
    for i = 1, 20 do
      functions[i] = function()
        return fcproc.runner():run{ support.lua, dir:file("make.lua"), dir:file("a/b/c/run") }
      end
    end
    for _, result in ipairs(fcproc.run(functions)) do
      must(result[1], result[2])
    end
    assert.are.equal("700\n", support.sh{ "stat", "-c", "%a", dir:file("a/b/c/run") })
  end)
end)

describe("a runtime folder that others use, too", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is left as it is", function()
    local dir <close> = support.folder()
    support.sh{ "mkdir", "-m", "1777", dir:file("shared") }
    local manager <close> = must(fcproc.new{ runtime_dir = dir:file("shared") })
    local err = fails("conflict", manager:ensure_socket_dir())
    assert.is_truthy(err.message:find("is shared with others (mode 1777)", 1, true))
    assert.are.equal("1777\n", support.sh{ "stat", "-c", "%a", dir:file("shared") })
  end)

  it("is left as it is, too, when it holds things of others: /etc for one", function()
    local dir <close> = support.folder()
    support.sh{ "mkdir", "-m", "755", dir:file("etc") }
    support.write_file(dir:file("etc/passwd"), "")
    local manager <close> = must(fcproc.new{ runtime_dir = dir:file("etc") })
    local err = fails("conflict", manager:ensure_socket_dir())
    assert.is_truthy(err.message:find("is shared with others (mode 0755)", 1, true))
    assert.are.equal("755\n", support.sh{ "stat", "-c", "%a", dir:file("etc") })
    support.sh{ "mkdir", dir:file("etc/.fcproc") } -- it is ours after all
    must(manager:ensure_socket_dir())
    assert.are.equal("700\n", support.sh{ "stat", "-c", "%a", dir:file("etc") })
  end)
end)

describe("waiting for a server", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function wait(process, path, timeout)
    return loop.complete(nil, process:wait_server_op(path, timeout, "server"))
  end

  it("ends when it listens, when it has ended, or with its time", function()
    local dir <close> = support.folder()
    local sock = dir:file("sock")
    local script = "import socket,time; s=socket.socket(socket.AF_UNIX); time.sleep(0.05); "
      .. ("s.bind('%s'); s.listen(); time.sleep(60)"):format(sock)
    local server <close> = must(fcproc.spawn{ "python3", "-c", script })
    assert.are.same({ true, true }, { wait(server, sock, 10) })
    must(server:signal("KILL"))
    must(server:wait(10))
    assert.are.same({ true, false }, { wait(server, sock, 10) })

    local idle <close> = must(fcproc.spawn{ "sleep", "60" })
    local err = fails("deadline", wait(idle, dir:file("none"), 0.02))
    assert.is_truthy(err.message:find("server not ready: " .. dir:file("none"), 1, true))
    must(idle:signal("KILL"))
    assert.are.same({ true, false }, { wait(idle, dir:file("none"), 10) })
    must(idle:wait(10))
  end)
end)

describe("waiting for a file to grow", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("sees that another file has come to its path", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("log"), "")
    local writer <close> = must(fcproc.spawn{ "sleep", "60" })
    local other <close> = later{ "sh", "-c", "cd " .. dir.path .. " && mv log log.1 && echo x > log" }
    local function grows(size)
      return function() return loop.complete(nil, writer:wait_file_op(dir:file("log"), size, nil, 10)) end
    end
    soon(grows(0))
    -- And then to what is written there.
    local more <close> = later{ "sh", "-c", "sleep 0.6; echo x >> " .. dir:file("log") }
    soon(grows(2))
    must(writer:signal("KILL"))
    must(writer:wait(10))
    assert.is_truthy(other and more)
  end)
end)
