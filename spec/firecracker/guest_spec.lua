-- The built-in guest: each word on its command line that makes it misbehave, its disk, its sleep.

local support = require "spec.support"
local versions = require "spec.support.versions"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

-- What the guest has said.
local function console(vm)
  return ((support.read_file(vm.console) or ""):gsub("\r", ""))
end

local function says(vm, text)
  return console(vm):find(text, 1, true) ~= nil
end

-- A VM whose guest is ready, with these words on its command line.
local function start(world, boot_args, opts)
  local all = { boot_args = boot_args }
  for key, value in pairs(opts or {}) do all[key] = value end
  return support.vm(world, all)
end

local function sleep(seconds) support.sh{ "sleep", tostring(seconds) } end

-- The ticks of CPU time that the process has had: fields 14 and 15 of its stat.
local function ticks(process)
  local stat = support.read_file(("/proc/%d/stat"):format(process:pid())):match("%) (.*)")
  local fields = {}
  for field in stat:gmatch("%S+") do fields[#fields + 1] = tonumber(field) or 0 end
  return fields[12] + fields[13]
end

local function assert_ends_well(vm, fault)
  local gone, exit = vm.process:wait(10)
  assert.is_true(gone)
  if fault then return assert.is_true(versions.is_end_of_triple_fault(exit)) end
  assert.are.same({ status = 0 }, exit)
end

describe("the built-in guest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("shows its command line and its devices, answers pings, and resets on Ctrl-Alt-Del", function()
    local world <close> = support.world()
    local vm <close> = start(world, "ip=172.30.0.9 some words", { tap = "tap0" })
    assert.is_true(says(vm, "fcproc guest: hello\n"))
    assert.is_true(says(vm, "fcproc guest: command line: ip=172.30.0.9 some words"))
    assert.is_true(says(vm, "net MAC 06:00:ac:1e:00:02 ip 172.30.0.9\n"))
    assert.is_true(support.pings(world.netns, "172.30.0.9"))
    assert.is_false(support.pings(world.netns, "172.30.0.8"))
    must(world.manager:send_ctrl_alt_del(vm.sock))
    assert_ends_well(vm)
    assert.is_true(says(vm, "ctrl-alt-del, resetting\n"))
  end)

  it("ignores Ctrl-Alt-Del when told, each time, and lives on", function()
    local world <close> = support.world()
    local vm <close> = start(world, "fcproc.ignore_cad ip=172.30.0.2", { tap = "tap0" })
    for times = 1, 2 do
      must(world.manager:send_ctrl_alt_del(vm.sock))
      support.eventually("it has ignored it", function()
        return select(2, console(vm):gsub("ctrl%-alt%-del, ignored\n", "")) == times
      end)
    end
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
    assert.is_true(vm.process:alive())
  end)

  it("is deaf for a while when told: what is sent meanwhile is lost", function()
    local world <close> = support.world()
    local vm <close> = start(world, "fcproc.deaf=3000")
    must(world.manager:send_ctrl_alt_del(vm.sock))
    assert.is_false(says(vm, "listening"))
    support.wait_for_console(vm, "listening\r\n")
    fails("wait_timeout", vm.process:wait(0.2))
    must(world.manager:send_ctrl_alt_del(vm.sock))
    assert_ends_well(vm)
    local short <close> = start(world, "fcproc.deaf=500", { name = "short" })
    support.wait_for_console(short, "listening\r\n")
    must(world.manager:send_ctrl_alt_del(short.sock))
    assert_ends_well(short)
  end)

  it("prints for ever when told, and still hears Ctrl-Alt-Del", function()
    local world <close> = support.world()
    local vm <close> = start(world, "fcproc.print")
    support.wait_for_console(vm, "line 50\r\n")
    assert.is_true(says(vm, "line 49\n"))
    local size = #console(vm)
    support.eventually("it prints on", function() return #console(vm) > size end)
    must(world.manager:send_ctrl_alt_del(vm.sock))
    assert_ends_well(vm)
  end)

  it("halts when told: it is there, but deaf for good and idle", function()
    local world <close> = support.world()
    local vm <close> = start(world, "fcproc.halt ip=172.30.0.2", { tap = "tap0" })
    must(world.manager:send_ctrl_alt_del(vm.sock))
    assert.is_false(support.pings(world.netns, "172.30.0.2"))
    local gone, err = world.manager:wait_for_exit(vm.process, vm.sock, 0.3)
    assert.is_nil(gone)
    assert.is_true(err == fcproc.ERR_WAIT_TIMEOUT)
    must(world.manager:kill(vm.process, vm.sock))
    assert.are.same({ true, { signal = 9 } }, { vm.process:wait(10) })
  end)

  for _, switch in ipairs{ "reset", "triple_fault" } do
    it(("ends its VM by a %s when told"):format(switch), function()
      local world <close> = support.world()
      local vm <close> = support.vm(world, { wait = false, boot_args = "fcproc." .. switch })
      assert_ends_well(vm, switch == "triple_fault")
      assert.is_true(says(vm, "fcproc guest: ready\n"))
    end)
  end

  it("shows the first sector of its disk", function()
    local world <close> = support.world()
    for name, case in pairs{
      words = { "hello disk\0" .. ("x"):rep(1013), '2 sectors, starts "hello disk"\n' },
      long = { ("y"):rep(2048), '4 sectors, starts "yyyy' },
      empty = { ("\0"):rep(512), '1 sectors, starts ""\n' },
    } do
      local disk = world.folder:file(name .. ".disk")
      support.write_file(disk, case[1])
      local vm <close> = start(world, "", { name = name, drives = { { drive_id = "d0",
        path_on_host = disk, is_root_device = false, is_read_only = true } } })
      assert.is_true(says(vm, "block 0: " .. case[2]), console(vm))
    end
  end)

  it("costs next to no CPU when idle", function()
    local world <close> = support.world()
    local vm <close> = start(world, "ip=172.30.0.2", { tap = "tap0" })
    local per_second = tonumber((support.sh{ "getconf", "CLK_TCK" }))
    local before = ticks(vm.process)
    sleep(1)
    assert.is_true(ticks(vm.process) - before < 0.2 * per_second)
  end)
end)
