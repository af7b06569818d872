-- What a VM's interfaces are called, and what its kernel is told of them: the command line in words, and
-- the room that it has.

local support = require "spec.support"
local fcproc = require "fcproc"
local address = require "fcproc.network.address"
local choose = require "fcproc.resources.choose"
local cmdline = require "fcproc.machine.cmdline"
local journals = require "fcproc.resources.journal"
local specs = require "fcproc.vm.spec"

local must, fails = support.must, support.fails

-- What would be made for a spec, and what Firecracker would be told; nothing but its folder is.
local function chosen(world, spec)
  local plan = must(specs.plan(world.manager, spec))
  local journal = must(journals.create(world.manager, plan.id, {}))
  local ok, err = choose.names(journal, plan, {})
  local record = journal.record
  must(journal:remove())
  must(ok, err)
  return record.taps, specs.config(plan, record.taps)["boot-source"].boot_args
end

local function mistakes(world, spec)
  local found = {}
  for _, problem in ipairs(fails("invalid", specs.plan(world.manager, spec)).problems) do
    found[#found + 1] = problem.place .. ": " .. problem.text
  end
  return table.concat(found, "; ")
end

describe("the interfaces of a VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("have an address each, automatic or not, in any order", function()
    local world <close> = support.world()
    local first = chosen(world, { id = "vm", network = true })[1].address
    for i, network in ipairs{ { {}, {}, {} }, { {}, { address = first } }, { { address = first }, {} },
      { { address = true }, { address = false }, {} } } do
      local seen = {}
      for _, tap in ipairs((chosen(world, { id = "vm", network = network }))) do
        assert.is_nil(seen[tap.address or tap], ("case %d: %s twice"):format(i, tap.address))
        seen[tap.address or tap] = true
      end
    end
  end)

  it("take all of a narrow subnet, and no address twice", function()
    local world <close> = support.world{ cidr = 30 }
    local plan = must(specs.plan(world.manager, { id = "vm", network = { {}, {} } }))
    local journal = must(journals.create(world.manager, "vm", {}))
    local err = fails("busy", choose.names(journal, plan, {}))
    must(journal:remove())
    assert.is_truthy(err.message:find("no address is free in 172.30.0.0/30", 1, true))
  end)

  it("have a TAP and a MAC each, whether given or theirs by the VM's id", function()
    local world <close> = support.world()
    local folder = world.manager.config.runtime_dir
    local mac, tap = address.mac(folder, "vm", 0), address.tap_name(folder, "vm", 2)
    assert.are.equal("network[2].mac: 02:00:00:00:00:AA is used twice", mistakes(world,
      { network = { { mac = "02:00:00:00:00:aa" }, { mac = "02:00:00:00:00:AA" } } }))
    assert.are.equal(("network[2].mac: %s is used twice; network[3].tap: %s is used twice"):format(
      mac:upper(), tap), mistakes(world,
      { id = "vm", network = { {}, { mac = mac:upper(), tap = tap }, {} } }))
  end)

  it("are told of by the first that has an address", function()
    local world <close> = support.world()
    local function told(network, boot_args)
      local taps, line = chosen(world, { id = "vm", network = network, boot_args = boot_args })
      local which
      for i, tap in ipairs(taps) do
        if tap.told then which = which and "several" or i end
      end
      return which, line
    end
    local which, line = told{ { address = false }, { address = "172.30.0.9", dns = { "1.1.1.1" } }, {} }
    assert.are.same({ 2, "ip=172.30.0.9::172.30.0.1:255.255.255.0:vm:eth1:off:1.1.1.1" }, { which, line })
    which, line = told({ { attach = false }, { attach = false, address = "10.0.0.9" } }, "quiet")
    assert.are.same({ 2, "quiet ip=10.0.0.9::::vm:eth1:off" }, { which, line })
    which, line = told({ address = "172.30.0.9" }, "ip=off")
    assert.is_nil(which)
    assert.are.equal("ip=off", line)
    which, line = told({ address = false }, "a -- b")
    assert.is_nil(which)
    assert.are.equal("a -- b", line)
  end)

  it("have name servers only where they are told", function()
    local world <close> = support.world()
    local dns = { "1.1.1.1" }
    for text, spec in pairs{
      ["network.dns: has 3 name servers"] = { network = { dns = { "1.1.1.1", "1.1.1.2", "1.1.1.3" } } },
      ["network.dns[1]: 'dns.example' is no IPv4 address"] = { network = { dns = { "dns.example" } } },
      ["network.dns[1]: '1' is no IPv4 address"] = { network = { dns = { 1 } } },
      ["network.dns: must be a list"] = { network = { dns = { first = "1.1.1.1" } } },
      ["network[2].dns: is told to the first interface that has an address"] =
        { network = { {}, { dns = dns } } },
      ["network.dns: is told to the first"] = { network = { address = false, dns = dns } },
      ["network.dns: boot_args address the guest"] = { network = { dns = dns }, boot_args = "ip=off" },
    } do
      local found = mistakes(world, spec)
      assert.is_truthy(found:find(text, 1, true), found)
    end
    local err = fails("invalid", fcproc.vm.restore(world.manager, "/nowhere", { network = { dns = dns } }))
    assert.is_truthy(err.message:find("network.dns: a restored guest was told", 1, true))
  end)
end)

