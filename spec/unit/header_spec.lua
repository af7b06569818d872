-- The public header by itself: as C and as C++ with every warning, and what its calls do with NULL and
-- with the sizes of structs.

local support = require "spec.support"
local fcproc = require "fcproc"

local WARNINGS = { "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror" }

local function compile(language, ...)
  local argv = { language == "c" and "gcc" or "g++", "-x", language, "-fsyntax-only", "-Icsrc/include" }
  for _, list in ipairs{ WARNINGS, { ... } } do table.move(list, 1, #list, #argv + 1, argv) end
  argv[#argv + 1] = "spec/support/header.h"
  support.must(fcproc.runner():run(argv))
end

describe("fcproc.h", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("compiles as C99 and C++11, 17 and 20 without a warning, with each _INIT", function()
    compile("c", "-std=c99", "-Wstrict-prototypes", "-D_GNU_SOURCE")
    for _, standard in ipairs{ "c++11", "c++17", "c++20" } do
      compile("c++", "-std=" .. standard, "-Wmissing-field-initializers", "-Wold-style-cast")
    end
  end)

  it("has an _INIT for each struct with a struct_size, and names it in capitals", function()
    local text, found = support.read_file("csrc/include/fcproc.h")
      .. support.read_file("csrc/include/fcproc_image.h"), 0
    for name in text:gmatch("struct fcproc_([%l_]+) {\n    size_t struct_size;") do
      assert.is_truthy(text:find(("#define FCPROC_%s_INIT"):format(name:upper()), 1, true), name)
      found = found + 1
    end
    assert.is_true(found > 12)
  end)

  it("takes NULL where it says so, and reads the size of every struct", function()
    local dir <close> = support.folder()
    local program = os.getenv("FCPROC_SPEC_BUILD") .. "/struct-test"
    local result, err = fcproc.runner():run({ program, dir.path }, { timeout = 60 })
    assert.are.equal("ok\n", result and result.stdout or err.stdout .. tostring(err))
  end)
end)
