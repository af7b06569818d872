-- Who keeps a user's namespaces, and what gives them their uplink.

local core = require "fcproc.core"
local rootless = require "spec.support.rootless"
local support = require "spec.support"

support.need_root()
support.need_kvm()

-- Pieces of the scripts.
local WATCH = [[
local namespaces = require "fcproc.manager.rootless"
local function state() return namespaces.state{ runtime_dir = home .. "/run" } end
local function pasta()
  local pid
  support.eventually("pasta tells its pid", function()
    pid = (support.read_file(home .. "/run/.fcproc/rootless/pasta.pid") or ""):match("(%d+)\n")
    return pid
  end)
  return must(fcproc.process(math.tointeger(tonumber(pid))))
end
-- Another process of the user, which leaves a VM behind when it is killed.
local function other(text)
  support.write_file(home .. "/other.lua", ([=[
    local fcproc = require "fcproc"
    local m = assert(fcproc.new{ privilege = "rootless", runtime_dir = %q, bridge_name = "fcbr0",
      bridge_ip = "172.30.0.1", cidr = 24, firecracker_bin = %q })
  ]=]):format(home .. "/run", firecracker) .. text
    .. '\nio.write("done\\n") io.flush() require("fcproc.core").poll(0, 600)')
  local ready = home .. "/ready"
  support.write_file(ready, "")
  local process = must(fcproc.spawn({ support.lua, home .. "/other.lua" },
    { stdout = { file = ready }, stdin = "inherit" }))
  support.eventually("the other process", function() return support.read_file(ready) == "done\n" end)
  return process
end
]]

