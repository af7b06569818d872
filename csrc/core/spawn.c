/* SPDX-License-Identifier: MIT
 *
 * Starts a process without a shell. The child shares our memory until it calls exec (as with
 * vfork), so that the size of the host program costs nothing; it therefore makes plain system
 * calls only, and no function that could change what the host's other threads see.
 */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "private.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

extern char **environ;

enum { CHILD_STACK_SIZE = 256 * 1024 };

enum child_step {
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

struct child_failure {
    int step;
    int sys_errno;
};

struct child {
    const struct fcproc_spawn *spec;
    const char *file;
    int streams[3];
    int report_fd; /* close-on-exec: end of file says that exec succeeded */
    int *moved;    /* room for n_fds numbers */
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
    int report;

    for (size_t i = 0; i < spec->n_fds; i++)
        if (spec->fds[i].to >= base)
            base = spec->fds[i].to + 1;
    report = fcntl(c->report_fd, F_DUPFD_CLOEXEC, base);
    if (report < 0)
        return -1;
    c->report_fd = report;
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
    (void)child_close_range(spec, (unsigned)report + 1, ~0U);
    return 0;
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
    struct child_failure failure = { .step = child_run(c) };

    failure.sys_errno = errno;
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
        return error_errno(err, "spawn", errno, "can't open %s for descriptor %d",
                           s->kind == FCPROC_STDIO_FILE ? s->path : "/dev/null", number);
    *ret_own = fd;
    return fd;
}

/* Blocks until exec succeeded (end of file) or the child said what failed. */
static int read_failure(int fd, struct child_failure *ret)
{
    ssize_t n;

    do
        n = read(fd, ret, sizeof(*ret));
    while (n < 0 && errno == EINTR);
    return n == sizeof(*ret);
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

FCPROC_API int fcproc_spawn(const struct fcproc_spawn *spec, fcproc_process **ret,
                            fcproc_error *err)
{
    static const char op[] = "spawn";
    char file[PATH_MAX];
    cleanup_fd int own0 = -EBADF, own1 = -EBADF, own2 = -EBADF;
    cleanup_fd int report_read = -EBADF, report_write = -EBADF;
    cleanup_free int *moved = NULL;
    int *own[3] = { &own0, &own1, &own2 };
    struct child child = { .spec = spec, .file = file };
    struct child_failure failure;
    fcproc_process *process = NULL;
    int report[2];
    pid_t pid = 0;
    int pidfd = -EBADF;
    int r;

    if (!spec->argv || !spec->argv[0])
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "an empty argument list");
    r = fcproc_find_executable(spec->argv[0], file, sizeof(file), err);
    if (r < 0)
        return r;
    for (int i = 0; i < 3; i++) {
        child.streams[i] = open_stream(&spec->streams[i], i, own[i], err);
        if (child.streams[i] < 0)
            return child.streams[i];
    }
    moved = calloc(spec->n_fds + 1, sizeof(*moved));
    if (!moved)
        return error_nomem(err, op);
    child.moved = moved;
    if (pipe2(report, O_CLOEXEC) < 0)
        return error_errno(err, op, errno, "no pipe to start %s", file);
    report_read = report[0];
    report_write = child.report_fd = report[1];
    r = process_new(0, -EBADF, true, &process, err); /* before there is a child to lose */
    if (r < 0)
        return r;
    r = child_start(&child, &pid, &pidfd);
    if (r < 0) {
        fcproc_process_close(process);
        return error_errno(err, op, -r, "can't start %s", file);
    }
    process_started(process, pid, pidfd);
    close_fd(&report_write);
    if (read_failure(report_read, &failure)) { /* it is in _exit by now */
        while (process_reap(process) == 0)
            if (fcproc_poll(&pidfd, NULL, 1, -1, NULL) < 0)
                break;
        fcproc_process_close(process);
        return error_errno(err, op, failure.sys_errno, "%s: the new process can't %s", file,
                           step_text[failure.step]);
    }
    *ret = process;
    return 0;
}
