-- kill: a VM of ours dies, by whatever it is proved to be one; a stranger is never signalled.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails, start = support.must, support.fails, support.listening_vm

local NEVER_A_PID = 4194305 -- above the highest that Linux gives

-- It is dead, and by SIGKILL.
local function assert_killed(vm)
  local gone, exit = vm.process:wait(10)
  assert.is_true(gone)
  assert.are.same({ signal = 9 }, exit)
end

-- Runs fn with a sleep that is none of ours, and fails unless it lives through it.
local function with_stranger(fn)
  local process <close> = must(fcproc.spawn{ "sleep", "60" })
  local ok, problem = pcall(fn, process)
  local alive = process:alive()
  process:signal("KILL")
  process:wait(10)
  if not ok then error(problem, 0) end
  assert.is_true(alive)
end

for _, without in ipairs{ {}, { "peerpidfd" } } do
  describe("kill" .. (without[1] and " without SO_PEERPIDFD" or ""), function()
    before_each(support.before_each)
    after_each(support.after_each)

    it("ends a running VM, and is a success again when it is gone", function()
      local world <close> = support.world{ without = without }
      local vm <close> = start(world)
      local pid = vm.process:pid()
      must(world.manager:kill(pid, vm.sock))
      must(world.manager:kill(pid, vm.sock)) -- dying, or dead and not reaped
      assert.are.same({ true, { signal = 9 } },
        { world.manager:wait_for_exit(vm.process, vm.sock, 10) })
      must(world.manager:kill(pid, vm.sock)) -- nobody's number
      must(world.manager:kill(vm.process, vm.sock))
      must(world.manager:kill(NEVER_A_PID, vm.sock))
    end)

    it("refuses a stranger, by number or handle, with and without a VM's socket", function()
      local world <close> = support.world{ without = without }
      local vm <close> = start(world)
      with_stranger(function(stranger)
        for _, sock in ipairs{ vm.sock, world.folder:file("none/api.sock"), false } do
          local err = fails("not_same_process",
            world.manager:kill(stranger:pid(), sock or nil))
          assert.is_true(err == fcproc.ERR_NOT_SAME_PROCESS)
          assert.are.equal(stranger:pid(), err.pid)
          assert.are.equal(sock or nil, err.path)
          local handle <close> = must(fcproc.process(stranger:pid()))
          fails("not_same_process", world.manager:kill(handle, sock or nil))
        end
      end)
      assert.is_true(vm.process:alive())
    end)

    it("knows a copy of the binary, as in a jail, by its live socket only", function()
      local world <close> = support.world{ without = without }
      local copy = world.folder:file("firecracker")
      support.sh{ "cp", support.firecracker(), copy }
      local sock = world.folder:file("run/api.sock")
      must(world.manager:ensure_socket_dir())
      local vm <close> = start(world, { firecracker = copy, sock = sock })
      fails("not_same_process", world.manager:kill(vm.process:pid()))
      local other <close> = start(world, { name = "other" })
      fails("not_same_process", world.manager:kill(vm.process:pid(), other.sock))
      must(os.rename(sock, sock .. ".away"))
      fails("not_same_process", world.manager:kill(vm.process:pid(), sock))
      assert.is_true(vm.process:alive())
      must(world.manager:kill(vm.process:pid(), sock .. ".away"))
      assert_killed(vm)
      assert.is_true(other.process:alive())
    end)
  end)
end

