-- What is changed in a tree before it is written: what the caller puts in and takes out, and what a
-- microVM needs that an image lacks. Each change is told.

local core = require "fcproc.core"
local errors = require "fcproc.error"
local options_of = require "fcproc.options"

local M = {}

---@class fcproc.ImageEdit
---@field path string
---@field action "put"|"remove"|"folder"|"link"|"empty"
---@field why string

M.RESOLV_CONF = "/run/fcproc/resolv.conf" -- our initrd writes it

-- Where a system mounts what it needs first.
local MOUNT_POINTS = {
  { "/dev", 493 }, { "/proc", 365 }, { "/sys", 365 }, { "/run", 493 }, { "/tmp", 1023 },
}
local FOLDER_MODE, FILE_MODE = 493, 420 -- 0755, 0644

local OVERLAY = { data = "string", from = "string", target = "string", kind = "string", mode = "integer",
  uid = "integer", gid = "integer", mtime = "number", major = "integer", minor = "integer", xattrs = "table" }
local MOST_NUMBER = 0xffffffff
local MOST = { mode = 4095, uid = MOST_NUMBER, gid = MOST_NUMBER, major = MOST_NUMBER, minor = MOST_NUMBER }
local KINDS = { file = true, dir = true, symlink = true, char = true, block = true, fifo = true,
  socket = true }

local function invalid(what, path, format, ...)
  return nil, errors.new{ code = "invalid", op = "image.edit", path = path,
    message = ("%s %s: %s"):format(what, errors.quoted(path, 300), format:format(...)) }
end

-- what: the option that names it.
local function check_path(what, path)
  if type(path) ~= "string" or path:sub(1, 1) ~= "/" then
    return invalid(what, tostring(path), "is no absolute path")
  end
  for part in path:gmatch("[^/]+") do
    if part == "." or part == ".." then return invalid(what, path, "has '%s' in it", part) end
  end
  if path:find("%z") or path:find("^/+$") then return invalid(what, path, "is no file's name") end
  return true
end

local function is_text(value) return type(value) == "string" and not value:find("%z") end

-- Why a field can't be what it is; nil when it can.
local function complaint(key, item)
  local kind = OVERLAY[key]
  if not kind then return ("unknown field '%s'"):format(tostring(key)) end
  if type(item) ~= kind and math.type(item) ~= kind then
    return ("'%s' must be %s, not a %s"):format(key, options_of.a(kind), type(item))
  end
  if MOST[key] and (item < 0 or item > MOST[key]) then
    return ("'%s' must be from 0 to %d"):format(key, MOST[key])
  elseif key == "mtime" and not math.tointeger(math.floor(item)) then
    return "'mtime' is no time"
  elseif key == "kind" and not KINDS[item] then
    return ("'%s' is no kind: it is file, dir, symlink, char, block, fifo or socket"):format(item)
  elseif (key == "from" or key == "target") and not is_text(item) then
    return ("'%s' has a NUL in it"):format(key)
  elseif key == "xattrs" then
    for name, value in pairs(item) do
      if not is_text(name) or type(value) ~= "string" then return "'xattrs' must be strings by strings" end
    end
  end
end

local function check_file(path, value)
  if type(value) == "string" then return true end
  if type(value) ~= "table" then
    return invalid("overlay", path, "must be a text or a table, not a %s", type(value))
  end
  for key, item in pairs(value) do
    local why = complaint(key, item)
    if why then return invalid("overlay", path, "%s", why) end
  end
  local sources = (value.data and 1 or 0) + (value.from and 1 or 0) + (value.target and 1 or 0)
  if sources > 1 then return invalid("overlay", path, "data, from, target: one of them") end
  return true
end

---Can what the caller puts in and takes out be what it is? Before anything is read.
---@param options { overlay: table?, remove: string[]? }
---@return true?
---@return fcproc.Error? err
function M.check(options)
  for path, value in pairs(options.overlay or {}) do
    local ok, err = check_path("overlay", path)
    if ok then ok, err = check_file(path, value) end
    if not ok then return nil, err end
  end
  for _, path in ipairs(options.remove or {}) do
    local ok, err = check_path("remove", path)
    if not ok then return nil, err end
  end
  return true
end

-- What Tree:put takes, of what the caller gave.
local function wanted(path, value, time)
  if type(value) == "string" then value = { data = value } end
  local made = { kind = value.kind or value.target and "symlink" or "file", uid = 0, gid = 0, mtime = time }
  for key, item in pairs(value) do made[key] = item end
  if value.from then
    local info, err = core.stat(value.from, true)
    if not info then return nil, err end
    if info.type ~= "file" then return invalid("overlay", path, "%s is no regular file", value.from) end
    made.mode = made.mode or info.mode
    made.mtime = value.mtime or info.mtime
  end
  made.mtime = math.floor(made.mtime)
  made.mode = made.mode or (made.kind == "dir" and FOLDER_MODE or FILE_MODE)
  return made
