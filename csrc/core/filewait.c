/* SPDX-License-Identifier: MIT
 *
 * Waiting until a file that another process writes has grown, or holds a text: a guest's console, a
 * VMM's log.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>

#include "file.h"

struct file_op {
    fcproc_op op;
    char *path;
    struct fcproc_expected expected;
    int64_t size; /* the wait for growth */
    int fd;       /* the wait for a text */
    char *text;
    size_t text_len;
    int64_t from; /* what was looked at already, but for a piece that may begin the text */
    bool found;
    fcproc_process *writer;
    int inotify_fd;
    int watch;
    int64_t delay_ms; /* the timer's */
};

enum {
    TIMER_FIRST_MS = 1,
    TIMER_MOST_MS = 50,
    /* Beside inotify, which is not told of what comes through a network file system, nor that another
     * file is at the path by now. */
    LOOK_FIRST_MS = 250,
    LOOK_MOST_MS = 1000,
    BUFFER_SIZE = 4096
};

/* 1: there; 0: not in what there is so far; -errno */
static int look_for_text(struct file_op *w)
{
    char on_stack[BUFFER_SIZE];
    cleanup_free char *on_heap = NULL;
    char *buf = on_stack;
    size_t size = sizeof(on_stack);

    if (2 * w->text_len > size) {
        size = 2 * w->text_len;
        buf = on_heap = malloc(size);
        if (!buf)
            return -ENOMEM;
    }
    for (;;) {
        ssize_t n = pread(w->fd, buf, size, w->from);

        if (n < 0)
            return -errno;
        if (memmem(buf, (size_t)n, w->text, w->text_len))
            return 1;
        if ((size_t)n < w->text_len)
            return 0;
        w->from += n - (ssize_t)w->text_len + 1;
        if ((size_t)n < size)
            return 0;
    }
}

/* 1: has it; 0: not yet; or a code. */
static int look_for_growth(const struct file_op *w, fcproc_error *err)
{
    struct stat st;
    cleanup_fd int fd = file_open_expected(w->op.class->name, w->path, O_RDONLY, &w->expected, &st,
                                           err);

    return fd < 0 ? fd : st.st_size > w->size;
}

static int look(struct file_op *w, fcproc_error *err)
{
    int r;

    if (!w->text)
        return look_for_growth(w, err);
    r = look_for_text(w);
    return r < 0 ? error_errno(err, w->op.class->name, -r, "can't look at %s", w->path) : r;
}

/* A text is looked for in the file that is open, growth in the one at the path. */
static void file_arm(struct file_op *w)
{
    char by_fd[32];
    int wd;

    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", w->fd);
    wd = inotify_add_watch(w->inotify_fd, w->text ? by_fd : w->path, IN_MODIFY);
    if (wd < 0 || wd == w->watch)
        return;
    if (w->watch >= 0)
        (void)inotify_rm_watch(w->inotify_fd, w->watch);
    w->watch = wd;
}

static int file_step(fcproc_op *op, fcproc_error *err)
{
    struct file_op *w = (struct file_op *)op;
    char events[4096] __attribute__((aligned(8)));
    bool alive;
    int r;

    /* What one read leaves, wakes again. */
    if (w->watch >= 0 && read(w->inotify_fd, events, sizeof(events)) < 0) { }
    if (op->timer_ns == NEVER && w->inotify_fd >= 0)
        file_arm(w);
    r = look(w, err);
    alive = r != 0 || fcproc_process_alive(w->writer);
    if (!alive) /* what it wrote last counts */
        r = look(w, err);
    if (r < 0)
        return r;
    w->found = r > 0;
    if (w->found || !alive)
        return 1;
    if (w->watch < 0)
        op_backoff(op, &w->delay_ms, TIMER_FIRST_MS, TIMER_MOST_MS);
    else if (op->timer_ns == NEVER)
        op_backoff(op, &w->delay_ms, LOOK_FIRST_MS, LOOK_MOST_MS);
    return 0;
}

static void file_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct file_op *w = (const struct file_op *)op;

    if (w->text)
        (void)snprintf(buf, size, "'%.100s' is not in %s", w->text, w->path);
    else
        (void)snprintf(buf, size, "%s has not grown", w->path);
}

static void file_destroy(fcproc_op *op)
{
    struct file_op *w = (struct file_op *)op;

    inotify_give(op, &w->inotify_fd, w->watch);
    fcproc_process_close(w->writer);
    close_fd(&w->fd);
    free(w->text);
    free(w->path);
}

static int file_wait_new(const char *path, const struct fcproc_expected *expected,
                         fcproc_process *writer, int64_t timeout_ms, fcproc_ctx *ctx,
                         struct file_op **ret, fcproc_error *err)
{
    static const struct op_class class = {
        .name = "file.wait", .step = file_step, .destroy = file_destroy, .describe = file_describe
    };
    static const struct fcproc_expected anything = FCPROC_EXPECTED_INIT;
    struct file_op *w;
    fcproc_op *op = NULL;
    int r = op_new(sizeof(*w), &class, ctx, timeout_ms, &op, err);

    if (r < 0)
        return r;
    w = (struct file_op *)op;
    w->fd = w->inotify_fd = -EBADF;
    w->watch = -1;
    w->expected = expected ? *expected : anything;
    w->writer = process_ref(writer);
    w->path = strdup(path);
    if (!w->path)
        r = error_nomem(err, class.name);
    /* A user has 128 instances by default; when they ran out, the timer serves. */
    if (r == 0)
        w->inotify_fd = inotify_take();
    if (r == 0 && w->inotify_fd >= 0)
        r = op_watch(op, w->inotify_fd, EPOLLIN, OP_WAKE, err);
    if (r == 0)
        r = op_watch(op, fcproc_process_pidfd(writer), EPOLLIN, OP_WAKE, err);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    *ret = w;
    return 0;
}

FCPROC_API int fcproc_file_wait(const char *path, const struct fcproc_expected *expected,
                                int64_t size, fcproc_process *writer, int64_t timeout_ms,
                                fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    struct file_op *w = NULL;
    int r = file_wait_new(path, expected, writer, timeout_ms, ctx, &w, err);

    if (r < 0)
        return r;
    w->size = size;
    *ret = &w->op;
    return 0;
}

FCPROC_API int fcproc_text_wait(const char *path, const struct fcproc_expected *expected,
                                const char *text, fcproc_process *writer, int64_t timeout_ms,
                                fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    struct file_op *w = NULL;
    struct stat st;
    int r = file_wait_new(path, expected, writer, timeout_ms, ctx, &w, err);

    if (r < 0)
        return r;
    w->text_len = strlen(text);
    w->text = strdup(text);
    w->fd = file_open_expected(w->op.class->name, path, O_RDONLY, expected, &st, err);
    if (w->fd < 0)
        r = w->fd;
    else if (!w->text)
        r = error_nomem(err, w->op.class->name);
    if (r < 0) {
        fcproc_op_close(&w->op);
        return r;
    }
    *ret = &w->op;
    return 0;
}

FCPROC_API bool fcproc_text_wait_result(const fcproc_op *op)
{
    return ((const struct file_op *)op)->found;
}
