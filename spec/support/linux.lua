-- Real Linux guests: Debian's stock kernel with an ext4 root, in VMs under the machine of
-- `make test-linux`, whose KVM can run them.

local support = require "spec.support"
local assert = require "luassert"
local fcproc = require "fcproc"

local must = support.must
local M = {}

-- Emulated twice, a guest needs some 6 s until it is ready, and two at once share the processors.
M.TIMEOUT = 90

---A graceful end, with the time that it may need here.
M.LADDER = { { "ctrl_alt_del", M.TIMEOUT } }

M.HOOK = "linux guest: shutdown hook ran"

---The folder with the guest's kernel, initramfs and root, or a failed test that says why not.
function M.folder()
  local folder = os.getenv("FCPROC_SPEC_LINUX")
  if not folder then error("these specs run under `make test-linux` only", 2) end
  return folder
end

-- fcproc's own default, and the keyboard's controller is not searched for what it does not have.
local BOOT_ARGS = "console=ttyS0 reboot=k panic=1 pci=off quiet i8042.noaux i8042.nomux i8042.dumbkbd"

---A spec for fcproc.vm.launch. fields: those of a spec, and args, more of the kernel's arguments
---(what guest-root/task does). By default the guest has 128 MiB and a root that all share, since
---nobody writes to it.
function M.spec(fields)
  local folder = M.folder()
  local spec = {
    kernel = folder .. "/kernel/vmlinux", initrd = folder .. "/guest.cpio", boot_args = BOOT_ARGS,
    drives = { { path = folder .. "/guest.ext4", root = true, read_only = true } },
    timeout = M.TIMEOUT,
  }
  for key, value in pairs(fields or {}) do spec[key] = value end
  if spec.args then spec.boot_args = BOOT_ARGS .. " " .. spec.args end
  spec.args = nil
  return spec
end

---A VM whose guest is ready, and has the address that the VM was given:
---`local vm <close> = linux.launch(world, { network = true })`.
function M.launch(world, fields)
  local vm = must(fcproc.vm.launch(world.manager, M.spec(fields)))
  local ready <close> = setmetatable({ vm = vm }, { __close = function(self)
    if self.vm then self.vm:kill() end
  end })
  M.wait_for(vm, "linux guest: ready " .. (vm:address() or ""))
  ready.vm = nil
  return vm
end

---Waits until the text is on the guest's console.
function M.wait_for(vm, text)
  must(must(vm:console()):wait_for(text, M.TIMEOUT))
end

---Is the text on the guest's console?
function M.has_said(vm, text)
  return must(must(vm:console()):read()):find(text, 1, true) ~= nil
end

---Stops the VM. Returns the report and all that its console has had.
---ladder: by default fcproc's own, whose limits are those of a VM on real hardware.
function M.stop(vm, ladder)
  local console <close> = assert(io.open(must(vm:console()).path)) -- its name goes with the VM
  local report, err = vm:stop(ladder)
  local said = console:read("a")
  if err then
    error(("%s; Ctrl-Alt-Del was sent %s times; the console's end:\n%s"):format(err,
      report and report.steps[1].sent, said:sub(-2000)), 2)
  end
  return report, said
end

---Fails unless a guest that was stopped has ended by itself, after its shutdown hooks.
function M.has_ended_gracefully(report, console)
  assert.are.equal("ctrl_alt_del", report.step)
  assert.are.same({ status = 0 }, report.exit)
  assert.is_truthy(console:find(M.HOOK, 1, true), console)
end

---Stops the VM, and fails unless its guest ends by itself, after its shutdown hooks.
function M.stop_gracefully(vm)
  M.has_ended_gracefully(M.stop(vm, M.LADDER))
end

---Asks the guest that serves (fcproc.do=serve), once it does; see guest-root/serve.
function M.ask(world, vm, question)
  local answer
  support.eventually("an answer to " .. question, function()
    answer = fcproc.runner():run({ "busybox", "nc", "-w", "5", vm:address(), "7000" },
      { netns = world.netns, input = question .. "\n" })
    answer = answer and answer.stdout:match("([^\n]+)\n")
    return answer
  end, M.TIMEOUT)
  return answer
end

---Fails unless nothing of the world's VMs is left: no folder, no lease, no TAP, no NAT.
function M.nothing_left(world)
  local manager = world.manager
  assert.are.same({}, must(fcproc.vm.list(manager)))
  assert.are.same({}, (support.leases(world)))
  assert.are.same({}, must(manager:list_taps()))
  assert.are.equal("", support.sh({ "nft", "list", "ruleset" }, { netns = world.netns }))
end

return M
