-- fcproc image build, inspect and verify: from an image, an archive or a folder to a disk.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local images = require "fcproc.image"
local json = require "fcproc.json"
local outputs = require "fcproc.image.output"
local output = require "fcproc.cli.output"
local progress = require "fcproc.cli.progress"
local sizes = require "fcproc.image.size"

local M = {}

local LIST = { kind = "list" }
local MANIFEST = { fields = { edits = LIST } }
local LISTS = { fields = { edits = LIST, warnings = LIST, notes = LIST, layers = LIST, manifest = MANIFEST } }
local PUBLIC = 420 -- 0644

-- Who says how much it may be needs no other guard against bombs.
local function limits_of(args)
  if not args.max_size then return nil end
  local most, err = sizes.parse(args.max_size, "--max-size")
  return most and { bytes = most, apparent = most, ratio = math.maxinteger }, err
end

local function warn(cli, warnings, notes)
  for _, warning in ipairs(warnings) do
    cli.output:note("warning: %s: %s", warning.message, warning.fix)
  end
  for _, note in ipairs(notes) do cli.output:note("warning: %s", note) end
end

local function rows_of(edits)
  local rows = {}
  for i, edit in ipairs(edits) do rows[i] = { "  " .. edit.action, edit.path, edit.why } end
  return output.columns(rows)
end

-- ---- build ---------------------------------------------------------------------------------

local function overlay_of(list)
  local overlay = {}
  for _, given in ipairs(list) do
    local path, from = given:match("^(/[^=]*)=(.+)$")
    if not path then
      return nil, errors.new{ code = "invalid", op = "cli.image",
        message = ("--overlay '%s': it is written like /etc/motd=FILE"):format(given) }
    end
    overlay[path] = { from = from }
  end
  return overlay
end

local function build_text(report)
  local text = { ("%s: %s, %s, %s\n"):format(report.target, report.format, sizes.text(report.bytes),
    report.made and ("%d entries, %.1f s"):format(report.entries, report.seconds) or "which the store had") }
  if report.mended then text[2] = ("the store's was damaged: %s\n"):format(report.mended) end
  if #report.edits > 0 then text[#text + 1] = "changed in it:\n" .. rows_of(report.edits) end
  return table.concat(text)
end

-- Two names of one file, which may not be there yet.
local function is_same(a, b)
  local at, bt = core.stat(outputs.folder_of(a), true), core.stat(outputs.folder_of(b), true)
  return at and bt and at.dev == bt.dev and at.ino == bt.ino and a:match("[^/]*$") == b:match("[^/]*$")
end

-- It is written last: what can't be is told before there is a target.
local function check_manifest(args)
  if not args.manifest then return true end
  if args.target and is_same(args.manifest, args.target) then
    return nil, errors.new{ code = "invalid", op = "image.build", path = args.target,
      message = ("%s can't be both the target and its manifest"):format(errors.quoted(args.target, 200)) }
  end
  return outputs.check_file(args.manifest)
end

---fcproc image build
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.build(cli)
  local args = cli.args
  local overlay, err = overlay_of(args.overlay)
  if not overlay then return nil, err end
  local limits
  limits, err = limits_of(args)
  if err then return nil, err end
  local journal
  if args.no_journal then journal = false end
  local ok
  ok, err = check_manifest(args)
  if not ok then return nil, err end
  local bar <close>, tell = progress.new(cli.output)
  local report
  report, err = images.build(args.source, args.target, {
    format = args.format, size = args.size, room = args.room, platform = args.platform, name = args.name,
    store = args.store, overlay = overlay, remove = args.remove, as_is = args.as_is,
    authfile = args.authfile, policy = args.policy, tls_verify = not args.no_tls_verify,
    limits = limits, journal = journal, digest = args.manifest and true or nil, progress = tell,
  }, cli.ctx)
  bar:close()
  if not report then return nil, err end
  if args.manifest and report.manifest then
    ok, err = core.write_file(args.manifest, output.encode(report.manifest, MANIFEST), PUBLIC)
    if not ok then return nil, err end
  end
  if not cli.output.json then warn(cli, report.warnings, report.notes) end
  cli.output:result(report, LISTS, build_text)
  return true
end

-- ---- inspect -------------------------------------------------------------------------------

local function words(list)
  return type(list) == "table" and #list > 0 and json.write(list):gsub("\\/", "/") or nil
end

local function inspect_text(facts)
  local config = facts.config or {}
  local text = { output.fields{
    { "kind", facts.kind }, { "platform", facts.platform }, { "digest", facts.digest },
    { "layers", facts.layers and #facts.layers }, { "entries", facts.entries },
    { "contents", sizes.text(facts.content_bytes) }, { "init", facts.init or "-" },
    { "entrypoint", words(config.Entrypoint) }, { "command", words(config.Cmd) },
    { "user", config.User ~= "" and config.User or nil },
  } }
  for _, warning in ipairs(facts.warnings) do
    text[#text + 1] = ("%s: %s: %s\n"):format(warning.name, warning.message, warning.fix)
  end
  for _, note in ipairs(facts.notes) do text[#text + 1] = note .. "\n" end
  return table.concat(text)
end

---fcproc image inspect
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.inspect(cli)
  local args = cli.args
  local limits, err = limits_of(args)
  if err then return nil, err end
  local bar <close>, tell = progress.new(cli.output)
  local facts
  facts, err = images.inspect(args.source, { platform = args.platform, store = args.store,
    authfile = args.authfile, policy = args.policy, tls_verify = not args.no_tls_verify, limits = limits,
    progress = tell }, cli.ctx)
  bar:close()
  if not facts then return nil, err end
  cli.output:result(facts, LISTS, inspect_text)
  return true
end

-- ---- verify --------------------------------------------------------------------------------

-- The digest in a manifest that build wrote.
local function digest_of(path)
  local text, err = core.read_file(path)
  if not text then return nil, err end
  local value = json.read(text)
  local result = type(value) == "table" and value.result
  local digest = type(result) == "table" and result.digest
  if type(digest) == "string" then return digest end
  return nil, errors.new{ code = "invalid", op = "cli.image", path = path,
    message = ("%s is no manifest that fcproc image build --manifest has written"):format(path) }
end

---fcproc image verify
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.verify(cli)
  local args = cli.args
  local digest, err
  if args.manifest then
    digest, err = digest_of(args.manifest)
    if not digest then return nil, err end
  end
  local bar <close>, tell = progress.new(cli.output)
  local report
  report, err = images.verify(args.ref, { digest = digest, store = args.store, progress = tell }, cli.ctx)
  bar:close()
  if not report then return nil, err end
  cli.output:result(report, { fields = { checked = LIST } }, function(r)
    return ("%s: %s, whole (%s)\n"):format(r.path, r.format, table.concat(r.checked, ", "))
  end)
  return true
end

return M
