-- doctor's checks for an ordinary user: may he have namespaces of his own, who keeps those that are there,
-- what gives them their uplink, and what happens to his VMs when he logs out. Each returns its status, a
-- message and perhaps a fix.

local core = require "fcproc.core"
local pastas = require "fcproc.manager.pasta"
local rootless = require "fcproc.manager.rootless"

local M = {}

-- What forbids namespaces to an ordinary user: the value that does, and one that does not.
local SWITCHES = {
  { "user.max_user_namespaces", "0", "10000" },
  { "user.max_net_namespaces", "0", "10000" },
  { "kernel.unprivileged_userns_clone", "0", "1" },
  { "kernel.apparmor_restrict_unprivileged_userns", "1", "0",
    "; or have AppArmor allow it to fcproc-rootless alone, by a profile with the line userns," },
}

local function fix_for(host)
  local fixes = {}
  for _, switch in ipairs(SWITCHES) do
    local name, forbids, allows, other = table.unpack(switch)
    local value = host:read("/proc/sys/" .. name:gsub("%.", "/"))
    if value and value:match("^%d+") == forbids then
      fixes[#fixes + 1] = ("sysctl -w %s=%s, and the line %s=%s in /etc/sysctl.d/50-fcproc.conf%s")
        :format(name, allows, name, allows, other or "")
    end
  end
  return fixes[1] and table.concat(fixes, "; ")
end

local NO_SWITCH = "no sysctl forbids it: in a container, have its seccomp profile allow unshare with "
  .. "CLONE_NEWUSER and CLONE_NEWNET; in a chroot there are none, whatever is allowed"

---@param host fcproc.DoctorHost
function M.namespaces(host)
  if not host:is_rootless() then
    return "ok", "not used: bridges and TAPs are made by this process's own rights"
  end
  local state = rootless.state(host.config)
  if not state then
    local netns <close>, err = host:scratch()
    if netns then
      return "ok", "no right is needed: the first VM with a network makes namespaces of your own for it"
    end
    local problem = err --[[@as fcproc.Error]]
    local why, advice = problem.message:match("^(.-); (.*)$")
    local status, message = host:no_network("namespaces of your own can't be made: "
      .. (why or problem.message))
    return status, message, fix_for(host) or advice or NO_SWITCH
  end
  if not state.holder then
    return "warn", ("the holder of network namespace %d is dead: VMs run on in there, without an uplink")
      :format(state.netns), "the next manager mends it, or the next VM: fcproc ps has one"
  end
  return "ok", ("network namespace %d is yours, and process %d holds it%s"):format(state.netns,
    state.holder, host.manager.held_anew and ": from now on, since " .. host.manager.held_anew or "")
end

---@param host fcproc.DoctorHost
function M.uplink(host)
  local wanted, pasta = host.opts.uplink, rootless.find_pasta()
  local bad = wanted and "fail" or "warn"
  if wanted and wanted ~= "auto" and wanted ~= rootless.UPLINK then
    return bad, ("guests in namespaces of your own can't have %s as their uplink: it is called %s there, "
      .. "and is what pasta gives them"):format(wanted, rootless.UPLINK), "ask for nat = true, --nat auto"
  end
  if not pasta then
    return bad, "pasta is not installed: guests reach each other, and no further", "apt install passt"
  end
  local state = rootless.state(host.config)
  if state and not state.uplink then
    return bad, "pasta was not installed when the namespaces were made, so they have no uplink",
      "the next VM starts it, and so does the next manager: fcproc ps has one"
  end
  if not core.tun_check("/dev/net/tun") then
    return bad, "pasta, which gives guests their uplink, needs /dev/net/tun itself", "see the check tun"
  end
  if state and state.ended then
    return bad, "pasta has ended: guests reach each other, and no further",
      "the next VM starts it again, and so does the next manager: fcproc ps has one"
  end
  local up, err
  if state and host.config.netns then
    up, err = rootless.uplink(host.manager, host.ctx, true)
  else
    local netns <close>, tried = host:scratch(pasta)
    if not netns then return host:no_scratch("an uplink", tried --[[@as fcproc.Error]]) end
    up = tried
  end
  if up then return "ok", ("%s gives guests their uplink, %s"):format(pasta, rootless.UPLINK) end
  local too_few = pastas.too_few_descriptors()
  return bad, err and err.message
    or pasta .. " gives a namespace no uplink" .. (too_few and ": " .. too_few or ""),
    too_few and "raise the hard limit of open files (ulimit -Hn)"
      or "give this host a default route, if it has none; else see what `pasta --config-net true` says"
end

local LINGERS = "/var/lib/systemd/linger/"

---@param host fcproc.DoctorHost
function M.linger(host)
  if host.uid == 0 then return "ok", "root's processes end with no session" end
  local own = ("/run/user/%d"):format(host.uid)
  local in_session = (host:read("/proc/self/cgroup") or ""):find("/user.slice/", 1, true) or core.stat(own)
  if not core.stat("/run/systemd/system") or not in_session then
    return "ok", "in no session of systemd's: no logout ends the VMs"
  end
  local found = host:run{ "id", "-un" }
  local name = found and found.stdout:match("%S+")
  if name and core.stat(LINGERS .. name) then
    return "ok", name .. " lingers: VMs in the background outlast his sessions"
  end
  local gone = {}
  for _, folder in ipairs{ host.config.host_dir or "", host.config.runtime_dir or "" } do
    if folder:sub(1, #own + 1) == own .. "/" and folder ~= gone[1] then gone[#gone + 1] = folder end
  end
  local message = ("uid %d does not linger: the end of his last session may end VMs in the background")
    :format(host.uid)
  if gone[1] then
    message = ("%s, and takes away %s, by which they are known"):format(message, table.concat(gone, " and "))
  end
  return "warn", message, "loginctl enable-linger " .. (name or host.uid)
end

return M
