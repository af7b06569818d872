-- The namespaces of an ordinary user's own, in which he may make bridges and TAPs and run VMs without any
-- right on the host: one pair for each runtime folder. A holder outside keeps them (see fcproc_netns_hold);
-- where it is says the record, which is believed once process and namespace are the recorded ones.
--
-- RUNTIME_DIR/.fcproc/rootless/record   who holds which namespaces
-- RUNTIME_DIR/.fcproc/rootless/alive    a FIFO, which each manager and VM has open for writing
-- RUNTIME_DIR/.fcproc/rootless/lock     held while the namespaces are found, made or left
-- RUNTIME_DIR/.fcproc/rootless/pasta.pid, pasta.log: that the uplink is there, or what pasta says of it

local core = require "fcproc.core"
local errors = require "fcproc.error"
local json = require "fcproc.json"
local loop = require "fcproc.loop"
local pastas = require "fcproc.manager.pasta"
local rights = require "fcproc.rights"

local M = {}

local PRIVATE = 448 -- 0700
local LOCK_TRIES, LOCK_PAUSE = 2000, 0.005 -- seconds; to make the namespaces takes some 10 ms
local RECORD_LIMIT = 65536
local NET_ADMIN = { [12] = "NET_ADMIN" }
local END_LIMIT = 5 -- seconds for a holder to end
local NOT_OPENED = "the namespaces that were just made can't be opened"

M.UPLINK = pastas.UPLINK

-- Its path; nil: it is not installed.
function M.find_pasta() return pastas.find() end

---May this process make bridges and TAPs where it is?
---@return boolean
function M.may_make_links()
  return rights.missing(NET_ADMIN) == nil
end

-- ---- the record ------------------------------------------------------------------------------

local function folder_of(config) return config.runtime_dir .. "/.fcproc/rootless" end

---@class fcproc.Held  the namespaces as they were recorded
---@field holder fcproc.Identity
---@field net integer     the network namespace's number
---@field user integer    and that of the user namespace
---@field uplink string?  the uplink's interface in there

local function is_whole(record)
  return type(record) == "table" and type(record.holder) == "table"
    and math.type(record.holder.pid) == "integer" and math.type(record.holder.start_time) == "integer"
    and type(record.holder.boot_id) == "string" and math.type(record.net) == "integer"
    and (record.uplink == nil or record.uplink == M.UPLINK)
end

-- nil: there is none that says anything.
local function read(config)
  local folder = folder_of(config)
  if not core.check_dir(folder) then return nil end
  local text = core.read_file(folder .. "/record", 0, RECORD_LIMIT)
  local record = text and json.restored(text)
  record = type(record) == "table" and json.plain(record) or nil
  return is_whole(record) and record or nil
end

-- ---- finding ---------------------------------------------------------------------------------

-- The namespace at the path, if it is that one.
local function open_at(path, number)
  local stat = core.stat(path, true)
  local netns = stat and stat.ino == number and core.netns(path)
  if not netns then return nil end
  stat = core.stat(("/proc/self/fd/%d"):format(netns:fd()), true)
  if stat and stat.ino == number and netns:is_rootless() then return netns end
  netns:close()
end

-- By its holder, who has it open. The holder, too, if it lives.
local function of_holder(record)
  local holder = core.process(record.holder)
  if not holder then return nil end
  local netns = open_at(("/proc/%d/fd/4"):format(holder:pid()), record.net)
  if netns and holder:alive() then return netns, holder end
  if netns then netns:close() end
  holder:close()
end

---@class fcproc.Keepers  who a manager knows to keep the namespaces that it is in
---@field holder fcproc.Process
---@field pasta fcproc.Process?   nil: it has ended, or there was none
---@field uplink string?          nil: pasta was not installed

