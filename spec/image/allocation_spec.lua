-- Memory that runs out in an image build, at any of its allocations.

local support = require "spec.support"
local fcproc = require "fcproc"

-- A C program of spec/support, which walks the allocations.
local function walk(name, dir)
  local program = os.getenv("FCPROC_SPEC_BUILD") .. "/" .. name
  local result, err = fcproc.runner():run({ program, dir.path }, { timeout = 300 })
  local out = result and result.stdout or (err.stdout or "") .. (err.output or "") .. tostring(err)
  assert.is_truthy(result and ("\n" .. out):find("\nok\n$"), out)
end

describe("out of memory", function()
  local dir = support.each_folder{ before_each = before_each, after_each = after_each }
  before_each(function()
    support.sh({ "sh", "-ec", [[cd $0; mkdir -p in/d two out
      i=0; while [ $i -lt 300 ]; do echo $i >in/d/name$i; i=$((i + 1)); done
      head -c 200000 /dev/urandom >in/big; ln in/big in/twin; ln -s d in/link; cp in/d/name1 in/a
      truncate -s 1M in/sparse; echo end >>in/sparse
      python3 -c 'import os; os.setxattr("in/a", "user.a", b"b")'
      tar -C in --xattrs --format=posix -Scf plain.tar .; tar -C in --format=posix -Sczf 1.tar.gz .
      echo new >two/a; touch two/.wh.big two/.wh.link; tar -C two --format=posix -czf 2.tar.gz .
      xz -c in/big >packed.xz; truncate -s 8M blank.ext4
      mke2fs -q -t ext4 -b 4096 -I 256 -N 600 -O ^has_journal -E lazy_itable_init=0,nodiscard blank.ext4]],
      dir.path })
  end)

  it("in a tree or a job of it is told as that, and leaves nothing", function() walk("oom-image", dir) end)

  it("in what becomes of a tree is told as that, and leaves nothing, nor half a target", function()
    walk("oom-image-write", dir)
  end)
end)
