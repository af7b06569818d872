-- What a child gets that the host starts by itself, with popen or fork and exec: none of our descriptors,
-- else it would keep a lock, a TAP, a drive or a guest's pipe when we have given it back.

local support = require "spec.support"
local core = require "fcproc.core"
require "fcproc" -- process:wait

local must = support.must

-- What such a child has open, but for the pipe to us and the folder that it reads.
local function inherited()
  local pipe <close> = assert(io.popen("readlink /proc/self/fd/* 2>/dev/null"))
  local list = {}
  for target in pipe:lines() do
    local kind = target:gsub("%d+", "N")
    if kind ~= "/proc/N/fd" then list[#list + 1] = kind end
  end
  table.sort(list)
  return list
end

describe("a child that the host starts by itself", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("has no descriptor of any object of ours", function()
    local dir <close> = support.folder()
    local path = dir:file("file")
    support.sh{ "dd", "if=/dev/zero", "of=" .. path, "bs=1M", "count=20", "status=none" }
    -- libcurl 7.88 makes two sockets for a handle, to wake itself, and offers no way to them.
    local client <close> = must(core.client(dir:file("api.sock")))
    assert.is_truthy(client)
    local before = inherited()
    local objects <close> = setmetatable({}, { __close = function(list)
      for _, object in ipairs(list) do
        if object.signal_number then object:signal_number(9) end
        if object.wait then object:wait(10) end
        object:close()
      end
    end })
    local function keep(object, err)
      objects[#objects + 1] = must(object, err)
      return object
    end
    local netns = keep(core.netns())
    local net = keep(core.net(netns))
    must(net:create_tap("tap0"))
    local ctx = keep(core.context())
    local process = keep(core.spawn{ argv = { "/bin/sleep", "60" }, stdout = "null", stderr = "null" })
    local gated = keep(core.spawn{ argv = { "/bin/true" }, stdout = "null", stderr = "null", gate = true })
    keep(core.lock_file(dir:file("lock")))
    keep(core.capper()):add(path, 1 << 30)
    for _, op in ipairs{ ctx:wait_op(60), process:wait_op(60), gated:wait_op(60), core.wait_signal{ 12 },
      core.wait_path(dir:file("none/x"), true, 60, "x"), core.wait_reader(1, 60),
      process:wait_server_op(dir:file("api.sock"), 60, "x"), process:wait_file_op(path, 1 << 30),
      process:wait_text_op(path, "x"), core.copy_file(path, dir:file("copy"), "sparse", 384),
      core.command{ argv = { "/bin/sleep", "60" }, input = ("x"):rep(1000000) },
      net:delete_taps{ "none" }, net:delete_bridge("none") } do
      keep(op):step()
    end
    assert.are.same(before, inherited())
  end)
end)
