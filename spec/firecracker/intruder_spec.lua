-- A VMM that was broken into: its user may rename, link and replace whatever is in its jail. What root
-- does with the VM afterwards reaches nothing outside of it.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local intrude = require "spec.support.intruder"
local jails = require "spec.support.jails"

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
