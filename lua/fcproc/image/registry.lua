-- An image from a registry, by skopeo, which knows the user's credentials and what is to be trusted
-- (its authfile and policy.json): it lies in a layout of its own until the image is read.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local runner = require "fcproc.runner"

local M = {}

local TAG = "image"
local PRIVATE = 448 -- 0700
local PREFIX, LOCK = ".fcproc-pull-", "lock"

---@class fcproc.PulledLayout
---@field path string
---@field tag string
---@field lock fcproc.Lock
local Layout = {}
Layout.__index = Layout

---Removes it.
function Layout:close()
  core.remove_tree(self.path)
  self.lock:close()
end

-- What one who died has left: nobody holds its lock.
local function sweep(folder)
  for _, entry in ipairs(core.list_dir(folder) or {}) do
    local path = folder .. "/" .. entry.name
    if entry.type == "dir" and entry.name:sub(1, #PREFIX) == PREFIX then
      local own = core.stat(path)
      local lock = own and own.uid == core.own_uid() and core.lock_file(path .. "/" .. LOCK)
      if lock then
        core.remove_tree(path)
        lock:close()
      end
    end
  end
end

local function make(folder)
  sweep(folder)
  while true do
    local path = ("%s/%s%08x"):format(folder, PREFIX, math.random(0, 0xffffffff))
    local made, err = core.make_dir(path, PRIVATE)
    if made == nil then return nil, err end
    if made then
      local lock
      lock, err = core.lock_file(path .. "/" .. LOCK)
      if lock then return setmetatable({ path = path, tag = TAG, lock = lock }, Layout) end
      core.remove_tree(path)
      if err.code ~= "busy" and err.code ~= "not_found" then return nil, err end -- else a sweep met it
    end
  end
end

local function arguments(ref, opts, layout)
  local argv = { opts.skopeo or "skopeo" }
  local function add(...) for _, word in ipairs{ ... } do argv[#argv + 1] = word end end
  if opts.policy then add("--policy", opts.policy) end
  add("--override-os", opts.platform.os, "--override-arch", opts.platform.architecture)
  if opts.platform.variant then add("--override-variant", opts.platform.variant) end
  add("copy", "--quiet")
  if opts.authfile then add("--authfile", opts.authfile) end
  if opts.tls_verify == false then add("--src-tls-verify=false") end
  -- A tag beside a digest says nothing, and skopeo 1.9 refuses it.
  add("docker://" .. (ref.digest and ref.name:gsub(":[^/:]*$", "") .. "@" .. ref.digest or ref.name))
  add(("oci:%s:%s"):format(layout, TAG))
  return argv
end

local words = { -- of skopeo's, and what helps
  { "unauthorized", "permission", "skopeo login logs in" },
  { "authentication required", "permission", "skopeo login logs in" },
  { "manifest unknown", "not_found", nil }, { "name unknown", "not_found", nil },
  { "no such host", "not_found", nil },
  { "Source image rejected", "permission", "policy.json decides what is trusted" },
  { "server gave HTTP response to HTTPS client", "invalid", "tls_verify = false does without TLS" },
}

local function explained(ref, err)
  if err.code == "not_found" then
    return errors.new{ code = "not_found", op = "image.pull", cause = err,
      message = ("%s: images of registries are fetched by skopeo, which is not installed (Debian: skopeo); "
        .. "or fetch it elsewhere, and take it as oci: or docker-archive:"):format(ref.text) }
  end
  if err.code ~= "exit_status" then return err end
  local output = err.output or ""
  local code, hint = "exit_status", nil
  for _, entry in ipairs(words) do
    if output:find(entry[1], 1, true) then
      code, hint = entry[2], entry[3]
      break
    end
  end
  local why = output:match('msg="(.-[^\\])"') or output:match("[^\n]*%S") or err.message
  return errors.new{ code = code, op = "image.pull", cause = err, output = output,
    message = errors.quoted(("%s can't be fetched: %s%s"):format(ref.text, why:gsub('\\"', '"'),
      hint and "; " .. hint or ""), 1000) }
end

---Fetches an image into a layout, which is removed when it is closed.
---@param ref fcproc.ImageReference
---@param opts fcproc.SourceOptions
---@return fcproc.PulledLayout? layout
---@return fcproc.Error? err  ERR_NOT_FOUND: no such image, or skopeo is missing; ERR_PERMISSION
function M.pull(ref, opts)
  local layout, failed = make(opts.folder)
  if not layout then return nil, failed end
  if opts.progress then opts.progress{ step = "fetching", bytes = 0, total = 0, entries = 0 } end
  local done, err = runner.new():run(arguments(ref, opts, layout.path), { session = true }, opts.ctx)
  if done then return layout end
  layout:close()
  return nil, explained(ref, err)
end

return M
