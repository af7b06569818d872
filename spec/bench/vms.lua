-- The second half of `make bench`: whole VMs, from nothing to running and to gone, one and in fleets.
-- fcproc (fleet.lua), bare C (bare-vms.c) and curl in a shell (curl.sh), in turn in one run, each
-- measurement in a process of its own. Prints a table and writes bench-vms.json. A bar that is
-- missed is shown, never an error. Works in a network namespace and in a folder of its own.

local cjson = require "cjson"
local fcproc = require "fcproc"

local build, firecracker, inside = arg[1], arg[2], arg[3]
if not inside then
  local netns <close> = assert(fcproc.new_netns())
  local again <close> = assert(fcproc.spawn(
    { arg[-1], arg[0], build, firecracker, "inside" }, { netns = netns }))
  local _, exit = assert(again:wait())
  os.exit(exit and exit.status or 1)
end

local BRIDGE = "fcbr0"
local CPU_BAR, RSS_BAR, TIME_BAR = 0.5e-3, 8, 1.1 -- seconds a VM, MiB, times bare C
local ASKED_CPU_BAR, ASKED_RSS_BAR, ASKED_TIME_BAR = 0.3e-3, 12, 1.2 -- of Ctrl-Alt-Del, at 100 and 200
local FLEETS = { { n = 1, rounds = 80 }, { n = 10, rounds = 12 }, { n = 50, rounds = 7 },
  { n = 100, rounds = 7 } }

local runner = fcproc.runner()
local kernel = assert(fcproc.guest_path())
-- In memory: what is measured is not this machine's disk.
local home = (assert(runner:run{ "mktemp", "-d", "-p", "/dev/shm" }).stdout:gsub("\n", ""))
local here = arg[0]:match("^(.*)/") or "."

local function measure(...)
  return cjson.decode(assert(runner:run({ ... }, { timeout = 120 })).stdout)
end

local sides = {
  fcproc = function(n, bridge, by_cad)
    return measure(arg[-1], here .. "/fleet.lua", home .. "/fcproc", firecracker, n, bridge or "-",
      by_cad and "ctrl_alt_del")
  end,
  bare = function(n, bridge, by_cad)
    return measure(build .. "/bench-bare-vms", home .. "/bare", firecracker, kernel, n, bridge or "-",
      by_cad and "cad")
  end,
  curl = function(n)
    return measure("sh", here .. "/curl.sh", home .. "/curl", firecracker, kernel, n)
  end,
}
sides.again = sides.fcproc -- A/A: the noise

