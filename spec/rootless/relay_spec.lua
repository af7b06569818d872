-- The relay of published ports, beside plain network namespaces and for root: half-closed connections,
-- clients that never read, many at once, floods, and its end. With a rootless VM, publish_spec.lua.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local HERE = "127.83.0.1" -- where nobody else's port is in the way
local MOST_FLOWS = 1024

local function descriptors(relay)
  return #must(core.list_dir(("/proc/%d/fd"):format(relay:pid())))
end

local function relay_of(world, ...)
  local relay, err = core.relay(world.netns, world.vmm, "127.0.0.1", { ... })
  must(relay, err)
  world.opened[#world.opened + 1] = relay
  -- 0 to 2, the VMM, epoll and its ports.
  local idle = 5 + select("#", ...)
  support.eventually("it has said that it is ready", function() return descriptors(relay) == idle end)
  return relay, idle
end

-- A namespace with servers in it, and a process in the VMM's place.
local function new_world()
  local world = { folder = support.folder(), netns = must(fcproc.new_netns()), opened = {} }
  local log = world.folder:file("log")
  world.servers = must(fcproc.spawn({ "python3", "spec/support/relay.py", "serve" },
    { netns = world.netns, stdout = { file = log }, stderr = { file = log } }))
  world.vmm = must(fcproc.spawn({ "sleep", "1000" }))
  function world.log() return support.read_file(log) or "" end
  support.eventually("the servers listen", function() return world.log():find("listening", 1, true) end)
  return setmetatable(world, { __close = function(self)
    for _, process in ipairs{ self.vmm, self.servers, table.unpack(self.opened) } do
      process:signal("KILL")
      process:wait(10)
      process:close()
    end
    self.netns:close()
    getmetatable(self.folder).__close(self.folder)
  end })
end

-- What a client says, to its end.
local function client(...)
  return support.sh({ "python3", "spec/support/relay.py", ... })
end

-- One that stays until the block's end: `local c <close> = staying(world, said, ...)`.
local function staying(world, said, ...)
  world.count = (world.count or 0) + 1
  local log, fifo = world.folder:file("client" .. world.count), world.folder:file("fifo" .. world.count)
  support.sh{ "mkfifo", fifo }
  local command = 'exec python3 spec/support/relay.py "$@" <>"$0"'
  local process = must(fcproc.spawn({ "sh", "-c", command, fifo, ... },
    { stdout = { file = log }, stderr = { file = log } }))
  support.eventually("it says " .. said, function()
    return (support.read_file(log) or ""):find(said, 1, true)
  end, 20)
  return setmetatable({}, { __close = function()
    process:signal("KILL")
    process:wait(10)
    process:close()
  end })
end

local function memory(relay)
  return tonumber(must(core.read_file(("/proc/%d/status"):format(relay:pid()))):match("VmRSS:%s*(%d+)"))
end

describe("the relay", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("passes each side's end on to the other, and all that came before it", function()
    local world <close> = new_world()
    local relay, before = relay_of(world, "tcp,127.83.0.1,8081,81", "tcp,127.83.0.1,8082,82")
    local answers = support.collect(client("half", "8081", "8082"), "[^\n]+")
    assert.are.same({ "True True", "True" }, { answers[1], answers[2] })
    support.eventually("the guest has read all", function()
      return world.log():find("read " .. answers[3], 1, true)
    end)
    support.eventually("nothing of it is left", function() return descriptors(relay) == before end)
  end)

  it("serves 1,000 connections at once", function()
    local world <close> = new_world()
    local relay, before = relay_of(world, "tcp,127.83.0.1,8084,84")
    do
      local clients <close> = staying(world, "1000", "many", "8084", "1000") -- luacheck: ignore
      assert.are.equal(before + 2000, descriptors(relay))
      assert.is_true(memory(relay) < 8192, memory(relay) .. " KiB")
    end
    support.eventually("nothing of them is left", function() return descriptors(relay) == before end)
  end)

  it("serves others while clients never read what a guest floods them with, in bounded memory", function()
    local world <close> = new_world()
    local relay = relay_of(world, "tcp,127.83.0.1,8083,83", "tcp,127.83.0.1,8084,84")
    do
      local clients <close> = staying(world, "stalled", "stall", "8083", "50") -- luacheck: ignore
      assert.are.equal("10\n", client("turns", "8084", "10"))
      assert.is_true(memory(relay) < 8192, memory(relay) .. " KiB") -- 50 buffers of 16 KiB among it
      local used = must(core.read_file(("/proc/%d/stat"):format(relay:pid()))):match("%) .*$")
      core.poll_many({}, {}, 0.2)
      local later = must(core.read_file(("/proc/%d/stat"):format(relay:pid()))):match("%) .*$")
      local function ticks(stat) return tonumber(stat:match("^%) " .. ("%S+ "):rep(11) .. "(%d+)")) end
      assert.is_true(ticks(later) - ticks(used) <= 5) -- it waits, and does not spin
    end
    support.eventually("the guest's floods end", function()
      return #support.collect(world.log(), "flooded") == 50
    end)
  end)

  it("takes no more from a client than a guest that never reads has room for", function()
    local world <close> = new_world()
    local relay = relay_of(world, "tcp,127.83.0.1,8086,86")
    assert.is_true(tonumber(client("push", "8086")) < 64 << 20)
    assert.is_true(memory(relay) < 8192)
  end)

  it("lets clients wait when its descriptors are used up, and forgets none", function()
    local world <close> = new_world()
    local relay = relay_of(world, "tcp,127.83.0.1,8084,84")
    support.sh{ "prlimit", "--pid", tostring(relay:pid()), "--nofile=24" }
    assert.are.equal("60\n", client("turns", "8084", "60"))
  end)

  it("resets who comes when the guest refuses or resets", function()
    local world <close> = new_world()
    relay_of(world, "tcp,127.83.0.1,8079,79", "tcp,127.83.0.1,8085,85")
    assert.are.equal("reset\nreset\n", client("refused", "8079", "8085"))
  end)

  it("answers each client of UDP from the address that he asked, of as many as there are", function()
    local world <close> = new_world()
    local relay, before = relay_of(world, "udp,0.0.0.0,8353,53", "udp,127.83.0.1,8354,54")
    assert.are.equal("4\n8\n", client("udp", "127.83.0.2", "8353", "4"))
    assert.are.equal("2500\n2504\n", client("udp", HERE, "8353", "2500"))
    assert.are.equal(before + MOST_FLOWS, descriptors(relay))
    local drowned <close> = staying(world, "drowning", "drown", "8354") -- luacheck: ignore
    assert.are.equal("20\n24\n", client("udp", HERE, "8353", "20"))
    assert.is_true(memory(relay) < 8192)
  end)

  it("ends with its VMM, and only then", function()
    local world <close> = new_world()
    local relay = relay_of(world, "tcp,127.83.0.1,8084,84")
    assert.is_nil((relay:wait(0.05)))
    world.vmm:signal("KILL")
    must(relay:wait(5))
    local again = must(fcproc.spawn({ "sleep", "1000" }))
    world.vmm:wait(5)
    world.vmm:close()
    world.vmm = again
    relay_of(world, "tcp,127.83.0.1,8084,84")
    assert.are.equal("1\n", client("turns", "8084", "1"))
  end)

  it("that can't have a port is none, and says which", function()
    local world <close> = new_world()
    relay_of(world, "tcp,127.83.0.1,8084,84", "udp,127.83.0.1,8353,53")
    for text, said in pairs{ ["tcp,127.83.0.1,8084,84"] = "127.83.0.1:8084/tcp is in use",
      ["udp,127.83.0.1,8353,53"] = "127.83.0.1:8353/udp is in use",
      ["tcp,0.0.0.0,8084,84"] = "0.0.0.0:8084/tcp" } do
      local err = fails("conflict", core.relay(world.netns, world.vmm, "127.0.0.1", { "tcp,127.83.0.1,8099,1",
        text }))
      assert.is_truthy(err.message:find(said, 1, true), err.message)
    end
    fails("invalid", core.relay(world.netns, world.vmm, "127.0.0.1", { "tcp,192.0.2.1,8084,84" }))
    fails("invalid", core.relay(world.netns, world.vmm, "127.0.0.1", {}))
    for _, text in ipairs{ "tcp,127.83.0.1,0,84", "sctp,127.83.0.1,1,84", "tcp,x,1,84", "tcp,127.83.0.1,1",
      "tcp,127.83.0.1,65536,1", "tcp,127.83.0.1,8090,84x" } do
      assert.is_nil((core.relay(world.netns, world.vmm, "127.0.0.1", { text })))
    end
    assert.is_nil((core.relay(world.netns, world.vmm, "there", { "tcp,127.83.0.1,8090,84" })))
  end)

  it("has no capability, and nothing of its maker's", function()
    local world <close> = new_world()
    local relay = relay_of(world, "tcp,127.83.0.1,8084,84")
    local status = must(core.read_file(("/proc/%d/status"):format(relay:pid())))
    for _, set in ipairs{ "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" } do
      assert.are.equal("0000000000000000", status:match(set .. ":%s*(%x+)"), set)
    end
    assert.are.equal("1", status:match("NoNewPrivs:%s*(%d)"))
  end)
end)
