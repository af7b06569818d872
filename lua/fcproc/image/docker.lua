-- What `docker save` and `podman save` write: manifest.json, which names a configuration and layers by
-- their paths in the archive. From Docker 25 on an OCI layout lies beside it, of the same files.

local descriptors = require "fcproc.image.descriptor"
local errors = require "fcproc.error"
local imagecore = require "fcproc.imagecore"
local oci = require "fcproc.image.oci"

local M = {}

local MOST_LAYERS, MOST_IMAGES = 1000, 1000

local invalid = descriptors.invalid

local function wrong(blobs, code, format, ...)
  return nil, errors.new{ code = code, op = "image.docker",
    message = errors.quoted(("%s: %s"):format(blobs.name, format:format(...)), 2000) }
end

local function tags_of(entry)
  local tags = {}
  for _, tag in ipairs(type(entry.RepoTags) == "table" and entry.RepoTags or {}) do
    if type(tag) == "string" then tags[#tags + 1] = tag end
  end
  return tags
end

local function described(entry, i)
  local tags = tags_of(entry)
  return #tags > 0 and table.concat(tags, " = ") or ("@%d (without a name)"):format(i - 1)
end

local function listed(list) return descriptors.listed(list, described) end

-- "name" is "name:latest", and "docker.io/library/name" too.
local function same_name(tag, wanted)
  local function full(name)
    if not name:match("[^/]*$"):find(":", 1, true) then name = name .. ":latest" end
    return (name:gsub("^docker%.io/", ""):gsub("^library/", ""))
  end
  return full(tag) == full(wanted)
end

local function choose(blobs, list, ref)
  if ref.number then
    local entry = list[ref.number + 1]
    if entry then return entry end
    return wrong(blobs, "not_found", "has no image @%d, but %s", ref.number, listed(list))
  end
  if not ref.tag then
    if #list == 1 then return list[1] end
    return wrong(blobs, "invalid", "holds several images: say which, by :NAME or :@NUMBER after the path: %s",
      listed(list))
  end
  for _, entry in ipairs(list) do
    for _, tag in ipairs(tags_of(entry)) do
      if same_name(tag, ref.tag) then return entry end
    end
  end
  return wrong(blobs, "not_found", "there is no image %s in it, but %s", ref.tag, listed(list))
end

-- Where names lead is the archive's own affair, which resolves them inside of itself.
local function is_name(value)
  return type(value) == "string" and value ~= "" and #value <= 4096 and not value:find("%z")
end

-- A file that is named by its content.
local function digest_in(name)
  local digits = name:match("^blobs/sha256/(%x+)$") or name:match("^(%x+)%.json$")
  return digits and #digits == 64 and not digits:find("%u") and "sha256:" .. digits or nil
end

---Finds the image that a reference means in an archive of Docker's, and reads what describes it.
---@param blobs fcproc.ImageBlobs
---@param ref fcproc.ImageReference
---@param wanted fcproc.ImagePlatform
---@return fcproc.Image? image
---@return fcproc.Error? err  as oci.open's
function M.open(blobs, ref, wanted)
  local list, err = descriptors.read_json(blobs, "manifest.json", "the list of images")
  if not list then
    if err.code == "not_found" then
      return wrong(blobs, "not_found", "is none of docker save's: it has no manifest.json")
    end
    return nil, err
  end
  if #list == 0 or #list > MOST_IMAGES then return invalid(blobs, "manifest.json lists %d images", #list) end
  for i, entry in ipairs(list) do
    if type(entry) ~= "table" then return invalid(blobs, "manifest.json's [%d] is no image", i - 1) end
  end
  local entry
  entry, err = choose(blobs, list, ref)
  if not entry then return nil, err end
  if not is_name(entry.Config) then return invalid(blobs, "manifest.json names no configuration") end
  local names = entry.Layers
  if type(names) ~= "table" then return invalid(blobs, "manifest.json names no layers") end
  if #names > MOST_LAYERS then
    return invalid(blobs, "manifest.json names %d layers: more than %d are not read", #names, MOST_LAYERS)
  end
  local config, text = descriptors.read_json(blobs, entry.Config, "the configuration")
  if not config then return nil, text end
  local digest = imagecore.digest(text)
  local named = digest_in(entry.Config)
  if named and named ~= digest then
    return invalid(blobs, "the configuration is named %s, and is %s", named, digest)
  end
  if ref.digest and ref.digest ~= digest then
    return invalid(blobs, "the configuration is %s and not %s: Docker's archives are pinned by that", digest,
      ref.digest)
  end
  local platform, diff_ids
  platform, err = oci.platform(blobs, config, wanted)
  if platform then diff_ids, err = oci.diff_ids(blobs, config, #names) end
  if not diff_ids then return nil, err end
  local layers = {}
  for i, name in ipairs(names) do
    if not is_name(name) then return invalid(blobs, "manifest.json's layer %d has no name", i) end
    local place
    local size
    size, err = blobs:size(name)
    if size then place, err = blobs:place(name) end
    if not place then return nil, err end
    layers[i] = { diff_id = diff_ids[i], size = size, place = place }
  end
  return { config_digest = digest, config = config, platform = platform, layers = layers }
end

return M
