-- fcproc image: the store of images, and what boots them.

local boots = require "fcproc.image.boot"
local build = require "fcproc.cli.build"
local output = require "fcproc.cli.output"
local signals = require "fcproc.cli.signals"
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
      image.created > 0 and os.date("%Y-%m-%d %H:%M", image.created) or "-",
      #image.users > 0 and tostring(#image.users) or "-" }
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
  local report, err = store:prune({ all = cli.args.all, dry_run = dry }, cli.ctx)
  if not report then return nil, err end
  cli.output:result(report, { fields = { removed = { kind = "list", of = { fields = { tags = LIST } } },
    kept = LIST } }, function() return pruned_text(report, dry) end)
  return true
end

-- What a kernel lacks: told at once where nothing would boot.
local function lacking(cli, lacks)
  local names = {}
  for _, need in ipairs(lacks or {}) do
    if need.essential then
      cli.output:note("warning: the kernel lacks %s: %s", need.option, need.why)
    else
      names[#names + 1] = ("%s (%s)"):format(need.option, need.why)
    end
  end
  return #names > 0 and table.concat(names, ", ") or nil
end

local BOOT = { fields = { lacks = LIST, absent = LIST } }

-- What images are booted with, or from now on.
local function do_default(cli)
  local args = cli.args
  local store, err = stores.open(args.store)
  if not store then return nil, err end
  local boot
  if args.default then
    boot, err = store:keep_kernel(args.default, { initrd = args.initrd, modules = args.modules }, cli.ctx)
  else
    boot, err = boots.default(store, cli.ctx)
  end
  if not boot then return nil, err end
  cli.output:result(boot, BOOT, function()
    return output.fields{ { "kernel", boot.kernel },
      { "initrd", boot.initrd or "none: nothing lays an overlay over an image, so it is copied" },
      { "version", boot.version }, { "from", boot.source },
      { "was damaged", boot.mended }, { "lacks", lacking(cli, boot.lacks) },
      { "no modules", boot.absent and boot.absent[1] and table.concat(boot.absent, ", ") } }
  end)
  return true
end

local function do_kernel(cli)
  local args = cli.args
  if not args.path then return do_default(cli) end
  local made, err = require("fcproc.image.kernel").kernel(args.path, { to = args.to }, cli.ctx)
  if not made then return nil, err end
  made.config = nil -- thousands of lines
  cli.output:result(made, { fields = { lacks = LIST, modules = LIST } }, function()
    return output.fields{ { "kernel", made.path or "packed; --to FILE unpacks it" }, { "kind", made.kind },
      { "packed by", made.packing }, { "machine", made.machine }, { "version", made.version },
      { "size", sizes.text(made.bytes) }, { "configuration", made.config_from },
      { "lacks", lacking(cli, made.lacks) },
      { "as modules", made.modules and made.modules[1] and table.concat(made.modules, ", ") } }
  end)
  return true
end

local function do_initrd(cli)
  local args = cli.args
  local made, err = require("fcproc.image.initrd").initrd({ to = args.target, modules = args.modules,
    more = args.module, gzip = args.gzip }, cli.ctx)
  if not made then return nil, err end
  if not args.modules then
    cli.output:note("warning: it has no modules: only a kernel that has all that it needs built in finds its "
      .. "root by it; --modules /lib/modules/VERSION puts them in")
  end
  for _, module in ipairs(made.absent) do
    if module.needed then
      cli.output:note("warning: there is no module %s%s", module.name,
        module.wanted_by and (", which %s needs"):format(module.wanted_by) or "")
    end
  end
  cli.output:result(made, { fields = { modules = LIST, builtin = LIST, absent = LIST } }, function()
    return output.fields{ { "initrd", made.path }, { "size", sizes.text(made.bytes) },
      { "version", made.version }, { "modules", table.concat(made.modules, " ") } }
  end)
  return true
end

local commands = { kernel = do_kernel, initrd = do_initrd, build = build.build, inspect = build.inspect,
  verify = build.verify }
local of_stores = { list = do_list, prune = do_prune }

local function run(cli)
  local name = cli.args.image_command
  if commands[name] then return commands[name](cli) end -- these may do without a store
  local store, err = stores.open(cli.args.store)
  if not store then return nil, err end
  return of_stores[name](cli, store)
end

---fcproc image COMMAND
---@param cli fcproc.Cli
---@return true?
---@return fcproc.Error? err
function M.image(cli)
  return signals.ending(cli, run)
end

return M
