-- Shared by all specs: namespaces, folders, the real binaries, and the count of what is left over.
-- Nothing here skips: what is missing fails with the reason.

local cjson = require "cjson"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local lease = require "fcproc.resources.lease"
local namespaces = require "fcproc.manager.rootless"

local M = {}

-- Does this suite run as an ordinary user (spec/rootless/shared_spec.lua)? His VMs are in namespaces of
-- his own then.
M.rootless = os.getenv("FCPROC_SPEC_MODE") == "rootless"
-- Does it take its time (`make soak`)?
M.soak = os.getenv("FCPROC_SPEC_SOAK") ~= nil

---Ends the test where it runs as an ordinary user, which is counted and listed: it is about what only
---root has, or what has specs of its own in spec/rootless.
---@param pending function  busted's, of the test
---@param reason string
function M.direct_only(pending, reason)
  if M.rootless then pending("direct only: " .. reason) end
end

-- ---- small things --------------------------------------------------------------------------

---The value, or a failed test that shows the error (luassert hides error objects).
function M.must(value, err, ...)
  if value == nil or value == false then
    error("unexpected failure: " .. tostring(err) .. "\n" .. (err and err.output or ""), 2)
  end
  return value, err, ...
end

---Fails unless the call failed with this code. Returns the error.
function M.fails(code, value, err)
  if value then error(("expected the error '%s', but it worked"):format(code), 2) end
  if not fcproc.is_error(err) then
    error(("expected the error '%s', got: %s"):format(code, tostring(err)), 2)
  end
  if err.code ~= code then
    error(("expected the error '%s', got: %s"):format(code, tostring(err)), 2)
  end
  return err
end

