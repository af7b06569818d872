-- The image flow: what an image, an archive or a folder becomes. Only who uses fcproc.image loads it, and
-- the libraries that it needs.

local build = require "fcproc.image.build"
local disk = require "fcproc.image.disk"
local inspect = require "fcproc.image.inspect"
local store = require "fcproc.image.store"
local verify = require "fcproc.image.verify"

local M = {
  build = build.build,
  disk = disk.disk,
  store = store.open,
  inspect = inspect.inspect,
  verify = verify.verify,
}

return M
