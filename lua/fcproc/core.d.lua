---@meta fcproc.core
-- Types of the C module. It is private to fcproc's own files: scripts use what they return.
-- Every fallible function returns nil and an fcproc.Error in place of its result. Times are
-- seconds; ctx is optional everywhere, and without one the context that a C host has set is used.

---@class fcproc.core
---@field version string
---@field arch "x86_64"|"aarch64"|"unknown"
---@field codes { name: string, code: string, meaning: string }[]  the one list of error codes
---@field error_metatable table      filled by error.lua
---@field process_methods table      the methods of fcproc.Process; process.lua adds to them
---@field signals table<string, integer>
---@field without table<string, integer>  bits of kernel features to do without
local core = {}

---@class fcproc.Context  a deadline and a latched cancel
local Context = {}

---A child that ends in so many seconds, or with this one.
---@param timeout number  seconds
---@return fcproc.Context?, fcproc.Error?  ERR_SYSTEM: no descriptor is left; ERR_NOMEM
function Context:with_timeout(timeout) end

---Ends every wait under it, now and later.
function Context:cancel() end

---true while it lasts, else ERR_CANCELLED or ERR_DEADLINE.
---@return true?, fcproc.Error?
function Context:status() end

---Seconds left; nothing without a deadline.
---@return number?
function Context:remaining() end

---How calls under it wait.
---@return string?
function Context:waiter() end

---Waits until this context has ended: so one coroutine can wait for another to cancel it.
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Context:wait_op(timeout, ctx) end

---Releases it; waits under way go on.
function Context:close() end

---@class fcproc.Operation  whatever can wait
local Operation = {}

---One epoll descriptor, readable when step should be called.
---@return integer
function Operation:pollfd() end

---What to wait for, in the words of cqueues.
---@return "r"
function Operation:events() end

---Step after so many seconds all the same; nothing: no need.
---@return number?
function Operation:timeout() end

---false: not yet; true and the results; nil and the error.
---@return boolean?, any ...
function Operation:step() end

---Abandons it. A command that still runs is killed.
function Operation:close() end

---@class fcproc.Identity
---@field pid integer
---@field start_time integer  clock ticks after boot
---@field boot_id string
---@field inode integer?  of its pidfd, unique in a boot (Linux 6.9)
---@field pid_ns integer?   the namespaces in which pid and start_time hold, by their inodes
---@field time_ns integer?

---@class fcproc.Process  a process held by its pidfd
local Process = {}

---Its number: a name that may pass to another process once this one is gone.
---@return integer
function Process:pid() end

---The descriptor; it stays the handle's.
---@return integer
function Process:pidfd() end

---Not ended, as poll(2) on its pidfd says.
---@return boolean
function Process:alive() end

---Was it started by us, or reopened by its identity?
---@return boolean
function Process:recorded() end

---What fcproc.process takes to find this very process again.
---@return fcproc.Identity?, fcproc.Error?  ERR_NOT_FOUND: it is gone
function Process:identity() end

---Is it a process of this executable with exactly this --api-sock? Without one, with any inside the
---folder. "exiting": its arguments are gone, its name is exe's.
---@param exe string  the executable's path
---@param api_sock string?
---@param folder string?
---@return ("yes"|"no"|"exiting")?, fcproc.Error?
function Process:matches(exe, api_sock, folder) end

---Is the process, while it lives, in this very folder: its working folder, or its root? One on its way
---out counts as in it.
---@param path string
---@return boolean?, fcproc.Error?  ERR_CONFLICT: there is no such folder
function Process:in_folder(path) end

---Sends a signal through the pidfd: this very process or none. Gone is ERR_NOT_FOUND.
---@param number integer
---@return true?, fcproc.Error?
function Process:signal_number(number) end

---Lets a process that was spawned with a gate execute its program, and waits until it has.
---@param wait boolean?  false: returns at once, and a later call tells whether it could
---@return true?, fcproc.Error?  as fcproc.spawn's
function Process:release(wait) end

