-- A snapshot that is given up while Firecracker still writes it, as one of a large guest does for many
-- seconds: a fake API server writes and goes on as slowly as it is told.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local loop = require "fcproc.loop"
local journals = require "fcproc.resources.journal"
local snapshots = require "spec.support.snapshots"

local must, fails = support.must, support.fails
local slow_vm = snapshots.slow_vm

local function state_of(vm)
  return must(vm.machine:state())
end

-- What the journal says on the disk.
local function written(vm)
  return must(journals.read(vm.manager, vm.id))
end

describe("a snapshot that is cancelled while it is written", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("lets the VM go on in the end, though that has to wait", function()
    local world <close> = support.world()
    local vm <close> = slow_vm(world, 1, 0)
    local ctx <close> = must(fcproc.context{ timeout = 0.3 })
    local path, err = world.folder:file("snap"), nil
    local took = support.seconds(function() err = fails("deadline", vm:snapshot(path, nil, ctx)) end)
    assert.is_nil(err.paused)
    assert.is_true(took > 0.8, took)
    assert.are.equal("Running", state_of(vm))
    local record = written(vm)
    assert.are.same({ "running" }, { record.state, record.paused, record.snapshot, record.resume })
    fails("not_found", core.stat(path))
    fails("not_found", core.stat(path .. ".vm.partial"))
  end)

  it("says that the VM is still paused when there is no time for that, and so does the list", function()
    local world <close> = support.world()
    local vm <close> = slow_vm(world, 1.5, 0)
    local ctx <close> = must(fcproc.context{ timeout = 0.3 })
    local err
    local took = support.seconds(function()
      err = fails("deadline", vm:snapshot(world.folder:file("snap"), { cleanup_timeout = 0.3 }, ctx))
    end)
    assert.is_true(took < 1.2, took)
    assert.is_true(err.paused)
    assert.is_truthy(err.message:find("the VM is still paused", 1, true), err.message)
    assert.is_truthy(err.message:find("resume it", 1, true), err.message)
    local record = written(vm)
    assert.are.same({ "running", true }, { record.state, record.paused, record.snapshot, record.resume })
    must(vm:resume()) -- when it has been written
    assert.are.equal("Running", state_of(vm))
    assert.is_nil(written(vm).paused)
  end)

  it("whose manager dies while it waits for the VM to go on is undone by who adopts it", function()
    local world <close> = support.world()
    local vm <close> = slow_vm(world, 1, 0)
    local seen
    local ctx <close> = must(fcproc.context{ timeout = 0.2 })
    fcproc.run{
      function() return vm:snapshot(world.folder:file("snap"), nil, ctx) end,
      function()
        local later <close> = must(fcproc.context{ timeout = 0.5 }) -- it has been given up by then
        loop.complete(nil, later:wait_op())
        seen = written(vm)
      end,
    }
    assert.are.equal("snapshotting", seen.state)
    assert.are.equal(world.folder:file("snap.vm.partial"), seen.snapshot)
    assert.is_true(seen.resume)
  end)
end)

describe("a snapshot whose time is over when the VM has gone on", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("leaves nothing, and the VM goes on", function()
    local world <close> = support.world()
    local vm <close> = slow_vm(world, 0.1, 1)
    local ctx <close> = must(fcproc.context{ timeout = 0.6 })
    local path = world.folder:file("snap")
    local err = fails("deadline", vm:snapshot(path, nil, ctx))
    assert.is_nil(err.paused)
    assert.are.equal("Running", state_of(vm))
    local record = written(vm)
    assert.are.same({ "running" }, { record.state, record.paused, record.snapshot, record.resume })
    fails("not_found", core.stat(path))
    fails("not_found", core.stat(path .. ".vm.partial"))
  end)

  it("tells that the VM did not go on when it has too little time, and the list does", function()
    local world <close> = support.world()
    local vm <close> = slow_vm(world, 0.1, 1)
    local path = world.folder:file("snap")
    local err = fails("deadline", vm:snapshot(path, { cleanup_timeout = 0.2 }))
    assert.is_true(err.paused)
    assert.is_truthy(err.message:find("the snapshot is in " .. path, 1, true), err.message)
    assert.are.equal("written", support.read_file(path .. "/memory"))
    must(fcproc.vm.verify(path))
    local record = written(vm)
    assert.are.same({ "running", true }, { record.state, record.paused, record.snapshot, record.resume })
    must(vm:resume())
    assert.are.equal("Running", state_of(vm))
  end)
end)
