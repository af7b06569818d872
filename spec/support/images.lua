-- Images for specs, written by hand: tars, OCI layouts and Docker's archives, right ones and others.

local cjson = require "cjson"
local imagecore = require "fcproc.imagecore"
local support = require "spec.support"

local M = {}

-- ---- tars ----------------------------------------------------------------------------------------

local KINDS = { file = "0", hardlink = "1", symlink = "2", char = "3", block = "4", dir = "5", fifo = "6" }
local BLOCK = 512

local function padded(data) return data .. ("\0"):rep(-#data % BLOCK) end

local function header(name, entry, kind, size)
  local text = string.pack("c100 c8 c8 c8 c12 c12 c8 c1 c100 c8 c32 c32 c8 c8 c155 c12", name,
    ("%07o\0"):format(entry.mode or (entry.kind == "dir" and 493 or 420)), ("%07o\0"):format(entry.uid or 0),
    ("%07o\0"):format(entry.gid or 0), ("%011o\0"):format(size), ("%011o\0"):format(entry.mtime or 0),
    (" "):rep(8), kind, entry.target or "", "ustar\00000", "", "", ("%07o\0"):format(entry.major or 0),
    ("%07o\0"):format(entry.minor or 0), "", "")
  local sum = 0
  for i = 1, #text do sum = sum + text:byte(i) end
  return text:sub(1, 148) .. ("%06o\0 "):format(sum) .. text:sub(157)
end

-- "LENGTH NAME=VALUE\n", whose length counts itself.
local function pax_record(name, value)
  local rest = (" %s=%s\n"):format(name, value)
  local length = #rest + 1
  while #tostring(length) + #rest ~= length do length = #tostring(length) + #rest end
  return length .. rest
end

---A tar of entries { name, kind = "file", data, target, mode, uid, gid, mtime, major, minor, pax = {} }.
function M.tar(entries)
  local parts = {}
  for _, entry in ipairs(entries) do
    local name, pax = entry[1] or entry.name, {}
    for key, value in pairs(entry.pax or {}) do pax[#pax + 1] = pax_record(key, value) end
    if #name > 100 then pax[#pax + 1] = pax_record("path", name) end
    if #(entry.target or "") > 100 then pax[#pax + 1] = pax_record("linkpath", entry.target) end
    if #pax > 0 then
      table.sort(pax)
      local text = table.concat(pax)
      parts[#parts + 1] = header("pax", { mode = 420 }, "x", #text) .. padded(text)
    end
    local short = { target = (entry.target or ""):sub(1, 100) }
    for key, value in pairs(entry) do short[key] = short[key] or value end
    local data = entry.data or ""
    parts[#parts + 1] = header(name:sub(1, 100), short, KINDS[entry.kind or "file"], #data) .. padded(data)
  end
  return table.concat(parts) .. ("\0"):rep(2 * BLOCK)
end

local NAMES = {}
for name, digit in pairs(KINDS) do NAMES[digit] = name end

---What is in a tar: { [path] = { kind, mode, uid, gid, mtime, size, target, data, pax } }, paths without the
---slashes around them.
function M.untar(tar)
  local found, pax, at = {}, {}, 1
  while tar:byte(at) and tar:byte(at) ~= 0 do
    local head = tar:sub(at, at + BLOCK - 1)
    local function text(from, length) return head:sub(from, from + length - 1):match("^[^%z]*") end
    local function number(from, length) return tonumber(text(from, length):match("%d+") or "0", 8) end
    local size, flag, prefix = number(125, 12), head:sub(157, 157), text(346, 155)
    local data = tar:sub(at + BLOCK, at + BLOCK + size - 1)
    if flag == "x" then
      local from = 1
      while from <= #data do
        local length = tonumber(data:match("^%d+", from))
        local key, value = data:sub(from, from + length - 2):match("^%d+ ([^=]*)=(.*)$")
        pax[key], from = value, from + length
      end
    elseif flag ~= "g" then
      local name = pax.path or (prefix ~= "" and prefix .. "/" or "") .. text(1, 100)
      if pax.size then data = tar:sub(at + BLOCK, at + BLOCK + tonumber(pax.size) - 1) end
      local entry = { kind = NAMES[flag] or flag, mode = number(101, 8) & 4095, data = data, pax = pax,
        uid = tonumber(pax.uid) or number(109, 8), gid = tonumber(pax.gid) or number(117, 8),
        mtime = tonumber(pax.mtime) or number(137, 12), target = pax.linkpath or text(158, 100) }
      found[(name:gsub("^%./", ""):gsub("/$", ""))] = entry
      size, pax = #data, {}
    end
    at = at + BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
  end
  return found
end

-- ---- cpios ---------------------------------------------------------------------------------------

local CPIO_FIELDS = { "ino", "mode", "uid", "gid", "nlink", "mtime", "size", "dev_major", "dev_minor",
  "major", "minor", "name_size", "check" }
local CPIO_KINDS = { [0x1] = "fifo", [0x2] = "char", [0x4] = "dir", [0x6] = "block", [0x8] = "file",
  [0xA] = "symlink", [0xC] = "socket" }

---What is in a cpio (newc), in its order: { name, kind, mode, ..., data }; Linux' buffer-format.rst has it.
function M.uncpio(cpio)
  local list, at = {}, 1
  local function take(size)
    local text = cpio:sub(at, at + size - 1)
    at = at + size
    at = at + (1 - at) % 4
    return text
  end
  repeat
    assert(cpio:sub(at, at + 5) == "070701", "no header at " .. at)
    local entry = {}
    for i, field in ipairs(CPIO_FIELDS) do
      local digits = cpio:sub(at + 8 * i - 2, at + 8 * i + 5)
      entry[field] = tonumber(assert(digits:match("^%x+$"), digits), 16)
    end
    entry.name = take(110 + entry.name_size):sub(111, -2)
    entry.data = take(entry.size)
    entry.kind, entry.mode = CPIO_KINDS[entry.mode >> 12], entry.mode & 4095
    list[#list + 1] = entry
  until entry.name == "TRAILER!!!"
  list[#list] = nil
  return list
end

function M.sha256(data) return imagecore.digest(data) end

function M.gzip(data) return support.sh({ "gzip", "-nc" }, { input = data, output_limit = 1 << 30 }) end

-- ---- OCI layouts -----------------------------------------------------------------------------------

M.INDEX = "application/vnd.oci.image.index.v1+json"
M.MANIFEST = "application/vnd.oci.image.manifest.v1+json"
M.CONFIG = "application/vnd.oci.image.config.v1+json"
M.LAYER = "application/vnd.oci.image.layer.v1.tar"

---A list that is empty, which this lua-cjson has no word for.
M.EMPTY = "<empty>"

local function list(values) return #values == 0 and M.EMPTY or values end

local function json(value) return (cjson.encode(value):gsub("\\/", "/"):gsub('"<empty>"', "[]")) end
M.json = json

local Layout = {}
Layout.__index = Layout

---Writes a blob, and returns its descriptor.
function Layout:blob(data, media_type, more)
  local digest = M.sha256(data)
  support.write_file(("%s/blobs/sha256/%s"):format(self.path, digest:sub(8)), data)
  local descriptor = { mediaType = media_type, digest = digest, size = #data }
  for key, value in pairs(more or {}) do descriptor[key] = value end
  return descriptor
end

---An image of layers, each a tar, from the bottom up: its manifest's descriptor. options: config (fields of
---it), gzip, change (called with the manifest before it is written), architecture, created.
function Layout:image(tars, options)
  options = options or {}
  local layers, diff_ids = {}, {}
  for i, tar in ipairs(tars) do
    diff_ids[i] = M.sha256(tar)
    layers[i] = options.gzip and self:blob(M.gzip(tar), M.LAYER .. "+gzip") or self:blob(tar, M.LAYER)
  end
  local config = { os = "linux", architecture = options.architecture or "amd64", variant = options.variant,
    rootfs = { type = "layers", diff_ids = list(diff_ids) }, config = options.config,
    created = options.created }
  if options.change_config then options.change_config(config) end
  local manifest = { schemaVersion = 2, mediaType = M.MANIFEST, config = self:blob(json(config), M.CONFIG),
    layers = list(layers) }
  if options.change then options.change(manifest) end
  return self:blob(json(manifest), M.MANIFEST, options.descriptor)
end

---An index of descriptors, as a blob.
function Layout:index(descriptors, more)
  local index = { schemaVersion = 2, mediaType = M.INDEX, manifests = list(descriptors) }
  return self:blob(json(index), M.INDEX, more)
end

---Writes index.json: of these.
function Layout:write(descriptors)
  support.write_file(self.path .. "/index.json", json{ schemaVersion = 2, manifests = list(descriptors) })
  return self.path
end

---A descriptor with a name, as index.json has it.
function M.named(descriptor, name)
  local copy = {}
  for key, value in pairs(descriptor) do copy[key] = value end
  copy.annotations = { ["org.opencontainers.image.ref.name"] = name }
  return copy
end

---The same for a platform.
function M.for_platform(descriptor, architecture, variant, os)
  local copy = {}
  for key, value in pairs(descriptor) do copy[key] = value end
  copy.platform = { os = os or "linux", architecture = architecture, variant = variant }
  return copy
end

---A new layout without images.
function M.layout(path)
  support.sh{ "mkdir", "-p", path .. "/blobs/sha256" }
  support.write_file(path .. "/oci-layout", '{"imageLayoutVersion":"1.0.0"}')
  return setmetatable({ path = path }, Layout)
end

return M
