/* SPDX-License-Identifier: MIT
 *
 * Opening a file with another user's rights, so that the kernel itself says whether that user may:
 * every folder on the way counts, and access lists and security modules do. In a short-lived child
 * with a copy of our memory: in a thread of ours the first change of an id would make the whole
 * process one that can't be traced or dumped, for good.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "file.h"
#include "rawcall.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

enum { OPENER_STACK = 16384 };

struct opener {
    const char *path;
    int flags;
    uid_t uid;
    gid_t gid;
    int fd; /* which becomes the file: the table of descriptors is shared */
};

RAW_CODE static _Noreturn void opener_end(long r)
{
    for (;;)
        (void)raw_call(SYS_exit_group, r < 0 ? -r : 0);
}

/* The ids for files alone: with the user's others, a process of his could send this one signals. */
RAW_CODE static void opener_main(void *arg)
{
    const struct opener *o = arg;
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0 };
    struct __user_cap_data_struct none[2] = { { 0, 0, 0 }, { 0, 0, 0 } };
    long r = raw_call(SYS_setgroups, 0, 0);
    long fd;

    if (r < 0)
        opener_end(r);
    (void)raw_call(SYS_setfsgid, o->gid);
    (void)raw_call(SYS_setfsuid, o->uid);
    if ((uid_t)raw_call(SYS_setfsuid, -1) != o->uid || (gid_t)raw_call(SYS_setfsgid, -1) != o->gid)
        opener_end(-EPERM);
    r = raw_call(SYS_capset, &header, none); /* those over files, however securebits are set */
    if (r < 0)
        opener_end(r);
    fd = raw_call(SYS_openat, AT_FDCWD, o->path, o->flags, 0);
    if (fd < 0)
        opener_end(fd);
    r = raw_call(SYS_dup3, fd, o->fd, O_CLOEXEC);
    (void)raw_call(SYS_close, fd);
    opener_end(r);
}

/* Starts it with all signals blocked: one for our process group is not for it. */
RAW_CODE static long start(struct opener *o, char *stack_top, int *ret_pidfd)
{
    uint64_t all = ~UINT64_C(0), before;
    long pid;

    (void)raw_call(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
    /* Without a signal at its end, it is none of the children that a host waits for. */
    pid = raw_clone(CLONE_FILES | CLONE_PIDFD, stack_top, ret_pidfd, opener_main, o);
    (void)raw_call(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, sizeof(before));
    return pid;
}

int open_as(const char *path, int flags, uid_t uid, gid_t gid)
{
    char stack[OPENER_STACK] __attribute__((aligned(16)));
    cleanup_fd int fd = eventfd(0, EFD_CLOEXEC); /* something to be replaced */
    cleanup_fd int pidfd = -EBADF;
    struct opener o = { .path = path, .flags = flags, .uid = uid, .gid = gid, .fd = fd };
    siginfo_t info = { 0 };
    long r;

    if (fd < 0)
        return -errno;
    r = start(&o, stack + sizeof(stack), &pidfd);
    if (r < 0)
        return (int)r;
    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) < 0)
        if (errno != EINTR)
            return -errno;
    if (info.si_code != CLD_EXITED)
        return -EINTR;
    return info.si_status == 0 ? take_fd(&fd) : -info.si_status;
}
