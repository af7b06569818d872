-- A fake API server for what the real Firecracker can't be made to do: it hangs, lies and breaks
-- off. fake_api.lua SOCKET MODE. Where it answers with JSON, that tells how many connections there
-- were so far, how many late answers found theirs closed, and what was asked. As the fake of a VMM that
-- was broken into it takes Firecracker's arguments:
-- fake_api.lua vmm MODE --api-sock SOCKET --log-path LOG ...

local cjson = require "cjson"
local uv = require "luv"

local path, mode = arg[1], arg[2]
if path == "vmm" then
  for i = 3, #arg do
    if arg[i] == "--api-sock" then path = arg[i + 1] end
    if arg[i] == "--log-path" then
      local log <close> = assert(io.open(arg[i + 1], "a"))
      log:write("Running Firecracker v1.12.1\nSuccessfully started microvm that was configured\n")
    end
  end
end
local connections, requests, lost = 0, 0, 0

local function http(status, body, extra)
  return ("HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s"):format(status, #body, extra or "", body)
end

local function mirror(request)
  request.connections, request.requests, request.lost = connections, requests, lost
  return http("200 OK", cjson.encode(request))
end

-- Those that always write the same, and those that then hang up.
local text = {
  many_headers = "HTTP/1.1 200 OK\r\n" .. ("X-Padding: " .. ("y"):rep(1000) .. "\r\n"):rep(10000),
  endless_header = "HTTP/1.1 200 OK\r\nX-Padding: " .. ("y"):rep(10 * 1024 * 1024),
  huge_body = http("200 OK", ("z"):rep(9 * 1024 * 1024)),
  fault = http("400 Bad Request", '{"fault_message":"no such thing"}'),
  wordless = http("500 Internal Server Error", ""),
  elsewhere = http("302 Found", "over there", "Location: http://localhost/other\r\n"),
  no_json = http("200 OK", "{oops"),
  nothing = "HTTP/1.1 204 \r\n\r\n",
  object = http("200 OK", "{}"),
  list = http("200 OK", "[]"),
  filled_list = http("200 OK", "[1,2]"),
  null = http("200 OK", "null"),
  no = http("200 OK", "false"),
  number = http("200 OK", "5"),
  word = http("200 OK", '"Running"'),
  wrong_types = http("200 OK", '{"state":7,"vmm_version":{},"id":[]}'),
  nulls = http("200 OK", '{"state":null,"vmm_version":null}'),
  unknown_state = http("200 OK", '{"state":"Melting","vmm_version":"1.12.1"}'),
  no_version = http("200 OK", '{"state":"Running","vmm_version":"\\u001b[2J"}'),
  deep = http("200 OK", ("["):rep(5000) .. ("]"):rep(5000)),
  escapes = http("400 Bad Request", '{"fault_message":"\\u001b]0;owned\\u0007 no"}'),
  bad_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n{}\r\n",
  half_time = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":",
}
local last_text = {
  slams = "",
  garbage = "\1\2\3 this is no HTTP \255\254\r\n\r\n",
  bare_text = "hello\n",
  half_status = "HTTP/1.",
  half_headers = "HTTP/1.1 200 OK\r\nContent-Le",
  half_interim = "HTTP/1.1 100 Continue\r\n\r\n",
  half_behind_interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Le",
  half_body = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":",
  too_many = http("503 Service Unavailable", '{ "error": "Too many open connections" }',
    "Connection: close\r\n"),
}

local function after(milliseconds, fn)
  local timer = uv.new_timer()
  timer:start(milliseconds, 0, function()
    timer:close()
    fn()
  end)
end

-- Each takes the client and what it asked.
local modes = {
  silent = function() end,
  drip = function(client) -- a byte at a time, for ever
    client:write("HTTP/1.1 200 OK\r\nX-Padding: ")
    local timer = uv.new_timer()
    timer:start(0, 5, function()
      if client:is_closing() then timer:close() else client:write("y") end
    end)
  end,
  endless = function(client) -- a body without an end
    client:write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    local timer = uv.new_timer()
    timer:start(0, 5, function()
      if client:is_closing() then timer:close() else client:write("1,") end
    end)
  end,
  running = function(client) -- it is sound, but obeys nobody
    client:write(http("200 OK", '{"id":"x","state":"Running","vmm_version":"1.12.1"}'))
  end,
  stuck = function(client, request) -- paused, and stays so
    client:write(request.method ~= "GET" and http("400 Bad Request", '{"fault_message":"no"}')
      or http("200 OK", '{"id":"x","state":"Paused","vmm_version":"1.12.1"}'))
  end,
  mirror = function(client, request) client:write(mirror(request)) end,
  interim = function(client, request)
    client:write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n"
      .. mirror(request))
  end,
  twice = function(client, request) client:write(mirror(request) .. mirror(request)) end,
  closes_after = function(client, request)
    client:write(mirror(request), function() client:close() end)
  end,
  -- The first is answered late, as on a busy host: whoever asked may be gone by then.
  slow_first = function(client, request)
    if requests > 1 then
      client:write(mirror(request))
      return
    end
    after(300, function()
      if client:is_closing() then lost = lost + 1 else client:write(mirror(request)) end
    end)
  end,
}

