/* SPDX-License-Identifier: MIT
 *
 * A child between clone and exec. It shares our memory until then, so that the size of the host
 * program costs nothing, and while it waits at its gate all our threads go on. It therefore writes
 * to nothing but its stack and its struct child, calls no function but those here (libc's would
 * use the errno of one of our threads), and has every signal blocked until no handler is left.
 * One that takes another user or group has a copy: the first change of an id makes the memory one
 * that can't be traced or dumped, for good, and that must not be ours.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>

#include "rawcall.h"
#include "spawn.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

enum { KERNEL_SIGNALS = 64, KERNEL_SIGSET_SIZE = KERNEL_SIGNALS / 8 };

/* 127, as a shell says when it can't execute something. */
RAW_CODE static _Noreturn void child_end(void)
{
    for (;;)
        (void)raw_call(SYS_exit_group, 127);
}

/* The step has failed if r is negative: its errno is told, and the child ends. */
RAW_CODE static void child_check(const struct child *c, enum child_step step, long r)
{
    struct child_report failure = { .step = (int)step, .value = (int)-r };

    if (r >= 0)
        return;
    (void)raw_call(SYS_write, c->channel, &failure, sizeof(failure));
    child_end();
}

RAW_CODE static void child_close_range(const struct fcproc_spawn *spec, unsigned from, unsigned to)
{
    if (from > to)
        return;
    if (!(spec->without & FCPROC_WITHOUT_CLOSE_RANGE) &&
        raw_call(SYS_close_range, from, to, 0) == 0)
        return;
    /* FIXME(kernel >= 5.9): no close_range, or a filter refuses it. */
    for (unsigned fd = from; fd <= to && fd < 65536; fd++)
        (void)raw_call(SYS_close, fd);
}

RAW_CODE static int child_move_above(const struct child *c, int fd, int least)
{
    long moved = raw_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, least);

    child_check(c, STEP_FDS, moved);
    return (int)moved;
}

/* To be read, a FIFO without a writer opens at once, and would be at its end. tee(2) takes nothing
 * out, and says EAGAIN when there is a writer. */
RAW_CODE static void child_check_writer(const struct child *c, int fd)
{
    int scratch[2];

    if (raw_call(SYS_fcntl, fd, F_GETPIPE_SZ) < 0)
        return;
    child_check(c, STEP_STDIN, raw_call(SYS_pipe2, scratch, O_CLOEXEC | O_NONBLOCK));
    if (raw_call(SYS_tee, fd, scratch[1], 1, SPLICE_F_NONBLOCK) == 0)
        child_check(c, STEP_STDIN, -ENXIO);
    (void)raw_call(SYS_close, scratch[0]);
    (void)raw_call(SYS_close, scratch[1]);
}

/* O_NONBLOCK, since a FIFO whose other end nobody has would hold us here, and our maker with us,
 * deaf to every signal; it is refused. The program gets a description that blocks, as it expects. */
RAW_CODE static int child_open_file(const struct child *c, int number)
{
    int flags = number == 0 ? O_RDONLY : O_WRONLY | O_CREAT | O_APPEND;
    enum child_step step = (enum child_step)((int)STEP_STDIN + number);
    long fd = raw_call(SYS_openat, AT_FDCWD, c->paths[number],
                       flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);

    child_check(c, step, fd);
    if (number == 0)
        child_check_writer(c, (int)fd);
    child_check(c, step, raw_call(SYS_fcntl, fd, F_SETFL, flags & O_APPEND));
    return (int)fd;
}

/* Here, and not in the caller, so that it has nothing to close again. */
RAW_CODE static void child_open_streams(struct child *c)
{
    for (int i = 0; i < 3; i++) {
        if (c->paths[i] && c->spec->streams[i].kind == FCPROC_STDIO_FILE) {
            c->streams[i] = child_open_file(c, i);
        } else if (c->paths[i]) {
            long fd = raw_call(SYS_openat, AT_FDCWD, c->paths[i], O_RDWR | O_NOCTTY | O_CLOEXEC, 0);

            child_check(c, (enum child_step)((int)STEP_STDIN + i), fd);
            c->streams[i] = (int)fd;
        }
    }
    if (c->joined)
        c->streams[2] = c->streams[1];
}

/* Moves the given descriptors above all target numbers first, so that none overwrites another,
 * then to their places, and closes all the rest: another child's channel would be kept open by us
 * as long as we wait at our gate. */
RAW_CODE static void child_set_fds(struct child *c)
{
    const struct fcproc_spawn *spec = c->spec;
    int base = 3;

    for (size_t i = 0; i < spec->n_fds; i++)
        if (spec->fds[i].to >= base)
            base = spec->fds[i].to + 1;
    c->channel = child_move_above(c, c->channel, base);
    for (size_t i = 0; i < spec->n_fds; i++)
        c->moved[i] = child_move_above(c, spec->fds[i].from, base);
    for (int i = 0; i < 3; i++)
        c->streams[i] = child_move_above(c, c->streams[i], base);
    /* dup3, since dup2 is not on every machine: no number is its own target. */
    for (int i = 0; i < 3; i++)
        child_check(c, STEP_FDS, raw_call(SYS_dup3, c->streams[i], i, 0));
    child_close_range(spec, 3, (unsigned)base - 1);
    for (size_t i = 0; i < spec->n_fds; i++)
        child_check(c, STEP_FDS, raw_call(SYS_dup3, c->moved[i], spec->fds[i].to, 0));
    child_close_range(spec, (unsigned)base, (unsigned)c->channel - 1);
    child_close_range(spec, (unsigned)c->channel + 1, ~0U);
}

