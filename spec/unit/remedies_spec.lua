-- What the host refuses, told in words that say what to do.

local support = require "spec.support"
local cgroup = require "fcproc.machine.cgroup"
local errors = require "fcproc.error"
local exits = require "fcproc.machine.exit"
local fcproc = require "fcproc"
local files = require "fcproc.doctor.files"
local jailer = require "fcproc.machine.jailer"
local jails = require "spec.support.jails"
local mounts = require "fcproc.mounts"
local own = require "fcproc.doctor.rootless"
local remedies = require "fcproc.remedies"
local room = require "fcproc.resources.room"
local sizes = require "fcproc.vm.sizes"

local must, fails = support.must, support.fails

local function has(text, ...)
  for _, wanted in ipairs{ ... } do assert.is_truthy(text:find(wanted, 1, true), text) end
end

describe("a refusal of the host", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- Words as Firecracker has them; none of these hosts can be had here.
  it("that Firecracker passes on is told with what to do", function()
    has(remedies.of("Cannot open the VM file descriptor: Device or resource busy (os error 16)"),
      "another hypervisor")
    has(remedies.of("Unable to create the block device: FileEngine(Async(IoUring(Setup(Os { code: 1"),
      'io_engine = "Sync"', "kernel.io_uring_disabled")
    has(remedies.of("Cannot create memory: Cannot allocate memory (os error 12)"), "MiB are available",
      "lower mem_mib")
    has(remedies.of("Failed to write /sys/fs/cgroup/fcproc/cgroup.subtree_control: busy"),
      "cgroup.subtree_control", "Delegate=yes")
    has(remedies.of('Error: CgroupControllerUnavailable("memory")'), "cgroup.subtree_control")
    for _, said in ipairs{ "can't put /dev/kvm into the jail: No such file or directory",
      "Kvm error: Error creating KVM object: No such file or directory (os error 2)" } do
      has(remedies.of(said), "modprobe kvm_intel or kvm_amd", "--device /dev/kvm")
    end
    for _, other in ipairs{ "", "Open tap device failed: Resource busy (os error 16)", "os error 13" } do
      assert.are.equal("", remedies.of(other))
    end
  end)

  it("for a full disk has amounts", function()
    local dir <close> = support.folder()
    local err = errors.new{ code = "system", op = "x", errno = 28, message = "full" }
    room.tell(err, dir.path, 5 << 20, "copies")
    has(err.message, "full; ", "MiB are free in " .. dir.path .. ", and copies may take 5.0 MiB")
    err = errors.new{ code = "api", op = "x", message = "No space left on device (os error 28)" }
    room.tell(err, dir.path)
    has(err.message, "MiB are free in " .. dir.path)
    err = errors.new{ code = "system", op = "x", errno = 5, message = "broken" }
    room.tell(err, dir.path)
    room.tell(nil, dir.path)
    assert.are.equal("broken", err.message)
  end)

  it("of io_uring is known before anything is made", function()
    assert.is_nil(sizes.without_io_uring(1000, "0\n", "-1\n"))
    assert.is_nil(sizes.without_io_uring(0, "1\n", "-1\n"))
    assert.is_nil(sizes.without_io_uring(1000, "1\n", "44\n")) -- perhaps one of its members
    assert.is_nil(sizes.without_io_uring(1000, nil, nil))
    has(sizes.without_io_uring(0, "2\n", "-1\n"), "io_uring_disabled is 2")
    has(sizes.without_io_uring("auto", "1\n", "-1\n"), "its user auto is not root")
  end)

  it("of a cgroup's controller names where it is passed on", function()
    local v1, v2, offered = jails.hierarchies()
    assert.is_truthy(v2, "this needs a cgroup2 mount")
    for _, controller in ipairs{ "memory", "nonsense" } do
      if not offered[controller] then
        local err = fails("unsupported", jailer.cgroups({ cgroups = { [controller .. ".max"] = "1" },
          cgroup_version = 2, own_cgroup = "own" }, "vm"))
        has(err.message, ("no '%s' in %s/cgroup.controllers"):format(controller, v2), v1[controller]
          and "a hierarchy of version 1 has it" or "cgroup.subtree_control")
      end
    end
  end)

  it("to make a VM is found, though the device opens", function()
    -- Stands for another hypervisor: one descriptor is left, which the device takes.
    local said = support.sh{ "sh", "-c", 'ulimit -n 64; exec "$@"', "sh", support.lua, "-e", [[
      local core, files = require "fcproc.core", {}
      assert(core.kvm_check("/dev/kvm"))
      repeat files[#files + 1] = io.open("/dev/null") until #files > 0 and not io.open("/dev/null")
      files[#files]:close()
      print(select(2, core.kvm_check("/dev/kvm")).message)]] }
    has(said, "/dev/kvm opens and makes no VM")
  end)

  -- Two of these switches are in no kernel of ours.
  it("of a user's own namespaces names its switch", function()
    local refusal = errors.new{ code = "permission", op = "netns.hold",
      message = "rootless networking: can't make a user namespace: Operation not permitted; more" }
    local function asked(values)
      local host = { config = { runtime_dir = "/nowhere" }, is_rootless = function() return true end,
        scratch = function() return nil, refusal end, no_network = function(_, text) return "warn", text end,
        read = function(_, path) return values[path:match("^/proc/sys/(.*)$")] end }
      local status, message, fix = own.namespaces(host)
      assert.are.equal("warn", status)
      has(message, "can't make a user namespace: Operation not permitted")
      return fix
    end
    for path, told in pairs{ ["user/max_user_namespaces"] = "user.max_user_namespaces=10000",
      ["user/max_net_namespaces"] = "user.max_net_namespaces=10000",
      ["kernel/unprivileged_userns_clone"] = "kernel.unprivileged_userns_clone=1" } do
      has(asked{ [path] = "0\n" }, "sysctl -w " .. told, "the line " .. told .. " in /etc/sysctl.d/")
      assert.are.equal("more", asked{ [path] = "1\n" }) -- what the refusal itself advises
    end
    local both = asked{ ["kernel/apparmor_restrict_unprivileged_userns"] = "1\n",
      ["kernel/unprivileged_userns_clone"] = "0\n" }
    has(both, "kernel.unprivileged_userns_clone=1", "kernel.apparmor_restrict_unprivileged_userns=0",
      "a profile with the line userns,")
    refusal.message = refusal.message:gsub(";.*", "")
    has(asked{ ["kernel/apparmor_restrict_unprivileged_userns"] = "0\n" }, "no sysctl forbids it")
  end)

  it("is none where a runtime folder on an ext4 costs more", function()
    local kinds = {}
    for _, mount in ipairs(mounts.list()) do kinds[mount.point] = mount.kind end
    assert.are.equal(kinds["/proc"], mounts.of("/proc/self").kind)
    assert.are.equal(kinds["/"], mounts.of("/").kind)
    local of = mounts.of
    local _ <close> = setmetatable({}, { __close = function() mounts.of = of end })
    local host = { config = { runtime_dir = "/tmp" }, existing = function() return "/tmp" end }
    for kind, slow in pairs{ ext4 = true, tmpfs = false } do
      mounts.of = function() return { kind = kind } end
      local _, message = files.disk(host)
      assert.are.equal(slow, message:find("it is an ext4", 1, true) ~= nil)
    end
  end)
end)

describe("a kill for want of memory", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local KILLED = { signal = 9 }

  it("is told as one, by the files of either version", function()
    local dir <close> = support.folder()
    for name, text in pairs{
      ["memory.events"] = "low 0\nhigh 0\nmax 3\noom 1\noom_kill %d\noom_group_kill 0\n",
      ["memory.oom_control"] = "oom_kill_disable 0\nunder_oom 0\noom_kill %d\n" } do
      local folder = dir:file(name .. ".d")
      support.sh{ "mkdir", folder }
      local jail, outer = { cgroups = {}, cgroup = folder }, { path = folder, oom_kills = 2 }
      local inner = { cgroups = { folder } }
      assert.is_nil(exits.oom(KILLED, jail))
      support.write_file(folder .. "/" .. name, text:format(0))
      assert.is_nil(exits.oom(KILLED, jail))
      support.write_file(folder .. "/" .. name, text:format(2))
      has(exits.oom(KILLED, jail), "SIGKILL: killed by the kernel for want of memory", folder)
      has(exits.oom(KILLED, inner), folder)
      assert.is_nil(exits.oom(KILLED, nil, outer)) -- others, before it came
      assert.is_nil(exits.oom({ signal = 15 }, jail))
      assert.is_nil(exits.oom({ status = 1 }, jail))
      support.write_file(folder .. "/" .. name, text:format(3))
      has(exits.oom(KILLED, nil, outer), folder)
    end
    assert.is_nil(exits.oom(KILLED, nil, nil))
  end)

  it("is seen in a cgroup of this kernel", function()
    local v1, v2, offered = jails.hierarchies()
    local point = v1.memory or (offered.memory and v2)
    assert.is_truthy(point, "this needs the memory controller")
    local folder = ("%s/fcproc-spec-%d"):format(point, support.own_pid())
    must(cgroup.make(folder))
    local _ <close> = setmetatable({}, { __close = function() must(cgroup.leave(folder)) end })
    support.write_file(folder .. (v1.memory and "/memory.limit_in_bytes" or "/memory.max"), "8M")
    local process <close> = must(fcproc.spawn({ "sh", "-c", 'echo $$ >"$1/cgroup.procs" && exec python3 -c '
      .. '"x = bytearray(64 << 20)"', "sh", folder }, { stdout = "null", stderr = "null" }))
    local _, exit = must(process:wait(20))
    assert.are.equal(9, exit.signal)
    assert.are.equal(1, cgroup.oom_kills(folder))
    has(exits.oom(exit, nil, { path = folder, oom_kills = 0 }), folder)
  end)
end)
