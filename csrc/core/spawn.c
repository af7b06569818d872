/* SPDX-License-Identifier: MIT
 *
 * Starts a process without a shell. The child shares our memory until it calls exec (as with
 * vfork), so that the size of the host program costs nothing; it therefore makes plain system
 * calls only, and no function that could change what the host's other threads see.
 */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "private.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

extern char **environ;

static const char op_name[] = "spawn";

enum { CHILD_STACK_SIZE = 256 * 1024 };

enum child_step {
    STEP_READY, /* no failure: it waits at the gate */
    STEP_CLONE, /* said by the thread that starts it */
    STEP_SESSION,
    STEP_NETNS,
    STEP_FDS,
    STEP_CWD,
    STEP_GROUP,
    STEP_USER,
    STEP_EXEC
};
static const char *const step_text[] = {
    [STEP_SESSION] = "start a session",
    [STEP_NETNS] = "enter the network namespace",
    [STEP_FDS] = "set up its descriptors",
    [STEP_CWD] = "enter its working folder",
    [STEP_GROUP] = "take its group",
    [STEP_USER] = "take its user",
    [STEP_EXEC] = "execute",
};

struct child_report {
    int step;
    int value; /* errno, or its pid when it is ready */
};

struct child {
    const struct fcproc_spawn *spec;
    const char *file;
    int streams[3];
    int report_fd; /* close-on-exec: end of file says that exec succeeded */
    int gate_fd;   /* negative: no gate. A byte opens it, end of file ends the child */
    int *moved;    /* room for n_fds numbers */
};

/* What a child at its gate needs. A thread of its own is in clone(2) until exec, as the caller
 * would be without a gate, so that the child shares nothing that somebody else changes. */
struct spawn_gate {
    pthread_t thread;
    struct fcproc_spawn spec;
    struct child child;
    pid_t pid;
    int pidfd;
    int report_read, report_write; /* the thread's to close */
    int gate_read, gate_write;
    char file[PATH_MAX];
    void *strings; /* argv and envp, which the caller's table may not outlive */
};

/* ---- in the child: system calls only ---- */

#define CHILD_CODE __attribute__((no_sanitize("address", "undefined", "thread")))

CHILD_CODE static int child_close_range(const struct fcproc_spawn *spec, unsigned from, unsigned to)
{
    if (from > to)
        return 0;
    if (!(spec->without & FCPROC_WITHOUT_CLOSE_RANGE) &&
        syscall(SYS_close_range, from, to, 0) == 0)
        return 0;
    /* FIXME(kernel >= 5.9): no close_range, or a filter refuses it. */
    for (unsigned fd = from; fd <= to && fd < 65536; fd++)
        (void)close((int)fd);
    return 0;
}

/* Moves the given descriptors above all target numbers first, so that none overwrites another,
 * then to their places, and closes all the rest. */
CHILD_CODE static int child_set_fds(struct child *c)
{
    const struct fcproc_spawn *spec = c->spec;
    int base = 3;
    int report, gate;

    for (size_t i = 0; i < spec->n_fds; i++)
        if (spec->fds[i].to >= base)
            base = spec->fds[i].to + 1;
    report = fcntl(c->report_fd, F_DUPFD_CLOEXEC, base);
    if (report < 0)
        return -1;
    c->report_fd = gate = report;
    if (c->gate_fd >= 0 && (c->gate_fd = gate = fcntl(c->gate_fd, F_DUPFD_CLOEXEC, report)) < 0)
        return -1;
    for (size_t i = 0; i < spec->n_fds; i++)
        if ((c->moved[i] = fcntl(spec->fds[i].from, F_DUPFD_CLOEXEC, base)) < 0)
            return -1;
    for (int i = 0; i < 3; i++)
        if ((c->streams[i] = fcntl(c->streams[i], F_DUPFD_CLOEXEC, base)) < 0)
            return -1;
    for (int i = 0; i < 3; i++)
        if (dup2(c->streams[i], i) < 0)
            return -1;
    (void)child_close_range(spec, 3, (unsigned)base - 1);
    for (size_t i = 0; i < spec->n_fds; i++)
        if (dup2(c->moved[i], spec->fds[i].to) < 0)
            return -1;
    (void)child_close_range(spec, (unsigned)base, (unsigned)report - 1);
    (void)child_close_range(spec, (unsigned)report + 1, (unsigned)gate - 1);
    (void)child_close_range(spec, (unsigned)gate + 1, ~0U);
    return 0;
}

