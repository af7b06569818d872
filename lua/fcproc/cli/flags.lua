-- What the library advises, in the words of the command: it says `any_cpu = true`, which here is
-- --any-cpu.

local M = {}

-- Words of the library, each whole, and the command's.
local words = {
  { 'any_cpu = true', '--any-cpu' }, { 'trust = true', '--trust' }, { 'nat = true', '--nat auto' },
  { 'drives = { ID = path }', '--drive ID=PATH' }, { 'uid = "auto"', '--jailer auto' },
  { 'shared_uid = true', '"jailer": {"shared_uid": true} in a --spec file' },
  { 'allow_root = true', '"jailer": {"allow_root": true} in a --spec file' },
  { 'copy = "reflink"', '--drive PATH:copy' },
  { 'track_dirty_pages = true in its spec', '"track_dirty_pages": true in its --spec file' },
  { 'another network namespace and runtime_dir, or network = { attach = false }',
    'another --netns and --runtime-dir, or "network": {"attach": false} in a --spec file' },
  { "fcproc.vm.reclaim", "fcproc reclaim" }, { "a wider cidr", "a wider --bridge-ip" },
  { "choose another id", "choose another --id" },
  { "Adopt it when it runs, reclaim it when it is dead", "Stop it, or choose another --id" },
  { "puts them back, as fcproc.vm.ensure_nat(manager) does", "puts them back" },
  { "for VMs that run, as fcproc.vm.ensure_nat(manager) does", "for VMs that run" },
  { "firecracker_bin", "--firecracker" }, { "bridge_name", "--bridge" },
  { "bridge_ip", "--bridge-ip" }, { "runtime_dir", "--runtime-dir" },
}

-- A word that is part of a path or of a longer word stays.
for _, pair in ipairs(words) do
  local text = pair[1]:gsub("%p", "%%%0")
  pair[1] = "%f[^%s('\"\0]" .. text .. (pair[1]:find("%w$") and "%f[^%w_/]" or "")
end

---The text, with flags where there are some.
---@param text string
---@return string
function M.say(text)
  for _, pair in ipairs(words) do text = text:gsub(pair[1], pair[2]) end
  return text
end

return M
