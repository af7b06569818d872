-- API requests against the fake server: an exact error for every way to go wrong, no hang, no leak.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local loop = require "fcproc.loop"

local must, fails = support.must, support.fails

-- A fake server in the mode: its socket, and what ends it at the end of the block.
local function serve(folder, mode)
  local sock = folder:file(mode .. ".sock")
  local process = must(fcproc.spawn({ support.lua, "spec/support/fake_api.lua", sock, mode },
    { stdout = "null" }))
  local server = setmetatable({}, { __close = function()
    process:signal("KILL")
    process:wait(10)
    process:close()
  end })
  local manager <close> = must(fcproc.new())
  if mode == "late" then
    must(manager:wait_for_path(sock))
  else
    must(manager:wait_for_socket(sock))
  end
  return sock, server
end

local function sleep(seconds) support.sh{ "sleep", tostring(seconds) } end

describe("a request to a server that misbehaves", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local endings = {
    { "slams", "protocol", "Empty reply" },
    { "garbage", "protocol", "HTTP/0.9" },
    { "bare_text", "protocol", "HTTP/0.9" },
    { "half_status", "protocol", "no usable answer" },
    { "half_headers", "protocol", "in the middle of the headers" },
    { "half_interim", "protocol", "Empty reply" },
    { "half_behind_interim", "protocol", "in the middle of the headers" },
    { "half_body", "protocol", "bytes remaining" },
    { "bad_chunk", "protocol", "no usable answer" },
    { "many_headers", "protocol", "too large" },
    { "endless_header", "protocol", "too large" },
    { "huge_body", "protocol", "too large" },
    { "no_json", "protocol", "is no JSON" },
    { "too_many", "api", "was answered with 503: Too many open connections", 503 },
    { "fault", "api", "was answered with 400: no such thing", 400 },
    { "escapes", "api", "was answered with 400: \\x1b]0;owned\\x07 no", 400 },
    { "wordless", "api", "was answered with 500: no reason given", 500 },
    { "elsewhere", "api", "was answered with 302: over there", 302 },
  }
  for _, ending in ipairs(endings) do
    local mode, code, text, status = table.unpack(ending)
    it(("in the way '%s' is the error %s, each time"):format(mode, code), function()
      local folder <close> = support.folder()
      local sock, server <close> = serve(folder, mode)
      assert.is_truthy(server)
      local client <close> = must(fcproc.client(sock))
      local ctx <close> = must(fcproc.context{ timeout = 20 })
      for _ = 1, 2 do
        local err = fails(code, client:request("GET", "/version", nil, ctx))
        assert.is_truthy(err.message:find(text, 1, true), err.message)
        assert.is_truthy(err.message:find("GET /version", 1, true), err.message)
        assert.is_truthy(err.message:find(sock, 1, true), err.message)
        assert.are.equal("api.request", err.op)
        assert.are.equal(sock, err.path)
        if status then assert.are.equal(status, err.status) end
      end
    end)
  end

  for _, mode in ipairs{ "silent", "drip", "half_time" } do
    it(("in the way '%s' ends with the context"):format(mode), function()
      local folder <close> = support.folder()
      local sock, server <close> = serve(folder, mode)
      assert.is_truthy(server)
      local ctx <close> = must(fcproc.context{ timeout = 0.1 })
      local err
      local took = support.seconds(function()
        err = fails("deadline", fcproc.request(sock, "PUT", "/actions", { a = 1 }, ctx))
      end)
      assert.is_true(took >= 0.09 and took < 10, took)
      assert.is_truthy(err.message:find("whether it was carried out is unknown", 1, true))
      assert.are.equal(sock, err.path)
      local other <close> = must(fcproc.context{ timeout = 60 })
      local results = fcproc.run{
        function() return fcproc.request(sock, "GET", "/", nil, other) end,
        function() sleep(0.1) other:cancel() end,
      }
      fails("cancelled", results[1][1], results[1][2])
      fails("cancelled", fcproc.request(sock, "GET", "/", nil, other))
    end)
  end

  it("never takes the late answer to an abandoned request for its own", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "slow_first")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    local ctx <close> = must(fcproc.context{ timeout = 0.1 })
    fails("deadline", client:request("GET", "/first", nil, ctx))
    assert.are.equal("/second", must(client:request("GET", "/second")).target)
    sleep(0.4)
    assert.are.equal("/third", must(client:request("GET", "/third")).target)
  end)

  it("never takes a second answer to the request before for its own", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "twice")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    for i = 1, 3 do
      assert.are.equal("/" .. i, must(client:request("GET", "/" .. i)).target)
    end
  end)

  it("by one client in need of time is busy for the next on that client", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "slow_first")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    local results = fcproc.run{
      function() return client:request("GET", "/a") end,
      function() return client:request("GET", "/b") end,
      function() return fcproc.request(sock, "GET", "/c") end, -- on a client of its own
    }
    local served = results[1][1] and 1 or 2
    must(table.unpack(results[served]))
    local err = fails("busy", table.unpack(results[3 - served], 1, 2))
    assert.is_truthy(err.message:find("waits for another answer", 1, true))
    assert.are.equal("/c", must(table.unpack(results[3])).target)
    must(client:request("GET", "/d")) -- and it is free again
  end)
