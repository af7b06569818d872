/* SPDX-License-Identifier: MIT
 *
 * Which TAPs there are. Looks only.
 */
#include "netlink.h"

struct tap_listing {
    struct fcproc_tap_info *taps;
    size_t n, room;
    int master;
};

static int list_one(const struct nlmsghdr *message, void *arg)
{
    struct tap_listing *list = arg;
    struct link_info link;
    struct fcproc_tap_info *tap;

    if (link_parse(message, &link) < 0 || (list->master && link.master != list->master) ||
        !link_is_tap(&link))
        return 0;
    if (list->n == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        struct fcproc_tap_info *bigger = realloc(list->taps, room * sizeof(*bigger));

        if (!bigger)
            return -ENOMEM;
        list->taps = bigger;
        list->room = room;
    }
    tap = &list->taps[list->n++];
    *tap = (struct fcproc_tap_info){ .ifindex = link.ifindex,
                                     .mtu = link.mtu,
                                     .uid = link.uid,
                                     .gid = link.gid,
                                     .up = (link.flags & IFF_UP) != 0,
                                     .isolated = link.isolated,
                                     .in_use = link.carrier,
                                     .master = link.master };
    memcpy(tap->name, link.name, sizeof(tap->name));
    memcpy(tap->mac, link.mac, sizeof(tap->mac));
    memcpy(tap->alias, link.alias, sizeof(tap->alias));
    return 0;
}

FCPROC_API int fcproc_tap_list(fcproc_net *net, const char *bridge, fcproc_ctx *ctx,
                               struct fcproc_tap_info **ret, size_t *ret_n, fcproc_error *err)
{
    static const char op[] = "tap.list";
    struct tap_listing list = { 0 };
    struct link_info link = { 0 };
    int r = check_maker(net->pid, op, err);

    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r < 0)
        return r;
    if (bridge)
        r = link_get(net, bridge, &link);
    if (r == 0 && bridge && !link_is_bridge(&link))
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0, "%s is no bridge", bridge);
    if (r == 0) {
        list.master = link.ifindex;
        do {
            list.n = 0;
            r = link_each(net, link.ifindex, list_one, &list);
        } while (r == -EAGAIN);
    } else if (r == -ENODEV) {
        r = 0;
    }
    if (r < 0) {
        free(list.taps);
        return netlink_error(err, op, r, NULL, "can't list the TAPs of %s",
                             bridge ? bridge : "the network namespace");
    }
    *ret = list.taps;
    *ret_n = list.n;
    return 0;
}
