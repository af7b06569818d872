-- A console that ends in a kernel's panic, and one that does not.

local console = require "fcproc.vm.console"

-- Debian's 6.1 without an init.
local DEBIAN = [[
[    2.101] Run /init as init process
/init: 7: poke: not found
[    2.164315] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00
[    2.165012] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-41-cloud-amd64 #1  Debian 6.1.158-1
[    2.165731] Call Trace:
[    2.166034]  <TASK>
[    2.166298]  dump_stack_lvl+0x44/0x5c
[    2.166701]  panic+0x118/0x2ed
[    2.170420] RIP: 0033:0x7f1d2e0c2a4d
[    2.171702]  </TASK>
[    2.172001] Kernel Offset: disabled
[    2.172388] Rebooting in 1 seconds..
]]

local WITHOUT_TIMES = [[
Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.0 #1
Hardware name: Firecracker
Call Trace:
 <TASK>
 dump_stack_lvl+0x44/0x5c
RIP: 0010:mount_block_root+0x1
RAX: ffffffffffffffda RBX: 0000000000000001
Kernel Offset: disabled
---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---
]]

describe("a console", function()
  local function ends(wanted, text)
    assert.are.equal(wanted, console.panic_in(text))
    assert.are.equal(wanted, console.panic_in((text:gsub("\n", "\r\n"))))
  end

  it("that ends in a panic has its first line", function()
    ends("[    2.164315] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00", DEBIAN)
    ends("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", WITHOUT_TIMES)
    ends("[   10.5] Kernel panic - not syncing: x", "# reboot[   10.5] Kernel panic - not syncing: x\n")
    ends("Kernel panic - not syncing: x",
      "Kernel panic - not syncing: x\nError: RunWithApi(MicroVMStoppedWithError(GenericError))\n")
  end)

  it("that goes on, or only speaks of one, has none", function()
    for _, text in ipairs{ "", "ready\n", DEBIAN .. "login: \n", WITHOUT_TIMES .. "ready\n",
      DEBIAN .. "[    0.000000] Linux version 6.1.0 (debian)\n[    1.0] reboot: Restarting system\n",
      "look for Kernel panic - not syncing: x\n", "[ 1] Kernel panic - not syncing: x\n" } do
      ends(nil, text)
    end
    local second = "[    9.0] Kernel panic - not syncing: y"
    ends(second, DEBIAN .. "hello\n" .. second .. "\n")
  end)

  it("can't reprogram a terminal, nor fill a screen", function()
    local line = console.panic_in("Kernel panic - not syncing: \27[2J\xff\xc2\x9b" .. ("x"):rep(5000))
    assert.are.equal("Kernel panic - not syncing: \\x1b[2J\\xff\\xc2\\x9bxxx", line:sub(1, 50))
    assert.are.equal(200, #line)
  end)
end)