local function at(sorted, share) return sorted[math.max(1, math.ceil(#sorted * share))] end

local function summary(samples)
  table.sort(samples)
  return { median = at(samples, 0.5), p10 = at(samples, 0.1), p90 = at(samples, 0.9), n = #samples }
end

-- Each round begins with another side and goes the other way round.
local ORDER = { "fcproc", "bare", "again", "curl" }

local function row(n, rounds, bridge, by_cad)
  io.stderr:write(("  %d at once%s%s ...\n"):format(n, bridge and ", with TAPs" or "",
    by_cad and ", ended by Ctrl-Alt-Del" or ""))
  local samples = {}
  for round = 1, rounds do
    for turn = 1, #ORDER do
      local side = ORDER[(round + (round % 2 == 0 and turn or -turn)) % #ORDER + 1]
      if side ~= "curl" or (n <= 10 and not bridge) then
        local got = sides[side](n, bridge, by_cad)
        got.total = got.up + got.down
        samples[side] = samples[side] or {}
        for what, value in pairs(got) do
          samples[side][what] = samples[side][what] or {}
          table.insert(samples[side][what], value)
        end
      end
    end
  end
  local result = { n = n, bridge = bridge ~= nil }
  for side, of in pairs(samples) do
    result[side] = {}
    for what, list in pairs(of) do result[side][what] = summary(list) end
  end
  return result
end

local rows, asked = {}, {}
local empty, later
do
  local _ <close> = setmetatable({}, { __close = function() runner:run{ "rm", "-r", home } end })
  io.stderr:write("measuring whole VMs, about two minutes\n")
  local manager <close> = assert(fcproc.new{ bridge_name = BRIDGE, bridge_ip = "172.30.0.1",
    cidr = 24, runtime_dir = home .. "/fcproc", firecracker_bin = firecracker })
  assert(manager:ensure_bridge())
  empty = sides.fcproc(0)
  for _, fleet in ipairs(FLEETS) do rows[#rows + 1] = row(fleet.n, fleet.rounds) end
  for _, fleet in ipairs(FLEETS) do
    if fleet.n == 1 or fleet.n == 100 then
      rows[#rows + 1] = row(fleet.n, fleet.rounds, BRIDGE)
    end
  end
  later = measure(arg[-1], here .. "/fleet.lua", home .. "/fcproc", firecracker, 1, BRIDGE, "sigkill",
    40)
  assert(manager:delete_bridge())
  for _, n in ipairs{ 100, 200 } do asked[#asked + 1] = row(n, 5, nil, true) end
end

local function ms(s) return ("%.1f [%.1f %.1f]"):format(s.median * 1e3, s.p10 * 1e3, s.p90 * 1e3) end

local function verdict(value, bar) return value <= bar and "met" or "MISSED" end

print("| VMs, ms until all run and until all are gone | fcproc from Lua | bare C | ratio | bar | A/A "
  .. "| curl in a shell | gain |")
print("|---|--:|--:|--:|--:|--:|--:|--:|")
for _, r in ipairs(rows) do
  local ratio = r.fcproc.total.median / r.bare.total.median
  local name = r.n .. (r.bridge and ", each with a TAP" or "")
  local barred = r.n == 1 or r.n == 100
  print(("| %s | %s | %s | %.2f | %s | %.2f | %s | %s |"):format(name, ms(r.fcproc.total),
    ms(r.bare.total), ratio, barred and ("%.1f %s"):format(TIME_BAR, verdict(ratio, TIME_BAR)) or "-",
    r.fcproc.total.median / r.again.total.median, r.curl and ms(r.curl.total) or "-",
    r.curl and ("%.1f×"):format(r.curl.total.median / r.fcproc.total.median) or "-"))
  for _, part in ipairs{ "up", "down" } do
    print(("| … %s | %s | %s | %.2f | - | %.2f | %s | |"):format(part, ms(r.fcproc[part]),
      ms(r.bare[part]), r.fcproc[part].median / r.bare[part].median,
      r.fcproc[part].median / r.again[part].median, r.curl and ms(r.curl[part]) or "-"))
  end
end
print(("A VM with a TAP is up in %.1f ms where it is not its process's first (mean of 40): the first takes "
  .. "more is code and memory that are touched for the first time."):format(later.up * 1e3))
print()
print("| VMs | own CPU a VM, ms: fcproc | with the script's start | bare C | bar "
  .. "| peak RSS, MiB: fcproc | bar | anonymous memory | bare C's peak |")
print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
for _, r in ipairs(rows) do
  local flow, rss = r.fcproc.flow.median / r.n, r.fcproc.hwm.median / 1024
  local barred = r.n == 100
  local cpu_barred = barred and not r.bridge -- with links, bare C alone needs more than that
  print(("| %d%s | %.2f | %.2f | %.2f | %s | %.1f | %s | %.1f | %.1f |"):format(r.n,
    r.bridge and ", each with a TAP" or "", flow * 1e3, r.fcproc.cpu.median / r.n * 1e3,
    r.bare.cpu.median / r.n * 1e3, cpu_barred and ("%.1f %s, %.1f×"):format(CPU_BAR * 1e3,
      verdict(flow, CPU_BAR), flow / CPU_BAR) or "-", rss, barred and ("%d %s, %.1f×"):format(RSS_BAR,
      verdict(rss, RSS_BAR), rss / RSS_BAR) or "-", r.fcproc.anon.median / 1024,
    r.bare.hwm.median / 1024))
end
print()
print("| VMs ended by Ctrl-Alt-Del | ms until all are gone: fcproc | bare C | ratio | bar "
  .. "| own CPU a VM for it, ms | bar | peak RSS, MiB | bar |")
print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
for _, r in ipairs(asked) do
  local ratio, used = r.fcproc.down.median / r.bare.down.median, r.fcproc.end_cpu.median / r.n
  local rss = r.fcproc.hwm.median / 1024
  print(("| %d | %s | %s | %.2f | %.1f %s | %.2f | %.1f %s | %.1f | %s |"):format(r.n,
    ms(r.fcproc.down), ms(r.bare.down), ratio, ASKED_TIME_BAR, verdict(ratio, ASKED_TIME_BAR),
    used * 1e3, ASKED_CPU_BAR * 1e3, verdict(used, ASKED_CPU_BAR), rss, r.n == 200
      and ("%d %s"):format(ASKED_RSS_BAR, verdict(rss, ASKED_RSS_BAR)) or "-"))
end
print(("A script that loads fcproc and launches nothing: %.1f MiB at its peak, %.1f of them anonymous, "
  .. "%.1f ms of CPU. The rest is pages of shared libraries, most of them libcurl's (TLS, Kerberos, "
  .. "LDAP), which every process that uses it has."):format(empty.hwm / 1024, empty.anon / 1024,
  empty.cpu * 1e3))
print("Medians with the 10th and 90th percentile; the A/A column is fcproc against itself.")
local file <close> = assert(io.open(build .. "/bench-vms.json", "w"))
file:write(cjson.encode{ rows = rows, asked = asked, empty = empty }, "\n")
