-- Who has broken into a jailed VMM: a process of the jail's user whose root is the jail's.

local core = require "fcproc.core"
local python = require "spec.support.python"

local PRELUDE = [[
import errno, fcntl, mmap, os, signal, socket, sys, time
os.chroot(sys.argv[1])
os.chdir("/")
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))
args = sys.argv[4:]
def gone(name):
    # The name, whatever it was, is free.
    if os.path.isdir(name) and not os.path.islink(name): os.rename(name, name + ".was")
    elif os.path.lexists(name): os.unlink(name)
]]

---Does that in the jail: `local intruder <close> = intrude(vm, "os.unlink('metrics')", "argument")`. It
---has done it all when this returns, and holds what it has opened until the end of the block. A text
---whose last line is a loop is started, and printed "ready." itself.
---@param vm fcproc.Vm
---@param text string
return function(vm, text, ...)
  local root = vm:record().jail.root
  local owner = assert(core.stat(root))
  return python(PRELUDE .. text, nil, root, tostring(owner.uid), tostring(owner.gid), ...):ready()
end
