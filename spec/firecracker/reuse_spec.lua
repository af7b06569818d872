-- Numbers that come round again, of processes and of descriptors, never lead to somebody else.

local support = require "spec.support"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local function start(world, name)
  return support.listening_vm(world, { name = name })
end

local function id_of(client)
  return must(client:request("GET", "/")).id
end

-- The number of the descriptor by which we hold the folder.
local function number_of(folder)
  for number, target in pairs(support.descriptors()) do
    if target == folder then return number end
  end
end

describe("a pid that was used again", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("never leads kill, wait_for_exit or resolve_pid to the stranger", function()
    local folder <close> = support.folder()
    local result = must(fcproc.runner():run({ "unshare", "--pid", "--fork", "--mount-proc",
      support.lua, "spec/support/reuse.lua", support.firecracker(), folder.path }))
    assert.are.equal("ok\n", result.stdout)
  end)
end)

describe("a listener's pid that was used again", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("does not make the stranger the listener, whose heir has the socket", function()
    local folder <close> = support.folder()
    assert.are.equal("ok\n", support.sh{ "unshare", "--pid", "--fork", "--mount-proc", support.lua,
      "spec/support/heir.lua", folder.path })
  end)
end)

describe("a descriptor number that was used again", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("leads a new client to its own VM, not to the old connection's", function()
    local world <close> = support.world()
    local a <close> = start(world, "a")
    local b <close> = start(world, "b")
    local numbers = {}
    -- Both VMs live: a connection kept by its name, /proc/self/fd/N/api.sock, would answer.
    for _ = 1, 5 do
      for _, vm in ipairs{ a, b } do
        local client <close> = must(fcproc.client(vm.sock))
        assert.are.equal(vm.name, id_of(client))
        numbers[#numbers + 1] = must(number_of(vm.dir))
      end
    end
    for _, number in ipairs(numbers) do assert.are.equal(numbers[1], number) end
  end)

  it("does not let the client of a dead VM reach another", function()
    local world <close> = support.world()
    local a <close> = start(world, "a")
    local client <close> = must(fcproc.client(a.sock))
    local closed = must(fcproc.client(a.sock))
    assert.are.equal("a", id_of(client))
    assert.are.equal("a", id_of(closed))
    closed:close()
    local number = must(number_of(a.dir))
    must(world.manager:kill(a.process))
    must(a.process:wait(10))
    local b <close> = start(world, "b")
    for _ = 1, 10 do -- over the numbers that A's connection and the closed client had
      local other <close> = must(fcproc.client(b.sock))
      assert.are.equal("b", id_of(other))
      assert.are_not.equal(number, number_of(b.dir))
      fails("not_found", client:request("PATCH", "/vm", { state = "Paused" }))
      fails("closed", closed:request("PATCH", "/vm", { state = "Paused" }))
    end
    assert.are.equal("Running", must(fcproc.request(b.sock, "GET", "/")).state)
  end)

  it("does not let a client reach the VM that came to the path of its own", function()
    local world <close> = support.world()
    local a <close> = start(world, "same")
    local client <close> = must(fcproc.client(a.sock))
    assert.are.equal("same", id_of(client))
    must(world.manager:kill(a.process))
    must(a.process:wait(10))
    support.sh{ "rm", "-r", a.dir } -- which the client still holds open
    local b <close> = start(world, "same")
    assert.are.equal(a.sock, b.sock)
    fails("not_found", client:request("PATCH", "/vm", { state = "Paused" }))
    assert.are.equal("Running", must(fcproc.request(b.sock, "GET", "/")).state)
  end)
end)
