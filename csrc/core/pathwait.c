/* SPDX-License-Identifier: MIT
 *
 * Waiting until a path is there, or a server listens at it: by inotify, with a timer beside it.
 */
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "private.h"

struct path_op {
    fcproc_op op;
    char *path;
    char *label;
    bool listening;
    fcproc_process *server; /* its end ends the wait too; NULL: nobody's */
    bool ready;             /* the answer, when it has one */
    int inotify_fd;         /* -EBADF: the timer serves */
    int watch;
    bool stands; /* the watch is where it must be, until an event says otherwise */
    int64_t delay_ms, look_ms;
};

enum {
    TIMER_FIRST_MS = 1,
    TIMER_MOST_MS = 50,
    /* A watch sees its own folder alone: not that another is at its path by now (a folder above was
     * renamed and made again, or mounted over), nor where a dangling link leads. */
    LOOK_FIRST_MS = 250,
    LOOK_MOST_MS = 1000
};

/* 1: ready; 0: missing; -ECONNREFUSED: there, but nobody listens; other -errno: never. */
static int path_check(const struct path_op *w)
{
    if (w->listening) {
        int fd = unix_connect(w->path);

        if (fd >= 0) {
            close_fd(&fd);
            return 1;
        }
        if (fd == -EAGAIN) /* its accept queue is full: it listens */
            return 1;
        return fd == -ENOENT ? 0 : fd;
    }
    struct stat st;

    if (stat(w->path, &st) == 0)
        return 1;
    return errno == ENOENT ? 0 : -errno;
}

/* Watches the deepest folder of the path that exists. 1: a new watch, so look again; 0: the
 * watch stands; -errno: no watch can be had. */
static int path_arm(struct path_op *w)
{
    struct stat st;
    size_t len = strlen(w->path);
    cleanup_free char *folder = NULL;
    bool parent = true; /* of the path itself: nothing can come between it and the watch */

    w->stands = false;
    if (lstat(w->path, &st) == 0)
        return -ELOOP; /* a link to nowhere: its target's folder is not the one we would watch */
    folder = strdup(w->path);
    if (!folder)
        return -ENOMEM;
    for (;;) {
        int wd;

        while (len > 0 && folder[len - 1] == '/')
            len--;
        while (len > 0 && folder[len - 1] != '/')
            len--;
        while (len > 1 && folder[len - 1] == '/')
            len--;
        folder[len] = '\0';
        wd = inotify_add_watch(w->inotify_fd, len ? folder : ".",
                               IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |
                                   IN_ONLYDIR);
        if (wd < 0 && errno == ENOENT && len > 1) {
            parent = false;
            continue;
        }
        if (wd < 0)
            return -errno;
        w->stands = parent || wd == w->watch;
        if (wd == w->watch)
            return 0;
        if (w->watch >= 0)
            (void)inotify_rm_watch(w->inotify_fd, w->watch);
        w->watch = wd;
        return 1;
    }
}

static int path_step(fcproc_op *op, fcproc_error *err)
{
    struct path_op *w = (struct path_op *)op;

    if (w->watch >= 0) {
        char events[4096] __attribute__((aligned(8)));

        while (read(w->inotify_fd, events, sizeof(events)) > 0)
            w->stands = false;
    }
    if (op->timer_ns == NEVER)
        w->stands = false;
    for (;;) {
        bool gone = w->server && !fcproc_process_alive(w->server);
        int r = path_check(w);

        w->ready = r > 0;
        if (r > 0 || gone)
            return 1;
        if (r == -ELOOP && w->listening)
            return error_set(err, FCPROC_ERR_CONFLICT, op->class->name, ELOOP, UNIX_IS_LINK,
                             w->path);
        if (r < 0 && r != -ECONNREFUSED)
            return error_errno(err, op->class->name, -r, "can't look at %s %s", w->label, w->path);
        if (r == 0 && w->inotify_fd >= 0) {
            r = w->stands ? 0 : path_arm(w);
            if (r > 0)
                continue; /* it may have appeared before the watch did */
            if (r == 0) {
                if (op->timer_ns == NEVER)
                    op_backoff(op, &w->look_ms, LOOK_FIRST_MS, LOOK_MOST_MS);
                return 0;
            }
        }
        op_backoff(op, &w->delay_ms, TIMER_FIRST_MS, TIMER_MOST_MS);
        return 0;
    }
}

static void path_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct path_op *w = (const struct path_op *)op;

    (void)snprintf(buf, size, "%s not ready: %s", w->label, w->path);
}

static void path_destroy(fcproc_op *op)
{
    struct path_op *w = (struct path_op *)op;

    inotify_give(op, &w->inotify_fd, w->watch);
    fcproc_process_close(w->server);
    free(w->path);
    free(w->label);
}

static int path_wait_new(const char *path, bool listening, fcproc_process *server,
                         int64_t timeout_ms, const char *label, unsigned without, fcproc_ctx *ctx,
                         fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = {
        .name = "path.wait", .step = path_step, .destroy = path_destroy, .describe = path_describe
    };
    struct path_op *w;
    fcproc_op *op = NULL;
    int r;

    if (path[0] == '\0')
        return error_set(err, FCPROC_ERR_INVALID, class.name, 0, "an empty path");
    r = op_new(sizeof(*w), &class, ctx, timeout_ms, &op, err);
    if (r < 0)
        return r;
    w = (struct path_op *)op;
    w->op.timeout_code = FCPROC_ERR_DEADLINE;
    w->listening = listening;
    w->watch = -1;
    w->inotify_fd = -EBADF;
    w->path = strdup(path);
    w->label = strdup(label ? label : "path");
    w->server = server ? process_ref(server) : NULL;
    if (!w->path || !w->label) {
        fcproc_op_close(&w->op);
        return error_nomem(err, class.name);
    }
    if (server)
        r = op_watch(&w->op, fcproc_process_pidfd(server), EPOLLIN, OP_WAKE, err);
    if (r < 0) {
        fcproc_op_close(&w->op);
        return r;
    }
    if (!(without & FCPROC_WITHOUT_INOTIFY)) {
        /* A user has 128 instances by default; when they ran out, the timer serves. */
        w->inotify_fd = inotify_take();
        if (w->inotify_fd >= 0)
            r = op_watch(&w->op, w->inotify_fd, EPOLLIN, OP_WAKE, err);
        if (r < 0) {
            fcproc_op_close(&w->op);
            return r;
        }
    }
    *ret = &w->op;
    return 0;
}

FCPROC_API int fcproc_path_wait(const char *path, bool listening, int64_t timeout_ms,
                                const char *label, unsigned without, fcproc_ctx *ctx,
                                fcproc_op **ret, fcproc_error *err)
{
    return path_wait_new(path, listening, NULL, timeout_ms, label, without, ctx, ret, err);
}

FCPROC_API int fcproc_server_wait(const char *path, fcproc_process *server, int64_t timeout_ms,
                                  const char *label, unsigned without, fcproc_ctx *ctx,
                                  fcproc_op **ret, fcproc_error *err)
{
    return path_wait_new(path, true, server, timeout_ms, label, without, ctx, ret, err);
}

FCPROC_API bool fcproc_server_wait_result(const fcproc_op *op)
{
    return ((const struct path_op *)op)->ready;
}
