-- Which process is the VM's, when nobody here has started it. A journal names one by its identity, and
-- a journal may be of anybody's making, or come with a folder that was copied, shared or restored. So
-- it must also be in the VM's place: the folder below the VM's own where its VMM lives is its working
-- folder or its root. That holds for a child at its gate (which is Lua), a jailer on its way into the
-- jail, and after the program was upgraded; its executable would tell none of them.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local jailer = require "fcproc.jailer"
local launch = require "fcproc.launch"

local M = {}

---Is the process, which only a journal or a name in a folder leads to, in the VM's place? Only such a
---one is signalled, waited for as the VM's, or taken over. All who must know ask here.
---@param record table
---@param process fcproc.Process
---@return boolean? yes
---@return fcproc.Error? err  it could not be found out
function M.holds(record, process)
  return process:in_folder(record.files.folder)
end

-- A child enters its folder right before it comes to its gate, where it waits until it has been written
-- down: one that was released, and whose manager has died since, may be a moment short of it.
local function may_be_on_its_way(record)
  return record.state == "starting" and math.abs(os.time() - record.created) <= launch.TIMEOUT
end

-- The live process that was opened, if it is the VM's. Else err, when that could not be found out; and
-- "elsewhere", with its pid, or "ended".
local function checked(record, process, err)
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

-- Whoever has the jail as its root. A jailer that forks leaves a process behind that ends, and forks three
-- times at most.
local function in_jail(record)
  for _ = 1, 4 do
    local process, err, is = checked(record, jailer.find(record.jail.root))
    if is ~= "ended" then return process, err end
  end
end

---The VMM of a record, if it lives. Its own identity; or what was spawned, which without a jailer is
---the VMM; or, when a crash came before the VMM was written down, whoever has the jail as its root.
---Without a journal, whoever listens on its socket.
---@param record table
---@return fcproc.Process? process
---@return fcproc.Error? err  whether it lives could not be found out
---@return integer? elsewhere  the journal names this process, and it is not in the VM's place
function M.find(record)
  local identity, process, err, is, pid = record.process or record.launcher, nil, nil, nil, nil
  if identity then process, err, is, pid = checked(record, core.process(identity)) end
  local elsewhere = is == "elsewhere" and pid or nil
  if process or err or record.process then return process, err, elsewhere end
  if elsewhere and may_be_on_its_way(record) then
    return nil, errors.new{ code = "busy", op = "vm.find", pid = elsewhere,
      message = ("the VM '%s' may be just starting, as pid %d; try again in %d s"):format(record.id,
        elsewhere, launch.TIMEOUT) }
  end
  if record.jail then process, err = in_jail(record) end
  if not process and not err and record.rebuilt then process, err = M.listener(record) end
  return process, err, elsewhere
end

---Who listens on the VM's socket, if it is the VM's.
---@param record table
---@param without integer?
---@return fcproc.Process? process
---@return fcproc.Error? err  whether anybody does could not be found out
function M.listener(record, without)
  local process, err = checked(record, core.open_listener(record.files.socket, without))
  return process, err
end

return M
