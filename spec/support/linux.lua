-- Real Linux guests: Debian's stock kernel with an ext4 root, in VMs under the machine of
-- `make test-linux`, whose KVM can run them.

local support = require "spec.support"

local M = {}

-- Emulated twice, a guest needs some 6 s until it is ready, and two at once share the processors.
M.TIMEOUT = 90

---The folder with the guest's kernel, initramfs and root, or a failed test that says why not.
function M.folder()
  local folder = os.getenv("FCPROC_SPEC_LINUX")
  if not folder then error("these specs run under `make test-linux` only", 2) end
  return folder
end

---The arguments of a guest's kernel that are not the test's own.
function M.boot_args()
  -- Without the first, Firecracker never ends. The keyboard's need not be searched for twice.
  return "reboot=k panic=1 pci=off console=ttyS0 quiet i8042.noaux i8042.nomux i8042.dumbkbd"
end

---A guest's root, as Firecracker takes a drive: all guests share it, nobody writes to it.
function M.root()
  return { drive_id = "root", path_on_host = M.folder() .. "/guest.ext4", is_root_device = true,
    is_read_only = true }
end

---A real Firecracker with a Linux guest that is ready: `local vm <close> = linux.vm(world, opts)`.
---opts: those of support.vm; args (more of the kernel's arguments: what guest-root/task does);
---address (then it is the guest's, on tap, by default "tap0", with the bridge as its gateway).
function M.vm(world, opts)
  opts = opts or {}
  local folder, args = M.folder(), { M.boot_args() }
  local all = { timeout = M.TIMEOUT, wait = "linux guest: ready", drives = { M.root() },
    config = { ["boot-source"] = { kernel_image_path = folder .. "/kernel/vmlinux",
        initrd_path = folder .. "/guest.cpio" },
      ["machine-config"] = { mem_size_mib = 128 } } }
  if opts.address then
    all.tap = "tap0"
    args[2] = ("ip=%s::%s:255.255.255.0:%s:eth0:off"):format(opts.address,
      world.manager.config.bridge_ip, opts.name or "vm")
  end
  args[#args + 1] = opts.args
  all.boot_args = table.concat(args, " ")
  for key, value in pairs(opts) do all[key] = value end
  return support.vm(world, all)
end

---Waits until the text is on the guest's console.
function M.wait_for_console(vm, text)
  support.wait_for_console(vm, text, M.TIMEOUT)
end

return M
