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
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
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

static pid_t restored;
static char restored_socket[108];

static void spawn_empty(const char *firecracker)
{
    char *argv[] = { "firecracker", "--api-sock", restored_socket, NULL }, *envp[] = { NULL };
    posix_spawn_file_actions_t actions;

    posix_spawn_file_actions_init(&actions);
    for (int fd = 0; fd < 3; fd++)
        posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    if (posix_spawn(&restored, firecracker, &actions, NULL, argv, envp) != 0)
        die(firecracker);
    posix_spawn_file_actions_destroy(&actions);
}

/* Its socket is there before it listens. */
static int connect_when_it_listens(int inotify_fd)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", restored_socket);
    while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        struct pollfd p = { .events = POLLIN, .fd = inotify_fd };

        if (errno != ENOENT && errno != ECONNREFUSED)
            die("connect");
        if (poll(&p, 1, errno == ENOENT ? -1 : 1) == 1 && read(p.fd, buffer, sizeof(buffer)) < 0)
            die("inotify");
    }
    return fd;
}

/* A Firecracker in the folder that has a snapshot's memory and goes on; until its answer. */
static void restore(const char *snapshot, const char *in, const char *firecracker)
{
    char body[1024], request[2048], answer[1024];
    static int inotify_fd = -1; /* kept: to close one waits for a grace period of the kernel's */
    int fd;
    ssize_t n;

    snprintf(restored_socket, sizeof(restored_socket), "%.90s/restored.sock", in);
    if (inotify_fd < 0)
        inotify_fd = inotify_init1(IN_CLOEXEC);
    if (inotify_fd < 0 || inotify_add_watch(inotify_fd, in, IN_CREATE) < 0)
        die("inotify");
    spawn_empty(firecracker);
    fd = connect_when_it_listens(inotify_fd);
    snprintf(body, sizeof(body),
             "{\"snapshot_path\":\"%.255s/vmstate\",\"mem_backend\":{\"backend_type\":\"File\","
             "\"backend_path\":\"%.255s/memory\"},\"resume_vm\":true}",
             snapshot, snapshot);
    snprintf(request, sizeof(request),
             "PUT /snapshot/load HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    if (write(fd, request, strlen(request)) < 0)
        die("load");
    n = read(fd, answer, sizeof(answer) - 1);
    answer[n < 0 ? 0 : n] = '\0';
    if (!strstr(answer, " 204 ")) {
        fprintf(stderr, "not restored: %s\n", answer);
        exit(1);
    }
    close(fd);
}

static void end_restored(void)
{
    kill_process(restored);
    waitpid(restored, NULL, 0);
    unlink(restored_socket);
}

int main(void)
{
    char line[1024], a[256], b[256], c[256];
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
        else if (sscanf(line, "restore %255s %255s %255s", a, b, c) == 3)
            restore(a, b, c);
        else if (strcmp(line, "unrestore\n") == 0)
            end_restored();
        printf("%lld\n", (long long)(now() - start));
        fflush(stdout);
    }
    return 0;
}
