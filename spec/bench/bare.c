/* SPDX-License-Identifier: MIT
 *
 * The yardstick of `make bench`: the system calls that a piece of work needs and nothing else, by
 * raw sockets. Reads a command a line, answers with the nanoseconds it took, measured inside.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
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
#include <unistd.h>

#include "bare.h"

static int hold(const char *name, int flags)
{
    struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags) };
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%.15s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
        die(name);
    return fd;
}

/* Asked once: the least that can be done is done without. */
static int bridge_index(const char *bridge)
{
    static char known[IF_NAMESIZE];
    static int index;

    if (strcmp(known, bridge) != 0) {
        index = find_link(bridge);
        snprintf(known, sizeof(known), "%.15s", bridge);
    }
    return index;
}

/* A TAP made, its owner's, lasting, a port of the bridge, up. One that is to be isolated can be so only
 * once it is a port, and must be before it is up. */
static void create_tap(const char *name, const char *bridge, int isolated)
{
    int index = bridge_index(bridge), fd = hold(name, IFF_TUN_EXCL);
    struct ifreq request = { 0 };
    struct request r;

    if (ioctl(fd, TUNSETOWNER, 0UL) < 0 || ioctl(fd, TUNSETGROUP, 0UL) < 0 ||
        ioctl(fd, TUNSETPERSIST, 1UL) < 0)
        die("owner");
    close(fd);
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%.15s", name);
    if (ioctl(nl, SIOCGIFINDEX, &request) < 0)
        die("index");
    start_link(&r, RTM_NEWLINK, NLM_F_ACK, request.ifr_ifindex);
    put(&r, IFLA_MASTER, &index, 4);
    if (!isolated)
        r.u.link.ifi_flags = r.u.link.ifi_change = IFF_UP;
    if (exchange(&r) < 0)
        die("master");
    if (isolated) {
        unsigned char yes = 1;
        struct rtattr *info, *data;

        start_link(&r, RTM_NEWLINK, NLM_F_ACK, request.ifr_ifindex);
        r.u.link.ifi_flags = r.u.link.ifi_change = IFF_UP;
        info = start_nest(&r, IFLA_LINKINFO);
        put(&r, IFLA_INFO_SLAVE_KIND, "bridge", 6);
        data = start_nest(&r, IFLA_INFO_SLAVE_DATA);
        put(&r, IFLA_BRPORT_ISOLATED, &yes, 1);
        end_nest(&r, data);
        end_nest(&r, info);
        if (exchange(&r) < 0)
            die("isolated");
    }
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
    int n;

    open_netlink();
    while (fgets(line, sizeof(line), stdin)) {
        int64_t start = now();

        if (sscanf(line, "tap %255s %255s", a, b) == 2)
            create_tap(a, b, 0);
        else if (sscanf(line, "port %255s %255s", a, b) == 2)
            create_tap(a, b, 1);
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
