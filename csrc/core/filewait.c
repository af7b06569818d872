/* SPDX-License-Identifier: MIT
 *
 * Waiting until a file that another process writes has grown: a guest's console.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "private.h"

struct file_op {
    fcproc_op op;
    char *path;
    int64_t size;
    fcproc_process *writer;
    int inotify_fd;
    int watch;
    int64_t delay_ms; /* without inotify, the timer's */
};

enum { TIMER_FIRST_MS = 1, TIMER_MOST_MS = 50 };

static int file_step(fcproc_op *op, fcproc_error *err)
{
    struct file_op *w = (struct file_op *)op;
    bool alive = fcproc_process_alive(w->writer); /* before the look: what it wrote last counts */
    char events[4096] __attribute__((aligned(8)));
    struct stat st;

    while (w->inotify_fd >= 0 && read(w->inotify_fd, events, sizeof(events)) > 0) { }
    if (stat(w->path, &st) < 0)
        return error_errno(err, op->class->name, errno, "can't look at %s", w->path);
    if (st.st_size > w->size || !alive)
        return 1;
    if (w->watch < 0)
        op_backoff(op, &w->delay_ms, TIMER_FIRST_MS, TIMER_MOST_MS);
    return 0;
}

static void file_describe(const fcproc_op *op, char *buf, size_t size)
{
    (void)snprintf(buf, size, "%s has not grown", ((const struct file_op *)op)->path);
}

static void file_destroy(fcproc_op *op)
{
    struct file_op *w = (struct file_op *)op;

    inotify_give(op->ctx, &w->inotify_fd, w->watch);
    fcproc_process_close(w->writer);
    free(w->path);
}

FCPROC_API int fcproc_file_wait(const char *path, int64_t size, fcproc_process *writer,
                                int64_t timeout_ms, fcproc_ctx *ctx, fcproc_op **ret,
                                fcproc_error *err)
{
    static const struct op_class class = { .name = "file.wait",
                                           .step = file_step,
                                           .destroy = file_destroy,
                                           .describe = file_describe };
    struct file_op *w;
    fcproc_op *op = NULL;
    int r = op_new(sizeof(*w), &class, ctx, timeout_ms, &op, err);

    if (r < 0)
        return r;
    w = (struct file_op *)op;
    w->writer = process_ref(writer);
    w->size = size;
    w->path = strdup(path);
    /* A user has 128 instances by default; when they ran out, the timer serves. */
    w->inotify_fd = inotify_take(ctx);
    w->watch = w->path && w->inotify_fd >= 0 ? inotify_add_watch(w->inotify_fd, path, IN_MODIFY)
                                             : -1;
    if (!w->path)
        r = error_nomem(err, class.name);
    if (r == 0 && w->watch >= 0)
        r = op_watch(op, w->inotify_fd, EPOLLIN, OP_WAKE, err);
    if (r == 0)
        r = op_watch(op, fcproc_process_pidfd(writer), EPOLLIN, OP_WAKE, err);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}
