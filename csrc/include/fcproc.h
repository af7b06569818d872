/* SPDX-License-Identifier: MIT
 *
 * fcproc: the host-side primitives that launch, inspect and tear down Firecracker microVMs.
 *
 * Errors.  Every fallible call returns 0 (or a count) or a negative FCPROC_ERR_* and then fills
 * the caller's fcproc_error, which may be NULL. Results go through ret_* pointers and are written
 * only on success; the error is written only on failure. The library never prints, aborts, exits
 * or installs a signal handler, and reports nothing through errno.
 * Time.  Milliseconds in int64_t, with the unit in the name; negative means no limit.
 * Threads.  An object belongs to one thread at a time. A context is everybody's: operations in
 * several threads may share it, all calls on it may come from any thread, and fcproc_ctx_cancel also
 * from a signal handler.
 * Forks.  An object belongs to the process that made it. In a fork of it, it can be closed, which frees
 * the copy and changes nothing else; what would use it is FCPROC_ERR_INVALID. But a context works on
 * there, as another one: a cancel ends the waits of its own process. So does the handle of a process,
 * as one that is no child.
 * Descriptors.  All are close-on-exec from birth; each belongs to one object.
 * Pointers.  These may be NULL: err; a context (it never ends); what a _close, _unref, _ref or _cancel
 * gets; a label (it is "path" then); and what tells more than the result itself, which are ret_changed,
 * ret_created, ret_removed, ret_freed, ret_sealed, ret_id, and ret of fcproc_bridge_ensure and
 * fcproc_tap_create. Where it says so, others. All the rest must point to something; but a struct, or what
 * its _INIT leaves NULL and is needed, is FCPROC_ERR_INVALID when it is missing.
 * Structs.  Set one up by its _INIT. struct_size tells the library how much of it the caller's header
 * knew: one of 0, or of any other size that the struct never had, is FCPROC_ERR_INVALID, and what a later
 * header has added may only be zero (else FCPROC_ERR_UNSUPPORTED). Of an fcproc_error as much is written
 * as it holds: of one whose struct_size is 0 nothing.
 */
#ifndef FCPROC_H
#define FCPROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* fcproc_spawn is a struct and a function, as in C */
#endif

#define FCPROC_VERSION "0.1.0"

#define FCPROC_API     __attribute__((visibility("default")))
#define FCPROC_CHECKED __attribute__((visibility("default"), warn_unused_result))

/* ---- errors ---------------------------------------------------------------------------- */

/* The one list of codes: it makes the enum below, the Lua sentinels (fcproc.ERR_*) and the table
 * in doc/errors.md. X(NAME, number, "name in Lua", "what it means") */
#define FCPROC_ERROR_LIST(X)                                                                     \
    X(WAIT_TIMEOUT, 1, "wait_timeout", "the call's own time-out passed")                         \
    X(DEADLINE, 2, "deadline", "the context's deadline passed, or a path was not ready in time") \
    X(CANCELLED, 3, "cancelled", "the context was cancelled")                                    \
    X(NOT_FOUND, 4, "not_found", "no such process, link, file or listener")                      \
    X(BUSY, 5, "busy", "it is in use by someone else")                                           \
    X(CONFLICT, 6, "conflict", "something of another kind is there; it is left untouched")       \
    X(PERMISSION, 7, "permission", "the kernel refused: a privilege or an ownership is missing") \
    X(NOT_SAME_PROCESS, 8, "not_same_process", "the pid is not a Firecracker of ours")           \
    X(INVALID, 9, "invalid", "a value that can never work")                                      \
    X(UNSUPPORTED, 10, "unsupported", "this kernel, machine or binary cannot do it")             \
    X(EXIT_STATUS, 11, "exit_status", "a command ended with a failure")                          \
    X(API, 12, "api", "the API server answered with an error")                                   \
    X(PROTOCOL, 13, "protocol", "the server's answer is no usable HTTP or JSON")                 \
    X(SYSTEM, 14, "system", "any other failure of a system call")                                \
    X(NOMEM, 15, "nomem", "out of memory")                                                       \
    X(CLOSED, 16, "closed", "the object was closed")

enum fcproc_code {
    FCPROC_OK = 0,
#define FCPROC_X(name, number, text, meaning) FCPROC_ERR_##name = -(number),
    FCPROC_ERROR_LIST(FCPROC_X)
#undef FCPROC_X
};

typedef struct fcproc_error {
    size_t struct_size;
    int code;          /* one of enum fcproc_code */
    int sys_errno;     /* 0 where no system call failed */
    int64_t pid;       /* the process it is about, or 0 */
    const char *op;    /* "tap.create": a string that lives for ever */
    char message[768]; /* what failed, on what, why, and what to do next */
} fcproc_error;

/* These lists are whole and in order, so that C++17 takes them as well. */
#define FCPROC_ERROR_INIT                       \
    {                                           \
        sizeof(fcproc_error), 0, 0, 0, NULL, "" \
    }

/* The Lua name of a code ("wait_timeout"), or "unknown". */
FCPROC_API const char *fcproc_code_name(int code);

/* ---- context: a deadline and a latched cancel ------------------------------------------- */

typedef struct fcproc_ctx fcproc_ctx;

/* A context that ends with its parent (or NULL), and timeout_ms from now if that is sooner. */
FCPROC_CHECKED int fcproc_ctx_new(fcproc_ctx *parent, int64_t timeout_ms, fcproc_ctx **ret,
                                  fcproc_error *err);
FCPROC_API fcproc_ctx *fcproc_ctx_ref(fcproc_ctx *ctx);
FCPROC_API void fcproc_ctx_unref(fcproc_ctx *ctx); /* NULL is fine */
/* Ends every wait under ctx, now and later. Also in signal handlers. */
FCPROC_API void fcproc_ctx_cancel(fcproc_ctx *ctx);
/* 0 while it lasts; FCPROC_ERR_CANCELLED or FCPROC_ERR_DEADLINE. NULL never ends. */
FCPROC_CHECKED int fcproc_ctx_status(const fcproc_ctx *ctx, fcproc_error *err);
/* Time left; -1 without a deadline. */
FCPROC_API int64_t fcproc_ctx_remaining_ms(const fcproc_ctx *ctx);

/* ---- operation: whatever can wait --------------------------------------------------------- */

typedef struct fcproc_op fcproc_op;

