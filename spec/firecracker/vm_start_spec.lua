-- Why a VM did not start, for each way to start one: directly, and in the four shapes of a jail.

local support = require "spec.support"
local vms = require "spec.support.vms"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local SHAPES = {
  direct = false, jailed = {}, daemonized = { daemonize = true },
  ["in a pid namespace"] = { new_pid_ns = true },
  ["daemonized in a pid namespace"] = { daemonize = true, new_pid_ns = true },
}

describe("a start", function()
  local world = vms.worlds{ before_each = before_each, after_each = after_each }

  -- An ELF file that is no kernel, nor a filter.
  local function elf()
    local path = world.folder:file("elf")
    support.write_file(path, "\127ELF" .. ("\0"):rep(2000))
    return path
  end

  for name, shape in pairs(SHAPES) do
    local function spec(fields)
      fields.id, fields.network = "starting", true
      fields.jailer = shape and { uid = 1000, gid = 1000, daemonize = shape.daemonize,
        new_pid_ns = shape.new_pid_ns } or nil
      return fields
    end

    it("works again and again: " .. name, function()
      for _ = 1, 5 do
        for _, boot in ipairs{ "config_file", "api" } do
          local vm <close> = must(fcproc.vm.launch(world.manager, spec{ boot = boot }))
          assert.are.equal("running", must(vm:info()).state)
          must(vm:kill())
          vms.nothing_left(world)
        end
      end
    end)

    it("with a kernel that is none tells Firecracker's reason: " .. name, function()
      local err = fails("exit_status", fcproc.vm.launch(world.manager, spec{ kernel = elf() }))
      assert.are.equal("start", err.step)
      assert.is_truthy(err.message:find("^start: [%w ]*error: Cannot load kernel"), err.message)
      err = fails("api", fcproc.vm.launch(world.manager, spec{ kernel = elf(), boot = "api" }))
      assert.is_truthy(err.message:find("Kernel Loader", 1, true), err.message)
    end)

    it("with bad arguments or a bad filter leaves nothing: " .. name, function()
      for _, fields in ipairs{ { arguments = { "--nonsense" } }, { seccomp = elf() } } do
        local err = fails("exit_status", fcproc.vm.launch(world.manager, spec(fields)))
        assert.are.equal("start", err.step)
        if not shape or not (shape.daemonize or shape.new_pid_ns) then
          assert.are.equal(fields.seccomp and 1 or 153, err.status)
        end
        if shape and shape.daemonize and not fields.seccomp then
          assert.is_truthy(err.message:find("try once without daemonize", 1, true), err.message)
        elseif fields.seccomp then
          assert.is_truthy(err.message:find("[Ss]eccomp"), err.message)
          assert.is_nil(err.message:find("NotFound", 1, true), "the filter is in the jail")
        end
        vms.nothing_left(world)
      end
    end)
  end
end)
