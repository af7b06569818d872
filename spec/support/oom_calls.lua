-- What oom-lua walks: a call for every function and method that the C module binds. Gets a folder
-- and the firecracker binary; returns the list of {name, function}, and what ends it all.

local core = require "fcproc.core"

local dir, firecracker = ...
local sock = dir .. "/api.sock"

local function fine(value, err)
  if value == nil then error(tostring(err and err.code) .. ": " .. tostring(err and err.message), 0) end
  return value
end

local function complete(op, err)
  fine(op, err)
  while true do
    local done, result, second = op:step()
    if done then return result, second end
    if done == nil then error(result.code .. ": " .. result.message, 0) end
    core.poll(op:pollfd(), op:timeout() or 1)
  end
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
local function add(names, fn)
  for name in names:gmatch("%S+") do covered[name] = true end
  calls[#calls + 1] = { names, fn }
end

add("now guest_path default_context host_logging", function()
  core.now() core.guest_path() core.default_context() core.host_logging()
end)
add("context context.with_timeout context.cancel context.status context.remaining context.waiter "
  .. "context.close", function()
  local a = fine(core.context(nil, 5, "poll"))
  local b = fine(a:with_timeout(1))
  a:cancel()
  b:status() b:remaining() b:waiter() b:close()
end)
add("poll poll_many", function()
  core.poll(server:pidfd(), 0)
  fine(core.poll_many({ server:pidfd(), netns:fd() }, {}, 0))
end)
add("wait_path op.pollfd op.events op.timeout op.step op.close", function()
  local op = fine(core.wait_path(dir .. "/never/there", false, 5, "x", 0, ctx))
  op:pollfd() op:events() op:timeout() op:step() op:close()
  complete(core.wait_path(sock, true, 5, "x"))
end)
add("socket_access", function() fine(core.socket_access(sock)) end)
add("socket_dir", function() fine(core.socket_dir(dir .. "/run")) end)
add("find_executable", function() fine(core.find_executable("sh")) end)
add("absolute_path", function() fine(core.absolute_path(dir)) end)
add("process process.pid process.pidfd process.alive process.recorded process.identity process.close",
  function()
    local p = fine(core.process(server:pid()))
    p:pid() p:pidfd() p:alive() p:recorded()
    fine(p:identity())
    p:close()
    fine(core.process(identity))
  end)
add("process.matches", function() fine(server:matches(firecracker, sock)) end)
add("process.signal_number", function() fine(server:signal_number(0)) end)
add("open_listener", function() fine(core.open_listener(sock)) end)
add("listener_pid", function() fine(core.listener_pid(sock)) end)
add("open_api_sock", function() fine(core.open_api_sock(firecracker, sock)) end)
add("errors", function()
  core.process(4194303) core.listener_pid(dir .. "/none") core.netns("none") core.client("/none/x")
  core.check_ifname("") core.address_family("x") core.find_executable("/none")
  net:list_taps("lo") net:create_tap("lo", "br0")
end)
add("spawn process.wait_op", function()
  local s = spec("true")
  s.env, s.fds = { "A=b" }, { [7] = netns:fd() }
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
add("command", function()
  local s = spec("cat")
  s.stdout, s.stderr, s.input = nil, nil, "hello"
  assert(complete(core.command(s, ctx)).stdout == "hello")
end)
add("netns netns.fd netns.close", function()
  local ns = fine(core.netns())
  ns:fd()
  ns:close()
  fine(core.netns("/proc/self/ns/net"))
end)
add("net net.close", function() fine(core.net(netns)):close() end)
add("net.ensure_bridge", function() fine(net:ensure_bridge("br0", "10.0.0.1", 24, ctx)) end)
add("net.create_tap net.list_taps", function()
  fine(net:create_tap("tap0", "br0", nil, nil, "02:00:00:00:00:01", 1400, true, ctx))
  fine(net:list_taps("br0", ctx))
end)
add("net.delete_taps", function() complete(net:delete_taps({ "tap0", "tap1" }, ctx)) end)
add("net.delete_bridge", function() complete(net:delete_bridge("br9", ctx)) end)
add("check_ifname address_family", function()
  fine(core.check_ifname("x"))
  fine(core.address_family("::1"))
end)
add("client client.request client.close", function()
  local c = fine(core.client(sock))
  assert(complete(c:request("GET", "/version", nil, 5, ctx)) == 200)
  c:close()
  assert(complete(client:request("PUT", "/nothing", "{}", 5, ctx)) == 400)
end)
covered["host_log"] = true -- needs a C host's log; embed_spec has one
covered["errors"] = nil

local function check_covered(prefix, methods)
  for name, value in pairs(methods) do
    if type(value) == "function" then
      assert(covered[prefix .. name], "no call for " .. prefix .. name)
    end
  end
end
check_covered("", core)
for prefix, object in pairs{ context = ctx, process = server, netns = netns, net = net, client = client,
  op = fine(server:wait_op()) } do
  check_covered(prefix .. ".", getmetatable(object).__index)
end

return calls, function()
  client:close()
  net:close()
  netns:close()
  server:signal_number(9)
  complete(server:wait_op(5))
  server:close()
end
