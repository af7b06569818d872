-- The fcproc command, as far as it needs no VM.

local cjson = require "cjson"
local cli = require "spec.support.cli"
local json = require "fcproc.json"
local support = require "spec.support"
local fcproc = require "fcproc"

local function contains(text, wanted)
  assert.is_truthy(text:find(wanted, 1, true), ("'%s' in:\n%s"):format(wanted, text))
end

describe("the fcproc command without a VM", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("tells its version and its use in the ways in which others are asked", function()
    local world <close> = cli.world()
    assert.are.equal("fcproc " .. fcproc.VERSION .. "\n", cli.ok(world, "--version"))
    assert.are.equal(cli.ok(world, "--help"), cli.ok(world, "help"))
    assert.are.equal(cli.ok(world, "net", "up", "--help"), cli.ok(world, "help", "net", "up"))
    assert.are.equal(cli.ok(world, "console", "--help"), cli.ok(world, "help", "logs"))
    local out, err = cli.fails(world, 2, "--json", "help", "rnu")
    contains(err, "there is no command 'rnu'")
    assert.are.equal("invalid", cjson.decode(out).error.code)
  end)

  it("ends VMs that are named, or all, and not just any", function()
    local world <close> = cli.world()
    for _, command in ipairs{ "stop", "kill" } do
      contains(select(2, cli.fails(world, 2, command)), command .. ": name VMs, or say --all")
      contains(select(2, cli.fails(world, 2, command, "a", "--all")), "not both")
      assert.are.equal("", cli.ok(world, command, "--all"))
    end
    cli.fails(world, 2, "wait")
  end)
end)

describe("a mistake in JSON", function()
  it("has the line and the column", function()
    for text, place in pairs{
      ["{"] = "line 1, column 2: expected", ["[1,\n  2,\n  x]"] = "line 3, column 3: ",
      ["\n\n"] = "line 3, column 1: ", ['{"a":1}\n}'] = "line 2, column 1: ",
    } do
      local value, complaint = json.read(text)
      assert.is_nil(value)
      contains(complaint, place)
    end
    assert.are.equal(false, (json.read("false")))
  end)
end)
