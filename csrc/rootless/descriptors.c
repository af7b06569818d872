/* SPDX-License-Identifier: MIT
 *
 * Opens descriptors inside of the namespaces, and hands them out: to the kernel they stay what they were
 * opened as, whoever uses them.
 */
#include "rootless.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum {
    MOST = 128,
    SHARE =
        8, /* of those that may be on their way, for one who keeps some there until they are needed */
};

static int open_netlink(int protocol)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    struct sockaddr_nl any = { .nl_family = AF_NETLINK };

    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0)
        fail("can't open a netlink socket");
    return fd;
}

static int open_one(const char *kind)
{
    bool is_tun = strcmp(kind, "tun") == 0;
    const char *path = is_tun ? "/dev/net/tun" : "/proc/sys/net/netfilter/nf_conntrack_count";
    int fd;

    if (strcmp(kind, "route") == 0)
        return open_netlink(NETLINK_ROUTE);
    if (strcmp(kind, "netfilter") == 0)
        return open_netlink(NETLINK_NETFILTER);
    fd = open(path, (is_tun ? O_RDWR | O_NONBLOCK : O_RDONLY) | O_CLOEXEC);
    if (fd < 0)
        fail("can't open %s", path);
    return fd;
}

/* In a message of its own, and none of ours any more: on the way it is in nobody's table, so that it is
 * open in no child that starts meanwhile. False: as many of the user's are on their way as may be. */
static bool hand_out(int fd)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec text = { .iov_base = "", .iov_len = 1 };
    struct msghdr message = { .msg_iov = &text,
                              .msg_iovlen = 1,
                              .msg_control = control.space,
                              .msg_controllen = sizeof(control.space) };
    bool sent;

    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    sent = sendmsg(report_fd, &message, MSG_NOSIGNAL) >= 0;
    if (!sent && errno != ETOOMANYREFS)
        fail("can't hand a descriptor out");
    (void)close(fd);
    return sent;
}

int descriptors_main(int argc, char **argv)
{
    struct rlimit limit;
    rlim_t most = MOST;
    int sent = 0;

    if (argc < 5) {
        errno = EINVAL;
        fail("too few arguments");
    }
    report_fd = descriptor(argv[0]);
    /* Which is how many may be on their way, too. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        most = limit.rlim_max < SHARE ? 1 : limit.rlim_max / SHARE;
    }
    enter_namespaces(descriptor(argv[1]), descriptor(argv[2]));
    for (int at = 3; at + 1 < argc; at += 2) {
        int count = descriptor(argv[at + 1]);

        if (count < 0 || count > MOST) {
            errno = EINVAL;
            fail("%d descriptors are too many", count);
        }
        if ((rlim_t)count > most)
            count = (int)most;
        while (count-- > 0) {
            if (hand_out(open_one(argv[at])))
                sent++;
            else if (sent == 0)
                fail("can't hand a descriptor out");
            else
                return 0;
        }
    }
    /* All are handed out, and nowhere but there: its end tells it, which is sooner than ours. */
    return shutdown(report_fd, SHUT_WR) < 0;
}
