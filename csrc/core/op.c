/* SPDX-License-Identifier: MIT
 *
 * The part that all operations share: one epoll descriptor that holds the operation's own
 * descriptors and its context's, the order of ends, and the blocking wait as a loop over step.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <time.h>

#include "private.h"

int op_new(size_t size, const struct op_class *class, fcproc_ctx *ctx, int64_t timeout_ms,
           fcproc_op **ret, fcproc_error *err)
{
    fcproc_op *op = calloc(1, size);
    int r;

    if (!op)
        return error_nomem(err, class->name);
    op->class = class;
    op->pid = getpid();
    op->timeout_code = FCPROC_ERR_WAIT_TIMEOUT;
    op->timeout_ms = timeout_ms;
    op->deadline_ns = deadline_after_ms(timeout_ms);
    op->timer_ns = NEVER;
    op->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    r = op->epoll_fd < 0 ? error_errno(err, class->name, errno, "no epoll descriptor")
                         : ctx_watch(ctx, op->epoll_fd, err);
    if (r < 0) {
        close_fd(&op->epoll_fd);
        free(op);
        return r;
    }
    op->ctx = fcproc_ctx_ref(ctx);
    *ret = op;
    return 0;
}

bool op_is_ours(const fcproc_op *op)
{
    return op->pid == getpid();
}

int op_watch(fcproc_op *op, int fd, uint32_t events, uint64_t tag, fcproc_error *err)
{
    struct epoll_event event = { .events = events, .data.u64 = tag };

    if (epoll_ctl(op->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    if (errno == EEXIST && epoll_ctl(op->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0)
        return 0;
    return error_errno(err, op->class->name, errno, "can't watch descriptor %d", fd);
}

void op_unwatch(fcproc_op *op, int fd)
{
    if (op_is_ours(op))
        (void)epoll_ctl(op->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void op_backoff(fcproc_op *op, int64_t *delay_ms, int64_t first_ms, int64_t most_ms)
{
    *delay_ms = *delay_ms == 0 ? first_ms : *delay_ms * 2;
    if (*delay_ms > most_ms)
        *delay_ms = most_ms;
    op->timer_ns = deadline_after_ms(*delay_ms);
}

FCPROC_API int fcproc_op_pollfd(const fcproc_op *op)
{
    return op->epoll_fd;
}

FCPROC_API int64_t fcproc_op_timeout_ms(const fcproc_op *op)
{
    int64_t at = op->timer_ns;

    if (op->done)
        return 0;
    if (!op->ending) {
        int64_t ctx_at = ctx_deadline_ns(op->ctx);

        if (op->deadline_ns < at)
            at = op->deadline_ns;
        if (ctx_at < at)
            at = ctx_at;
    }
    return ms_until(at);
}

/* What ends the wait now, if anything: cancel before the deadline before the own time-out. */
static int op_early_end(const fcproc_op *op)
{
    int r = fcproc_ctx_status(op->ctx, NULL);

    if (r < 0)
        return r;
    return op->deadline_ns != NEVER && now_ns() >= op->deadline_ns ? op->timeout_code : 0;
}

static int op_report_end(const fcproc_op *op, fcproc_error *err)
{
    char what[512];

    op->class->describe(op, what, sizeof(what));
    if (op->ending == FCPROC_ERR_CANCELLED)
        return error_set(err, op->ending, op->class->name, 0, "cancelled: %s", what);
    if (op->ending == op->timeout_code && fcproc_ctx_status(op->ctx, NULL) == 0)
        return error_set(err, op->ending, op->class->name, 0, "%s after %g s", what,
                         (double)op->timeout_ms / 1e3);
    return error_set(err, op->ending, op->class->name, 0, "%s when the context's deadline passed",
                     what);
}

FCPROC_API int fcproc_op_step(fcproc_op *op, fcproc_error *err)
{
    int r = check_maker(op->pid, op->class->name, err);

    if (r < 0)
        return r;
    if (op->done)
        return 1;
    if (op->timer_ns != NEVER && now_ns() >= op->timer_ns)
        op->timer_ns = NEVER;
    r = op->class->step(op, err);
    if (r > 0 && op->ending)
        return op_report_end(op, err); /* it ended because we ended it */
    if (r != 0) {
        op->done = r > 0;
        return r;
    }
    if (!op->ending) {
        op->ending = op_early_end(op);
        if (op->ending) /* its eventfd would stay readable, and wake us without a pause */
            ctx_unwatch(op->ctx, op->epoll_fd);
    }
    if (op->ending && (!op->class->end || op->class->end(op)))
        return op_report_end(op, err);
    return 0;
}

FCPROC_API int fcproc_op_wait(fcproc_op *op, fcproc_error *err)
{
    for (;;) {
        int r = fcproc_op_step(op, err);

        if (r != 0)
            return r < 0 ? r : 0;
        r = fcproc_poll(&op->epoll_fd, NULL, 1, fcproc_op_timeout_ms(op), err);
        if (r < 0)
            return r;
    }
}

FCPROC_API void fcproc_op_close(fcproc_op *op)
{
    if (!op)
        return;
    op->class->destroy(op);
    close_fd(&op->epoll_fd);
    fcproc_ctx_unref(op->ctx);
    free(op);
}

FCPROC_API int fcproc_poll(const int *fds, bool *ready, size_t n, int64_t timeout_ms,
                           fcproc_error *err)
{
    struct pollfd on_stack[64];
    struct pollfd *set = on_stack;
    struct timespec limit = { .tv_sec = timeout_ms / 1000,
                              .tv_nsec = (long)(timeout_ms % 1000) * NS_PER_MS };
    int r;

    if (n > ELEMENTS(on_stack)) {
        set = malloc(n * sizeof(*set));
        if (!set)
            return error_nomem(err, "poll");
    }
    for (size_t i = 0; i < n; i++)
        set[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
    r = ppoll(set, n, timeout_ms < 0 ? NULL : &limit, NULL);
    if (r < 0)
        r = errno == EINTR ? 0 : error_errno(err, "poll", errno, "poll failed");
    for (size_t i = 0; ready && i < n; i++)
        ready[i] = r > 0 && set[i].revents != 0;
    if (set != on_stack)
        free(set);
    return r;
}
