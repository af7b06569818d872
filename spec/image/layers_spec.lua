-- Layers, read from the top down, are what they are when each is unpacked over the one below.

local support = require "spec.support"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local tar = require "spec.support.tar"

local must, fails = support.must, support.fails

local KINDS = { fifo = 1, char = 2, dir = 4, block = 6, file = 8, symlink = 10 }

local function hex(bytes) return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end

local function collect(tree, path, rows, names)
  for _, name in ipairs(must(tree:list(path))) do
    local at = path .. "/" .. name
    local st = must(tree:stat(at))
    local row = { at:sub(2), KINDS[st.kind], st.mode, st.uid, st.gid }
    if st.kind ~= "dir" then
      row[#row + 1] = st.mtime
      row[#row + 1] = st.nlink
      names[st.id] = names[st.id] or {}
      table.insert(names[st.id], at:sub(2))
    end
    if st.kind == "symlink" then row[#row + 1] = st.target end
    if st.kind == "file" then
      local data = must(tree:read(at, 1 << 20))
      table.move({ #data, hex(data:sub(1, 1)), hex(data:sub(-20)) }, 1, 3, #row + 1, row)
    end
    rows[#rows + 1] = { st.id, table.concat(row, " ") }
    if st.kind == "dir" then collect(tree, at, rows, names) end
  end
end

local function listing(tree)
  local rows, names, list = {}, {}, {}
  collect(tree, "", rows, names)
  for i, row in ipairs(rows) do
    local all = names[row[1]] or {}
    table.sort(all)
    list[i] = row[2] .. " " .. table.concat(all, " ")
  end
  table.sort(list)
  return list
end

-- The lowest first.
local function stack(dir, paths)
  local tree = must(imagecore.tree{ spool_folder = dir.path })
  for i = #paths, 1, -1 do
    must(jobs.run(must(tree:read_archive{ path = paths[i], layer = true })))
  end
  must(jobs.run(must(tree:merge())))
  return tree
end

describe("layers", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("of random stacks are as GNU tar and rm leave them, with hidden contents not kept", function()
    local dir <close> = support.folder()
    local stacks, seed = 12, os.getenv("FCPROC_SPEC_SEED") or tostring(os.time())
    support.sh({ "python3", "spec/support/layers.py", dir.path, seed, tostring(stacks) }, { timeout = 100 })
    for n = 0, stacks - 1 do
      local rows, paths = support.collect(support.read_file(dir:file(n .. "/wanted")), "[^\n]+"), {}
      for i = 1, math.tointeger(table.remove(rows, 1)) do paths[i] = dir:file(n .. "/" .. i) end
      table.sort(rows)
      local tree <close> = stack(dir, paths)
      local found = listing(tree)
      if table.concat(rows, "\n") ~= table.concat(found, "\n") then
        error(("seed %s, stack %d:\n%s\nis:\n%s"):format(seed, n, table.concat(rows, "\n"),
          table.concat(found, "\n")))
      end
    end
  end)

  -- Each a list of entries, the lowest layer first; packed by gzip, so that contents are spooled.
  local function build(dir, layers, packer)
    local paths, digests = {}, {}
    for i, entries in ipairs(layers) do
      support.write_file(dir:file("tar"), tar.archive(entries))
      paths[i] = dir:file("layer" .. i)
      support.sh{ "sh", "-c", "exec " .. (packer or "gzip -c") .. " <$0 >$1", dir:file("tar"), paths[i] }
      digests[i] = { "sha256:" .. support.sh{ "sha256sum", paths[i] }:match("^%x+"),
        "sha256:" .. support.sh{ "sha256sum", dir:file("tar") }:match("^%x+") }
    end
    return paths, digests
  end

  local function large(byte) return byte:rep(100000) end

  it("keep what a hard link needs, though its first name is hidden", function()
    local dir <close> = support.folder()
    local paths = build(dir, {
      { { name = "f", data = large("f") }, { name = "g", data = large("g") },
        { name = "also g", kind = "1", link = "g" }, { name = "gone", data = large("x") } },
      { { name = "h", kind = "1", link = "f" }, { name = ".wh.gone" } },
      { { name = ".wh.f" }, { name = "g", data = "new" } },
    })
    local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
    local hidden = {}
    for i = #paths, 1, -1 do
      hidden[i] = must(jobs.run(must(tree:read_archive{ path = paths[i], layer = true }))).hidden_bytes
    end
    assert.are.same({ 300000, 0, 0 }, hidden)
    fails("invalid", tree:stat("/h"))
    fails("invalid", tree:put("/x", { kind = "dir" }))
    must(jobs.run(must(tree:merge())))
    assert.is_true(must(tree:read("h", 1 << 20)) == large("f"))
    assert.is_true(must(tree:read("also g", 1 << 20)) == large("g"))
    assert.are.equal("new", must(tree:read("g", 1 << 20)))
    assert.are.same({ 1, 1 }, { must(tree:stat("h")).nlink, must(tree:stat("also g")).nlink })
    fails("not_found", tree:stat("f"))
    assert.are.same({ "also g", "g", "h" }, (function()
      local list = must(tree:list("/"))
      table.sort(list)
      return list
    end)())
    -- 200,000 bytes of two files, and "new": what is gone was never kept.
    assert.are.equal(200003, must(tree:seal()).bytes)
  end)

  it("may hold marks of aufs and of overlayfs", function()
    local dir <close> = support.folder()
    local tree <close> = stack(dir, (build(dir, {
      { { name = "a/x" }, { name = "b" }, { name = "c/d" } },
      { { name = ".wh..wh.aufs" }, { name = ".wh..wh.orph/", kind = "5" }, { name = ".wh..wh.orph/x" },
        { name = ".wh..wh.plnk/", kind = "5" }, { name = ".wh..wh.plnk/1.2", data = "linked" },
        { name = "one", kind = "1", link = ".wh..wh.plnk/1.2" },
        { name = "two", kind = "1", link = ".wh..wh.plnk/1.2" },
        { name = "b", kind = "3" }, { name = "c/.wh..wh..opq", kind = "1", link = ".wh..wh.plnk/9.9" } },
    })))
    local names = must(tree:list("/"))
    table.sort(names)
    assert.are.same({ "a", "c", "one", "two" }, names)
    assert.are.equal("linked", must(tree:read("two", 100)))
    assert.are.equal(2, must(tree:stat("one")).nlink)
    assert.are.same({}, must(tree:list("c")))
  end)

  it("are what their digests say, packed and unpacked, or are refused", function()
    local dir <close> = support.folder()
    local other = "sha256:" .. ("0"):rep(64)
    for _, packer in ipairs{ "cat", "gzip -c", "zstd -qc",
      "sh -c 'head -c 700 | gzip -c; head -c 5 </dev/null; cat | gzip -c'", -- two members
      -- as zstd:chunked: frames, and skippable ones with a table of them
      [[python3 -c 'import subprocess, sys
data = sys.stdin.buffer.read()
out = b"".join(subprocess.run(["zstd", "-qc"], input=data[i:i + 30000], capture_output=True).stdout
  for i in range(0, len(data), 30000))
sys.stdout.buffer.write(out + bytes([0x50, 0x2a, 0x4d, 0x18, 8, 0, 0, 0]) + b"manifest")']] } do
      local paths, digests = build(dir, { { { name = "f", data = large("f") } } }, packer)
      for wrong = 0, 2 do
        local tree <close> = must(imagecore.tree{ spool_folder = dir.path })
        local result, err = jobs.run(must(tree:read_archive{ path = paths[1], layer = true,
          digest = wrong == 1 and other or digests[1][1], diff_id = wrong == 2 and other or digests[1][2] }))
        if wrong == 0 then
          assert.are.same({ digests[1][1], digests[1][2] }, { must(result, err).digest, result.diff_id })
          must(jobs.run(must(tree:merge())))
          assert.is_true(must(tree:read("f", 1 << 20)) == large("f"))
        else
          fails("invalid", result, err)
          assert.is_truthy(err.message:find(other, 1, true) and err.message:find(digests[1][wrong], 1, true),
            err.message)
          fails("invalid", tree:merge()) -- what has failed is to be closed
        end
      end
    end
    local tree <close> = must(imagecore.tree())
    fails("invalid", tree:read_archive{ path = dir:file("tar"), digest = "md5:1" })
  end)
end)
