/* SPDX-License-Identifier: MIT
 *
 * The relay of a VM's published ports. Its sockets that listen were made outside; all that it makes
 * afterwards is inside, where it has no capability. It lives as long as its VM, whoever started it.
 */
#include "relay.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { REPORT_FD = 3, USER_FD = 4, NET_FD = 5, VMM_FD = 6, MOST_PORTS = 256, BATCH = 128 };
enum { BACKLOG = 1024, TICK_MS = 1000 };

int relay_epoll = -1;
int64_t relay_now;
unsigned relay_most_connections;

static struct port ports[MOST_PORTS];
static int n_ports;

static struct grave *graves;

void relay_bury(struct grave *grave)
{
    grave->next = graves;
    graves = grave;
}

static void clear_graves(void)
{
    while (graves) {
        struct grave *grave = graves;

        graves = grave->next;
        free(grave);
    }
}

bool relay_watch(int fd, struct source *source, uint32_t before, uint32_t now)
{
    struct epoll_event event = { .events = now, .data.ptr = source };

    return epoll_ctl(relay_epoll, before ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0;
}

static void pause_port(struct port *port, bool paused)
{
    if (!port->udp && port->paused != paused &&
        relay_watch(port->fd, &port->source, 1, paused ? 0 : EPOLLIN))
        port->paused = paused;
}

void relay_pause_ports(void)
{
    for (int i = 0; i < n_ports; i++)
        pause_port(&ports[i], true);
}

void relay_resume_ports(void)
{
    for (int i = 0; i < n_ports; i++)
        pause_port(&ports[i], false);
}

/* A number that ends at the character, which is passed over. */
static unsigned read_number(const char **text, char end)
{
    char *rest;
    unsigned long number = strtoul(*text, &rest, 10);

    if (rest == *text || *rest != end || number < 1 || number > 65535) {
        errno = EINVAL;
        fail("'%s' is no port", *text);
    }
    *text = rest + (end ? 1 : 0);
    return (unsigned)number;
}

/* "tcp,127.0.0.1,8080,80" */
static void open_port(struct port *port, struct in_addr guest, const char *text)
{
    struct sockaddr_in outside = { .sin_family = AF_INET };
    const char *all = text;
    char address[INET_ADDRSTRLEN];
    size_t len;
    int on = 1;

    port->udp = strncmp(text, "udp,", 4) == 0;
    text += port->udp || strncmp(text, "tcp,", 4) == 0 ? 4 : strlen(text);
    len = strcspn(text, ",");
    (void)snprintf(address, sizeof(address), "%.*s", (int)len, text);
    if (inet_pton(AF_INET, address, &outside.sin_addr) != 1 || text[len] != ',') {
        errno = EINVAL;
        fail("'%s' is no port to be published", all);
    }
    text += len + 1;
    outside.sin_port = htons((uint16_t)read_number(&text, ','));
    port->guest = (struct sockaddr_in){ .sin_family = AF_INET,
                                        .sin_addr = guest,
                                        .sin_port = htons((uint16_t)read_number(&text, '\0')) };
    port->fd = socket(AF_INET,
                      (port->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (port->fd < 0)
        fail("can't make a socket");
    /* Of an earlier one connections may linger, which keep nobody from the port; of UDP it would let
     * two have it. */
    if (!port->udp)
        (void)setsockopt(port->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    else
        (void)setsockopt(port->fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
    if (bind(port->fd, (const struct sockaddr *)&outside, sizeof(outside)) < 0 ||
        (!port->udp && listen(port->fd, BACKLOG) < 0))
        fail("%s:%u/%s", address, ntohs(outside.sin_port), port->udp ? "udp" : "tcp");
    port->source.ready = port->udp ? udp_ready : tcp_ready;
}

static void make_room(void)
{
    struct rlimit limit;
    rlim_t room;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("can't read how many descriptors there may be");
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    room = SPARE_DESCRIPTORS + MOST_PORTS + MOST_FLOWS;
    room = limit.rlim_cur > room + 2 ? (limit.rlim_cur - room) / 2 : 1;
    relay_most_connections = room > MOST_CONNECTIONS ? MOST_CONNECTIONS : (unsigned)room;
}

static void vmm_ended(struct source *source, uint32_t events)
{
    (void)source;
    (void)events;
    exit(0);
}

static void look_at_the_time(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    relay_now = now.tv_sec;
}

static _Noreturn void serve(void)
{
    struct epoll_event events[BATCH];
    bool ticking = false;
    int64_t ticked = 0;

    for (;;) {
        int n = epoll_wait(relay_epoll, events, BATCH, ticking ? TICK_MS : -1);

        look_at_the_time();
        for (int i = 0; i < n; i++) {
            struct source *source = events[i].data.ptr;

            source->ready(source, events[i].events);
        }
        ticking = true;
        if (n <= 0 || relay_now != ticked) {
            bool tcp = tcp_tick(), udp = udp_tick();

            ticking = tcp || udp;
            ticked = relay_now;
        }
        clear_graves();
    }
}

int relay_main(int argc, char **argv)
{
    static struct source vmm = { .ready = vmm_ended };
    bool has_user = fcntl(USER_FD, F_GETFD) >= 0; /* else a namespace that its maker may enter */
    struct in_addr guest;

    report_fd = REPORT_FD;
    for (int fd = REPORT_FD; fd <= VMM_FD; fd++)
        close_on_exec(fd);
    if (argc < 2 || argc - 1 > MOST_PORTS || inet_pton(AF_INET, argv[0], &guest) != 1) {
        errno = EINVAL;
        fail("it is told no guest, or no ports");
    }
    make_room();
    for (n_ports = 0; n_ports < argc - 1; n_ports++)
        open_port(&ports[n_ports], guest, argv[1 + n_ports]);
    /* A VMM that was broken into has as few rights there as we, and would trace us into its service:
     * but nobody who has none traces who is not dumpable. */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* From here on all sockets are inside. */
    if (has_user)
        enter_namespaces(USER_FD, NET_FD);
    else if (setns(NET_FD, CLONE_NEWNET) < 0)
        fail("can't enter the network namespace");
    drop_rights();
    (void)signal(SIGPIPE, SIG_IGN);
    if (has_user)
        (void)close(USER_FD);
    (void)close(NET_FD);
    relay_epoll = epoll_create1(EPOLL_CLOEXEC);
    if (relay_epoll < 0 || !relay_watch(VMM_FD, &vmm, 0, EPOLLIN))
        fail("can't wait for the VM's end");
    for (int i = 0; i < n_ports; i++)
        if (!relay_watch(ports[i].fd, &ports[i].source, 0, EPOLLIN))
            fail("can't wait for connections");
    (void)dprintf(REPORT_FD, "0 ready");
    (void)close(REPORT_FD);
    serve();
}