---Fails unless fn(...) raises an error with this text in it.
function M.raises(text, fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then error(("expected an error with '%s', but none was raised"):format(text), 2) end
  if not tostring(err):find(text, 1, true) then
    error(("expected an error with '%s', got: %s"):format(text, tostring(err)), 2)
  end
end

---All that the pattern captures in the text, or matches, as a list.
function M.collect(text, pattern)
  local list = {}
  for match in text:gmatch(pattern) do list[#list + 1] = match end
  return list
end

function M.read_file(path)
  local file <close> = io.open(path, "rb")
  return file and file:read("a")
end

function M.write_file(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

---Runs a command to its end and returns its stdout; fails the test when it fails.
function M.sh(argv, opts)
  return M.must(fcproc.runner():run(argv, opts)).stdout
end

---Waits until the function answers true; fails the test after 5 s.
function M.eventually(what, fn, timeout)
  local deadline = core.now() + (timeout or 5)
  repeat
    if fn() then return end
    core.poll_many({}, {}, 0.005)
  until core.now() > deadline
  error("never came true: " .. what, 2)
end

---Seconds that the function took.
function M.seconds(fn, ...)
  local started = core.now()
  fn(...)
  return core.now() - started
end

-- ---- folders -------------------------------------------------------------------------------

local Folder = {}
Folder.__index = Folder

Folder.__close = function(self)
  M.sh{ "rm", "-rf", "--", self.path }
end

---A new folder of the test's own, removed at the end of its block: `local dir <close> = ...`.
function M.folder()
  return setmetatable({ path = M.sh{ "mktemp", "-d", "/tmp/fcproc-spec.XXXXXX" }:gsub("\n", "") },
    Folder)
end

function Folder:file(name) return self.path .. "/" .. name end

---A listener whose accept queue is full: `local full <close> = support.full_queue(folder)`; full.sock,
---full.process, and full:empty(), after which it answers every request with 204.
function M.full_queue(folder)
  local full = { sock = folder:file("full.sock"), go = folder:file("full.go") }
  local out = folder:file("full.out")
  full.process = M.must(fcproc.spawn({ "python3", "spec/support/full_queue.py", full.sock, full.go },
    { stdout = { file = out } }))
  function full:empty() M.write_file(self.go, "") end
  M.eventually("the queue is full", function() return (M.read_file(out) or "") ~= "" end)
  return setmetatable(full, { __close = function(self)
    self.process:signal("KILL")
    self.process:wait(10)
    self.process:close()
  end })
end

-- ---- the machine ---------------------------------------------------------------------------

---The interpreter that runs this suite, for specs that start another one.
M.lua = os.getenv("FCPROC_SPEC_LUA") or "lua5.4"

-- Is it the one that `make test SANITIZE=1` builds?
M.sanitized = M.lua:find("lua%-host$") ~= nil

---The real binary, or a failed test that says why there is none.
function M.firecracker()
  local path = os.getenv("FCPROC_SPEC_FIRECRACKER")
  if not path or path == "" then
    error("no firecracker: `make test` sets FCPROC_SPEC_FIRECRACKER after `make deps`", 2)
  end
  return path
end

---Who runs this suite: uid and gid.
function M.own_ids()
  local uid, gid = M.sh({ "sh", "-c", "id -u; id -g" }):match("(%d+)\n(%d+)")
  return math.tointeger(tonumber(uid)), math.tointeger(tonumber(gid))
end

function M.need_root()
  if not M.rootless and M.own_ids() ~= 0 then error("these specs need root", 2) end
end

function M.need_kvm()
  local kvm <close> = io.open("/dev/kvm", "r+b")
  if not kvm then error("no usable /dev/kvm: the real Firecracker can't run here", 2) end
end

-- PIDFD_GET_INFO with PIDFD_INFO_EXIT, of a child that was reaped.
local EXIT_TOLD = [[
import errno, fcntl, os, struct
child = os.fork()
if child == 0:
    os._exit(7)
fd = os.pidfd_open(child)
os.waitpid(child, 0)
try:
    info = fcntl.ioctl(fd, 0xC040FF0B, struct.pack("=Q56x", 1 << 3))
    print("yes" if struct.unpack_from("=Q", info)[0] & (1 << 3) else "no")
except OSError as e:
    if e.errno not in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):
        raise
    print("no")
]]

---Does this kernel tell how a process ended that was somebody else's child (Linux 6.15)?
function M.kernel_tells_exits()
  M.exits_told = M.exits_told or M.sh{ "python3", "-c", EXIT_TOLD }
  return M.exits_told == "yes\n"
end

---The host's leases of VMs whose runtime folder is below a folder, by their names.
---@return string[] names
---@return fcproc.Leases
function M.leases(world)
  local leases, names = M.must(lease.open(world.manager)), {}
  for _, entry in ipairs((leases:list())) do
    if (entry.folder .. "/"):find(world.folder.path .. "/", 1, true) == 1 then
      names[#names + 1] = entry.name
    end
  end
  return names, leases
end

-- Those of VMs that a test has left, dead, in a folder that goes.
local function forget_leases(world)
  local names, leases = M.leases(world)
  for _, name in ipairs(names) do
    core.remove_file(leases.folder .. "/" .. name)
    os.remove(leases.folder .. "/" .. name:gsub("/[^/]*$", ""))
  end
end

---Ends what a test has left running, as one that failed: its VMs, jailed or not, and what else names its
---folder.
function M.end_left(world)
  local pids = {}
  for _, entry in ipairs(fcproc.vm.list(world.manager) or {}) do pids[#pids + 1] = entry.pid end
  for _, entry in ipairs(core.list_dir("/proc") or {}) do
    local pid = math.tointeger(tonumber(entry.name))
    local words = pid and pid ~= M.own_pid() and core.read_file(("/proc/%d/cmdline"):format(pid))
    if words and words:find(world.folder.path .. "/", 1, true)
      and not words:find("/.fcproc/rootless/", 1, true) then -- who keeps the namespaces ends by himself
      pids[#pids + 1] = pid
    end
  end
  for _, pid in ipairs(pids) do
    local process <close> = core.process(pid)
    if process then process:signal("KILL") end
  end
end

-- An ordinary user's namespaces are his manager's: they end with it, and so does their holder.
local function end_namespaces(world)
  local state = namespaces.state(world.manager.config)
  local holder <close> = state and state.holder and M.must(fcproc.process(state.holder))
  world.manager:close()
  if holder then M.must(holder:wait(10)) end
end

---A manager in a network namespace of its own, both closed at the end of the block:
---`local world <close> = support.world()`; world.manager, world.netns, world.folder.
function M.world(config)
  local world = { folder = M.folder(), netns = not M.rootless and M.must(fcproc.new_netns()) or nil }
  local full = {
    bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24, netns = world.netns,
    privilege = M.rootless and "rootless" or nil,
    runtime_dir = world.folder:file("run"), firecracker_bin = os.getenv("FCPROC_SPEC_FIRECRACKER"),
  }
  for key, value in pairs(config or {}) do full[key] = value end
  local logger, ready = full.logger, not M.rootless
  full.logger = logger and function(...) if ready then logger(...) end end
  world.manager = M.must(fcproc.new(full))
  if M.rootless then
    M.must(world.manager:_enter())
    world.netns, ready = world.manager.config.netns, true
  end
  return setmetatable(world, { __close = function(self)
    M.end_left(self)
    forget_leases(self)
    if M.rootless then end_namespaces(self) else self.manager:close() end
    self.netns:close()
    getmetatable(self.folder).__close(self.folder)
  end })
end

---What another manager of the world is made of, also in another process.
function M.config(world)
  local c = world.manager.config
  return { bridge_name = c.bridge_name, bridge_ip = c.bridge_ip, cidr = c.prefix,
    runtime_dir = c.runtime_dir, firecracker_bin = c.firecracker_bin,
    privilege = M.rootless and "rootless" or nil,
    netns = not M.rootless and ("/proc/%d/fd/%d"):format(M.own_pid(), world.netns:fd()) or nil }
end

---Where the VMM of that VM has its files.
function M.vmm_folder(world, id)
  return ("%s/%s%s"):format(world.manager.config.runtime_dir, id, M.rootless and "/vmm" or "")
end

---The same with its bridge.
function M.bridged_world(config)
  local world = M.world(config)
  M.must(world.manager:ensure_bridge())
  return world
end

---Is the link, as `ip -json` shows it, up?
function M.is_up(link)
  for _, flag in ipairs(link.flags) do
    if flag == "UP" then return true end
  end
  return false
end

---`ip -json ARGS` in a namespace, decoded, without an ordinary user's uplink.
function M.ip(netns, ...)
  local text, found = M.sh({ "ip", "-details", "-json", ... }, { netns = netns }), {}
  for _, entry in ipairs(cjson.decode(text == "" and "[]" or text)) do
    if entry.ifname ~= namespaces.UPLINK then found[#found + 1] = entry end
  end
  return found
end

---A real Firecracker with the built-in guest: `local vm <close> = support.vm(world, opts)`.
---opts: name, boot_args, tap (made when given), drives, sock, firecracker, wait (a text on the console,
---by default that of "ready"; "socket": until it listens; false: not at all), timeout (of that wait),
---config (replaces fields in the sections of Firecracker's configuration), empty (no VM yet, only its
---API), spawn (more options for fcproc.spawn).
---Fields: process, sock, console, tap. Closing kills it if it still runs.
function M.vm(world, opts)
  opts = opts or {}
  local name = opts.name or "vm"
  local dir = world.folder:file(name)
  M.sh{ "mkdir", "-p", dir }
  local vm = { name = name, dir = dir, sock = opts.sock or dir .. "/api.sock",
    console = dir .. "/console.log", config = dir .. "/config.json" }
  local config = {
    ["boot-source"] = { kernel_image_path = M.must(fcproc.guest_path()),
      boot_args = opts.boot_args or "" },
    ["machine-config"] = { vcpu_count = 1, mem_size_mib = 16 },
    drives = opts.drives,
  }
  if opts.tap then
    M.must(world.manager:ensure_bridge())
    vm.tap = M.must(world.manager:create_tap(opts.tap))
    config["network-interfaces"] = { { iface_id = "eth0", host_dev_name = opts.tap,
      guest_mac = "06:00:ac:1e:00:02" } }
  end
  for section, fields in pairs(opts.config or {}) do
    for key, value in pairs(fields) do config[section][key] = value end
  end
  local text = cjson.encode(config)
  if not opts.drives then text = text:gsub("}$", ',"drives":[]}') end -- it must be there
  M.write_file(vm.config, text)
  setmetatable(vm, { __close = function(self)
    if self.process then
      if self.process:alive() then self.process:signal("KILL") end
      self.process:wait(10)
      self.process:close()
    end
  end })
  local argv = { opts.firecracker or M.firecracker(), "--api-sock", vm.sock, "--id", name,
    "--level", "Error", -- its log goes where the guest's console goes, and would cut its lines
    table.unpack(opts.empty and {} or { "--config-file", vm.config }) }
  local spawn = { stdout = { file = vm.console }, stderr = { file = vm.console }, umask = 63,
    netns = world.netns, session = true }
  for key, value in pairs(opts.spawn or {}) do spawn[key] = value end
  vm.process = M.must(fcproc.spawn(argv, spawn))
  local wait_for = opts.wait == nil and "fcproc guest: ready" or opts.wait
  local ok, problem = pcall(function()
    if wait_for == "socket" then
      M.must(world.manager:wait_for_socket(vm.sock))
    elseif wait_for then
      M.wait_for_console(vm, wait_for, opts.timeout)
    end
  end)
  if not ok then
    getmetatable(vm).__close(vm)
    error(problem, 2)
  end
  return vm
end

---The same for a VM whose guest need not be ready: it listens, unless opts.wait says otherwise.
function M.listening_vm(world, opts)
  local all = { wait = "socket" }
  for key, value in pairs(opts or {}) do all[key] = value end
  return M.vm(world, all)
end

---Waits until the text is on the VM's console, for 10 s unless told.
function M.wait_for_console(vm, text, timeout)
  M.eventually(("'%s' on the console of %s"):format(text, vm.name), function()
    if (M.read_file(vm.console) or ""):find(text, 1, true) then return true end
    if not vm.process:alive() then
      error(("%s ended: %s"):format(vm.name, M.read_file(vm.console) or "no console"), 0)
    end
  end, timeout or 10)
end

---Does the guest at the address answer a ping from the namespace?
function M.pings(netns, address)
  return fcproc.runner():run({ "ping", "-c", "1", "-W", "2", address }, { netns = netns }) ~= nil
end

-- ---- what is left over ---------------------------------------------------------------------

local function list(folder)
  return M.collect(M.sh{ "ls", "-1", folder }, "[^\n]+")
end

---What this process has open, by number.
function M.descriptors()
  local open = {}
  -- Some come and go while they are listed: those are not left over.
  local command = ("ls -l /proc/%d/fd 2>/dev/null || true"):format(M.own_pid())
  for line in M.sh({ "sh", "-c", command }):gmatch("[^\n]+") do
    local fd, target = line:match("(%d+) %-> (.*)$")
    if fd then open[fd] = target end
  end
  return open
end

function M.own_pid()
  M.pid = M.pid or tonumber((M.read_file("/proc/self/stat") or ""):match("^%d+"))
  return M.pid
end

local function children()
  return M.read_file(("/proc/%d/task/%d/children"):format(M.own_pid(), M.own_pid())) or ""
end

local function count(map)
  local n = 0
  for _ in pairs(map) do n = n + 1 end
  return n
end

local function snapshot()
  return { descriptors = M.descriptors(), children = children(),
    links = table.concat(list("/sys/class/net"), " ") }
end

local before

---A folder that each test of a block has anew, beside the count of what is left over. In its describe:
---`local dir = support.each_folder{ before_each = before_each, after_each = after_each }`.
---@param busted { before_each: function, after_each: function }
function M.each_folder(busted)
  local dir = setmetatable({}, Folder)
  busted.before_each(function()
    M.before_each()
    dir.path = M.folder().path
  end)
  busted.after_each(function()
    getmetatable(dir).__close(dir)
    M.after_each()
  end)
  return dir
end

---To be called in before_each and after_each of every spec file.
function M.before_each() before = snapshot() end

function M.after_each()
  local after
  -- A killed command or a removal under way needs a moment to be reaped by its thread.
  for try = 1, 100 do
    after = snapshot()
    if count(after.descriptors) <= count(before.descriptors)
      and #after.children <= #before.children and after.links == before.links then
      return
    end
    -- Only then: in a whole suite's heap it takes longer than most tests.
    if try % 50 == 1 then
      collectgarbage()
      collectgarbage()
    else
      core.poll_many({}, {}, 0.01)
    end
  end
  local lost = {}
  for fd, target in pairs(after.descriptors) do
    if not before.descriptors[fd] then lost[#lost + 1] = ("fd %s -> %s"):format(fd, target) end
  end
  if #after.children > #before.children then lost[#lost + 1] = "children " .. after.children end
  if after.links ~= before.links then lost[#lost + 1] = "links " .. after.links end
  error("left over: " .. table.concat(lost, ", "), 0)
end

return M
