-- `make bench`: fcproc called from Lua, bare C (bare.c), and what it replaces, in turn in one run.
-- Prints a table and writes bench.json. A bar that is missed is shown, never an error.
-- Runs itself again inside a network namespace of its own, so that all sides work in "here".

local cjson = require "cjson"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local build, firecracker, inside = arg[1], arg[2], arg[3]
if not inside then
  local netns <close> = assert(fcproc.new_netns())
  local again <close> = assert(fcproc.spawn(
    { arg[-1], arg[0], build, firecracker, "inside" }, { netns = netns }))
  local _, exit = assert(again:wait())
  os.exit(exit and exit.status or 1)
end

local function tell(...) io.stderr:write(string.format(...), "\n") end

-- ---- the sides ----------------------------------------------------------------------------

-- Something to do when the block is left, also by an error or Ctrl-C.
local function finally(fn)
  return setmetatable({}, { __close = fn })
end

local function end_processes(processes)
  for _, process in ipairs(processes) do process:signal("KILL") end
  for _, process in ipairs(processes) do
    process:wait()
    process:close()
  end
end

local bare_program = assert(core.find_executable(build .. "/bench-bare"))
local runner = fcproc.runner()
local dir = (assert(runner:run{ "mktemp", "-d" }).stdout:gsub("\n", ""))
local _ <close> = finally(function() runner:run{ "rm", "-r", dir } end)

-- Times come from its own clock, so its pipes cost nothing.
local to, from = dir .. "/to", dir .. "/from"
assert(runner:run{ "mkfifo", to, from })
local bare_process = assert(fcproc.spawn({ "sh", "-c", 'exec "$0" < "$1" > "$2"',
  bare_program, to, from }))
local _ <close> = finally(function() end_processes{ bare_process } end)
local bare_in, bare_out = assert(io.open(to, "w")), assert(io.open(from, "r"))

local function bare(format, ...)
  bare_in:write(format:format(...), "\n")
  bare_in:flush()
  return assert(tonumber(bare_out:read("l")), "bare C failed: " .. format) / 1e9
end

local function timed(fn, ...)
  local start = fcproc.now()
  local ok, err = fn(...)
  local took = fcproc.now() - start
  return assert(ok, err) and took
end

local function forked(...)
  return timed(function(argv) return runner:run(argv) end, { ... })
end

-- The same for a question whose answer may be no.
local function asked(...)
  return timed(function(argv)
    local result, err = runner:run(argv)
    return result or err.code == "exit_status", err
  end, { ... })
end

local manager = assert(fcproc.new{ bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24,
  runtime_dir = dir, firecracker_bin = firecracker })

-- ---- statistics ---------------------------------------------------------------------------

