-- Our rules beside those of others, who restart their firewalls: what is lost is told and put back, and
-- nobody's restart or change touches what is the other's.

local support = require "spec.support"
local guests = require "spec.support.guests"
local nat = require "fcproc.network.nat"

local must = support.must
local in_host, nft, ruleset = guests.in_host, guests.nft, guests.ruleset
local network, add_guest, entry_of = guests.network, guests.add_guest, guests.entry_of
local pings, reaches, SERVER_IP = guests.pings, guests.reaches, guests.SERVER_IP

local SPOOFED = "172.30.0.77"

-- Two guests with NAT; the first has an address that it may not use.
local function two_guests(net)
  local first, entry = add_guest(net, 5)
  local second, other = add_guest(net, 6)
  support.ip(first, "addr", "add", SPOOFED .. "/24", "dev", "eth0")
  return first, { entry, other }, second
end

local function works(guest)
  reaches(guest, SERVER_IP)
  assert.is_false(pings(guest, "172.30.0.1", SPOOFED))
end

-- Our tables alone, as nft lists them.
local function ours(net)
  local parts = {}
  for part in ruleset(net):gmatch("table %l+ fcproc_%x+ (%b{})") do parts[#parts + 1] = part end
  assert.are.equal(2, #parts)
  table.sort(parts) -- nft lists the older first
  return table.concat(parts, "\n")
end

-- All but our tables, and what has been counted.
local function theirs(net)
  return (ruleset(net):gsub("table %l+ fcproc_%x+ %b{}\n?", ""):gsub("packets %d+ bytes %d+", ""))
end

describe("NAT after somebody's flush of all rules", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is missing, and once put back lets guests out and holds them to their address again", function()
    local net <close> = network()
    local guest, entries, second = two_guests(net)
    must(nat.add_all(net.manager, entries))
    works(guest)
    assert.are.same({}, must(nat.missing(net.manager, entries)))
    local before = ours(net)
    in_host(net, "nft", "flush", "ruleset")
    reaches(guest, "172.30.0.1", SPOOFED)
    assert.is_false(pings(second, SERVER_IP))
    assert.are.same(entries, must(nat.missing(net.manager, entries)))
    assert.are.equal("", ruleset(net)) -- only looked
    assert.are.same(entries, must(nat.put_back(net.manager, entries)))
    assert.are.equal(before, ours(net))
    works(guest)
    reaches(second, SERVER_IP)
    assert.are.same({}, must(nat.missing(net.manager, entries)))
    assert.are.same({}, must(nat.put_back(net.manager, entries)))
    assert.are.equal(before, ours(net))
  end)

  it("is found whatever part of it was taken, and put back whole", function()
    local net <close> = network()
    local entries = { entry_of(5), entry_of(6) }
    must(nat.add_all(net.manager, entries))
    local before = ours(net)
    local name = ruleset(net):match("table ip (fcproc_%x+)")
    for _, loss in ipairs{
      "delete table ip $n", "flush chain bridge $n guest", "flush chain bridge $n prerouting",
      "flush chain ip $n forward", "flush chain ip $n postrouting", "flush set ip $n uplinks",
      "flush set ip $n guests", "flush set bridge $n guests", "flush map bridge $n taps",
      "flush set bridge $n senders", "flush table bridge $n",
      "flush map bridge $n taps\nflush chain bridge $n guest\nflush set bridge $n senders\n"
        .. "delete table bridge $n",
      "add table bridge $n { flags dormant; }", "insert rule bridge $n guest accept",
      "delete element bridge $n taps { \"fctap5\" }", "delete element ip $n uplinks { 172.30.0.5 . \"up0\" }",
    } do
      nft(net, (loss:gsub("%$n", name)))
      local missing = must(nat.missing(net.manager, entries))
      assert.is_true(#missing > 0, loss)
      assert.are.same(missing, must(nat.put_back(net.manager, entries)))
      assert.are.equal(before, ours(net), loss)
    end
    must(nat.remove(net.manager, entries))
    assert.are.equal("", ruleset(net))
  end)

  it("goes on for a guest with a part of it lost, which may be added or removed all the same", function()
    local net <close> = network()
    must(nat.add_all(net.manager, { entry_of(5), entry_of(6) }))
    local before, name = ours(net), ruleset(net):match("table ip (fcproc_%x+)")
    local function lose() nft(net, ("flush map bridge %s taps"):format(name)) end
    lose()
    must(nat.add_all(net.manager, { entry_of(5), entry_of(6) }))
    assert.are.equal(before, ours(net))
    lose()
    must(nat.remove(net.manager, { entry_of(5), entry_of(6) }))
    assert.are.equal("", ruleset(net))
  end)

  it("comes back before what was left over, and is not kept back by what can't be written", function()
    local net <close> = network()
    must(nat.add(net.manager, entry_of(9, { address = "172.30.0.5" })))
    must(nat.add(net.manager, entry_of(6, { mac = "06:00:00:00:00:99" })))
    local entries = { entry_of(5), entry_of(6), entry_of(7, { tap = "x*" }), entry_of(8, { mac = "" }) }
    assert.are.same({ entries[1], entries[2] }, must(nat.put_back(net.manager, entries)))
    assert.are.same({ entries[3], entries[4] }, must(nat.missing(net.manager, entries)))
    local left = must(nat.list(net.manager))
    table.sort(left, function(a, b) return a.tap < b.tap end)
    assert.are.same({ entries[1], entries[2] }, left)
  end)

  it("comes back with the next guest, for those who are named when the tables are gone", function()
    local net <close> = network()
    local entries, asked = { entry_of(5), entry_of(6) }, 0
    local function others()
      asked = asked + 1
      return entries
    end
    must(nat.add_all(net.manager, entries))
    assert.are.same({}, select(2, must(nat.add_all(net.manager, { entry_of(7) }, nil, others))))
    assert.are.equal(0, asked)
    local before = ours(net)
    for _, loss in ipairs{ "flush ruleset", "flush ruleset ip", "flush ruleset bridge" } do
      nft(net, loss)
      assert.are.same(entries, select(2, must(nat.add_all(net.manager, { entry_of(7) }, nil, others))))
      assert.are.equal(before, ours(net), loss)
    end
    assert.are.equal(3, asked)
  end)
end)

-- As firewalld has its rules: a table of its own, which is all that its restart replaces.
local FIREWALLD = [[
add table inet firewalld
delete table inet firewalld
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority 10; policy accept;
    ct state { established, related } accept
    iifname "lo" accept
    iifname "fcbr0" accept
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "fcbr0" accept
    reject with icmpx admin-prohibited
  }
  chain nat_POSTROUTING {
    type nat hook postrouting priority 110; policy accept;
  }
}
]]