end)

describe("a request to a server that behaves", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("brings what was asked, and the answer", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "mirror")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    local seen = must(client:request("PUT", "/a/b?c=%20", { x = 1 }))
    assert.are.same({ "PUT", "/a/b?c=%20", '{"x":1}' }, { seen.method, seen.target, seen.body })
    assert.is_truthy(seen.head:find("Content-Type: application/json\r\n", 1, true))
    seen = must(client:request("PATCH", "/", '{"as": "it is"}'))
    assert.are.same({ "PATCH", '{"as": "it is"}' }, { seen.method, seen.body })
    local long = ("w"):rep(200000)
    seen = must(client:request("PUT", "/", { long = long }))
    assert.are.equal('{"long":"' .. long .. '"}', seen.body)
    assert.is_nil(seen.head:find("Expect:", 1, true))
    seen = must(client:request("GET", "/../x"))
    assert.are.same({ "GET", "/../x", "" }, { seen.method, seen.target, seen.body })
    assert.are.equal("DELETE", must(client:request("DELETE", "/x")).method)
  end)

  it("waits for the answer that comes after an interim one", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "interim")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    for i = 1, 2 do assert.are.equal(i, must(client:request("GET", "/")).requests) end
  end)

  it("without a body in its answer is true", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "nothing")
    assert.is_truthy(server)
    assert.is_true(must(fcproc.request(sock, "PUT", "/x", { a = 1 })))
  end)

  it("goes over the client's one connection", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "mirror")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    -- The wait for the socket was a connection too.
    for i = 1, 5 do
      local seen = must(client:request("GET", "/"))
      assert.are.same({ 2, i }, { seen.connections, seen.requests })
    end
    assert.are.equal(3, must(fcproc.request(sock, "GET", "/")).connections)
    assert.are.equal(3, must(client:request("GET", "/")).connections) -- still its own first one
  end)

  it("makes a new connection when the server closed the kept one", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "closes_after")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    for i = 1, 5 do
      assert.are.equal(1 + i, must(client:request("PUT", "/", { n = i })).connections)
      if i < 3 then sleep(0.05) end
    end
  end)

  it("is tried again while a young socket does not listen yet", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "late")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    assert.are.equal(1, must(client:request("GET", "/")).connections)
  end)
end)

