-- The image flow: what an image, an archive or a folder becomes. Only who uses fcproc.image loads it, and
-- the libraries that it needs.

local build = require "fcproc.image.build"
local disk = require "fcproc.image.disk"
local initrd = require "fcproc.image.initrd"
local inspect = require "fcproc.image.inspect"
local kernel = require "fcproc.image.kernel"
local store = require "fcproc.image.store"
local verify = require "fcproc.image.verify"

local M = {
  build = build.build,
  disk = disk.disk,
  store = store.open,
  initrd = initrd.initrd,
  inspect = inspect.inspect,
  kernel = kernel.kernel,
  verify = verify.verify,
}

return M
