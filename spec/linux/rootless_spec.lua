-- An ordinary user's Linux guest, on a host of two addresses, with another host beside it: from where its
-- published ports are reached, and what it reaches itself.

local rootless = require "spec.support.rootless"
local support = require "spec.support"

-- The host is 10.99.0.2 and 10.98.0.1; the other one is 10.99.0.1, which is its gateway, too. On port 8123
-- each says where it was reached. On 7100 the other one connects to who is asked for, and says a line there.
local NETWORK = [[
busybox=$(command -v busybox)
ip link set lo up
unshare --net sleep 1000 &
other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link add eth0 type veth peer name eth0 netns $other
ip link add other0 type veth peer name other1
ip link set other1 up
ip address add 10.99.0.2/24 dev eth0
ip address add 10.98.0.1/24 dev other0
ip link set eth0 up
ip link set other0 up
ip route add default via 10.99.0.1
nsenter --net --target $other sh -ec 'ip address add 10.99.0.1/24 dev eth0
ip link set eth0 up; ip link set lo up'
serve='import socket, sys
s = socket.create_server((sys.argv[1], 8123))
while True:
    c, _ = s.accept()
    c.send(sys.argv[2].encode() + b"\n")
    c.close()'
python3 -c "$serve" 127.0.0.1 loopback &
python3 -c "$serve" 10.98.0.1 other-address &
nsenter --net --target $other python3 -c "$serve" 10.99.0.1 gateway &
nsenter --net --target $other "$busybox" nc -ll -p 7100 -e /bin/sh -c \
  'read -r address port line; echo "$line" | busybox nc -w 10 "$address" "$port"' &
exec "$@"
]]

local SCRIPT = [[
  local linux = require "spec.support.linux"
  local manager <close> = world()
  local vm <close> = linux.launch({ manager = manager }, { network = { nat = true }, args = "fcproc.do=serve",
    publish = { "7070:7000", "0.0.0.0:7071:7000", "10.99.0.2:7072:7000" } })
  equal("uplink0", vm:record().taps[1].nat)

  local function say(address, port, line)
    local result = fcproc.runner():run({ "busybox", "nc", "-w", "20", address, tostring(port) },
      { input = line .. "\n" })
    return result and result.stdout:match("[^\n]+")
  end
  support.eventually("the guest serves", function() return say("127.0.0.1", 7070, "peer") end, linux.TIMEOUT)

  -- The table of doc/guide.md; of a rootless VM the guest sees the bridge's address always.
  local function from(where, wanted)
    for i, port in ipairs{ 7070, 7071, 7072 } do
      local answer = where(port) or "no"
      equal(wanted[i], answer:match("172%.30%.0%.1:") and "reached" or answer)
    end
  end
  from(function(port) return say("127.0.0.1", port, "peer") end, { "reached", "reached", "no" })
  from(function(port) return say("10.99.0.2", port, "peer") end, { "no", "reached", "reached" })
  from(function(port) return say("10.99.0.1", 7100, ("10.99.0.2 %d peer"):format(port)) end,
    { "no", "reached", "reached" })

  equal("loopback", say("127.0.0.1", 8123, ""))
  local function reached(address, port)
    return say("127.0.0.1", 7070, ("reach %s %d"):format(address, port))
  end
  equal("other-address", reached("10.98.0.1", 8123))
  equal("gateway", reached("10.99.0.1", 8123))
  -- Its own; the bridge's; the namespace's, which is the host's, too; and what is never anybody's.
  for _, address in ipairs{ "127.0.0.1", "172.30.0.1", "10.99.0.2", "0.0.0.0" } do
    equal("nothing", reached(address, 8123))
  end
  -- Nor its own published port, by the host's ways.
  for _, address in ipairs{ "172.30.0.1", "10.99.0.2" } do equal("nothing", reached(address, 7071)) end
  must(vm:kill())
]]

describe("an ordinary user's Linux guest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is reached by its published ports alone, and reaches no service on the host's loopback", function()
    local dir <close> = support.folder()
    support.sh{ "chmod", "755", dir.path }
    support.write_file(dir:file("network"), NETWORK)
    rootless.run(SCRIPT, "unshare --net --pid --fork --mount-proc --kill-child sh -e " .. dir:file("network"))
  end)
end)
