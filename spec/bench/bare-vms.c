/* SPDX-License-Identifier: MIT
 *
 * The yardstick for whole VMs in `make bench`: a fleet started from configuration files, waited for
 * until each API says Running, killed, waited for until gone; nothing else, and what a good C
 * programmer would do. One epoll set, one inotify watch, a look every millisecond only at sockets
 * that refuse. With a bridge, each VM has a TAP on it, and the TAPs go as one group. Its guests then
 * do what fcproc's do, which is most of the time that such a fleet takes: each has an address, and
 * starts its network with it, and none hears the others. With "cad" the guests are asked to end, each
 * on a connection of its own, instead of killed.
 *
 *     bench-bare-vms FOLDER FIRECRACKER KERNEL N [BRIDGE|- [cad]]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bare.h"

enum { MOST_VMS = 1000, SETTLE_MS = 300, GROUP = 0x80004321 & 0x7fffffff };

struct vm {
    int pidfd, sock;
    pid_t pid;
    int asked, running, refused;
    size_t got;
    char answer[1024];
};

static struct vm vms[MOST_VMS];
static const char *folder;
static int epoll_fd;

static void path_of(char *buf, int i, const char *kind)
{
    snprintf(buf, 256, "%.200s/%d.%s", folder, i, kind);
}

static void write_config(int i, const char *kernel, int with_tap)
{
    char path[256], text[1024], network[128] = "", argument[128] = "";
    int fd, len;

    if (with_tap)
        snprintf(argument, sizeof(argument),
                 "ip=172.30.%d.%d::172.30.0.1:255.255.0.0:bare%d:eth0:off", 1 + i / 250,
                 1 + i % 250, i);
    if (with_tap)
        snprintf(network, sizeof(network),
                 ",\"network-interfaces\":[{\"iface_id\":\"eth0\","
                 "\"host_dev_name\":\"bare%d\",\"guest_mac\":\"06:00:00:00:00:%02x\"}]",
                 i, i & 255);
    len = snprintf(text, sizeof(text),
                   "{\"boot-source\":{\"boot_args\":\"%s\",\"kernel_image_path\":\"%s\"},"
                   "\"drives\":[],\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":16}%s}",
                   argument, kernel, network);
    path_of(path, i, "json");
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)len) != len)
        die(path);
    close(fd);
}

/* Only a port can be told so: in a message of its own. */
static void isolate(int index)
{
    unsigned char isolated = 1;
    struct request r;
    struct rtattr *info, *data;

    start_link(&r, RTM_NEWLINK, NLM_F_ACK, index);
    info = start_nest(&r, IFLA_LINKINFO);
    put(&r, IFLA_INFO_SLAVE_KIND, "bridge", sizeof("bridge"));
    data = start_nest(&r, IFLA_INFO_SLAVE_DATA);
    put(&r, IFLA_BRPORT_ISOLATED, &isolated, sizeof(isolated));
    end_nest(&r, data);
    end_nest(&r, info);
    if (exchange(&r) < 0)
        die("isolate");
}

static void create_tap(int i, int bridge)
{
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL };
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    uint32_t group = GROUP;
    struct request r;

    snprintf(request.ifr_name, sizeof(request.ifr_name), "bare%d", i);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(nl, SIOCGIFINDEX, &request) < 0)
        die("tap");
    start_link(&r, RTM_NEWLINK, NLM_F_ACK, request.ifr_ifindex);
    r.u.link.ifi_flags = r.u.link.ifi_change = IFF_UP;
    put(&r, IFLA_MASTER, &bridge, 4);
    put(&r, IFLA_GROUP, &group, 4);
    if (exchange(&r) < 0)
        die("tap set up");
    isolate(request.ifr_ifindex);
    if (ioctl(fd, TUNSETPERSIST, 1UL) < 0)
        die("tap made to stay");
    close(fd);
}

static void delete_taps(void)
{
    uint32_t group = GROUP;
    struct request r;

    start_link(&r, RTM_DELLINK, NLM_F_ACK, 0);
    put(&r, IFLA_GROUP, &group, 4);
    if (exchange(&r) < 0)
        die("delete group");
}

static void start(int i, const char *firecracker)
{
    char sock[256], config[256], console[256];
    char *argv[] = { "firecracker", "--api-sock", sock, "--config-file", config, NULL };
    char *envp[] = { NULL };
    posix_spawn_file_actions_t actions;
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = (uint32_t)i };

    path_of(sock, i, "sock");
    path_of(config, i, "json");
    path_of(console, i, "console");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, console, O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    if (posix_spawn(&vms[i].pid, firecracker, &actions, NULL, argv, envp) != 0)
        die(firecracker);
    posix_spawn_file_actions_destroy(&actions);
    vms[i].sock = -1;
    vms[i].pidfd = (int)syscall(SYS_pidfd_open, vms[i].pid, 0);
    if (vms[i].pidfd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, vms[i].pidfd, &event) < 0)
        die("pidfd");
}

static int reach(struct vm *vm, int i)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/%d.sock", folder, i);
    if (vm->sock < 0)
        vm->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return connect(vm->sock, (struct sockaddr *)&address, sizeof(address));
}

static void send_request(struct vm *vm, int i, const char *request)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = (uint32_t)(i + MOST_VMS) };

    if (write(vm->sock, request, strlen(request)) != (ssize_t)strlen(request) ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, vm->sock, &event) < 0)
        die("ask");
}

