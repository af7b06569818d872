-- An archive in which an image's parts lie: its members are found by their headers, and a layer is read
-- from where it is in the archive. Links lead nowhere but to other members.

local errors = require "fcproc.error"
local imagecore = require "fcproc.imagecore"
local jobs = require "fcproc.image.jobs"

local M = {}

---@class fcproc.ImageArchive: fcproc.ImageBlobs
---@field tree table     its members
---@field digest string  of the archive's file
local Archive = {}
Archive.__index = Archive

local function missing(self, path)
  return nil, errors.new{ code = "not_found", op = "image.archive",
    message = errors.quoted(("%s: there is no %s in it"):format(self.name, path), 500) }
end

function Archive:_find(path)
  local resolved = self.tree:resolve("/" .. path)
  local at = resolved and self.tree:stat(resolved)
  if not at or at.kind ~= "file" then return missing(self, path) end
  return at, resolved
end

---The size of a member.
---@param path string
---@return integer? bytes
---@return fcproc.Error? err
function Archive:size(path)
  local at, err = self:_find(path)
  if not at then return nil, err end
  return at.size
end

---Its first bytes.
---@param path string
---@param most integer
---@return string? bytes
---@return fcproc.Error? err
function Archive:read(path, most)
  local at, resolved = self:_find(path)
  if not at then return nil, resolved end
  return self.tree:read(resolved, most)
end

---Where Tree:read_archive finds it, once Tree:extract has told.
---@param path string
---@return { tree: fcproc.Tree, member: string }? place
---@return fcproc.Error? err
function Archive:place(path)
  local at, resolved = self:_find(path)
  if not at then return nil, resolved end
  return { tree = self.tree, member = resolved }
end

---Waits for a job, made by the call of which these are the answers.
---@param opts { ctx: fcproc.Context?, progress: function? }
---@param job fcproc.Job?
---@param err fcproc.Error?
---@return table? result
---@return fcproc.Error? err
function M.run(opts, job, err)
  if not job then return nil, err end
  return jobs.run(job, opts.ctx, opts.progress)
end

---Is there a file of that name?
---@param path string
---@return boolean
function Archive:has(path) return (self:_find(path)) ~= nil end

---Its members are not read any more.
function Archive:close() self.tree:close() end

Archive.__close = Archive.close

---Reads an archive's headers. The tree is that of a file system, if it is one.
---@param name string   for messages
---@param place table   for Tree:read_archive
---@param opts { limits: table, ctx: fcproc.Context?, progress: function? }
---@return fcproc.ImageArchive? archive
---@return fcproc.Error? err
function M.open(name, place, opts)
  local tree, err = imagecore.tree(opts.limits)
  if not tree then return nil, err end
  local archive = setmetatable({ tree = tree, name = name }, Archive)
  archive.facts, err = M.run(opts, tree:read_archive(place))
  if archive.facts then return archive end
  tree:close()
  return nil, err
end

return M
