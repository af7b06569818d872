-- The end of a cgroup: whoever is in it is killed, whatever he did to get away, in every hierarchy of
-- this host; and nobody else is.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local jails = require "spec.support.jails"
local loop = require "fcproc.loop"

local must, fails = support.must, support.fails

-- A cgroup of a hierarchy, gone at the end of its block.
local function cgroup(point, name)
  local path = ("%s/fcproc-spec-%d%s"):format(point, support.own_pid(), name or "")
  support.sh{ "mkdir", path }
  return setmetatable({ path = path }, { __close = function()
    must(loop.complete(nil, core.remove_cgroup(path, 10)))
  end })
end

local function remove(path, without, timeout)
  local done, killed = loop.complete(nil, core.remove_cgroup(path, timeout or 10, without))
  return done and killed, killed
end

-- Each way to remove one: its hierarchy, and what is done without.
local function ways()
  local v1, v2 = jails.hierarchies()
  local list = {}
  if v2 then
    list["version 2"] = { v2, 0 }
    list["version 2 without cgroup.kill"] = { v2, core.without.cgroup_kill }
  end
  for _, controller in ipairs{ "freezer", "pids", "cpu" } do
    if v1[controller] then list["version 1, " .. controller] = { v1[controller], 0 } end
  end
  return list
end

-- Starts a shell in the cgroup, which says "there" into a file when its script has got that far.
local function start(group, dir, script)
  local said = dir:file("said")
  os.remove(said)
  local process = must(fcproc.spawn({ "sh", "-c", 'echo $$ >"$1/cgroup.procs"; said=$2; ' .. script,
    "sh", group.path, said }, { stdout = "null", stderr = "null" }))
  support.eventually("it is there", function() return core.stat(said) end)
  return process
end

local function members(group)
  return support.collect(support.read_file(group.path .. "/cgroup.procs") or "", "%d+")
end

local function alive(pid)
  local stat = support.read_file(("/proc/%s/stat"):format(pid))
  return stat ~= nil and not stat:find("%) [ZX]")
end

