-- doctor's checks of the machine: KVM, TAP devices, cgroups, limits, mounts, udev, systemd. Each
-- returns its status, a message and perhaps a fix.

local core = require "fcproc.core"
local mounts = require "fcproc.mounts"

local M = {}

local KVM, TUN = "/dev/kvm", "/dev/net/tun"
local FEW_FILES = 1024        -- descriptors
local OWN_FILES, HELD, STARTING = 16, 2, 6 -- of a program; of a VM that it has, and that it starts
local FEW_INOTIFY = 64
local MANY_MOUNTS = 1000
local THREADS, FEW_VMS = 3, 1000 -- of a VMM with one vCPU; for which the kernel has room
M.MOST_PORTS = 1023           -- of a Linux bridge: BR_MAX_PORTS - 1, then EXFULL

-- ---- devices ------------------------------------------------------------------------------

-- How a user may come to a device that it may not open.
local function access_fix(host, path, uid)
  local result = host:run{ "stat", "-c", "%a %G %g", path }
  local mode, group, gid = (result and result.stdout or ""):match("^(%d+) (%S+) (%d+)")
  if mode and gid ~= "0" and tonumber(mode:sub(-2, -2)) & 6 == 6 then
    return ("add uid %d to the group %s (usermod -aG %s NAME) and log in again; "
      .. "for a VM started with a uid, give the gid %s too"):format(uid, group, group, gid)
  end
  return ("give uid %d the right to it (setfacl -m u:%d:rw %s), or run as root"):format(uid, uid,
    path)
end

-- Whether another user may read and write it.
local function others_access(host, path)
  local uid = host.opts.uid
  if not uid or uid == host.uid then return "ok" end
  local gid, err = host.opts.gid or uid, nil
  -- Those of the user database, too, with which he logs in.
  local known = host:run{ "id", "-G", "--", tostring(uid) }
  local groups = gid .. " " .. (known and known.stdout or "")
  for group in groups:gmatch("%d+") do
    local _
    _, err = host:run({ "test", "-r", path, "-a", "-w", path },
      { uid = uid, gid = math.tointeger(tonumber(group)) })
    if not err then return "ok" end
    if err.status ~= 1 then break end
  end
  if err.status ~= 1 then
    return "warn", ("could not look at %s as uid %d: %s"):format(path, uid, err.message),
      "run doctor as root, or as that user"
  end
  return "fail", ("uid %d with gid %d may not open %s for reading and writing (a jailed VM gets "
    .. "its own)"):format(uid, gid, path), access_fix(host, path, uid)
end

local function device(host, path, check, good, missing)
  local ok, err = check(path)
  if ok then
    local status, message, fix = others_access(host, path)
    return status, message or good, fix
  end
  if err.code == "permission" then
    local status, message = "fail", err.message
    if path == TUN then status, message = host:no_network(message) end
    return status, message, access_fix(host, path, host.uid)
  end
  return "fail", err.message, missing
end

---@param host fcproc.DoctorHost
function M.kvm(host)
  local missing = "modprobe kvm_intel or kvm_amd; if that fails, switch on VT-x or AMD-V in the "
    .. "firmware, or nested virtualization for this machine if it is a VM"
  local flags = host:read("/proc/cpuinfo") or ""
  if core.arch == "x86_64" and not flags:find("%f[%w]vmx%f[%W]") and not flags:find("%f[%w]svm%f[%W]")
  then
    missing = "the CPU shows neither vmx nor svm: switch virtualization on in the firmware, or "
      .. "nested virtualization if this machine is a VM; then modprobe kvm_intel or kvm_amd"
  end
  return device(host, KVM, core.kvm_check, KVM .. " opens, speaks version 12, and makes a VM", missing)
end

---@param host fcproc.DoctorHost
function M.tun(host)
  return device(host, TUN, core.tun_check, TUN .. " opens, and makes TAPs with a vnet header",
    "modprobe tun; in a container, pass the device in (--device /dev/net/tun)")
end

-- ---- cgroups ------------------------------------------------------------------------------

