-- A journal that an opponent wrote, or that came with a copied, shared or restored folder: root kills,
-- unlinks and removes nothing that it names and that is not the VM's.

local cjson = require "cjson"
local records = require "spec.support.records"
local support = require "spec.support"
local traces = require "spec.support.traces"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function run_of(world) return world.manager.config.runtime_dir end

local function journal_path(world)
  return ("%s/%s/vm.json"):format(run_of(world), world.id)
end

local function edit(world, change)
  local record = cjson.decode(support.read_file(journal_path(world)))
  change(record)
  support.write_file(journal_path(world), cjson.encode(record):gsub("(%d+)%.0+([,}])", "%1%2"))
end

-- The folder of a dead VM with that journal.
local function put_dead(world, record)
  must(world.manager:ensure_socket_dir())
  local folder = ("%s/%s"):format(run_of(world), world.id)
  for _, path in ipairs{ run_of(world) .. "/.fcproc", run_of(world) .. "/.fcproc/leases",
    run_of(world) .. "/.fcproc/locks", folder } do
    core.make_dir(path, 448)
  end
  support.write_file(("%s/.fcproc/locks/%s"):format(run_of(world), world.id), "")
  support.write_file(folder .. "/vm.json", cjson.encode(record))
  local jail = record.jail
  if jail then
    support.sh{ "mkdir", "-p", jail.root }
  end
end

local function record_of(world, identity, jailed)
  local record = records.journal(("%s/%s"):format(run_of(world), world.id), world.id, identity, jailed)
  record.taps, record.drives, record.snapshot, record.netns = {}, {}, nil, nil
  if record.jail then record.jail.cgroups = {} end
  return record
end

local function listed(world)
  return must(fcproc.vm.list(world.manager))[1]
end

-- A process of somebody's that has nothing to do with any VM.
local function bystander(opts)
  local process = must(fcproc.spawn({ "sleep", "1000" }, opts))
  return setmetatable({ process = process, identity = must(process:identity()) }, { __close = function()
    process:signal("KILL")
    process:wait(5)
    process:close()
  end })
end

local function left_running(world, spec)
  local all = { id = world.id }
  for key, value in pairs(spec or {}) do all[key] = value end
  os.remove(world.output)
  assert.is_false(traces.crash(world, { action = "launch", spec = all }))
end

describe("a process that only a journal names", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for _, jailed in ipairs{ false, true } do
    it("and that is not in the VM's place is none of its: " .. (jailed and "jailed" or "direct"), function()
      local world <close> = traces.world()
      local victim <close> = bystander()
      for _, name in ipairs{ "process", "launcher" } do
        local record = record_of(world, victim.identity, jailed)
        record[name == "process" and "launcher" or "process"] = nil
        put_dead(world, record)
        assert.are.same({ "dead" }, { listed(world).state })
        assert.are.equal("dead", must(fcproc.vm.inspect(world.manager, world.id)).state)
        local err = fails("not_found", fcproc.vm.adopt(world.manager, world.id))
        assert.are.equal(victim.identity.pid, err.pid)
        assert.is_truthy(err.message:find("was not touched", 1, true), err.message)
        assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
        assert.is_true(victim.process:alive())
      end
    end)
  end

  it("is known by its working folder or its root, and not by a folder beside or above", function()
    local dir <close> = support.folder()
    support.sh{ "mkdir", dir:file("in"), dir:file("in/below") }
    support.sh{ "ln", "-s", "in", dir:file("link") }
    local inside <close> = bystander{ cwd = dir:file("in") }
    local below <close> = bystander{ cwd = dir:file("in/below") }
    assert.is_true(must(inside.process:in_folder(dir:file("in"))))
    assert.is_false((inside.process:in_folder(dir:file("in/below"))))
    assert.is_false((below.process:in_folder(dir:file("in"))))
    for _, name in ipairs{ "link", "none" } do
      fails("conflict", inside.process:in_folder(dir:file(name)))
    end
    inside.process:signal("KILL")
    must(inside.process:wait(5))
    assert.is_false((inside.process:in_folder(dir:file("in"))))
  end)

  it("and that is not in the VM's place gets no way out of the host", function()
    local world <close> = traces.world()
    local victim <close> = bystander()
    local record = record_of(world, victim.identity)
    record.taps = { { name = "idle0", guest_mac = "06:00:00:00:00:01", attach = true, nat = "up0",
      address = "172.30.0.9" } }
    put_dead(world, record)
    must(world.manager:create_tap("idle0", { alias = ("fcproc:%s/%s"):format(run_of(world), world.id) }))
    assert.are.same({}, must(fcproc.vm.missing_nat(world.manager)))
    must(fcproc.vm.ensure_nat(world.manager))
    assert.are.equal("", support.sh({ "nft", "list", "ruleset" }, { netns = world.netns }))
  end)

  it("may be just starting: then nothing is done until that must be over", function()
    local world <close> = traces.world()
    local victim <close> = bystander()
    local record = record_of(world, victim.identity)
    record.process, record.state, record.created = nil, "starting", os.time()
    put_dead(world, record)
    assert.are.same({ "unknown", "busy" }, { listed(world).state, listed(world).err.code })
    fails("busy", fcproc.vm.adopt(world.manager, world.id))
    assert.are.equal("busy", must(fcproc.vm.reclaim(world.manager)).failed[1].left[1].err.code)
    record.created = os.time() - 60
    put_dead(world, record)
    assert.are.equal("dead", listed(world).state)
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert.is_true(victim.process:alive())
  end)

  it("and one that listens where a socket's name leads, without a journal, is none either", function()
    local world <close> = traces.world()
    local victim <close> = must(fcproc.vm.launch(world.manager, { id = "victim" }))
    put_dead(world, record_of(world))
    os.remove(journal_path(world))
    support.sh{ "ln", "-s", run_of(world) .. "/victim/api.sock",
      ("%s/%s/api.sock"):format(run_of(world), world.id) }
    fails("conflict", fcproc.vm.adopt(world.manager, world.id))
    assert.are.same({ "conflict" }, { must(fcproc.vm.reclaim(world.manager)).failed[1].left[1].err.code })
    -- A second name for the socket itself.
    local sock = ("%s/%s/api.sock"):format(run_of(world), world.id)
    os.remove(sock)
    support.sh{ "ln", run_of(world) .. "/victim/api.sock", sock }
    fails("not_found", fcproc.vm.adopt(world.manager, world.id))
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    assert.are.equal("running", must(victim:info()).state)
    must(victim:kill())
  end)
end)

