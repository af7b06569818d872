/* SPDX-License-Identifier: MIT
 *
 * A guest's disk as it is before anybody uses it: how large it is, and how it begins.
 */
#include <fcntl.h>
#include <sys/ioctl.h>

#include <linux/fs.h>

#include "file.h"

FCPROC_API int fcproc_disk_look(const char *path, void *head, size_t len, size_t *ret_len,
                                int64_t *ret_size, fcproc_error *err)
{
    static const char op[] = "disk.look";
    /* O_NONBLOCK: a drive for disks that can be taken out opens without one, too. */
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;
    uint64_t size;
    ssize_t n;

    if (fd < 0)
        return file_error(err, op, errno, "can't open %s", path);
    if (fstat(fd, &st) < 0)
        return file_error(err, op, errno, "can't look at %s", path);
    if (S_ISBLK(st.st_mode)) { /* of which st_size is 0 */
        if (ioctl(fd, BLKGETSIZE64, &size) < 0)
            return file_error(err, op, errno, "can't ask the size of %s", path);
    } else if (S_ISREG(st.st_mode)) {
        size = (uint64_t)st.st_size;
    } else {
        return file_conflict(err, op, st.st_mode, "a file or a block device", path);
    }
    do
        n = pread(fd, head, len, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return file_error(err, op, errno, "can't read %s", path);
    *ret_len = (size_t)n;
    *ret_size = size > INT64_MAX ? INT64_MAX : (int64_t)size;
    return 0;
}
