/* SPDX-License-Identifier: MIT
 *
 * Waiting for the end of another context than the wait's own.
 */
#include <stdio.h>

#include "private.h"

struct ctx_op {
    fcproc_op op;
    fcproc_ctx *watched;
};

static int ctx_step(fcproc_op *op, fcproc_error *err)
{
    const struct ctx_op *w = (const struct ctx_op *)op;

    (void)err;
    op->timer_ns = ctx_deadline_ns(w->watched);
    return fcproc_ctx_status(w->watched, NULL) < 0;
}

static void ctx_describe(const fcproc_op *op, char *buf, size_t size)
{
    (void)op;
    (void)snprintf(buf, size, "what is waited for has not come");
}

static void ctx_destroy(fcproc_op *op)
{
    fcproc_ctx_unref(((struct ctx_op *)op)->watched);
}

FCPROC_API int fcproc_ctx_wait(fcproc_ctx *watched, int64_t timeout_ms, fcproc_ctx *ctx,
                               fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = {
        .name = "context.wait", .step = ctx_step, .destroy = ctx_destroy, .describe = ctx_describe
    };
    fcproc_op *op = NULL;
    int r = op_new(sizeof(struct ctx_op), &class, ctx, timeout_ms, &op, err);

    if (r < 0)
        return r;
    ((struct ctx_op *)op)->watched = fcproc_ctx_ref(watched);
    r = ctx_watch(watched, op->epoll_fd, err);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}
