-- A target is there whole or not at all, whoever ends its build and when.

local core = require "fcproc.core"
local fcproc = require "fcproc"
local images = require "spec.support.images"
local mounts = require "spec.support.mounts"
local support = require "spec.support"

local must = support.must

-- So many moments; more in `make soak`.
local KILLS = tonumber(os.getenv("FCPROC_SPEC_KILLS")) or 10

local BUILDER = [[
  local fcproc = require "fcproc"
  local report, err = fcproc.image.build(arg[1], arg[2])
  if not report then error(tostring(err)) end
]]

-- What does not pack well, so that it takes a while.
local function noise(size)
  local file <close> = assert(io.open("/dev/urandom", "rb"))
  return file:read(size)
end

local function names_in(path)
  local names = {}
  for i, entry in ipairs(must(core.list_dir(path))) do names[i] = entry.name end
  return names
end

describe("a target", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is whole or not there when its builder is killed, and nothing is beside it", function()
    local dir <close> = support.folder()
    local layout = images.layout(dir:file("layout"))
    local files = {}
    for i = 1, 300 do files[i] = { ("file%d"):format(i), data = noise(10000) } end
    layout:write{ layout:image({ images.tar(files), images.tar{ { "file1", data = noise(1 << 20) } } },
      { gzip = true }) }
    support.write_file(dir:file("build.lua"), BUILDER)
    support.sh{ "mkdir", dir:file("out") }
    local argv = { support.lua, dir:file("build.lua"), "oci:" .. layout.path, dir:file("out/disk") }
    local seconds = support.seconds(support.sh, argv)
    local wanted, whole = support.read_file(dir:file("out/disk")), 0
    os.remove(dir:file("out/disk"))
    for _ = 1, KILLS do
      local builder = must(fcproc.spawn(argv, { stdout = "null", stderr = "null" }))
      core.poll_many({}, {}, seconds * (0.3 + 0.7 * math.random())) -- first it loads its modules
      builder:signal("KILL")
      builder:wait(10)
      builder:close()
      local found = support.read_file(dir:file("out/disk"))
      if found then
        whole = whole + 1
        assert.is_true(found == wanted)
        os.remove(dir:file("out/disk"))
      end
      assert.are.same({}, names_in(dir:file("out")))
    end
    assert.is_true(whole < KILLS or KILLS < 100, "none was killed before its end")
  end)

  it("is made without what dead builders have left beside it, where there is no O_TMPFILE", function()
    local dir <close> = support.folder()
    assert.are.equal("ok\n", support.sh{ os.getenv("FCPROC_SPEC_BUILD") .. "/target-test", dir.path })
  end)

  it("is as it was where the disk is full or may not be written, and what it lacks is told", function()
    local dir <close> = support.folder()
    local layout = images.layout(dir:file("layout"))
    layout:write{ layout:image({ images.tar{ { "big", data = noise(5 << 20) } } }, { gzip = true }) }
    mounts(dir, 'mkdir "$1/full" "$1/ro"; mount -t tmpfs -o size=3m none "$1/full"; '
      .. 'echo old >"$1/full/disk"; mount -t tmpfs -o ro none "$1/ro"', [[
      local fcproc = require "fcproc"
      local source = "oci:" .. dir .. "/layout"
      for _, format in ipairs{ "ext4", "tar" } do
        local _, err = fcproc.image.build(source, dir .. "/full/disk", { format = format })
        assert(err and err.errno == 28, tostring(err))
        assert(support.read_file(dir .. "/full/disk") == "old\n")
        assert(#core.list_dir(dir .. "/full") == 1)
        local _, refused = fcproc.image.build(source, dir .. "/ro/disk", { format = format })
        assert(refused and refused.errno == 30, tostring(refused))
      end
    ]])
  end)
end)
