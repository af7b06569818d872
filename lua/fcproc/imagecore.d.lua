---@meta fcproc.imagecore
-- Types of the C module for image builds. It is private to fcproc's own files, and loaded by fcproc.image
-- alone. Every fallible function returns nil and an fcproc.Error in place of its result.
-- Paths inside a tree are bytes without a NUL, from its root, with a slash in front or not. Symbolic links
-- on the way are followed as in a chroot, the last name is not.

---@class fcproc.imagecore
local imagecore = {}

---@class fcproc.JobProgress
---@field step string      what it does now ("reading")
---@field bytes integer    read or written so far
---@field total integer    of how many; 0: not known
---@field entries integer

---@class fcproc.Job  work on a thread of its own; jobs.lua waits for it
local Job = {}

---Readable when it is over.
---@return integer
function Job:fd() end

---How far it is.
---@return fcproc.JobProgress
function Job:progress() end

---false: not yet; the result; nil and the error.
---@return table|false|nil, fcproc.Error?
function Job:result() end

---It ends as ERR_CANCELLED, soon.
function Job:cancel() end

---Cancels it and waits for the end of its thread, which takes one block of data at the most.
function Job:close() end

---@class fcproc.TreeLimits
---@field entries integer?  names in all that is read (2,000,000)
---@field bytes integer?    of contents (1 TiB)
---@field ratio integer?    of unpacked to packed bytes, beyond the first GiB (200, beyond the first 8 GiB)
---@field memory integer?   for names, xattrs and all but contents (1 GiB)
---@field spool_folder string?  where contents go that can't stay where they are, in a file without a name

---An empty tree: a root folder, 0755, 0:0.
---@param limits fcproc.TreeLimits?
---@return fcproc.Tree?, fcproc.Error?
function imagecore.tree(limits) end

---The digest of some bytes.
---@param bytes string
---@return string? digest, fcproc.Error?  "sha256:..."
function imagecore.digest(bytes) end

---The digest of a regular file; the result is { digest = "sha256:..." }.
---@param options { path: string }
---@return fcproc.Job?, fcproc.Error?
function imagecore.hash(options) end

---@class fcproc.Unpacking
---@field path string     a regular file,
---@field from integer?   or a part of it
---@field len integer?    default: to its end
---@field limit integer?  bytes that may come out (1 GiB)
---@field fd integer?     where they are written
---@field keep boolean?   they become a string
---@field marks string[]? texts of 1 to 31 bytes, at most four, of which it is told where they first are

---@class fcproc.Unpacked
---@field bytes integer    that came out
---@field packed boolean   else it was taken as it is
---@field data string?     with keep
---@field marks (integer|false)[]  their offsets in what came out

---A file without what gzip, bzip2, compress, lz4, lzip, lzma, xz or zstd has packed it with, told by how it
---begins; its result is an fcproc.Unpacked. ERR_INVALID: cut or damaged, or more than the limit.
---@param options fcproc.Unpacking
---@return fcproc.Job?, fcproc.Error?
function imagecore.unpack(options) end

---@class fcproc.Tree  what an image will hold. While a job of it is open all its calls are ERR_BUSY
local Tree = {}

---@class fcproc.ArchiveOptions
---@field path string?     a file or a pipe,
---@field fd integer?      or a descriptor, which stays the caller's
---@field offset integer?  of a file, these bytes only
---@field length integer?
---@field layer boolean?   whiteouts are understood; waits for merge
---@field digest string?   what it must be as it is ("sha256:...")
---@field diff_id string?  and unpacked

---@class fcproc.ArchiveResult
---@field digest string?   nil: it was not read whole, as one that is not packed and no layer
---@field diff_id string?
---@field packed_bytes integer
---@field bytes integer
---@field entries integer
---@field hidden_bytes integer  of contents that were not kept, as an upper layer hides them
---@field warnings string[]

---A tar, packed by whatever libarchive knows but other programs, into the tree. Of a file that is not packed
---the contents stay there, else they go to the spool. Layers are given from the top down, so that of what an
---upper one hides nothing is kept; after the last one comes merge, before which all else is ERR_INVALID.
---What is hostile or damaged is ERR_INVALID and names the entry; so is another digest.
---@param options fcproc.ArchiveOptions
---@return fcproc.Job?, fcproc.Error?  its result is an fcproc.ArchiveResult
function Tree:read_archive(options) end

---A folder of the host, with owners as they are there. Contents stay in its files until they are written: one
---that was changed by then is ERR_BUSY.
---@param options { path: string, one_file_system: boolean? }
---@return fcproc.Job?, fcproc.Error?  its result is { warnings }
function Tree:read_folder(options) end

---The layers become the tree, as if they had been unpacked one after another, from the bottom up.
---@return fcproc.Job?, fcproc.Error?  its result is { warnings }
function Tree:merge() end

