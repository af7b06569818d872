-- Reads the sources and proves who may know whom, and that the lists which must agree do.

local support = require "spec.support"
local fcproc = require "fcproc"

local function files(...)
  local list = {}
  for name in support.sh{ "git", "ls-files", "--cached", "--others", "--exclude-standard", ... }
    :gmatch("[^\n]+") do
    list[#list + 1] = name
  end
  assert(#list > 0, "no sources: " .. table.concat({ ... }, " "))
  return list
end

-- The code of a C file without comments and strings, so that words in them do not count.
local function code_of(path)
  return (support.read_file(path):gsub("/%*.-%*/", " "):gsub('"[^"\n]*"', '""'))
end

local function includes(path)
  local list = {}
  for name in support.read_file(path):gmatch("#include%s*[<\"]([^>\"]+)") do list[#list + 1] = name end
  return list
end

local function calls(code, name)
  return (" " .. code):find("[^%w_]" .. name .. "%s*%(") ~= nil
end

describe("the layers", function()
  it("the core knows no Lua, prints nothing, ends nothing", function()
    for _, path in ipairs(files("csrc/core/*.c", "csrc/core/*.h", "csrc/include/fcproc.h")) do
      for _, name in ipairs(includes(path)) do
        assert.is_nil(name:match("^l[ua][au][ax]?") and name:match("lua"), path .. " includes " .. name)
      end
      local code = code_of(path)
      for _, name in ipairs{ "printf", "fprintf", "puts", "perror", "abort", "exit", "_exit", "system",
        "popen", "setenv", "putenv", "signal", "kill", "setlocale" } do
        assert.is_false(calls(code, name), path .. " calls " .. name)
      end
      if not path:find("spawn.c", 1, true) then
        for _, name in ipairs{ "chdir", "umask", "sigaction", "fork", "execve" } do
          assert.is_false(calls(code, name), path .. " calls " .. name)
        end
      end
    end
  end)

  it("the binding makes no system call and knows no library below the core", function()
    local names = {}
    for name in ([[open openat read write socket connect ioctl poll ppoll kill fork vfork clone execve
      waitid waitpid pipe pipe2 dup dup2 fcntl stat fstat lstat unlink mkdir chmod chown syscall
      epoll_wait epoll_ctl eventfd send recv getsockopt setsockopt usleep nanosleep]]):gmatch("%S+") do
      names[#names + 1] = name
    end
    for _, path in ipairs(files("csrc/lua/*.c", "csrc/lua/*.h")) do
      for _, name in ipairs(includes(path)) do
        assert.is_nil(name:match("^netlink/") or name:match("^curl/") or name:match("private"),
          path .. " includes " .. name)
      end
      local code = code_of(path)
      for _, name in ipairs(names) do
        assert.is_false(calls(code, name), path .. " calls " .. name)
      end
    end
  end)

  it("the Lua files ask for nothing above them, and for no event loop unasked", function()
    for _, path in ipairs(files("lua/fcproc/*.lua")) do
      local text = support.read_file(path)
      for module in text:gmatch("require%s*%(?%s*[\"']([^\"']+)") do
        assert.is_nil(module:match("^fcproc%.vm") or module:match("^fcproc%.image"), path)
        assert.is_true(module:match("^fcproc") ~= nil or module == "cjson.safe"
          or path == "lua/fcproc/waiters.lua", path .. " requires " .. module)
      end
      assert.is_nil(text:match("os%.execute") or text:match("io%.popen"), path)
    end
  end)

  it("the top level holds what the design names and nothing else", function()
    local known = { csrc = 1, lua = 1, spec = 1, rockspec = 1, examples = 1, Makefile = 1,
      ["README.md"] = 1, LICENSE = 1, ["CHANGELOG.md"] = 1 }
    for _, path in ipairs(files(".")) do
      local top = path:match("^[^/]+")
      assert.is_truthy(known[top] or top:match("^%."), top)
    end
  end)
end)

describe("the lists", function()
  it("of error codes agree: header, Lua and README", function()
    local header, readme = {}, {}
    for name, code in support.read_file("csrc/include/fcproc.h"):gmatch("X%((%u[%u_]*), %d+, \"([%l_]+)\"") do
      header[#header + 1] = name .. " " .. code
    end
    local lua = {}
    for _, entry in ipairs(fcproc.codes) do
      lua[#lua + 1] = entry.name .. " " .. entry.code
      assert.are.equal(entry.code, fcproc["ERR_" .. entry.name].code)
    end
    for code, name, meaning in support.read_file("README.md")
      :gmatch("| `([%l_]+)` | `ERR_([%u_]+)` | ([^|\n]+) |") do
      readme[#readme + 1] = name .. " " .. code
      assert.are.equal(meaning, fcproc["ERR_" .. name].message)
    end
    assert.are.same(header, lua)
    assert.are.same(header, readme)
  end)

  it("of bound functions: each is declared in core.d.lua, and the reverse", function()
    local declared = support.read_file("lua/fcproc/core.d.lua")
    local bound = {}
    for _, path in ipairs(files("csrc/lua/*.c")) do
      for name in support.read_file(path):gmatch("{ \"([%l_]+)\", l_[%l_]+ }") do
        bound[name] = true
        assert.is_truthy(declared:find("[.:]" .. name .. "%("), name .. " is not declared")
      end
    end
    for name in declared:gmatch("function [%w_]+[.:]([%l_]+)%(") do
      assert.is_truthy(bound[name] or name == "close", name .. " is declared but not bound")
    end
  end)

  it("of versions: one number", function()
    local version = support.read_file("Makefile"):match("VERSION := (%S+)")
    assert.are.equal(version, fcproc.VERSION)
  end)

  it("of functions: every public one has a comment with its parameters", function()
    for _, path in ipairs(files("lua/fcproc/*.lua")) do
      local previous = ""
      for line in support.read_file(path):gmatch("([^\n]*)\n") do
        local parameters = line:match("^function [%u][%w]*:[%l][%w_]*%((.*)%)")
        if parameters and not path:find("core.d.lua", 1, true) then
          assert.is_truthy(previous:match("^%-%-"), path .. ": " .. line)
        end
        previous = line
      end
    end
  end)
end)
