-- Where a jail can be, which jailer is taken, and whether its limits are in force: without a VM.

local jails = require "spec.support.jails"
local mounts = require "spec.support.mounts"
local support = require "spec.support"
local core = require "fcproc.core"
local cgroups = require "fcproc.machine.cgroup"
local jailer = require "fcproc.machine.jailer"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

describe("a jail", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("can be where the file system that is seen there lets it, whatever that one hides", function()
    local dir <close> = support.folder()
    mounts(dir, [[
      mkdir "$1/closed" "$1/open" "$1/closed-too"
      mount -t tmpfs none "$1/closed"; mount -t tmpfs -o nodev none "$1/closed"
      mount -t tmpfs -o noexec none "$1/open"; mount -t tmpfs none "$1/open"
    ]], [[
      local jailer = require "fcproc.machine.jailer"
      for name, option in pairs{ closed = "nodev", ["closed/x/y"] = "nodev", open = false,
        ["open/x"] = false, ["closed-too"] = false } do
        local ok, err = jailer.check_place(dir .. "/" .. name)
        if option then
          fails("unsupported", ok, err)
          assert(err.message:find("is mounted " .. option, 1, true), err.message)
        else
          must(ok, err)
        end
      end
    ]])
  end)

  it("can be where nothing is yet, to the first folder", function()
    for _, folder in ipairs{ "/", "/fcproc-spec-none", "/fcproc-spec-none/x/y" } do
      must(jailer.check_place(folder))
    end
  end)

  it("is made by the jailer beside its Firecracker, first the one of that name", function()
    local dir <close> = support.folder()
    local firecracker = dir:file("firecracker-v1.12.1")
    local on_path = jailer.find_binary("/none/firecracker")
    assert.are.equal(on_path, jailer.find_binary(firecracker))
    for _, name in ipairs{ "jailer", "jailer-v1.12.1" } do
      support.sh{ "cp", "/bin/true", dir:file(name) }
      assert.are.equal(dir:file(name), must(jailer.find_binary(firecracker)))
    end
    assert.are.equal(dir:file("jailer"), must(jailer.find_binary(dir:file("fc"))))
  end)

  it("has its limits only when its cgroup holds them", function()
    local v1 = jails.hierarchies()
    assert.is_truthy(v1.memory, "this needs a memory hierarchy of version 1")
    local parent, MIB = ("fcproc-spec-%d"):format(support.own_pid()), 1 << 20
    local group = ("%s/%s/vm"):format(v1.memory, parent)
    must(cgroups.make(group))
    local process <close> = must(fcproc.spawn({ "sleep", "60" }, { stdout = "null" }))
    local closing <close> = setmetatable({}, { __close = function()
      process:signal("KILL")
      process:wait(10)
      must(cgroups.leave(group))
      must(cgroups.leave(v1.memory .. "/" .. parent))
    end })
    assert.is_truthy(closing)
    local function check(file, wanted)
      return jailer.check_cgroups({ parent_cgroup = parent, cgroup_version = 1,
        cgroups = { [file] = wanted } }, "vm", process:pid())
    end
    local LIMIT = "memory.limit_in_bytes"
    local err = fails("conflict", check(LIMIT, "64M"))
    assert.is_truthy(err.message:find("is not in " .. group, 1, true), err.message)
    must(cgroups.enter(group, process:pid()))
    support.write_file(group .. "/" .. LIMIT, tostring(64 * MIB))
    for _, wanted in ipairs{ "64M", "65536K", tostring(64 * MIB), tostring(64 * MIB + 4095) } do
      must(check(LIMIT, wanted))
    end
    for _, wanted in ipairs{ "63M", "65M", "128M", tostring(64 * MIB - 1) } do
      err = fails("conflict", check(LIMIT, wanted))
      assert.is_truthy(err.message:find(LIMIT .. " is '67108864'", 1, true), err.message)
    end
  end)

  it("leaves a cgroup that may be others', which may be gone, and nothing that is no cgroup's", function()
    local v1, v2 = jails.hierarchies()
    local point = v2 or v1.pids
    local group = ("%s/fcproc-spec-%d"):format(point, support.own_pid())
    must(cgroups.make(group))
    must(cgroups.leave(group))
    assert.is_nil(core.stat(group))
    must(cgroups.leave(group))
    for _, path in ipairs{ "/none/x", point .. "x/none", point } do
      fails("conflict", cgroups.leave(path))
    end
    local dir <close> = support.folder()
    fails("conflict", cgroups.leave(dir.path))
    assert.is_truthy(core.stat(dir.path))
  end)
end)
