-- Sizes and limits that are compared before anything is made.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local schema = require "fcproc.vm.schema"
local sizes = require "fcproc.vm.sizes"
local specs = require "fcproc.vm.spec"

local must, fails = support.must, support.fails
local MIB = 1024 * 1024

describe("a VM's sizes", function()
  local world, manager

  before_each(function()
    support.before_each()
    world = support.world()
    manager = world.manager
  end)

  after_each(function()
    assert.are.equal("", support.sh{ "find", world.folder.path, "-name", "vm.json" })
    getmetatable(world).__close(world)
    support.after_each()
  end)

  -- A file that starts so, as large.
  local function file(name, size, head)
    local path = world.folder:file(name)
    support.write_file(path, head or "")
    support.sh{ "truncate", "-s", tostring(size), path }
    return path
  end

  local function refused(place, text, spec, code)
    local err = fails(code or "invalid", fcproc.vm.launch(manager, spec))
    for _, problem in ipairs(err.problems) do
      if problem.place == place and problem.text:find(text, 1, true) then return problem.text end
    end
    error(("nothing of '%s' about %s: %s"):format(text, place, err.message), 2)
  end

  -- The only warning.
  local function warned(spec, ...)
    local plan = must(specs.plan(manager, spec))
    assert.are.equal(1, #(plan.warnings or {}), "warnings")
    local warning = plan.warnings[1]
    assert.is_truthy(warning.fix and #warning.name > 0)
    for _, text in ipairs{ ... } do
      assert.is_truthy(warning.message:find(text, 1, true), warning.message)
    end
    return warning
  end

  local function silent(spec)
    local plan = must(specs.plan(manager, spec))
    assert.is_nil(plan.warnings)
  end

  it("has disks with room, that Firecracker can read", function()
    local function disk(path, fields)
      local drive = { path = path }
      for key, value in pairs(fields or {}) do drive[key] = value end
      return { drives = { drive } }
    end
    for _, size in ipairs{ 0, 1, 511 } do
      refused("drives[1].path", ("has %d bytes, and a disk has 512"):format(size), disk(file("a", size)))
    end
    silent(disk(file("a", 512)))
    for format, head in pairs{ qcow2 = "QFI\xfb\0\0\0\3", vmdk = "KDMV\1", vhdx = "vhdxfile",
      vpc = "conectix", vdi = ("\0"):rep(64) .. "\x7f\x10\xda\xbe" } do
      refused("drives[1].path", ("is a %s image"):format(format), disk(file("a", 65536, head)))
    end
    for format, head in pairs{ gzip = "\x1f\x8b\8\0", xz = "\xfd7zXZ\0", zstd = "\x28\xb5\x2f\xfd",
      bzip2 = "BZh9" } do
      local path = file("a", 65536, head)
      refused("drives[1].path", ("is compressed (%s)"):format(format), disk(path, { root = true }))
      silent(disk(path, { read_only = true })) -- a guest may read it so
    end
    local warning = warned(disk(file("a", 1000)), "drives[1].path", "has 1000 bytes", "the last 488")
    assert.are.equal("drive", warning.name)
  end)

  it("has block devices, whose size is not in their inode", function()
    local image = file("image", 65536, "QFI\xfb")
    local device = support.sh{ "losetup", "-f", "--show", image }:gsub("%s+$", "")
    local ok, err = pcall(function()
      assert.are.equal(65536, (must(core.disk_look(device, 4))))
      refused("drives[1].path", "is a qcow2 image", { drives = { { path = device } } })
      support.write_file(image, ("\0"):rep(65536))
      support.sh{ "losetup", "-c", device }
      silent{ drives = { { path = device } } }
    end)
    support.sh{ "losetup", "-d", device }
    if not ok then error(err, 0) end
    fails("conflict", core.disk_look("/dev/null", 4))
    fails("conflict", core.disk_look(world.folder.path, 4))
    fails("not_found", core.disk_look("/none", 4))
    support.raises("0 to 4096", core.disk_look, image, 4097)
  end)

  it("tells of a table of partitions where the whole disk is the root", function()
    local mbr = ("\0"):rep(446) .. "\x80\0\0\0\x83\0\0\0\0\8\0\0\0\x10\0\0" .. ("\0"):rep(48) .. "\x55\xaa"
    local gpt = ("\0"):rep(512) .. "EFI PART"
    local fat = ("boot code"):rep(60):sub(1, 510) .. "\x55\xaa"
    local ext4 = mbr .. ("\0"):rep(1080 - 512) .. "\x53\xef"
    for _, head in ipairs{ mbr, gpt } do
      local path = file("a", 65536, head)
      warned({ drives = { { path = path, root = true } } }, "has a table of partitions")
      silent{ drives = { { path = path } } }
    end
    for _, head in ipairs{ fat, ext4, "", ("\0"):rep(510) .. "\x55\xaa" } do
      silent{ drives = { { path = file("a", 65536, head), root = true } } }
    end
  end)

  -- An ELF kernel of one segment.
  local function kernel(address, in_memory)
    return file("vmlinux", 4096, "\x7fELF\2\1\1" .. ("\0"):rep(9) .. string.pack(
      "<I2I2I4I8I8I8I4I2I2I2I2I2I2", 2, 62, 1, address, 64, 0, 0, 64, 56, 1, 0, 0, 0)
      .. string.pack("<I4I4I8I8I8I8I8I8", 1, 5, 0, address, address, 100, in_memory, 4096))
  end

  it("has memory for its kernel and its initrd", function()
    local path = kernel(16 * MIB, 40 * MIB)
    refused("initrd", "is empty", { kernel = path, initrd = file("initrd", 0) })
    local text = refused("initrd", "the kernel ends at 56 MiB", { kernel = path,
      initrd = file("initrd", 80 * MIB) })
    assert.is_truthy(text:find("fit into the 128 MiB", 1, true) and text:find("mem_mib = 137", 1, true), text)
    silent{ kernel = path, initrd = file("initrd", 80 * MIB), mem_mib = 137 }
    silent{ kernel = path, initrd = file("initrd", 72 * MIB) } -- up to the kernel's end
    refused("initrd", "fit into", { kernel = path, initrd = file("initrd", 72 * MIB + 1) })
    refused("initrd", "fit into", { kernel = path, initrd = file("initrd", 200 * MIB) })
    refused("mem_mib", "is 55, and the kernel", { kernel = path, mem_mib = 55 })
    refused("mem_mib", "is 2, and the kernel", { mem_mib = 2 }) -- the built-in guest's
    silent{ mem_mib = 3 }
    silent{ kernel = kernel(16 * MIB, 40 * MIB), mem_mib = 4096, initrd = file("initrd", 3000 * MIB) }
    refused("initrd", "fit into", { kernel = path, mem_mib = 8192, initrd = file("initrd", 3300 * MIB) })
    for _, odd in ipairs{ { -1, 100 }, { 0, -1 }, { math.maxinteger, math.maxinteger } } do
      assert.is_truthy(specs.plan(manager, { kernel = kernel(odd[1], odd[2]) }))
    end
  end)

  it("has huge pages for all of its fleet", function()
    local folder = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
    local function number(name) return math.tointeger(tonumber(support.read_file(folder .. name))) end
    local free = number("free_hugepages") - number("resv_hugepages") + math.max(0,
      number("nr_overcommit_hugepages") - number("surplus_hugepages"))
    local text = refused("huge_pages", ("and %d are free"):format(free), { mem_mib = 2 * free + 16,
      huge_pages = "2M" })
    assert.is_truthy(text:find(("vm.nr_hugepages=%d"):format(number("nr_hugepages") + 8), 1, true), text)
    -- Each alone would do.
    local function of(fleet, mib)
      local check = schema.checker("spec")
      sizes.huge_pages(check, { spec = { huge_pages = "2M", mem_mib = mib } }, fleet)
      return check.problems[1] and check.problems[1].text
    end
    local list = { { huge_pages = "2M", mem_mib = 64 }, {}, { huge_pages = "2M" }, { mem_mib = 512 }, 3 }
    assert.are.equal(80, sizes.huge_memory(list)) -- 16 for the built-in guest
    assert.is_nil(of({ huge_free = 40, huge_mib = 80 }, 64))
    assert.is_truthy(of({ huge_free = 39, huge_mib = 80 }, 64):find(
      "80 MiB of all these VMs take 40 pages of 2 MiB, and 39 are free", 1, true))
    assert.is_nil(of({ huge_free = 32 }, 64))
    assert.is_truthy(of({ huge_free = 31 }, 64))
  end)

  it("is told of limits that end the VM in time", function()
    local function jail(fields)
      fields.uid, fields.gid = 1000, 1000
      return fields
    end
    local warning = warned({ jailer = jail{ limits = { fsize = 15 * MIB } } }, "SIGXFSZ",
      "15 MiB of any file in all its life", "its console or log may be 16 MiB")
    assert.are.equal("fsize", warning.name)
    silent{ jailer = jail{ limits = { fsize = 16 * MIB } } }
    silent{ jailer = jail{ limits = { fsize = MIB } }, console_limit = MIB }
    local disk = file("disk", 20 * MIB)
    support.sh{ "chown", "1000", disk }
    warned({ jailer = jail{ limits = { fsize = 16 * MIB } }, drives = { { path = disk } } },
      "drives[1] has 20 MiB")
    silent{ jailer = jail{ limits = { fsize = 16 * MIB } }, drives = { { path = disk, read_only = true } } }
    for _, name in ipairs{ "memory.max", "memory.high", "memory.limit_in_bytes" } do
      local with = { jailer = jail{ cgroups = { [name] = "127M" } }, mem_mib = 128 }
      warning = warned(with, ("jailer.cgroups['%s'] allows 127 MiB, and the guest has 128"):format(name))
      assert.are.equal("memory", warning.name)
      with.mem_mib = 127
      silent(with)
      silent{ jailer = jail{ cgroups = { [name] = "max" } }, mem_mib = 128 }
    end
  end)

  it("is told of the cgroup that it shall be in, and of those above", function()
    local outer = world.folder:file("outer") -- a stand-in for a cgroup: the files that are read
    for _, folder in ipairs{ outer, outer .. "/inner" } do
      support.sh{ "mkdir", folder }
      support.write_file(folder .. "/cgroup.procs", "")
      support.write_file(folder .. "/memory.max", "max\n")
    end
    silent{ cgroup = outer .. "/inner", mem_mib = 64 }
    support.write_file(outer .. "/memory.max", ("%d\n"):format(32 * MIB))
    warned({ cgroup = outer .. "/inner", mem_mib = 64 }, outer .. "/memory.max allows 32 MiB")
    silent{ cgroup = outer .. "/inner", mem_mib = 32 }
  end)

  it("has descriptors that this process may give, and in a jail by the jailer", function()
    refused("limits", "jailer.limits", { limits = { no_file = 4096 }, jailer = { uid = 1000, gid = 1000 } })
    refused("limits.no_file", "63 is out of range", { limits = { no_file = 63 } })
    refused("limits.files", "unknown; known: no_file", { limits = { files = 1 } })
    silent{ limits = { no_file = 4096 } }
  end)

  it("allow a snapshot that ends well", function()
    -- A stand-in for a VM: this process, whose limit of a file's size can be chosen in a child.
    local function vm(pid, record, version)
      return { pid = function() return pid end, machine = { version = version },
        journal = { record = record } }
    end
    local process <close> = must(fcproc.spawn({ "prlimit", "--fsize=" .. 16 * MIB - 1, "sleep", "60" },
      { stdout = "null" }))
    support.eventually("its limit is set", function()
      return support.read_file(("/proc/%d/limits"):format(process:pid())):find("Max file size%s+%d")
    end)
    local err = fails("invalid", sizes.snapshot(vm(process:pid(), { mem_mib = 16, jail = {} }, "1.12.1"), {}))
    assert.is_truthy(err.message:find("jailer.limits.fsize", 1, true)
      and err.message:find("would have 16 MiB", 1, true), err.message)
    err = fails("invalid", sizes.snapshot(vm(process:pid(), { mem_mib = 16 }, "1.12.1"), {}))
    assert.is_truthy(err.message:find("ulimit -f", 1, true), err.message)
    must(sizes.snapshot(vm(process:pid(), { mem_mib = 15 }, "1.12.1"), {}))
    process:signal("KILL")
    process:wait(5)
    local huge = { mem_mib = 16, huge_pages = "2M" }
    err = fails("unsupported", sizes.snapshot(vm(support.own_pid(), huge, "1.16.1"), {}))
    assert.is_truthy(err.message:find("for_uffd = true", 1, true), err.message)
    must(sizes.snapshot(vm(support.own_pid(), huge, "1.16.1"), { for_uffd = true }))
    must(sizes.snapshot(vm(support.own_pid(), huge, "1.17.0-dev"), {}))
  end)
end)
