-- The addresses of guests: arithmetic, names derived from ids, the kernel's ip= argument.

local support = require "spec.support"
local address = require "fcproc.network.address"

local must, fails, raises = support.must, support.fails, support.raises

local function list(iterator)
  local all = {}
  for item in iterator do all[#all + 1] = item end
  return all
end

describe("address.parse and format", function()
  it("turn each into the other", function()
    for text, number in pairs{ ["0.0.0.0"] = 0, ["255.255.255.255"] = 0xffffffff,
      ["172.30.0.5"] = 0xac1e0005, ["1.2.3.4"] = 0x01020304 } do
      assert.are.equal(number, must(address.parse(text)))
      assert.are.equal(text, address.format(number))
    end
  end)

  it("refuse what is no dotted quad, with the text", function()
    for _, text in ipairs{ "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.04", "1.2.3.00", "1.2.3.-4",
      "1.2.3.4 ", "::1", "1.2.3.0x4", "1.2.3.4\n", "1..3.4", "1.2.3.1000",
      "1.2.3." .. ("9"):rep(40) } do
      local err = fails("invalid", address.parse(text))
      assert.is_truthy(err.message:find("'" .. text .. "'", 1, true))
    end
    raises("text must be a string", address.parse, 5)
  end)
end)

describe("address.subnet", function()
  it("tells all of a /24, a /30 and a /8", function()
    assert.are.same({ network = "172.30.0.0", broadcast = "172.30.0.255", gateway = "172.30.0.1",
      netmask = "255.255.255.0", prefix = 24 }, must(address.subnet("172.30.0.1", 24)))
    assert.are.same({ network = "10.0.0.4", broadcast = "10.0.0.7", gateway = "10.0.0.6",
      netmask = "255.255.255.252", prefix = 30 }, must(address.subnet("10.0.0.6", 30)))
    assert.are.same({ network = "10.0.0.0", broadcast = "10.255.255.255", gateway = "10.1.2.3",
      netmask = "255.0.0.0", prefix = 8 }, must(address.subnet("10.1.2.3", 8)))
  end)

  it("is another for the same gateway with another prefix", function()
    for _, prefix in ipairs{ 24, 16, 24 } do
      local subnet = must(address.subnet("172.30.0.1", prefix))
      assert.are.equal(prefix, subnet.prefix)
      assert.are.equal(prefix == 24 and "172.30.0.255" or "172.30.255.255", subnet.broadcast)
    end
  end)

  it("refuses what has no room for guests, and a gateway that is no host", function()
    for _, prefix in ipairs{ 31, 32, 33, 7, 0, -1 } do
      local err = fails("invalid", address.subnet("10.0.0.1", prefix))
      assert.is_truthy(err.message:find("from 8 to 30", 1, true))
    end
    assert.is_truthy(fails("invalid", address.subnet("10.0.0.0", 24)).message
      :find("the network address", 1, true))
    assert.is_truthy(fails("invalid", address.subnet("10.0.0.7", 30)).message
      :find("the broadcast address", 1, true))
    fails("invalid", address.subnet("fd00::1", 24))
    raises("prefix must be an integer", address.subnet, "10.0.0.1", "24")
  end)
end)

describe("address.check", function()
  it("takes a guest's address and says what is wrong with any other", function()
    local subnet = must(address.subnet("172.30.0.1", 24))
    assert.is_true(must(address.check("172.30.0.2", subnet)))
    assert.is_true(must(address.check("172.30.0.254", subnet)))
    for text, reason in pairs{ ["172.30.0.0"] = "network address",
      ["172.30.0.255"] = "broadcast address", ["172.30.0.1"] = "gateway address",
      ["172.30.1.2"] = "outside the bridge's subnet 172.30.0.0/24", ["172.29.255.255"] = "outside",
      ["x"] = "no IPv4 address" } do
      assert.is_truthy(fails("invalid", address.check(text, subnet)).message:find(reason, 1, true))
    end
  end)
end)

describe("address.candidates", function()
  it("gives every host but the gateway once, from a place that folder and id decide", function()
    local subnet = must(address.subnet("172.30.0.9", 24))
    local function of(folder, id) return list(address.candidates(subnet, folder, id)) end
    local all = of("/run/fcproc", "vm1")
    assert.are.same(all, of("/run/fcproc", "vm1"))
    assert.are_not.equal(all[1], of("/run/other", "vm1")[1])
    assert.are.equal(253, #all)
    local seen = {}
    for _, candidate in ipairs(all) do
      assert.is_nil(seen[candidate])
      seen[candidate] = true
      must(address.check(candidate, subnet))
    end
    local starts = {}
    for n = 1, 100 do starts[of("/run/fcproc", "vm" .. n)[1]] = true end
    local different = 0
    for _ in pairs(starts) do different = different + 1 end
    assert.is_true(different > 60) -- 84 are to be expected of a perfect hash
  end)

  it("in a /30 there is one, and in a /8 the first comes without a list", function()
    local subnet = must(address.subnet("10.0.0.5", 30))
    for _, id in ipairs{ "a", "b", "c" } do
      assert.are.same({ "10.0.0.6" }, list(address.candidates(subnet, "/run/fcproc", id)))
    end
    subnet = must(address.subnet("10.0.0.1", 8))
    collectgarbage()
    local before = collectgarbage("count")
    local following = address.candidates(subnet, "/run/fcproc", "vm1")
    must(address.check(following(), subnet))
    must(address.check(following(), subnet))
    assert.is_true(collectgarbage("count") - before < 100)
  end)
end)

describe("address.guest_argument", function()
  local function fields(changes)
    local all = { address = "172.30.0.5", gateway = "172.30.0.1", netmask = "255.255.255.0",
      hostname = "host" }
    for key, value in pairs(changes or {}) do all[key] = value end
    return all
  end

  it("is what the kernel's ip= takes", function()
    assert.are.equal("ip=172.30.0.5::172.30.0.1:255.255.255.0:host:eth0:off",
      must(address.guest_argument(fields())))
    assert.are.equal("ip=172.30.0.5::172.30.0.1:255.255.255.0:host:eth1:off:1.1.1.1:8.8.8.8",
      must(address.guest_argument(fields{ device = "eth1", dns = { "1.1.1.1", "8.8.8.8" } })))
  end)

  it("lets nothing end it early", function()
    for _, hostname in ipairs{ "a b", "a:b", "", "-x", "a\nb", ("x"):rep(65), "a=b\"" } do
      fails("invalid", address.guest_argument(fields{ hostname = hostname }))
    end
    fails("invalid", address.guest_argument(fields{ device = "eth0 init=/bin/sh" }))
    fails("invalid", address.guest_argument(fields{ gateway = "172.30.0.1 quiet" }))
    fails("invalid", address.guest_argument(fields{ dns = { "1.1.1.1", "dns.example" } }))
    fails("invalid", address.guest_argument(fields{ dns = { "1.1.1.1", "1.1.1.2", "1.1.1.3" } }))
    raises("unknown option 'host'", address.guest_argument, { host = "x" })
  end)
end)

describe("names derived from an id", function()
  it("are stable, and what the kernel takes", function()
    assert.are.equal(address.mac("/run/fcproc", "vm1"), address.mac("/run/fcproc", "vm1", 0))
    assert.is_truthy(address.mac("/run/fcproc", "vm1"):match("^06" .. (":%x%x"):rep(5) .. "$"))
    local name = address.tap_name("/run/fcproc", "vm1")
    assert.are.equal(name, address.tap_name("/run/fcproc", "vm1", 0))
    assert.is_truthy(name:match("^fc[%l%d]+$"))
    assert.are.equal(15, #name)
    -- Written down: a later version must find what this one has made.
    assert.are.same({ "06:c2:0a:92:7c:63", "fc2p249ydcej427" }, { address.mac("/run/fcproc", "vm1"), name })
  end)

  it("differ with the id, the index and the folder", function()
    local seen, count = {}, 0
    local function add(name)
      assert.is_nil(seen[name], name)
      seen[name] = true
      count = count + 1
    end
    for n = 1, 2000 do
      for index = 0, 1 do
        add(address.mac("/run/a", "vm" .. n, index))
        add(address.mac("/run/b", "vm" .. n, index))
        add(address.tap_name("/run/a", "vm" .. n, index))
        add(address.tap_name("/run/b", "vm" .. n, index))
      end
    end
    add(address.tap_name("/run/ab", "c"))
    add(address.tap_name("/run/a", "bc"))
    assert.are.equal(16002, count)
  end)
end)
