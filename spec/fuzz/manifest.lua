-- Manifests that say anything: a restore refuses them or fails, nobody raises, and nothing is left of it.
-- `make fuzz FUZZ_SECONDS=30`, or with a seed: FUZZ_SEED=7.

local fuzz = require "spec.support.fuzz"
local records = require "spec.support.records"
local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must = support.must

local function main()
  local world <close> = support.bridged_world()
  local path = world.folder:file("snapshot")
  must(core.make_dir(path, 448))
  for name, size in pairs(records.manifest().sizes) do
    support.write_file(path .. "/" .. name, ("x"):rep(size))
  end
  support.write_file(world.folder:file("base"), "base")
  local version = must(world.manager:binary_version())
  local text = ""
  return fuzz.run("manifests", function()
    local manifest = records.manifest()
    manifest.firecracker.version, manifest.drives[2].path = version, world.folder:file("base")
    text = fuzz.text(manifest)
    support.write_file(path .. "/manifest.json", text)
    local vm, err = fcproc.vm.restore(world.manager, path, { any_cpu = true })
    assert(vm == nil, "it was restored")
    assert(fcproc.is_error(err), "no error")
    assert(not (err.code == "protocol" and err.message:find("[\0-\8\11-\31\127]")),
      "control characters: " .. err.message)
    assert(#must(fcproc.vm.list(world.manager)) == 0, "something is left")
    return err.code ~= "protocol"
  end, function() return text end)
end

os.exit(main(), true)
