/* SPDX-License-Identifier: MIT
 *
 * Starts a process without a shell.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/wait.h>

#include "spawn.h"

static const char op_name[] = "spawn";

static const char *const step_text[] = {
    [STEP_SESSION] = "start a session",
    [STEP_NETNS] = "enter the network namespace",
    [STEP_FDS] = "set up its descriptors",
    [STEP_CWD] = "enter its working folder",
    [STEP_GROUP] = "take its group",
    [STEP_USER] = "take its user",
    [STEP_EXEC] = "execute",
};

static int open_stream(const struct fcproc_stream *s, int number, int *ret_own, fcproc_error *err)
{
    int fd;

    switch (s->kind) {
    case FCPROC_STDIO_INHERIT:
        return number;
    case FCPROC_STDIO_FD:
        return s->fd;
    case FCPROC_STDIO_FILE:
        fd = number == 0 ? open(s->path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
                         : open(s->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
        break;
    case FCPROC_STDIO_NULL:
    default:
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        break;
    }
    if (fd < 0)
        return error_errno(err, op_name, errno, "can't open %s for descriptor %d",
                           s->kind == FCPROC_STDIO_FILE ? s->path : "/dev/null", number);
    *ret_own = fd;
    return fd;
}

static bool is_same_file(const struct fcproc_stream *a, const struct fcproc_stream *b)
{
    return a->kind == FCPROC_STDIO_FILE && b->kind == FCPROC_STDIO_FILE &&
           strcmp(a->path, b->path) == 0;
}

bool spawn_read_report(int fd, struct child_report *ret)
{
    ssize_t n;

    do
        n = read(fd, ret, sizeof(*ret));
    while (n < 0 && errno == EINTR);
    return n == sizeof(*ret);
}

void spawn_reap(fcproc_process *p)
{
    int pidfd = fcproc_process_pidfd(p);

    while (process_reap(p) == 0)
        if (fcproc_poll(&pidfd, NULL, 1, -1, NULL) < 0)
            break;
}

int spawn_failure(const char *file, const struct child_report *report, fcproc_error *err)
{
    if (report->step == STEP_CLONE)
        return error_errno(err, op_name, report->value, "can't start %s", file);
    return error_errno(err, op_name, report->value, "%s: the new process can't %s", file,
                       step_text[report->step]);
}

static int spawn_now(struct child *child, fcproc_process *process, fcproc_error *err)
{
    cleanup_fd int report_read = -EBADF, report_write = -EBADF;
    cleanup_free int *moved = calloc(child->spec->n_fds + 1, sizeof(*moved));
    struct child_report report;
    int pair[2];
    pid_t pid = 0;
    int pidfd = -EBADF;
    int r;

    if (!moved)
        return error_nomem(err, op_name);
    child->moved = moved;
    if (pipe2(pair, O_CLOEXEC) < 0)
        return error_errno(err, op_name, errno, "no pipe to start %s", child->file);
    report_read = pair[0];
    report_write = child->report_fd = pair[1];
    r = child_start(child, &pid, &pidfd);
    if (r < 0)
        return error_errno(err, op_name, -r, "can't start %s", child->file);
    process_started(process, pid, pidfd);
    close_fd(&report_write);
    if (!spawn_read_report(report_read, &report))
        return 0;
    spawn_reap(process); /* it is in _exit by now */
    return spawn_failure(child->file, &report, err);
}

FCPROC_API int fcproc_spawn(const struct fcproc_spawn *spec, fcproc_process **ret,
                            fcproc_error *err)
{
    char file[PATH_MAX];
    cleanup_fd int own0 = -EBADF, own1 = -EBADF, own2 = -EBADF;
    int *own[3] = { &own0, &own1, &own2 };
    struct child child = { .spec = spec, .file = file, .gate_fd = -EBADF };
    fcproc_process *process = NULL;
    int r;

    if (!spec->argv || !spec->argv[0])
        return error_set(err, FCPROC_ERR_INVALID, op_name, 0, "an empty argument list");
    r = fcproc_find_executable(spec->argv[0], file, sizeof(file), err);
    if (r < 0)
        return r;
    for (int i = 0; i < 3; i++) {
        if (i == 2 && is_same_file(&spec->streams[1], &spec->streams[2])) {
            child.streams[2] = child.streams[1];
            continue;
        }
        child.streams[i] = open_stream(&spec->streams[i], i, own[i], err);
        if (child.streams[i] < 0)
            return child.streams[i];
    }
    r = process_new(0, -EBADF, true, &process, err); /* before there is a child to lose */
    if (r < 0)
        return r;
    r = spec->gate ? spawn_gated(spec, &child, process, err) : spawn_now(&child, process, err);
    if (r < 0) {
        fcproc_process_close(process);
        return r;
    }
    *ret = process;
    return 0;
}
