/* SPDX-License-Identifier: MIT
 *
 * Opens descriptors inside of the namespaces, and hands them out: to the kernel they stay what they were
 * opened as, whoever uses them.
 */
#include "rootless.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/socket.h>

enum { MOST = 128 }; /* of SCM_MAX_FD's 253 */

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
    int fd;

    if (strcmp(kind, "route") == 0)
        return open_netlink(NETLINK_ROUTE);
    if (strcmp(kind, "netfilter") == 0)
        return open_netlink(NETLINK_NETFILTER);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        fail("can't open /dev/net/tun");
    return fd;
}

int descriptors_main(int argc, char **argv)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(MOST * sizeof(int))];
    } control = { 0 };
    struct iovec text = { .iov_base = "", .iov_len = 1 };
    struct msghdr message = { .msg_iov = &text, .msg_iovlen = 1, .msg_control = control.space };
    struct cmsghdr *head = &control.head;
    int count;

    if (argc != 5) {
        errno = EINVAL;
        fail("too few arguments");
    }
    report_fd = descriptor(argv[0]);
    count = descriptor(argv[4]);
    if (count < 1 || count > MOST) {
        errno = EINVAL;
        fail("%d descriptors are too many", count);
    }
    enter_namespaces(descriptor(argv[1]), descriptor(argv[2]));
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    for (int i = 0; i < count; i++) {
        int fd = open_one(argv[3]);

        memcpy(CMSG_DATA(head) + (size_t)i * sizeof(int), &fd, sizeof(fd));
    }
    return sendmsg(report_fd, &message, MSG_NOSIGNAL) < 0;
}