/* Connects and asks, once the socket is there. */
static void ask(int i)
{
    struct vm *vm = &vms[i];

    if (vm->asked)
        return;
    if (reach(vm, i) < 0) {
        vm->refused = errno == ECONNREFUSED;
        if (!vm->refused && errno != ENOENT)
            die("connect");
        return;
    }
    vm->refused = 0;
    vm->asked = 1;
    send_request(vm, i, "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
}

static int read_answer(struct vm *vm)
{
    ssize_t n = read(vm->sock, vm->answer + vm->got, sizeof(vm->answer) - 1 - vm->got);

    if (n <= 0)
        die("answer");
    vm->got += (size_t)n;
    vm->answer[vm->got] = '\0';
    if (!strchr(vm->answer, '}'))
        return 0;
    if (!strstr(vm->answer, "\"state\":\"Running\"")) {
        fprintf(stderr, "not running: %s\n", vm->answer);
        exit(1);
    }
    close(vm->sock);
    vm->running = 1;
    return 1;
}

static void wait_until_running(int n, int inotify_fd)
{
    for (int running = 0, refused = 0; running < n;) {
        struct epoll_event events[64];
        int got = epoll_wait(epoll_fd, events, 64, refused ? 1 : -1);

        for (int k = 0; k < got; k++) {
            uint32_t tag = events[k].data.u32;

            if (tag < MOST_VMS) {
                fprintf(stderr, "VM %u has ended\n", tag);
                exit(1);
            } else if (tag < 2 * MOST_VMS) {
                running += read_answer(&vms[tag - MOST_VMS]);
            } else {
                char buf[4096] __attribute__((aligned(8)));
                ssize_t len = read(inotify_fd, buf, sizeof(buf));

                for (ssize_t at = 0; at < len;) {
                    const struct inotify_event *e = (const struct inotify_event *)(buf + at);
                    char kind[8] = "";
                    int i;

                    if (sscanf(e->name, "%d.%7s", &i, kind) == 2 && strcmp(kind, "sock") == 0)
                        ask(i);
                    at += (ssize_t)(sizeof(*e) + e->len);
                }
            }
        }
        refused = 0;
        for (int i = 0; i < n; i++) {
            if (vms[i].refused)
                ask(i);
            refused += vms[i].refused;
        }
    }
}

static void end(int i, int by_cad)
{
    struct vm *vm = &vms[i];

    if (!by_cad && syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0) < 0)
        die("kill");
    if (!by_cad)
        return;
    vm->sock = -1;
    if (reach(vm, i) < 0 && errno != ECONNREFUSED)
        die("connect");
    send_request(vm, i,
                 "PUT /actions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 "Content-Length: 32\r\n\r\n{\"action_type\":\"SendCtrlAltDel\"}");
}

/* A guest that has no keyboard yet loses what it is sent: 0.2 s later it is asked again, as by fcproc. */
static void wait_until_gone(int n, int by_cad)
{
    for (int fleet = n; n > 0;) {
        struct epoll_event events[64];
        int got = epoll_wait(epoll_fd, events, 64, by_cad ? 200 : -1);

        for (int i = 0; got == 0 && i < fleet; i++)
            if (vms[i].pidfd >= 0)
                end(i, by_cad);
        for (int k = 0; k < got; k++) {
            struct vm *vm = &vms[events[k].data.u32 % MOST_VMS];
            siginfo_t info;

            if (events[k].data.u32 >= MOST_VMS) { /* its answer, or its end */
                close(vm->sock);
                continue;
            }
            if (waitid(P_PIDFD, (id_t)vm->pidfd, &info, WEXITED) < 0)
                die("waitid");
            close(vm->pidfd);
            vm->pidfd = -1;
            n--;
        }
    }
}

static void clean(int n)
{
    static const char *const kinds[] = { "sock", "json", "console" };
    char path[256];

    for (int i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) {
            path_of(path, i, kinds[k]);
            if (unlink(path) < 0)
                die(path);
        }
}

/* VmHWM; ru_maxrss also has that of the program that executed this one. */
static long peak_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib;
}

static double cpu_of(const struct rusage *used)
{
    const struct timeval *u = &used->ru_utime, *s = &used->ru_stime;

    return (double)(u->tv_sec + s->tv_sec) + (double)(u->tv_usec + s->tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = 2 * MOST_VMS };
    int n = argc > 4 ? atoi(argv[4]) : 0, bridge = 0, inotify_fd;
    struct rusage used;
    int64_t began, up, asked, gone;
    double before;

    if (n < 1 || n > MOST_VMS)
        return 2;
    (void)poll(NULL, 0, 50); /* as in fleet.lua */
    began = now();
    folder = argv[1];
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if ((mkdir(folder, 0700) < 0 && errno != EEXIST) ||
        inotify_add_watch(inotify_fd, folder, IN_CREATE) < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, inotify_fd, &event) < 0)
        die(folder);
    if (argc > 5 && strcmp(argv[5], "-") != 0) {
        open_netlink();
        bridge = find_link(argv[5]);
    }
    for (int i = 0; i < n; i++) {
        if (bridge)
            create_tap(i, bridge);
        write_config(i, argv[3], bridge);
        start(i, argv[2]);
    }
    wait_until_running(n, inotify_fd);
    up = now();
    if (argc > 6)
        (void)poll(NULL, 0, SETTLE_MS);
    getrusage(RUSAGE_SELF, &used);
    before = cpu_of(&used);
    asked = now();
    for (int i = 0; i < n; i++)
        end(i, argc > 6);
    wait_until_gone(n, argc > 6);
    if (bridge)
        delete_taps();
    clean(n);
    gone = now();
    getrusage(RUSAGE_SELF, &used);
    printf("{\"up\":%.6f,\"down\":%.6f,\"cpu\":%.6f,\"end_cpu\":%.6f,\"hwm\":%ld}\n",
           (double)(up - began) / 1e9, (double)(gone - asked) / 1e9, cpu_of(&used),
           cpu_of(&used) - before, peak_kib());
    return 0;
}
