-- Debian's stock kernel with an initrd of fcproc's, which has the drivers and follows the command line.

local support = require "spec.support"
local linux = require "spec.support.linux"
local fcproc = require "fcproc"
local initrd = require "fcproc.image.initrd"

local must = support.must

-- What the roots start: it tells what it has found, and stays.
local TELLS = [[
#!/bin/busybox sh
b=/bin/busybox
echo "arguments: $*"
echo "host: $($b hostname)"
echo "resolv.conf: $($b cat /run/fcproc/resolv.conf)"
echo "route: $($b ip route | $b head -n 1)"
$b mount | $b sed -n "s/^\(.*\) on \(.*\) type \([^ ]*\) .*/mounted: \3 \2/p"
$b lsmod | $b sed -n 's/^\(virtio_rng\|nd_pmem\|vmw_vsock_virtio_transport\|erofs\) .*/module: \1/p'
echo "old root: $($b ls /init /modules 2>/dev/null)"
(echo "of the guest" >/note) 2>/dev/null && $b sync && echo "wrote: $($b cat /note)"
echo "all told"
while :; do $b sleep 1000; done
]]

-- A folder with the initrd, the roots and an empty scratch disk.
local function made(dir)
  support.sh({ "sh", "-euc", [[
    mkdir -p root/bin root/dev root/proc root/sys root/run root/sbin
    cp /bin/busybox root/bin
    cat >root/sbin/init
    chmod 755 root/sbin/init
    mksquashfs root root.squashfs -quiet -no-progress
    truncate -s 8M root.ext4 scratch.ext4
    mke2fs -q -t ext4 -d root root.ext4
    mke2fs -q -t ext4 scratch.ext4
  ]] }, { cwd = dir.path, input = TELLS })
  local modules = linux.folder() .. "/kernel/lib/modules/"
  local version = support.sh{ "ls", modules }:gsub("\n", "")
  local result = must(initrd.initrd{ to = dir:file("initrd.cpio"), modules = modules .. version })
  assert.are.equal(version, result.version)
  for _, absent in ipairs(result.absent) do assert.are.equal("nothing is absent", absent.name) end
end

local function has_said(vm, ...)
  local console = must(must(vm:console()):read()):gsub("\r", "")
  for _, line in ipairs{ ... } do
    assert.is_truthy(("\n" .. console):find("\n" .. line .. "\n", 1, true), line .. " is not in\n" .. console)
  end
end

describe("fcproc's initrd", function()
  local dir

  setup(function()
    dir = support.folder()
    made(dir)
  end)

  teardown(function() getmetatable(dir).__close(dir) end)
  before_each(support.before_each)
  after_each(support.after_each)

  local function launch(world, fields)
    fields.initrd = dir:file("initrd.cpio")
    return must(fcproc.vm.launch(world.manager, linux.spec(fields)))
  end

  it("gives the guest the address, name and servers of ip=, and a read-only ext4 root", function()
    local world <close> = support.world()
    local vm <close> = launch(world, { id = "plain", args = "word",
      network = { address = "172.30.0.2", dns = { "1.1.1.1", "9.9.9.9" } },
      drives = { { path = dir:file("root.ext4"), root = true, read_only = true } } })
    linux.wait_for(vm, "all told")
    has_said(vm, "arguments: word", "host: plain", "mounted: ext4 /", "mounted: devtmpfs /dev",
      "resolv.conf: nameserver 1.1.1.1\nnameserver 9.9.9.9", "route: default via 172.30.0.1 dev eth0 ",
      "module: virtio_rng", "module: nd_pmem", "module: vmw_vsock_virtio_transport", "module: erofs",
      "old root: ")
    assert.is_false(linux.has_said(vm, "wrote:"))
    assert.is_true(support.pings(world.netns, "172.30.0.2"))
    vm:kill()
  end)

  it("lays a scratch disk over a squashfs, which stays as it is", function()
    local world <close> = support.world()
    local base, scratch = dir:file("root.squashfs"), dir:file("scratch.ext4")
    local before = support.sh{ "sha256sum", base }
    local vm <close> = launch(world, { args = "fcproc.overlay=/dev/vdb",
      drives = { { path = base, root = true, read_only = true }, { path = scratch } } })
    linux.wait_for(vm, "all told")
    has_said(vm, "mounted: overlay /", "wrote: of the guest", "arguments: ", "host: (none)")
    vm:kill()
    assert.are.equal(before, support.sh{ "sha256sum", base })
    support.sh{ "sh", "-c", "e2fsck -p \"$1\" || [ $? = 1 ]", "sh", scratch } -- its journal
    assert.are.equal("of the guest\n", support.sh{ "debugfs", "-R", "cat /upper/note", scratch })
  end)

  it("ends the boot with a line that says what is missing", function()
    local world <close> = support.world()
    for _, case in ipairs{
      { "root=/dev/vdz rootwait=1", "root=/dev/vdz: no such block device has come in 1 s; there are: vda" },
      { "root=/dev/vda init=/no/such", "init=/no/such: start it: No such file or directory" },
    } do
      local vm <close> = launch(world, { args = case[1],
        drives = { { path = dir:file("root.ext4"), read_only = true } } })
      local gone, exit = vm:wait(linux.TIMEOUT)
      assert.is_true(gone)
      assert.are.same({ status = 0 }, exit)
      assert.is_true(linux.has_said(vm, "fcproc init: " .. case[2]), must(must(vm:console()):read()))
      assert.is_truthy(must(vm:stop()).console_panic:find("Attempted to kill init", 1, true))
    end
  end)
end)
