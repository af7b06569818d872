-- What `docker save` writes: manifest.json, a configuration and layers, by their names. Here in a folder,
-- as an archive's members are looked up like a folder's files.

local descriptors = require "fcproc.image.descriptor"
local docker = require "fcproc.image.docker"
local images = require "spec.support.images"
local platforms = require "fcproc.image.platform"
local references = require "fcproc.image.reference"
local support = require "spec.support"

local TAR = images.tar{ { "hello", data = "x" } }
local CONFIG = images.json{ os = "linux", architecture = "amd64", config = { Cmd = { "/hello" } },
  rootfs = { diff_ids = { images.sha256(TAR) } } }

describe("docker save's list", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }
  before_each(function()
    support.write_file(dir:file("config.json"), CONFIG)
    support.write_file(dir:file("layer.tar"), TAR)
  end)

  local function open(list, suffix, platform)
    support.write_file(dir:file("manifest.json"), type(list) == "string" and list or images.json(list))
    local ref = support.must(references.parse("docker-archive:" .. dir.path .. (suffix or "")))
    return docker.open(descriptors.folder(dir.path), ref, platforms.parse(platform or "amd64"))
  end

  local function refused(code, word, ...)
    local err = support.fails(code, open(...))
    assert.is_truthy(err.message:find(word, 1, true), ("'%s' in: %s"):format(word, err.message))
  end

  local function entry(tags, more)
    local made = { Config = "config.json", RepoTags = tags, Layers = { "layer.tar" } }
    for key, value in pairs(more or {}) do made[key] = value end
    return made
  end

  it("tells an image's configuration and where its layers are", function()
    local image = support.must(open{ entry{ "debian:12" } })
    assert.are.equal(images.sha256(CONFIG), image.config_digest)
    assert.are.same({ "/hello" }, image.config.config.Cmd)
    assert.are.equal(images.sha256(TAR), image.layers[1].diff_id)
    assert.are.equal(dir:file("layer.tar"), image.layers[1].place.path)
    support.must(open({ entry{ "debian:12" } }, "@" .. images.sha256(CONFIG)))
    refused("invalid", "pinned by that", { entry{ "debian:12" } }, "@sha256:" .. ("0"):rep(64))
  end)

  it("of several images is asked by a name or a number, which the error tells", function()
    local list = { entry{ "debian:12", "debian:bookworm" }, entry(nil), entry{ "localhost/me:latest" } }
    refused("invalid", "debian:12 = debian:bookworm, @1 (without a name), localhost/me:latest", list)
    for _, name in ipairs{ ":debian:12", ":docker.io/library/debian:bookworm", ":localhost/me", ":@1" } do
      support.must(open(list, name))
    end
    refused("not_found", "no image debian:13", list, ":debian:13")
    refused("not_found", "no image @3", list, ":@3")
  end)

  it("is not believed", function()
    local name = ("0"):rep(64) .. ".json"
    support.write_file(dir:file(name), CONFIG)
    refused("invalid", "the configuration is named sha256:000", { entry(nil, { Config = name }) })
    refused("invalid", "tells of 1 layers", { entry(nil, { Layers = images.EMPTY }) })
    refused("not_found", "missing.tar", { entry(nil, { Layers = { "missing.tar" } }) })
    refused("not_found", "linux/amd64 and not for linux/arm64", { entry(nil) }, "", "arm64")
    local many = {}
    for i = 1, 10000 do many[i] = "layer.tar" end
    refused("invalid", "10000 layers", { entry(nil, { Layers = many }) })
    for text, word in pairs{ ["{}"] = "lists 0 images", ["[]"] = "lists 0 images", ["[1]"] = "is no image",
      ['[{"Config":1}]'] = "no configuration", ['[{"Config":"config.json","Layers":1}]'] = "no layers",
      ['[{"Config":"config.json","Layers":[1]}]'] = "layer 1 has no name", ["x"] = "no JSON" } do
      refused("invalid", word, text)
    end
    os.remove(dir:file("manifest.json"))
    local ref = references.parse("docker-archive:" .. dir.path)
    support.fails("not_found", docker.open(descriptors.folder(dir.path), ref, platforms.own()))
  end)
end)