---Waits for its end; its result is an fcproc.Exit, empty when nobody can tell.
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param without integer?  bits of core.without
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Process:wait_op(timeout, without, ctx) end

---Waits until the file holds the text (no pattern), or the process has ended; its result is whether
---the text is there.
---@param path string
---@param text string
---@param expected fcproc.Expected?
---@param timeout number?   seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Process:wait_text_op(path, text, expected, timeout, ctx) end

---Waits until the file has more than so many bytes, or the process has ended.
---@param path string
---@param size integer      bytes
---@param expected fcproc.Expected?
---@param timeout number?   seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Process:wait_file_op(path, size, expected, timeout, ctx) end

---Waits until a connect to the socket succeeds, or the process has ended; its result is which:
---true when it listens.
---@param path string
---@param timeout number?   seconds; its end is ERR_DEADLINE, "<label> not ready: <path>"
---@param label string
---@param without integer?  bits of core.without
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Process:wait_server_op(path, timeout, label, without, ctx) end

---Releases the descriptor; the process goes on.
function Process:close() end

---@class fcproc.Netns  a network namespace held open
local Netns = {}

---The descriptor; it stays the handle's.
---@return integer
function Netns:fd() end

---Keeps the holder of a rootless one as long as this is open, and what is spawned with it lives.
---@param fifo string
---@return true?, fcproc.Error?
function Netns:keep(fifo) end

---Is it an ordinary user's own, in which descriptors are opened by a program?
---@return boolean
function Netns:is_rootless() end

---Releases it; it lasts as long as something is in it.
function Netns:close() end

---@class fcproc.BridgeInfo  what had to be done
---@field ifindex integer
---@field created boolean
---@field addressed boolean
---@field brought_up boolean

---@class fcproc.Net  a netlink socket
local Net = {}

---The bridge exists, has the address and is up; what is right is left alone. A link of another kind
---is ERR_CONFLICT.
---@param name string
---@param address string?   IPv4 or IPv6
---@param prefix integer?   needed with an address
---@param alias string?     of one that is made here; at most 255 bytes
---@param ctx fcproc.Context?
---@return fcproc.BridgeInfo?, fcproc.Error?
function Net:ensure_bridge(name, address, prefix, alias, ctx) end

---The bridge is gone. With ports it is ERR_BUSY, of another kind ERR_CONFLICT.
---@param name string
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Net:delete_bridge(name, ctx) end

---A persistent TAP, up; an idle one is made right in place. In use is ERR_BUSY, a link of another
---kind ERR_CONFLICT, no bridge ERR_NOT_FOUND.
---@param name string
---@param bridge string?     default: none
---@param uid integer?       default: the caller's
---@param gid integer?       default: the caller's
---@param mac string?        "aa:bb:cc:dd:ee:ff"; default: from the name
---@param mtu integer?       default 1500
---@param isolated boolean?  from the bridge's other isolated ports
---@param bridge_ifindex integer?  as ensure_bridge told; default: looked up
---@param alias string?      at most 255 bytes; default: none, also of one that had one
---@param ctx fcproc.Context?
---@return fcproc.Tap?, fcproc.Error?
function Net:create_tap(name, bridge, uid, gid, mac, mtu, isolated, bridge_ifindex, alias, ctx) end

---None of the TAPs is there any more; its result is how many there were. In use is ERR_BUSY.
---@param names string[]
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Net:delete_taps(names, ctx) end

---What the kernel remembers of connections of these addresses, at either end, is gone: how many there
---were. It goes on when nobody waits for it any more.
---@param addresses string[]  IPv4; "udp:53": what was sent to this port by UDP
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Net:flush_conntrack(addresses, ctx) end

---Is there a link of that name, of whatever kind?
---@param name string
---@return boolean?, fcproc.Error?
function Net:link_exists(name) end

---A link's ifindex; nil, and no error: there is none of that name.
---@param name string
---@return integer?, fcproc.Error?
function Net:link_index(name) end

