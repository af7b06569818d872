/* SPDX-License-Identifier: MIT
 *
 * Connections that the kernel remembers of guests that are gone: the next one with the address would
 * get their answers, and send where only they may. A host may remember a million, so a thread looks
 * through them.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <netlink/netfilter/ct.h>
#include <stdio.h>

#include "library.h"
#include "netlink.h"
#include "worker.h"

/* ---- libnl-nf-3 ---- */

struct nf_functions {
    typeof(nfnl_ct_dump_request) *ct_dump_request;
    typeof(nfnl_ct_get_src) *ct_get_src;
    typeof(nfnl_ct_get_dst) *ct_get_dst;
    typeof(nfnl_ct_get_proto) *ct_get_proto;
    typeof(nfnl_ct_get_dst_port) *ct_get_dst_port;
    typeof(nfnl_ct_del) *ct_del;
    typeof(nfnl_ct_put) *ct_put;
    typeof(nfnlmsg_ct_parse) *msg_ct_parse;
};

static struct nf_functions nf;

static int nf_load(const char *op, fcproc_error *err)
{
    static const struct library_symbol symbols[] = {
        LIBRARY_SYMBOL(struct nf_functions, nfnl_, ct_dump_request),
        LIBRARY_SYMBOL(struct nf_functions, nfnl_, ct_get_src),
        LIBRARY_SYMBOL(struct nf_functions, nfnl_, ct_get_dst),
        LIBRARY_SYMBOL(struct nf_functions, nfnl_, ct_get_proto),
        LIBRARY_SYMBOL(struct nf_functions, nfnl_, ct_get_dst_port),
        LIBRARY_SYMBOL(struct nf_functions, nfnl_, ct_del),
        LIBRARY_SYMBOL(struct nf_functions, nfnl_, ct_put),
        LIBRARY_SYMBOL(struct nf_functions, nfnl, msg_ct_parse),
    };
    static const char *const files[] = { "libnl-nf-3.so.200", NULL };
    static struct library library = {
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .name = "libnl-nf-3",
        .package = "libnl-nf-3-200",
        .files = files,
        .symbols = symbols,
        .n = ELEMENTS(symbols),
        .functions = &nf,
    };

    return library_load(&library, op, err);
}

/* ---- the thread ---- */

struct flush {
    struct work work;
    struct place place;
    struct in_addr *addresses;
    size_t n;
    unsigned char ports[UINT16_MAX / CHAR_BIT + 1]; /* of UDP: a bit each */
    bool has_ports;
    struct nfnl_ct **found;
    size_t count, room;
    size_t removed;
    bool no_memory;
};

static bool is_wanted(const struct flush *f, struct nl_addr *address)
{
    if (!address || nl_addr_get_len(address) != sizeof(struct in_addr))
        return false;
    for (size_t i = 0; i < f->n; i++)
        if (memcmp(nl_addr_get_binary_addr(address), &f->addresses[i], sizeof(struct in_addr)) == 0)
            return true;
    return false;
}

static bool has_port(const struct flush *f, unsigned port)
{
    return port <= UINT16_MAX && f->ports[port / CHAR_BIT] & (1U << port % CHAR_BIT);
}

/* Either end, as it was sent and as it is answered: whom a DNAT leads to is in the answer alone. */
static bool concerns(const struct flush *f, const struct nfnl_ct *ct)
{
    for (int reply = 0; reply <= 1; reply++)
        if (is_wanted(f, nf.ct_get_src(ct, reply)) || is_wanted(f, nf.ct_get_dst(ct, reply)))
            return true;
    return f->has_ports && nf.ct_get_proto(ct) == IPPROTO_UDP &&
           has_port(f, nf.ct_get_dst_port(ct, 0));
}

static bool make_room(struct flush *f)
{
    size_t room = f->room ? f->room * 2 : 64;
    struct nfnl_ct **bigger;

    if (f->count < f->room)
        return true;
    bigger = realloc(f->found, room * sizeof(struct nfnl_ct *));
    f->no_memory = f->no_memory || !bigger;
    if (!bigger)
        return false;
    f->found = bigger;
    f->room = room;
    return true;
}

static int on_entry(struct nl_msg *message, void *arg)
{
    struct flush *f = arg;
    struct nfnl_ct *ct;

    if (nf.msg_ct_parse(nlmsg_hdr(message), &ct) < 0)
        return NL_OK;
    if (concerns(f, ct) && make_room(f))
        f->found[f->count++] = ct;
    else
        nf.ct_put(ct);
    return NL_OK;
}

/* One that ended by itself meanwhile is gone as well. 0 or libnl's code. */
static int flush_entries(struct flush *f, struct nl_sock *s, int queue)
{
    int fd = queue < 0 ? -EBADF : inside_take(queue);
    int r;

    if (queue < 0)
        r = nl_connect(s, NETLINK_NETFILTER);
    else
        r = fd < 0 ? -NLE_FAILURE : nl_socket_set_fd(s, NETLINK_NETFILTER, fd);
    if (r < 0)
        close_fd(&fd);
    if (r >= 0)
        r = nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_CUSTOM, on_entry, f);
    if (r >= 0)
        r = nf.ct_dump_request(s);
    if (r >= 0)
        r = nl_recvmsgs_default(s);
    for (size_t i = 0; i < f->count && r >= 0; i++) {
        r = nf.ct_del(s, f->found[i], 0);
        if (r >= 0)
            f->removed++;
        else if (r == -NLE_OBJ_NOTFOUND)
            r = 0;
    }
    return r >= 0 && f->no_memory ? -NLE_NOMEM : r;
}