/* Nothing is executed until the other side has written down that we exist. It is gone: so are we. */
RAW_CODE static void child_wait_at_gate(const struct child *c)
{
    char byte;
    long n;

    do
        n = raw_call(SYS_read, c->channel, &byte, 1);
    while (n == -EINTR);
    if (n != 1)
        child_end();
}

/* Handlers must go before signals are unblocked: they would run in shared memory. Those of 32 and
 * 33 too, which libc's functions refuse, and a parent may have left ignored. */
RAW_CODE static void child_reset_signals(void)
{
    /* The kernel's own struct; SIG_DFL and no flags are zeros on every machine. */
    static const uint64_t default_action[8], none;

    for (int sig = 1; sig <= KERNEL_SIGNALS; sig++)
        (void)raw_call(SYS_rt_sigaction, sig, default_action, 0, KERNEL_SIGSET_SIZE);
    (void)raw_call(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, KERNEL_SIGSET_SIZE);
}

/* Before the ids, since root may raise the hard limit. */
RAW_CODE static void child_set_limit(const struct child *c)
{
    struct rlimit64 limit = { (rlim64_t)c->spec->no_file, (rlim64_t)c->spec->no_file }, ours;
    long r;

    if (c->spec->no_file == 0)
        return;
    r = raw_call(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0);
    if (r == -EPERM) {
        child_check(c, STEP_LIMIT, raw_call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, &ours));
        limit.rlim_cur = limit.rlim_max = ours.rlim_max;
        r = raw_call(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0);
    }
    child_check(c, STEP_LIMIT, r);
}

RAW_CODE static bool child_sets_ids(const struct fcproc_spawn *spec)
{
    return spec->uid >= 0 || spec->gid >= 0;
}

/* Does it take an id that it does not have? */
RAW_CODE static bool child_changes_ids(const struct fcproc_spawn *spec)
{
    uid_t uids[3];
    gid_t gids[3];

    (void)raw_call(SYS_getresuid, &uids[0], &uids[1], &uids[2]);
    (void)raw_call(SYS_getresgid, &gids[0], &gids[1], &gids[2]);
    for (int i = 0; i < 3; i++)
        if ((spec->uid >= 0 && uids[i] != (uid_t)spec->uid) ||
            (spec->gid >= 0 && gids[i] != (gid_t)spec->gid))
            return true;
    return false;
}

/* Our supplementary groups are not the new user's. Who has no right to drop them keeps them only by
 * staying who he is. */
RAW_CODE static void child_set_ids(const struct child *c)
{
    const struct fcproc_spawn *spec = c->spec;
    long r;

    if (!child_sets_ids(spec))
        return;
    r = raw_call(SYS_setgroups, 0, 0);
    if (r != -EPERM || child_changes_ids(spec))
        child_check(c, STEP_GROUPS, r);
    if (spec->gid >= 0)
        child_check(c, STEP_GROUP, raw_call(SYS_setresgid, spec->gid, spec->gid, spec->gid));
    if (spec->uid >= 0)
        child_check(c, STEP_USER, raw_call(SYS_setresuid, spec->uid, spec->uid, spec->uid));
}

/* The ids, the umask and the folder are the child's own: memory is shared, these are not. */
RAW_CODE static void child_main(void *arg)
{
    struct child *c = arg;
    const struct fcproc_spawn *spec = c->spec;

    child_open_streams(c);
    if (spec->umask >= 0)
        (void)raw_call(SYS_umask, spec->umask);
    if (spec->new_session)
        child_check(c, STEP_SESSION, raw_call(SYS_setsid));
    if (c->netns_fd >= 0)
        child_check(c, STEP_NETNS, raw_call(SYS_setns, c->netns_fd, CLONE_NEWNET));
    child_set_fds(c);
    if (spec->cwd)
        child_check(c, STEP_CWD, raw_call(SYS_chdir, spec->cwd));
    if (spec->gate)
        child_wait_at_gate(c);
    child_set_limit(c);
    child_set_ids(c);
    child_reset_signals();
    child_check(c, STEP_EXEC, raw_call(SYS_execve, c->file, spec->argv, spec->envp));
    child_end(); /* unreachable: exec returns with an error only */
}

/* To move it there later would wait for every processor once: 5 to 20 ms. */
RAW_CODE static long clone_into_cgroup(struct child *c, unsigned long flags, int *ret_pidfd)
{
    struct raw_clone_args args = { .flags = flags | CLONE_INTO_CGROUP,
                                   .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
                                   .exit_signal = SIGCHLD,
                                   .stack = (uint64_t)(uintptr_t)c->stack_top - c->stack_size,
                                   .stack_size = c->stack_size,
                                   .cgroup = (uint64_t)c->cgroup_fd };

    return raw_clone3(&args, child_main, c);
}

RAW_CODE int child_start(struct child *c, pid_t *ret_pid, int *ret_pidfd)
{
    /* A child at its gate must not hold up the thread that made it. */
    unsigned long wait = c->spec->gate ? 0 : CLONE_VFORK;
    unsigned long memory = child_sets_ids(c->spec) ? 0 : CLONE_VM;
    uint64_t all = ~UINT64_C(0), before;
    long pid;

    (void)raw_call(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
    pid = c->cgroup_fd < 0 ? -ENOSYS : clone_into_cgroup(c, CLONE_PIDFD | memory | wait, ret_pidfd);
    if (pid < 0) /* the cgroup may be none that takes it, and clone3 refused by a filter */
        pid = raw_clone(CLONE_PIDFD | SIGCHLD | memory | wait, c->stack_top, ret_pidfd, child_main,
                        c);
    (void)raw_call(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, sizeof(before));
    if (pid < 0)
        return (int)pid;
    *ret_pid = (pid_t)pid;
    return 0;
}