---A link's MTU.
---@param name string
---@return integer?, fcproc.Error?
function Net:link_mtu(name) end

---A number below /proc/sys/net of the namespace: reads it, or sets it when a value is given.
---@param name string  "ipv4/ip_forward"
---@param value integer?  0 or more
---@return integer? value  what is there now
---@return fcproc.Error? err
function Net:sysctl(name, value) end

---The TAPs on a bridge; a missing bridge has none.
---@param bridge string?  default: all TAPs of the namespace
---@param ctx fcproc.Context?
---@return fcproc.TapState[]?, fcproc.Error?
function Net:list_taps(bridge, ctx) end

---Closes the socket. Nothing on the host changes.
function Net:close() end

---@class fcproc.CoreClient  an HTTP client of one unix socket
local CoreClient = {}

---Sends a request; its results are the status and the body as it came. A second one at the same
---time is ERR_BUSY.
---@param method string
---@param target string    "/vm/config"
---@param body string?
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function CoreClient:request(method, target, body, timeout, ctx) end

---Closes the connection.
function CoreClient:close() end

---@class fcproc.FileInfo
---@field type "file"|"dir"|"link"|"socket"|"other"
---@field size integer       bytes
---@field allocated integer  bytes on the disk: less than size where there are holes
---@field dev integer
---@field ino integer
---@field id string          which file it is, whatever its name: device, inode, birth
---@field mode integer       permission bits
---@field uid integer
---@field gid integer
---@field nlink integer
---@field mtime number       seconds since 1970

---@class fcproc.Expected  what a file must be that is found by a name which somebody else may move:
---                        looked at by the descriptor that is used then; another is ERR_CONFLICT
---@field id string?           as core.stat tells
---@field uid integer?         its owner's
---@field single boolean?      it has one name: a second may be anywhere
---@field reader_uid integer?  opened with the rights of this user and group alone
---@field reader_gid integer?

---@class fcproc.Capper  holds files to a size, in a thread of its own
local Capper = {}

---Looks at the file once a second and frees its oldest blocks when it has more than so many bytes.
---@param path string
---@param most integer
---@param expected fcproc.Expected?  another is left alone
---@return true?, fcproc.Error?
function Capper:add(path, most, expected) end

---Leaves the file alone from now on.
---@param path string
function Capper:remove(path) end

---Ends the thread; the files stay.
function Capper:close() end

---@class fcproc.Keys  what is typed, for a guest's console
local Keys = {}

---The descriptor that is to be the VMM's stdin; it belongs to the keys.
---@return integer fd
function Keys:reader() end

---Passes on what comes from the descriptor, to its end; once. A terminal is raw from here
---on. Completes with true: a Ctrl-] was typed at it.
---@param fd integer
---@param timeout number?
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Keys:copy_op(fd, timeout, ctx) end

---A terminal has the settings again that it had.
function Keys:close() end

---@class fcproc.Lock  a lock file that is held; the kernel ends it when its holder dies
local Lock = {}

---Removes the lock file while it is held, if it is still that one, and closes, even when it fails.
---@return true?, fcproc.Error?
function Lock:remove() end

---Releases it; the file stays.
function Lock:close() end

---The monotonic clock.
---@return number  seconds
function core.now() end

---Where the built-in guest was to be installed.
---@return string
function core.guest_path() end

---The function, called so that an interrupt by a host (fcproc_lua_interrupt) lets fcproc's own code in it go
---on to its end: for clean-ups.
---@param fn function
---@return function
function core.uninterruptible(fn) end

---Has the context ended with which a host interrupts this state?
---@return boolean
function core.interrupted() end

---Makes a context. It takes the parent's waiter unless it is given one.
---@param parent fcproc.Context?
---@param timeout number?  seconds
---@param waiter ("poll"|"cqueues"|"luv")?
---@return fcproc.Context?, fcproc.Error?
function core.context(parent, timeout, waiter) end

---The context that a C host has set.
---@return fcproc.Context?
function core.default_context() end

