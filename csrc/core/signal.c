/* SPDX-License-Identifier: MIT
 *
 * Signals as something to wait for, for programs that own their process: the fcproc command lets
 * Ctrl-C stop a VM, and a second one kill it. No handler is set.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "private.h"

struct signal_op {
    fcproc_op op;
    int fd;
    int received;
};

static int signal_step(fcproc_op *op, fcproc_error *err)
{
    struct signal_op *s = (struct signal_op *)op;
    struct signalfd_siginfo info;
    ssize_t n = read(s->fd, &info, sizeof(info));

    if (n == (ssize_t)sizeof(info)) {
        s->received = (int)info.ssi_signo;
        return 1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return error_errno(err, op->class->name, errno, "can't read signals");
}

static void signal_describe(const fcproc_op *op, char *buf, size_t size)
{
    (void)op;
    (void)snprintf(buf, size, "no signal has come");
}

static void signal_destroy(fcproc_op *op)
{
    close_fd(&((struct signal_op *)op)->fd);
}

FCPROC_API int fcproc_signal_wait(const int *signals, size_t n, int64_t timeout_ms, fcproc_ctx *ctx,
                                  fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = "signal.wait",
                                           .step = signal_step,
                                           .destroy = signal_destroy,
                                           .describe = signal_describe };
    struct signal_op *s;
    fcproc_op *op = NULL;
    sigset_t set;
    int r;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < n; i++)
        if (sigaddset(&set, signals[i]) < 0)
            return error_set(err, FCPROC_ERR_INVALID, class.name, 0, "there is no signal %d",
                             signals[i]);
    r = op_new(sizeof(*s), &class, ctx, timeout_ms, &op, err);
    if (r < 0)
        return r;
    s = (struct signal_op *)op;
    s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->fd < 0)
        r = error_errno(err, class.name, errno, "no descriptor for signals");
    if (r == 0)
        r = op_watch(op, s->fd, EPOLLIN, OP_WAKE, err);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    /* They stay blocked when the operation is closed, so that none is lost between two waits. */
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    *ret = op;
    return 0;
}

FCPROC_API int fcproc_signal_wait_result(const fcproc_op *op)
{
    return ((const struct signal_op *)op)->received;
}
