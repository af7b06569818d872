/* SPDX-License-Identifier: MIT
 *
 * Files of the host that are read whole, or in part: regular ones, since of others nobody knows the size.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "image.h"

int image_open_regular(const char *path, int *ret_fd, uint64_t *ret_size, const char *op,
                       fcproc_error *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return image_errno(err, op, errno, "can't open %s", path);
    if (fstat(fd, &st) < 0)
        return image_errno(err, op, errno, "can't look at %s", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0, "%s is no regular file", path);
    *ret_fd = take_fd(&fd);
    *ret_size = (uint64_t)st.st_size;
    return 0;
}
