-- What VMs have on the host when not all of it can be found out: nothing is taken for ours, dead or free
-- that was not seen to be. What a busy machine fails with once in a while is failed here by name.

local support = require "spec.support"
local mounts = require "spec.support.mounts"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcproc = require "fcproc"
local host = require "fcproc.resources.host"
local journals = require "fcproc.resources.journal"
local lease = require "fcproc.resources.lease"
local managers = require "fcproc.manager"
local namespaces = require "fcproc.resources.namespaces"
local rebuild = require "fcproc.resources.rebuild"
local relays = require "fcproc.resources.relay"

local must, fails = support.must, support.fails

local EMFILE = 24

-- Where the kernel would say that there are too few descriptors, for as long as fn runs.
local function with_none_for(room, name, is_it, fn)
  local real <const> = room[name]
  room[name] = function(...)
    if not is_it(...) then return real(...) end
    return nil, errors.new{ code = "system", op = "spec", errno = EMFILE, message = "too many open files" }
  end
  local result = table.pack(pcall(fn))
  room[name] = real
  assert(result[1], result[2])
  return table.unpack(result, 2, result.n)
end

local function always() return true end

local function tap_names(manager)
  local names = {}
  for i, tap in ipairs(must(manager:list_taps())) do names[i] = tap.name end
  return names
end

-- A VM's journal with a TAP of its own, which is made.
local function journal_with_tap(world)
  local manager = world.manager
  local journal = must(journals.create(manager, "vm", {}))
  local record, name = journal.record, ("tap-%d-tap0"):format(namespaces.of(manager))
  record.taps, record.drives, record.leases = { { name = "tap0" } }, {}, { name }
  record.netns = namespaces.of(manager)
  must(must(lease.open(manager, true)):take(name, "vm"))
  must(manager:create_tap("tap0"))
  return journal
end

describe("what a VM has on the host", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is not a TAP that was there before, also when that could not be asked", function()
    local world <close> = support.bridged_world()
    must(world.manager:create_tap("mine0"))
    local manager = must(fcproc.new{ bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24,
      netns = world.netns, runtime_dir = world.folder:file("run"),
      firecracker_bin = world.manager.config.firecracker_bin })
    local err = fails("closed", fcproc.vm.launch(manager, { id = "vm", network = { tap = "mine0" },
      hooks = { before_prepare = function() manager:close() end } }))
    assert.are.equal("prepare", err.step) -- before the TAP is touched
    assert.is_nil(err.left)
    assert.are.same({ "mine0" }, tap_names(world.manager))
  end)

  it("stays with its journal when its namespace can't be entered for want of descriptors", function()
    local world <close> = support.bridged_world()
    local manager, journal = world.manager, journal_with_tap(world)
    -- A rootless manager's VM without a network of its own is where the process is.
    local outside = setmetatable({ host_net = manager.net }, { __index = manager })
    journal.record.netns = namespaces.own()
    local left = with_none_for(managers, "new", always, function()
      return (host.remove(outside, { journal }, nil))
    end)
    assert.are.equal(1, #left)
    assert.are.equal(EMFILE, left[1].err.errno)
    assert.is_true(journals.exists(manager, "vm"))
    journal.record.netns = namespaces.of(manager)
    local gone = setmetatable({ closed = true, net = {} }, { __index = manager })
    left = with_none_for(managers, "new", always, function()
      return (host.remove(gone, { journal }, nil))
    end)
    assert.are.equal(EMFILE, left[1].err.errno)
    assert.are.same({}, (host.remove(manager, { journal })))
    assert.are.same({}, tap_names(manager))
  end)

  it("is not made up of half of what is there when its journal is lost", function()
    local world <close> = support.world()
    local manager = world.manager
    must(manager:ensure_socket_dir())
    local folder = world.folder:file("run/vm")
    local lost = errors.new{ code = "not_found", op = "spec", message = "there is no journal" }
    support.sh{ "mkdir", "-p", folder .. "/jail/firecracker/vm/root" }
    assert.is_true(must(rebuild.record_of(manager, "vm", nil, lost)).shape.jailed)
    for _, path in ipairs{ folder .. "/jail", must(lease.open(manager, true)).folder } do
      local err = fails("system", with_none_for(core, "list_dir", function(given) return given == path end,
        function() return rebuild.record_of(manager, "vm", nil, lost) end))
      assert.are.equal(EMFILE, err.errno)
    end
  end)

  it("is no relay of a VM that lives, of whose folder this is a copy", function()
    local vmm <close> = must(fcproc.spawn{ "sleep", "60" })
    local relay <close> = must(fcproc.spawn{ "sleep", "60" })
    must(relays.stop{ process = must(vmm:identity()), relay = must(relay:identity()) })
    assert.is_true(relay:alive())
    for _, process in ipairs{ vmm, relay } do
      process:signal("KILL")
      must(process:wait(10))
    end
  end)

  it("is no uid while a file that may give it to somebody can't be read", function()
    local dir <close> = support.folder()
    mounts(dir, 'mount -t tmpfs none /etc; mkdir /etc/subuid', [[
      local manager = must(require "fcproc".new{ runtime_dir = dir .. "/run" })
      local leases = must(require "fcproc.resources.lease".open(manager, true))
      local uids = require "fcproc.resources.uids"
      local uid, err = uids.take(leases, "a", { uid = "auto" }, {})
      assert(not uid and tostring(err):find("/etc/subuid", 1, true), tostring(err))
      support.sh{ "rmdir", "/etc/subuid" } -- where there is none, nobody has any
      local name
      uid, _, name = uids.take(leases, "a", { uid = "auto" }, {})
      must(uid)
      must(leases:release(name, "a"))
      -- Some hosts have such files elsewhere.
      support.write_file(dir .. "/passwd", ("x:x:%d:1::/:/bin/sh\n"):format(uid))
      support.sh{ "ln", "-s", dir .. "/passwd", "/etc/passwd" }
      local other
      other, _, name = uids.take(leases, "a", { uid = "auto" }, {})
      assert(must(other) ~= uid, uid)
      must(leases:release(name, "a"))
    ]])
  end)
end)