-- A Firecracker with a large guest, or a slow disk: while it writes a snapshot, or goes on, it answers
-- nothing, and what came meanwhile is answered in turn. arg[3] and arg[4]: seconds of each.
local state, queue, working = "Running", {}, false
local function answer_in_turn(seconds)
  local first = table.remove(queue, 1)
  if not first then
    working = false
    return
  end
  working = true
  after(math.floor(seconds(first.request) * 1000), function()
    first.done(first.request)
    local answers = { ["/"] = { id = "fake", state = state, vmm_version = "1.12.1",
      app_name = "Firecracker" }, ["/machine-config"] = { huge_pages = "2M" } }
    local reply = answers[first.request.target]
    reply = reply and http("200 OK", cjson.encode(reply)) or "HTTP/1.1 204 \r\n\r\n"
    if not first.client:is_closing() then first.client:write(reply) end
    answer_in_turn(seconds)
  end)
end
local function write_state(request)
  local body = request.body ~= "" and cjson.decode(request.body) or {}
  if request.target == "/vm" then state = body.state == "Resumed" and "Running" or body.state end
  for _, name in ipairs{ "snapshot_path", "mem_file_path" } do
    local file <close> = body[name] and io.open(body[name], "w")
    if file then file:write("written") end
  end
end
function modes.works_slowly(client, request)
  queue[#queue + 1] = { client = client, request = request, done = write_state }
  if working then return end
  answer_in_turn(function(next_one)
    if next_one.target == "/snapshot/create" then return tonumber(arg[3]) end
    return next_one.body:find("Resumed", 1, true) and tonumber(arg[4]) or 0
  end)
end
modes.late = modes.mirror
for name, bytes in pairs(text) do modes[name] = function(client) client:write(bytes) end end
for name, bytes in pairs(last_text) do
  modes[name] = function(client) client:write(bytes, function() client:close() end) end
end

local answer = assert(modes[mode], "unknown mode")
local server = uv.new_pipe(false)
assert(server:bind(path))

-- The request at the beginning of the bytes, or nil; and what follows it.
local function take_request(bytes)
  local head, rest = bytes:match("^(.-\r\n)\r\n(.*)$")
  if not head then return nil, bytes end
  local length = tonumber(head:match("\r\nContent%-Length: (%d+)\r\n") or 0)
  if #rest < length then return nil, bytes end
  local method, target = head:match("^(%S+) (%S+)")
  return { method = method, target = target, body = rest:sub(1, length), head = head },
    rest:sub(length + 1)
end

local function listen()
  server:listen(16, function()
    local client = uv.new_pipe(false)
    server:accept(client)
    connections = connections + 1
    local unread = ""
    client:read_start(function(err, chunk)
      if err or not chunk then
        if not client:is_closing() then client:close() end
        return
      end
      local request
      request, unread = take_request(unread .. chunk)
      if request then
        requests = requests + 1
        answer(client, request)
      end
    end)
  end)
end

if mode == "late" then after(100, listen) else listen() end -- late: bound, but not listening yet
uv.run()
