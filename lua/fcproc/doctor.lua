-- Looks at the host step by step and says, for each step, what is wrong and how to put it right.
-- Nothing on the host is changed: what must be tried is tried in a new network namespace or with a
-- file that is gone at once. One check's failure never stops the others.

local core = require "fcproc.core"
local loop = require "fcproc.loop"
local options = require "fcproc.options"

local boot = require "fcproc.doctor.boot"
local files = require "fcproc.doctor.files"
local host = require "fcproc.doctor.host"
local machine = require "fcproc.doctor.machine"
local network = require "fcproc.doctor.network"
local rootless = require "fcproc.doctor.rootless"

local M = {}

---@class fcproc.Check
---@field name string
---@field status "ok"|"warn"|"fail"  warn: VMs run, but not well, or not all that was asked for
---@field message string             what was found
---@field fix string?                what to do about it
---@field took number                seconds
---@field steps { name: string, took: number }[]?  of boot: each step and its seconds

---@class fcproc.DoctorOptions
---@field boot boolean?      also boot the built-in guest in a new network namespace and ping it
---@field uplink string?     the interface that guests shall reach the world by; NAT is then needed
---@field uid integer?       who is to run Firecracker without a jailer; default: us
---@field gid integer?       that user's group; default: of the same number
---@field progress fun(check: fcproc.Check)?  called as each check ends

local known = {
  boot = "boolean", uplink = "string", uid = "integer", gid = "integer", progress = "function",
}

-- From what nothing works without to what only some need.
local checks = {
  { "kvm", machine.kvm },
  { "tun", machine.tun },
  { "rootless", rootless.namespaces },
  { "bridge", network.bridge },
  { "nft", network.nft },
  { "forwarding", network.forwarding },
  { "uplink", network.uplink },
  { "firewall", network.firewall },
  { "nat", network.nat },
  { "localnet", network.localnet },
  { "taps", network.taps },
  { "address", network.address },
  { "names", network.names },
  { "cgroups", machine.cgroups },
  { "binary", files.binary },
  { "jailer", files.jailer },
  { "guest", files.guest },
  { "runtime", files.runtime },
  { "disk", files.disk },
  { "reflink", files.reflink },
  { "limits", machine.limits },
  { "udev", machine.udev },
  { "mounts", machine.mounts },
  { "systemd", machine.systemd },
  { "linger", rootless.linger },
}

---Checks the host for what the manager is configured to do.
---
---    for _, check in ipairs(assert(doctor.run(manager, { boot = true }))) do
---      print(doctor.format(check))
---    end
---@param manager fcproc.Manager
---@param opts fcproc.DoctorOptions?
---@param ctx fcproc.Context?
---@return fcproc.Check[]? checks  in a fixed order
---@return fcproc.Error? err  only the context's: ERR_CANCELLED, ERR_DEADLINE
function M.run(manager, opts, ctx)
  options.argument(manager, "table", "doctor.run", "manager")
  options.check(opts, known, "doctor.run")
  opts = opts or {}
  ctx = loop.context(ctx)
  local look = host.new(manager, opts, ctx)
  local list = {}
  local function one(name, fn)
    local started = core.now()
    local status, message, fix, steps = fn(look)
    -- A check that the context cut short has found out nothing.
    local ok, err = loop.check(ctx)
    if not ok then return nil, err end
    local check = {
      name = name, status = status, message = message, fix = fix, steps = steps,
      took = core.now() - started,
    }
    list[#list + 1] = check
    if opts.progress then opts.progress(check) end
    return true
  end
  for _, check in ipairs(checks) do
    local ok, err = one(check[1], check[2])
    if not ok then return nil, err end
  end
  if opts.boot then
    local ok, err = one("boot", boot.run)
    if not ok then return nil, err end
  end
  return list
end

---A check as a line for people, and a second one with what to do.
---@param check fcproc.Check
---@return string
function M.format(check)
  local line = ("%-5s %-11s %s (%.1f ms)"):format(
    check.status == "fail" and "FAIL" or check.status, check.name, check.message,
    check.took * 1000)
  if check.fix then line = line .. ("\n%18sfix: %s"):format("", check.fix) end
  return line
end

return M
