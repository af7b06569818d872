-- What a script's own mistakes look like: a raised error names the line of the script, not one of ours;
-- and objects say what they are.

local support = require "spec.support"
local cli = require "fcproc.cli"
local fcproc = require "fcproc"
local stop = require "fcproc.vm.stop"

local must, raises = support.must, support.raises

describe("a raised error", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("names the line of the script that made the mistake, wherever it is found", function()
    local dir <close> = support.folder()
    local manager <close> = must(fcproc.new{ runtime_dir = dir:file("run") })
    local client <close> = must(fcproc.client(dir:file("x.sock")))
    local vm = require("fcproc.vm.object").new(manager, { id = "x", record = {} }, {})
    local here = debug.getinfo(1, "S").short_src
    local mistakes = {
      function() fcproc.new(5) end,
      function() fcproc.new{ colour = 1 } end,
      function() fcproc.new{ without = { "x" } } end,
      function() fcproc.new{ jailer_uids = { x = 1 } } end,
      function() fcproc.context{ waiter = "x" } end,
      function() fcproc.context{ timeout = "x" } end,
      function() fcproc.run(5) end,
      function() fcproc.run{ 5 } end,
      function() fcproc.run{ limit = 0 } end,
      function() fcproc.run{ signals = {} } end,
      function() fcproc.wait_for_signal({ "TERM" }, "x") end,
      function() fcproc.spawn(5) end,
      function() fcproc.spawn({ "true" }, { colour = 1 }) end,
      function() fcproc.process("x") end,
      function() fcproc.request(5) end,
      function() fcproc.client(5) end,
      function() fcproc.netns(5) end,
      function() client:request("PUT", "/", { print }) end,
      function() client:request("PUT", "/", nil, nil, "x") end,
      function() client:request("PUT", "/", nil, 5) end,
      function() fcproc.runner():run(5) end,
      function() fcproc.runner():run_sudo({ "true" }, { colour = 1 }) end,
      function() manager:ensure_bridge(5) end,
      function() manager:create_tap(5) end,
      function() manager:create_tap("t", { colour = 1 }) end,
      function() manager:delete_tap(5) end,
      function() manager:delete_taps(5) end,
      function() manager:wait_for_path("/", "x") end,
      function() manager:wait_for_socket("/", "x") end,
      function() manager:ensure_socket_access(5) end,
      function() manager:send_ctrl_alt_del(5) end,
      function() manager:find_pid(5) end,
      function() manager:open_process(5) end,
      function() manager:wait_for_exit("x") end,
      function() manager:wait_for_exit(1, 5) end,
      function() manager:wait_for_exit(1, nil, "x") end,
      function() manager:kill({}) end,
      function() fcproc.vm.launch(manager, 5) end,
      function() fcproc.vm.launch(manager, {}, 5) end,
      function() fcproc.vm.launch_all(manager, 5) end,
      function() fcproc.vm.launch_all(manager, { 5 }) end,
      function() fcproc.vm.launch_all(manager, {}, "x") end,
      function() fcproc.vm.restore(manager, 5) end,
      function() fcproc.vm.stop_all(5) end,
      function() fcproc.vm.stop_all({}, 5) end,
      function() fcproc.vm.stop_all({}, { limit = 0 }) end,
      function() vm:stop(5) end,
      function() vm:stop{ { "x", 1 } } end,
      function() vm:wait("x") end,
      function() manager:delete_tap(5) end,
    }
    for i, mistake in ipairs(mistakes) do
      local ok, err = pcall(mistake)
      assert.is_false(ok, "mistake " .. i)
      local line = ("%s:%d: "):format(here, debug.getinfo(mistake, "S").linedefined)
      assert.are.equal(line, tostring(err):sub(1, #line), tostring(err))
    end
  end)

  it("says of stop_all's options that they are options", function()
    raises("vm.stop_all: unknown option 'limt'; known: limit", fcproc.vm.stop_all, {}, { limt = 16 })
    raises("vm.stop_all: options must be a table, not a number", fcproc.vm.stop_all, {}, 16)
    raises("vm.stop_all: limit must be a whole number of 1 or more", fcproc.vm.stop_all, {},
      { limit = "16" })
    assert.are.equal(stop.LADDER, stop.fleet_ladder{})
  end)
end)

describe("an object", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("tells what it is", function()
    local dir <close> = support.folder()
    local manager = must(fcproc.new{ runtime_dir = dir:file("run") })
    assert.are.equal("fcproc.Manager " .. dir:file("run"), tostring(manager))
    manager:close()
    assert.are.equal(("fcproc.Manager %s (closed)"):format(dir:file("run")), tostring(manager))
    local client = must(fcproc.client(dir:file("x.sock")))
    assert.are.equal("fcproc.Client " .. dir:file("x.sock"), tostring(client))
    client:close()
    assert.are.equal(("fcproc.Client %s (closed)"):format(dir:file("x.sock")), tostring(client))
  end)
end)

describe("what was cut short", function()
  before_each(support.before_each)
  after_each(support.after_each)

  -- A fake Firecracker, which never says that its VM runs.
  it("by a cancel is said to be cancelled, not slow", function()
    local dir <close> = support.folder()
    local fake = dir:file("firecracker")
    support.write_file(fake, '#!/bin/sh\n[ "$1" = --version ] && echo "Firecracker v1.12.1" && exit\n'
      .. "exec sleep 60\n")
    support.sh{ "chmod", "755", fake }
    local manager <close> = must(fcproc.new{ runtime_dir = dir:file("run"), firecracker_bin = fake })
    local ctx <close> = must(fcproc.context())
    local results = fcproc.run{
      function() return fcproc.vm.launch(manager, {}, ctx) end,
      function()
        fcproc.runner():run{ "sleep", "0.05" }
        ctx:cancel()
      end,
    }
    local err = support.fails("cancelled", results[1][1], results[1][2])
    assert.is_truthy(err.message:find("cancelled", 1, true), err.message)
    assert.is_nil(err.message:find("%d s"), err.message)
  end)
end)

describe("the command", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("says what is wrong with a number below 0", function()
    local said = {}
    local sink = { write = function(_, ...) said[#said + 1] = table.concat{ ... } return true end,
      flush = function() return true end, setvbuf = function() end }
    for _, words in ipairs{ { "ps", "--timeout", "-1" }, { "ps", "--timeout=-1" } } do
      said = {}
      assert.are.equal(2, cli.main(words, sink, sink))
      assert.is_truthy(table.concat(said):find("malformed --timeout '-1': a number of seconds, 0 or more", 1,
        true), table.concat(said))
    end
  end)
end)
