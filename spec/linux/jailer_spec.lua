-- A Linux guest in a jail: the jailer's chroot, another uid that owns the TAP, and what we know of
-- such a Firecracker, whose executable and paths are not those outside. This machine's cgroups are of
-- version 2 only.

local support = require "spec.support"
local linux = require "spec.support.linux"
local core = require "fcproc.core"

local must = support.must

local UID = 1000

describe("a Linux guest in a jail", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("runs as another user in a chroot, is found by its socket, and ends gracefully", function()
    local world <close> = support.world()
    local vm <close> = linux.launch(world, { id = "jailed", network = true,
      jailer = { uid = UID, gid = UID, cgroups = { ["pids.max"] = 40, ["memory.max"] = 1 << 30 } } })
    local proc, socket = ("/proc/%d"):format(vm:pid()), vm:record().files.socket
    assert.are.equal(tostring(UID), support.read_file(proc .. "/status"):match("\nUid:\t(%d+)"))
    assert.is_truthy(support.read_file(proc .. "/root/config.json"), "its root is the jail")
    -- The jailer's is inside of the VM's own.
    local own, inner = support.read_file(proc .. "/cgroup"):match("^0::(/fcproc/jailed%.%x+)(/jailed)\n$")
    assert.is_truthy(own)
    local cgroup = "/sys/fs/cgroup" .. own .. inner
    assert.are.equal("40\n", support.read_file(cgroup .. "/pids.max"))
    assert.are.equal("1073741824\n", support.read_file(cgroup .. "/memory.max"))
    assert.is_true(support.pings(world.netns, vm:address()))
    assert.are.equal(vm:pid(), must(world.manager:find_pid(socket)))
    linux.stop_gracefully(vm)
    linux.nothing_left(world)
    assert.is_nil(core.stat("/sys/fs/cgroup" .. own))
  end)
end)
