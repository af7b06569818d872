-- Opens what a reference means: a folder, an archive, or an image of layers, from this host, a registry
-- or the store. And puts it into a tree.

local archives = require "fcproc.image.archive"
local core = require "fcproc.core"
local descriptors = require "fcproc.image.descriptor"
local docker = require "fcproc.image.docker"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local imagecore = require "fcproc.imagecore"
local oci = require "fcproc.image.oci"
local registries = require "fcproc.image.registry"

local M = {}

---@class fcproc.ImageSource
---@field kind "dir"|"tar"|"image"
---@field name string
---@field path string?          of a folder or an archive
---@field image fcproc.Image?
---@field blobs fcproc.ImageBlobs?  where its layers are
---@field tree table?           of what had to be read to know what it is
---@field facts table?          of reading it
---@field digest string?        what an archive must be
---@field platform fcproc.ImagePlatform
local Source = {}
Source.__index = Source

local function invalid(ref, format, ...)
  return nil, errors.new{ code = "invalid", op = "image.source", path = ref.path,
    message = errors.quoted(("%s: %s"):format(ref.text, format:format(...)), 500) }
end

local function new(fields) return setmetatable(fields, Source) end

-- What an archive is read from: a name, or what comes from standard input.
local function place_of(path) return path == "-" and { fd = 0 } or { path = path } end

-- ---- openers: of each transport ------------------------------------------------------------------

local openers = {}

openers.dir = function(ref, opts)
  local info, err = core.stat(ref.path, true)
  if not info then return nil, err end
  if info.type ~= "dir" then return invalid(ref, "is no folder") end
  return new{ kind = "dir", name = ref.text, path = ref.path, platform = opts.platform }
end

openers.tar = function(ref, opts)
  return new{ kind = "tar", name = ref.text, path = ref.path, digest = ref.digest, platform = opts.platform }
end

-- What needs an image's layers. One that a store had kept, and that is damaged, is fetched anew.
local function with_layers(blobs, fn)
  while true do
    local result, err = fn()
    if result or not (blobs and blobs.mend) then return result, err end
    local mended, why = blobs.mend(err.layer)
    if not mended then return nil, why or err end
  end
end

local function of_image(ref, opts, blobs, reader)
  local kept = false
  local _ <close> = finally(function() if not kept then blobs:close() end end)
  local image, err = with_layers(blobs, function() return reader.open(blobs, ref, opts.platform) end)
  if not image then return nil, err end
  kept = true
  return new{ kind = "image", name = ref.text, image = image, blobs = blobs, platform = image.platform }
end

openers.oci = function(ref, opts)
  local info, err = core.stat(ref.path, true)
  if not info then return nil, err end
  if info.type ~= "dir" then return invalid(ref, "is no folder: of an archive it is oci-archive:") end
  return of_image(ref, opts, descriptors.folder(ref.path), oci)
end

local function open_archive(ref, opts)
  return archives.open(ref.path == "-" and "standard input" or ref.path, place_of(ref.path), opts)
end

openers["oci-archive"] = function(ref, opts)
  local archive, err = open_archive(ref, opts)
  if not archive then return nil, err end
  return of_image(ref, opts, archive, oci)
end

openers["docker-archive"] = function(ref, opts)
  local archive, err = open_archive(ref, opts)
  if not archive then return nil, err end
  return of_image(ref, opts, archive, docker)
end

local function is_layout(path)
  local found = core.stat(path .. "/oci-layout")
  return found ~= nil and found.type == "file"
end

-- PATH:NAME without what says that it is one: of a layout, which can be nothing else; nil: it is none.
local function of_part(ref, opts)
  local path, tag = ref.path:match("^(.-):(.+)$")
  if not path or not core.stat(path, true) then return nil end
  if is_layout(path) then
    return openers.oci({ text = ref.text, path = path, tag = tag, digest = ref.digest }, opts)
  end
  return nil, errors.new{ code = "not_found", op = "image.source", path = ref.path,
    message = errors.quoted(("there is no %s; of the images in %s one is named like oci-archive:%s:%s or "
      .. "docker-archive:%s:%s"):format(ref.path, path, path, tag, path, tag), 1000) }
end

-- A path is what lies there. An archive of an image is told by what is in it, and the tree that was read
-- for it is the file system's where it is none.
openers.path = function(ref, opts)
  local info, err = core.stat(ref.path, true)
  if not info and err.code == "not_found" then
    local found, why = of_part(ref, opts)
    if found or why then return found, why end
  end
  if not info then return nil, err end
  if info.type == "dir" then
    if is_layout(ref.path) then return openers.oci(ref, opts) end
    if ref.digest then return invalid(ref, "a folder has no digest, unless it is an OCI layout") end
    return openers.dir(ref, opts)
  end
  if info.type == "file" and info.size == 0 then return invalid(ref, "is empty") end
  local archive
  archive, err = open_archive(ref, opts)
  if not archive then return nil, err end
  if archive:has("oci-layout") and archive:has("index.json") then return of_image(ref, opts, archive, oci) end
  if archive:has("manifest.json") and not archive.tree:stat("/etc") then
    return of_image(ref, opts, archive, docker)
  end
  local source = new{ kind = "tar", name = ref.text, path = ref.path, platform = opts.platform,
    tree = archive.tree, facts = archive.facts }
  if ref.digest then source:pin(ref.digest) end
  return source
end

