-- From what distributions ship to the kernel that Firecracker boots, on hand-made ones.

local support = require "spec.support"
local fcproc = require "fcproc"
local finally = require "fcproc.finally"
local kernels = require "spec.support.kernels"
local kernel = require "fcproc.image.kernel"

local must, fails = support.must, support.fails

local CONFIG = [[
#
# Linux/x86 6.1.0-13-amd64 Kernel Configuration
#
CONFIG_VIRTIO_MMIO=m
CONFIG_VIRTIO_BLK=m
CONFIG_ACPI=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_DEVTMPFS=y
CONFIG_TMPFS=y
CONFIG_MODULES=y
# CONFIG_BLK_DEV_INITRD is not set
CONFIG_EXT4_FS=y
CONFIG_KVM_GUEST=m
CONFIG_DEFAULT_HOSTNAME="(none)"
]]

-- How a kernel's build packs it, and how its name is here; all but gzip are followed by the size.
local PACKERS = { gzip = "gzip -nc", bzip2 = "bzip2 -c", xz = "xz --check=crc32 -c",
  lzma = "xz --format=lzma -c", zstd = "zstd -qc", lz4 = "lz4 -lqc" }

describe("a kernel", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }

  local function file(name, text)
    support.write_file(dir:file(name), text)
    return dir:file(name)
  end

  local function payload(name, vmlinux)
    local packed = kernels.packed(dir, PACKERS[name], vmlinux)
    return name == "gzip" and packed or packed .. string.pack("<I4", #vmlinux)
  end

  it("comes out of a bzImage, whatever packed it", function()
    local vmlinux = kernels.vmlinux("6.1.0-13-amd64")
    for name in pairs(PACKERS) do
      local path = file("vmlinuz", kernels.bzimage(payload(name, vmlinux), "6.1.0-13-amd64"))
      local made = must(kernel.kernel(path, { to = dir:file("vmlinux") }))
      assert.are.equal(vmlinux, support.read_file(dir:file("vmlinux")), name)
      assert.are.same({ path = dir:file("vmlinux"), kind = "bzImage", packing = name, machine = "x86_64",
        version = "6.1.0-13-amd64", bytes = #vmlinux }, made)
      os.remove(dir:file("vmlinux"))
    end
    -- CONFIG_KERNEL_UNCOMPRESSED
    local path = file("vmlinuz", kernels.bzimage(vmlinux .. string.pack("<I4", #vmlinux), "6.1.0"))
    local made = must(kernel.kernel(path, { to = dir:file("vmlinux") }))
    assert.is_nil(made.packing)
    assert.are.equal(vmlinux, support.read_file(dir:file("vmlinux")))
  end)

  it("comes out of a packed file, twice if that is a bzImage", function()
    local vmlinux = kernels.vmlinux("5.10.0+")
    local bzimage = kernels.bzimage(payload("xz", vmlinux), "5.10.0+")
    for _, case in ipairs{ { vmlinux, "vmlinux" }, { bzimage, "bzImage" } } do
      for _, packer in pairs(PACKERS) do
        local path = file("kernel.packed", kernels.packed(dir, packer, case[1]))
        local made = must(kernel.kernel(path, { to = dir:file("out") }))
        assert.are.same({ case[2], "5.10.0+" }, { made.kind, made.version })
        assert.are.equal(vmlinux, support.read_file(dir:file("out")))
      end
    end
    local thrice = kernels.packed(dir, "xz -c", kernels.packed(dir, "gzip -c", bzimage))
    assert.is_truthy(fails("invalid", kernel.kernel(file("thrice", thrice))).message
      :find("packed more often than a kernel is", 1, true))
  end)

  it("that becomes shorter while it is read is told to be so", function()
    local path = file("vmlinuz", kernels.bzimage(payload("xz", kernels.vmlinux("6.1.0")), "6.1.0"))
    local open, reads = io.open, 0
    local _ <close> = finally(function() io.open = open end) -- luacheck: ignore
    io.open = function(...) -- luacheck: ignore
      reads = reads + 1
      if reads == 3 then open(path, "wb"):close() end
      return open(...)
    end
    local err = fails("invalid", kernel.kernel(path))
    assert.is_truthy(err.message:find("became shorter", 1, true), err.message)
  end)

  it("that is uncompressed is only looked at, or copied", function()
    local vmlinux = kernels.vmlinux("6.1.0")
    local path = file("vmlinux", vmlinux)
    support.sh{ "ln", "-s", "vmlinux", dir:file("link") }
    assert.are.same({ path = path, kind = "vmlinux", machine = "x86_64", version = "6.1.0",
      bytes = #vmlinux }, must(kernel.kernel(dir:file("link"))))
    assert.are.equal(dir:file("copy"), must(kernel.kernel(path, { to = dir:file("copy") })).path)
    assert.are.equal(vmlinux, support.read_file(dir:file("copy")))
    -- What is packed and only looked at leaves nothing, and has no path.
    path = file("vmlinuz", kernels.bzimage(payload("zstd", vmlinux), "6.1.0"))
    assert.is_nil(must(kernel.kernel(path)).path)
    local image = ("\0"):rep(56) .. "ARM\x64" .. ("\0"):rep(100) .. "Linux version 6.6.1 (x)\0"
    local made = must(kernel.kernel(file("Image", image)))
    assert.are.same({ "Image", "aarch64", "6.6.1" }, { made.kind, made.machine, made.version })
  end)

  it("tells what Firecracker needs and it lacks, by its own configuration or the one beside it", function()
    local function check(made, from)
      assert.are.equal(from, made.config_from)
      assert.are.same({ "m", "y", '"(none)"', nil }, { made.config.VIRTIO_BLK, made.config.ACPI,
        made.config.DEFAULT_HOSTNAME, made.config.BLK_DEV_INITRD })
      local lacks = {}
      for _, lack in ipairs(made.lacks) do lacks[lack.option] = lack.essential end
      assert.is_true(lacks.CONFIG_BLK_DEV_INITRD)
      assert.is_false(lacks.CONFIG_IP_PNP)
      assert.is_false(lacks.CONFIG_KVM_GUEST) -- which is never a module
      assert.is_nil(lacks.CONFIG_EXT4_FS)
      assert.are.same({ "CONFIG_VIRTIO_MMIO", "CONFIG_VIRTIO_BLK" }, made.modules)
    end
    local own = kernels.vmlinux("6.1.0-13-amd64", kernels.packed(dir, "gzip -nc", CONFIG))
    check(must(kernel.kernel(file("own", own))), dir:file("own"))
    local path = file("vmlinuz-6.1.0-13-amd64",
      kernels.bzimage(payload("xz", kernels.vmlinux("6.1.0-13-amd64")), "6.1.0-13-amd64"))
    file("config-6.1.0-13-amd64", CONFIG)
    check(must(kernel.kernel(path)), dir:file("config-6.1.0-13-amd64"))
    support.sh{ "mkdir", dir:file("6.1.0-13-amd64") }
    path = file("6.1.0-13-amd64/vmlinuz", support.read_file(path))
    file("6.1.0-13-amd64/config", CONFIG)
    check(must(kernel.kernel(path)), dir:file("6.1.0-13-amd64/config"))
    -- A mark with nothing behind it that is one.
    for _, config in ipairs{ "", "no gzip", "\x1f\x8b\8", kernels.packed(dir, "gzip -nc", "not one") } do
      check(must(kernel.kernel(file("own", kernels.vmlinux("6.1.0-13-amd64", config)))),
        dir:file("config-6.1.0-13-amd64"))
    end
  end)

  it("is refused when it is cut, damaged or none, and nothing is written then", function()
    local vmlinux = kernels.vmlinux("6.1.0")
    local whole = kernels.bzimage(payload("xz", vmlinux), "6.1.0")
    local function refused(text, words, code)
      local err = fails(code or "invalid", kernel.kernel(file("bad", text), { to = dir:file("out") }))
      assert.is_truthy(err.message:find(dir:file("bad"), 1, true), err.message)
      assert.is_truthy(err.message:find(words, 1, true), err.message)
      assert.is_nil(support.read_file(dir:file("out")))
    end
    refused("", "is no kernel that is known here")
    refused("#!/bin/sh\n", "is no kernel that is known here")
    refused(whole:sub(1, 1200), "was cut, or is damaged")
    refused(kernels.bzimage("nothing that packs", "6"), "nobody knows what packed the kernel in it")
    refused(kernels.bzimage(payload("xz", vmlinux), "6", { offset = 0xffffffff }), "was cut, or is damaged")
    refused(kernels.bzimage(payload("xz", vmlinux), "6", { len = 0 }), "was cut, or is damaged")
    refused(kernels.bzimage(payload("xz", vmlinux), "6", { protocol = 0x207 }), "from before", "unsupported")
    refused(kernels.bzimage(payload("xz", vmlinux):sub(1, -5) .. "\1\0\0\0", "6"),
      "should have 1 bytes, and has")
    refused(kernels.bzimage("\x89LZO\0\13\10\26\10xxxxxxxx", "6"), "packed by lzo", "unsupported")
    refused(kernels.bzimage(payload("gzip", vmlinux:sub(1, -100)), "6"),
      "lie outside of it, as of a file that was cut")
    refused(vmlinux:sub(1, -2), "lie outside of it, as of a file that was cut")
    refused(kernels.elf(3, {}, { "x" }), "an ELF file of another kind: shared")
    refused(kernels.packed(dir, "xz -c", "no kernel"), "is no kernel that is known here")
    fails("not_found", kernel.kernel(dir:file("none")))
    fails("conflict", kernel.kernel(dir.path))
    fails("not_found", kernel.kernel(file("good", vmlinux), { to = dir:file("none/out") }))
  end)

  it("is read within bounds wherever its headers are wrong", function()
    local vmlinux = kernels.elf(2, {}, { "x" })
    local whole = kernels.bzimage(payload("gzip", vmlinux), "6")
    for _, at in ipairs{ 0x1f1, 0x1fe, 0x202, 0x206, 0x20e, 0x20f, 0x248, 0x24b, 0x24c, 0x24f } do
      for _, value in ipairs{ "\0", "\x7f", "\xff" } do
        local path = file("odd", whole:sub(1, at) .. value .. whole:sub(at + 2))
        local made, err = kernel.kernel(path)
        assert.is_true(made ~= nil or fcproc.is_error(err))
      end
    end
    for at = 1, #vmlinux do
      local path = file("odd", vmlinux:sub(1, at - 1) .. "\xff" .. vmlinux:sub(at + 1))
      local made, err = kernel.kernel(path)
      assert.is_true(made ~= nil or fcproc.is_error(err))
    end
  end)

  it("ends with its context, and leaves nothing", function()
    local path = file("vmlinuz", kernels.bzimage(payload("xz", kernels.vmlinux("6.1.0")), "6.1.0"))
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", kernel.kernel(path, { to = dir:file("out") }, ctx))
    assert.are.equal("packed\0plain\0vmlinuz\0", (support.sh{ "sh", "-c",
      'cd "$1" && find . -type f -printf "%P\\0" | sort -z', "sh", dir.path }))
  end)
end)
