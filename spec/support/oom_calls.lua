-- What oom-lua walks: a call for every function and method that the C module binds. Gets a folder
-- and the firecracker binary; returns the list of {name, call, after}, where after is told
-- whether the call went well, and what ends it all.

local core = require "fcproc.core"

local dir, firecracker = ...
local sock = dir .. "/api.sock"

local function fine(value, err)
  if value == nil then error(err and err.code .. ": " .. err.message or "nothing", 0) end
  return value
end

local function complete(started, err)
  local op <close> = fine(started, err)
  while true do
    local done, result, second = op:step()
    if done then return result, second end
    if done == nil then error(result.code .. ": " .. result.message, 0) end
    core.poll(op:pollfd(), op:timeout() or 1)
  end
end

---Steps an operation to the failure that it must end in.
local function fail(code, started, err)
  local op <close> = fine(started, err)
  local done, problem
  repeat
    core.poll(op:pollfd(), op:timeout() or 1)
    done, problem = op:step()
  until done ~= false
  if done or problem.code ~= code then error("not the failure " .. code, 0) end
end

local function spec(...) return { argv = { ... }, stdout = "null", stderr = "null" } end

local server = fine(core.spawn{ argv = { firecracker, "--api-sock", sock }, stdout = "null",
  stderr = "null" })
local ctx = fine(core.context())
local netns = fine(core.netns())
local net = fine(core.net(netns))
local client = fine(core.client(sock))
local identity = fine(server:identity())
complete(core.wait_path(sock, true, 5, "api"))
fine(net:ensure_bridge("br0", "10.0.0.1", 24))

