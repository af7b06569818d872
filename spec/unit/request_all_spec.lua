-- One request to many servers at once: each outcome is a server's own, whatever the others do.

local core = require "fcproc.core"
local fcproc = require "fcproc"
local loop = require "fcproc.loop"
local support = require "spec.support"

local must, fails = support.must, support.fails

local function serve(folder, name, mode)
  local sock = folder:file(name .. ".sock")
  local process = must(fcproc.spawn({ support.lua, "spec/support/fake_api.lua", sock, mode or name },
    { stdout = "null" }))
  local manager <close> = must(fcproc.new())
  must(manager:wait_for_socket(sock))
  return sock, process
end

local function ask(paths, processes, each, ctx)
  return loop.complete(ctx, core.request_all(paths, processes, "PUT", "/actions", "{}", each, ctx))
end

describe("a request to many", function()
  local folder, servers, paths, processes
  before_each(support.before_each)
  before_each(function()
    folder, servers, paths, processes = support.folder(), {}, {}, {}
  end)
  after_each(function()
    for _, process in ipairs(servers) do
      process:signal("KILL")
      process:wait(10)
      process:close()
    end
    getmetatable(folder).__close(folder)
    support.after_each()
  end)

  local function add(name, mode)
    local sock, process = serve(folder, name, mode)
    servers[#servers + 1] = process
    paths[#paths + 1], processes[#paths + 1] = sock, process
    return sock, process
  end

  it("has an outcome for each: an answer, a fault, garbage, silence, nobody, a stranger", function()
    for _, name in ipairs{ "nothing", "fault", "garbage", "silent", "half_headers" } do add(name) end
    paths[6] = folder:file("none.sock")
    paths[7], processes[7] = paths[1], processes[2]
    paths[8] = folder:file("no folder") .. "/x.sock"
    local done, answers, bodies = ask(paths, processes, 0.5)
    assert.is_true(done)
    assert.are.equal(204, answers[1])
    assert.are.equal("", bodies[1])
    assert.are.equal(400, answers[2])
    assert.are.equal('{"fault_message":"no such thing"}', bodies[2])
    for i, code in pairs{ [3] = "protocol", [4] = "wait_timeout", [5] = "protocol", [6] = "not_found",
      [7] = "not_same_process", [8] = "not_found" } do
      local err = fails(code, nil, answers[i])
      assert.is_truthy(err.message:find(paths[i]:match("[^/]*$"), 1, true), err.message)
      assert.is_nil(bodies[i])
    end
    assert.are.equal(processes[1]:pid(), answers[7].pid)
  end)

  it("goes to more than are asked at a time, each on a connection of its own", function()
    local sock, process = add("mirror")
    for i = 1, 50 do paths[i], processes[i] = sock, process end
    local done, answers = ask(paths, processes, 10)
    assert.is_true(done)
    for i = 1, 50 do assert.are.equal(200, answers[i]) end
    local seen = must(fcproc.request(sock, "GET", "/"))
    assert.are.equal(51, seen.requests)
    assert.is_true(seen.connections >= 51)
  end)

  it("to nobody is done at once", function()
    local done, answers = ask({}, {}, 1)
    assert.is_true(done)
    assert.are.same({}, answers)
  end)

  it("ends with its context, and the server's answer still finds its connection", function()
    local sock, process = add("slow", "slow_first")
    for i = 1, 20 do paths[i], processes[i] = sock, process end
    local ctx <close> = must(fcproc.context{ timeout = 0.05 })
    local err = fails("deadline", ask(paths, processes, 10, ctx))
    assert.is_truthy(err.message:find("of 20 have not answered", 1, true), err.message)
    -- The one that was answered late did not bring the server down.
    assert.is_truthy(must(fcproc.request(sock, "GET", "/")))
  end)

  it("that is cancelled before it begins asks nobody", function()
    local sock, process = add("mirror")
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", ask({ sock }, { process }, 1, ctx))
    assert.are.equal(1, must(fcproc.request(sock, "GET", "/")).requests)
  end)

  it("raises for what is no list of paths, and leaves nothing open", function()
    for _, bad in ipairs{ { false, {} }, { { true }, {} }, { { "a\0b" }, {} }, { { "x" }, { "y" } } } do
      assert.has_error(function()
        core.request_all(bad[1], bad[2], "PUT", "/", nil, 1)
      end)
    end
    fails("invalid", core.request_all({ "x" }, {}, "put", "/", nil, 1))
    fails("invalid", core.request_all({ "x" }, {}, "PUT", "actions", nil, 1))
  end)
end)