describe("a bridge with an IPv6 address", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("gives its guests none, and says so", function()
    local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = 64 }
    local plan = must(specs.plan(world.manager, { network = true }))
    assert.are.equal("address", plan.warnings[1].name)
    assert.is_truthy(plan.warnings[1].message:find("network gets no address: the bridge's is IPv6", 1, true))
    for _, network in ipairs{ { address = false }, { address = "10.0.0.5" }, { attach = false } } do
      assert.is_nil(must(specs.plan(world.manager, { network = network })).warnings)
    end
  end)

  it("has no NAT for them, as none has who gets no address", function()
    local world <close> = support.world{ bridge_ip = "fd00:30::1", cidr = 64 }
    support.ip(world.netns, "link", "add", "up0", "type", "bridge")
    assert.is_truthy(mistakes(world, { network = { nat = "up0" } })
      :find("network.nat: is for a guest with an IPv4 address", 1, true))
    local other <close> = support.world()
    support.ip(other.netns, "link", "add", "up0", "type", "bridge")
    assert.is_truthy(mistakes(other, { network = { nat = "up0", address = false } })
      :find("network.nat: is for a guest with an IPv4 address", 1, true))
  end)
end)

describe("an uplink that is not there", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is the host's lack, named with what there is, and a mistake only beside one", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("tap0"))
    local function lacks(nat, text)
      local err = fails("not_found", fcproc.vm.launch(world.manager, { network = { {}, { nat = nat } } }))
      assert.are.same({ "network[2].nat", "not_found" }, { err.problems[1].place, err.problems[1].code })
      assert.is_truthy(err.message:find(text, 1, true), err.message)
    end
    lacks("eth9", "there is no uplink eth9; the interfaces here: fcbr0; name the one that leads to the world")
    lacks(true, "there is no default route")
    local err = fails("invalid", fcproc.vm.launch(world.manager, { vcpus = 99, network = { nat = true } }))
    assert.are.same({ "network.nat", "vcpus" }, { err.problems[1].place, err.problems[2].place })
    assert.is_truthy(mistakes(world, { network = { nat = "no name at all" } }))
    assert.is_truthy(mistakes(world, { network = { nat = "fcbr0" } }):find("the guests' bridge", 1, true))
  end)
end)

