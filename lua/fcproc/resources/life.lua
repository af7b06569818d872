-- Is a VM alive? All who must know ask here. What a journal names is judged by its numbers where they
-- hold, and where they don't by signs of life that hold everywhere. Only what is proved to be dead is
-- dead; what can be neither is unknown, and nobody touches it.

local cgroup = require "fcproc.machine.cgroup"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local hash = require "fcproc.hash"
local launch = require "fcproc.machine.launch"
local loop = require "fcproc.loop"
local place = require "fcproc.resources.place"
local processes = require "fcproc.resources.processes"

local M = {}

M.ELSEWHERE = "pid %d, which its journal names, is alive and not in its folder: it is none of its "
  .. "processes, and was not touched"

local EREMOTE = 66

---@class fcproc.Life
---@field state "alive"|"dead"|"unknown"
---@field process fcproc.Process?  of one that is alive and can be seen from here; closed with this
---@field err fcproc.Error?        why it is unknown, or alive and out of reach
---@field elsewhere integer?       the journal names this process, and it is not in the VM's place
local Life = {}
Life.__index = Life

Life.__close = core.uninterruptible(function(self)
  if self.process then self.process:close() end
end)

---Takes the process out: whoever has it closes it.
---@return fcproc.Process?
function Life:take()
  local process = self.process
  self.process = nil
  return process
end

-- ---- what a journal names --------------------------------------------------------------------

local function sum_of(identity)
  return ("%08x"):format(hash(identity.pid, identity.start_time, identity.boot_id, identity.inode or 0,
    identity.pid_ns or 0, identity.time_ns or 0) & 0xffffffff)
end

---An identity for the journal: with a sum of it, so that one that was damaged names nobody who is gone.
---@param identity fcproc.Identity
---@return fcproc.Identity identity  the same
function M.seal(identity)
  identity.sum = sum_of(identity)
  return identity
end

-- Is it what was written? One of an earlier fcproc has no sum, and is believed.
local function is_whole(identity)
  if not identity.sum and not identity.pid_ns then return true end
  return identity.sum == sum_of(identity)
end

-- A child enters its folder right before it comes to its gate, where it waits until it has been written
-- down: one that was released, and whose manager has died since, may be a moment short of it.
local function may_be_on_its_way(record)
  return not record.process and record.state == "starting"
    and math.abs(os.time() - record.created) <= launch.TIMEOUT
end

-- ---- signs of life ---------------------------------------------------------------------------

local function takes_connections(record)
  local op = core.wait_path(record.files.socket, true, 0, "api socket")
  local done, err = loop.complete(nil, op)
  return done == true or err ~= nil and err.code == "busy" -- its queue is full
end

-- Of what is in a jail nothing is opened: its names are its user's.
local function drives_in_use(record)
  for _, drive in ipairs(record.drives) do
    local path = drive.path
    if drive.copy then path = not record.jail and record.files.folder .. "/" .. drive.name end
    if path and not drive.read_only and core.file_in_use(path) then return path end
  end
end

-- What shows from everywhere that somebody of the VM lives; nil: nothing. (That its TAP is in use shows
-- when that is to be removed, which is before anything else is.)
local function sign_of_life(record, far, listener)
  -- Where all can be seen, who listens, and who has the jail as his root, was looked at: what else there
  -- is of these is only what it left.
  if far and listener ~= "elsewhere" and takes_connections(record) then
    return "its API socket takes connections"
  elseif far and record.jail and cgroup.populated(record.jail) then
    return "there are processes in its cgroup"
  end
  local path = drives_in_use(record)
  return path and ("its drive %s is in use"):format(path)
end

-- One that we may not look at may be in any but the host's own, in which it has one number only.
local function may_be_in(pid, pid_ns)
  local stat, err = core.stat(("/proc/%d/ns/pid"):format(pid), true)
  if stat or err.code ~= "permission" then return stat and stat.ino == pid_ns end
  local status = core.read_file(("/proc/%d/status"):format(pid)) or ""
  return status:find("\nNSpid:%s*%d+%s+%d") ~= nil