-- Root's folder with a copy of what an ordinary user needs for a VM, and a script that he runs there.
local USERS_VM = [[
  chmod 755 "$1"; cp -r lua "$1/"; mkdir "$1/build"; cp -r "$2/fcproc" "$1/build/"; cp "$3" "$1/firecracker"
  cp "$(command -v "$4")" "$1/interpreter"; install -d -o 65534 -m 700 "$1/home"
  mknod -m 666 "$1/kvm" c 10 232
  cat >"$1/go" <<'END'
    cd "$1"; export LUA_PATH="$1/lua/?.lua;$1/lua/?/init.lua;;" LUA_CPATH="$1/build/?.so;;" PATH="$1:$PATH"
    export FCPROC_RUNTIME_DIR="$1/home/run"
    for command in "run --id u -d" ps "kill u" ps; do ./interpreter lua/bin/fcproc $command; done
END
]]

describe("a VM whose program", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for _, mode in ipairs{ "755", "711" } do
    it("its user may execute is known by him, and can be ended: mode " .. mode, function()
      local dir <close> = support.folder()
      support.sh{ "sh", "-ec", USERS_VM, "sh", dir.path, os.getenv("FCPROC_SPEC_BUILD"),
        support.firecracker(), support.lua }
      support.sh{ "chmod", mode, dir:file("firecracker") }
      local said = support.sh{ "unshare", "--mount", "sh", "-ec", 'mount --bind "$1/kvm" /dev/kvm; '
        .. 'setpriv --reuid 65534 --regid 65534 --clear-groups sh "$1/go" "$1"', "sh", dir.path }
      local _, lines = said:gsub("\n", "")
      assert.is_truthy(said:find("\nu +running "), said)
      assert.is_truthy(said:find("\nu: ended by sigkill"), said)
      assert.are.equal(5, lines, said)
    end)
  end

  it("was replaced while it runs is known as before", function()
    local dir <close> = support.folder()
    local program = dir:file("firecracker")
    support.sh{ "cp", support.firecracker(), program }
    local world <close> = traces.world{ firecracker_bin = program }
    left_running(world)
    support.sh{ "sh", "-ec", 'echo "#!/bin/false" >"$1.new"; chmod 755 "$1.new"; mv "$1.new" "$1"', "sh",
      program }
    assert.are.equal("running", listed(world).state)
    must(must(fcproc.vm.adopt(world.manager, world.id)):kill())
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
  end)
end)

describe("a folder of VMs that was copied while they run", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for _, jailer in ipairs{ false, { uid = 1234, gid = 1234 } } do
    it("holds dead ones, and is reclaimed without harm: " .. (jailer and "jailed" or "direct"), function()
      local world <close> = traces.world()
      left_running(world, { jailer = jailer or nil })
      edit(world, function(record) record.created = record.created - 60 end) -- it has long started
      local pid = listed(world).pid
      support.sh{ "cp", "-a", run_of(world), world.folder:file("copy") }
      local config = world.manager.config
      local copy <close> = must(fcproc.new{ runtime_dir = world.folder:file("copy"), netns = world.netns,
        firecracker_bin = config.firecracker_bin })
      assert.are.equal("dead", must(fcproc.vm.list(copy))[1].state)
      fails("not_found", fcproc.vm.adopt(copy, world.id))
      assert.are.same({ world.id }, must(fcproc.vm.reclaim(copy)).reclaimed)
      assert.are.same({ "running", pid }, { listed(world).state, listed(world).pid })
      -- And one that was moved is as good as before.
      support.sh{ "mv", run_of(world), world.folder:file("moved") }
      local moved <close> = must(fcproc.new{ runtime_dir = world.folder:file("moved"), netns = world.netns,
        firecracker_bin = config.firecracker_bin })
      local vm = must(fcproc.vm.adopt(moved, world.id))
      assert.are.equal(pid, vm:pid())
      assert.are.equal("running", must(vm:info()).state)
      must(vm:kill())
    end)
  end
end)

