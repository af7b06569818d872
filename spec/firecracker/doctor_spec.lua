-- doctor on the real machine, and each of its checks made to fail for real: in a mount namespace, as
-- another user, with other limits, with other binaries.

local support = require "spec.support"
local helper = require "spec.support.doctor"
local fcproc = require "fcproc"
local doctor = require "fcproc.doctor"
local must, fails = support.must, support.fails

local NOBODY = 65534

-- Shell: the current folder becomes a /dev of our own, on a tmpfs, for a /tmp may refuse devices.
local OWN_DEV = 'mkdir "$DIR/dev"; mount -t tmpfs -o mode=755 none "$DIR/dev"; cd "$DIR/dev"; '
  .. "cp -a /dev/kvm /dev/null /dev/urandom .; mkdir net; cp -a /dev/net/tun net; "

local function script(path, text)
  support.write_file(path, "#!/bin/sh\n" .. text .. "\n")
  support.sh{ "chmod", "755", path }
end

-- What doctor finds with another configuration.
local function with(dir, config, opts)
  local manager <close> = must(fcproc.new(helper.config(dir, config)))
  return helper.by_name(must(doctor.run(manager, opts)))
end

describe("doctor", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("finds no failure here, boots the guest, pings it, and leaves nothing", function()
    local world <close> = support.world()
    local seen = {}
    local checks = must(doctor.run(world.manager, {
      boot = true, progress = function(check) seen[#seen + 1] = check end,
    }))
    assert.are.same(checks, seen)
    local names = {}
    for i, check in ipairs(checks) do
      names[i] = check.name
      assert.are_not.equal("fail", check.status, doctor.format(check))
      assert.is_true(check.took >= 0 and #check.message > 0)
      assert.are.equal(check.status ~= "ok", check.fix ~= nil, doctor.format(check))
    end
    assert.are.equal("kvm tun rootless bridge nft forwarding uplink firewall nat localnet taps address names "
      .. "cgroups binary jailer guest runtime disk reflink limits udev mounts systemd linger boot",
      table.concat(names, " "))
    local found = helper.by_name(checks)
    for _, name in ipairs{ "kvm", "tun", "bridge", "binary", "jailer", "guest", "runtime" } do
      helper.expect(found[name], "ok", "")
    end
    assert.is_truthy(found.boot.message:find("exit 0 %d+ ms after Ctrl%-Alt%-Del"))
    assert.are.equal(14, #found.boot.steps)
    assert.is_nil(support.read_file(world.folder:file("run"))) -- the runtime folder was not made
    assert.are.equal("", support.sh{ "ls", "-A", world.folder.path })
  end)

  it("writes a check as a line, and the fix below it", function()
    assert.are.equal("ok    kvm         it opens (1.5 ms)",
      doctor.format{ name = "kvm", status = "ok", message = "it opens", took = 0.0015 })
    assert.are.equal("FAIL  disk        full (0.0 ms)\n                  fix: make room",
      doctor.format{ name = "disk", status = "fail", message = "full", took = 0, fix = "make room" })
  end)

  it("ends with its context, and refuses options that it does not know", function()
    local world <close> = support.world()
    local ctx <close> = must(fcproc.context())
    local count = 0
    fails("cancelled", doctor.run(world.manager, { progress = function()
      count = count + 1
      if count == 2 then ctx:cancel() end
    end }, ctx))
    assert.are.equal(2, count)
    support.raises("unknown option 'boots'", doctor.run, world.manager, { boots = true })
    support.raises("manager must be a table", doctor.run, nil)
  end)

  it("cancelled at any step of a boot, leaves no VM and no folder", function()
    local temporary <close> = support.folder()
    local real = fcproc.runner()
    local runner = { run = function(_, argv, opts, ctx)
      if argv[1] == "mktemp" then argv = { "mktemp", "-d", "-p", temporary.path } end
      return real:run(argv, opts, ctx)
    end }
    for _, at in ipairs{ "bridge ensured fcdoctor0", "TAP created fcdoctap0", "Ctrl-Alt-Del sent" } do
      local ctx <close> = must(fcproc.context())
      local hits = 0
      local world <close> = support.world{ runner = runner, logger = function(_, message, fields)
        if (message .. " " .. (fields.name or "")):gsub(" $", "") == at then
          hits = hits + 1
          ctx:cancel()
        end
      end }
      fails("cancelled", doctor.run(world.manager, { boot = true }, ctx))
      assert.are.equal(1, hits)
      assert.are.equal("", support.sh{ "ls", "-A", temporary.path })
    end
  end)

  it("tells an ordinary user what is missing", function()
    local dir <close> = support.folder()
    -- A copy that this user can read, wherever the checkout is.
    support.sh{ "sh", "-ec", 'chmod 755 "$1"; mkdir "$1/build" "$1/open"; chmod 1777 "$1/open"; '
      .. 'cp -r lua "$1/"; cp -r "$2/fcproc" "$1/build/"; cp "$3" "$1/firecracker"; '
      .. 'chmod 755 "$1/firecracker"', "sh", dir.path, os.getenv("FCPROC_SPEC_BUILD"),
      support.firecracker() }
    local as_nobody = 'mount --bind . /dev; cd %s; export LUA_PATH="lua/?.lua;lua/?/init.lua;;" '
      .. 'LUA_CPATH="build/?.so;;" RUN="setpriv --reuid 65534 --regid 65534 --clear-groups"'
    as_nobody = as_nobody:format(dir.path)
    local found = helper.after(dir, 'chmod 644 "$DIR/doctor.lua"; ' .. OWN_DEV .. "chmod 600 kvm; "
      .. as_nobody,
      { firecracker_bin = dir:file("firecracker"), runtime_dir = dir:file("open/run"), privilege = "direct" },
      { boot = true })
    helper.expect(found.kvm, "fail", "can't open /dev/kvm: Permission denied")
    helper.expect(found.bridge, "fail", "uid 65534 may not make bridges")
    helper.expect(found.nft, "warn", "not permitted")
    helper.expect(found.firewall, "warn", "can't be looked at")
    helper.expect(found.binary, "ok", "version 1.")
    helper.expect(found.runtime, "ok", "can be made")
    helper.expect(found.names, "ok", "fcbr0")
    helper.expect(found.boot, "fail", "could not make a network namespace")
    -- Without a network asked for, its lack is no failure.
    local own <close> = support.folder()
    found = helper.after(own, 'chmod 755 "$DIR"; ' .. OWN_DEV .. "chmod 666 kvm; chmod 600 net/tun; "
      .. as_nobody,
      { firecracker_bin = dir:file("firecracker"), runtime_dir = dir:file("open/run") })
    helper.expect(found.kvm, "ok", "")
    helper.expect(found.tun, "warn", "VMs without a network run")
    helper.expect(found.rootless, "ok", "makes namespaces of your own")
    helper.expect(found.bridge, "warn", "VMs without a network run")
    for name, check in pairs(found) do assert.are_not.equal("fail", check.status, name) end
  end)

  it("looks at the devices as the user who is to run Firecracker", function()
    local dir <close> = support.folder()
    local own = "here=$PWD; " .. OWN_DEV .. '%s; mount --bind . /dev; cd "$here"'
    local opts = { uid = NOBODY, gid = NOBODY }
    local found = helper.after(dir, own:format("chgrp 65534 kvm; chmod 660 kvm; chmod 600 net/tun"),
      nil, opts)
    helper.expect(found.kvm, "ok", "/dev/kvm")
    helper.expect(found.tun, "fail", "uid 65534 with gid 65534 may not open /dev/net/tun")
    local other <close> = support.folder()
    found = helper.after(other, own:format("chgrp 7 kvm; chmod 660 kvm; chmod 666 net/tun"), nil, opts)
    local check = helper.expect(found.kvm, "fail", "uid 65534")
    assert.is_truthy(check.fix:find("to the group lp", 1, true))
    helper.expect(found.tun, "ok", "")
    local member <close> = support.folder() -- he logs in with the group
    found = helper.after(member, 'sed "s/^lp:.*/lp:x:7:nobody/" /etc/group >"$DIR/group"; '
      .. 'mount --bind "$DIR/group" /etc/group; ' .. own:format("chgrp 7 kvm; chmod 660 kvm"), nil, opts)
    helper.expect(found.kvm, "ok", "/dev/kvm")
  end)

  it("tells a machine without KVM and TAP devices", function()
    local dir <close> = support.folder()
    local found = helper.after(dir, "here=$PWD; " .. OWN_DEV
      .. 'rm -r kvm net; mount --bind . /dev; cd "$here"', nil, { boot = true })
    local check = helper.expect(found.kvm, "fail", "can't open /dev/kvm: No such file")
    assert.is_truthy(check.fix:find("modprobe kvm", 1, true))
    helper.expect(found.tun, "fail", "can't open /dev/net/tun: No such file")
    helper.expect(found.bridge, "fail", "tun module")
    helper.expect(found.boot, "fail", "could not make the TAP")

    local other <close> = support.folder()
    found = helper.after(other, "mount --bind /dev/null /dev/kvm; mount --bind /dev/null /dev/net/tun")
    helper.expect(found.kvm, "fail", "/dev/kvm is not KVM")
    helper.expect(found.tun, "fail", "makes no TAP devices")
  end)

  it("tells a missing, an old, a new and a foreign firecracker", function()
    local dir <close> = support.folder()
    helper.expect(with(dir, { firecracker_bin = dir.path }).binary, "fail", "not a regular file")
    helper.expect(with(dir, { firecracker_bin = "no-such" }).binary, "fail", "not found in PATH")
    local fake = dir:file("firecracker")
    for answer, want in pairs{ ["Firecracker v1.11.9"] = "fail", ["Firecracker v1.18.0"] = "warn",
      ["Firecracker v1.12.0"] = "ok", ["Firecracker v1.17.3-dev"] = "ok", ["Qemu"] = "fail" } do
      script(fake, ("echo '%s'"):format(answer))
      helper.expect(with(dir, { firecracker_bin = fake }).binary, want, "")
    end
    support.sh{ "chmod", "644", fake }
    helper.expect(with(dir, { firecracker_bin = fake }).binary, "fail", "cannot be executed")
  end)

  it("tells a missing and another jailer, and an executable that the jailer refuses", function()
    local dir <close> = support.folder()
    local fake, jailer = dir:file("firecracker"), dir:file("jailer")
    local function check() return with(dir, { firecracker_bin = fake }).jailer end
    script(fake, "echo 'Firecracker v1.16.0'")
    script(jailer, "echo 'Jailer v1.15.0'")
    helper.expect(check(), "warn", "is version 1.15.0, and firecracker is 1.16.0")
    script(jailer, "echo 'Jailer v1.16.0'")
    helper.expect(check(), "ok", "version 1.16.0")
    support.sh{ "ln", fake, dir:file("second") }
    helper.expect(check(), "warn", "has 2 hard links")
    support.sh{ "sh", "-c", 'mkdir "$1/bin" && mv "$1/firecracker" "$1/bin/" && rm "$1/second" && '
      .. 'mv "$1/jailer" "$1/bin/" && ln -s bin/firecracker "$1/"', "sh", dir.path }
    helper.expect(check(), "warn", "symbolic link")
    script(dir:file("bin/jailer"), "exit 3")
    helper.expect(check(), "warn", "did not answer like the jailer")
    support.write_file(dir:file("x.c"), '#include <stdio.h>\nint main(void){puts("Firecracker '
      .. 'v1.12.1");}\n')
    support.sh{ "gcc", "-o", dir:file("dynamic"), dir:file("x.c") }
    script(jailer, "echo 'Jailer v1.12.1'")
    helper.expect(with(dir, { firecracker_bin = dir:file("dynamic") }).jailer, "warn",
      "dynamically linked")
    local lonely <close> = support.folder()
    script(lonely:file("firecracker"), "echo 'Firecracker v1.12.1'")
    local found = helper.after(lonely, "export PATH=/usr/sbin:/usr/bin:/sbin:/bin",
      { firecracker_bin = lonely:file("firecracker") })
    helper.expect(found.jailer, "warn", "no jailer")
  end)

  it("tells what is wrong with the runtime folder", function()
    local dir <close> = support.folder()
    helper.expect(with(dir, { runtime_dir = false }).runtime, "warn", "runtime_dir is not configured")
    helper.expect(with(dir, { runtime_dir = dir:file("a/b/c") }).runtime, "ok", "can be made")
    support.sh{ "mkdir", "-m", "755", dir:file("run") }
    helper.expect(with(dir).runtime, "ok", "mode 0755 will be made 0700")
    support.sh{ "chmod", "700", dir:file("run") }
    helper.expect(with(dir).runtime, "ok", "is ours, mode 0700")
    support.sh{ "chown", "65534", dir:file("run") }
    helper.expect(with(dir).runtime, "fail", "belongs to uid 65534")
    support.write_file(dir:file("file"), "")
    helper.expect(with(dir, { runtime_dir = dir:file("file") }).runtime, "fail", "regular empty file")
    helper.expect(with(dir, { runtime_dir = dir:file("file/x") }).runtime, "fail", "can't be made")
    support.sh{ "mkdir", "-m", "777", dir:file("open") }
    helper.expect(with(dir, { runtime_dir = dir:file("open/run") }).runtime, "fail", "others may write in")
    local long = dir:file(("n"):rep(80))
    helper.expect(with(dir, { runtime_dir = long }).runtime, "ok", "from within a VM's folder")
    long = dir:file(("long-name/"):rep(400))
    helper.expect(with(dir, { runtime_dir = long }).runtime, "warn", "leaves too little")
    local read_only <close> = support.folder()
    local found = helper.after(read_only, 'mkdir "$DIR/ro"; mount -t tmpfs -o ro none "$DIR/ro"',
      { runtime_dir = read_only:file("ro/run") })
    helper.expect(found.runtime, "fail", "can't be made")
    helper.expect(found.reflink, "fail", "Read-only file system")
  end)

  it("tells a small disk, a full one, and one without room for files", function()
    local cases = {
      { "size=512m", "true", "warn", "512.0 MiB free" },
      { "size=32m", "true", "fail", "32.0 MiB free" },
      { "size=4g,nr_inodes=100", "true", "warn", "more files" },
      { "size=128m", 'head -c 128M /dev/zero > "$DIR/m/x" || true', "fail", "0.0 MiB free" },
    }
    for _, case in ipairs(cases) do
      local dir <close> = support.folder()
      local found = helper.after(dir, ('mkdir "$DIR/m"; mount -t tmpfs -o %s none "$DIR/m"; %s')
        :format(case[1], case[2]), { runtime_dir = dir:file("m/run") })
      helper.expect(found.disk, case[3], case[4])
    end
  end)

  it("tells whether copies share their blocks, on XFS and on tmpfs", function()
    local dir <close> = support.folder()
    local found = helper.after(dir, 'mkdir "$DIR/m"; truncate -s 512M "$DIR/disk"; '
      .. 'mkfs.xfs -q "$DIR/disk"; mount -o loop "$DIR/disk" "$DIR/m"',
      { runtime_dir = dir:file("m/run") })
    helper.expect(found.reflink, "ok", "can share blocks")
    local other <close> = support.folder()
    found = helper.after(other, 'mkdir "$DIR/m"; mount -t tmpfs none "$DIR/m"',
      { runtime_dir = other:file("m/run") })
    helper.expect(found.reflink, "ok", "can't share blocks")
  end)

  it("tells few descriptors, few inotify instances and many mounts", function()
    local dir <close> = support.folder()
    local double = 'mkdir "$DIR/m"; mount -t tmpfs none "$DIR/m"; for i in 1 2 3 4 5 6 7 8 9 10; do '
      .. 'mkdir "$DIR/m/$i"; mount --rbind "$DIR/m" "$DIR/m/$i"; done; '
      .. 'echo 10 > "$DIR/few"; mount --bind "$DIR/few" /proc/sys/fs/inotify/max_user_instances; '
      .. 'RUN="prlimit --nofile=256:512"'
    local found = helper.after(dir, double)
    local check = helper.expect(found.limits, "warn", "256 open files (at most 512), enough to "
      .. "have 120 VMs and to start 40 at once; 10 inotify")
    assert.is_truthy(check.fix:find("ulimit -n", 1, true)
      and check.fix:find("max_user_instances", 1, true))
    helper.expect(found.mounts, "warn", " mounts: the jailer")
  end)

  it("tells which cgroups there are", function()
    local dir <close> = support.folder()
    local found = helper.after(dir, 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup')
    assert.is_truthy(found.cgroups.message:find("--cgroup-version 2", 1, true))
    local other <close> = support.folder()
    found = helper.after(other, 'umount -R /sys/fs/cgroup')
    helper.expect(found.cgroups, "warn", "no cgroup hierarchy is mounted")
  end)

  it("tells of udev's policy for the MACs of new links", function()
    local cases = {
      { "99-default", "OriginalName=*", "persistent", "warn" },
      { "99-default", "OriginalName=*", "none", "ok" },
      { "50-a", "OriginalName=eth*", "random", "ok" },
      { "50-a", "OriginalName=!eth*", "random", "warn" },
      { "50-a", "Driver=tun bridge", "random", "warn" },
      { "50-a", "OriginalName=fcbr? x\nType=wlan", "random", "ok" },
    }
    for _, case in ipairs(cases) do
      local dir <close> = support.folder()
      support.write_file(dir:file("link"), ("# a comment\n[Match]\n%s\n\n[Link]\nNamePolicy=keep\n"
        .. "MACAddressPolicy=%s\n"):format(case[2], case[3]))
      local found = helper.after(dir, ([[mount -t tmpfs none /run
        for d in /etc /usr/lib; do if [ -d $d/systemd/network ]; then
          mount -t tmpfs none $d/systemd/network; fi; done
        mkdir -p /run/udev /run/systemd/network; : > /run/udev/control
        cp "$DIR/link" /run/systemd/network/%s.link]]):format(case[1]))
      helper.expect(found.udev, case[4], "udev")
      -- One with an earlier name, or of the same name in a stronger folder, comes before it.
      if case[4] == "warn" then
        local own = case[1]:match("^%d") and "10-fcproc"
        support.write_file(dir:file("own"), "[Match]\nOriginalName=fcbr0 fc*\n[Link]\n"
          .. "MACAddressPolicy=none\n")
        found = helper.after(dir, ([[mount -t tmpfs none /run
          mkdir -p /run/udev /run/systemd/network; : > /run/udev/control
          cp "$DIR/link" /run/systemd/network/%s.link
          cp "$DIR/own" /run/systemd/network/%s.link]]):format(case[1], own))
        helper.expect(found.udev, "ok", "")
      end
    end
  end)

  it("warns inside a systemd service, whose stop kills the VMs", function()
    local dir <close> = support.folder()
    for kill_mode, want in pairs{ ["control-group"] = "warn", mixed = "warn", process = "ok", none = "ok",
      [""] = "warn" } do
      script(dir:file("systemctl"), kill_mode == "" and "exit 1" or "echo " .. kill_mode)
      support.write_file(dir:file("cgroup"), "1:name=systemd:/system.slice/vms.service\n0::/\n")
      local found = helper.after(dir, 'export PATH="$DIR:$PATH"; mount --bind "$DIR/cgroup" '
        .. '/proc/$$/cgroup')
      helper.expect(found.systemd, want, "vms.service")
      helper.expect(found.systemd, want, kill_mode == "" and "unknown" or kill_mode)
    end
  end)
end)

describe("doctor's boot", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("tells a firecracker that ends at once, with its last words", function()
    local dir <close> = support.folder()
    local fake = dir:file("firecracker")
    script(fake, 'case $1 in --version) echo "Firecracker v1.12.1";; *) echo "no luck today"; exit 7;; '
      .. 'esac')
    local check = with(dir, { firecracker_bin = fake }, { boot = true }).boot
    helper.expect(check, "fail", "could not reach its API: firecracker ended with exit status 7")
    helper.expect(check, "fail", "no luck today")
    assert.are.equal("reach its API", check.steps[#check.steps].name)
  end)

  it("tells a guest that is none, and one that is missing", function()
    local dir <close> = support.folder()
    support.sh{ "cp", "-r", os.getenv("FCPROC_SPEC_BUILD") .. "/fcproc", dir.path }
    support.write_file(dir:file("fcproc/guest.elf"), ("no kernel\n"):rep(100))
    local use = 'export LUA_CPATH="$DIR/?.so;;"'
    local found = helper.after(dir, use, nil, { boot = true })
    helper.expect(found.boot, "fail", "could not boot the guest")
    support.sh{ "rm", dir:file("fcproc/guest.elf") }
    found = helper.after(dir, use, nil, { boot = true })
    helper.expect(found.boot, "fail", "could not find the guest")
    helper.expect(found.guest, "warn", "guest")
  end)

  it("without ping tells so, and the VM is gone", function()
    local dir <close> = support.folder()
    local found = helper.after(dir, 'mkdir "$DIR/bin"; for p in lua5.4 mktemp rm cat stat test; do '
      .. 'ln -s /usr/bin/$p "$DIR/bin/"; done; mkdir "$DIR/tmp"; '
      .. 'export PATH="$DIR/bin" TMPDIR="$DIR/tmp"',
      nil, { boot = true })
    helper.expect(found.boot, "fail", "could not ping it")
    assert.are.equal("", support.sh{ "ls", "-A", dir:file("tmp") })
    local running = support.sh{ "sh", "-c",
      "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || true" }
    assert.is_nil(running:find("--api-sock " .. dir.path, 1, true))
  end)
end)
