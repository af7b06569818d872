-- Memory that runs out: Lua's allocator fails at every allocation of every bound function, malloc
-- at every one of the core's. Both are C programs, whose output is the failure message.

local support = require "spec.support"
local fcproc = require "fcproc"

local function program(name)
  return os.getenv("FCPROC_SPEC_BUILD") .. "/" .. name
end

local function passes(argv)
  local result, err = fcproc.runner():run(argv, { timeout = 300 })
  local out = result and result.stdout or (err.stdout or "") .. tostring(err)
  assert.is_truthy(result and ("\n" .. out):find("\nok\n$"), out)
end

---A real Firecracker without a VM: its API answers. Killed at the end of its block.
local function api_server(sock)
  local server = support.must(fcproc.spawn({ support.firecracker(), "--api-sock", sock },
    { stdout = "null", stderr = "null" }))
  local manager <close> = support.must(fcproc.new())
  support.must(manager:wait_for_socket(sock))
  return setmetatable({}, { __close = function()
    server:signal("KILL")
    support.must(server:wait(10))
    server:close()
  end })
end

describe("out of memory", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("in Lua, at any allocation of any bound function, leaves nothing", function()
    local dir <close> = support.folder()
    passes{ program("oom-lua"), "spec/support/oom_calls.lua", dir.path, support.firecracker() }
  end)

  it("in the core, at any call of malloc, leaves nothing and hangs nobody", function()
    local dir <close> = support.folder()
    local sock, second_sock = dir:file("api.sock"), dir:file("second.sock")
    local server <close> = api_server(sock)
    local second <close> = api_server(second_sock)
    assert.is_truthy(server and second)
    passes{ program("oom-malloc"), dir.path, sock, second_sock }
  end)
end)
