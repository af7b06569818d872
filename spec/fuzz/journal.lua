-- Journals that say anything: nobody raises, nothing that is not the VM's is touched, and the others go
-- on. `make fuzz FUZZ_SECONDS=30`, or with a seed: FUZZ_SEED=7.

local cjson = require "cjson"
local fuzz = require "spec.support.fuzz"
local records = require "spec.support.records"
local support = require "spec.support"
local core = require "fcproc.core"
local fcproc = require "fcproc"

local must = support.must

local function main()
  local world <close> = support.world()
  local manager, run = world.manager, world.manager.config.runtime_dir
  must(manager:ensure_socket_dir())
  for _, name in ipairs{ ".fcproc", ".fcproc/locks", "other", "vm" } do
    must(core.make_dir(run .. "/" .. name, 448))
  end
  local bystander <close> = must(fcproc.spawn{ "sleep", "100000" })
  local identity = must(bystander:identity())
  local canary = world.folder:file("canary")
  support.sh{ "sh", "-ec", 'mkdir -m 700 "$1"; echo dear >"$1/x"; mkdir -m 700 "$1/none.vm.partial"; '
    .. 'echo dear >"$1/none.vm.partial/x"', "sh", canary }
  support.write_file(run .. "/.fcproc/locks/other", "")
  support.write_file(run .. "/other/vm.json", cjson.encode(records.journal(run .. "/other", "other")))

  local function check(value, err)
    if value == nil then
      assert(fcproc.is_error(err), "no error")
      assert(not err.message:find("[\0-\8\11-\31\127]"), "control characters: " .. err.message)
    end
    return value
  end

  local text = ""
  local ok = fuzz.run("journals", function()
    local jailed = math.random(2) == 1
    local record = records.journal(run .. "/vm", "vm", math.random(2) == 1 and identity or nil, jailed)
    if math.random(2) == 1 then record.created, record.state = os.time(), "starting" end
    if math.random(2) == 1 then record.process = nil end
    if math.random(2) == 1 then record.snapshot = canary .. "/none.vm.partial" end
    text = fuzz.text(record)
    core.make_dir(run .. "/vm", 448)
    support.write_file(run .. "/.fcproc/locks/vm", "")
    support.write_file(run .. "/vm/vm.json", text)
    local list = must(fcproc.vm.list(manager))
    assert(#list == 2 and list[1].id == "other" and list[1].state == "dead", "the other VM is not as it was")
    local info = check(fcproc.vm.inspect(manager, "vm"))
    assert(check(fcproc.vm.adopt(manager, "vm")) == nil, "somebody was adopted")
    check(fcproc.vm.remove_dead(manager, "vm"))
    assert(bystander:alive(), "a process that is none of the VM's was ended")
    assert(support.read_file(canary .. "/x") == "dear\n"
      and support.read_file(canary .. "/none.vm.partial/x") == "dear\n", "somebody's files are gone")
    return info ~= nil
  end, function() return text end)
  bystander:signal("KILL")
  must(bystander:wait(5))
  return ok
end

os.exit(main(), true)
