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
---@param timeout number
---@return fcproc.Context
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

---Releases it; waits under way go on.
function Context:close() end

---@class fcproc.Operation  whatever can wait
local Operation = {}

---One epoll descriptor, readable when step should be called.
---@return integer
function Operation:pollfd() end

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

---@class fcproc.Process  a process held by its pidfd
local Process = {}

---@return integer
function Process:pid() end

---The descriptor; it stays the handle's.
---@return integer
function Process:pidfd() end

---@return boolean
function Process:alive() end

---Was it started by us, or reopened by its identity?
---@return boolean
function Process:recorded() end

---What fcproc.process takes to find this very process again.
---@return fcproc.Identity?, fcproc.Error?
function Process:identity() end

---Is it a process of this executable with this --api-sock, or any inside the folder?
---@param exe string
---@param api_sock string?
---@param folder string?
---@return ("yes"|"no"|"exiting")?, fcproc.Error?
function Process:matches(exe, api_sock, folder) end

---@param number integer
---@return true?, fcproc.Error?
function Process:signal_number(number) end

---Its result is an fcproc.Exit, empty when nobody can tell.
---@param timeout number?
---@param without integer?
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Process:wait_op(timeout, without, ctx) end

---Releases the descriptor; the process goes on.
function Process:close() end

---@class fcproc.Netns  a network namespace held open
local Netns = {}

---The descriptor; it stays the handle's.
---@return integer
function Netns:fd() end

function Netns:close() end

---@class fcproc.Net  a netlink socket
local Net = {}

---@param name string
---@param address string?
---@param prefix integer?
---@param ctx fcproc.Context?
---@return { ifindex: integer, created: boolean, addressed: boolean, brought_up: boolean }?, fcproc.Error?
function Net:ensure_bridge(name, address, prefix, ctx) end

---@param name string
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Net:delete_bridge(name, ctx) end

---@param name string
---@param bridge string?
---@param uid integer?
---@param gid integer?
---@param mac string?
---@param mtu integer?
---@param isolated boolean?
---@param ctx fcproc.Context?
---@return fcproc.Tap?, fcproc.Error?
function Net:create_tap(name, bridge, uid, gid, mac, mtu, isolated, ctx) end

---Its result is how many there were.
---@param names string[]
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function Net:delete_taps(names, ctx) end

---@param bridge string
---@param ctx fcproc.Context?
---@return fcproc.TapState[]?, fcproc.Error?
function Net:list_taps(bridge, ctx) end

function Net:close() end

---@class fcproc.CoreClient  an HTTP client of one unix socket
local CoreClient = {}

---Its results are the status and the body as it came. One at a time.
---@param method string
---@param target string
---@param body string?
---@param timeout number?
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function CoreClient:request(method, target, body, timeout, ctx) end

function CoreClient:close() end

---The monotonic clock.
---@return number seconds
function core.now() end

---Where the built-in guest was to be installed.
---@return string
function core.guest_path() end

---@param parent fcproc.Context?
---@param timeout number?
---@param waiter string?
---@return fcproc.Context?, fcproc.Error?
function core.context(parent, timeout, waiter) end

---The context that a C host has set.
---@return fcproc.Context?
function core.default_context() end

---Waits for one descriptor. False: the time passed, or a signal came.
---@param fd integer
---@param timeout number?
---@return boolean?, fcproc.Error?
function core.poll(fd, timeout) end

---Waits for any of many; ready[i] becomes true or false for each.
---@param fds integer[]
---@param ready boolean[]
---@param timeout number?
---@return integer?, fcproc.Error?
function core.poll_many(fds, ready, timeout) end

---@param path string
---@param listening boolean  a connect must succeed
---@param timeout number?
---@param label string
---@param without integer?
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.wait_path(path, listening, timeout, label, without, ctx) end

---@param path string
---@return boolean? changed, fcproc.Error?
function core.socket_access(path) end

---@param path string
---@return boolean? changed, fcproc.Error?
function core.socket_dir(path) end

---@param name string
---@return string? path, fcproc.Error?
function core.find_executable(name) end

---Without links; ERR_NOT_FOUND when there is no such file.
---@param path string
---@return string? path, fcproc.Error?
function core.absolute_path(path) end

---@param which integer|fcproc.Identity
---@return fcproc.Process?, fcproc.Error?
function core.process(which) end

---@param path string
---@param without integer?
---@return fcproc.Process?, fcproc.Error?
function core.open_listener(path, without) end

---@param path string
---@param without integer?
---@return integer? pid, fcproc.Error?
function core.listener_pid(path, without) end

---@param exe string
---@param api_sock string
---@return fcproc.Process?, fcproc.Error?
function core.open_api_sock(exe, api_sock) end

---Opens a namespace, or makes one when there is no name.
---@param name string?
---@return fcproc.Netns?, fcproc.Error?
function core.netns(name) end

---spec is what process.spec makes.
---@param spec table
---@param ctx fcproc.Context?
---@return fcproc.Process?, fcproc.Error?
function core.spawn(spec, ctx) end

---Besides spawn's fields: input, output_limit, timeout, end_signal, grace. Its result is
---{ status or signal, stdout, stderr }.
---@param spec table
---@param ctx fcproc.Context?
---@return fcproc.Operation?, fcproc.Error?
function core.command(spec, ctx) end

---@param netns fcproc.Netns?
---@return fcproc.Net?, fcproc.Error?
function core.net(netns) end

---@param name string
---@return true?, fcproc.Error?
function core.check_ifname(name) end

---@param address string
---@return (4|6)?, fcproc.Error?
function core.address_family(address) end

---@param path string
---@return fcproc.CoreClient?, fcproc.Error?
function core.client(path) end

---Has a C host set a log?
---@return boolean
function core.host_logging() end

---Writes to it.
---@param level string
---@param message string
function core.host_log(level, message) end

return core
