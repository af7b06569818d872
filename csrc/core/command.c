/* SPDX-License-Identifier: MIT
 *
 * A command that runs to its end with its output captured. The end is the process's, not the
 * pipes': a grandchild that keeps them open holds nobody up.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "private.h"

struct capture {
    int fd;
    char *data;
    size_t len, size, limit; /* limit: of the result */
    bool keep_tail;          /* else the head */
    bool truncated;
};

struct command_op {
    fcproc_op op;
    fcproc_process *process;
    struct capture out, err;
    int input_fd;
    char *input;
    size_t input_len, input_done;
    char *title; /* argv[0] ... for messages */
    int end_signal;
    int64_t grace_ms;
    unsigned without;
    int64_t patience_ns; /* process_collect's */
    bool signalled, killed;
};

/* ---- captured output ---- */

/* A tail is the end of what is in memory, which holds up to twice as much: it is moved to the front when
 * that is full, and so once for every tail's length, not for every read. */
static int capture_add(struct capture *c, const char *data, size_t len)
{
    size_t most = c->keep_tail ? c->limit + (c->limit < SIZE_MAX / 2 ? c->limit : 0) : c->limit;

    if (c->len + len > c->limit)
        c->truncated = true;
    if (!c->keep_tail && len > c->limit - c->len) {
        len = c->limit - c->len;
    } else if (c->keep_tail && len >= c->limit) {
        data += len - c->limit;
        len = c->limit;
        c->len = 0;
    } else if (c->len + len > most) {
        memmove(c->data, c->data + c->len - c->limit, c->limit);
        c->len = c->limit;
    }
    if (len == 0)
        return 0;
    if (c->len + len > c->size) {
        size_t size = c->size ? c->size : 4096;
        char *bigger;

        while (size < c->len + len)
            size *= 2;
        bigger = realloc(c->data, size);
        if (!bigger)
            return -ENOMEM;
        c->data = bigger;
        c->size = size;
    }
    memcpy(c->data + c->len, data, len);
    c->len += len;
    return 0;
}

static struct fcproc_output captured(const struct capture *c)
{
    size_t before = c->len > c->limit ? c->len - c->limit : 0;

    return (struct fcproc_output){ c->data ? c->data + before : NULL, c->len - before,
                                   c->truncated };
}

/* Reads what is there, at most so much in one step that a command which never stops printing
 * can't keep us here. */