describe("kill by a number", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("of 0 or less is refused", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    for _, pid in ipairs{ 0, -1, -vm.process:pid() } do
      fails("invalid", world.manager:kill(pid))
      fails("invalid", world.manager:kill(pid, vm.sock))
    end
    assert.is_true(vm.process:alive())
    for _, wrong in ipairs{ "1", 1.5, {} } do
      assert.has_error(function() world.manager:kill(wrong, vm.sock) end)
    end
  end)

  it("alone is enough for a VM whose socket is inside the runtime folder", function()
    local world <close> = support.world()
    must(world.manager:ensure_socket_dir())
    support.sh{ "mkdir", "-p", world.folder:file("run/deep/er"), world.folder:file("run2") }
    for i, inside in ipairs{ "run/api.sock", "run/deep/er/api.sock" } do
      local vm <close> = start(world, { name = "in" .. i, sock = world.folder:file(inside) })
      must(world.manager:kill(vm.process:pid()))
      assert_killed(vm)
    end
    for i, outside in ipairs{ "api.sock", "run2/api.sock", "run/../out.sock" } do
      local vm <close> = start(world, { name = "out" .. i, sock = world.folder:file(outside) })
      fails("not_same_process", world.manager:kill(vm.process:pid()))
      assert.is_true(vm.process:alive())
      must(world.manager:kill(vm.process:pid(), vm.sock))
      assert_killed(vm)
    end
  end)

  it("reaches a VM that no longer listens by its arguments", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    must(os.remove(vm.sock))
    fails("not_same_process", world.manager:kill(vm.process:pid(), vm.sock .. "2"))
    must(world.manager:kill(vm.process:pid(), vm.sock))
    assert_killed(vm)
  end)
end)

describe("kill by a record", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("needs no socket: our own handle, or a recorded identity", function()
    local world <close> = support.world{ runtime_dir = "/nowhere" }
    local spawned <close> = start(world, { name = "spawned" })
    must(world.manager:kill(spawned.process))
    assert_killed(spawned)
    local adopted <close> = start(world, { name = "adopted" })
    local identity = must(adopted.process:identity())
    local handle <close> = must(fcproc.process(identity))
    assert.is_true(handle:recorded())
    must(world.manager:kill(handle))
    assert_killed(adopted)
    must(world.manager:kill(handle)) -- gone already
    fails("not_found", fcproc.process(identity))
  end)

  it("does not take a handle opened by number for one", function()
    local world <close> = support.world{ runtime_dir = "/nowhere" }
    local vm <close> = start(world)
    local handle <close> = must(fcproc.process(vm.process:pid()))
    assert.is_false(handle:recorded())
    fails("not_same_process", world.manager:kill(handle))
    must(world.manager:kill(handle, vm.sock))
    assert_killed(vm)
  end)

  it("does not take an identity with another start for one", function()
    local world <close> = support.world()
    local vm <close> = start(world)
    for field, change in pairs{
      start_time = function(value) return value + 1 end, -- of a kernel that gives a pidfd no number
      inode = function(value) return value and value + 1 end,
      boot_id = function(value) return value:gsub("%x", { ["0"] = "1" }, 1) .. "" end,
    } do
      local identity = must(vm.process:identity())
      if field == "start_time" then identity.inode = nil end
      local changed = change(identity[field])
      if changed and changed == identity[field] then changed = ("0"):rep(#changed) end
      if changed then
        identity[field] = changed
        fails("not_found", fcproc.process(identity))
      end
    end
    assert.is_true(vm.process:alive())
  end)
end)

describe("kill in a context", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("that has ended does nothing", function()
    local logged = {}
    local world <close> = support.world{ logger = function(_, message, fields)
      logged[#logged + 1] = ("%s %s"):format(message, fields.pid)
    end }
    local vm <close> = start(world)
    local ctx <close> = must(fcproc.context())
    must(world.manager:kill(NEVER_A_PID, ctx)) -- the socket may be left out
    ctx:cancel()
    fails("cancelled", world.manager:kill(vm.process, ctx))
    fails("cancelled", world.manager:kill(vm.process:pid(), vm.sock, ctx))
    assert.is_true(vm.process:alive())
    assert.are.same({}, logged)
    must(world.manager:kill(vm.process:pid(), vm.sock))
    assert_killed(vm)
    assert.are.same({ "process killed " .. vm.process:pid() }, logged)
  end)
end)
