-- What the end of a Firecracker process means, in a sentence for the operator.

local cgroup = require "fcproc.machine.cgroup"
local errors = require "fcproc.error"
local outputs = require "fcproc.machine.outputs"

local M = {}

local SIGKILL = 9

-- FcExitCode and what Firecracker's FAQ adds.
local statuses = {
  [0] = "the guest reset or rebooted, or it ended as asked",
  [1] = "a general failure: the API socket could not be bound (is it there already?), the "
    .. "configuration file was refused, or a snapshot could not be loaded; its stderr and log "
    .. "say which",
  [2] = "a mistake inside Firecracker; its log says more",
  [12] = "out of memory: the host could not give the guest's memory",
  [148] = "seccomp violation (SIGSYS): a system call that its filter forbids, from a binary built "
    .. "with another libc, or a wrong --seccomp-filter; the log has the number of the call",
  [149] = "SIGBUS: guest memory or a backing file could not be read: no huge pages left, a "
    .. "snapshot or drive that was truncated, or an I/O error",
  [150] = "SIGSEGV: Firecracker crashed",
  [151] = "SIGXFSZ: a file grew over its limit (--resource-limit fsize)",
  [152] = "bad configuration: the file given to --config-file is wrong",
  [153] = "bad arguments: a flag is wrong, or newer than this binary",
  [154] = "SIGXCPU: the limit of CPU time was reached",
  [155] = "SIGPIPE: a reader went away",
  [156] = "SIGHUP: its terminal or session went away, or it was told to end so",
  [157] = "SIGILL: an instruction that this CPU does not have",
}

local signal_names = {
  [1] = "SIGHUP", [2] = "SIGINT", [3] = "SIGQUIT", [4] = "SIGILL", [5] = "SIGTRAP", [6] = "SIGABRT",
  [7] = "SIGBUS", [8] = "SIGFPE", [9] = "SIGKILL", [11] = "SIGSEGV", [13] = "SIGPIPE",
  [14] = "SIGALRM", [15] = "SIGTERM", [24] = "SIGXCPU", [25] = "SIGXFSZ", [31] = "SIGSYS",
}

local signals = {
  [2] = "ended from outside, without a flush of its metrics",
  [6] = "Firecracker panicked: an --id that is not letters, digits and hyphens does that, too; "
    .. "its stderr has the place",
  [9] = "killed: by us, by someone else, or by the OOM killer (look at oom_kill in the cgroup's "
    .. "memory.events)",
  [15] = "ended from outside, without a flush of its metrics",
  [31] = "seccomp violation, before Firecracker could say which call it was",
}

-- SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM.
local OUTSIDE = { [1] = true, [2] = true, [3] = true, [9] = true, [15] = true }

-- The jailer of 1.12.1 was seen to panic on all its errors but wrong arguments, which are 1; from 1.13 on
-- all are.
local jailer_failed = "the jailer failed, or Firecracker did; of the jailer it means that a jail "
  .. "of that id is left over, a file or folder is missing, an id is wrong, or a permission is, "
  .. "and its stderr says which; of Firecracker, "

-- What a guest's CPU does when it can't even handle that it can't handle a fault: as 1.12 to 1.14 log it,
-- and later ones.
local TRIPLE_FAULT = { "Received KVM_EXIT_SHUTDOWN signal", "Unexpected exit reason on vcpu run: Shutdown" }

---Does the log say that the guest's CPU gave up? The status does not: it is 0 or, from 1.15 on, 0 or 1
---by a race of Firecracker's own.
---@param log string
---@return boolean
function M.is_triple_fault(log)
  for _, words in ipairs(TRIPLE_FAULT) do
    local first, last = log:find(words, 1, true)
    while first do
      local line = log:sub(1, first - 1):match("[^\n]*$")
      if line:find(":fc_vcpu %d") then return true end
      first, last = log:find(words, last + 1, true)
    end
  end
  return false
end

-- What a vCPU's thread logs when it can't go on.
local VCPU_ERRORS = { "Received KVM_EXIT_INTERNAL_ERROR", "Received KVM_EXIT_FAIL_ENTRY",
  "Unexpected exit reason on vcpu run: ", "Failure during vcpu run: ", "Received ENOSYS error" }
