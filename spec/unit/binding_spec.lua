-- What the C module makes of Lua's values: no string is cut at a zero byte, no number to its low bits,
-- and nothing is used that a metamethod or a finalizer has taken away.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails, raises = support.must, support.fails, support.raises

local TOO_LARGE = { 1 << 31, 1 << 32, (1 << 32) + 9, -(1 << 40), math.maxinteger, math.mininteger }

-- Runs the table to its end and gives its status.
local function exit_of(spec)
  local process <close> = must(core.spawn(spec))
  local _, exit = must(process:wait(10))
  return exit.status
end

describe("a number", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("of a user or group is one, or refused: none starts a program as root", function()
    for _, id in ipairs{ (1 << 32) - 1, 1 << 32, (1 << 32) + 1000, 1 << 40, -1, -2, -(1 << 32),
      math.maxinteger, math.mininteger } do
      for _, name in ipairs{ "uid", "gid" } do
        raises(name .. " must be a whole number from 0 to 4294967294", core.spawn,
          { argv = { "true" }, [name] = id })
        raises(name .. " must be", core.command, { argv = { "true" }, [name] = id })
        raises(name .. " must be", fcproc.spawn, { "true" }, { [name] = id })
      end
      if id ~= -1 then
        raises("no user or group number", core.own_file, "/none", id)
        raises("no user or group number", core.own_file, "/none", nil, id)
        raises("no user or group number", core.create_file, "/none/x", "", 384, id)
        raises("no user or group number", core.write_file, "/none/x", "", 384, 0, id)
        raises("no user or group number", core.copy_file, "/none", "/none/x", "sparse", 384, { uid = id })
        raises("no user or group number", core.read_file, "/none", 0, 1, { reader_uid = id })
      end
    end
    raises("is not between 0 and 4294967294", core.uid_in_use, (1 << 32) - 1)
    assert.are.equal(0, exit_of{ argv = { "sh", "-c", "test $(id -u):$(id -g) = 4294967294:7" },
      uid = (1 << 32) - 2, gid = 7 })
  end)

  it("of a TAP's user or group is one, or refused", function()
    local world <close> = support.bridged_world()
    local net <close> = must(core.net(world.netns))
    for _, id in ipairs{ (1 << 32) - 1, 1 << 32, -2 } do
      for _, name in ipairs{ "uid", "gid" } do
        fails("invalid", world.manager:create_tap("tap0", { [name] = id }))
      end
      raises("no user or group number", net.create_tap, net, "tap0", nil, id)
      raises("no user or group number", net.create_tap, net, "tap0", nil, 0, id)
    end
    assert.are.same({}, must(world.manager:list_taps()))
  end)

  it("that fits no int is refused, and not cut to one that means something else", function()
    local process = must(fcproc.spawn({ "sleep", "60" }, { stdout = "null" }))
    local netns <close> = must(fcproc.new_netns())
    local net <close> = must(core.net(netns))
    for _, number in ipairs(TOO_LARGE) do
      raises("is not between", process.signal, process, number) -- 2^32 + 9 was SIGKILL
      raises("is not between", core.poll, number, 0)
      raises("is not between", core.poll_many, { number }, {}, 0)
      raises("is not between", core.is_terminal, number)
      raises("is not between", core.wait_reader, number, 0)
      raises("is not between", core.wait_signal, { number }, 0)
      raises("no process number", core.process, number)
      raises("no process number", core.process, { pid = number, start_time = 1, boot_id = "x" })
      raises("no process number", core.cgroup_holds, "/none", number)
      raises("is not between", core.wait_path, "/none", false, 0, "x", number)
      raises("is not between", net.ensure_bridge, net, "br0", "10.0.0.1", number)
      raises("is not between", net.create_tap, net, "tap0", nil, nil, nil, nil, number)
      raises("is not between", net.create_tap, net, "tap0", nil, nil, nil, nil, nil, nil, number)
      raises("a descriptor", core.spawn, { argv = { "true" }, stdout = number })
      raises("to descriptors", core.spawn, { argv = { "true" }, fds = { [3] = number } })
      raises("numbers from 3 to 1023", core.spawn, { argv = { "true" }, fds = { [number] = 1 } })
      raises("umask must be", core.spawn, { argv = { "true" }, umask = number })
      raises("without must be", core.spawn, { argv = { "true" }, without = number })
      raises("end_signal must be", core.command, { argv = { "true" }, end_signal = number })
      raises("a mode must be", core.make_dir, "/none", number)
    end
    fails("invalid", core.command{ argv = { "true" }, end_signal = 1000 })
    raises("umask must be a whole number from 0 to 511", core.spawn, { argv = { "true" }, umask = 512 })
    raises("a descriptor", core.spawn, { argv = { "true" }, stdout = 1.5 }) -- which was 0
    raises("a descriptor", core.spawn, { argv = { "true" }, stdout = -1 })
    assert.is_true(process:alive())
    must(process:signal("KILL"))
    must(process:wait(10))
    process:close()
  end)

  it("of a prefix's bits is one of the address's, or refused before there is a bridge", function()
    local netns <close> = must(fcproc.new_netns())
    local net <close> = must(core.net(netns))
    for address, prefixes in pairs{ ["10.0.0.1"] = { 33, 256 + 24, -1 }, ["fd00::1"] = { 129, 256 + 64 },
      nowhere = { 24 } } do
      for _, prefix in ipairs(prefixes) do
        fails("invalid", net:ensure_bridge("br0", address, prefix))
        assert.is_false(net:link_exists("br0"), address)
      end
    end
  end)

  it("of a file's bytes is not negative", function()
    local capper <close> = must(core.capper())
    raises("a size must be 0 bytes or more", capper.add, capper, "/none", -1)
    raises("a size must be 0 bytes or more", core.punch_file, "/none", -1)
  end)

  it("of a MAC address is two hexadecimal digits", function()
    local netns <close> = must(fcproc.new_netns())
    local net <close> = must(core.net(netns))
    for _, mac in ipairs{ "02:+a:00:00:00:01", "02:-1:00:00:00:01", "02: 1:00:00:00:01",
      "02:0x:00:00:00:01", "02-00-00-00-00-01", "02:00:00:00:00:0g" } do
      raises("is written aa:bb:cc:dd:ee:ff", net.create_tap, net, "tap0", nil, nil, nil, mac)
    end
    local tap = must(net:create_tap("tap0", nil, nil, nil, "02:0A:00:00:00:fF"))
    assert.are.equal("02:0a:00:00:00:ff", tap.mac)
  end)

  it("is no path of a socket, for which a string would be made that nothing holds", function()
    raises("paths[1] must be a string, not a number", core.request_all, { 1 }, {}, "GET", "/")
  end)
end)