describe("the kernel's command line", function()
  it("is words: quotes hold blanks, and -- ends them", function()
    for text, wanted in pairs{
      [""] = "WORD", ["a"] = "a WORD", ["  a  b "] = "a  b WORD",
      ["a -- b"] = "a WORD -- b", ["a --"] = "a WORD", ["a -- "] = "a WORD",
      ["a\t--\tb -- c"] = "a WORD -- b -- c", ['a "--" b'] = "a WORD -- b",
      ['x="a -- b" c -- d'] = 'x="a -- b" c WORD -- d', ['a" -- "b c'] = 'a" -- "b c WORD',
      ["--a b--"] = "--a b-- WORD", ["a -- ip=5"] = "a WORD -- ip=5",
    } do
      local line = must(cmdline.read(text))
      assert.is_false(line.addressed, text)
      assert.are.equal(wanted, cmdline.write(line, "WORD"), text)
    end
    for text, reason in pairs{ ['a x="b --'] = "a quote that nothing closes", ["-- b"] = "begins with --" } do
      local line, complaint = cmdline.read(text)
      assert.is_nil(line)
      assert.is_truthy(complaint:find(reason, 1, true))
    end
  end)

  it("addresses the guest by a word of its own alone", function()
    for text, wanted in pairs{ ["ip=dhcp"] = true, ["a ip=5"] = true, ["a\tip=5"] = true, ['"ip=5"'] = true,
      ["nfsaddrs=5"] = true, ['ip="5"'] = true, ["server_ip=5"] = false, ["--ip=5"] = false,
      ["a -- ip=5"] = false, ['x="a ip=5"'] = false, ["ip"] = false, ["x.ip=5"] = false, ["ip6=5"] = false,
    } do
      assert.are.equal(wanted, must(cmdline.read(text)).addressed, text)
    end
  end)

  -- Firecracker 1.12.1 has said that these are its words; newer ones say pci=off as well.
  it("has room for what comes to it, to the byte", function()
    local world <close> = support.world()
    local file = world.folder:file("disk")
    support.write_file(file, ("x"):rep(65536))
    local function spec(drives, size, network)
      local list = {}
      for i = 1, drives do list[i] = { path = file, read_only = true } end
      if drives > 0 then list[1].root = true end
      return { id = "vm", drives = list, network = network, boot_args = ("a"):rep(size) }
    end
    for _, case in ipairs{ { 0, 0 }, { 1, 17 + 35 }, { 5, 17 + 5 * 35 }, { 6, 17 + 5 * 35 + 36 } } do
      local room = 2047 - case[2]
      must(specs.plan(world.manager, spec(case[1], room)))
      local text = mistakes(world, spec(case[1], room + 3))
      assert.is_truthy(text:find("^boot_args: the kernel's command line would have 3 bytes too many: it has "
        .. "room for 2047, and what Firecracker 1.12.1 adds"), text)
    end
    local ip = #" ip=172.30.0.10::172.30.0.1:255.255.255.0:vm:eth0:off"
    local network = { address = "172.30.0.10" }
    must(specs.plan(world.manager, spec(0, 2047 - 35 - ip, network)))
    local text = mistakes(world, spec(0, 2047 - 35 - ip + 1, network))
    assert.is_truthy(text:find("1 bytes too many", 1, true), text)
    -- An address that is chosen later may be as long as the subnet's last.
    must(specs.plan(world.manager, spec(0, 2047 - 35 - ip - 1, true)))
    assert.is_truthy(mistakes(world, { boot_args = ("a"):rep(3000) }):find("953 bytes too many", 1, true))
  end)

  it("has less room as of 1.13, and more with devices on PCI", function()
    local config = { drives = { { is_root_device = true }, {} }, ["network-interfaces"] = { {} },
      vsock = {}, balloon = {}, entropy = {}, ["boot-source"] = { boot_args = "quiet" } }
    assert.are.equal(17 + 5 * 35 + 36, cmdline.added("1.12.1", config, false, "x86_64"))
    assert.are.equal(17 + 5 * 35 + 36 + 8, cmdline.added("1.13.0", config, false, "x86_64"))
    assert.are.equal(17, cmdline.added("1.14.4", config, true, "x86_64"))
    assert.are.equal(17 + 8, cmdline.added("1.14.4", config, false, "aarch64"))
  end)

  it("has room for files as memory, for memory to plug in, and for an early console", function()
    local config = { drives = {}, pmem = { {}, { root_device = true } }, ["memory-hotplug"] = {},
      ["boot-source"] = { boot_args = "console=ttyS0" } }
    assert.are.equal(#" root=/dev/pmem1 rw" + 3 * 35 + 8, cmdline.added("1.14.4", config, false, "x86_64"))
    assert.are.equal(#" root=/dev/pmem1 rw", cmdline.added("1.14.4", config, true, "x86_64"))
    assert.are.equal(#" root=/dev/pmem1 rw" + #" earlycon=uart,mmio,0x40002000",
      cmdline.added("1.14.4", config, true, "aarch64"))
  end)
end)