/* One epoll descriptor: the operation's own descriptors and its context's. Wait for POLLIN. */
FCPROC_API int fcproc_op_pollfd(const fcproc_op *op);
/* Step again after this long even if nothing became readable; -1: no need. */
FCPROC_API int64_t fcproc_op_timeout_ms(const fcproc_op *op);
/* 1: done, the result may be read; 0: not yet; negative: failed. Never blocks. A result that is
 * there beats cancellation, which beats the deadline, which beats the call's own time-out. */
FCPROC_CHECKED int fcproc_op_step(fcproc_op *op, fcproc_error *err);
/* Steps until it is done. */
FCPROC_CHECKED int fcproc_op_wait(fcproc_op *op, fcproc_error *err);
/* Abandons the operation. A command that still runs is killed. NULL is fine. */
FCPROC_API void fcproc_op_close(fcproc_op *op);

/* poll(2) over n descriptors for reading. ready[i] is set for each that is. Returns how many, 0
 * when the time passed or a signal came. ready may be NULL. */
FCPROC_CHECKED int fcproc_poll(const int *fds, bool *ready, size_t n, int64_t timeout_ms,
                               fcproc_error *err);
/* The monotonic clock, in seconds. */
FCPROC_API double fcproc_now(void);

/* ---- kernel features to do without: each forces its fallback (tests, old kernels) --------- */

enum fcproc_without {
    FCPROC_WITHOUT_PEERPIDFD = 1,   /* SO_PEERPIDFD, Linux 6.5 */
    FCPROC_WITHOUT_PIDFD_INFO = 2,  /* PIDFD_GET_INFO with an exit code, Linux 6.15 */
    FCPROC_WITHOUT_INOTIFY = 4,     /* instances ran out */
    FCPROC_WITHOUT_CLOSE_RANGE = 8, /* close_range, Linux 5.9, or a seccomp filter */
    FCPROC_WITHOUT_CGROUP_KILL = 16 /* cgroup.kill, Linux 5.14, or cgroups of version 1 */
};

/* Operation: another context has ended, cancelled or by its deadline. */
FCPROC_CHECKED int fcproc_ctx_wait(fcproc_ctx *watched, int64_t timeout_ms, fcproc_ctx *ctx,
                                   fcproc_op **ret, fcproc_error *err);

/* ---- paths and sockets ---------------------------------------------------------------------- */

/* Operation: path exists (any kind), or, when listening is set, a connect to it succeeds. Missing
 * parent folders are waited for. What is not "missing" fails at once, and so does a symbolic link
 * where a server is to listen (FCPROC_ERR_CONFLICT). Its own time-out is
 * FCPROC_ERR_DEADLINE, "<label> not ready: <path>". Seed: waitForPath. */
FCPROC_CHECKED int fcproc_path_wait(const char *path, bool listening, int64_t timeout_ms,
                                    const char *label, unsigned without, fcproc_ctx *ctx,
                                    fcproc_op **ret, fcproc_error *err);

/* Makes the socket at path belong to uid:gid (-1: the caller's) with mode 0600. Never through a symbolic link;
 * anything but a socket is FCPROC_ERR_CONFLICT. Seed: EnsureSocketAccess. */
FCPROC_CHECKED int fcproc_socket_access(const char *path, int64_t uid, int64_t gid,
                                        bool *ret_changed, fcproc_error *err);

/* Makes the folder (and missing parents) with mode 0700, owned by the caller. A link, a file or
 * somebody else's folder is FCPROC_ERR_CONFLICT. Seed: EnsureSocketDir. */
FCPROC_CHECKED int fcproc_socket_dir(const char *path, bool *ret_changed, fcproc_error *err);

/* Is the folder the caller's alone? It belongs to it, nobody else may write in it, and nobody but it and
 * root may move it or a folder above it: such a path stays what it is. FCPROC_ERR_NOT_FOUND: there is
 * none; FCPROC_ERR_PERMISSION: it is somebody else's; FCPROC_ERR_CONFLICT: it is a link or a file,
 * or others may write where it, or a folder above it, is. */
FCPROC_CHECKED int fcproc_dir_check(const char *path, fcproc_error *err);

/* Finds an executable: a name with a slash is checked, any other is looked for in the absolute
 * folders of PATH. The answer must be a regular file that this user may execute. buf holds size
 * bytes. */
FCPROC_CHECKED int fcproc_find_executable(const char *name, char *buf, size_t size,
                                          fcproc_error *err);

/* The file's absolute path without links: realpath(3). buf holds PATH_MAX bytes. */
FCPROC_CHECKED int fcproc_absolute_path(const char *path, char *buf, fcproc_error *err);

/* ---- files and folders ------------------------------------------------------------------------
 * Paths may be relative. A symbolic link as the last component is never followed, with slashes
 * after it neither; what is of another kind than wanted is FCPROC_ERR_CONFLICT and left untouched.
 * A mode is exact, whatever the umask. These are plain calls: none waits for anybody. */

enum fcproc_file_type {
    FCPROC_FILE_REGULAR = 0,
    FCPROC_FILE_DIR,
    FCPROC_FILE_LINK,
    FCPROC_FILE_BLOCK, /* a block device */
    FCPROC_FILE_SOCKET,
    FCPROC_FILE_OTHER /* a device or a FIFO */
};

/* Which file it is, whatever its name. An inode's number is used again, so its birth counts too. */
struct fcproc_file_id {
    uint64_t dev, ino;
    int64_t born_ns; /* since 1970; 0: its file system does not tell */
};
enum { FCPROC_FILE_ID_SIZE = 64 };
#define FCPROC_FILE_ID_INIT \
    {                       \
        0, 0, 0             \
    }
/* As "DEV-INO-BORN", to be written down. */
FCPROC_API void fcproc_file_id_print(const struct fcproc_file_id *id,
                                     char buf[FCPROC_FILE_ID_SIZE]);
/* False: it is no such text. */
FCPROC_API bool fcproc_file_id_parse(const char *text, struct fcproc_file_id *ret);

/* What a file must be which is found by a name that somebody else may move, as in a jail. It is
 * looked at by the descriptor that is used then; another is FCPROC_ERR_CONFLICT and left untouched.
 * NULL in its place is any regular file. */
struct fcproc_expected {
    struct fcproc_file_id id;       /* ino 0: any */
    int64_t uid;                    /* its owner's; -1: anybody's */
    bool single;                    /* it has one name: a second may be anywhere */
    int64_t reader_uid, reader_gid; /* opened with this user's rights alone; -1: the caller's */
};
#define FCPROC_EXPECTED_INIT                   \
    {                                          \
        FCPROC_FILE_ID_INIT, -1, false, -1, -1 \
    }

