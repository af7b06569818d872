/* SPDX-License-Identifier: MIT
 *
 * Bridges and their addresses: looks first, then does only what is missing. Nothing but a bridge is
 * ever changed here.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include "netlink.h"

/* ---- addresses ---- */

struct address {
    int family;
    int len;
    unsigned char bytes[16];
};

static int parse_address(const char *text, struct address *ret)
{
    *ret = (struct address){ .family = AF_INET, .len = 4 };
    if (inet_pton(AF_INET, text, ret->bytes) == 1)
        return 0;
    *ret = (struct address){ .family = AF_INET6, .len = 16 };
    return inet_pton(AF_INET6, text, ret->bytes) == 1 ? 0 : -EINVAL;
}

FCPROC_API int fcproc_check_address(const char *address, fcproc_error *err)
{
    struct address a;

    if (parse_address(address, &a) < 0)
        return error_set(err, FCPROC_ERR_INVALID, "address.check", 0,
                         "'%s' is no IPv4 or IPv6 address", address);
    return a.family;
}

struct address_search {
    int ifindex;
    int prefix;
    const struct address *wanted;
    bool found;
};

static int match_address(const struct nlmsghdr *message, void *arg)
{
    struct address_search *s = arg;
    struct nlmsghdr *m = (struct nlmsghdr *)(uintptr_t)message;
    const struct ifaddrmsg *head = nlmsg_data(m);
    struct nlattr *a[IFA_MAX + 1];
    struct nlattr *local;

    if (message->nlmsg_type != RTM_NEWADDR || nlmsg_parse(m, sizeof(*head), a, IFA_MAX, NULL) < 0)
        return 0;
    local = a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS];
    if (local && (int)head->ifa_index == s->ifindex && head->ifa_prefixlen == s->prefix &&
        nla_len(local) == s->wanted->len &&
        memcmp(nla_data(local), s->wanted->bytes, (size_t)s->wanted->len) == 0)
        s->found = true;
    return 0;
}

static struct nl_msg *address_message(int type, int flags, const struct address_search *s)
{
    struct ifaddrmsg head = { .ifa_family = (unsigned char)s->wanted->family,
                              .ifa_index = (unsigned)s->ifindex };
    struct nl_msg *m = nlmsg_alloc_simple(type, flags);

    if (type == RTM_NEWADDR) {
        head.ifa_prefixlen = (unsigned char)s->prefix;
        /* Ready at once: nobody else has an address that we hand out. */
        head.ifa_flags = s->wanted->family == AF_INET6 ? IFA_F_NODAD : 0;
    }
    if (m && (nlmsg_append(m, &head, sizeof(head), NLMSG_ALIGNTO) < 0 ||
              (type == RTM_NEWADDR &&
               (nla_put(m, IFA_LOCAL, s->wanted->len, s->wanted->bytes) < 0 ||
                nla_put(m, IFA_ADDRESS, s->wanted->len, s->wanted->bytes) < 0)))) {
        nlmsg_free(m);
        return NULL;
    }
    return m;
}

static int address_find(fcproc_net *net, struct address_search *s)
{
    int r;

    s->found = false;
    do
        r = netlink_exchange(net, address_message(RTM_GETADDR, NLM_F_DUMP, s), match_address, s,
                             NULL, 0);
    while (r == -EAGAIN);
    return r;
}

/* ---- bridges ---- */

static const char op_ensure[] = "bridge.ensure";

static int bridge_add(fcproc_net *net, const char *name, char *text)
{
    struct nl_msg *m;
    struct nlattr *info;
    unsigned char mac[FCPROC_MAC_LEN];

    if (getrandom(mac, sizeof(mac), 0) != sizeof(mac))
        return -errno;
    mac[0] = (unsigned char)((mac[0] & 0xfc) | 0x02); /* unicast, locally administered */
    m = netlink_link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, 0, IFF_UP);
    /* Without a MAC of its own a bridge takes the lowest of its ports, and changes with them. */
    if (m && (nla_put_string(m, IFLA_IFNAME, name) < 0 ||
              nla_put(m, IFLA_ADDRESS, sizeof(mac), mac) < 0 ||
              !(info = nla_nest_start(m, IFLA_LINKINFO)) ||
              nla_put_string(m, IFLA_INFO_KIND, "bridge") < 0 || nla_nest_end(m, info) < 0)) {
        nlmsg_free(m);
        m = NULL;
    }
    return netlink_exchange(net, m, NULL, NULL, text, NETLINK_TEXT);
}

