-- What the guests' /init reads of its command line: its parsers as a program of the host.

local support = require "spec.support"
local fcproc = require "fcproc"

local program = os.getenv("FCPROC_SPEC_BUILD") .. "/init-test"

local function says(input, ...)
  return (support.sh({ program, ... }, { input = input }):gsub("\n$", ""))
end

describe("the guests' /init", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("splits the command line as the kernel does", function()
    for line, wanted in pairs{
      [""] = "", ["  \n"] = "",
      ["console=ttyS0 quiet\n"] = "console=ttyS0\nquiet",
      ['a "b c" d="e f" "g=h i" j'] = "a\nb c\nd=e f\ng=h i\nj",
      ["a -- init=/x"] = "a", ["a --x b"] = "a\n--x\nb", ["a=1=2"] = "a=1=2",
      ['open="never closed x'] = "open=never closed x", ['"'] = "", ['x="'] = "x=",
    } do
      assert.are.equal(wanted, says(line, "words"), line)
    end
    -- Longer than a kernel's: the word that is cut is not read.
    local long = ("word "):rep(900)
    assert.are.equal((("word\n"):rep(819)) .. "(cut)", says(long, "words"))
    assert.are.equal("(cut)", says(("x"):rep(5000), "words"))
  end)

  it("takes the last of what is said twice", function()
    assert.are.equal("/dev/vdb", says("root=/dev/vda root=/dev/vdb", "value", "root"))
    assert.are.equal("-", says("noroot=1", "value", "root"))
    assert.are.equal("2", says("ro rw", "which", "ro", "rw"))
    assert.are.equal("1", says("rw ro=x ro", "which", "ro", "rw"))
    assert.are.equal("0", says("ro=x", "which", "ro", "rw"))
    for line, seconds in pairs{ [""] = "7", ["t"] = "7", ["t=12"] = "12", ["t=x"] = "7", ["t=-1"] = "7",
      ["t=99999999999999"] = "3600" } do
      assert.are.equal(seconds, says(line, "seconds", "t", "7"), line)
    end
  end)

  it("hands a module its parameters, by either spelling of its name", function()
    local line = 'virtio_mmio.device=4K@0xd0000000:5 virtio-mmio.device=4K@0xd0001000:6 other.x=1 '
      .. 'virtio_mmio.name="a b" virtio_mmio. virtio_mmio.flag virtio_mmiox.y=1'
    assert.are.equal('device=4K@0xd0000000:5 device=4K@0xd0001000:6 name="a b" flag',
      says(line, "parameters", "virtio_mmio", "200"))
    assert.are.equal("", says(line, "parameters", "virtio", "200"))
    -- What finds no room is left out whole.
    assert.are.equal("a=1 c=3 (not all)", says("m.a=1 m.b=123456789 m.c=3", "parameters", "m", "8"))
  end)

  it("reads ip= as the kernel does, but for what it would guess", function()
    for value, wanted in pairs{
      ["172.30.0.5::172.30.0.1:255.255.255.0:vm1:eth0:off"] = "client 172.30.0.5 netmask 255.255.255.0 "
        .. "gateway 172.30.0.1 host 'vm1' domain '' device 'eth0'",
      ["10.0.0.5::::vm1.example.org:eth1:off:1.1.1.1:9.9.9.9:5.5.5.5"] = "client 10.0.0.5 netmask "
        .. "255.0.0.0 host 'vm1' domain 'example.org' device 'eth1' dns 1.1.1.1 dns 9.9.9.9",
      ["192.168.1.2"] = "client 192.168.1.2 netmask 255.255.255.0 host '' domain '' device ''",
      ["172.16.0.1:10.0.0.1:"] = "client 172.16.0.1 netmask 255.255.0.0 host '' domain '' device ''",
      [""] = "off", off = "off", none = "off", [":::::eth0:off"] = "off", dhcp = "dhcp", on = "on",
      [":::::eth0:dhcp"] = "dhcp",
      ["10.0.0"] = "'10.0.0' is no IPv4 address", ["10.0.0.256"] = "'10.0.0.256' is no IPv4 address",
      ["fd00::1"] = "'fd00' is no IPv4 address",
      ["10.0.0.1::x"] = "'x' is no IPv4 address",
      ["10.0.0.1:::255.0.255.0"] = "'255.0.255.0' is no netmask",
      ["10.0.0.1::::a b"] = "'a b' is no host name: letters, digits, '.', '-' and '_'",
      ["10.0.0.1:::::" .. ("e"):rep(16)] = "'eeeeeeeeeeeeeeee' is no name of an interface",
      ["10.0.0.1:::::../x"] = "'../x' is no name of an interface",
      ["10.0.0.1::::::magic"] = "'magic' is no way to get an address",
      ["10.0.0.1::::::off:::::"] = "'' has more than ten parts",
      [("1"):rep(40)] = "'" .. ("1"):rep(31) .. "' is too long",
    } do
      assert.are.equal(wanted, says(value, "ip"), value)
    end
    local host = ("h"):rep(64)
    assert.is_truthy(says("10.0.0.1::::" .. host, "ip"):find("too long", 1, true)) -- its room is 32 here
  end)

  it("reads what it is told at random within bounds", function()
    for seed = 1, 5 do assert.are.equal("2000", says("", "random", "2000", tostring(seed))) end
  end)

  it("is of no use on a host", function()
    local result, err = fcproc.runner():run{ os.getenv("FCPROC_SPEC_BUILD") .. "/fcproc/init" }
    assert.is_nil(result)
    assert.are.equal(1, err.status)
    assert.are.equal("fcproc init: this is the first process of a VM, and of no use elsewhere\n", err.stderr)
  end)
end)
