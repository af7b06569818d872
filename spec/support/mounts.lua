-- A script in a mount namespace of its own, so that what it mounts is nobody else's and goes with it.

local support = require "spec.support"

-- What the script gets: core, dir, support, must, fails(code, value, err), and complete(op, err).
local PRELUDE = [[
local core, dir = require "fcproc.core", arg[1]
local support = require "spec.support"
local loop = require "fcproc.loop"
local must, fails = support.must, support.fails
local function complete(...) return loop.complete(nil, ...) end
]]

---Mounts with a shell, whose $1 is the folder, then runs the Lua text; fails when one of them does.
return function(dir, mounts, text)
  support.write_file(dir:file("script.lua"), PRELUDE .. text)
  support.sh({ "unshare", "--mount", "sh", "-ec", mounts .. '\nexec "$0" "$1/script.lua" "$1"',
    support.lua, dir.path }, { timeout = 120 })
end
