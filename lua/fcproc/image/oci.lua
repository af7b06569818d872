-- An image as OCI and Docker describe it: from an index, or indexes in indexes, to the manifest for a
-- platform, its configuration and its layers. All of it may be a stranger's words: each is checked, and
-- what was looked for is named.

local descriptors = require "fcproc.image.descriptor"
local errors = require "fcproc.error"
local platforms = require "fcproc.image.platform"

local M = {}

local MOST_LAYERS = 1000   -- overlayfs takes 500 at most, and Docker 127
local MOST_DEEP = 8        -- indexes in indexes
local MOST_MANIFESTS = 1000

local INDEXES = {
  ["application/vnd.oci.image.index.v1+json"] = true,
  ["application/vnd.docker.distribution.manifest.list.v2+json"] = true,
}
local MANIFESTS = {
  ["application/vnd.oci.image.manifest.v1+json"] = true,
  ["application/vnd.docker.distribution.manifest.v2+json"] = true,
}
local OLD = {
  ["application/vnd.docker.distribution.manifest.v1+json"] = true,
  ["application/vnd.docker.distribution.manifest.v1+prettyjws"] = true,
}
local CONFIGS = {
  ["application/vnd.oci.image.config.v1+json"] = true,
  ["application/vnd.docker.container.image.v1+json"] = true,
}
local REF_NAME, CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"

local invalid = descriptors.invalid

local function wrong(blobs, code, format, ...)
  return nil, errors.new{ code = code, op = "image.oci",
    message = errors.quoted(("%s: %s"):format(blobs.name, format:format(...)), 2000) }
end

-- What buildx puts beside an image: a statement about it.
local function is_attestation(descriptor)
  local platform = descriptor.platform
  return descriptor.annotations["vnd.docker.reference.type"] ~= nil
    or (platform ~= nil and platform.os == "unknown" and platform.architecture == "unknown")
end