describe("what a journal names", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- Makes what the journal will name as the folder of an unfinished snapshot.
  local CASES = {
    ["a folder of root's"] = 'mkdir -m 700 "$1"; echo dear >"$1/file"',
    ["one with a mark, where others may write"] = 'mkdir -m 755 "$1"; echo dear >"$1/file"; touch "$1/$2"',
    ["one with somebody else's mark"] = 'mkdir -m 700 "$1"; echo dear >"$1/file"; touch "$1/$2"; '
      .. 'chown 1234 "$1/$2"',
    ["one with a link as its mark"] = 'mkdir -m 700 "$1"; echo dear >"$1/file"; ln -s /etc/passwd "$1/$2"',
    ["somebody else's"] = 'mkdir -m 700 "$1"; echo dear >"$1/file"; touch "$1/$2"; chown -R 1234 "$1"',
    ["a link to a folder with a mark"] = 'mkdir -m 700 "$1.real"; echo dear >"$1.real/file"; '
      .. 'touch "$1.real/$2"; ln -s "$1.real" "$1"',
  }
  for what, script in pairs(CASES) do
    it("as its unfinished snapshot stays: " .. what, function()
      local world <close> = traces.world()
      local path = ("%s.%s.partial"):format(world.folder:file("important"), world.id)
      support.sh{ "sh", "-ec", script, "sh", path, ".fcproc-" .. world.id }
      local record = record_of(world)
      record.snapshot = path
      put_dead(world, record)
      local report = must(fcproc.vm.reclaim(world.manager))
      assert.are.same({ world.id, path, "conflict" }, { report.failed[1].id, report.failed[1].left[1].what,
        report.failed[1].left[1].err.code })
      assert.are.equal("dear\n", support.read_file(path .. "/file"))
      support.sh{ "rm", "-rf", path } -- as the message says
      assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    end)
  end

  it("as its unfinished snapshot keeps no VM from being ended", function()
    local world <close> = traces.world()
    local path = ("%s.%s.partial"):format(world.folder:file("important"), world.id)
    support.sh{ "mkdir", "-m", "700", path }
    support.write_file(path .. "/file", "dear")
    left_running(world)
    edit(world, function(record) record.snapshot, record.resume = path, true end)
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
    assert.is_nil(vm:record().snapshot)
    must(vm:kill())
    assert.are.equal("dear", support.read_file(path .. "/file"))
  end)

  it("as its cgroup is removed in a cgroup hierarchy alone", function()
    local world <close> = traces.world()
    local record = record_of(world, nil, true)
    record.boot_id = support.read_file("/proc/sys/kernel/random/boot_id"):match("%S+")
    local path = world.folder:file(world.id)
    support.sh{ "mkdir", path }
    record.jail.cgroups = { path }
    put_dead(world, record)
    local left = must(fcproc.vm.reclaim(world.manager)).failed[1].left[1]
    assert.are.same({ path, "conflict" }, { left.what, left.err.code })
    assert.is_truthy(core.stat(path))
  end)

  it("as its console and socket is not what is used", function()
    local world <close> = traces.world()
    left_running(world)
    edit(world, function(record)
      record.files.console, record.files.socket, record.files.log = "/etc/shadow", "/dev/log", "/etc/passwd"
      record.console_limit = 0
    end)
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
    local folder = ("%s/%s"):format(run_of(world), world.id)
    assert.are.equal(folder .. "/console.log", must(vm:console()).path)
    assert.are.equal("running", must(vm:info()).state)
    assert.are.equal(folder .. "/firecracker.log", must(vm:info()).files.log)
    must(vm:kill())
  end)

  it("as its network namespace is opened only when it is one", function()
    local world <close> = traces.world()
    local fifo = world.folder:file("fifo")
    support.sh{ "mkfifo", fifo }
    local record = record_of(world)
    record.netns, record.netns_name = must(core.stat(fifo)).ino, fifo
    put_dead(world, record)
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    for _, path in ipairs{ fifo, "/dev/null", "/proc/self/ns/mnt", world.folder.path } do
      fails("invalid", core.netns(path))
    end
    must(core.netns("/proc/self/ns/net")):close()
  end)
end)