-- The manager knows them from now on.
local function know(manager, record)
  M.forget(manager)
  local holder = core.process(record.holder)
  if not holder then return end -- it has ended just now
  local pid = pastas.pid(holder)
  local pasta = pid and pid > 0 and core.process(pid) or nil
  if pasta and pastas.pid(holder) ~= pid then -- another one by now
    pasta:close()
    pasta = nil
  end
  manager.keepers = { holder = holder, pasta = pasta, uplink = record.uplink }
end

---The manager knows them no more.
---@param manager fcproc.Manager
function M.forget(manager)
  local keepers = manager.keepers
  manager.keepers = nil
  if not keepers then return end
  keepers.holder:close()
  if keepers.pasta then keepers.pasta:close() end
end

-- Why there is to be another holder; nil: this one is well.
local function fault_of(config, record, holder, asked)
  if not record.uplink then return M.find_pasta() and "pasta was not installed before" or nil end
  local ended = pastas.is_lost(holder, folder_of(config)) or asked and pastas.pid(holder) == -1
  return ended and "pasta had ended" or nil
end

-- By somebody who is in it: the manager, or a VM that has outlived the holder.
local function of_member(manager, record)
  local own = manager and manager.config.netns
  own = own and open_at(("/proc/self/fd/%d"):format(own:fd()), record.net)
  if own then return own end
  for _, entry in ipairs(core.list_dir("/proc") or {}) do
    local netns = entry.name:find("^%d+$")
      and open_at(("/proc/%s/ns/net"):format(entry.name), record.net)
    if netns then return netns end
  end
end

local function lock(config)
  local path, held, err = folder_of(config) .. "/lock", nil, nil
  for _ = 1, LOCK_TRIES do
    held, err = core.lock_file(path)
    if held or err.code ~= "busy" then break end
    core.poll_many({}, {}, LOCK_PAUSE)
  end
  return held, err
end

local function make_folder(manager)
  local ok, err = manager:ensure_socket_dir()
  if not ok then return nil, err end
  for _, path in ipairs{ manager.config.runtime_dir .. "/.fcproc", folder_of(manager.config) } do
    local made
    made, err = core.make_dir(path, PRIVATE)
    if made == nil then return nil, err end
  end
  return core.check_dir(folder_of(manager.config))
end

local function number_of(path)
  local stat = core.stat(path, true)
  return stat and stat.ino or 0
end

-- Starts a holder, of new namespaces or of those that are there, and writes down who it is. The lock is
-- held.
local function hold(manager, join)
  local config, started = manager.config, core.now()
  local folder, pasta = folder_of(config), M.find_pasta()
  local command = pasta and pastas.command(pasta, folder)
  local holder <close>, err = core.hold_netns(folder .. "/alive", folder .. "/lock", join, command)
  if not holder then return nil, err end
  local path = ("/proc/%d/fd/"):format(holder:pid())
  local record = { format = 1, net = number_of(path .. 4), user = number_of(path .. 3),
    uplink = pasta and M.UPLINK or nil }
  record.holder, err = holder:identity()
  local netns = record.holder and open_at(path .. 4, record.net)
  local ok
  if netns then ok, err = netns:keep(folder .. "/alive") end
  if ok then ok, err = core.write_file(folder .. "/record", json.write(record), 384) end
  if not ok then
    if netns then netns:close() end
    holder:signal("KILL")
    return nil, err or errors.new{ code = "system", op = "netns.hold", message = NOT_OPENED }
  end
  know(manager, record)
  manager:_log(started, join and "the namespaces have a holder again" or "user and network namespace made",
    { holder = holder:pid(), netns = record.net, uplink = record.uplink })
  if not pasta then
    manager:_log(started, "pasta is not installed, so guests have no uplink: apt install passt",
      { netns = record.net }, "warn")
  end
  return netns, record
end

