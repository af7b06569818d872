-- The man page and the shells' completions: written from the command's parser, and installed.

local support = require "spec.support"

local MAKE = { "env", "-u", "MAKEFLAGS", "-u", "MFLAGS", "make", "-s", "SANITIZE=" }

local function make(...)
  local argv = table.move(MAKE, 1, #MAKE, 1, {})
  return support.sh(table.move({ ... }, 1, select("#", ...), #argv + 1, argv))
end

-- What the parser says of itself: { name of a command or "", its help }.
local function helps()
  local list = {}
  local function add(words)
    local argv = { support.lua, "lua/bin/fcproc" }
    for word in words:gmatch("%S+") do argv[#argv + 1] = word end
    argv[#argv + 1] = "--help"
    local text = support.sh(argv)
    list[#list + 1] = { name = words, text = text }
    for name in (text:match("\nCommands:\n(.*)") or ""):gmatch("%f[^\n]   (%l+)[%s,]") do
      add((words .. " " .. name):gsub("^ ", ""))
    end
  end
  add("")
  return list
end

describe("the man page", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local dir
  setup(function()
    dir = support.folder()
    make("pages", "BUILD=" .. dir.path)
  end)
  teardown(function() getmetatable(dir).__close(dir) end)

  it("is good roff", function()
    local result = support.must(require("fcproc").runner():run{ "groff", "-man", "-ww", "-z",
      dir:file("fcproc.1") })
    assert.are.equal("", result.stderr)
  end)

  it("tells every command and every option", function()
    local page = support.sh{ "groff", "-man", "-Tascii", "-P-cbou", dir:file("fcproc.1") }
    local list = helps()
    assert.is_true(#list > 15, #list .. " commands")
    for _, help in ipairs(list) do
      assert.is_truthy(page:find("\n *fcproc " .. help.name), help.name)
      for option in help.text:gmatch("%s(%-%-%l[%l%-]+)") do
        assert.is_truthy(page:find(option, 1, true), ("%s %s"):format(help.name, option))
      end
      for option in help.text:gmatch("\n   (%-%l),") do
        assert.is_truthy(page:find(option .. ",", 1, true), ("%s %s"):format(help.name, option))
      end
    end
    for head, text in support.read_file(dir:file("fcproc.1")):gmatch("%.TP\n([^\n]+)\n([^\n]*)") do
      assert.is_truthy(text:find("^[^.]"), head .. " has no text")
    end
  end)

  it("has completions beside it that bash can read, with every command", function()
    local path = dir:file("completion/fcproc.bash")
    support.sh{ "bash", "-n", path }
    local reply = support.sh{ "bash", "-c", ([[. %s; COMP_WORDS=(fcproc re); COMP_CWORD=1; _fcproc
      echo "${COMPREPLY[@]}"]]):format(path) }
    assert.are.equal("restore resume reclaim\n", reply)
    for _, name in ipairs{ "_fcproc", "fcproc.fish" } do
      local text = support.read_file(dir:file("completion/" .. name))
      for _, help in ipairs(helps()) do
        assert.is_truthy(text:find(help.name:match("%l*$"), 1, true), name .. ": " .. help.name)
      end
    end
  end)

  it("is installed with them where they are looked for, and removed again alone", function()
    local root = dir:file("root")
    local where = { "BUILD=" .. dir.path, "DESTDIR=" .. root, "PREFIX=/usr" }
    make("install-pages", table.unpack(where))
    local installed = support.sh{ "sh", "-c", ("cd %s && find . -type f | sort"):format(root) }
    assert.are.equal([[./usr/share/bash-completion/completions/fcproc
./usr/share/fish/vendor_completions.d/fcproc.fish
./usr/share/man/man1/fcproc.1
./usr/share/zsh/site-functions/_fcproc
]], installed)
    for path in installed:gmatch("%./([^\n]+)") do
      support.write_file(("%s/%s.other"):format(root, path), "")
    end
    make("uninstall", table.unpack(where))
    assert.are.equal(installed:gsub("\n", ".other\n"),
      support.sh{ "sh", "-c", ("cd %s && find . -type f | sort"):format(root) })
  end)
end)
