-- A VMM that was broken into: its user may rename, link and replace whatever is in its jail. What root
-- does with the VM afterwards reaches nothing outside of it.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local intrude = require "spec.support.intruder"
local jails = require "spec.support.jails"
local python = require "spec.support.python"

local must, fails = support.must, support.fails
local UID = jails.UID
local SECRET <const> = "a secret of the host\n"
local LIMIT <const> = 65536 -- bytes kept of a log
local CAPPED <const> = 1.2 -- seconds in which a capper has looked

-- An image of the host's, which guests may read, longer than a log may be.
local function image(world)
  local path = world.folder:file("image")
  support.write_file(path, ("x"):rep(1 << 20) .. SECRET)
  support.sh{ "chmod", "644", path }
  return path
end

-- All that root could spoil.
local function state(path)
  local info = must(core.stat(path))
  return { support.sh{ "sha256sum", path }, info.uid, info.gid, info.mode, info.allocated, info.mtime }
end

local function launch(world, base, more)
  local spec = { drives = { { path = base, id = "base", read_only = true } }, console_limit = LIMIT }
  for key, value in pairs(more or {}) do spec[key] = value end
  return must(jails.launch(world, nil, spec))
end

-- What he puts in the place of a file; `image` is the host's path of the image.
local REPLACEMENTS = {
  ["the image's hard link"] = "gone(name); os.rename('drive-base', name)",
  ["a symbolic link in the jail"] = "gone(name); os.symlink('drive-base', name)",
  ["a symbolic link to the image"] = "gone(name); os.symlink(image, name)",
  ["a FIFO"] = "gone(name); os.mkfifo(name)",
  ["a socket"] = "gone(name); socket.socket(socket.AF_UNIX).bind(name)",
  ["a folder"] = "gone(name); os.mkdir(name)",
  ["a file of his own"] = "gone(name); open(name, 'w').write('{}\\n' * 100000)",
  ["a second name of the file itself"] = "os.link(name, 'second')",
  ["nothing"] = "gone(name)",
}

-- Runs it beside the snapshot that is then taken, until that is done.
local LOOP = [[
print("ready.", flush=True)
while True:
    try:
        step()
    except OSError: pass
]]

