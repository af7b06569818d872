/* SPDX-License-Identifier: MIT
 *
 * Inotify instances, kept by a context from one wait to the next and closed in batches. Closing one
 * waits for a grace period of some 14 ms after its watch has gone, but that is over for the second.
 */
#include <sys/inotify.h>

#include "private.h"

static void close_all(struct inotify_idle *idle)
{
    while (idle->n > 0)
        close_fd(&idle->fds[--idle->n]);
}

static void *close_slowly(void *arg)
{
    close_all(arg);
    free(arg);
    return NULL;
}

void inotify_close_idle(struct inotify_idle *idle)
{
    struct inotify_idle *copy;

    if (idle->n == 0)
        return;
    copy = malloc(sizeof(*copy));
    if (copy) {
        *copy = *idle;
        if (thread_detach(close_slowly, copy) == 0) {
            idle->n = 0;
            return;
        }
        free(copy);
    }
    close_all(idle);
}

int inotify_take(fcproc_ctx *ctx)
{
    struct inotify_idle *idle = ctx_inotify_idle(ctx);
    char events[4096] __attribute__((aligned(8)));
    int fd;

    if (!idle || idle->n == 0) {
        fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        return fd < 0 ? -errno : fd;
    }
    fd = take_fd(&idle->fds[--idle->n]);
    while (read(fd, events, sizeof(events)) > 0) { } /* its former watch's last */
    return fd;
}

void inotify_give(fcproc_ctx *ctx, int *fd, int watch)
{
    struct inotify_idle own = { .n = 0 };
    struct inotify_idle *idle = ctx_inotify_idle(ctx);

    if (*fd < 0)
        return;
    if (!idle) {
        if (watch < 0) {
            close_fd(fd);
            return;
        }
        idle = &own;
    } else if (watch >= 0) {
        /* Fails when the watched folder or file is gone, and the watch with it. */
        (void)inotify_rm_watch(*fd, watch);
    }
    if (idle->n == ELEMENTS(idle->fds))
        inotify_close_idle(idle);
    idle->fds[idle->n++] = take_fd(fd);
    inotify_close_idle(&own);
}