end

-- Seen from the host's own PID namespace nobody is in this one, so that it is gone with all who were in
-- it: its first process outlives all others.
local function is_empty(pid_ns)
  if not pid_ns or not processes.all_seen() then return false end
  for pid in processes.each() do
    if may_be_in(pid, pid_ns) then return false end
  end
  return true
end

-- ---- the answer ------------------------------------------------------------------------------

local function life(state, fields)
  fields.state = state
  return setmetatable(fields, Life)
end

local function out_of_reach(record, sign, cause)
  return errors.new{ code = "unsupported", op = "vm.find", state = "alive", cause = cause,
    message = ("the VM '%s' lives (%s), but its process can't be reached from here: %s. Ask from where "
      .. "it was launched"):format(record.id, sign, cause.message) }
end

local function cannot_tell(record, why, cause)
  return errors.new{ code = "unsupported", op = "vm.find", state = "unknown", cause = cause,
    message = ("whether the VM '%s' lives can't be told from here: %s. It was not touched. If you know "
      .. "that it is dead, reclaim it by its name: fcproc reclaim --unknown %s"):format(record.id, why,
        record.id) }
end

-- The identity fits nobody here, and that does not prove a death: it is of another namespace (far), or
-- was damaged.
local function by_signs(record, far, listener)
  local sign = sign_of_life(record, far, listener)
  if sign and far then return life("alive", { err = out_of_reach(record, sign, far) }) end
  if sign then
    return life("unknown", { err = cannot_tell(record, "its journal is lost or damaged, and "
      .. sign) })
  end
  local pid_ns = (record.process or record.launcher or {}).pid_ns
  if far and not is_empty(pid_ns) then
    return life("unknown", { err = cannot_tell(record, far.message .. ", and nothing shows that it lives",
      far) })
  end
  return life("dead", {})
end

---Judges a VM by its record. It is the process of its own identity; or what was spawned, which without
---a jailer is the VMM; or, when a crash came before the VMM was written down, whoever has the jail as its
---root. Without a journal that can be relied upon, whoever listens on its socket.
---@param record table
---@param without integer?  bits of core.without
---@return fcproc.Life
function M.of(record, without)
  local identity = record.process or record.launcher
  local process, err, is, pid
  if identity then process, err, is, pid = place.checked(record, core.process(identity)) end
  if process then return life("alive", { process = process }) end
  local elsewhere = is == "elsewhere" and pid or nil
  local far = err and err.code == "unsupported" and err
  if err and not far then return life("unknown", { err = err, elsewhere = elsewhere }) end
  local doubtful = record.rebuilt or far or identity and not is_whole(identity)
  if record.process and not doubtful then return life("dead", { elsewhere = elsewhere }) end
  if elsewhere and may_be_on_its_way(record) then
    return life("unknown", { elsewhere = elsewhere, err = errors.new{ code = "busy", op = "vm.find",
      pid = elsewhere, message = ("the VM '%s' may be just starting, as pid %d; try again in %d s"):format(
        record.id, elsewhere, launch.TIMEOUT) } })
  end
  err = nil
  if record.jail then process, err = place.in_jail(record) end
  if not process and doubtful and (far or not err) then
    process, err, is = place.listener(record, without)
  end
  if process then return life("alive", { process = process }) end
  if err and err.errno == EREMOTE then far, err = far or err, nil end -- its listener is out of our sight
  if err and not far then return life("unknown", { err = err, elsewhere = elsewhere }) end
  if not doubtful then return life("dead", { elsewhere = elsewhere }) end
  local answer = by_signs(record, far, is)
  answer.elsewhere = elsewhere
  return answer
end

---Does it run, as far as that can be told?
---@param record table
---@param without integer?  bits of core.without
---@return boolean
function M.is_alive(record, without)
  local judged <close> = M.of(record, without)
  return judged.state == "alive"
end

return M
