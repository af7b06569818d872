-- Images for the specs that need no real one: a disk that begins with a text, and has the magic number of
-- an ext4 where that is.

local fcproc = require "fcproc"
local stores = require "fcproc.image.store"
local support = require "spec.support"

local must = support.must

local M = {}

function M.disk_text(text) return text .. ("\0"):rep(1080 - #text) .. "\x53\xef" .. ("\0"):rep(966) end

---What store:make takes, to build such a disk.
function M.building(text, more)
  return function(folder)
    support.write_file(folder .. "/disk.ext4", M.disk_text(text))
    local facts = { kind = "ext4", file = "disk.ext4", source = "tar:" .. text }
    for key, value in pairs(more or {}) do facts[key] = value end
    return facts
  end
end

---A store with one such image, which has a name.
function M.store(path, name, text)
  local store = must(stores.open(path))
  must(store:tag(name, must(store:make("aaaa1111", M.building(text))).key))
  return store
end

---The built-in guest as a kernel, and an initrd, of which it makes nothing.
function M.kernel(folder)
  support.write_file(folder:file("initrd.img"), ("i"):rep(512))
  return must(fcproc.guest_path()), folder:file("initrd.img")
end

return M
