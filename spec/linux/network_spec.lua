-- What a Linux guest reaches through the host: a server in another network namespace, by NAT.

local support = require "spec.support"
local linux = require "spec.support.linux"
local fcproc = require "fcproc"

local must = support.must

local RULES = [[
table ip guests {
  chain out {
    type nat hook postrouting priority srcnat
    ip saddr 172.30.0.0/24 oifname "uplink" masquerade
  }
}
]]

-- Says who connects, to each, on port 7000.
local SERVER = { "busybox", "nc", "-ll", "-p", "7000", "-e", "/bin/sh", "-c",
  "echo hello ${NCAT_REMOTE_ADDR:-you}" }

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
    inside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    support.sh({ "nft", "-f", "-" }, { netns = world.netns, input = RULES })
    -- No route back to the guests: only what comes from 192.0.2.1 is answered.
    support.sh({ "ip", "address", "add", "192.0.2.2/24", "dev", "eth0" }, { netns = outside })
    support.sh({ "ip", "link", "set", "eth0", "up" }, { netns = outside })
    local server <close> = must(fcproc.spawn(SERVER, { netns = outside }))
    local _ <close> = setmetatable({}, { __close = function()
      server:signal("KILL")
      server:wait(10)
    end })
    local vm <close> = linux.vm(world, { address = "172.30.0.2", args = "fcproc.fetch=192.0.2.2:7000",
      wait = "linux guest: fetched" })
    linux.wait_for_console(vm, "fetched hello")
  end)
end)