-- The mounted hierarchies: v1 controllers as a set, and where v2 is.
local function hierarchies()
  local v1, v1_names, v2 = {}, {}, nil
  for _, mount in ipairs(mounts.list() or {}) do
    if mount.kind == "cgroup2" then
      v2 = v2 or mount.point
    elseif mount.kind == "cgroup" then
      for name in mount.options:gmatch("[^,]+") do
        if name ~= "rw" and name ~= "ro" and not name:find("=", 1, true) and not v1[name] then
          v1[name] = true
          v1_names[#v1_names + 1] = name
        end
      end
    end
  end
  table.sort(v1_names)
  return v1, v1_names, v2
end

---@param host fcproc.DoctorHost
function M.cgroups(host)
  if host:is_rootless() then
    return "ok", "VMs of an ordinary user are in the cgroup that their spec names; the jailer, which makes "
      .. "some, needs root"
  end
  local v1, v1_names, v2 = hierarchies()
  local in_v2 = v2 and host:read(v2 .. "/cgroup.controllers") or ""
  if #v1_names == 0 and not v2 then
    return "warn", "no cgroup hierarchy is mounted in this mount namespace: VMs can't be limited, and who "
      .. "else is in a jail ends with it only where /proc shows him",
      "call fcproc outside of `ip netns exec`, which hides them (--netns NAME is for the network); or "
      .. "mount -t cgroup2 none /sys/fs/cgroup"
  end
  local message, has
  if #v1_names == 0 then
    message = ("v2 alone, at %s: the jailer must be told --cgroup-version 2, for its default is 1 "
      .. "and it then limits nothing without a word"):format(v2)
    has = function(name) return (" " .. in_v2):find("[ \n]" .. name .. "%f[%W]") end
  else
    message = ("%s (%s): the jailer's default, --cgroup-version 1, is right"):format(
      v2 and "v1, with v2 at " .. v2 .. " beside it" or "v1", table.concat(v1_names, " "))
    has = function(name) return v1[name] end
  end
  local missing = {}
  for _, name in ipairs{ "cpu", "memory", "pids" } do
    if not has(name) then missing[#missing + 1] = name end
  end
  if #missing == 0 then return "ok", message end
  return "warn", ("%s; without the controllers %s"):format(message, table.concat(missing, " ")),
    "switch them on at boot (cgroup_enable=memory), or mount them; in a container or a user's session have "
    .. "them delegated: they are to be in cgroup.subtree_control of the cgroups above (systemd: Delegate=yes)"
end

-- ---- limits -------------------------------------------------------------------------------

-- How many more threads the kernel will make.
local function task_room(host)
  local most
  for _, name in ipairs{ "pid_max", "threads-max" } do
    local value = tonumber(host:read("/proc/sys/kernel/" .. name) or "")
    most = value and math.min(value, most or value) or most
  end
  local now = tonumber((host:read("/proc/loadavg") or ""):match("/(%d+) "))
  return most and now and math.max(0, most - now)
end

---@param host fcproc.DoctorHost
function M.limits(host)
  local soft, hard = (host:read("/proc/self/limits") or ""):match("Max open files%s+(%S+)%s+(%S+)")
  local files = tonumber(soft) or math.huge
  local inotify = tonumber(host:read("/proc/sys/fs/inotify/max_user_instances") or "")
  local ports = host.config.bridge_name and host.manager:list_taps(host.ctx)
  local texts, fixes, status = {}, {}, "ok"
  local function say(bad, text, fix)
    texts[#texts + 1] = text
    if bad then
      fixes[#fixes + 1] = fix
      status = bad
    end
  end
  local free = math.max(0, files - OWN_FILES)
  say(files < FEW_FILES and "warn", ("%s open files (at most %s), enough to have %.0f VMs and to start "
    .. "%.0f at once"):format(soft or "?", hard or "?", free // HELD, free // STARTING),
    "ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit")
  if inotify then
    say(inotify < FEW_INOTIFY and "warn",
      ("%d inotify instances a user (without one, waits look every 50 ms)"):format(inotify),
      "sysctl -w fs.inotify.max_user_instances=512")
  end
  local tasks = task_room(host)
  if tasks then
    say(tasks // THREADS < FEW_VMS and "warn", ("threads for %d VMs of one vCPU (pid_max, threads-max)")
      :format(tasks // THREADS), "sysctl -w kernel.pid_max=4194304 kernel.threads-max=262144")
  end
  -- One table for all namespaces; a guest that the host has talked to is in it.
  local neighbours = tonumber(host:read("/proc/sys/net/ipv4/neigh/default/gc_thresh3") or "")
  if neighbours and ports then
    say(#ports >= neighbours * 0.8 and "warn", ("room for %d neighbours (gc_thresh3)"):format(neighbours),
      ("sysctl -w net.ipv4.neigh.default.gc_thresh3=%d"):format(neighbours * 8))
  end
  if ports then
    local bad = #ports >= M.MOST_PORTS and "fail" or #ports >= M.MOST_PORTS * 0.8 and "warn"
    say(bad, ("%d TAPs on %s, of %d ports that a bridge can have"):format(#ports,
      host.config.bridge_name, M.MOST_PORTS),
      "delete the TAPs that no VM uses (list_taps, delete_taps), or use a second bridge")
  end
  return status, table.concat(texts, "; "), fixes[1] and table.concat(fixes, "; ")
end

---@param host fcproc.DoctorHost
function M.mounts(host)
  local _, count = (host:read("/proc/self/mountinfo") or ""):gsub("\n", "")
  if count <= MANY_MOUNTS then return "ok", ("%d mounts"):format(count) end
  return "warn", ("%d mounts: the jailer copies them all for each VM, and starts 2 to 10 times slower")
    :format(count),
    "run in a mount namespace with few mounts (systemd: PrivateMounts=yes, then umount the rest)"
end

-- ---- udev ---------------------------------------------------------------------------------

-- As systemd.link(5) has them, the strongest first: a file hides those of its name further down.
local LINK_FOLDERS = {
  "/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network",
  "/usr/lib/systemd/network", "/lib/systemd/network",
}

-- The .link files in force, in the order in which udev tries them.
local function link_files(host)
  local path_of, names = {}, {}
  for _, folder in ipairs(LINK_FOLDERS) do
    local found = host:run{ "find", folder .. "/", "-maxdepth", "1", "-name", "*.link" }
    for path in (found and found.stdout or ""):gmatch("[^\n]+") do
      local name = path:match("[^/]+$")
      if not path_of[name] then
        path_of[name] = folder .. "/" .. name
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = path_of[name] end
  return names
end

local function glob_matches(glob, text)
  local pattern = glob:gsub("[%^%$%(%)%%%.%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".")
  return text:find("^" .. pattern .. "$") ~= nil
end

-- Does a value with several globs, perhaps after "!", match?
local function any_matches(value, text)
  local negated = value:match("^!(.*)$")
  for glob in (negated or value):gmatch("%S+") do
    if glob_matches(glob, text) then return not negated end
  end
  return negated ~= nil
end

-- Would udev use this file for a bridge of ours? The policy that it sets, if so.
local function policy_of(text, bridge)
  local facts = { OriginalName = bridge, Driver = "bridge", Type = "bridge", Kind = "bridge" }
  local section, matches, policy = "", false, "none"
  for line in (text .. "\n"):gmatch("%s*([^\n]*)\n") do
    local key, value = line:match("^(%w+)%s*=%s*(.-)%s*$")
    section = line:match("^%[(%w+)%]") or section
    if section == "Match" and key then
      if not facts[key] or not any_matches(value, facts[key]) then return nil end
      matches = true
    elseif section == "Link" and key == "MACAddressPolicy" then
      policy = value
    end
  end
  return matches and policy or nil
end

---@param host fcproc.DoctorHost
function M.udev(host)
  if host:is_rootless() then return "ok", "udev sees no link in namespaces of your own" end
  local control = host:run{ "test", "-e", "/run/udev/control" }
  if not control then return "ok", "no udevd runs: nobody changes the MAC of a new link" end
  local bridge = host.config.bridge_name or "fcbr0"
  for _, path in ipairs(link_files(host)) do
    local policy = policy_of(host:read(path) or "", bridge)
    if policy == "none" then break end
    if policy then
      return "warn", ("%s has udev set the MAC of new links (MACAddressPolicy=%s): a TAP's, which "
        .. "comes after its creation, may be overwritten"):format(path, policy),
        ("make /etc/systemd/network/10-fcproc.link with the lines [Match] OriginalName=%s and the "
        .. "names of your TAPs, [Link] MACAddressPolicy=none; then udevadm control --reload"):format(
          bridge)
    end
  end
  return "ok", "udev leaves the MAC of new links alone"
end

-- ---- systemd ------------------------------------------------------------------------------

---@param host fcproc.DoctorHost
function M.systemd(host)
  local text = host:read("/proc/self/cgroup") or ""
  local path = text:match("name=systemd:([^\n]*)") or text:match("0::([^\n]*)") or ""
  local unit = path:match("([^/]+%.service)/?[^/]*$")
  if not unit then return "ok", "not in a systemd service: no stop of one ends the VMs" end
  local argv = { "systemctl", "show", "--property=KillMode", "--value", unit }
  if path:find("/user@%d+%.service/") then table.insert(argv, 2, "--user") end
  local result, err = host:run(argv)
  local mode = result and result.stdout:match("%S+")
  if mode == "process" or mode == "none" then
    return "ok", ("in %s with KillMode=%s: VMs outlive its stop"):format(unit, mode)
  end
  return "warn", ("we run in %s (KillMode %s): stopping or restarting it kills every VM started "
    .. "from here"):format(unit, mode or "unknown: " .. (err and err.message or "no answer")),
    ("set KillMode=process in %s (systemctl edit %s)"):format(unit, unit)
end

return M
