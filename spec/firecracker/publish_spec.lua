-- Published ports of real VMs, whose built-in guest answers UDP's echo service (port 7): from the launch to
-- the end, and whoever has the VM meanwhile. Who reaches what, spec/netns/publish_spec.lua tells.

local cli = require "spec.support.cli"
local guests = require "spec.support.guests"
local helper = require "spec.support.doctor"
local support = require "spec.support"
local traffic = require "spec.support.traffic"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local doctor = require "fcproc.doctor"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local LOCALNET = "ipv4/conf/fcbr0/route_localnet"

local function localnet(world, value) return must(world.manager.net:sysctl(LOCALNET, value)) end

-- The guest sends back what it was sent.
local function reached(world, ...) assert.are.same({ "who" }, traffic.ask(world.netns, ...)) end

local function neighbour(world)
  return must(fcproc.new{ runtime_dir = world.folder:file("other"), bridge_name = "fcbr0",
    bridge_ip = "172.30.0.1", cidr = 24, netns = world.netns, firecracker_bin = support.firecracker() })
end

local ECHO = { address = "127.0.0.1", port = 5353, protocol = "udp", guest_port = 7 }

describe("a VM's published port", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  after_each(function() end)

  it("leads to its guest, whoever has the VM, and goes with it", function()
    local vm <close> = vms.ready(world, { id = "one", network = true, publish = { "5353:7/udp" } })
    reached(world, "udp,127.0.0.1,5353")
    assert.are.equal(1, localnet(world))
    assert.are.same({ ECHO }, must(vm:info()).ports)
    assert.are.same({ ECHO }, must(fcproc.vm.list(world.manager))[1].ports)
    assert.are.same({ ECHO }, must(fcproc.vm.inspect(world.manager, "one")).ports)
    local child <close> = vms.detach(vm)
    reached(world, "udp,127.0.0.1,5353")
    local again <close> = must(fcproc.vm.adopt(world.manager, "one"))
    local function look() return helper.by_name(must(doctor.run(world.manager))).localnet end
    assert.are.same({ ECHO }, must(again:info()).ports)
    -- After a flush of all rules it is told, with what it means, and put back.
    guests.nft(world, "flush ruleset")
    helper.expect(look(), "fail", "guests reach what listens at this host's loopback")
    localnet(world, 0)
    local told = must(again:info()).warnings[1].message
    assert.is_truthy(told:find("one can't reach the world, or can send under any address, or is not reached "
      .. "at its published ports; and guests may reach what listens at this host's loopback", 1, true), told)
    assert.are.equal(1, #must(fcproc.vm.ensure_nat(world.manager)))
    reached(world, "udp,127.0.0.1,5353")
    helper.expect(look(), "ok", "is dropped")
    -- By the next who takes it over, too, or reclaims.
    must(again:detach())
    guests.nft(world, "flush ruleset")
    local third <close> = must(fcproc.vm.adopt(world.manager, "one"))
    reached(world, "udp,127.0.0.1,5353")
    helper.expect(look(), "ok", "is dropped")
    guests.nft(world, "flush ruleset")
    must(fcproc.vm.reclaim(world.manager))
    helper.expect(look(), "ok", "is dropped")
    must(third:kill())
    must(child:wait(5))
    assert.are.equal(0, localnet(world))
    assert.are.equal("", guests.ruleset(world))
    traffic.none(world.netns, "udp,127.0.0.1,5353")
  end)

  it("needs route_localnet as long as there is one, of whatever folder, and no longer", function()
    local other <close> = neighbour(world)
    local first <close> = vms.ready(world, { id = "one", network = true, publish = { "5353:7/udp" } })
    local second <close> = must(fcproc.vm.launch(other, { id = "one", network = true,
      publish = { "0.0.0.0:5354:7/udp" } }))
    must(second:console():wait_for("ready", 10))
    reached(world, "udp,127.0.0.1,5354")
    must(first:kill())
    assert.are.equal(1, localnet(world))
    reached(world, "udp,127.0.0.1,5354")
    must(second:kill())
    assert.are.equal(0, localnet(world))
    -- None at the loopback needs it; and whose owner has set it, keeps it.
    local third <close> = must(fcproc.vm.launch(world.manager, { network = true,
      publish = { "172.30.0.1:5353:7/udp" } }))
    assert.are.equal(0, localnet(world))
    must(third:kill())
    localnet(world, 1)
    local fourth <close> = must(fcproc.vm.launch(world.manager, { network = true,
      publish = { "5353:7/udp" } }))
    must(fourth:kill())
    assert.are.equal(1, localnet(world))
  end)

  it("that is in use is refused before anything is made, and tells by whom", function()
    local other <close> = neighbour(world)
    local first <close> = must(fcproc.vm.launch(world.manager, { id = "one", network = true,
      publish = { "8080:80", "0.0.0.0:8081:80", "8000-8003:80-83" } }))
    local servers <close> = traffic.serve(world.netns, "tcp,127.0.0.1,9000")
    local before, rules = vms.traces(world), guests.ruleset(world)
    for text, said in pairs{
      ["8080:81"] = "publish[1]: 127.0.0.1:8080/tcp: is published by the VM 'one'",
      ["0.0.0.0:8080:80"] = "publish[1]: 0.0.0.0:8080/tcp: is published by the VM 'one'",
      ["8081:80"] = "publish[1]: 127.0.0.1:8081/tcp: is published by the VM 'one'",
      ["8002:1"] = "publish[1]: 127.0.0.1:8002/tcp: is published by the VM 'one'",
      ["9000:80"] = ("publish: 127.0.0.1:9000/tcp is in use by pid %d (python3"):format(servers.pid),
    } do
      local err = fails("conflict", fcproc.vm.launch(world.manager, { network = true, publish = { text } }))
      assert.is_truthy(err.message:find(said, 1, true), err.message)
      assert.are.equal(before, vms.traces(world))
      assert.are.equal(rules, guests.ruleset(world))
    end
    local err = fails("conflict", fcproc.vm.launch(other, { network = true, publish = { "8080:80" } }))
    local owner = "by the VM 'one' of " .. world.folder:file("run")
    assert.is_truthy(err.message:find(owner, 1, true), err.message)
    -- Another address, protocol or port is free; and all of them, once it has gone.
    local second <close> = must(fcproc.vm.launch(other, { network = true,
      publish = { "172.30.0.1:8080:80", "8080:80/udp", "8082:80" } }))
    must(second:kill())
    must(first:kill())
    local third <close> = must(fcproc.vm.launch(world.manager, { network = true,
      publish = { "0.0.0.0:8080:80" } }))
    must(third:kill())
  end)

  it("is not kept from its guest by what the kernel remembers of UDP", function()
    -- NAT is looked at for a flow's first packet alone: one that began before goes on past it.
    guests.nft(world, [[table ip probe {
      chain c { type nat hook output priority 0; }
      chain d { type filter hook output priority 0; ct state new counter; }
    }]])
    local function send()
      return traffic.ask(world.netns, "udp,127.0.0.1,5353,127.0.0.1,40000")[1]
    end
    assert.are.equal("-", send())
    local vm <close> = vms.ready(world, { network = true, publish = { "5353:7/udp" } })
    assert.are.equal("who", send())
    must(vm:kill())
    assert.are.equal("-", send())
    local next_one <close> = vms.ready(world, { network = true, publish = { "5353:7/udp" } })
    assert.are.equal("who", send())
    must(next_one:kill())
    guests.nft(world, "delete table ip probe")
  end)

  it("of one that died, or whose folder somebody removed, is taken back by reclaim", function()
    for _, damage in ipairs{ "dead", "no journal", "no folder" } do
      local vm <close> = vms.ready(world, { id = "one", network = true, publish = { "5353:7/udp" } })
      local child <close> = vms.detach(vm)
      child:signal("KILL")
      must(child:wait(5))
      local folder = world.folder:file("run/one")
      if damage == "no journal" then os.remove(folder .. "/vm.json") end
      if damage == "no folder" then support.sh{ "rm", "-r", folder } end
      assert.are.equal(1, localnet(world))
      local report = must(fcproc.vm.reclaim(world.manager))
      assert.are.same({}, report.failed, damage)
      assert.are.equal(0, localnet(world), damage)
      assert.are.equal("", guests.ruleset(world), damage)
      assert.are.same({}, (support.leases(world)), damage)
    end
  end)

  it("is a restored VM's when its spec says so", function()
    local path = world.folder:file("snapshot")
    local vm <close> = vms.ready(world, { id = "one", network = true, publish = { "5353:7/udp" } })
    must(vm:snapshot(path, { hash = false }))
    must(vm:kill())
    local plain <close> = must(fcproc.vm.restore(world.manager, path, { id = "two" }))
    assert.are.same({}, must(plain:info()).ports)
    must(plain:kill())
    local restored <close> = must(fcproc.vm.restore(world.manager, path, { id = "three",
      publish = { "5354:7/udp" } }))
    support.eventually("it is reached", function()
      return traffic.ask(world.netns, "udp,127.0.0.1,5354")[1] == "who"
    end)
    must(restored:kill())
    local bare <close> = vms.ready(world, { id = "bare" })
    must(bare:snapshot(path .. "2", { hash = false }))
    must(bare:kill())
    fails("invalid", fcproc.vm.restore(world.manager, path .. "2", { publish = { "5354:7/udp" } }))
  end)

  it("reached from elsewhere tells what of this host is in its way", function()
    support.sh({ "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward" }, { netns = world.netns })
    local vm <close> = must(fcproc.vm.launch(world.manager, { network = true,
      publish = { "0.0.0.0:53:7/udp" } }))
    local names = {}
    for i, warning in ipairs(vm:record().warnings or {}) do names[i] = warning.name end
    assert.are.same({ "ip_forward" }, names)
    must(vm:kill())
    local quiet <close> = must(fcproc.vm.launch(world.manager, { network = true, publish = { "53:7/udp" } }))
    assert.is_nil(quiet:record().warnings)
    must(quiet:kill())
  end)
end)

describe("a spec's published ports", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  it("are checked with the rest, each mistake at its place", function()
    local err = fails("invalid", fcproc.vm.launch(world.manager, { network = true,
      publish = { "8080:80", "80", "127.0.0.1:8080:81", 5, "0.0.0.0:8080:80" } }))
    local places = {}
    for i, problem in ipairs(err.problems) do places[i] = problem.place end
    assert.are.same({ "publish[2]", "publish[3]", "publish[4]", "publish[5]" }, places)
    assert.is_truthy(err.message:find("publish[3]: 127.0.0.1:8080/tcp is published already", 1, true))
    for _, network in ipairs{ false, { attach = false }, { address = false } } do
      err = fails("invalid", fcproc.vm.launch(world.manager, { network = network, publish = { "8080:80" } }))
      assert.are.equal("publish", err.problems[1].place)
    end
    fails("invalid", fcproc.vm.launch(world.manager, { network = true, publish = { x = "8080:80" } }))
    fails("invalid", fcproc.vm.launch(world.manager, { network = true,
      publish = { "1000-1255:1000-1255", "2000:1" } }))
  end)

  it("below ip_unprivileged_port_start need the capability for it", function()
    local script = [[
      local fcproc = require "fcproc"
      local manager = assert(fcproc.new{ bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24,
        runtime_dir = arg[1], firecracker_bin = arg[2] })
      local _, err = fcproc.vm.launch(manager, { network = { nat = "nothing" },
        publish = { "80:80", "1024:80" } })
      for _, problem in ipairs(err.problems) do print(problem.code, problem.place, problem.text) end
    ]]
    support.write_file(world.folder:file("low.lua"), script)
    local out = support.sh({ "setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-all",
      support.lua, world.folder:file("low.lua"), world.folder:file("run"), support.firecracker() },
      { netns = world.netns, env = cli.env(world) })
    assert.is_truthy(out:find("permission\tpublish[1]\t127.0.0.1:80/tcp: ports below 1024 "
      .. "(net.ipv4.ip_unprivileged_port_start) need CAP_NET_BIND_SERVICE", 1, true), out)
    assert.is_nil(out:find("publish[2]", 1, true))
  end)

  it("are the command's -p, and in what it tells", function()
    local ok = function(...) return cli.ok(world, ...) end
    ok("run", "-d", "--id", "one", "-p", "5353:7/udp", "--publish", "0.0.0.0:8000-8001:80-81")
    assert.is_truthy(ok("ps"):find("127.0.0.1:5353->7/udp, 0.0.0.0:8000-8001->80-81/tcp", 1, true))
    assert.is_truthy(ok("info", "one"):find("ports +127.0.0.1:5353%->7/udp, 0.0.0.0"))
    assert.are.same(ECHO, cli.json(world, "ps")[1].ports[1])
    support.eventually("it is reached", function()
      return traffic.ask(world.netns, "udp,127.0.0.1,5353")[1] == "who"
    end)
    local refused = cli.run(world, { "run", "-d", "-p", "5353:7/udp" })
    assert.are.equal(4, refused.status)
    assert.is_truthy(refused.err:find("is published by the VM 'one'", 1, true), refused.err)
    assert.are.equal(2, cli.run(world, { "run", "-d", "-p", "80" }).status)
    ok("kill", "one")
    assert.are.equal(0, localnet(world))
    assert.is_truthy(core.stat(world.folder:file("run")))
  end)
end)