describe("a jail's user while a snapshot is taken", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function writable(world)
    local path = world.folder:file("disk")
    support.write_file(path, ("first"):rep(1024))
    support.sh{ "chown", tostring(UID), path }
    return path
  end

  it("has the host's image neither given away nor taken for the memory", function()
    local world <close> = support.world()
    local base = image(world)
    local before, caught = state(base), 0
    local vm <close> = launch(world, base)
    for _, name in ipairs{ "memory", "vmstate" } do
      -- As soon as it is written to; the copy of the link is for the next time.
      local intruder <close> = intrude(vm, [[
name = "snapshot-" + args[0]
def step():
    if os.path.exists("drive-base") and os.stat(name).st_size > 0:
        os.rename(name, "was")
        os.rename("drive-base", name)
        print("did it", flush=True)
]] .. LOOP, name)
      local path = world.folder:file("snap-" .. name)
      local manifest, err = vm:snapshot(path)
      if not manifest then
        fails("conflict", nil, err)
        assert.is_truthy(err.message:find("snapshot-" .. name, 1, true), err.message)
        assert.is_truthy(intruder:output():find("did it", 1, true))
        assert.is_nil((core.stat(path)))
        caught = caught + 1
      end
      assert.are.equal("running", must(vm:info()).state)
      assert.are.same(before, state(base))
      core.link_file(base, vm:record().jail.root .. "/drive-base") -- as the jail was
    end
    assert.is_true(caught > 0, "he never came in time")
    must(vm:stop())
    assert.are.same(before, state(base))
  end)

  it("can't write any more to what is in it, though he had it open or mapped", function()
    local world <close> = support.world()
    local base = image(world)
    local vm <close> = launch(world, base)
    local function sum(path) return support.sh({ "sha256sum", "memory", "vmstate" }, { cwd = path }) end
    for how, open in pairs{
      writer = "held.append(os.open(name, os.O_RDWR))",
      mapping = "f = os.open(name, os.O_RDWR); held.append(mmap.mmap(f, 4096)); os.close(f)",
      nothing = "print(os.stat(name).st_ino, flush=True); held.append(0)",
    } do
      local go = world.folder:file("go")
      os.remove(go)
      local intruder <close> = intrude(vm, ([[
held = []
name = "snapshot-memory"
def step():
    if not held and os.stat(name).st_size > 4096:
        %s
    if held and os.path.exists("go"):
        for h in held:
            if isinstance(h, int) and h > 0: os.pwrite(h, b"spoilt", 0)
            elif h: h[0:6] = b"spoilt"
        print("did it", flush=True)
        os.unlink("go")
]]):format(open) .. LOOP)
      local path = world.folder:file("snap-" .. how)
      must(vm:snapshot(path))
      local before, info = sum(path), must(core.stat(path .. "/memory"))
      assert.are.same({ 0, jails.GID, 288, 1 }, { info.uid, info.gid, info.mode, info.nlink }, how)
      must(core.create_file(vm:record().jail.root .. "/go", "", 511, UID))
      support.eventually(how .. " is used", function()
        return intruder:output():find("did it", 1, true)
      end)
      assert.are.equal(before, sum(path), how)
      -- What nobody holds is no copy: the very file.
      local seen = intruder:output():match("^ready%.\n(%d+)\n")
      assert.are.equal(how == "nothing" and info.ino or nil, math.tointeger(tonumber(seen)), how)
    end
    do -- with a second name it is not believed to be what it was
      local intruder <close> = intrude(vm, [[
def step(): os.link("snapshot-memory", "second")
]] .. LOOP)
      local err = fails("conflict", vm:snapshot(world.folder:file("snap-names")))
      assert.is_truthy(err.message:find("2 names", 1, true), err.message)
      assert.is_true(intruder.process:alive())
    end
    -- And they are whole.
    must(vm:stop())
    local clone <close> = must(fcproc.vm.restore(world.manager, world.folder:file("snap-mapping"),
      { jailer = { uid = UID, gid = jails.GID }, drives = { base = base } }))
    assert.are.equal("running", must(clone:info()).state)
  end)

  it("has in its drives what they hold, and not what he gave their names to", function()
    local world <close> = support.world()
    local base, disk = image(world), writable(world)
    local before = state(base)
    local vm <close> = launch(world, base, { drives = { { path = base, id = "base", read_only = true },
      { path = disk, id = "disk" }, { path = disk, id = "own", copy = "sparse" } } })
    do
      local intruder <close> = intrude(vm, [[
os.rename("drive-disk", "moved")
os.symlink(args[0], "drive-disk")
]], base)
      assert.is_true(intruder.process:alive())
    end
    must(vm:snapshot(world.folder:file("one")))
    for _, name in ipairs{ "disk", "own" } do
      assert.are.equal(support.read_file(disk), support.read_file(world.folder:file("one/drive-" .. name)))
    end
    -- Its path may be gone: then it is the file in the jail, or none.
    os.remove(disk)
    local err = fails("conflict", vm:snapshot(world.folder:file("two")))
    assert.is_truthy(err.message:find("drives[2]", 1, true), err.message)
    do
      local intruder <close> = intrude(vm, "gone('drive-disk'); os.rename('moved', 'drive-disk')")
      assert.is_true(intruder.process:alive())
    end
    must(vm:snapshot(world.folder:file("three")))
    do
      local intruder <close> = intrude(vm, "gone('drive-own'); os.rename('drive-base', 'drive-own')")
      assert.is_true(intruder.process:alive())
    end
    err = fails("conflict", vm:snapshot(world.folder:file("four")))
    assert.is_truthy(err.message:find("drives[3]", 1, true), err.message)
    -- An older fcproc noted none, but a lease that has the numbers in its name.
    local drives, now = vm:record().drives, must(core.stat(vm:record().files.folder .. "/drive-disk"))
    drives[2].made, drives[3].made = nil, nil
    drives[2].lease = ("drive-%d-%d"):format(now.dev, now.ino)
    err = fails("conflict", vm:snapshot(world.folder:file("four")))
    assert.is_truthy(err.message:find("drives[3]", 1, true), err.message)
    assert.are.equal("running", must(vm:info()).state)
    must(vm:stop())
    assert.are.same(before, state(base))
  end)
end)

