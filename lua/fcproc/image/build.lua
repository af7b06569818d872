-- An image becomes a disk: source, tree, edits, and what is written. As an ordinary user; a target is
-- there whole or not at all.

local archives = require "fcproc.image.archive"
local core = require "fcproc.core"
local edits = require "fcproc.image.edits"
local errors = require "fcproc.error"
local finally = require "fcproc.finally"
local imagecore = require "fcproc.imagecore"
local looks = require "fcproc.image.looks"
local loop = require "fcproc.loop"
local manifests = require "fcproc.image.manifest"
local options_of = require "fcproc.options"
local outputs = require "fcproc.image.output"
local platforms = require "fcproc.image.platform"
local references = require "fcproc.image.reference"
local rooms = require "fcproc.resources.room"
local sources = require "fcproc.image.source"

local M = {}

---@class fcproc.BuildOptions
---@field format ("ext4"|"squashfs"|"tar"|"initrd")?  default: "ext4"
---@field size (string|integer)?   of a disk: "2GiB", or bytes; default: as small as it can be
---@field room (string|integer)?   free in it, besides what it holds
---@field journal boolean?         default: true
---@field overlay table<string, string|fcproc.OverlayFile>?  what is put into it, by its path there
---@field remove string[]?         what is taken out before
---@field as_is boolean?           without what a microVM needs: mount points, resolv.conf, machine-id
---@field platform string?         "linux/arm64"; default: this host's
---@field label string?            ext4's, of at most 16 bytes
---@field uuid string?             ext4's; default: made of what is in it
---@field ea_inode boolean?        ext4 with attributes of more than a block
---@field name string?             its name in the store, where it is then; without a target only there
---@field store (string|fcproc.ImageStore)?  default: the user's own
---@field digest boolean?          tell the digest of the result, too
---@field time integer?            of what is made here, in seconds since 1970; default: when an image
---                                says that it was made, else 0
---@field limits fcproc.ImageLimits?
---@field authfile string?         skopeo's, with credentials for registries
---@field policy string?           skopeo's policy.json
---@field tls_verify boolean?      false: a registry without TLS
---@field progress fun(progress: fcproc.ImageProgress)?  called now and then

---@class fcproc.OverlayFile
---@field data string?     what a file holds
---@field from string?     a file of the host, which it is a copy of
---@field target string?   what a symbolic link leads to
---@field kind ("file"|"dir"|"symlink"|"char"|"block"|"fifo")?
---@field mode integer?    default: 0644, 0755 of a folder, or the host's file's
---@field uid integer?     default: 0
---@field gid integer?     default: 0
---@field mtime number?
---@field major integer?   of devices
---@field minor integer?
---@field xattrs table<string, string>?

---@class fcproc.ImageLimits
---@field entries integer?  names in all that is read
---@field bytes integer?    of contents
---@field apparent integer? of contents with their holes, which a squashfs and an initrd have as zeros
---@field ratio integer?    of unpacked to packed bytes, beyond the first GiB
---@field memory integer?   for names, attributes and all but contents

---@class fcproc.ImageProgress
---@field step string
---@field bytes integer
---@field total integer    0: not known
---@field entries integer

---@class fcproc.BuildReport
---@field target string         the file
---@field key string?           in the store
---@field made boolean          false: the store had it
---@field mended string?        what was wrong with the one in the store, in whose place this one is
---@field digest string?        of the file: "sha256:..."
---@field format string
---@field bytes integer        of the target
---@field entries integer      names in it
---@field content_bytes integer
---@field platform string
---@field init string?         the first program
---@field config table<string, any>?  of an image: its command, environment, user
---@field edits fcproc.ImageEdit[]
---@field warnings fcproc.ImageWarning[]
---@field notes string[]       what an archive had that could not be kept
---@field manifest fcproc.ImageManifest
---@field seconds number

