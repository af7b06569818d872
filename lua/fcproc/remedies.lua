-- What the host has refused, in words that say what to do: where Firecracker, the jailer and what makes a
-- rootless jail pass on the kernel's errno.

local core = require "fcproc.core"

local M = {}

-- How much memory the host has for who comes now.
local function memory()
  local text = core.read_file("/proc/meminfo") or ""
  local function mib(name) return (tonumber(text:match(name .. ":%s+(%d+)")) or 0) // 1024 end
  local words = ("%d of %d MiB are available"):format(mib("MemAvailable"), mib("MemTotal"))
  if (core.read_file("/proc/sys/vm/overcommit_memory") or ""):sub(1, 1) == "2" then
    words = ("%s, and %d of %d MiB are promised (vm.overcommit_memory = 2)"):format(words,
      mib("Committed_AS"), mib("CommitLimit"))
  end
  return words
end

---What to do about what was said; "" when that is not known.
---@param said string  by Firecracker or the jailer
---@return string words
function M.of(said)
  local lower = said:lower()
  if lower:find("io_?uring") then
    return "; this host has no io_uring for it (sysctl kernel.io_uring_disabled, a seccomp filter): give "
      .. "the drive io_engine = \"Sync\""
  elseif said:find("os error 13", 1, true) and lower:find("creating kvm object", 1, true) then
    return "; whoever is in the group kvm may open /dev/kvm (as root: adduser NAME kvm), from his next login "
      .. "on"
  elseif said:find("can't put /dev/kvm into the jail: No such file", 1, true)
    or said:find("os error 2)", 1, true) and lower:find("creating kvm object", 1, true) then
    return "; KVM is not here: modprobe kvm_intel or kvm_amd; in a container, pass the device in "
      .. "(--device /dev/kvm); `fcproc doctor` tells more (check kvm)"
  elseif said:find("os error 16", 1, true) and (lower:find("vm file descriptor", 1, true)
    or lower:find("create.-vm")) then
    return "; another hypervisor (VirtualBox, VMware) has the processor's virtualization: end its machines, "
      .. "or unload its module"
  elseif said:find("os error 12", 1, true) then
    return ("; on this host %s: lower mem_mib, or end others (ulimit -v and a cgroup may set less)"):format(
      memory())
  elseif said:find("cgroup.subtree_control", 1, true) or said:find("CgroupControllerUnavailable") then
    return "; the cgroups above must pass the controller on: it has to be in their cgroup.subtree_control, "
      .. "which one can have only while no process is in it itself (systemd: Delegate=yes)"
  end
  return ""
end

return M
