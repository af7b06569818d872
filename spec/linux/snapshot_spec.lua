-- A Linux guest goes on from its snapshot: after a kill, and twice at once in namespaces that are
-- alike, each with a disk of its own.

local support = require "spec.support"
local linux = require "spec.support.linux"
local fcproc = require "fcproc"

local must = support.must

-- Is the text in the file? What a guest has synced lies in its disk as it is.
local function holds(path, text)
  return support.read_file(path):find(text, 1, true) ~= nil
end

local function disk(vm) return vm:record().files.folder .. "/drive-root" end

local function restore(world, snapshot, id)
  return must(fcproc.vm.restore(world.manager, snapshot, { id = id, timeout = linux.TIMEOUT }))
end

describe("a Linux guest's snapshot", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is restored after a kill, and cloned twice", function()
    local world <close> = support.world()
    local snapshot, root = world.folder:file("snapshot"), linux.folder() .. "/guest.ext4"
    do
      local vm <close> = linux.launch(world, { id = "original", args = "fcproc.do=serve",
        network = true, drives = { { path = root, root = true, copy = "sparse" } } })
      assert.are.equal("written", linux.ask(world, vm, "write before the snapshot"))
      must(vm:snapshot(snapshot))
      assert.is_true(holds(snapshot .. "/drive-root", "before the snapshot"))
      assert.is_false(holds(root, "before the snapshot"))
      assert.are.equal("written", linux.ask(world, vm, "write after it"))
      assert.are.same({ signal = 9 }, must(vm:kill()).exit)
    end
    linux.nothing_left(world)
    assert.are.equal("None", must(fcproc.vm.verify(snapshot)).huge_pages)
    do
      local vm <close> = restore(world, snapshot, "restored")
      assert.are.equal("before the snapshot", linux.ask(world, vm, "read"))
      linux.stop_gracefully(vm)
    end
    local second <close> = support.world()
    local vms = fcproc.run{ function() return restore(world, snapshot, "one") end,
      function() return restore(second, snapshot, "two") end }
    local one <close> = must(table.unpack(vms[1]))
    local two <close> = must(table.unpack(vms[2]))
    assert.are.equal(one:address(), two:address())
    assert.are.equal("written", linux.ask(world, one, "write by the first"))
    assert.are.equal("written", linux.ask(second, two, "write by the second"))
    assert.are.equal("by the first", linux.ask(world, one, "read"))
    assert.are.equal("by the second", linux.ask(second, two, "read"))
    assert.is_true(holds(disk(one), "by the first"))
    assert.is_true(holds(disk(two), "by the second"))
    assert.is_true(holds(snapshot .. "/drive-root", "before the snapshot"))
    linux.stop_gracefully(one)
    linux.stop_gracefully(two)
    linux.nothing_left(world)
    linux.nothing_left(second)
  end)
end)
