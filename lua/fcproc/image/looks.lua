-- What will hurt when a tree is booted in a microVM, found before it is: its first program, its consoles,
-- its disks, and what sets its network.

local errors = require "fcproc.error"
local platforms = require "fcproc.image.platform"

local M = {}

---@class fcproc.ImageWarning
---@field name string     "no_init", ...: stable
---@field message string
---@field fix string
---@field path string?

-- Where Linux looks for its first program.
local INITS = { "/sbin/init", "/etc/init", "/bin/init", "/bin/sh" }
local HEAD = 64 * 1024 -- of a program: its headers and the name of its interpreter lie there
local MOST_TEXT = 256 * 1024
local PT_INTERP = 3

---@class fcproc.ImageLook
---@field tree table
---@field platform fcproc.ImagePlatform
---@field warnings fcproc.ImageWarning[]
local Look = {}
Look.__index = Look

function Look:_warn(name, path, fix, format, ...)
  table.insert(self.warnings, { name = name, path = path, fix = fix,
    message = errors.shown((format:format(...):gsub("\n", "\\n"))) }) -- one line: names may hold more
end

-- What a path leads to inside the tree: nil when it leads nowhere.
function Look:_find(path)
  local resolved = self.tree:resolve(path)
  if not resolved then return nil end
  return self.tree:stat(resolved), resolved
end

function Look:_text(path)
  local at, resolved = self:_find(path)
  if not at or at.kind ~= "file" then return nil end
  return self.tree:read(resolved, MOST_TEXT)
end

local function elf_interpreter(head, wide, order)
  local offset, size, count
  if wide then
    offset = string.unpack(order .. "I8", head, 33)
    size, count = string.unpack(order .. "I2I2", head, 55)
  else
    offset = string.unpack(order .. "I4", head, 29)
    size, count = string.unpack(order .. "I2I2", head, 43)
  end
  if offset < 0 or offset > #head then return nil end
  for i = 0, count - 1 do
    local at = offset + i * size + 1
    if at + (wide and 55 or 31) > #head then return nil end
    if string.unpack(order .. "I4", head, at) == PT_INTERP then
      local from = string.unpack(order .. (wide and "I8" or "I4"), head, at + (wide and 8 or 4))
      return from >= 0 and from < #head and head:match("^([^%z]+)%z", from + 1) or nil
    end
  end
end

---What a program's first bytes say.
---@param head string
---@return { kind: "elf"|"script"|"other", machine: string?, interpreter: string? }
function M.program(head)
  local script = head:match("^#![ \t]*([^%s%z]+)")
  if script then return { kind = "script", interpreter = script } end
  if head:sub(1, 4) ~= "\x7fELF" or #head < 64 then return { kind = "other" } end
  local wide, order = head:byte(5) == 2, head:byte(6) == 2 and ">" or "<"
  local number = string.unpack(order .. "I2", head, 19)
  return { kind = "elf", machine = platforms.MACHINES[number] or "machine " .. number,
    interpreter = elf_interpreter(head, wide, order) }
end

-- A 64-bit kernel runs the 32-bit programs of its kind.
local ALSO = { amd64 = { ["386"] = true }, arm64 = { arm = true } }

function Look:_check_program(path, what, depth)
  local at, resolved = self:_find(path)
  if not at then
    local own = self.tree:stat(path)
    local target = own and own.kind == "symlink" and (" (a link to %s)"):format(own.target) or ""
    return self:_warn(own and "dangling_init" or "missing_interpreter", path,
      "install it in the image, or say init=PATH on the kernel's command line",
      "%s, %s%s, is not in the image", what, path, target)
  end
  if at.kind ~= "file" then
    return self:_warn("bad_init", path, "put a program there", "%s, %s, is a %s", what, path, at.kind)
  end
  if at.mode & 73 == 0 then -- 0111
    self:_warn("bad_init", path, "chmod +x", "%s, %s, can't be executed: its mode is %04o", what, path,
      at.mode)
  end
  local head = self.tree:read(resolved, HEAD)
  if not head then return end
  local program = M.program(head)
  if program.kind == "other" then
    return self:_warn("bad_init", path, "put a program there", "%s, %s, is neither a program nor a script",
      what, path)
  end
  local own = self.platform.architecture
  if program.machine and program.machine ~= own and not (ALSO[own] and ALSO[own][program.machine]) then
    return self:_warn("foreign_init", path, "build the image for " .. platforms.text(self.platform),
      "%s, %s, is a program for %s, and the machine is %s", what, path, program.machine, own)
  end
  if program.interpreter and depth < 4 then
    self:_check_program(program.interpreter, ("what %s is run by"):format(path), depth + 1)
  end
