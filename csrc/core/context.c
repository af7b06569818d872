/* SPDX-License-Identifier: MIT
 *
 * A context: a deadline, and a cancel latched in an eventfd that nobody reads, so that one write
 * wakes every waiter, now and later. A child waits on its parents' eventfds too.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "private.h"

struct fcproc_ctx {
    atomic_uint references;
    atomic_bool cancelled;
    _Atomic uint64_t event; /* its eventfd, and the process whose it is */
    int64_t deadline_ns;    /* the earlier of its own and its parent's */
    fcproc_ctx *parent;
};

int64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 * NS_PER_MS + t.tv_nsec;
}

FCPROC_API double fcproc_now(void)
{
    return (double)now_ns() / 1e9;
}

int64_t deadline_after_ms(int64_t timeout_ms)
{
    int64_t now = now_ns();

    if (timeout_ms < 0 || timeout_ms > (NEVER - now) / NS_PER_MS)
        return NEVER;
    return now + timeout_ms * NS_PER_MS;
}

int64_t ms_until(int64_t deadline_ns)
{
    int64_t left;

    if (deadline_ns == NEVER)
        return -1;
    left = deadline_ns - now_ns();
    return left <= 0 ? 0 : (left + NS_PER_MS - 1) / NS_PER_MS;
}

static uint64_t event_of(pid_t pid, int fd)
{
    return (uint64_t)(uint32_t)pid << 32 | (uint32_t)fd;
}

/* The eventfd, or -errno. A fork shares ours, and a cancel there would wake us for ever: it makes one
 * of its own, for its copy of the context. In any thread, and in signal handlers. */
static int ctx_event_fd(fcproc_ctx *ctx)
{
    uint64_t seen = atomic_load(&ctx->event);
    pid_t self = getpid();

    while ((pid_t)(seen >> 32) != self) {
        int fd = eventfd(atomic_load(&ctx->cancelled), EFD_CLOEXEC | EFD_NONBLOCK);
        int theirs = (int)(uint32_t)seen;

        if (fd < 0)
            return -errno;
        if (atomic_compare_exchange_strong(&ctx->event, &seen, event_of(self, fd))) {
            close_fd(&theirs);
            return fd;
        }
        close_fd(&fd);
    }
    return (int)(uint32_t)seen;
}

FCPROC_API int fcproc_ctx_new(fcproc_ctx *parent, int64_t timeout_ms, fcproc_ctx **ret,
                              fcproc_error *err)
{
    fcproc_ctx *ctx = calloc(1, sizeof(*ctx));
    int fd;

    if (!ctx)
        return error_nomem(err, "context");
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        int e = errno;

        free(ctx);
        return error_errno(err, "context", e, "no eventfd for a context");
    }
    atomic_init(&ctx->references, 1);
    atomic_init(&ctx->cancelled, false);
    atomic_init(&ctx->event, event_of(getpid(), fd));
    ctx->deadline_ns = deadline_after_ms(timeout_ms);
    if (parent) {
        ctx->parent = fcproc_ctx_ref(parent);
        if (parent->deadline_ns < ctx->deadline_ns)
            ctx->deadline_ns = parent->deadline_ns;
    }
    *ret = ctx;
    return 0;
}

FCPROC_API fcproc_ctx *fcproc_ctx_ref(fcproc_ctx *ctx)
{
    if (ctx)
        (void)atomic_fetch_add_explicit(&ctx->references, 1, memory_order_relaxed);
    return ctx;
}

FCPROC_API void fcproc_ctx_unref(fcproc_ctx *ctx)
{
    while (ctx && atomic_fetch_sub_explicit(&ctx->references, 1, memory_order_acq_rel) == 1) {
        fcproc_ctx *parent = ctx->parent;

        int fd = (int)(uint32_t)atomic_load(&ctx->event);

        close_fd(&fd);
        free(ctx);
        ctx = parent;
    }
}

FCPROC_API void fcproc_ctx_cancel(fcproc_ctx *ctx)
{
    int saved = errno; /* a signal handler must leave it alone */

    if (ctx && !atomic_exchange(&ctx->cancelled, true)) {
        uint64_t one = 1;

        /* Can't fail in the process that made it: the counter is 0 and the descriptor ours. */
        if (write(ctx_event_fd(ctx), &one, sizeof(one)) < 0) { }
    }
    errno = saved;
}

FCPROC_API int fcproc_ctx_status(const fcproc_ctx *ctx, fcproc_error *err)
{
    for (const fcproc_ctx *c = ctx; c; c = c->parent)
        if (atomic_load(&c->cancelled))
            return error_set(err, FCPROC_ERR_CANCELLED, "context", 0, "cancelled");
    if (ctx && ctx->deadline_ns != NEVER && now_ns() >= ctx->deadline_ns)
        return error_set(err, FCPROC_ERR_DEADLINE, "context", 0,
                         "the context's deadline has passed");
    return 0;
}

FCPROC_API int64_t fcproc_ctx_remaining_ms(const fcproc_ctx *ctx)
{
    return ctx ? ms_until(ctx->deadline_ns) : -1;
}

int64_t ctx_deadline_ns(const fcproc_ctx *ctx)
{
    return ctx ? ctx->deadline_ns : NEVER;
}

int ctx_watch(fcproc_ctx *ctx, int epoll_fd, fcproc_error *err)
{
    for (; ctx; ctx = ctx->parent) {
        struct epoll_event event = { .events = EPOLLIN, .data.u64 = OP_WAKE };

        int fd = ctx_event_fd(ctx);

        if (fd < 0)
            return error_errno(err, "context", -fd, "no eventfd for a context");
        /* EEXIST: it is an ancestor of another context that this set watches. */
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST)
            return error_errno(err, "context", errno, "can't watch a context");
    }
    return 0;
}

void ctx_unwatch(fcproc_ctx *ctx, int epoll_fd)
{
    for (; ctx; ctx = ctx->parent)
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, ctx_event_fd(ctx), NULL);
}
