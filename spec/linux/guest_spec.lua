-- A stock Linux in a real VM: what it says, how it is reached and what it reaches, and each way in
-- which it ends.

local support = require "spec.support"
local linux = require "spec.support.linux"

local must = support.must

local GUEST = "172.30.0.2"

describe("a Linux guest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("boots from its ext4 root, answers a ping, and on ctrl-alt-del runs its hooks and ends", function()
    local world <close> = support.world()
    local manager = world.manager
    local vm <close> = linux.vm(world, { address = GUEST })
    assert.is_truthy(support.read_file(vm.console):find("linux guest: ready " .. GUEST, 1, true))
    assert.is_true(support.pings(world.netns, GUEST))
    assert.are.equal(vm.process:pid(), must(manager:find_pid(vm.sock)))
    must(manager:send_ctrl_alt_del(vm.sock))
    local gone, exit = manager:wait_for_exit(vm.process, vm.sock, linux.TIMEOUT)
    assert.is_true(gone)
    assert.are.same({ status = 0 }, exit)
    local console = support.read_file(vm.console)
    assert.is_truthy(console:find("linux guest: shutdown hook ran", 1, true), console)
  end)

  it("ends Firecracker with 0 by its own reboot or panic, and not at all by poweroff", function()
    local world <close> = support.world()
    local manager, hook = world.manager, "linux guest: shutdown hook ran"
    local function start(way)
      return linux.vm(world, { name = way, args = "fcproc.do=" .. way, wait = false })
    end
    local reboot <close> = start("reboot")
    local panic <close> = start("panic")
    local off <close> = start("poweroff")
    for _, vm in ipairs{ reboot, panic } do
      local gone, exit = manager:wait_for_exit(vm.process, vm.sock, linux.TIMEOUT)
      assert.is_true(gone)
      assert.are.same({ status = 0 }, exit)
    end
    assert.is_truthy(support.read_file(reboot.console):find(hook, 1, true))
    assert.is_nil(support.read_file(panic.console):find(hook, 1, true))
    linux.wait_for_console(off, hook)
    linux.wait_for_console(off, "System halted")
    must(manager:send_ctrl_alt_del(off.sock)) -- is taken, and nobody hears it
    local gone, err = manager:wait_for_exit(off.process, off.sock, 0.5)
    support.fails("wait_timeout", gone, err)
    must(manager:kill(off.process, off.sock))
    local _, exit = must(manager:wait_for_exit(off.process, off.sock, linux.TIMEOUT))
    assert.are.same({ signal = 9 }, exit)
  end)
end)
