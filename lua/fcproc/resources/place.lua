-- Which process is the VM's, when nobody here has started it. A journal names one by its identity, and
-- a journal may be of anybody's making, or come with a folder that was copied, shared or restored. So
-- it must also be in the VM's place: the folder below the VM's own where its VMM lives is its working
-- folder or its root, or it is in the VM's cgroup. That holds for a child at its gate (which is Lua), a
-- jailer on its way into the jail, and after the program was upgraded; its executable would tell none
-- of them.

local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local jailer = require "fcproc.machine.jailer"

local M = {}

---Is the process, which only a journal or a name in a folder leads to, in the VM's place? Only such a
---one is signalled, waited for as the VM's, or taken over. All who must know ask here.
---@param record table
---@param process fcproc.Process
---@return boolean? yes
---@return fcproc.Error? err  it could not be found out
function M.holds(record, process)
  local here, err = process:in_folder(record.files.folder)
  if here then return true end
  if not record.jail then
    if here ~= nil or err.code ~= "permission" then return here, err end
    -- Its user may execute its program and not read it: then he may not look at it either. But who listens
    -- on the VM's socket, the kernel tells.
    local peer <close> = core.open_listener(record.files.socket)
    if peer and peer:pid() == process:pid() and peer:alive() and process:alive() then return true end
    return nil, err
  end
  local inside, unseen = cgroup.has(record, process:pid())
  -- It had the number before, and has it yet: it was this one.
  if inside and process:alive() then return true end
  return here, err or unseen
end

---The live process that was opened, if it is the VM's; else it is closed.
---@param record table
---@param process fcproc.Process?
---@param err fcproc.Error?  why it could not be opened
---@return fcproc.Process?
---@return fcproc.Error? err  whether it lives could not be found out
---@return ("elsewhere"|"ended")? is
---@return integer? pid  of the one that is elsewhere
function M.checked(record, process, err)
  if not process then
    -- What it tells may mean that it lives and can't be seen: too few descriptors, no permission.
    return nil, err.code ~= "not_found" and err or nil
  end
  local here, unseen = M.holds(record, process)
  if here then return process end
  local alive, pid = process:alive(), process:pid()
  process:close()
  if not alive then return nil, nil, "ended" end
  return nil, unseen, not unseen and "elsewhere" or nil, pid
end

---Whoever has the jail as its root. A jailer that forks leaves a process behind that ends, and forks three
---times at most.
---@param record table
---@return fcproc.Process?
---@return fcproc.Error? err  whether there is one could not be found out
function M.in_jail(record)
  for _ = 1, 4 do
    local process, err, is = M.checked(record, jailer.find(record.jail.root))
    if is ~= "ended" then return process, err end
  end
end

---Who listens on the VM's socket, if it is the VM's.
---@param record table
---@param without integer?
---@return fcproc.Process? process
---@return fcproc.Error? err  whether anybody does could not be found out
---@return ("elsewhere"|"ended")? is
function M.listener(record, without)
  local process, err, is = M.checked(record, core.open_listener(record.files.socket, without))
  return process, err, is
end

return M
