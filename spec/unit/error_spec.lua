-- Error values: fields, sentinels, printing, causes.

local support = require "spec.support"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local fcproc = require "fcproc"
local tail = require "fcproc.tail"

local fails = support.fails

describe("an error", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("equals the sentinel of its code and nothing else", function()
    local err = errors.new{ code = "busy", op = "tap.create", message = "tap0 is in use" }
    assert.is_true(err == fcproc.ERR_BUSY)
    assert.is_true(fcproc.ERR_BUSY == err)
    assert.is_false(err == fcproc.ERR_CONFLICT)
    assert.is_false(err == errors.new{ code = "busy", op = "x", message = "y" })
    assert.is_true(err == err)
    assert.is_false(err == "busy")
    assert.is_false(fcproc.ERR_BUSY == fcproc.ERR_CONFLICT)
  end)

  it("has a sentinel for each code, in the module and nowhere else", function()
    local known = {}
    for _, entry in ipairs(fcproc.codes) do
      local sentinel = fcproc["ERR_" .. entry.name]
      assert.is_true(fcproc.is_error(sentinel))
      assert.are.same({ entry.code, entry.meaning, true },
        { sentinel.code, sentinel.message, entry.meaning ~= "" })
      assert.are.equal(entry.name, entry.code:upper())
      assert.is_nil(known[entry.code])
      known[entry.code] = true
    end
    local count = 0
    for name, value in pairs(fcproc) do
      if name:find("^ERR_") then
        count = count + 1
        assert.is_true(known[value.code])
      end
    end
    assert.are.equal(#fcproc.codes, count)
    for _, code in ipairs{ "wait_timeout", "cancelled", "deadline", "busy", "not_found", "conflict",
      "permission", "not_same_process", "api" } do
      assert.is_true(known[code])
    end
  end)

  it("prints what was done, what failed, and its code", function()
    local err = errors.new{ code = "busy", op = "tap.create", message = "tap0 is in use" }
    assert.are.equal("tap.create: tap0 is in use (busy)", tostring(err))
    assert.are.equal("vm 3: tap.create: tap0 is in use (busy)", "vm 3: " .. err)
    assert.are.equal("tap.create: tap0 is in use (busy)!", err .. "!")
    assert.are.equal(tostring(err) .. tostring(err), err .. err)
    assert.are.equal(tostring(err) .. "7", err .. 7)
  end)

  it("is also its causes, to any depth", function()
    local lowest = errors.new{ code = "permission", op = "c", message = "c" }
    local middle = errors.new{ code = "api", op = "b", message = "b", cause = lowest }
    local top = errors.new{ code = "conflict", op = "a", message = "a", cause = middle }
    for _, sentinel in ipairs{ fcproc.ERR_CONFLICT, fcproc.ERR_API, fcproc.ERR_PERMISSION } do
      assert.is_true(top:is(sentinel))
    end
    assert.is_false(top:is(fcproc.ERR_BUSY))
    assert.is_false(lowest:is(fcproc.ERR_API))
    assert.is_false(top == fcproc.ERR_API) -- == looks at the error alone
  end)

  it("is the same kind whether Lua or the C module made it", function()
    local from_c = fails("not_found", fcproc.process(4194303))
    assert.are.equal(core.error_metatable, getmetatable(from_c))
    assert.is_true(from_c == fcproc.ERR_NOT_FOUND)
    assert.is_true(from_c:is(fcproc.ERR_NOT_FOUND))
    assert.are.same({ "process.open", 3, 4194303 }, { from_c.op, from_c.errno, from_c.pid })
    assert.are.equal(("process.open: %s (not_found)"):format(from_c.message), tostring(from_c))
    local from_lua = fails("invalid", fcproc.new{ runtime_dir = "here" })
    assert.are.equal(core.error_metatable, getmetatable(from_lua))
    assert.is_nil(from_lua.errno)
  end)

  it("is told from other values", function()
    assert.is_true(fcproc.is_error(errors.new{ code = "busy", op = "x", message = "y" }))
    for _, value in ipairs{ "busy", 5, {}, { code = "busy" }, io.stdout } do
      assert.is_false(fcproc.is_error(value))
    end
    assert.is_false(fcproc.is_error(nil))
  end)

  it("shows a guest's words without what a terminal obeys", function()
    assert.are.equal("a\n\tb \\x1b[2J\\x1b]0;owned\\x07 \\x00 \\x7f \\x0d \\xc2\\x9b1m Gr\xc3\xbc\xc3\x9fe",
      errors.shown("a\n\tb \27[2J\27]0;owned\7 \0 \127 \r \xc2\x9b1m Gr\xc3\xbc\xc3\x9fe"))
    local dir <close> = support.folder()
    support.write_file(dir:file("console"), "hello \27[31mred\r\n")
    assert.are.equal("console:\nhello \\x1b[31mred", tail.of{ { "console", { path = dir:file("console") } } })
    assert.are.equal("hello \27[31mred", tail.lines{ path = dir:file("console") }) -- what was asked for
  end)

  it("goes through assert and error as it is", function()
    local ok, err = pcall(function() _G.assert(fcproc.spawn{ "no-such-command" }) end)
    assert.is_false(ok)
    assert.is_true(err == fcproc.ERR_NOT_FOUND)
  end)
end)