describe("a string with a zero byte", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is no path, name or argument", function()
    local dir <close> = support.folder()
    local file = dir:file("file")
    support.write_file(file, "x")
    local zero = file .. "\0.not"
    local net <close> = must(core.net())
    local process <close> = must(fcproc.process(support.own_pid()))
    local client <close> = must(fcproc.client(dir:file("sock")))
    local function refused(fn, ...) raises("zero byte", fn, ...) end
    for _, name in ipairs{ "stat", "list_dir", "read_file", "read_link", "remove_file", "remove_tree",
      "lock_file", "lock_taken", "socket_access", "socket_dir", "find_executable", "absolute_path",
      "kvm_check", "tun_check", "disk_free", "disk_look", "reflink_check", "open_listener", "listener_pid",
      "open_by_root", "netns", "client", "check_ifname", "address_family", "cgroup_holds",
      "remove_cgroup" } do
      refused(core[name], zero)
    end
    refused(core.make_dir, zero, 448)
    refused(core.create_file, zero, "", 384)
    refused(core.write_file, zero, "", 384)
    refused(core.own_file, zero, 1)
    refused(core.punch_file, zero, 1)
    refused(core.wait_path, zero, false, 0, "x")
    refused(core.wait_path, file, false, 0, "a\0b")
    refused(core.unbind_file, zero)
    for _, name in ipairs{ "rename", "symlink", "link_file", "bind_file" } do
      refused(core[name], zero, file)
      refused(core[name], file, zero)
    end
    refused(core.copy_file, zero, file, "sparse", 384)
    refused(core.copy_file, file, zero, "sparse", 384)
    refused(core.open_api_sock, zero, file)
    refused(core.open_api_sock, file, zero)
    refused(core.process, { pid = 1, start_time = 1, boot_id = "a\0b" })
    refused(process.matches, process, zero)
    refused(process.matches, process, file, zero)
    refused(process.wait_server_op, process, zero, 0, "x")
    refused(process.wait_file_op, process, zero, 0)
    refused(process.wait_text_op, process, zero, "x")
    refused(net.ensure_bridge, net, "a\0b")
    refused(net.delete_bridge, net, "a\0b")
    refused(net.create_tap, net, "a\0b")
    refused(net.delete_taps, net, { "tapnone", "lo\0x" })
    refused(net.list_taps, net, "a\0b")
    refused(net.link_exists, net, "lo\0x")
    refused(client.request, client, "GET\0x", "/")
    refused(client.request, client, "GET", "/\0x")
    for _, fn in ipairs{ core.spawn, core.command } do
      refused(fn, { argv = { "true\0x" } })
      refused(fn, { argv = { "true", "a\0b" } })
      refused(fn, { argv = { "true" }, env = { "A=\0" } })
      refused(fn, { argv = { "true" }, cwd = "/tmp\0/x" })
      refused(fn, { argv = { "true" }, stdout = { file = zero } })
    end
    raises("a descriptor or {file = path}", core.spawn, { argv = { "true" }, stdout = "null\0" })
    assert.are.equal("x", support.read_file(file))
    fails("conflict", core.read_file(file, 0, 1, { id = must(core.stat(file)).id .. "\0" }))
  end)
