-- One file without what packed it, or a part of it, on a worker's thread.

local support = require "spec.support"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"
local fcproc = require "fcproc"

local must, fails = support.must, support.fails

local PACKERS = { "gzip -nc", "bzip2 -c", "xz -c", "xz --format=lzma -c", "zstd -qc", "lz4 -lqc", "lz4 -qc" }

describe("a file that is unpacked", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }

  local function unpack(options, ctx)
    local job, err = imagecore.unpack(options)
    if not job then return nil, err end
    return jobs.run(job, ctx)
  end

  local function packed(command, text)
    support.write_file(dir:file("plain"), text)
    support.sh{ "sh", "-c", command .. ' <"$1" >"$2"', "sh", dir:file("plain"), dir:file("packed") }
    return dir:file("packed")
  end

  it("is whatever packed it, and tells where texts in it are", function()
    local text = ("0123456789abcdef"):rep(40000) .. "the mark" .. ("x"):rep(300000) .. "the mark, last"
    for _, command in ipairs(PACKERS) do
      local result = must(unpack{ path = packed(command, text), keep = true,
        marks = { "the mark", "never", "last", "0" } })
      assert.are.equal(text, result.data)
      assert.are.same({ 640000, false, 940018, 0 }, result.marks, command)
      assert.is_true(result.packed)
      assert.are.equal(#text, result.bytes)
    end
    local plain = must(unpack{ path = dir:file("plain"), from = 640000, len = 8, keep = true })
    assert.are.same({ false, "the mark", 8 }, { plain.packed, plain.data, plain.bytes })
  end)

  it("is looked through across the blocks that it comes in", function()
    for _, size in ipairs{ 128 << 10, 256 << 10 } do
      for shift = 0, 8 do
        support.write_file(dir:file("plain"), ("."):rep(size - shift) .. "IKCFG_ST" .. ("."):rep(99))
        local result = must(unpack{ path = dir:file("plain"), marks = { "IKCFG_ST", "ST.", "FG_" } })
        local at = size - shift
        assert.are.same({ at, at + 6, at + 3 }, { table.unpack(result.marks, 1, 3) })
      end
    end
    support.write_file(dir:file("plain"), "a")
    assert.are.same({ 0, false, false, false },
      must(unpack{ path = dir:file("plain"), marks = { "a", "aa" } }).marks)
  end)

  it("is written to a descriptor", function()
    local path = packed("xz -c", ("line\n"):rep(1000))
    local job = must(imagecore.unpack{ path = path, keep = false })
    assert.is_nil(must(jobs.run(job)).data)
  end)

  it("is refused when it is cut, damaged, a bomb, or no file", function()
    local text = support.sh{ "head", "-c", "200000", "/dev/urandom" } .. ("z"):rep(1000)
    for _, command in ipairs(PACKERS) do
      local whole = support.read_file(packed(command, text))
      support.write_file(dir:file("cut"), whole:sub(1, #whole // 2))
      local err = fails("invalid", unpack{ path = dir:file("cut") })
      assert.is_truthy(err.message:find(dir:file("cut"), 1, true))
      err = fails("invalid", unpack{ path = dir:file("packed"), limit = 200999 })
      assert.is_truthy(err.message:find("unpacks to more than 200999 bytes", 1, true), err.message)
      assert.are.equal(201000, must(unpack{ path = dir:file("packed"), limit = 201000 }).bytes)
    end
    fails("not_found", unpack{ path = dir:file("none") })
    fails("conflict", unpack{ path = dir.path })
    fails("conflict", unpack{ path = "/dev/zero" })
    fails("invalid", unpack{ path = dir:file("plain"), from = 201001 })
    fails("invalid", unpack{ path = dir:file("plain"), from = 200000, len = 1001 })
    fails("invalid", unpack{ path = dir:file("plain"), marks = { ("m"):rep(32) } })
    local many = { "a", "b", "c", "d", "e" }
    support.raises("marks must be a list", imagecore.unpack, { path = "/x", marks = many })
    support.raises("path is missing", imagecore.unpack, {})
  end)

  it("ends with its context", function()
    support.sh{ "truncate", "-s", "4G", dir:file("holes") }
    local ctx <close> = must(fcproc.context())
    ctx:cancel()
    fails("cancelled", unpack({ path = dir:file("holes"), limit = 1 << 40, marks = { "never" } }, ctx))
  end)
end)
