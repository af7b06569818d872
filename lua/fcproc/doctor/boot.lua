-- doctor's proof: the built-in guest boots on a TAP on a bridge, answers a ping and shuts down, all
-- in a new network namespace and a folder of its own. Nothing of it is left, however it ends.

local api = require "fcproc.api"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcproc = require "fcproc"
local finally = require "fcproc.finally"
local managers = require "fcproc.manager"
local process = require "fcproc.process"
local rootless = require "fcproc.vm.rootless"
local tail = require "fcproc.tail"

local M = {}

local BRIDGE, TAP = "fcdoctor0", "fcdoctap0"
local HOST_IP, GUEST_IP, GUEST_MAC = "192.0.2.1", "192.0.2.2", "06:00:c0:00:02:02"
local PATIENCE = 20 -- seconds for a socket, a ping, an exit: emulated hosts are slow

-- What to do when a step failed.
local fixes = {
  ["find firecracker"] = "see the check binary",
  ["find the guest"] = "see the check guest",
  ["make a network namespace"] = "see the checks rootless and bridge",
  ["make a folder"] = "make room in the folder for temporary files (TMPDIR)",
  ["make the bridge"] = "see the check bridge",
  ["make the TAP"] = "see the checks tun and bridge",
  ["start firecracker"] = "see the check binary; start it by hand to see what it says",
  ["reach its API"] = "read what firecracker said, above; see the check kvm",
  ["configure it"] = "see the check binary: it may be a version that fcproc does not know",
  ["boot the guest"] = "see the check kvm; dmesg may tell what KVM refused",
  ["ping it"] = "install ping (iputils-ping); if it is there, the guest did not get its network up: "
    .. "see the checks tun and kvm",
  ["send Ctrl-Alt-Del"] = "read what firecracker said, above",
  ["wait for its exit"] = "the guest did not react; it was killed. See the check kvm",
  ["clean up"] = "look for what is left, by its name in the message",
}

-- The end of what the VM and its guest have said.
local function last_words(host, console)
  local text = (host:read(console) or ""):gsub("[%c\r]+", "\n"):gsub("%s+$", "")
  local line = text:match("[^\n]+$")
  return line and ("; its last words: " .. tail.quoted(line)) or ""
end

-- Waits for the socket, but not for one that nobody will make any more.
local function reach(manager, vmm, sock, ctx)
  local deadline = core.now() + PATIENCE
  while true do
    local ok, err = manager:wait_for_socket(sock, 0.2, "firecracker api socket", ctx)
    if ok then return true end
    local gone, exit = vmm:wait(0, ctx)
    if gone then
      local how = exit and (exit.signal and "signal " .. exit.signal or "exit status " .. exit.status)
      return nil, errors.new{
        code = "exit_status", op = "doctor.boot", path = sock,
        message = ("firecracker ended with %s before it listened"):format(how or "an unknown status"),
      }
    end
    if err.code ~= "deadline" or core.now() > deadline or (ctx and not ctx:status()) then
      return nil, err
    end
  end
end

local function configure(sock, vmm, guest, ctx)
  local client <close>, err = api.client(sock, vmm)
  if not client then return nil, err end
  local requests = {
    { "/machine-config", { vcpu_count = 1, mem_size_mib = 16 } },
    { "/boot-source", { kernel_image_path = guest, boot_args = "ip=" .. GUEST_IP } },
    { "/network-interfaces/eth0", { iface_id = "eth0", host_dev_name = TAP, guest_mac = GUEST_MAC } },
  }
  for _, request in ipairs(requests) do
    local ok
    ok, err = client:request("PUT", request[1], request[2], ctx)
    if not ok then return nil, err end
  end
  return true
end

-- As a rootless VM is in one.
local function jail_of(host, folder, binary, guest)
  return host:is_rootless() and rootless.jail({ files = { folder = folder }, drives = {} },
    { binary = binary, kernel = guest }) or nil
end

