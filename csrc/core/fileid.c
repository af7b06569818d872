/* SPDX-License-Identifier: MIT
 *
 * Files that are known by more than a name: so a name which somebody else may move leads to the file
 * that was meant, or to an error. And files that nobody is to change any more.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "file.h"

/* ---- which file it is ---- */

struct fcproc_file_id file_id_of(const struct statx *stx)
{
    bool told = stx->stx_mask & STATX_BTIME;

    return (struct fcproc_file_id){
        .dev = makedev(stx->stx_dev_major, stx->stx_dev_minor),
        .ino = stx->stx_ino,
        .born_ns = told ? stx->stx_btime.tv_sec * 1000 * NS_PER_MS + stx->stx_btime.tv_nsec : 0,
    };
}

int file_id(int fd, struct fcproc_file_id *ret)
{
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &stx) < 0)
        return -errno;
    *ret = file_id_of(&stx);
    return 0;
}

FCPROC_API void fcproc_file_id_print(const struct fcproc_file_id *id, char buf[FCPROC_FILE_ID_SIZE])
{
    (void)snprintf(buf, FCPROC_FILE_ID_SIZE, "%" PRIu64 "-%" PRIu64 "-%" PRId64, id->dev, id->ino,
                   id->born_ns);
}

FCPROC_API bool fcproc_file_id_parse(const char *text, struct fcproc_file_id *ret)
{
    struct fcproc_file_id id;
    char again[FCPROC_FILE_ID_SIZE];

    if (sscanf(text, "%" SCNu64 "-%" SCNu64 "-%" SCNd64, &id.dev, &id.ino, &id.born_ns) != 3)
        return false;
    fcproc_file_id_print(&id, again); /* what was too large, or had more to it, differs now */
    if (id.ino == 0 || strcmp(again, text) != 0)
        return false;
    *ret = id;
    return true;
}

static bool is_same(const struct fcproc_file_id *a, const struct fcproc_file_id *b)
{
    return a->dev == b->dev && a->ino == b->ino &&
           (a->born_ns == b->born_ns || a->born_ns == 0 || b->born_ns == 0);
}

int file_check(const char *op, int fd, const struct fcproc_expected *expected,
               const struct stat *st, const char *path, fcproc_error *err)
{
    struct fcproc_file_id id;
    int r;

    if (!S_ISREG(st->st_mode))
        return file_conflict(err, op, st->st_mode, "a file", path);
    if (!expected)
        return 0;
    r = ids_check(op, expected->uid, -1, err);
    if (r < 0)
        return r;
    if (expected->uid >= 0 && st->st_uid != (uid_t)expected->uid)
        return error_set(
            err, FCPROC_ERR_CONFLICT, op, 0,
            "%.400s belongs to uid %u and should be uid %lld's: it was replaced; it is "
            "left untouched",
            path, st->st_uid, (long long)expected->uid);
    if (expected->single && st->st_nlink != 1)
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0,
                         "%.400s has %llu names and should have one: it may be another file by its "
                         "second name; it is left untouched",
                         path, (unsigned long long)st->st_nlink);
    if (expected->id.ino == 0)
        return 0;
    r = file_id(fd, &id);
    if (r < 0)
        return file_error(err, op, -r, "can't look at %s", path);
    if (!is_same(&id, &expected->id))
        return error_set(
            err, FCPROC_ERR_CONFLICT, op, 0,
            "%.400s is another file than the one that was there: it was replaced; it is "
            "left untouched",
            path);
    return 0;
}

int file_open_expected(const char *op, const char *path, int flags,
                       const struct fcproc_expected *expected, struct stat *ret_stat,
                       fcproc_error *err)
{
    cleanup_fd int fd = -EBADF;
    int r;

    /* O_NONBLOCK: to open a FIFO waits for its other end, and one with a lease for its holder. */
    flags |= O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    r = expected ? ids_check(op, expected->reader_uid, expected->reader_gid, err) : 0;
    if (r < 0)
        return r;
    if (expected && expected->reader_uid >= 0) {
        fd = open_as(path, flags, (uid_t)expected->reader_uid, (gid_t)expected->reader_gid);
        if (fd < 0)
            return file_error(err, op, -fd, "uid %lld can't open the file %s",
                              (long long)expected->reader_uid, path);
    } else {
        fd = open(path, flags);
        if (fd < 0)
            return file_error(err, op, errno, "can't open the file %s", path);
    }
    if (fstat(fd, ret_stat) < 0)
        return file_error(err, op, errno, "can't look at the file %s", path);
    r = file_check(op, fd, expected, ret_stat, path, err);
    return r < 0 ? r : take_fd(&fd);
}

/* ---- final ---- */

/* Whether the kernel grants a lease, which is given back at once. 0 or -errno: -EAGAIN when others have
 * the file open against it. */
static int try_lease(int fd, int kind)
{
    /* Who opens it meanwhile breaks the lease, for which there is a signal: one that does nothing,
     * instead of SIGIO, which ends the process. */
    if (fcntl(fd, F_SETSIG, SIGURG) < 0 || fcntl(fd, F_SETLEASE, kind) < 0)
        return -errno;
    (void)fcntl(fd, F_SETLEASE, F_UNLCK);
    return 0;
}

/* Nobody has it open for writing, and nobody a writable mapping of it: else the kernel refuses a
 * lease for reading. So does a file system that has no leases. Not told is who has pinned its pages, as
 * a buffer of io_uring that outlives descriptor and mapping. File systems on a disk refuse that, since
 * Linux 6.5; those in memory don't, so they can't tell. */
static bool has_no_writer(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC &&
           fs.f_type != HUGETLBFS_MAGIC && try_lease(fd, F_RDLCK) == 0;
}

FCPROC_API int fcproc_file_in_use(const char *path, bool *ret, fcproc_error *err)
{
    static const char op[] = "file.in_use";
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;

    *ret = false;
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return file_error(err, op, errno, "can't open the file %s", path);
    *ret = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && try_lease(fd, F_WRLCK) == -EAGAIN;
    return 0;
}

FCPROC_API int fcproc_file_seal(const char *path, const struct fcproc_expected *expected,
                                int64_t uid, int64_t gid, mode_t mode, bool *ret_sealed,
                                fcproc_error *err)
{
    static const char op[] = "file.seal";
    cleanup_fd int fd = -EBADF;
    struct stat st;
    int r = ids_check(op, uid, gid, err);

    if (r < 0)
        return r;
    fd = file_open_expected(op, path, O_RDONLY, expected, &st, err);
    if (fd < 0)
        return fd;
    r = file_give(fd, uid, gid);
    if (r < 0)
        return file_error(err, op, -r, "can't give %s to %lld:%lld", path, (long long)uid,
                          (long long)gid);
    if (fchmod(fd, mode) < 0)
        return file_error(err, op, errno, "can't set mode %04o on %s", mode, path);
    if (fstat(fd, &st) < 0)
        return file_error(err, op, errno, "can't look at %s", path);
    TELL(ret_sealed, st.st_nlink == 1 && has_no_writer(fd));
    return 0;
}
