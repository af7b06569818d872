/* SPDX-License-Identifier: MIT
 *
 * Bridges and link state: looks first, then does only what is missing. Nothing but a bridge is
 * ever changed here.
 *
 * The messages are built with libnl-3's nlmsg_* and nla_* calls. libnl-route-3 would add objects
 * to fill for each, has no setter for half of what is asked here (isolated, filtered dumps,
 * delete by group), and reads links through a cache; so it is not needed.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include "netlink.h"

/* ---- names and addresses ---- */

FCPROC_API int fcproc_check_ifname(const char *name, fcproc_error *err)
{
    static const char op[] = "ifname.check";
    size_t len = strlen(name);

    if (len == 0)
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "an empty interface name");
    if (len > FCPROC_IFNAME_MAX)
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the interface name '%s' has %zu bytes; the kernel takes at most %d", name,
                         len, FCPROC_IFNAME_MAX);
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "'%s' can't be an interface name", name);
    for (const char *p = name; *p; p++)
        /* % would make the kernel number the name by itself */
        if (*p == '/' || *p == ':' || *p == '%' || isspace((unsigned char)*p) ||
            iscntrl((unsigned char)*p))
            return error_set(err, FCPROC_ERR_INVALID, op, 0,
                             "the interface name '%s' holds a slash, colon, per cent sign or "
                             "white space",
                             name);
    return 0;
}

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

/* ---- what a link is ---- */

bool link_is_bridge(const struct link_info *link)
{
    return strcmp(link->kind, "bridge") == 0;
}

bool link_is_tap(const struct link_info *link)
{
    return strcmp(link->kind, "tun") == 0 && link->tun_type == IFF_TAP;
}

const char *link_kind_text(const struct link_info *link, char *buf, size_t size)
{
    if (link->tun_type)
        return link->tun_type == IFF_TAP ? "a TAP" : "a TUN";
    if (link->flags & IFF_LOOPBACK)
        return "the loopback";
    if (!link->kind[0])
        return "a physical interface";
    (void)snprintf(buf, size, "a %s", link->kind);
    return buf;
}

static void parse_link_info(struct nlattr *info, struct link_info *ret)
{
    struct nlattr *a[IFLA_INFO_MAX + 1];

    if (nla_parse_nested(a, IFLA_INFO_MAX, info, NULL) < 0)
        return;
    if (a[IFLA_INFO_KIND])
        (void)snprintf(ret->kind, sizeof(ret->kind), "%s", nla_get_string(a[IFLA_INFO_KIND]));
    if (a[IFLA_INFO_DATA] && strcmp(ret->kind, "tun") == 0) {
        struct nlattr *t[IFLA_TUN_MAX + 1];

        if (nla_parse_nested(t, IFLA_TUN_MAX, a[IFLA_INFO_DATA], NULL) < 0)
            return;
        if (t[IFLA_TUN_TYPE])
            ret->tun_type = nla_get_u8(t[IFLA_TUN_TYPE]);
        if (t[IFLA_TUN_OWNER])
            ret->uid = nla_get_u32(t[IFLA_TUN_OWNER]);
        if (t[IFLA_TUN_GROUP])
            ret->gid = nla_get_u32(t[IFLA_TUN_GROUP]);
    }
    if (a[IFLA_INFO_SLAVE_KIND] && a[IFLA_INFO_SLAVE_DATA] &&
        strcmp(nla_get_string(a[IFLA_INFO_SLAVE_KIND]), "bridge") == 0) {
        struct nlattr *b[IFLA_BRPORT_MAX + 1];

        if (nla_parse_nested(b, IFLA_BRPORT_MAX, a[IFLA_INFO_SLAVE_DATA], NULL) >= 0 &&
            b[IFLA_BRPORT_ISOLATED])
            ret->isolated = nla_get_u8(b[IFLA_BRPORT_ISOLATED]) != 0;
    }
}

int link_parse(const struct nlmsghdr *message, struct link_info *ret)
{
    struct nlmsghdr *m = (struct nlmsghdr *)(uintptr_t)message; /* libnl's calls lack the const */
    const struct ifinfomsg *head = nlmsg_data(m);
    struct nlattr *a[IFLA_MAX + 1];

    if (message->nlmsg_type != RTM_NEWLINK)
        return -EPROTO;
    if (nlmsg_parse(m, sizeof(*head), a, IFLA_MAX, NULL) < 0 || !a[IFLA_IFNAME])
        return -EPROTO;
    *ret = (struct link_info){
        .ifindex = head->ifi_index, .flags = head->ifi_flags, .uid = -1, .gid = -1
    };
    (void)snprintf(ret->name, sizeof(ret->name), "%s", nla_get_string(a[IFLA_IFNAME]));
    if (a[IFLA_MASTER])
        ret->master = (int)nla_get_u32(a[IFLA_MASTER]);
    if (a[IFLA_MTU])
        ret->mtu = (int)nla_get_u32(a[IFLA_MTU]);
    if (a[IFLA_TXQLEN])
        ret->queue_length = (int)nla_get_u32(a[IFLA_TXQLEN]);
    if (a[IFLA_ADDRESS] && nla_len(a[IFLA_ADDRESS]) == FCPROC_MAC_LEN)
        memcpy(ret->mac, nla_data(a[IFLA_ADDRESS]), FCPROC_MAC_LEN);
    if (a[IFLA_IFALIAS])
        (void)nla_strlcpy(ret->alias, a[IFLA_IFALIAS], sizeof(ret->alias));
    if (a[IFLA_CARRIER])
        ret->carrier = nla_get_u8(a[IFLA_CARRIER]) != 0;
    if (a[IFLA_LINKINFO])
        parse_link_info(a[IFLA_LINKINFO], ret);
    return 0;
}

