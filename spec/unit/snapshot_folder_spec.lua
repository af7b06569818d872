-- What is believed of a snapshot's folder, looked at without a VM.

local cjson = require "cjson"
local records = require "spec.support.records"
local support = require "spec.support"
local core = require "fcproc.core"
local origins = require "fcproc.resources.origin"
local restore = require "fcproc.vm.restore"

local must, fails = support.must, support.fails

-- A snapshot as it is on the disk, in a folder of the test's.
local function put(world)
  local path = world.folder:file("snap")
  support.sh{ "mkdir", "-m", "700", path }
  local manifest = records.manifest()
  manifest.firecracker.version = must(world.manager:binary_version())
  manifest.drives[2], manifest.network[1].mtu = nil, 1400
  for name, size in pairs(manifest.sizes) do
    support.write_file(path .. "/" .. name, ("x"):rep(size))
    must(core.own_file(path .. "/" .. name, nil, nil, 256))
  end
  support.write_file(path .. "/manifest.json", cjson.encode(manifest))
  return path
end

local function plan_of(network) return { network = network, spec = { any_cpu = true }, given = {} } end

describe("a snapshot's folder", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("gives a VM the MTU that its guest has, unless another is asked for", function()
    local world <close> = support.world()
    local path = put(world)
    for mtu, given in pairs{ [1400] = {}, [1300] = { { index = 1, attach = true, mtu = 1300 } } } do
      local plan = plan_of(given)
      must(restore.plan(world.manager, path, plan))
      assert.are.equal(mtu, plan.network[1].mtu)
    end
  end)

  it("with a file of another size is damaged, be it shorter or longer", function()
    local world <close> = support.world()
    local path = put(world)
    for _, name in ipairs{ "memory", "vmstate", "drive-root" } do
      local size = core.stat(path .. "/" .. name).size
      for _, other in ipairs{ size - 1, size + 1 } do
        support.sh{ "truncate", "-s", tostring(other), path .. "/" .. name }
        local err = fails("conflict", restore.plan(world.manager, path, plan_of{}))
        assert.is_truthy(err.message:find(("its %s has %d bytes, and had %d"):format(name, other, size), 1,
          true), err.message)
      end
      support.sh{ "truncate", "-s", tostring(size), path .. "/" .. name }
    end
  end)

  it("is root's own only when nobody else may write to a file of it, nor his group", function()
    local world <close> = support.world()
    local path = put(world)
    assert.are.same({}, must(origins.of(path, false)))
    for _, mode in ipairs{ "460", "420", "406", "402" } do
      support.sh{ "chmod", mode, path .. "/memory" }
      local err = fails("conflict", origins.of(path, false))
      assert.is_truthy(err.message:find("others may write to " .. path .. "/memory", 1, true), err.message)
      assert.are.same({}, must(origins.of(path, false, true)))
    end
  end)
end)
