/* SPDX-License-Identifier: MIT
 *
 * The yardstick of `make bench`: the system calls that a piece of work needs and nothing else, by
 * raw sockets. Reads a command a line, answers with the nanoseconds it took, measured inside.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int nl = -1;
static char buffer[65536];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- rtnetlink ---- */

struct request {
    struct nlmsghdr head;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg address;
    } u;
    char attributes[256];
};

static void start_link(struct request *r, int type, int flags, int index)
{
    memset(r, 0, sizeof(*r));
    r->head.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg));
    r->head.nlmsg_type = (unsigned short)type;
    r->head.nlmsg_flags = (unsigned short)(NLM_F_REQUEST | flags);
    r->u.link.ifi_index = index;
}

static void put(struct request *r, int type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));

    a->rta_type = (unsigned short)type;
    a->rta_len = (unsigned short)RTA_LENGTH(len);
    memcpy(RTA_DATA(a), data, len);
    r->head.nlmsg_len = NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

/* Sends and reads up to the end of the answer; for a question by name, the interface's index. */
static int exchange(struct request *r)
{
    int dump = (r->head.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;

    if (send(nl, r, r->head.nlmsg_len, 0) < 0)
        die("send");
    for (;;) {
        ssize_t n = recv(nl, buffer, sizeof(buffer), 0);
        struct nlmsghdr *h = (struct nlmsghdr *)buffer;

        if (n < 0)
            die("recv");
        for (; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            if (h->nlmsg_type == NLMSG_ERROR)
                return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
            if (h->nlmsg_type == NLMSG_DONE)
                return 0;
            if (!dump)
                return ((struct ifinfomsg *)NLMSG_DATA(h))->ifi_index;
        }
    }
}

static int find_link(const char *name)
{
    struct request r;
    uint32_t no_stats = 1 << 3;
    int index;

    start_link(&r, RTM_GETLINK, 0, 0);
    put(&r, IFLA_IFNAME, name, strlen(name) + 1);
    put(&r, IFLA_EXT_MASK, &no_stats, 4);
    index = exchange(&r);
    if (index <= 0)
        die(name);
    return index;
}

static int hold(const char *name, int flags)
{
    struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags) };
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%.15s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
        die(name);
    return fd;
}

/* The bridge looked at (link and addresses), a TAP made, enslaved, up, persistent. */
static void create_tap(const char *name, const char *bridge)
{
    static const unsigned char mac[6] = { 2, 0, 0, 1, 2, 3 };
    struct ifreq request = { 0 };
    struct request r;
    int index = find_link(bridge), fd;

    memset(&r, 0, sizeof(r));
    r.head.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg));
    r.head.nlmsg_type = RTM_GETADDR;
    r.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    r.u.address.ifa_family = AF_INET;
    r.u.address.ifa_index = (unsigned)index;
    exchange(&r);

    index = find_link(bridge);
    fd = hold(name, IFF_TUN_EXCL);
    if (ioctl(fd, TUNSETOWNER, 0UL) < 0 || ioctl(fd, TUNSETGROUP, 0UL) < 0)
        die("owner");
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%.15s", name);
    if (ioctl(nl, SIOCGIFINDEX, &request) < 0)
        die("index");
    start_link(&r, RTM_NEWLINK, NLM_F_ACK, request.ifr_ifindex);
    r.u.link.ifi_flags = r.u.link.ifi_change = IFF_UP;
    put(&r, IFLA_ADDRESS, mac, sizeof(mac));
    put(&r, IFLA_MASTER, &index, 4);
    if (exchange(&r) < 0 || ioctl(fd, TUNSETPERSIST, 1UL) < 0)
        die("set up");
    close(fd);
}

static void delete_tap(const char *name)
{
    struct request r;

    start_link(&r, RTM_DELLINK, NLM_F_ACK, find_link(name));
    if (exchange(&r) < 0)
        die("delete");
}

static void delete_group(const char *prefix, int n)
{
    uint32_t group = 0x80001234;
    struct request r;
    int fds[64];
    char name[IF_NAMESIZE];

    if (n > (int)(sizeof(fds) / sizeof(fds[0])))
        die("too many");
    for (int i = 0; i < n; i++) {
        int index;

        snprintf(name, sizeof(name), "%.10s%d", prefix, i + 1);
        index = find_link(name);
        fds[i] = hold(name, 0);
        start_link(&r, RTM_NEWLINK, NLM_F_ACK, index);
        put(&r, IFLA_GROUP, &group, 4);
        if (exchange(&r) < 0)
            die("group");
    }
    start_link(&r, RTM_DELLINK, NLM_F_ACK, 0);
    put(&r, IFLA_GROUP, &group, 4);
    if (exchange(&r) < 0)
        die("delete group");
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

/* ---- processes ---- */

static int listener_pid(const char *path, int with_pidfd)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct ucred peer;
    socklen_t len = sizeof(peer);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%.107s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        die("peer");
    if (with_pidfd) {
        struct pollfd p = { .events = POLLIN };

        len = sizeof(p.fd);
        if (getsockopt(fd, SOL_SOCKET, 77 /* SO_PEERPIDFD */, &p.fd, &len) < 0)
            die("pidfd");
        if (poll(&p, 1, 0) != 0)
            die("dead");
        close(p.fd);
    }
    close(fd);
    return peer.pid;
}

static void kill_process(int pid)
{
    struct pollfd p = { .events = POLLIN, .fd = (int)syscall(SYS_pidfd_open, pid, 0) };

    if (p.fd < 0 || syscall(SYS_pidfd_send_signal, p.fd, SIGKILL, NULL, 0) < 0)
        die("kill");
    poll(&p, 1, -1);
    close(p.fd);
}

int main(void)
{
    char line[512], a[256], b[256];
    int one = 1, n;

    nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (nl < 0 || setsockopt(nl, SOL_NETLINK, NETLINK_CAP_ACK, &one, 4) < 0 ||
        setsockopt(nl, SOL_NETLINK, 12 /* NETLINK_GET_STRICT_CHK */, &one, 4) < 0)
        die("netlink");
    while (fgets(line, sizeof(line), stdin)) {
        int64_t start = now();

        if (sscanf(line, "tap %255s %255s", a, b) == 2)
            create_tap(a, b);
        else if (sscanf(line, "delete %255s", a) == 1)
            delete_tap(a);
        else if (sscanf(line, "group %255s %d", a, &n) == 2)
            delete_group(a, n);
        else if (sscanf(line, "pid %255s %d", a, &n) == 2)
            for (int i = 0; i < n; i++)
                listener_pid(a, 1);
        else if (sscanf(line, "cred %255s %d", a, &n) == 2)
            for (int i = 0; i < n; i++)
                listener_pid(a, 0);
        else if (sscanf(line, "kill %d", &n) == 1)
            kill_process(n);
        printf("%lld\n", (long long)(now() - start));
        fflush(stdout);
    }
    return 0;
}