---A file of it in one piece, to be read as an archive: where it lies, or a copy in the spool. Links are
---followed. The descriptor is the tree's.
---@param path string
---@return fcproc.Job?, fcproc.Error?  its result is { fd, offset, length }
function Tree:extract(path) end

---@class fcproc.TreeNode
---@field kind "file"|"dir"|"symlink"|"char"|"block"|"fifo"|"socket"
---@field mode integer?   0644, 0755, 0777 or 0600 by its kind
---@field uid integer?
---@field gid integer?
---@field mtime integer?
---@field mtime_ns integer?
---@field data string?    what a file holds,
---@field from string?    or the file on the host that holds it, which must not change until it is written
---@field target string?  of a symlink
---@field major integer?  of a char or block
---@field minor integer?
---@field xattrs table<string, string>?

---Puts it there; folders that are missing on the way are made, 0755, 0:0, of its mtime. What has the name
---already is replaced; a folder by a folder keeps its entries.
---@param path string
---@param node fcproc.TreeNode
---@return true?, fcproc.Error?  ERR_CONFLICT: something on the way is no folder
function Tree:put(path, node) end

---Removes the name, and what is below it.
---@param path string
---@return true?, fcproc.Error?  ERR_NOT_FOUND
function Tree:remove(path) end

---@class fcproc.TreeStat
---@field kind string
---@field mode integer
---@field uid integer
---@field gid integer
---@field size integer
---@field mtime integer
---@field mtime_ns integer
---@field nlink integer
---@field id integer        the same for all names of one file
---@field target string?
---@field major integer?
---@field minor integer?
---@field xattrs table<string, string>?

---What is there; with follow, what a symbolic link there leads to.
---@param path string
---@param follow boolean?
---@return fcproc.TreeStat?, fcproc.Error?  ERR_NOT_FOUND
function Tree:stat(path, follow) end

---The names in a folder, in order once the tree is sealed.
---@param path string  links are followed, here and below
---@return string[]?, fcproc.Error?  ERR_CONFLICT: it is no folder
function Tree:list(path) end

---The path without links, ".." and the like.
---@param path string
---@return string?, fcproc.Error?
function Tree:resolve(path) end

---The start of what a regular file holds.
---@param path string
---@param limit integer  at most so many bytes
---@return string?, fcproc.Error?
function Tree:read(path, limit) end

---@class fcproc.SealedTree
---@field entries integer
---@field inodes integer
---@field bytes integer     of contents without their holes,
---@field apparent integer  and with them
---@field largest string?   the largest file's path, without a slash before it; nil: all are empty

---Sorts it. From then on it does not change, and can be written.
---@return fcproc.SealedTree?, fcproc.Error?
function Tree:seal() end

---What it needs in an ext4 file system of blocks of 4096 bytes and inodes of 256, besides what mke2fs puts
---there; not less than it will be. And the digest ("sha256:...") of all but what files hold.
---@return { inodes: integer, blocks: integer, digest: string }?, fcproc.Error?
function Tree:measure() end

---@class fcproc.TreeOutput
---@field format "ext4"|"tar"|"cpio"  ext4: into the file system that mke2fs has just made in a file that
---                           was empty
---@field fd integer
---@field time integer?   ext4: of the file system itself, in seconds since 1970
---@field gzip boolean?   of a tar or cpio

---Writes it, once it is sealed: the same tree gives the same bytes. The result is { warnings }.
---@param options fcproc.TreeOutput
---@return fcproc.Job?, fcproc.Error?
function Tree:write(options) end

---Frees it, once no job of it is open.
function Tree:close() end

---The libraries that write: with other versions the bytes may be others.
---@return table<string, string>
function imagecore.versions() end

---@class fcproc.Target  a file that has no name until it is whole
local Target = {}

---A file in the path's folder, less the umask.
---@param path string
---@return fcproc.Target?, fcproc.Error?  ERR_CONFLICT: what has the name is no regular file
function imagecore.target(path) end

---The descriptor; it stays the target's.
---@return integer
function Target:fd() end

---Makes it so large.
---@param bytes integer
---@return true?, fcproc.Error?
function Target:resize(bytes) end

---All that a regular file holds becomes what the target does, shared where the file system can.
---@param path string
---@return fcproc.Job?, fcproc.Error?  its result is {}
function Target:copy(path) end

---Writes it to its disk and gives it its name. A file that has it is replaced: its mode is kept, and its
---owner and group where that may be, but not those of somebody else's where others may write. The result
---is { bytes }.
---@return fcproc.Job?, fcproc.Error?
function Target:publish() end

---Without its name by now it is gone.
function Target:close() end

---@class fcproc.Pipe  for a program that reads what is written
local Pipe = {}

---Both ends, close-on-exec.
---@return fcproc.Pipe?, fcproc.Error?
function imagecore.pipe() end

---The end to read from; it stays the pipe's.
---@return integer
function Pipe:reader() end

---The end to write to.
---@return integer
function Pipe:writer() end

---Closes both ends.
function Pipe:close() end

return imagecore