local function at(sorted, share) return sorted[math.max(1, math.ceil(#sorted * share))] end

local function summary(samples)
  table.sort(samples)
  return { median = at(samples, 0.5), p10 = at(samples, 0.1), p90 = at(samples, 0.9), n = #samples }
end

local rows = {}

-- Measures all sides in turn, round by round; fcproc twice, which shows the noise (A/A). Each round
-- begins with another side and goes the other way round, so that none always follows the same one.
local order = { "fcproc", "bare", "again", "cred", "other" }

local function row(name, rounds, bar, sides)
  tell("  %s ...", name)
  local samples = {}
  for round = 1, rounds do
    for turn = 1, #order do
      local side = order[(round + (round % 2 == 0 and turn or -turn)) % #order + 1]
      local fn = side == "again" and sides.fcproc or sides[side]
      if fn and (side ~= "other" or round <= (sides.other_rounds or rounds)) then
        samples[side] = samples[side] or {}
        table.insert(samples[side], fn(round) / (sides.batch or 1))
      end
    end
  end
  local result = { name = name, bar = bar }
  for side, list in pairs(samples) do result[side] = summary(list) end
  result.ratio = result.fcproc.median / result.bare.median
  result.aa = result.fcproc.median / result.again.median
  result.gain = result.other and result.other.median / result.fcproc.median or nil
  rows[#rows + 1] = result
end

-- ---- the rows -----------------------------------------------------------------------------

local function bench_taps(others)
  assert(manager:ensure_bridge())
  local crowd = {}
  for i = 1, others do
    crowd[i] = "crowd" .. i
    assert(manager:create_tap(crowd[i]))
  end
  local function cleaned(took)
    assert(manager:delete_tap("bench0"))
    return took
  end
  row(("create a TAP beside %d, bridge ensured"):format(others), others > 0 and 30 or 60, 1.3, {
    fcproc = function()
      return cleaned(timed(function()
        return manager:ensure_bridge() and manager:create_tap("bench0")
      end))
    end,
    bare = function() return cleaned(bare("tap bench0 fcbr0")) end,
    other_rounds = 10,
    other = function()
      return cleaned(forked("ip", "link", "show", "fcbr0") + forked("ip", "link", "set", "fcbr0", "up")
        + asked("ip", "link", "show", "bench0")
        + forked("ip", "tuntap", "add", "dev", "bench0", "mode", "tap", "user", "0", "group", "0")
        + forked("ip", "link", "set", "bench0", "master", "fcbr0")
        + forked("ip", "link", "set", "bench0", "up") + forked("ip", "link", "set", "fcbr0", "up"))
    end,
  })
  row(("the same, isolated, beside %d"):format(others), others > 0 and 30 or 60, 1.3, {
    fcproc = function()
      return cleaned(timed(function()
        return manager:ensure_bridge() and manager:create_tap("bench0", { isolated = true })
      end))
    end,
    bare = function() return cleaned(bare("port bench0 fcbr0")) end,
  })
  if others > 0 then assert(manager:delete_taps(crowd)) end
end

local function bench_delete()
  local function made(fn)
    return function()
      assert(manager:create_tap("bench0"))
      return fn()
    end
  end
  row("delete one TAP", 30, nil, {
    fcproc = made(function() return timed(manager.delete_tap, manager, "bench0") end),
    bare = made(function() return bare("delete bench0") end),
    other = made(function() return forked("ip", "link", "del", "bench0") end),
  })
  local function fleet(fn)
    return function()
      local names = {}
      for i = 1, 50 do
        names[i] = "fleet" .. i
        assert(manager:create_tap(names[i]))
      end
      return fn(names)
    end
  end
  row("delete 50 TAPs as a group", 30, 1.2, {
    fcproc = fleet(function(names) return timed(manager.delete_taps, manager, names) end),
    bare = fleet(function() return bare("group fleet 50") end),
    other_rounds = 3,
    other = fleet(function(names)
      local total = 0
      for _, name in ipairs(names) do total = total + forked("ip", "link", "del", name) end
      return total
    end),
  })
end

local function bench_pid()
  local sock, batch = dir .. "/api.sock", 100 -- the listener's queue holds 128
  local vmm = assert(fcproc.spawn({ firecracker, "--api-sock", sock },
    { stdout = "null", stderr = "null" }))
  local crowd = { vmm }
  local _ <close> = finally(function() end_processes(crowd) end)
  assert(manager:wait_for_socket(sock))
  -- An answered request was behind all earlier connects in the queue: it is empty.
  local function drained(fn)
    return function()
      local deadline = fcproc.now() + 10
      repeat
        local answer, err = fcproc.request(sock, "GET", "/")
        assert(answer or fcproc.now() < deadline, err)
      until answer
      return fn()
    end
  end
  for _, others in ipairs{ 10, 500, 2000 } do
    for i = #crowd, others do crowd[i + 1] = assert(fcproc.spawn{ "sleep", "600" }) end
    row(("pid of a listener beside %d processes"):format(others), 40, 1.5, {
      batch = batch,
      fcproc = drained(function()
        return timed(function()
          local pid
          for _ = 1, batch do pid = assert(manager:find_pid(sock)) end
          return pid == vmm:pid(), "another pid than Firecracker's"
        end)
      end),
      bare = drained(function() return bare("pid %s %d", sock, batch) end),
      cred = drained(function() return bare("cred %s %d", sock, batch) end),
      other_rounds = 5,
      other = function() return forked("pgrep", "-n", "-f", sock) * batch end,
    })
  end
end

-- One request over a connection of its own: to a process that is proved on it, and to whoever listens.
-- In turn, in batches, so that the difference of a few microseconds is not lost in the noise.
local proof = { bar = 10e-6 }

local function bench_proof()
  tell("  connect and GET, with the proof and without ...")
  local sock, batch, samples = dir .. "/proof.sock", 100, { with = {}, without = {}, more = {} }
  local vmm = assert(fcproc.spawn({ firecracker, "--api-sock", sock },
    { stdout = "null", stderr = "null" }))
  local _ <close> = finally(function() end_processes{ vmm } end)
  assert(manager:wait_for_socket(sock))
  local function get(process)
    return timed(function()
      for _ = 1, batch do
        local client <close> = assert(fcproc.client(sock, process))
        assert(client:request("GET", "/"))
      end
      return true
    end) / batch
  end
  for round = 1, 60 do
    local with, without
    if round % 2 == 0 then with, without = get(vmm), get() else without, with = get(), get(vmm) end
    table.insert(samples.with, with)
    table.insert(samples.without, without)
    table.insert(samples.more, with - without)
  end
  for name, list in pairs(samples) do proof[name] = summary(list) end
end

local function bench_kill()
  local config, sock, console = dir .. "/config.json", dir .. "/vm.sock", dir .. "/console"
  do
    local file <close> = assert(io.open(config, "w"))
    local text = cjson.encode{ ["machine-config"] = { vcpu_count = 1, mem_size_mib = 16 },
      ["boot-source"] = { kernel_image_path = assert(fcproc.guest_path()) } }
    assert(file:write((text:gsub("}$", ',"drives":[]}'))))
  end
  local function running(fn)
    return function()
      os.remove(sock)
      os.remove(console)
      local vm = assert(fcproc.spawn({ firecracker, "--api-sock", sock, "--config-file", config },
        { stdout = { file = console }, stderr = { file = console } }))
      local _ <close> = finally(function() end_processes{ vm } end)
      assert(manager:wait_for_socket(sock))
      local deadline = fcproc.now() + 10
      repeat
        core.poll_many({}, {}, 0.005)
        local file <close> = assert(io.open(console))
        local booted = file:read("a"):find("fcproc guest: ready", 1, true)
        assert(booted or fcproc.now() < deadline, "the guest did not boot")
      until booted
      local took = fn(vm)
      assert(not vm:alive(), "said to be gone, but is there")
      return took
    end
  end
  row("kill a running VM, until it is gone", 25, 1.1, {
    fcproc = running(function(vm)
      return timed(function()
        return manager:kill(vm:pid(), sock) and manager:wait_for_exit(vm:pid(), sock, 10)
      end)
    end),
    bare = running(function(vm) return bare("kill %d", vm:pid()) end),
    other_rounds = 8,
    other = running(function(vm) -- kill, then a look every 100 ms, as before
      return timed(function()
        local ok, err = runner:run{ "kill", "-KILL", vm:pid() }
        while vm:alive() do core.poll_many({}, {}, 0.1) end
        return ok, err
      end)
    end),
  })
end

-- A Firecracker that has a snapshot's memory, and whose guest goes on. In memory, as the guest's is.
local function bench_restore()
  local _ <close> = finally(function() runner:run{ "rm", "-r", "/dev/shm/fcproc-bench" } end)
  assert(runner:run{ "mkdir", "-m", "700", "/dev/shm/fcproc-bench" })
  local folder, snapshot = "/dev/shm/fcproc-bench", "/dev/shm/fcproc-bench/snapshot"
  local own <close> = assert(fcproc.new{ runtime_dir = folder .. "/run", firecracker_bin = firecracker })
  do
    local vm <close> = assert(fcproc.vm.launch(own, {}))
    assert(assert(vm:console()):wait_for("fcproc guest: ready", 10))
    assert(vm:snapshot(snapshot))
  end
  row("restore a VM of 16 MiB from its snapshot", 40, 1.1, {
    fcproc = function()
      local vm
      local took = timed(function()
        local err
        vm, err = fcproc.vm.restore(own, snapshot)
        return vm, err
      end)
      assert(vm:kill())
      return took
    end,
    bare = function()
      local took = bare("restore %s %s %s", snapshot, folder, firecracker)
      bare("unrestore")
      return took
    end,
  })
end

-- ---- the run ------------------------------------------------------------------------------

tell("measuring, about a minute")
bench_taps(0)
bench_taps(1000)
bench_delete()
bench_pid()
bench_proof()
bench_kill()
bench_restore()
assert(manager:delete_bridge())

local function unit(median)
  if median < 1e-3 then return 1e6, "µs" end
  return 1e3, "ms"
end

local function cell(s, scale)
  if not s then return "-" end
  return ("%.1f [%.1f %.1f]"):format(s.median * scale, s.p10 * scale, s.p90 * scale)
end

print("| work | fcproc from Lua | bare C | ratio | bar | A/A | what it replaces | gain |")
print("|---|--:|--:|--:|--:|--:|--:|--:|")
for _, r in ipairs(rows) do
  local scale, name = unit(r.fcproc.median)
  print(("| %s, %s | %s | %s | %.2f | %s | %.2f | %s | %s |"):format(r.name, name,
    cell(r.fcproc, scale), cell(r.bare, scale), r.ratio,
    r.bar and ("%.1f %s"):format(r.bar, r.ratio <= r.bar and "met" or "MISSED") or "-", r.aa,
    r.other and ("%.1f"):format(r.other.median * scale) or "-",
    r.gain and ("%.0f×"):format(r.gain) or "-"))
end
for _, r in ipairs(rows) do
  if r.cred then
    print(("(%s, bare C by SO_PEERCRED alone, which can't tell a dead listener: %.1f µs)"):format(
      r.name, r.cred.median * 1e6))
  end
end
print(("Connect and GET over a connection of its own: %s µs with the proof of who answers, %s without; "
  .. "the difference, pair by pair: %s µs, bar %.0f %s"):format(cell(proof.with, 1e6),
  cell(proof.without, 1e6), cell(proof.more, 1e6), proof.bar * 1e6,
  proof.more.median <= proof.bar and "met" or "MISSED"))
local near, far
for _, r in ipairs(rows) do
  if r.name:find("^pid of a listener") then near, far = near or r, r end
end
print(("Flat? Beside 2,000 processes the pid takes %.2f times as long as beside 10; for bare C, %.2f.")
  :format(far.fcproc.median / near.fcproc.median, far.bare.median / near.bare.median))
local cpuinfo = assert(io.open("/proc/cpuinfo")):read("a")
local _, cores = cpuinfo:gsub("processor%s*:", "")
local machine = ("%s, %d cores, Linux %s"):format(cpuinfo:match("model name%s*: ([^\n]+)") or "?", cores,
  assert(io.open("/proc/sys/kernel/osrelease")):read("l"))
print("Medians with the 10th and 90th percentile. Machine: " .. machine)
local file <close> = assert(io.open(build .. "/bench.json", "w"))
file:write(cjson.encode{ machine = machine, rows = rows, proof = proof }, "\n")
