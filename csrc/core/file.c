/* SPDX-License-Identifier: MIT
 *
 * One file or folder: looked at, made, written, read, given away, removed. A symbolic link as the
 * last component of a path is never followed.
 */
#include "file.h"

#include <fcntl.h>
#include <stdio.h>

/* ---- looking ---- */

FCPROC_API int fcproc_file_stat(const char *path, bool follow, struct fcproc_file_info *ret,
                                fcproc_error *err)
{
    char buf[PATH_MAX];
    struct statx st;

    if (statx(AT_FDCWD, follow ? path : file_plain_path(path, buf),
              follow ? 0 : AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &st) < 0)
        return file_error(err, "file.stat", errno, "can't look at %s", path);
    *ret = (struct fcproc_file_info){
        .type = file_type(st.stx_mode),
        .size = (int64_t)st.stx_size,
        .allocated = (int64_t)st.stx_blocks * 512, /* whatever the block size: stat(3type) */
        .id = file_id_of(&st),
        .mode = st.stx_mode & 07777,
        .uid = st.stx_uid,
        .gid = st.stx_gid,
        .nlink = st.stx_nlink,
        .mtime = (double)st.stx_mtime.tv_sec + st.stx_mtime.tv_nsec / 1e9,
    };
    return 0;
}

/* ---- making ---- */

static int set_dir_mode(const char *path, mode_t mode)
{
    cleanup_fd int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : file_set_mode(fd, mode);
}

FCPROC_API int fcproc_dir_make(const char *path, mode_t mode, bool *ret_created, fcproc_error *err)
{
    static const char op[] = "dir.make";
    char buf[PATH_MAX];
    struct stat st;
    int r = 0;

    path = file_plain_path(path, buf);
    if (mkdir(path, mode) < 0) {
        int why = errno;

        if (why != EEXIST || lstat(path, &st) < 0)
            return file_error(err, op, why, "can't make the folder %s", path);
        if (!S_ISDIR(st.st_mode))
            return file_conflict(err, op, st.st_mode, "a folder", path);
        TELL(ret_created, false);
        return 0;
    }
    /* The umask has taken from the mode, and a setgid parent may have added to it. */
    if (lstat(path, &st) < 0)
        r = -errno;
    else if ((st.st_mode & 07777) != mode)
        r = set_dir_mode(path, mode);
    if (r < 0) {
        (void)rmdir(path);
        return file_error(err, op, -r, "can't set mode %04o on the new folder %s", mode, path);
    }
    TELL(ret_created, true);
    return 0;
}

/* ---- writing and reading ---- */

/* "FOLDER/.NAME.new" for "FOLDER/NAME". 0 or -errno. */
static int temporary_name(const char *path, char buf[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    int n;

    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -EISDIR;
    n = snprintf(buf, PATH_MAX, "%.*s.%s.new", (int)(name - path), path, name);
    return n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* All of a new file, by its descriptor: whatever has its name by now. It is its owner's and has the
 * mode then, whatever the umask has taken from it. */
static int write_and_close(int *fd, const char *data, size_t len, mode_t mode, int64_t uid,
                           int64_t gid, struct fcproc_file_id *ret_id)
{
    struct stat st;
    int r = file_write_all(*fd, data, len);

    if (r == 0)
        r = file_give(*fd, uid, gid);
    if (r == 0 && (fstat(*fd, &st) < 0 || ((st.st_mode & 07777) != mode && fchmod(*fd, mode) < 0)))
        r = -errno;
    if (r == 0 && ret_id)
        r = file_id(*fd, ret_id);
    if (close(take_fd(fd)) < 0 && r == 0 && errno != EINTR)
        r = -errno; /* where a file system learns only now that there is no room: NFS, quotas */
    return r;
}

FCPROC_API int fcproc_file_create(const char *path, const void *data, size_t len, mode_t mode,
                                  int64_t uid, int64_t gid, bool *ret_created,
                                  struct fcproc_file_id *ret_id, fcproc_error *err)
{
    static const char op[] = "file.create";
    cleanup_fd int fd = -EBADF;
    struct stat st;
    int r = ids_check(op, uid, gid, err);

    if (r < 0)
        return r;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, mode);
    if (fd < 0) {
        int why = errno;

        if (why != EEXIST || lstat(path, &st) < 0)
            return file_error(err, op, why, "can't make the file %s", path);
        if (!S_ISREG(st.st_mode))
            return file_conflict(err, op, st.st_mode, "a file", path);
        TELL(ret_created, false);
        return 0;
    }
    r = write_and_close(&fd, data, len, mode, uid, gid, ret_id);
    if (r < 0) {
        (void)unlink(path);
        return file_error(err, op, -r, "can't make the file %s", path);
    }
    TELL(ret_created, true);
    return 0;
}

FCPROC_API int fcproc_file_write(const char *path, const void *data, size_t len, mode_t mode,
                                 int64_t uid, int64_t gid, struct fcproc_file_id *ret_id,
                                 fcproc_error *err)
{
    static const char op[] = "file.write";
    enum { FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC };
    cleanup_fd int fd = -EBADF;
    char temporary[PATH_MAX];
    int r = ids_check(op, uid, gid, err);

    if (r < 0)
        return r;
    r = temporary_name(path, temporary);
    if (r < 0)
        return file_error(err, op, -r, "can't write the file %s", path);
    fd = open(temporary, FLAGS, mode);
    /* A crash left one. It may be anybody's link, so it is replaced and not opened. */
    if (fd < 0 && errno == EEXIST && unlink(temporary) == 0)
        fd = open(temporary, FLAGS, mode);
    if (fd < 0)
        return file_error(err, op, errno, "can't write the file %s (make %s)", path, temporary);
    r = write_and_close(&fd, data, len, mode, uid, gid, ret_id);
    /* No fsync: it is for a crash of the writer, which a rename alone survives. After a power
     * loss the VMs are gone anyway, and an fsync would cost milliseconds several times a VM. */
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlink(temporary);
        return file_error(err, op, -r, "can't write the file %s", path);
    }
    return 0;
}

