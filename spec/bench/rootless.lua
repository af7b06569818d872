-- A part of `make bench`: VMs of an ordinary user, in namespaces and jails of his own, beside root's.
-- TAPs (taps.lua), whole fleets (fleet.lua), and what a published port's relay passes on (bare-tcp.c),
-- all sides in turn in one run. The user is made for it, in a mount namespace with devices of his own.
-- A bar that is missed is shown, never an error. Works in a network namespace and in a folder of its own.

local cjson = require "cjson"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local rootless = require "spec.support.rootless"

local build, firecracker, folder, inside = arg[1], arg[2], arg[3], arg[4]
local runner = fcproc.runner()
if not inside then
  -- In memory: what is measured is not this machine's disk.
  folder = assert(runner:run{ "mktemp", "-d", "-p", "/dev/shm" }).stdout:gsub("\n", "")
  local _ <close> = setmetatable({}, { __close = function() runner:run{ "rm", "-r", folder } end })
  assert(runner:run{ "chmod", "755", folder })
  local again <close> = assert(fcproc.spawn{ "sh", "-c", rootless.NETWORK .. ' "$@"', "sh", arg[-1], arg[0],
    build, firecracker, folder, "inside" })
  local _, exit = assert(again:wait())
  os.exit(exit and exit.status or 1, true)
end

local BRIDGE = "fcbr0"
local TAP_BAR, FLEET_BAR = 1.2, 1.1 -- times direct
local BATCH = 64 -- as many devices as are opened at once
local home, here = folder .. "/home", arg[0]:match("^(.*)/") or "."

local function as_user(...) return rootless.command(folder, ...) end
local function as_we_are(...) return { ... } end

-- ---- statistics ---------------------------------------------------------------------------

