-- VMs of an ordinary user, in namespaces of his own.

local rootless = require "spec.support.rootless"
local support = require "spec.support"

support.need_root()
support.need_kvm()

describe("an ordinary user", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("launches VMs with a network, pings them, stops them, and nothing is left", function()
    rootless.run[[
      local started, holder
      do
        local manager <close> = world()
        local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true }))
        must(vm:console():wait_for("ready", 5))
        must(support.pings(manager.config.netns, vm:address()))
        local other <close> = must(fcproc.vm.launch(manager, { id = "b", network = true }))
        must(support.pings(manager.config.netns, other:address()))
        -- By its journal it is another process's, too.
        equal("running", must(fcproc.vm.inspect(manager, "a")).state)
        local state = must(require("fcproc.manager.rootless").state(manager.config))
        holder = must(fcproc.process(state.holder))
        equal(0, must(vm:stop()).exit.status)
        equal(2, #must(manager:list_taps()) + 1)
      end
      -- With the manager goes the holder, and with it the namespaces.
      must(holder:wait(5))
      support.eventually("no namespace", function()
        return require("fcproc.manager.rootless").state{ runtime_dir = home .. "/run" } == nil
      end)
      equal(0, #must(core.list_dir(home .. "/run/.fcproc/locks")))
    ]]
  end)

  it("is in a rootless manager when he may make no links, and no VM without one needs it", function()
    rootless.run[[
      local manager <close> = world{ privilege = false }
      equal("rootless", manager.config.privilege)
      local plain <close> = must(fcproc.vm.launch(manager, { id = "plain" }))
      equal(nil, manager.config.netns)
      equal(nil, plain:record().confined)
      must(plain:kill())
      local vm <close> = must(fcproc.vm.launch(manager, { id = "vm", network = true }))
      check(vm:record().confined, "it is in no jail")
      local other <close> = must(fcproc.vm.launch(manager, { id = "other" }))
      equal(nil, other:record().confined)
      local err = fails("permission", fcproc.vm.launch(manager, { network = true,
        jailer = { uid = 1, gid = 1 } }))
      check(err.message:find("needs root", 1, true), err)
    ]]
  end)

  it("snapshots and restores them, with drives", function()
    rootless.run[[
      support.write_file(home .. "/disk", ("x"):rep(65536))
      support.write_file(home .. "/base", ("y"):rep(65536))
      local manager <close> = world()
      do
        local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true, drives = {
          { path = home .. "/disk" }, { path = home .. "/base", read_only = true },
          { path = home .. "/base", id = "copy", copy = "reflink" } } }))
        must(vm:console():wait_for("ready", 5))
        must(vm:snapshot(home .. "/snapshot"))
      end
      local vm <close> = must(fcproc.vm.restore(manager, home .. "/snapshot", { id = "b" }))
      must(support.pings(manager.config.netns, vm:address()))
    ]]
  end)

  it("has one file as several of a VM's drives, and as its kernel", function()
    rootless.run[[
      support.write_file(home .. "/base", ("y"):rep(65536))
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true, drives = {
        { path = home .. "/base", id = "one", read_only = true },
        { path = home .. "/base", id = "two", read_only = true },
        { path = must(fcproc.guest_path()), id = "kernel", read_only = true } } }))
      must(vm:console():wait_for("ready", 5))
      check(vm:record().confined, "it is in no jail")
    ]]
  end)

  it("has no namespaces while he only looks, or deletes what is not there, and sees another's", function()
    rootless.run[[
      local first <close> = world()
      local second <close> = world()
      equal(0, #must(first:list_taps()))
      must(first:delete_bridge())
      equal(0, must(first:delete_taps{ "tap1", "tap2" }))
      must(first:delete_tap("tap1"))
      equal(nil, core.stat(home .. "/run"))
      must(second:ensure_bridge())
      must(second:create_tap("tap1"))
      equal("tap1", must(first:list_taps())[1].name)
      local third <close> = world()
      must(first:delete_tap("tap1"))
      equal(0, #must(second:list_taps()))
      must(third:delete_bridge())
      equal(false, second.net:link_exists("fcbr0"))
      first:close()
      fails("closed", first:delete_bridge())
      local never = world{ runtime_dir = home .. "/never" }
      never:close()
      fails("closed", never:delete_bridge())
      fails("closed", never:delete_taps{ "tap1" })
      fails("closed", never:list_taps())
    ]]
  end)

  it("makes TAPs and a bridge, and takes them away again", function()
    rootless.run[[
      local manager <close> = world()
      equal(false, manager.net:link_exists("fcbr0"))
      must(manager:ensure_bridge())
      for i = 1, 40 do must(manager:create_tap("tap" .. i)) end
      local err = fails("conflict", manager:create_tap("fcbr0"))
      check(err.message:find("is a bridge, not a TAP", 1, true), err)
      equal(40, #must(manager:list_taps()))
      local names = {}
      for i = 1, 40 do names[i] = "tap" .. i end
      equal(40, must(manager:delete_taps(names)))
      must(manager:delete_tap("tap1"))
      must(manager:delete_bridge())
    ]]
  end)
end)

describe("what an ordinary user's namespaces remember of a guest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is forgotten, and of no other", function()
    rootless.run([[
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { network = true }))
      local function flush(...)
        return select(2, complete(must(manager.net:flush_conntrack({ ... }))))
      end
      equal(0, flush(vm:address())) -- nothing is remembered there yet
      -- Where rules ask for it the kernel does.
      must(fcproc.runner():run({ "nft", "add table ip t; "
        .. "add chain ip t c { type filter hook output priority 0; }; "
        .. "add rule ip t c ct state new accept" }, { netns = manager.config.netns }))
      must(support.pings(manager.config.netns, vm:address()))
      equal(0, flush("172.30.0.99"))
      equal(1, flush(vm:address()))
      equal(0, flush(vm:address()))
    ]])
  end)
end)

describe("an ordinary user's TAP", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is free for its VMM as soon as it is made, however slowly what opened its device ends", function()
    rootless.run[[
      local manager <close> = world()
      must(manager:ensure_bridge())
      local ready = home .. "/ready"
      local tracer <close> = must(fcproc.spawn({ "python3", "spec/support/slowexit.py",
        tostring(support.own_pid()), "0.2", ready }))
      support.eventually("it is traced", function() return core.stat(ready) end)
      -- More than are opened at once.
      for i = 1, 70 do
        local name = "tap" .. i
        must(manager:create_tap(name))
        -- Made right in place, as its VMM would have it: busy as long as another has it open.
        equal(false, must(manager:create_tap(name)).created)
      end
      must(tracer:signal("KILL"))
      must(tracer:wait(5))
    ]]
  end)
end)
