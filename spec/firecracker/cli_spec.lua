-- The fcproc command, as the process that a user starts: what it prints, its exit status, Ctrl-C.

local cjson = require "cjson"
local cli = require "spec.support.cli"
local core = require "fcproc.core"
local kernels = require "spec.support.kernels"
local support = require "spec.support"
local fcproc = require "fcproc"

local NOBODY = 65534

local function contains(text, wanted)
  assert.is_truthy(text:find(wanted, 1, true), ("'%s' in:\n%s"):format(wanted, text))
end

local function run_folder(world)
  return support.sh{ "ls", "-A", world.folder:file("run") }
end

-- Nothing of any VM is left: no folder, no TAP.
local function assert_clean(world)
  assert.are.equal(".fcproc\n", run_folder(world))
  for _, link in ipairs(support.ip(world.netns, "link", "show")) do
    assert.is_truthy(link.ifname == "lo" or link.ifname == "fcbr0", link.ifname)
  end
end

describe("the fcproc command", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("tells how it is used", function()
    local world <close> = cli.world()
    local help = cli.ok(world, "--help")
    for _, name in ipairs{ "run", "restore", "ps", "info", "console", "wait", "stop", "kill", "pause",
      "resume", "snapshot", "reclaim", "api", "metrics", "balloon", "mmds", "net", "doctor", "version",
      "help" } do
      assert.is_truthy(help:find("\n   " .. name .. "[%l, ]* +%u"), name .. " in:\n" .. help)
      contains(cli.ok(world, name, "--help"), "Usage: fcproc " .. name)
    end
    contains(help, "124 timed out")
    local _, err = cli.fails(world, 2, "rnu")
    contains(err, "Did you mean 'run'?")
    for _, args in ipairs{ { "" }, { "stop" }, { "run", "--vcpus", "x" }, { "run", "--jailer", "root" },
      { "stop", "a", "--ladder", "sigkil:1" }, { "ps", "--bridge-ip", "172.30.0.1" }, { "net" },
      { "ps", "--timeout", "soon" }, { "run", "--cgroup", "cpu.shares=1" },
      { "run", "--paused" } } do
      local out
      out, err = cli.fails(world, 2, table.unpack(args))
      assert.are.equal("", out)
      assert.is_truthy(err:find("^fcproc: [^\n]+\n$"), err)
    end
  end)

  it("with --json tells of wrong use in JSON, too", function()
    local world <close> = cli.world()
    for _, args in ipairs{ { "rnu", "--json" }, { "--json", "stop" }, { "--json", "ps", "--nothing" },
      { "run", "--vcpus", "x", "--json" }, { "--json", "ps", "--bridge-ip", "172.30.0.1" } } do
      local out, err = cli.fails(world, 2, table.unpack(args))
      local plain = cjson.decode(out).error
      assert.are.equal("invalid", plain.code)
      contains(err, "fcproc: " .. plain.message)
    end
    assert.are.equal("", (cli.fails(world, 2, "rnu", "--", "--json")))
  end)

  it("says which option is malformed, and what it wants", function()
    local world <close> = cli.world()
    for _, option in ipairs{ "--vcpus", "--mem", "--vsock" } do
      local _, err = cli.fails(world, 2, "run", option, "x")
      contains(err, ("malformed %s 'x': a whole number"):format(option))
    end
  end)

  it("fails when its output can't be written", function()
    local world <close> = cli.world()
    local function full(...)
      local run <close> = cli.start(world, { ... }, { stdout = { file = "/dev/full" } })
      local status = run:wait()
      contains(support.read_file(run.err), "the output can't be written: No space left on device")
      return status
    end
    for _, words in ipairs{ "--help", "run --help", "ps", "--json ps", "version", "net up", "net show",
      "--json reclaim", "doctor", "run --id a -d", "info a", "--json info a", "pause a", "resume a",
      "stop a", "run --id b" } do
      local args = {}
      for word in words:gmatch("%S+") do args[#args + 1] = word end
      assert.are.equal(1, full(table.unpack(args)), words)
    end
    local run <close> = cli.start(world, { "run" }, { stdout = { file = "/dev/full" } })
    assert.are.equal(1, run:wait())
    contains(support.read_file(run.err), "is stopped: the output can't be written: No space left on device")
    assert.are.equal(3, full("--json", "info", "nobody"))
    assert.are.equal(2, full("--json", "rnu"))
    cli.ok(world, "net", "down")
    assert_clean(world)
  end)

  it("is quiet when its reader has gone", function()
    local world <close> = cli.world()
    local folder = world.folder.path
    for trap, status in pairs{ [""] = "141\n", ["trap '' PIPE; "] = "0\n" } do
      support.sh{ "env", "FCPROC_RUNTIME_DIR=" .. world.folder:file("run"), "sh", "-c",
        ("%s{ until [ -e '%s/gone' ]; do sleep 0.02; done; %s lua/bin/fcproc ps 2>'%s/said'; "
          .. "echo $? >'%s/status'; } | { exec <&-; : >'%s/gone'; }"):format(trap, folder, support.lua,
          folder, folder, folder) }
      assert.are.equal(status, support.read_file(folder .. "/status"))
      assert.are.equal("", support.read_file(folder .. "/said"))
      support.sh{ "rm", folder .. "/gone" }
    end
  end)

  it("tells versions", function()
    local world <close> = cli.world()
    local versions = cli.json(world, "version")
    assert.are.equal(fcproc.VERSION, versions.fcproc)
    assert.is_truthy(versions.firecracker:find("^%d+%.%d+%.%d+"))
    contains(support.sh{ "uname", "-r" }, versions.kernel)
    contains(cli.ok(world, "version"), "fcproc ")
    local done = cli.run(world, { "version" }, { env = { FCPROC_FIRECRACKER = "/nowhere" } })
    assert.are.equal(0, done.status)
    contains(done.err, "not found at /nowhere")
  end)

  it("runs a VM in the background, shows it, pauses it, and stops it", function()
    local world <close> = cli.world()
    assert.are.equal("a\n", cli.ok(world, "run", "--id", "a", "--net", "--detach"))
    local vm = cli.json(world, "ps")[1]
    assert.are.equal("a running false", ("%s %s %s"):format(vm.id, vm.state, vm.managed))
    contains(cli.ok(world, "ps"), "a   running")
    local info = cli.json(world, "info", "a")
    assert.are.equal(vm.pid, info.pid)
    contains(cli.ok(world, "info", "a"), "address      " .. info.address)
    support.eventually("the guest is ready", function()
      return cli.ok(world, "console", "a"):find("fcproc guest: ready", 1, true)
    end)
    assert.are.equal(1, select(2, cli.ok(world, "console", "-n", "1", "a"):gsub("\n", "")))
    contains(cli.json(world, "console", "a").console, "fcproc guest: ready")
    assert.is_true(support.pings(world.netns, info.address))
    cli.ok(world, "pause", "a")
    assert.are.equal("paused", cli.json(world, "info", "a").state)
    contains(cli.ok(world, "ps"), "a   paused")
    assert.are.equal("running", cli.json(world, "resume", "a").state)
    contains(cli.ok(world, "ps"), "a   running")
    local shown = cli.json(world, "net", "show")
    assert.are.equal("a", shown.taps[1].vm)
    assert.are.equal("a", shown.leases[1].owner)
    contains(cli.ok(world, "net", "show"), "-fcbr0-" .. info.address)
    contains(cli.ok(world, "stop", "a"), "a: ended by ctrl_alt_del")
    assert.are.equal("[]\n", cli.ok(world, "--json", "ps"))
    assert_clean(world)
  end)

  it("stops several, gently or not, and says of each what became of it", function()
    local world <close> = cli.world()
    for _, id in ipairs{ "a", "b", "c" } do cli.ok(world, "run", "--id", id, "-d") end
    local out, err = cli.fails(world, 3, "stop", "a", "nobody", "b", "--ladder", "sigterm:5")
    contains(out, "a: ended by sigterm")
    contains(out, "b: ended by sigterm")
    contains(err, "there is no VM 'nobody'")
    local list = cli.json(world, "kill", "c")
    assert.are.equal("sigkill", list[1].report.step)
    assert_clean(world)
  end)

  it("takes a VM's spec from a file, and options beside it", function()
    local world <close> = cli.world()
    local disk, path = world.folder:file("disk"), world.folder:file("vm.json")
    support.sh{ "truncate", "-s", "1M", disk }
    support.write_file(path, cjson.encode{ id = "a", mem_mib = 24, entropy = true })
    cli.ok(world, "run", "--spec", path, "-d", "--vcpus", "2", "--drive", disk .. ":ro:root",
      "--net", "172.30.0.77", "--net", "--mac", "06:00:00:00:00:09", "--vsock", "5")
    local info = cli.json(world, "info", "a")
    assert.are.same({ 2, 24, true, "172.30.0.77", "06:00:00:00:00:09", 2 }, { info.vcpus, info.mem_mib,
      info.drives[1].read_only, info.address, info.taps[1].guest_mac, #info.taps })
    cli.ok(world, "kill", "a")
    local done = cli.run(world, { "run", "--spec", "-", "-d" }, { input = '{"id":"b"}' })
    assert.are.equal("b\n", done.out)
    cli.ok(world, "kill", "b")
    for text, problem in pairs{ ["nonsense"] = "is no JSON object", ["[1"] = "is no JSON object",
      ['{"network":true}'] = "the network is in --spec already", ['{"hooks":{}}'] = "hooks",
      ['{"vcpu":1}'] = "vcpu: unknown" } do
      support.write_file(path, text)
      local _, err = cli.fails(world, 2, "run", "--spec", path, text:find("network") and "--net" or "-d")
      contains(err, problem)
    end
    cli.fails(world, 3, "run", "--spec", "/no/such/file")
    assert_clean(world)
  end)

  it("runs one in a jail", function()
    local world <close> = cli.world()
    cli.ok(world, "run", "--id", "j", "-d", "--jailer", "1234:1234", "--daemonize", "--net")
    local _, err = cli.fails(world, 1, "console", "j")
    contains(err, "has no console")
    contains(cli.ok(world, "stop", "j"), "j: ended by")
    assert_clean(world)
  end)

  it("runs one in a jail of its own: two have no uid in common, and auto is a free one", function()
    local world <close> = cli.world()
    cli.ok(world, "run", "--id", "a", "-d", "--jailer", "1234:1234")
    local _, err = cli.fails(world, 4, "run", "--id", "b", "-d", "--jailer", "1234:1234")
    contains(err, "jailer.uid: 1234: the VM 'a' has it")
    contains(err, 'or --jailer auto; or say "jailer": {"shared_uid": true} in a --spec file for both')
    cli.ok(world, "run", "--id", "b", "-d", "--jailer", "auto")
    local jail = cli.json(world, "info", "b").jail
    assert.is_true(jail.uid >= 70000 and jail.uid < 90000 and jail.gid == jail.uid)
    local path = world.folder:file("snap")
    cli.ok(world, "snapshot", "b", path)
    cli.ok(world, "restore", path, "--id", "c", "-d", "--jailer", "auto")
    assert.are_not.equal(jail.uid, cli.json(world, "info", "c").jail.uid)
    _, err = cli.fails(world, 2, "run", "--jailer", "0:0")
    contains(err, 'jailer.uid: 0 is root, whom a jail does not hold')
    contains(err, '"jailer": {"allow_root": true} in a --spec file')
    _, err = cli.fails(world, 2, "run", "--jailer", "root")
    contains(err, "malformed --jailer 'root': it is written like 1000:1000, or is auto")
    cli.ok(world, "kill", "a", "b", "c")
    assert_clean(world)
  end)

  it("shows and removes TAPs whose VM's folder somebody removed", function()
    local world <close> = cli.world()
    cli.ok(world, "run", "--id", "a", "-d", "--net")
    local pid = cli.json(world, "info", "a").pid
    local tap = cli.json(world, "net", "show").taps[1].name
    assert.are.same({}, cli.json(world, "net", "show").strays)
    assert.are.same({ removed = {}, left = {} }, cli.json(world, "net", "clean"))
    support.sh{ "rm", "-r", world.folder:file("run") }
    -- One of its id is none that could have its TAP, and leaves no folder that hides it.
    local _, refused = cli.fails(world, 4, "run", "--id", "a", "-d", "--net")
    contains(refused, ("a VM 'a' whose folder was removed has it yet (the TAP %s is in use by pid %d "
      .. "(firecracker)): fcproc reclaim tells what to do, or choose another --id (conflict)"):format(tap,
      pid))
    contains(cli.ok(world, "net", "show"), "STRAY TAP")
    for _, command in ipairs{ { "net", "clean" }, { "reclaim" } } do
      local _, err = cli.fails(world, 1, table.unpack(command))
      contains(err, ("a: TAP %s stays: "):format(tap))
      contains(err, ("in use by pid %d (firecracker): the VM 'a' runs, and its folder was removed; end its "
        .. "process (kill %d)"):format(pid, pid))
    end
    assert.is_true(cli.json(world, "net", "show").strays[1].in_use)
    local process <close> = fcproc.process(pid)
    process:signal("KILL")
    process:wait(10)
    assert.are.equal(tap .. ": removed\n", cli.ok(world, "net", "clean"))
    contains(cli.ok(world, "reclaim"), "2 leases without a VM: dropped")
    assert.are.same({}, cli.json(world, "net", "show").leases)
    assert_clean(world)
  end)

  it("says once who has the TAP of a VM of which only an empty folder is left", function()
    local world <close> = cli.world()
    cli.ok(world, "run", "--id", "a", "-d", "--net")
    local pid = cli.json(world, "info", "a").pid
    local tap = cli.json(world, "net", "show").taps[1].name
    support.sh{ "rm", "-r", world.folder:file("run/a") }
    local _, err = cli.fails(world, 4, "run", "--id", "a", "-d", "--net")
    contains(err, "a VM 'a' whose folder was removed has it yet")
    _, err = cli.fails(world, 1, "net", "clean")
    contains(err, ("a: TAP %s stays: "):format(tap))
    support.sh{ "install", "-m", "600", "/dev/null", world.folder:file("run/.fcproc/locks/a") }
    support.sh{ "mkdir", "-m", "700", world.folder:file("run/a") }
    _, err = cli.fails(world, 1, "reclaim")
    assert.are.equal(("fcproc: a: TAP %s stays: tap.delete: the TAP %s is in use by pid %d (firecracker): "
      .. "end that process (kill %d) (busy)\n"):format(tap, tap, pid, pid), err)
    local process <close> = fcproc.process(pid)
    process:signal("KILL")
    process:wait(10)
    contains(cli.ok(world, "reclaim"), "a: reclaimed")
    assert_clean(world)
  end)

  it("writes a snapshot and launches from it", function()
    local world <close> = cli.world()
    local path = world.folder:file("snap")
    cli.ok(world, "run", "--id", "a", "-d")
    local made = cli.json(world, "snapshot", "a", path)
    assert.are.same({ path, 1 }, { made.path, made.manifest.vcpus })
    local _, err = cli.fails(world, 4, "snapshot", "a", path)
    contains(err, "exists already")
    cli.ok(world, "restore", path, "--id", "b", "-d", "--paused")
    assert.are.equal("paused", cli.json(world, "info", "b").state)
    assert.are.equal("paused", cli.json(world, "ps")[2].state)
    cli.ok(world, "resume", "b")
    cli.ok(world, "stop", "a", "b")
    assert.are.equal(0, cli.run(world, { "restore", path, "--ladder", "sigkill:5", "--timeout", "0.5" })
      .status - 124)
    cli.fails(world, 3, "restore", "/no/such/snapshot")
    assert_clean(world)
  end)

  it("advises in its own words", function()
    local world <close> = cli.world()
    local path, disk = world.folder:file("snap"), world.folder:file("disk")
    cli.ok(world, "run", "--id", "a", "-d")
    local _, err = cli.fails(world, 1, "snapshot", "--diff", "a", path)
    contains(err, 'launch the VM with "track_dirty_pages": true in its --spec file')
    cli.ok(world, "snapshot", "a", path)
    cli.ok(world, "kill", "a")
    local manifest = support.read_file(path .. "/manifest.json"):gsub('("model":)%s*"?%d+"?', '%1"0"')
    support.sh{ "rm", path .. "/manifest.json" }
    support.write_file(path .. "/manifest.json", manifest)
    local out
    out, err = cli.fails(world, 4, "restore", path, "--json")
    contains(err, "; --any-cpu tries all the same")
    contains(cjson.decode(out).error.message, "; --any-cpu tries all the same")
    cli.ok(world, "restore", path, "--any-cpu", "--id", "b", "-d")
    cli.ok(world, "kill", "b")
    support.sh{ "install", "-m", "600", "/dev/null", disk }
    _, err = cli.fails(world, 2, "run", "--drive", disk, "--jailer", "1234:1234")
    contains(err, "give the VM a copy (--drive PATH:copy)")
    _, err = cli.fails(world, 2, "run", "--firecracker", "/no/firecracker_bin")
    contains(err, "not found at /no/firecracker_bin; install firecracker or set --firecracker")
    assert_clean(world)
  end)

  it("makes the bridge and removes it, twice without harm", function()
    local world <close> = cli.world()
    for _ = 1, 2 do contains(cli.ok(world, "net", "up"), "fcbr0 is up, 172.30.0.1/24") end
    assert.is_true(cli.json(world, "net", "show").exists)
    cli.ok(world, "run", "--id", "a", "--net", "-d")
    local _, err = cli.fails(world, 4, "net", "down")
    contains(err, "fcbr0")
    cli.ok(world, "kill", "a")
    assert.are.equal("fcbr0 is gone\n", cli.ok(world, "net", "down"))
    assert.are.equal("fcbr0: there is none\n", cli.ok(world, "net", "down"))
    assert.is_false(cli.json(world, "net", "show").exists)
    contains(cli.ok(world, "net", "show"), "there is none")
    cli.ok(world, "net", "up")
    contains(cli.ok(world, "net", "show"), "bridge  fcbr0, 172.30.0.1/24\n")
    support.ip(world.netns, "address", "add", "10.7.0.1/16", "dev", "fcbr0")
    support.ip(world.netns, "address", "delete", "172.30.0.1/24", "dev", "fcbr0")
    support.ip(world.netns, "link", "set", "fcbr0", "down")
    local shown = cli.json(world, "net", "show")
    assert.are.same({ true, false, { "10.7.0.1/16" } }, { shown.exists, shown.up, shown.addresses })
    contains(cli.ok(world, "net", "show"),
      "bridge  fcbr0, 10.7.0.1/16, down, without 172.30.0.1/24; fcproc net up mends it\n")
    cli.ok(world, "net", "up")
    contains(cli.ok(world, "net", "show"), "bridge  fcbr0, 10.7.0.1/16, 172.30.0.1/24\n")
    cli.ok(world, "net", "down")
    local config = cli.json(world, "net", "up", "--bridge", "other0", "--bridge-ip", "10.1.2.1/16")
    assert.are.same({ "other0", "10.1.2.1", 16 }, { config.bridge, config.address, config.prefix })
  end)

  it("removes what a VM left that had ended by itself before it was to be stopped", function()
    local world <close> = cli.world()
    for _, command in ipairs{ "stop", "kill" } do
      cli.ok(world, "run", "--detach", "--id", "gone")
      local process <close> = support.must(fcproc.process(cli.json(world, "info", "gone").pid))
      process:signal("KILL")
      support.must(process:wait(10))
      contains(cli.ok(world, command, "gone"), "gone: it had ended")
      assert_clean(world)
    end
  end)

  it("tells a folder that is no VM's from a VM", function()
    local world <close> = cli.world()
    cli.ok(world, "run", "--detach", "--id", "one")
    cli.ok(world, "kill", "one")
    support.sh{ "mkdir", world.folder:file("run/mine") }
    cli.ok(world, "run", "-d", "--net", "--id", "one")
    local _, err = cli.fails(world, 4, "run", "--detach", "--id", "one")
    contains(err, "run/one. Stop it, or choose another --id (conflict)")
    support.sh{ "rm", world.folder:file("run/one/vm.json") }
    assert.is_truthy(cli.ok(world, "info", "one"):find("\nnetwork +fc%w+\n"))
    cli.ok(world, "kill", "one")
    local done = cli.run(world, { "run", "--detach", "--id", "mine" })
    assert.are.equal(4, done.status)
    contains(done.err, "run/mine is there already and is no VM's")
  end)

  it("reclaims what the dead left, and lets the living alone", function()
    local world <close> = cli.world()
    cli.ok(world, "run", "--id", "dead", "--net", "-p", "8080:80", "-d")
    cli.ok(world, "run", "--id", "alive", "--net", "-d")
    local process <close> = support.must(fcproc.process(cli.json(world, "info", "dead").pid))
    process:signal("KILL")
    support.must(process:wait(10))
    assert.are.equal("dead", cli.json(world, "info", "dead").state)
    local _, err = cli.fails(world, 4, "run", "--net", "-p", "8080:80", "-d")
    contains(err, "is published by the VM 'dead'; that VM is dead: fcproc reclaim frees what it had")
    local report = cli.json(world, "reclaim")
    assert.are.same({ { "dead" }, { "alive" } }, { report.reclaimed, report.alive })
    contains(cli.ok(world, "reclaim"), "alive: runs, not touched")
    cli.ok(world, "stop", "alive")
    assert_clean(world)
  end)

  it("checks the host, and says in its status whether VMs can run", function()
    local world <close> = cli.world()
    local checks = cjson.decode(cli.run(world, { "doctor", "--json" }).out)
    assert.is_true(#checks > 10)
    local done = cli.run(world, { "doctor", "--boot" })
    contains(done.out, "ok    kvm")
    contains(done.out, "ok    boot")
    done = cli.run(world, { "doctor" }, { env = { FCPROC_FIRECRACKER = "/nowhere" } })
    assert.are.equal(1, done.status)
    contains(done.out, "FAIL  binary")
    contains(done.out, "set --firecracker")
    contains(done.out, "fix: ")
  end)

  it("gives each kind of failure a status of its own, and its error as JSON", function()
    local world <close> = cli.world()
    cli.ok(world, "run", "--id", "a", "--net", "172.30.0.9", "-d")
    for _, case in ipairs{ { 3, "not_found", "info", "b" }, { 3, "not_found", "console", "b" },
      { 3, "not_found", "pause", "b" }, { 2, "invalid", "info", "../b" },
      { 4, "conflict", "run", "--id", "a" },
      { 4, "conflict", "run", "--net", "172.30.0.9" }, { 2, "invalid", "run", "--id", "a_b" },
      { 3, "not_found", "ps", "--netns", "nowhere" }, { 124, "deadline", "pause", "a", "--timeout", "0" },
      { 2, "invalid", "run", "--firecracker", "/nowhere" } } do
      local out, err = cli.fails(world, case[1], "--json", table.unpack(case, 3))
      local plain = cjson.decode(out).error
      assert.are.equal(case[2], plain.code)
      contains(err, "fcproc: " .. plain.message)
    end
    local out, err = cli.fails(world, 1, "run", "--id", "k", "--kernel", "/bin/true")
    assert.are.equal("", out)
    contains(err, "\n  | ")
    contains(err, "invalid kernel image")
    cli.ok(world, "kill", "a")
    assert_clean(world)
  end)

  it("tells with --verbose what it changes on the host", function()
    local world <close> = cli.world()
    local done = cli.run(world, { "-v", "run", "--id", "a", "--net", "-d" })
    contains(done.err, "debug: TAP created: ")
    contains(done.err, "debug: journal written: ")
    cli.ok(world, "kill", "a")
  end)

  it("as an ordinary user says what is missing", function()
    local world <close> = cli.world()
    support.sh{ "chmod", "755", world.folder.path }
    support.sh{ "install", "-d", "-m", "1777", world.folder:file("open") }
    local opts = { uid = NOBODY, gid = NOBODY,
      env = { FCPROC_RUNTIME_DIR = world.folder:file("open/run") } }
    for _, args in ipairs{ { "net", "up" }, { "run", "--net" } } do
      local done = cli.run(world, args, opts)
      assert.are.equal(args[1] == "net" and 1 or 5, done.status)
      contains(done.err, "CAP_NET_ADMIN")
    end
    contains(cli.run(world, { "net", "show" }, opts).out, "the first VM makes it")
    local done = cli.run(world, { "ps" }, opts)
    assert.are.equal(0, done.status)
    cli.ok(world, "run", "--id", "a", "-d")
    for _, args in ipairs{ { "ps" }, { "info", "a" }, { "kill", "a" } } do
      assert.are.equal(5, cli.run(world, args, { uid = NOBODY, gid = NOBODY }).status)
    end
    cli.ok(world, "kill", "a")
  end)
end)

describe("fcproc run in the foreground", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("shows the console and ends as the guest does", function()
    local world <close> = cli.world()
    -- The guest resets itself at Ctrl-Alt-Del, which comes from elsewhere.
    local function run_to_its_end(...)
      local run <close> = cli.start(world, { "run", "--id", "a", ... })
      support.eventually("the guest is ready", function()
        return (support.read_file(world.folder:file("run/a/console.log")) or ""):find("ready", 1, true)
      end)
      support.must(fcproc.request(world.folder:file("run/a/api.sock"), "PUT", "/actions",
        { action_type = "SendCtrlAltDel" }))
      assert.are.equal(0, run:wait())
      return support.read_file(run.out), support.read_file(run.err)
    end
    local out, err = run_to_its_end()
    contains(out, "fcproc guest: ready")
    contains(err, "fcproc: a runs, pid ")
    contains(err, "fcproc: a: it had ended")
    assert.are.equal("", run_to_its_end("--no-console"))
    local report = cjson.decode((run_to_its_end("--json"))).report
    assert.are.same({ "gone", 0 }, { report.step, report.exit.status })
    assert_clean(world)
  end)

  it("fails when its guest panics or its CPU gives up, unless that is no failure", function()
    local world <close> = cli.world()
    for word, text in pairs{ ["fcproc.panic"] = 'ends with "[    0.001000] Kernel panic',
      ["fcproc.triple_fault"] = "CPU gave up" } do
      local args = { "run", "--no-console", "--boot-args", word }
      local done = cli.run(world, args)
      assert.are.equal(1, done.status, done.err)
      if not done.err:find("ended before the VM was seen to run", 1, true) then contains(done.err, text) end
      done = cli.run(world, { "--json", table.unpack(args) })
      assert.are.equal(1, done.status)
      args[#args + 1] = "--ignore-panic"
      done = cli.run(world, args)
      if not done.err:find("ended before the VM was seen to run", 1, true) then
        assert.are.equal(0, done.status, done.err)
      end
    end
    assert_clean(world)
  end)

  it("fails when KVM gives up on its guest, and says so, and so does wait", function()
    local world <close> = cli.world()
    support.write_file(world.folder:file("lost"), kernels.lost())
    local kernel = { "--kernel", world.folder:file("lost"), "--mem", "16", "--no-console" }
    local _, err = cli.fails(world, 1, "run", "--id", "a", table.unpack(kernel))
    assert.is_truthy(err:find("a: it had ended, all of it is removed %([01]: the VM ran, and its vCPU could "
      .. "not go on: Received KVM_EXIT_INTERNAL_ERROR"), err)
    assert.is_truthy(err:find("\n  | [^\n]*Received KVM_EXIT_INTERNAL_ERROR"), err)
    cli.ok(world, "run", "--id", "b", "-d", table.unpack(kernel))
    local done = cli.run(world, { "wait", "b" })
    if done.out:find("b: ended, ", 1, true) then contains(done.out, "its vCPU could not go on") end
    cli.ok(world, "kill", "b")
    assert_clean(world)
  end)

  it("in the background tells of a guest that ends at once, and leaves nothing", function()
    local world <close> = cli.world()
    local done
    for _ = 1, 20 do -- it may also end a moment later, and nobody is there to tell
      done = cli.run(world, { "run", "-d", "--boot-args", "fcproc.triple_fault" })
      if done.status ~= 0 then break end
      cli.ok(world, "kill", (done.out:gsub("%s", "")))
    end
    assert.are.equal(1, done.status)
    contains(done.err, "the guest ended at once")
    contains(done.err, "fcproc guest: ready")
    assert.are.equal("", done.out)
    assert_clean(world)
  end)

  it("fails when its Firecracker is killed", function()
    local world <close> = cli.world()
    local run <close> = cli.start(world, { "run", "--id", "a" })
    run:shows("ready")
    local process <close> = support.must(fcproc.process(cli.json(world, "info", "a").pid))
    process:signal("KILL")
    assert.are.equal(1, run:wait())
    contains(support.read_file(run.err), "SIGKILL: killed")
    assert_clean(world)
  end)

  for name, status in pairs{ INT = 130, TERM = 143, HUP = 129 } do
    it("stops its VM at a SIG" .. name, function()
      local world <close> = cli.world()
      local run <close> = cli.start(world, { "run", "--id", "a", "--net" })
      run:shows("ready")
      run.process:signal(name)
      assert.are.equal(status, run:wait())
      contains(support.read_file(run.err), "a: ended by ctrl_alt_del")
      assert_clean(world)
    end)
  end

  for name, before in pairs{
    HUP = { "nohup" }, TERM = { "sh", "-c", "trap '' TERM; exec \"$@\"", "sh" },
  } do
    it(("goes on at a SIG%s that it was started to ignore"):format(name), function()
      local world <close> = cli.world()
      local run <close> = cli.start(world, { "run", "--id", "a" }, { before = before })
      run:shows("ready")
      run.process:signal(name)
      core.poll_many({}, {}, 0.3)
      assert.are.same({ "running", true }, { cli.json(world, "info", "a").state, run.process:alive() })
      run.process:signal("INT")
      assert.are.equal(130, run:wait())
      assert_clean(world)
    end)
  end

  it("kills its VM at a second Ctrl-C", function()
    local world <close> = cli.world()
    local run <close> = cli.start(world, { "run", "--id", "a", "--boot-args", "fcproc.ignore_cad" })
    run:shows("ready")
    run.process:signal("INT")
    support.eventually("it is stopping", function()
      return support.read_file(run.err):find("once more kills it", 1, true)
    end)
    run.process:signal("INT")
    assert.are.equal(130, run:wait())
    local said = support.read_file(run.err)
    assert.is_truthy(said:find("a: ended by sigkill after %d+ ms, all .* %(SIGKILL: as asked for%)"), said)
    assert_clean(world)
  end)

  it("leaves nothing when it is interrupted while it starts", function()
    local world <close> = cli.world()
    for _, word in ipairs{ "--net", "--json", "-d" } do
      for _ = 1, 2 do
        local run <close> = cli.start(world, { "run", "--id", "a", "--net", "-v", word })
        support.eventually("it has begun", function()
          return (support.read_file(run.err) or ""):find("state=preparing", 1, true)
        end)
        run.process:signal("TERM")
        assert.are.equal(143, run:wait())
        if word == "--json" then
          assert.are.equal(15, cjson.decode(support.read_file(run.out)).error.signal)
        end
        contains(support.read_file(run.err), "interrupted")
        assert_clean(world)
      end
    end
  end)

  -- The signal comes at the moment when the VM has come up, and was not asked for its state yet.
  it("leaves nothing when it is interrupted just when its VM has started", function()
    local world <close> = cli.world()
    local done = fcproc.runner():run({ support.lua, "-e", [[
      local said = { write = function(self, ...)
        io.stderr:write(...)
        if table.concat{ ... }:find("VM step done.* step=start") then
          assert(require("fcproc").process(PID)):signal("INT")
        end
        return self
      end, flush = function() return true end }
      PID = tonumber(io.open("/proc/self/stat"):read("a"):match("%d+"))
      os.exit(require("fcproc.cli").main({ "run", "--id", "a", "--net", "-p", "8080:80", "-d", "-v" },
        io.stdout, said))
    ]] }, { env = cli.env(world), netns = world.netns, timeout = 30 })
    assert.is_nil(done)
    assert.are.equal("", cli.ok(world, "ps", "-q"))
    assert_clean(world)
  end)

  it("stops its VM when its time is up, and when nobody reads any more", function()
    local world <close> = cli.world()
    local _, err = cli.fails(world, 124, "run", "--id", "a", "--timeout", "2")
    contains(err, "its time is up")
    assert_clean(world)
    local reader <close> = support.must(fcproc.spawn({ "sh", "-c",
      ("mkfifo '%s/pipe'; exec head -n 1 <>'%s/pipe' >'%s/first'"):format(world.folder.path,
        world.folder.path, world.folder.path) }))
    support.eventually("the pipe has its reader", function()
      return fcproc.runner():run{ "test", "-e", world.folder:file("first") }
    end)
    local run <close> = cli.start(world, { "run", "--id", "a" },
      { stdout = { file = world.folder:file("pipe") } })
    support.must(reader:wait(10))
    assert.are.equal(1, run:wait())
    contains(support.read_file(run.err), "a: ended by ctrl_alt_del")
    assert_clean(world)
  end)

  it("has its VM to itself: others can look, and are told whose it is", function()
    local world <close> = cli.world()
    local run <close> = cli.start(world, { "run", "--id", "a" })
    run:shows("ready")
    local _, err = cli.fails(world, 4, "stop", "a")
    contains(err, ("the VM 'a' is in the hands of another manager, pid %d"):format(run.process:pid()))
    cli.fails(world, 4, "pause", "a")
    assert.are.equal(run.process:pid(), cli.json(world, "info", "a").manager)
    assert.is_true(cli.json(world, "ps")[1].managed)
    contains(cli.ok(world, "console", "a"), "ready")
    assert.are.same({ "a" }, cli.json(world, "reclaim").alive)
    run.process:signal("INT")
    assert.are.equal(130, run:wait())
  end)

  it("console --follow ends with the VM, and at Ctrl-C without harm to it", function()
    local world <close> = cli.world()
    cli.ok(world, "run", "--id", "a", "-d")
    local first <close> = cli.start(world, { "console", "a", "--follow" })
    local second <close> = cli.start(world, { "console", "a", "-f" })
    first:shows("ready")
    second:shows("ready")
    first.process:signal("INT")
    assert.are.equal(130, first:wait())
    contains(cli.ok(world, "stop", "a"), "ctrl_alt_del")
    assert.are.equal(0, second:wait())
    contains(support.read_file(second.out), "ctrl-alt-del, resetting")
  end)
end)
