-- The Firecracker API, raw: JSON over HTTP over the API socket.

local cjson = require "cjson.safe"
local core = require "fcproc.core"
local errors = require "fcproc.error"
local loop = require "fcproc.loop"
local options = require "fcproc.options"
local remedies = require "fcproc.remedies"

local M = {}

-- Longer than Firecracker's slowest answer (it gives up on a vCPU after 30 s), so that a call
-- without a context does not wait for ever on a server that hangs.
local DEFAULT_TIMEOUT = 60

---@class fcproc.Client
---@field path string
---@field closed true?
local Client = {}
Client.__index = Client

local MOST_WORDS = 1000 -- bytes of a server's own: it may be of anybody's making

local function api_error(path, method, target, status, body)
  local decoded = cjson.decode(body)
  -- Firecracker says fault_message; its HTTP server, when too many connections are open, error.
  local text = type(decoded) == "table" and (decoded.fault_message or decoded.error)
  if type(text) ~= "string" then text = body ~= "" and body:sub(1, 200) or "no reason given" end
  return errors.new{
    code = "api", op = "api.request", status = status, path = path,
    message = ("%s %s on %s was answered with %d: %s%s"):format(method, target, path, status,
      errors.shown(text:sub(1, MOST_WORDS)), remedies.of(text:sub(1, MOST_WORDS))),
  }
end

local function encode(body)
  if body == nil or type(body) == "string" then return body end
  local text, reason = cjson.encode(body)
  if not text then options.raise("request: the body can't be written as JSON: " .. reason) end
  return text
end

---Sends a request and returns the decoded answer, or true when it has no body.
---@param method string       GET, PUT, PATCH, DELETE
---@param target string       "/vm/config"
---@param body table|string|nil  a table is written as JSON, a string is sent as it is
---@param ctx fcproc.Context?
---@param timeout number?     seconds until ERR_WAIT_TIMEOUT; default 60
---@return any? answer
---@return fcproc.Error? err  ERR_API with status and Firecracker's own words; ERR_PROTOCOL for an
---                            answer that is no HTTP or JSON; ERR_NOT_FOUND when nobody listens;
---                            ERR_CLOSED: the client was closed
function Client:request(method, target, body, ctx, timeout)
  options.timeout(timeout, "client:request")
  ctx = loop.context(ctx)
  if self.closed then
    return nil, errors.new{ code = "closed", op = "api.request", path = self.path,
      message = ("%s %s: the client of %s was closed: make another with fcproc.client"):format(method,
        target, self.path) }
  end
  local done, status, text = loop.complete(ctx,
    self.core:request(method, target, encode(body), timeout or DEFAULT_TIMEOUT, ctx))
  if not done then
    status.path = self.path
    return nil, status
  end
  if status < 200 or status > 299 then
    return nil, api_error(self.path, method, target, status, text)
  end
  if text == "" then return true end
  local answer, reason = cjson.decode(text)
  if answer == nil then
    return nil, errors.new{
      code = "protocol", op = "api.request", path = self.path, status = status,
      message = ("%s %s: the answer from %s is no JSON: %s"):format(method, target, self.path,
        reason),
    }
  end
  -- What is no GET has nothing to answer, and false would be taken for a failure.
  if method ~= "GET" and type(answer) ~= "table" then return true end
  return answer
end

function Client:__tostring()
  return ("fcproc.Client %s%s"):format(self.path, self.closed and " (closed)" or "")
end

---Closes the connection. A request that is under way gets its answer.
function Client:close()
  self.closed = true
  self.core:close()
end

Client.__close = core.uninterruptible(Client.close)

---The same request to many at once, for what has no answer but its status, each on a connection of its own.
---@param machines fcproc.Machine[]  each one's process or nobody is asked
---@param method string
---@param target string
---@param body table|string|nil
---@param each number        seconds for each
---@param ctx fcproc.Context?
---@return (true|fcproc.Error)[]? outcomes  as client:request's
---@return fcproc.Error? err  none was asked, or of some it is not known
function M.request_all(machines, method, target, body, each, ctx)
  local paths, processes = {}, {}
  for i, machine in ipairs(machines) do
    paths[i], processes[i] = machine.files.socket, machine.process
  end
  ctx = loop.context(ctx)
  local done, outcomes, bodies = loop.complete(ctx,
    core.request_all(paths, processes, method, target, encode(body), each, ctx))
  if not done then return nil, outcomes end
  for i, status in ipairs(outcomes) do
    if errors.is_error(status) then
      status.path = paths[i]
    else
      outcomes[i] = status >= 200 and status <= 299
        or api_error(paths[i], method, target, status, bodies[i])
    end
  end
  return outcomes
end

---A client that keeps one connection open, for many requests to one VM, one at a time. With a process
---it asks that one or nobody: it is looked up on the connection itself before anything is sent.
---@param path string  the API socket, at any depth; a symbolic link in its place is ERR_CONFLICT
---@param process fcproc.Process?  who is to answer; another is ERR_NOT_SAME_PROCESS
---@return fcproc.Client? client
---@return fcproc.Error? err  ERR_NOT_FOUND: there is no such folder; ERR_PERMISSION: it can't be
---                           entered
function M.client(path, process)
  options.argument(path, "string", "fcproc.client", "path")
  local handle, err = core.client(path, process)
  if not handle then
    err.path = path
    return nil, err
  end
  return setmetatable({ core = handle, path = path }, Client)
end

---One request on a connection of its own.
---
---    local version = assert(fcproc.request("/run/vm/api.sock", "GET", "/version"))
---    print(version.firecracker_version)
---@param path string  the API socket
---@param method string
---@param target string
---@param body table|string|nil
---@param ctx fcproc.Context?
---@return any? answer
---@return fcproc.Error? err  as client:request's
function M.request(path, method, target, body, ctx)
  local client <close>, err = M.client(path)
  if not client then return nil, err end
  return client:request(method, target, body, ctx)
end

return M
