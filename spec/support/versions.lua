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
---@param version string
---@return boolean
function M.at_least(version)
  return version_of.at_least(M.real(), version) == true
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