local KNOWN = {
  format = "string", size = "string|integer", room = "string|integer", journal = "boolean", overlay = "table",
  remove = "table", as_is = "boolean", platform = "string", time = "integer", limits = "table",
  authfile = "string", policy = "string", tls_verify = "boolean", progress = "function", ea_inode = "boolean",
  label = "string", uuid = "string", name = "string", store = "string|table", digest = "boolean",
}
local LIMITS = { entries = "integer", bytes = "integer", apparent = "integer", ratio = "integer",
  memory = "integer" }

-- Days since 1970 of a date of the Gregorian calendar.
local function days(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  local century = year // 100
  return 365 * year + year // 4 - century + century // 4 + (153 * (month - 3) + 2) // 5 + day - 719469
end

-- RFC 3339, as images tell when they were made; nil for what is none, or older than 1970.
local function seconds_of(text)
  if type(text) ~= "string" then return nil end
  local year, month, day, hour, minute, second, zone =
    text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)%.?%d*([Zz+-].*)$")
  if not year then return nil end
  local at = days(tonumber(year), tonumber(month), tonumber(day)) * 86400 + tonumber(hour) * 3600
    + tonumber(minute) * 60 + tonumber(second)
  local sign, hours, minutes = zone:match("^([+-])(%d%d):(%d%d)$")
  if sign then at = at - (sign == "-" and -1 or 1) * (tonumber(hours) * 3600 + tonumber(minutes) * 60) end
  return at >= 0 and math.tointeger(at) or nil
end

-- What decides on the content, for the manifest.
local function source_facts(opened, facts)
  local image = opened.image
  if not image then return { kind = opened.kind, name = opened.name, digest = facts.digest } end
  local layers = {}
  for i, layer in ipairs(image.layers) do
    layers[i] = { digest = layer.digest, diff_id = layer.diff_id, bytes = layer.size }
  end
  return { kind = "image", name = opened.name, digest = image.digest, config = image.config_digest,
    layers = layers }
end

local CONFIG = { "Entrypoint", "Cmd", "Env", "WorkingDir", "User", "ExposedPorts", "Labels", "StopSignal" }

---What an image says of its own command.
---@param image fcproc.Image?
---@return table? config
function M.config_of(image)
  local config = image and image.config.config
  if type(config) ~= "table" then return image and {} or nil end
  local kept = {}
  for _, name in ipairs(CONFIG) do kept[name] = config[name] end
  return kept
end

---What sources.open takes, of a build's or an inspection's options.
---@param options table
---@param folder string
---@param ctx fcproc.Context?
---@return fcproc.SourceOptions? opts
---@return fcproc.Error? err
function M.source_options(options, folder, ctx)
  local platform, err = platforms.parse(options.platform)
  if not platform then return nil, err end
  options_of.check(options.limits, LIMITS, "limits")
  local limits = { spool_folder = folder }
  for name, value in pairs(options.limits or {}) do limits[name] = value end
  return { platform = platform, limits = limits, folder = folder, ctx = ctx, progress = options.progress,
    authfile = options.authfile, policy = options.policy, tls_verify = options.tls_verify,
    store = options.store }
end

---@class fcproc.ImageBuild  one that is under way
---@field options fcproc.BuildOptions
---@field opts fcproc.SourceOptions
---@field source fcproc.ImageSource
---@field pinned string?  the digest of an archive, when it is known before
local Build = {}
Build.__index = Build

local function open(source, options, folder, ctx)
  local ref, err = references.parse(source)
  if not ref then return nil, err end
  local opts
  opts, err = M.source_options(options, folder, ctx)
  if not opts then return nil, err end
  local opened
  opened, err = sources.open(ref, opts)
  if not opened then return nil, err end
  return setmetatable({ options = options, opts = opts, source = opened }, Build)
end

---Releases what it has open.
function Build:close() self.source:close() end

Build.__close = core.uninterruptible(Build.close)

