-- Reads the sources and proves who may know whom, that no process-wide state is touched, and that
-- the lists which must agree do. The readers themselves are proved first, on bad samples.

local support = require "spec.support"
local fcproc = require "fcproc"

-- The files that git knows, or would if they were added; none is fine unless needed is set.
local function files(needed, ...)
  local names = support.sh{ "git", "ls-files", "--cached", "--others", "--exclude-standard", ... }
  local list = support.collect(names, "[^\n]+")
  if needed then assert.is_true(#list > 0, "no sources: " .. table.concat({ ... }, " ")) end
  return list
end

local function words(text) return support.collect(text, "%S+") end

-- A C file without comments and without what is in strings: words there do not count.
local function c_code(text)
  local kept, at = {}, 1
  while true do
    local from = text:find('["\'/]', at)
    if not from then break end
    kept[#kept + 1] = text:sub(at, from - 1)
    local first, two = text:sub(from, from), text:sub(from, from + 1)
    local _, to
    if two == "/*" then
      _, to = text:find("*/", from + 2, true)
      kept[#kept + 1] = " "
    elseif two == "//" then
      _, to = text:find("[^\n]*", from)
    elseif first == "/" then
      kept[#kept + 1] = "/"
      to = from
    else
      to = from + 1
      while text:sub(to, to) ~= first do to = to + (text:sub(to, to) == "\\" and 2 or 1) end
      kept[#kept + 1] = first .. first
    end
    at = (to or #text) + 1
  end
  return table.concat(kept) .. text:sub(at)
end

local function includes(text)
  return support.collect(text, "#%s*include%s*[<\"]([^>\"]+)")
end

local function requires(text)
  return support.collect(text, "require%s*%(?%s*[\"']([^\"']+)")
end

-- Those of the names that the code calls as functions; a member of that name is none.
local function calls(code, names)
  local found, is_word = {}, {}
  for _, name in ipairs(names) do is_word[name] = true end
  for at, name, after in code:gmatch("()%f[%w_]([%a_][%w_]*)()") do
    if is_word[name] and code:match("^%s*%(", after) and code:sub(at - 1, at - 1) ~= "."
      and code:sub(math.max(at - 2, 1), at - 1) ~= "->" then
      found[#found + 1] = name
    end
  end
  return found
end

-- The rooms of the Lua files, from the ground up; what is not here is the ground. The flows vm and image
-- stand side by side, and neither may need the other.
local STOREYS = { manager = 1, machine = 2, network = 3, resources = 4, agent = 5, vm = 6, image = 6,
  init = 7, doctor = 7, cli = 8 }

-- May a file of the room require one of the other?
local function may_ask(room, other)
  return other == nil or other == room or (STOREYS[other] or 0) < (STOREYS[room] or 0)
    or (STOREYS[other] or 0) + (STOREYS[room] or 0) == 0
end

local function lua_code(text)
  return ((text .. "\n"):gsub("%-%-[^\n]*", ""))
end

local function is_lua_header(name)
  local base = name:match("[^/]+$")
  return base == "lua.h" or base == "lauxlib.h" or base == "lualib.h" or base == "luaconf.h"
    or base == "lua.hpp" or base == "fcproc_lua.h"
end

-- Fails with the file's name when it calls any of the names.
local function never(path, names)
  local found = calls(c_code(support.read_file(path)), names)
  assert.are.equal("", table.concat(found, " "), path .. " calls")
end

-- What may be included in the C rooms that stand on the public headers, those to come among them.
-- agent is the guest's, and knows nothing of ours but the protocol.
local rooms = {
  image = { ["fcproc.h"] = true, ["fcproc_image.h"] = true, ["../core/rooms.h"] = true, "^archive",
    "^ext2fs/", "^et/", "^openssl/", "^zlib%.h$", lua_in = "^csrc/image/bind%l*%.[ch]$",
    binding = "../lua/rooms.h" },
  agent = {},
  rootless = {},
  helper = { ["fcproc.h"] = true },
  host = { ["fcproc.h"] = true, ["fcproc_image.h"] = true, lua_in = "" },
}
local ours = { ["fcproc.h"] = true, ["fcproc_image.h"] = true } -- fcproc_lua.h: see lua_in
local libraries = { "^netlink/", "^curl/", "^archive", "^ext2fs/", "^et/", "^openssl/", "^zlib" }

local function matches(list, name)
  for _, pattern in ipairs(list) do
    if name:match(pattern) then return true end
  end
  return false
end

-- The headers that a file of the room may not include.
local function not_allowed(room, path, text)
  local found, row = {}, rooms[room]
  for _, name in ipairs(includes(text)) do
    local wrong
    if is_lua_header(name) or name == row.binding then
      wrong = not row.lua_in or not path:match(row.lua_in)
    elseif ours[name] then
      wrong = not row[name]
    elseif name:match("private%.h$") or name:match("binding%.h$") or name:match("^%.%./") then
      wrong = not row[name]
    else
      wrong = matches(libraries, name) and not matches(row, name)
    end
    if wrong then found[#found + 1] = name end
  end
  return found
end

-- Which object of a folder uses a function or a variable of which other one, as nm sees it: also when
-- it is only passed by pointer. { [object] = { [other] = symbol } }
local function uses(room)
  local owner, wanted, command = {}, {}, { "nm", "-A" }
  for _, path in ipairs(files(true, "csrc/" .. room .. "/*.c")) do
    local object = path:match("([%l%d]+)%.c$")
    wanted[object] = {}
    if path ~= "csrc/lua/host.c" then -- it belongs to libfcproc-lua alone
      command[#command + 1] = ("%s/obj/%s/%s.o"):format(os.getenv("FCPROC_SPEC_BUILD"), room, object)
    end
  end
  for line in support.sh(command):gmatch("[^\n]+") do
    local object, kind, symbol = line:match("([%l%d]+)%.o:.*(%a) (%S+)$")
    if kind == "U" then wanted[object][symbol] = true end
    if kind:match("[TDBRVW]") then owner[symbol] = object end
  end
  local graph = {}
  for object, symbols in pairs(wanted) do
    graph[object] = {}
    for symbol in pairs(symbols) do
      local other = owner[symbol]
      if other and other ~= object then graph[object][other] = symbol end
    end
  end
  return graph
end

-- A way from an object back to itself, as a text; nil when there is none.
local function circle(graph)
  local state, way = {}, {}
  local function visit(object)
    state[object] = "open"
    way[#way + 1] = object
    local others = {}
    for other in pairs(graph[object]) do others[#others + 1] = other end
    table.sort(others)
    for _, other in ipairs(others) do
      local found
      if state[other] == "open" then
        local names = { other }
        for i = #way, 1, -1 do
          table.insert(names, 1, way[i])
          if way[i] == other then break end
        end
        found = table.concat(names, " -> ") .. " by " .. graph[object][other]
      elseif not state[other] then
        found = visit(other)
      end
      if found then return found end
    end
    way[#way] = nil
    state[object] = "done"
  end
  local objects = {}
  for object in pairs(graph) do objects[#objects + 1] = object end
  table.sort(objects)
  for _, object in ipairs(objects) do
    local found = not state[object] and visit(object)
    if found then return found end
  end
end

local printing = words[[printf vprintf dprintf fprintf vfprintf puts fputs putchar putc fputc perror
  psignal warn warnx err errx error syslog]]
local ending = words[[abort exit _exit _Exit quick_exit assert raise]]
local process_wide = words[[system popen setenv putenv unsetenv clearenv setlocale uselocale
  signal sigaction sigset bsd_signal sigprocmask chdir fchdir chroot umask fork vfork
  daemon setuid setgid seteuid setegid setresuid setresgid setgroups atexit prctl alarm setitimer]]
local forbidden_in_binding = words[[open openat creat read pread readv write pwrite writev socket
  socketpair connect bind listen accept accept4 ioctl poll ppoll select pselect kill tgkill clone
  clone3 execve execv execvp posix_spawn wait waitpid waitid wait4 pipe pipe2 dup dup2 dup3 fcntl
  stat fstat lstat statx access faccessat unlink unlinkat rename mkdir mkdirat rmdir mknod link
  symlink readlink realpath chmod fchmod chown fchown lchown fchownat syscall epoll_create1
  epoll_wait epoll_ctl eventfd timerfd_create signalfd inotify_init1 inotify_add_watch pidfd_open
  pidfd_send_signal send sendto sendmsg recv recvfrom recvmsg getsockopt setsockopt setns unshare
  mount mmap munmap getpid sleep usleep nanosleep fopen fdopen fread fwrite opendir pthread_create]]

describe("the readers of this file", function()
  it("see code, and neither comments nor strings", function()
    local sample = 'x = "/* no */ exit(1)"; /* abort() " */ y = \'"\'; // kill(1)\n puts ("\\"");'
    assert.are.same({ "puts" }, calls(c_code(sample), words"exit abort kill puts"))
    assert.are.same({ "exit" }, calls(c_code"a(b / c); exit(2)", words"exit"))
    assert.are.same({ "exit", "exit" }, calls("exit (1); return exit(2)", words"exit"))
    local others = "my_exit(1); exiting(2); s.exit(3); p->exit(4); exit = 1"
    assert.are.same({}, calls(others, words"exit"))
    assert.are.same({ "lua.h", "curl/curl.h", "../core/private.h" },
      includes'#include <lua.h>\n# include <curl/curl.h>\n#include "../core/private.h"\n')
    assert.is_true(is_lua_header("lauxlib.h") and is_lua_header("lua5.4/lua.h"))
    assert.are.same({}, not_allowed("image", "csrc/image/tar.c", "#include <archive.h>\n"
      .. '#include "fcproc.h"\n#include "tar.h"\n#include <stdio.h>\n#include "../core/rooms.h"\n'))
    assert.are.same({ "../core/rooms.h" },
      not_allowed("host", "csrc/host/main.c", '#include "../core/rooms.h"\n'))
    assert.are.same({ "lua.h", "../core/private.h", "curl/curl.h" },
      not_allowed("image", "csrc/image/tar.c",
        '#include <lua.h>\n#include "../core/private.h"\n#include <curl/curl.h>\n'))
    assert.are.same({}, not_allowed("image", "csrc/image/binding.c",
      '#include <lua.h>\n#include "../lua/rooms.h"\n'))
    assert.are.same({ "../lua/rooms.h" },
      not_allowed("image", "csrc/image/tar.c", '#include "../lua/rooms.h"\n'))
    assert.are.same({ "../lua/rooms.h" },
      not_allowed("host", "csrc/host/main.c", '#include "../lua/rooms.h"\n'))
    assert.are.same({ "fcproc.h" }, not_allowed("agent", "csrc/agent/init.c",
      '#include <linux/vm_sockets.h>\n#include "protocol.h"\n#include "fcproc.h"\n'))
    assert.are.same({ "binding.h", "fcproc_lua.h" }, not_allowed("helper", "csrc/helper/main.c",
      '#include "binding.h"\n#include <fcproc.h>\n#include "fcproc_lua.h"\n'))
    assert.are.same({ "netlink/msg.h" }, not_allowed("host", "csrc/host/main.c",
      "#include <netlink/msg.h>\n#include <lua.h>\n#include <fcproc_lua.h>\n"))
    assert.is_nil(circle{ a = { b = "f", c = "g" }, b = { c = "g" }, c = {} })
    assert.are.equal("b -> c -> b by f",
      circle{ a = { b = "f" }, b = { c = "g" }, c = { b = "f" }, d = {} })
    assert.are.same({ "a.b", "c", "d" }, requires'require "a.b" require("c") require \'d\'')
  end)
end)

describe("the storeys of the Lua files", function()
  it("are known", function()
    assert.is_true(may_ask("vm", "resources") and may_ask("cli", "vm") and may_ask("api", "loop"))
    assert.is_false(may_ask("resources", "vm") or may_ask("network", "resources"))
    assert.is_false(may_ask("vm", "image") or may_ask("image", "vm") or may_ask("tail", "machine"))
  end)
end)

describe("the layers", function()
  it("the core knows no Lua, prints nothing, ends nothing", function()
    for _, path in ipairs(files(true, "csrc/core/*.c", "csrc/core/*.h", "csrc/include/fcproc.h")) do
      for _, name in ipairs(includes(support.read_file(path))) do
        assert.is_false(is_lua_header(name), path .. " includes " .. name)
      end
      never(path, printing)
      never(path, ending)
    end
  end)

  it("nothing touches the state of the whole process", function()
    for _, path in ipairs(files(true, "csrc/core/*.[ch]", "csrc/lua/*.[ch]", "csrc/include/*.h")) do
      local code = c_code(support.read_file(path))
      for _, name in ipairs{ "stdout", "stderr" } do
        assert.is_nil((" " .. code):match("[^%w_.>]" .. name .. "[^%w_]"), path .. ": " .. name)
      end
      never(path, process_wide)
    end
    for _, path in ipairs(files(true, "csrc/image/*.[ch]")) do
      for _, name in ipairs(process_wide) do
        -- uselocale is the thread's, as is the mask of pthread_sigmask.
        if name ~= "uselocale" or path ~= "csrc/image/job.c" then never(path, { name }) end
      end
      never(path, printing)
      never(path, ending)
    end
  end)

  it("a child before its exec calls nothing but what its own file holds", function()
    local build = os.getenv("FCPROC_SPEC_BUILD")
    for name in support.sh{ "nm", "-u", build .. "/obj/core/child.o" }:gmatch("U (%S+)") do
      -- A sanitizer registers the file's data, before main.
      assert.is_true(name == "_GLOBAL_OFFSET_TABLE_" or name:match("^__asan_") ~= nil, name)
    end
  end)

  it("the binding makes no system call and knows no library below the core", function()
    for _, path in ipairs(files(true, "csrc/lua/*.[ch]", "csrc/include/fcproc_lua.h")) do
      for _, name in ipairs(includes(support.read_file(path))) do
        assert.is_nil(name:match("^netlink/") or name:match("^curl/") or name:match("private")
          or name:match("netlink%.h$") or name:match("^linux/"), path .. " includes " .. name)
      end
      never(path, forbidden_in_binding)
      never(path, printing)
      never(path, ending)
    end
  end)

  it("the binding checks every string and integer in one place, and cuts none", function()
    for _, path in ipairs(files(true, "csrc/lua/*.[ch]")) do
      local code = c_code(support.read_file(path))
      if path ~= "csrc/lua/arguments.c" and path ~= "csrc/lua/binding.c" then -- which names types
        never(path, words"luaL_checkstring luaL_optstring lua_tostring")
      end
      for cast in code:gmatch("%([%a_][%w_]*%)luaL?_%a+") do
        assert.is_true(cast:find("^%(int64_t%)") ~= nil or cast:find("^%(uint64_t%)") ~= nil,
          path .. ": " .. cast)
      end
    end
  end)

  it("a host knows the public headers only, and so do the rooms to come", function()
    local function judge(room, path)
      local found = not_allowed(room, path, support.read_file(path))
      assert.are.equal("", table.concat(found, " "), path .. " includes")
    end
    for room in pairs(rooms) do
      for _, path in ipairs(files(false, "csrc/" .. room .. "/*.[ch]")) do judge(room, path) end
    end
    for _, path in ipairs(files(true, "examples/*.c")) do judge("host", path) end
  end)

  it("no object of a room uses one that uses it", function()
    local core, lua, image = uses("core"), uses("lua"), uses("image")
    for _, graph in ipairs{ core, lua, image } do assert.is_nil(circle(graph)) end
    assert.is_truthy(core.gate.process and lua.core.client and image.edit.place) -- what there is, is seen
  end)

  it("no two rooms that a host may link together give one name to two things", function()
    local seen = {}
    for _, library in ipairs{ "libfcproc.a", "libfcproc-image.a" } do
      local path = os.getenv("FCPROC_SPEC_BUILD") .. "/" .. library
      for name in support.sh{ "nm", path }:gmatch(" [TDBR] (%S+)") do
        assert.is_nil(seen[name], name .. " is in both")
        seen[name] = true
      end
    end
    assert.is_true(seen.fcproc_image_put and seen.fcproc_spawn)
  end)

  it("a Lua file asks for nothing above it", function()
    for _, path in ipairs(files(true, "lua/fcproc/*.lua")) do
      local room = path:match("^lua/fcproc/(%l+)")
      local over_all = room == "doctor" or room == "cli" -- these may use the facade too
      local top = room == "cli" or path == "lua/fcproc/doctor.lua"
      local code = lua_code(support.read_file(path))
      for _, module in ipairs(requires(code)) do
        assert.is_true(may_ask(room, module:match("^fcproc%.(%l+)")), path .. " requires " .. module)
        assert.is_true(module ~= "fcproc.imagecore" or room == "image", path .. " requires " .. module)
        assert.is_true(module:match("^fcproc%.") ~= nil or module == "cjson.safe"
          or path == "lua/fcproc/waiters.lua" or (module == "argparse" and top)
          or (over_all and module == "fcproc"),
          path .. " requires " .. module)
      end
      for _, call in ipairs{ "os%.execute", "io%.popen", "os%.exit", "os%.setlocale", "print%(",
        "io%.write", "io%.stderr", "io%.stdout" } do
        assert.is_nil(not top and (" " .. code):match("[^%w_.]" .. call) or nil, path)
      end
    end
  end)

  it("a VM's log and metrics, which a jail's user may replace, are used by outputs.lua alone", function()
    for _, path in ipairs(files(true, "lua/fcproc/*.lua", "lua/fcproc/*/*.lua")) do
      for line in lua_code(support.read_file(path)):gmatch("[^\n]+") do
        local used = line:find("files%.log") or line:find("files%.metrics")
        assert.is_falsy(used and line:find("[%w_]%("), path .. ": " .. line)
      end
    end
  end)

  it("no event loop is loaded until a context asks for it", function()
    local dir <close> = support.folder()
    support.write_file(dir:file("load.lua"), [[
      local fcproc = require "fcproc"
      assert(fcproc.new()):close()
      local ctx = assert(fcproc.context{ waiter = "poll" })
      assert(fcproc.new()):wait_for_path("/", 1, "x", ctx)
      for name in pairs(package.loaded) do
        if name:match("^_?cqueues") or name:match("^luv") then error(name .. " was loaded") end
      end
      assert(fcproc.context{ waiter = "cqueues" })
      assert(fcproc.context{ waiter = "luv" })
      assert(not package.loaded.cqueues and not package.loaded.luv)
      -- A global that a file of ours had set would be everybody's.
      for name in pairs(_G) do
        assert(({ arg = 1, assert = 1, collectgarbage = 1, coroutine = 1, debug = 1, dofile = 1,
          error = 1, getmetatable = 1, io = 1, ipairs = 1, load = 1, loadfile = 1, math = 1,
          next = 1, os = 1, package = 1, pairs = 1, pcall = 1, print = 1, rawequal = 1, rawget = 1,
          rawlen = 1, rawset = 1, require = 1, select = 1, setmetatable = 1, string = 1, table = 1,
          tonumber = 1, tostring = 1, type = 1, utf8 = 1, warn = 1, xpcall = 1, _G = 1,
          _VERSION = 1 })[name], name)
      end
    ]])
    support.sh{ support.lua, dir:file("load.lua") }
  end)

  it("the top level holds what the design names and nothing else", function()
    local known = {}
    for _, name in ipairs(words[[csrc lua spec rockspec examples doc Makefile README.md LICENSE
      CHANGELOG.md]]) do
      known[name] = true
    end
    for _, path in ipairs(files(true, ".")) do
      local top = path:match("^[^/]+")
      assert.is_true(known[top] or top:match("^%.") ~= nil, top)
    end
  end)
end)

describe("the lists", function()
  it("of error codes agree: header, Lua and the manual", function()
    local header, lua, manual = {}, {}, {}
    local text = support.read_file("csrc/include/fcproc.h"):match("#define FCPROC_ERROR_LIST.-\n\n")
    local last = 0
    for name, number, code, meaning in
      text:gmatch('X%((%u[%u_]*), (%d+), "([%l_]+)",%s*"([^"]+)"%)') do
      header[#header + 1] = ("%s %s %s"):format(name, code, meaning)
      assert.are.equal(last + 1, tonumber(number)) -- each its own, none left out
      last = tonumber(number)
    end
    local _, entries = text:gsub("X%(%u", "")
    assert.are.equal(entries, #header)
    for _, entry in ipairs(fcproc.codes) do
      lua[#lua + 1] = ("%s %s %s"):format(entry.name, entry.code, entry.meaning)
      assert.are.equal(entry.code, fcproc["ERR_" .. entry.name].code)
    end
    for code, name, meaning in support.read_file("doc/errors.md")
      :gmatch("| `([%l_]+)` | `ERR_([%u_]+)` | ([^|\n]+) |") do
      manual[#manual + 1] = ("%s %s %s"):format(name, code, meaning)
    end
    assert.are.same(header, lua)
    assert.are.same(header, manual)
    for name in pairs(fcproc) do
      local short = name:match("^ERR_(.*)")
      assert.is_true(not short or text:find("X(" .. short .. ",", 1, true) ~= nil, name)
    end
  end)

  it("of codes: every one that a Lua file makes or compares is known", function()
    local known = {}
    for _, entry in ipairs(fcproc.codes) do known[entry.code] = true end
    for _, path in ipairs(files(true, "lua/fcproc/*.lua")) do
      for code in support.read_file(path):gmatch('code [=~]?= "([^"]+)"') do
        assert.is_true(known[code], path .. ": " .. code)
      end
    end
  end)

  it("of sources: the Makefile names every file there is", function()
    local makefile = support.read_file("Makefile"):gsub("\\\n%s*", " ")
    for variables, pattern in pairs{ CORE = "csrc/core/(%l+)%.c", BINDING = "csrc/lua/(%l+)%.c",
      ["IMAGE IMAGE_BINDING"] = "csrc/image/([%l%d]+)%.c", AGENT = "csrc/agent/(%l+)%.c",
      LUA_FILES = "lua/fcproc/([%l/]+)%.lua" } do
      local named = {}
      for _, variable in ipairs(words(variables)) do
        for _, name in ipairs(words(makefile:match("\n" .. variable .. " := ([^\n]+)"))) do
          named[name] = true
        end
      end
      for _, path in ipairs(files(true, "csrc/core", "csrc/lua", "csrc/image", "csrc/agent",
        "lua/fcproc")) do
        local name = path:match("^" .. pattern .. "$")
        -- host.c belongs to libfcproc-lua alone.
        assert.is_true(not name or named[name] or path == "csrc/lua/host.c", path)
      end
    end
  end)

  it("of versions: one number", function()
    local version = support.read_file("Makefile"):match("VERSION := (%S+)")
    assert.are.equal(version, fcproc.VERSION)
  end)
end)
