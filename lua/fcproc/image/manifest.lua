-- What an image was made of, by what and how: the same of all of it makes the same bytes.

local core = require "fcproc.core"
local imagecore = require "fcproc.imagecore"
local json = require "fcproc.json"

local M = {}

---@class fcproc.ImageManifest
---@field version integer
---@field source table    what was read: kind, digests
---@field options table   what was asked for
---@field tools table<string, string>  versions of what made it
---@field edits fcproc.ImageEdit[]?
---@field result table?   format, bytes, digest

-- Changes when the same source and options would make other bytes.
local VERSION = 1

-- What of the options makes a difference to the bytes, besides the overlay.
local NAMES = { "format", "size", "room", "journal", "as_is", "time", "ea_inode", "label", "uuid" }

-- What an overlay puts in, without what only its path on the host says.
local function overlay_of(overlay)
  if not next(overlay or {}) then return nil end
  local shown = {}
  for path, value in pairs(overlay) do
    if type(value) == "string" then value = { data = value } end
    local entry = {}
    for key, item in pairs(value) do entry[key] = item end
    if entry.data then entry.data = imagecore.digest(entry.data) end
    if entry.from then
      local info = core.stat(entry.from, true)
      entry.from = info and ("%d:%.9f"):format(info.size, info.mtime) or "missing"
    end
    shown[path] = entry
  end
  return shown
end

---Describes a build.
---@param source table
---@param options table
---@param tools table<string, string>
---@return fcproc.ImageManifest
function M.new(source, options, tools)
  local kept = { overlay = overlay_of(options.overlay) }
  for _, name in ipairs(NAMES) do kept[name] = options[name] end
  if options.remove and #options.remove > 0 then kept.remove = options.remove end
  local all = { fcproc = core.version }
  for name, version in pairs(tools) do all[name] = version end
  return { version = VERSION, source = source, options = kept, tools = all }
end

---One name for all that decides on the bytes of an image.
---@param manifest fcproc.ImageManifest
---@return string key  64 hexadecimal digits
function M.key(manifest)
  local all = { manifest.version, manifest.source, manifest.options, manifest.tools }
  return (imagecore.digest(json.write(json.kept(all))):gsub("^sha256:", ""))
end

return M
