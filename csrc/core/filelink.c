/* SPDX-License-Identifier: MIT
 *
 * Names of files: hard links, symbolic links as leases, renames. Each is one step of the kernel,
 * so that of many who try at once one wins.
 */
#include <fcntl.h>
#include <stdio.h>

#include "file.h"

int file_open_source(const char *op, const char *from, const struct fcproc_expected *expected,
                     fcproc_error *err)
{
    cleanup_fd int fd = -EBADF;
    char buf[PATH_MAX];
    struct stat st;
    int r;

    if (expected && expected->reader_uid != -1)
        return file_open_expected(op, from, O_RDONLY, expected, &st, err);
    fd = open(file_plain_path(from, buf), O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return file_error(err, op, errno, "can't open the file %s", from);
    if (fstat(fd, &st) < 0)
        return file_error(err, op, errno, "can't look at %s", from);
    r = file_check(op, fd, expected, &st, from, err);
    return r < 0 ? r : take_fd(&fd);
}

FCPROC_API int fcproc_file_link(const char *from, const struct fcproc_expected *expected,
                                const char *to, fcproc_error *err)
{
    static const char op[] = "file.link";
    char by_fd[32];
    cleanup_fd int fd = file_open_source(op, from, expected, err);

    if (fd < 0)
        return fd;
    /* The file that was looked at, whatever has its name now. AT_EMPTY_PATH would do the same,
     * but only with CAP_DAC_READ_SEARCH: open(2), "O_PATH". */
    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, by_fd, AT_FDCWD, to, AT_SYMLINK_FOLLOW) < 0)
        return file_error(err, op, errno, "can't link %s to %s", from, to);
    return 0;
}

/* readlink(2) with a NUL; -ENAMETOOLONG when it does not fit. */
static int read_target(const char *path, char *buf, size_t size)
{
    ssize_t n = readlink(path, buf, size);

    if (n < 0)
        return -errno;
    if ((size_t)n >= size)
        return -ENAMETOOLONG;
    buf[n] = '\0';
    return 0;
}

FCPROC_API int fcproc_symlink_make(const char *target, const char *path, fcproc_error *err)
{
    static const char op[] = "symlink.make";
    char there[PATH_MAX];
    struct stat st;
    int why;

    if (symlink(target, path) == 0)
        return 0;
    why = errno;
    if (why != EEXIST)
        return file_error(err, op, why, "can't make the link %s", path);
    if (read_target(path, there, sizeof(there)) == 0)
        return error_set(err, FCPROC_ERR_CONFLICT, op, why,
                         "%.400s is there already, as a link to '%.200s': it is taken", path,
                         there);
    if (lstat(path, &st) == 0)
        return file_conflict(err, op, st.st_mode, "a link", path);
    return file_error(err, op, why, "can't make the link %s", path);
}

FCPROC_API int fcproc_symlink_read(const char *path, char *buf, size_t size, fcproc_error *err)
{
    static const char op[] = "symlink.read";
    struct stat st;
    int r = read_target(path, buf, size);

    if (r == -EINVAL && lstat(path, &st) == 0)
        return file_conflict(err, op, st.st_mode, "a symbolic link", path);
    return r < 0 ? file_error(err, op, -r, "can't read the link %s", path) : 0;
}

FCPROC_API int fcproc_file_rename(const char *from, const char *to, bool replace, fcproc_error *err)
{
    static const char op[] = "file.rename";

    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, replace ? 0 : RENAME_NOREPLACE) == 0)
        return 0;
    /* EINVAL: the file system does not know the flag, or a folder would move into itself. */
    if (errno == EINVAL && !replace)
        return error_set(err, FCPROC_ERR_UNSUPPORTED, op, errno,
                         "can't rename %.300s to %.300s: it would be inside itself, or this file "
                         "system can't rename without replacing",
                         from, to);
    if (errno == EINVAL)
        return error_set(err, FCPROC_ERR_INVALID, op, errno,
                         "can't rename %.300s to %.300s: it would be inside itself", from, to);
    return file_error(err, op, errno, "can't rename %s to %s", from, to);
}