end

-- The first program: a name that is there, even as a link that leads nowhere, is what was meant.
function Look:_init(config)
  for _, path in ipairs(INITS) do
    if self.tree:stat(path) or self:_find(path) then
      if path == "/bin/sh" then break end
      self:_check_program(path, "the first program", 0)
      return path
    end
  end
  local command = {}
  for _, list in ipairs{ config.Entrypoint or {}, config.Cmd or {} } do
    for _, word in ipairs(type(list) == "table" and list or {}) do command[#command + 1] = tostring(word) end
  end
  local own = #command > 0 and ("; its own command is: %s"):format(table.concat(command, " ")) or ""
  self:_warn("no_init", "/sbin/init",
    "install an init (systemd-sysv, busybox, tini), or say init=PATH on the kernel's command line",
    "there is no first program: neither of %s is there%s",
    table.concat(INITS, ", ", 1, 3), own)
  return self:_find("/bin/sh") and "/bin/sh" or nil
end

-- ---- consoles ----------------------------------------------------------------------------------

-- The one that Firecracker has.
local CONSOLES = { amd64 = "ttyS0", arm64 = "ttyS0" }

function Look:_inittab()
  local text = self:_text("/etc/inittab")
  if not text then return end
  local own, others, here = CONSOLES[self.platform.architecture] or "ttyS0", {}, false
  for line in text:gmatch("[^\n]+") do
    local tty = not line:find("^%s*#") and line:find("getty") and line:match("tty%w+")
      or not line:find("^%s*#") and line:match("^(tty%w+)::%l+:")
    if tty == own then here = true elseif tty then others[#others + 1] = tty end
  end
  if #others > 0 then
    self:_warn("getty", "/etc/inittab", ("leave %s alone there"):format(own),
      "/etc/inittab starts a getty on %s, which a microVM does not have: it is started again and again",
      table.concat(others, ", "))
  end
  if not here then
    self:_warn("no_console", "/etc/inittab", ("%s::respawn:/sbin/getty -L %s 115200 vt100"):format(own, own),
      "/etc/inittab has nothing on %s, the only console that there is: nobody can log in there", own)
  end
end

-- Units that are started in any case wait 90 s for their device.
function Look:_getty_units()
  local folder = self.tree:resolve("/etc/systemd/system/getty.target.wants")
  for _, name in ipairs(folder and self.tree:list(folder) or {}) do
    local tty = name:match("^serial%-getty@(.+)%.service$")
    if tty and tty ~= "ttyS0" then
      self:_warn("getty", "/etc/systemd/system/getty.target.wants/" .. name, "remove it",
        "a getty is started on %s, which a microVM does not have: the boot waits for it", tty)
    end
  end
end

-- ---- disks, network ----------------------------------------------------------------------------

local NO_DISK = { none = true, tmpfs = true, proc = true, sysfs = true, devpts = true, devtmpfs = true,
  cgroup = true, cgroup2 = true, overlay = true, mqueue = true, securityfs = true, debugfs = true }

function Look:_fstab()
  for line in (self:_text("/etc/fstab") or ""):gmatch("[^\n]+") do
    local device, where, kind, options = line:match("^%s*([^#%s]%S*)%s+(%S+)%s+(%S+)%s*(%S*)")
    local harmless = not device or NO_DISK[kind] or device == "/dev/vda" or device == "/dev/root"
      or options:find("noauto", 1, true) or options:find("nofail", 1, true)
    if not harmless and (device:find("^/dev/") or device:find("^%u+=")) then
      self:_warn("fstab", "/etc/fstab", "remove the line, or add nofail to its options",
        "/etc/fstab mounts %s on %s, which is a disk of another machine: the boot waits for it",
        device, where)
    end
  end
end

-- Firecracker's own test images set their address by the MAC.
function Look:_fcnet()
  for _, path in ipairs{ "/etc/systemd/system/fcnet.service", "/etc/init.d/fcnet",
    "/usr/local/bin/fcnet-setup.sh" } do
    if self.tree:stat(path) then
      return self:_warn("fcnet", path, "remove it",
        "%s sets an address that it reads from the MAC, beside the one that the VM is given", path)
    end
  end
end

---Looks at a tree.
---@param tree table
---@param platform fcproc.ImagePlatform
---@param config table?  of an image: "config" of its configuration
---@return fcproc.ImageWarning[] warnings
---@return string? init
function M.at(tree, platform, config)
  local look = setmetatable({ tree = tree, platform = platform, warnings = {} }, Look)
  local init = look:_init(config or {})
  look:_inittab()
  look:_getty_units()
  look:_fstab()
  look:_fcnet()
  return look.warnings, init
end

return M
