-- The third way of use: `make install` into a scratch prefix, a C program built against it with
-- pkg-config alone, and Lua policies that it runs without any LUA_PATH. The prefix has blanks and a
-- quote in it, which a shell would take for its own.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

describe("a C host", function()
  local root, prefix, env

  local function make(target, ...)
    support.sh{ "make", "-s", target, "PREFIX=" .. prefix, "BUILD=" .. root:file("build"), "SANITIZE=",
      "CFLAGS=-O1", ... }
  end

  setup(function()
    root = support.folder()
    prefix = root:file("the user's files/usr")
    -- `make`, and then another prefix at the install: what is made for a place is made again.
    support.sh{ "make", "-s", "all", "BUILD=" .. root:file("build"), "SANITIZE=", "CFLAGS=-O1" }
    make("install")
    support.sh({ "sh", "-ec", 'eval "gcc -Wall -Wextra -Werror examples/embed.c -o \\"\\$1\\" '
      .. '$(pkg-config --cflags --libs fcproc-lua)"', "sh", root:file("embed") },
      { env = { PATH = os.getenv("PATH"), PKG_CONFIG_PATH = prefix .. "/lib/pkgconfig" } })
    env = {
      PATH = os.getenv("PATH") .. ":" .. support.firecracker():match("(.*)/"),
      LD_LIBRARY_PATH = prefix .. "/lib",
    }
  end)

  teardown(function()
    getmetatable(root).__close(root)
  end)

  before_each(support.before_each)
  after_each(support.after_each)

  local function run(script, timeout)
    local path = root:file("policy.lua")
    support.write_file(path, script)
    return fcproc.runner():run({ root:file("embed"), path }, { env = env, timeout = timeout or 60 })
  end

  it("has the command beside it, which finds its module", function()
    local said = support.sh({ prefix .. "/bin/fcproc", "version" }, { cwd = "/", env = env })
    assert.is_truthy(said:find(fcproc.VERSION, 1, true), said)
  end)

  it("is made and removed in a staging folder, and nothing beside it", function()
    local stage = root:file("de st")
    support.sh{ "mkdir", "-p", root:file("de"), stage, stage .. prefix }
    support.write_file(root:file("de/neighbour"), "dear")
    support.write_file(stage .. prefix .. "/neighbour", "dear")
    make("install", "DESTDIR=" .. stage)
    for _, name in ipairs{ "bin/fcproc", "lib/libfcproc.so", "lib/pkgconfig/fcproc.pc", "include/fcproc.h",
      "lib/lua/5.4/fcproc/core.so", "share/lua/5.4/fcproc/init.lua" } do
      assert.is_truthy(core.stat(("%s%s/%s"):format(stage, prefix, name)), name)
    end
    make("uninstall", "DESTDIR=" .. stage)
    make("uninstall", "DESTDIR=" .. stage) -- again: nothing is there
    assert.are.equal(stage .. prefix .. "/neighbour\n", support.sh{ "find", stage, "-type", "f" })
    assert.are.equal("dear", support.read_file(root:file("de/neighbour")))
    assert.is_truthy(core.stat(prefix .. "/lib/libfcproc.so"), "what was not staged stays")
  end)

  it("boots a VM with the demo as its policy", function()
    local result = support.must(fcproc.runner():run({ root:file("embed"), "examples/hello.lua" },
      { env = env }))
    assert.is_truthy(result.stdout:find("nothing is left", 1, true))
    assert.is_truthy(result.stdout:find("[debug] bridge ensured: address=172.30.0.1", 1, true))
  end)

  it("carries the module: no file of it is read", function()
    local result = support.must(run[[
      package.path, package.cpath = "", ""
      package.loaded["cjson.safe"] = { encode = print, decode = print } -- the host's own affair
      local fcproc = require "fcproc"
      print(fcproc.VERSION, fcproc.ERR_BUSY.code)]])
    assert.is_truthy(result.stdout:find("busy", 1, true))
  end)

  it("ends a wait without a context of its own with the host's context", function()
    -- The example's context lasts 30 s; a shorter own one shows the same without the wait.
    local result = support.must(run[[
      local fcproc = require "fcproc"
      local core = require "fcproc.core"
      print(core.default_context():remaining() <= 30)]])
    assert.are.equal("true\n", result.stdout)
  end)

  it("keeps the host's context, whatever the script closes", function()
    local result = support.must(run[[
      local core = require "fcproc.core"
      do local ctx <close> = core.default_context() end
      local ctx = core.default_context()
      ctx:close()
      print(core.default_context():remaining() <= 30)
      core.default_context():cancel()
      local _, err = core.spawn{ argv = { "true" } }
      print(err.code)]])
    assert.are.equal("true\ncancelled\n", result.stdout)
  end)

  -- Starts the policy, sends SIGTERM when it has said so, and gives what it said at its end.
  local function interrupted(script)
    local path, up, out = root:file("policy.lua"), root:file("up"), root:file("out")
    os.remove(up)
    os.remove(out)
    support.write_file(path, script:gsub("UP", up):gsub("RUN", root:file("run")))
    local process <close> = support.must(fcproc.spawn({ root:file("embed"), path },
      { env = env, stdout = { file = out }, stderr = { file = out } }))
    local _ <close> = setmetatable({}, { __close = function()
      if process:alive() then process:signal("KILL") end
      process:wait(10)
    end })
    support.eventually("it is up", function() return core.stat(up) or not process:alive() end, 20)
    support.must(process:signal("TERM"))
    local exit = select(2, support.must(process:wait(25)))
    return exit, support.read_file(out)
  end

  it("interrupts a script that has never heard of fcproc, with words", function()
    local exit, said = interrupted[[
      io.open("UP", "w"):close()
      while true do pcall(function() while true do end end) end]]
    assert.are.same({ status = 1 }, exit)
    assert.are.equal("context: cancelled (cancelled)\n", said)
  end)

  it("interrupts a policy, its hooks and its logger, and no clean-up of its VMs", function()
    local exit, said = interrupted[[
      local fcproc = require "fcproc"
      local up, loops = 0, false
      local function for_ever() while loops do pcall(function() while loops do end end) end end
      local manager <close> = assert(fcproc.new{ runtime_dir = "RUN", logger = for_ever })
      local hooks = { before_stop = for_ever, before_cleanup = for_ever, after_cleanup = for_ever }
      local function launch(id)
        return assert(fcproc.vm.launch(manager, { id = id, hooks = hooks }))
      end
      local function ready()
        up = up + 1
        if up < 3 then return end
        loops = true
        io.open("UP", "w"):close()
      end
      local alone <close> = launch("alone")
      fcproc.run{
        function()
          local vm <close> = launch("waits")
          ready()
          vm:wait()
        end,
        function()
          fcproc.run{ function()
            local vm <close> = launch("nested")
            ready()
            vm:wait()
          end }
        end,
        function()
          local vm <close> = launch("computes")
          ready()
          while not loops do coroutine.yield() end
          for_ever()
        end,
      }]]
    assert.are.same({ status = 1 }, exit, said)
    assert.is_truthy(said:find("cancelled", 1, true), said)
    local manager <close> = support.must(fcproc.new{ runtime_dir = root:file("run") })
    assert.are.same({}, support.must(fcproc.vm.list(manager)), said)
    assert.are.equal("", support.sh{ "find", root:file("run"), "-mindepth", "1", "-name", "vm.json" })
  end)

  it("exports its own names only", function()
    local names = support.sh{ "nm", "-D", "--defined-only", prefix .. "/lib/libfcproc.so" }
    for name in names:gmatch("%S+\n") do
      assert.is_truthy(name:match("^fcproc_") or name:match("^FCPROC_0"), name)
    end
  end)
end)