describe("a jail's user outside of his jail", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- What he would do to a folder on the way to his jail, or put beside it.
  local ATTEMPTS = [[
import os, signal, sys
mine = sys.argv[1]
os.chdir(mine)
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))
open("file", "w").close()
os.mkdir("folder")
os.symlink("/", "link")
attempts = [lambda p: os.rename(p, "stolen"), lambda p: os.rename("folder", p),
    lambda p: os.rename("link", p), lambda p: os.rename(p, p + ".moved"), lambda p: os.rmdir(p),
    lambda p: os.unlink(p), lambda p: os.symlink("/", p + ".link"), lambda p: os.mkdir(p + ".dir"),
    lambda p: os.mkdir(p + "/new"), lambda p: os.mkfifo(p + "/new"), lambda p: os.link("file", p + "/new"),
    lambda p: open(p + "/new", "w"), lambda p: os.chmod(p, 0o777), lambda p: os.chown(p, os.getuid(), -1),
    lambda p: os.listdir(p), lambda p: os.setxattr(p, "user.mine", b"1")]
for path in sys.argv[4:]:
    for i, attempt in enumerate(attempts):
        try: attempt(path)
        except PermissionError: continue
        print("attempt", i, "worked on", path, flush=True)
print(len(attempts), "attempts,", len(sys.argv[4:]), "folders", flush=True)
]]

  it("moves no part of the way to it: sixteen attempts on each of seven folders", function()
    local world <close> = support.world()
    support.sh{ "chmod", "755", world.folder.path }
    support.sh{ "install", "-d", "-o", tostring(UID), world.folder:file("mine") }
    local vm <close> = launch(world, image(world))
    local folders, root = {}, vm:record().jail.root
    for _, part in ipairs{ "/run/.fcproc", "/run" } do folders[#folders + 1] = world.folder:file(part) end
    local path = world.folder:file("run")
    for name in root:sub(#path + 2):gmatch("[^/]+") do
      path = path .. "/" .. name
      folders[#folders + 1] = path
    end
    assert.are.equal(root, folders[#folders])
    local user <close> = python(ATTEMPTS, nil, world.folder:file("mine"), tostring(UID),
      tostring(jails.GID), table.unpack(folders))
    user:ready()
    assert.are.equal("16 attempts, 7 folders\nready.\n", user:output())
    assert.are.equal("running", must(vm:info()).state)
    must(vm:stop())
  end)
end)

describe("a jail's user who replaces his VM's files", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has nothing done to what he put there by any verb, and nobody waits for it", function()
    local world <close> = support.world()
    local base = image(world)
    local before = state(base)
    local function unharmed() assert.are.same(before, state(base)) end
    local all <close> = setmetatable({}, { __close = function(all)
      for _, entry in ipairs(all) do entry.vm:kill() end
    end })
    for what, how in pairs(REPLACEMENTS) do
      for _, name in ipairs{ "metrics", "firecracker.log" } do
        local vm = launch(world, base, { id = "vm-" .. #all + 1,
          jailer = { uid = UID + #all, gid = jails.GID } })
        all[#all + 1] = { vm = vm, what = what, name = name }
        must(vm:metrics())
        local intruder <close> = intrude(vm, ("name, image = args\n%s"):format(how), name, base)
        assert.is_true(intruder.process:alive())
        must(vm:info())
        if name == "metrics" then
          local err = fails(what == "nothing" and "not_found" or "conflict", vm:metrics())
          assert.is_truthy(err.message:find(vm:record().files.metrics, 1, true), err.message)
        else
          must(vm:metrics())
        end
      end
    end
    core.poll_many({}, {}, CAPPED)
    unharmed()
    for _, entry in ipairs(all) do
      must(entry.vm:detach())
      entry.vm = must(fcproc.vm.adopt(world.manager, entry.vm.id))
      must(fcproc.vm.inspect(world.manager, entry.vm.id))
      assert.are.equal("running", must(entry.vm:info()).state)
      if entry.name == "metrics" then assert.is_nil((entry.vm:metrics())) end
    end
    core.poll_many({}, {}, CAPPED)
    unharmed()
    for _, entry in ipairs(all) do
      -- Of one that has ended, how is told from its log: what the image says is not.
      must(entry.vm.machine.process:signal("KILL"))
      must(entry.vm:wait(10))
      local err = fails("exit_status", entry.vm:pause())
      assert.is_nil((err.output or ""):find(SECRET, 1, true), err.output)
      must(entry.vm:stop())
    end
    unharmed()
    assert.are.equal(1, must(core.stat(base)).nlink)
  end)

  it("is not believed either when the journal is of a fcproc that did not note them", function()
    local world <close> = support.world()
    local base = image(world)
    local before = state(base)
    local vm = launch(world, base)
    vm:record().jail.made = nil
    must(vm.journal:save("running"))
    must(vm:detach())
    local again <close> = must(fcproc.vm.adopt(world.manager, vm.id))
    must(again:metrics())
    do -- until its end, since without a journal its cgroup is not known
      local intruder <close> = intrude(again, "gone('metrics'); os.rename('drive-base', 'metrics')")
      assert.is_true(intruder.process:alive())
      fails("conflict", again:metrics())
    end
    must(again:detach())
    assert.are.same(before, state(base))
    os.remove(again.journal.folder .. "/vm.json") -- nor when there is no journal
    local rebuilt <close> = must(fcproc.vm.adopt(world.manager, vm.id))
    assert.are.equal(UID, rebuilt:record().jail.uid)
    fails("conflict", rebuilt:metrics())
    must(rebuilt:stop())
    assert.are.same(before, state(base))
  end)
end)
