-- What is mounted here.

local core = require "fcproc.core"

local M = {}

---@class fcproc.Mount
---@field point string    where
---@field root string     what of the file system: "/", or "net:[4026532000]" of a namespace
---@field own string      its own options: "rw,nodev"
---@field kind string     its file system
---@field options string  that one's options

---All mounts; of two at one point the later hides the earlier.
---@return fcproc.Mount[]?
---@return fcproc.Error? err
function M.list()
  local found = {}
  local text, err = core.read_file("/proc/self/mountinfo")
  if not text then return nil, err end
  for line in text:gmatch("[^\n]+") do
    local root, point, own, kind, options = line:match(
      "^%d+ %d+ %S+ (%S+) (%S+) (%S+).- %- (%S+) %S+ (%S+)")
    if point then
      point = point:gsub("\\(%d%d%d)", function(code) return string.char(tonumber(code, 8)) end)
      found[#found + 1] = { point = point, root = root, own = own, kind = kind, options = options }
    end
  end
  return found
end

---The one that a folder is on.
---@param folder string  absolute, without links
---@return fcproc.Mount?
---@return fcproc.Error? err
function M.of(folder)
  local best = { point = "", root = "", own = "", kind = "", options = "" }
  local list, err = M.list()
  if not list then return nil, err end
  for _, mount in ipairs(list) do
    local under = mount.point == "/" or (folder .. "/"):find(mount.point .. "/", 1, true) == 1
    if under and #mount.point >= #best.point then best = mount end -- the last one hides the others
  end
  return best
end

return M