---Waits for one descriptor. False: the time passed, or a signal came.
---@param fd integer
---@param timeout number?  seconds
---@return boolean?, fcproc.Error?
function core.poll(fd, timeout) end

---Waits for any of many; ready[i] becomes true or false for each.
---@param fds integer[]
---@param ready boolean[]
---@param timeout number?  seconds
---@return integer? count, fcproc.Error?
function core.poll_many(fds, ready, timeout) end

---Waits until the path exists, or a socket there listens. What is not "missing" fails at once.
---@param path string
---@param listening boolean  a connect must succeed
---@param timeout number?   seconds; its end is ERR_DEADLINE, "<label> not ready: <path>"
---@param label string
---@param without integer?  bits of core.without
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.wait_path(path, listening, timeout, label, without, ctx) end

---Makes the socket the caller's, mode 0600. Anything but a socket is ERR_CONFLICT.
---@param path string
---@return boolean? changed, fcproc.Error?
function core.socket_access(path) end

---Makes the folder and its parents, the caller's, mode 0700. A link, a file or somebody else's
---folder is ERR_CONFLICT.
---@param path string  absolute
---@return boolean? changed, fcproc.Error?
function core.socket_dir(path) end

---Is the folder ours alone, so that nobody else can move it or what is in it? ERR_NOT_FOUND: there is
---none; ERR_PERMISSION: it is somebody else's; ERR_CONFLICT: others may write there, or above it.
---@param path string
---@return true?, fcproc.Error?
function core.check_dir(path) end

---A path is checked, a name is looked for on PATH. The answer is a regular file we may execute.
---@param name string
---@return string? path, fcproc.Error?
function core.find_executable(name) end

---Without links; ERR_NOT_FOUND when there is no such file.
---@param path string
---@return string? path, fcproc.Error?
function core.absolute_path(path) end

-- Files. Paths may be relative. A symbolic link as the last component is never followed; what is of
-- another kind than wanted is ERR_CONFLICT and left untouched. Modes are exact, whatever the umask.
-- Errors have a path: of two, the new name.

---What is at the path; with follow, what a link there leads to.
---@param path string
---@param follow boolean?
---@return fcproc.FileInfo?, fcproc.Error?
function core.stat(path, follow) end

---What is in the folder, sorted by name.
---@param path string
---@return { name: string, type: "file"|"dir"|"link"|"socket"|"other" }[]?, fcproc.Error?
function core.list_dir(path) end

---Reads a regular file; past its end there is "".
---@param path string
---@param offset integer?  bytes; negative: from the end
---@param limit integer?   bytes; default 16 MiB
---@param expected fcproc.Expected?
---@return string?, fcproc.Error?
function core.read_file(path, offset, limit, expected) end

---Where a symbolic link leads to. ERR_NOT_FOUND: nothing there; ERR_CONFLICT: no link.
---@param path string
---@return string? target, fcproc.Error?
function core.read_link(path) end

---Makes one folder; false: it was there and stays as it is.
---@param path string
---@param mode integer
---@return boolean? created, fcproc.Error?
function core.make_dir(path, mode) end

---Makes a file; false: it was there and stays as it is. A crash may leave it empty, or cut.
---@param path string
---@param data string
---@param mode integer
---@param uid integer?  whose it is; default: the caller's
---@param gid integer?
---@return boolean? created
---@return (string|fcproc.Error)? id  its identity, when it was made
function core.create_file(path, data, mode, uid, gid) end

---Replaces the file: readers and a crash see the old one or the new one. One writer at a time. Not
---synced to the disk.
---@param path string
---@param data string
---@param mode integer
---@param uid integer?  whose it is; default: the caller's
---@param gid integer?
---@return true?
---@return string|fcproc.Error id  its identity
function core.write_file(path, data, mode, uid, gid) end

