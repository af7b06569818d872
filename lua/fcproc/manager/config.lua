-- The manager's configuration: what may be in it and what can work.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local options = require "fcproc.options"
local rootless = require "fcproc.manager.rootless"

local M = {}

---@class fcproc.Config
---@field firecracker_bin string?  a path, or a name to look for on PATH; default "firecracker"
---@field bridge_name string?      at most 15 bytes
---@field bridge_ip string?        IPv4 or IPv6
---@field cidr (integer|string)?   the prefix length that goes with it
---@field runtime_dir string?      absolute: where sockets live
---@field logger fun(level: string, message: string, fields: table<string, any>)?  told of each change on the
---                                 host: level is "debug", or "warn" for what a person should see; message is
---                                 fixed ("TAP created"); fields has its arguments, and duration in seconds.
---                                 Default: nobody, or the log of a C host
---@field runner fcproc.Runner?    for flows and scripts; the primitives never call it
---@field privilege ("direct"|"rootless")?  where bridges, TAPs and VMs are: on the host, by this process's
---                                 own rights; or in namespaces of an ordinary user's own, with each VMM in a
---                                 jail. Default: rootless for a user who may make none on the host
---@field netns (string|fcproc.Netns)?  where bridges and TAPs are made; default: the caller's
---@field jailer_uids { first: integer, count: integer }?  of which jails with uid = "auto" get theirs;
---                                 default: 70000 to 89999, which neither systemd nor useradd gives away
---@field without string[]?        kernel features to do without ("peerpidfd", "pidfd_info",
---                                 "inotify", "close_range", "cgroup_kill"): each forces its fallback

local known = {
  firecracker_bin = "string", bridge_name = "string", bridge_ip = "string",
  cidr = "integer|string", runtime_dir = "string", logger = "function", runner = "table",
  privilege = "string", jailer_uids = "table", netns = "string|fcproc.netns", without = "table",
}

local function invalid(format, ...)
  return nil, errors.new{ code = "invalid", op = "fcproc.new", message = format:format(...) }
end

local MOST_PREFIX = 128 -- of any family
local MOST_UID = 4294967294
-- Kept free by systemd (UIDs and GIDs on systemd systems: 65536 to 524287), by useradd (up to 60000)
-- and by its subordinate ids (from 100000 on).
local JAILER_UIDS = { first = 70000, count = 20000 }

local function check_uids(range)
  for key in pairs(range) do
    if key ~= "first" and key ~= "count" then
      options.raise(("fcproc.new: unknown '%s' in jailer_uids; known: count, first"):format(tostring(key)))
    end
  end
  local first, count = math.tointeger(range.first), math.tointeger(range.count)
  if first and count and first >= 1 and count >= 1 and first + count - 1 <= MOST_UID then
    return { first = first, count = count }
  end
  return invalid("jailer_uids = { first = %s, count = %s } is no range of uids: whole numbers, from 1 on",
    range.first, range.count)
end

-- Each folder has one name: leases and aliases tell VMs apart by it. The folder itself is not
-- followed, since a link there is refused.
local function plain_folder(path)
  path = path:gsub("/+", "/"):gsub("(.)/$", "%1")
  local parent, name = path:match("^(.*)/([^/]+)$")
  if not parent then return path end
  parent = core.absolute_path(parent == "" and "/" or parent) or parent
  return (parent == "/" and "" or parent) .. "/" .. name
end

---Where the command keeps VMs when nothing else is said: /run/fcproc of root; of an ordinary user
---~/.local/state/fcproc, which outlasts his sessions and is no memory, or fcproc in $XDG_STATE_HOME.
---@return string? path
---@return fcproc.Error? err  ERR_INVALID: it has no home
function M.runtime_dir()
  local state, home = os.getenv("XDG_STATE_HOME"), os.getenv("HOME")
  if core.own_uid() == 0 then return "/run/fcproc" end
  if state and state:sub(1, 1) == "/" then return state .. "/fcproc" end
  if home and home:sub(1, 1) == "/" then return home .. "/.local/state/fcproc" end
  return invalid("there is no HOME, or no absolute one, to have VMs in: set it, or say where they are "
    .. "with runtime_dir")
end

