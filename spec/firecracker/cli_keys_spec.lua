-- fcproc run -i: what is typed, and what comes from a pipe, is what the guest's console reads.

local cli = require "spec.support.cli"
local support = require "spec.support"
local fcproc = require "fcproc"

local ECHO = { "--boot-args", "fcproc.echo" }

local function contains(text, wanted)
  assert.is_truthy(text:find(wanted, 1, true), ("'%s' in:\n%s"):format(wanted, text))
end

local function run_with(input, ...)
  local world <close> = cli.world()
  local args = table.move({ ... }, 1, select("#", ...), 6, { "run", "-i", ECHO[1], ECHO[2], "-v" })
  return cli.run(world, args, { input = input })
end

describe("fcproc run -i", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- At a terminal: what it showed, the exit status, and how the terminal is afterwards.
  local function at_terminal(steps, ...)
    local world <close> = cli.world()
    local argv = { "python3", "spec/support/terminal.py" }
    table.move(steps, 1, #steps, #argv + 1, argv)
    for _, word in ipairs{ "--", support.lua, "lua/bin/fcproc", "run", "-i", ... } do
      argv[#argv + 1] = word
    end
    local out = support.sh(argv, { env = cli.env(world), netns = world.netns, timeout = 60 })
    assert.are.equal("", cli.ok(world, "ps", "-q"))
    local shown, status, after = out:match("^(.*)\nstatus (%S+) ([%l ]+)\n$")
    return shown, tonumber(status), after
  end

  it("passes keys on, Ctrl-C too, and Ctrl-] stops the VM", function()
    local shown, status, after = at_terminal({ "ready", "a\\x03b\\r", "x03b'", "\\x1d" },
      table.unpack(ECHO))
    contains(shown, "Ctrl-] stops it")
    contains(shown, "heard 'a\\x03b'")
    contains(shown, "ended by ctrl_alt_del")
    assert.are.same({ 130, "as before" }, { status, after })
  end)

  it("leaves the terminal as it was, whatever ends it", function()
    local shown, status, after
    for name, wanted in pairs{ TERM = 143, QUIT = 131, HUP = 129 } do
      shown, status, after = at_terminal({ "ready", "signal:" .. name })
      assert.are.same({ wanted, "as before" }, { status, after }, shown)
    end
    shown, status, after = at_terminal({ "ready", "\\x1d", "once more", "\\x03" }, "--boot-args",
      "fcproc.ignore_cad")
    contains(shown, "ended by sigkill") -- Ctrl-C is a signal again
    assert.are.same({ 130, "as before" }, { status, after })
    shown, status, after = at_terminal({ "ready", "x" }, "--timeout", "0.3")
    assert.are.same({ 124, "as before" }, { status, after }, shown)
    shown, status, after = at_terminal({}, "--kernel", "/no/kernel")
    assert.are.same({ 2, "as before" }, { status, after }, shown)
  end)

  it("passes on what comes from a pipe to its end, at the guest's pace, in a jail too", function()
    local lines = {}
    for i = 1, 3000 do lines[i] = ("line %d of those that the guest is to hear"):format(i) end
    for _, jail in ipairs{ "", "auto" } do
      local done = run_with(table.concat(lines, "\n") .. "\n", "--timeout", "0.6",
        table.unpack(jail ~= "" and { "--jailer", jail } or {}))
      contains(done.out, "heard 'line 1 of")
      local heard = select(2, done.out:gsub("heard", ""))
      assert.is_true(heard >= 5, heard .. " lines")
      assert.are.equal(124, done.status)
    end
  end)

  it("is of the foreground, and reads its own stdin alone", function()
    contains(run_with("", "--detach").err, "--interactive is of the foreground")
    contains(run_with("{}", "--spec", "-").err, "both read stdin")
    local done = run_with("", "--jailer", "auto", "--daemonize")
    assert.are.equal(2, done.status)
    contains(done.err, "stdin: a jailer with daemonize closes it")
    local world <close> = cli.world()
    done = cli.run(world, { "run", "--spec", "-" }, { input = '{"stdin":0}' })
    assert.are.equal(2, done.status)
    contains(done.err, "stdin: is a descriptor of this process")
  end)
end)

describe("a VM with a stdin", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("must be given a descriptor", function()
    local world <close> = support.world()
    local err = support.fails("invalid", fcproc.vm.launch(world.manager, { stdin = "x" }))
    contains(err.message, "stdin: must be an integer")
  end)
end)
