-- Journals and manifests that say anything at all: each is read, or refused with its place, and the
-- other VMs go on.

local cjson = require "cjson"
local records = require "spec.support.records"
local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"
local journals = require "fcproc.resources.journal"
local lives = require "fcproc.resources.life"
local manifests = require "fcproc.vm.manifest"

local must, fails = support.must, support.fails

-- A VM's folder as a dead one leaves it. Returns the journal's path.
local function put(world, id, text)
  local run = world.manager.config.runtime_dir
  local made, err = core.make_dir(run .. "/" .. id, 448)
  assert(made ~= nil, tostring(err))
  support.write_file(("%s/.fcproc/locks/%s"):format(run, id), "")
  support.write_file(("%s/%s/vm.json"):format(run, id), text)
  return ("%s/%s/vm.json"):format(run, id)
end

local function new_world()
  local world = support.world()
  local run = world.manager.config.runtime_dir
  for _, folder in ipairs{ run, run .. "/.fcproc", run .. "/.fcproc/leases", run .. "/.fcproc/locks" } do
    must(core.make_dir(folder, 448))
  end
  return world
end

local function folder_of(world, id) return world.manager.config.runtime_dir .. "/" .. id end

local function good(world, id, jailed)
  return records.journal(folder_of(world, id), id, nil, jailed)
end

describe("a folder that was there", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("is no VM's after a launch was refused because of it", function()
    local world <close> = new_world()
    must(core.make_dir(folder_of(world, "web"), 448))
    for _ = 1, 2 do
      local err = fails("conflict", journals.create(world.manager, "web", {}))
      assert.is_truthy(err.message:find("is no VM's", 1, true), err.message)
      assert.is_false(journals.exists(world.manager, "web"))
      assert.are.same({}, must(journals.ids(world.manager)))
    end
    put(world, "dead", "{}")
    for _ = 1, 2 do
      local err = fails("conflict", journals.create(world.manager, "dead", {}))
      assert.is_truthy(err.message:find("there is a VM 'dead' already", 1, true), err.message)
      assert.is_true(journals.exists(world.manager, "dead"))
    end
  end)
end)

