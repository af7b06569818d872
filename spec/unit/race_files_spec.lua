-- A hostile user who swaps names in his folder as fast as he can, while root removes, gives away, seals,
-- copies and links what is there. What root must not touch is beside it, one symbolic or hard link away.

local support = require "spec.support"
local core = require "fcproc.core"
local loop = require "fcproc.loop"
local python = require "spec.support.python"

local must = support.must
local USER <const>, GROUP <const> = 1234, 2345
local PRIVATE <const> = tonumber("600", 8)

-- How many times as many as in a short run.
local FACTOR = tonumber(os.getenv("FCPROC_SPEC_RACES") or "1")
local REMOVALS, USES = 450 * FACTOR, 360 * FACTOR

-- swap(a, b) exchanges two names in one step of the kernel.
local SWAPPER = [[
import ctypes, os, sys
libc = ctypes.CDLL(None)
def swap(a, b): libc.syscall(%d, -100, a.encode(), -100, b.encode(), 2)
def attempt(fn, *args):
    try: fn(*args)
    except OSError: pass
os.chdir(sys.argv[1])
os.setgroups([]); os.setgid(%d); os.setuid(%d)
victim = sys.argv[2]
setup()
print("ready.", flush=True)
while True:
    step()
]]
local RENAMEAT2 = core.arch == "aarch64" and 276 or 316

-- The user's folder and what he must not reach: a folder of root's with a file in it.
local function field()
  local dir = support.folder()
  support.sh({ "sh", "-ec", [[
    chmod 755 .; mkdir play; chown 1234:2345 play
    mkdir victim victim/sub; echo precious > victim/file; echo precious > victim/sub/file
    ln victim/file play/base # as a read-only drive's image is in a jail
  ]] }, { cwd = dir.path })
  return dir
end

local function hostile(dir, text)
  return python(text .. SWAPPER:format(RENAMEAT2, GROUP, USER), nil, dir:file("play"),
    dir:file("victim")):ready()
end

local function state(dir)
  return support.sh({ "sh", "-c", "find . -printf '%p %y %U %G %m %n %s %T@\n' | sort; cat file sub/file" },
    { cwd = dir:file("victim") })
end

describe("a hostile user's race", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("against the removal of a tree takes it nowhere else", function()
    local dir <close> = field()
    local before, removed = state(dir), 0
    -- The tree itself, a folder in it and one below that are swapped for links and for each other.
    local user <close> = hostile(dir, [[
def setup():
    os.symlink(victim, "link"); os.symlink(victim + "/sub", "link2"); os.mkdir("aside")
n = 0
def step():
    global n
    n += 1
    for name in "t", "t/a", "t/a/b", "t/sub": attempt(os.mkdir, name)
    for name in "t/file", "t/a/file", "t/a/b/file": attempt(lambda: open(name, "w").close())
    for _ in range(8):
        swap("t/a", "link"); swap("t/a", "link")
        swap("t/a/b", "aside"); swap("t", "link"); swap("t/sub", "link2"); swap("t", "link")
        swap("t/a", "aside")
    attempt(os.symlink, victim, "link"); attempt(os.mkdir, "aside")
]])
    for i = 1, REMOVALS do
      local n, err = core.remove_tree(dir:file("play/t"))
      if n then
        removed = removed + n
      else
        assert.is_truthy(err.code == "busy" or err.code == "conflict", tostring(err))
      end
      if i % 30 == 0 then assert.are.equal(before, state(dir)) end
    end
    assert.is_true(user.process:alive(), user:output())
    assert.is_true(removed > REMOVALS // 10, "only " .. removed .. " were removed: it was no race")
    assert.are.equal(before, state(dir))
  end)

  it("against what is done with his files has it done to no other", function()
    local dir <close> = field()
    local path, made = dir:file("play/metrics"), dir:file("made")
    local before, done, refused = state(dir), 0, 0
    local _, id = core.create_file(path, ("x"):rep(100000), PRIVATE, USER, GROUP)
    local user <close> = hostile(dir, [[
def setup():
    os.symlink(victim + "/file", "link"); os.mkfifo("fifo"); os.mkdir("folder")
    open("mine", "w").write("y" * 100000)
def step():
    for other in "base", "link", "mine", "fifo", "folder":
        swap("metrics", other); swap("metrics", other)
]])
    local calls = {
      function(expected) return core.own_file(path, USER, GROUP, PRIVATE, expected) end,
      function(expected) return core.seal_file(path, USER, GROUP, PRIVATE, expected) end,
      function(expected) return core.punch_file(path, 0, expected) end,
      function(expected)
        local text, err = core.read_file(path, -10, 10, expected)
        if text then assert.are.equal(expected.id and ("x"):rep(10) or text, text) end
        return text and not text:find("precious") and text, err
      end,
      function(expected)
        local ok, err = core.link_file(path, made, expected)
        if ok then
          local info = must(core.stat(made))
          assert.are.equal(USER, info.uid)
          must(core.remove_file(made))
        end
        return ok, err
      end,
      function(expected)
        local ok, err = loop.complete(nil, core.copy_file(path, made, "sparse", PRIVATE,
          { expected = expected }))
        if ok then
          assert.is_nil(support.read_file(made):find("precious", 1, true))
          must(core.remove_file(made))
        end
        return ok, err
      end,
    }
    for i = 1, USES do
      local expected = i % 2 == 0 and { uid = USER, single = true } or { id = id, uid = USER, single = true }
      local ok, err = calls[i % #calls + 1](expected)
      if ok then done = done + 1 else refused = refused + 1 end
      assert.is_truthy(ok or err.code == "conflict", tostring(err))
    end
    assert.is_true(user.process:alive(), user:output())
    assert.is_true(done > USES // 20 and refused > USES // 20, ("no race: %d done, %d refused"):format(done,
      refused))
    assert.are.equal(before, state(dir))
  end)
end)
