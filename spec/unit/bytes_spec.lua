-- Bytes that are no text: paths that are not UTF-8, names that end like a word of --drive, and what a
-- guest writes when it is quoted.

local support = require "spec.support"
local cjson = require "cjson"
local cli = require "spec.support.cli"
local errors = require "fcproc.error"
local fcproc = require "fcproc"
local json = require "fcproc.json"
local records = require "fcproc.resources.record"
local specs = require "fcproc.vm.spec"
local tail = require "fcproc.tail"

local must, fails = support.must, support.fails
local BAD = "caf\xe9" -- Latin-1

describe("bytes that are not UTF-8", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("are refused before anything where Firecracker would read them", function()
    local world <close> = support.world()
    local file = world.folder:file(BAD)
    support.sh{ "cp", support.firecracker(), file } -- an ELF file, as a kernel
    local function refused(spec, ...)
      local err = fails("invalid", fcproc.vm.launch(world.manager, spec))
      local places = {}
      for i, problem in ipairs(err.problems) do
        places[i] = problem.place
        assert.is_truthy(problem.text:find("is not UTF-8", 1, true), problem.text)
      end
      assert.are.same({ ... }, places)
      assert.is_truthy(err.message:find("caf\\xe9", 1, true) and utf8.len(err.message), err.message)
    end
    refused({ kernel = file, initrd = file, seccomp = file, mem_mib = 512, boot_args = BAD,
      arguments = { "--a", BAD }, network = { { attach = false, tap = BAD } } }, "arguments[2]", "boot_args",
      "initrd", "kernel", "network[1].tap", "seccomp")
    refused({ jailer = { uid = 1000, gid = 1000, parent_cgroup = BAD, cgroups = { ["cpu.shares"] = BAD } } },
      "jailer.cgroups['cpu.shares']", "jailer.parent_cgroup")
    -- In a jail they have names of ours; and a drive's is ours everywhere.
    support.sh{ "chmod", "644", file }
    must(specs.plan(world.manager, { kernel = file, initrd = file, mem_mib = 512,
      jailer = { uid = 1000, gid = 1000 }, drives = { { path = file, read_only = true } } }))
    must(specs.plan(world.manager, { drives = { { path = file } } }))
    local there <close> = must(fcproc.new{ runtime_dir = world.folder:file("run-" .. BAD),
      firecracker_bin = support.firecracker() })
    local err = fails("invalid", fcproc.vm.launch(there, {}))
    assert.are.equal("runtime_dir", err.problems[1].place)
    support.sh{ "chmod", "755", file }
    local binary <close> = must(fcproc.new{ runtime_dir = world.folder:file("run"), firecracker_bin = file })
    err = fails("invalid", fcproc.vm.launch(binary, {}))
    assert.are.equal("firecracker_bin", err.problems[1].place)
  end)

  it("are kept in a journal and a manifest as they are, which are JSON all the same", function()
    local record = { path = "/srv/" .. BAD, list = { BAD, "\0", "\0zz", "\0ab1", "plain", "gr\xc3\xbcn" },
      number = 5, flag = true }
    local text = json.write(json.kept(record))
    assert.is_truthy(utf8.len(text))
    cjson.decode(text)
    assert.are.same(record, json.plain(json.restored(text)))
    assert.are.same(record, records.decode(text))
    assert.are.equal('{"path":"caf\\\\xe9"}', (json.write{ path = BAD })) -- for people
  end)

  it("are escaped where they are shown, as is what a terminal obeys", function()
    local err = errors.new{ code = "busy", op = "tap", message = BAD .. "\27[2J" }
    assert.are.equal("tap: caf\\xe9\\x1b[2J (busy)", tostring(err))
    assert.are.equal(tostring(err), errors.shown(tostring(err))) -- once is enough
    for bytes, shown in pairs{ ["\xff\xfe"] = "\\xff\\xfe", ["a\xc3"] = "a\\xc3", ["\xc3\xbc"] = "\xc3\xbc",
      ["\xed\xa0\x80"] = "\\xed\\xa0\\x80", [""] = "" } do
      assert.are.equal(shown, errors.shown(bytes))
    end
  end)

  it("make no line of a quoted console longer than 200 bytes", function()
    local dir <close> = support.folder()
    local line = ("\27"):rep(100) .. "\n" .. ("x"):rep(200) .. "\n" .. ("\xc3\xbc"):rep(150) .. "\n" .. BAD
    support.write_file(dir:file("console"), line)
    local text = tail.of{ { "console", { path = dir:file("console") } } }
    local lines = support.collect(text, "[^\n]+")
    assert.are.equal(5, #lines)
    for _, quoted in ipairs(lines) do
      assert.is_true(#quoted <= 200, #quoted)
      assert.is_truthy(utf8.len(quoted))
    end
    assert.are.equal("\\x1b\\x1b", lines[2]:sub(1, 8))
    assert.are.equal(("x"):rep(200), lines[3])
    assert.are.equal(("\xc3\xbc"):rep(98) .. "...", lines[4])
  end)
end)

describe("--drive", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is refused when a file has the very name that ends like a word", function()
    local world <close> = cli.world()
    local image = world.folder:file("base.img")
    local function ambiguous(given, longer)
      local _, err = cli.fails(world, 2, "run", "-d", "--drive", given)
      for _, text in ipairs{ ("ambiguous --drive '%s'"):format(longer), "--spec" } do
        assert.is_truthy(err:find(text, 1, true), err)
      end
      assert.are.equal("", cli.ok(world, "ps", "-q"))
    end
    support.write_file(image, ("\0"):rep(512))
    support.write_file(image .. ":ro", ("\0"):rep(512))
    ambiguous(image .. ":ro", image .. ":ro")
    ambiguous(image .. ":ro:copy", image .. ":ro")
    os.remove(image) -- nor is the one taken that is there
    ambiguous(image .. ":ro", image .. ":ro")
    os.remove(image .. ":ro")
    local _, err = cli.fails(world, 2, "run", "-d", "--drive", image .. ":ro")
    assert.is_truthy(err:find("no such file: " .. image, 1, true), err)
    _, err = cli.fails(world, 2, "run", "-d", "--drive", image .. BAD .. "\27:ro")
    assert.is_truthy(err:find("caf\\xe9\\x1b", 1, true) and utf8.len(err), err)
  end)
end)