---Gives the file, folder or link away, then sets its mode.
---@param path string
---@param uid integer?   default: as it is
---@param gid integer?   default: as it is
---@param mode integer?  default: as it is
---@param expected fcproc.Expected?
---@return true?, fcproc.Error?
function core.own_file(path, uid, gid, mode, expected) end

---The same for a file that nobody is to change from now on. false: somebody has it open for writing,
---a writable mapping of it or a second name for it, or the file system can't tell: then copy it.
---@param path string
---@param uid integer?  default: as it is
---@param gid integer?  default: as it is
---@param mode integer
---@param expected fcproc.Expected?
---@return boolean? sealed, fcproc.Error?
function core.seal_file(path, uid, gid, mode, expected) end

---Does anybody have the regular file open? What can't tell (a device, some file systems) is not.
---@param path string
---@return boolean?, fcproc.Error?
function core.file_in_use(path) end

---Removes a file, link or socket; false: nothing was there. A folder is ERR_CONFLICT.
---@param path string
---@return boolean? removed, fcproc.Error?
function core.remove_file(path) end

---Removes the folder and all in it; missing is 0. Where something is mounted: ERR_BUSY.
---@param path string
---@param mark string?  a file in it without which it is not ours to remove: ERR_CONFLICT; it goes last
---@return integer? removed  files and folders
---@return fcproc.Error?
function core.remove_tree(path, mark) end

---When more than most_bytes are on the disk, frees the blocks of all but the last half of that.
---The size stays, so that a writer that appends is not disturbed. Else ERR_UNSUPPORTED.
---@param path string
---@param most_bytes integer
---@param expected fcproc.Expected?
---@return integer? freed  bytes
---@return fcproc.Error?
function core.punch_file(path, most_bytes, expected) end

---A hard link to a regular file. ERR_UNSUPPORTED: only a copy will do.
---@param from string
---@param to string
---@param expected fcproc.Expected?
---@return true?, fcproc.Error?
function core.link_file(from, to, expected) end

---The same file at a second place, read-only, on whatever file system: a mount of it alone.
---ERR_UNSUPPORTED: only a copy will do.
---@param from string
---@param to string
---@param expected fcproc.Expected?
---@return true?, fcproc.Error?
function core.bind_file(from, to, expected) end

---Unmounts a file that something is mounted on; false: nothing is.
---@param path string
---@return boolean? removed, fcproc.Error?
function core.unbind_file(path) end

---A symbolic link, for use as a lease: ERR_CONFLICT names who has it.
---@param target string  the owner's id
---@param path string
---@return true?, fcproc.Error?
function core.symlink(target, path) end

---Renames; without replace, what is at the new name is ERR_CONFLICT.
---@param from string
---@param to string
---@param replace boolean?
---@return true?, fcproc.Error?
function core.rename(from, to, replace) end

---@class fcproc.CopyOptions
---@field expected fcproc.Expected?  what is copied
---@field uid integer?               whose the copy is; default: the caller's
---@field gid integer?

---Copies a regular file to one that is not there yet; removed when it fails or is closed early. Its
---results are the method that worked, the bytes of data that were copied (0 by "reflink"), and the
---copy's identity.
---@param from string
---@param to string
---@param method "reflink"|"sparse"  "reflink" falls back to "sparse", which leaves holes holes
---@param mode integer
---@param options fcproc.CopyOptions?
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.copy_file(from, to, method, mode, options, ctx) end

---@class fcproc.HashOptions
---@field blocks boolean?  of the size, and of each block of 4096 bytes that has any byte but 0, with its
---                        position: so holes cost nothing, and how many a copy has makes no difference
---@field follow boolean?  a link, as /proc/PID/exe is one; expected is not looked at then
---@field expected fcproc.Expected?

---The SHA-256 of a regular file, by a thread. Its result is the hash, in hexadecimal; without blocks it
---is sha256sum's.
---@param path string
---@param options fcproc.HashOptions?
---@param ctx fcproc.Context?
---@return fcproc.Operation?
---@return fcproc.Error? err  ERR_UNSUPPORTED: there is no libcrypto
function core.hash_file(path, options, ctx) end

