-- Whom a request reaches when somebody else may move the socket's file: a link in its place is never
-- followed, and what is meant for one process is sent to no other.

local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local SETTLED = 1.1 -- seconds until a socket that stands there is known by its age

local function ending(process)
  return setmetatable({}, { __close = function()
    process:signal("KILL")
    process:wait(10)
    process:close()
  end })
end

-- A fake server that tells what it was asked: its socket, its process, and what ends it.
local function serve(folder, name)
  local sock = folder:file(name)
  local process = must(fcproc.spawn({ support.lua, "spec/support/fake_api.lua", sock, "mirror" },
    { stdout = "null" }))
  local manager <close> = must(fcproc.new())
  must(manager:wait_for_socket(sock))
  return sock, process, ending(process)
end

local function sleep(seconds) core.poll_many({}, {}, seconds) end

local function replace(path, by)
  support.sh{ "mv", "-T", by, path }
end

describe("a symbolic link in the place of a socket", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is not followed by what knows only a path", function()
    local folder <close> = support.folder()
    local sock, _, server <close> = serve(folder, "victim.sock")
    assert.is_truthy(server)
    local manager <close> = must(fcproc.new())
    local link = folder:file("link.sock")
    local calls = {
      find_pid = function() return manager:find_pid(link) end,
      open_process = function() return manager:open_process(link) end,
      open_listener = function() return core.open_listener(link) end,
      ["open_listener without SO_PEERPIDFD"] = function()
        return core.open_listener(link, core.without.peerpidfd)
      end,
      wait_for_socket = function() return manager:wait_for_socket(link, 10) end,
      request = function() return fcproc.request(link, "GET", "/") end,
      send_ctrl_alt_del = function() return manager:send_ctrl_alt_del(link) end,
      client = function()
        local client <close> = must(fcproc.client(link))
        return client:request("GET", "/")
      end,
    }
    for _, target in ipairs{ sock, "victim.sock", folder:file("nothing") } do
      support.sh{ "ln", "-sfn", target, link }
      for _, wait in ipairs{ 0, SETTLED } do
        sleep(wait)
        for name, call in pairs(calls) do
          local err = fails("conflict", call())
          assert.is_truthy(err.message:find("symbolic link", 1, true), name .. ": " .. err.message)
          assert.is_truthy(err.message:find(link, 1, true), name .. ": " .. err.message)
        end
        assert.are.equal(0, manager:resolve_pid(nil, link))
      end
    end
    -- All connections that came were those of serve and of this request.
    assert.are.equal(1, must(fcproc.request(sock, "GET", "/")).requests)
  end)

  it("is not followed by a client whose socket was replaced by it, and its connection is not kept",
    function()
      local folder <close> = support.folder()
      local sock, _, first <close> = serve(folder, "api.sock")
      local victim, _, second <close> = serve(folder, "victim.sock")
      assert.is_truthy(first and second)
      local client <close> = must(fcproc.client(sock))
      assert.are.equal(1, must(client:request("GET", "/")).requests)
      support.sh{ "ln", "-s", victim, folder:file("link") }
      replace(sock, folder:file("link"))
      fails("conflict", client:request("GET", "/"))
      assert.are.equal(1, must(fcproc.request(victim, "GET", "/")).requests)
    end)

  it("is never taken for the socket, however fast the two change places", function()
    local folder <close> = support.folder()
    local victim, victims, first <close> = serve(folder, "victim.sock")
    local sock, own, second <close> = serve(folder, "api.sock")
    assert.is_truthy(first and second)
    support.sh{ "ln", "-s", victim, folder:file("link") }
    sleep(SETTLED)
    local manager <close> = must(fcproc.new())
    assert.are.equal(own:pid(), must(manager:find_pid(sock)))
    local flipping = must(fcproc.spawn{ "python3", "spec/support/flip.py", sock, folder:file("link") })
    local _ <close> = ending(flipping)
    local found, refused, client = 0, 0, must(fcproc.client(sock, own))
    local closing <close> = client -- luacheck: ignore closing
    local deadline = core.now() + 2
    repeat
      local pid, err = manager:find_pid(sock)
      assert.are_not.equal(victims:pid(), pid)
      if pid then found = found + 1 else refused = refused + (err.code == "conflict" and 1 or 0) end
      pid, err = client:request("GET", "/")
      assert.is_true(pid ~= nil or err.code == "conflict", err and tostring(err))
    until core.now() > deadline
    assert.is_true(flipping:alive())
    assert.is_true(found > 10 and refused > 10, ("%d found, %d refused"):format(found, refused))
    assert.are.equal(1, must(fcproc.request(victim, "GET", "/")).requests)
  end)