-- Without an operation, which would let other coroutines go on: they would wait for our lock, and all of them
-- with them.
local function end_holder(holder)
  local deadline = core.now() + END_LIMIT
  holder:signal("KILL")
  while holder:alive() and core.now() < deadline do core.poll(holder:pidfd(), deadline - core.now()) end
  if not holder:alive() then return true end
  local pid = holder:pid()
  return nil, errors.new{ code = "wait_timeout", op = "netns.hold", pid = pid,
    message = ("process %d, which holds the namespaces, was killed and does not end"):format(pid) }
end

-- From now on the manager is one of those for whom they are there.
local function keep(manager, netns, record)
  local ok, err = netns:keep(folder_of(manager.config) .. "/alive")
  if not ok then
    netns:close()
    return nil, err
  end
  know(manager, record)
  return netns
end

---The namespaces that are there, kept by this manager from now on; nil: there are none. When the holder has
---ended, or its pasta, or pasta is installed since, there is another one from now on.
---@param manager fcproc.Manager
---@param asked boolean?  an uplink is asked for: pasta that could give none is tried again
---@return fcproc.Netns? netns
---@return fcproc.Error? err
function M.find(manager, asked)
  local config = manager.config
  if not read(config) then return nil end
  local held <close>, err = lock(config)
  if not held then return nil, err.code ~= "not_found" and err or nil end
  local record = read(config)
  if not record then return nil end
  local netns, holder = of_holder(record)
  local open <close>, why = holder, "the former holder was dead"
  if open then why = fault_of(config, record, open, asked) end
  if netns and not why then return keep(manager, netns, record) end
  local member <close> = netns or of_member(manager, record)
  if not member then return nil end
  if open then
    local gone
    gone, err = end_holder(open)
    if not gone then return nil, err end
  end
  netns, err = hold(manager, member) -- a VM has outlived it
  manager.held_anew = netns and why
  if netns then return netns end
  return nil, err -- not two pairs of namespaces
end

-- Is there all that the manager's guests can have?
local function are_well(keepers)
  if not keepers or not keepers.holder:alive() then return false end
  if not keepers.uplink then return M.find_pasta() == nil end
  return not keepers.pasta or keepers.pasta:alive()
end

---The manager is in there: a holder that was killed, and an uplink that its guests had, or can have by now,
---are there again.
---@param manager fcproc.Manager
function M.mend(manager)
  if manager.closed or are_well(manager.keepers) then return end
  local started = core.now()
  local netns, err = M.find(manager)
  if netns then netns:close() end
  if err then
    manager:_log(started, "what keeps the namespaces, or gives their uplink, has ended, and could not be "
      .. "started again", { reason = err.message }, "warn")
  end
end

---The same as find, and they are made when there are none.
---@param manager fcproc.Manager
---@return fcproc.Netns? netns
---@return fcproc.Error? err  ERR_PERMISSION: user namespaces are forbidden here, with the switch
function M.ensure(manager)
  local ok, err = make_folder(manager)
  if not ok then return nil, err end
  local netns
  netns, err = M.find(manager)
  if netns or err then return netns, err end
  local held <close>, busy = lock(manager.config)
  if not held then return nil, busy end
  local record = read(manager.config) -- somebody may have been faster
  local holder
  if record then netns, holder = of_holder(record) end
  if not netns then return hold(manager) end
  holder:close()
  return keep(manager, netns, record)
end

-- Of namespaces that pasta was started for: its interface, once it is there.
local function wait_for_uplink(manager, record, ctx)
  local netns, holder = of_holder(record)
  if netns then
    netns:close()
    local open <close> = holder
    local done, err = pastas.wait(open, folder_of(manager.config), ctx)
    if done and manager.net:link_exists(record.uplink) then return record.uplink end
    local ok, ended = loop.check(ctx)
    if not ok then return nil, ended or err end
  end
  local opens, reason = core.tun_check("/dev/net/tun")
  local why = opens and pastas.words(folder_of(manager.config)) or reason.message
  return nil, errors.new{ code = "not_found", op = "nat.uplink",
    message = "pasta gives the guests no uplink: " .. why }
