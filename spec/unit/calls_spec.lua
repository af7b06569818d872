-- The typed calls, without a Firecracker: what they ask for, and that nobody is left out.

local support = require "spec.support"
local calls = require "fcproc.machine.calls"
local endpoints = require "fcproc.machine.endpoints"
local json = require "fcproc.json"

local must, fails = support.must, support.fails

local function says(code, text, ok, err)
  local message = fails(code, ok, err).message
  assert.is_truthy(message:find(text, 1, true), message)
end

describe("the typed calls", function()
  it("reach the whole table, and each is annotated", function()
    local reached, annotated = {}, {}
    local recorder = { call = function(_, method, path, body)
      reached[method .. " " .. path:gsub("/x$", "/{id}")] = body or true
      return true
    end }
    for name, call in pairs(calls.methods) do
      if name:find("drive$") or name:find("pmem$") or name:find("network_interface$") then
        must(call(recorder, "x", not name:find("^delete") and {} or nil))
      else
        must(call(recorder, name:find("^[sp][ea]t.*_") and {} or name:find("_snapshot") and {} or nil))
      end
    end
    for _, entry in ipairs(endpoints.list) do
      local name = entry.method .. " " .. entry.path
      assert.is_truthy(reached[name], "no call makes " .. name)
      reached[name] = nil
    end
    assert.is_nil(next(reached))
    for name in support.read_file("lua/fcproc/machine/calls.lua"):gmatch("%-%-%-@field ([%w_]+) fcproc%.") do
      annotated[name] = true
    end
    for name in pairs(calls.methods) do assert.is_true(annotated[name], name .. " is not annotated") end
    for name in pairs(annotated) do assert.is_truthy(calls.methods[name], name) end
  end)
end)

describe("a typed call", function()
  local function recorder()
    local self = { call = function(self, ...)
      self.seen = table.pack(...)
      return true
    end }
    for name, call in pairs(calls.methods) do self[name] = call end
    return self
  end

  it("puts an id into the path and into the body, and leaves the caller's table alone", function()
    local vm, drive, ctx = recorder(), { path_on_host = "/d" }, {}
    must(vm:set_drive("root", drive, ctx))
    assert.are.same({ "PUT", "/drives/root", { drive_id = "root", path_on_host = "/d" }, ctx, n = 4 },
      vm.seen)
    assert.are.same({ path_on_host = "/d" }, drive)
    must(vm:patch_network_interface("eth0", {}))
    assert.are.same({ iface_id = "eth0" }, vm.seen[3])
    must(vm:set_pmem("p", {}))
    assert.are.same({ id = "p" }, vm.seen[3])
    must(vm:delete_drive("root", ctx))
    assert.are.same({ "DELETE", "/drives/root", nil, ctx, n = 4 }, vm.seen)
    must(vm:set_drive("root", { drive_id = "other" }))
    assert.are.equal("other", vm.seen[3].drive_id) -- for the check to find
  end)

  it("never lets an id choose the endpoint", function()
    local vm = recorder()
    for _, id in ipairs{ "", "a/b", "../vsock", "a b", "a\r\nX: y", "{id}" } do
      says("invalid", "an id must be", vm:delete_drive(id))
      says("invalid", "an id must be", vm:set_drive(id, {}))
    end
    assert.is_nil(vm.seen)
  end)

  it("raises for wrong types", function()
    local vm = recorder()
    support.raises("set_drive: id must be a string, not a table", vm.set_drive, vm, {})
    support.raises("set_drive: the body must be a table, not a nil", vm.set_drive, vm, "a")
    support.raises("set_vsock: the body must be a table, not a string", vm.set_vsock, vm, "x")
    must(vm:start_balloon_hinting())
    must(vm:start_balloon_hinting{ acknowledge_on_stop = true })
  end)

  it("that reads gives integers, and nothing where Firecracker says null", function()
    local vm = { call = function() return must(json.read(
      '{"mem":16,"share":0.5,"balloon":null,"drives":[{"size":1,"x":null}],"odd":[null]}')) end }
    local answer = calls.methods.vm_config(vm)
    assert.are.same({ mem = 16, share = 0.5, drives = { { size = 1 } }, odd = { json.null } }, answer)
    assert.are.equal("integer", math.type(answer.mem))
    assert.are.equal("16", tostring(answer.mem))
    assert.are.equal(json.null, calls.methods.mmds(vm).balloon)
    local failing = { call = function() return nil, "why" end }
    assert.are.same({ nil, "why" }, { calls.methods.balloon(failing) })
  end)

  it("gives each request a body of its own", function()
    local vm = recorder()
    must(vm:pause())
    vm.seen[3].state = "spoilt"
    must(vm:pause())
    assert.are.same({ state = "Paused" }, vm.seen[3])
  end)
end)
