/* SPDX-License-Identifier: MIT
 *
 * rtnetlink over libnl-3. libnl maps errno to fewer codes of its own and drops the extended
 * acknowledgement; an error callback keeps both.
 *
 * The messages are built with libnl-3's nlmsg_* and nla_* calls. libnl-route-3 would add objects
 * to fill for each, has no setter for half of what is asked of it (isolated, filtered dumps,
 * delete by group), and reads links through a cache; so it is not needed.
 */
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "netlink.h"

#ifndef NETLINK_GET_STRICT_CHK
#define NETLINK_GET_STRICT_CHK 12
#endif

enum { RECEIVE_BUFFER = 32768 }; /* the kernel's largest dump message */

static int connect_here(struct nl_sock *s)
{
    int fd;

    errno = 0;
    if (nl_connect(s, NETLINK_ROUTE) < 0)
        return errno ? -errno : -ENOMEM;
    fd = nl_socket_get_fd(s);
    return fd < 0 ? -EBADF : 0;
}

static int connect_to(void *arg)
{
    return connect_here(arg);
}

/* One of a user's own namespace comes from there. */
static int socket_connect(fcproc_net *net, struct nl_sock *s, const char *tuns)
{
    const struct place *place = &net->place;
    int fd, r;

    if (place->user_fd < 0)
        return place->net_fd < 0 ? connect_here(s) : thread_call(place->net_fd, connect_to, s);
    net->tuns = inside_start(place, (const char *const[]){ "route", "1", "tun", tuns, NULL });
    fd = net->tuns < 0 ? net->tuns : inside_take(net->tuns);
    if (fd < 0)
        return fd;
    r = nl_socket_set_fd(s, NETLINK_ROUTE, fd);
    if (r < 0)
        close_fd(&fd);
    return r < 0 ? -ENOMEM : 0;
}

int netlink_open(fcproc_net *net, const char *tuns)
{
    struct nl_sock *s = nl_socket_alloc();
    int one = 1;
    int fd, r;

    if (!s)
        return -ENOMEM;
    r = socket_connect(net, s, tuns);
    if (r == 0 && nl_socket_set_msg_buf_size(s, RECEIVE_BUFFER) < 0)
        r = -ENOMEM;
    if (r < 0) {
        nl_socket_free(s);
        return r;
    }
    nl_socket_disable_msg_peek(s);
    nl_socket_disable_auto_ack(s); /* changes ask for it; an answered question needs none */
    fd = nl_socket_get_fd(s);
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
    /* Lets the kernel filter dumps (by master, by interface) in place of us. */
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
    net->socket = s;
    return 0;
}

struct nl_msg *netlink_link_message(int type, int flags, int ifindex, unsigned change_to_up)
{
    struct ifinfomsg head = { .ifi_index = ifindex,
                              .ifi_flags = change_to_up,
                              .ifi_change = change_to_up };
    struct nl_msg *message = nlmsg_alloc_simple(type, flags);

    if (message && nlmsg_append(message, &head, sizeof(head), NLMSG_ALIGNTO) < 0) {
        nlmsg_free(message);
        return NULL;
    }
    return message;
}

struct exchange {
    netlink_each each;
    void *arg;
    int result;  /* of each, or the kernel's -errno */
    bool single; /* one answer and no acknowledgement after it */
    bool finished;
    char *text;
    size_t size;
};

static int on_valid(struct nl_msg *message, void *arg)
{
    struct exchange *x = arg;

    if (x->each && x->result == 0)
        x->result = x->each(nlmsg_hdr(message), x->arg);
    x->finished = x->finished || x->single;
    return NL_OK;
}

static int on_finish(struct nl_msg *message, void *arg)
{
    (void)message;
    ((struct exchange *)arg)->finished = true;
    return NL_STOP;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
    struct exchange *x = arg;
    /* libnl hands out the payload; its header stands just before it. */
    struct nlmsghdr *head = (struct nlmsghdr *)(void *)((char *)e - NLMSG_HDRLEN);
    struct nlattr *attributes[NLMSGERR_ATTR_MAX + 1];
    size_t skip = sizeof(*e);

    (void)from;
    x->finished = true;
    if (x->result == 0)
        x->result = e->error;
    if (!(head->nlmsg_flags & NLM_F_CAPPED))
        skip += e->msg.nlmsg_len - NLMSG_HDRLEN;
    if ((head->nlmsg_flags & NLM_F_ACK_TLVS) && x->text &&
        nlmsg_parse(head, (int)skip, attributes, NLMSGERR_ATTR_MAX, NULL) >= 0 &&
        attributes[NLMSGERR_ATTR_MSG])
        (void)snprintf(x->text, x->size, "%s", nla_get_string(attributes[NLMSGERR_ATTR_MSG]));
    return NL_STOP;
}