openers.docker = function(ref, opts)
  local layout, err = registries.pull(ref, opts)
  if not layout then return nil, err end
  local blobs = descriptors.folder(layout.path)
  blobs.name = ref.text
  blobs.close = function() layout:close() end
  blobs.mend, blobs.notes = layout.mend, layout.notes
  -- What was asked for by its digest has been proved by who brought it: an index's is not that of the
  -- manifest for one platform.
  return of_image({ text = ref.text, path = layout.path, tag = layout.tag }, opts, blobs, oci)
end

-- A word. A file of that name is no image of the store.
openers.store = function(ref, opts)
  local stores = require "fcproc.image.store"
  local entry, err = stores.source(ref, opts)
  if entry then
    return openers.tar({ text = ref.text, path = entry.path, digest = ref.digest }, opts)
  end
  if err.code ~= "not_found" then return nil, err end
  if ref.digest then return nil, err end
  if core.stat(ref.text, true) then return openers.path({ text = ref.text, path = ref.text }, opts) end
  local found, why = of_part({ text = ref.text, path = ref.text }, opts)
  if found or why then return found, why end
  return nil, err
end

---@class fcproc.SourceOptions
---@field platform fcproc.ImagePlatform
---@field limits table            for imagecore.tree: entries, bytes, ratio, spool_folder
---@field folder string           where what is fetched may lie meanwhile
---@field ctx fcproc.Context?
---@field progress function?
---@field authfile string?
---@field policy string?
---@field tls_verify boolean?
---@field store (string|fcproc.ImageStore)?  where a word is looked for

---Opens a source.
---@param ref fcproc.ImageReference
---@param opts fcproc.SourceOptions
---@return fcproc.ImageSource? source  to be closed
---@return fcproc.Error? err
function M.open(ref, opts)
  return openers[ref.transport](ref, opts)
end

-- ---- into a tree ---------------------------------------------------------------------------------

-- Where a layer is: of one in an archive it is found out now.
local function read_layer(tree, layer, place, opts)
  local options = { layer = true, digest = layer.digest, diff_id = layer.diff_id }
  if place.member then
    local piece, err = archives.run(opts, place.tree:extract(place.member))
    if not piece then return nil, err end
    place = piece
  end
  for key, value in pairs(place) do options[key] = value end
  return archives.run(opts, tree:read_archive(options))
end

-- From the top down: what is hidden is read past, and is nowhere on the disk.
local function fill_layers(self, tree, opts)
  local layers, image = {}, self.image
  for i = #image.layers, 1, -1 do
    local layer = image.layers[i]
    local facts, err = read_layer(tree, layer, layer.place, opts)
    if not facts then
      err.layer = layer.digest
      err.message = ("layer %d of %d, %s: %s"):format(i, #image.layers, layer.digest or layer.diff_id,
        err.message)
      return nil, err
    end
    facts.media_type = image.layers[i].media_type
    layers[i] = facts
  end
  local merged, err = archives.run(opts, tree:merge())
  if not merged then return nil, err end
  return layers, merged.warnings
end

---@class fcproc.SourceFacts
---@field layers table[]?      what was read of each
---@field digest string?       of an archive
---@field warnings string[]

-- An ext4 begins with zeros, as the end of a tar does; and so does what was never written.
local function check_not_empty(self, facts)
  if facts.entries ~= 0 then return true end
  return nil, errors.new{ code = "invalid", op = "image.source", path = self.path,
    message = ("%s: there is no file in it: it is no archive, or an empty one"):format(
      errors.quoted(self.name, 200)) }
end

local function fill(self, opts)
  if self.tree then
    local ok, why = check_not_empty(self, self.facts)
    if not ok then return nil, why end
    local tree = self.tree
    self.tree = nil
    return tree, { digest = self.facts.digest, warnings = self.facts.warnings or {} }
  end
  local tree, err = imagecore.tree(opts.limits)
  if not tree then return nil, err end
  local kept = false
  local _ <close> = finally(function() if not kept then tree:close() end end)
  local facts
  if self.kind == "dir" then
    facts, err = archives.run(opts, tree:read_folder{ path = self.path })
  elseif self.kind == "tar" then
    local options = place_of(self.path)
    options.digest = self.digest
    facts, err = archives.run(opts, tree:read_archive(options))
    if facts then
      local ok
      ok, err = check_not_empty(self, facts)
      if not ok then return nil, err end
    end
  else
    local layers, warnings = fill_layers(self, tree, opts)
    if not layers then return nil, warnings end
    facts = { layers = layers, warnings = warnings }
    for _, layer in ipairs(layers) do
      table.move(layer.warnings, 1, #layer.warnings, #warnings + 1, warnings)
    end
  end
  if not facts then return nil, err end
  kept = true
  return tree, { layers = facts.layers, digest = facts.digest, warnings = facts.warnings or {} }
end

---The tree of what is in it. It is the caller's then.
---@param opts fcproc.SourceOptions
---@return table? tree
---@return fcproc.SourceFacts|fcproc.Error facts
function Source:fill(opts)
  local tree, facts = with_layers(self.blobs, function() return fill(self, opts) end)
  if not tree then return nil, facts end
  local notes = self.blobs and self.blobs.notes or {}
  table.move(notes, 1, #notes, #facts.warnings + 1, facts.warnings)
  return tree, facts
end

---From now on the archive must be this one: what was read of it before it was known does not count.
---@param digest string
function Source:pin(digest)
  self.digest = digest
  if self.tree and self.facts.digest ~= digest then
    self.tree:close()
    self.tree = nil
  end
end

---Closes what is open, and removes what was fetched.
function Source:close()
  if self.tree then self.tree:close() end
  if self.blobs then self.blobs:close() end
  self.tree, self.blobs = nil, nil
end

Source.__close = core.uninterruptible(Source.close)

return M