---What the file holds, or the folder's names, outlast a power loss then. By a thread: to close it early
---ends the wait, not the writing.
---@param path string
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.sync(path, ctx) end

---Is that process in the cgroup, or without a number anybody? In one that is not there nobody is.
---@param path string
---@param pid integer?
---@return boolean?
---@return fcproc.Error?  ERR_CONFLICT: it is no cgroup
function core.cgroup_holds(path, pid) end

---Puts a process into the cgroup.
---@param path string
---@param pid integer
---@return true?
---@return fcproc.Error?  ERR_NOT_FOUND: there is no such cgroup, or process; ERR_CONFLICT: it is no cgroup
function core.enter_cgroup(path, pid) end

---Kills all who are in the cgroup and removes it; its result is how many there were. Missing is 0.
---@param path string
---@param timeout number?   seconds; its end is ERR_WAIT_TIMEOUT
---@param without integer?  bits of core.without
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.remove_cgroup(path, timeout, without, ctx) end

---Makes keys: what is typed, for the console of a guest whose VMM is started next.
---@return fcproc.Keys?, fcproc.Error?
function core.keys() end

---Makes a capper, which holds files to a size.
---@return fcproc.Capper?, fcproc.Error?
function core.capper() end

---Does anybody hold the lock? Disturbs nobody; a missing file is held by nobody.
---@param path string
---@return boolean?, fcproc.Error?
function core.lock_taken(path) end

---Holds the lock file, made when missing. ERR_BUSY: somebody else does, also in this process.
---@param path string
---@param mode integer?  less the umask; default 0600
---@return fcproc.Lock? lock
---@return boolean|fcproc.Error created  false: its file was there
function core.lock_file(path, mode) end

---Opens a process by its number, or the very one that an identity names. ERR_NOT_FOUND: gone.
---@param which integer|fcproc.Identity
---@return fcproc.Process?, fcproc.Error?
function core.process(which) end

---The live process that listens on the socket. ERR_NOT_FOUND: nobody, or it is dead; ERR_BUSY: its
---queue is full.
---@param path string
---@param without integer?  bits of core.without
---@return fcproc.Process?, fcproc.Error?
function core.open_listener(path, without) end

---The same, as a number.
---@param path string
---@param without integer?  bits of core.without
---@return integer? pid, fcproc.Error?
function core.listener_pid(path, without) end

---The newest process of this executable with exactly this --api-sock. ERR_NOT_FOUND: none.
---@param exe string
---@param api_sock string
---@return fcproc.Process?, fcproc.Error?
function core.open_api_sock(exe, api_sock) end

---The newest process whose root directory is the folder: one in a jail. ERR_NOT_FOUND: none.
---@param path string  not our own root
---@return fcproc.Process?, fcproc.Error?
function core.open_by_root(path) end

---Opens a namespace, or makes one when there is no name.
---@param name string?
---@return fcproc.Netns?, fcproc.Error?
function core.netns(name) end

---Starts the holder of an ordinary user's own namespaces: new ones, or join's. The FIFO is what it lives by;
---who calls this has the lock file's lock until netns:keep.
---@param fifo string
---@param lock string
---@param join fcproc.Netns?
---@param uplink string[]?  a command, to which --userns and --netns are added
---@return fcproc.Process? holder  its descriptors 3 and 4 are the user and the network namespace
---@return fcproc.Error? err  ERR_PERMISSION: user namespaces are forbidden, with the switch
function core.hold_netns(fifo, lock, join, uplink) end

---Starts the relay of a VM's published ports, which listens where this process is, and ends with the VMM.
---@param netns fcproc.Netns  where the guest is
---@param vmm fcproc.Process
---@param guest string     its address
---@param ports string[]   "tcp,127.0.0.1,8080,80": here, and the guest's
---@return fcproc.Process? relay
---@return fcproc.Error? err  ERR_CONFLICT, ERR_PERMISSION
function core.relay(netns, vmm, guest, ports) end

