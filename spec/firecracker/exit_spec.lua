-- How the real Firecracker and jailer end, and whether exit.lua tells it.

local support = require "spec.support"
local exit = require "fcproc.machine.exit"
local fcproc = require "fcproc"
local versions = require "spec.support.versions"

local must = support.must

-- How a program ends, and its sentence.
local function ending(world, argv, context)
  local console = world.folder:file("console")
  local process <close> = must(fcproc.spawn(argv, { stdout = { file = console },
    stderr = { file = console }, cwd = world.folder.path }))
  local _, ended = must(process:wait(10))
  return ended, exit.describe(ended, context)
end

describe("the real exit", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("of Firecracker is what the table says", function()
    local world <close> = support.world()
    local firecracker, sock = support.firecracker(), world.folder:file("api.sock")
    support.write_file(world.folder:file("config.json"), "{}")
    for _, case in ipairs{
      { { "--no-such-flag" }, { status = 153 }, "bad arguments" },
      { { "--api-sock", sock, "--config-file", "config.json" }, { status = 1 }, "configuration file" },
      { { "--api-sock", "/nowhere/api.sock" }, { status = 1 }, "API socket" },
      { { "--api-sock", sock, "--id", "no spaces" }, { signal = 6 }, "panicked" },
    } do
      local ended, sentence = ending(world, { firecracker, table.unpack(case[1]) })
      assert.are.same(case[2], ended, sentence)
      assert.is_truthy(sentence:find(case[3], 1, true), sentence)
    end
  end)

  it("of a VM that reboots, and of one that is killed", function()
    local world <close> = support.world()
    local vm <close> = support.vm(world)
    must(world.manager:send_ctrl_alt_del(vm.sock))
    local _, ended = must(vm.process:wait(10))
    assert.are.equal("0", exit.describe(ended):match("^%d+"))
    for signal, name in pairs{ KILL = "SIGKILL", TERM = "SIGTERM", HUP = "156" } do
      local other <close> = support.listening_vm(world, { name = signal })
      must(world.manager:wait_for_socket(other.sock))
      must(fcproc.request(other.sock, "GET", "/")) -- its signal handlers are set by now
      must(other.process:signal(signal))
      _, ended = must(other.process:wait(10))
      assert.are.equal(name, exit.describe(ended):match("^[%w]+"), exit.describe(ended))
    end
  end)

  it("of the jailer is a panic, and 1 for its arguments only; from 1.13 on it is always 1", function()
    local world <close> = support.world()
    local jailer = support.firecracker():gsub("firecracker$", "jailer")
    local function jail(...)
      return ending(world, { jailer, "--uid", "1", "--gid", "1", "--chroot-base-dir",
        world.folder.path, ... }, { jailer = true })
    end
    for _, case in ipairs{
      { versions.jailer_end(), jail("--id", "x", "--exec-file", "/nowhere") },
      { versions.jailer_end(), jail("--id", "x_y", "--exec-file", support.firecracker()) },
      { { status = 1 }, jail("--no-such-flag") },
    } do
      assert.are.same(case[1], case[2], case[3])
      assert.is_truthy(case[3]:find("the jailer failed", 1, true), case[3])
    end
  end)
end)
