-- A process found by its root directory: the real jailer's Firecracker, which nothing else tells.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

-- The real jailer, beside the real Firecracker.
local function jailer(dir, id)
  local firecracker = support.firecracker()
  local path = firecracker:gsub("[^/]*$", "jailer")
  return must(fcproc.spawn({ path, "--id", id, "--exec-file", firecracker, "--uid", "1000", "--gid",
    "1000", "--chroot-base-dir", dir.path, "--", "--api-sock", "/api.sock" },
    { stdout = "null", stderr = { file = dir:file(id .. ".log") } }))
end

describe("open_by_root", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("finds the jailed Firecracker of that folder, and of no other", function()
    local dir <close> = support.folder()
    local a, b = jailer(dir, "a"), jailer(dir, "b")
    local root_a, root_b = dir:file("firecracker/a/root"), dir:file("firecracker/b/root")
    for _, root in ipairs{ root_a, root_b } do
      support.eventually("its API socket is there", function() return core.stat(root .. "/api.sock") end)
    end
    do
      local found_a <close> = must(core.open_by_root(root_a))
      local found_b <close> = must(core.open_by_root(root_b))
      assert.are.equal(a:pid(), found_a:pid())
      assert.are.equal(b:pid(), found_b:pid())
      must(found_a:signal("KILL"))
    end
    must(a:wait(10))
    local err = fails("not_found", core.open_by_root(root_a))
    assert.is_truthy(err.message:find(root_a, 1, true))
    must(core.open_by_root(root_b)):close()
    must(b:signal("KILL"))
    must(b:wait(10))
    a:close()
    b:close()
  end)

  it("finds the newest of several, and only for a folder of their own", function()
    local dir <close> = support.folder()
    support.sh({ "sh", "-ec", [[cd "$1"; mkdir root; ln -s root link; touch file]], "sh", dir.path })
    fails("not_found", core.open_by_root(dir:file("root")))
    fails("not_found", core.open_by_root(dir:file("none")))
    fails("conflict", core.open_by_root(dir:file("file")))
    fails("conflict", core.open_by_root(dir:file("link")))
    fails("invalid", core.open_by_root("/"))
    -- Two that differ in age by more than the kernel's tick of 10 ms.
    local text = 'import os, sys, time; os.chroot(sys.argv[1]); os.mkdir(sys.argv[2]); time.sleep(60)'
    local processes = {}
    for i = 1, 2 do
      processes[i] = must(fcproc.spawn({ "python3", "-c", text, dir:file("root"), "/" .. i }))
      support.eventually("it is inside", function() return core.stat(dir:file("root/" .. i)) end)
    end
    local found <close> = must(core.open_by_root(dir:file("root")))
    assert.are.equal(processes[2]:pid(), found:pid())
    for _, process in ipairs(processes) do
      must(process:signal("KILL"))
      must(process:wait(10))
      process:close()
    end
  end)
end)