static int parse_into(const struct nlmsghdr *message, void *arg)
{
    return link_parse(message, arg);
}

#ifndef RTEXT_FILTER_SKIP_STATS
#define RTEXT_FILTER_SKIP_STATS (1 << 3)
#endif

int link_get(fcproc_net *net, const char *name, struct link_info *ret)
{
    struct nl_msg *m = netlink_link_message(RTM_GETLINK, 0, 0, 0);

    if (m && (nla_put_string(m, IFLA_IFNAME, name) < 0 ||
              nla_put_u32(m, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) < 0)) {
        nlmsg_free(m);
        m = NULL;
    }
    return netlink_exchange(net, m, parse_into, ret, NULL, 0);
}

FCPROC_API int fcproc_link_exists(fcproc_net *net, const char *name, fcproc_error *err)
{
    struct link_info info;
    int r = check_maker(net->pid, "link.find", err);

    if (r < 0)
        return r;
    r = link_get(net, name, &info);
    if (r == -ENODEV)
        return 0;
    return r < 0 ? error_errno(err, "link.find", -r, "can't look for the link %s", name) : 1;
}

FCPROC_API int fcproc_link_index(fcproc_net *net, const char *name, fcproc_error *err)
{
    int r = check_maker(net->pid, "link.find", err);

    if (r < 0)
        return r;
    r = link_index(net, name);
    if (r == -ENODEV)
        return 0;
    return r < 0 ? error_errno(err, "link.find", -r, "can't look for the link %s", name) : r;
}

FCPROC_API int fcproc_link_mtu(fcproc_net *net, const char *name, fcproc_error *err)
{
    struct link_info info;
    int r = check_maker(net->pid, "link.find", err);

    if (r < 0)
        return r;
    r = link_get(net, name, &info);
    return r < 0 ? error_errno(err, "link.find", -r, "can't look at the link %s", name) : info.mtu;
}

int link_put_alias(struct nl_msg *message, const char *alias)
{
    return nla_put(message, IFLA_IFALIAS, (int)strlen(alias), alias);
}

int link_each(fcproc_net *net, int master, netlink_each each, void *arg)
{
    struct nl_msg *m = netlink_link_message(RTM_GETLINK, NLM_F_DUMP, 0, 0);

    if (m && ((master && nla_put_u32(m, IFLA_MASTER, (uint32_t)master) < 0) ||
              nla_put_u32(m, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) < 0)) {
        nlmsg_free(m);
        m = NULL;
    }
    return netlink_exchange(net, m, each, arg, NULL, 0);
}

/* ---- bridges ---- */

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

enum address_answer { ADDRESS_THERE = 0, ADDRESS_ADDED = 1, BRIDGE_VANISHED = 2 };

/* The address is there afterwards; others on the bridge are not touched. An address_answer, or
 * an error. */
static int bridge_address(fcproc_net *net, const struct fcproc_bridge *spec, int ifindex,
                          bool just_made, fcproc_error *err)
{
    static const char op[] = "bridge.ensure";
    struct address wanted;
    struct address_search s = { .ifindex = ifindex, .prefix = spec->prefix, .wanted = &wanted };
    char text[NETLINK_TEXT];
    int r;

    if (parse_address(spec->address, &wanted) < 0)
        return fcproc_check_address(spec->address, err);
    r = just_made ? 0 : address_find(net, &s);
    if (r < 0)
        return netlink_error(err, op, r, NULL, "can't list the addresses of %s", spec->name);
    if (s.found)
        return ADDRESS_THERE;
    r = netlink_exchange(net,
                         address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &s),
                         NULL, NULL, text, sizeof(text));
    if (r == -EEXIST) { /* a racing process was faster, or it is there in another form */
        r = address_find(net, &s);
        if (r == 0 && s.found)
            return ADDRESS_THERE;
        return error_set(err, FCPROC_ERR_CONFLICT, op, EEXIST,
                         "%s has the address %s with another prefix than /%d", spec->name,
                         spec->address, spec->prefix);
    }
    if (r == -ENODEV)
        return BRIDGE_VANISHED;
    if (r < 0)
        return netlink_error(err, op, r, text, "can't add %s/%d to the bridge %s", spec->address,
                             spec->prefix, spec->name);
    return ADDRESS_ADDED;
}

int link_set_up(fcproc_net *net, int ifindex, char *text)
{
    return netlink_exchange(net, netlink_link_message(RTM_NEWLINK, NLM_F_ACK, ifindex, IFF_UP),
                            NULL, NULL, text, NETLINK_TEXT);
}

static const char op_ensure[] = "bridge.ensure";

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

FCPROC_API int fcproc_bridge_ensure(fcproc_net *net, const struct fcproc_bridge *spec,
                                    fcproc_ctx *ctx, struct fcproc_bridge_info *ret,
                                    fcproc_error *err)
{
    struct fcproc_bridge_info info = { 0 };
    int r = check_maker(net->pid, "bridge.ensure", err);

    if (r == 0)
        r = check_struct(spec, sizeof(*spec), "fcproc_bridge", "bridge.ensure", err);
    if (r == 0)
        r = check_given(spec->name, "name of a bridge", "bridge.ensure", err);
    if (r == 0)
        r = fcproc_check_ifname(spec->name, err);
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
    return error_set(err, FCPROC_ERR_BUSY, "bridge.ensure", 0,
                     "the bridge %s was removed again and again while it was set up", spec->name);
}
