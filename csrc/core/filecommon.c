/* SPDX-License-Identifier: MIT
 *
 * What the files about files share: what an errno means for a file, and small things done to one.
 */
#include <stdio.h>

#include "file.h"

static const struct {
    int sys_errno, code;
    const char *text;
} reasons[] = {
    { ENOSPC, FCPROC_ERR_SYSTEM, "the file system is full; free space there or choose another" },
    { EDQUOT, FCPROC_ERR_SYSTEM, "the disk quota is used up; free space there or raise it" },
    { EROFS, FCPROC_ERR_SYSTEM, "the file system is mounted read-only; choose another" },
    { EFBIG, FCPROC_ERR_SYSTEM, "the file would become too large (ulimit -f, or the file system)" },
    { ENOTDIR, FCPROC_ERR_CONFLICT,
      "there is something else where a folder should be; remove it or choose another path" },
    { EISDIR, FCPROC_ERR_CONFLICT,
      "there is a folder where a file should be; remove it or choose another path" },
    { ELOOP, FCPROC_ERR_CONFLICT,
      "there is a symbolic link, which is not followed; remove it or choose another path" },
    { ENXIO, FCPROC_ERR_CONFLICT,
      "there is a socket or a device where a file should be; remove it or choose another path" },
    { EEXIST, FCPROC_ERR_CONFLICT, "it is there already; remove it or choose another path" },
    { ENOTEMPTY, FCPROC_ERR_CONFLICT, "the folder there is not empty; choose another path" },
    { ETXTBSY, FCPROC_ERR_BUSY, "it is a program that runs; wait until it has ended" },
    { EWOULDBLOCK, FCPROC_ERR_BUSY, "another process holds a lease on it; end that, or try again" },
    { EBUSY, FCPROC_ERR_BUSY, "it is in use, or something is mounted on it; unmount that first" },
    { EXDEV, FCPROC_ERR_UNSUPPORTED, "they are on different file systems; copy it instead" },
    { EMLINK, FCPROC_ERR_UNSUPPORTED, "it has no room for another link; copy it instead" },
};

int file_error(fcproc_error *err, const char *op, int sys_errno, const char *format, ...)
{
    int code = error_code_for(sys_errno);
    const char *text = strerrordesc_np(sys_errno);
    char what[512]; /* the rest is for the reason */
    va_list args;

    va_start(args, format);
    (void)vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    for (size_t i = 0; i < ELEMENTS(reasons); i++)
        if (reasons[i].sys_errno == sys_errno) {
            code = reasons[i].code;
            text = reasons[i].text;
        }
    return error_set(err, code, op, sys_errno, "%s: %s%s", what, text ? text : "unknown error",
                     code == FCPROC_ERR_PERMISSION ? "; look at who owns it and its folder" : "");
}

enum fcproc_file_type file_type(mode_t mode)
{
    return S_ISREG(mode)    ? FCPROC_FILE_REGULAR
           : S_ISDIR(mode)  ? FCPROC_FILE_DIR
           : S_ISLNK(mode)  ? FCPROC_FILE_LINK
           : S_ISBLK(mode)  ? FCPROC_FILE_BLOCK
           : S_ISSOCK(mode) ? FCPROC_FILE_SOCKET
                            : FCPROC_FILE_OTHER;
}

int file_conflict(fcproc_error *err, const char *op, mode_t mode, const char *wanted,
                  const char *path)
{
    static const char *const kinds[] = { "a file",         "a folder", "a symbolic link",
                                         "a block device", "a socket", "a device or FIFO" };

    return error_set(err, FCPROC_ERR_CONFLICT, op, 0,
                     "%.500s is %s and should be %s; it is left untouched: remove it, or choose "
                     "another path",
                     path, kinds[file_type(mode)], wanted);
}

const char *file_plain_path(const char *path, char buf[PATH_MAX])
{
    size_t len = strlen(path);

    if (len < 2 || path[len - 1] != '/' || len >= PATH_MAX)
        return path;
    while (len > 1 && path[len - 1] == '/')
        len--;
    memcpy(buf, path, len);
    buf[len] = '\0';
    return buf;
}

int file_set_mode(int fd, mode_t mode)
{
    char by_fd[32];

    /* fchmod refuses an O_PATH descriptor, and fchmodat2 came with 6.6: go by its link. */
    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
    return chmod(by_fd, mode) < 0 ? -errno : 0;
}

int file_write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

int file_give(int fd, int64_t uid, int64_t gid)
{
    return (uid >= 0 || gid >= 0) && fchown(fd, (uid_t)uid, (gid_t)gid) < 0 ? -errno : 0;
}
