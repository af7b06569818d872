-- What describes an image: indexes, manifests and configurations, right ones and those of a stranger.

local descriptors = require "fcproc.image.descriptor"
local images = require "spec.support.images"
local oci = require "fcproc.image.oci"
local platforms = require "fcproc.image.platform"
local references = require "fcproc.image.reference"
local support = require "spec.support"

local TAR = images.tar{ { "hello", data = "x" } }

local function open(path, suffix, platform)
  local ref = support.must(references.parse("oci:" .. path .. (suffix or "")))
  return oci.open(descriptors.folder(path), ref, platforms.parse(platform or "linux/amd64"))
end

local function refused(code, words, ...)
  local err = support.fails(code, open(...))
  for _, word in ipairs(type(words) == "table" and words or { words }) do
    assert.is_truthy(err.message:find(word, 1, true), ("'%s' in: %s"):format(word, err.message))
  end
  return err
end

describe("an OCI layout", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }
  local layout
  before_each(function()
    layout = images.layout(dir:file("layout"))
  end)

  it("tells its image's layers, configuration and digests", function()
    local manifest = layout:image({ TAR, TAR }, { config = { Cmd = { "/bin/sh" } }, gzip = true })
    local image = support.must(open(layout:write{ manifest }))
    assert.are.equal(manifest.digest, image.digest)
    assert.are.same({ "/bin/sh" }, image.config.config.Cmd)
    assert.are.equal(2, #image.layers)
    assert.are.equal(images.sha256(TAR), image.layers[1].diff_id)
    assert.are.equal(images.sha256(images.gzip(TAR)), image.layers[2].digest)
    assert.are.equal(layout.path .. "/blobs/sha256/" .. image.layers[2].digest:sub(8),
      image.layers[2].place.path)
  end)

  it("with several images is asked by a name, which the error tells", function()
    local one = images.named(layout:image{ TAR }, "one")
    local two = images.named(layout:image({ TAR }, { config = { User = "2" } }), "host/two:latest")
    layout:write{ one, two }
    refused("invalid", { "several images", "one (sha256:", "host/two:latest" }, layout.path)
    assert.are.equal(two.digest, support.must(open(layout.path, ":host/two:latest")).digest)
    assert.are.equal(one.digest, support.must(open(layout.path, "@" .. one.digest)).digest)
    refused("not_found", { "no image three", "one (" }, layout.path, ":three")
    refused("not_found", "sha256:" .. ("0"):rep(64), layout.path, "@sha256:" .. ("0"):rep(64))
    layout:write{}
    refused("not_found", "no image in it", layout.path)
  end)

  it("has its platform chosen also from indexes in indexes, and never an attestation", function()
    local function image(architecture, variant)
      return images.for_platform(layout:image({ TAR }, { architecture = architecture, variant = variant }),
        architecture, variant)
    end
    local amd64, arm64, v6, v7 = image("amd64"), image("arm64", "v8"), image("arm", "v6"), image("arm", "v7")
    local statement = images.for_platform(layout:image({ TAR }, { config = { User = "x" } }), "unknown", nil,
      "unknown")
    statement.annotations = { ["vnd.docker.reference.type"] = "attestation-manifest" }
    local index = layout:index{ statement, layout:index{ arm64, v6 }, layout:index{ v7, amd64 } }
    layout:write{ index }
    assert.are.equal(amd64.digest, support.must(open(layout.path)).digest)
    assert.are.equal(arm64.digest, support.must(open(layout.path, "", "arm64")).digest)
    assert.are.equal(v7.digest, support.must(open(layout.path, "", "linux/arm/v7")).digest)
    assert.are.equal(v6.digest, support.must(open(layout.path, "", "linux/arm/v6")).digest)
    assert.are.equal(amd64.digest, support.must(open(layout.path, "@" .. index.digest)).digest)
    assert.are.equal(arm64.digest, support.must(open(layout.path, "@" .. arm64.digest, "arm64")).digest)
    refused("not_found", { "linux/riscv64", "linux/arm64/v8" }, layout.path, "", "riscv64")
    layout:write{ amd64, statement }
    assert.are.equal(amd64.digest, support.must(open(layout.path)).digest)
    layout:write{ statement }
    refused("not_found", "no image", layout.path)
  end)

  it("for another machine is taken only when that is asked for", function()
    layout:write{ layout:image({ TAR }, { architecture = "arm64" }) }
    refused("not_found", { "linux/arm64 and not for linux/amd64", 'platform = "linux/arm64"' }, layout.path)
    support.must(open(layout.path, "", "arm64"))
  end)

  it("is not believed: wrong digests and sizes are named", function()
    local manifest = layout:image{ TAR }
    layout:write{ manifest }
    local path = layout.path .. "/blobs/sha256/" .. manifest.digest:sub(8)
    local text = support.read_file(path)
    support.write_file(path, (text:gsub("schemaVersion\":2", "schemaVersion\":3")))
    refused("invalid", { "the manifest", manifest.digest, "and is sha256:" }, layout.path)
    support.write_file(path, text .. " ")
    refused("invalid", ("has %d bytes and not %d"):format(#text + 1, #text), layout.path)
    os.remove(path)
    refused("not_found", { "the manifest", manifest.digest }, layout.path)
    support.write_file(path, text)
    os.remove(layout.path .. "/blobs/sha256/" .. images.sha256(TAR):sub(8))
    refused("not_found", { "layer 1 of 1", images.sha256(TAR) }, layout.path)
  end)

  it("is left by no link, and read as no device", function()
    local manifest = layout:image{ TAR }
    layout:write{ manifest }
    local blobs = layout.path .. "/blobs/sha256"
    support.sh{ "mv", blobs .. "/" .. manifest.digest:sub(8), dir:file("elsewhere") }
    support.sh{ "ln", "-s", dir:file("elsewhere"), blobs .. "/" .. manifest.digest:sub(8) }
    refused("invalid", "is no regular file", layout.path)
    support.sh{ "mv", blobs, dir:file("sha256") }
    support.sh{ "ln", "-s", dir:file("sha256"), blobs }
    refused("invalid", "blobs/sha256 is no folder", layout.path)
    os.remove(layout.path .. "/index.json")
    support.sh{ "mkfifo", layout.path .. "/index.json" }
    refused("invalid", "index.json is no regular file", layout.path)
  end)

  it("without an index, or with one that is none, is refused", function()
    refused("not_found", "no index.json", layout.path)
    for text, why in pairs{ ["{"] = "line 1, column 2",
      ["[]"] = "manifests is no list", ["3"] = "no JSON object",
      ["null"] = "no JSON object", ["{}"] = "manifests is no list", ['{"manifests":3}'] = "is no list",
      ['{"manifests":[3]}'] = "manifests[0] is no descriptor", ['{"manifests":[null]}'] = "is no descriptor",
      ['{"manifests":[{}]}'] = "has no digest",
      ['{"manifests":[{"digest":"md5:00","size":1}]}'] = "only sha256",
      ['{"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}'] = "is no digest",
      ['{"manifests":[{"digest":"sha256:' .. ("0"):rep(64) .. '"}]}'] = "has no size",
      ['{"manifests":[{"digest":"sha256:' .. ("0"):rep(64) .. '","size":-1}]}'] = "has no size",
      ['{"manifests":[{"digest":"sha256:' .. ("0"):rep(64) .. '","size":1.5}]}'] = "has no size" } do
      support.write_file(layout.path .. "/index.json", text)
      local _, err = open(layout.path)
      assert.is_truthy(err and err.message:find(why, 1, true), text .. ": " .. tostring(err))
      assert.is_true(err.code == "invalid" or err.code == "unsupported")
    end
  end)

  it("of a hundred megabytes of JSON, or deeper than anybody writes, is not read", function()
    support.sh{ "truncate", "-s", "100M", layout.path .. "/index.json" }
    refused("invalid", { "index.json", "104857600 bytes" }, layout.path)
    support.write_file(layout.path .. "/index.json", ("["):rep(2000000))
    refused("invalid", "no JSON object", layout.path)
  end)

  it("with ten thousand layers, manifests without end or indexes in a circle is refused", function()
    layout:write{ layout:image({}, { change = function(manifest)
      local one = layout:blob(TAR, images.LAYER)
      manifest.layers = {}
      for i = 1, 10000 do manifest.layers[i] = one end
    end }) }
    refused("invalid", "10000 entries", layout.path)
    local many = {}
    local none = layout:index{}
    for i = 1, 1001 do many[i] = none end
    layout:write(many)
    refused("invalid", "1001 entries", layout.path)
    -- Its digest can't be right; that is found before the circle.
    local loop = { mediaType = images.INDEX, digest = "sha256:" .. ("a"):rep(64), size = 0 }
    local text = images.json{ schemaVersion = 2, manifests = { loop } }
    loop.size = #text
    while #images.json{ schemaVersion = 2, manifests = { loop } } ~= loop.size do
      loop.size = #images.json{ schemaVersion = 2, manifests = { loop } }
    end
    support.write_file(layout.path .. "/blobs/sha256/" .. ("a"):rep(64),
      images.json{ schemaVersion = 2, manifests = { loop } })
    layout:write{ loop }
    refused("invalid", { ("a"):rep(64), "and is sha256:" }, layout.path)
    local deep = layout:image{ TAR }
    for _ = 1, 20 do deep = layout:index{ deep } end
    layout:write{ deep }
    refused("invalid", "deep", layout.path)
    -- The same index many times, many levels high, is read once.
    local wide = layout:image{ TAR }
    for level = 1, 7 do
      local all = {}
      for i = 1, 900 do all[i] = wide end
      all[901] = layout:blob(tostring(level), images.MANIFEST,
        { platform = { os = "x", architecture = "y" } })
      wide = layout:index(all)
    end
    layout:write{ wide }
    refused("not_found", "linux/amd64", layout.path)
  end)

  it("is refused where it is two things at once, or no image", function()
    local function with(change, change_config)
      layout:write{ layout:image({ TAR }, { change = change, change_config = change_config }) }
      return layout.path
    end
    refused("invalid", "says that it is application/vnd", with(function(m) m.mediaType = images.INDEX end))
    refused("invalid", "both an index and a manifest", with(function(m) m.manifests = images.EMPTY end))
    refused("unsupported", "artifact", with(function(m)
      m.config.mediaType, m.artifactType = "application/vnd.oci.empty.v1+json", "application/spdx+json"
    end))
    refused("unsupported", { "layer 1", "in-toto" }, with(function(m)
      m.layers[1].mediaType = "application/vnd.in-toto+json"
    end))
    refused("unsupported", "encrypted", with(function(m)
      m.layers[1].mediaType = images.LAYER .. "+gzip+encrypted"
    end))
    refused("invalid", "tells of 0 layers", with(nil, function(c) c.rootfs.diff_ids = images.EMPTY end))
    refused("invalid", "diff_ids[0]", with(nil, function(c) c.rootfs.diff_ids = { "sha256:x" } end))
    refused("invalid", "no diff_ids", with(nil, function(c) c.rootfs = 5 end))
    refused("invalid", "config is no descriptor", with(function(m) m.config = 5 end))
    refused("invalid", "layers is no list", with(function(m) m.layers = "x" end))
    refused("invalid", "layer 1 of 1", with(function(m) m.layers[1].size = 5 end))
    local old = layout:image{ TAR }
    old.mediaType = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    layout:write{ old }
    refused("unsupported", "Docker's first kind", layout.path)
  end)

  it("tells where a layer may be had that is not to be passed on", function()
    layout:write{ layout:image({ TAR }, { change = function(m)
      m.layers[1].mediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
      m.layers[1].urls = { "https://example.org/layer" }
    end }) }
    support.must(open(layout.path)) -- it is there all the same
    os.remove(layout.path .. "/blobs/sha256/" .. images.sha256(TAR):sub(8))
    refused("not_found", "https://example.org/layer", layout.path)
  end)
end)
