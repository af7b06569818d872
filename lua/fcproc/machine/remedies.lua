-- What the host has refused, in words that say what to do: where Firecracker and the jailer pass on the
-- kernel's errno, and the kernel ends a process without a word.

local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"

local M = {}

local SIGKILL = 9

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

---Was it the kernel, for want of memory? That is to be asked before its cgroup is removed.
---@param exit fcproc.Exit?
---@param jail table?   the record's
---@param outer { path: string, oom_kills: integer }?  the spec's cgroup, and how many had been killed in it
---                     when the VM came
---@return string? words
function M.oom(exit, jail, outer)
  if not exit or exit.signal ~= SIGKILL then return nil end
  local folder = cgroup.oom_killed(jail, outer)
  return folder and ("SIGKILL: killed by the kernel for want of memory, as oom_kill in %s tells: raise its "
    .. "limit, or lower mem_mib"):format(folder) or nil
end

return M
