-- A manager in a process of its own, for specs in which it ends before its VM does; run inside the
-- namespace: manager.lua RUNTIME_DIR ID detach|stay. Launches the VM and waits until it is ready;
-- then it lets it go and ends, or makes the file RUNTIME_DIR.held and stays until it is killed.

local fcproc = require "fcproc"
local linux = require "spec.support.linux"

local folder, id, what = table.unpack(arg)
local manager = assert(fcproc.new{ bridge_name = "fcbr0", bridge_ip = "172.30.0.1", cidr = 24,
  runtime_dir = folder, firecracker_bin = os.getenv("FCPROC_SPEC_FIRECRACKER") })
local vm
if what == "detach" then
  vm = linux.launch({ manager = manager }, { id = id, args = "fcproc.do=count", network = true })
  assert(vm:detach())
else
  vm = assert(fcproc.vm.adopt(manager, id))
  assert(io.open(folder .. ".held", "w")):close()
  vm:wait()
end