end

---@class fcproc.TreeEditor
---@field tree table
---@field edits fcproc.ImageEdit[]
---@field time integer
local Editor = {}
Editor.__index = Editor

function Editor:_told(action, path, why)
  table.insert(self.edits, { action = action, path = path, why = why })
end

function Editor:_put(action, path, what, why)
  local ok, err = self.tree:put(path, what)
  if not ok then return nil, err end
  self:_told(action, path, why)
  return true
end

-- What is there, links on the way and at its end followed inside the tree.
function Editor:_look(path)
  local resolved, err = self.tree:resolve(path)
  if not resolved then
    if err.code == "not_found" then return false end
    return nil, err
  end
  return self.tree:stat(resolved)
end

function Editor:_folder(path, mode, why)
  local at, err = self:_look(path)
  if at == nil then return nil, err end
  if at and at.kind == "dir" then return true end
  local own = self.tree:stat(path)
  if own then return true end -- of another kind: inspect tells of it
  return self:_put("folder", path, { kind = "dir", mode = mode, uid = 0, gid = 0, mtime = self.time }, why)
end

-- The folders above a path that are not there.
function Editor:_parents(path)
  local at = ""
  for part in path:match("^(.*)/"):gmatch("[^/]+") do
    at = at .. "/" .. part
    local ok, err = self:_folder(at, FOLDER_MODE, "needed by " .. path)
    if not ok then return nil, err end
  end
  return true
end

function Editor:_overlay(overlay)
  local paths = {}
  for path in pairs(overlay) do paths[#paths + 1] = path end
  table.sort(paths)
  for _, path in ipairs(paths) do
    local what, err = wanted(path, overlay[path], self.time)
    local ok = what
    if ok then ok, err = self:_parents(path) end
    if ok then ok, err = self:_put("put", path, what, "asked for") end
    if not ok then return nil, err end
  end
  return true
end

function Editor:_remove(paths)
  for _, path in ipairs(paths) do
    local ok, err = self.tree:remove(path)
    if not ok and err.code ~= "not_found" then return nil, err end
    self:_told("remove", path, ok and "asked for" or "asked for; it was not there")
  end
  return true
end

-- A container's own is mounted over an empty file, which a VM would be left with.
function Editor:_resolv_conf()
  local path = "/etc/resolv.conf"
  local own = self.tree:stat(path)
  if own and (own.kind ~= "file" or own.size > 0) then return true end
  local ok, err = self:_parents(path)
  if not ok then return nil, err end
  return self:_put("link", path, { kind = "symlink", target = M.RESOLV_CONF, mode = 511, uid = 0, gid = 0,
    mtime = self.time }, own and "was empty" or "was not there")
end

-- Two machines of one image are not the same machine. An empty one is made at the first boot.
function Editor:_machine_id()
  local path = "/etc/machine-id"
  local own = self.tree:stat(path)
  if own and own.kind == "file" and own.size > 0 then
    local text = self.tree:read(path, 64)
    if not (text and text:find("^uninitialized")) then
      local ok, err = self:_put("empty", path, { kind = "file", data = "", mode = own.mode, uid = own.uid,
        gid = own.gid, mtime = self.time }, "each machine has its own")
      if not ok then return nil, err end
    end
  end
  local dbus = "/var/lib/dbus/machine-id"
  own = self.tree:stat(dbus)
  if not (own and own.kind == "file" and own.size > 0) then return true end
  return self:_put("link", dbus, { kind = "symlink", target = path, mode = 511, uid = 0, gid = 0,
    mtime = self.time }, "each machine has its own")
end

---Edits a tree.
---@param tree table
---@param options { overlay: table?, remove: string[]?, as_is: boolean? }  which M.check has seen
---@param time integer  of what is made, in seconds since 1970
---@return fcproc.ImageEdit[]? edits
---@return fcproc.Error? err
function M.apply(tree, options, time)
  local editor = setmetatable({ tree = tree, edits = {}, time = time }, Editor)
  local ok, err = editor:_remove(options.remove or {})
  if ok then ok, err = editor:_overlay(options.overlay or {}) end
  if not ok then return nil, err end
  if options.as_is then return editor.edits end
  for _, point in ipairs(MOUNT_POINTS) do
    ok, err = editor:_folder(point[1], point[2], "something is mounted there")
    if not ok then return nil, err end
  end
  -- What the caller put there is his.
  local overlay = options.overlay or {}
  if not overlay["/etc/resolv.conf"] then ok, err = editor:_resolv_conf() end
  if ok and not overlay["/etc/machine-id"] then ok, err = editor:_machine_id() end
  if not ok then return nil, err end
  return editor.edits
end

return M
