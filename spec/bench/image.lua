-- Part of `make bench`: a Debian minbase (by mmdebstrap, or FCPROC_BENCH_TAR) becomes an ext4 disk, beside
-- what writes such a disk from a tar in Go (tar2ext4 of hcsshim, where go can build it), and beside the floor
-- of the bytes: cat. The same as one layer, beside gzip -dc; 60,000 names in a folder; and memory, which does
-- not grow with the contents. All in turn, each a process of its own, in memory where there is room, so that
-- no disk is compared. A bar that is missed is shown, never an error.

package.path = "./?.lua;./?/init.lua;" .. package.path

local core = require "fcproc.core"
local fcproc = require "fcproc"
local images = require "spec.support.images"
local support = require "spec.support"

local build = arg[1]
local ROUNDS, NAMES, LARGE = 7, 60000, 1 << 30
local ROOM = 4 << 30

local runner = fcproc.runner()
local function sh(text, ...) return assert(runner:run{ "sh", "-ec", text, "sh", ... }).stdout end
local function tell(text) io.stderr:write(text, "\n") end

local place = (core.disk_free("/dev/shm") or 0) > ROOM and "/dev/shm" or "/tmp"
local dir = sh('mktemp -d "$1/fcproc-bench.XXXXXX"', place):gsub("\n", "")
local _ <close> = setmetatable({}, { __close = function() runner:run{ "rm", "-rf", dir } end })

-- ---- what is built from --------------------------------------------------------------------------

local function minbase()
  local given = os.getenv("FCPROC_BENCH_TAR") or build .. "/minbase.tar"
  if not core.stat(given, true) then
    tell("making a Debian minbase")
    local made, err = runner:run{ "mmdebstrap", "--variant=minbase", "--format=tar", "bookworm", given }
    if not made then return nil, err end
  end
  sh('cat "$1" >"$2"', given, dir .. "/minbase.tar")
  return dir .. "/minbase.tar"
end

local GO = [[
package main

import (
	"os"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

func main() {
	in, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	out, err := os.Create(os.Args[2])
	if err != nil {
		panic(err)
	}
	if err := tar2ext4.Convert(in, out); err != nil {
		panic(err)
	}
}
]]

-- Outside the tree; nil where it can't be.
local function tar2ext4()
  local program = core.find_executable("tar2ext4")
  if program then return program end
  tell("building tar2ext4")
  core.make_dir(dir .. "/go", 448)
  support.write_file(dir .. "/go/main.go", GO)
  local made = runner:run({ "sh", "-ec", [[cd "$1"
    export GOPATH="$1/path" GOCACHE="$1/cache" GOFLAGS=-modcacherw
    go mod init bench
    go get github.com/Microsoft/hcsshim@v0.11.4
    go build -o ../tar2ext4 .]], "sh", dir .. "/go" }, { timeout = 300 })
  core.remove_tree(dir .. "/go")
  return made and dir .. "/tar2ext4"
end

-- ---- sides ---------------------------------------------------------------------------------------

support.write_file(dir .. "/build.lua", [[
  local image = require "fcproc.image"
  assert(image.build(arg[1], arg[2]))
  print(io.open("/proc/self/status"):read("a"):match("VmHWM:%s+(%d+)"))
]])

local peak -- KiB, of the builder that ended last

local function ours(source)
  peak = tonumber(assert(runner:run{ arg[-1], dir .. "/build.lua", source, dir .. "/disk" }).stdout)
end

local function timed(fn, ...)
  runner:run{ "rm", "-f", dir .. "/disk", dir .. "/copy" }
  local started = core.now()
  fn(...)
  return core.now() - started
end

local function at(list, share) return list[math.max(1, math.ceil(#list * share))] end

print("| image build | fcproc s [10th 90th] | beside it s | ratio | bar | peak MiB |")
print("|---|--:|--:|--:|--:|--:|")

-- ours beside each of the others in the same rounds: { name, fn, bar }.
local function row(name, source, others)
  tell("measuring " .. name)
  local samples, most = { {} }, 0
  for round = 1, ROUNDS do
    for turn = 0, #others do
      local side = (round + turn) % (#others + 1)
      samples[side + 1] = samples[side + 1] or {}
      local took = side == 0 and timed(ours, source) or timed(others[side][2])
      if side == 0 then most = math.max(most, peak) end
      table.insert(samples[side + 1], took)
    end
  end
  for _, list in ipairs(samples) do table.sort(list) end
  local own = samples[1]
  local text = ("%.3f [%.3f %.3f]"):format(at(own, 0.5), at(own, 0.1), at(own, 0.9))
  for i, other in ipairs(others) do
    local beside = at(samples[i + 1], 0.5)
    local ratio, bar = at(own, 0.5) / beside, other[3]
    print(("| %s | %s | %s %.3f | %.2f | %s | %.1f |"):format(name, text, other[1], beside, ratio,
      bar and ("%.2f %s"):format(bar, ratio <= bar and "met" or "MISSED") or "-", most / 1024))
  end
  return at(own, 0.5), most / 1024
end

local function alone(name, source, seconds, mib)
  tell("measuring " .. name)
  local took = timed(ours, source)
  print(("| %s | %.3f | - | - | %s | %.1f%s |"):format(name, took, seconds
    and ("%d s %s"):format(seconds, took <= seconds and "met" or "MISSED") or "-", peak / 1024,
    mib and (" (%d %s)"):format(mib, peak / 1024 <= mib and "met" or "MISSED") or ""))
end

local tar, problem = minbase()
if tar then
  local go = tar2ext4()
  local function cat() sh('cat "$1" >"$2"', tar, dir .. "/copy") end
  local beside = { { "cat", cat, not go and 8 or nil } }
  local function in_go() sh('"$1" "$2" "$3"', go, tar, dir .. "/copy") end
  if go then table.insert(beside, 1, { "tar2ext4", in_go, 1.25 }) end
  row("minbase, a tar", "tar:" .. tar, beside)

  local layout = images.layout(dir .. "/layout")
  layout:write{ layout:image({ support.read_file(tar) }, { gzip = true }) }
  sh('gzip -nc "$1" >"$1.gz"', tar)
  row("minbase, a layer of gzip", "oci:" .. dir .. "/layout",
    { { "gzip -dc", function() sh('gzip -dc "$1" >"$2"', tar .. ".gz", dir .. "/copy") end, 1.5 } })
  runner:run{ "rm", "-rf", dir .. "/layout", tar .. ".gz" }
else
  print("| minbase | " .. tostring(problem):gsub("[\n|]", " ") .. " | | | | |")
end

sh([[mkdir "$1/names" "$1/names/many"; cd "$1/names/many"; seq $2 | xargs touch]], dir, NAMES)
alone(("%d names in a folder"):format(NAMES), "dir:" .. dir .. "/names", 2)
sh([[mkdir "$1/large"; truncate -s 4G "$1/large/holes"]], dir)
alone("a file of 4 GiB, all a hole", "dir:" .. dir .. "/large", nil, 32)
sh([[rm "$1/large/holes"; head -c $2 /dev/urandom >"$1/large/random"]], dir, LARGE)
alone("a file of 1 GiB, random", "dir:" .. dir .. "/large", nil, 32)
