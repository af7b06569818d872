-- Disks that fcproc has built: Debian's stock kernel boots them with fcproc's initrd, and what Linux finds in
-- them is what GNU tar unpacks, but for what the build has told.

local cjson = require "cjson"
local core = require "fcproc.core"
local initrd = require "fcproc.image.initrd"
local linux = require "spec.support.linux"
local fcproc = require "fcproc"
local support = require "spec.support"

local must = support.must

-- By the name, its line.
local function lines_of(text)
  local lines, count = {}, 0
  for line in text:gmatch("[^\n]+") do
    if line == "that is all" then return lines, count end
    lines[line:match("^%S+")], count = line, count + 1
  end
  error("it has no end")
end

-- Boots listed.ext4 of that folder. Returns what the guest found, and what is to be there.
local function compared(name, hello)
  local world <close> = support.world()
  local kernel, folder = linux.folder() .. "/kernel/lib/modules/", linux.folder() .. "/" .. name
  must(initrd.initrd{ to = world.folder:file("initrd.cpio"),
    modules = kernel .. must(core.list_dir(kernel))[1].name })
  support.sh{ "truncate", "-s", "4M", world.folder:file("list") }
  local vm <close> = must(fcproc.vm.launch(world.manager, linux.spec{ args = "init=/list-root",
    initrd = world.folder:file("initrd.cpio"), drives = {
      { path = folder .. "/listed.ext4", root = true, read_only = true },
      { path = world.folder:file("list") } } }))
  local gone = vm:wait(4 * linux.TIMEOUT)
  local console = must(must(vm:console()):read())
  assert.is_true(gone, console)
  assert.is_truthy(console:find(hello .. " says hello"), console)
  must(vm:stop())
  local wanted, count = lines_of(support.read_file(folder .. "/list"))
  local found = lines_of(support.read_file(world.folder:file("list")))
  local report, edited = cjson.decode(support.read_file(folder .. "/report.json")), {}
  for _, edit in ipairs(report.edits) do edited[edit.path] = true end
  assert.is_true(edited["/list-root"])
  for path, line in pairs(found) do
    assert.is_true(edited[path] or wanted[path] == line, line .. "\n" .. tostring(wanted[path]))
  end
  for path in pairs(wanted) do assert.is_truthy(edited[path] or found[path], path) end
  return found, wanted, count
end

describe("an image", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("of Debian's packages is found in a guest as it was built of, but for the edits", function()
    local _, _, count = compared("debian", "Debian GNU/Linux 1%d[^\n]*")
    assert.is_true(count > 5000)
  end)

  it("of layers from a registry is found in a guest as GNU tar and rm leave it, but for the edits", function()
    local found, wanted = compared("layers", "An image of layers")
    -- The image is the one that it is meant to be.
    for _, path in ipairs{ "/etc/gone", "/opt/emptied/in", "/opt/opaque/in", "/opt/opaque/two" } do
      assert.is_nil(wanted[path])
    end
    for path, what in pairs{ ["/bin/upper-link"] = " 2=/bin/busybox .* security%.capability=",
      ["/etc/lower-link"] = " 3=/etc/linked ", ["/etc/upper-link"] = " 3=/etc/linked ",
      ["/etc/changed"] = " 981173106%.123456789 .* user%.note=", ["/etc/kept"] = " 104711 70000:4000000 ",
      ["/dev/disk"] = " 60644 .* 259,1048575$", ["/opt/replaced"] = " emptied$",
      ["/opt/opaque/three"] = " 14 ", ["/srv/n%f6t%20UTF-8%20%ff"] = " 4102444800%.000000001 ",
      ["/srv/sparse"] = " 3145728 " } do
      assert.is_truthy((found[path] or ""):find(what), path .. ": " .. tostring(found[path]))
    end
  end)
end)
