-- How images are named, and for which machine they are.

local platforms = require "fcproc.image.platform"
local references = require "fcproc.image.reference"
local support = require "spec.support"

local DIGEST = "sha256:" .. ("0a"):rep(32)

describe("a reference", function()
  local function parsed(text)
    local ref = support.must(references.parse(text))
    assert.are.equal(text, ref.text)
    ref.text = nil
    return ref
  end

  it("is named as skopeo names it", function()
    for text, ref in pairs{
      ["dir:/srv/root"] = { transport = "dir", path = "/srv/root" },
      ["dir:a:b"] = { transport = "dir", path = "a:b" },
      ["tar:root.tar.xz"] = { transport = "tar", path = "root.tar.xz" },
      ["tar:-"] = { transport = "tar", path = "-" },
      ["tar:x@" .. DIGEST] = { transport = "tar", path = "x", digest = DIGEST },
      ["oci:layout"] = { transport = "oci", path = "layout" },
      ["oci:/l:localhost/debian:12"] = { transport = "oci", path = "/l", tag = "localhost/debian:12" },
      ["oci:/l@" .. DIGEST] = { transport = "oci", path = "/l", digest = DIGEST },
      ["oci:/l:t@" .. DIGEST] = { transport = "oci", path = "/l", tag = "t", digest = DIGEST },
      ["oci-archive:a.tar:t"] = { transport = "oci-archive", path = "a.tar", tag = "t" },
      ["docker-archive:a:debian:12"] = { transport = "docker-archive", path = "a", tag = "debian:12" },
      ["docker-archive:a.tar:@3"] = { transport = "docker-archive", path = "a.tar", number = 3 },
      ["docker://debian"] = { transport = "docker", name = "debian" },
      ["docker://127.0.0.1:5000/a/b:c"] = { transport = "docker", name = "127.0.0.1:5000/a/b:c" },
      ["docker://h/a@" .. DIGEST] = { transport = "docker", name = "h/a", digest = DIGEST },
      ["docker://[::1]:5000/a"] = { transport = "docker", name = "[::1]:5000/a" },
    } do
      assert.are.same(ref, parsed(text))
    end
  end)

  it("is a path by its slash, and a word of the store without", function()
    for _, path in ipairs{ "/srv/x", "./x", "../x", "./a b:\xff" } do
      assert.are.same({ transport = "path", path = path }, parsed(path))
    end
    assert.are.same({ transport = "path", path = "./x", digest = DIGEST }, parsed("./x@" .. DIGEST))
    for _, word in ipairs{ "debian", "debian:12", "me/debian:12", "rootfs.tar" } do
      assert.are.same({ transport = "store", name = word }, parsed(word))
    end
    assert.are.same({ transport = "store", name = "debian", digest = DIGEST }, parsed("debian@" .. DIGEST))
  end)

  it("that can't be one is refused with what helps", function()
    for text, why in pairs{
      [""] = "is empty", ["oci:"] = "no path", ["oci:x:"] = "ends with a colon",
      ["dir:/x@" .. DIGEST] = "no digest",
      ["tar:x@sha256:12"] = "64 digits", ["oci:x@sha256:" .. ("0A"):rep(32)] = "64 digits",
      ["docker:debian"] = "two slashes", ["docker-daemon:x:y"] = "docker save",
      ["containers-storage:x"] = "podman save",
      ["docker://"] = "is written docker://", ["docker://-x"] = "is written",
      ["docker://a//b"] = "is written",
      ["a b"] = "is neither a path", ["-x"] = "is neither a path", ["x\0y"] = "NUL",
      ["docker://a b"] = "is written",
      ["oci\n:x"] = "is neither a path",
    } do
      local err = support.fails("invalid", references.parse(text))
      assert.is_truthy(err.message:find(why, 1, true), text .. ": " .. err.message)
      assert.is_nil(err.message:find("[%z\1-\8]"))
    end
  end)
end)

describe("a platform", function()
  it("is read and written as Docker does", function()
    for text, written in pairs{ ["linux/amd64"] = "linux/amd64", arm64 = "linux/arm64",
      x86_64 = "linux/amd64",
      ["linux/aarch64"] = "linux/arm64", ["linux/arm/v6"] = "linux/arm/v6" } do
      assert.are.equal(written, platforms.text(support.must(platforms.parse(text))))
    end
    for _, text in ipairs{ "", "a/b/c/d", "windows/amd64", "linux/am d64" } do
      support.fails("invalid", platforms.parse(text))
    end
  end)

  it("runs what lower variants of it are for", function()
    local function fit(wanted, offered)
      return platforms.fit(platforms.parse(wanted), platforms.parse(offered))
    end
    assert.is_truthy(fit("amd64", "amd64") and fit("linux/amd64/v3", "linux/amd64/v2"))
    assert.is_nil(fit("amd64", "linux/amd64/v2"))
    assert.is_nil(fit("amd64", "arm64") or fit("arm64", "arm"))
    assert.is_truthy(fit("arm64", "linux/arm64/v8") and fit("linux/arm/v7", "linux/arm/v6"))
    assert.is_true(fit("linux/arm/v7", "linux/arm/v7") > fit("linux/arm/v7", "linux/arm/v6"))
    assert.is_nil(fit("linux/arm/v6", "arm"))
  end)
end)