-- As Docker sets them up at each start, by iptables.
local DOCKER = [[
iptables-nft -P FORWARD DROP
iptables-nft -N DOCKER 2>/dev/null || iptables-nft -F DOCKER
iptables-nft -N DOCKER-USER 2>/dev/null || true
iptables-nft -N DOCKER-ISOLATION-STAGE-1 2>/dev/null || iptables-nft -F DOCKER-ISOLATION-STAGE-1
iptables-nft -t nat -N DOCKER 2>/dev/null || iptables-nft -t nat -F DOCKER
for rule in "FORWARD -o docker0 -j DOCKER" \
  "FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT" \
  "FORWARD -i docker0 ! -o docker0 -j ACCEPT" "FORWARD -j DOCKER-ISOLATION-STAGE-1" \
  "FORWARD -j DOCKER-USER"; do
  iptables-nft -C $rule 2>/dev/null || iptables-nft -I $rule
done
iptables-nft -C DOCKER-USER -j RETURN 2>/dev/null || iptables-nft -A DOCKER-USER -j RETURN
rule="POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"
iptables-nft -t nat -C $rule 2>/dev/null || iptables-nft -t nat -A $rule
rule="PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"
iptables-nft -t nat -C $rule 2>/dev/null || iptables-nft -t nat -A $rule
]]

describe("beside other people's firewalls", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- start: starts and restarts it. remedy: lets guests out through it. What must hold beside it.
  local function check_beside(net, start, remedy)
    local guest, entries = two_guests(net)
    start()
    remedy()
    local before = theirs(net)
    assert.are_not.equal("", before)
    must(nat.add_all(net.manager, entries))
    works(guest)
    local own = ours(net)
    assert.are.equal(before, theirs(net))
    start() -- again: a restart
    assert.are.equal(own, ours(net))
    assert.are.equal(before, theirs(net))
    assert.are.same({}, must(nat.missing(net.manager, entries)))
    works(guest)
    in_host(net, "nft", "flush", "ruleset") -- as some scripts and /etc/nftables.conf begin
    start()
    remedy()
    assert.are.same(entries, must(nat.missing(net.manager, entries)))
    reaches(guest, "172.30.0.1", SPOOFED)
    assert.are.same(entries, must(nat.put_back(net.manager, entries)))
    assert.are.equal(own, ours(net))
    assert.are.equal(before, theirs(net))
    works(guest)
    must(nat.remove(net.manager, entries))
    assert.are.equal(before, theirs(net))
    assert.is_nil(ruleset(net):find("fcproc_", 1, true))
  end

  it("like firewalld's, restarts of either leave the other's rules alone", function()
    local net <close> = network()
    check_beside(net, function() nft(net, FIREWALLD) end, function() end)
  end)

  it("like Docker's, restarts of either leave the other's rules alone, and the remedy told works", function()
    local net <close> = network()
    check_beside(net, function() in_host(net, "sh", "-ec", DOCKER) end, function()
      for _, answer in ipairs(must(nat.check(net.manager, "up0"))) do
        if not answer.ok then
          assert.are.equal("forward_policy", answer.name)
          in_host(net, "sh", "-ec", (answer.fix:gsub("iptables ", "iptables-nft ")))
        end
      end
    end)
  end)
end)