/* An exchange broke off (no memory): what was not read must not answer the next question. The
 * kernel has queued all of it by now, or makes it as a dump is read on. */
static void netlink_drain(struct nl_sock *s)
{
    char rest[4096];

    while (recv(nl_socket_get_fd(s), rest, sizeof(rest), MSG_DONTWAIT) > 0) { }
}

int netlink_exchange(fcproc_net *net, struct nl_msg *message, netlink_each each, void *arg,
                     char *text, size_t size)
{
    struct exchange x = { .each = each, .arg = arg, .text = text, .size = size };
    struct nl_cb *cb;
    int r, why;

    if (text)
        text[0] = '\0';
    if (!message)
        return -ENOMEM;
    cb = nl_cb_alloc(NL_CB_CUSTOM);
    if (!cb) {
        nlmsg_free(message);
        return -ENOMEM;
    }
    (void)nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, &x);
    (void)nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_finish, &x);
    (void)nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_finish, &x);
    (void)nl_cb_err(cb, NL_CB_CUSTOM, on_error, &x);
    x.single = !(nlmsg_hdr(message)->nlmsg_flags & (NLM_F_ACK | NLM_F_DUMP));
    errno = 0;
    r = nl_send_auto(net->socket, message);
    nlmsg_free(message);
    while (r >= 0 && !x.finished)
        r = nl_recvmsgs(net->socket, cb);
    why = errno;
    nl_cb_put(cb);
    if (r < 0 && r != -NLE_DUMP_INTR)
        netlink_drain(net->socket);
    if (r == -NLE_DUMP_INTR) /* links came or went meanwhile: the caller looks again */
        x.result = -EAGAIN;
    else if (r < 0 && x.result == 0)
        x.result = why ? -why : -ENOMEM;
    return x.result;
}

int netlink_error(fcproc_error *err, const char *op, int r, const char *kernel_text,
                  const char *format, ...)
{
    char what[400];
    va_list args;
    int code;

    va_start(args, format);
    (void)vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    code = error_errno(err, op, -r, "%s", what);
    if (kernel_text && kernel_text[0])
        error_append(err, " (kernel: %s)", kernel_text);
    if (r == -EPERM)
        error_append(err, "; this needs CAP_NET_ADMIN in the network namespace");
    return code;
}

/* ---- what needs no exchange ---- */

int link_index(fcproc_net *net, const char *name)
{
    struct ifreq request = { 0 };

    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(nl_socket_get_fd(net->socket), SIOCGIFINDEX, &request) < 0)
        return -errno;
    return request.ifr_ifindex;
}

/* To bind a socket to the link asks for nothing else of it. RTM_GETLINK takes the lock that every
 * change of a link takes, settles what the link has pending and describes all of it; SIOCGIFINDEX
 * runs modprobe for a name that is not there. */
int link_probe(fcproc_net *net, const char *name)
{
    cleanup_fd int fd = -EBADF;

    if (net->place.user_fd >= 0) { /* no module is looked for on behalf of an ordinary user */
        int r = link_index(net, name);

        return r < 0 ? r : 0;
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name)) < 0 ? -errno
                                                                                          : 0;
}

/* ---- the socket that callers have ---- */

FCPROC_API int fcproc_net_open(const fcproc_netns *ns, fcproc_net **ret, fcproc_error *err)
{
    static const struct place here = PLACE_INIT;
    fcproc_net *net = calloc(1, sizeof(*net));
    int r = -ENOMEM;

    if (net) {
        net->pid = getpid();
        net->tuns = -EBADF;
        r = place_copy(ns ? &ns->place : &here, &net->place);
        if (r == 0)
            r = netlink_open(net, TUNS_AT_ONCE);
    }
    if (r < 0) {
        fcproc_net_close(net);
        return error_errno(err, "net.open", -r, "can't open a netlink socket");
    }
    *ret = net;
    return 0;
}

void net_close_all(fcproc_net *net)
{
    if (net->socket)
        nl_socket_free(net->socket);
    close_fd(&net->tuns);
    place_close(&net->place);
}

FCPROC_API void fcproc_net_close(fcproc_net *net)
{
    if (!net)
        return;
    net_close_all(net);
    free(net);
}
