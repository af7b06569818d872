-- What can't be written down is not said to be done: who lists the VMs would never know. Firecracker is
-- fake_api.lua, and the disk is full.

local support = require "spec.support"
local in_mounts = require "spec.support.mounts"

describe("on a full disk", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("a pause is not done, and a resume is, and is told", function()
    local dir <close> = support.folder()
    in_mounts(dir, 'mkdir -m 700 "$1/run" && mount -t tmpfs -o size=1m,mode=700 none "$1/run"', [[
local fcproc, snapshots = require "fcproc", require "spec.support.snapshots"
local journals = require "fcproc.resources.journal"
local manager <close> = must(fcproc.new{ runtime_dir = dir .. "/run",
  firecracker_bin = support.firecracker() })
local vm <close> = snapshots.slow_vm({ manager = manager }, 0, 0)
local function state() return must(vm.machine:state()) end
local function paused() return must(journals.read(manager, "vm")).paused end
local function fill()
  local file = assert(io.open(dir .. "/run/.ballast", "w"))
  file:setvbuf("no")
  while file:write(("x"):rep(4096)) do end
  file:close()
end
local function empty() os.remove(dir .. "/run/.ballast") end

fill()
local err = fails("system", vm:pause())
assert(err.errno == 28 and err.message:find("is not paused", 1, true), tostring(err))
assert(err.message:find("of 1.0 MiB are free in " .. dir .. "/run/vm", 1, true), tostring(err))
assert(state() == "Running" and not vm:record().paused and not paused())
local manifest, told = vm:snapshot(dir .. "/kept", { keep_paused = true })
assert(not manifest and told.errno == 28 and state() == "Running", tostring(told))
empty()
must(vm:pause())
assert(state() == "Paused" and paused())
fill()
err = fails("system", vm:resume())
assert(err.errno == 28 and err.message:find("goes on, but who lists it", 1, true), tostring(err))
assert(state() == "Running" and paused())
empty()
must(vm:resume())
assert(not paused())
]])
  end)

  it("a launch is told how much is free, of files, too", function()
    local dir <close> = support.folder()
    in_mounts(dir, [[
      mkdir -m 700 "$1/few" "$1/small"
      mount -t tmpfs -o nr_inodes=4,mode=700 none "$1/few"
      mount -t tmpfs -o size=4m,mode=700 none "$1/small"
      head -c 8388608 /dev/zero | tr '\0' x >"$1/disk"
    ]], [[
local fcproc = require "fcproc"
local function refused(runtime_dir, spec)
  local manager <close> = must(fcproc.new{ runtime_dir = runtime_dir,
    firecracker_bin = support.firecracker() })
  local err = fails("system", fcproc.vm.launch(manager, spec))
  assert(err.errno == 28, tostring(err))
  return err.message
end
for i = 1, 4 do io.open(("%s/few/%d"):format(dir, i), "w") end
local told = refused(dir .. "/few", {})
assert(told:find("free in " .. dir .. "/few, and no file can be made any more", 1, true), told)
told = refused(dir .. "/small", { drives = { { path = dir .. "/disk", copy = "sparse" } } })
assert(told:find("of 4.0 MiB are free in " .. dir .. "/small, and copies of its drives may take 8.0 MiB", 1,
  true), told)
]])
  end)
end)
