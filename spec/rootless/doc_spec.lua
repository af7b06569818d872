-- The scripts of doc/rootless.md and the README, the examples, and the command, as an ordinary user.

local core = require "fcproc.core"
local rootless = require "spec.support.rootless"
local support = require "spec.support"

support.need_root()
support.need_kvm()

-- The first Lua block of a chapter, as a block.
local function script_of(path)
  local text = support.read_file(path):match("\n```lua\n(.-)\n```\n")
  return "do\n" .. text:gsub("fcproc%.new{", "%0 firecracker_bin = firecracker,") .. "\nend\n"
end

describe("for an ordinary user", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("the chapter's script does what it says", function()
    rootless.run(script_of("doc/rootless.md") .. [[
      check(core.stat(home .. "/.local/state/fcproc/.fcproc"), "another folder")
    ]], rootless.NETWORK)
  end)

  it("the chapter's commands do, with a user's PATH", function()
    local text = support.read_file("doc/rootless.md"):match("\n(fcproc doctor.-)```\n")
    rootless.run(([[
      support.sh{ "mkdir", home .. "/bin" }
      local command = ("#!/bin/sh\nexec %%s %%s \"$@\"\n"):format(support.lua, %q)
      must(core.write_file(home .. "/bin/fcproc", command, 493))
      local path = ("PATH=%%s/bin:%%s:/usr/local/bin:/usr/bin:/bin:/usr/games"):format(home,
        firecracker:match("^(.*)/"))
      local out = support.sh{ "env", path, "sh", "-euc", %q }
      for _, said in ipairs{ "VMs can run here\n", "\nweb\n", "\nweb +running", "127.0.0.1:8080%%->80/tcp",
        "fcproc guest: ready", "web: ended by ctrl_alt_del", "fcbr0[^\n]+\n$" } do
        check(out:find(said), said .. " in: " .. out)
      end
    ]]):format(support.must(core.absolute_path("lua/bin/fcproc")), text), rootless.NETWORK)
  end)

  it("the README's example does, and so do the others, and leave nothing", function()
    rootless.run(script_of("README.md") .. [[
      local path = ("PATH=%s:%s"):format(firecracker:match("^(.*)/"), os.getenv("PATH"))
      for name, ends in pairs{ ["hello.lua"] = "all of it; nothing is left\n$",
        ["vm.lua"] = "clone: exited by ctrl_alt_del\n$", ["fleet.lua"] = " 0 VMs are left\n$" } do
        local out = support.sh{ "env", path, support.lua, "examples/" .. name, name:match("fleet") and "3" }
        check(out:find(ends), out)
      end
      local left = core.list_dir(home .. "/.local/state")
      equal("fcproc", left[1].name) -- of the README's
      equal(1, #left)
    ]])
  end)

  it("the command runs VMs with a network, shows them, and takes all away, with a user's PATH", function()
    rootless.run(([[
      local function cli(...)
        return must(fcproc.runner():run({ "env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/games",
          support.lua, %q, "--firecracker", firecracker, ... })).stdout
      end
      equal("a\n", cli("run", "--id", "a", "--net", "--nat", "auto", "--detach"))
      check(cli("ps"):find("\na +running"), "not seen")
      check(cli("net", "show"):find("in use.*uplink0"), "no TAP, or no NAT")
      check(core.stat(home .. "/.local/state/fcproc/a/vm.json"), "another folder")
      local busy, err = pcall(cli, "net", "down")
      check(not busy and tostring(err):find("names their VMs, and `fcproc stop` ends those", 1, true), err)
      cli("stop", "a")
      check(cli("net", "down"):find("^fcbr0")) -- it may have gone with the last VM
      support.eventually("no namespace", function()
        return require("fcproc.manager.rootless").state{ runtime_dir = home .. "/.local/state/fcproc" } == nil
      end)
    ]]):format(support.must(core.absolute_path("lua/bin/fcproc"))), rootless.NETWORK)
  end)

  it("a VM whose folder was removed is told with its pid", function()
    rootless.run([[
      local manager <close> = world()
      local vm <close> = must(fcproc.vm.launch(manager, { id = "a", network = true }))
      support.sh{ "rm", "-rf", home .. "/run/a" }
      local other <close> = world()
      support.sh{ "rm", home .. "/run/.fcproc/locks/a" }
      local report = must(fcproc.vm.reclaim(other))
      local err = report.failed[1].left[1].err
      check(err.message:find("in use by pid " .. vm:pid() .. " (firecracker)", 1, true), err)
    ]])
  end)

  it("`fcproc net down` makes nothing to remove", function()
    rootless.run(([[
      local function cli(...)
        return must(fcproc.runner():run{ support.lua, %q, "--firecracker", firecracker, "--runtime-dir",
          home .. "/x", ... }).stdout
      end
      equal("fcbr0: there is none; it goes with the last VM\n", cli("net", "down"))
      check(cli("--json", "net", "down"):find('"removed":false', 1, true), "said to be removed")
      check(not core.stat(home .. "/x"), "a folder was made")
    ]]):format(support.must(core.absolute_path("lua/bin/fcproc"))))
  end)

  it("what forbids it is named with its switch", function()
    rootless.run([[
      local function refused(switch)
        local err = fails("permission", fcproc.vm.launch(world(), { network = true }))
        check(err.message:find(switch, 1, true), err)
      end
      refused("sysctl user.max_user_namespaces=")
    ]], rootless.FORBIDDEN)
  end)
end)
