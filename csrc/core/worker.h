/* SPDX-License-Identifier: MIT
 *
 * Operations whose work can only block: a thread of its own does it, and wakes who waits. To close
 * the operation stops the wait; the work itself ends when it looks whether it is still wanted.
 */
#ifndef FCPROC_WORKER_H
#define FCPROC_WORKER_H

#include "private.h"

/* Shared by the operation and its thread; the last one frees it. The first member of what is worked
 * on. */
struct work {
    /* In the thread. What fails it says by filling code and error. */
    void (*run)(struct work *work);
    /* Frees all of it, and closes its descriptors. */
    void (*destroy)(struct work *work);
    atomic_uint references;
    atomic_bool done, unwanted;
    int event_fd;
    int code;
    fcproc_error error;
};

struct work_op {
    fcproc_op op;
    struct work *work;
};

/* size bytes, of which the first are a struct work and the rest zero; NULL: no memory. */
void *work_new(size_t size, const char *op, void (*run)(struct work *),
               void (*destroy)(struct work *));
/* Drops it, as long as no operation has it. */
void work_unref(struct work *work);
/* Starts the thread. The work is the operation's, also when it fails. class->step and ->destroy are
 * work_step and work_destroy. */
int work_start(const struct op_class *class, struct work *work, fcproc_ctx *ctx, fcproc_op **ret,
               fcproc_error *err);
int work_step(fcproc_op *op, fcproc_error *err);
void work_destroy(fcproc_op *op);

static inline const void *work_of(const fcproc_op *op)
{
    return ((const struct work_op *)op)->work;
}

#endif
