-- Which modules of a kernel are chosen, and in which order: by what hand-made ones say of themselves.

local support = require "spec.support"
local elf = require "fcproc.image.elf"
local kernels = require "spec.support.kernels"
local modinfo = require "fcproc.image.modinfo"
local modules = require "fcproc.image.modules"

local must, fails = support.must, support.fails

local V = "vermagic=6.1.0-13-amd64 SMP preempt "

describe("a kernel's modules", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }

  local function choose(files, names, unpack)
    return modules.choose(kernels.folder_of(dir, files), names, unpack or error)
  end

  local function order(set)
    local names = {}
    for i, file in ipairs(set.list) do names[i] = file.name end
    return table.concat(names, " ")
  end

  local LIKE_EXT4 = {
    ["kernel/fs/ext4/ext4.ko"] = { V, "alias=fs-ext4", "depends=jbd2,mbcache",
      "softdep=pre: crypto-crc32c post: after" },
    ["kernel/fs/jbd2/jbd2.ko"] = { V, "depends=mbcache", "softdep=pre: crypto-crc32c" },
    ["kernel/fs/mbcache.ko"] = { V, "depends=" },
    ["kernel/fs/after.ko"] = { V },
    ["kernel/crypto/crc32c_generic.ko"] = { V, "alias=crypto-crc32c" },
    ["kernel/arch/x86/crypto/crc32c-intel.ko"] = { V, "alias=crc32c", "alias=crypto-crc32c" },
    ["kernel/drivers/crypto/vendor.ko"] = { V, "alias=crypto-crc32c" },
    ["kernel/lib/libother.ko"] = { V, "alias=crypto-other" },
  }

  it("are those that are needed, softly too and by an alias, each after what it needs", function()
    local set = must(choose(LIKE_EXT4, { "ext4" }))
    assert.are.equal("crc32c_generic crc32c_intel mbcache jbd2 ext4 after", order(set))
    assert.are.same({ "6.1.0-13-amd64", "x86_64", {}, {} },
      { set.version, set.machine, set.builtin, set.absent })
    -- depmod knows of another; what it says is looked up in the module.
    support.write_file(dir:file("modules.alias"), "# Aliases\nalias crypto-crc32c vendor\n"
      .. "alias crypto-crc32c mbcache\nalias of:N*T* ext4\n")
    assert.are.equal("vendor mbcache jbd2 ext4 after", order(must(choose({}, { "ext4" }))))
  end)

  it("are built in, or absent, and both are told", function()
    local set = must(choose({
      ["modules.builtin"] = "kernel/drivers/block/virtio_blk.ko\nkernel/lib/crc16.ko\n",
      ["modules.builtin.modinfo"] = "crc32c_generic.alias=crypto-crc32c\0crc16.license=GPL\0",
      ["kernel/fs/ext4.ko"] = { V, "depends=crc16", "softdep=pre: crypto-crc32c  pre: nobody" },
      ["kernel/fs/erofs.ko"] = { V, "depends=lost" },
      ["kernel/fs/over-erofs.ko"] = { V, "depends=erofs" },
    }, { "virtio-blk", "ext4", "over_erofs", "erofs", "virtio_rng" }))
    assert.are.equal("ext4", order(set))
    assert.are.same({ "virtio_blk", "crc32c_generic", "crc16" }, set.builtin)
    assert.are.same({ { name = "nobody", wanted_by = "ext4", needed = false },
      { name = "lost", wanted_by = "erofs", needed = true },
      { name = "virtio_rng", needed = true } }, set.absent)
  end)

  it("are compressed, and unpacked only where they are wanted", function()
    local asked = {}
    local set = must(choose({ ["kernel/a.ko.xz"] = "packed a", ["kernel/b.ko.zst"] = "packed b",
      ["kernel/c.ko.gz"] = "packed c", ["kernel/d.ko.lz4"] = "x", ["kernel/e.ko.debug"] = "x" }, { "a", "d" },
      function(path, limit)
        assert.is_true(limit > 0)
        asked[#asked + 1] = path:match("[^/]*$")
        return kernels.module{ V, path:find("a.ko", 1, true) and "depends=b" or "depends=" }
      end))
    assert.are.equal("b a", order(set))
    assert.are.same({ "a.ko.xz", "b.ko.zst" }, asked)
    assert.are.same({ { name = "d", needed = true } }, set.absent)
    assert.are.equal(kernels.module{ V, "depends=" }, set.list[1].data)
  end)

  it("replace others of their name when they are updates, and links are not followed", function()
    kernels.folder_of(dir, { ["kernel/a.ko"] = { V, "depends=gone" }, ["updates/a.ko"] = { V },
      ["elsewhere/b.ko"] = { V } })
    support.sh{ "mv", dir:file("elsewhere"), dir:file("../elsewhere-" .. dir.path:match("[^.]*$")) }
    local outside = dir.path .. "/../elsewhere-" .. dir.path:match("[^.]*$")
    support.sh{ "ln", "-s", outside, dir:file("build") }
    local set = must(choose({}, { "a", "b" }))
    support.sh{ "rm", "-r", outside }
    assert.are.equal(dir:file("updates/a.ko"), set.list[1].path)
    assert.are.same({ { name = "b", needed = true } }, set.absent)
  end)

  it("are refused when they need each other in a circle or a long chain, but not softly", function()
    local err = fails("invalid", choose({ ["a.ko"] = { V, "depends=b" }, ["b.ko"] = { V, "depends=c" },
      ["c.ko"] = { V, "depends=a" } }, { "a" }))
    assert.is_truthy(err.message:find("in a circle: a, by c", 1, true), err.message)
    assert.are.equal("y x", order(must(choose({ ["x.ko"] = { V, "softdep=pre: y" },
      ["y.ko"] = { V, "softdep=pre: x post: x" } }, { "x" }))))
    local long = {}
    for i = 1, 200 do long["n" .. i .. ".ko"] = { V, "depends=n" .. i + 1 } end
    fails("invalid", choose(long, { "n1" }))
  end)

  it("are of one kernel", function()
    local err = fails("invalid", choose({ ["a.ko"] = { V, "depends=b" },
      ["b.ko"] = { "vermagic=5.10.0 SMP" } }, { "a" }))
    assert.is_truthy(err.message:find("b.ko is for 5.10.0", 1, true), err.message)
    fails("invalid", choose({ ["c.ko"] = { V }, ["d.ko"] = kernels.module({ V }, 183) }, { "c", "d" }))
  end)

  it("are not there in another folder", function()
    fails("not_found", modules.choose(dir:file("none"), { "a" }, error))
    assert.is_truthy(fails("not_found", modules.choose(dir.path, { "a" }, error)).message
      :find("give the folder of one kernel's", 1, true))
  end)

  it("are refused when they are cut anywhere, and read within bounds whatever they say", function()
    local whole = kernels.module{ V, "depends=a,b", "softdep=pre: c" }
    local function read(text)
      return modinfo.read(function(offset, size) return text:sub(offset + 1, offset + size) end, #text)
    end
    assert.are.same({ "a", "b" }, must(read(whole)).depends)
    for size = 0, #whole - 1 do
      local info, why = read(whole:sub(1, size))
      assert.is_nil(info, size)
      assert.are.equal("string", type(why))
    end
    local err = fails("invalid", choose({ ["a.ko"] = whole:sub(1, #whole - 1) }, { "a" }))
    assert.is_truthy(err.message:find("a.ko is damaged, or no module: its section headers lie outside of "
      .. "it, as of a file that was cut", 1, true), err.message)
    -- Every byte of the headers is every edge.
    for at = 1, #whole do
      for _, value in ipairs{ "\0", "\x7f", "\x80", "\xff" } do
        read(whole:sub(1, at - 1) .. value .. whole:sub(at + 1))
      end
    end
    for _, text in ipairs{ "", "no module", kernels.elf(2, {}, {}), kernels.elf(1, {}, {}),
      kernels.elf(1, { { ".modinfo", ("x"):rep((1 << 20) + 1) } }, {}) } do
      assert.is_nil(read(text))
    end
    assert.is_nil(elf.open(function() return "short" end, 1000))
    assert.are.same({ "x" }, modinfo.parse("depends=x\0Depends=y\0sdepends\0=\0depends_=z").depends)
  end)
end)
