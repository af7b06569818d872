-- A Python program beside the spec, perhaps as another user: for system calls that Lua has not. It
-- runs until the end of its block.

local support = require "spec.support"
local fcproc = require "fcproc"
local tail = require "fcproc.tail"

local Program = {}
Program.__index = Program

Program.__close = function(self)
  if self.process:alive() then self.process:signal("KILL") end
  self.process:wait(10)
  self.process:close()
  getmetatable(self.folder).__close(self.folder)
end

---What it has written.
function Program:output()
  return support.read_file(self.folder:file("out")) or ""
end

---Waits until it has done all that its text says; fails when it ended before.
function Program:ready()
  local found, err = tail.wait_for(self.process, { path = self.folder:file("out") }, "ready.", 10)
  if not found then
    local output = self:output()
    Program.__close(self)
    error(("%s\n%s"):format(tostring(err), output), 2)
  end
  return self
end

---Starts it: `local program <close> = python("import os", { uid = 1 }, "argument"):ready()`. At the end
---of its text it waits, holding what it has.
---@param text string
---@param opts table?  of fcproc.spawn
return function(text, opts, ...)
  local self = setmetatable({ folder = support.folder() }, Program)
  local spawn = { stdout = { file = self.folder:file("out") }, stderr = { file = self.folder:file("out") } }
  for key, value in pairs(opts or {}) do spawn[key] = value end
  local process, err = fcproc.spawn({ "python3", "-c",
    text .. "\nimport signal\nprint('ready.', flush=True)\nsignal.pause()\n", ... }, spawn)
  if not process then
    getmetatable(self.folder).__close(self.folder)
    error(tostring(err), 2)
  end
  self.process = process
  return self
end
