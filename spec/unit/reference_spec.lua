-- The Lua reference: written from the annotations, whole, and up to date. The judge itself is proved
-- first, on what is missing.

local support = require "spec.support"
local fcproc = require "fcproc"

package.path = package.path .. ";doc/?.lua"
local reference = require "reference"

describe("the Lua reference", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is what the annotations say now; else: make doc", function()
    assert.is_true(support.read_file("doc/reference.md") == reference.write(), "make doc, and commit it")
  end)

  it("tells of everything public: arguments, results, errors, and what is in tables", function()
    assert.are.equal("", table.concat(reference.gaps(), "\n"))
  end)

  it("misses what is not told", function()
    local dir <close> = support.folder()
    local path = dir:file("bad.lua")
    support.write_file(path, [[
local M = {}

---Does it.
---@param a integer
---@param c integer
---@return true?
---@return fcproc.Error? err  when it fails
function M.badly(a, b) return a + b end

function M.mutely()
  return true
end

---Does it.
---@param opts table?
---@return fcproc.Nothing
function M.vaguely(opts) return opts end

---Does it, or ERR_BUSY.
---@param a integer
---@return true?
---@return fcproc.Error? err
function M.well(a) return a end

return M]])
    local before = reference.gaps()
    for name, fn in pairs(dofile(path)) do fcproc[name] = fn end
    local ok, gaps = pcall(reference.gaps)
    for name in pairs(dofile(path)) do fcproc[name] = nil end
    assert.is_true(ok, gaps)
    local text = table.concat(gaps, "\n"):gsub(" %(%S-/bad%.lua:%d+%)", "")
    for _, gap in ipairs{ "badly: no @param b", "badly: there is no parameter c",
      "badly: does not say which errors", "mutely: says nothing", "mutely: no @return",
      "vaguely: opts: a table of what?", "fcproc.Nothing: nobody declares it" } do
      assert.is_truthy(text:find(gap, 1, true), gap .. " in:" .. text)
    end
    assert.are.equal(#before + 7, #gaps, text)
  end)

  it("names every function of the facade and every method, by asking them", function()
    local page = support.read_file("doc/reference.md")
    local function names(what, of)
      for name, value in pairs(of) do
        if type(value) == "function" and not name:find("^_") then
          assert.is_truthy(page:find(("### `%s%s("):format(what, name), 1, true), what .. name)
        end
      end
    end
    local manager <close> = support.must(fcproc.new())
    names("fcproc.", fcproc)
    names("fcproc.vm.", fcproc.vm)
    names("fcproc.doctor.", fcproc.doctor)
    names("manager:", getmetatable(manager).__index)
    names("runner:", getmetatable(manager.runner).__index)
  end)

  it("has every field that a table of options may have, and no other", function()
    local dir <close> = support.folder()
    local manager <close> = support.must(fcproc.new{ runtime_dir = dir:file("run"), bridge_name = "fcbr0",
      firecracker_bin = support.firecracker() })
    local _, types = reference.read()
    local fields = {}
    for _, class in ipairs(types) do
      local names = {}
      for i, field in ipairs(class.fields) do names[i] = field.name end
      table.sort(names)
      fields[class.name] = table.concat(names, ", ")
    end
    local function raised(...) return select(2, pcall(...)) end
    local function refused(spec) return fcproc.vm.launch(manager, spec) end
    for class, fn in pairs{
      Config = function() return raised(fcproc.new, { bogus = 1 }) end,
      ContextOptions = function() return raised(fcproc.context, { bogus = 1 }) end,
      SpawnOptions = function() return raised(fcproc.spawn, { "true" }, { bogus = 1 }) end,
      RunOptions = function() return raised(manager.runner.run, manager.runner, {}, { bogus = 1 }) end,
      TapOptions = function() return raised(manager.create_tap, manager, "t", { bogus = 1 }) end,
      DoctorOptions = function() return raised(fcproc.doctor.run, manager, { bogus = 1 }) end,
      VmSpec = function() return select(2, refused{ bogus = 1 }).message end,
      DriveSpec = function() return select(2, refused{ drives = { { bogus = 1 } } }).message end,
      NetworkSpec = function() return select(2, refused{ network = { bogus = 1 } }).message end,
      JailerSpec = function() return select(2, refused{ jailer = { bogus = 1 } }).message end,
      RestoreSpec = function()
        return select(2, fcproc.vm.restore(manager, dir.path, { bogus = 1 })).message
      end,
    } do
      local known = tostring(fn()):match("bogus.-known: ([%l_, ]+)")
      assert.is_truthy(known, class)
      assert.are.equal(known, fields["fcproc." .. class], class)
    end
  end)

  it("has examples that are Lua", function()
    local count, lines = 0, {}
    for line in support.read_file("doc/reference.md"):gmatch("([^\n]*)\n") do
      if line:find("^    ") then
        lines[#lines + 1] = line
      elseif #lines > 0 then
        assert.is_truthy(load(table.concat(lines, "\n")), table.concat(lines, "\n"))
        count, lines = count + 1, {}
      end
    end
    assert.is_true(count >= 8, count .. " examples")
  end)
end)