describe("a request", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("to nobody is not_found, at once for an old socket file", function()
    local folder <close> = support.folder()
    fails("not_found", fcproc.request(folder:file("none.sock"), "GET", "/"))
    fails("not_found", fcproc.request(folder:file("no/folder.sock"), "GET", "/"))
    local sock, server = serve(folder, "mirror")
    getmetatable(server).__close()
    support.sh{ "touch", "-d", "1 hour ago", sock }
    local ctx <close> = must(fcproc.context{ timeout = 1.5 }) -- a young one is tried for 2 s
    local err = fails("not_found", fcproc.request(sock, "GET", "/", nil, ctx))
    assert.is_truthy(err.message:find("nothing listens on " .. sock, 1, true), err.message)
    assert.are.equal(sock, err.path)
    support.sh{ "touch", "-d", "5 seconds", sock }
    local short <close> = must(fcproc.context{ timeout = 0.1 })
    fails("deadline", fcproc.request(sock, "GET", "/", nil, short))
  end)

  it("to a server whose queue is full is tried until there is room, without much work", function()
    local folder <close> = support.folder()
    local full <close> = support.full_queue(folder)
    local client <close> = must(fcproc.client(full.sock))
    local worked = os.clock()
    fails("wait_timeout", client:request("GET", "/", nil, nil, 0.5))
    assert.is_true(os.clock() - worked < 0.1)
    local results = fcproc.run{
      function() return client:request("GET", "/", nil, nil, 20) end,
      function()
        sleep(0.2)
        full:empty()
      end,
    }
    assert.is_true(must(results[1][1], results[1][2]))
  end)

  -- In a Lua of its own, which has so many descriptors free.
  it("without a descriptor to be had fails at once, and says so", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "mirror")
    assert.is_truthy(server)
    support.write_file(folder:file("script.lua"), [[
      local fcproc = require "fcproc"
      assert(fcproc.request(arg[1], "GET", "/")) -- libcurl is loaded
      local held, failed = {}, 0
      repeat held[#held + 1] = io.open("/dev/null") until not io.open("/dev/null")
      for free = 0, 10 do
        for _ = 1, free do table.remove(held):close() end
        local started = fcproc.now()
        local answer, err = fcproc.request(arg[1], "GET", "/")
        assert(fcproc.now() - started < 5, ("%d free: %s"):format(free, err))
        assert(answer or err.errno == 24, tostring(err)) -- EMFILE
        failed = failed + (answer and 0 or 1)
        collectgarbage()
        repeat held[#held + 1] = io.open("/dev/null") until not io.open("/dev/null")
      end
      assert(failed > 2 and failed < 9, failed)
    ]])
    support.sh({ "prlimit", "--nofile=64", support.lua, folder:file("script.lua"), sock },
      { timeout = 100 })
  end)

  -- The thread that is to read the answer takes two. Without them the connection waits for one.
  it("that is given up without a descriptor to be had leaves its connection to the answer", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "slow_first")
    assert.is_truthy(server)
    support.write_file(folder:file("script.lua"), [[
      local core = require "fcproc.core"
      local fcproc = require "fcproc"
      local function ask(client) return assert(client:request("GET", "/", nil, 20)) end
      local function count() return #assert(core.list_dir("/proc/self/fd")) end
      local client = assert(core.client(arg[1]))
      local op = ask(client)
      assert(op:step() == false)
      local open = count()
      local held = {}
      repeat held[#held + 1] = io.open("/dev/null") until not io.open("/dev/null")
      op:close()
      core.poll_many({}, {}, 0.5)
      for _, file in ipairs(held) do file:close() end
      assert(count() >= open - 1, "closed without an answer")
      local answer = assert(fcproc.request(arg[1], "GET", "/"))
      assert(answer.lost == 0, "the answer found no connection")
      local deadline = fcproc.now() + 10
      while count() > open - 2 and fcproc.now() < deadline do core.poll_many({}, {}, 0.01) end
      assert(count() <= open - 2, "never closed")
    ]])
    support.sh({ "prlimit", "--nofile=64", support.lua, folder:file("script.lua"), sock },
      { timeout = 100 })
  end)

  it("that is given up leaves neither a thread nor, beyond a number, a descriptor", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "silent")
    assert.is_truthy(server)
    local function count(what) return #must(core.list_dir("/proc/self/" .. what)) end
    local threads, descriptors = count("task"), count("fd")
    for _ = 1, 400 do
      local client <close> = must(core.client(sock))
      fails("wait_timeout", loop.complete(nil, client:request("GET", "/", nil, 0.002)))
    end
    assert.is_true(count("task") <= threads + 1, count("task"))
    support.eventually("most of them are kept for a while", function()
      local kept = count("fd") - descriptors
      return kept > 200 and kept <= 260
    end)
  end)

  it("that can't be one is refused before anything is sent", function()
    local folder <close> = support.folder()
    local sock, server <close> = serve(folder, "mirror")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    for _, method in ipairs{ "get", "", "GE T", "GET\r\n" } do
      fails("invalid", client:request(method, "/"))
    end
    for _, target in ipairs{ "version", "", "/a b", "/a\r\nX: y", "/ä" } do
      fails("invalid", client:request("GET", target))
    end
    assert.are.equal(1, must(client:request("GET", "/")).requests)
  end)

  it("of wrong types, or with a body that is no JSON, raises", function()
    local folder <close> = support.folder()
    local client <close> = must(fcproc.client(folder:file("x.sock")))
    for _, body in ipairs{ { print }, { [1] = 1, x = {} , [{}] = 2 }, { 0 / 0 } } do
      assert.has_error(function() client:request("PUT", "/", body) end)
    end
    assert.has_error(function() client:request("PUT", {}) end)
    assert.has_error(function() client:request("PUT", "/", nil, "10") end)
    assert.has_error(function() fcproc.request(42, "GET", "/") end)
    assert.has_error(function() fcproc.client() end)
  end)

  it("on a client that was closed is told so", function()
    local folder <close> = support.folder()
    local client = must(fcproc.client(folder:file("x.sock")))
    client:close()
    fails("closed", client:request("GET", "/"))
  end)
end)
