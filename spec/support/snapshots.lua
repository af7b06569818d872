-- Shared by the specs of snapshots and of what is restored from them.

local support = require "spec.support"
local fcproc = require "fcproc"
local core = require "fcproc.core"
local journals = require "fcproc.resources.journal"
local machines = require "fcproc.machine"
local objects = require "fcproc.vm.object"
local check = require "luassert" -- outside of specs `assert` is the plain one

local must = support.must

local M = { JAIL = { uid = 1234, gid = 2345 } }

-- Why a test does not run as an ordinary user.
M.JAILER = "the jailer is root's"
-- In none, and in what only root has.
M.JAILS = { false, not support.rootless and M.JAIL or nil }

local TIMES = 1024 -- so that a disk has whole sectors

---What fills a disk.
function M.content(word)
  return word:rep(TIMES)
end

function M.names_in(folder)
  local names = {}
  for i, entry in ipairs(must(core.list_dir(folder))) do names[i] = entry.name end
  return names
end

---A VM in the hands of this manager, whose Firecracker is fake_api.lua: it takes so many seconds to
---write a snapshot, and to go on.
function M.slow_vm(world, writes, resumes)
  local journal = must(journals.create(world.manager, "vm", {}))
  local files = { folder = journal.folder, socket = journal.folder .. "/api.sock",
    log = journal.folder .. "/firecracker.log", metrics = journal.folder .. "/metrics",
    console = journal.folder .. "/console.log" }
  local process = must(fcproc.spawn({ support.lua, "spec/support/fake_api.lua", files.socket,
    "works_slowly", tostring(writes), tostring(resumes) }, { stdout = "null",
    stderr = { file = files.console } }))
  must(world.manager:wait_for_socket(files.socket))
  local record = journal.record
  record.files, record.shape, record.taps, record.drives = files, {}, {}, {}
  record.binary, record.vcpus, record.mem_mib = support.firecracker(), 1, 128
  record.process = must(process:identity())
  must(journal:save("running"))
  local vm = objects.new(world.manager, journal)
  vm.machine = machines.attach(world.manager, process, files, record.shape)
  return vm
end

---Waits until the guest answers.
function M.pings(world, vm)
  support.eventually("a ping of " .. vm:address(), function()
    return support.pings(world.netns, vm:address())
  end)
end

---A running VM with a disk, a network and a vsock; more of its spec in opts.
function M.launch(world, opts)
  local disk = world.folder:file("disk")
  support.write_file(disk, M.content("first"))
  if not support.rootless then support.sh{ "chown", "1234", disk } end
  local spec = { id = "original", network = true, vsock = { cid = 3 }, drives = { { path = disk } } }
  for key, value in pairs(opts or {}) do spec[key] = value end
  local vm = must(fcproc.vm.launch(world.manager, spec))
  if not (spec.jailer and spec.jailer.daemonize) then
    must(must(vm:console()):wait_for("fcproc guest: ready", 10))
  end
  return vm, disk
end

---"running", "paused", ...; list, which does not ask the VM, says the same.
function M.state(vm)
  local state = must(vm:info()).state
  for _, entry in ipairs(must(fcproc.vm.list(vm.manager))) do
    if entry.id == vm.id then check.are.equal(state, entry.state) end
  end
  return state
end

---A snapshot in a folder of its own, and the world that it was taken in, without the VM.
function M.snapshot(opts)
  local world = support.bridged_world()
  local path = world.folder:file("snap")
  local vm <close> = M.launch(world, opts)
  must(vm:snapshot(path))
  return world, path
end

---No VM, no lease, no TAP.
function M.assert_nothing(world)
  check.are.same({ ".fcproc" }, M.names_in(world.folder:file("run")))
  check.are.same({}, (support.leases(world)))
  check.are.same({}, must(world.manager:list_taps()))
end

return M
