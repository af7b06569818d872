-- Archives that somebody has made to do harm, or that were cut: each is refused with its entry's name, or
-- built right, and nothing is ever outside the tree.

local support = require "spec.support"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local tar = require "spec.support.tar"

local must, fails = support.must, support.fails

describe("a hostile archive", function()
  local dir

  before_each(support.before_each)
  after_each(support.after_each)
  setup(function() dir = support.folder() end)
  teardown(function() getmetatable(dir).__close(dir) end)

  local function read(bytes, options, limits)
    support.write_file(dir:file("a.tar"), bytes)
    limits = limits or {}
    limits.spool_folder = dir.path
    local tree = must(imagecore.tree(limits))
    options = options or {}
    options.path = dir:file("a.tar")
    local result, err = jobs.run(must(tree:read_archive(options)))
    return tree, result, err
  end

  -- Also as a layer, and packed. text: what the message must have.
  local function refused(text, entries, limits)
    for _, layer in ipairs{ false, true } do
      local tree <close>, result, err = read(tar.archive(entries), { layer = layer }, limits)
      if result and layer then result, err = jobs.run(must(tree:merge())) end
      fails("invalid", result, err)
      assert.is_truthy(err.message:find(text, 1, true), err.message)
    end
  end

  local function built(entries)
    for _, layer in ipairs{ false, true } do
      local tree <close>, result, err = read(tar.archive(entries), { layer = layer })
      must(result, err)
      if layer then must(jobs.run(must(tree:merge()))) end
    end
    local tree, result, err = read(tar.archive(entries))
    must(result, err)
    return tree
  end

  it("is refused where it names what is outside", function()
    refused("../x", { { name = "../x" } })
    refused("a/../../x", { { name = "a/../../x" } })
    refused("a/..", { { name = "a/..", kind = "5" } })
    refused("/../x", { { name = "/../x" } })
    refused("out of the tree", { { name = "h", kind = "1", link = "../etc/passwd" } })
    refused("not there", { { name = "h", kind = "1", link = "/etc/passwd" } })
    refused("not there", { { name = "h", kind = "1", link = "h" } })
    refused("a folder", { { name = "d", kind = "5" }, { name = "h", kind = "1", link = "d" } })
    refused("255", { { name = ("n"):rep(256) } })
    refused("4,095", { { name = ("n/"):rep(2048) .. "n" } })
    for _, name in ipairs{ ".wh.", ".wh..", "d/.wh..." } do
      local tree <close>, result, err = read(tar.archive{ { name = name } }, { layer = true })
      fails("invalid", result, err)
      local wanted = "entry " .. name .. " of " .. dir:file("a.tar") .. " is a whiteout of no name"
      assert.is_truthy(err.message:find(wanted, 1, true), err.message)
      tree:close()
    end
  end)

  it("is built right where it only seems to be bad", function()
    do
      local tree <close> = built{ { name = "/etc/passwd", data = "x" },
        { name = "./etc/./group", data = "y" }, { name = "etc//shadow" } }
      assert.are.same({ "group", "passwd", "shadow" }, (function()
        local list = must(tree:list("etc"))
        table.sort(list)
        return list
      end)())
    end
    do -- through a link, as in a chroot
      local tree <close> = built{ { name = "a", kind = "2", link = "/etc" },
        { name = "a/passwd", data = "x" }, { name = "b", kind = "2", link = "../../../.." },
        { name = "b/tmp", data = "y" },
        { name = "d/e", kind = "2", link = "../../x" }, { name = "d/e/f", data = "z" } }
      assert.are.equal("x", must(tree:read("etc/passwd", 9)))
      assert.are.equal("y", must(tree:read("tmp", 9)))
      assert.are.equal("z", must(tree:read("x/f", 9)))
      assert.are.equal("/etc/passwd", must(tree:resolve("a/passwd")))
    end
    do -- the deepest, and the longest
      local deep, long = ("d/"):rep(2047) .. "d", ("x"):rep(255)
      local tree <close> = built{ { name = deep }, { name = long, kind = "2", link = ("y"):rep(4095) },
        { name = long .. "/", kind = "5" } }
      must(tree:stat(deep))
      assert.are.equal("dir", must(tree:stat(long)).kind)
      must(tree:seal())
    end
    do -- the same again
      local tree <close> = built{ { name = "x", data = "1" }, { name = "x", data = "2" },
        { name = "x/", kind = "5" }, { name = "x/y" }, { name = "x", data = "3" } }
      assert.are.equal("3", must(tree:read("x", 9)))
      assert.are.equal(1, must(tree:seal()).entries)
    end
  end)

  it("is refused where no file could be so", function()
    refused("loop", { { name = "loop", kind = "2", link = "loop" }, { name = "loop/x" } })
    refused("no folder", { { name = "f" }, { name = "f/x" } })
    refused("owner", { { name = "id", uid = 1 << 40 } })
    refused("owner", { { name = "id", gid = 4294967295 } })
    refused("entry s", { { name = "s", kind = "2", link = "" } })
    refused("larger", { { name = "huge", size = 1 << 50 } })
    refused("", { { name = "cut", size = 1 << 40 } })
    refused("", { { name = "sum", sum = 1 } })
    refused("xattr", { { name = "x", pax = { ["SCHILY.xattr.user." .. ("n"):rep(300)] = "v" } } })
    refused("xattr", { { name = "x", pax = { ["SCHILY.xattr.user.a"] = ("v"):rep(65537) } } })
  end)

  it("is kept within limits", function()
    local many = {}
    for i = 1, 50 do many[i] = { name = "n" .. i, data = "0123456789" } end
    refused("n11", many, { entries = 10 })
    refused("n11", many, { bytes = 109 })
    do
      local tree <close>, result, err = read(tar.archive(many), {}, { entries = 50, bytes = 500 })
      must(result, err)
      must(tree:seal())
    end
    for i = 1, 50 do many[i] = { name = "n" .. i, pax = { ["SCHILY.xattr.user.a"] = ("v"):rep(60000) } } end
    refused("n19", many, { memory = 1 << 20 })
    local xattrs = {}
    for i = 1, 1001 do xattrs["SCHILY.xattr.user." .. i] = "v" end
    refused("1,000 xattrs", { { name = "x", pax = xattrs } })
    -- A bomb: a little over the GiB from which on a ratio counts, in 1 MB. gzip makes 1,032 bytes of one at
    -- the most.
    support.sh{ "sh", "-c", [[head -c 64M /dev/zero | gzip -c >$0.1
      for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do cat $0.1; done >$0]], dir:file("zeros") }
    local tree <close> = must(imagecore.tree{ spool_folder = dir.path, ratio = 200 })
    local result, err = jobs.run(must(tree:read_archive{ path = dir:file("zeros") }))
    fails("invalid", result, err)
    assert.is_truthy(err.message:find("more than 200 times its size", 1, true), err.message)
  end)

  it("that is cut or damaged anywhere is refused, or was whole", function()
    local entries = {}
    for i = 1, 20 do
      entries[i] = { name = "file" .. i, data = tostring(i):rep(400 + 37 * i), pax = { mtime = i .. ".5" } }
    end
    local bytes = tar.archive(entries)
    support.write_file(dir:file("w.tar"), bytes)
    local packed = {}
    for _, packer in ipairs{ "cat", "gzip -c", "xz -c", "zstd -qc --check" } do
      support.sh{ "sh", "-c", packer .. " <$0 >$1", dir:file("w.tar"), dir:file("w") }
      packed[#packed + 1] = support.read_file(dir:file("w"))
    end
    for n, whole in ipairs(packed) do
      for cut = 1, #whole - 1, math.max(1, #whole // 60) do
        local tree <close>, result, err = read(whole:sub(1, cut))
        if result then -- plain, and all but the second block of zeros
          assert.are.equal(1, n)
          assert.is_true(cut >= #whole - 1024, cut)
        else
          local said = fails("invalid", result, err).message
          if said:find("is cut", 1, true) then assert.is_truthy(said:find(dir.path, 1, true), said) end
          tree:close()
        end
      end
      for at = 1, #whole, math.max(1, #whole // 60) do
        local bad = whole:sub(1, at - 1) .. string.char(whole:byte(at) ~ 0x10) .. whole:sub(at + 1)
        local tree <close>, result, err = read(bad)
        if not result then
          fails("invalid", result, err)
        elseif n > 1 then -- its sums are right, so its contents must be
          for i, e in ipairs(entries) do
            assert.are.equal(e.data, must(tree:read(e.name, 1 << 20)), i)
          end
        end
      end
    end
  end)
end)
