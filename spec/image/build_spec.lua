-- From a source to a disk: folders, tars, images of layers; what is reported, and what is left when it fails.

local fcproc = require "fcproc"
local core = require "fcproc.core"
local images = require "spec.support.images"
local support = require "spec.support"

local must, fails = support.must, support.fails

local BASE = images.tar{
  { "etc/", kind = "dir" }, { "etc/hostname", data = "base\n", mtime = 100 }, { "etc/gone", data = "x" },
  { "bin/", kind = "dir" }, { "bin/sh", data = "#!/nowhere\n", mode = 493, uid = 5, gid = 6 },
  { "old/", kind = "dir" }, { "old/file", data = "x" }, { "link", kind = "symlink", target = "etc" },
}
local UPPER = images.tar{
  { "etc/hostname", data = "upper\n", mtime = 200 }, { "etc/.wh.gone" },
  { "old/", kind = "dir" }, { "old/.wh..wh..opq" }, { "old/new", data = ("y"):rep(5000) },
  { "bin/sh2", kind = "hardlink", target = "bin/sh" },
}

-- What a target of the format tar holds.
local function listed(path) return images.untar(support.read_file(path)) end

local function nothing_but(dir, ...)
  local names = {}
  for _, entry in ipairs(must(core.list_dir(dir.path))) do names[#names + 1] = entry.name end
  assert.are.same({ ... }, names)
end

describe("a build", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }

  local function is_flat(path)
    local found = listed(path)
    assert.are.equal("upper\n", found["etc/hostname"].data)
    assert.are.equal(200, found["etc/hostname"].mtime)
    assert.is_nil(found["etc/gone"] or found["etc/.wh.gone"] or found["old/file"])
    assert.are.equal(5000, #found["old/new"].data)
    assert.are.same({ 5, 6, 493 }, { found["bin/sh"].uid, found["bin/sh"].gid, found["bin/sh"].mode })
    local second = found["bin/sh2"]
    assert.are.same({ "hardlink", "bin/sh" }, { second.kind, (second.target:gsub("^%./", "")) })
    return found
  end

  it("of a folder is a clean disk, with what was changed told", function()
    support.sh{ "mkdir", "-p", dir:file("root/etc"), dir:file("root/sbin") }
    support.write_file(dir:file("root/etc/hostname"), "vm\n")
    support.write_file(dir:file("root/sbin/init"), "#!/bin/sh\n")
    local steps = {}
    local report = must(fcproc.image.build("dir:" .. dir:file("root"), dir:file("disk.ext4"),
      { progress = function(at) steps[at.step] = true end }))
    assert.are.equal("ext4", report.format)
    assert.are.equal(must(core.stat(dir:file("disk.ext4"))).size, report.bytes)
    assert.are.equal("/sbin/init", report.init)
    assert.are.equal(6, #report.edits)
    assert.are.same({ "bad_init", "missing_interpreter" },
      { report.warnings[1].name, report.warnings[2].name })
    assert.is_true(next(steps) ~= nil)
    assert.are.same({ "e2fsck" }, must(fcproc.image.verify(dir:file("disk.ext4"))).checked)
    local text = support.sh{ "debugfs", "-R", "cat /etc/hostname", dir:file("disk.ext4") }
    assert.is_truthy(text:find("vm\n", 1, true))
    nothing_but(dir, "disk.ext4", "root")
  end)

  it("of a tar is the same whatever it is packed by, and by whatever name it is called", function()
    support.write_file(dir:file("a.tar"), BASE)
    for program, name in pairs{ gzip = "a.gz", xz = "a.xz", zstd = "a.zst", bzip2 = "a.bz2" } do
      support.sh{ "sh", "-c", ("%s -c < %s > %s"):format(program, dir:file("a.tar"), dir:file(name)) }
    end
    local first
    for _, source in ipairs{ "tar:" .. dir:file("a.tar"), dir:file("a.tar"), "tar:" .. dir:file("a.gz"),
      dir:file("a.xz"), dir:file("a.zst"), "tar:" .. dir:file("a.bz2") } do
      local report = must(fcproc.image.build(source, dir:file("out.tar"), { format = "tar" }))
      assert.are.equal("tar", report.manifest.source.kind)
      local text = support.read_file(dir:file("out.tar"))
      first = first or text
      assert.is_true(first == text, source)
    end
    local found = listed(dir:file("out.tar"))
    assert.are.equal("base\n", found["etc/hostname"].data)
    assert.are.equal("/run/fcproc/resolv.conf", found["etc/resolv.conf"].target)
    assert.are.equal("dir", found.proc.kind)
    -- Not as it was, by its digest.
    local pin = images.sha256(BASE)
    must(fcproc.image.build(("tar:%s@%s"):format(dir:file("a.tar"), pin), dir:file("out.tar"),
      { format = "tar" }))
    local wrong = ("tar:%s@sha256:%s"):format(dir:file("a.tar"), ("0"):rep(64))
    local err = fails("invalid", fcproc.image.build(wrong, dir:file("other.tar"), { format = "tar" }))
    assert.is_truthy(err.message:find(pin, 1, true), err.message)
    assert.is_nil(core.stat(dir:file("other.tar")))
  end)

  it("of layers is what they make one after another, from a layout or any archive of one", function()
    local layout = images.layout(dir:file("layout"))
    local manifest = layout:image({ BASE, UPPER }, { gzip = true, created = "2024-02-29T12:00:00.5+01:00",
      config = { Cmd = { "/bin/sh" }, Env = { "A=b" } } })
    layout:write{ images.named(manifest, "localhost/me:1") }
    support.sh{ "tar", "-C", layout.path, "-cf", dir:file("oci.tar"), "." }
    support.sh{ "gzip", "-k", dir:file("oci.tar") }
    local options = { format = "tar" }
    local report = must(fcproc.image.build("oci:" .. layout.path, dir:file("1"), options))
    local found = is_flat(dir:file("1"))
    assert.are.equal(1709204400, found["etc/resolv.conf"].mtime)
    assert.are.same({ "/bin/sh" }, report.config.Cmd)
    assert.are.equal("linux/amd64", report.platform)
    assert.are.equal(manifest.digest, report.manifest.source.digest)
    assert.are.same({ images.sha256(BASE), images.sha256(UPPER) },
      { report.manifest.source.layers[1].diff_id, report.manifest.source.layers[2].diff_id })
    for _, source in ipairs{ layout.path, "oci:" .. layout.path .. ":localhost/me:1",
      "oci:" .. layout.path .. "@" .. manifest.digest, dir:file("oci.tar"),
      "oci-archive:" .. dir:file("oci.tar"),
      "oci-archive:" .. dir:file("oci.tar.gz") .. ":localhost/me:1", dir:file("oci.tar.gz") } do
      must(fcproc.image.build(source, dir:file("2"), options))
      assert.is_true(support.read_file(dir:file("1")) == support.read_file(dir:file("2")), source)
    end
  end)

  it("of what docker save writes, of old and of new, follows its links inside of it alone", function()
    local config = images.json{ os = "linux", architecture = "amd64",
      rootfs = { diff_ids = { images.sha256(BASE), images.sha256(UPPER), images.sha256(UPPER) } } }
    local name = images.sha256(config):sub(8)
    local list = images.json{ { Config = name .. ".json", RepoTags = { "me:1" },
      Layers = { "1/layer.tar", "2/layer.tar", "3/layer.tar" } } }
    local old = { { "1/layer.tar", data = BASE }, { "2/layer.tar", data = UPPER },
      { "3/layer.tar", kind = "symlink", target = "../../../2/layer.tar" },
      { name .. ".json", data = config },
      { "manifest.json", data = list } }
    support.write_file(dir:file("old.tar"), images.tar(old))
    support.sh{ "gzip", "-k", dir:file("old.tar") }
    for _, source in ipairs{ "docker-archive:" .. dir:file("old.tar"), dir:file("old.tar"),
      "docker-archive:" .. dir:file("old.tar.gz") .. ":me:1" } do
      must(fcproc.image.build(source, dir:file("out"), { format = "tar" }))
      is_flat(dir:file("out"))
    end
    old[2].data = BASE
    support.write_file(dir:file("bad.tar"), images.tar(old))
    local bad = "docker-archive:" .. dir:file("bad.tar")
    local err = fails("invalid", fcproc.image.build(bad, dir:file("bad")))
    assert.is_truthy(err.message:find("layer [23] of 3"), err.message)
    assert.is_truthy(err.message:find(images.sha256(BASE), 1, true),
      err.message)
    -- And nothing else is read in its place, as what comes from standard input.
    old[2].data = ""
    support.write_file(dir:file("bad.tar"), images.tar(old))
    err = fails("invalid", fcproc.image.build(bad, dir:file("bad")))
    assert.is_truthy(err.message:find("2/layer.tar is empty", 1, true), err.message)
    old[2] = { "2/layer.tar", kind = "symlink", target = "/etc/passwd" }
    support.write_file(dir:file("bad.tar"), images.tar(old))
    err = fails("not_found", fcproc.image.build(bad, dir:file("bad")))
    assert.is_truthy(err.message:find("2/layer.tar", 1, true), err.message)
    assert.is_nil(core.stat(dir:file("bad")))
  end)

  it("with a wrong layer is refused with its name, and leaves nothing", function()
    local layout = images.layout(dir:file("layout"))
    layout:write{ layout:image({ BASE, UPPER }, { gzip = true, change_config = function(config)
      config.rootfs.diff_ids[1] = images.sha256("another")
    end }) }
    support.write_file(dir:file("disk"), "what was there")
    local err = fails("invalid", fcproc.image.build("oci:" .. layout.path, dir:file("disk")))
    assert.is_truthy(err.message:find("layer 1 of 2", 1, true), err.message)
    assert.is_truthy(err.message:find(images.sha256(BASE), 1, true), err.message)
    assert.are.equal("what was there", support.read_file(dir:file("disk")))
    nothing_but(dir, "disk", "layout")
  end)

  it("takes a layer without its end, as umoci writes them, when its digests are right", function()
    local tar = images.tar{ { "last", data = "x" } }
    tar = tar:sub(1, 513) -- neither the rest of the last block nor an end mark
    for _, gzip in ipairs{ true, false } do
      local layout = images.layout(dir:file("layout" .. tostring(gzip)))
      layout:write{ layout:image({ BASE, tar, UPPER, tar }, { gzip = gzip }) }
      local report = must(fcproc.image.build("oci:" .. layout.path, dir:file("out"), { format = "tar" }))
      assert.are.equal("x", listed(dir:file("out")).last.data)
      assert.are.same({}, report.notes)
    end
    support.write_file(dir:file("a.tar"), tar)
    fails("invalid", fcproc.image.build(dir:file("a.tar"), dir:file("a")))
    -- Of no layer a builder leaves it out.
    local pinned = ("tar:%s@%s"):format(dir:file("a.tar"), images.sha256(tar))
    assert.is_truthy(must(fcproc.image.build(pinned, dir:file("a"))).notes[1]:find("end mark", 1, true))
  end)

  it("is limited in what is written, with holes where they become zeros", function()
    support.sh{ "mkdir", "-p", dir:file("root/var") }
    support.sh{ "truncate", "-s", "8T", dir:file("root/var/hole") }
    support.write_file(dir:file("root/file"), ("x"):rep(5000))
    local source = "dir:" .. dir:file("root")
    for _, format in ipairs{ "squashfs", "initrd" } do
      local err = fails("invalid", fcproc.image.build(source, dir:file("out"), { format = format }))
      assert.is_truthy(err.message:find("has 8796093027208 bytes with its holes", 1, true), err.message)
      local says = "the limit is 68719476736; the largest is /var/hole"
      assert.is_truthy(err.message:find(says, 1, true), err.message)
    end
    for _, format in ipairs{ "ext4", "tar" } do
      must(fcproc.image.build(source, dir:file("out"), { format = format }))
      local err = fails("invalid", fcproc.image.build(source, dir:file("new"),
        { format = format, limits = { bytes = 4999 } }))
      assert.is_truthy(err.message:find("has 5000 bytes, and the limit is 4999", 1, true), err.message)
    end
    support.sh{ "truncate", "-s", "8M", dir:file("root/var/hole") }
    local options = { format = "squashfs", limits = { apparent = (8 << 20) + 5000 } }
    must(fcproc.image.build(source, dir:file("out"), options))
    options.limits.apparent = (8 << 20) + 4999
    fails("invalid", fcproc.image.build(source, dir:file("new"), options))
    nothing_but(dir, "out", "root")
  end)

  it("takes what a path, or a name in the store, is sure to mean", function()
    local layout = images.layout(dir:file("layout"))
    local manifest = layout:image{ BASE, UPPER }
    layout:write{ images.named(manifest, "localhost/me:1"), images.named(layout:image{ BASE }, "base") }
    for _, name in ipairs{ ":localhost/me:1", "@" .. manifest.digest } do
      must(fcproc.image.build(layout.path .. name, dir:file("out"), { format = "tar" }))
      is_flat(dir:file("out"))
    end
    local err = fails("not_found", fcproc.image.build(layout.path .. ":other", dir:file("new")))
    assert.is_truthy(err.message:find("localhost/me:1", 1, true), err.message)
    local tar = dir:file("out")
    err = fails("not_found", fcproc.image.build(tar .. ":me:1", dir:file("new")))
    assert.is_truthy(err.message:find(("oci-archive:%s:me:1 or docker-archive:%s:me:1"):format(tar, tar), 1,
      true), err.message)
    must(fcproc.image.build(tar .. "@" .. images.sha256(support.read_file(tar)), dir:file("new")))
    fails("invalid", fcproc.image.build(tar .. "@" .. images.sha256("x"), dir:file("new")))
    fails("invalid", fcproc.image.build(dir.path .. "@" .. images.sha256("x"), dir:file("new")))
    local options = { format = "tar", name = "flat", store = dir:file("store") }
    must(fcproc.image.build(tar, nil, options))
    local again = { format = "tar", store = options.store, as_is = true }
    must(fcproc.image.build("flat", dir:file("again"), again))
    assert.is_true(support.read_file(tar) == support.read_file(dir:file("again")))
    local facts = must(fcproc.image.inspect("flat", { store = options.store }))
    assert.are.equal("no_init", facts.warnings[1].name)
    fails("not_found", fcproc.image.inspect("disk", { store = options.store }))
    must(fcproc.image.build("flat", nil, { name = "disk", store = options.store }))
    err = fails("unsupported", fcproc.image.inspect("disk", { store = options.store }))
    assert.is_truthy(err.message:find("take what it was built of, flat, or keep it as a tar", 1, true),
      err.message)
  end)

  it("puts in and takes out what it is told to", function()
    support.write_file(dir:file("a.tar"), BASE)
    local report = must(fcproc.image.build(dir:file("a.tar"), dir:file("out"), { format = "tar", time = 7,
      remove = { "/old" },
      overlay = { ["/etc/hostname"] = "mine\n", ["/new/file"] = { data = "x", mode = 384 } } }))
    local found = listed(dir:file("out"))
    assert.are.equal("mine\n", found["etc/hostname"].data)
    assert.are.same({ 7, 384 }, { found["new/file"].mtime, found["new/file"].mode })
    assert.is_nil(found.old or found["old/file"])
    local actions = {}
    for _, edit in ipairs(report.edits) do actions[edit.path] = edit.action end
    assert.are.same({ "remove", "put", "folder", "put" }, { actions["/old"], actions["/etc/hostname"],
      actions["/new"], actions["/new/file"] })
  end)

  it("can't be made of what can't be a source or a target", function()
    support.write_file(dir:file("a.tar"), BASE)
    support.write_file(dir:file("empty"), "")
    support.write_file(dir:file("text"), ("no archive\n"):rep(100))
    local target = dir:file("out")
    fails("not_found", fcproc.image.build(dir:file("nowhere"), target))
    fails("not_found", fcproc.image.build("oci:" .. dir:file("nowhere"), target))
    fails("not_found", fcproc.image.build("oci:" .. dir.path, target))
    fails("invalid", fcproc.image.build("dir:" .. dir:file("a.tar"), target))
    fails("invalid", fcproc.image.build("oci:" .. dir:file("a.tar"), target))
    fails("not_found", fcproc.image.build("oci-archive:" .. dir:file("a.tar"), target))
    fails("not_found", fcproc.image.build("docker-archive:" .. dir:file("a.tar"), target))
    fails("invalid", fcproc.image.build(dir:file("empty"), target))
    fails("invalid", fcproc.image.build(dir:file("text"), target))
    fails("invalid", fcproc.image.build(dir:file("a.tar"), target, { format = "qcow2" }))
    fails("invalid", fcproc.image.build(dir:file("a.tar"), target, { size = "1x" }))
    fails("invalid", fcproc.image.build(dir:file("a.tar"), target, { platform = "windows/amd64" }))
    fails("invalid", fcproc.image.build(dir:file("a.tar"), dir.path .. "/"))
    fails("not_found", fcproc.image.build(dir:file("a.tar"), dir:file("nowhere/out")))
    fails("conflict", fcproc.image.build(dir:file("a.tar"), dir.path))
    support.raises("unknown option 'fromat'", fcproc.image.build, "./x", target, { fromat = "tar" })
    nothing_but(dir, "a.tar", "empty", "text")
  end)

  it("ends with its context at any step, and leaves nothing", function()
    local layout = images.layout(dir:file("layout"))
    layout:write{ layout:image({ BASE, UPPER }, { gzip = true }) }
    local steps = 0
    must(fcproc.image.build("oci:" .. layout.path, dir:file("out"),
      { progress = function() steps = steps + 1 end }))
    os.remove(dir:file("out"))
    assert.is_true(steps >= 4)
    for stop = 1, steps do
      local ctx <close>, seen = fcproc.context(), 0
      local report, err = fcproc.image.build("oci:" .. layout.path, dir:file("out"), { progress = function()
        seen = seen + 1
        if seen == stop then ctx:cancel() end
      end }, ctx)
      if report then -- its last step was over
        assert.is_truthy(core.stat(dir:file("out")))
        os.remove(dir:file("out"))
      else
        fails("cancelled", report, err)
        nothing_but(dir, "layout")
      end
    end
    local ended <close> = fcproc.context()
    ended:cancel()
    fails("cancelled", fcproc.image.build("oci:" .. layout.path, dir:file("out"), nil, ended))
  end)

  it("into the store is made once, and again when anything is different", function()
    support.write_file(dir:file("a.tar"), BASE)
    local options = { name = "base:1", store = dir:file("store") }
    local first = must(fcproc.image.build(dir:file("a.tar"), nil, options))
    assert.is_true(first.made)
    local again = must(fcproc.image.build(dir:file("a.tar"), dir:file("copy.ext4"), options))
    assert.is_false(again.made)
    assert.are.equal(first.key, again.key)
    assert.is_true(support.read_file(dir:file("copy.ext4")) == support.read_file(first.target))
    options.journal = false
    assert.are_not.equal(first.key, must(fcproc.image.build(dir:file("a.tar"), nil, options)).key)
    local verified = must(fcproc.image.verify("base:1", { store = dir:file("store") }))
    assert.are.same({ "store", "e2fsck" }, verified.checked)
    -- What is damaged there is built anew, and that is told.
    options.journal = nil
    assert.is_nil(must(fcproc.image.build(dir:file("a.tar"), nil, options)).mended)
    local whole = support.read_file(first.target)
    support.sh{ "sh", "-c", "printf x | dd status=none bs=1 seek=70000 conv=notrunc of=" .. first.target }
    local err = fails("conflict", fcproc.image.verify("base:1", { store = dir:file("store") }))
    assert.is_truthy(err.message:find("build it again, which replaces it", 1, true), err.message)
    local mended = must(fcproc.image.build(dir:file("a.tar"), nil, options))
    assert.is_true(mended.made)
    assert.is_truthy(mended.mended:find("is not what it was", 1, true), mended.mended)
    assert.is_true(whole == support.read_file(first.target))
    must(fcproc.image.verify("base:1", { store = dir:file("store") }))
    fails("invalid", fcproc.image.build(dir:file("a.tar"), nil, { name = "../x", store = dir:file("store") }))
    fails("invalid", fcproc.image.build(dir:file("a.tar"), nil))
    for _, what in ipairs{ 5, { data = {} }, { from = "/a\0" } } do
      fails("invalid", fcproc.image.build(dir:file("a.tar"), nil,
        { name = "x", store = dir:file("store"), overlay = { ["/x"] = what } }))
    end
    -- What has its name in /tmp, as the folder of this spec has, is none of its business.
    options.name = dir.path:match("[^/]*$")
    must(fcproc.image.build(dir:file("a.tar"), nil, options))
  end)

  it("is verified: damage is found, and another's digest", function()
    support.write_file(dir:file("a.tar"), BASE)
    local report = must(fcproc.image.build(dir:file("a.tar"), dir:file("disk"), { digest = true }))
    assert.are.equal(report.digest, report.manifest.result.digest)
    must(fcproc.image.verify(dir:file("disk"), { digest = report.digest }))
    fails("conflict", fcproc.image.verify(dir:file("disk"), { digest = images.sha256("x") }))
    support.sh{ "debugfs", "-w", "-R", "clri /etc/hostname", dir:file("disk") }
    local err = fails("conflict", fcproc.image.verify(dir:file("disk")))
    assert.is_truthy(err.message:find("e2fsck", 1, true))
    fails("not_found", fcproc.image.verify(dir:file("nowhere")))
    local stored = { name = "me/disk:1", store = dir:file("store") }
    must(fcproc.image.build(dir:file("a.tar"), nil, stored))
    assert.are.equal("store", must(fcproc.image.verify(stored.name, { store = stored.store })).checked[1])
    fails("not_found", fcproc.image.verify("no/disk", { store = stored.store }))
    fails("not_found", fcproc.image.verify("./" .. stored.name, { store = stored.store }))
    fails("unsupported", fcproc.image.verify(dir:file("a.tar")))
    must(fcproc.image.build(dir:file("a.tar"), dir:file("packed"), { format = "squashfs" }))
    assert.are.same({ "size" }, must(fcproc.image.verify(dir:file("packed"))).checked)
    local packed = support.read_file(dir:file("packed"))
    for _, kept in ipairs{ 50, 200 } do
      support.write_file(dir:file("packed"), packed:sub(1, kept))
      fails("conflict", fcproc.image.verify(dir:file("packed")))
    end
  end)

  it("is made of no disk, of nothing, and not of its own target", function()
    support.write_file(dir:file("a.tar"), BASE)
    must(fcproc.image.build(dir:file("a.tar"), dir:file("disk")))
    support.write_file(dir:file("zeros"), ("\0"):rep(20000))
    for _, source in ipairs{ "disk", "zeros" } do
      for _, prefix in ipairs{ "", "tar:" } do
        local err = fails("invalid", fcproc.image.build(prefix .. dir:file(source), dir:file("new")))
        assert.is_truthy(err.message:find("no file in it", 1, true), err.message)
      end
    end
    support.sh{ "ln", dir:file("a.tar"), dir:file("same") }
    fails("conflict", fcproc.image.build(dir:file("a.tar"), dir:file("same")))
    nothing_but(dir, "a.tar", "disk", "same", "zeros")
  end)

  it("tells before it what is in a source", function()
    local layout = images.layout(dir:file("layout"))
    local manifest = layout:image({ BASE, UPPER }, { gzip = true, config = { Cmd = { "/bin/sh" } } })
    layout:write{ manifest }
    local facts = must(fcproc.image.inspect(layout.path, { folder = dir.path }))
    assert.are.equal("image", facts.kind)
    assert.are.equal(manifest.digest, facts.digest)
    assert.are.equal(2, #facts.layers)
    assert.are.equal("no_init", facts.warnings[1].name)
    nothing_but(dir, "layout")
  end)
end)