struct fcproc_file_info {
    enum fcproc_file_type type;
    int64_t size;
    int64_t allocated; /* bytes on the disk: less than size where there are holes */
    struct fcproc_file_id id;
    mode_t mode; /* without the type */
    uid_t uid;
    gid_t gid;
    uint64_t nlink;
    double mtime; /* seconds since 1970 */
};

/* What is at the path; with follow, what a link there leads to. */
FCPROC_CHECKED int fcproc_file_stat(const char *path, bool follow, struct fcproc_file_info *ret,
                                    fcproc_error *err);
/* One folder, whose parent must be there. One that is there already stays as it is. */
FCPROC_CHECKED int fcproc_dir_make(const char *path, mode_t mode, bool *ret_created,
                                   fcproc_error *err);
struct fcproc_dir_entry {
    char name[256];
    enum fcproc_file_type type;
};
/* What is in the folder, sorted by the bytes of the names. The array is the caller's, free(3);
 * NULL when there is none. */
FCPROC_CHECKED int fcproc_dir_list(const char *path, struct fcproc_dir_entry **ret, size_t *ret_n,
                                   fcproc_error *err);
/* Removes the folder and all in it, at any depth; missing is fine. FCPROC_ERR_BUSY, naming it,
 * where something is mounted, and when it is filled as fast as it is emptied: what is left stays.
 * Counts every file and folder. */
FCPROC_CHECKED int fcproc_tree_remove(const char *path, int64_t *ret_removed, fcproc_error *err);
/* The same for a folder that somebody else may have named: only if it is the caller's, nobody else may
 * enter it, and the file mark in it is the caller's (or it is empty); else FCPROC_ERR_CONFLICT. The mark
 * goes last, so that what an interrupted removal leaves is still known. */
FCPROC_CHECKED int fcproc_tree_remove_marked(const char *path, const char *mark,
                                             int64_t *ret_removed, fcproc_error *err);

/* A new file with that content, given to uid:gid (-1: the caller's); one that is there already stays
 * as it is. A crash may leave it empty, or cut. ret_id may be NULL. */
FCPROC_CHECKED int fcproc_file_create(const char *path, const void *data, size_t len, mode_t mode,
                                      int64_t uid, int64_t gid, bool *ret_created,
                                      struct fcproc_file_id *ret_id, fcproc_error *err);
/* Writes FOLDER/.NAME.new and renames it to the path, so that a reader or a crash sees the old
 * file or the new one; a link, file or socket at the path is replaced. One writer at a time: hold
 * a lock. It is not synced to the disk, so it does not outlast a power loss for sure. */
FCPROC_CHECKED int fcproc_file_write(const char *path, const void *data, size_t len, mode_t mode,
                                     int64_t uid, int64_t gid, struct fcproc_file_id *ret_id,
                                     fcproc_error *err);
enum { FCPROC_READ_LIMIT = 16 << 20 };
/* At most limit bytes (negative: FCPROC_READ_LIMIT) from the offset on; a negative one counts from
 * the end. Past the end there are 0. Regular files only. *ret is the caller's, free(3), with no
 * NUL at its end. */
FCPROC_CHECKED int fcproc_file_read(const char *path, const struct fcproc_expected *expected,
                                    int64_t offset, int64_t limit, char **ret, size_t *ret_len,
                                    fcproc_error *err);
/* Gives the file, folder or link away (-1: as it is), then sets the mode (-1: as it is). */
FCPROC_CHECKED int fcproc_file_own(const char *path, const struct fcproc_expected *expected,
                                   int64_t uid, int64_t gid, int mode, fcproc_error *err);
/* The same for a file that nobody is to change from now on. *ret_sealed: nobody has it open for
 * writing or a writable mapping of it, and it has no second name. Else, and where the file system
 * can't tell (it has no leases, or is in memory), a copy is what nobody else can change. */
FCPROC_CHECKED int fcproc_file_seal(const char *path, const struct fcproc_expected *expected,
                                    int64_t uid, int64_t gid, mode_t mode, bool *ret_sealed,
                                    fcproc_error *err);
/* Does anybody have the regular file open? What can't have a lease (a device, some file systems) tells
 * nothing: then it is not. A missing file neither. */
FCPROC_CHECKED int fcproc_file_in_use(const char *path, bool *ret, fcproc_error *err);
/* Missing is fine; a folder is FCPROC_ERR_CONFLICT. */
FCPROC_CHECKED int fcproc_file_remove(const char *path, bool *ret_removed, fcproc_error *err);

/* The same file at a second place, read-only, on whatever file system: a mount of it alone on a file that
 * is made for it, which lasts until fcproc_file_unbind. FCPROC_ERR_UNSUPPORTED where only a copy will do:
 * without CAP_SYS_ADMIN, or before Linux 5.2. */
FCPROC_CHECKED int fcproc_file_bind(const char *from, const struct fcproc_expected *expected,
                                    const char *to, fcproc_error *err);
/* Unmounts a file that something is mounted on; no such mount, or nothing there, is fine. */
FCPROC_CHECKED int fcproc_file_unbind(const char *path, bool *ret_removed, fcproc_error *err);
/* A hard link to a regular file. FCPROC_ERR_UNSUPPORTED where only a copy will do: on another file
 * system or mount, or with too many links. */
FCPROC_CHECKED int fcproc_file_link(const char *from, const struct fcproc_expected *expected,
                                    const char *to, fcproc_error *err);
/* A symbolic link, to be used as a lease whose target is the owner's name. FCPROC_ERR_CONFLICT
 * names who has it. */
FCPROC_CHECKED int fcproc_symlink_make(const char *target, const char *path, fcproc_error *err);
/* The target, into buf of size bytes (PATH_MAX is enough). */
FCPROC_CHECKED int fcproc_symlink_read(const char *path, char *buf, size_t size, fcproc_error *err);
/* Without replace, what is at the new name is FCPROC_ERR_CONFLICT. FCPROC_ERR_UNSUPPORTED: between
 * file systems, or one that can't rename without replacing. */
FCPROC_CHECKED int fcproc_file_rename(const char *from, const char *to, bool replace,
                                      fcproc_error *err);

typedef struct fcproc_lock fcproc_lock;

/* Holds the lock file, made when missing (mode less the umask). FCPROC_ERR_BUSY: somebody else
 * does, also in this process. The kernel ends it when its holder dies. */
FCPROC_CHECKED int fcproc_lock_open(const char *path, mode_t mode, fcproc_lock **ret,
                                    bool *ret_created, fcproc_error *err);
