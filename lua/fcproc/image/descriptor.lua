-- What the OCI text calls a descriptor: kind, digest and size of a blob. And the JSON that lies behind
-- one, which is read only as far as its size and digest are what was told.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local imagecore = require "fcproc.imagecore"
local json = require "fcproc.json"

local M = {}

M.MOST_JSON = 4 << 20 -- bytes: what registries take at most
local MOST_LISTED = 20

---@class fcproc.ImageDescriptor
---@field media_type string
---@field digest string   "sha256:..."
---@field size integer    bytes
---@field platform fcproc.ImagePlatform?
---@field annotations table<string, string>
---@field urls string[]?

---@class fcproc.ImageBlobs  where an image's parts lie: a layout's folder, or an archive
---@field name string  for messages
---@field size fun(self: fcproc.ImageBlobs, path: string): integer?, fcproc.Error?
---@field read fun(self: fcproc.ImageBlobs, path: string, most: integer): string?, fcproc.Error?
---@field place fun(self: fcproc.ImageBlobs, path: string): table?, fcproc.Error?
---@field close fun(self: fcproc.ImageBlobs)
---@field mend (fun(digest: string?): boolean?, fcproc.Error?)?  fetches a damaged layer anew
---@field notes string[]?  what was damaged

---What is not as it should be.
---@return nil
---@return fcproc.Error
function M.invalid(blobs, format, ...)
  return nil, errors.new{ code = "invalid", op = "image.oci",
    message = errors.quoted(("%s: %s"):format(blobs.name, format:format(...)), 500) }
end

