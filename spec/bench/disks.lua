-- The last part of `make bench`: what an image as a root adds to a launch, by an overlay over a base that is
-- shared, by reflink where the file system can, and by a copy, which is a row of its own. Each is beside a
-- launch with the same file as a read-only drive, in turn. A bar that is missed is shown, never an error.

local core = require "fcproc.core"
local fcproc = require "fcproc"
local stores = require "fcproc.image.store"

local firecracker = arg[2]
local ROUNDS, BYTES = 40, 170 << 20
local BAR = 5 -- ms

local runner = fcproc.runner()
local home = (assert(runner:run{ "mktemp", "-d" }).stdout:gsub("\n", ""))
local _ <close> = setmetatable({}, { __close = function() runner:run{ "rm", "-rf", home } end })
local store = assert(stores.open(home .. "/store"))
local entry = assert(store:make("bench", function(folder)
  local path = folder .. "/disk.ext4"
  assert(runner:run{ "dd", "if=/dev/urandom", "of=" .. path, "bs=1M", "count=" .. (BYTES >> 20),
    "status=none" })
  local file <close> = assert(io.open(path, "r+b"))
  assert(file:seek("set", 1080))
  assert(file:write("\x53\xef")) -- as an ext4 has it there
  return { kind = "ext4", file = "disk.ext4" }
end))
assert(store:tag("bench", entry.key))
local kernel = assert(fcproc.guest_path()) -- as an initrd it is of no use, and as large as some
local manager <close> = assert(fcproc.new{ runtime_dir = home .. "/run", firecracker_bin = firecracker })

local sides = {
  plain = function() return { drives = { { path = entry.path, root = true, read_only = true } } } end,
  overlay = function() return { image = { "bench", store = store } } end,
  reflink = core.reflink_check(home)
    and function() return { image = { "bench", store = store, copy = "reflink" } } end or nil,
  copy = function() return { image = { "bench", store = store, copy = "sparse" } } end,
}
local ORDER = { "plain", "overlay", "reflink", "copy" }

local samples = {}
io.stderr:write("measuring launches from images, half a minute\n")
for round = 1, ROUNDS do
  for turn = 1, #ORDER do
    local side = ORDER[(round + turn) % #ORDER + 1]
    if sides[side] then
      local spec = sides[side]()
      spec.kernel, spec.initrd, spec.mem_mib = kernel, kernel, 16
      local started = core.now()
      local vm = assert(fcproc.vm.launch(manager, spec))
      samples[side] = samples[side] or {}
      table.insert(samples[side], (core.now() - started) * 1e3)
      assert(vm:kill())
    end
  end
end

local function at(list, share) return list[math.max(1, math.ceil(#list * share))] end

print("| a root of 170 MB, ms for a launch | median [10th 90th] | added | bar |")
print("|---|--:|--:|--:|")
for _, side in ipairs(ORDER) do
  local list = samples[side]
  if list then
    table.sort(list)
    local added = at(list, 0.5) - at(samples.plain, 0.5)
    print(("| %s | %.1f [%.1f %.1f] | %s | %s |"):format(side, at(list, 0.5), at(list, 0.1), at(list, 0.9),
      side == "plain" and "-" or ("%.1f"):format(added), (side == "overlay" or side == "reflink")
      and ("%d %s"):format(BAR, added <= BAR and "met" or "MISSED") or "-"))
  else
    print(("| %s | %s can't | | |"):format(side, home))
  end
end
