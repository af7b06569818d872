-- Whose a runtime folder is: root (or any user) does nothing in a folder of somebody else's, nor in one
-- that somebody else can put another in the place of; and nothing in it is followed.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local USER = 7401

local function new_manager(path)
  return must(fcproc.new{ runtime_dir = path })
end

-- What anybody may want of a folder with VMs, on which it must answer with this code.
local function refused(path, code)
  local manager <close> = new_manager(path)
  local errs = {
    fails(code, fcproc.vm.list(manager)), fails(code, fcproc.vm.reclaim(manager)),
    fails(code, fcproc.vm.adopt(manager, "vm")), fails(code, fcproc.vm.inspect(manager, "vm")),
    fails(code, fcproc.vm.remove_dead(manager, "vm")),
  }
  for _, err in ipairs(errs) do
    assert.is_truthy(err.message:find(path, 1, true), err.message)
  end
  return errs[1]
end

-- A runtime folder with a dead VM, as root has made it.
local function make_run(path)
  support.sh{ "mkdir", "-m", "700", "-p", path, path .. "/.fcproc", path .. "/.fcproc/locks",
    path .. "/.fcproc/leases", path .. "/vm" }
  support.write_file(path .. "/.fcproc/locks/vm", "")
  support.write_file(path .. "/vm/vm.json", '{"format":')
end

local function reclaims(path)
  local manager <close> = new_manager(path)
  assert.are.same({ "vm" }, must(fcproc.vm.reclaim(manager)).reclaimed)
end

-- Runs Lua as the user; returns what it printed.
local function as_user(script, ...)
  local dir <close> = support.folder()
  support.sh{ "chmod", "755", dir.path }
  support.write_file(dir:file("script.lua"), [[
    local fcproc = require "fcproc"
    local manager = assert(fcproc.new{ runtime_dir = arg[1] })
    local function show(value, err) print(value and "worked" or err.code .. ": " .. err.message) end
  ]] .. script)
  return support.sh({ support.lua, dir:file("script.lua"), ... }, { uid = USER, gid = USER })
end

