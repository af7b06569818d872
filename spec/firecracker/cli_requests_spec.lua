-- fcproc wait, api, metrics, balloon, mmds, and what is done to all VMs at once.

local cjson = require "cjson"
local cli = require "spec.support.cli"
local support = require "spec.support"
local fcproc = require "fcproc"

local function contains(text, wanted)
  assert.is_truthy(text:find(wanted, 1, true), ("'%s' in:\n%s"):format(wanted, text))
end

describe("the fcproc command", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("waits for VMs, and ends all of them at once", function()
    local world <close> = cli.world()
    for _, id in ipairs{ "a", "b", "c" } do cli.ok(world, "run", "--id", id, "-d") end
    assert.are.equal("a\nb\nc\n", cli.ok(world, "ps", "-q"))
    assert.are.same({ "a", "b", "c" }, cli.json(world, "ps", "--quiet"))
    assert.are.equal(124, cli.run(world, { "wait", "a", "--timeout", "0.1" }).status)
    local waiting <close> = cli.start(world, { "wait", "a", "b" })
    local process <close> = support.must(fcproc.process(cli.json(world, "info", "c").pid))
    process:signal("KILL")
    support.must(process:wait(10))
    assert.are.same({ id = "c", had_ended = true }, cli.json(world, "wait", "c")[1])
    local out = cli.ok(world, "stop", "--all")
    contains(out, "a: ended by ctrl_alt_del")
    contains(out, "b: ended by ctrl_alt_del")
    contains(out, "c: it had ended")
    assert.is_truthy(waiting:wait() == 0, support.read_file(waiting.err))
    assert.are.same({ "a: ended", "b: ended" },
      support.collect(support.read_file(waiting.out), "%l: ended"))
    assert.are.equal("", cli.ok(world, "ps", "-q"))
    assert.are.equal("", cli.ok(world, "kill", "--all"))
    assert.are.equal("[]\n", cli.ok(world, "--json", "kill", "--all"))
    contains(select(2, cli.fails(world, 3, "wait", "a")), "there is no VM 'a'")
  end)

  it("--all leaves what somebody else has, and says whose it is", function()
    local world <close> = cli.world()
    local run <close> = cli.start(world, { "run", "--id", "a" })
    run:shows("ready")
    cli.ok(world, "run", "--id", "b", "-d")
    local out, err = cli.fails(world, 4, "kill", "--all")
    contains(out, "b: ended by sigkill")
    contains(err, "the VM 'a' is in the hands of another manager")
    -- Who only reads needs nobody's leave.
    assert.are.equal("Running", cjson.decode(cli.ok(world, "api", "a", "GET", "/")).state)
    contains(cli.ok(world, "metrics", "a"), "vcpu.exit_io_in")
    cli.fails(world, 4, "api", "a", "PATCH", "/vm", '{"state":"Paused"}')
    run.process:signal("INT")
    assert.are.equal(130, run:wait())
  end)

  it("takes a Firecracker configuration for a spec, and paths in it from the current folder", function()
    local world <close> = cli.world()
    local text = ([[{ "boot-source": { "kernel_image_path": %s },
      "machine-config": { "vcpu_count": 2, "mem_size_mib": 24, "ht_enabled": false },
      "drives": [ { "drive_id": "d", "path_on_host": "Makefile", "is_root_device": false,
        "is_read_only": true } ],
      "network-interfaces": [ { "iface_id": "eth0", "host_dev_name": "fctap9" } ],
      "vsock": { "guest_cid": 3, "uds_path": "v.sock", "vsock_id": "vsock" }, "balloon": null }]])
      :format(cjson.encode(fcproc.guest_path()))
    local done = cli.run(world, { "run", "--id", "a", "-d", "--spec", "-" }, { input = text })
    assert.are.equal("a\n", done.out)
    contains(done.err, "fcproc: vsock.uds_path is not used: its socket is vsock.sock in the VM's folder\n")
    local info = cli.json(world, "info", "a")
    assert.are.same({ 2, 24, "fctap9", true }, { info.vcpus, info.mem_mib, info.taps[1].name,
      info.drives[1].path:find("^/.*/Makefile$") ~= nil })
    cli.ok(world, "kill", "a")
  end)

  it("asks and tells a VM's Firecracker what it is given", function()
    local world <close> = cli.world()
    local path = world.folder:file("vm.json")
    support.write_file(path, [[{ "id": "a", "network": true, "balloon": { "amount_mib": 1 },
      "mmds": { "data": { "x": 1 } } }]])
    cli.ok(world, "run", "--spec", path, "-d")
    assert.are.equal("", cli.ok(world, "api", "a", "put", "/actions", '{"action_type":"FlushMetrics"}'))
    assert.are.equal("{}\n",
      cli.ok(world, "--json", "api", "a", "PUT", "/actions", '{"action_type":"FlushMetrics"}'))
    contains(cli.ok(world, "api", "a", "GET", "/vm/config"), '"drives":[]')
    local _, err = cli.fails(world, 1, "api", "a", "GET", "/nothing")
    contains(err, "was answered with 400")
    _, err = cli.fails(world, 2, "api", "a", "PATCH", "/vm", '{\n "state":')
    contains(err, "the body is no JSON: line 2, column 10: expected value but found")
    cli.fails(world, 2, "api", "a", "GET", "vm")
    assert.are.equal("number", type(cli.json(world, "metrics", "a").vcpu.exit_io_in))
    assert.are.equal(1, cli.json(world, "balloon", "a").amount_mib)
    contains(cli.ok(world, "balloon", "a"), "amount_mib                1\n")
    local done = cli.run(world, { "balloon", "a", "2" }) -- the built-in guest has no driver for it
    assert.are.equal(1, done.status)
    contains(done.err, "Device not activated yet")
    assert.are.equal('{"x":1}\n', cli.ok(world, "mmds", "a"))
    contains(cli.ok(world, "mmds", "a", '{"y":{"z":[1]}}'), "a: its metadata is replaced")
    assert.are.same({ id = "a" }, cli.json(world, "mmds", "a", '{"x":2}', "--patch"))
    assert.are.equal("", cli.run(world, { "mmds", "a", "-", "--patch" }, { input = '{"x":null}' }).err)
    assert.are.same({ y = { z = { 1 } } }, cli.json(world, "mmds", "a"))
    for _, data in ipairs{ "[1]", "{", "7" } do cli.fails(world, 2, "mmds", "a", data) end
    cli.ok(world, "kill", "a")
    cli.fails(world, 3, "api", "a", "GET", "/")
  end)
end)
