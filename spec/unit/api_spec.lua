-- API requests against the fake server: an exact error for every way to go wrong, no hang, no leak.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

-- A fake server in the mode: its socket, and what ends it at the end of the block.
local function serve(folder, mode)
  local sock = folder:file(mode .. ".sock")
  local process = must(fcproc.spawn({ support.lua, "spec/support/fake_api.lua", sock, mode },
    { stdout = "null" }))
  support.eventually("the fake is there", function()
    return fcproc.runner():run{ "test", "-S", sock } ~= nil
  end)
  if mode ~= "late" then
    local manager <close> = must(fcproc.new())
    must(manager:wait_for_socket(sock))
  end
  return sock, setmetatable({}, { __close = function()
    process:signal("KILL")
    process:wait(10)
    process:close()
  end })
end

describe("a request to a fake server", function()
  before_each(support.before_each)
  after_each(support.after_each)

  local endings = {
    { "garbage", "protocol" }, { "bare_text", "protocol" }, { "half_headers", "protocol" },
    { "half_body", "protocol" }, { "slams", "protocol" }, { "many_headers", "protocol", "too large" },
    { "endless_header", "protocol", "too large" }, { "huge_body", "protocol", "too large" },
    { "no_json", "protocol", "is no JSON" },
    { "too_many", "api", "503: Too many open connections", 503 },
    { "fault", "api", "400: no such thing", 400 }, { "wordless", "api", "500: no reason given", 500 },
  }
  for _, ending in ipairs(endings) do
    local mode, code, text, status = table.unpack(ending)
    it(("that answers in the way '%s' is the error %s"):format(mode, code), function()
      local folder <close> = support.folder()
      local sock, tidy <close> = serve(folder, mode)
      assert.is_truthy(tidy)
      local err = fails(code, fcproc.request(sock, "GET", "/version"))
      assert.are.equal(sock, err.path)
      assert.are.equal(status, code == "api" and err.status or nil)
      assert.is_truthy(not text or err.message:find(text, 1, true), err.message)
      assert.is_truthy(err.message:find("GET /version", 1, true))
    end)
  end

  it("that never answers ends with the context, in either way", function()
    local folder <close> = support.folder()
    local sock, tidy <close> = serve(folder, "silent")
    assert.is_truthy(tidy)
    local ctx <close> = must(fcproc.context{ timeout = 0.1 })
    local err = fails("deadline", fcproc.request(sock, "PUT", "/actions", {}, ctx))
    assert.is_truthy(err.message:find("unknown", 1, true))
    local other <close> = must(fcproc.context())
    local results = fcproc.run{
      function() return fcproc.request(sock, "GET", "/", nil, other) end,
      function() fcproc.runner():run{ "sleep", "0.1" } other:cancel() end,
    }
    fails("cancelled", results[1][1], results[1][2])
  end)

  it("without a body in the answer is true", function()
    local folder <close> = support.folder()
    local sock, tidy <close> = serve(folder, "nothing")
    assert.is_truthy(tidy)
    assert.is_true(must(fcproc.request(sock, "PUT", "/x", { a = 1 })))
  end)

  it("keeps its connection, and makes a new one when the server closed it", function()
    local folder <close> = support.folder()
    local sock, tidy <close> = serve(folder, "keep")
    local client <close> = must(fcproc.client(sock))
    for _ = 1, 3 do
      -- The first connection was the wait for the socket.
      assert.are.equal(2, must(client:request("GET", "/")).connections)
    end
    local sock2, tidy2 <close> = serve(folder, "closes_after")
    local client2 <close> = must(fcproc.client(sock2))
    assert.are.equal(2, must(client2:request("GET", "/")).connections)
    fcproc.runner():run{ "sleep", "0.05" }
    assert.are.equal(3, must(client2:request("GET", "/")).connections)
    assert.is_truthy(tidy and tidy2)
  end)

  it("is made one at a time", function()
    local folder <close> = support.folder()
    local sock, tidy <close> = serve(folder, "slow")
    assert.is_truthy(tidy)
    local client <close> = must(fcproc.client(sock))
    local results = fcproc.run{
      function() return client:request("GET", "/") end,
      function() return client:request("GET", "/") end,
    }
    local n = results[1][1] and 2 or 1
    fails("busy", results[n][1], results[n][2])
    must(results[3 - n][1], results[3 - n][2])
  end)

  it("is tried again while a young socket does not listen yet", function()
    local folder <close> = support.folder()
    local sock, tidy <close> = serve(folder, "late")
    assert.is_truthy(tidy)
    must(fcproc.request(sock, "GET", "/"))
  end)
end)

describe("a request", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("to nobody is not_found, at once for an old socket file", function()
    local folder <close> = support.folder()
    fails("not_found", fcproc.request(folder:file("none.sock"), "GET", "/"))
    fails("not_found", fcproc.request(folder:file("no/folder.sock"), "GET", "/"))
    local sock, tidy = serve(folder, "keep")
    getmetatable(tidy).__close()
    support.sh{ "touch", "-d", "1 hour ago", sock }
    local err = fails("not_found", fcproc.request(sock, "GET", "/"))
    assert.is_truthy(err.message:find("nothing listens", 1, true))
  end)

  it("that can't be one is refused", function()
    local folder <close> = support.folder()
    local client <close> = must(fcproc.client(folder:file("x.sock")))
    fails("invalid", client:request("get", "/"))
    fails("invalid", client:request("GET", "version"))
    fails("invalid", client:request("GET", "/a b"))
    assert.has_error(function() client:request("PUT", "/", { print }) end)
    assert.has_error(function() fcproc.request(42, "GET", "/") end)
  end)
end)
