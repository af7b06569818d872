-- The demo, as `make demo` runs it: the script that a newcomer learns from.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local RUNTIME_DIR = "/run/fcproc-hello"

local function run_demo(path)
  return fcproc.runner():run({ support.lua, "examples/hello.lua" }, { env = {
    PATH = path, LUA_PATH = os.getenv("LUA_PATH"), LUA_CPATH = os.getenv("LUA_CPATH"),
    ASAN_OPTIONS = os.getenv("ASAN_OPTIONS"), LSAN_OPTIONS = os.getenv("LSAN_OPTIONS"),
  }, timeout = 60 })
end

local function assert_nothing_left()
  assert.is_nil(fcproc.runner():run{ "test", "-e", RUNTIME_DIR })
end

describe("the demo", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("shows each step with its time, ends well and leaves nothing", function()
    local folder = support.firecracker():match("^(.*)/")
    local result = must(run_demo(os.getenv("PATH") .. ":" .. folder))
    local at = 1
    for _, step in ipairs{ "find the firecracker binary", "ensure the bridge fcbr0",
      "ensure the socket folder", "create the TAP", "start firecracker", "wait until its API answers",
      "configure it", "boot it", "ping the guest", "find its pid", "send Ctrl%-Alt%-Del",
      "wait for its exit", "delete the TAP", "delete the bridge", "all of it; nothing is left\n$" } do
      local _, ends = result.stdout:find("%f[^\n\0] *%d+%.%d ms  " .. step, at)
      assert.is_truthy(ends, ("'%s' in its place in:\n%s"):format(step, result.stdout))
      at = ends
    end
    for _, text in ipairs{ "bytes from 172%.30%.0%.2", "| fcproc guest: hello", "pid %d+\n",
      "exit status 0\n" } do
      assert.is_truthy(result.stdout:find(text), ("'%s' in:\n%s"):format(text, result.stdout))
    end
    assert.are.equal("", result.stderr)
    assert_nothing_left()
  end)

  it("that can't find Firecracker says what to do, and leaves nothing", function()
    local err = fails("exit_status", run_demo("/nowhere"))
    assert.are.equal(1, err.status)
    assert.is_truthy(err.stderr:find("^hello: .*\"firecracker\" not found in PATH; install"), err.stderr)
    assert_nothing_left()
  end)
end)