describe("a VM whose start nobody saw the end of", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("may be just starting for some seconds, of which neither past nor future dates are", function()
    local world <close> = new_world()
    local process <close> = must(fcproc.spawn({ "sleep", "60" }, { stdout = "null", stderr = "null" }))
    must(core.make_dir(folder_of(world, "vm"), 448))
    local states = {}
    for _, age in ipairs{ 0, 3600, -3600 } do
      local record = records.journal(folder_of(world, "vm"), "vm", lives.seal(must(process:identity())))
      record.process, record.state, record.created = nil, "starting", os.time() - age
      record.drives = {}
      local life <close> = lives.of(record, 0)
      states[#states + 1] = life.state
    end
    must(process:signal("KILL"))
    must(process:wait(10))
    assert.are.same({ "unknown", "dead", "dead" }, states)
  end)
end)

describe("a journal", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("that is as we write it is read, and its files are where the VM's folder is", function()
    local world <close> = new_world()
    for _, jailed in ipairs{ false, true } do
      local written = good(world, "vm", jailed)
      local expected = written.files
      written.files = { folder = "/elsewhere", socket = "/elsewhere/api.sock", console = "/etc/shadow" }
      put(world, "vm", cjson.encode(written))
      local record = must(journals.read(world.manager, "vm"))
      assert.are.same(expected, record.files)
      assert.are.equal("integer", math.type(record.launcher.pid))
    end
  end)

  it("may hold more than we know", function()
    local world <close> = new_world()
    local written = good(world, "vm")
    written.later, written.taps[1].later, written.launcher.later = { 1, { x = true } }, {}, "x"
    put(world, "vm", cjson.encode(written))
    must(journals.read(world.manager, "vm"))
  end)

  it("may name paths that are no UTF-8", function()
    local world <close> = new_world()
    local written = good(world, "vm")
    written.drives[1].path = "/srv/\xe4\xff"
    put(world, "vm", cjson.encode(written))
    must(journals.read(world.manager, "vm"))
  end)

  it("that can't be is told with its place, its VM is left alone, and the others go on", function()
    local world <close> = new_world()
    for place, change in pairs{
      ["taps[1] must be a table"] = function(r) r.taps = { 1 } end,
      ["taps must be a list"] = function(r) r.taps = { a = 1 } end,
      ["taps[1].name can't be an interface's name"] = function(r) r.taps[1].name = "../x" end,
      ["drives[1].path must be an absolute path"] = function(r) r.drives[1].path = "x" end,
      ["drives[1].name must be 'drive-root'"] = function(r) r.drives[1].name = "drive-x" end,
      ["drives[1].lease can't be the name of a file"] = function(r) r.drives[1].lease = "../vm/vm.json" end,
      ["launcher.pid must be an integer"] = function(r) r.launcher.pid = 1.5 end,
      ["process.boot_id is missing"] = function(r) r.process = { pid = 1, start_time = 1 } end,
      ["snapshot must be a path that ends with '.bad.partial'"] = function(r) r.snapshot = "/etc/x" end,
      ["snapshot must be a path without"] = function(r) r.snapshot = "/a/../etc/x.bad.partial" end,
      ["created must be an integer of 0 or more, not inf"] = function(r) r.created = 1234567 end,
      ["jail.root must be the jail's root"] = function(r) r.jail = { root = "/" .. ("x"):rep(9) } end,
      ["jail.cgroups[1] must be that of 'bad'"] = function(r)
        r.jail = { root = folder_of(world, "bad") .. "/jail/firecracker/bad/root", cgroups = { "/home/x" } }
      end,
      ["state must be letters"] = function(r) r.state = "\27[2J" end,
    } do
      put(world, "other", cjson.encode(good(world, "other")))
      local record = good(world, "bad")
      record.process = nil
      change(record)
      put(world, "bad", (cjson.encode(record):gsub('"created":1234567', '"created":1e999')))
      local bad, other = table.unpack(must(fcproc.vm.list(world.manager)))
      assert.are.same({ "bad", "unknown", "conflict" }, { bad.id, bad.state, bad.err.code }, place)
      assert.is_truthy(bad.err.message:find(": " .. place, 1, true), bad.err.message)
      assert.is_truthy(bad.err.message:find("Mend it, or remove it", 1, true))
      assert.are.same({ "other", "dead" }, { other.id, other.state })
      fails("conflict", fcproc.vm.inspect(world.manager, "bad"))
      fails("conflict", fcproc.vm.adopt(world.manager, "bad"))
      fails("conflict", fcproc.vm.remove_dead(world.manager, "bad"))
      local report = must(fcproc.vm.reclaim(world.manager))
      assert.are.same({ "other" }, report.reclaimed)
      assert.are.equal("conflict", report.failed[1].left[1].err.code)
      os.remove(folder_of(world, "bad") .. "/vm.json") -- as the message says
      assert.are.same({ "bad" }, must(fcproc.vm.reclaim(world.manager)).reclaimed)
    end
  end)

  for _, jailed in ipairs{ false, true } do
    it("of any one change raises nowhere, and what is beside it goes on: "
      .. (jailed and "jailed" or "direct"), function()
        local world <close> = new_world()
        local canary = world.folder:file("canary")
        support.write_file(canary, "dear")
        local list = records.mutations(good(world, "vm", jailed), true)
        assert.is_true(#list > 700)
        put(world, "other", cjson.encode(good(world, "other")))
        local refused = 0
        for _, mutation in ipairs(list) do
          put(world, "vm", mutation.text)
          local ok, raised = pcall(function()
            local vms = must(fcproc.vm.list(world.manager))
            assert.are.same({ 2, "dead" }, { #vms, vms[1].state })
            if vms[2].state == "unknown" then refused = refused + 1 end
            local info = fcproc.vm.inspect(world.manager, "vm")
            assert.are.equal(info ~= nil, vms[2].state ~= "unknown")
            assert.is_nil((fcproc.vm.adopt(world.manager, "vm")))
            fcproc.vm.remove_dead(world.manager, "vm")
          end)
          if not ok then error(("%s: %s"):format(mutation.what, tostring(raised)), 0) end
        end
        assert.is_true(refused > #list / 3, ("%d of %d"):format(refused, #list))
        assert.are.equal("dear", support.read_file(canary))
        assert.are.same({ "other" }, { must(fcproc.vm.list(world.manager))[1].id })
      end)
  end
end)

describe("a manifest", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("of any one change is read, or refused with its place", function()
    local world <close> = new_world()
    local path = world.folder:file("snap")
    must(core.make_dir(path, 448))
    support.write_file(path .. "/manifest.json", cjson.encode(records.manifest()))
    must(manifests.read(path))
    local list = records.mutations(records.manifest(), true)
    assert.is_true(#list > 500)
    for _, mutation in ipairs(list) do
      support.write_file(path .. "/manifest.json", mutation.text)
      local ok, raised = pcall(function()
        local manifest, err = manifests.read(path)
        if not manifest then
          assert.are.equal("protocol", err.code)
          assert.is_nil(err.message:find("[\0-\8\11-\31]"))
        end
        fails("conflict", fcproc.vm.restore(world.manager, path))
      end)
      local refused = not ok and tostring(raised):find("got: vm.restore: ", 1, true)
      if not ok and not refused then error(("%s: %s"):format(mutation.what, tostring(raised)), 0) end
    end
  end)
end)
