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

  for _, way in ipairs{ "reboot", "panic" } do
    it("ends Firecracker with 0 by its own " .. way, function()
      local world <close> = support.world()
      local vm <close> = linux.vm(world, { args = "fcproc.do=" .. way })
      local gone, exit = world.manager:wait_for_exit(vm.process, vm.sock, linux.TIMEOUT)
      assert.is_true(gone)
      assert.are.same({ status = 0 }, exit)
      local hook = support.read_file(vm.console):find("linux guest: shutdown hook ran", 1, true)
      assert.are.equal(way == "reboot", hook ~= nil, "a panic runs no hooks")
    end)
  end

  it("that powers off leaves Firecracker alive, and deaf to ctrl-alt-del", function()
    local world <close> = support.world()
    local vm <close> = linux.vm(world, { args = "fcproc.do=poweroff" })
    linux.wait_for_console(vm, "reboot: System halted")
    must(world.manager:send_ctrl_alt_del(vm.sock))
    local gone, err = world.manager:wait_for_exit(vm.process, vm.sock, 0.5)
    support.fails("wait_timeout", gone, err)
    must(world.manager:kill(vm.process, vm.sock))
    local _, exit = must(world.manager:wait_for_exit(vm.process, vm.sock, linux.TIMEOUT))
    assert.are.same({ signal = 9 }, exit)
  end)
end)
