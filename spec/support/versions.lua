-- What differs between Firecrackers: the only place where a spec looks up the words and answers of the
-- binary that FCPROC_SPEC_FIRECRACKER names. And fakes, for what another version than that one does.

local fcproc = require "fcproc"
local support = require "spec.support"
local version_of = require "fcproc.machine.version"

local M = {}

---The version of the real binary, "1.12.1".
---@return string
function M.real()
  if not M.known then
    local manager <close> = support.must(fcproc.new{ firecracker_bin = support.firecracker() })
    M.known = support.must(manager:binary_version())
  end
  return M.known
end

---Is the real one this version, or newer?
---@param version string|string[]
---@return boolean
function M.at_least(version)
  return version_of.at_least(M.real(), version) == true
end

---Is a version's number newer than what the real one is?
---@param since (string|string[])?  the first version that has something; nil: all have it
---@return boolean
function M.lacks(since)
  return since ~= nil and not M.at_least(since)
end

---What the real one writes into a kernel's command line before the devices.
---@return string
function M.added_args()
  return M.at_least("1.14") and " pci=off" or ""
end

---How the real jailer ends on all its errors but wrong arguments, which are always 1.
---@return fcproc.Exit
function M.jailer_end()
  return M.at_least("1.13") and { status = 1 } or { signal = 6 }
end

---Does the real jailer give its copy of Firecracker to the jail's user alone?
---@return boolean
function M.closes_the_copy()
  return M.at_least("1.14.1") or (M.at_least("1.13.2") and not M.at_least("1.14"))
end

---How the real Firecracker may end after its guest's triple fault: from 1.15 on by a race of its own.
---@param exit fcproc.Exit
---@return boolean
function M.is_end_of_triple_fault(exit)
  return exit.status == 0 or (exit.status == 1 and M.at_least("1.15"))
end

---What was recorded of jailers that failed: version, what is on their stderr, and how they end.
M.jailers = {
  { "1.12.1", "\nthread 'main' panicked at src/jailer/src/main.rs:355:27:\nJailer error: %s\nnote: run with "
    .. "`RUST_BACKTRACE=1` environment variable to display a backtrace\n", "kill -ABRT $$" },
  { "1.14.4", "%s\nError: %s\n", "exit 1" },
  { "1.17.0-dev", "%s\nError: %s\n", "exit 1" },
}

---Words of jailers, and the same as Rust shows them.
M.jailer_words = {
  { "Controller nope is unavailable", 'CgroupControllerUnavailable("nope")' },
  { "Failed to read file /sys/fs/cgroup/cpu/x/cpu.nonsense into a string: No such file or directory "
    .. "(os error 2)", 'ReadToString("/sys/fs/cgroup/cpu/x/cpu.nonsense", Os { code: 2, kind: NotFound, '
    .. 'message: "No such file or directory" })' },
  { "Failed to create /dev/net/tun via mknod inside the jail: Operation not permitted (os error 1)",
    'MknodDev(Os { code: 1, kind: PermissionDenied, message: "Operation not permitted" }, "/dev/net/tun")',
    "permission" },
}

---What was recorded of logs after a triple fault: version, and the lines.
M.triple_faults = {
  { "1.12.1", "2026-11-30T04:50:44.828221232 [vm-ab71c827:fc_vcpu 0] Received KVM_EXIT_SHUTDOWN signal\n"
    .. "2026-11-30T04:50:44.828271526 [vm-ab71c827:main] Vmm is stopping.\n" },
  { "1.14.4", "2026-11-30T04:50:45.098981022 [vm-ff1441b8:fc_vcpu 0] Received KVM_EXIT_SHUTDOWN signal\n"
    .. "2026-11-30T04:50:45.099034623 [vm-ff1441b8:main] Vmm is stopping.\n" },
  { "1.17.0-dev", "2026-11-30T04:49:40.180431858 [vm-4ecacdc3:fc_vcpu 0] Unexpected exit reason on vcpu run: "
    .. "Shutdown\n2026-11-30T04:49:40.190213310 [vm-4ecacdc3:main] RunWithApiError error: MicroVM stopped "
    .. "with an error: GenericError\n" },
}

---A fake of a jailer that fails: it replays what one of that version was recorded to do.
---@param path string
---@param recorded string[]  of M.jailers
---@param words string[]     of M.jailer_words
function M.fake_jailer(path, recorded, words)
  local version, format, ends = table.unpack(recorded)
  support.write_file(path .. ".words", format:format(words[1], words[2]))
  support.write_file(path, ([[#!/bin/sh
    [ "$1" = --version ] && { echo 'Jailer v%s'; exit; }
    cat '%s' >&2
    %s
  ]]):format(version, path .. ".words", ends))
  support.sh{ "chmod", "755", path }
end

---A fake: a program that only says that it is that version of Firecracker.
---@param world table
---@param version string
---@return string path
function M.fake(world, version)
  local path = world.folder:file("firecracker-" .. version)
  support.write_file(path, ("#!/bin/sh\necho 'Firecracker v%s'\n"):format(version))
  support.sh{ "chmod", "755", path }
  return path
end

---A manager of such a fake: what a plan for that version says, without a VM.
---@param world table
---@param version string
---@return fcproc.Manager
function M.pretend(world, version)
  return support.must(fcproc.new{ firecracker_bin = M.fake(world, version),
    runtime_dir = world.folder:file("run"), bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24 })
end

return M