/* Does anybody hold it? Disturbs nobody; a missing file is held by nobody. */
FCPROC_CHECKED int fcproc_lock_taken(const char *path, bool *ret, fcproc_error *err);
/* Removes the file while it is held, if it is still that one, and closes, even when it fails. */
FCPROC_CHECKED int fcproc_lock_remove(fcproc_lock *lock, fcproc_error *err);
FCPROC_API void fcproc_lock_close(fcproc_lock *lock); /* the file stays; NULL is fine */

enum fcproc_copy_method { FCPROC_COPY_REFLINK = 0, FCPROC_COPY_SPARSE };

struct fcproc_copy {
    size_t struct_size;
    const char *from;
    const struct fcproc_expected *expected; /* what is at from; NULL: any regular file */
    const char *to;
    enum fcproc_copy_method method;
    mode_t mode;      /* of the copy ... */
    int64_t uid, gid; /* ... and whose it is; -1: the caller's */
};
/* The mode is 0600. */
#define FCPROC_COPY_INIT                                                                \
    {                                                                                   \
        sizeof(struct fcproc_copy), NULL, NULL, NULL, FCPROC_COPY_REFLINK, 0600, -1, -1 \
    }

/* Operation: a regular file is copied. FCPROC_COPY_REFLINK shares the blocks where the file system
 * can, else, like FCPROC_COPY_SPARSE, the data is copied and holes stay holes. The new file must
 * not be there; it is removed when the operation fails or is closed before it is done. Each step
 * copies at most 16 MiB. */
FCPROC_CHECKED int fcproc_file_copy(const struct fcproc_copy *spec, fcproc_ctx *ctx,
                                    fcproc_op **ret, fcproc_error *err);
struct fcproc_copied {
    enum fcproc_copy_method method; /* the one that worked */
    int64_t bytes;                  /* of data: none when the blocks are shared */
    struct fcproc_file_id id;       /* the copy's */
};
FCPROC_API struct fcproc_copied fcproc_file_copy_result(const fcproc_op *op);

enum { FCPROC_HASH_SIZE = 65 }; /* bytes, with the NUL, of a SHA-256 as text */

struct fcproc_hash {
    size_t struct_size;
    const char *path;
    const struct fcproc_expected *expected; /* what is there; NULL: any regular file */
    bool follow; /* a link, as /proc/PID/exe is one; expected is not looked at then */
    bool blocks; /* see below */
};
#define FCPROC_HASH_INIT                                     \
    {                                                        \
        sizeof(struct fcproc_hash), NULL, NULL, false, false \
    }

/* Operation, in a thread of its own: the SHA-256 of a regular file, as sha256sum(1) gives it. With
 * blocks it is that of the file's size and of each block of 4096 bytes that has any byte but 0,
 * behind the block's position, both numbers as 64 bits, little-endian; the last block may be short.
 * So holes cost nothing, and a copy has the same hash that has other holes.
 * FCPROC_ERR_UNSUPPORTED: there is no libcrypto; it is loaded at the first call. */
FCPROC_CHECKED int fcproc_file_hash(const struct fcproc_hash *spec, fcproc_ctx *ctx,
                                    fcproc_op **ret, fcproc_error *err);
/* Lives as long as the operation. */
FCPROC_API const char *fcproc_file_hash_result(const fcproc_op *op);

/* Operation, in a thread of its own: what the file holds, or the folder's names, outlast a power
 * loss. To close it early ends the wait, not the writing. */
FCPROC_CHECKED int fcproc_file_sync(const char *path, fcproc_ctx *ctx, fcproc_op **ret,
                                    fcproc_error *err);

/* When more than most bytes are on the disk, frees the blocks of all but the last most / 2 bytes.
 * The size stays and the start reads as zeros, so that a writer with O_APPEND is not disturbed. */
FCPROC_CHECKED int fcproc_file_punch(const char *path, const struct fcproc_expected *expected,
                                     int64_t most, int64_t *ret_freed, fcproc_error *err);

/* Files that are held to a size: once a second a thread of the capper's own does fcproc_file_punch
 * on each. What can't be punched is left alone. */
typedef struct fcproc_capper fcproc_capper;

FCPROC_CHECKED int fcproc_capper_new(fcproc_capper **ret, fcproc_error *err);
FCPROC_CHECKED int fcproc_capper_add(fcproc_capper *c, const char *path,
                                     const struct fcproc_expected *expected, int64_t most,
                                     fcproc_error *err);
FCPROC_API void fcproc_capper_remove(fcproc_capper *c, const char *path);
FCPROC_API void fcproc_capper_close(fcproc_capper *c); /* the files stay; NULL is fine */

/* ---- processes ------------------------------------------------------------------------------ */

typedef struct fcproc_process fcproc_process;

/* What names a process for ever: reopen it with fcproc_process_open_identity. */
struct fcproc_identity {
    pid_t pid;
    uint64_t start_time; /* clock ticks after boot, /proc/PID/stat field 22 */
    uint64_t inode;      /* of its pidfd: unique in a boot since Linux 6.9; 0: not known. A tick
                          * is 10 ms, in which a number can be used twice */
    char boot_id[37];
    uint64_t pid_ns, time_ns; /* the namespaces, by their inodes, in which pid and start_time hold;
                               * 0: not known, as in an identity of an earlier version */
};
#define FCPROC_IDENTITY_INIT \
    {                        \
        0, 0, 0, "", 0, 0    \
    }

struct fcproc_exit {
    bool known;    /* false: it ended, but how could not be found out */
    bool signaled; /* by a signal: value is its number; else value is the exit status */
    int value;
};

FCPROC_CHECKED int fcproc_process_open(pid_t pid, fcproc_process **ret, fcproc_error *err);
/* FCPROC_ERR_NOT_FOUND when that very process is gone, whoever has its number now. Where its numbers
 * don't hold, in another PID or time namespace, FCPROC_ERR_UNSUPPORTED: it may live. With an inode
 * the start time does not matter. */
FCPROC_CHECKED int fcproc_process_open_identity(const struct fcproc_identity *id,
                                                fcproc_process **ret, fcproc_error *err);
/* The live process that listens on the unix socket (the peer's credentials, as listen(2) took
 * them). FCPROC_ERR_NOT_FOUND: nobody listens, or the one that did is dead, and nothing else is
 * (also below: what could not be found out is another error). FCPROC_ERR_BUSY: its accept queue is
 * full. FCPROC_ERR_CONFLICT: the path is a symbolic link. */
FCPROC_CHECKED int fcproc_process_open_listener(const char *path, unsigned without,
                                                fcproc_process **ret, fcproc_error *err);
