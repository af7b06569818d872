-- A Linux guest goes on from its snapshot: after a kill, and twice at once in namespaces that are alike.

local support = require "spec.support"
local linux = require "spec.support.linux"
local fcproc = require "fcproc"

local must = support.must

local GUEST = "172.30.0.2"

-- A Firecracker that takes its VM from the snapshot; the TAP of the same name is ready.
local function restore(world, name, snapshot, memory)
  must(world.manager:ensure_bridge())
  must(world.manager:create_tap("tap0"))
  local vm = support.listening_vm(world, { name = name, empty = true })
  local ok, err = fcproc.request(vm.sock, "PUT", "/snapshot/load", { snapshot_path = snapshot,
    mem_backend = { backend_type = "File", backend_path = memory }, resume_vm = true })
  if not ok then
    getmetatable(vm).__close(vm)
    error(tostring(err))
  end
  return vm
end

local function ends_gracefully(world, vm)
  must(world.manager:send_ctrl_alt_del(vm.sock))
  local gone, exit = world.manager:wait_for_exit(vm.process, vm.sock, linux.TIMEOUT)
  assert.is_true(gone)
  assert.are.same({ status = 0 }, exit)
  local console = support.read_file(vm.console)
  assert.is_truthy(console:find("linux guest: shutdown hook ran", 1, true), console)
end

describe("a Linux guest's snapshot", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is restored after a kill, and cloned twice", function()
    local world <close> = support.world()
    local snapshot, memory = world.folder:file("snapshot"), world.folder:file("memory")
    do
      local vm <close> = linux.vm(world, { address = GUEST })
      must(fcproc.request(vm.sock, "PATCH", "/vm", { state = "Paused" }))
      must(fcproc.request(vm.sock, "PUT", "/snapshot/create", { snapshot_type = "Full",
        snapshot_path = snapshot, mem_file_path = memory }))
      must(world.manager:kill(vm.process, vm.sock))
      must(world.manager:wait_for_exit(vm.process, vm.sock, linux.TIMEOUT))
    end
    local restored <close> = restore(world, "restored", snapshot, memory)
    assert.is_true(support.pings(world.netns, GUEST))
    local second <close> = support.world()
    local clone <close> = restore(second, "clone", snapshot, memory)
    assert.is_true(support.pings(second.netns, GUEST))
    assert.is_true(support.pings(world.netns, GUEST))
    ends_gracefully(world, restored)
    ends_gracefully(second, clone)
  end)
end)
