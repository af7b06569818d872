-- How large an ext4 file system must be for what is to be in it: mke2fs' own arithmetic, beforehand.

local M = {}

M.BLOCK = 4096
M.INODE = 256
local GROUP = 32768         -- blocks of a group, and the most inodes of one: a bitmap is a block
local INODES_A_BLOCK = M.BLOCK // M.INODE
local DESCRIPTOR = 64       -- bytes of a group's
local FIXED = 5             -- blocks of the first root and lost+found
local LEAST = 64            -- blocks
local RESERVED = 11         -- inodes, with the root's and lost+found's
local RATIO = 4             -- blocks for each inode that somebody may make, as mke2fs has them
local TAIL = 50             -- a last group with less than that for data is left out
local MOST = 1 << 32        -- blocks; more would need other features

local JOURNALS = { { 32768, 1024 }, { 262144, 4096 }, { 524288, 8192 }, { 4194304, 16384 },
  { 8388608, 32768 }, { 16777216, 65536 } } -- mke2fs' own, by the file system's blocks
local JOURNAL_MOST = 262144

local function divided(n, by) return (n + by - 1) // by end

---The journal of a file system of so many blocks.
---@param blocks integer
---@return integer blocks
function M.journal(blocks)
  for _, row in ipairs(JOURNALS) do
    if blocks < row[1] then return row[2] end
  end
  return JOURNAL_MOST
end

-- Groups 0 and 1, and the powers of 3, 5 and 7, have a copy of the superblock.
local function has_copy(group)
  if group <= 1 then return true end
  for _, base in ipairs{ 3, 5, 7 } do
    local power = base
    while power < group do power = power * base end
    if power == group then return true end
  end
  return false
end

local function copies(groups)
  local n = groups > 1 and 2 or groups
  for _, base in ipairs{ 3, 5, 7 } do
    local power = base
    while power < groups do n, power = n + 1, power * base end
  end
  return n
end

-- How many of so many blocks mke2fs takes for itself, how many it must have, and how many are missing for
-- its last group not to be left out.
local function taken(blocks, inodes, journal)
  local groups = divided(blocks, GROUP)
  local inode_blocks = divided(divided(inodes, groups), INODES_A_BLOCK)
  local descriptors = divided(groups * DESCRIPTOR, M.BLOCK)
  local sum = groups * (2 + inode_blocks) + copies(groups) * (1 + descriptors) + FIXED
  local last = blocks - (groups - 1) * GROUP
  local needed = 2 + inode_blocks + (has_copy(groups - 1) and 1 + descriptors or 0) + TAIL
  -- A journal takes half of what is free at the most.
  return sum + journal, sum + 2 * journal + LEAST, groups > 1 and math.max(0, needed - last) or 0
end

---@class fcproc.ImageLayout
---@field blocks integer   of 4096 bytes
---@field inodes integer
---@field journal integer  blocks, or 0

local function inodes_of(need, free)
  local used = need.inodes + RESERVED
  if free == 0 then return used end
  return math.max(used + free // RATIO, used + used // 10 + 1000)
end

---The smallest that holds it, with so much room besides.
---@param need { inodes: integer, blocks: integer }  as Tree:measure tells
---@param journal boolean
---@param room integer  blocks
---@return fcproc.ImageLayout? layout  nil: there is none so large
function M.smallest(need, journal, room)
  local inodes = inodes_of(need, room)
  local blocks = math.max(need.blocks + room, (divided(inodes, GROUP) - 1) * GROUP + 1)
  while blocks < MOST do
    local of_journal = journal and M.journal(blocks) or 0
    local sum, least, short = taken(blocks, inodes, of_journal)
    local missing = math.max(need.blocks + room + sum - blocks, least - blocks, short)
    if missing <= 0 then return { blocks = blocks, inodes = inodes, journal = of_journal } end
    blocks = blocks + missing
  end
  return nil
end

---One of just so many blocks; nil: that is too few.
---@param need { inodes: integer, blocks: integer }
---@param journal boolean
---@param blocks integer
---@return fcproc.ImageLayout? layout
function M.given(need, journal, blocks)
  if blocks >= MOST or blocks < LEAST then return nil end
  local of_journal = journal and M.journal(blocks) or 0
  local free = math.max(0, blocks - need.blocks - of_journal)
  -- The more inodes the better, as long as the contents have room.
  for _, inodes in ipairs{ inodes_of(need, free), inodes_of(need, 1), inodes_of(need, 0) } do
    local sum, least, short = taken(blocks, inodes, of_journal)
    local usable = blocks
    if short > 0 then
      usable = (blocks - 1) // GROUP * GROUP
      sum, least = taken(usable, inodes, of_journal)
    end
    if inodes <= divided(usable, GROUP) * GROUP and need.blocks + sum <= usable and least <= usable then
      return { blocks = blocks, inodes = inodes, journal = of_journal }
    end
  end
  return nil
end

return M