local STOPPED = "MicroVM stopped with an error: "

---Why a VM that ran was ended by one of its vCPUs, as the log says; nil: it says nothing of that. The
---status does not: by a race of Firecracker's own it is 0 or 1.
---@param log string
---@return string? words
function M.vcpu_error(log)
  for line in log:gmatch("[^\n]+") do
    local words = line:match(":fc_vcpu %d+[^%]]*%] *(.+)")
    for _, known in ipairs(words and VCPU_ERRORS or {}) do
      if words:sub(1, #known) == known then return words end
    end
  end
  return log:match(STOPPED .. "[^\n]+")
end

---@class fcproc.CpuEnd  what a CPU of the guest has to do with an end
---@field triple_fault true?   it gave up
---@field vcpu_error string?   it could not go on otherwise: the log's words

local LOG_TAIL = 4096 -- bytes in which a VMM's last words are

---Did a CPU of the guest end it? Its log says so; of a triple fault before 1.15 at the level Info only.
---@param exit fcproc.Exit?
---@param files fcproc.MachineFiles
---@return fcproc.CpuEnd
function M.cpu_end(exit, files)
  if not exit or (exit.status ~= 0 and exit.status ~= 1) then return {} end
  local log = outputs.read(files, "log", -LOG_TAIL) or ""
  if M.is_triple_fault(log) then return { triple_fault = true } end
  local words = M.vcpu_error(log)
  return { vcpu_error = words and errors.shown(words) }
end

---Does a Firecracker that fails end so, or one that others end? A crash is none of these.
---@param ended fcproc.Exit
---@return boolean
function M.is_usual(ended)
  if ended.signal then return OUTSIDE[ended.signal] or false end
  return ended.status ~= 0 and statuses[ended.status] ~= nil
end

-- What a step of a ladder sends, and what it then means.
local asked = {
  sigkill = { signal = 9, text = "SIGKILL: as asked for" },
  sigterm = { signal = 15, text = "SIGTERM: as asked for, without a flush of its metrics" },
}

---The sentence on one that ended by the signal that it was just sent; nil: it did not.
---@param step string?  of a ladder
---@param ended fcproc.Exit?
---@return string? sentence
function M.as_asked(step, ended)
  local sent = asked[step]
  return sent and ended and ended.signal == sent.signal and sent.text or nil
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

---One sentence on how a Firecracker ended.
---
---    print(exit.describe({ status = 148 })) --> 148: seccomp violation (SIGSYS): ...
---@param ended fcproc.Exit?  as process:wait gives it
---@param context { jailer: boolean?, daemonized: boolean?, triple_fault: boolean?, vcpu_error: string? }?
---                 it was started by the jailer; with --daemonize or --new-pid-ns, when the process
---                 started is not the one that stays; what is_triple_fault and vcpu_error said
---@return string sentence
function M.describe(ended, context)
  context = context or {}
  local status, signal = ended and ended.status, ended and ended.signal
  if signal then
    local name = signal_names[signal] or ("signal %d"):format(signal)
    local text = signals[signal] or "ended by this signal"
    if signal == 6 and context.jailer then text = jailer_failed .. text end
    return ("%s: %s"):format(name, text)
  end
  if not status then return "the exit status is unknown" end
  if status == 0 and context.daemonized then
    return "0: the jailer started Firecracker as a process of its own and left; this is not its end"
  end
  if context.triple_fault and (status == 0 or status == 1) then
    return ("%d: the guest's CPU gave up (a triple fault): its kernel crashed, or rebooted by reboot=t")
      :format(status)
  end
  if context.vcpu_error and (status == 0 or status == 1) then
    return ("%d: the VM ran, and its vCPU could not go on: %s"):format(status, context.vcpu_error)
  end
  local text = statuses[status] or "a status that Firecracker does not document"
  if status == 1 and context.jailer then
    text = jailer_failed .. text
  end
  return ("%d: %s"):format(status, text)
end

return M
