-- What an ordinary user is told when his host lacks something, and that nothing is left of what he tried.

local rootless = require "spec.support.rootless"
local support = require "spec.support"

support.need_root()
support.need_kvm()

-- A host without administration programs.
local NO_NFT = [[sh -ec 'mount -t tmpfs none /usr/sbin; mount -t tmpfs none /sbin; exec "$@"' sh]]

-- With some devices and no other; $0 is their list.
local function with_devices(list)
  return ([[sh -ec 'mount -t tmpfs -o mode=755 none /mnt; mkdir /mnt/net
for device in $0; do : >/mnt/$device; mount --bind /dev/$device /mnt/$device; done
mount --move /mnt /dev; exec "$@"' "%s"]]):format(list)
end

local NOTHING = [[
local function nothing_left()
  for _, path in ipairs{ home .. "/run", home .. "/run/.host/leases" } do
    for _, entry in ipairs(core.list_dir(path) or {}) do
      check(entry.name:sub(1, 1) == ".", path .. " has " .. entry.name)
    end
  end
end
]]

describe("an ordinary user is told", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("that nft is missing, before anything is made", function()
    rootless.run(NOTHING .. [[
      local manager <close> = world()
      local err = fails("not_found", fcproc.vm.launch(manager, { network = { nat = true } }))
      equal("nft is not installed: apt install nftables", err.message)
      nothing_left()
      -- Ports are a relay's.
      local vm <close> = must(fcproc.vm.launch(manager,
        { network = true, publish = { "127.85.0.1:8080:80" } }))
      must(vm:kill())
      nothing_left()
    ]], rootless.NETWORK .. " " .. NO_NFT)
  end)

  it("what a container keeps from him, whose /run/user is not his", function()
    rootless.run(NOTHING .. [[
      local doctor = require "spec.support.doctor"
      local manager <close> = world{ privilege = false }
      equal(home .. "/run", manager.config.host_dir)
      local err = fails("system", fcproc.vm.launch(manager, { network = true }))
      check(err.message:find("ip_forward: Read-only file system; in a container, have", 1, true), err)
      local found = doctor.by_name(must(require("fcproc.doctor").run(manager)))
      equal("in a container, have /proc/sys mounted writable", found.rootless.fix)
      nothing_left()
    ]], [[sh -ec 'mount -t tmpfs none /run; mkdir -p /run/user/4321; chmod 755 /run/user/4321
      mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; exec "$@"' sh]])
  end)

  it("that his VMM can't have a mount namespace, with the switch", function()
    rootless.run(NOTHING .. [[
      local manager <close> = world()
      local err = fails("exit_status", fcproc.vm.launch(manager, { network = true }))
      check(err.message:find("another mount namespace (sysctl user.max_mnt_namespaces): ", 1, true), err)
      nothing_left()
    ]], rootless.forbidden("max_mnt_namespaces"))
  end)

  it("that he has too many processes", function()
    rootless.run([[
      support.write_file(home .. "/one.lua", [=[
        local fcproc, core = require "fcproc", require "fcproc.core"
        local manager = assert(fcproc.new{ privilege = "rootless", runtime_dir = ..., bridge_name = "fcbr0" })
        io.write(tostring(select(2, manager:ensure_bridge())), "\n") io.flush()
        core.process(tonumber((core.read_file("/proc/self/stat"):match("^%d+")))):signal("KILL")
      ]=])
      local out = home .. "/out"
      support.write_file(out, "")
      local one <close> = must(fcproc.spawn({ "prlimit", "--nproc=1", support.lua, home .. "/one.lua",
        home .. "/run" }, { stdout = { file = out }, stderr = { file = out } }))
      must(one:wait(10))
      check(support.read_file(out):find("unavailable; raise the limit of processes", 1, true),
        support.read_file(out))
    ]], rootless.ALONE)
  end)

  it("which device is missing, by its name", function()
    rootless.run(NOTHING .. [[
      local manager <close> = world()
      local err = fails("exit_status", fcproc.vm.launch(manager, { network = true }))
      local words = "start: the jail failed: can't put /dev/kvm into the jail: No such file or directory; "
        .. "KVM is not here: modprobe kvm_intel or kvm_amd; in a container, pass the device in ("
      equal(words, err.message:sub(1, #words))
      nothing_left()
    ]], with_devices("null zero urandom net/tun"))
    rootless.run(NOTHING .. [[
      local manager <close> = world()
      local err = fails("not_found", fcproc.vm.launch(manager, { network = true }))
      check(err.message:find("is the tun module loaded?", 1, true), err)
      local found = require("spec.support.doctor").by_name(must(require("fcproc.doctor").run(manager)))
      for _, name in ipairs{ "bridge", "uplink" } do equal("see the check tun", found[name].fix) end
      nothing_left()
    ]], with_devices("null zero urandom kvm"))
  end)

  it("that who may open /dev/kvm is in the group kvm", function()
    rootless.run(NOTHING .. [[
      local manager <close> = world()
      local err = fails("permission", fcproc.vm.launch(manager, { network = true }))
      check(err.message:find("; whoever is in the group kvm may open /dev/kvm (as root: adduser NAME kvm)", 1,
        true), err)
      nothing_left()
      -- And who does it by the primitives.
      local sock = home .. "/api.sock"
      local process <close> = must(fcproc.spawn({ firecracker, "--api-sock", sock }, { stdout = "null" }))
      must(manager:wait_for_socket(sock))
      must(fcproc.request(sock, "PUT", "/boot-source", { kernel_image_path = must(fcproc.guest_path()) }))
      err = fails("api", fcproc.request(sock, "PUT", "/actions", { action_type = "InstanceStart" }))
      must(manager:kill(process))
      must(process:wait(5))
      check(err.message:find("adduser NAME kvm", 1, true), err)
    ]], [[sh -ec 'chmod 600 /dev/kvm; exec "$@"' sh]])
  end)

  it("why his runtime folder can't be, as others are", function()
    rootless.run([[
      local function refused(code, dir, text)
        local manager <close> = world{ runtime_dir = dir }
        local err = fails(code, fcproc.vm.launch(manager, { network = true }))
        equal(text, err.message:sub(1, #text))
      end
      refused("permission", "/usr/none", "can't make the runtime folder /usr/none: Permission denied; choose "
        .. "another runtime_dir")
      local cli = { support.lua, must(core.absolute_path("lua/bin/fcproc")), "ps" }
      local err = fails("exit_status", fcproc.runner():run{ "env", "-u", "HOME", table.unpack(cli) })
      equal(2, err.status)
      check(err.stderr:find("there is no HOME, or no absolute one, to have VMs in: "
        .. "set it, or say where they are with "
        .. "--runtime-dir", 1, true), err.stderr)
      must(core.symlink("/tmp", home .. "/link"))
      refused("conflict", home .. "/link", home .. "/link is no folder of its own but a link or a file")
    ]])
  end)

  it("that pasta has too few descriptors, and not that his host lacks a route", function()
    local within = rootless.NETWORK .. " sh -ec 'ulimit %s 64; exec \"$@\"' sh "
    rootless.run(NOTHING .. [[
      local manager <close> = world()
      local err = fails("not_found", fcproc.vm.launch(manager, { network = { nat = true } }))
      check(err.message:find("it may open 64 files at most", 1, true), err)
      check(not err.message:find("default route", 1, true), err)
      local found = require("spec.support.doctor").by_name(must(require("fcproc.doctor").run(manager)))
      equal("raise the hard limit of open files (ulimit -Hn)", found.uplink.fix)
    ]], within:format("-n"))
    rootless.run([[
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { network = { nat = true } }))
    ]], within:format("-Sn"))
  end)

  it("at once that a host without a default route has no uplink for his guests", function()
    rootless.run(NOTHING .. [[
      local manager <close> = world()
      local ctx <close> = must(fcproc.context{ timeout = 4 })
      local err = fails("not_found", fcproc.vm.launch(manager, { network = { nat = true } }, ctx))
      check(err.message:find("no uplink: .*; has this host a default route%? The next VM"), err)
      nothing_left()
    ]], "unshare --net sh -ec 'ip link set lo up; exec \"$@\"' sh")
  end)

  it("that time is up while an uplink is waited for, and not that his spec is wrong", function()
    rootless.run(NOTHING .. [[
      support.write_file(home .. "/pasta", "#!/bin/sh\nexec sleep 60\n")
      support.sh{ "chmod", "755", home .. "/pasta" }
      require("fcproc.manager.rootless").find_pasta = function() return home .. "/pasta" end
      local manager <close> = world()
      local ctx <close> = must(fcproc.context{ timeout = 0.1 })
      fails("deadline", fcproc.vm.launch(manager, { network = { nat = true } }, ctx))
      nothing_left()
    ]])
  end)
end)

describe("in a PID namespace, as in a container, an ordinary user", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("removes what is left of a VM that was killed with its manager", function()
    rootless.run(NOTHING .. [[
      local holder
      do
        local manager <close> = world()
        local vm = must(fcproc.vm.launch(manager, { id = "a", network = true }))
        holder = must(fcproc.process(require("fcproc.manager.rootless").state(manager.config).holder))
        local process = must(fcproc.process(vm:pid()))
        must(vm:detach())
        must(process:signal("KILL"))
        must(process:wait(5))
      end
      must(holder:wait(5))
      local manager <close> = world()
      local report = must(fcproc.vm.reclaim(manager))
      equal("a", report.reclaimed[1])
      equal(0, #report.failed)
      nothing_left()
    ]], "unshare --pid --fork --mount-proc")
  end)
end)