describe("removing a cgroup", function()
  before_each(support.before_each)
  after_each(support.after_each)

  for way, where in pairs(ways()) do
    local point, without = table.unpack(where)
    it("ends whoever is in it: " .. way, function()
      local dir <close> = support.folder()
      local group <close> = cgroup(point)
      local process <close> = start(group, dir, [[
setsid sh -c 'trap "" TERM HUP; sleep 1000 & wait' &
(setsid setsid sleep 1001 &)
unshare -p -f --kill-child=0 sh -c 'sleep 1002; true' &
unshare -U -r -m sh -c 'mount --rbind / /mnt && cd /mnt && pivot_root . mnt && sleep 1003; true' &
sleep 1004 & kill -STOP $!
sleep 0.2; echo >"$said"; wait; sleep 1005]])
      local bystander <close> = must(fcproc.spawn({ "sleep", "60" },
        { stdout = "null", stderr = "null" }))
      local pids = members(group)
      assert.is_true(#pids >= 7, table.concat(pids, " "))
      local killed = must(remove(group.path, without))
      assert.is_true(killed >= #pids, killed)
      for _, pid in ipairs(pids) do assert.is_false(alive(pid), pid) end
      assert.is_nil(core.stat(group.path))
      assert.is_true(bystander:alive())
      must(bystander:signal("KILL"))
      must(bystander:wait(5))
      must(process:wait(5))
    end)

    it("ends those who fork as fast as they can: " .. way, function()
      local dir <close> = support.folder()
      local group <close> = cgroup(point)
      -- Each of four starts its like and ends, for ever.
      local script = dir:file("bomb")
      support.write_file(script, "import os\nfor i in range(4):\n  if os.fork() == 0:\n    while True:\n"
        .. "      if os.fork(): os._exit(0)\nopen(os.sys.argv[1], 'w')\n")
      local process <close> = start(group, dir, ('exec python3 %s "$said"'):format(script))
      must(process:wait(5))
      support.eventually("they are there", function() return #members(group) > 0 end)
      must(remove(group.path, without))
      assert.is_nil(core.stat(group.path))
    end)

    it("that is empty, or not there, is no more than that: " .. way, function()
      local group <close> = cgroup(point)
      assert.are.equal(0, must(remove(group.path, without)))
      assert.is_nil(core.stat(group.path))
      assert.are.equal(0, must(remove(group.path, without)))
    end)

    it("says in the end who is left: " .. way, function()
      local dir <close> = support.folder()
      local group <close> = cgroup(point)
      local process <close> = start(group, dir, 'echo >"$said"; exec sleep 1000')
      local err = fails("wait_timeout", remove(group.path, without, 0))
      assert.is_truthy(err.message:find(("in the cgroup %s, as pid %d,"):format(group.path,
        process:pid()), 1, true), err.message)
      must(process:wait(5))
    end)

    it("knows who is in it: " .. way, function()
      local dir <close> = support.folder()
      local group <close> = cgroup(point)
      assert.are.same({ false, nil }, { core.cgroup_holds(group.path) })
      local process <close> = start(group, dir, 'echo >"$said"; exec sleep 1000')
      assert.is_true(must(core.cgroup_holds(group.path)))
      assert.is_true(must(core.cgroup_holds(group.path, process:pid())))
      local is_in, err = core.cgroup_holds(group.path, support.own_pid())
      assert.are.same({ false, nil }, { is_in, err })
      local other <close> = must(fcproc.spawn{ "sleep", "1000" })
      must(core.enter_cgroup(group.path, other:pid()))
      assert.is_true(must(core.cgroup_holds(group.path, other:pid())))
      must(remove(group.path, without))
      must(other:wait(5))
      fails("not_found", core.enter_cgroup(group.path, support.own_pid()))
      fails("conflict", core.enter_cgroup(dir.path, support.own_pid()))
      assert.are.same({ false, nil }, { core.cgroup_holds(group.path) })
      must(process:wait(5))
    end)
  end

  it("leaves what is no cgroup, a whole hierarchy, and the one that it is in itself", function()
    local dir <close> = support.folder()
    local v1, v2 = jails.hierarchies()
    local point = v2 or v1.pids
    local group <close> = cgroup(point)
    support.sh{ "mkdir", dir:file("folder") }
    support.sh{ "ln", "-s", group.path, dir:file("link") }
    fails("conflict", remove(dir:file("folder")))
    assert.is_truthy(core.stat(dir:file("folder")))
    assert.is_nil(remove(dir:file("link")))
    fails("conflict", core.cgroup_holds(dir:file("folder")))
    for _, end_of in ipairs{ "/", "/.", "/.." } do fails("invalid", remove(group.path .. end_of)) end
    local script = dir:file("script.lua")
    support.write_file(script, [[
local support, core = require "spec.support", require "fcproc.core"
support.write_file(arg[1] .. "/cgroup.procs", tostring(support.own_pid()))
local err = support.fails("conflict", require "fcproc.loop".complete(nil, core.remove_cgroup(arg[1], 1)))
assert(err.message:find("this very process", 1, true), err.message)
]])
    support.sh{ support.lua, script, group.path }
    assert.is_truthy(core.stat(group.path))
  end)
end)

describe("a child's cgroup", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function starts_in(path, gate)
    local process <close> = must(core.spawn{ argv = { "/bin/sleep", "60" }, stdout = "null",
      stderr = "null", gate = gate, cgroup = path })
    local is_in = core.cgroup_holds(path, process:pid())
    must(process:signal("KILL"))
    must(process:wait(5))
    return is_in
  end

  it("is the one that it was born in, before it executes anything", function()
    local v1, v2 = jails.hierarchies()
    assert.is_truthy(v2, "this needs a cgroup2 mount")
    local group <close> = cgroup(v2)
    for _, gate in ipairs{ true, false } do assert.is_true(starts_in(group.path, gate)) end
    -- Where the kernel can't, it is started all the same.
    local older <close> = cgroup(v1.pids, "-v1")
    for _, path in ipairs{ older.path, "/nonexistent/cgroup", "/tmp" } do
      assert.is_falsy(starts_in(path, true))
    end
  end)
end)
