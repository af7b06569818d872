/* SPDX-License-Identifier: MIT
 *
 * Links: what they may be called, and what they are.
 */
#include <ctype.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <stdio.h>

#include "netlink.h"

/* ---- names ---- */

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

int link_set_up(fcproc_net *net, int ifindex, char *text)
{
    return netlink_exchange(net, netlink_link_message(RTM_NEWLINK, NLM_F_ACK, ifindex, IFF_UP),
                            NULL, NULL, text, NETLINK_TEXT);
}
