-- Images from a registry: Debian's docker-registry on 127.0.0.1, in a network namespace of the spec's own,
-- filled by umoci and skopeo.

local cli = require "spec.support.cli"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local images = require "spec.support.images"
local support = require "spec.support"

local HOST = "127.0.0.1:5000"

-- me:secret
local PASSWORD = "me:$2a$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"

describe("a registry's image", function()
  before_each(support.before_each)

  local world, registry
  before_each(function()
    world = cli.world()
    support.sh({ "ip", "link", "set", "lo", "up" }, { netns = world.netns })
  end)
  after_each(function()
    if registry then
      registry:signal("KILL")
      registry:wait(10)
      registry:close()
      registry = nil
    end
    getmetatable(world).__close(world)
  end)
  after_each(support.after_each)

  local function serve(more)
    support.write_file(world.folder:file("registry.yml"), ([[
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: %s } }
http: { addr: "%s" }
]]):format(world.folder:file("registry"), HOST) .. (more or ""))
    registry = support.must(fcproc.spawn({ "docker-registry", "serve", world.folder:file("registry.yml") },
      { netns = world.netns, stdout = "null", stderr = "null" }))
    support.eventually("the registry answers", function()
      local connect = "import socket; socket.create_connection(('127.0.0.1', 5000))"
      return fcproc.runner():run({ "python3", "-c", connect }, { netns = world.netns })
    end, 20)
  end

  local function push(...)
    support.sh({ "skopeo", "copy", "--quiet", "--dest-tls-verify=false", ... }, { netns = world.netns })
  end

  -- The block of the chapter below that heading.
  local function story(heading)
    local text = support.read_file("doc/images.md")
    return assert(text:match("\n## " .. heading:gsub("%p", "%%%0") .. "\n.-\n```\n(.-)```\n"), heading)
  end

  it("becomes a disk as the chapter tells it", function()
    serve()
    support.sh{ "mkdir", "-p", world.folder:file("root/sbin"), world.folder:file("bin") }
    support.write_file(world.folder:file("root/sbin/init"), "#!/bin/sh\n")
    support.write_file(world.folder:file("bin/fcproc"),
      ('#!/bin/sh\nhere=$PWD\ncd %s && exec %s lua/bin/fcproc --runtime-dir "$here" "$@"\n'):format(
      support.sh{ "pwd" }:gsub("\n", ""), support.lua))
    support.sh{ "chmod", "755", world.folder:file("bin/fcproc"), world.folder:file("root/sbin/init") }
    local text = story("An OCI image, from a registry"):gsub("app%.ext4", world.folder:file("app.ext4"))
    local path = world.folder:file("bin") .. ":" .. os.getenv("PATH")
    support.sh({ "sh", "-euc", text }, { cwd = world.folder.path, netns = world.netns,
      env = cli.env(world, { PATH = path, HOME = world.folder.path }) })
    support.must(fcproc.image.verify(world.folder:file("app.ext4")))
    local found = support.sh{ "debugfs", "-R", "stat /sbin/init", world.folder:file("app.ext4") }
    assert.is_truthy(found:find("Type: regular    Mode:  0755", 1, true), found)
  end)

  it("is pinned, asked for with a password, refused by a policy, and missed by its name", function()
    support.write_file(world.folder:file("passwords"), PASSWORD)
    serve(('auth: { htpasswd: { realm: here, path: "%s" } }\n'):format(world.folder:file("passwords")))
    local layout = images.layout(world.folder:file("layout"))
    local manifest = layout:image({ images.tar{ { "etc", kind = "dir" } } }, { gzip = true })
    layout:write{ images.named(manifest, "one") }
    push("--dest-creds", "me:secret", "oci:" .. layout.path .. ":one", "docker://" .. HOST .. "/me/one:1")
    support.write_file(world.folder:file("auth.json"),
      ('{"auths":{"%s":{"auth":"bWU6c2VjcmV0"}}}'):format(HOST))
    support.write_file(world.folder:file("policy.json"), '{"default":[{"type":"reject"}]}')
    local function build(status, name, ...)
      local done = cli.run(world, { "image", "build", "docker://" .. HOST .. name,
        world.folder:file("out/disk"), "--no-tls-verify", ... }, { env = { HOME = world.folder.path } })
      assert.are.equal(status, done.status, done.err)
      return done.err
    end
    local auth = world.folder:file("auth.json")
    support.sh{ "mkdir", "-p", world.folder:file("out/.fcproc-pull-0000dead/blobs") }
    build(0, "/me/one:1", "--authfile", auth)
    build(0, "/me/one@" .. manifest.digest, "--authfile", auth)
    build(0, "/me/one:1@" .. manifest.digest, "--authfile", auth)
    os.remove(world.folder:file("out/disk"))
    assert.is_truthy(build(5, "/me/one:1"):find("skopeo login", 1, true))
    assert.is_truthy(build(3, "/me/one:2", "--authfile", auth):find("manifest unknown", 1, true))
    build(3, "/me/one@sha256:" .. ("0"):rep(64), "--authfile", auth)
    assert.is_truthy(build(5, "/me/one:1", "--authfile", auth, "--policy", world.folder:file("policy.json"))
      :find("policy.json decides", 1, true))
    assert.is_truthy(build(3, "/me/one:1", "--authfile", auth, "--platform", "linux/arm64")
      :find("linux/arm64", 1, true))
    assert.are.equal("", support.sh{ "ls", "-A", world.folder:file("out") }) -- nor what a dead one had left
  end)

  it("needs skopeo, and is waited for no longer than its context lasts", function()
    local opts = { platform = { os = "linux", architecture = "amd64" }, folder = world.folder.path,
      skopeo = world.folder:file("skopeo") }
    local registries = require "fcproc.image.registry"
    local ref = support.must(require("fcproc.image.reference").parse("docker://" .. HOST .. "/x"))
    local err = support.fails("not_found", registries.pull(ref, opts))
    assert.is_truthy(err.message:find("Debian: skopeo", 1, true))
    -- In the place of one whose registry never answers.
    support.write_file(world.folder:file("skopeo"), "#!/bin/sh\nsleep 1000\n")
    support.sh{ "chmod", "755", world.folder:file("skopeo") }
    local ctx <close> = fcproc.context{ timeout = 0.1 }
    opts.ctx = ctx
    support.fails("deadline", registries.pull(ref, opts))
    os.remove(world.folder:file("skopeo"))
    assert.are.equal("", support.sh{ "ls", "-A", world.folder.path })
    assert.is_truthy(core.stat(world.folder.path))
  end)
end)
