-- How a source of an image is named: as skopeo names it, by a path, or by a word that the store knows.

local errors = require "fcproc.error"

local M = {}

---@class fcproc.ImageReference
---@field text string        as it was given
---@field transport "dir"|"tar"|"oci"|"oci-archive"|"docker-archive"|"docker"|"store"|"path"
---@field path string?       of what lies on this host; "-": standard input
---@field name string?       of an image in a registry, or in the store
---@field tag string?        which image of several in one layout or archive
---@field number integer?    the same by its place, from 0 on: skopeo's :@N
---@field digest string?     what it must be: "sha256:..."

local TRANSPORTS = "dir:, tar:, oci:, oci-archive:, docker-archive:, docker://"

-- skopeo's, which need what we do not have; and what helps.
local OTHERS = {
  ["containers-storage"] = "podman save IMAGE | fcproc image build docker-archive:- TARGET",
  ["docker-daemon"] = "docker save IMAGE | fcproc image build docker-archive:- TARGET",
  docker = "docker://NAME, with two slashes",
  ostree = "skopeo copy ostree:... oci:FOLDER", sif = "skopeo copy sif:... oci:FOLDER",
}

local function invalid(text, format, ...)
  return nil, errors.new{ code = "invalid", op = "image.reference",
    message = ("%s: %s"):format(errors.quoted(text, 200), format:format(...)) }
end

-- Apart from the digest at its end.
local function pinned(text, rest)
  local before, algorithm, digits = rest:match("^(.*)@(%w+):(%w*)$")
  if algorithm ~= "sha256" then return rest end
  if #digits ~= 64 or digits:find("[^%da-f]") then
    return invalid(text, "a digest is sha256: and 64 digits of 0-9 and a-f")
  end
  return before, algorithm .. ":" .. digits
end

local parsers = {}

-- PATH, and for some a colon and which image in it: a path with a colon can't be said, as in skopeo.
local function in_file(ref, rest, tagged)
  local path, tag = rest, nil
  if tagged then
    local before, after = rest:match("^(.-):(.*)$")
    if before then path, tag = before, after end
  end
  if path == "" then return invalid(ref.text, "has no path") end
  if tag == "" then return invalid(ref.text, "ends with a colon: name an image after it, or leave it out") end
  ref.path, ref.tag = path, tag
  return ref
end

parsers.dir = function(ref, rest)
  if ref.digest then
    return invalid(ref.text, "a folder has no digest; that of a tar or an image can be told")
  end
  return in_file(ref, rest, false)
end

parsers.tar = function(ref, rest) return in_file(ref, rest, false) end

parsers.oci = function(ref, rest) return in_file(ref, rest, true) end

parsers["oci-archive"] = parsers.oci

parsers["docker-archive"] = function(ref, rest)
  local path, number = rest:match("^(.-):@(%d+)$")
  local made, err = in_file(ref, path or rest, not path)
  if made and number then made.number = math.tointeger(tonumber(number)) end
  return made, err
end

local function is_name(text)
  return text:find("^[%w][%w._/:%-]*$") and not text:find("//", 1, true) and not text:find("[/:]$")
end

local function in_registry(ref, rest)
  if not is_name(rest) and not rest:find("^%[[%x:]+%]:?%d*/[%w._/:%-]+$") then
    return invalid(ref.text, "is written docker://HOST/NAME:TAG or docker://HOST/NAME@sha256:DIGEST")
  end
  ref.transport, ref.name = "docker", rest
  return ref
end

local function is_path(text) return text:find("^%.?%.?/") or text == "." or text == ".." end

---Reads a reference: nothing is looked at but its text.
---@param text string
---@return fcproc.ImageReference? ref
---@return fcproc.Error? err  ERR_INVALID
function M.parse(text)
  if text == "" then return invalid("an image's name", "is empty") end
  if text:find("%z") then return invalid(text, "has a NUL in it") end
  local ref = { text = text }
  local rest, digest = pinned(text, text)
  if not rest then return nil, digest end
  ref.digest = digest
  if is_path(text) then
    ref.transport, ref.path = "path", rest
    return ref
  end
  local name = rest:match("^docker://(.*)$")
  if name then return in_registry(ref, name) end
  local transport, after = rest:match("^([%l%-]+):(.*)$")
  if parsers[transport] then
    ref.transport = transport
    return parsers[transport](ref, after)
  end
  if OTHERS[transport] then
    return invalid(text, "%s: is not read here; try: %s", transport, OTHERS[transport])
  end
  if not is_name(rest) then
    return invalid(text, "is neither a path (/..., ./...), nor one of %s, nor a name in the store",
      TRANSPORTS)
  end
  ref.transport, ref.name = "store", rest
  return ref
end

return M
