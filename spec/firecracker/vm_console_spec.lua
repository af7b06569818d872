-- What a guest has written: its tail, waiting for a text, and the size that the files are held to.

local support = require "spec.support"
local vms = require "spec.support.vms"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

-- Appends as Firecracker does, which prints too slowly for a test of sizes.
local function append(path, text)
  local file <close> = assert(io.open(path, "ab"))
  assert(file:write(text))
end

local function kilobytes(path)
  return tonumber(support.sh{ "du", "-k", path }:match("%d+"))
end

local function is_held(path)
  support.eventually(path .. " is held", function() return kilobytes(path) <= 64 end)
end

describe("a VM's console", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  it("tells its last lines, and all of it from a position on", function()
    local vm <close> = vms.ready(world, {})
    local console = must(vm:console())
    assert.are.equal("fcproc guest: ready", console:tail(1))
    assert.are.equal(2, #support.collect(console:tail(2), "[^\n]+"))
    local text = must(console:read())
    assert.are.equal(text:sub(11), must(console:read(10)))
    assert.are.equal("fcproc guest: hello", text:match("^[^\r\n]+"))
    assert.are.equal("", must(console:read(#text)))
  end)

  it("is waited for: found at once, later, and across two writes", function()
    local vm <close> = vms.ready(world, { boot_args = "fcproc.deaf=50" })
    local console = must(vm:console())
    must(console:wait_for("hello", 0)) -- there already: looked at once
    must(console:wait_for("fcproc guest: listening\r\n", 10))
    local results = fcproc.run{
      function() return console:wait_for("one half, two halves", 10) end,
      function(ctx)
        append(console.path, "one half, ")
        fcproc.runner():run({ "sleep", "0.05" }, nil, ctx)
        append(console.path, "two halves")
        return true
      end,
    }
    assert.is_true(must(results[1][1], results[1][2]))
  end)

  it("that lacks the text says so with its end, and can be waited for again", function()
    local vm <close> = vms.ready(world, { id = "mute" })
    local console = must(vm:console())
    local err = fails("wait_timeout", console:wait_for("never", 0.05))
    assert.is_truthy(err.message:find("'never' did not appear on the console of 'mute' in 0.05 s; "
      .. "its end: fcproc guest: ", 1, true), err.message)
    assert.is_truthy(err.message:find("fcproc guest: ready", 1, true))
    local ctx <close> = must(fcproc.context{ timeout = 0.05 })
    fails("deadline", console:wait_for("never", 60, ctx))
    must(console:wait_for("ready", 5))
  end)

  it("takes the text as it is, no pattern, of any length", function()
    local vm <close> = vms.ready(world, {})
    local console = must(vm:console())
    fails("wait_timeout", console:wait_for("fcproc.guest", 0))
    must(console:wait_for("", 0))
    local long = ("x"):rep(65530) .. "needle" .. ("y"):rep(100000)
    append(console.path, long)
    must(console:wait_for("needle", 5))
    must(console:wait_for(long, 5))
    fails("wait_timeout", console:wait_for(long .. "z", 0.01))
  end)

  it("of a VM that ends meanwhile tells how it ended", function()
    local vm <close> = vms.ready(world, { id = "dying", boot_args = "fcproc.deaf=50" })
    local console = must(vm:console())
    local results = fcproc.run{
      function() return console:wait_for("never", 60) end,
      function() return vm.machine.process:signal("KILL") end,
    }
    local err = fails("exit_status", results[1][1], results[1][2])
    assert.are.equal(9, err.signal)
    assert.is_truthy(err.message:find("SIGKILL", 1, true), err.message)
    assert.is_truthy(err.output:find("fcproc guest: ready", 1, true), "with the console's end")
    must(console:wait_for("ready", 5)) -- what a dead one wrote is still found
    assert.are.equal("dead", must(vm:info()).state)
  end)

  it("of one that was stopped or detached is closed", function()
    local vm <close> = vms.ready(world, { id = "gone" })
    local console = must(vm:console())
    must(vm:stop())
    fails("closed", console:wait_for("ready", 1))
    fails("closed", vm:console())
    assert.are.equal("", console:tail())
    fails("not_found", console:read())
  end)

  it("is held to its size, and the guest writes on", function()
    local vm <close> = vms.ready(world, { console_limit = 65536, boot_args = "fcproc.deaf=300" })
    local console = must(vm:console())
    local filler = ("a line of filler that is 64 bytes long, with its end at the end.\n"):rep(16384)
    append(console.path, filler)
    local size = must(core.stat(console.path)).size
    assert.is_true(size > 1024 * 1024)
    is_held(console.path) -- while nobody asks anything
    assert.is_true(size <= must(core.stat(console.path)).size)
    must(console:wait_for("fcproc guest: listening", 10))
    assert.is_truthy(console:tail(2):find("filler", 1, true))
    assert.is_nil(console:tail(100):find("%z"))
    must(vm:detach()) -- and from then on nobody holds it
    append(console.path, filler)
    local adopted <close> = must(fcproc.vm.adopt(world.manager, vm.id))
    assert.is_true(kilobytes(console.path) <= 64)
    assert.are.equal(2, #support.collect(must(adopted:console()):tail(2), "filler"))
  end)

  it("keeps its log to that size, too", function()
    local vm <close> = vms.ready(world, { console_limit = 65536, log_level = "Debug" })
    local log = must(vm:info()).files.log
    append(log, ("x"):rep(200000) .. "\n")
    is_held(log)
  end)
end)
