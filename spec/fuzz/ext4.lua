-- Trees of any shape become ext4 disks in which e2fsck finds nothing, at the smallest size and at larger
-- ones; and through a tar they become the very same. `make fuzz FUZZ_SECONDS=30`, or with a seed.

local fuzz = require "spec.support.fuzz"
local support = require "spec.support"
local core = require "fcproc.core"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local output = require "fcproc.image.output"

local must, random = support.must, math.random
local MIB <const> = 1 << 20

local function pick(list) return list[random(#list)] end

-- Mostly small, and now and then as large as it gets.
local function size(most)
  return random(4) == 1 and random(0, most) or random(0, math.min(most, 40))
end

local function bytes(n, least)
  local list = {}
  for i = 1, n do list[i] = string.char(random(least or 0, 255)) end
  return table.concat(list)
end

local function name()
  local text = ("n"):rep(random(0, 20)) .. random(1000)
  if random(3) == 1 then text = bytes(random(1, 255), 1):gsub("/", "_") end
  return (text == "." or text == "..") and "x" or text
end

local function xattrs()
  if random(4) > 1 then return nil end
  local list = {}
  for _ = 1, random(4) do
    local key = pick{ "user.", "trusted.", "security.", "com.apple." } .. ("k"):rep(random(60))
    list[key] = bytes(random(10) == 1 and size(1200) or size(60))
  end
  return list
end

-- A folder of the host: holes, hard links.
local function fill_host(path)
  must(core.make_dir(path, 493))
  for i = 1, random(4) do
    local file <close> = assert(io.open(path .. "/" .. i, "wb"))
    for _ = 1, size(8) do
      file:seek("set", pick{ random(0, 20), random(0, 300) * 4096, random(0, 600) * MIB, random(0, 5 * MIB) })
      file:write(bytes(random(1, 5)):rep(pick{ 1, 1000, 5000, 100000 }))
    end
  end
  for i = 2, size(6) do must(core.link_file(path .. "/1", path .. "/link" .. i)) end
end

local function put(tree, parent, log)
  local kind = pick{ "file", "file", "file", "dir", "dir", "symlink", "char", "block", "fifo" }
  local node = { kind = kind, mode = random(0, 4095), uid = pick{ 0, 1000, random(0, 4294967295) },
    gid = random(0, 70000), mtime = pick{ 0, -1, random(0, 2000000000), random(-2147483648, 15032385535) },
    mtime_ns = random(0, 999999999), xattrs = xattrs(), major = random(0, 4095), minor = random(0, 1048575) }
  -- libarchive writes fractions of a second before 1970 in the wrong direction.
  if node.mtime < 0 then node.mtime_ns = 0 end
  if kind == "file" then node.data = bytes(random(0, 3)):rep(size(20000)) end
  if kind == "symlink" then node.target = ("t"):rep(random(1, pick{ 70, 4095 })) end
  local path = parent .. "/" .. name()
  if #path > 3800 then return parent end
  log[#log + 1] = kind .. " " .. path
  local ok, err = tree:put(path, node)
  assert(ok or err.code == "invalid" or err.code == "conflict", err)
  return kind == "dir" and random(2) == 1 and path or parent
end

-- What a tree says of all that is in it.
local function described(tree, path, lines)
  local stat = must(tree:stat(path))
  local facts = { ("%q"):format(path), stat.kind, stat.mode, stat.uid, stat.gid, stat.mtime,
    stat.mtime_ns, stat.size, stat.nlink, stat.major or "", stat.minor or "", stat.target or "" }
  for key, value in pairs(stat.xattrs or {}) do facts[#facts + 1] = ("%s=%q"):format(key, value) end
  table.sort(facts, function(a, b) return tostring(a) < tostring(b) end)
  lines[#lines + 1] = table.concat(facts, " ")
  if stat.kind == "dir" then
    for _, entry in ipairs(must(tree:list(path))) do
      described(tree, (path == "/" and "" or path) .. "/" .. (entry.name or entry), lines)
    end
  end
  return lines
end

local function check(path)
  local result = must(require("fcproc").runner():run({ "e2fsck", "-fn", path }))
  assert(result.status == 0)
end

local function main()
  local dir <close> = support.folder()
  local log = {}
  return fuzz.run("trees", function()
    log = {}
    local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
    local host, again = dir:file("host"), dir:file("again")
    fill_host(host)
    must(jobs.run(must(tree:read_folder{ path = host })))
    local at = ""
    for _ = 1, pick{ 3, 30, 300, random(1000) } do
      at = random(10) == 1 and "" or put(tree, at, log)
    end
    if random(10) == 1 then
      local folder, long = "/" .. name(), ("l"):rep(random(0, 200))
      local made = tree:put(folder, { kind = "dir" })
      for i = 1, made and random(3000) or 0 do
        must(tree:put(folder .. "/" .. long .. i, { kind = "file" }))
      end
    end
    must(tree:seal())
    local given = { format = "ext4", time = random(0, 2000000000), journal = random(2) == 1,
      room = pick{ nil, "1MiB", random(0, 300) * MIB } }
    local path = dir:file("disk")
    local written, err = output.write(tree, path, given)
    if not written then
      assert(err.code == "invalid" and err.message:find("attributes"), err) -- more than a block
    else
      check(path)
      local tar <close> = must(imagecore.tree{ spool_folder = dir.path })
      must(output.write(tree, again, { format = "tar" }))
      must(jobs.run(must(tar:read_archive{ path = again })))
      must(tar:seal())
      local wanted, got = described(tree, "/", {}), described(tar, "/", {})
      for i = 1, math.max(#wanted, #got) do
        assert(wanted[i] == got[i], ("%s became %s"):format(wanted[i], got[i]))
      end
      must(output.write(tar, dir:file("disk2"), given))
      support.sh{ "cmp", path, dir:file("disk2") }
    end
    must(core.remove_tree(host))
    return written
  end, function() return table.concat(log, "\n") end)
end

os.exit(main(), true)