end)

describe("a socket that has taken the place of another", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is connected to, and no kept connection is taken for one to it", function()
    local folder <close> = support.folder()
    local sock, _, first <close> = serve(folder, "api.sock")
    local other, _, second <close> = serve(folder, "other.sock")
    assert.is_truthy(first and second)
    local client <close> = must(fcproc.client(sock))
    local asked = { 0, 0 }
    for round = 1, 8 do
      local which = round % 2 + 1
      -- renamed there and back: each time the other one is behind the client's path
      support.sh{ "mv", sock, folder:file("between") }
      support.sh{ "mv", other, sock }
      support.sh{ "mv", folder:file("between"), other }
      asked[which] = asked[which] + 1
      assert.are.equal(asked[which], must(client:request("GET", "/")).requests)
    end
  end)

  it("that is gone leaves the client its server", function()
    local folder <close> = support.folder()
    local sock, _, server <close> = serve(folder, "api.sock")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock))
    must(client:request("GET", "/"))
    must(os.remove(sock))
    assert.are.equal(2, must(client:request("GET", "/")).requests)
    fails("not_found", fcproc.request(sock, "GET", "/"))
  end)
end)

describe("a client of one process", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("asks it, over one connection", function()
    local folder <close> = support.folder()
    local sock, process, server <close> = serve(folder, "api.sock")
    assert.is_truthy(server)
    local client <close> = must(fcproc.client(sock, process))
    local connections = must(client:request("GET", "/")).connections
    for i = 2, 5 do
      local seen = must(client:request("PUT", "/", { n = i }))
      assert.are.same({ connections, i }, { seen.connections, seen.requests })
    end
  end)

  it("sends nothing to another, and says which that is", function()
    local folder <close> = support.folder()
    local sock, process, first <close> = serve(folder, "api.sock")
    local other, stranger, second <close> = serve(folder, "other.sock")
    assert.is_truthy(first and second)
    local client <close> = must(fcproc.client(sock, process))
    must(client:request("GET", "/"))
    replace(sock, other)
    for _ = 1, 3 do
      local err = fails("not_same_process", client:request("PUT", "/actions", { a = 1 }))
      assert.are.equal(stranger:pid(), err.pid)
      assert.are.equal(sock, err.path)
      for _, text in ipairs{ "PUT /actions", sock, "pid " .. stranger:pid(), "pid " .. process:pid(),
        "nothing was sent" } do
        assert.is_truthy(err.message:find(text, 1, true), err.message)
      end
    end
    assert.are.equal(1, must(fcproc.request(sock, "GET", "/")).requests)
  end)

  it("knows its own again by the socket's other names, and holds the process by itself", function()
    local folder <close> = support.folder()
    local sock, process, server <close> = serve(folder, "api.sock")
    assert.is_truthy(server)
    support.sh{ "ln", sock, folder:file("hard.sock") }
    local handle = must(fcproc.process(process:pid()))
    local client <close> = must(fcproc.client(folder:file("hard.sock"), handle))
    handle:close()
    collectgarbage()
    must(client:request("GET", "/"))
  end)

  it("is told when that has ended, and does not ask its heir", function()
    local folder <close> = support.folder()
    local sock, process, server <close> = serve(folder, "api.sock")
    local heir_sock, heir, second <close> = serve(folder, "heir.sock")
    assert.is_truthy(server and heir and second)
    local client <close> = must(fcproc.client(sock, process))
    must(client:request("GET", "/"))
    process:signal("KILL")
    must(process:wait(10))
    replace(sock, heir_sock)
    local err = fails("not_found", client:request("GET", "/"))
    assert.are.equal(process:pid(), err.pid)
    assert.is_truthy(err.message:find("has ended", 1, true), err.message)
    assert.are.equal(1, must(fcproc.request(sock, "GET", "/")).requests)
  end)

  it("takes a process only", function()
    local folder <close> = support.folder()
    assert.has_error(function() fcproc.client(folder:file("x"), 42) end)
  end)
end)
