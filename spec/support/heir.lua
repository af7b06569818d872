-- A listener dies, its socket lives on in its heir's hands, and a stranger gets its number: without
-- SO_PEERPIDFD the number is all that is known of it. Run inside a PID namespace of its own, where
-- ns_last_pid may be written: heir.lua FOLDER. Prints "ok".

local core = require "fcproc.core"
local fcproc = require "fcproc"
local take_number = require "spec.support.number"

local sock, said = arg[1] .. "/api.sock", arg[1] .. "/said"

local function spawn(argv, out)
  return assert(fcproc.spawn(argv, { stdout = out or "null" }))
end

-- It listens, and a child of its own has the socket, too.
local listener = spawn({ "python3", "-c", [[
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(50)
heir = os.fork()
if heir == 0:
    time.sleep(60)
print(heir, flush=True)
time.sleep(60)]], sock }, { file = said })
local pid = listener:pid()
repeat core.poll_many({}, {}, 0.01) until (core.read_file(said) or ""):find("\n")
local heir = assert(fcproc.process(assert(math.tointeger(tonumber((core.read_file(said)))))))
assert(core.listener_pid(sock, core.without.peerpidfd) == pid)
assert(core.listener_pid(sock) == pid)
assert(listener:signal("KILL"))
assert(listener:wait(10)) -- reaps it: the number is free
for _, without in ipairs{ 0, core.without.peerpidfd } do
  local none, err = core.listener_pid(sock, without)
  assert(not none and err.code == "not_found", tostring(err))
end

local stranger = take_number(pid)
-- It began after the socket was bound, by more than the clocks may be off.
assert(fcproc.runner():run{ "touch", "-d", "10 seconds ago", sock })
for _, without in ipairs{ 0, core.without.peerpidfd } do
  for _, find in ipairs{ core.listener_pid, core.open_listener } do
    local found, err = find(sock, without)
    assert(not found and err.code == "not_found", tostring(found) .. " " .. tostring(err))
  end
end
for _, one in ipairs{ heir, stranger } do
  one:signal("KILL")
  one:wait(5)
end
print("ok")