---Starts a process. spec is what process.spec makes.
---@param spec table
---@param ctx fcproc.Context?
---@return fcproc.Process?, fcproc.Error?
function core.spawn(spec, ctx) end

---Runs a command to its end. Besides spawn's fields: input, output_limit (bytes), timeout and grace
---(seconds), end_signal. Of its streams only a stdin that is a descriptor is taken. Its result is { status
---or signal, stdout, stderr }.
---@param spec table
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.command(spec, ctx) end

---Opens a netlink socket in the namespace, or in the caller's.
---@param netns fcproc.Netns?
---@return fcproc.Net?, fcproc.Error?
function core.net(netns) end

---Can it be an interface's name? Else ERR_INVALID.
---@param name string
---@return true?, fcproc.Error?
function core.check_ifname(name) end

---Is it IPv4 or IPv6? Else ERR_INVALID.
---@param address string
---@return (4|6)?, fcproc.Error?
function core.address_family(address) end

---A client with one kept-alive connection to the socket. It holds the socket's folder open. With a
---process it asks that one or nobody (ERR_NOT_SAME_PROCESS).
---@param path string
---@param process fcproc.Process?
---@return fcproc.CoreClient?, fcproc.Error?
function core.client(path, process) end

---The same request to many at once, some at a time, each on a connection of its own. Its results are two
---lists: a status or an error for each, and the bodies of those that answered.
---@param paths string[]
---@param processes table<integer, fcproc.Process>  who is to answer at each path
---@param method string
---@param target string
---@param body string?
---@param each number?     seconds for each; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.request_all(paths, processes, method, target, body, each, ctx) end

---Our effective uid.
---@return integer
function core.own_uid() end

---Is there a process whose real uid this is? Those of another PID namespace are not seen.
---@param uid integer
---@return boolean?, fcproc.Error?
function core.uid_in_use(uid) end

---The device can be opened for reading and writing, is KVM, and makes a VM. ERR_BUSY: another hypervisor
---has the processor; ERR_NOT_FOUND, ERR_PERMISSION, ERR_UNSUPPORTED.
---@param path string  "/dev/kvm"
---@return true?, fcproc.Error?
function core.kvm_check(path) end

---The device can be opened and makes TAPs with a vnet header. The same errors.
---@param path string  "/dev/net/tun"
---@return true?, fcproc.Error?
function core.tun_check(path) end

---Room on the disk that the path is on: bytes free for an ordinary user, bytes in all, files that
---can still be made (nil where they are not counted).
---@param path string
---@return integer? free, integer|fcproc.Error total, integer? files
function core.disk_free(path) end

---What would be a guest's disk, a file or a block device: its bytes, and the first of them. Links are
---followed. ERR_CONFLICT: something else.
---@param path string
---@param limit integer  0 to 4096
---@return integer? size, string|fcproc.Error head
function core.disk_look(path, limit) end

---Can two files in the folder share blocks (FICLONE)? ERR_UNSUPPORTED: not on its file system.
---@param folder string
---@return true?, fcproc.Error?
function core.reflink_check(folder) end

---Is the descriptor a terminal?
---@param fd integer  2: stderr
---@return boolean
function core.is_terminal(fd) end

---Waits until nobody reads the pipe, socket or terminal any more.
---@param fd integer
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.wait_reader(fd, timeout, ctx) end

---Waits until there is something to read, or its other end is gone.
---@param fd integer
---@param timeout number?  seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.wait_readable(fd, timeout, ctx) end

---Waits for one of the signals; its result is the number. From the call on they are blocked in this
---thread, for good: only for programs that own their process.
---@param numbers integer[]  1 to 8 of them
---@param timeout number?    seconds; its end is ERR_WAIT_TIMEOUT
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.wait_signal(numbers, timeout, ctx) end

---Has a C host set a log?
---@return boolean
function core.host_logging() end

---Writes to it.
---@param level string
---@param message string
function core.host_log(level, message) end

return core