-- Below it is written down what VMs have on this host, whatever their runtime folder: see lease.lua.
local function host_folder(runtime_dir)
  local uid = core.own_uid()
  if uid == 0 then return "/run/fcproc" end
  local own = ("/run/user/%d"):format(uid)
  local stat = core.stat(own)
  return stat and stat.uid == uid and own .. "/fcproc" or runtime_dir -- an image's may be root's
end

local function check_prefix(config)
  if not config.bridge_ip then
    local prefix = math.tointeger(tonumber(config.cidr or 0))
    if prefix and prefix >= 0 and prefix <= MOST_PREFIX then return true end
    return invalid("a cidr of %s can't work: it is a prefix length, 0 to 32 for IPv4, 0 to %d for "
      .. "IPv6, and goes with a bridge_ip", config.cidr, MOST_PREFIX)
  end
  local family, err = core.address_family(config.bridge_ip)
  if not family then return nil, err end
  local prefix = math.tointeger(tonumber(config.cidr))
  local most = family == 4 and 32 or MOST_PREFIX
  if not prefix then
    return invalid("bridge_ip %s needs a cidr: its prefix length, 0 to %d", config.bridge_ip, most)
  end
  if prefix < 0 or prefix > most then
    return invalid("a prefix of %d is out of range: IPv%d has 0 to %d", prefix, family, most)
  end
  return prefix
end

-- Who has no right to make links where he is makes them in a namespace of his own. "rootless" when that was
-- asked for, or is chosen: then only for VMs that need it.
local function check_privilege(config)
  local wanted = config.privilege
  if wanted == nil then
    local able = config.netns or not config.runtime_dir or core.own_uid() == 0 or rootless.may_make_links()
    return able and "direct" or "rootless"
  elseif wanted == "direct" then
    return wanted
  elseif wanted ~= "rootless" then
    return invalid("privilege '%s' is not known: 'direct' and 'rootless' are", wanted)
  elseif core.own_uid() == 0 then
    return invalid("privilege 'rootless' is for an ordinary user, and this is root: leave it out, and give "
      .. "VMs a jailer")
  elseif config.netns then
    return invalid("privilege 'rootless' has a network namespace of its own: leave out netns")
  elseif not config.runtime_dir then
    return invalid("privilege 'rootless' needs a runtime_dir, which its namespaces belong to")
  end
  return wanted
end

local function without_bits(names)
  local bits = 0
  for _, name in ipairs(names or {}) do
    local bit = core.without[name]
    if not bit then
      options.raise(("fcproc.new: unknown feature '%s' in without; known: cgroup_kill, close_range, inotify, "
        .. "peerpidfd, pidfd_info"):format(tostring(name)))
    end
    bits = bits | bit
  end
  return bits
end

---Checks a configuration and returns it as the manager keeps it. Unknown keys and wrong types
---raise.
---@param config fcproc.Config?
---@return table? checked
---@return fcproc.Error? err
function M.check(config)
  options.check(config, known, "fcproc.new")
  config = config or {}
  if config.bridge_name then
    local ok, err = core.check_ifname(config.bridge_name)
    if not ok then return nil, err end
  end
  local prefix, err = check_prefix(config)
  if not prefix then return nil, err end
  if config.runtime_dir and config.runtime_dir:sub(1, 1) ~= "/" then
    return invalid("runtime_dir must be an absolute path, not '%s'", config.runtime_dir)
  end
  local uids
  uids, err = check_uids(config.jailer_uids or JAILER_UIDS)
  if not uids then return nil, err end
  local runtime_dir = config.runtime_dir and plain_folder(config.runtime_dir)
  local privilege
  privilege, err = check_privilege(config)
  if not privilege then return nil, err end
  return {
    firecracker_bin = config.firecracker_bin or "firecracker",
    bridge_name = config.bridge_name,
    bridge_ip = config.bridge_ip,
    prefix = config.bridge_ip and prefix or nil,
    runtime_dir = runtime_dir,
    host_dir = host_folder(runtime_dir),
    jailer_uids = uids,
    logger = config.logger,
    runner = config.runner,
    privilege = privilege,
    chosen = config.privilege ~= nil,
    netns = config.netns,
    netns_name = type(config.netns) == "string" and config.netns or nil,
    without = without_bits(config.without),
  }
end

return M