/* The same, answering with the number alone. */
FCPROC_CHECKED int fcproc_listener_pid(const char *path, unsigned without, pid_t *ret,
                                       fcproc_error *err);
/* The newest process whose executable is exe and whose argument after --api-sock is exactly
 * api_sock: for a Firecracker that does not listen yet. */
FCPROC_CHECKED int fcproc_process_open_api_sock(const char *exe, const char *api_sock,
                                                fcproc_process **ret, fcproc_error *err);
/* The newest process whose root directory is the folder, for one in a jail. Our own root is
 * FCPROC_ERR_INVALID. */
FCPROC_CHECKED int fcproc_process_open_root(const char *path, fcproc_process **ret,
                                            fcproc_error *err);
/* Is p, while it lives, in this very folder: its working folder or its root directory? One that is on
 * its way out counts as in it. FCPROC_ERR_CONFLICT: there is no such folder. */
FCPROC_CHECKED int fcproc_process_in_folder(const fcproc_process *p, const char *path, bool *ret,
                                            fcproc_error *err);
FCPROC_API pid_t fcproc_process_pid(const fcproc_process *p);
FCPROC_API int fcproc_process_pidfd(const fcproc_process *p); /* stays p's */
/* True if p was started by fcproc_spawn or reopened by its identity. */
FCPROC_API bool fcproc_process_is_recorded(const fcproc_process *p);
/* Not ended, as poll(2) on its pidfd says. */
FCPROC_API bool fcproc_process_alive(const fcproc_process *p);
FCPROC_CHECKED int fcproc_process_identity(fcproc_process *p, struct fcproc_identity *ret,
                                           fcproc_error *err);

enum fcproc_match {
    FCPROC_MATCH_NO = 0,
    FCPROC_MATCH_YES = 1,
    FCPROC_MATCH_EXITING = 2 /* its memory is gone, its name is exe's: dying, not dead */
};
/* Is p a process of the executable exe with exactly this --api-sock? A NULL api_sock with a
 * folder accepts any socket path inside that folder. Returns an fcproc_match. */
FCPROC_CHECKED int fcproc_process_matches(const fcproc_process *p, const char *exe,
                                          const char *api_sock, const char *folder,
                                          fcproc_error *err);
/* Through the pidfd: never another process. Gone is FCPROC_ERR_NOT_FOUND. */
FCPROC_CHECKED int fcproc_process_signal(fcproc_process *p, int sig, fcproc_error *err);
/* Operation: p ended. timeout_ms is the call's own (FCPROC_ERR_WAIT_TIMEOUT). How it ended is waited
 * for at most 0.1 s when it is somebody else's to reap, 2 s when it is ours and somebody traces it. */
FCPROC_CHECKED int fcproc_process_wait(fcproc_process *p, int64_t timeout_ms, unsigned without,
                                       fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);
FCPROC_API struct fcproc_exit fcproc_process_wait_result(const fcproc_op *op);
/* Releases the handle; the process goes on. A child is reaped: at once when it has ended, else by a
 * thread that waits for its end. */
FCPROC_API void fcproc_process_close(fcproc_process *p);

/* Operation: a connect to the socket at path succeeds, or the process that is to listen there has
 * ended; fcproc_server_wait_result says which. Else as fcproc_path_wait. */
FCPROC_CHECKED int fcproc_server_wait(const char *path, fcproc_process *server, int64_t timeout_ms,
                                      const char *label, unsigned without, fcproc_ctx *ctx,
                                      fcproc_op **ret, fcproc_error *err);
FCPROC_API bool fcproc_server_wait_result(const fcproc_op *op); /* true: it listens */

/* Operation: the file has more than size bytes, or the process that writes to it has ended. */
FCPROC_CHECKED int fcproc_file_wait(const char *path, const struct fcproc_expected *expected,
                                    int64_t size, fcproc_process *writer, int64_t timeout_ms,
                                    fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);

/* Operation: the file holds the text, from before or from now, or the process that writes to it has
 * ended; fcproc_text_wait_result says whether it holds it. */
FCPROC_CHECKED int fcproc_text_wait(const char *path, const struct fcproc_expected *expected,
                                    const char *text, fcproc_process *writer, int64_t timeout_ms,
                                    fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);
FCPROC_API bool fcproc_text_wait_result(const fcproc_op *op);

/* ---- cgroups that were made for one VM ------------------------------------------------------------ */

/* Is that process in the cgroup, or with pid 0 anybody, in version 2 also below it? In one that is not
 * there nobody is. FCPROC_ERR_CONFLICT: the folder is no cgroup. */
FCPROC_CHECKED int fcproc_cgroup_holds(const char *path, pid_t pid, bool *ret, fcproc_error *err);
/* Puts a process into it. FCPROC_ERR_NOT_FOUND: there is no such cgroup, or process. */
FCPROC_CHECKED int fcproc_cgroup_enter(const char *path, pid_t pid, fcproc_error *err);
/* Operation: all who are in the cgroup are killed, and it is removed; a missing one is fine. Nothing
 * but being in it decides: neither root, namespace nor session. timeout_ms is the call's own
 * (FCPROC_ERR_WAIT_TIMEOUT, with who is left). FCPROC_ERR_CONFLICT: the folder is no cgroup, or
 * the caller is in it. */
FCPROC_CHECKED int fcproc_cgroup_remove(const char *path, int64_t timeout_ms, unsigned without,
                                        fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);
/* How many processes were killed, also when it did not come to its end. */
FCPROC_API size_t fcproc_cgroup_remove_result(const fcproc_op *op);

/* ---- network namespaces --------------------------------------------------------------------- */

typedef struct fcproc_netns fcproc_netns;

/* Opens /run/netns/NAME, or a path when there is a slash. */
FCPROC_CHECKED int fcproc_netns_open(const char *name, fcproc_netns **ret, fcproc_error *err);
/* A new, nameless namespace with its loopback up. It lasts as long as this object, or a process
 * or link inside it, does. */
FCPROC_CHECKED int fcproc_netns_new(fcproc_netns **ret, fcproc_error *err);
FCPROC_API int fcproc_netns_fd(const fcproc_netns *ns); /* stays ns's */

