-- Boots a real microVM on a bridge, pings it, shuts it down, and leaves nothing behind.
-- Run as root, or as a user of the group kvm: `make demo`. It works in a network namespace of its own.

local fcproc = require "fcproc"

local began = fcproc.now()

-- Runs one step and prints how long it took. A step that fails ends the script with its error;
-- the <close> variables below clean up all the same.
local function step(text, fn)
  local start = fcproc.now()
  local result = assert(fn())
  print(("%8.1f ms  %s"):format((fcproc.now() - start) * 1000, text))
  return result
end

-- Something to do at the end of the block, however it is left.
local function finally(fn)
  return setmetatable({}, { __close = fn })
end

local function main()
  local dir = assert(fcproc.runtime_dir()) .. "-hello"
  local api_sock, console = dir .. "/api.sock", dir .. "/console.log"
  -- An ordinary user may make none here: his manager has one of his own.
  local own <close>, refused = fcproc.new_netns()
  local manager <close> = assert(fcproc.new{
    bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24, runtime_dir = dir, netns = own,
  })
  assert(own or manager.config.privilege == "rootless", refused)
  local ctx <close> = assert(fcproc.context{ timeout = 30 }) -- for everything together

  local binary = step("find the firecracker binary", function() return manager:resolve_binary() end)
  print("             " .. binary .. ", version " .. assert(manager:binary_version(ctx)))

  step("ensure the bridge fcbr0, 172.30.0.1/24", function() return manager:ensure_bridge(ctx) end)
  step("ensure the socket folder " .. dir, function() return manager:ensure_socket_dir(ctx) end)
  local _ <close> = finally(function() manager.runner:run{ "rm", "-r", dir } end)
  -- An ordinary user's has all rights over its network in there; fcproc.vm.launch gives it a jail.
  local netns = manager.config.netns
  step("create the TAP fctap0 on the bridge", function()
    return manager:create_tap("fctap0", nil, ctx)
  end)

  local firecracker <close> = step("start firecracker", function()
    -- Its log shares the console's file: only errors, so that the guest's lines stay whole.
    return fcproc.spawn({ binary, "--api-sock", api_sock, "--level", "Error" }, {
      stdout = { file = console }, stderr = { file = console }, umask = tonumber("077", 8),
      netns = netns, session = true,
    }, ctx)
  end)
  -- Whatever happens from here on, the process does not outlive this script.
  local _ <close> = finally(function() manager:kill(firecracker) end)

  step("wait until its API answers", function()
    return manager:wait_for_socket(api_sock, 5, "firecracker api socket", ctx)
  end)
  step("configure it: the built-in guest, 16 MiB, one network interface", function()
    local client <close> = assert(fcproc.client(api_sock))
    assert(client:request("PUT", "/machine-config", { vcpu_count = 1, mem_size_mib = 16 }, ctx))
    assert(client:request("PUT", "/boot-source", {
      kernel_image_path = assert(fcproc.guest_path()), boot_args = "ip=172.30.0.2",
    }, ctx))
    return client:request("PUT", "/network-interfaces/eth0", {
      iface_id = "eth0", host_dev_name = "fctap0", guest_mac = "06:00:ac:1e:00:02",
    }, ctx)
  end)
  step("boot it", function()
    return fcproc.request(api_sock, "PUT", "/actions", { action_type = "InstanceStart" }, ctx)
  end)

  local ping = step("ping the guest across TAP and bridge", function()
    return manager.runner:run({ "ping", "-c", "1", "-W", "5", "172.30.0.2" }, { netns = netns }, ctx)
  end)
  print("             " .. ping.stdout:match("%d+ bytes from [^\n]+"))
  print("             the guest's console:")
  for line in io.lines(console) do
    if line:find("fcproc guest", 1, true) then print("               | " .. line:gsub("\r", "")) end
  end

  local pid = step("find its pid from the socket", function()
    return manager:find_pid(api_sock, ctx)
  end)
  print("             pid " .. pid)
  step("send Ctrl-Alt-Del", function() return manager:send_ctrl_alt_del(api_sock, ctx) end)
  step("wait for its exit", function()
    local gone, exit = manager:wait_for_exit(firecracker, api_sock, 10, ctx)
    if gone then print("             exit status " .. exit.status) end
    return gone, exit
  end)

  step("delete the TAP", function() return manager:delete_tap("fctap0", ctx) end)
  step("delete the bridge", function() return manager:delete_bridge(ctx) end)
end

local ok, err = pcall(main)
if not ok then
  io.stderr:write("hello: ", tostring(err), "\n")
  os.exit(1)
end
print(("%8.1f ms  all of it; nothing is left"):format((fcproc.now() - began) * 1000))
