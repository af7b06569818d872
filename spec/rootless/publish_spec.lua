-- Published ports of an ordinary user's VMs: a relay serves them. The built-in guest answers UDP's echo
-- service (port 7); what the relay does with TCP is in relay_spec.lua.

local rootless = require "spec.support.rootless"
local support = require "spec.support"

support.need_root()
support.need_kvm()

local HELP = [[
  local traffic = require "spec.support.traffic"
  local HERE = "127.84.0.1"
  local function ask() return traffic.ask(nil, "udp," .. HERE .. ",5353")[1] end
  local function relay_of(vm) return must(core.process(vm:record().relay)) end
]]

describe("an ordinary user's published port", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is led there by a relay that /proc hides", function()
    rootless.run(HELP .. [[
      local relays = require "fcproc.resources.relay"
      check(support.read_file("/proc/mounts"):find("hidepid=invisible", 1, true))
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true,
        publish = { HERE .. ":5353:7/udp" } }))
      local vmm <close> = must(core.process(vm:pid()))
      for port = 6001, 6020 do -- that took its time to start, or not
        local relay <close> = must(core.relay(manager.config.netns, vmm, "127.0.0.1",
          { ("udp,%s,%d,7"):format(HERE, port) }))
        must(relay:identity())
        must(relay:signal("KILL"))
        must(relay:wait(5))
      end
      equal(nil, relays.warning(manager, vm:record()))
      -- As it is before Linux 6.9.
      local record = { confined = true, taps = vm:record().taps, relay = vm:record().relay }
      record.relay.inode = nil
      equal("permission", select(2, core.process(record.relay)).code)
      equal(nil, relays.warning(manager, record))
    ]], rootless.HIDDEN)
  end)

  it("that has lost its relay is told, and has it again by reclaim or net up", function()
    rootless.run(HELP .. ([[
      local function cli(...)
        return fcproc.runner():run({ support.lua, %q, "--firecracker", firecracker, "--runtime-dir",
          home .. "/run", ... })
      end
      must(cli("run", "--id", "a", "--net", "-p", HERE .. ":5353:7/udp", "-d"))
      local function lose()
        local record = require("cjson").decode(support.read_file(home .. "/run/a/vm.json"))
        local relay <close> = must(core.process(record.relay))
        must(relay:signal("KILL"))
        must(relay:wait(5))
      end
      for _, words in ipairs{ { "reclaim" }, { "net", "up" } } do
        lose()
        local info = must(cli("info", "a")).stdout
        check(info:find("5353->7/udp lead nowhere; fcproc reclaim starts it again", 1, true), info)
        local _, sick = cli("doctor")
        check(sick.stdout:find("those of a lead nowhere", 1, true), sick.stdout)
        local said = must(cli(table.unpack(words))).stdout
        check(said:find("a: the relay of its published ports had ended, and is back", 1, true), said)
        equal("who", ask())
        check(not must(cli("info", "a")).stdout:find("warning"), "a warning is left")
      end
      -- Whoever has the VM in his hands is not disturbed.
      local manager <close> = world()
      do
        local vm <close> = must(fcproc.vm.adopt(manager, "a"))
        lose()
        local other <close> = world()
        local report = must(fcproc.vm.reclaim(other))
        equal("busy", report.relays[1].err.code)
        must(vm:kill())
      end
      equal(0, #must(fcproc.vm.reclaim(manager)).relays)
    ]]):format(support.must(require("fcproc.core").absolute_path("lua/bin/fcproc"))))
  end)

  it("leads to his guest as long as the VM lives, whoever has it", function()
    rootless.run(HELP .. [[
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true,
        publish = { HERE .. ":5353:7/udp" } }))
      must(vm:console():wait_for("ready", 5))
      equal("who", ask())
      equal(5353, must(vm:info()).ports[1].port)
      -- Another one is refused before anything is made, whoever has it.
      local err = fails("conflict", fcproc.vm.launch(manager, { network = true,
        publish = { HERE .. ":5353:7/udp" } }))
      check(err.message:find("is published by the VM 'a'", 1, true), err)
      local other <close> = world{ runtime_dir = home .. "/other" }
      err = fails("conflict", fcproc.vm.launch(other, { network = true,
        publish = { HERE .. ":5353:7/udp" } }))
      check(err.message:find("5353/udp is in use by a socket", 1, true), err)
      equal(0, #must(fcproc.vm.list(other)))
      -- Whoever has it; and one that was killed is told, and started again by the next.
      must(vm:detach())
      equal("who", ask())
      local again <close> = must(fcproc.vm.adopt(manager, "a"))
      local relay <close> = relay_of(again)
      must(relay:signal("KILL"))
      must(relay:wait(5))
      equal("publish", must(again:info()).warnings[1].name)
      must(again:detach())
      local third <close> = must(fcproc.vm.adopt(manager, "a"))
      equal("who", ask())
      equal(nil, must(third:info()).warnings)
      local last <close> = relay_of(third)
      must(third:kill())
      equal(false, last:alive())
      equal("-", ask())
      -- The port is free at once.
      local next_one <close> = must(fcproc.vm.launch(manager, { id = "b", network = true,
        publish = { HERE .. ":5353:7/udp" } }))
      must(next_one:console():wait_for("ready", 5))
      equal("who", ask())
    ]])
  end)

  it("goes when the VMM dies, and is reclaimed with it", function()
    rootless.run(HELP .. [[
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true,
        publish = { HERE .. ":5353:7/udp" } }))
      local relay <close> = relay_of(vm)
      local vmm <close> = must(fcproc.process(vm:pid()))
      must(vm:detach())
      must(vmm:signal("KILL"))
      must(relay:wait(5))
      equal("a", must(fcproc.vm.reclaim(manager)).reclaimed[1])
    ]])
  end)

  it("outlives the manager that published it, and goes with the VM, whoever ends that", function()
    rootless.run(HELP .. [[
      support.write_file(home .. "/publish.lua", ([=[
        local fcproc = require "fcproc"
        local manager = assert(fcproc.new{ privilege = "rootless", runtime_dir = %q, bridge_name = "fcbr0",
          bridge_ip = "172.30.0.1", cidr = 24, firecracker_bin = %q })
        for id, port in pairs{ a = 5353, b = 5354 } do
          local vm = assert(fcproc.vm.launch(manager, { id = id, network = true,
            publish = { ("%s:%%d:7/udp"):format(port) } }))
          assert(vm:console():wait_for("ready", 5))
        end
        io.write("done\n") io.flush() require("fcproc.core").poll(0, 600)
      ]=]):format(home .. "/run", firecracker, HERE))
      local said = home .. "/said"
      local first = must(fcproc.spawn({ support.lua, home .. "/publish.lua" }, { stdout = { file = said } }))
      support.eventually("both run", function() return support.read_file(said) == "done\n" end, 20)
      must(first:signal("KILL"))
      must(first:wait(5))
      equal("who", ask())
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.adopt(manager, "a"))
      local relay <close> = relay_of(vm)
      equal("who", ask())
      must(vm:stop())
      equal(false, relay:alive())
      equal("-", ask())
      -- And without any manager.
      local journal = require "cjson".decode(support.read_file(home .. "/run/b/vm.json"))
      local other <close> = must(core.process(journal.relay))
      local vmm <close> = must(fcproc.process(must(fcproc.vm.inspect(manager, "b")).pid))
      must(vmm:signal("KILL"))
      must(other:wait(5))
    ]])
  end)

  it("is served by a process that nobody in there takes over, whatever rights he has there", function()
    rootless.run(HELP .. [[
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true,
        publish = { HERE .. ":5353:7/udp" } }))
      local relay <close> = relay_of(vm)
      local said = support.sh({ "python3", "-c", [=[
import ctypes, os, sys
pid, libc = int(sys.argv[1]), ctypes.CDLL(None, use_errno=True)
print(int(open("/proc/self/status").read().split("CapEff:")[1].split()[0], 16) != 0)
libc.ptrace(16, pid, 0, 0)
print(os.strerror(ctypes.get_errno()))
try:
    open(f"/proc/{pid}/mem", "r+b")
    print("opened")
except OSError as e:
    print(e.strerror)
]=], tostring(relay:pid()) }, { netns = manager.config.netns })
      equal("True\nOperation not permitted\nPermission denied\n", said)
    ]])
  end)

  it("below ip_unprivileged_port_start is refused, and at an address that the host lacks", function()
    rootless.run(HELP .. [[
      local manager <close> = world()
      local err = fails("permission", fcproc.vm.launch(manager, { network = true, publish = { "80:80" } }))
      check(err.message:find("ports below 1024", 1, true), err)
      fails("invalid", fcproc.vm.launch(manager, { network = true, publish = { "192.0.2.7:8080:80" } }))
      equal(0, #must(fcproc.vm.list(manager)))
    ]])
  end)
end)
