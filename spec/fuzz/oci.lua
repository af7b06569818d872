-- Indexes, manifests and configurations that say anything, with digests that are right: what they describe is
-- read or refused with a word that is fit to be shown, nobody raises, and nothing outside is asked for.
-- `make fuzz FUZZ_SECONDS=30`, or with a seed: FUZZ_SEED=7.

local docker = require "fcproc.image.docker"
local fuzz = require "spec.support.fuzz"
local images = require "spec.support.images"
local oci = require "fcproc.image.oci"
local platforms = require "fcproc.image.platform"
local fcproc = require "fcproc"

local random = math.random
local TAR = images.tar{ { "hello", data = "x" } }
local LAYER = images.sha256(TAR)

-- A layout in memory: what is looked for in it may be nothing else.
local Blobs = { name = "a layout" }
Blobs.__index = Blobs

function Blobs:size(path)
  -- What docker save's list names is looked for in the archive, where ".." leads nowhere else.
  local own = path == "index.json" or path:find("^blobs/sha256/%x+$") and #path == 77
  assert(own or self.reader == docker, "it looks for " .. path)
  local data = rawget(self, path)
  if data then return #data end
  return nil, setmetatable({ code = "not_found", op = "x", message = "none" }, getmetatable(fcproc.ERR_BUSY))
end

function Blobs:read(path, most) return self[path]:sub(1, most) end

function Blobs.place(_, path) return { path = path } end

function Blobs.close() end

-- At most one of the texts is changed, so that the others lead to it.
local function text_of(record, changed)
  if changed then return fuzz.text(record) end
  return images.json(record)
end

local function put(blobs, text, kind)
  local digest = images.sha256(text)
  blobs["blobs/sha256/" .. digest:sub(8)] = text
  return { mediaType = kind, digest = digest, size = #text }
end

local function make()
  local blobs, changed = setmetatable({}, Blobs), random(5)
  blobs["blobs/sha256/" .. LAYER:sub(8)] = TAR
  local config = put(blobs, text_of({ os = "linux", architecture = "amd64", config = { Cmd = { "/x" } },
    rootfs = { type = "layers", diff_ids = { LAYER, LAYER } } }, changed == 1), images.CONFIG)
  local config_name = "blobs/sha256/" .. config.digest:sub(8)
  local layer = { mediaType = images.LAYER, digest = LAYER, size = #TAR }
  local manifest = put(blobs, text_of({ schemaVersion = 2, mediaType = images.MANIFEST, config = config,
    layers = { layer, layer } }, changed == 2), images.MANIFEST)
  manifest.platform = { os = "linux", architecture = "amd64" }
  local index = put(blobs, text_of({ schemaVersion = 2, mediaType = images.INDEX, manifests = { manifest } },
    changed == 3), images.INDEX)
  index.annotations = { ["org.opencontainers.image.ref.name"] = "x" }
  blobs["index.json"] = text_of({ schemaVersion = 2, manifests = { index } }, changed == 4)
  blobs["manifest.json"] = text_of({ { Config = config_name, RepoTags = { "x:1" },
    Layers = { "blobs/sha256/" .. LAYER:sub(8), "blobs/sha256/" .. LAYER:sub(8) } } }, changed == 5)
  return blobs
end

local CODES = { invalid = true, not_found = true, unsupported = true }

local function main()
  local wanted, shown = platforms.parse("linux/amd64"), ""
  return fuzz.run("images", function()
    local blobs = make()
    shown = blobs["index.json"] .. "\n" .. blobs["manifest.json"]
    local tag = random(2) == 1 and "x" or nil
    local deep = false
    for _, reader in ipairs{ oci, docker } do
      blobs.reader = reader
      local image, err = reader.open(blobs, { tag = tag, text = "x" }, wanted)
      if image then
        -- A manifest may call any blob a layer, its configuration too; but a blob it must be.
        for _, one in ipairs(image.layers) do
          assert(reader == docker or rawget(blobs, one.place.path) and one.place.path ~= "index.json",
            one.place.path)
        end
      else
        assert(fcproc.is_error(err), "no error")
        assert(CODES[err.code], "code " .. tostring(err.code))
        assert(not err.message:find("[%z\1-\8\11-\31\127]") and utf8.len(err.message), "control characters")
      end
      deep = deep or image ~= nil
    end
    return deep
  end, function() return shown end)
end

os.exit(main(), true)
