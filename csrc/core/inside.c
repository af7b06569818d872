/* SPDX-License-Identifier: MIT
 *
 * Descriptors that are opened in another network namespace. In one that we may enter a thread of ours
 * does it; of a user's own they come from a program, which has nothing of our memory.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <sys/socket.h>

#include "private.h"

enum { PATIENCE_MS = 10000, REPORT_SIZE = 256 };

static int open_tun_here(void *arg)
{
    int *ret = arg;

    *ret = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return *ret < 0 ? -errno : 0;
}

/* What came with the one message; or its errno, which is told in its text. */
static int receive(int fd, int *fds, int n)
{
    char text[REPORT_SIZE] = "";
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(INSIDE_MOST * sizeof(int))];
    } control;
    struct iovec io = { .iov_base = text, .iov_len = sizeof(text) - 1 };
    struct msghdr message = { .msg_iov = &io,
                              .msg_iovlen = 1,
                              .msg_control = control.space,
                              .msg_controllen = sizeof(control.space) };
    struct cmsghdr *head;
    ssize_t len;
    int came;

    if (fcproc_poll(&fd, NULL, 1, PATIENCE_MS, NULL) < 0)
        return -EIO;
    do
        len = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (len < 0 && errno == EINTR);
    if (len <= 0)
        return len < 0 && errno != EAGAIN ? -errno : -EIO;
    head = CMSG_FIRSTHDR(&message);
    if (!head || head->cmsg_type != SCM_RIGHTS) {
        long sys_errno = strtol(text, NULL, 10);

        if (message.msg_flags & MSG_CTRUNC)
            return -EMFILE;
        return sys_errno > 0 && sys_errno < 4096 ? (int)-sys_errno : -EIO;
    }
    came = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    if (came > n)
        came = n; /* there is no room for more */
    memcpy(fds, CMSG_DATA(head), (size_t)came * sizeof(int));
    return came;
}

static int ask(const struct place *place, const char *kind, int *fds, int n)
{
    char program[PATH_MAX], count[16];
    const char *const argv[] = { program, "descriptors", "3", "4", "5", kind, count, NULL };
    const char *const envp[] = { NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    struct fcproc_fd_map map[3] = { { .to = 3 },
                                    { .from = place->user_fd, .to = 4 },
                                    { .from = place->net_fd, .to = 5 } };
    fcproc_process *process = NULL;
    fcproc_error err = FCPROC_ERROR_INIT;
    int pair[2], r;

    if (rootless_program(program, "netns.open", &err) < 0)
        return -ENOENT;
    (void)snprintf(count, sizeof(count), "%d", n);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    map[0].from = pair[1];
    spec.argv = argv;
    spec.envp = envp;
    spec.fds = map;
    spec.n_fds = ELEMENTS(map);
    r = fcproc_spawn(&spec, &process, &err);
    close_fd(&pair[1]);
    r = r < 0 ? -(err.sys_errno ? err.sys_errno : EIO) : receive(pair[0], fds, n);
    close_fd(&pair[0]);
    process_abandon(process);
    return r;
}

int inside_open(const struct place *place, enum inside kind, int *fds, int n)
{
    static const char *const names[] = { "tun", "route", "netfilter" };
    int r;

    if (place->user_fd >= 0)
        return ask(place, names[kind], fds, n);
    r = place->net_fd >= 0 ? thread_call(place->net_fd, open_tun_here, fds) : open_tun_here(fds);
    return r < 0 ? r : 1;
}