/* Rootless: a user and a network namespace of an ordinary user's own, where he may make bridges and TAPs
 * and run VMs without any right on the host. A process outside, the holder, keeps them: they are its
 * descriptors 3 (user) and 4 (network), to be opened by fcproc_netns_open("/proc/PID/fd/4", ...). It ends,
 * and they with it when nobody is in them, once nobody has the FIFO open for writing any more, which
 * fcproc_netns_keep and each process that is spawned with such a namespace do.
 *
 * Starts a holder: of new namespaces, or of those of join. The FIFO is made where it is missing. Whoever
 * comes to use the namespaces, and who calls this until it has called fcproc_netns_keep, holds the lock
 * (fcproc_lock_open). uplink is a command that the holder starts, adding --userns PATH --netns PATH, and
 * that ends with it; NULL: none. Where user namespaces are forbidden the error names the switch. */
FCPROC_CHECKED int fcproc_netns_hold(const char *fifo, const char *lock, const fcproc_netns *join,
                                     const char *const *uplink, fcproc_process **ret,
                                     fcproc_error *err);
/* Keeps the holder as long as ns is open, and as what is spawned with it lives. */
FCPROC_CHECKED int fcproc_netns_keep(fcproc_netns *ns, const char *fifo, fcproc_error *err);
/* Starts the relay of a VM's published ports: it listens where the caller is, and connects to the guest in
 * ns, rootless or not. A port is "tcp,127.0.0.1,8080,80": protocol, address and port here, port of the
 * guest; at most 256. It ends when vmm does, whoever has started it, or when it is killed. A port that
 * another socket has is FCPROC_ERR_CONFLICT, a low one FCPROC_ERR_PERMISSION; then there is no relay. */
FCPROC_CHECKED int fcproc_relay_start(const fcproc_netns *ns, const fcproc_process *vmm,
                                      const char *guest, const char *const *ports, size_t n,
                                      fcproc_process **ret, fcproc_error *err);
/* Is it one of the caller's own, into which he has no right but that? Then calls use descriptors that a
 * program opens in there. */
FCPROC_API bool fcproc_netns_is_rootless(const fcproc_netns *ns);
FCPROC_API void fcproc_netns_close(fcproc_netns *ns);

/* ---- starting processes --------------------------------------------------------------------- */

struct fcproc_fd_map {
    int from; /* the caller's descriptor */
    int to;   /* its number in the child, from 3 on */
};

enum fcproc_stdio {
    FCPROC_STDIO_NULL = 0,
    FCPROC_STDIO_INHERIT,
    FCPROC_STDIO_FD,
    FCPROC_STDIO_FILE
};

struct fcproc_stream {
    enum fcproc_stdio kind;
    int fd;           /* FCPROC_STDIO_FD */
    const char *path; /* FCPROC_STDIO_FILE: opened O_APPEND, made with mode 0600; a FIFO must have
                       * its other end open already, else it is FCPROC_ERR_NOT_FOUND */
};
#define FCPROC_STREAM_INIT          \
    {                               \
        FCPROC_STDIO_NULL, -1, NULL \
    }

struct fcproc_spawn {
    size_t struct_size;
    /* argv[0] is found by fcproc_find_executable; a relative path with a slash is from cwd on. */
    const char *const *argv;
    const char *const *envp; /* NULL: the caller's, as it is now */
    const char *cwd;         /* NULL: the caller's */
    struct fcproc_stream streams[3];
    const struct fcproc_fd_map *fds;
    size_t n_fds;
    int umask; /* -1: the caller's */
    /* -1: the caller's. With either, supplementary groups are dropped, which must work if an id
     * changes; and the new process starts with a copy of the caller's memory map, which takes time by
     * its size (some 40 ms for a GiB), so that it never shares memory with another user. */
    int64_t uid;
    int64_t gid;
    bool new_session; /* detached from the terminal and the caller's process group */
    const fcproc_netns *netns;
    unsigned without;
    bool gate; /* executes nothing until fcproc_process_release */
    /* A cgroup of version 2 that it shall be born in; NULL: the caller's. Where the kernel refuses that,
     * it is born in the caller's all the same: ask fcproc_cgroup_holds. */
    const char *cgroup;
    /* How many descriptors it may have (RLIMIT_NOFILE, soft and hard); 0: the caller's limits. Who may
     * not raise his hard limit gives that at most. */
    int64_t no_file;
    /* With a rootless netns: a jail for it, in which there is nothing but what this list names, each under
     * the name that it has outside: first a folder, which it may write in and which is its own, then
     * "--ro", "--rw" or "--device" before a path each; NULL ends it. It has no capability there, can get
     * none, and has no /proc. NULL: none. */
    const char *const *jail;
};

#define FCPROC_SPAWN_INIT                                                                        \
    {                                                                                            \
        sizeof(struct fcproc_spawn), NULL, NULL, NULL,                                           \
            { FCPROC_STREAM_INIT, FCPROC_STREAM_INIT, FCPROC_STREAM_INIT }, NULL, 0, -1, -1, -1, \
            false, NULL, 0, false, NULL, 0, NULL                                                 \
    }

/* Starts a process: no shell, no descriptor but the given ones, an empty signal mask, default
 * dispositions. Returns when exec succeeded, or with the step that failed; with a gate at once. */
FCPROC_CHECKED int fcproc_spawn(const struct fcproc_spawn *spec, fcproc_process **ret,
                                fcproc_error *err);

/* Lets a process started with a gate execute its program. Until then it has a pid and an identity, to
 * be written down; if the caller dies or closes the handle, it ends. With wait it returns when the
 * program was executed, or with the step that failed; without, at once: call it again with wait
 * later, to know. Does nothing for any other process. */
FCPROC_CHECKED int fcproc_process_release(fcproc_process *p, bool wait, fcproc_error *err);

/* Operation: a command runs to its end with its output captured. */
struct fcproc_command {
    size_t struct_size;
    struct fcproc_spawn
        spawn;         /* its streams are the operation's own, but for a stdin by descriptor */
    const char *input; /* for its standard input; NULL: that descriptor, or /dev/null */
    size_t input_len;
    size_t output_limit; /* bytes kept of each: stdout's first, stderr's last */
    int64_t timeout_ms;  /* the call's own */
    int end_signal;      /* how it is ended when its time is over: SIGKILL, or another ... */
    int64_t grace_ms;    /* ... and SIGKILL this long after */
};
/* Without an end of its own; keeps a MiB of output. */
#define FCPROC_COMMAND_INIT                                                          \
    {                                                                                \
        sizeof(struct fcproc_command), FCPROC_SPAWN_INIT, NULL, 0, 1 << 20, -1, 0, 0 \
    }
struct fcproc_output {
    const char *data; /* valid until the operation is closed */
    size_t len;
    bool truncated;
};
FCPROC_CHECKED int fcproc_command_run(const struct fcproc_command *spec, fcproc_ctx *ctx,
                                      fcproc_op **ret, fcproc_error *err);
