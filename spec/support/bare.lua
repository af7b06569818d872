-- A real Firecracker with nothing configured, for specs of its API: `local vm <close> = bare(world)`.

local support = require "spec.support"
local calls = require "fcproc.machine.calls"
local endpoints = require "fcproc.machine.endpoints"
local fcproc = require "fcproc"

local must = support.must

-- vm.raw(method, path, body) goes to it unchecked; the typed calls are checked with the version and
-- the state that it tells itself. Closing kills it.
return function(world, name)
  name = name or "vm"
  local dir = world.folder:file(name)
  support.sh{ "mkdir", "-p", dir }
  local vm = { dir = dir, sock = dir .. "/api.sock", console = dir .. "/console.log" }
  for call, method in pairs(calls.methods) do vm[call] = method end
  setmetatable(vm, { __close = function(self)
    if self.client then self.client:close() end
    self.process:signal("KILL")
    self.process:wait(10)
    self.process:close()
  end })
  vm.process = must(fcproc.spawn({ support.firecracker(), "--api-sock", vm.sock, "--level", "Off" },
    { stdout = { file = vm.console }, stderr = { file = vm.console }, netns = world.netns,
      session = true }))
  must(world.manager:wait_for_socket(vm.sock))
  vm.client = must(fcproc.client(vm.sock))
  function vm.raw(method, path, body) return vm.client:request(method, path, body) end
  vm.version = must(vm.raw("GET", "/version")).firecracker_version
  function vm:call(method, path, body, ctx)
    local ok, err = endpoints.check(self.version, must(self.raw("GET", "/")).state, method, path, body)
    if not ok then return nil, err end
    return self.client:request(method, path, endpoints.encode(method, path, body), ctx)
  end
  return vm
end