local function output_of(options, time)
  return { format = options.format or "ext4", size = options.size, room = options.room,
    limits = options.limits,
    journal = options.journal, time = time, ea_inode = options.ea_inode, label = options.label,
    uuid = options.uuid }
end

---Writes the target.
---@param target string
---@return fcproc.BuildReport?
---@return fcproc.Error? err
function Build:write(target)
  local options, opts, source = self.options, self.opts, self.source
  local tree, facts = source:fill(opts)
  if not tree then return nil, facts end
  local _ <close> = finally(function() tree:close() end)
  local image = source.image
  local time = options.time or image and seconds_of(image.config.created) or 0
  local made, err = edits.apply(tree, options, time)
  if not made then return nil, err end
  local config = M.config_of(image)
  local warnings, init = looks.at(tree, source.platform, config)
  local sealed
  sealed, err = tree:seal()
  if not sealed then return nil, err end
  local result
  result, err = outputs.write(tree, target, output_of(options, time), opts.ctx, opts.progress)
  if not result then return nil, err end
  local manifest = manifests.new(source_facts(source, facts), options, result.tools)
  manifest.edits, manifest.result = made, { format = result.format, bytes = result.bytes }
  local notes = facts.warnings
  table.move(result.warnings, 1, #result.warnings, #notes + 1, notes)
  return {
    target = target, made = true, format = result.format, bytes = result.bytes, entries = sealed.entries,
    content_bytes = sealed.bytes, platform = platforms.text(source.platform), init = init, config = config,
    edits = made, warnings = warnings, notes = notes, manifest = manifest,
  }
end

-- ---- the store -------------------------------------------------------------------------------

-- One name for what is to be built; of what can't be known before it is read, a new one each time.
function Build:_key()
  local source, options, opts = self.source, self.options, self.opts
  local tools, err = outputs.tools(options.format or "ext4", opts.ctx)
  if not tools then return nil, err end
  local facts
  if source.kind == "tar" and source.path ~= "-" then
    local hashed
    hashed, err = archives.run(opts, imagecore.hash{ path = source.path })
    if not hashed then return nil, err end
    if source.digest and source.digest ~= hashed.digest then
      return nil, errors.new{ code = "invalid", op = "image.build", path = source.path,
        message = ("%s is %s and not %s"):format(source.path, hashed.digest, source.digest) }
    end
    source:pin(hashed.digest)
    facts = { kind = "tar", digest = hashed.digest }
  elseif source.image then
    facts = source_facts(source, {})
    facts.name = nil
  else
    facts = { kind = source.kind, once = ("%d %.9f %d"):format(os.time(), core.now(), math.random(0)) }
  end
  local manifest = manifests.new(facts, options, tools)
  return manifests.key(manifest), facts.digest
end

-- Of the layers: as long as the image is in the store, prune leaves it those that were downloaded.
local function layers_of(image)
  local list = {}
  for _, layer in ipairs(image and image.layers or {}) do list[#list + 1] = layer.digest end
  return #list > 0 and list or nil
end

local FILES = { ext4 = "disk.ext4", squashfs = "disk.squashfs", tar = "root.tar", initrd = "initrd.img" }

-- Of what the store had.
local function report_of(entry, platform)
  return { target = entry.path, made = false, format = entry.kind, bytes = entry.files[entry.file].bytes,
    platform = platform, edits = {}, warnings = {}, notes = {} }
end

local function into_store(self, store, name)
  local options, source, report = self.options, self.source, nil
  local key, digest = self:_key()
  if not key then return nil, digest end
  local platform = platforms.text(source.platform)
  local entry, err = store:make(key, function(folder)
    local file = FILES[options.format or "ext4"]
    local why
    report, why = self:write(folder .. "/" .. file)
    if not report then return nil, why end
    return { kind = report.format, file = file, source = source.name, digest = digest, platform = platform,
      blobs = layers_of(source.image) }
  end, self.opts.ctx, true)
  if not entry then return nil, err end
  local ok
  ok, err = store:tag(name, key, self.opts.ctx)
  if not ok then return nil, err end
  report = report or report_of(entry, platform)
  report.target, report.key, report.name, report.mended = entry.path, entry.key, name, entry.mended
  return report
end

local function copy_out(path, target, opts)
  local file <close>, err = imagecore.target(target)
  if not file then return nil, err end
  local done
  done, err = archives.run(opts, file:copy(path))
  if done then done, err = archives.run(opts, file:publish()) end
  if done then return true end
  rooms.tell(err, outputs.folder_of(target))
  return nil, err
end

local function build_into_store(source, target, options, ctx)
  local stores = require "fcproc.image.store"
  local ok, err = stores.check_tag(options.name)
  if not ok then return nil, err end
  local store = options.store
  if type(store) ~= "table" then store, err = stores.open(store) end
  ok = store
  if store then ok, err = store:prepare() end
  if not ok then return nil, err end
  local build <close>, problem = open(source, options, store:at("partial"), ctx)
  if not build then return nil, problem end
  local report
  report, err = into_store(build, store, options.name)
  if not report then return nil, err end
  if target then
    ok, err = copy_out(report.target, target, build.opts)
    if not ok then return nil, err end
    report.target = target
  end
  return report
end

-- ---- the call --------------------------------------------------------------------------------

local function check_target(target, options)
  if target == nil and not options.name then
    return nil, errors.new{ code = "invalid", op = "image.build",
      message = "no target is given: name the file that is to be made, or keep it in the store (--name)" }
  elseif target and (target == "" or target:sub(-1) == "/") then
    return nil, errors.new{ code = "invalid", op = "image.build", path = target,
      message = ("the target %s is no file's name"):format(errors.quoted(target, 200)) }
  end
  return outputs.check(target, options)
end

---Builds a disk, or another form of it, of an image, an archive or a folder.
---
---    local report = fcproc.image.build("oci:/srv/debian", "/srv/debian.ext4", { size = "2GiB" })
---    for _, warning in ipairs(report.warnings) do print(warning.message, warning.fix) end
---@param source string   "dir:", "tar:", "oci:", "oci-archive:", "docker-archive:", "docker://", a path, or
---                       the name of a tar in the store
---@param target string?  the file; replaced when it is there
---@param options fcproc.BuildOptions?
---@param ctx fcproc.Context?
---@return fcproc.BuildReport? report
---@return fcproc.Error? err  ERR_INVALID: the source is not what it says, with what is wrong in it;
---                           ERR_NOT_FOUND; ERR_UNSUPPORTED
function M.build(source, target, options, ctx)
  options_of.argument(source, "string", "image.build", "source")
  if target ~= nil then options_of.argument(target, "string", "image.build", "target") end
  options_of.check(options, KNOWN, "image.build")
  options = options or {}
  ctx = loop.context(ctx)
  local started = core.now()
  local report, err = check_target(target, options)
  if report then report, err = edits.check(options) end
  if not report then return nil, err end
  if options.name then
    report, err = build_into_store(source, target, options, ctx)
  else
    local build <close>, problem = open(source, options, outputs.folder_of(target), ctx)
    if not build then return nil, problem end
    local from, to = build.source.path and core.stat(build.source.path, true), core.stat(target, true)
    if from and to and from.dev == to.dev and from.ino == to.ino then
      return nil, errors.new{ code = "conflict", op = "image.build", path = target,
        message = ("%s is the source, and would be replaced by what is built of it"):format(
          errors.quoted(target, 200)) }
    end
    report, err = build:write(target)
  end
  if not report then return nil, err end
  if options.digest then
    local hashed
    hashed, err = archives.run({ ctx = ctx, progress = options.progress },
      imagecore.hash{ path = report.target })
    if not hashed then return nil, err end
    report.digest = hashed.digest
    if report.manifest then report.manifest.result.digest = hashed.digest end
  end
  report.seconds = core.now() - started
  return report
end

return M
