/* SPDX-License-Identifier: MIT
 *
 * TCP: a connection from outside is one inside. What one side sends is passed on at once; as long as
 * the other has not taken all of it, nothing more is read. So each connection holds at most one buffer
 * a side, and only of who reads too slowly. Each side's end, in order or not, is the other's.
 */
#include "relay.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { BUFFER = 16384, BURST = 8, ACCEPTS = 64, CONNECT_LIMIT = 10 };
enum { KEEPALIVE_IDLE = 60, KEEPALIVE_PAUSE = 10, KEEPALIVE_COUNT = 6 };

struct side {
    struct source source;
    struct connection *connection;
    int fd;
    bool known;       /* to epoll, */
    uint32_t watched; /* for this */
    char *pending;    /* what it has yet to take */
    size_t start, len;
    bool ended; /* it sends no more */
    bool shut;  /* it was told that nothing more comes */
};

struct connection {
    struct grave grave;
    struct side client, guest;
    bool connecting, closed;
    int64_t since;
    struct connection *newer, *older; /* while it connects */
};

static unsigned n_connections;
static struct connection *newest, *oldest; /* of those that connect */
static bool is_full;
static char scratch[BUFFER];

static struct side *other_side(struct side *side)
{
    struct connection *c = side->connection;

    return side == &c->client ? &c->guest : &c->client;
}

static void connecting_ends(struct connection *c)
{
    *(c->newer ? &c->newer->older : &newest) = c->older;
    *(c->older ? &c->older->newer : &oldest) = c->newer;
    c->connecting = false;
}

static void close_side(struct side *side, bool broken)
{
    static const struct linger at_once = { .l_onoff = 1 };

    if (broken && side->fd >= 0)
        (void)setsockopt(side->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    if (side->fd >= 0)
        (void)close(side->fd);
    free(side->pending);
}

static void close_connection(struct connection *c, bool broken)
{
    if (c->connecting)
        connecting_ends(c);
    c->closed = true;
    close_side(&c->client, broken);
    close_side(&c->guest, broken);
    n_connections--;
    relay_bury(&c->grave);
    if (is_full) {
        is_full = false;
        relay_resume_ports();
    }
}

/* Nothing is asked of one that has nothing to say: epoll tells then of its failure alone. But who has
 * both ended and been told to is told of for ever. */
static bool watch(struct side *side)
{
    struct connection *c = side->connection;
    struct side *other = other_side(side);
    uint32_t wanted = 0;
    bool known;

    if (!side->ended && other->len == 0 && !c->connecting)
        wanted |= EPOLLIN;
    if (side->len || (c->connecting && side == &c->guest))
        wanted |= EPOLLOUT;
    known = wanted || !side->shut;
    if (known && (!side->known || side->watched != wanted)) {
        if (!relay_watch(side->fd, &side->source, side->known, wanted))
            return false;
    } else if (!known && side->known) {
        (void)epoll_ctl(relay_epoll, EPOLL_CTL_DEL, side->fd, NULL);
    }
    side->known = known;
    side->watched = wanted;
    return true;
}

/* How much it took; negative: it is broken. */
static ssize_t send_some(struct side *to, const char *data, size_t len)
{
    ssize_t n = send(to->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n;
}

/* What it does not take is kept. */
static bool give(struct side *to, const char *data, size_t len)
{
    ssize_t n = send_some(to, data, len);

    if (n < 0 || (size_t)n == len)
        return n >= 0;
    len -= (size_t)n;
    to->pending = malloc(len);
    if (!to->pending)
        return false;
    memcpy(to->pending, data + n, len);
    to->start = 0;
    to->len = len;
    return true;
}

static bool flush(struct side *to)
{
    ssize_t n = send_some(to, to->pending + to->start, to->len);

    if (n < 0)
        return false;
    to->start += (size_t)n;
    to->len -= (size_t)n;
    if (to->len == 0) {
        free(to->pending);
        to->pending = NULL;
    }
    return true;
}

/* A few buffers at a time, so that nobody waits long for his turn. */
static bool pass_on(struct side *from)
{
    struct side *to = other_side(from);

    for (int i = 0; i < BURST && to->len == 0; i++) {
        ssize_t n = recv(from->fd, scratch, sizeof(scratch), MSG_DONTWAIT);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        if (n == 0) {
            from->ended = to->shut = true;
            return shutdown(to->fd, SHUT_WR) == 0;
        }
        if (!give(to, scratch, (size_t)n))
            return false;
    }
    return true;
}

static bool has_connected(struct connection *c)
{
    int problem = 0;
    socklen_t size = sizeof(problem);

    if (getsockopt(c->guest.fd, SOL_SOCKET, SO_ERROR, &problem, &size) < 0 || problem)
        return false;
    connecting_ends(c);
    return true;
}

static bool advance(struct side *side, uint32_t events)
{
    struct connection *c = side->connection;

    if (c->connecting)
        return side == &c->guest && has_connected(c);
    if (events & EPOLLERR)
        return false;
    if (side->len && !flush(side))
        return false;
    if (events & (EPOLLIN | EPOLLHUP) && !side->ended && !pass_on(side))
        return false;
    return true;
}

static void side_ready(struct source *source, uint32_t events)
{
    struct side *side = (struct side *)source;
    struct connection *c = side->connection;

    if (c->closed)
        return;
    if (!advance(side, events))
        close_connection(c, true);
    else if (c->client.ended && c->guest.ended && !c->client.len && !c->guest.len)
        close_connection(c, false);
    else if (!watch(&c->client) || !watch(&c->guest))
        close_connection(c, true);
}

static void set_up(int fd)
{
    const int on = 1, idle = KEEPALIVE_IDLE, pause = KEEPALIVE_PAUSE, count = KEEPALIVE_COUNT;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* Who is gone without a word does not keep its place. */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &pause, sizeof(pause));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static void add_side(struct connection *c, struct side *side, int fd)
{
    side->source.ready = side_ready;
    side->connection = c;
    side->fd = fd;
    if (fd >= 0)
        set_up(fd);
}

static void open_connection(int fd, const struct sockaddr_in *guest)
{
    struct connection *c = calloc(1, sizeof(*c));

    if (!c) {
        (void)close(fd);
        return;
    }
    n_connections++;
    c->connecting = true;
    c->since = relay_now;
    c->older = newest;
    *(newest ? &newest->newer : &oldest) = c;
    newest = c;
    add_side(c, &c->client, fd);
    add_side(c, &c->guest, socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (c->guest.fd < 0 ||
        (connect(c->guest.fd, (const struct sockaddr *)guest, sizeof(*guest)) < 0 &&
         errno != EINPROGRESS) ||
        !watch(&c->client) || !watch(&c->guest))
        close_connection(c, true);
}

void tcp_ready(struct source *source, uint32_t events)
{
    struct port *port = (struct port *)source;

    (void)events;
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = n_connections < relay_most_connections
                     ? accept4(port->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
                     : -1;

        if (fd >= 0) {
            open_connection(fd, &port->guest);
            continue;
        }
        /* Those that are not accepted wait, for one to end or the next round. */
        if (n_connections >= relay_most_connections || errno == EMFILE || errno == ENFILE ||
            errno == ENOMEM || errno == ENOBUFS) {
            is_full = true;
            relay_pause_ports();
        }
        return;
    }
}

bool tcp_tick(void)
{
    while (oldest && relay_now - oldest->since > CONNECT_LIMIT)
        close_connection(oldest, true);
    if (is_full && n_connections < relay_most_connections) {
        is_full = false;
        relay_resume_ports();
    }
    return oldest || is_full;
}
