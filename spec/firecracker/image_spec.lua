-- VMs whose root is an image of the store: by the facade, and by the command.

local boots = require "fcproc.image.boot"
local cli = require "spec.support.cli"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local images = require "spec.support.stored"
local support = require "spec.support"
local vms = require "spec.support.vms"

local must, fails = support.must, support.fails

local function contains(text, wanted)
  assert.is_truthy(text:find(wanted, 1, true), ("'%s' in:\n%s"):format(wanted, text))
end

describe("an image of the store", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  it("is the root of VMs that share it, and each has a disk of its own over it", function()
    local path = world.folder:file("store")
    local store = images.store(path, "one", "the image")
    local kernel, initrd = images.kernel(world.folder)
    local function spec(id, more)
      local made = { id = id, image = { "one", overlay = "64MiB", store = path }, kernel = kernel,
        initrd = initrd }
      for key, value in pairs(more or {}) do made[key] = value end
      return made
    end
    local list = must(fcproc.vm.launch_all(world.manager, { spec"a", spec"b", spec("c", { jailer = {
      uid = "auto" }, drives = { { path = vms.disk(world, "data", "data"), read_only = true } } }) }))
    local image = must(store:find("one"))
    for i, vm in ipairs(list) do
      must(must(vm:console()):wait_for("fcproc guest: ready", 10))
      vms.shows(vm, "the image", "fcproc.overlay=/dev/vd" .. ({ "b", "b", "c" })[i])
      local drives = vm:record().drives
      assert.are.same({ image.path, "overlay" }, { drives[1].path, drives[#drives].id })
    end
    assert.are.equal(3, #must(store:list())[1].users)
    must(fcproc.vm.stop_all(list, { { "sigkill", 5 } }))
    assert.are.same({}, must(store:list())[1].users)
    assert.are.equal(1, must(core.stat(image.path)).nlink)
  end)

  it("is copied for a VM that has no initrd, or that is to have a copy", function()
    local path = world.folder:file("store")
    local store = images.store(path, "one", "the image")
    local kernel, initrd = images.kernel(world.folder)
    for _, spec in ipairs{ { image = { "one", store = path }, kernel = kernel },
      { image = { "one", store = path, copy = "sparse" }, kernel = kernel, initrd = initrd } } do
      local vm <close> = vms.ready(world, spec)
      local drives = vm:record().drives
      assert.are.same({ 1, spec.image.copy or "reflink", false }, { #drives, drives[1].copy,
        drives[1].read_only })
      assert.are.same({}, must(store:list())[1].users)
    end
    local vm <close> = vms.ready(world, { image = { "one", store = path, overlay = false }, kernel = kernel })
    assert.are.same({ 1, true }, { #vm:record().drives, vm:record().drives[1].read_only })
  end)

  it("that is not there, or can't be, is told before anything is made", function()
    local path = world.folder:file("store")
    images.store(path, "one", "the image")
    local function launch(image) return fcproc.vm.launch(world.manager, { image = image }) end
    contains(fails("not_found", launch{ "two", store = path }).message, "there is no image two in " .. path)
    local host = boots.host
    boots.host = function() end -- as on a machine whose kernel is no file
    contains(fails("not_found", launch{ "one", store = path }).message, "no kernel to boot it with")
    boots.host = host
    fails("invalid", launch(3))
    fails("invalid", launch{ overlay = "1GiB" })
    support.raises("unknown option 'size'", fcproc.vm.launch, world.manager,
      { image = { "one", store = path, size = 1 }, kernel = images.kernel(world.folder) })
    local err = fails("invalid", require("fcproc.vm.spec").plan(world.manager, { image = "one" }))
    contains(err.message, 'image: is known to fcproc.vm alone: require "fcproc"')
  end)
end)

describe("fcproc image", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("lists, prunes and boots what is in the store", function()
    local world <close> = cli.world()
    local path = world.folder:file("store")
    images.store(path, "one", "the image")
    local kernel, initrd = images.kernel(world.folder)
    local function run(...) return cli.ok(world, ...) end
    local text = run("image", "--store", path, "kernel", "--default", kernel, "--initrd", initrd)
    contains(text, kernel)
    run("run", "--store", path, "--image", "one", "--id", "a", "-d", "--overlay", "64MiB")
    local info = cli.json(world, "info", "a")
    assert.are.same({ "root", "overlay" }, { info.drives[1].id, info.drives[2].id })
    local list = cli.json(world, "image", "--store", path, "list")
    assert.are.same({ 3, "one", "ext4" }, { #list, list[1].tags[1], list[1].kind })
    assert.are.same({ info.folder }, list[1].users)
    text = run("image", "--store", path, "list")
    assert.is_truthy(text:find("\none +aaaa1111 +ext4 +2 KiB +%d[%d-]+ [%d:]+ +1\n"), text)
    text = run("image", "--store", path, "prune", "--all")
    contains(text, "kept aaaa1111: " .. info.folder .. " needs it\n")
    run("kill", "a")
    text = run("image", "--store", path, "prune", "--all", "--dry-run")
    contains(text, "would remove image aaaa1111 (one)")
    run("image", "--store", path, "prune", "--all")
    list = cli.json(world, "image", "--store", path, "list")
    assert.are.same({ 1, "kernel" }, { #list, list[1].kind })
    text = run("image", "kernel", kernel)
    contains(text, "kind     vmlinux")
    local _
    _, text = cli.fails(world, 2, "run", "--overlay", "1GiB")
    contains(text, "are for --image REF")
    for _, words in ipairs{ { "image" }, { "image", "lst" } } do cli.fails(world, 2, table.unpack(words)) end
  end)
end)
