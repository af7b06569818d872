-- doctor as an ordinary user: what forbids namespaces of his own, and the state of those that he has.

local rootless = require "spec.support.rootless"
local support = require "spec.support"

support.need_root()
support.need_kvm()

-- Pieces of the scripts.
local LOOK = [[
local doctor = require "fcproc.doctor"
local helper = require "spec.support.doctor"
local namespaces = require "fcproc.manager.rootless"
local expect = helper.expect
local function look(manager, opts) return helper.by_name(must(doctor.run(manager, opts))) end
local function failures(found)
  local names = {}
  for name, check in pairs(found) do names[#names + 1] = check.status == "fail" and name or nil end
  return table.concat(names, " ")
end
]]

-- A host with systemd, of which logind alone is here, by what it leaves in files.
local LOGGED_IN = [[sh -ec 'mount -t tmpfs none /run; mkdir -p /run/systemd/system /run/user/4321
mount -t tmpfs none /var/lib; mkdir -p /var/lib/systemd/linger
chown 4321 /run/user/4321 /var/lib/systemd/linger
mount -t tmpfs none /mnt; echo "dora:x:4321:4321::/:/bin/sh" >/mnt/passwd; chmod 755 /mnt
mount --bind /mnt/passwd /etc/passwd; exec "$@"' sh]]

describe("doctor, for an ordinary user", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("finds that his namespaces serve, proves it by a VM, and leaves nothing", function()
    rootless.run(LOOK .. [[
      local manager <close> = world{ privilege = false }
      local found = look(manager, { boot = true })
      equal("", failures(found))
      expect(found.rootless, "ok", "no right is needed")
      expect(found.bridge, "ok", "in a new network namespace of your own")
      expect(found.nft, "ok", "")
      expect(found.cgroups, "ok", "in the cgroup that their spec names")
      expect(found.forwarding, "ok", "")
      expect(found.firewall, "ok", "")
      expect(found.uplink, "ok", "pasta gives guests their uplink, uplink0")
      expect(found.boot, "ok", "nothing of it is left")
      equal(nil, manager.config.netns)
      equal(nil, core.stat(home .. "/run"))
    ]], rootless.NETWORK)
  end)

  it("tells what the namespaces that he has are, and whether they have an uplink", function()
    rootless.run(LOOK .. [[
      local find = namespaces.find_pasta
      namespaces.find_pasta = function() return nil end
      local manager = world()
      must(manager:ensure_bridge())
      local holder = namespaces.state(manager.config).holder
      local found = look(manager)
      expect(found.rootless, "ok", ("process %d holds it"):format(holder))
      expect(found.uplink, "warn", "pasta is not installed")
      expect(look(manager, { uplink = "uplink0" }).uplink, "fail", "pasta is not installed")
      expect(look(manager, { uplink = "eth0" }).uplink, "fail", "can't have eth0")
      expect(look(manager, { uplink = "auto" }).uplink, "fail", "pasta is not installed")
      expect(found.names, "ok", "our bridge")
      expect(found.forwarding, "ok", "is on in the manager's network namespace")
      expect(found.firewall, "ok", "nobody's firewall")
      namespaces.find_pasta = find
      expect(look(manager).uplink, "warn", "was not installed when")
      equal(holder, namespaces.state(manager.config).holder)
      must(namespaces.down(manager))
      manager:close()
      local second <close> = world()
      must(second:ensure_bridge())
      expect(look(second).uplink, "ok", "uplink0")
    ]], rootless.NETWORK)
  end)

  it("tells of a holder that is dead while somebody is in there, and who mends it", function()
    rootless.run(LOOK .. [[
      local manager <close> = world()
      must(manager:ensure_bridge())
      local member <close> = must(fcproc.spawn({ "sleep", "60" }, { netns = manager.config.netns }))
      local holder = must(fcproc.process(namespaces.state(manager.config).holder))
      must(holder:signal("KILL"))
      must(holder:wait(5))
      local dead = expect(look(manager).rootless, "warn", "is dead: VMs run on")
      check(dead.fix:find("the next manager mends it", 1, true), dead.fix)
      local second <close> = world()
      local found = look(second)
      expect(found.rootless, "ok", "from now on, since the former holder was dead")
      expect(found.uplink, "ok", "uplink0")
      expect(look(manager).rootless, "ok", "holds it")
      member:signal("KILL")
    ]], rootless.NETWORK)
  end)

  it("tells what forbids them, which is a failure only of what was asked for", function()
    rootless.run(LOOK .. [[
      local function refused(status, found)
        local seen = expect(found.rootless, status, "can't make a user namespace")
        equal("sysctl -w user.max_user_namespaces=10000, and the line user.max_user_namespaces=10000 in "
          .. "/etc/sysctl.d/50-fcproc.conf", seen.fix)
        for _, name in ipairs{ "bridge", "nft", "uplink" } do
          equal("see the check rootless", expect(found[name], status, "").fix)
        end
      end
      local manager <close> = world()
      refused("fail", look(manager))
      local by_itself <close> = world{ privilege = false }
      local found = look(by_itself)
      refused("warn", found)
      equal("", failures(found))
      local direct <close> = world{ privilege = "direct" }
      local seen = expect(look(direct, { uplink = "lo" }).bridge, "fail", "uid 4321 may not make bridges")
      check(seen.fix:find("leave out privilege", 1, true), seen.fix)
    ]], rootless.FORBIDDEN)
  end)

  it("tells of a runtime folder on a tmpfs, and of VMs that may end with his session", function()
    rootless.run(LOOK .. [[
      do
        local manager <close> = world{ runtime_dir = "/run/user/4321/vms" }
        local found = look(manager)
        local disk = expect(found.disk, "warn", "it is a tmpfs")
        check(disk.fix:find("~/.local/state/fcproc", 1, true), disk.fix)
        equal("loginctl enable-linger dora", expect(found.linger, "warn",
          "takes away /run/user/4321/fcproc and /run/user/4321/vms, by which").fix)
      end
      local manager <close> = world()
      expect(look(manager).linger, "warn", "takes away /run/user/4321/fcproc, by which")
      support.write_file("/var/lib/systemd/linger/dora", "")
      expect(look(manager).linger, "ok", "dora lingers")
    ]], LOGGED_IN)
  end)
end)