static void bridge_remember(fcproc_net *net, const struct link_info *link)
{
    memcpy(net->bridge.name, link->name, sizeof(net->bridge.name));
    net->bridge.ifindex = link->ifindex;
}

int bridge_known(fcproc_net *net, const char *name)
{
    struct ifreq answer = { 0 };

    if (!net->bridge.ifindex || strcmp(net->bridge.name, name) != 0 ||
        link_index(net, name) != net->bridge.ifindex)
        return 0;
    (void)snprintf(answer.ifr_name, sizeof(answer.ifr_name), "%s", name);
    return ioctl(nl_socket_get_fd(net->socket), SIOCGIFFLAGS, &answer) == 0 &&
                   (answer.ifr_flags & IFF_UP)
               ? net->bridge.ifindex
               : 0;
}

/* The kernel takes no alias with the message that creates a link. */
static int bridge_set_alias(fcproc_net *net, int ifindex, const char *alias, char *text)
{
    struct nl_msg *m = netlink_link_message(RTM_NEWLINK, NLM_F_ACK, ifindex, 0);

    if (m && link_put_alias(m, alias) < 0) {
        nlmsg_free(m);
        m = NULL;
    }
    return netlink_exchange(net, m, NULL, NULL, text, NETLINK_TEXT);
}

enum address_answer { ADDRESS_THERE = 0, ADDRESS_ADDED = 1, BRIDGE_VANISHED = 2 };

/* The address is there afterwards; others on the bridge are not touched. An address_answer, or
 * an error. */
static int bridge_address(fcproc_net *net, const struct fcproc_bridge *spec, int ifindex,
                          bool just_made, fcproc_error *err)
{
    struct address wanted;
    struct address_search s = { .ifindex = ifindex, .prefix = spec->prefix, .wanted = &wanted };
    char text[NETLINK_TEXT];
    int r;

    (void)parse_address(spec->address, &wanted); /* check_bridge's */
    r = just_made ? 0 : address_find(net, &s);
    if (r < 0)
        return netlink_error(err, op_ensure, r, NULL, "can't list the addresses of %s", spec->name);
    if (s.found)
        return ADDRESS_THERE;
    r = netlink_exchange(net,
                         address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &s),
                         NULL, NULL, text, sizeof(text));
    if (r == -EEXIST) { /* a racing process was faster, or it is there in another form */
        r = address_find(net, &s);
        if (r == 0 && s.found)
            return ADDRESS_THERE;
        return error_set(err, FCPROC_ERR_CONFLICT, op_ensure, EEXIST,
                         "%s has the address %s with another prefix than /%d", spec->name,
                         spec->address, spec->prefix);
    }
    if (r == -ENODEV)
        return BRIDGE_VANISHED;
    if (r < 0)
        return netlink_error(err, op_ensure, r, text, "can't add %s/%d to the bridge %s",
                             spec->address, spec->prefix, spec->name);
    return ADDRESS_ADDED;
}

/* The bridge, made when there is none. 1; 0: it vanished meanwhile; or a code. */
static int bridge_find(fcproc_net *net, const struct fcproc_bridge *spec,
                       struct fcproc_bridge_info *ret, struct link_info *link, fcproc_error *err)
{
    char text[NETLINK_TEXT] = "", kind[24];
    int r;

