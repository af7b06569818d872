-- The manager's Firecracker binary: where it is and which version.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local process = require "fcproc.process"

local M = {}

local ANSWER_LIMIT = 5 -- seconds

---@class fcproc.ManagerBinary
---@field told { state: string, version: string }?  by its binary
local Binary = {}

---The path of the Firecracker binary: the configured path, or the first hit on PATH. It is a
---regular file that we may execute. Seed: ResolveBinary.
---@return string? path
---@return fcproc.Error? err  ERR_NOT_FOUND: there is none; ERR_PERMISSION: it can't be executed;
---                           ERR_INVALID: it is no regular file
function Binary:resolve_binary()
  local name = self.config.firecracker_bin
  local hint = "; install firecracker or set firecracker_bin"
  if name == "" then
    return nil, errors.new{
      code = "not_found", op = "binary.resolve", message = "firecracker binary not configured" .. hint,
    }
  end
  local path, cause = core.find_executable(name)
  if path then return path end
  local message
  if cause.code ~= "not_found" then
    message = ("firecracker binary %s"):format(cause.message)
  elseif name:find("/", 1, true) then
    message = ("firecracker binary not found at %s"):format(name)
  else
    message = ("firecracker binary \"%s\" not found in PATH"):format(name)
  end
  return nil, errors.new{
    code = cause.code, op = "binary.resolve", errno = cause.errno, path = name, cause = cause,
    message = message .. hint,
  }
end

-- What it prints when it is asked for something about itself.
local function ask(path, option, ctx)
  local spec = process.spec({ path, option }, { timeout = ANSWER_LIMIT, session = true })
  local done, result = loop.complete(ctx, core.command(spec, ctx))
  if not done then return nil, result end
  return result
end

local function no_answer(path, option, op, result)
  return nil, errors.new{
    code = "unsupported", op = op, path = path, status = result.status,
    output = result.stderr:sub(-200),
    message = ("%s %s did not answer like Firecracker; set firecracker_bin"):format(path, option),
  }
end

-- What file it is, in its present state; nil: a script or a link, which may lead to any.
local function state_of(path)
  local stat = core.stat(path)
  if not stat or core.read_file(path, 0, 4) ~= "\127ELF" then return nil end
  return ("%s %d %.9f"):format(stat.id, stat.size, stat.mtime)
end

---The version that the binary gives for itself, as "1.12.1". It is asked once, while it is the same file.
---@param ctx fcproc.Context?
---@return string? version
---@return fcproc.Error? err  as manager:resolve_binary's; ERR_UNSUPPORTED: it answers like no
---                           Firecracker; ERR_WAIT_TIMEOUT: not within 5 s
function Binary:binary_version(ctx)
  ctx = loop.context(ctx)
  local path, err = self:resolve_binary()
  if not path then return nil, err end
  local state = state_of(path)
  if state and self.told and self.told.state == state then return self.told.version end
  local result
  result, err = ask(path, "--version", ctx)
  if not result then return nil, err end
  local version = result.stdout:match("^Firecracker v(%d+%.%d+%.%d+[%w.-]*)")
  if version then
    self.told = state and { state = state, version = version }
    return version
  end
  return no_answer(path, "--version", "binary.version", result)
end

---The format of the snapshots that the binary writes and reads, as it names it, as "6.0.0". Builds of
---one version may differ in it.
---@param path string?  another Firecracker than the manager's
---@param ctx fcproc.Context?
---@return string? format
---@return fcproc.Error? err  as manager:binary_version's
function Binary:snapshot_format(path, ctx)
  ctx = loop.context(ctx)
  local err
  if not path then path, err = self:resolve_binary() end
  if not path then return nil, err end
  local result
  result, err = ask(path, "--snapshot-version", ctx)
  if not result then return nil, err end
  local format = ("\n" .. result.stdout):match("\nv?(%d+%.%d+%.%d+)%s*\n")
  if format and result.status == 0 then return format end
  return no_answer(path, "--snapshot-version", "binary.snapshot_format", result)
end

M.methods = Binary

return M
