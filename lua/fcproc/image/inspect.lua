-- What is in an image, and what will hurt when it is booted, before it is built.

local builds = require "fcproc.image.build"
local finally = require "fcproc.finally"
local looks = require "fcproc.image.looks"
local loop = require "fcproc.loop"
local options_of = require "fcproc.options"
local platforms = require "fcproc.image.platform"
local references = require "fcproc.image.reference"
local sources = require "fcproc.image.source"

local M = {}

---@class fcproc.InspectOptions
---@field platform string?
---@field limits fcproc.ImageLimits?
---@field folder string?       where contents lie meanwhile; default: /var/tmp
---@field store (string|fcproc.ImageStore)?  where a name is looked for; default: the user's own
---@field authfile string?
---@field policy string?
---@field tls_verify boolean?
---@field progress fun(progress: fcproc.ImageProgress)?

---@class fcproc.ImageFacts
---@field kind "dir"|"tar"|"image"
---@field platform string
---@field digest string?        the manifest's, or the archive's
---@field config table<string, any>?  of an image: its command, environment, user
---@field layers { digest: string?, diff_id: string, bytes: integer, media_type: string? }[]?
---@field entries integer
---@field content_bytes integer
---@field init string?
---@field warnings fcproc.ImageWarning[]
---@field notes string[]

local KNOWN = { platform = "string", limits = "table", folder = "string", store = "string|table",
  authfile = "string", policy = "string", tls_verify = "boolean", progress = "function" }

---Reads an image, an archive or a folder, and tells what is in it.
---@param source string  as fcproc.image.build's
---@param options fcproc.InspectOptions?
---@param ctx fcproc.Context?
---@return fcproc.ImageFacts? facts
---@return fcproc.Error? err  as fcproc.image.build's
function M.inspect(source, options, ctx)
  options_of.argument(source, "string", "image.inspect", "source")
  options_of.check(options, KNOWN, "image.inspect")
  options = options or {}
  ctx = loop.context(ctx)
  local ref, err = references.parse(source)
  if not ref then return nil, err end
  local opts
  opts, err = builds.source_options(options, options.folder or "/var/tmp", ctx)
  if not opts then return nil, err end
  local opened <close>, problem = sources.open(ref, opts)
  if not opened then return nil, problem end
  local tree, facts = opened:fill(opts)
  if not tree then return nil, facts end
  local _ <close> = finally(function() tree:close() end)
  local config = builds.config_of(opened.image)
  local warnings, init = looks.at(tree, opened.platform, config)
  local sealed
  sealed, err = tree:seal()
  if not sealed then return nil, err end
  local layers
  for i, layer in ipairs(opened.image and opened.image.layers or {}) do
    layers = layers or {}
    layers[i] = { digest = layer.digest, diff_id = layer.diff_id, bytes = layer.size,
      media_type = layer.media_type }
  end
  return { kind = opened.kind, platform = platforms.text(opened.platform),
    digest = opened.image and opened.image.digest or facts.digest, config = config, layers = layers,
    entries = sealed.entries, content_bytes = sealed.bytes, init = init, warnings = warnings,
    notes = facts.warnings }
end

return M