end

---The uplink's interface in there, once it is there. Pasta that could give none is started again.
---@param manager fcproc.Manager  in the namespaces
---@param ctx fcproc.Context?
---@param looking boolean?  nothing is started
---@return string? name
---@return fcproc.Error? err  ERR_NOT_FOUND: there is none
function M.uplink(manager, ctx, looking)
  local record = read(manager.config)
  if record and record.uplink then
    if manager.net:link_exists(record.uplink) then return record.uplink end
    local netns, err
    if not looking then netns, err = M.find(manager, true) end
    if err then return nil, err end
    if netns then netns:close() end
    record = read(manager.config)
  end
  if record and record.uplink then return wait_for_uplink(manager, record, ctx) end
  return nil, errors.new{ code = "not_found", op = "nat.uplink",
    message = M.find_pasta() and "pasta has given no uplink yet: the next VM with a network starts it"
      or "pasta, which gives rootless guests their uplink, is not installed: apt install passt" }
end

---Namespaces to try something in: nothing of them is written down, and they go with the descriptor.
---@param folder string  an empty one of ours, not needed any more afterwards
---@param pasta string?  its path, for an uplink, which has gone again afterwards
---@param ctx fcproc.Context?
---@return fcproc.Netns? netns
---@return boolean|fcproc.Error up  was there an uplink? Or the error, as ensure's
function M.scratch(folder, pasta, ctx)
  local path = folder .. "/lock"
  local held <close>, busy = core.lock_file(path)
  if not held then return nil, busy end
  local holder <close>, err = core.hold_netns(folder .. "/alive", path, nil,
    pasta and pastas.command(pasta, folder))
  if not holder then return nil, err end
  path = ("/proc/%d/fd/4"):format(holder:pid())
  local netns, up = open_at(path, number_of(path)), false
  if netns and pasta then
    pastas.wait(holder, folder, ctx)
    local net <close> = core.net(netns)
    up = net ~= nil and net:link_exists(M.UPLINK) == true
  end
  end_holder(holder)
  if netns then return netns, up end
  return nil, errors.new{ code = "system", op = "netns.hold", message = NOT_OPENED }
end

---@class fcproc.RootlessState
---@field netns integer
---@field holder integer?  its pid; nil: it was killed, and VMs live on
---@field uplink string?
---@field ended true?     pasta gave it, and has ended

---What there is, for doctor and for people. Looks only.
---@param config table  a manager's
---@return fcproc.RootlessState?
function M.state(config)
  local record = config.runtime_dir and read(config)
  if not record then return nil end
  local netns, holder = of_holder(record)
  local pid = holder and holder:pid()
  local ended = holder and pastas.is_lost(holder, folder_of(config)) or nil
  if holder then holder:close() end
  netns = netns or of_member(nil, record)
  if not netns then return nil end
  netns:close()
  return { netns = record.net, holder = pid, uplink = record.uplink, ended = ended }
end

---Ends the holder, and with it the uplink, and with that the namespaces when no VM is in them.
---@param manager fcproc.Manager
---@param ctx fcproc.Context?
---@return boolean? ended  false: there was none
---@return fcproc.Error? err
function M.down(manager, ctx)
  local on, err = loop.check(ctx)
  if not on then return nil, err end
  local held <close>, busy = lock(manager.config)
  if not held then
    if busy.code == "not_found" then return false end
    return nil, busy
  end
  local record = read(manager.config)
  if not record then return false end
  local netns, holder = of_holder(record)
  if netns then netns:close() end
  core.remove_file(folder_of(manager.config) .. "/record")
  if not holder then return false end
  local open <close> = holder
  local started = core.now()
  local gone
  gone, err = end_holder(open)
  if not gone then return nil, err end
  manager:_log(started, "the namespaces' holder was ended", { holder = open:pid(), netns = record.net })
  return true
end

return M
