-- The manager is killed after each of its steps that change the host. Whatever was made is found
-- again: what is dead is reclaimed to the last file, what lives is left alone and can be taken over.

local support = require "spec.support"
local traces = require "spec.support.traces"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local ID = "crashed"
local MOST_STEPS = 150

local function finally(fn) return setmetatable({}, { __close = fn }) end

-- After a crash: reclaim, and when the VM lives, adopt and end it, or reclaim once it died.
local function recover(world, before, what)
  local manager = world.manager
  local report = must(fcproc.vm.reclaim(manager))
  assert.are.same({}, report.failed, what)
  assert.are.same({}, report.busy, what)
  if #report.alive > 0 then
    local vm, err = fcproc.vm.adopt(manager, ID)
    if vm then
      assert.are.equal("running", vm:record().state)
      assert.is_true(vm.machine.process:alive())
      must(vm:kill())
    else -- it waited at its gate when its manager died, and so did it
      assert.are.equal("not_found", err.code, what .. ": " .. tostring(err))
      report = must(fcproc.vm.reclaim(manager))
      assert.are.same({ ID }, report.reclaimed, what)
    end
  end
  traces.same(before, world, what)
end

-- Crashes after the first step, the second, and so on, until it comes through. Returns the steps.
local function matrix(world, order)
  order.spec.id = ID
  local before
  for at = 1, MOST_STEPS do
    os.remove(world.output)
    order.at = at
    before = before or traces.of(world)
    local crashed = traces.crash(world, order)
    local what = ("%s, step %s"):format(order.action,
      (support.read_file(world.output) or ""):match("([^\n]+)\n*$") or at)
    recover(world, before, what)
    if order.action == "snapshot" then support.sh{ "rm", "-rf", order.path } end
    if not crashed then return at - 1 end
  end
  error("it never came through")
end

local function new_world()
  local world = traces.world()
  -- What the first VM makes and the last leaves: the runtime folder.
  must(must(fcproc.vm.launch(world.manager, { id = "first" })):kill())
  support.write_file(world.folder:file("disk"), ("x"):rep(4096))
  return world
end

describe("a manager that is killed", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local full = function(world)
    return { network = { nat = "up0" },
      drives = { { path = world.folder:file("disk"), copy = "sparse" } } }
  end

  it("while it launches a VM leaves what can be found", function()
    local world <close> = new_world()
    assert.is_true(matrix(world, { action = "launch", spec = full(world) }) > 20)
  end)

  it("while it stops one", function()
    local world <close> = new_world()
    assert.is_true(matrix(world, { action = "stop", spec = full(world) }) > 8)
  end)
end)