FCPROC_API int fcproc_file_read(const char *path, const struct fcproc_expected *expected,
                                int64_t offset, int64_t limit, char **ret, size_t *ret_len,
                                fcproc_error *err)
{
    static const char op[] = "file.read";
    cleanup_fd int fd = -EBADF;
    cleanup_free char *data = NULL;
    size_t room, used = 0, most = limit < 0 ? FCPROC_READ_LIMIT : (size_t)limit;
    struct stat st;

    fd = file_open_expected(op, path, O_RDONLY, expected, &st, err);
    if (fd < 0)
        return fd;
    if (offset < 0)
        offset = st.st_size + offset < 0 ? 0 : st.st_size + offset;
    /* One byte more than there should be, so that the end shows without growing. What /proc and
     * /sys hold has the size 0. */
    room = st.st_size > offset ? (size_t)(st.st_size - offset) + 1 : 4096;
    for (;; room *= 2) {
        char *grown;
        ssize_t n = 1;

        if (room > most)
            room = most;
        grown = realloc(data, room + 1); /* never 0 */
        if (!grown)
            return error_nomem(err, op);
        data = grown;
        while (used < room && n > 0) {
            n = pread(fd, data + used, room - used, offset + (int64_t)used);
            if (n < 0 && errno == EINTR)
                n = 1;
            else if (n < 0)
                return file_error(err, op, errno, "can't read the file %s", path);
            else
                used += (size_t)n;
        }
        if (n == 0 || used == most)
            break;
    }
    *ret = data;
    *ret_len = used;
    data = NULL;
    return 0;
}

/* ---- giving away, removing ---- */

FCPROC_API int fcproc_file_own(const char *path, const struct fcproc_expected *expected,
                               int64_t uid, int64_t gid, int mode, fcproc_error *err)
{
    static const char op[] = "file.own";
    char buf[PATH_MAX];
    cleanup_fd int fd = -EBADF;
    struct stat st;
    int r = ids_check(op, uid, gid, err);

    if (r < 0)
        return r;
    fd = open(file_plain_path(path, buf), O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return file_error(err, op, errno, "can't open %s", path);
    if (fstat(fd, &st) < 0)
        return file_error(err, op, errno, "can't look at %s", path);
    if (expected) {
        r = file_check(op, fd, expected, &st, path, err);
        if (r < 0)
            return r;
    }
    if (mode >= 0 && S_ISLNK(st.st_mode))
        return file_conflict(err, op, st.st_mode, "something that has a mode", path);
    if ((uid >= 0 && st.st_uid != (uid_t)uid) || (gid >= 0 && st.st_gid != (gid_t)gid)) {
        if (fchownat(fd, "", (uid_t)uid, (gid_t)gid, AT_EMPTY_PATH) < 0)
            return file_error(err, op, errno, "can't give %s (of %u:%u) to %lld:%lld", path,
                              st.st_uid, st.st_gid, (long long)uid, (long long)gid);
        st.st_mode &= ~(mode_t)06000; /* chown(2) takes them: set them again */
    }
    if (mode >= 0 && (st.st_mode & 07777) != (mode_t)mode) {
        r = file_set_mode(fd, (mode_t)mode);
        if (r < 0)
            return file_error(err, op, -r, "can't set mode %04o on %s", mode, path);
    }
    return 0;
}

FCPROC_API int fcproc_file_remove(const char *path, bool *ret_removed, fcproc_error *err)
{
    if (unlink(path) == 0)
        TELL(ret_removed, true);
    else if (errno == ENOENT)
        TELL(ret_removed, false);
    else
        return file_error(err, "file.remove", errno, "can't remove the file %s", path);
    return 0;
}
