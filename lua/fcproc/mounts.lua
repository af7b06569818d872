-- What is mounted here.

local M = {}

---@class fcproc.Mount
---@field point string    where
---@field own string      its own options: "rw,nodev"
---@field kind string     its file system
---@field options string  that one's options

---All mounts; of two at one point the later hides the earlier.
---@return fcproc.Mount[]
function M.list()
  local found = {}
  local file <close> = io.open("/proc/self/mountinfo")
  for line in file and file:lines() or function() end do
    local point, own, kind, options = line:match(
      "^%d+ %d+ %S+ %S+ (%S+) (%S+).- %- (%S+) %S+ (%S+)")
    if point then
      point = point:gsub("\\(%d%d%d)", function(code) return string.char(tonumber(code, 8)) end)
      found[#found + 1] = { point = point, own = own, kind = kind, options = options }
    end
  end
  return found
end

---The one that a folder is on.
---@param folder string  absolute, without links
---@return fcproc.Mount
function M.of(folder)
  local best = { point = "", own = "", kind = "", options = "" }
  for _, mount in ipairs(M.list()) do
    local under = mount.point == "/" or (folder .. "/"):find(mount.point .. "/", 1, true) == 1
    if under and #mount.point >= #best.point then best = mount end -- the last one hides the others
  end
  return best
end

return M
