-- What a Linux guest reaches through the host: a server in another network namespace, by NAT.

local support = require "spec.support"
local linux = require "spec.support.linux"
local fcproc = require "fcproc"
local nat = require "fcproc.network.nat"

local must = support.must

-- Says who connects, to each, on port 7000.
local SERVER = { "busybox", "nc", "-ll", "-p", "7000", "-e", "/bin/sh", "-c",
  "echo hello ${NCAT_REMOTE_ADDR:-you}" }

-- What stops the guests' packets, by name.
local function obstacles(world)
  local names = {}
  for _, answer in ipairs(must(nat.check(world.manager, "uplink"))) do
    if not answer.ok then names[#names + 1] = answer.name end
  end
  return names
end

describe("a Linux guest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("fetches from a server in another namespace through NAT", function()
    local world <close> = support.bridged_world()
    local outside <close> = must(fcproc.new_netns())
    local function inside(...) support.sh({ ... }, { netns = world.netns }) end
    inside("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns",
      ("/proc/%d/fd/%d"):format(support.own_pid(), outside:fd()))
    inside("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
    inside("ip", "link", "set", "uplink", "up")
    assert.are.same({ "ip_forward" }, obstacles(world))
    inside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    assert.are.same({}, obstacles(world))
    -- No route back to the guests: only what comes from 192.0.2.1 is answered.
    support.sh({ "ip", "address", "add", "192.0.2.2/24", "dev", "eth0" }, { netns = outside })
    support.sh({ "ip", "link", "set", "eth0", "up" }, { netns = outside })
    local server <close> = must(fcproc.spawn(SERVER, { netns = outside }))
    local _ <close> = setmetatable({}, { __close = function()
      server:signal("KILL")
      server:wait(10)
    end })
    local vm <close> = linux.launch(world, { network = { nat = "uplink" },
      args = "fcproc.fetch=192.0.2.2:7000" })
    linux.wait_for(vm, "linux guest: fetched hello")
    linux.stop_gracefully(vm)
    linux.nothing_left(world)
  end)
end)