/* Nothing is executed until the other side has written down that we exist. It is gone: so are we. */
CHILD_CODE static void child_wait_at_gate(struct child *c)
{
    struct child_report ready = { .step = STEP_READY, .value = (int)syscall(SYS_getpid) };
    char byte;
    ssize_t n;

    if (write(c->report_fd, &ready, sizeof(ready)) < 0)
        _exit(127);
    do
        n = read(c->gate_fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(127);
}

CHILD_CODE static void child_reset_signals(void)
{
    /* The kernel's own struct; SIG_DFL and no flags are zeros on every machine. By a bare call,
     * since libc's sigaction refuses 32 and 33, which a parent may have left ignored. */
    static const uint64_t kernel_default[8];
    sigset_t empty;

    /* Handlers must go before signals are unblocked: they would run in shared memory. */
    for (int sig = 1; sig < 65; sig++)
        (void)syscall(SYS_rt_sigaction, sig, kernel_default, NULL, sizeof(uint64_t));
    (void)sigemptyset(&empty);
    (void)sigprocmask(SIG_SETMASK, &empty, NULL);
}

/* Returns the step that failed with errno set; does not return from a successful exec. The ids
 * are set by bare system calls, since libc's functions would change all the host's threads. */
CHILD_CODE static int child_run(struct child *c)
{
    const struct fcproc_spawn *spec = c->spec;

    if (spec->umask >= 0)
        (void)umask((mode_t)spec->umask);
    if (spec->new_session && setsid() < 0)
        return STEP_SESSION;
    if (spec->netns && setns(fcproc_netns_fd(spec->netns), CLONE_NEWNET) < 0)
        return STEP_NETNS;
    if (child_set_fds(c) < 0)
        return STEP_FDS;
    if (spec->cwd && chdir(spec->cwd) < 0) /* the child's own: memory is shared, this is not */
        return STEP_CWD;
    if (c->gate_fd >= 0)
        child_wait_at_gate(c);
    if ((spec->uid >= 0 || spec->gid >= 0) && geteuid() == 0 &&
        syscall(SYS_setgroups, 0UL, NULL) < 0)
        return STEP_GROUP;
    if (spec->gid >= 0 && syscall(SYS_setresgid, (gid_t)spec->gid, (gid_t)spec->gid,
                                  (gid_t)spec->gid) < 0)
        return STEP_GROUP;
    if (spec->uid >= 0 && syscall(SYS_setresuid, (uid_t)spec->uid, (uid_t)spec->uid,
                                  (uid_t)spec->uid) < 0)
        return STEP_USER;
    child_reset_signals();
    (void)execve(c->file, (char *const *)(uintptr_t)spec->argv,
                 spec->envp ? (char *const *)(uintptr_t)spec->envp : environ);
    return STEP_EXEC;
}

CHILD_CODE static int child_main(void *arg)
{
    struct child *c = arg;
    struct child_report failure = { .step = child_run(c) };

    failure.value = errno;
    if (write(c->report_fd, &failure, sizeof(failure)) < 0) { }
    return 127; /* becomes _exit(127) in clone's own code */
}

/* ---- in the parent ---- */

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

/* Blocks until exec succeeded (end of file: false) or the child said something. */
static bool read_report(int fd, struct child_report *ret)
{
    ssize_t n;

    do
        n = read(fd, ret, sizeof(*ret));
    while (n < 0 && errno == EINTR);
    return n == sizeof(*ret);
}

/* Waits for a child that is in _exit. */
static void reap(fcproc_process *p)
{
    int pidfd = fcproc_process_pidfd(p);

    while (process_reap(p) == 0)
        if (fcproc_poll(&pidfd, NULL, 1, -1, NULL) < 0)
            break;
}

static int report_failure(const char *file, const struct child_report *report, fcproc_error *err)
{
    if (report->step == STEP_CLONE)
        return error_errno(err, op_name, report->value, "can't start %s", file);
    return error_errno(err, op_name, report->value, "%s: the new process can't %s", file,
                       step_text[report->step]);
}

static int child_start(struct child *c, pid_t *ret_pid, int *ret_pidfd)
{
    sigset_t all, before;
    int pid, e;
    char *stack = mmap(NULL, CHILD_STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

    if (stack == MAP_FAILED)
        return -errno;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = clone(child_main, stack + CHILD_STACK_SIZE,
                CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, c, ret_pidfd);
    e = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)munmap(stack, CHILD_STACK_SIZE);
    if (pid < 0)
        return -e;
    *ret_pid = pid;
    return 0;
}

/* ---- a child that waits at a gate ---- */

static void gate_free(struct spawn_gate *g)
{
    int *const fds[] = { &g->report_read, &g->report_write, &g->gate_read, &g->gate_write };

    for (size_t i = 0; i < ELEMENTS(fds); i++)
        close_fd(fds[i]);
    free(g->child.moved);
    free(g->strings);
    free(g);
}

static void *gate_thread(void *arg)
{
    struct spawn_gate *g = arg;
    int r = child_start(&g->child, &g->pid, &g->pidfd);

    if (r < 0) {
        struct child_report failure = { .step = STEP_CLONE, .value = -r };

        if (write(g->report_write, &failure, sizeof(failure)) < 0) { }
    }
    close_fd(&g->report_write); /* end of file: it has executed, or is gone */
    return NULL;
}

/* Copies a list of strings behind *at, the pointers first. */
static const char *const *copy_list(const char *const *list, size_t n, char **at)
{
    const char **copy = (const char **)(void *)*at;

    *at += (n + 1) * sizeof(char *);
    for (size_t i = 0; i < n; i++) {
        copy[i] = *at;
        *at = stpcpy(*at, list[i]) + 1;
    }
    copy[n] = NULL;
    *at += -(uintptr_t)*at % sizeof(char *);
    return copy;
}

static size_t list_size(const char *const *list, size_t *ret_n)
{
    size_t n = 0, size = 2 * sizeof(char *);

    for (; list && list[n]; n++)
        size += sizeof(char *) + strlen(list[n]) + 1;
    *ret_n = n;
    return size;
}

static int gate_new(const struct fcproc_spawn *spec, const struct child *child,
                    struct spawn_gate **ret)
{
    struct spawn_gate *g = calloc(1, sizeof(*g));
    size_t n_args, n_env;
    size_t size = list_size(spec->argv, &n_args) + list_size(spec->envp, &n_env);
    int report[2] = { -EBADF, -EBADF }, gate[2] = { -EBADF, -EBADF };
    char *at;

    if (!g)
        return -ENOMEM;
    g->spec = *spec;
    g->child = *child;
    g->child.spec = &g->spec;
    g->child.file = g->file;
    (void)snprintf(g->file, sizeof(g->file), "%s", child->file);
    g->child.moved = calloc(spec->n_fds + 1, sizeof(int));
    g->strings = at = malloc(size);
    if (!at || !g->child.moved || pipe2(report, O_CLOEXEC) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0) {
        int r = at && g->child.moved ? -errno : -ENOMEM;

        g->report_read = report[0];
        g->report_write = report[1];
        g->gate_read = g->gate_write = -EBADF;
        gate_free(g);
        return r;
    }
    g->spec.argv = copy_list(spec->argv, n_args, &at);
    if (spec->envp)
        g->spec.envp = copy_list(spec->envp, n_env, &at);
    g->report_read = report[0];
    g->report_write = g->child.report_fd = report[1];
    g->gate_read = g->child.gate_fd = gate[0];
    g->gate_write = gate[1];
    *ret = g;
    return 0;
}

/* Starts the child and returns when it waits at the gate. */
static int spawn_gated(const struct fcproc_spawn *spec, const struct child *child,
                       fcproc_process *process, fcproc_error *err)
{
    struct spawn_gate *g = NULL;
    struct child_report report;
    int r = gate_new(spec, child, &g);
    bool said;

    if (r == 0)
        r = thread_start(&g->thread, PTHREAD_CREATE_JOINABLE, gate_thread, g);
    if (r < 0) {
        if (g)
            gate_free(g);
        return error_errno(err, op_name, -r, "can't start %s", child->file);
    }
    said = read_report(g->report_read, &report);
    if (said && report.step == STEP_READY) {
        process_started(process, (pid_t)report.value, g->pidfd);
        process_set_gate(process, g);
        return 0;
    }
    (void)pthread_join(g->thread, NULL);
    if (!said || report.step != STEP_CLONE) {
        process_started(process, g->pid, g->pidfd);
        reap(process);
    }
    r = said ? report_failure(child->file, &report, err)
             : error_set(err, FCPROC_ERR_SYSTEM, op_name, 0, "%s: the new process was killed",
                         child->file);
    gate_free(g);
    return r;
}

void spawn_gate_abandon(struct spawn_gate *g, fcproc_process *p)
{
    close_fd(&g->gate_write);
    (void)pthread_join(g->thread, NULL);
    reap(p);
    gate_free(g);
}

FCPROC_API int fcproc_process_release(fcproc_process *p, fcproc_error *err)
{
    struct spawn_gate *g = process_take_gate(p);
    struct child_report report;
    int r = 0;

    if (!g)
        return 0;
    /* A child that was killed at its gate has no other end: its exit says the rest. */
    (void)send(g->gate_write, "", 1, MSG_NOSIGNAL);
    close_fd(&g->gate_write);
    if (read_report(g->report_read, &report)) {
        r = report_failure(g->file, &report, err);
        reap(p);
    }
    (void)pthread_join(g->thread, NULL);
    gate_free(g);
    return r;
}

/* ---- starting ---- */

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
    if (!read_report(report_read, &report))
        return 0;
    reap(process); /* it is in _exit by now */
    return report_failure(child->file, &report, err);
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
