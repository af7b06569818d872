-- Memory that runs out in an image build, at any of its allocations.

local support = require "spec.support"
local fcproc = require "fcproc"

describe("out of memory", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("in a tree or a job of it is told as that, and leaves nothing", function()
    local dir <close> = support.folder()
    support.sh({ "sh", "-ec", [[cd $0; mkdir -p in/d two
      i=0; while [ $i -lt 300 ]; do echo $i >in/d/name$i; i=$((i + 1)); done
      head -c 200000 /dev/urandom >in/big; ln in/big in/twin; ln -s d in/link; cp in/d/name1 in/a
      truncate -s 1M in/sparse; echo end >>in/sparse
      python3 -c 'import os; os.setxattr("in/a", "user.a", b"b")'
      tar -C in --xattrs --format=posix -Scf plain.tar .; tar -C in --format=posix -Sczf 1.tar.gz .
      echo new >two/a; touch two/.wh.big two/.wh.link; tar -C two --format=posix -czf 2.tar.gz .]],
      dir.path })
    local program = os.getenv("FCPROC_SPEC_BUILD") .. "/oom-image"
    local result, err = fcproc.runner():run({ program, dir.path }, { timeout = 300 })
    local out = result and result.stdout or (err.stdout or "") .. tostring(err)
    assert.is_truthy(result and ("\n" .. out):find("\nok\n$"), out)
  end)
end)