describe("the runtime folder of", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("another user is not looked into, swept, or launched in, by root", function()
    local dir <close> = support.folder()
    support.sh{ "chmod", "755", dir.path }
    local home, precious = dir:file("home"), dir:file("precious")
    make_run(home .. "/run")
    support.sh{ "mkdir", precious, precious .. "/locks", precious .. "/leases" }
    support.write_file(precious .. "/locks/important", "dear")
    support.sh{ "ln", "-s", "ghost", precious .. "/leases/important" }
    support.sh{ "rm", "-r", home .. "/run/.fcproc" }
    support.sh{ "ln", "-s", precious, home .. "/run/.fcproc" }
    support.sh{ "chown", "-hR", ("%d:%d"):format(USER, USER), home }
    local err = refused(home .. "/run", "permission")
    local whose = ("belongs to uid %d, and this is uid 0"):format(USER)
    assert.is_truthy(err.message:find(whose, 1, true), err.message)
    assert.is_truthy(err.message:find(("sudo -u '#%d'"):format(USER), 1, true))
    local manager <close> = new_manager(home .. "/run")
    fails("conflict", manager:ensure_socket_dir())
    assert.are.equal("dear", support.read_file(precious .. "/locks/important"))
    assert.are.equal("ghost", core.read_link(precious .. "/leases/important"))
    assert.is_truthy(core.stat(home .. "/run/vm/vm.json"))
    -- Its user, who made the link, is not led by it either.
    assert.is_truthy(as_user("show(fcproc.vm.reclaim(manager))", home .. "/run"):find("^conflict: "))
    os.remove(home .. "/run/.fcproc")
    assert.are.equal("worked\n", as_user("show(fcproc.vm.reclaim(manager))", home .. "/run"))
    assert.is_nil(core.stat(home .. "/run/vm"))
  end)

  it("root is not looked into by another user", function()
    local dir <close> = support.folder()
    support.sh{ "chmod", "755", dir.path }
    make_run(dir:file("run"))
    local said = as_user("show(fcproc.vm.list(manager)) show(fcproc.vm.adopt(manager, 'vm'))",
      dir:file("run"))
    local _, n = said:gsub(("permission: %%S+ belongs to uid 0, and this is uid %d"):format(USER), "")
    assert.are.equal(2, n, said)
    reclaims(dir:file("run"))
  end)

  it("ours is one only where nobody else can put another in its place", function()
    for what, case in pairs{
      ["in a user's folder"] = { ("chown %d $1"):format(USER), "belongs to uid 7401" },
      ["where all may write"] = { "chmod 777 $1", "others may write in" },
      ["where a group may write"] = { "chgrp 100 $1; chmod 775 $1", "others may write in" },
      ["where all may write, above it"] = { "chmod 777 $1/..", "others may write in" },
    } do
      local dir <close> = support.folder()
      local above = dir:file("a/b")
      make_run(above .. "/run")
      support.sh{ "sh", "-ec", case[1], "sh", above }
      local fine, err = pcall(refused, above .. "/run", "conflict")
      if not fine then error(what .. ": " .. tostring(err)) end
      assert.is_truthy(err.message:find(case[2], 1, true), what .. ": " .. err.message)
      local manager <close> = new_manager(above .. "/run")
      fails("conflict", manager:ensure_socket_dir())
      local new <close> = new_manager(above .. "/new/below")
      fails("conflict", new:ensure_socket_dir())
      assert.is_nil(core.stat(above .. "/new"))
    end
    for what, script in pairs{
      ["in a sticky folder"] = "chmod 1777 $1", ["behind root's link"] = "mv $1 $1.real; ln -s b.real $1",
      ["where root's group may write"] = "chmod 775 $1", plain = "true",
      ["behind a link with dots"] = "mkdir $1/x; mv $1/run $1/x/run; rmdir $1/x 2>/dev/null || true; "
        .. "mkdir $1/run2; ln -s ../b/x $1/run2/l; mv $1/x/run $1/run",
    } do
      local dir <close> = support.folder()
      make_run(dir:file("a/b/run"))
      support.sh{ "sh", "-ec", script, "sh", dir:file("a/b") }
      local ok, err = pcall(reclaims, dir:file("a/b/run"))
      if not ok then error(what .. ": " .. tostring(err)) end
    end
  end)

  it("ours is looked for through the links of root and our own, and no others", function()
    local dir <close> = support.folder()
    make_run(dir:file("b/run"))
    for link, target in pairs{ root = "b", absolute = dir:file("b"), dots = "b/../b/.", theirs = "b" } do
      support.sh{ "ln", "-s", target, dir:file(link) }
    end
    support.sh{ "chown", "-h", ("%d"):format(USER), dir:file("theirs") }
    for _, link in ipairs{ "root", "absolute", "dots" } do must(core.check_dir(dir:file(link .. "/run"))) end
    fails("conflict", core.check_dir(dir:file("theirs/run")))
    fails("conflict", core.check_dir(dir:file("root"))) -- the last part is never followed
    support.sh{ "ln", "-s", "loop", dir:file("loop") }
    assert.are.equal(40, fails("conflict", core.check_dir(dir:file("loop/run"))).errno) -- ELOOP
    must(core.check_dir("/proc/self/root" .. dir:file("b/run")))
    fails("not_found", core.check_dir(dir:file("none/run")))
    fails("not_found", core.check_dir(dir:file("b/none")))
    fails("invalid", core.check_dir("b/run"))
    fails("invalid", core.check_dir("/" .. ("n"):rep(300) .. "/run"))
    fails("invalid", core.check_dir("/" .. ("n/"):rep(3000) .. "run"))
  end)

  it("ours holds links, or things of others: they are not followed", function()
    for _, name in ipairs{ ".fcproc", ".fcproc/locks", ".fcproc/leases" } do
      for what, script in pairs{ conflict = 'mv "$1/$2" "$1/../moved"; ln -s ../moved "$1/$2"',
        permission = ('chown %d "$1/$2"'):format(USER) } do
        local dir <close> = support.folder()
        local run = dir:file("run")
        make_run(run)
        support.write_file(run .. "/.fcproc/locks/ghost", "dear")
        support.sh{ "sh", "-ec", script, "sh", run, name }
        local manager <close> = new_manager(run)
        for _, call in ipairs{ "list", "reclaim" } do fails(what, fcproc.vm[call](manager)) end
        local _, err = fcproc.vm.launch(manager, { id = "new", firecracker_bin = nil })
        assert.are.equal(what, err.code)
        assert.are.equal("dear", support.sh{ "find", dir.path, "-name", "ghost", "-exec", "cat", "{}", ";" })
      end
    end
  end)

  it("ours holds a VM's folder that is somebody else's: it is unknown, and left", function()
    local dir <close> = support.folder()
    make_run(dir:file("run"))
    support.sh{ "chown", ("%d"):format(USER), dir:file("run/vm") }
    local manager <close> = new_manager(dir:file("run"))
    local entry = must(fcproc.vm.list(manager))[1]
    assert.are.same({ "unknown", "permission" }, { entry.state, entry.err.code })
    assert.are.equal("permission", must(fcproc.vm.reclaim(manager)).failed[1].left[1].err.code)
    assert.is_truthy(core.stat(dir:file("run/vm/vm.json")))
  end)

  it("ours holds leases and locks with names of files elsewhere: those stay", function()
    local dir <close> = support.folder()
    make_run(dir:file("run"))
    support.write_file(dir:file("canary"), "dear")
    for i, target in ipairs{ "../../../canary", dir:file("canary"), "..", ".", "" } do
      if target ~= "" then support.sh{ "ln", "-s", target, dir:file("run/.fcproc/leases/tap-x" .. i) } end
    end
    support.write_file(dir:file("run/.fcproc/locks/.hidden"), "")
    reclaims(dir:file("run"))
    assert.are.equal("dear", support.read_file(dir:file("canary")))
  end)
end)
