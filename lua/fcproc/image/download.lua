-- The layout into which an image of a registry is downloaded: a folder of its own, removed when the image
-- has been read. Where there is a store, it begins with hard links to the layers kept there, which are not
-- fetched again, and gives those that come. What is removed from the store meanwhile is here until the end.

local core = require "fcproc.core"
local loop = require "fcproc.loop"

local M = {}

local PRIVATE = 448 -- 0700
local PREFIX, LOCK = ".fcproc-pull-", "lock"
local BLOBS = "/blobs/sha256"
local HEAD = 64

---@class fcproc.Download
---@field path string
---@field store fcproc.ImageStore?
---@field notes string[]               what was damaged
---@field package lock fcproc.Lock
---@field package lent table<string, boolean>  what is the store's; false: it was, and was damaged
local Download = {}
Download.__index = Download

---The lock of who downloads into the folder; nil: it is no such folder.
---@param path string
---@return string?
function M.lock_of(path)
  return path:match("[^/]*$"):sub(1, #PREFIX) == PREFIX and path .. "/" .. LOCK or nil
end

-- Gives the store the layers that have come. Nothing of JSON: skopeo asks the registry for it each time, and
-- writes manifests in place, which would be in all who have a link.
local function keep(path, store)
  for _, item in ipairs(store and core.list_dir(path .. BLOBS) or {}) do
    local at = path .. BLOBS .. "/" .. item.name
    local stat = item.type == "file" and core.stat(at)
    local head = stat and stat.nlink == 1 and core.read_file(at, 0, HEAD)
    if head and not head:find("^%s*{") then core.link_file(at, store:blob("sha256:" .. item.name)) end
  end
end

---Removes what those who died have left: nobody holds its lock. What they had fetched a store keeps.
---@param folder string
---@param store fcproc.ImageStore?
function M.sweep(folder, store)
  for _, entry in ipairs(core.list_dir(folder) or {}) do
    local path = folder .. "/" .. entry.name
    local lock_path = entry.type == "dir" and M.lock_of(path)
    local own = lock_path and core.stat(path)
    local lock = own and own.uid == core.own_uid() and core.lock_file(lock_path)
    if lock then
      keep(path, store)
      core.remove_tree(path)
      lock:close()
    end
  end
end

---A new one. A sweep may meet it before it has its lock: then there is another.
---@param folder string
---@param store fcproc.ImageStore?  on the same file system
---@return fcproc.Download?
---@return fcproc.Error? err
function M.new(folder, store)
  while true do
    local path = ("%s/%s%08x"):format(folder, PREFIX, math.random(0, 0xffffffff))
    local made, err = core.make_dir(path, PRIVATE)
    local swept = made == nil and err.code == "not_found" and core.stat(folder)
    if made == nil and not swept then return nil, err end
    if made then
      local lock
      lock, err = core.lock_file(path .. "/" .. LOCK)
      if lock then
        return setmetatable({ path = path, store = store, lock = lock, lent = {}, notes = {} }, Download)
      end
      core.remove_tree(path)
      if err.code ~= "busy" and err.code ~= "not_found" then return nil, err end
    end
  end
end

---Takes what the store has.
function Download:borrow()
  local there = self.store and core.list_dir(self.store:at("blobs", "sha256")) or {}
  if #there == 0 then return end
  core.make_dir(self.path .. "/blobs", PRIVATE)
  core.make_dir(self.path .. BLOBS, PRIVATE)
  for _, item in ipairs(there) do
    local lent = item.type == "file" and self.lent[item.name] == nil
      and core.link_file(self.store:blob("sha256:" .. item.name), self.path .. BLOBS .. "/" .. item.name)
    if lent then self.lent[item.name] = true end
  end
end

---Gives the store what has come.
function Download:keep() keep(self.path, self.store) end

---Is a layer of the store's not what its name says? Then it is removed, there too.
---@param digest string?
---@param ctx fcproc.Context?
---@return boolean dropped  it can be fetched anew
function Download:drop(digest, ctx)
  local name = digest and digest:match("%x+$")
  if not self.lent[name] then return false end
  local at = self.path .. BLOBS .. "/" .. name
  local hashed, hash = loop.complete(ctx, core.hash_file(at, nil, ctx))
  if hashed and hash == name or not loop.check(ctx) then return false end
  self.lent[name] = false
  core.remove_file(at)
  core.remove_file(self.store:blob(digest))
  self.notes[#self.notes + 1] = ("%s, which %s had kept, was damaged: it was fetched anew"):format(digest,
    self.store.path)
  return true
end

---Removes it.
function Download:close()
  core.remove_tree(self.path)
  self.lock:close()
end

return M
