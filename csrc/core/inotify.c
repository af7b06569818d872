/* SPDX-License-Identifier: MIT
 *
 * Inotify instances, used again by the next wait, under whatever context, and closed when there is
 * none: the kernel takes some 14 ms to close one whose watch has just gone.
 */
#include <sys/inotify.h>

#include "private.h"

int inotify_take(void)
{
    char events[4096] __attribute__((aligned(8)));
    int fd = linger_take_inotify();

    if (fd < 0) {
        fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        return fd < 0 ? -errno : fd;
    }
    while (read(fd, events, sizeof(events)) > 0) { } /* its former watch's last */
    return fd;
}

void inotify_give(const fcproc_op *op, int *fd, int watch)
{
    if (*fd < 0)
        return;
    if (!op_is_ours(op)) { /* its watches are our parent's */
        close_fd(fd);
        return;
    }
    /* Fails when the watched folder or file is gone, and the watch with it. */
    if (watch >= 0)
        (void)inotify_rm_watch(*fd, watch);
    linger_inotify(take_fd(fd));
}