describe("the holder of a user's namespaces", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("ends with what it keeps when manager and VMs are killed", function()
    rootless.run(WATCH .. [[
      local one = other('local vm = assert(fcproc.vm.launch(m, { id = "a", network = { nat = true } }))')
      local seen = state()
      local holder, uplink <close> = must(fcproc.process(seen.holder)), pasta()
      local vm
      do
        local manager <close> = world()
        vm = must(fcproc.process(must(fcproc.vm.inspect(manager, "a")).pid))
      end
      must(one:signal("KILL"))
      must(one:wait(5))
      -- The VM has it now.
      equal(seen.holder, state().holder)
      equal(true, uplink:alive())
      local killed = core.now()
      must(vm:signal("KILL"))
      must(holder:wait(10))
      must(uplink:wait(10))
      support.eventually("no namespace", function() return state() == nil end, 10)
      -- And so no bridge. On a machine with nothing else to do that takes no second.
      check(not support.soak or core.now() - killed < 1, core.now() - killed)
      local manager <close> = world()
      local report = must(fcproc.vm.reclaim(manager))
      equal("a", report.reclaimed[1])
      equal(0, #report.failed)
    ]], rootless.NETWORK)
  end)

  it("is found by another process, which adopts a VM", function()
    rootless.run(WATCH .. [[
      local one = other('local vm = assert(fcproc.vm.launch(m, { id = "a", network = true })) vm:detach()')
      local manager <close> = world()
      equal(state().netns, core.stat("/proc/self/fd/" .. manager.config.netns:fd(), true).ino)
      must(one:signal("KILL"))
      must(one:wait(5))
      equal("running", must(fcproc.vm.list(manager))[1].state)
      local vm <close> = must(fcproc.vm.adopt(manager, "a"))
      must(support.pings(manager.config.netns, vm:address()))
      local second <close> = must(fcproc.vm.launch(manager, { network = true }))
      must(support.pings(manager.config.netns, second:address()))
      must(vm:stop())
      equal(1, #must(manager:list_taps()))
    ]], rootless.NETWORK)
  end)

  it("may be killed: VMs run on, and the next manager has a new one, with the uplink", function()
    rootless.run(WATCH .. [[
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { network = { nat = true } }))
      local before = state()
      local holder, uplink = must(fcproc.process(before.holder)), pasta()
      must(holder:signal("KILL"))
      must(uplink:wait(5))
      must(support.pings(manager.config.netns, vm:address()))
      equal(nil, state().holder)
      equal(false, manager.net:link_exists(namespaces.UPLINK))
      do
        local next_one <close> = world()
        equal(before.netns, state().netns)
        check(state().holder and state().holder ~= before.holder, "no new holder")
        equal(namespaces.UPLINK, must(namespaces.uplink(next_one)))
      end
      -- The VM alone keeps the new one.
      equal(true, must(fcproc.process(state().holder)):alive())
      must(support.pings(manager.config.netns, vm:address()))
    ]], rootless.NETWORK)
  end)

  it("is one, however many ask for it at once", function()
    rootless.run(WATCH .. [[
      local gate, out = home .. "/gate", home .. "/out"
      local config = require("cjson").encode{ privilege = "rootless", runtime_dir = home .. "/run",
        bridge_name = "fcbr0" }
      local manager <close> = world()
      local racers = {}
      for i = 1, 12 do
        racers[i] = must(fcproc.spawn({ support.lua, "spec/support/race.lua", gate, config, "bridge",
          "172.30.0.1", "24" }, { stdout = { file = out }, stderr = { file = out } }))
      end
      support.eventually("all wait at the gate", function()
        return select(2, (support.read_file(gate .. ".waiting") or ""):gsub("\n", "")) == #racers
      end, 60)
      equal(nil, state())
      support.write_file(gate, "")
      must(manager:ensure_bridge())
      for _, racer in ipairs(racers) do
        local _, exit = must(racer:wait(60))
        equal(0, exit.status, support.read_file(out))
      end
      local count = 0
      for _, entry in ipairs(must(core.list_dir("/proc"))) do
        local words = core.read_file("/proc/" .. entry.name .. "/cmdline") or ""
        local net = words:find("\0hold\0" .. home, 1, true)
          and core.stat("/proc/" .. entry.name .. "/ns/net", true)
        -- It is outside, and has somebody inside for a while.
        if net and net.ino == core.stat("/proc/self/ns/net", true).ino then count = count + 1 end
      end
      equal(1, count)
      equal(state().netns, core.stat("/proc/self/fd/" .. manager.config.netns:fd(), true).ino)
    ]])
  end)

  it("is none that nobody uses, whenever the manager that starts it is killed", function()
    rootless.run(WATCH .. [[
      local out, steps, last = home .. "/out", {}, nil
      local order = { action = "found", spec = { id = "a", network = true }, config = {
        privilege = "rootless", runtime_dir = home .. "/run", bridge_name = "fcbr0", bridge_ip = "172.30.0.1",
        cidr = 24, firecracker_bin = firecracker } }
      repeat
        order.at = #steps + 1
        support.write_file(out, "")
        local process <close> = must(fcproc.spawn({ support.lua, "spec/support/crash.lua",
          require("cjson").encode(order) }, { stdout = { file = out }, stderr = { file = out } }))
        local _, exit = must(process:wait(30))
        check(exit.signal == 9, support.read_file(out))
        last = support.read_file(out):match("(%S+)\n$")
        steps[#steps + 1] = last
        do
          local manager <close> = world()
          support.eventually("nobody has it", function()
            return #must(fcproc.vm.reclaim(manager)).busy == 0
          end)
          must(manager:ensure_bridge())
          equal(0, #must(manager:list_taps()))
          equal(0, #must(fcproc.vm.list(manager)))
        end
        support.eventually("after " .. last .. ": no namespace", function() return state() == nil end, 10)
      until last == "ensure_bridge"
      check((" " .. table.concat(steps, " ") .. " "):find(" hold_netns write_file ", 1, true),
        table.concat(steps, " "))
    ]])
  end)

  it("is ended by net down, but not while a VM is in there, on its bridge or on none", function()
    rootless.run(WATCH .. ([[
      local function down()
        return fcproc.runner():run({ support.lua, %q, "--firecracker", firecracker, "--runtime-dir",
          home .. "/run", "net", "down" })
      end
      local manager <close> = world()
      for _, network in ipairs{ { attach = true }, { attach = false } } do
        local vm <close> = must(fcproc.vm.launch(manager, { id = "alone", network = network }))
        if not network.attach then must(manager:delete_bridge()) end
        local before = state()
        local _, err = down()
        check(err and err.output:find("the VM 'alone' is in the namespaces that would end", 1, true)
          and err.output:find("`fcproc stop` ends those", 1, true), err and err.output)
        equal(before.holder, state().holder)
        equal("running", must(vm:info()).state)
        must(vm:stop())
      end
      equal("fcbr0: there was none; the holder of its namespaces has ended\n", must(down()).stdout)
      support.eventually("it has ended", function() return not state() or not state().holder end)
    ]]):format(support.must(core.absolute_path("lua/bin/fcproc"))))
  end)

  it("is not found by a record that names another process, or another namespace", function()
    rootless.run(WATCH .. [[
      local path = home .. "/run/.fcproc/rootless/record"
      local first = world()
      must(first:ensure_bridge())
      local text = support.read_file(path)
      local seen = state()
      -- A namespace of somebody else, by the number of our own.
      must(core.write_file(path, (text:gsub('"net":%s*%d+', '"net":' .. core.stat("/proc/self/ns/net",
        true).ino)), 384))
      equal(nil, state())
      must(core.write_file(path, (text:gsub('"pid":%d+', '"pid":' .. support.own_pid())), 384))
      equal(nil, state().holder) -- whoever is in there is
      must(core.write_file(path, text:sub(1, 40), 384))
      equal(nil, state())
      local second <close> = world()
      must(second:ensure_bridge())
      check(state().netns ~= seen.netns, "believed")
      first:close()
    ]])
  end)
end)

describe("the uplink of a user's namespaces", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("leads to the world, and to no service on the host's loopback", function()
    rootless.run(WATCH .. [[
      support.write_file(home .. "/serve.py", [=[
import socket, threading
def serve(family, address):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, 8123))
    s.listen()
    while True:
        c, _ = s.accept()
        c.send(address.encode())
        c.close()
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"),
        (socket.AF_INET, "10.98.0.1")):
    threading.Thread(target=serve, args=(family, address)).start()
]=])
      local server <close> = must(fcproc.spawn({ "python3", home .. "/serve.py" }))
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { network = { nat = true } }))
      equal("uplink0", vm:record().taps[1].nat)
      equal(nil, vm:record().warnings)
      support.write_file(home .. "/reach.py", [=[
import socket, sys, threading
def reach(address):
    try:
        print(address, socket.create_connection((address, 8123), 0.5).recv(100).decode(), flush=True)
    except OSError:
        pass
threads = [threading.Thread(target=reach, args=(address,)) for address in sys.argv[1:] ]
for t in threads: t.start()
for t in threads: t.join()
]=])
      local function reached(...)
        return must(fcproc.runner():run({ "python3", home .. "/reach.py", ... },
          { netns = manager.config.netns })).stdout
      end
      support.eventually("the world", function() return reached("10.98.0.1") ~= "" end)
      equal("10.98.0.1 10.98.0.1\n", reached("10.98.0.1", "127.0.0.1", "127.0.0.2", "::1", "10.99.0.1",
        "10.99.0.2", "fd99::1", "fd99::2", "172.30.0.1", "0.0.0.0", "169.254.1.1"))
      server:signal("KILL")
    ]], rootless.NETWORK)
  end)

  it("that ends alone is there again after the next operation, and all VMs run on", function()
    rootless.run(WATCH .. [[
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = { nat = true } }))
      local first = state()
      local function lose()
        support.eventually("it is set up", function()
          return support.read_file(home .. "/run/.fcproc/rootless/pasta.pid"):find("\n", 1, true)
        end)
        local before, uplink <close> = state(), pasta()
        equal(nil, before.ended)
        must(uplink:signal("KILL"))
        must(uplink:wait(5))
        support.eventually("it is gone, and told", function()
          return state().ended and not manager.net:link_exists(namespaces.UPLINK)
        end)
        equal(before.holder, state().holder)
      end
      local function is_back(how)
        local now = state()
        check(not now.ended and now.netns == first.netns, how)
        equal(namespaces.UPLINK, must(namespaces.uplink(manager)))
        must(support.pings(manager.config.netns, vm:address()))
      end
      lose()
      -- Who looks changes nothing.
      local doctor = require "spec.support.doctor"
      local found = doctor.by_name(must(require "fcproc.doctor".run(manager)))
      doctor.expect(found.uplink, "warn", "pasta has ended")
      doctor.expect(found.rootless, "ok", "holds it")
      check(state().ended, "mended")
      must(manager:ensure_bridge())
      is_back("ensure_bridge")
      lose()
      local second <close> = must(fcproc.vm.launch(manager, { id = "b", network = { nat = true } }))
      equal(nil, second:record().warnings)
      is_back("launch")
      lose()
      must(fcproc.vm.reclaim(manager))
      is_back("reclaim")
      lose()
      do
        local other <close> = world()
        found = doctor.by_name(must(require "fcproc.doctor".run(other)))
        doctor.expect(found.rootless, "ok", "from now on, since pasta had ended")
        doctor.expect(found.uplink, "ok", "uplink0")
      end
      is_back("another manager")
      -- So it is when the holder is killed, and pasta with it.
      local holder = must(fcproc.process(state().holder))
      must(holder:signal("KILL"))
      must(holder:wait(5))
      support.eventually("pasta is gone", function()
        return not manager.net:link_exists(namespaces.UPLINK)
      end)
      must(manager:ensure_bridge())
      is_back("the holder")
      -- And with all of them goes the last holder, too.
      holder = must(fcproc.process(state().holder))
      must(second:kill())
      must(vm:kill())
      manager:close()
      must(holder:wait(5))
    ]], rootless.NETWORK)
  end)

  it("is there as soon as pasta is, and a holder without it is started again, too", function()
    rootless.run(WATCH .. [[
      local find = namespaces.find_pasta
      namespaces.find_pasta = function() return nil end
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true }))
      local before = state()
      local holder <close> = must(fcproc.process(before.holder))
      must(holder:signal("KILL"))
      must(holder:wait(5))
      equal(nil, state().holder)
      must(manager:ensure_bridge())
      local now = state()
      check(now.holder and now.netns == before.netns, "no new holder")
      must(manager:ensure_bridge())
      fails("not_found", fcproc.vm.launch(manager, { network = { nat = true } }))
      equal(now.holder, state().holder)
      namespaces.find_pasta = find
      local found = require("spec.support.doctor").by_name(must(require("fcproc.doctor").run(manager)))
      check(found.uplink.fix:find("the next VM starts it", 1, true), found.uplink.fix)
      equal(now.holder, state().holder)
      local second <close> = must(fcproc.vm.launch(manager,
        { id = "b", network = { nat = namespaces.UPLINK } }))
      equal(nil, second:record().warnings)
      must(support.pings(manager.config.netns, vm:address()))
      equal(now.netns, state().netns)
    ]], rootless.NETWORK)
  end)

  it("that ends alone is mended once by one manager's many, none of whom waits for another", function()
    rootless.run(WATCH .. [[
      local manager <close> = world()
      must(manager:ensure_bridge())
      equal(namespaces.UPLINK, must(namespaces.uplink(manager)))
      local uplink <close> = pasta()
      must(uplink:signal("KILL"))
      must(uplink:wait(5))
      local before, functions = state(), {}
      for i = 1, 5 do functions[i] = function() return must(manager:ensure_bridge()) end end
      local began = core.now()
      fcproc.run(functions)
      check(core.now() - began < 10, core.now() - began) -- who waits for a lock does so for 10 s
      check(state().holder ~= before.holder and not state().ended, "not mended")
    ]], rootless.NETWORK)
  end)

  it("that can't be is not tried again and again", function()
    rootless.run(WATCH .. [[
      local manager <close> = world()
      must(manager:ensure_bridge())
      local holder = state().holder
      support.eventually("pasta has ended", function()
        return (support.read_file(("/proc/%d/fdinfo/6"):format(holder)) or ""):find("Pid:%s*-1")
      end)
      must(manager:ensure_bridge())
      local other <close> = world()
      equal(holder, state().holder)
      equal(nil, state().ended)
      local err = fails("not_found", namespaces.uplink(manager, nil, true))
      check(err.message:find("has this host a default route", 1, true), err)
      equal(holder, state().holder)
    ]], "unshare --net")
  end)

  it("that could not be is tried again for the next VM that asks for it, beside those that run", function()
    rootless.run(WATCH .. [[
      local find = namespaces.find_pasta
      namespaces.find_pasta = function() return "/bin/false" end
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true }))
      local before = state()
      local err = fails("not_found", fcproc.vm.launch(manager, { id = "b", network = { nat = true } }))
      check(err.message:find("The next VM that asks for one starts it again", 1, true), err)
      namespaces.find_pasta = function() return home .. "/pasta" end
      support.write_file(home .. "/pasta", "#!/bin/sh\necho '0.1: ERROR:   No sandbox, exiting' >\"$4\"\n")
      support.sh{ "chmod", "755", home .. "/pasta" }
      err = fails("not_found", fcproc.vm.launch(manager, { id = "b", network = { nat = true } }))
      check(err.message:find("no uplink: No sandbox, exiting; The next VM", 1, true), err)
      namespaces.find_pasta = find
      local second <close> = must(fcproc.vm.launch(manager, { id = "b", network = { nat = true } }))
      equal(nil, second:record().warnings)
      equal(before.netns, state().netns)
      must(support.pings(manager.config.netns, vm:address()))
    ]], rootless.NETWORK)
  end)

  it("is asked for in vain where pasta is not installed", function()
    rootless.run(WATCH .. [[
      local said
      local function logger(level, message) said = level == "warn" and message or said end
      local manager <close> = world{ logger = logger }
      namespaces.find_pasta = function() return nil end
      local err = fails("not_found", fcproc.vm.launch(manager, { network = { nat = true } }))
      check(err.message:find("apt install passt", 1, true), err)
      equal("network.nat", err.problems[1].place)
      for _, name in ipairs{ "eth0", namespaces.UPLINK } do
        fails("not_found", fcproc.vm.launch(manager, { network = { nat = name } }))
      end
      err = fails("invalid", fcproc.vm.launch(manager, { network = { nat = true }, vcpus = 99 }))
      equal(2, #err.problems)
      check(said and said:find("pasta is not installed", 1, true), said)
      local vm <close> = must(fcproc.vm.launch(manager, { network = true }))
      must(support.pings(manager.config.netns, vm:address()))
    ]])
  end)
end)
