/* SPDX-License-Identifier: MIT
 *
 * The thread of an operation that could only block.
 */
#include "worker.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

void *work_new(size_t size, const char *op, void (*run)(struct work *),
               void (*destroy)(struct work *))
{
    struct work *work = calloc(1, size);

    if (!work)
        return NULL;
    atomic_init(&work->references, 1);
    work->run = run;
    work->destroy = destroy;
    work->event_fd = -EBADF;
    work->error = (fcproc_error)FCPROC_ERROR_INIT;
    work->error.op = op;
    return work;
}

void work_unref(struct work *work)
{
    if (!work || atomic_fetch_sub(&work->references, 1) != 1)
        return;
    close_fd(&work->event_fd);
    work->destroy(work);
}

static void *work_main(void *arg)
{
    struct work *work = arg;
    uint64_t one = 1;

    work->run(work);
    atomic_store(&work->done, true);
    if (write(work->event_fd, &one, sizeof(one)) < 0) { }
    work_unref(work);
    return NULL;
}

int work_start(const struct op_class *class, struct work *work, fcproc_ctx *ctx, fcproc_op **ret,
               fcproc_error *err)
{
    fcproc_op *op = NULL;
    int r = op_new(sizeof(struct work_op), class, ctx, -1, &op, err);

    if (r < 0) {
        work_unref(work);
        return r;
    }
    ((struct work_op *)op)->work = work;
    work->event_fd = eventfd(0, EFD_CLOEXEC);
    if (work->event_fd < 0)
        r = error_errno(err, class->name, errno, "no eventfd to hear of a thread by");
    else
        r = op_watch(op, work->event_fd, EPOLLIN, OP_WAKE, err);
    if (r == 0) {
        int e;

        (void)atomic_fetch_add(&work->references, 1);
        e = thread_detach(work_main, work);
        if (e < 0) {
            work_unref(work);
            r = error_errno(err, class->name, -e, "can't start a thread");
        }
    }
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}

int work_step(fcproc_op *op, fcproc_error *err)
{
    const struct work *work = ((struct work_op *)op)->work;

    if (!atomic_load(&work->done))
        return 0;
    if (work->code == 0)
        return 1;
    return error_set(err, work->code, work->error.op, work->error.sys_errno, "%s",
                     work->error.message);
}

void work_destroy(fcproc_op *op)
{
    struct work *work = ((struct work_op *)op)->work;

    if (!work)
        return;
    if (op_is_ours(op))
        atomic_store(&work->unwanted, true);
    else
        atomic_store(&work->references, 1); /* a fork has not the thread */
    work_unref(work);
}
