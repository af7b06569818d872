-- For which machine an image is: "linux/arm64/v8" of the OCI text, and which of several is taken.

local core = require "fcproc.core"
local errors = require "fcproc.error"

local M = {}

---@class fcproc.ImagePlatform
---@field os string
---@field architecture string  Go's word: "amd64"
---@field variant string?

-- The kernel's words for Go's.
local GO = { x86_64 = "amd64", aarch64 = "arm64", i386 = "386", i686 = "386", armhf = "arm", armv7l = "arm" }

-- Without a variant these are meant.
local USUAL = { arm64 = "v8", arm = "v7", amd64 = "v1" }

-- The number of a variant that runs what lower ones are for.
local function level(platform)
  local variant = platform.variant or USUAL[platform.architecture] or "v0"
  return math.tointeger(tonumber(variant:match("^v(%d+)") or "")) or 0
end

---What this host runs.
---@return fcproc.ImagePlatform
function M.own()
  return { os = "linux", architecture = GO[core.arch] or core.arch }
end

---Reads "linux/arm64/v8", "linux/amd64" or "arm64".
---@param text string?  default: this host's
---@return fcproc.ImagePlatform? platform
---@return fcproc.Error? err  ERR_INVALID
function M.parse(text)
  if text == nil then return M.own() end
  local parts = {}
  for part in text:gmatch("[^/]+") do parts[#parts + 1] = part end
  if #parts == 1 then table.insert(parts, 1, "linux") end
  if #parts < 2 or #parts > 3 or text:find("[^%w/._%-]") then
    return nil, errors.new{ code = "invalid", op = "image.platform",
      message = ("'%s' is no platform: it is written like linux/amd64 or linux/arm64/v8")
        :format(errors.quoted(text, 100)) }
  end
  if parts[1] ~= "linux" then
    return nil, errors.new{ code = "invalid", op = "image.platform",
      message = ("'%s': only linux images become disks of a microVM"):format(text) }
  end
  return { os = parts[1], architecture = GO[parts[2]] or parts[2], variant = parts[3] }
end

---As it is written.
---@param platform fcproc.ImagePlatform
---@return string
function M.text(platform)
  local text = ("%s/%s"):format(platform.os, platform.architecture)
  return platform.variant and text .. "/" .. platform.variant or text
end

---Does one who wants the first run the second, and how well? The higher the better.
---@param wanted fcproc.ImagePlatform
---@param offered fcproc.ImagePlatform
---@return integer? fit
function M.fit(wanted, offered)
  if wanted.os ~= offered.os or wanted.architecture ~= offered.architecture then return nil end
  local most, has = level(wanted), level(offered)
  if has > most then return nil end
  -- arm64 has no lower ones that are not its own.
  if wanted.architecture == "arm64" and has < most and has < 8 then return nil end
  return has
end

-- What the kernel says of an ELF file's machine (e_machine).
M.MACHINES = { [3] = "386", [8] = "mips", [21] = "ppc64le", [22] = "s390x", [40] = "arm", [62] = "amd64",
  [183] = "arm64", [243] = "riscv64", [258] = "loong64" }

return M
