-- The README's examples and those of examples/, as they are, each in a network namespace and a folder
-- of its own: /run/fcproc and /srv in them are folders of the spec. The blocks of one section are
-- one script. A block after a comment "not run: why" is not run, and counted.

local cli = require "spec.support.cli"
local support = require "spec.support"
local fcproc = require "fcproc"

local NOT_RUN = 1

-- The fenced blocks: { section, language, text, not_run }.
local function blocks()
  local list, section, block, marked = {}, nil, nil, nil
  for line in support.read_file("README.md"):gmatch("([^\n]*)\n") do
    if block and line == "```" then
      list[#list + 1] = block
      block.text, block = table.concat(block, "\n") .. "\n", nil
    elseif block then
      block[#block + 1] = line
    elseif line:match("^```") then
      block = { section = section, language = line:match("^```(.*)"), not_run = marked }
    elseif line:match("^## ") then
      section = line:match("^## (.*)")
    end
    marked = line:match("^<!%-%- not run: .+ %-%->$")
  end
  assert.is_nil(block)
  return list
end

-- The scripts of a language: section to text.
local function scripts(language)
  local texts, not_run = {}, 0
  for _, block in ipairs(blocks()) do
    if block.language == language then
      if block.not_run then not_run = not_run + 1
      else texts[block.section] = (texts[block.section] or "") .. block.text .. "\n" end
    end
  end
  return texts, not_run
end

-- With an uplink eth0, /srv/disk.img, and fcproc on PATH.
local function prepare(world)
  local srv, bin = world.folder:file("srv"), world.folder:file("bin")
  support.sh{ "mkdir", srv, bin }
  support.sh{ "truncate", "-s", "1M", srv .. "/disk.img" }
  support.sh({ "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other0" },
    { netns = world.netns })
  support.sh({ "ip", "link", "set", "eth0", "up" }, { netns = world.netns })
  support.write_file(bin .. "/fcproc", ('#!/bin/sh\nexec %s lua/bin/fcproc "$@"\n'):format(support.lua))
  support.sh{ "chmod", "755", bin .. "/fcproc" }
  return bin
end

local function run(world, argv, text)
  local bin = prepare(world)
  local path = world.folder:file("script")
  text = text:gsub("/run/fcproc", world.folder:file("run")):gsub("/srv", world.folder:file("srv"))
  support.write_file(path, text)
  argv[#argv + 1] = path
  local env = cli.env(world, { PATH = ("%s:%s:%s"):format(bin, os.getenv("PATH"),
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

describe("the README", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has examples that run, but those that say why not", function()
    local lua, lua_not_run = scripts("lua")
    local sh, sh_not_run = scripts("sh")
    assert.are.equal(NOT_RUN, lua_not_run + sh_not_run)
    local sections = {}
    for _, set in ipairs{ lua, sh } do
      for section in pairs(set) do sections[#sections + 1] = section end
    end
    assert.is_true(#sections >= 5, table.concat(sections, ", "))
  end)

  for section, text in pairs(scripts("lua")) do
    it("in Lua: " .. section, function()
      local world <close> = cli.world()
      local result = run(world, { support.lua }, text)
      assert_promises(text, result.stdout)
      assert_clean(world)
    end)
  end

  for section, text in pairs(scripts("sh")) do
    it("in a shell: " .. section, function()
      local world <close> = cli.world()
      run(world, { "sh", "-eu" }, text:gsub("lua5%.4", support.lua))
      assert_clean(world)
    end)
  end

  it("names every command and option that there is", function()
    local world <close> = cli.world()
    local readme = support.read_file("README.md")
    for _, command in ipairs{ "run", "restore", "console", "stop", "snapshot", "doctor" } do
      for option in cli.ok(world, command, "--help"):gmatch("%s(%-%-%l[%l%-]+)") do
        assert.is_truthy(option == "--help" or readme:find(option, 1, true), command .. " " .. option)
      end
    end
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
