-- pasta, which gives an ordinary user's namespaces their uplink: how it is started, by their holder, and what
-- has become of it. What is written of it is in the namespaces' folder, see rootless.lua.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"

local M = {}

local SET_UP_LIMIT = 5 -- seconds
local FILE_LIMIT = 65536
local DESCRIPTORS = 128

M.UPLINK = "uplink0" -- the interface, inside
-- Nothing of the host's own loopback is for guests, neither by the gateway's address (--no-map-gw) nor
-- by a port that is bound there (-T, -U auto); and ports are published by nobody but us.
-- Who was in the namespace when it started (see hold.c) does not stay.
local OPTIONS = { "-f", "-q", "--config-net", "--no-map-gw", "-t", "none", "-u", "none", "-T", "none",
  "-U", "none", "-I", M.UPLINK, "--no-netns-quit" }

---Its path; nil: it is not installed.
---@return string?
function M.find() return core.find_executable("pasta") end

local function pid_file(folder) return folder .. "/pasta.pid" end
local function log_file(folder) return folder .. "/pasta.log" end

---The command; it writes its pid into the one file, which is there to be waited for, when its interface is
---set up, and what keeps it from that into the other.
---@param path string
---@param folder string
---@return string[]
function M.command(path, folder)
  for _, file in ipairs{ pid_file(folder), log_file(folder) } do core.write_file(file, "", 384) end
  return table.move(OPTIONS, 1, #OPTIONS, 6, { path, "-P", pid_file(folder), "-l", log_file(folder) })
end

---The pid of the one that the holder has started, of which it has a pidfd; -1: it has ended.
---@param holder fcproc.Process
---@return integer?
function M.pid(holder)
  local text = core.read_file(("/proc/%d/fdinfo/6"):format(holder:pid()), 0, FILE_LIMIT)
  local pid = text and holder:alive() and text:match("\nPid:%s*(%-?%d+)")
  return pid and math.tointeger(tonumber(pid))
end

---Its interface is set up when its pid is in the file. One that can't do it, as without a default route,
---ends instead.
---@param holder fcproc.Process
---@param folder string
---@param ctx fcproc.Context?
---@return boolean?
---@return fcproc.Error? err
function M.wait(holder, folder, ctx)
  local pid = M.pid(holder)
  if pid == -1 then return nil end
  local pasta <close> = pid and core.process(pid) or nil
  return loop.complete(ctx, (pasta or holder):wait_text_op(pid_file(folder), "\n", nil, SET_UP_LIMIT, ctx))
end

---Has it ended, and did it give an uplink before? Else, as on a host without a default route, another
---would not either.
---@param holder fcproc.Process
---@param folder string
---@return boolean
function M.is_lost(holder, folder)
  return M.pid(holder) == -1
    and (core.read_file(pid_file(folder), 0, FILE_LIMIT) or ""):find("\n", 1, true) ~= nil
end

---Has it too few descriptors? It raises its own limit to the hard one.
---@return string? words
function M.too_few_descriptors()
  local hard = (core.read_file("/proc/self/limits") or ""):match("Max open files%s+%d+%s+(%d+)")
  if not hard or tonumber(hard) >= DESCRIPTORS then return nil end
  return ("it may open %s files at most, and needs %d: raise the hard limit (ulimit -Hn)"):format(hard,
    DESCRIPTORS)
end

---Why there is no uplink, as far as it has said it, and what to do.
---@param folder string
---@return string
function M.words(folder)
  local log = core.read_file(log_file(folder), 0, FILE_LIMIT) or ""
  local said = log:match("ERROR:%s*([^\n]+)%s*$")
  local words = said and errors.shown(said) .. "; " or ""
  local too_few = M.too_few_descriptors()
  if too_few then return words .. too_few end
  if not said or said:find("interface", 1, true) then words = words .. "has this host a default route? " end
  return words .. "The next VM that asks for one starts it again"
end

return M
