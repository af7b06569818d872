-- The relay of a rootless VM's published ports: a process of ours that listens on the host and connects in
-- the namespace. It ends with its VMM, whoever has started either; who it is the journal says.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local journals = require "fcproc.resources.journal"
local lives = require "fcproc.resources.life"
local process = require "fcproc.process"
local publish = require "fcproc.network.publish"

local M = {}

local END_LIMIT = 2 -- seconds for it to end after its VMM

-- What it is to serve: the guest's address, and ports.
local function wanted(record)
  for _, tap in ipairs(record.confined and record.taps or {}) do
    if tap.ports and tap.ports[1] then return tap.address, tap.ports end
  end
end

-- It, if it lives; hidden: somebody has its number, and before Linux 6.9 only /proc would tell who, which may
-- hide it (hidepid). It is taken for it, as it ends no sooner than its VMM by itself.
local function find(record)
  if not record.relay then return nil end
  local relay, err = core.process(record.relay)
  if not relay then return nil, err.code == "permission" end
  if relay:alive() then return relay end
  relay:close()
end

---Starts it, if the VM needs one, and writes down who it is.
---@param journal fcproc.Journal
---@param vmm fcproc.Process  with which it ends
---@param state string        the VM's, for the journal
---@return true?
---@return fcproc.Error? err  ERR_CONFLICT: another socket has a port; ERR_PERMISSION
function M.start(journal, vmm, state)
  local record, manager = journal.record, journal.manager
  local address, ports = wanted(record)
  if not address then return true end
  local started, texts = core.now(), {}
  for i, port in ipairs(ports) do
    texts[i] = ("%s,%s,%d,%d"):format(port.protocol, port.address, port.port, port.guest_port)
  end
  local relay <close>, err = core.relay(manager.config.netns, vmm, address, texts)
  if not relay then return nil, err end
  local identity
  identity, err = relay:identity()
  local ok
  if identity then
    record.relay = lives.seal(identity)
    ok, err = journal:save(state)
  end
  if not ok then
    relay:signal("KILL")
    return nil, err
  end
  manager:_log(started, "relay of published ports started", { id = journal.id, pid = relay:pid() })
  return true
end

---Starts another one when it has ended before its VMM.
---@param journal fcproc.Journal
---@param vmm fcproc.Process
---@return true?
---@return fcproc.Error? err
function M.ensure(journal, vmm)
  if not wanted(journal.record) then return true end
  local relay <close>, hidden = find(journal.record)
  if relay or hidden then return true end
  local started = core.now()
  local ok, err = M.start(journal, vmm, journal.record.state)
  journal.manager:_log(started, ok and "the relay of published ports had ended, and was started again"
    or "the relay of published ports has ended, and could not be started again",
    { id = journal.id, reason = err and err.message }, "warn")
  return ok, err
end

-- Does the VMM live, with which it ends? A folder may be a copy of that of a VM that lives, whose relay is
-- none of this one's.
local function is_needed(record)
  local identity = record.process or record.launcher
  if not identity then return false end
  local vmm <close>, err = core.process(identity)
  if errors.lacks_descriptors(err) then return nil, err end
  return vmm ~= nil and vmm:alive()
end

---It is gone, and its ports are free: it has seen its VMM's end, or is ended. That of a VMM that lives
---stays.
---@param record table
---@param ctx fcproc.Context?
---@return true?
---@return fcproc.Error? err
function M.stop(record, ctx)
  local relay <close> = find(record)
  if not relay then return true end
  local needed, unseen = is_needed(record)
  if needed == nil then return nil, unseen end
  if needed then return true end
  if process.wait(relay, END_LIMIT, 0, ctx) then return true end
  relay:signal("KILL")
  local gone, err = process.wait(relay, END_LIMIT, 0, ctx)
  if gone then return true end
  return nil, err --[[@as fcproc.Error]]
end

---For the information on one VM.
---@param _ fcproc.Manager
---@param record table
---@return fcproc.VmWarning? warning
function M.warning(_, record)
  local _, ports = wanted(record)
  if not ports then return end
  local relay <close>, hidden = find(record)
  if relay or hidden then return end
  return { name = "publish", message = ("the relay of its published ports has ended: %s lead nowhere"):format(
    publish.text(ports)), fix = "fcproc.vm.reclaim starts it again" }
end

-- ---- those of all VMs ------------------------------------------------------------------------

---The VMs that run and whose relay has ended.
---@param manager fcproc.Manager
---@return string[] ids
function M.lost(manager)
  local ids = {}
  if manager.config.privilege ~= "rootless" or not manager.config.netns then return ids end
  for _, id in ipairs(journals.ids(manager) or {}) do
    local record = journals.read(manager, id)
    -- Without a word of one it may be just being launched.
    if record and record.relay and M.warning(manager, record)
      and lives.is_alive(record, manager.config.without) then
      ids[#ids + 1] = id
    end
  end
  return ids
end

local function mend_one(manager, id)
  local journal, err = journals.open(manager, id)
  if not journal then return nil, err end
  local _ <close> = finally(function() journal:close() end)
  if not journal.record then return nil, err end
  local life <close> = lives.of(journal.record, manager.config.without)
  if not life.process then return true end -- it has ended meanwhile
  return M.ensure(journal, life.process)
end

---Starts them again, but for VMs that another manager has in its hands.
---@param manager fcproc.Manager
---@return { id: string, err: fcproc.Error? }[] mended  err: could not be
function M.mend(manager)
  local mended = {}
  for i, id in ipairs(M.lost(manager)) do
    local ok, err = mend_one(manager, id)
    mended[i] = { id = id, err = not ok and err or nil }
  end
  return mended
end

return M
