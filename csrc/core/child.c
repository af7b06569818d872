/* SPDX-License-Identifier: MIT
 *
 * A child between clone and exec. It shares our memory until then (as with vfork), so that the size
 * of the host program costs nothing; it therefore makes plain system calls only, and no function
 * that could change what the host's other threads see.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "spawn.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

extern char **environ;

enum { CHILD_STACK_SIZE = 256 * 1024 };

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

int child_start(struct child *c, pid_t *ret_pid, int *ret_pidfd)
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
