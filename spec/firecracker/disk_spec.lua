-- Disks that several VMs share: one base that all read, each with a disk of its own over it; and whoever
-- keeps such bases is told who needs them.

local mounts = require "spec.support.mounts"
local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local users = require "fcproc.resources.users"

local must, fails = support.must, support.fails
local SIZE = 64 << 20

-- A base that is kept beside a folder of its users, and an empty disk.
local function bases(world)
  local folder = world.folder:file("base")
  support.sh{ "mkdir", folder }
  must(core.make_dir(folder .. "/" .. users.NAME, 448))
  local base, scratch = folder .. "/disk", folder .. "/scratch"
  support.write_file(base, "the base" .. ("\0"):rep(65528))
  support.write_file(scratch, "")
  support.sh{ "truncate", "-s", SIZE, scratch }
  support.sh{ "chmod", "444", base, scratch }
  local before = must(core.stat(base))
  return {
    folder = folder, path = base,
    drive = { disk = function()
      return { path = base, root = true, read_only = true, overlay = scratch }
    end },
    users = function()
      local names = {}
      for i, user in ipairs(must(users.list(folder))) do names[i] = user:match("[^/]+$") end
      table.sort(names)
      return table.concat(names, " ")
    end,
    assert_as_before = function()
      local now = must(core.stat(base))
      assert.are.same({ before.id, before.uid, before.mode, 1 }, { now.id, now.uid, now.mode, now.nlink })
    end,
  }
end

local function spec_of(base, id, jailer)
  return { id = id, drives = { base.drive }, boot_args = "init=/none", jailer = jailer }
end

describe("a shared base", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  for name, jailer in pairs{ direct = false, jailed = { uid = "auto" } } do
    it("costs no copy, and is told who needs it: " .. name, function()
      local base = bases(world)
      local list = must(fcproc.vm.launch_all(world.manager, { spec_of(base, "a", jailer or nil),
        spec_of(base, "b", jailer or nil) }))
      assert.are.equal("a b", base.users())
      for _, vm in ipairs(list) do
        must(must(vm:console()):wait_for("fcproc guest: ready", 10))
        vms.shows(vm, "the base", "fcproc.overlay=/dev/vdb")
        local record = vm:record()
        local root, overlay = record.files.folder .. "/drive-root", record.files.folder .. "/drive-overlay"
        assert.are.equal(must(core.stat(base.path)).id, must(core.stat(root, true)).id)
        local own = must(core.stat(overlay))
        assert.are.same({ SIZE, 0, "file" }, { own.size, own.allocated, own.type })
        assert.are.equal(record.jail and record.jail.uid or 0, own.uid)
      end
      must(fcproc.vm.stop_all(list, { { "sigkill", 5 } }))
      assert.are.equal("", base.users())
      base.assert_as_before()
    end)
  end

  it("is restored and taken over with each VM's own disk, and named by snapshots, too", function()
    local base = bases(world)
    local vm = vms.ready(world, spec_of(base, "a"))
    local own = vm:record().files.folder .. "/drive-overlay"
    local file <close> = assert(io.open(own, "r+b"))
    assert(file:write("written"):flush())
    local path = world.folder:file("snap")
    must(vm:snapshot(path, { hash = false }))
    assert.are.equal("a snap", base.users())
    assert.are.equal("written", support.read_file(path .. "/drive-overlay"):sub(1, 7))
    vms.detach(vm)
    local again = must(fcproc.vm.adopt(world.manager, "a"))
    assert.are.equal("a snap", base.users())
    must(again:kill())
    local restored = must(fcproc.vm.restore(world.manager, path, { id = "b" }))
    assert.are.equal("b snap", base.users())
    own = restored:record().files.folder .. "/drive-overlay"
    assert.are.equal("written", support.read_file(own):sub(1, 7))
    must(restored:kill())
    support.sh{ "rm", "-rf", path }
    -- A link that is young may be of what is just coming.
    support.sh{ "sh", "-c", 'touch -h -d "2 minutes ago" "$1"/*', "sh", base.folder .. "/" .. users.NAME }
    assert.are.equal("", base.users())
    assert.are.same({}, must(core.list_dir(base.folder .. "/" .. users.NAME)))
    base.assert_as_before()
  end)

  it("is named by a VM that is dead, until that is reclaimed", function()
    local base = bases(world)
    local vm = vms.ready(world, spec_of(base, "a"))
    local child = vms.detach(vm)
    child:signal("KILL")
    must(child:wait(10))
    assert.are.equal("a", base.users())
    must(fcproc.vm.reclaim(world.manager))
    assert.are.equal("", base.users())
  end)

  it("that is just being removed is refused, and what others made is not written into", function()
    local base = bases(world)
    base.drive.disk = function()
      return { path = base.path, root = true, read_only = true }
    end
    local spec = spec_of(base, "a")
    spec.hooks = { after_prepare = function() assert(os.remove(base.path)) end }
    local err = fails("not_found", fcproc.vm.launch(world.manager, spec))
    assert.is_truthy(err.message:find("drives[1]: ", 1, true), err.message)
    assert.are.equal("", base.users())
    support.write_file(base.path, ("x"):rep(512))
    support.sh{ "chown", "1234", base.folder .. "/" .. users.NAME }
    must(must(fcproc.vm.launch(world.manager, spec_of(base, "b"))):kill())
    assert.are.same({}, must(core.list_dir(base.folder .. "/" .. users.NAME)))
  end)

  it("is mounted in jails on another file system, and copied nowhere", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("base"), "the base" .. ("\0"):rep(65528))
    support.sh{ "chmod", "444", dir:file("base") }
    mounts(dir, 'mkdir "$1/other"; mount -t tmpfs none "$1/other"', [[
      local vms = require "spec.support.vms"
      local fcproc = require "fcproc"
      local world <close> = support.world{ runtime_dir = dir .. "/other/run" }
      local function spec(id)
        return { id = id, jailer = { uid = "auto" },
          drives = { { path = dir .. "/base", root = true, read_only = true } } }
      end
      local function mounted()
        return select(2, support.read_file("/proc/self/mountinfo"):gsub("/drive%-root ", ""))
      end
      local list = must(fcproc.vm.launch_all(world.manager, { spec"a", spec"b" }))
      for _, vm in ipairs(list) do
        must(must(vm:console()):wait_for("fcproc guest: ready", 10))
        vms.shows(vm, "the base")
        assert(vm:record().drives[1].placed == "mount")
      end
      assert(mounted() == 2)
      must(list[1]:snapshot(dir .. "/snap", { hash = false }))
      must(list[1]:kill())
      local restored = must(fcproc.vm.restore(world.manager, dir .. "/snap", { id = "c",
        jailer = { uid = "auto" }, drives = { root = dir .. "/base" } }))
      assert(restored:record().drives[1].placed == "mount")
      must(restored:kill())
      assert(mounted() == 1)
      -- Of one whose journal is lost, too.
      local child = vms.detach(list[2])
      child:signal("KILL")
      must(child:wait(10))
      assert(os.remove(dir .. "/other/run/b/vm.json"))
      must(fcproc.vm.reclaim(world.manager))
      assert(mounted() == 0)
      vms.nothing_left(world)
      assert(core.stat(dir .. "/base").nlink == 1)
    ]])
  end)
end)