/* Does the namespace remember any? To look through them takes the longer the larger the host's table is,
 * and is done without need where none are. No also where the kernel knows no conntrack: to ask loads it. */
static bool has_any(int fd)
{
    char digit = '0';

    return fd >= 0 && read(fd, &digit, 1) == 1 && digit != '0';
}

/* How many there are, and of a user's own namespace then the netlink socket. */
static int open_count(const struct flush *f, int *ret_queue)
{
    static const char *const kinds[] = { "connections", "1", "netfilter", "1", NULL };
    int fd, r;

    if (f->place.user_fd >= 0) {
        *ret_queue = inside_start(&f->place, kinds);
        return *ret_queue < 0 ? *ret_queue : inside_take(*ret_queue);
    }
    r = enter_netns(f->place.net_fd); /* with this thread */
    if (r < 0)
        return r;
    fd = open("/proc/sys/net/netfilter/nf_conntrack_count", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void flush_run(struct work *work)
{
    struct flush *f = (struct flush *)work;
    cleanup_fd int queue = -EBADF;
    cleanup_fd int count = open_count(f, &queue);
    struct nl_sock *s;
    int r;

    if (count < 0 && count != -ENOENT) {
        work->code = error_errno(&work->error, work->error.op, -count, "can't enter the namespace");
        return;
    }
    if (!has_any(count))
        return;
    work->code = nf_load(work->error.op, &work->error);
    if (work->code < 0)
        return;
    s = nl_socket_alloc();
    r = s ? flush_entries(f, s, queue) : -NLE_NOMEM;
    if (s)
        nl_socket_free(s);
    if (r < 0)
        work->code = error_set(&work->error,
                               r == -NLE_PERM ? FCPROC_ERR_PERMISSION : FCPROC_ERR_SYSTEM,
                               work->error.op, 0, "can't flush the connections: %s",
                               nl_geterror(r));
}

static void flush_free(struct work *work)
{
    struct flush *f = (struct flush *)work;

    for (size_t i = 0; i < f->count; i++)
        nf.ct_put(f->found[i]);
    free(f->found);
    free(f->addresses);
    place_close(&f->place);
    free(f);
}

static void flush_describe(const fcproc_op *op, char *buf, size_t size)
{
    (void)op;
    (void)snprintf(buf, size, "the flush of connections still going on (it is not stopped)");
}

/* ---- the operation ---- */

/* An address, or "udp:53". */
static int flush_want(struct flush *f, const char *text, fcproc_error *err)
{
    static const char udp[] = "udp:";
    size_t prefix = sizeof(udp) - 1;
    char *end = NULL;
    unsigned long port;

    if (strncmp(text, udp, prefix) != 0) {
        if (inet_pton(AF_INET, text, &f->addresses[f->n]) != 1)
            return error_set(err, FCPROC_ERR_INVALID, "conntrack.flush", 0,
                             "'%s' is no IPv4 address", text);
        f->n++;
        return 0;
    }
    port = strtoul(text + prefix, &end, 10);
    if (end == text + prefix || *end || port > UINT16_MAX)
        return error_set(err, FCPROC_ERR_INVALID, "conntrack.flush", 0, "'%s' is no UDP port",
                         text);
    f->ports[port / CHAR_BIT] |= (unsigned char)(1U << port % CHAR_BIT);
    f->has_ports = true;
    return 0;
}

FCPROC_API int fcproc_conntrack_flush(fcproc_net *net, const char *const *addresses, size_t n,
                                      fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = "conntrack.flush",
                                           .step = work_step,
                                           .destroy = work_destroy,
                                           .describe = flush_describe };
    struct flush *f;
    int r = check_maker(net->pid, class.name, err);

    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r < 0)
        return r;
    f = work_new(sizeof(*f), class.name, flush_run, flush_free);
    if (!f)
        return error_nomem(err, class.name);
    f->place = (struct place)PLACE_INIT;
    f->addresses = calloc(n + 1, sizeof(*f->addresses));
    if (!f->addresses)
        r = error_nomem(err, class.name);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = flush_want(f, addresses[i], err);
    if (r == 0) {
        r = place_copy(&net->place, &f->place);
        if (r < 0)
            r = error_errno(err, class.name, -r, "can't keep the network namespace");
    }
    if (r < 0) {
        work_unref(&f->work);
        return r;
    }
    return work_start(&class, &f->work, ctx, ret, err);
}

FCPROC_API size_t fcproc_conntrack_flush_result(const fcproc_op *op)
{
    return ((const struct flush *)work_of(op))->removed;
}