local covered, calls = {}, {}
local function add(names, call, after)
  for name in names:gmatch("%S+") do covered[name] = true end
  calls[#calls + 1] = { names, call, after }
end

-- ---- what waits or looks -------------------------------------------------------------------

add("now guest_path default_context host_logging host_log interrupted uninterruptible", function()
  core.now() core.guest_path() core.default_context()
  assert(not core.interrupted())
  assert(core.uninterruptible(function(a, b) return a + b end)(1, 2) == 3)
  assert(core.host_logging())
  core.host_log("debug", "a message")
end)
add("context context.with_timeout context.cancel context.status context.remaining context.waiter "
  .. "context.close", function()
  local a = fine(core.context(nil, 5, "poll"))
  local b <close> = fine(a:with_timeout(1))
  core.context(a)
  a:cancel()
  b:status() b:remaining() b:waiter() tostring(b)
  a:close()
end)
add("poll poll_many", function()
  core.poll(server:pidfd(), 0)
  fine(core.poll_many({ server:pidfd(), netns:fd() }, {}, 0))
end)
add("wait_path op.pollfd op.events op.timeout op.step op.close", function()
  local op = fine(core.wait_path(dir .. "/never/there", false, 5, "x", 0, ctx))
  op:pollfd() op:events() op:timeout() op:step() tostring(op) op:close()
  complete(core.wait_path(sock, true, 5, "x"))
end)
add("socket_access", function() fine(core.socket_access(sock)) end)
add("socket_dir", function() fine(core.socket_dir(dir .. "/run")) end)
add("check_dir", function() fine(core.check_dir(dir .. "/run")) end)
add("find_executable", function() fine(core.find_executable("sh")) end)
add("absolute_path", function() fine(core.absolute_path(dir)) end)

-- ---- files ---------------------------------------------------------------------------------

local function remove_files()
  fine(core.unbind_file(dir .. "/files/bound") ~= nil)
  fine(core.remove_tree(dir .. "/files"))
end

add("make_dir create_file write_file read_file stat list_dir own_file remove_file remove_tree "
  .. "rename link_file bind_file unbind_file symlink read_link punch_file seal_file", function()
  local files = dir .. "/files"
  fine(core.make_dir(files, 448))
  fine(core.write_file(files .. "/a", ("x"):rep(10000), 384))
  assert(#fine(core.read_file(files .. "/a", -20000)) == 10000)
  fine(core.create_file(files .. "/b", "data", 384))
  fine(core.own_file(files .. "/b", 0, 0, 416))
  local id = fine(core.stat(files .. "/b")).id
  fine(core.seal_file(files .. "/b", 0, 0, 256, { id = id, uid = 0, single = true, reader_uid = 0,
    reader_gid = 0 }))
  fine(core.link_file(files .. "/a", files .. "/c"))
  fine(core.bind_file(files .. "/a", files .. "/bound"))
  fine(core.unbind_file(files .. "/bound"))
  fine(core.remove_file(files .. "/bound"))
  fine(core.symlink("me", files .. "/d"))
  assert(fine(core.read_link(files .. "/d")) == "me")
  fine(core.rename(files .. "/d", files .. "/e"))
  assert(fine(core.stat(files .. "/e")).type == "link" and #fine(core.list_dir(files)) == 4)
  fine(core.punch_file(files .. "/a", 100))
  fine(core.remove_file(files .. "/e"))
  fine(core.remove_tree(files))
end, remove_files)
add("copy_file", function()
  fine(core.make_dir(dir .. "/files", 448))
  complete(core.copy_file(firecracker, dir .. "/files/copy", "reflink", 384, nil, ctx))
end, remove_files)
add("hash_file sync", function()
  complete(core.hash_file(firecracker, { blocks = true }, ctx))
  complete(core.sync(dir, ctx))
end)
add("lock_file lock_taken lock.remove lock.close", function()
  fine(core.make_dir(dir .. "/files", 448))
  local lock = fine(core.lock_file(dir .. "/files/lock"))
  fine(core.lock_taken(dir .. "/files/lock"))
  assert(tostring(lock) ~= "" and select(2, core.lock_file(dir .. "/files/lock")).code == "busy")
  lock:close()
  fine(fine(core.lock_file(dir .. "/files/lock")):remove())
end, function()
  collectgarbage() -- a lock that found no owner goes
  remove_files()
end)
add("file_in_use", function() assert(fine(core.file_in_use(firecracker))) end)
add("cgroup_holds enter_cgroup remove_cgroup", function()
  assert(select(2, core.enter_cgroup(dir .. "/none", 1)).code == "not_found")
  assert(core.cgroup_holds(dir .. "/none") == false)
  complete(core.remove_cgroup(dir .. "/none", 1, 0, ctx))
  assert(select(2, core.remove_cgroup(dir)).code == "conflict")
end)
add("is_terminal wait_signal wait_reader wait_readable", function()
  core.is_terminal(2)
  local reader <close> = fine(core.wait_reader(server:pidfd(), 0.001, ctx))
  tostring(reader)
  reader:step()
  fine(core.wait_readable(server:pidfd(), 0.001, ctx)):close()
  local op <close> = fine(core.wait_signal({ 12 }, 0.001, ctx)) -- SIGUSR2
  tostring(op)
  op:step()
end)
add("own_uid uid_in_use kvm_check tun_check disk_free disk_look reflink_check", function()
  fine(core.uid_in_use(core.own_uid()))
  fine(core.kvm_check("/dev/kvm"))
  fine(core.tun_check("/dev/net/tun"))
  fine(core.disk_free(dir))
  fine(core.disk_look("/proc/self/exe", 512))
  local ok, err = core.reflink_check(dir)
  assert(ok or err.code == "unsupported")
end)

add("keys keys.reader keys.copy_op keys.close", function()
  local keys, typed = fine(core.keys()), fine(core.keys())
  fine(keys:copy_op(typed:reader())):close()
  keys:close()
  fine(core.keys())
end)

add("capper capper.add capper.remove capper.close", function()
  local capper = fine(core.capper())
  fine(capper:add("/none", 4096))
  fine(capper:add(dir, 4096))
  capper:remove("/none")
  capper:close()
  fine(core.capper())
end)

-- ---- processes -----------------------------------------------------------------------------

add("process process.pid process.pidfd process.alive process.recorded process.identity "
  .. "process.close", function()
  local p = fine(core.process(server:pid()))
  p:pid() p:pidfd() p:alive() p:recorded()
  fine(p:identity())
  p:close()
  fine(core.process(identity))
end)
add("process.matches", function()
  fine(server:matches(firecracker, sock))
  fine(server:matches(firecracker, nil, dir))
end)
add("process.in_folder", function()
  fine(server:in_folder(dir))
  server:in_folder("/none")
end)
add("process.signal_number", function() fine(server:signal_number(0)) end)
add("open_listener", function() fine(core.open_listener(sock)) end)
add("listener_pid", function() fine(core.listener_pid(sock)) end)
add("open_api_sock", function() fine(core.open_api_sock(firecracker, sock)) end)
add("open_by_root", function() core.open_by_root(dir) end) -- none is there
add("spawn process.wait_op", function()
  local s = spec("true")
  s.env, s.fds, s.stdout = { "A=b" }, { [7] = netns:fd() }, { file = "/dev/null" }
  s.netns, s.cwd, s.umask, s.session = netns, "/", 63, true
  -- Made before, so that whatever runs out of memory, the child is waited for and reaped.
  local held <close> = setmetatable({ p = false }, { __close = function(self)
    if self.p then
      core.poll(self.p:pidfd())
      self.p:close()
    end
  end })
  held.p = fine(core.spawn(s))
  complete(held.p:wait_op(5, 0, ctx))
end)
add("process.wait_file_op", function()
  complete(server:wait_file_op("/etc/passwd", 1, nil, 5, ctx))
  server:wait_file_op("/etc/passwd", 1 << 40, nil, 0.001):step()
end)
add("process.wait_text_op", function()
  complete(server:wait_text_op("/etc/passwd", "root", nil, 5, ctx))
  server:wait_text_op("/etc/passwd", "not there", nil, 0.001):step()
end)
add("context.wait_op", function()
  local ended <close> = fine(core.context())
  ended:cancel()
  complete(ended:wait_op(5, ctx))
end)
add("process.wait_server_op", function() complete(server:wait_server_op(sock, 5, "api", 0, ctx)) end)
add("process.release", function()
  local s = spec("true")
  s.gate = true
  local p <close> = fine(core.spawn(s))
  fine(p:release())
  core.poll(p:pidfd())
end)
add("process.close, at its gate", function()
  local s = spec("true")
  s.gate, s.env, s.fds = true, { "A=b" }, { [7] = netns:fd() }
  local p <close> = fine(core.spawn(s))
  fine(p:identity())
end)
add("command", function()
  local s = spec("cat")
  s.stdout, s.stderr, s.input = nil, nil, "hello"
  assert(complete(core.command(s, ctx)).stdout == "hello")
end)
add("command, abandoned", function() fine(core.command(spec("sleep", "60"))):step() end)

-- ---- bridges and TAPs ----------------------------------------------------------------------

-- A link that was made must be told of, or not be there.
local function gone_with_the_failure(well)
  local made = fine(net:ensure_bridge("br1", "10.0.1.1", 24)).created
  complete(net:delete_bridge("br1"))
  assert(made ~= well, "the bridge of a call that failed")
end

local function one_tap(well)
  local taps = fine(net:list_taps("br2"))
  complete(net:delete_taps({ "tap2" }))
  assert(#taps == (well and 1 or 0), "the TAP of a call that failed")
end

-- A removal goes on when its operation is abandoned, and holds the TAPs until they are gone.
local function make_two()
  for _ = 1, 1000 do
    local one, err = net:create_tap("tap0", "br0")
    local two, problem = net:create_tap("tap1", "br0")
    if one and two then return end
    if (err or problem).code ~= "busy" then break end
    core.poll(netns:fd(), 0.005)
  end
  error("the TAPs can't be made again")
end

add("netns netns.fd netns.close", function()
  local ns = fine(core.netns())
  ns:fd()
  ns:close()
  fine(core.netns("/proc/self/ns/net"))
end)
add("relay", function()
  local relay <close> = fine(core.relay(netns, server, "192.0.2.1", { "tcp,127.0.0.1,18080,80" }))
  fine(relay:signal_number(9))
  complete(relay:wait_op(5, 0, ctx))
  assert(not core.relay(netns, server, "192.0.2.1", { "tcp,192.0.2.1,18080,80" }))
end)
add("hold_netns netns.keep netns.is_rootless", function()
  local ns <close> = fine(core.netns())
  assert(ns:is_rootless() == false)
  ns:keep(dir .. "/none")
  assert(not core.hold_netns(dir .. "/none/alive", dir .. "/lock", nil, { "/bin/true" }))
end)
add("net net.close", function() fine(core.net(netns)):close() end)
add("net.ensure_bridge", function() net:ensure_bridge("br1", "10.0.1.1", 24, "whose", ctx) end,
  gone_with_the_failure)
fine(net:ensure_bridge("br2"))
add("net.create_tap", function() net:create_tap("tap2", "br2") end, one_tap)
add("net.create_tap, with all its options", function()
  net:create_tap("tap2", "br2", 0, 0, "02:00:00:00:00:01", 1400, true, 1000, "whose it is", ctx)
end, one_tap)
make_two()
add("net.link_exists", function() fine(net:link_exists("br0")) net:link_exists("none") end)
add("net.link_index", function() fine(net:link_index("br0")) net:link_index("none") end)
add("net.link_mtu", function() fine(net:link_mtu("lo")) net:link_mtu("none") end)
add("net.sysctl", function() fine(net:sysctl("ipv4/ip_forward"))
  fine(net:sysctl("ipv4/conf/br0/route_localnet", 0)) net:sysctl("none") net:sysctl("../none") end)
add("net.flush_conntrack", function() complete(net:flush_conntrack({ "192.0.2.1", "udp:53" }, ctx)) end)
add("net.link_index", function() fine(net:link_index("br0")) net:link_index("none") end)
add("net.link_mtu", function() fine(net:link_mtu("br0")) net:link_mtu("none") end)
add("net.list_taps", function() assert(#fine(net:list_taps("br0", ctx)) == 2) end)
add("net.create_tap, one that is there", function() fine(net:create_tap("tap0", "br0")) end)
add("net.delete_taps", function() complete(net:delete_taps({ "tap0", "tap1" }, ctx)) end, make_two)
add("net.delete_bridge", function() complete(net:delete_bridge("br3", ctx)) end, function()
  fine(net:ensure_bridge("br3"))
end)
add("check_ifname address_family", function()
  fine(core.check_ifname("x"))
  fine(core.address_family("::1"))
end)

-- ---- the API -------------------------------------------------------------------------------

add("client client.request client.close", function()
  local c = fine(core.client(sock))
  assert(complete(c:request("GET", "/version", nil, 5, ctx)) == 200)
  c:close()
  c = fine(core.client(sock, server))
  assert(complete(c:request("GET", "/version", nil, 5, ctx)) == 200)
  c:close()
  assert(complete(client:request("PUT", "/nothing", "{}", 5, ctx)) == 400)
end, function() collectgarbage() end) -- an operation that found no owner goes
add("request_all", function()
  local answers = complete(core.request_all({ sock, dir .. "/none" }, { server }, "PUT", "/nothing", "{}",
    5, ctx))
  if answers[1] ~= 400 then error(answers[1].code .. ": " .. answers[1].message, 0) end
end, function() collectgarbage() end)
add("client.request, abandoned", function() fine(client:request("GET", "/", nil, 5)):step() end,
  function()
    collectgarbage()
    assert(complete(client:request("GET", "/version")) == 200)
  end)

-- ---- errors --------------------------------------------------------------------------------

add("errors at once", function()
  core.process(4194303) core.listener_pid(dir .. "/none") core.netns("none") core.client("/none/x")
  core.check_ifname("") core.address_family("x") core.find_executable("/none")
  core.absolute_path("/none") core.socket_dir("relative") core.check_dir("/none/x")
  core.socket_access("/none") core.open_listener(dir .. "/none") core.open_api_sock(firecracker, "/none")
  core.command(spec("/none")) core.spawn(spec("/none")) core.spawn(spec("/dev/null"))
  core.stat("/none") core.list_dir("/none") core.read_file("/none") core.read_link("/none")
  core.make_dir("/none/x", 448) core.write_file("/none/x", "", 384) core.remove_file(dir)
  core.remove_tree("/") core.remove_tree(dir, "x") core.rename("/none", "/none/x")
  core.link_file("/none", "/none/x") core.symlink("x", dir)
  core.bind_file("/none", "/none/x") core.unbind_file(dir .. "/none")
  fine(core.client(dir .. "/none")):request("GET", "/")
  core.copy_file("/none", "/none/x", "sparse", 384) core.lock_file(dir)
  core.hash_file("/none") core.sync("/none") net:flush_conntrack({ "there" }) net:flush_conntrack({ "udp:x" })
  net:list_taps("lo") net:create_tap("lo", "br0") net:ensure_bridge("lo")
end)
add("errors of operations", function()
  fail("deadline", core.wait_path(dir .. "/none", false, 0, "x"))
  fail("wait_timeout", server:wait_op(0))
  fail("wait_timeout", core.command{ argv = { "sh", "-c", "echo x; exec sleep 60" },
    timeout = 0.001 })
  fail("conflict", net:delete_taps({ "lo" }))
  fail("conflict", net:delete_bridge("lo"))
end)

-- ---- is that all of it? --------------------------------------------------------------------

local function check_covered(prefix, methods)
  for name, value in pairs(methods) do
    if type(value) == "function" then
      assert(covered[prefix .. name], "no call for " .. prefix .. name)
    end
  end
end
check_covered("", core)
local without_methods = { guard = true, error = true } -- error.lua gives the latter its own
local types = 0
for key, metatable in pairs(debug.getregistry()) do
  local name = type(key) == "string" and key:match("^fcproc%.(%w+)$")
  if name and type(metatable) == "table" and metatable.__name then
    types = types + 1
    if not without_methods[name] then check_covered(name .. ".", metatable.__index) end
  end
end
assert(types == 11, "how many types there are")

return calls, function()
  client:close()
  net:close()
  netns:close()
  server:signal_number(9)
  complete(server:wait_op(5))
  server:close()
end
