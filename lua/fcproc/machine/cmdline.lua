-- The kernel's command line as the kernel reads it: words, of which quotes may hold blanks, and after
-- the word "--" the arguments of init. And what Firecracker adds to it, which must find room, too.

local version_of = require "fcproc.machine.version"

local M = {}

M.MOST = 2047 -- bytes: the kernel's 2048 with its NUL

-- Firecracker looks for " -- ", and puts its own words before it.
local SEPARATOR = " -- "

-- What a Linux kernel takes a guest's address from: the second is the older name.
local ADDRESS = { ip = true, nfsaddrs = true }

---@class fcproc.CommandLine
---@field kernel string   the words for the kernel
---@field init string     what follows "--"
---@field addressed boolean  a word for the kernel addresses an interface
---@field address string?    what it says: "172.30.0.5::172.30.0.1:...", "dhcp"

-- The end of the word that begins at first, and whether its last quote is open.
local function word_end(text, first)
  local at, quoted = first, false
  while at <= #text do
    local letter = text:sub(at, at)
    if letter == '"' then quoted = not quoted end
    if not quoted and letter:find("%s") then break end
    at = at + 1
  end
  return at - 1, quoted
end

---Reads a command line.
---@param text string
---@return fcproc.CommandLine? line
---@return string? complaint  no word can be added to it
function M.read(text)
  local line = { kernel = "", init = "", addressed = false }
  local first = text:find("%S")
  while first do
    local last, open = word_end(text, first)
    if open then
      return nil, "has a quote that nothing closes: what is added, as each device, would be in it"
    end
    -- The kernel takes the quotes around a word away.
    local word = text:sub(first, last):gsub('^"(.-)"?$', "%1")
    if word == "--" then
      line.init = text:sub(last + 1):match("^%s*(.-)%s*$")
      break
    end
    local name, value = word:match("^([^=]*)=(.*)$")
    if ADDRESS[name] then line.addressed, line.address = true, line.address or value end
    line.kernel = text:sub(1, last):match("^%s*(.*)$")
    first = text:find("%S", last + 1)
  end
  if line.kernel == "" and line.init ~= "" then -- Firecracker 1.12 would panic
    return nil, "begins with --: put a word for the kernel before it"
  end
  return line
end

---Writes it, with one more word for the kernel.
---@param line fcproc.CommandLine
---@param word string?
---@return string
function M.write(line, word)
  local kernel = line.kernel
  if word then kernel = kernel .. (kernel == "" and "" or " ") .. word end
  return line.init == "" and kernel or kernel .. SEPARATOR .. line.init
end

-- The words' form: only their lengths count here.
local PCI_OFF, DEVICE, FIRST_INTERRUPT = "pci=off", "virtio_mmio.device=4K@0xd0000000:%d", 5
local EARLY_CONSOLE = "earlycon=uart,mmio,0x40002000" -- aarch64, of a line that has "console=" anywhere

-- The root may be any of the pmem devices, which are counted from 0; of the drives it is the first.
local function root_words(config)
  local words = ""
  for _, drive in ipairs(config.drives) do
    if drive.is_root_device then words = words .. " root=/dev/vda rw" end
  end
  for i, device in ipairs(config.pmem or {}) do
    if device.root_device then words = words .. (" root=/dev/pmem%d rw"):format(i - 1) end
  end
  return words
end

---How many bytes Firecracker adds for a configuration, blanks included.
---@param version string   its own
---@param config table     as for --config-file
---@param pci boolean?     it has --enable-pci, and announces devices on that bus
---@param arch string
---@return integer
function M.added(version, config, pci, arch)
  local size, devices = #root_words(config), 0
  for _, name in ipairs{ "drives", "pmem", "network-interfaces" } do
    devices = devices + #(config[name] or {})
  end
  for _, name in ipairs{ "balloon", "vsock", "entropy", "memory-hotplug" } do
    devices = devices + (config[name] and 1 or 0)
  end
  if arch == "aarch64" and config["boot-source"].boot_args:find("console=", 1, true) then
    size = size + #EARLY_CONSOLE + 1
  end
  if pci then return size end
  if version_of.at_least(version, "1.13") then size = size + #PCI_OFF + 1 end
  if arch ~= "x86_64" then return size end -- which has a device tree
  for i = 1, devices do size = size + #DEVICE:format(FIRST_INTERRUPT + i - 1) + 1 end
  return size
end

return M
