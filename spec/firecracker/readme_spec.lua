-- The examples of the README, of the chapters in doc/ and of examples/, as they are, each in a network
-- namespace and a folder of its own: /run/fcproc and /srv in them are folders of the spec. The blocks of
-- one file in one language are one script, in their order; a block in C is a program. A block after a
-- comment "not run: why" is not run, and counted.

local cli = require "spec.support.cli"
local support = require "spec.support"
local fcproc = require "fcproc"

local NOT_RUN = 5

-- reference.md is not among them: its examples are in the annotations, and reference_spec reads them.
local FILES = support.collect(support.sh{ "sh", "-c", "ls README.md doc/*.md" }, "[^\n]+")

-- The fenced blocks: { language, text, not_run }.
local function blocks(path)
  local list, block, marked = {}, nil, nil
  for line in support.read_file(path):gmatch("([^\n]*)\n") do
    if block and line == "```" then
      list[#list + 1] = block
      block.text, block = table.concat(block, "\n") .. "\n", nil
    elseif block then
      block[#block + 1] = line
    elseif line:match("^```") then
      block = { language = line:match("^```(.*)"), not_run = marked }
    end
    marked = line:match("^<!%-%- not run: .+ %-%->$")
  end
  assert.is_nil(block)
  return list
end

-- The scripts of a language: path to text.
local function scripts(language)
  local texts, not_run = {}, 0
  for _, path in ipairs(FILES) do
    for _, block in ipairs(blocks(path)) do
      if block.language == language then
        if block.not_run then not_run = not_run + 1
        else texts[path] = (texts[path] or "") .. block.text .. "\n" end
      end
    end
  end
  return texts, not_run
end

-- With an uplink eth0, /srv/disk.img, and fcproc on PATH; once for a world.
local function prepare(world)
  if world.bin then return world.bin end
  local srv, bin = world.folder:file("srv"), world.folder:file("bin")
  support.sh{ "mkdir", srv, bin }
  support.sh{ "truncate", "-s", "1M", srv .. "/disk.img" }
  support.sh({ "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other0" },
    { netns = world.netns })
  support.sh({ "ip", "link", "set", "eth0", "up" }, { netns = world.netns })
  support.write_file(bin .. "/fcproc", ('#!/bin/sh\nexec %s lua/bin/fcproc "$@"\n'):format(support.lua))
  support.sh{ "chmod", "755", bin .. "/fcproc" }
  world.bin = bin
  return bin
end

local function run(world, argv, text)
  local bin = prepare(world)
  local path = world.folder:file("script")
  text = text:gsub("assert%(fcproc%.runtime_dir%(%)%)", '"/run/fcproc"')
    :gsub("/run/fcproc", world.folder:file("run")):gsub("/srv", world.folder:file("srv"))
  support.write_file(path, text)
  argv[#argv + 1] = path
  local env = cli.env(world, { FCPROC_STORE = world.folder:file("images"),
    PATH = ("%s:%s:%s"):format(bin, os.getenv("PATH"),
    support.firecracker():match("^(.*)/")) })
  return support.must(fcproc.runner():run(argv, { env = env, netns = world.netns, timeout = 120 }))
end

-- What a comment "--> text" behind a print promises is printed, in that order.
local function assert_promises(text, printed)
  local from = 1
  for promise in text:gmatch("%-%-> ([^\n:]+)") do
    local words = promise:gsub("[%-%.%%]", "%%%0"):gsub(" ", "%%s+")
    local _, upto = printed:find(words, from)
    assert.is_truthy(upto, ("'%s' in:\n%s"):format(promise, printed))
    from = upto
  end
end

local function assert_clean(world)
  local left = fcproc.runner():run{ "ls", "-A", world.folder:file("run") }
  assert.is_truthy(not left or left.stdout == ".fcproc\n" or left.stdout == "", left and left.stdout)
end

-- A program for libfcproc alone, built as its user would.
local function compile(world, text)
  local source, program = world.folder:file("program.c"), world.folder:file("program")
  local build = os.getenv("FCPROC_SPEC_BUILD")
  support.write_file(source, text)
  local argv = { "gcc", "-Wall", "-Wextra", "-Werror", "-Icsrc/include", source, "-o", program,
    build .. "/libfcproc.a", "-lnl-3", "-pthread" }
  if build:find("/sanitize$") then argv[#argv + 1] = "-fsanitize=address,undefined" end
  support.sh(argv)
  return program
end

describe("the manual", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has examples that run, but those that say why not", function()
    local not_run, files = 0, {}
    for _, language in ipairs{ "lua", "sh", "c" } do
      local texts, skipped = scripts(language)
      not_run = not_run + skipped
      for path in pairs(texts) do files[path] = true end
    end
    assert.are.equal(NOT_RUN, not_run)
    for _, path in ipairs{ "README.md", "doc/guide.md", "doc/primitives.md", "doc/command.md", "doc/c.md",
      "doc/contexts.md", "doc/errors.md" } do
      assert.is_true(files[path], path .. " has no example")
    end
  end)

  it("has blocks in known languages only, since others would not be run", function()
    for _, path in ipairs(FILES) do
      for _, block in ipairs(blocks(path)) do
        local known = block.language == "lua" or block.language == "sh" or block.language == "c"
        assert.is_true(known or block.language == "", path .. ": " .. block.language)
      end
    end
  end)

  for path, text in pairs(scripts("lua")) do
    it("in Lua: " .. path, function()
      local world <close> = cli.world()
      local result = run(world, { support.lua }, text)
      assert_promises(text, result.stdout)
      assert_clean(world)
    end)
  end

  it("in Lua leaves nothing when it fails in its middle, so that the next run is as the first", function()
    local world <close> = cli.world()
    local text = scripts("lua")["README.md"]
    local broken, n = text:gsub("fcproc%.guest_path%(%)", "'/nowhere/kernel'")
    assert.are.equal(1, n)
    local ok, err = pcall(run, world, { support.lua }, broken)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("Boot source error", 1, true), tostring(err))
    assert_clean(world)
    assert.is_nil(fcproc.runner():run({ "ip", "link", "show", "fctap0" }, { netns = world.netns }))
    run(world, { support.lua }, text)
    assert_clean(world)
  end)

  for path, text in pairs(scripts("sh")) do
    it("in a shell: " .. path, function()
      local world <close> = cli.world()
      run(world, { "sh", "-eu" }, text:gsub("lua5%.4", support.lua))
      assert_clean(world)
    end)
  end

  for path, text in pairs(scripts("c")) do
    it("in C: " .. path, function()
      local world <close> = cli.world()
      assert_promises(text:gsub(" %*/", ""), support.sh{ compile(world, text) })
    end)
  end

  it("names every command and option that there is", function()
    local world <close> = cli.world()
    local chapter = support.read_file("doc/command.md")
    for _, command in ipairs{ "run", "restore", "console", "stop", "snapshot", "doctor" } do
      for option in cli.ok(world, command, "--help"):gmatch("%s(%-%-%l[%l%-]+)") do
        assert.is_truthy(option == "--help" or chapter:find(option, 1, true), command .. " " .. option)
      end
    end
  end)

  it("has links that lead somewhere", function()
    for _, path in ipairs(FILES) do
      for link in support.read_file(path):gmatch("%]%(([^)#:]+)[^):]*%)") do
        local target = path:match("^(.*/)[^/]*$") or ""
        assert.is_truthy(support.read_file(target .. link), path .. " links " .. link)
      end
    end
  end)

  it("begins with a page of 200 lines at most", function()
    local _, lines = support.read_file("README.md"):gsub("\n", "")
    assert.is_true(lines <= 200, lines .. " lines")
  end)
end)

describe("the example", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local function example(name, ...)
    local world <close> = cli.world()
    local path = os.getenv("PATH") .. ":" .. support.firecracker():match("^(.*)/")
    local result = support.must(fcproc.runner():run({ support.lua, "examples/" .. name, ... },
      { env = cli.env(world, { PATH = path }), timeout = 120 }))
    assert.are.equal("", result.stderr)
    assert.is_nil(fcproc.runner():run{ "test", "-e", "/run/fcproc-" .. name:match("%l+") })
    return result.stdout
  end

  it("vm.lua launches, pings, snapshots, clones and stops", function()
    local out = example("vm.lua")
    for _, text in ipairs{ "first runs: pid %d+, address 172", "bytes from 172", "a snapshot of 16 MiB",
      "first: exited by ctrl_alt_del, status 0", "clone runs", "clone: exited by ctrl_alt_del" } do
      assert.is_truthy(out:find(text), ("'%s' in:\n%s"):format(text, out))
    end
  end)

  it("fleet.lua launches twenty and stops them all", function()
    local out = example("fleet.lua")
    assert.is_truthy(out:find("launch 20 VMs", 1, true), out)
    assert.is_truthy(out:find("\n             0 VMs are left\n$"), out)
  end)
end)