-- Does step after step until one fails. Returns the error, or nothing.
local function prove(host, step, seen)
  local ctx = host.ctx
  local guest
  local binary, err = step("find firecracker", function() return host.manager:resolve_binary() end)
  if not binary then return err end
  binary = core.absolute_path(binary) or binary
  guest, err = step("find the guest", fcproc.guest_path)
  if not guest then return err end
  local netns <close>, no_netns = step("make a network namespace", function()
    return host:scratch()
  end)
  if not netns then return no_netns end
  local folder, no_folder = step("make a folder", function() return host:make_folder() end)
  if not folder then return no_folder end
  local removing <close> = finally(function() -- luacheck: ignore removing
    host:remove_folder(folder)
  end)
  local sock, console = folder .. "/api.sock", folder .. "/console.log"
  seen.console = console

  local manager <close>, no_manager = managers.new{
    netns = netns, bridge_name = BRIDGE, bridge_ip = HOST_IP, cidr = 24, runtime_dir = folder,
    firecracker_bin = host.config.firecracker_bin, runner = host.config.runner,
    logger = host.config.logger,
  }
  if not manager then return no_manager end
  local ok
  ok, err = step("make the bridge", function() return manager:ensure_bridge(ctx) end)
  if not ok then return err end
  ok, err = step("make the TAP", function() return manager:create_tap(TAP, nil, ctx) end)
  if not ok then return err end

  local vmm <close>, no_vmm = step("start firecracker", function()
    return core.spawn(process.spec({ binary, "--api-sock", sock, "--level", "Error" }, {
      no_file = 2048, -- as a launch
      stdout = { file = console }, stderr = { file = console }, umask = tonumber("077", 8),
      netns = netns, session = true, cwd = folder, jail = jail_of(host, folder, binary, guest),
    }), ctx)
  end)
  if not vmm then return no_vmm end
  local killing <close> = finally(function() -- luacheck: ignore killing
    local own <close> = core.context(nil, PATIENCE) -- not ctx: it may be what has ended
    if vmm:alive() then vmm:signal("KILL") end
    vmm:wait(nil, own)
    seen.words = last_words(host, console)
  end)

  ok, err = step("reach its API", function() return reach(manager, vmm, sock, ctx) end)
  if not ok then return err end
  ok, err = step("configure it", function() return configure(sock, vmm, guest, ctx) end)
  if not ok then return err end
  ok, err = step("boot the guest", function()
    local client <close>, no_client = api.client(sock, vmm)
    if not client then return nil, no_client end
    return client:request("PUT", "/actions", { action_type = "InstanceStart" }, ctx)
  end)
  if not ok then return err end
  ok, err = step("ping it", function()
    return host:run({ "ping", "-c", "1", "-W", "5", GUEST_IP }, { netns = netns })
  end)
  if not ok then return err end
  ok, err = step("send Ctrl-Alt-Del", function() return manager:send_ctrl_alt_del(sock, ctx) end)
  if not ok then return err end
  local exit
  ok, exit = step("wait for its exit", function()
    return manager:wait_for_exit(vmm, sock, PATIENCE, ctx)
  end)
  if not ok then return exit end
  if exit.status ~= 0 then
    seen.failed = "wait for its exit"
    return ("it ended with %s"):format(exit.signal and "signal " .. exit.signal
      or "exit status " .. exit.status)
  end
  ok, err = step("clean up", function()
    local good, problem = manager:delete_tap(TAP, ctx)
    if good then good, problem = manager:delete_bridge(ctx) end
    return good, problem
  end)
  if not ok then return err end
end

-- "ping it 18 ms, ..." of the steps worth telling.
local function times(steps)
  local took = {}
  for _, step in ipairs(steps) do took[step.name] = step.took * 1000 end
  return ("API %.0f ms after the start, booted in %.0f ms, ping answered in %.0f ms, exit 0 "
    .. "%.0f ms after Ctrl-Alt-Del"):format(took["start firecracker"] + took["reach its API"],
      took["boot the guest"], took["ping it"], took["wait for its exit"])
end

---Boots the built-in guest. Status, message, fix, and the steps with their seconds.
---@param host fcproc.DoctorHost
---@return string status, string message, string? fix, { name: string, took: number }[] steps
function M.run(host)
  local steps, seen = {}, {}
  local function step(name, fn)
    local started = core.now()
    local result, second = fn()
    steps[#steps + 1] = { name = name, took = core.now() - started }
    if not result then seen.failed = name end
    return result, second
  end
  if core.arch ~= "x86_64" then
    return "warn", ("there is no built-in guest for %s to boot"):format(core.arch), nil, steps
  end
  local err = prove(host, step, seen)
  if not err then
    return "ok", times(steps) .. "; nothing of it is left", nil, steps
  end
  return "fail", ("could not %s: %s%s"):format(seen.failed or "set it up",
    type(err) == "string" and err or err.message, seen.words or ""),
    fixes[seen.failed] or "see the other checks", steps
end

return M