local function at(sorted, share) return sorted[math.max(1, math.ceil(#sorted * share))] end

local function summary(samples)
  table.sort(samples)
  return { median = at(samples, 0.5), p10 = at(samples, 0.1), p90 = at(samples, 0.9), n = #samples }
end

-- All sides in turn, round by round: each round begins with another and goes the other way round. Each
-- gives a table of what it measured; "again" is the first one, which shows the noise (A/A).
local function measure(name, rounds, order, sides)
  io.stderr:write(("  %s ...\n"):format(name))
  local samples = {}
  for round = 1, rounds do
    for turn = 1, #order do
      local side = order[(round + (round % 2 == 0 and turn or -turn)) % #order + 1]
      samples[side] = samples[side] or {}
      for what, value in pairs((sides[side] or sides[order[1]])()) do
        samples[side][what] = samples[side][what] or {}
        table.insert(samples[side][what], value)
      end
    end
  end
  for _, of in pairs(samples) do
    for what, list in pairs(of) do of[what] = summary(list) end
  end
  samples.name = name
  return samples
end

-- ---- the rows -----------------------------------------------------------------------------

-- Two processes that are asked in turn.
local function bench_taps()
  local function side(kind, place, command)
    local to, from = folder .. "/to-" .. kind, folder .. "/from-" .. kind
    assert(runner:run{ "mkfifo", to, from })
    local argv = command(arg[-1], here .. "/taps.lua", place, firecracker, kind)
    local process = assert(fcproc.spawn{ "sh", "-c", 'out="$1"; shift; exec "$@" <"$0" >"$out"', to, from,
      table.unpack(argv) })
    local input, output = assert(io.open(to, "w")), assert(io.open(from, "r"))
    local function ask(line)
      input:write(line, "\n")
      input:flush()
      return { took = assert(tonumber(output:read("l")), kind .. " failed") }
    end
    return ask, setmetatable({}, { __close = function()
      input:close() -- which ends it
      process:wait(10)
      process:close()
    end })
  end
  local own, ended <close> = side("rootless", home .. "/run", as_user) -- luacheck: ignore
  local direct, gone <close> = side("direct", folder .. "/direct", as_we_are) -- luacheck: ignore
  local order = { "rootless", "direct", "again" }
  return {
    measure(("TAPs, %d one after another, the bridge ensured for each"):format(BATCH), 40, order,
      { rootless = function() return own(BATCH) end, direct = function() return direct(BATCH) end }),
    measure("the first TAP of a manager, which is made for it", 40, order,
      { rootless = function() return own("first") end, direct = function() return direct("first") end }),
  }
end

local function bench_fleet(n, rounds)
  local function fleet(kind, place, command)
    return function()
      local argv = command(arg[-1], here .. "/fleet.lua", place, firecracker, tostring(n), BRIDGE,
        "sigkill", "1", kind)
      local got = cjson.decode(assert(runner:run(argv, { timeout = 120 })).stdout)
      got.total = got.up + got.down
      for what, value in pairs(got) do got[what] = value / n end
      return got
    end
  end
  return measure(n == 1 and "1 VM with a TAP" or n .. " VMs at once, each with a TAP", rounds,
    { "rootless", "direct", "again", "jailer" }, {
      rootless = fleet("rootless", home .. "/run", as_user),
      direct = fleet("direct", folder .. "/direct", as_we_are),
      jailer = fleet("jailer", folder .. "/jailer", as_we_are),
    })
end

-- Which answers from here on.
local function started(argv, opts)
  local log = folder .. "/ready"
  runner:run{ "rm", "-f", log }
  opts = opts or {}
  opts.stdout = { file = log }
  local process = assert(fcproc.spawn(argv, opts))
  local deadline = fcproc.now() + 10
  repeat
    core.poll_many({}, {}, 0.01)
    local file <close> = io.open(log)
    local ready = file and file:read("a"):find("ready", 1, true)
    assert(ready or fcproc.now() < deadline, argv[1] .. " does not serve")
  until ready
  return process
end

-- The same server in a namespace: asked in there, through a relay of ours, and through pasta's own
-- forwarding, which leads to what listens in its namespace, and to no guest.
local function bench_relay()
  local program = build .. "/bench-bare-tcp"
  local netns <close> = assert(fcproc.new_netns())
  local server <close> = started({ program, "serve", "7001" }, { netns = netns })
  local relay <close> = assert(core.relay(netns, server, "127.0.0.1", { "tcp,127.0.0.1,7002,7001" }))
  local pasta <close> = started(as_user("pasta", "-f", "--config-net", "-t", "7001", "-u", "none",
    "-T", "none", "-U", "none", "--", "setpriv", "--pdeathsig", "KILL", program, "serve", "7001"))
  local _ <close> = setmetatable({}, { __close = function()
    for _, process in ipairs{ server, pasta } do
      process:signal("KILL")
      process:wait(10)
    end
    relay:wait(10)
  end })
  local function ask(port, where)
    return function()
      return cjson.decode(assert(runner:run({ program, "ask", "127.0.0.1", port }, { netns = where })).stdout)
    end
  end
  return measure("what is sent to a published port", 7, { "relay", "none", "again", "pasta" },
    { relay = ask("7002"), none = ask("7001", netns), pasta = ask("7001") })
end

io.stderr:write("measuring VMs of an ordinary user, about two minutes\n")
local taps = bench_taps()
local fleets = {}
do
  local manager <close> = assert(fcproc.new{ bridge_name = BRIDGE, bridge_ip = "172.30.0.1", cidr = 24,
    runtime_dir = folder .. "/direct", firecracker_bin = firecracker })
  assert(manager:ensure_bridge())
  fleets[1], fleets[2] = bench_fleet(1, 30), bench_fleet(100, 5)
end
local relay = bench_relay()

-- ---- the tables ---------------------------------------------------------------------------

local function cell(s, scale)
  return ("%.2f [%.2f %.2f]"):format(s.median * scale, s.p10 * scale, s.p90 * scale)
end

local function ratio_cells(own, other, again, bar)
  local ratio = own.median / other.median
  local verdict = bar and ("%.1f %s"):format(bar, ratio <= bar and "met" or "MISSED") or "-"
  return ("%.2f | %s | %.2f"):format(ratio, verdict, own.median / again.median)
end

print("| work, ms each | rootless | direct | ratio | bar | A/A |")
print("|---|--:|--:|--:|--:|--:|")
for i, r in ipairs(taps) do
  print(("| %s | %s | %s | %s |"):format(r.name, cell(r.rootless.took, 1e3), cell(r.direct.took, 1e3),
    ratio_cells(r.rootless.took, r.direct.took, r.again.took, i == 1 and TAP_BAR or nil)))
end
print()
print("| VMs, ms a VM | rootless, in its jail | direct, in none | ratio | bar | A/A "
  .. "| direct, in the jailer's |")
print("|---|--:|--:|--:|--:|--:|--:|")
for i, r in ipairs(fleets) do
  for _, row in ipairs{ { "total", ", up and down" }, { "up", ": … up" }, { "down", ": … down" },
    { "flow", ": … own CPU" } } do
    local what, text = row[1], row[2]
    local bar = i == 2 and (what == "total" or what == "flow") and FLEET_BAR or nil
    print(("| %s%s | %s | %s | %s | %s |"):format(r.name, text, cell(r.rootless[what], 1e3),
      cell(r.direct[what], 1e3), ratio_cells(r.rootless[what], r.direct[what], r.again[what], bar),
      cell(r.jailer[what], 1e3)))
  end
end
print()
print("| TCP to a published port | relay | A/A | no relay, in the namespace | pasta -t, to its namespace |")
print("|---|--:|--:|--:|--:|")
for _, row in ipairs{ { "one_way", "one way, MB/s" }, { "connections", "connections a second, one by one" },
  { "question", "a question and its answer, µs" } } do
  local what, text = row[1], row[2]
  print(("| %s | %s | %.2f | %s | %s |"):format(text, cell(relay.relay[what], 1),
    relay.relay[what].median / relay.again[what].median, cell(relay.none[what], 1),
    cell(relay.pasta[what], 1)))
end
print("Medians with the 10th and 90th percentile; the A/A column is rootless against itself.")
local file <close> = assert(io.open(build .. "/bench-rootless.json", "w"))
file:write(cjson.encode{ taps = taps, fleets = fleets, relay = relay }, "\n")