    *link = (struct link_info){ .ifindex = bridge_known(net, spec->name), .flags = IFF_UP };
    if (link->ifindex)
        return 1;
    r = link_get(net, spec->name, link);
    if (r == -ENODEV) {
        bool made;

        r = bridge_add(net, spec->name, text);
        if (r < 0 && r != -EEXIST)
            return netlink_error(err, op_ensure, r, text, "can't create the bridge %s", spec->name);
        made = r == 0;
        ret->created = ret->created || made;
        r = link_get(net, spec->name, link);
        if (r == 0 && made && spec->alias)
            r = bridge_set_alias(net, link->ifindex, spec->alias, text);
        if (r == -ENODEV)
            return 0;
    }
    if (r < 0)
        return netlink_error(err, op_ensure, r, text, "can't look at %s", spec->name);
    if (!link_is_bridge(link))
        return error_set(err, FCPROC_ERR_CONFLICT, op_ensure, 0,
                         "%s is %s, not a bridge; left untouched: choose another bridge_name",
                         spec->name, link_kind_text(link, kind, sizeof(kind)));
    bridge_remember(net, link);
    return 1;
}

/* One look and what it shows missing. 1: done; 0: somebody changed it meanwhile, look again. */
static int bridge_ensure_once(fcproc_net *net, const struct fcproc_bridge *spec, fcproc_ctx *ctx,
                              struct fcproc_bridge_info *ret, fcproc_error *err)
{
    char text[NETLINK_TEXT] = "";
    struct link_info link;
    int r = fcproc_ctx_status(ctx, err);

    if (r == 0)
        r = bridge_find(net, spec, ret, &link, err);
    if (r <= 0)
        return r;
    ret->ifindex = link.ifindex;
    if (spec->address) {
        r = fcproc_ctx_status(ctx, err);
        if (r == 0)
            r = bridge_address(net, spec, link.ifindex, ret->created, err);
        if (r < 0)
            return r;
        if (r == BRIDGE_VANISHED)
            return 0;
        ret->addressed = ret->addressed || r == ADDRESS_ADDED;
    }
    if (!(link.flags & IFF_UP)) {
        r = link_set_up(net, link.ifindex, text);
        if (r == -ENODEV)
            return 0;
        if (r < 0)
            return netlink_error(err, op_ensure, r, text, "can't bring the bridge %s up",
                                 spec->name);
        ret->brought_up = true;
    }
    return 1;
}

/* Before anything is made. A prefix goes to the kernel as a byte, which would be cut. */
static int check_bridge(const struct fcproc_bridge *spec, fcproc_error *err)
{
    struct address address;
    int r = fcproc_check_ifname(spec->name, err);

    if (r < 0 || !spec->address)
        return r;
    if (parse_address(spec->address, &address) < 0)
        return fcproc_check_address(spec->address, err);
    if (spec->prefix < 0 || spec->prefix > address.len * 8)
        return error_set(err, FCPROC_ERR_INVALID, op_ensure, 0,
                         "%s/%d can't be: the prefix of such an address has 0 to %d bits",
                         spec->address, spec->prefix, address.len * 8);
    return 0;
}

FCPROC_API int fcproc_bridge_ensure(fcproc_net *net, const struct fcproc_bridge *spec,
                                    fcproc_ctx *ctx, struct fcproc_bridge_info *ret,
                                    fcproc_error *err)
{
    struct fcproc_bridge_info info = { 0 };
    int r = check_maker(net->pid, op_ensure, err);

    if (r == 0)
        r = check_struct(spec, sizeof(*spec), "fcproc_bridge", op_ensure, err);
    if (r == 0)
        r = check_given(spec->name, "name of a bridge", op_ensure, err);
    if (r == 0)
        r = check_bridge(spec, err);
    if (r < 0)
        return r;
    for (int tries = 0; tries < 10; tries++) {
        r = bridge_ensure_once(net, spec, ctx, &info, err);
        if (r != 0) {
            if (r > 0 && ret)
                *ret = info;
            return r < 0 ? r : 0;
        }
    }
    return error_set(err, FCPROC_ERR_BUSY, op_ensure, 0,
                     "the bridge %s was removed again and again while it was set up", spec->name);
}