---What there is, for a message: the first of them.
---@param list any[]
---@param describe fun(item: any, i: integer): string
---@return string
function M.listed(list, describe)
  local texts = {}
  for i = 1, math.min(#list, MOST_LISTED) do texts[i] = describe(list[i], i) end
  if #list > MOST_LISTED then texts[MOST_LISTED + 1] = ("and %d more"):format(#list - MOST_LISTED) end
  return table.concat(texts, ", ")
end

---Where a blob is in a layout. The digest has been checked: nothing in it leads elsewhere.
---@param digest string
---@return string path
function M.path_of(digest) return "blobs/" .. digest:gsub(":", "/") end

local function string_map(value)
  local map = {}
  for key, item in pairs(type(value) == "table" and value or {}) do
    if type(key) == "string" and type(item) == "string" then map[key] = item end
  end
  return map
end

local function platform_of(value)
  if type(value) ~= "table" or type(value.os) ~= "string" or type(value.architecture) ~= "string" then
    return nil
  end
  local variant = value.variant
  return { os = value.os, architecture = value.architecture,
    variant = type(variant) == "string" and variant ~= "" and variant or nil }
end

---Checks a descriptor that a JSON text holds.
---@param blobs fcproc.ImageBlobs
---@param value any
---@param where string  "the index's manifests[3]"
---@return fcproc.ImageDescriptor? descriptor
---@return fcproc.Error? err
function M.check(blobs, value, where)
  if type(value) ~= "table" then return M.invalid(blobs, "%s is no descriptor", where) end
  local digest, size = value.digest, value.size
  if type(digest) ~= "string" then return M.invalid(blobs, "%s has no digest", where) end
  local algorithm, digits = digest:match("^([%w+._%-]+):(%x+)$")
  if algorithm ~= "sha256" and algorithm then
    return nil, errors.new{ code = "unsupported", op = "image.oci",
      message = errors.quoted(("%s: %s is named by %s; only sha256 is understood: skopeo copy makes it anew")
        :format(blobs.name, where, algorithm), 500) }
  end
  if not algorithm or #digits ~= 64 or digits:find("%u") then
    return M.invalid(blobs, "%s: '%s' is no digest", where, digest)
  end
  if math.type(size) ~= "integer" or size < 0 then
    return M.invalid(blobs, "%s (%s) has no size", where, digest)
  end
  local urls = {}
  for _, url in ipairs(type(value.urls) == "table" and value.urls or {}) do
    if type(url) == "string" then urls[#urls + 1] = url end
  end
  local kind = value.mediaType
  return { media_type = type(kind) == "string" and kind or "", digest = digest, size = size, urls = urls,
    platform = platform_of(value.platform), annotations = string_map(value.annotations),
    artifact = type(value.artifactType) == "string" and value.artifactType or nil }
end

---A file of JSON that is one object.
---@param blobs fcproc.ImageBlobs
---@param path string
---@param what string
---@return table? value
---@return string|fcproc.Error text
function M.read_json(blobs, path, what)
  local size, err = blobs:size(path)
  if not size then return nil, err end
  if size > M.MOST_JSON then
    return M.invalid(blobs, "%s (%s) has %d bytes: more than %d are not read", what, path, size, M.MOST_JSON)
  end
  local text
  text, err = blobs:read(path, M.MOST_JSON + 1)
  if not text then return nil, err end
  if #text > M.MOST_JSON then return M.invalid(blobs, "%s (%s) grows while it is read", what, path) end
  local value, complaint = json.read(text)
  if type(value) ~= "table" then
    return M.invalid(blobs, "%s (%s) is no JSON object: %s", what, path,
      complaint or "it is a " .. type(value))
  end
  return json.plain(value), text
end

---The JSON behind a descriptor.
---@param blobs fcproc.ImageBlobs
---@param descriptor fcproc.ImageDescriptor
---@param what string
---@return table? value
---@return fcproc.Error? err
function M.read(blobs, descriptor, what)
  local path = M.path_of(descriptor.digest)
  local size, err = blobs:size(path)
  if not size then
    if err.code == "not_found" then
      return nil, errors.new{ code = "not_found", op = "image.oci", path = err.path, cause = err,
        message = ("%s: %s, %s, is not there"):format(blobs.name, what, descriptor.digest) }
    end
    return nil, err
  end
  if size ~= descriptor.size then
    return M.invalid(blobs, "%s, %s, has %d bytes and not %d", what, descriptor.digest, size, descriptor.size)
  end
  local value, text = M.read_json(blobs, path, what)
  if not value then return nil, text end
  local digest = imagecore.digest(text)
  if digest ~= descriptor.digest then
    return M.invalid(blobs, "%s is named %s, and is %s", what, descriptor.digest, digest)
  end
  return value
end

-- ---- a layout's folder -------------------------------------------------------------------------

local Folder = {}
Folder.__index = Folder

---The size of a file in it. A link is not followed, also not one on the way.
---@param path string
---@return integer? bytes
---@return fcproc.Error? err
function Folder:size(path)
  local at = ""
  for part in path:gmatch("([^/]+)/") do
    at = at .. "/" .. part
    local info, err = core.stat(self.path .. at)
    if not info then return nil, err end
    if info.type ~= "dir" then
      return M.invalid(self, "%s is no folder: what lies in a layout is not looked for elsewhere", at:sub(2))
    end
  end
  local info, err = core.stat(self.path .. "/" .. path)
  if not info then return nil, err end
  if info.type ~= "file" then return M.invalid(self, "%s is no regular file", path) end
  return info.size
end

---Its first bytes.
---@param path string
---@param most integer
---@return string? bytes
---@return fcproc.Error? err
function Folder:read(path, most) return core.read_file(self.path .. "/" .. path, 0, most) end

---Where Tree:read_archive finds it.
---@param path string
---@return table? place
---@return fcproc.Error? err
function Folder:place(path)
  local size, err = self:size(path)
  if not size then return nil, err end
  return { path = self.path .. "/" .. path }
end

---Nothing is open.
function Folder.close() end

---A layout's folder, or one that is laid out like it.
---@param path string
---@return fcproc.ImageBlobs
function M.folder(path)
  return setmetatable({ path = path, name = path }, Folder)
end

return M
