/* SPDX-License-Identifier: MIT
 *
 * A descriptor of the caller's: is it a terminal, can it be read, and does anybody read it still? Writing
 * alone tells of a reader that has gone only when there is something to write.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "private.h"

struct reader_op {
    fcproc_op op;
    int fd;
    short events; /* poll(2) tells of POLLERR and POLLHUP in any case */
};

FCPROC_API bool fcproc_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

static int reader_step(fcproc_op *op, fcproc_error *err)
{
    const struct reader_op *r = (struct reader_op *)op;
    struct pollfd p = { .fd = r->fd, .events = r->events };

    (void)err;
    return poll(&p, 1, 0) > 0;
}

static void reader_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct reader_op *r = (const struct reader_op *)op;

    (void)snprintf(buf, size,
                   r->events ? "nothing to read from descriptor %d" : "descriptor %d has a reader",
                   r->fd);
}

static void reader_destroy(fcproc_op *op)
{
    (void)op; /* the descriptor is the caller's */
}

static int watch_fd(const struct op_class *class, int fd, short events, int64_t timeout_ms,
                    fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    struct epoll_event event = { .events = events ? EPOLLIN : 0, .data.u64 = OP_WAKE };
    fcproc_op *op = NULL;
    int r = op_new(sizeof(struct reader_op), class, ctx, timeout_ms, &op, err);

    if (r < 0)
        return r;
    ((struct reader_op *)op)->fd = fd;
    ((struct reader_op *)op)->events = events;
    /* Regular files (EPERM) have no readers that could go, and can always be read. */
    if (epoll_ctl(op->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EPERM) {
        r = error_errno(err, class->name, errno, "can't watch descriptor %d", fd);
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}

FCPROC_API int fcproc_reader_wait(int fd, int64_t timeout_ms, fcproc_ctx *ctx, fcproc_op **ret,
                                  fcproc_error *err)
{
    static const struct op_class class = { .name = "reader.wait",
                                           .step = reader_step,
                                           .destroy = reader_destroy,
                                           .describe = reader_describe };

    return watch_fd(&class, fd, 0, timeout_ms, ctx, ret, err);
}

FCPROC_API int fcproc_readable_wait(int fd, int64_t timeout_ms, fcproc_ctx *ctx, fcproc_op **ret,
                                    fcproc_error *err)
{
    static const struct op_class class = { .name = "readable.wait",
                                           .step = reader_step,
                                           .destroy = reader_destroy,
                                           .describe = reader_describe };

    return watch_fd(&class, fd, POLLIN, timeout_ms, ctx, ret, err);
}
