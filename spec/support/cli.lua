-- Runs the fcproc command as a process, in a world's network namespace and runtime folder.

local cjson = require "cjson"
local support = require "spec.support"
local fcproc = require "fcproc"
local json = require "fcproc.json"

local M = {}

local KEPT = { "LUA_PATH", "LUA_CPATH", "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS" }

-- The script as it is in the checkout, run by the interpreter of this suite.
local function argv_of(args)
  return { support.lua, "lua/bin/fcproc", table.unpack(args) }
end

---As support.world; VMs that a failed test left in the background end with it.
function M.world()
  local world = support.world()
  local close = getmetatable(world).__close
  return setmetatable(world, { __close = function(self)
    for _, entry in ipairs(fcproc.vm.list(self.manager) or {}) do
      local vm = entry.pid and fcproc.vm.adopt(self.manager, entry.id)
      if vm then vm:kill() end
    end
    close(self)
  end })
end

---The environment that the command gets.
function M.env(world, more)
  local env = { PATH = os.getenv("PATH"), FCPROC_RUNTIME_DIR = world.folder:file("run"),
    FCPROC_FIRECRACKER = support.firecracker() }
  for _, name in ipairs(KEPT) do env[name] = os.getenv(name) end
  for name, value in pairs(more or {}) do env[name] = value end
  return env
end

---Runs it to its end: { status, out, err }. opts.before: a command that executes it.
function M.run(world, args, opts)
  opts = opts or {}
  local argv = argv_of(args)
  if opts.before then argv = table.move(argv, 1, #argv, #opts.before + 1, { table.unpack(opts.before) }) end
  local result, err = fcproc.runner():run(argv, { env = M.env(world, opts.env),
    netns = world.netns, timeout = 60, input = opts.input, uid = opts.uid, gid = opts.gid })
  result = result or err
  return { status = result.status, out = result.stdout, err = result.stderr }
end

---The same with a status that must be 0. Its stdout.
function M.ok(world, ...)
  local done = M.run(world, { ... })
  if done.status ~= 0 then
    error(("fcproc %s: status %s\n%s%s"):format(table.concat({ ... }, " "), done.status, done.out,
      done.err), 2)
  end
  return done.out
end

---The same with --json, decoded.
function M.json(world, ...)
  return json.plain(cjson.decode(M.ok(world, "--json", ...)))
end

---The same with a status that must be this one. Its stdout and stderr.
function M.fails(world, status, ...)
  local done = M.run(world, { ... })
  if done.status ~= status then
    error(("fcproc %s: status %s, not %d\n%s%s"):format(table.concat({ ... }, " "), done.status,
      status, done.out, done.err), 2)
  end
  return done.out, done.err
end

---Starts it and goes on. out and err are files; closing kills it. opts: stdin, stdout, env; before, a command
---that executes it, such as { "nohup" }.
function M.start(world, args, opts)
  M.count = (M.count or 0) + 1
  local started = { out = world.folder:file("out" .. M.count), err = world.folder:file("err" .. M.count) }
  local argv = table.move(opts and opts.before or {}, 1, 9, 1, {})
  table.move(argv_of(args), 1, #args + 2, #argv + 1, argv)
  started.process = support.must(fcproc.spawn(argv, { env = M.env(world, opts and opts.env),
    netns = world.netns, stdin = opts and opts.stdin, stdout = opts and opts.stdout or { file = started.out },
    stderr = { file = started.err } }))
  ---Its exit status.
  function started:wait()
    local gone, exit = self.process:wait(20)
    if not gone then error("it has not ended: " .. support.read_file(self.err), 2) end
    return exit.status or "signal " .. exit.signal
  end
  function started:shows(text)
    support.eventually(("'%s' on stdout of %s"):format(text, table.concat(args, " ")), function()
      return (support.read_file(self.out) or ""):find(text, 1, true)
    end, 20)
  end
  return setmetatable(started, { __close = function(self)
    if self.process:alive() then self.process:signal("KILL") end
    self.process:wait(10)
    self.process:close()
  end })
end

return M
