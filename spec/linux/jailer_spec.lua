-- A Linux guest in a jail: the jailer's chroot, another uid that owns the TAP, and what we know of
-- such a Firecracker, whose executable and paths are not those outside.

local support = require "spec.support"
local linux = require "spec.support.linux"
local cjson = require "cjson"
local fcproc = require "fcproc"

local must = support.must

local GUEST, UID = "172.30.0.2", 1000

-- The jail before its jailer: what the VM needs, owned by its user.
local function furnish(jail)
  local folder = linux.folder()
  support.sh{ "mkdir", "-p", jail }
  support.sh{ "cp", folder .. "/kernel/vmlinux", folder .. "/guest.cpio", folder .. "/guest.ext4", jail }
  support.write_file(jail .. "/config.json", cjson.encode{
    ["boot-source"] = { kernel_image_path = "vmlinux", initrd_path = "guest.cpio",
      boot_args = linux.boot_args() .. " ip=" .. GUEST .. "::172.30.0.1:255.255.255.0:jailed:eth0:off" },
    ["machine-config"] = { vcpu_count = 1, mem_size_mib = 128 },
    drives = { { drive_id = "root", path_on_host = "guest.ext4", is_root_device = true,
      is_read_only = true } },
    ["network-interfaces"] = { { iface_id = "eth0", host_dev_name = "tap0" } },
  })
  support.sh{ "chown", "-R", UID .. ":" .. UID, jail }
end

describe("a Linux guest in a jail", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("runs as another user in a chroot, is found by its socket, and ends gracefully", function()
    local world <close> = support.bridged_world()
    local manager, base = world.manager, world.folder:file("jails")
    local jail = base .. "/" .. support.firecracker():match("[^/]+$") .. "/jailed/root"
    furnish(jail)
    must(manager:create_tap("tap0", { uid = UID, gid = UID }))
    local vm = { name = "jailed", sock = jail .. "/api.sock", console = world.folder:file("console") }
    vm.process = must(fcproc.spawn({ (support.firecracker():gsub("[^/]+$", "jailer")),
      "--id", "jailed", "--exec-file", support.firecracker(), "--uid", UID, "--gid", UID,
      "--chroot-base-dir", base, "--cgroup-version", "2", "--",
      "--api-sock", "/api.sock", "--level", "Error", "--config-file", "/config.json" },
      { stdout = { file = vm.console }, stderr = { file = vm.console }, netns = world.netns,
        session = true }))
    local _ <close> = setmetatable({}, { __close = function()
      vm.process:signal("KILL")
      vm.process:wait(10)
      vm.process:close()
    end })
    linux.wait_for_console(vm, "linux guest: ready " .. GUEST)
    local pid = vm.process:pid()
    local status = support.read_file(("/proc/%d/status"):format(pid))
    assert.are.equal(tostring(UID), status:match("\nUid:\t(%d+)"))
    assert.is_truthy(support.read_file(("/proc/%d/root/config.json"):format(pid)), "its root is the jail")
    assert.is_true(support.pings(world.netns, GUEST))
    assert.are.equal(pid, must(manager:find_pid(vm.sock)))
    must(manager:send_ctrl_alt_del(vm.sock))
    local gone, exit = manager:wait_for_exit(vm.process, vm.sock, linux.TIMEOUT)
    assert.is_true(gone)
    assert.are.same({ status = 0 }, exit)
    assert.is_truthy(support.read_file(vm.console):find("linux guest: shutdown hook ran", 1, true))
    must(manager:delete_tap("tap0"))
  end)
end)
