-- Debian as mmdebstrap makes it, as a disk that fcproc has built: Debian's stock kernel boots it with
-- fcproc's initrd, and what Linux finds in it is what GNU tar unpacks, but for what the build has told.

local cjson = require "cjson"
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

describe("a Debian image", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is found in a guest as it was built of, but for the edits", function()
    local world <close> = support.world()
    local folder = linux.folder()
    local modules = folder .. "/kernel/lib/modules/"
    must(initrd.initrd{ to = world.folder:file("initrd.cpio"),
      modules = modules .. support.sh{ "ls", modules }:gsub("\n", "") })
    support.sh{ "truncate", "-s", "4M", world.folder:file("list") }
    local vm <close> = must(fcproc.vm.launch(world.manager, linux.spec{ args = "init=/list-root",
      initrd = world.folder:file("initrd.cpio"), drives = {
        { path = folder .. "/debian/listed.ext4", root = true, read_only = true },
        { path = world.folder:file("list") } } }))
    local gone = vm:wait(4 * linux.TIMEOUT)
    local console = must(must(vm:console()):read())
    assert.is_true(gone, console)
    assert.is_truthy(console:find("Debian 1%d.* says hello"), console)
    must(vm:stop())
    local wanted, count = lines_of(support.read_file(folder .. "/debian/list"))
    local found = lines_of(support.read_file(world.folder:file("list")))
    assert.is_true(count > 5000)
    local report, edited = cjson.decode(support.read_file(folder .. "/debian/report.json")), {}
    for _, edit in ipairs(report.edits) do edited[edit.path] = true end
    assert.is_true(edited["/list-root"])
    for name, line in pairs(found) do
      assert.is_true(edited[name] or wanted[name] == line, line .. "\n" .. tostring(wanted[name]))
    end
    for name in pairs(wanted) do assert.is_truthy(edited[name] or found[name], name) end
  end)
end)
