-- A fake API server for what the real Firecracker can't be made to do: it hangs, lies and breaks
-- off. fake_api.lua SOCKET MODE. It counts connections, which the mode "keep" answers with.

local uv = require "luv"

local path, mode = arg[1], arg[2]
local connections = 0

local function http(status, body, extra)
  return ("HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s"):format(status, #body, extra or "", body)
end

-- Each takes the client and answers one request.
local modes = {
  silent = function() end,
  garbage = function(client)
    client:write("\1\2\3 this is no HTTP \255\254\r\n\r\n", function() client:close() end)
  end,
  bare_text = function(client) client:write("hello\n", function() client:close() end) end,
  half_headers = function(client)
    client:write("HTTP/1.1 200 OK\r\nContent-Le", function() client:close() end)
  end,
  half_body = function(client)
    client:write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":", function() client:close() end)
  end,
  slams = function(client) client:close() end,
  many_headers = function(client)
    client:write("HTTP/1.1 200 OK\r\n" .. ("X-Padding: " .. ("y"):rep(1000) .. "\r\n"):rep(10000))
  end,
  endless_header = function(client)
    client:write("HTTP/1.1 200 OK\r\nX-Padding: " .. ("y"):rep(10 * 1024 * 1024))
  end,
  huge_body = function(client) client:write(http("200 OK", ("z"):rep(9 * 1024 * 1024))) end,
  too_many = function(client)
    client:write(http("503 Service Unavailable", '{ "error": "Too many open connections" }',
      "Connection: close\r\n"))
  end,
  fault = function(client) client:write(http("400 Bad Request", '{"fault_message":"no such thing"}')) end,
  wordless = function(client) client:write(http("500 Internal Server Error", "")) end,
  no_json = function(client) client:write(http("200 OK", "{oops")) end,
  nothing = function(client) client:write("HTTP/1.1 204 \r\n\r\n") end,
  keep = function(client) client:write(http("200 OK", ('{"connections":%d}'):format(connections))) end,
  closes_after = function(client)
    client:write(http("200 OK", ('{"connections":%d}'):format(connections)), function()
      client:close()
    end)
  end,
  slow = function(client)
    local timer = uv.new_timer()
    timer:start(300, 0, function()
      timer:close()
      client:write(http("200 OK", "{}"))
    end)
  end,
}

local answer = assert(modes[mode == "late" and "keep" or mode], "unknown mode")
local server = uv.new_pipe(false)
assert(server:bind(path))

local function listen()
  server:listen(16, function()
    local client = uv.new_pipe(false)
    server:accept(client)
    connections = connections + 1
    local request = ""
    client:read_start(function(err, chunk)
      if err or not chunk then
        if not client:is_closing() then client:close() end
        return
      end
      request = request .. chunk
      if request:find("\r\n\r\n", 1, true) then
        request = ""
        answer(client)
      end
    end)
  end)
end

if mode == "late" then -- bound, but not listening for a while
  local timer = uv.new_timer()
  timer:start(200, 0, function() timer:close() listen() end)
else
  listen()
end
uv.run()
