-- A script, or whole spec files, as an ordinary user, with device nodes of his own in a private mount
-- namespace: the host's keep their modes.

local fcproc = require "fcproc"
local mounts = require "spec.support.mounts"
local support = require "spec.support"

local M = {}

M.UID = 4321
local SPECS_UID = 4322 -- who has what is left afterwards

-- $1 is the folder. The user's home is in it.
local WORLD = [[
mkdir -p "$1/dev" "$1/home"
mount -t tmpfs -o mode=755 none "$1/dev"
mknod -m 666 "$1/dev/kvm" c 10 232
mknod -m 666 "$1/dev/tun" c 10 200
mount --bind "$1/dev/kvm" /dev/kvm
mount --bind "$1/dev/tun" /dev/net/tun
chown UID:UID "$1/home"
export HOME="$1/home"
]]
local AS_USER = "setpriv --reuid UID --regid UID --clear-groups "

-- As somebody who is logged in has it, with the folder that logind makes him.
local LOGGED_IN = [[
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/user/UID; chmod 700 /run/user/UID; chown UID:UID /run/user/UID
export FCPROC_SPEC_MODE=rootless
]]
-- $0 is the interpreter; after the folder come the spec files. Of files, what is left is told.
local SPECS = [[sh -c 'folder=$1; shift
busted --lua="$0" --output=spec/support/output.lua "$@" >"$folder/home/output" 2>&1 || exit
find /run/user/UID /tmp /dev/shm -mindepth 1 -user UID ! -path "$folder/*" ! -type d \
>"$folder/home/left" 2>"$folder/home/unreadable" || true' "$0" "$@"]]

local LONGEST = 1800 -- seconds

-- A host's network of its own: a default route, and other addresses that are no loopback.
M.NETWORK = [[unshare --net sh -ec 'ip link set lo up
for link in eth0 other0; do ip link add "$link" type veth peer "p$link"; ip link set "$link" up
ip link set "p$link" up; done
ip address add 10.99.0.2/24 dev eth0; ip address add fd99::2/64 dev eth0 nodad
ip address add 10.98.0.1/24 dev other0
ip route add default via 10.99.0.1; ip -6 route add default via fd99::1; exec "$@"' sh]]

-- What the script has besides: fcproc, home, and world(config), a rootless manager.
local PRELUDE = [[
local fcproc = require "fcproc"
local home, firecracker = os.getenv("HOME"), %q
local function world(config)
  local settings = { privilege = "rootless", runtime_dir = home .. "/run", bridge_name = "fcbr0",
    bridge_ip = "172.30.0.1", cidr = 24, firecracker_bin = firecracker }
  for key, value in pairs(config or {}) do settings[key] = value or nil end
  return must(fcproc.new(settings))
end
local function check(value, text) if not value then error(tostring(text), 2) end end
local function equal(wanted, is)
  if wanted ~= is then error(("%%s, and not %%s"):format(tostring(is), tostring(wanted)), 2) end
end
]]

-- Where /proc shows others' processes to nobody, and of one's own only those that may be traced.
M.HIDDEN = [[sh -ec 'mount -t proc -o hidepid=2 proc /proc; exec "$@"' sh]]

-- In a user namespace with all users, after a shell command.
local function among_users(command)
  return ([[sh -ec 'unshare --user sleep 60 & member=$!
until [ "$(readlink "/proc/$member/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
echo "0 0 65536" > "/proc/$member/uid_map"; echo "0 0 65536" > "/proc/$member/gid_map"
exec nsenter --user --target "$member" sh -ec '\''COMMAND
kill "$0"; exec "$@"'\'' "$member" "$@"' sh]]):gsub("COMMAND", command)
end

---Where sysctl user.NAME is 0.
---@param name string
---@return string within
function M.forbidden(name) return (among_users("echo 0 > /proc/sys/user/" .. name)) end

-- Where no user namespace can be made.
M.FORBIDDEN = M.forbidden("max_user_namespaces")
-- Where his processes are counted apart from those that he has elsewhere.
M.ALONE = (among_users(":"))

local function as_user(uid, words) return (words:gsub("UID", tostring(uid))) end

---Runs the Lua text as that user; fails when it does.
---@param text string
---@param within string?  the shell's words before what becomes the user: M.NETWORK, M.FORBIDDEN
function M.run(text, within)
  local dir <close> = support.folder()
  support.sh{ "chmod", "755", dir.path }
  mounts(dir, as_user(M.UID, WORLD .. "exec " .. (within or "") .. " " .. AS_USER
    .. '"$0" "$1/script.lua" "$1"\n'), PRELUDE:format(support.firecracker()) .. text)
end

---The words that run a command as that user.
---@param folder string  which the user can pass through
---@param ... string      the command
---@return string[]
function M.command(folder, ...)
  local world = as_user(M.UID, WORLD .. "shift\nexec " .. AS_USER .. '"$@"')
  return { "unshare", "--mount", "sh", "-ec", world, "sh", folder, ... }
end

---Runs spec files as that user, as support.rootless; fails when one of their tests does, or when a process
---or a file of his is left.
---@param files string[]
---@return string output  of busted
function M.specs(files)
  local dir <close> = support.folder()
  support.sh{ "chmod", "755", dir.path }
  local words = as_user(SPECS_UID, LOGGED_IN .. WORLD .. "exec " .. M.NETWORK .. " " .. AS_USER .. SPECS)
  local ok, err = fcproc.runner():run({ "unshare", "--mount", "sh", "-ec", words, support.lua, dir.path,
    table.unpack(files) }, { timeout = LONGEST })
  local output = support.read_file(dir:file("home/output")) or ""
  if not ok then
    error(output:find("%d failed\n$") and output or output .. tostring(err) .. "\n" .. err.output, 0)
  end
  local left = support.read_file(dir:file("home/left"))
  if left ~= "" then error("left over: " .. left, 0) end
  support.eventually("no process of his is left", function()
    -- Those that have ended and wait for init are none.
    return fcproc.runner():run{ "pgrep", "--runstates", "R,S,D,T,t", "-u", tostring(SPECS_UID) } == nil
  end, 10)
  return output
end

return M
