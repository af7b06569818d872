-- Recovery where it is easily got wrong: the order in which things go, the look that is taken again, and
-- what only a jail still holds.

local support = require "spec.support"
local traces = require "spec.support.traces"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local lease = require "fcproc.resources.lease"

local must, fails = support.must, support.fails

local function kill(pid)
  local process <close> = must(fcproc.process(pid))
  must(process:signal("KILL"))
  must(process:wait(5))
end

-- In place of a function of the core, until the end of the block: fn(original, ...).
local function instead(name, fn)
  local original = core[name]
  core[name] = function(...) return fn(original, ...) end
  return setmetatable({}, { __close = function() core[name] = original end })
end

describe("recovery", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("removes the lock of a VM after its folder, so that what is left of that is known to be ours", function()
    local world <close> = traces.world()
    must(must(fcproc.vm.launch(world.manager, { id = "first" })):kill())
    local before = traces.of(world)
    local vm = must(fcproc.vm.launch(world.manager, { id = world.id }))
    local run = world.manager.config.runtime_dir
    local place = ("%s/%s/mounted"):format(run, world.id)
    support.sh{ "mkdir", place }
    support.sh{ "mount", "-t", "tmpfs", "none", place }
    local unmount <close> = setmetatable({}, { __close = function()
      support.sh{ "sh", "-c", 'umount "$1" 2>/dev/null || true', "sh", place }
    end })
    local err = fails("busy", vm:kill())
    assert.are.equal(1, #err.report.left)
    -- Of the rest a crash may have taken what tells whose the folder is.
    core.remove_file(("%s/%s/vm.json"):format(run, world.id))
    assert.is_truthy(core.stat(("%s/.fcproc/locks/%s"):format(run, world.id)))
    getmetatable(unmount).__close()
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    traces.same(before, world, "after reclaim")
  end)

  it("looks again, under the lock, whether a VM stands behind a lease: one may have come", function()
    local world <close> = traces.world()
    local first = must(fcproc.vm.launch(world.manager, { id = "first", network = true }))
    local leases = must(lease.open(world.manager, true))
    must(leases:take("tap-1-late0", "late"))
    local folder = world.manager.config.runtime_dir .. "/late"
    -- Between the first look and the lock the VM comes up: a fake of a moment.
    local came = false
    do
      local moment <close> = instead("lock_file", function(original, path, ...) -- luacheck: ignore moment
        if path:find("/.host/lock", 1, true) and not came then
          came = true
          must(core.make_dir(folder, 448))
        end
        return original(path, ...)
      end)
      leases:sweep()
    end
    assert.is_true(came)
    assert.is_true(leases:holds("tap-1-late0", "late"))
    support.sh{ "rmdir", folder }
    leases:sweep()
    assert.is_false(leases:holds("tap-1-late0", "late"))
    must(first:kill())
  end)

  it("takes what a snapshot wrote into the jail, when it was not finished", function()
    local world <close> = traces.world()
    local path = world.folder:file("snap")
    traces.crash_in_snapshot(world, path, { jailer = { uid = 1234, gid = 1234 } })
    local root = support.sh{ "find", world.manager.config.runtime_dir, "-name", "root", "-type", "d" }
      :match("[^\n]+")
    local names = { "/snapshot-memory", "/snapshot-vmstate" }
    for _, name in ipairs(names) do
      support.write_file(root .. name, "much")
      support.sh{ "chown", "1234:1234", root .. name }
    end
    local vm <close> = must(fcproc.vm.adopt(world.manager, world.id))
    for _, name in ipairs(names) do assert.is_nil(core.stat(root .. name), name) end
    assert.are.equal("running", must(vm:info()).state)
  end)

  it("leaves a VM alone that can't be looked at for want of descriptors", function()
    local world <close> = traces.world()
    assert.is_false(traces.crash(world, { action = "launch", spec = { id = world.id } }))
    local pid = must(fcproc.vm.list(world.manager))[1].pid
    -- A fake of the moment in which the last descriptor was taken by somebody else.
    do
      local none <close> = instead("process", function() -- luacheck: ignore none
        return nil, require "fcproc.error".new{ code = "system", op = "process.open", errno = 24,
          message = "too many open files" }
      end)
      local report = must(fcproc.vm.reclaim(world.manager))
      assert.are.same({ {}, {}, world.id }, { report.reclaimed, report.alive, report.failed[1].id })
      assert.are.equal("unknown", must(fcproc.vm.list(world.manager))[1].state)
    end
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).alive)
    kill(pid)
    assert.are.same({ world.id }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
  end)

  it("ends what a daemonized jailer left behind when nobody could find it, also without a cgroup", function()
    local dir <close> = support.folder()
    local script = dir:file("script.lua")
    -- Fakes of the moments in which there was no descriptor to find it by: where the jailer's child is
    -- looked for, and where the failed start is cleaned up.
    support.write_file(script, [[
local support, jails = require "spec.support", require "spec.support.jails"
local core, fcproc = require "fcproc.core", require "fcproc"
local world <close> = support.world()
local original, missed = core.open_by_root, 0
core.open_by_root = function(root)
  missed = missed + 1
  if missed > 2 then return original(root) end
  return nil, require "fcproc.error".new{ code = "system", op = "process.find", errno = 24, message = "none" }
end
local vms, err = fcproc.vm.launch_all(world.manager, { jails.jail{ daemonize = true } })
assert(not vms and missed > 2 and not err.left, tostring(err))
for _, entry in ipairs(core.list_dir("/proc")) do
  local root = entry.name:find("^%d") and core.read_link(("/proc/%s/root"):format(entry.name)) or ""
  assert(not root:find(world.folder.path, 1, true), root)
end
jails.assert_gone(world)]])
    support.sh({ "unshare", "--mount", "sh", "-ec", 'umount -l /sys/fs/cgroup; exec "$0" "$@"', support.lua,
      script }, { timeout = 60 })
  end)
end)
