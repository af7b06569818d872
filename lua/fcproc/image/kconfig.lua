-- A kernel's configuration: what Firecracker and fcproc's own init need of it.

local M = {}

---@class fcproc.KernelOption
---@field option string      "CONFIG_VIRTIO_BLK", or those of which one would do
---@field why string         what it is for
---@field essential boolean  without it nothing boots

---Reads a .config: { VIRTIO_BLK = "m", ... }; what is not set is not in it.
---@param text string
---@return table<string, string>
function M.parse(text)
  local config = {}
  for name, value in ("\n" .. text):gmatch("\nCONFIG_([%w_]+)=([^\n]*)") do config[name] = value end
  return config
end

local X86 = "x86_64"

-- option, another that does: built in or, but for those with "y", as a module.
local NEEDS = {
  { "VIRTIO_MMIO", why = "Firecracker's devices", essential = true },
  { "ACPI", "VIRTIO_MMIO_CMDLINE_DEVICES", y = true, why = "finding the devices", essential = true,
    arch = X86 },
  { "VIRTIO_BLK", why = "drives", essential = true },
  { "SERIAL_8250_CONSOLE", y = true, why = "the console ttyS0", essential = true },
  { "DEVTMPFS", y = true, why = "the init of fcproc's initrd", essential = true },
  { "TMPFS", y = true, why = "the init of fcproc's initrd", essential = true },
  { "VIRTIO_NET", why = "network interfaces" },
  { "EXT4_FS", why = "roots of ext4" },
  { "SQUASHFS", why = "roots of squashfs" },
  { "EROFS_FS", why = "roots of erofs" },
  { "OVERLAY_FS", why = "a disk of one's own over a shared root (overlay)" },
  { "VIRTIO_VSOCKETS", why = "vsock" },
  { "VIRTIO_BALLOON", why = "the balloon" },
  { "HW_RANDOM_VIRTIO", why = "entropy" },
  { "VIRTIO_PCI", why = "--enable-pci" },
  { "VIRTIO_PMEM", why = "drives as memory (pmem)" },
  { "VIRTIO_MEM", why = "memory_hotplug" },
  { "SERIO_I8042", why = "Ctrl-Alt-Del", arch = X86 },
  { "KEYBOARD_ATKBD", why = "Ctrl-Alt-Del", arch = X86 },
  { "KVM_GUEST", y = true, why = "a clock that is right after a snapshot", arch = X86 },
  { "IP_PNP", y = true, why = "ip= without fcproc's initrd" },
}
-- For anything that is a module.
local INITRD = {
  { "BLK_DEV_INITRD", y = true, why = "an initrd, which it needs for its modules", essential = true },
  { "MODULES", y = true, why = "an initrd, which it needs for its modules", essential = true },
}

local function compare(config, machine, needs, lacks, modules)
  for _, need in ipairs(needs) do
    local built_in, module = false, false
    for _, name in ipairs(need) do
      built_in = built_in or config[name] == "y"
      module = module or (config[name] == "m" and not need.y)
    end
    local text = "CONFIG_" .. table.concat(need, " or CONFIG_")
    local missing = not built_in and (not need.arch or need.arch == machine)
    if missing and module then
      modules[#modules + 1] = text
    elseif missing then
      lacks[#lacks + 1] = { option = text, why = need.why, essential = need.essential or false }
    end
  end
end

---What a kernel lacks, and what it has as modules only, which an initrd must load.
---@param config table<string, string>
---@param machine string
---@return fcproc.KernelOption[] lacks  the essential ones first
---@return string[] modules
function M.judge(config, machine)
  local lacks, modules = {}, {}
  compare(config, machine, NEEDS, lacks, modules)
  if #modules > 0 then
    local more = {}
    compare(config, machine, INITRD, more, modules)
    table.move(lacks, 1, #lacks, #more + 1, more)
    lacks = more
  end
  return lacks, modules
end

return M
