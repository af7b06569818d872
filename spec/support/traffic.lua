-- Servers and clients of TCP and UDP for the specs of published ports: a server answers with the address
-- that it sees its client under.

local support = require "spec.support"
local fcproc = require "fcproc"

local must = support.must
local M = {}

local SERVER = [[
import selectors, socket, sys
chosen = selectors.DefaultSelector()
for text in sys.argv[1:]:
    kind, host, port = text.split(",")
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, int(port)))
    if kind == "tcp":
        s.listen(64)
    chosen.register(s, selectors.EVENT_READ, kind)
print("listening", flush=True)
while True:
    for key, _ in chosen.select():
        if key.data == "tcp":
            stream, peer = key.fileobj.accept()
            stream.sendall(peer[0].encode())
            stream.close()
        else:
            _, peer = key.fileobj.recvfrom(2000)
            key.fileobj.sendto(peer[0].encode(), peer)
]]

-- One line for each thing asked, all at once: what came back, or "-".
local CLIENT = [[
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def ask(text):
    kind, host, port, *source = text.split(",")
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        s.settimeout(float(sys.argv[1]))
        if source:
            s.bind((source[0], int(source[1]) if source[1:] else 0))
        s.connect((host, int(port)))
        if kind == "udp":
            s.send(b"who")
        return s.recv(100).decode() or "-"
    except OSError:
        return "-"
with ThreadPoolExecutor(64) as pool:
    for answer in pool.map(ask, sys.argv[2:]):
        print(answer)
]]

---Servers in a namespace, until the end of the block: `local servers <close> = traffic.serve(netns, ...)`.
---@param netns userdata
---@param ... string  "tcp,0.0.0.0,80"
function M.serve(netns, ...)
  local dir = support.folder()
  local server = must(fcproc.spawn({ "python3", "-c", SERVER, ... },
    { netns = netns, stdout = { file = dir:file("log") }, stderr = { file = dir:file("log") } }))
  local function close()
    server:signal("KILL")
    server:wait(10)
    server:close()
    getmetatable(dir).__close(dir)
  end
  local ok, err = pcall(support.eventually, "the servers listen", function()
    return (support.read_file(dir:file("log")) or ""):find("listening", 1, true)
  end)
  if not ok then
    err = err .. "\n" .. (support.read_file(dir:file("log")) or "")
    close()
    error(err, 0)
  end
  return setmetatable({ pid = server:pid() }, { __close = close })
end

local function ask(netns, patience, ...)
  return support.collect(support.sh({ "python3", "-c", CLIENT, patience, ... }, { netns = netns }), "[^\n]+")
end

---What comes back from each, in order: the address that the server sees, or "-".
---@param netns userdata
---@param ... string  "tcp,127.0.0.1,8080"; with a fourth part it is sent from this address, with a
---                    fifth from this port
function M.ask(netns, ...) return ask(netns, "1", ...) end

---Fails when any of them answers.
function M.none(netns, ...)
  local asked = { ... }
  for i, answer in ipairs(ask(netns, "0.2", ...)) do
    if answer ~= "-" then error(("%s answers: %s"):format(asked[i], answer), 2) end
  end
end

return M