/* Also after a failed step: what came until then. out and err_out may be NULL. */
FCPROC_API struct fcproc_exit fcproc_command_result(const fcproc_op *op, struct fcproc_output *out,
                                                    struct fcproc_output *err_out);

/* ---- bridges and TAPs ------------------------------------------------------------------------ */

typedef struct fcproc_net fcproc_net;

enum { FCPROC_IFNAME_MAX = 15, FCPROC_MAC_LEN = 6, FCPROC_ALIAS_MAX = 255 };

/* A netlink socket in the namespace, or in the calling thread's when ns is NULL. */
FCPROC_CHECKED int fcproc_net_open(const fcproc_netns *ns, fcproc_net **ret, fcproc_error *err);
FCPROC_API void fcproc_net_close(fcproc_net *net);

/* 1 to 15 bytes, none of them a slash, colon, per cent or white space; not "." or "..". */
FCPROC_CHECKED int fcproc_check_ifname(const char *name, fcproc_error *err);
/* An IPv4 or IPv6 address; returns AF_INET or AF_INET6. */
FCPROC_CHECKED int fcproc_check_address(const char *address, fcproc_error *err);

struct fcproc_bridge {
    size_t struct_size;
    const char *name;
    const char *address; /* NULL: none wanted */
    int prefix;
    const char *alias; /* IFLA_IFALIAS of one that is made here; NULL: none */
};
#define FCPROC_BRIDGE_INIT                                \
    {                                                     \
        sizeof(struct fcproc_bridge), NULL, NULL, 0, NULL \
    }
struct fcproc_bridge_info {
    int ifindex;
    bool created, addressed, brought_up; /* what had to be done */
};
/* Seed: EnsureBridge. Compares, then acts; safe when many race. */
FCPROC_CHECKED int fcproc_bridge_ensure(fcproc_net *net, const struct fcproc_bridge *spec,
                                        fcproc_ctx *ctx, struct fcproc_bridge_info *ret,
                                        fcproc_error *err);
/* Operation: the bridge is gone. FCPROC_ERR_BUSY while it has ports. */
FCPROC_CHECKED int fcproc_bridge_delete(fcproc_net *net, const char *name, fcproc_ctx *ctx,
                                        fcproc_op **ret, fcproc_error *err);

struct fcproc_tap {
    size_t struct_size;
    const char *name;
    const char *bridge;       /* NULL: none */
    int64_t uid, gid;         /* -1: the caller's */
    const unsigned char *mac; /* NULL: one derived from the name */
    int mtu;                  /* 0: 1500 */
    bool isolated;            /* from the bridge's other isolated ports */
    int bridge_ifindex;       /* as fcproc_bridge_ensure told, which saves a look; 0: not known */
    const char *alias; /* IFLA_IFALIAS, set with the rest; NULL: none, also of one that had one */
};
#define FCPROC_TAP_INIT                                                        \
    {                                                                          \
        sizeof(struct fcproc_tap), NULL, NULL, -1, -1, NULL, 0, false, 0, NULL \
    }
struct fcproc_tap_info {
    char name[FCPROC_IFNAME_MAX + 1];
    int ifindex;
    unsigned char mac[FCPROC_MAC_LEN];
    int mtu;
    int64_t uid, gid; /* -1: anybody */
    bool up, isolated, in_use, created;
    char alias[FCPROC_ALIAS_MAX + 1]; /* "": none; as fcproc_tap_list tells */
    int master;                       /* the ifindex of its bridge; 0: none; likewise */
};
/* Seed: CreateTap. A new TAP lasts from when it bears its alias, and a failure after that takes it away
 * again: a crash leaves nothing, or an idle TAP that tells whose it is. An idle one of that name is made
 * right in place; one in use is FCPROC_ERR_BUSY. */
FCPROC_CHECKED int fcproc_tap_create(fcproc_net *net, const struct fcproc_tap *spec,
                                     fcproc_ctx *ctx, struct fcproc_tap_info *ret,
                                     fcproc_error *err);
/* The MAC that a TAP of this name gets when none is given. */
FCPROC_API void fcproc_tap_mac(const char *name, unsigned char mac[FCPROC_MAC_LEN]);
/* Operation: none of the named TAPs is there any more. Each is held by an own TUNSETIFF until it
 * is gone, so that none is taken from a running VM; more than one go as a link group. Those that
 * can't be deleted are named in the error; the others are. */
FCPROC_CHECKED int fcproc_taps_delete(fcproc_net *net, const char *const *names, size_t n,
                                      fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);
/* How many the finished fcproc_taps_delete removed. */
FCPROC_API size_t fcproc_taps_delete_result(const fcproc_op *op);
/* The connections that the kernel remembers of these IPv4 addresses, at either end, are gone; "udp:53"
 * stands for what was sent to this port by UDP. Done on a thread; to close the operation stops the wait
 * alone. */
FCPROC_CHECKED int fcproc_conntrack_flush(fcproc_net *net, const char *const *addresses, size_t n,
                                          fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);
/* How many there were. */
FCPROC_API size_t fcproc_conntrack_flush_result(const fcproc_op *op);
/* 1 or 0: is there a link of that name, of whatever kind? */
FCPROC_CHECKED int fcproc_link_exists(fcproc_net *net, const char *name, fcproc_error *err);
/* Its ifindex, 0 when there is no link of that name, or a negative code. */
FCPROC_CHECKED int fcproc_link_index(fcproc_net *net, const char *name, fcproc_error *err);
/* Its MTU, or a negative code. */
FCPROC_CHECKED int fcproc_link_mtu(fcproc_net *net, const char *name, fcproc_error *err);
/* The number in /proc/sys/net/NAME of the namespace, or a negative code. */
FCPROC_CHECKED int fcproc_net_sysctl(fcproc_net *net, const char *name, fcproc_error *err);
/* Sets it, 0 or more; 0 or a negative code. */
FCPROC_CHECKED int fcproc_net_set_sysctl(fcproc_net *net, const char *name, int value,
                                         fcproc_error *err);
/* The TAPs on a bridge, or with NULL all of the namespace; the array is the caller's, free(3). A
 * missing bridge has none. */
FCPROC_CHECKED int fcproc_tap_list(fcproc_net *net, const char *bridge, fcproc_ctx *ctx,
                                   struct fcproc_tap_info **ret, size_t *ret_n, fcproc_error *err);

/* ---- HTTP over a unix socket ------------------------------------------------------------------- */

typedef struct fcproc_client fcproc_client;

