/* SPDX-License-Identifier: MIT
 *
 * A program's output: is it a terminal, and does anybody read it still? Writing alone tells of a
 * reader that has gone only when there is something to write.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "private.h"

struct reader_op {
    fcproc_op op;
    int fd;
};

FCPROC_API bool fcproc_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

static int reader_step(fcproc_op *op, fcproc_error *err)
{
    struct pollfd p = { .fd = ((struct reader_op *)op)->fd };

    (void)err;
    return poll(&p, 1, 0) > 0; /* POLLERR, POLLHUP: nothing else was asked for */
}

static void reader_describe(const fcproc_op *op, char *buf, size_t size)
{
    (void)snprintf(buf, size, "descriptor %d has a reader", ((const struct reader_op *)op)->fd);
}

static void reader_destroy(fcproc_op *op)
{
    (void)op; /* the descriptor is the caller's */
}

FCPROC_API int fcproc_reader_wait(int fd, int64_t timeout_ms, fcproc_ctx *ctx, fcproc_op **ret,
                                  fcproc_error *err)
{
    static const struct op_class class = { .name = "reader.wait",
                                           .step = reader_step,
                                           .destroy = reader_destroy,
                                           .describe = reader_describe };
    struct epoll_event event = { .data.u64 = OP_WAKE };
    fcproc_op *op = NULL;
    int r = op_new(sizeof(struct reader_op), &class, ctx, timeout_ms, &op, err);

    if (r < 0)
        return r;
    ((struct reader_op *)op)->fd = fd;
    /* Regular files (EPERM) have no readers that could go. */
    if (epoll_ctl(op->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EPERM) {
        r = error_errno(err, class.name, errno, "can't watch descriptor %d", fd);
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}
