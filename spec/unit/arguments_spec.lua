-- More of Firecracker's own arguments: none that breaks what fcproc knows of the VM.

local fcproc = require "fcproc"
local specs = require "fcproc.vm.spec"
local support = require "spec.support"
local versions = require "spec.support.versions"

local must, fails = support.must, support.fails

describe("a spec's arguments", function()
  local world

  before_each(function()
    support.before_each()
    world = support.world()
  end)

  after_each(function()
    getmetatable(world).__close(world)
    support.after_each()
  end)

  local function message(manager, spec, code)
    return fails(code or "invalid", specs.plan(manager, spec)).message
  end

  local function says(wanted, text)
    assert.is_truthy(text:find(wanted, 1, true), text)
  end

  it("can't name what finds it, configures it, keeps it to its filter, or starts no VM", function()
    for argument, why in pairs{
      ["--api-sock"] = "ours to give", ["--log-path"] = "ours to give", ["--metrics-path"] = "ours to give",
      ["--id"] = "the spec's id", ["--level"] = "log_level", ["--config-file"] = "made of the spec",
      ["--metadata"] = "mmds.data", ["--no-api"] = "nobody can ask", ["--no-seccomp"] = "seccomp = false",
      ["--seccomp-filter"] = "seccomp", ["--version"] = "no VM", ["--snapshot-version"] = "no VM",
      ["--describe-snapshot"] = "no VM", ["--help"] = "no VM", ["-h"] = "no VM", ["--"] = "reads nothing",
    } do
      local spec = { arguments = { "--boot-timer", argument } }
      local text = message(world.manager, spec)
      says("arguments[2]: " .. argument .. " ", text)
      says(why, text)
      fails("invalid", specs.plan(world.manager, spec, true)) -- from a snapshot
    end
    must(specs.plan(world.manager, { arguments = { "--boot-timer", "--http-api-max-payload-size", "99999",
      "--mmds-size-limit", "9", "--show-level", "--show-log-origin", "--module", "api" } }))
  end)

  it("with PCI are no pci=off, whoever would say it", function()
    local new <close> = versions.pretend(world, "1.13.0")
    local kernel, pci = world.folder:file("vmlinux"), { "--enable-pci" }
    support.write_file(kernel, "\x7fELF")
    local function args(spec)
      return specs.config(must(specs.plan(new, spec)), {})["boot-source"].boot_args
    end
    assert.are.equal("console=ttyS0 reboot=k panic=1 pci=off", args{ kernel = kernel })
    assert.are.equal("console=ttyS0 reboot=k panic=1", args{ kernel = kernel, arguments = pci })
    for _, own in ipairs{ "pci=off", "quiet pci=off panic=1", "pci=nomsi,off" } do
      says("boot_args: has pci=off", message(new, { kernel = kernel, arguments = pci, boot_args = own }))
      assert.are.equal(own, args{ kernel = kernel, boot_args = own })
    end
    for _, own in ipairs{ "xpci=off", "pci=offset", "pci=noacpi", "" } do
      assert.are.equal(own, args{ kernel = kernel, arguments = pci, boot_args = own })
    end
  end)

  it("with PCI need 1.13, and a guest that knows it", function()
    local old <close> = versions.pretend(world, "1.12.9")
    local new <close> = versions.pretend(world, "1.13.0")
    local spec = { arguments = { "--enable-pci" } }
    says("arguments: --enable-pci needs Firecracker >= 1.13, this is 1.12.9",
      message(old, spec, "unsupported"))
    local plan = must(specs.plan(new, spec))
    says("the built-in guest knows no PCI", plan.warnings[1].message)
    assert.are.equal("pci", plan.warnings[1].name)
    support.write_file(world.folder:file("vmlinux"), "\x7fELF")
    spec.kernel = world.folder:file("vmlinux")
    assert.is_nil(must(specs.plan(new, spec)).warnings)
    assert.is_nil(must(specs.plan(old, {})).warnings)
  end)

  it("that are wrong make no VM", function()
    fails("invalid", fcproc.vm.launch(world.manager, { arguments = { "--no-seccomp" } }))
    assert.are.equal("", support.sh{ "find", world.folder.path, "-name", "vm.json" })
  end)
end)
