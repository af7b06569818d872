/* SPDX-License-Identifier: MIT
 *
 * Descriptors that are opened in another network namespace. In one that we may enter a thread of ours
 * does it; of a user's own they come from a program, which has nothing of our memory.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "private.h"

static int open_tun_here(void *arg)
{
    int *ret = arg;

    *ret = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return *ret < 0 ? -errno : 0;
}

int inside_take(int fd)
{
    char text[ROOTLESS_REPORT] = "";
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec io = { .iov_base = text, .iov_len = sizeof(text) - 1 };
    struct msghdr message = { .msg_iov = &io,
                              .msg_iovlen = 1,
                              .msg_control = control.space,
                              .msg_controllen = sizeof(control.space) };
    struct cmsghdr *head;
    ssize_t len;
    long sys_errno;
    int came;

    do
        len = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (len < 0 && errno == EINTR);
    if (len < 0)
        return -errno;
    if (len == 0)
        return -EPIPE;
    head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(&came, CMSG_DATA(head), sizeof(came));
        return came;
    }
    if (message.msg_flags & MSG_CTRUNC)
        return -EMFILE;
    sys_errno = strtol(text, NULL, 10);
    return sys_errno > 0 && sys_errno < 4096 ? (int)-sys_errno : -EIO;
}

int inside_start(const struct place *place, const char *const *kinds)
{
    enum { MOST_KINDS = 4 };
    char program[PATH_MAX];
    const char *argv[5 + 2 * MOST_KINDS + 1] = { program, "descriptors", "3", "4", "5" };
    const char *const envp[] = { NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    struct fcproc_fd_map map[3] = { { .to = 3 },
                                    { .from = place->user_fd, .to = 4 },
                                    { .from = place->net_fd, .to = 5 } };
    fcproc_process *process = NULL;
    fcproc_error err = FCPROC_ERROR_INIT;
    int pair[2], r;

    if (rootless_program(program, "netns.open", &err) < 0)
        return -ENOPKG;
    for (size_t i = 0; i < 2 * MOST_KINDS && kinds[i]; i++)
        argv[5 + i] = kinds[i];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    map[0].from = pair[1];
    spec.argv = argv;
    spec.envp = envp;
    spec.fds = map;
    spec.n_fds = ELEMENTS(map);
    r = fcproc_spawn(&spec, &process, &err);
    close_fd(&pair[1]);
    /* That nothing more comes: then all of them are nowhere else. */
    r = r < 0 ? -(err.sys_errno ? err.sys_errno : EIO) : rootless_wait(pair[0], POLLRDHUP);
    process_abandon(process);
    if (r == 0)
        return pair[0];
    close_fd(&pair[0]);
    return r;
}

int tun_open(const struct place *place)
{
    int fd, r;

    r = place->net_fd >= 0 ? thread_call(place->net_fd, open_tun_here, &fd) : open_tun_here(&fd);
    return r < 0 ? r : fd;
}
