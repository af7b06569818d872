-- A VM's spec is checked whole before anything is made: every mistake comes back, with its place.

local support = require "spec.support"
local fcproc = require "fcproc"
local specs = require "fcproc.vm.spec"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails

-- The mistakes by their place; the spec must have some.
local function problems(manager, spec)
  local err = fails("invalid", fcproc.vm.launch(manager, spec))
  local found = {}
  for _, problem in ipairs(err.problems) do
    assert.is_nil(found[problem.place], "twice: " .. problem.place)
    found[problem.place] = problem.text
    assert.is_truthy(err.message:find(problem.text, 1, true))
  end
  return found, err
end

-- Exactly these places, each with this text in it.
local function has(wanted, manager, spec)
  local found = problems(manager, spec)
  for place, text in pairs(wanted) do
    assert.is_truthy(found[place], ("nothing about %s"):format(place))
    assert.is_truthy(found[place]:find(text, 1, true), place .. ": " .. found[place])
  end
  for place, text in pairs(found) do
    assert.is_truthy(wanted[place], ("unexpected %s: %s"):format(place, text))
  end
end

describe("a VM's spec", function()
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

  it("that is no table raises", function()
    for _, bad in ipairs{ 1, "x", true } do
      support.raises("spec must be a table", fcproc.vm.launch, manager, bad)
    end
    support.raises("context must come from", fcproc.vm.launch, manager, {}, 3)
  end)

  it("has every mistake named, many at once", function()
    local file, other = world.folder:file("disk"), world.folder:file("other")
    support.write_file(file, ("x"):rep(512))
    support.write_file(other, ("x"):rep(512))
    has({
      id = "can't be an id", vcpus = "must be an integer, not a string",
      mem_mib = "0 is out of range: 1 to", boot = "'bios' is none of config_file, api",
      colour = "unknown; known: arguments, balloon", kernel = "no such file: /nowhere",
      initrd = "must be a file, and is a folder",
      ["drives[1].path"] = "no such file", ["drives[2].path"] = "must be a file or a block device",
      ["drives[3].size"] = "unknown; known: cache_type", ["drives[4].path"] = "is missing",
      ["drives[6].id"] = "'root' is drives[5]'s too", ["drives[6].root"] = "drives[5] is the root",
      ["drives[6].path"] = "drives[5]'s too, and both write",
      ["drives[7]"] = "must be a table, not a string", ["drives[8].id"] = "has other than letters",
      ["drives[9].path"] = "must be a file",
      ["network[1].mac"] = "no unicast MAC", ["network[1].mtu"] = "10 is out of range",
      ["network[2].tap"] = "has 23 bytes", ["network[3].address"] = "outside the bridge's subnet",
      ["network[4].address"] = "is the gateway address", ["network[5].address"] = "no IPv4 address",
      ["network[6].nat"] = "has no NAT", ["network[7].rx_limit.ops.size"] = "is missing",
      ["vsock.cid"] = "2 is out of range", ["vsock.port"] = "unknown; known: cid",
      ["balloon.amount_mib"] = "is missing", ["mmds.version"] = "'V3' is none of V1, V2",
      ["entropy.speed"] = "unknown; known: rate_limit",
      ["hooks.before_lunch"] = "unknown; known: before_, after_", ["hooks.1"] = "unknown",
      ["hooks.after_start"] = "must be a function, not a number",
      ["jailer.uid"] = "-1 is out of range", ["jailer.gid"] = "is missing",
      ["jailer.binary"] = "/nowhere", ["jailer.limits.cpu"] = "unknown; known: fsize, no_file",
      ["jailer.cgroups['weight']"] = "is no cgroup file",
      ["jailer.cgroups['cpu.max']"] = "must be a string or a whole number",
      ["jailer.cgroups['io.max']"] = "a value with a '='",
      ["arguments[2]"] = "must be a string, not a table", seccomp = "filter's file, or false",
      boot_args = "holds a NUL byte", log_level = "'Loud' is none of", timeout = "0 is out of range",
      console_limit = "1 is out of range",
    }, manager, {
      id = "a b", vcpus = "2", mem_mib = 0, boot = "bios", colour = "red", kernel = "/nowhere",
      initrd = "/tmp", boot_args = "a\0b", log_level = "Loud", timeout = 0, console_limit = 1,
      drives = { { path = "/nowhere" }, { path = "/etc" }, { path = file, size = 1, read_only = true },
        {}, { path = file, root = true }, { path = file, root = true }, "/dev/vda",
        { path = other, id = "a-b" }, { path = "/dev/null" } },
      network = { { mac = "ff:ff:ff:ff:ff:ff", mtu = 10 }, { tap = "a-name-of-23-characters" },
        { address = "10.0.0.1" }, { address = "172.30.0.1" }, { address = "there" },
        { attach = false, nat = "eth0" }, { rx_limit = { ops = { refill_time = 1 } } } },
      vsock = { cid = 2, port = 1 }, balloon = { deflate_on_oom = true }, mmds = { version = "V3" },
      entropy = { speed = 1 }, hooks = { before_lunch = print, after_start = 3, [1] = print },
      jailer = { uid = -1, binary = "/nowhere", limits = { cpu = 1 },
        cgroups = { weight = 1, ["cpu.max"] = {}, ["io.max"] = "8:0 rbps=1" } },
      arguments = { "--boot-timer", {} }, seccomp = true,
    })
  end)

  it("has its mistakes in the order of their places", function()
    local drives = {}
    for i = 1, 10 do drives[i] = { path = "/nowhere/" .. i } end
    local _, err = problems(manager, { vcpus = 99, drives = drives })
    local places = {}
    for i, problem in ipairs(err.problems) do places[i] = problem.place end
    assert.are.equal("drives[1].path drives[2].path drives[3].path drives[4].path drives[5].path "
      .. "drives[6].path drives[7].path drives[8].path drives[9].path drives[10].path vcpus",
      table.concat(places, " "))
    assert.are.equal("vm.launch", err.op)
  end)

  it("has tables and lists where they belong", function()
    has({ drives = "must be a table, not a number", network = "must be a table or boolean",
      hooks = "must be a table", jailer = "must be a table", vsock = "must be a table",
      entropy = "must be a boolean or table" },
      manager, { drives = 3, network = "x", hooks = 3, jailer = 3, vsock = 3, entropy = 3 })
    has({ drives = "must be a list", network = "must be a list", arguments = "must be a list" },
      manager, { drives = { path = "/etc/hostname" }, network = { {}, tap = "x" },
        arguments = { level = "Off" } })
    has({ ["network[2]"] = "must be a table, not a number" }, manager, { network = { {}, 3 } })
  end)

  it("has numbers that are numbers", function()
    has({ vcpus = "must be an integer, not 1.5", mem_mib = "must be an integer, not ",
      timeout = "is out of range" }, manager, { vcpus = 1.5, mem_mib = 0 / 0, timeout = 0 / 0 })
  end)

  it("has a kernel that Firecracker boots", function()
    local folder = world.folder
    support.write_file(folder:file("text"), "hello\n")
    support.write_file(folder:file("empty"), "")
    for _, name in ipairs{ "text", "empty" } do
      has({ kernel = "is no kernel: Firecracker boots an uncompressed vmlinux" }, manager,
        { kernel = folder:file(name) })
    end
    support.write_file(folder:file("bzImage"), ("\0"):rep(0x202) .. "HdrS" .. ("\0"):rep(600))
    local old <close> = versions.pretend(world, "1.12.1")
    local err = fails("unsupported", fcproc.vm.launch(old, { kernel = folder:file("bzImage") }))
    assert.is_truthy(err.message:find("bzImage, which needs Firecracker >= 1.17, this is 1.12.1", 1, true),
      err.message)
  end)

  it("is refused in what the binary is too old for, by the spec's own names", function()
    local old <close> = versions.pretend(world, "1.12.1")
    local err = fails("unsupported", fcproc.vm.launch(old, { huge_pages = "Transparent" }))
    assert.are.equal("huge_pages: = Transparent needs Firecracker >= 1.17, this is 1.12.1", err.message)
    has({ huge_pages = "must be one of 2M, None, Transparent" }, manager, { huge_pages = "3M" })
    has({ cpu_template = "must be one of" }, manager, { cpu_template = "C4" })
    has({ boot_args = " bytes too many" }, manager, { boot_args = ("x"):rep(3000) })
    has({ ["balloon.amount_mib"] = "is 32, and the VM has 16 MiB" }, manager,
      { balloon = { amount_mib = 32 } })
    has({ ["mmds.address"] = "must be a link-local" }, manager,
      { network = true, mmds = { address = "10.0.0.1" } })
    has({ ["drives[1].rate_limit"] = "unknown field 'speed'" }, manager,
      { drives = { { path = support.firecracker(), rate_limit = { speed = 1 } } } })
  end)

  it("tells the guest its MTU from 1.16 on", function()
    local spec = { network = { mtu = 1400 } }
    local old <close> = versions.pretend(world, "1.15.0")
    local new <close> = versions.pretend(world, "1.16.0")
    local plan = must(specs.plan(old, spec))
    assert.is_nil(specs.config(plan, {})["network-interfaces"][1].mtu)
    plan = must(specs.plan(new, spec))
    assert.are.equal(1400, specs.config(plan, {})["network-interfaces"][1].mtu)
  end)

  it("needs a network for metadata, and a bridge for a network", function()
    has({ mmds = "give a network" }, manager, { mmds = { data = { a = 1 } } })
    local bare <close> = must(fcproc.new{ runtime_dir = world.folder:file("run"),
      firecracker_bin = support.firecracker() })
    has({ network = "the manager has no bridge" }, bare, { network = true })
    must(specs.plan(bare, { network = { attach = false } }))
    local nothing <close> = must(fcproc.new{ firecracker_bin = "/nowhere" })
    has({ manager = "has no runtime_dir", firecracker_bin = "not found at /nowhere" }, nothing, {})
    local narrow <close> = must(fcproc.new{ runtime_dir = world.folder:file("run"), cidr = 31,
      firecracker_bin = support.firecracker(), bridge_name = "fcbr0", bridge_ip = "172.30.0.1" })
    has({ ["network.address"] = "the prefix must be from 8 to 30" }, narrow, { network = true })
    must(specs.plan(narrow, { network = { address = false } }))
  end)

  it("has drives that the jail's user may open", function()
    local disk = world.folder:file("disk")
    support.write_file(disk, ("x"):rep(512))
    support.sh{ "chmod", "644", disk }
    local jailer = { uid = 1000, gid = 1000 }
    has({ ["drives[2].path"] = "can't be written by uid 1000; chown it, or give the VM a copy" },
      manager, { jailer = jailer,
        drives = { { path = disk, read_only = true }, { path = disk }, { path = disk, copy = "sparse" } } })
    support.sh{ "chown", "1000", disk }
    must(specs.plan(manager, { jailer = jailer, drives = { { path = disk } } }))
  end)

  it("has a user for its jail: a number, or a free one, and root only when asked for", function()
    local function jail(fields) return { jailer = fields } end
    for _, case in ipairs{
      { { uid = 0, gid = 1 }, "jailer.uid", "0 is root, whom a jail does not hold" },
      { { uid = "root", gid = 1 }, "jailer.uid", "'root' must be a whole number, or \"auto\"" },
      { { uid = 4294967295, gid = 1 }, "jailer.uid", "4294967295 is out of range" },
      { { uid = 1.5, gid = 1 }, "jailer.uid", "must be an integer or string, not 1.5" },
      { { uid = 7 }, "jailer.gid", "is missing" },
      { { uid = "auto", shared_uid = true }, "jailer.shared_uid", "is a uid for this VM alone" },
    } do
      has({ [case[2]] = case[3] }, manager, jail(case[1]))
    end
    for _, fields in ipairs{ { uid = "auto" }, { uid = "auto", gid = 7 },
      { uid = 7, gid = 7, shared_uid = true }, { uid = 0, gid = 0, allow_root = true } } do
      must(specs.plan(manager, jail(fields)))
    end
    local disk = world.folder:file("disk")
    support.write_file(disk, ("x"):rep(512))
    support.sh{ "chmod", "600", disk }
    has({ ["drives[1].path"] = "can't be written by uid \"auto\"" }, manager,
      { jailer = { uid = "auto" }, drives = { { path = disk } } })
  end)

  it("of a restore has only what a snapshot does not say", function()
    local err = fails("invalid", fcproc.vm.restore(manager, "/nowhere", { vcpus = 1, paused = 1 }))
    assert.are.equal("vm.restore", err.op)
    assert.are.equal("paused", err.problems[1].place)
    assert.are.equal("vcpus", err.problems[2].place)
  end)

  it("has a drive that an object tells, which is asked once the rest is right", function()
    local asked, disk = 0, world.folder:file("disk")
    support.write_file(disk, ("x"):rep(512))
    local object, context = {}, must(fcproc.context{ timeout = 10 })
    function object.disk(self, ctx)
      assert.are.equal(object, self)
      assert.are.equal(context, ctx)
      asked = asked + 1
      return { path = disk, read_only = true, root = true }
    end
    local plan = must(specs.plan(manager, { drives = { object } }, false, context))
    assert.are.same({ "root", true, disk, 1 }, { plan.drives[1].id, plan.drives[1].read_only,
      plan.drives[1].path, asked })
    has({ vcpus = "99 is out of range" }, manager, { vcpus = 99, drives = { object } })
    assert.are.equal(1, asked)
    context:close()
    -- What it tells is checked as what is written.
    local function telling(...)
      local told = table.pack(...)
      return { drives = { { disk = function() return table.unpack(told, 1, told.n) end } } }
    end
    has({ ["drives[1].path"] = "no such file" }, manager, telling{ path = "/nowhere" })
    has({ ["drives[1].size"] = "unknown; known: " }, manager, telling{ path = disk, size = 1 })
    has({ ["drives[1]"] = "must be a table, not a number" }, manager, telling(3))
    local gone = select(2, fcproc.vm.adopt(manager, "nobody"))
    local err = fails("not_found", fcproc.vm.launch(manager, telling(nil, gone)))
    assert.are.equal(gone, err)
    assert.is_truthy(err.message:find("^drives%[1%]: there is no VM"))
    err = fails("invalid", fcproc.vm.launch(manager, telling(nil, "no luck")))
    assert.are.equal("drives[1]: its disk can't be had: no luck", err.message)
  end)

  it("has an overlay over a read-only root, which is its last disk", function()
    local folder = world.folder
    for _, name in ipairs{ "base", "scratch", "data" } do
      support.write_file(folder:file(name), name .. ("x"):rep(508 - #name + 4))
    end
    local base = { path = folder:file("base"), root = true, read_only = true,
      overlay = folder:file("scratch") }
    local data = { path = folder:file("data"), read_only = true }
    local function drives_of(given)
      local plan = must(specs.plan(manager, given))
      local config, names = specs.config(plan, {}), {}
      for i, drive in ipairs(config.drives) do
        names[i] = drive.drive_id .. (drive.is_read_only and " ro" or " rw")
      end
      return table.concat(names, ", "), config["boot-source"].boot_args, plan
    end
    local names, line, plan = drives_of{ drives = { data, base }, initrd = folder:file("data"),
      boot_args = "console=ttyS0 -- one" }
    assert.are.equal("drive1 ro, root ro, overlay rw", names)
    assert.are.equal("console=ttyS0 fcproc.overlay=/dev/vdc -- one", line)
    assert.are.same({ "reflink" }, { plan.drives[3].copy, plan.drives[3].lease })
    assert.is_nil(plan.warnings)
    names, line = drives_of{ drives = { base }, boot_args = "fcproc.overlay=/dev/pmem0 init=/sbin/other" }
    assert.are.equal("fcproc.overlay=/dev/pmem0 init=/sbin/other", line)
    assert.are.equal("root ro, overlay rw", names)
    local many = { base }
    for i = 2, 26 do many[i] = { path = data.path, read_only = true, id = "d" .. i } end
    line = select(2, drives_of{ drives = many, boot_args = "quiet" })
    assert.are.equal("quiet fcproc.overlay=/dev/vdaa", line)
    plan = select(3, drives_of{ drives = { base } })
    assert.is_truthy(plan.warnings[1].message:find("nothing lays it over the root", 1, true))
    for _, wrong in ipairs{ { root = false }, { read_only = false }, { copy = "sparse" } } do
      for key, value in pairs(base) do
        if wrong[key] == nil then wrong[key] = value end
      end
      has({ ["drives[1].overlay"] = "is for a root that is read-only and no copy" }, manager,
        { drives = { wrong } })
    end
    has({ ["drives[1].overlay.path"] = "no such file" }, manager,
      { drives = { { path = base.path, root = true, read_only = true, overlay = "/nowhere" } } })
    has({ ["drives[1].overlay.id"] = "'overlay' is drives[2]'s too" }, manager,
      { drives = { base, { path = data.path, id = "overlay", read_only = true } } })
  end)
end)
