-- A folder becomes an image in the store, and `fcproc run --image` boots it with Debian's stock kernel: two
-- VMs share it, and each writes to a disk of its own over it.

local cli = require "spec.support.cli"
local core = require "fcproc.core"
local entries = require "fcproc.image.entry"
local fcproc = require "fcproc"
local linux = require "spec.support.linux"
local stores = require "fcproc.image.store"
local support = require "spec.support"

local must = support.must

-- What the image starts: it tells what it finds, writes, and stays.
local TELLS = [[
#!/bin/busybox sh
b=/bin/busybox
echo "found: $($b cat /etc/mark)"
read -r all </proc/cmdline
$b echo "${all##*mark=}" >/etc/mark
$b rm /etc/gone
$b sync
echo "wrote: $($b cat /etc/mark)"
$b sed -n "s/^\([^ ]*\) \/ \([^ ]*\) .*/root: \2/p" /proc/mounts
echo "size: $($b df -m / | $b awk 'NR == 2 { print ($2 > 50 && $2 < 65) }')"
echo "all told"
while :; do $b sleep 1000; done
]]

-- A folder that is to be the root.
local function made(dir)
  support.sh({ "sh", "-euc", [[
    mkdir -p root/bin root/sbin root/etc
    cp /bin/busybox root/bin
    echo base >root/etc/mark
    : >root/etc/gone
    cat >root/sbin/init
    chmod 755 root/sbin/init
  ]] }, { cwd = dir.path, input = TELLS })
end

describe("an image of the store", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is the root of two VMs that write different things, and stays what it was", function()
    local world <close> = cli.world()
    local folder, path = world.folder, world.folder:file("store")
    made(folder)
    cli.ok(world, "image", "--store", path, "build", "dir:" .. folder:file("root"), "--name", "guest")
    local kernel = linux.folder() .. "/kernel"
    local version = must(core.list_dir(kernel .. "/lib/modules"))[1].name
    cli.ok(world, "image", "--store", path, "kernel", "--default", kernel .. "/vmlinux", "--modules",
      kernel .. "/lib/modules/" .. version)
    local function run(id)
      cli.ok(world, "run", "--store", path, "--image", "guest", "--overlay", "64MiB", "--id", id, "--detach",
        "--boot-args", linux.spec{ args = "mark=" .. id }.boot_args, "--spec", folder:file("patient.json"))
    end
    support.write_file(folder:file("patient.json"), ('{ "timeout": %d }'):format(linux.TIMEOUT))
    local function says(id)
      local vm <close> = must(fcproc.vm.adopt(world.manager, id))
      linux.wait_for(vm, "all told")
      local console = must(must(vm:console()):read()):gsub("\r", "")
      for _, line in ipairs{ "found: base", "wrote: " .. id, "root: overlay", "size: 1" } do
        assert.is_truthy(("\n" .. console):find("\n" .. line .. "[^\n]*\n"), line .. ": not in\n" .. console)
      end
    end
    run("one")
    run("two")
    says("one")
    says("two")
    assert.are.same({}, must(fcproc.vm.list(world.manager)))
    local store = must(stores.open(path))
    must(entries.verify(must(store:find("guest"))))
    assert.are.same({}, must(store:list())[1].users)
    linux.nothing_left(world)
  end)
end)
