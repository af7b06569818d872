-- A spec that names an image, as one that the VM flow knows: with a disk, and with what boots it.

local boots = require "fcproc.image.boot"
local disks = require "fcproc.image.disk"
local errors = require "fcproc.error"

local M = {}

---@class fcproc.ImageSpec: fcproc.ImageDiskOptions
---@field [1] string  the image's name in the store, or a path

local function invalid(format, ...)
  return nil, errors.new{ code = "invalid", op = "vm.launch", message = format:format(...) }
end

-- What is written is a copy where nothing would lay an overlay over it.
local function with_choice(given, initrd)
  local opts = {}
  for key, value in pairs(given) do
    if key ~= 1 then opts[key] = value end
  end
  local chosen = opts.overlay ~= nil or opts.copy or opts.root == false
  if not chosen and not initrd then opts.copy = "reflink" end
  return opts
end

---The spec with its image as the first of its drives; without a kernel of its own it gets the store's, or
---the host's.
---@param spec table
---@param ctx fcproc.Context?
---@return fcproc.VmSpec? spec  the same when it has no image
---@return fcproc.Error? err
function M.spec(spec, ctx)
  local given = spec.image
  if given == nil then return spec end
  if type(given) == "string" then given = { given } end
  if type(given) ~= "table" or type(given[1]) ~= "string" then
    return invalid("image: must be an image's name, or a table with it: { \"debian12\", overlay = \"4GiB\" }")
  end
  if spec.drives ~= nil and type(spec.drives) ~= "table" then return invalid("drives: must be a list") end
  local found, err = disks.find(given[1], given, ctx) -- told before the lack of a kernel
  if not found then return nil, err end
  local made = {}
  for key, value in pairs(spec) do made[key] = value end
  made.image = nil
  if made.kernel == nil then
    local boot
    boot, err = boots.default(given.store, ctx)
    if not boot then return nil, err end
    made.kernel, made.initrd = boot.kernel, made.initrd or boot.initrd
  end
  local disk
  disk, err = disks.disk(given[1], with_choice(given, made.initrd), ctx)
  if not disk then return nil, err end
  made.drives = { disk, table.unpack(spec.drives or {}) }
  return made
end

return M
