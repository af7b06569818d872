-- fcproc image: the store of images, and what boots them.

local boots = require "fcproc.image.boot"
local build = require "fcproc.cli.build"
local output = require "fcproc.cli.output"
local prune = require "fcproc.image.prune"
local sizes = require "fcproc.image.size"
local stores = require "fcproc.image.store"

local M = {}

local LIST = { kind = "list" }
local SHORT = 12 -- digits of a key

local function short(key) return #key == 64 and key:sub(1, SHORT) or key end

local function joined(list) return #list > 0 and table.concat(list, " ") or "-" end

local function list_text(list)
  local rows = { { "IMAGE", "KEY", "KIND", "SIZE", "MADE", "USERS" } }
  for _, image in ipairs(list) do
    rows[#rows + 1] = { joined(image.tags), short(image.key), image.kind or "damaged",
      image.file and sizes.text(image.files[image.file].bytes) or "-",
      os.date("%Y-%m-%d %H:%M", image.created), #image.users > 0 and tostring(#image.users) or "-" }
  end
  return output.columns(rows)
end

local function do_list(cli, store)
  local list, err = store:list()
  if not list then return nil, err end
  local shown = {}
  for i, image in ipairs(list) do
    shown[i] = {}
    for name, value in pairs(image) do shown[i][name] = value end
    shown[i].err = image.err and output.plain(image.err)
  end
  cli.output:result(shown, { kind = "list", of = { fields = { tags = LIST, users = LIST } } }, function()
    for _, image in ipairs(list) do
      if image.err then cli.output:note("%s", image.err.message) end
    end
    return list_text(list)
  end)
  return true
end

local function pruned_text(report, dry)
  local lines = {}
  for _, entry in ipairs(report.removed) do
    local tags = entry.tags and #entry.tags > 0 and (" (%s)"):format(table.concat(entry.tags, " ")) or ""
    lines[#lines + 1] = ("%s %s %s%s, %s\n"):format(dry and "would remove" or "removed", entry.what,
      short(entry.key), tags, sizes.text(entry.bytes))
  end
  for _, entry in ipairs(report.kept) do
    lines[#lines + 1] = ("kept %s: %s\n"):format(short(entry.key), entry.why)
  end
  lines[#lines + 1] = ("%s\n"):format(sizes.text(report.bytes) .. (dry and " could be freed" or " freed"))
  return table.concat(lines)
end

local function do_prune(cli, store)
  local dry = cli.args.dry_run
  local report, err = prune.prune(store, { all = cli.args.all, dry_run = dry }, cli.ctx)
  if not report then return nil, err end
  cli.output:result(report, { fields = { removed = { kind = "list", of = { fields = { tags = LIST } } },
    kept = LIST } }, function() return pruned_text(report, dry) end)
  return true
end

local function do_kernel(cli, store)
  local boot, err
  if cli.args.default then
    boot, err = boots.keep(store, cli.args.default, cli.args.initrd, cli.ctx)
  else
    boot, err = boots.default(store, cli.ctx)
  end
  if not boot then return nil, err end
  cli.output:result(boot, nil, function()
    return output.fields{ { "kernel", boot.kernel },
      { "initrd", boot.initrd or "none: nothing lays an overlay over an image, so it is copied" },
      { "version", boot.version }, { "from", boot.source } }
  end)
  return true
end

local commands = { list = do_list, prune = do_prune, kernel = do_kernel }

---fcproc image COMMAND
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.image(cli)
  local name = cli.args.image_command
  if build[name] then return build[name](cli) end -- these may do without a store
  local store, err = stores.open(cli.args.store)
  if not store then return nil, err end
  return commands[name](cli, store)
end

return M