end)

-- Fresh each time, and nobody else's: what is not held is collected, and its place used again.
local function fresh(text)
  local made = table.concat{ text, ("/."):rep(40) }
  return made
end

-- Once for each field that is read: a whole suite's heap takes a while to look through.
local function collect()
  collectgarbage()
  for _ = 1, 200 do local _ = ("z"):rep(math.random(80, 120)) end
end

describe("values that a metamethod makes", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("last as long as the call that reads them", function()
    local dir <close> = support.folder()
    local out = dir:file("")
    -- Each field is made when it is asked for, and every other is collected then.
    local function lazily(fields)
      return setmetatable({}, { __index = function(_, key)
        collect()
        return fields[key] and fields[key]()
      end })
    end
    for i = 1, 2 do
      local spec = lazily{
        argv = function() return { fresh("/bin/sh"):sub(1, 7), "-c", fresh("pwd >&2; echo $A; #") } end,
        env = function() return { fresh("A=1234") } end,
        cwd = function() return fresh("/tmp") end,
        stdout = function() return lazily{ file = function() return fresh(dir.path) .. "/out" .. i end } end,
        stderr = function() return lazily{ file = function() return fresh(dir.path) .. "/err" .. i end } end,
        fds = function() return { [5] = 0 } end,
        netns = function() return must(core.netns()) end,
      }
      assert.are.equal(0, exit_of(spec))
      assert.are.equal("1234" .. ("/."):rep(40) .. "\n", support.read_file(out .. "out" .. i))
      assert.are.equal("/tmp\n", support.read_file(out .. "err" .. i))
    end
  end)

  it("may take away what was read before", function()
    local argv = { fresh("/bin/sh"):sub(1, 7), "-c", fresh("exit 3 #") }
    local spec = setmetatable({ argv = argv }, { __index = function(_, key)
      if key == "cwd" then argv[1], argv[2], argv[3] = nil, nil, nil end
      collect()
    end })
    assert.are.equal(3, exit_of(spec))
    local netns = must(core.netns())
    raises("attempt to use a closed fcproc.netns", core.command,
      setmetatable({ argv = { "true" }, netns = netns }, { __index = function(_, key)
        if key == "grace" then netns:close() end
      end }))
    local ctx = must(core.context())
    raises("attempt to use a closed fcproc.context", core.spawn,
      setmetatable({ argv = { "true" } }, { __index = function() ctx:close() end }), ctx)
  end)

  it("through a finalizer, may close what a call works on", function()
    local closed = 0
    for i = 1, 200 do
      local ctx = must(core.context())
      local process = must(core.process(support.own_pid()))
      setmetatable({}, { __gc = function()
        ctx:close()
        process:close()
        closed = closed + 1
      end })
      local ok, op = pcall(process.wait_op, process, 0, 0, ctx)
      if ok and op then op:close() end
      if i % 20 == 0 then collectgarbage() end
    end
    collectgarbage()
    assert.are.equal(200, closed)
  end)
end)
