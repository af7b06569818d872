/* SPDX-License-Identifier: MIT
 *
 * UDP: who sends to a port from outside has a socket of his own inside, a flow, from which answers come
 * back to him alone. There are so many at most: the one that was silent for longest makes room, and who
 * is silent for a while ends.
 */
#include "relay.h"

#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* As conntrack: one that was never answered is forgotten sooner. */
enum { SILENT = 30, SILENT_ANSWERED = 120, BURST = 64, BUCKETS = 2048, DATAGRAM = 65536 };

struct flow {
    struct grave grave;
    struct source source;
    struct port *port;
    int fd;
    bool closed, answered;
    struct sockaddr_in client;
    struct in_addr here; /* the address that he sent to */
    int64_t heard;
    struct flow *newer, *older, *next; /* by silence; in its bucket */
};

static struct flow *buckets[BUCKETS], *newest, *oldest;
static unsigned n_flows;
static char datagram[DATAGRAM];

static struct flow **bucket_of(const struct port *port, const struct sockaddr_in *client)
{
    uint64_t key = ((uint64_t)client->sin_addr.s_addr << 16 | client->sin_port) ^ (uint64_t)port->fd
                                                                                      << 48;

    return &buckets[(key * 0x9e3779b97f4a7c15) >> 53];
}

static void unlink_by_silence(struct flow *f)
{
    *(f->newer ? &f->newer->older : &newest) = f->older;
    *(f->older ? &f->older->newer : &oldest) = f->newer;
}

static void put_newest(struct flow *f)
{
    f->newer = NULL;
    f->older = newest;
    *(newest ? &newest->newer : &oldest) = f;
    newest = f;
    f->heard = relay_now;
}

static void close_flow(struct flow *f)
{
    struct flow **at = bucket_of(f->port, &f->client);

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    unlink_by_silence(f);
    (void)close(f->fd);
    f->closed = true;
    n_flows--;
    relay_bury(&f->grave);
}

/* From the address that he sent to: of a socket at all of them the kernel would choose. */
static void answer(struct flow *f, size_t len)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(struct in_pktinfo))];
    } control = { .space = { 0 } };
    struct iovec io = { .iov_base = datagram, .iov_len = len };
    struct msghdr message = { .msg_name = &f->client,
                              .msg_namelen = sizeof(f->client),
                              .msg_iov = &io,
                              .msg_iovlen = 1,
                              .msg_control = control.space,
                              .msg_controllen = sizeof(control.space) };
    struct in_pktinfo info = { .ipi_spec_dst = f->here };

    control.head.cmsg_level = IPPROTO_IP;
    control.head.cmsg_type = IP_PKTINFO;
    control.head.cmsg_len = CMSG_LEN(sizeof(info));
    memcpy(CMSG_DATA(&control.head), &info, sizeof(info));
    (void)!sendmsg(f->port->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL); /* as a wire that is full */
}

static void flow_ready(struct source *source, uint32_t events)
{
    struct flow *f = (struct flow *)((char *)source - offsetof(struct flow, source));

    (void)events;
    for (int i = 0; i < BURST && !f->closed; i++) {
        ssize_t n = recv(f->fd, datagram, sizeof(datagram), MSG_DONTWAIT);

        if (n < 0 && errno == ECONNREFUSED)
            continue; /* nobody in the guest has the port yet */
        if (n < 0)
            return;
        f->answered = true;
        unlink_by_silence(f);
        put_newest(f);
        answer(f, (size_t)n);
    }
}

static struct flow *open_flow(struct port *port, const struct sockaddr_in *client,
                              struct in_addr here)
{
    struct flow *f, **bucket = bucket_of(port, client);

    if (n_flows >= MOST_FLOWS)
        close_flow(oldest);
    f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->source.ready = flow_ready;
    f->port = port;
    f->client = *client;
    f->here = here;
    f->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (f->fd < 0 ||
        connect(f->fd, (const struct sockaddr *)&port->guest, sizeof(port->guest)) < 0 ||
        !relay_watch(f->fd, &f->source, 0, EPOLLIN)) {
        if (f->fd >= 0)
            (void)close(f->fd);
        free(f);
        return NULL;
    }
    f->next = *bucket;
    *bucket = f;
    put_newest(f);
    n_flows++;
    return f;
}

static struct flow *flow_of(struct port *port, const struct sockaddr_in *client,
                            struct in_addr here)
{
    for (struct flow *f = *bucket_of(port, client); f; f = f->next)
        if (f->port == port && f->client.sin_port == client->sin_port &&
            f->client.sin_addr.s_addr == client->sin_addr.s_addr && f->here.s_addr == here.s_addr) {
            unlink_by_silence(f);
            put_newest(f);
            return f;
        }
    return open_flow(port, client, here);
}

/* The socket asks for nothing else to be told. */
static struct in_addr address_here(struct msghdr *message)
{
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    struct in_pktinfo info = { 0 };

    if (head && head->cmsg_level == IPPROTO_IP && head->cmsg_type == IP_PKTINFO)
        memcpy(&info, CMSG_DATA(head), sizeof(info));
    return info.ipi_spec_dst;
}

void udp_ready(struct source *source, uint32_t events)
{
    struct port *port = (struct port *)source;

    (void)events;
    for (int i = 0; i < BURST; i++) {
        union {
            struct cmsghdr head;
            char space[CMSG_SPACE(sizeof(struct in_pktinfo))];
        } control;
        struct sockaddr_in client = { 0 };
        struct iovec io = { .iov_base = datagram, .iov_len = sizeof(datagram) };
        struct msghdr message = { .msg_name = &client,
                                  .msg_namelen = sizeof(client),
                                  .msg_iov = &io,
                                  .msg_iovlen = 1,
                                  .msg_control = control.space,
                                  .msg_controllen = sizeof(control.space) };
        ssize_t n = recvmsg(port->fd, &message, MSG_DONTWAIT);
        struct flow *f;

        if (n < 0)
            return;
        f = flow_of(port, &client, address_here(&message));
        if (f)
            (void)!send(f->fd, datagram, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

bool udp_tick(void)
{
    for (struct flow *f = oldest, *newer; f; f = newer) {
        newer = f->newer;
        if (relay_now - f->heard <= SILENT)
            break;
        if (!f->answered || relay_now - f->heard > SILENT_ANSWERED)
            close_flow(f);
    }
    return oldest != NULL;
}
