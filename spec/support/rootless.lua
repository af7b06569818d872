-- A script as an ordinary user, with device nodes of his own in a private mount namespace: the host's
-- keep their modes.

local mounts = require "spec.support.mounts"
local support = require "spec.support"

local M = {}

M.UID = 4321

-- $1 is the folder. The user's home is in it.
local WORLD = [[
mkdir "$1/dev" "$1/home"
mount -t tmpfs -o mode=755 none "$1/dev"
mknod -m 666 "$1/dev/kvm" c 10 232
mknod -m 666 "$1/dev/tun" c 10 200
mount --bind "$1/dev/kvm" /dev/kvm
mount --bind "$1/dev/tun" /dev/net/tun
chown UID:UID "$1/home"
export HOME="$1/home"
exec setpriv --reuid UID --regid UID --clear-groups "$0" "$1/script.lua" "$1"
]]

-- What the script has besides: fcproc, home, and world(config), a rootless manager.
local PRELUDE = [[
local fcproc = require "fcproc"
local home = os.getenv("HOME")
local function world(config)
  local settings = { privilege = "rootless", runtime_dir = home .. "/run", bridge_name = "fcbr0",
    bridge_ip = "172.30.0.1", cidr = 24, firecracker_bin = %q }
  for key, value in pairs(config or {}) do settings[key] = value or nil end
  return must(fcproc.new(settings))
end
local function check(value, text) if not value then error(tostring(text), 2) end end
local function equal(wanted, is)
  if wanted ~= is then error(("%%s, and not %%s"):format(tostring(is), tostring(wanted)), 2) end
end
]]

---Runs the Lua text as that user; fails when it does.
---@param text string
---@param before string?  shell, as root, in the mount namespace
function M.run(text, before)
  local dir <close> = support.folder()
  support.sh{ "chmod", "755", dir.path }
  mounts(dir, (before or "") .. WORLD:gsub("UID", tostring(M.UID)),
    PRELUDE:format(support.firecracker()) .. text)
end

return M