-- A list of at most so many descriptors.
local function check_list(blobs, value, where, most)
  if type(value) ~= "table" then return invalid(blobs, "%s is no list", where) end
  if #value > most then
    return invalid(blobs, "%s has %d entries: more than %d are not read", where, #value, most)
  end
  local list = {}
  for i, entry in ipairs(value) do
    local descriptor, err = descriptors.check(blobs, entry, ("%s[%d]"):format(where, i - 1))
    if not descriptor then return nil, err end
    list[i] = descriptor
  end
  return list
end

-- One text that is two things: which one is meant would be a matter of who reads it.
local function check_kind(blobs, value, descriptor, what)
  local kind = value.mediaType
  if kind ~= nil and kind ~= descriptor.media_type then
    return invalid(blobs, "%s, %s, says that it is %s and not %s", what, descriptor.digest,
      tostring(kind), descriptor.media_type)
  end
  if value.manifests ~= nil and (value.layers ~= nil or value.config ~= nil) then
    return invalid(blobs, "%s, %s, is both an index and a manifest", what, descriptor.digest)
  end
  return true
end

-- ---- which manifest ------------------------------------------------------------------------------

-- All manifests that lie in the descriptors, or in indexes of these; one seen before counts once.
local function leaves(blobs, list)
  local found, seen, read = {}, {}, 0
  local function visit(descriptor, parent, depth)
    if seen[descriptor.digest] then return true end
    seen[descriptor.digest] = true
    descriptor.platform = descriptor.platform or parent and parent.platform
    if not INDEXES[descriptor.media_type] then
      descriptor.annotations[REF_NAME] = descriptor.annotations[REF_NAME]
        or parent and parent.annotations[REF_NAME]
      found[#found + 1] = descriptor
      return true
    end
    read = read + 1
    if depth > MOST_DEEP then
      return invalid(blobs, "indexes lie in indexes, more than %d deep", MOST_DEEP)
    end
    if read > MOST_MANIFESTS then return invalid(blobs, "has more than %d indexes", MOST_MANIFESTS) end
    local value, err = descriptors.read(blobs, descriptor, "the index")
    local ok = value
    if ok then ok, err = check_kind(blobs, value, descriptor, "the index") end
    local inner
    if ok then inner, err = check_list(blobs, value.manifests, "the index's manifests", MOST_MANIFESTS) end
    if not inner then return nil, err end
    for _, child in ipairs(inner) do
      ok, err = visit(child, descriptor, depth + 1)
      if not ok then return nil, err end
    end
    return true
  end
  for _, descriptor in ipairs(list) do
    local ok, err = visit(descriptor, nil, 1)
    if not ok then return nil, err end
  end
  return found
end

local function names_of(descriptor)
  return { descriptor.annotations[REF_NAME], descriptor.annotations[CONTAINERD_NAME] }
end

local function has_name(descriptor, tag)
  return descriptor.annotations[REF_NAME] == tag or descriptor.annotations[CONTAINERD_NAME] == tag
end

local function described(descriptor)
  local name = names_of(descriptor)[1]
  local digest = descriptor.digest:sub(1, 19)
  local text = name and ("%s (%s)"):format(name, digest) or digest
  return descriptor.platform and ("%s for %s"):format(text, platforms.text(descriptor.platform)) or text
end

local function listed(list) return descriptors.listed(list, described) end

-- Those of the layout's own list that the reference means.
local function chosen(blobs, list, ref)
  local kept, names, first = {}, 0, nil
  for _, descriptor in ipairs(list) do
    if not is_attestation(descriptor) and (not ref.tag or has_name(descriptor, ref.tag)) then
      kept[#kept + 1] = descriptor
      local name = names_of(descriptor)[1] or ""
      if name ~= first then names, first = names + 1, name end
    end
  end
  if #kept == 0 then
    if #list == 0 then return wrong(blobs, "not_found", "there is no image in it") end
    return wrong(blobs, "not_found", "there is no image %s in it, but %s", ref.tag or "", listed(list))
  end
  if names > 1 and not ref.digest then
    return wrong(blobs, "invalid", "holds several images: say which, by :NAME after the path: %s",
      listed(kept))
  end
  return kept
end

-- The manifest that is meant: by its digest, or the best for the platform.
local function pick(blobs, list, pin, wanted)
  local found, err = leaves(blobs, list)
  if not found then return nil, err end
  local images, best, best_fit = {}, nil, nil
  for _, descriptor in ipairs(found) do
    if pin == descriptor.digest then return descriptor end
    if not is_attestation(descriptor) then images[#images + 1] = descriptor end
  end
  if pin then return wrong(blobs, "not_found", "there is no image %s in it, but %s", pin, listed(images)) end
  for _, descriptor in ipairs(images) do
    local fit = descriptor.platform and platforms.fit(wanted, descriptor.platform)
    if fit and (not best_fit or fit > best_fit) then best, best_fit = descriptor, fit end
  end
  if not best and #images == 1 and not images[1].platform then best = images[1] end
  if best then return best end
  if #images == 0 then return wrong(blobs, "not_found", "there is no image in it") end
  return wrong(blobs, "not_found", "there is no image for %s in it, but %s; the platform can be chosen "
    .. "(platform = \"linux/...\")", platforms.text(wanted), listed(images))
end

-- ---- the manifest ----------------------------------------------------------------------------------

-- How a layer's content is packed is told by its first bytes; its kind only says that it is one.
local function check_layer(blobs, layer, i)
  local kind = layer.media_type
  if kind:find("+encrypted", 1, true) then
    return wrong(blobs, "unsupported", "layer %d, %s, is encrypted: skopeo copy --decryption-key opens it", i,
      layer.digest)
  end
  local tar = kind:find("^application/vnd%.oci%.image%.layer%.")
    or kind:find("^application/vnd%.docker%.image%.rootfs%.")
  if not (tar and kind:find("%.tar")) then
    return wrong(blobs, "unsupported", "layer %d, %s, is no layer of a file system but '%s': this is no "
      .. "image of a machine", i, layer.digest, kind)
  end
  layer.foreign = kind:find("%.foreign%.") ~= nil or kind:find("%.nondistributable%.") ~= nil
  return true
end

local function is_digest(text)
  return type(text) == "string" and #text == 71 and text:find("^sha256:[%da-f]+$") ~= nil
end

---What a configuration says of the layers and the machine.
---@param blobs fcproc.ImageBlobs
---@param config table
---@param layers integer  how many there are
---@return string[]? diff_ids
---@return fcproc.Error? err
function M.diff_ids(blobs, config, layers)
  local rootfs = config.rootfs
  local list = type(rootfs) == "table" and rootfs.diff_ids
  if type(list) ~= "table" then return invalid(blobs, "the configuration has no diff_ids") end
  if #list ~= layers then
    return invalid(blobs, "the configuration tells of %d layers, the manifest of %d", #list, layers)
  end
  for i, id in ipairs(list) do
    if not is_digest(id) then
      return invalid(blobs, "the configuration's diff_ids[%d], %s, is no digest", i - 1, tostring(id))
    end
  end
  return list
end

---For which machine a configuration is. It may be of a time when it did not say so.
---@param blobs fcproc.ImageBlobs
---@param config table
---@param wanted fcproc.ImagePlatform
---@return fcproc.ImagePlatform? platform
---@return fcproc.Error? err  ERR_NOT_FOUND: for another one
function M.platform(blobs, config, wanted)
  local function word(name)
    local value = config[name]
    return type(value) == "string" and value ~= "" and value or nil
  end
  local platform = { os = word("os") or wanted.os, architecture = word("architecture") or wanted.architecture,
    variant = word("variant") }
  if platforms.fit(wanted, platform) then return platform end
  return wrong(blobs, "not_found", "the image is for %s and not for %s; it is taken when that is asked for "
    .. "(platform = \"%s\")", platforms.text(platform), platforms.text(wanted), platforms.text(platform))
end

---@class fcproc.ImageLayer
---@field digest string?      of the blob; nil: it is what diff_id says
---@field diff_id string      of the tar that is in it
---@field size integer        bytes of the blob
---@field place table         where it is, for Tree:read_archive

---@class fcproc.Image  an image as it is described
---@field digest string?       the manifest's
---@field config_digest string
---@field config table
---@field platform fcproc.ImagePlatform
---@field layers fcproc.ImageLayer[]  from the bottom up

-- Where each layer is. One that is not there is told by where it may be had.
local function place_layers(blobs, layers, diff_ids)
  local placed = {}
  for i, layer in ipairs(layers) do
    local path = descriptors.path_of(layer.digest)
    local size, err = blobs:size(path)
    if not size and err.code == "not_found" then
      local hint = layer.foreign and #layer.urls > 0
        and ": it is not to be passed on, and is had from " .. layer.urls[1] or ""
      return wrong(blobs, "not_found", "layer %d of %d, %s, is not there%s", i, #layers, layer.digest, hint)
    end
    if not size then return nil, err end
    if size ~= layer.size then
      local _, why = invalid(blobs, "layer %d of %d, %s, has %d bytes and not %d", i, #layers, layer.digest,
        size, layer.size)
      why.layer = layer.digest
      return nil, why
    end
    local place
    place, err = blobs:place(path)
    if not place then return nil, err end
    placed[i] = { digest = layer.digest, diff_id = diff_ids[i], size = size, place = place,
      media_type = layer.media_type }
  end
  return placed
end

local function read_manifest(blobs, descriptor, wanted)
  if OLD[descriptor.media_type] then
    return wrong(blobs, "unsupported", "the manifest, %s, is of Docker's first kind: skopeo copy "
      .. "makes one of today's of it", descriptor.digest)
  end
  if not MANIFESTS[descriptor.media_type] then
    return wrong(blobs, "unsupported", "%s is no image's manifest, but '%s'", descriptor.digest,
      descriptor.media_type)
  end
  local manifest, err = descriptors.read(blobs, descriptor, "the manifest")
  local ok = manifest
  if ok then ok, err = check_kind(blobs, manifest, descriptor, "the manifest") end
  local config, layers
  if ok then config, err = descriptors.check(blobs, manifest.config, "the manifest's config") end
  if config and not CONFIGS[config.media_type] then
    return wrong(blobs, "unsupported", "%s is an artifact and no image: its configuration is a '%s'",
      descriptor.digest, manifest.artifactType or config.media_type)
  end
  if config then layers, err = check_list(blobs, manifest.layers, "the manifest's layers", MOST_LAYERS) end
  if not layers then return nil, err end
  for i, layer in ipairs(layers) do
    ok, err = check_layer(blobs, layer, i)
    if not ok then return nil, err end
  end
  local value
  value, err = descriptors.read(blobs, config, "the configuration")
  if not value then return nil, err end
  local platform, diff_ids
  platform, err = M.platform(blobs, value, wanted)
  if platform then diff_ids, err = M.diff_ids(blobs, value, #layers) end
  local placed
  if diff_ids then placed, err = place_layers(blobs, layers, diff_ids) end
  if not placed then return nil, err end
  return { digest = descriptor.digest, config_digest = config.digest, config = value, platform = platform,
    layers = placed }
end

---Finds the image that a reference means in a layout, and reads what describes it.
---@param blobs fcproc.ImageBlobs
---@param ref fcproc.ImageReference
---@param wanted fcproc.ImagePlatform
---@return fcproc.Image? image
---@return fcproc.Error? err  ERR_INVALID: it contradicts itself, or several could be meant; ERR_NOT_FOUND: no
---                           such image, none for that machine, or a part of it is missing; ERR_UNSUPPORTED
function M.open(blobs, ref, wanted)
  local index, err = descriptors.read_json(blobs, "index.json", "the index")
  if not index then
    if err.code == "not_found" then
      return wrong(blobs, "not_found", "is no OCI layout: it has no index.json")
    end
    return nil, err
  end
  local list
  list, err = check_list(blobs, index.manifests, "the index's manifests", MOST_MANIFESTS)
  if list then list, err = chosen(blobs, list, ref) end
  if not list then return nil, err end
  local pin = ref.digest
  for _, entry in ipairs(pin and list or {}) do
    -- An index that is pinned is one in which the platform still chooses.
    if entry.digest == pin then list, pin = { entry }, nil end
  end
  local picked
  picked, err = pick(blobs, list, pin, wanted)
  if not picked then return nil, err end
  return read_manifest(blobs, picked, wanted)
end

return M
