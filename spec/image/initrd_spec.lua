-- Initrds of hand-made modules: what is in them, and that it is always the same. spec/linux boots one.

local support = require "spec.support"
local fcproc = require "fcproc"
local guest = require "fcproc.guest"
local initrd = require "fcproc.image.initrd"
local kernels = require "spec.support.kernels"

local must, fails = support.must, support.fails

local V = "vermagic=6.1.0-13-amd64 SMP "

describe("an initrd", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }
  local folder

  before_each(function()
    folder = kernels.folder_of(dir, {
      ["modules/modules.builtin"] = "kernel/fs/overlay.ko\n",
      ["modules/kernel/virtio/virtio_ring.ko"] = { V }, ["modules/kernel/virtio/virtio.ko"] = { V },
      ["modules/kernel/virtio/virtio_mmio.ko"] = { V, "depends=virtio,virtio_ring" },
      ["modules/kernel/net/virtio-net.ko"] = { V, "depends=virtio" },
      ["modules/kernel/fs/ext4.ko.xz"] = kernels.packed(dir, "xz -c", kernels.module{ V, "depends=jbd2" }),
      ["modules/kernel/fs/jbd2.ko.zst"] = kernels.packed(dir, "zstd -qc", kernels.module{ V }),
      ["modules/kernel/fs/xfs.ko.gz"] = kernels.packed(dir, "gzip -c", kernels.module{ V }),
    }) .. "/modules"
  end)

  local function listed(path, ...)
    return support.collect(support.sh{ "sh", "-c", 'cpio --quiet -t <"$1"', "sh", path, ... }, "[^\n]+")
  end

  it("holds init, the modules unpacked, and their order", function()
    local made = must(initrd.initrd{ to = dir:file("out"), modules = folder .. "/" })
    assert.are.equal("virtio virtio_ring virtio_mmio virtio_net jbd2 ext4",
      table.concat(made.modules, " "))
    assert.are.same({ "6.1.0-13-amd64", "x86_64", { "overlay" } },
      { made.version, made.machine, made.builtin })
    local absent = {}
    for i, one in ipairs(made.absent) do absent[i] = one.name end
    assert.are.equal("virtio_pci virtio_blk virtio_rng virtio_balloon vmw_vsock_virtio_transport virtio_pmem "
      .. "nd_pmem virtio_mem squashfs erofs", table.concat(absent, " "))
    support.sh({ "sh", "-c", "mkdir x && cd x && cpio --quiet -idm <../out" }, { cwd = dir.path })
    assert.are.equal(support.read_file(must(guest.init_path())), support.read_file(dir:file("x/init")))
    assert.are.equal("755 0:0 0\n", support.sh{ "stat", "-c", "%a %u:%g %Y", dir:file("x/init") })
    assert.are.equal("virtio.ko\nvirtio_ring.ko\nvirtio_mmio.ko\nvirtio_net.ko\njbd2.ko\next4.ko\n",
      support.read_file(dir:file("x/modules/list")))
    assert.are.equal(kernels.module{ V, "depends=jbd2" }, support.read_file(dir:file("x/modules/ext4.ko")))
    assert.are.equal("5:1\n", support.sh{ "stat", "-c", "%Hr:%Lr", dir:file("x/dev/console") })
    assert.are.equal(made.bytes, #support.read_file(dir:file("out")))
  end)

  it("is the same for the same modules, whatever their files' times and order are", function()
    must(initrd.initrd{ to = dir:file("first"), modules = folder })
    support.sh{ "cp", "-r", folder, dir:file("copy") }
    support.sh{ "sh", "-c", 'find "$1" -exec touch -d 2001-01-01 {} +', "sh", dir:file("copy") }
    must(initrd.initrd{ to = dir:file("second"), modules = dir:file("copy") })
    assert.are.equal(support.read_file(dir:file("first")), support.read_file(dir:file("second")))
    for _, name in ipairs{ "first.gz", "second.gz" } do
      must(initrd.initrd{ to = dir:file(name), modules = folder, gzip = true })
    end
    local packed = support.read_file(dir:file("first.gz"))
    assert.are.equal(packed, support.read_file(dir:file("second.gz")))
    assert.are.equal(support.read_file(dir:file("first")), support.sh{ "gzip", "-dc", dir:file("first.gz") })
  end)

  it("has further modules, another init, or none of a distribution's", function()
    local made = must(initrd.initrd{ to = dir:file("out"), modules = folder, more = { "xfs", "no-such" } })
    assert.are.equal("xfs", made.modules[#made.modules])
    assert.are.same({ name = "no_such", needed = true }, made.absent[#made.absent])
    support.write_file(dir:file("init"), "of one's own")
    made = must(initrd.initrd{ to = dir:file("out"), init = dir:file("init") })
    assert.are.same({ {}, {}, {} }, { made.modules, made.builtin, made.absent })
    assert.are.equal(". dev dev/console init modules modules/list proc root run sys",
      table.concat(listed(dir:file("out")), " "))
  end)

  it("is not made of damaged modules, of none, or without a place, and leaves nothing", function()
    local function refused(code, options)
      options.to = options.to or dir:file("out")
      fails(code, initrd.initrd(options))
      assert.is_nil(support.read_file(dir:file("out")))
    end
    refused("not_found", { modules = dir:file("none") })
    refused("not_found", { init = dir:file("none") })
    refused("not_found", { to = dir:file("none/out") })
    local whole = support.read_file(folder .. "/kernel/fs/jbd2.ko.zst")
    support.write_file(folder .. "/kernel/fs/jbd2.ko.zst", whole:sub(1, -20))
    refused("invalid", { modules = folder })
    support.write_file(folder .. "/kernel/fs/jbd2.ko.zst", kernels.packed(dir, "zstd -qc", "no module"))
    refused("invalid", { modules = folder })
    support.raises("to must be a string", initrd.initrd, { modules = folder })
    support.raises("unknown option 'module'", initrd.initrd, { module = folder, to = "/x" })
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", initrd.initrd({ to = dir:file("out") }, ctx))
  end)
end)