static int capture_read(struct command_op *w, struct capture *c)
{
    char buf[16384];

    for (int rounds = 0; c->fd >= 0 && rounds < 64; rounds++) {
        ssize_t n = read(c->fd, buf, sizeof(buf));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0) {
            op_unwatch(&w->op, c->fd);
            close_fd(&c->fd);
            return 0;
        }
        if (capture_add(c, buf, (size_t)n) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* ---- its standard input ---- */

static void input_write(struct command_op *w)
{
    while (w->input_fd >= 0 && w->input_done < w->input_len) {
        /* A socket, so that MSG_NOSIGNAL spares the host a SIGPIPE. */
        ssize_t n = send(w->input_fd, w->input + w->input_done, w->input_len - w->input_done,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            break; /* it reads no more: its own affair */
        w->input_done += (size_t)n;
    }
    if (w->input_fd >= 0) {
        op_unwatch(&w->op, w->input_fd);
        (void)shutdown(w->input_fd, SHUT_WR); /* a fork of us may have a copy */
        close_fd(&w->input_fd);
    }
}

/* ---- the operation ---- */

static int command_step(fcproc_op *op, fcproc_error *err)
{
    struct command_op *w = (struct command_op *)op;
    /* Before the last read: all it wrote is there. */
    bool ended = process_collect(w->process, w->without, op, &w->patience_ns) != 0;

    input_write(w);
    if (capture_read(w, &w->out) < 0 || capture_read(w, &w->err) < 0)
        return error_nomem(err, op->class->name);
    return ended ? 1 : 0;
}

/* The wait ends early: the command must go first. */
static int command_end(fcproc_op *op)
{
    struct command_op *w = (struct command_op *)op;

    if (!w->signalled) {
        w->signalled = true;
        w->killed = w->end_signal == SIGKILL;
        (void)!fcproc_process_signal(w->process, w->end_signal, NULL);
        op->timer_ns = deadline_after_ms(w->killed ? 1000 : w->grace_ms);
        return 0;
    }
    if (op->timer_ns != NEVER)
        return 0;
    if (!w->killed) {
        w->killed = true;
        (void)!fcproc_process_signal(w->process, SIGKILL, NULL);
        op->timer_ns = deadline_after_ms(1000);
        return 0;
    }
    return 1; /* not even SIGKILL ended it within a second */
}

static void command_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct command_op *w = (const struct command_op *)op;
    bool ended = process_exit(w->process).known;

    (void)snprintf(buf, size, "'%s' (pid %d) had not ended and was %s", w->title,
                   fcproc_process_pid(w->process),
                   !ended      ? "sent SIGKILL, but is still there"
                   : w->killed ? "killed"
                               : "told to end");
}

static void command_destroy(fcproc_op *op)
{
    struct command_op *w = (struct command_op *)op;

    process_abandon(w->process);
    close_fd(&w->out.fd);
    close_fd(&w->err.fd);
    close_fd(&w->input_fd);
    free(w->out.data);
    free(w->err.data);
    free(w->input);
    free(w->title);
}

static char *command_title(const char *const *argv)
{
    char *title = malloc(200);
    size_t used = 0;

    if (!title)
        return NULL;
    title[0] = '\0';
    for (; *argv && used < 190; argv++)
        used += (size_t)snprintf(title + used, 200 - used, "%s%s", used ? " " : "", *argv);
    return title;
}

/* The child's ends are closed when this returns; ours are watched. */
static int command_start(struct command_op *w, const struct fcproc_command *spec, fcproc_error *err)
{
    struct fcproc_spawn spawn = spec->spawn;
    cleanup_fd int out = -EBADF, errs = -EBADF, in = -EBADF;
    int p[2];
    int r;

    if (pipe2(p, O_CLOEXEC) < 0)
        return error_errno(err, w->op.class->name, errno, "no pipe for a command");
    w->out.fd = p[0];
    out = p[1];
    if (pipe2(p, O_CLOEXEC) < 0)
        return error_errno(err, w->op.class->name, errno, "no pipe for a command");
    w->err.fd = p[0];
    errs = p[1];
    /* Ours only: the child's ends must block as programs expect. */
    if (fcntl(w->out.fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(w->err.fd, F_SETFL, O_NONBLOCK) < 0)
        return error_errno(err, w->op.class->name, errno, "can't set up a pipe");
    if (spawn.streams[0].kind != FCPROC_STDIO_FD)
        spawn.streams[0] = (struct fcproc_stream){ .kind = FCPROC_STDIO_NULL };
    spawn.streams[1] = (struct fcproc_stream){ .kind = FCPROC_STDIO_FD, .fd = out };
    spawn.streams[2] = (struct fcproc_stream){ .kind = FCPROC_STDIO_FD, .fd = errs };
    if (spec->input) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
            return error_errno(err, w->op.class->name, errno, "no socket for a command's input");
        w->input_fd = p[0];
        in = p[1];
        spawn.streams[0] = (struct fcproc_stream){ .kind = FCPROC_STDIO_FD, .fd = in };
    }
    r = fcproc_spawn(&spawn, &w->process, err);
    if (r < 0)
        return r;
    r = op_watch(&w->op, fcproc_process_pidfd(w->process), EPOLLIN, OP_WAKE, err);
    if (r == 0)
        r = op_watch(&w->op, w->out.fd, EPOLLIN, OP_WAKE, err);
    if (r == 0)
        r = op_watch(&w->op, w->err.fd, EPOLLIN, OP_WAKE, err);
    if (r == 0 && w->input_fd >= 0)
        r = op_watch(&w->op, w->input_fd, EPOLLOUT, OP_WAKE, err);
    return r;
}

FCPROC_API int fcproc_command_run(const struct fcproc_command *spec, fcproc_ctx *ctx,
                                  fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = "command.run",
                                           .step = command_step,
                                           .end = command_end,
                                           .destroy = command_destroy,
                                           .describe = command_describe };
    struct command_op *w;
    fcproc_op *op = NULL;
    int r = check_struct(spec, sizeof(*spec), "fcproc_command", class.name, err);

    if (r == 0) /* it stands in the other, so that it can't be of another size */
        r = check_struct(&spec->spawn, sizeof(spec->spawn), "fcproc_spawn", class.name, err);
    if (r < 0)
        return r;
    if (!spec->spawn.argv || !spec->spawn.argv[0])
        return error_set(err, FCPROC_ERR_INVALID, class.name, 0, "an empty argument list");
    if (spec->end_signal < 0 || spec->end_signal > SIGRTMAX)
        return error_set(err, FCPROC_ERR_INVALID, class.name, 0,
                         "%d is no signal to end a command with", spec->end_signal);
    r = fcproc_ctx_status(ctx, err);
    if (r < 0)
        return r;
    r = op_new(sizeof(*w), &class, ctx, spec->timeout_ms, &op, err);
    if (r < 0)
        return r;
    w = (struct command_op *)op;
    w->out = (struct capture){ .fd = -EBADF, .limit = spec->output_limit };
    w->err = (struct capture){ .fd = -EBADF, .limit = spec->output_limit, .keep_tail = true };
    w->input_fd = -EBADF;
    w->end_signal = spec->end_signal ? spec->end_signal : SIGKILL;
    w->grace_ms = spec->grace_ms;
    w->without = spec->spawn.without;
    w->title = command_title(spec->spawn.argv);
    if (spec->input) {
        w->input = malloc(spec->input_len + 1);
        if (w->input)
            memcpy(w->input, spec->input, spec->input_len);
        w->input_len = spec->input_len;
    }
    if (!w->title || (spec->input && !w->input))
        r = error_nomem(err, class.name);
    else
        r = command_start(w, spec, err);
    if (r < 0) {
        fcproc_op_close(&w->op);
        return r;
    }
    *ret = &w->op;
    return 0;
}

FCPROC_API struct fcproc_exit fcproc_command_result(const fcproc_op *op, struct fcproc_output *out,
                                                    struct fcproc_output *err_out)
{
    const struct command_op *w = (const struct command_op *)op;

    TELL(out, captured(&w->out));
    TELL(err_out, captured(&w->err));
    return process_exit(w->process);
}
