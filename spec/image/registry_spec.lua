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
      { netns = world.netns, stdout = { file = world.folder:file("log") }, stderr = "null" }))
    support.eventually("the registry answers", function()
      local connect = "import socket; socket.create_connection(('127.0.0.1', 5000))"
      return fcproc.runner():run({ "python3", "-c", connect }, { netns = world.netns })
    end, 20)
  end

  local function push(...)
    support.sh({ "skopeo", "copy", "--quiet", "--dest-tls-verify=false", ... }, { netns = world.netns })
  end

  -- Pushes images of those names to layers, a letter each: { one = "ab" }. The letters' digests. Those of
  -- one that is named raw are not packed.
  local function push_images(named)
    local layout, digests, list = images.layout(world.folder:file("layout")), {}, {}
    for name, letters in pairs(named) do
      local tars = {}
      for letter in letters:gmatch(".") do
        tars[#tars + 1] = images.tar{ { letter, data = letter:rep(5000) }, { "etc", kind = "dir" } }
        digests[letter] = images.sha256(name == "raw" and tars[#tars] or images.gzip(tars[#tars]))
      end
      list[#list + 1] = images.named(layout:image(tars, { gzip = name ~= "raw" }), name)
    end
    layout:write(list)
    for name in pairs(named) do
      push("--preserve-digests", "oci:" .. layout.path .. ":" .. name,
        "docker://" .. HOST .. "/" .. name .. ":1")
    end
    return digests
  end

  -- How often each layer has been fetched: "a1 b1". The log has a line a bit after its answer.
  local function assert_fetched(expected, digests)
    local found
    local done = pcall(support.eventually, "the layers are fetched", function()
      local list, log = {}, support.read_file(world.folder:file("log"))
      for letter, digest in pairs(digests) do
        local _, times = log:gsub('"GET /v2/%w+/blobs/' .. digest .. " ", "")
        if times > 0 then list[#list + 1] = letter .. times end
      end
      table.sort(list)
      found = table.concat(list, " ")
      return found == expected
    end, 2)
    assert.is_true(done, found)
  end

  local function build_of(name, ...)
    local argv = { "image", "build", "docker://" .. HOST .. "/" .. name .. ":1", "--no-tls-verify", ... }
    local done = cli.run(world, argv)
    assert.are.equal(0, done.status, done.err)
    return done.out .. done.err
  end

  local function names(...) return support.sh{ "ls", "-A", world.folder:file((...)) } end

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
      env = cli.env(world, { PATH = path, FCPROC_STORE = world.folder:file("store") }) })
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
        world.folder:file("out/disk"), "--no-tls-verify", "--store", world.folder:file("none"), ... })
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
    opts.progress = function() error("the caller's") end
    support.raises("the caller's", registries.pull, ref, opts)
    os.remove(world.folder:file("skopeo"))
    assert.are.equal("", support.sh{ "ls", "-A", world.folder.path })
    assert.is_truthy(core.stat(world.folder.path))
  end)

  it("is downloaded into a store once, and of one that shares layers only the others", function()
    serve()
    local digests = push_images{ one = "ab", two = "bc", three = "ac", raw = "d" }
    local store, disk = world.folder:file("store"), world.folder:file("disk")
    build_of("one", disk, "--store", store) -- who names nothing makes no store
    assert.is_nil(core.stat(store))
    assert_fetched("a1 b1", digests)
    build_of("one", "--name", "one", "--store", store)
    assert_fetched("a2 b2", digests)
    build_of("one", "--name", "smaller", "--no-journal", "--store", store)
    build_of("one", disk, "--store", store)
    assert_fetched("a2 b2", digests)
    build_of("two", disk, "--store", store)
    assert_fetched("a2 b2 c1", digests)
    assert.are.equal("", names("store/partial"))
    cli.ok(world, "image", "inspect", "docker://" .. HOST .. "/three:1", "--no-tls-verify", "--store", store)
    assert_fetched("a2 b2 c1", digests)
    local report = cli.json(world, "image", "prune", "--store", store)
    assert.are.equal("blob", report.removed[1].what) -- the others are of images that are there
    assert.are.equal(digests.c, "sha256:" .. report.removed[1].key)
    assert.is_true(#report.removed == 1 and report.bytes > 0)
    build_of("two", disk, "--store", store)
    assert_fetched("a2 b2 c2", digests)
    build_of("raw", disk, "--store", store)
    build_of("raw", disk, "--store", store)
    assert_fetched("a2 b2 c2 d1", digests)
    assert.is_true(#cli.json(world, "image", "prune", "--all", "--store", store).removed == 6)
    assert.are.equal("", names("store/blobs/sha256"))
  end)

  it("is downloaded once when many ask for it at once", function()
    serve()
    local digests = push_images{ one = "ab" }
    local store, builds = support.must(fcproc.image.store(world.folder:file("store"))), {}
    support.must(store:prepare())
    for i = 1, 4 do
      builds[i] = cli.start(world, { "image", "build", "docker://" .. HOST .. "/one:1",
        world.folder:file("disk" .. i), "--no-tls-verify", "--store", store.path })
    end
    for _, one in ipairs(builds) do
      assert.are.equal(0, one:wait(), support.read_file(one.err))
    end
    assert_fetched("a1 b1", digests)
  end)

  it("is fetched anew where what was kept is damaged, once", function()
    serve()
    local digests = push_images{ one = "abc" }
    local disk = world.folder:file("disk")
    local store = support.must(fcproc.image.store(world.folder:file("store")))
    support.must(store:prepare())
    build_of("one", disk, "--store", store.path)
    local whole = support.read_file(store:blob(digests.a))
    local flipped = whole:sub(1, 100) .. string.char(whole:byte(101) ~ 1) .. whole:sub(102)
    for i, damaged in ipairs{ "", flipped } do
      support.write_file(store:blob(digests.a), damaged)
      local said = build_of("one", disk, "--store", store.path)
      assert.is_truthy(said:find(digests.a .. ", which " .. store.path .. " had kept, was damaged", 1, true),
        said)
      assert_fetched(("a%d b1 c1"):format(i + 1), digests)
      assert.are.equal(whole, support.read_file(store:blob(digests.a)))
    end
    support.write_file(store:blob(digests.a), whole .. "x") -- two at once, one by its size and one when read
    support.write_file(store:blob(digests.c), ("x"):rep(core.stat(store:blob(digests.c)).size))
    build_of("one", disk, "--store", store.path)
    assert_fetched("a4 b1 c2", digests)
    support.write_file(store:blob(digests.a), flipped)
    local blobs = world.folder:file("registry/docker/registry/v2/blobs/sha256/")
    support.sh{ "rm", "-r", blobs .. digests.a:sub(8, 9) }
    local _, said = cli.fails(world, 1, "image", "build", "docker://" .. HOST .. "/one:1", disk,
      "--no-tls-verify", "--store", store.path)
    assert.is_truthy(said:find("was damaged, and is removed", 1, true), said)
    assert.is_nil(core.stat(store:blob(digests.a)))
    assert.are.equal("", names("store/partial"))
  end)

  it("is not taken from an image that is being read, nor what was fetched from one who died", function()
    local store = support.must(fcproc.image.store(world.folder:file("store")))
    support.must(store:prepare())
    local layout = images.layout(world.folder:file("layout"))
    local tar = images.tar{ { "a", data = "a" } }
    layout:write{ images.named(layout:image{ tar }, "image") }
    -- In the place of skopeo and its registry.
    support.write_file(world.folder:file("skopeo"), '#!/bin/sh\nfor to; do :; done; to=${to#oci:}\n'
      .. ('cp -r %s/* "${to%%:*}"\n'):format(layout.path))
    support.sh{ "chmod", "755", world.folder:file("skopeo") }
    local registries = require "fcproc.image.registry"
    local ref = support.must(require("fcproc.image.reference").parse("docker://" .. HOST .. "/x"))
    local opts = { platform = { os = "linux", architecture = "amd64" }, folder = store:at("partial"),
      skopeo = world.folder:file("skopeo"), store = store }
    local pulled = support.must(registries.pull(ref, opts))
    local name = images.sha256(tar):sub(8)
    assert.are.equal(name .. "\n", names("store/blobs/sha256")) -- and none that is JSON
    local report = support.must(store:prune{ all = true })
    assert.are.same({}, report.removed)
    support.must(core.stat(pulled.path .. "/blobs/sha256/" .. name))
    support.sh{ "cp", "-r", pulled.path, store:at("partial", ".fcproc-pull-0000dead") }
    support.write_file(store:at("partial", ".fcproc-pull-0000dead/oci-put-blob1"), ("x"):rep(1 << 16))
    pulled:close()
    local told = support.must(store:prune{ dry_run = true })
    assert.is_true(told.removed[1].what == "leftover" and told.removed[1].bytes >= 1 << 16)
    assert.are.equal("blob", told.removed[2].what)
    assert.are.same(told, support.must(store:prune()))
    assert.are.equal("", names("store/partial") .. names("store/blobs/sha256"))
    -- What had come whole is kept by the next pull, whatever becomes of that.
    pulled = support.must(registries.pull(ref, opts))
    support.sh{ "cp", "-r", pulled.path, store:at("partial", ".fcproc-pull-0000dead") }
    pulled:close()
    os.remove(store:blob("sha256:" .. name))
    support.write_file(world.folder:file("skopeo"), "#!/bin/sh\nexit 1\n")
    support.fails("exit_status", registries.pull(ref, opts))
    assert.are.equal(name .. "\n", names("store/blobs/sha256"))
    assert.are.equal("", names("store/partial"))
  end)
end)
