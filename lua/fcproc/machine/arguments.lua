-- Firecracker's own arguments that a spec may add. Those by which a VMM is found, told its
-- configuration or kept to its filter are given by us, and those that only print start no VM.

local M = {}

local OURS, PRINTS = "is ours to give: the VM is found by it", "prints something and starts no VM"

local refused = {
  ["--api-sock"] = OURS, ["--log-path"] = OURS, ["--metrics-path"] = OURS,
  ["--id"] = "is the spec's id",
  ["--level"] = "is the spec's log_level",
  ["--config-file"] = "is what is made of the spec", ["--metadata"] = "is the spec's mmds.data",
  ["--no-api"] = "leaves a VM that nobody can ask or stop",
  ["--no-seccomp"] = "is the spec's seccomp = false, which is logged",
  ["--seccomp-filter"] = "is the spec's seccomp, with the filter's file",
  ["--version"] = PRINTS, ["--snapshot-version"] = PRINTS, ["--describe-snapshot"] = PRINTS,
  ["--help"] = PRINTS, ["-h"] = PRINTS,
  ["--"] = "ends the arguments: Firecracker reads nothing of what follows",
}

---Why the argument can't be given; nil when it can.
---@param argument string
---@return string? complaint
function M.complaint(argument)
  local why = refused[argument]
  return why and ("%s %s"):format(argument, why)
end

---@param list string[]?
---@param name string
---@return boolean
function M.has(list, name)
  for _, argument in ipairs(list or {}) do
    if argument == name then return true end
  end
  return false
end

---The guest finds its devices on PCI (1.13), not on the command line.
---@param list string[]?
---@return boolean
function M.enables_pci(list)
  return M.has(list, "--enable-pci")
end

return M