/* A client of one server with one kept-alive connection. It holds the socket's folder open, so
 * that a path of any depth works, and the socket itself from the first request on; one that has
 * taken its place is opened anew. A symbolic link there is FCPROC_ERR_CONFLICT. */
FCPROC_CHECKED int fcproc_client_new(const char *path, fcproc_client **ret, fcproc_error *err);
/* From the next request on only this process is asked. Who listens is read from the connection that
 * carries the request, before a byte of it is sent; another one is FCPROC_ERR_NOT_SAME_PROCESS, with
 * its pid where it can be seen. The client holds a reference: one thread uses both. NULL: whoever
 * listens, as at first. */
FCPROC_API void fcproc_client_expect(fcproc_client *client, fcproc_process *process);
FCPROC_API void fcproc_client_close(fcproc_client *client);

/* Operation: an HTTP answer is there. One request at a time (else FCPROC_ERR_BUSY). body may be
 * NULL. Any HTTP status is a success here; the caller judges it. */
FCPROC_CHECKED int fcproc_request(fcproc_client *client, const char *method, const char *target,
                                  const char *body, size_t body_len, int64_t timeout_ms,
                                  fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);
struct fcproc_response {
    int status;
    const char *body; /* valid until the operation is closed */
    size_t body_len;
};
FCPROC_API struct fcproc_response fcproc_request_result(const fcproc_op *op);

/* Operation: the same request to n servers, each on a new connection, some at a time. processes[i]
 * (processes or it may be NULL) is who is to answer at paths[i], as by fcproc_client_expect. Each is
 * given each_ms from when its turn comes (-1: no limit). A server that can't be asked, or does not
 * answer, fails alone: the operation itself succeeds. */
FCPROC_CHECKED int fcproc_request_all(const char *const *paths, fcproc_process *const *processes,
                                      size_t n, const char *method, const char *target,
                                      const char *body, size_t body_len, int64_t each_ms,
                                      fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);
FCPROC_API size_t fcproc_request_all_count(const fcproc_op *op); /* n */
/* What the server of paths[i] answered, or why it did not, once the operation is done. One that is
 * between bind and listen, or busy, fails here at once with ECONNREFUSED or EAGAIN; fcproc_request
 * tries again. */
FCPROC_CHECKED int fcproc_request_all_result(const fcproc_op *op, size_t i,
                                             struct fcproc_response *ret, fcproc_error *err);

/* ---- what the host can do: found out by doing it; nothing is left behind ----------------------- */

/* The caller's effective uid. */
FCPROC_API uid_t fcproc_own_uid(void);
/* Is there a process whose real uid this is? Threads of ended processes that nobody has reaped count;
 * processes of another PID namespace are not seen. One system call, whatever runs. */
FCPROC_CHECKED int fcproc_uid_in_use(uid_t uid, bool *ret, fcproc_error *err);
/* The device ("/dev/kvm") can be opened for reading and writing is KVM, version 12, and
 * makes a VM. FCPROC_ERR_BUSY: another hypervisor has the processor; FCPROC_ERR_NOT_FOUND, _PERMISSION, _UNSUPPORTED. */
FCPROC_CHECKED int fcproc_kvm_check(const char *path, fcproc_error *err);
/* The device ("/dev/net/tun") can be opened and makes TAPs with a vnet header. The same codes. */
FCPROC_CHECKED int fcproc_tun_check(const char *path, fcproc_error *err);

struct fcproc_disk {
    int64_t free_bytes; /* for users without privilege */
    int64_t total_bytes;
    int64_t free_files; /* -1: the file system does not count them */
};
/* The disk that path is on. */
FCPROC_CHECKED int fcproc_disk_free(const char *path, struct fcproc_disk *ret, fcproc_error *err);
/* What would be a guest's disk, a file or a block device, links followed: its bytes, and at most len of
 * its first. Another kind is FCPROC_ERR_CONFLICT. */
FCPROC_CHECKED int fcproc_disk_look(const char *path, void *head, size_t len, size_t *ret_len,
                                    int64_t *ret_size, fcproc_error *err);
/* Two files in the folder can share their blocks (FICLONE), so that a copy costs no time and no
 * room. FCPROC_ERR_UNSUPPORTED: its file system can't. */
FCPROC_CHECKED int fcproc_reflink_check(const char *folder, fcproc_error *err);

/* ---- for programs that own their process: their terminal and their signals ---------------------- */

FCPROC_API bool fcproc_is_terminal(int fd);

/* Operation: nobody reads the pipe, socket or terminal any more. A regular file always has its
 * readers. */
FCPROC_CHECKED int fcproc_reader_wait(int fd, int64_t timeout_ms, fcproc_ctx *ctx, fcproc_op **ret,
                                      fcproc_error *err);
/* Operation: there is something to read from it, or its other end is gone. */
FCPROC_CHECKED int fcproc_readable_wait(int fd, int64_t timeout_ms, fcproc_ctx *ctx,
                                        fcproc_op **ret, fcproc_error *err);

/* What is typed, for a guest's console. The reader is the stdin of the VMM that is started next, and
 * belongs to the keys. */
typedef struct fcproc_keys fcproc_keys;

FCPROC_CHECKED int fcproc_keys_new(fcproc_keys **ret, fcproc_error *err);
FCPROC_API int fcproc_keys_reader(const fcproc_keys *k);
/* Operation: passes on what comes from the descriptor, to its end; once. A terminal is raw
 * from here on, and a Ctrl-] ends it (escaped); the settings that it had are put back by close. */
FCPROC_CHECKED int fcproc_keys_copy(fcproc_keys *k, int fd, int64_t timeout_ms, fcproc_ctx *ctx,
                                    fcproc_op **ret, fcproc_error *err);
FCPROC_API bool fcproc_keys_escaped(const fcproc_op *op);
FCPROC_API void fcproc_keys_close(fcproc_keys *k); /* NULL is fine */

/* Operation: one of these signals (at least one) has come. From then on they are blocked in the
 * calling thread, for good, so that none is lost between two waits; the other threads of the
 * program must block them themselves. Processes that fcproc starts have them unblocked. */
FCPROC_CHECKED int fcproc_signal_wait(const int *signals, size_t n, int64_t timeout_ms,
                                      fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err);
FCPROC_API int fcproc_signal_wait_result(const fcproc_op *op); /* its number */

/* The file of the built-in guest as installed. */
FCPROC_API const char *fcproc_default_guest_path(void);

#ifdef __cplusplus
#pragma GCC diagnostic pop
}
#endif
#endif
