-- An image from a registry, by skopeo, which knows the user's credentials and what is to be trusted
-- (its authfile and policy.json): it lies in a layout of its own until the image is read.

local downloads = require "fcproc.image.download"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local imagecore = require "fcproc.imagecore"
local platforms = require "fcproc.image.platform"
local runner = require "fcproc.runner"

local M = {}

local TAG = "image"

local function arguments(ref, opts, layout)
  local argv = { opts.skopeo or "skopeo" }
  local function add(...) for _, word in ipairs{ ... } do argv[#argv + 1] = word end end
  if opts.policy then add("--policy", opts.policy) end
  add("--override-os", opts.platform.os, "--override-arch", opts.platform.architecture)
  if opts.platform.variant then add("--override-variant", opts.platform.variant) end
  -- As the registry has them: what skopeo packed would have another digest than what is asked for.
  add("copy", "--quiet", "--dest-oci-accept-uncompressed-layers")
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
  { "no space left on device", "exit_status", "fcproc image prune removes what is not needed" },
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

-- Where what is downloaded is kept: nowhere if there is no store, which a pull does not make. Without the
-- user's own, when it can't be used, it is done as if there were none.
local function store_of(opts)
  local store, err = opts.store, nil
  if type(store) ~= "table" then store, err = require("fcproc.image.store").open(store) end
  if store then return store:exists() and store or nil end
  return nil, opts.store and err
end

-- In a store one at a time, and not while that is pruned: what is new has no lock yet.
local function new_layout(store, opts)
  if store then
    local layout, err = store:_with_tags(opts.ctx, function()
      downloads.sweep(store:at("partial"), store)
      return downloads.new(store:at("partial"), store)
    end)
    if layout or opts.store then return layout, err end
  end
  downloads.sweep(opts.folder)
  return downloads.new(opts.folder)
end

-- Of those who ask for the same at the same time the first fetches it, and the others find it in the store.
local function hold(store, ref, opts)
  if not store then return finally(function() end) end
  local what = imagecore.digest(ref.text .. " " .. platforms.text(opts.platform))
  local lock, err = store:_hold("@pull-" .. what:match("%x+$"), nil, opts.ctx)
  return lock and finally(function() lock:remove() end), err
end

local function fetch(layout, ref, opts)
  local held <close>, err = hold(layout.store, ref, opts)
  if not held then return nil, err end
  if opts.progress then opts.progress{ step = "fetching", bytes = 0, total = 0, entries = 0 } end
  layout:borrow()
  local done, failed = runner.new():run(arguments(ref, opts, layout.path), { session = true }, opts.ctx)
  layout:keep() -- also what had come before it failed
  if done then return true end
  return nil, explained(ref, failed)
end

---@class fcproc.PulledImage: fcproc.Download
---@field tag string
---@field mend fun(digest: string?): boolean?, fcproc.Error?  fetches anew a layer that the store had kept and
---                is damaged; false: that it is not

---Fetches an image into a layout, which is removed when it is closed; what a store has of it is not fetched.
---@param ref fcproc.ImageReference
---@param opts fcproc.SourceOptions
---@return fcproc.PulledImage? layout
---@return fcproc.Error? err  ERR_NOT_FOUND: no such image, or skopeo is missing; ERR_PERMISSION
function M.pull(ref, opts)
  local store, err = store_of(opts)
  if err then return nil, err end
  local layout
  layout, err = new_layout(store, opts)
  if not layout then return nil, err end
  local whole = false
  local _ <close> = finally(function() if not whole then layout:close() end end)
  whole, err = fetch(layout, ref, opts)
  if not whole then return nil, err end
  layout.tag = TAG
  function layout.mend(digest)
    if not layout:drop(digest, opts.ctx) then return false end
    local again, why = fetch(layout, ref, opts)
    if again then return true end
    why.message = ("%s, which %s had kept, was damaged, and is removed: %s"):format(digest, store.path,
      why.message)
    return nil, why
  end
  return layout
end

return M
