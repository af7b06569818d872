-- A failed start is told as the failure of what failed: the jailer, Firecracker, or a program that is none.

local jails = require "spec.support.jails"
local support = require "spec.support"
local fcproc = require "fcproc"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails

describe("a failed start", function()
  local world

  before_each(function()
    support.before_each()
    world = support.world()
  end)

  after_each(function()
    getmetatable(world).__close(world)
    support.after_each()
  end)

  local function has(err, text)
    assert.is_truthy(err.message:find(text, 1, true), err.message)
  end

  local function has_not(err, text)
    assert.is_nil(err.message:find(text, 1, true), err.message)
  end

  local function script(name, text)
    local path = world.folder:file(name)
    support.write_file(path, "#!/bin/sh\n" .. text)
    support.sh{ "chmod", "755", path }
    return path
  end

  local function manager_of(path)
    return must(fcproc.new{ firecracker_bin = path, runtime_dir = world.folder:file("run") })
  end

  for _, recorded in ipairs(versions.jailers) do
    it("of a jailer is told in its words: a fake that replays those of " .. recorded[1], function()
      local path = world.folder:file("jailer")
      for _, words in ipairs(versions.jailer_words) do
        versions.fake_jailer(path, recorded, words)
        for _, shape in ipairs{ {}, { daemonize = true } } do
          shape.binary = path
          local err = fails(words[3] or "exit_status", jails.launch(world, shape))
          has(err, "start: the jailer failed: " .. words[1])
          has_not(err, "API socket")
          has_not(err, "is it a Firecracker")
        end
      end
    end)
  end

  it("of a jailer that says nothing is told with what may be", function()
    local path = script("jailer", "exit 1\n")
    local err = fails("exit_status", jails.launch(world, { binary = path, daemonize = true }))
    has(err, "1: the jailer failed, or Firecracker did")
    has(err, "try once without daemonize")
  end)

  it("of a kernel has its reason at every level of the log", function()
    local kernel = world.folder:file("vmlinux")
    support.write_file(kernel, "\x7fELF" .. ("garbage"):rep(20))
    for _, spec in ipairs{ { log_level = "Info" }, { log_level = "Warning" }, { log_level = "Error" },
      { log_level = "Info", arguments = { "--module", "nobody" } } } do
      spec.kernel = kernel
      local err = fails("exit_status", fcproc.vm.launch(world.manager, spec))
      assert.are.equal(1, err.status, err.message)
      has(err, spec.arguments and "KernelLoader" or "failed to load ELF kernel image")
      has_not(err, "API socket could not be bound")
    end
    local err = fails("exit_status", fcproc.vm.launch(world.manager, { kernel = kernel, log_level = "Off" }))
    has(err, "KernelLoader") -- there is no log, and its stderr has the names of Rust's types
    assert.are.equal(1, err.status)
    err = fails("exit_status", jails.launch(world, {}, { kernel = kernel, log_level = "Error" }))
    has(err, "failed to load ELF kernel image")
  end)

  it("is none at any level of the log, when all is well", function()
    for _, level in ipairs{ "Off", "Error", "Warning" } do
      local vm <close> = must(fcproc.vm.launch(world.manager, { log_level = level }))
      assert.are.equal("running", must(vm:info()).state)
    end
    local vm <close> = must(jails.launch(world, {}, { log_level = "Error" }))
    assert.are.equal("running", must(vm:info()).state)
  end)

  it("asks whether it is a Firecracker only of what is none", function()
    local crash = "case $1 in --version) echo 'Firecracker v1.12.1';; *) exit 3;; esac\n"
    local real <close> = manager_of(script("firecracker", crash))
    local err = fails("exit_status", fcproc.vm.launch(real, {}))
    has(err, "3: a status that Firecracker does not document")
    has_not(err, "is it a Firecracker")
    for _, text in ipairs{ "exit 3\n", "echo Qemu; exit 3\n" } do
      local stranger <close> = manager_of(script("stranger", text))
      has(fails("exit_status", fcproc.vm.launch(stranger, {})), "is it a Firecracker?")
    end
  end)

  it("for its name is a jailer's of before 1.13 alone: fakes that tell a version", function()
    local firecracker = script("fc", "echo 'Firecracker v1.13.0'\n")
    local manager <close> = manager_of(firecracker)
    for version, refused in pairs{ ["1.12.1"] = true, ["1.13.0"] = false, ["2.0.0"] = false } do
      local jailer = script("jailer", ("[ $1 = --version ] && echo 'Jailer v%s'\nexit 1\n"):format(version))
      local err = fails(refused and "invalid" or "exit_status",
        fcproc.vm.launch(manager, jails.jail{ binary = jailer }))
      assert.are.equal(refused, err.message:find("refuses a program without 'firecracker'", 1, true) ~= nil)
    end
  end)

  it("of a jailer by who may not is permission, before anything is made", function()
    support.write_file(world.folder:file("script.lua"), [[
      local fcproc = require "fcproc"
      local manager <close> = assert(fcproc.new{ firecracker_bin = arg[1], runtime_dir = arg[2] })
      local vm, err = fcproc.vm.launch(manager, { jailer = { uid = 1234, gid = 1234 } })
      print(vm, err.code, err.message)
    ]])
    local out = support.sh{ "setpriv", "--bounding-set=-mknod,-sys_chroot", "--inh-caps=-mknod,-sys_chroot",
      support.lua, world.folder:file("script.lua"), support.firecracker(), world.folder:file("run") }
    assert.are.equal("nil\tpermission\tjailer: needs root, who has CAP_MKNOD, CAP_SYS_CHROOT\n", out)
    assert.are.equal("", support.sh{ "find", world.folder.path, "-name", "jail" })
  end)
end)
