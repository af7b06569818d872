-- The C programs for what Lua can't reach: failing allocators, cancels from threads and signal
-- handlers. Their output is the failure message.

local support = require "spec.support"
local fcproc = require "fcproc"

local function program(name)
  return os.getenv("FCPROC_SPEC_BUILD") .. "/" .. name
end

local function passes(argv)
  local out = support.sh(argv)
  assert.is_truthy(out:find("\nok\n$") or out == "ok\n", out)
end

describe("every bound function", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("leaves nothing when Lua's allocator fails at any point", function()
    local dir <close> = support.folder()
    passes{ program("oom-lua"), "spec/support/oom_calls.lua", dir.path, support.firecracker() }
  end)
end)

describe("the core", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("leaves nothing when malloc fails at any point", function()
    local dir <close> = support.folder()
    local sock = dir:file("api.sock")
    local server <close> = support.must(fcproc.spawn({ support.firecracker(), "--api-sock", sock },
      { stdout = "null", stderr = "null" }))
    local manager <close> = support.must(fcproc.new())
    support.must(manager:wait_for_socket(sock))
    local ok, err = pcall(passes, { program("oom-malloc"), dir.path, sock })
    server:signal("KILL")
    support.must(server:wait(10))
    assert.is_true(ok, tostring(err))
  end)

  it("is cancelled from another thread and from a signal handler", function()
    local dir <close> = support.folder()
    passes{ program("cancel-test"), dir.path }
  end)
end)
