/* SPDX-License-Identifier: MIT
 *
 * What is typed, for a guest's console: a VMM gets one end of a pipe as its stdin (Firecracker reads
 * a terminal or a pipe, and no socket), and what comes from our input goes into the other. The terminal itself is never the VMM's, so its settings are
 * ours alone, and are put back when the keys are closed.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <termios.h>

#include "private.h"

struct fcproc_keys {
    int reader, writer; /* the VMM's end, and ours */
    int terminal;       /* whose settings are to be put back; -1: none */
    struct termios saved;
    pid_t pid; /* who changed them: a fork does not put them back */
};

enum { ESCAPE = 0x1d, CHUNK = 1024, ROUNDS = 16 }; /* Ctrl-] */

struct keys_op {
    fcproc_op op;
    int from, to;
    int reader;       /* held, so that the VMM's end makes no SIGPIPE of what is still typed */
    bool escapes;     /* from is a terminal: Ctrl-] ends it */
    bool unwatchable; /* from is a regular file, which is always ready */
    bool last;        /* nothing comes after what is in the buffer */
    bool escaped;
    size_t begin, end; /* of what is still to be written */
    char buffer[CHUNK];
};

FCPROC_API int fcproc_keys_new(fcproc_keys **ret, fcproc_error *err)
{
    fcproc_keys *k = calloc(1, sizeof(*k));
    int ends[2];

    if (!k)
        return error_nomem(err, "keys");
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        int e = errno;

        free(k);
        return error_errno(err, "keys", e, "no pipe for a console's input");
    }
    *k = (fcproc_keys){ .reader = ends[0], .writer = ends[1], .terminal = -1, .pid = getpid() };
    *ret = k;
    return 0;
}

FCPROC_API int fcproc_keys_reader(const fcproc_keys *k)
{
    return k->reader;
}

/* From the background, too, where the kernel would stop us (SIGTTOU) for it. */
static int set_terminal(int fd, const struct termios *wanted)
{
    sigset_t ttou, saved;
    int r;

    (void)sigemptyset(&ttou);
    (void)sigaddset(&ttou, SIGTTOU);
    (void)pthread_sigmask(SIG_BLOCK, &ttou, &saved);
    do
        r = tcsetattr(fd, TCSADRAIN, wanted);
    while (r < 0 && errno == EINTR);
    (void)pthread_sigmask(SIG_SETMASK, &saved, NULL);
    return r;
}

/* Each key goes to the guest, Ctrl-C too. What is written keeps its line ends: our own messages are
 * on that terminal as well. */
static int make_raw(fcproc_keys *k, int fd, fcproc_error *err)
{
    struct termios raw;

    if (isatty(fd) != 1)
        return 0;
    if (tcgetattr(fd, &k->saved) < 0)
        return error_errno(err, "keys.begin", errno, "can't read the terminal's settings");
    raw = k->saved;
    cfmakeraw(&raw);
    raw.c_oflag = k->saved.c_oflag;
    k->terminal = fd;
    if (set_terminal(fd, &raw) < 0)
        return error_errno(err, "keys.begin", errno, "can't set the terminal");
    return 0;
}

static int keys_step(fcproc_op *op, fcproc_error *err)
{
    struct keys_op *o = (struct keys_op *)op;

    for (int i = 0; i < ROUNDS; i++) {
        struct pollfd p = { .fd = o->from, .events = POLLIN };
        char *escape;
        ssize_t n;

        if (o->begin < o->end) {
            n = write(o->to, o->buffer + o->begin, o->end - o->begin);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) { /* the guest does not read */
                if (!o->unwatchable)
                    op_unwatch(op, o->from);
                return op_watch(op, o->to, EPOLLOUT, OP_WAKE, err);
            }
            if (n < 0)
                return error_errno(err, "keys.copy", errno, "can't write to the console's input");
            o->begin += (size_t)n;
            continue;
        }
        if (o->last)
            return 1;
        op_unwatch(op, o->to);
        if (!o->unwatchable && op_watch(op, o->from, EPOLLIN, OP_WAKE, NULL) < 0) {
            if (errno != EPERM)
                return error_errno(err, "keys.copy", errno, "can't watch descriptor %d", o->from);
            o->unwatchable = true;
        }
        if (poll(&p, 1, 0) <= 0)
            return 0;
        n = read(o->from, o->buffer, CHUNK);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n <= 0) /* also a terminal that was hung up */
            return 1;
        escape = o->escapes ? memchr(o->buffer, ESCAPE, (size_t)n) : NULL;
        o->begin = 0;
        o->end = escape ? (size_t)(escape - o->buffer) : (size_t)n;
        o->last = o->escaped = escape != NULL;
    }
    op->timer_ns = now_ns(); /* there may be more */
    return 0;
}

static void keys_describe(const fcproc_op *op, char *buf, size_t size)
{
    (void)snprintf(buf, size, "descriptor %d has no end", ((const struct keys_op *)op)->from);
}

static void keys_destroy(fcproc_op *op)
{
    close_fd(&((struct keys_op *)op)->to); /* the guest's console has no input any more */
    close_fd(&((struct keys_op *)op)->reader);
}

FCPROC_API int fcproc_keys_copy(fcproc_keys *k, int fd, int64_t timeout_ms, fcproc_ctx *ctx,
                                fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = {
        .name = "keys.copy", .step = keys_step, .destroy = keys_destroy, .describe = keys_describe
    };
    struct keys_op *o;
    fcproc_op *op = NULL;
    int r = check_maker(k->pid, class.name, err);

    if (r < 0)
        return r;
    if (k->writer < 0)
        return error_set(err, FCPROC_ERR_CLOSED, class.name, 0,
                         "these keys were passed on already");
    r = op_new(sizeof(*o), &class, ctx, timeout_ms, &op, err);
    if (r < 0)
        return r;
    o = (struct keys_op *)op;
    o->from = fd;
    o->to = o->reader = -EBADF;
    r = make_raw(k, fd, err);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    o->escapes = k->terminal >= 0;
    o->reader = take_fd(&k->reader);
    o->to = take_fd(&k->writer);
    *ret = op;
    return 0;
}

FCPROC_API bool fcproc_keys_escaped(const fcproc_op *op)
{
    return ((const struct keys_op *)op)->escaped;
}

FCPROC_API void fcproc_keys_close(fcproc_keys *k)
{
    if (!k)
        return;
    if (k->terminal >= 0 && k->pid == getpid())
        (void)set_terminal(k->terminal, &k->saved); /* hung up: there is nothing to put back */
    close_fd(&k->reader);
    close_fd(&k->writer);
    free(k);
}
