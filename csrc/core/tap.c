/* SPDX-License-Identifier: MIT
 *
 * TAPs: made, or made right in place, never taken from whoever uses one. A new TAP lives only as
 * long as our descriptor until it bears its alias; then it is made to last, which a failure takes back.
 * A crash in between leaves an idle TAP that tells whose it is.
 */
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "netlink.h"

enum { DEFAULT_MTU = 1500, DEFAULT_QUEUE_LENGTH = 1000 };
enum { LEAST_IPV6_MTU = 1280 }; /* below it a link has no IPv6 at all */

/* Stable, so that a TAP made again is the same to its neighbours, and ours, so that udev's
 * MACAddressPolicy leaves it alone. FNV-1a. */
FCPROC_API void fcproc_tap_mac(const char *name, unsigned char mac[FCPROC_MAC_LEN])
{
    uint64_t hash = 0xcbf29ce484222325ULL;

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3ULL;
    mac[0] = 0x02; /* unicast, locally administered */
    for (int i = 1; i < FCPROC_MAC_LEN; i++)
        mac[i] = (unsigned char)(hash >> (8 * i));
}

struct tap_job {
    fcproc_net *net;
    const struct fcproc_tap *spec;
    int fd;
    int bridge; /* ifindex, 0: none */
    bool created;
    bool fresh; /* nothing has been said of it yet */
    int mtu;
    unsigned char mac[FCPROC_MAC_LEN];
    struct link_info now;
};

static const char op_create[] = "tap.create";

/* The bridge's ifindex; brings it up as the seed does. */
static int tap_find_bridge(struct tap_job *job, fcproc_error *err)
{
    char text[NETLINK_TEXT], kind[24];
    const char *name = job->spec->bridge;
    struct link_info link;
    int r;

    if (!name)
        return 0;
    job->bridge = bridge_known(job->net, name);
    if (job->bridge)
        return 0;
    r = link_get(job->net, name, &link);
    if (r == -ENODEV)
        return error_set(err, FCPROC_ERR_NOT_FOUND, op_create, ENODEV,
                         "there is no bridge %s for the TAP %s; ensure the bridge first", name,
                         job->spec->name);
    if (r < 0)
        return netlink_error(err, op_create, r, NULL, "can't look at the bridge %s", name);
    if (!link_is_bridge(&link))
        return error_set(err, FCPROC_ERR_CONFLICT, op_create, 0,
                         "%s is %s, not a bridge; left untouched", name,
                         link_kind_text(&link, kind, sizeof(kind)));
    if (!(link.flags & IFF_UP)) {
        r = link_set_up(job->net, link.ifindex, text);
        if (r < 0)
            return netlink_error(err, op_create, r, text, "can't bring the bridge %s up", name);
    }
    job->bridge = link.ifindex;
    return 0;
}

static int tap_refusal(struct tap_job *job, int r, fcproc_error *err)
{
    const char *name = job->spec->name;
    char kind[24];

    if (r == -EBUSY)
        return error_set(err, FCPROC_ERR_BUSY, op_create, EBUSY,
                         "the TAP %s is in use by a running process; stop that VM first, or "
                         "choose another name",
                         name);
    if (r == -EEXIST && link_get(job->net, name, &job->now) == 0) {
        if (link_is_tap(&job->now))
            return error_set(err, FCPROC_ERR_CONFLICT, op_create, 0,
                             "%s is a multi-queue TAP, which Firecracker can't use; left "
                             "untouched: choose another name",
                             name);
        return error_set(err, FCPROC_ERR_CONFLICT, op_create, 0,
                         "%s is %s, not a TAP; left untouched: choose another name", name,
                         link_kind_text(&job->now, kind, sizeof(kind)));
    }
    if (r == -EPERM && link_get(job->net, name, &job->now) == 0 && job->now.uid != geteuid())
        return error_errno(
            err, op_create, EPERM,
            "the TAP %s is there, and belongs to uid %lld, not to this one (%u); choose "
            "another name",
            name, (long long)job->now.uid, geteuid());
    if (r == -EPERM || r == -EACCES)
        return error_errno(err, op_create, -r,
                           "can't create the TAP %s (this needs %sCAP_NET_ADMIN in the network "
                           "namespace)",
                           name, r == -EACCES ? "the right to open /dev/net/tun, and " : "");
    return error_errno(err, op_create, -r, "can't open the TAP %s%s", name,
                       r == -ENOENT || r == -ENODEV ? " (is the tun module loaded?)" : "");
}

/* Creates it or takes hold of an idle one. */
static int tap_open(struct tap_job *job, fcproc_error *err)
{
    const char *name = job->spec->name;
    int r = tap_hold(job->net, name, TAP_CREATE);

    job->created = r >= 0;
    for (int tries = 0; r == -EBUSY && tries < 3; tries++) {
        /* There already. Which it is, an attempt to attach tells without a race. */
        r = tap_hold(job->net, name, TAP_EXISTING);
        if (r == -ENODEV) {
            r = tap_hold(job->net, name, TAP_CREATE);
            job->created = r >= 0;
            continue;
        }
        break;
    }
    if (r < 0)
        return tap_refusal(job, r, err);
    job->fd = r;
    job->fresh = job->created;
    if (!job->created) {
        r = link_get(job->net, name, &job->now);
        if (r < 0)
            return netlink_error(err, op_create, r, NULL, "can't look at the TAP %s", name);
        return 0;
    }
    r = link_index(job->net, name);
    if (r < 0)
        return error_errno(err, op_create, -r, "can't find the TAP %s just made", name);
    job->now = (struct link_info){ .ifindex = r,
                                   .mtu = DEFAULT_MTU,
                                   .queue_length = DEFAULT_QUEUE_LENGTH };
    return 0;
}

/* Adds to the text what is not as it is to be, when it is so. */
FCPROC_PRINTF(4, 5)
static void add_difference(char *text, size_t size, bool differs, const char *format, ...)
{
    size_t used = strlen(text);
    va_list values;

    if (!differs)
        return;
    if (used > 0 && used + 2 < size) {
        memcpy(text + used, ", ", 3);
        used += 2;
    }
    va_start(values, format);
    (void)vsnprintf(text + used, size - used, format, values);
    va_end(values);
}

/* One that is there, and that this user may not change: by what it is no VM's TAP. */
static int tap_differs(const struct tap_job *job, fcproc_error *err)
{
    const struct fcproc_tap *spec = job->spec;
    const struct link_info *now = &job->now;
    const unsigned char *a = now->mac, *b = job->mac;
    char text[160] = "";

    add_difference(text, sizeof(text), now->master != job->bridge, "on %s%s",
                   spec->bridge ? "the bridge " : "no bridge", spec->bridge ? spec->bridge : "");
    add_difference(text, sizeof(text), !(now->flags & IFF_UP), "up");
    add_difference(text, sizeof(text), now->isolated != spec->isolated, "%sisolated",
                   spec->isolated ? "" : "not ");
    add_difference(text, sizeof(text), now->mtu != job->mtu, "of MTU %d (it is %d)", job->mtu,
                   now->mtu);
    add_difference(text, sizeof(text), memcmp(a, b, FCPROC_MAC_LEN) != 0,
                   "of MAC %02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
    return error_errno(
        err, op_create, EPERM,
        "the TAP %s is there, and to be a VM's it would have to be made %s, which needs "
        "CAP_NET_ADMIN in the network namespace",
        spec->name, text[0] ? text : "free of what others have set on it");
}

/* Owner, group and what an earlier user may have set on the device. */
static int tap_set_device(struct tap_job *job, struct fcproc_tap_info *ret, fcproc_error *err)
{
    const struct fcproc_tap *spec = job->spec;
    char text[NETLINK_TEXT] = "";
    int r;

    ret->uid = spec->uid >= 0 ? spec->uid : (int64_t)geteuid();
    ret->gid = spec->gid >= 0 ? spec->gid : (int64_t)getegid();
    /* What needs a right comes first: without it nothing is changed, not even the owner. */
    r = job->created ? 0 : tap_reset_queueing(job->net, job->now.ifindex, text);
    if (r == -EPERM)
        return tap_differs(job, err);
    if (r == 0 && !job->created)
        r = tap_reset_device(job->fd);
    if (r < 0)
        return netlink_error(err, op_create, r, text, "can't reset the TAP %s", spec->name);
    if (ioctl(job->fd, TUNSETOWNER, (unsigned long)ret->uid) < 0 ||
        ioctl(job->fd, TUNSETGROUP, (unsigned long)ret->gid) < 0)
        return error_errno(err, op_create, errno, "can't give the TAP %s to %lld:%lld", spec->name,
                           (long long)ret->uid, (long long)ret->gid);
    return 0;
}

/* A port needs no IPv6 address of its own, which nobody could reach; what comes with one, the
 * kernel's search for routers and for duplicates, goes to the guest and wakes it. */
static bool put_no_ipv6_address(struct nl_msg *m)
{
    struct nlattr *all = nla_nest_start(m, IFLA_AF_SPEC), *inet6;

    return all && (inet6 = nla_nest_start(m, AF_INET6)) &&
           nla_put_u8(m, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE) == 0 &&
           nla_nest_end(m, inet6) == 0 && nla_nest_end(m, all) == 0;
}

static const char *wanted_alias(const struct tap_job *job)
{
    return job->spec->alias ? job->spec->alias : "";
}

/* MAC, MTU, queue length, alias and master, of which only what differs is sent. */
static struct nl_msg *link_message(const struct tap_job *job, int master, unsigned up,
                                   bool no_ipv6_address)
{
    const struct link_info *now = &job->now;
    struct nl_msg *m = netlink_link_message(RTM_NEWLINK, NLM_F_ACK, now->ifindex, up);

    if (m &&
        ((memcmp(now->mac, job->mac, FCPROC_MAC_LEN) != 0 &&
          nla_put(m, IFLA_ADDRESS, FCPROC_MAC_LEN, job->mac) < 0) ||
         (now->mtu != job->mtu && nla_put_u32(m, IFLA_MTU, (uint32_t)job->mtu) < 0) ||
         (now->queue_length != DEFAULT_QUEUE_LENGTH &&
          nla_put_u32(m, IFLA_TXQLEN, DEFAULT_QUEUE_LENGTH) < 0) ||
         (strcmp(now->alias, wanted_alias(job)) != 0 && link_put_alias(m, wanted_alias(job)) < 0) ||
         (now->master != master && nla_put_u32(m, IFLA_MASTER, (uint32_t)master) < 0) ||
         (no_ipv6_address && !put_no_ipv6_address(m)))) {
        nlmsg_free(m);
        return NULL;
    }
    return m;
}

/* Up and isolated. The latter can be said of a port only, so not in the message that makes it one;
 * as that does not bring it up, a new port never works without it. */
static struct nl_msg *port_message(const struct tap_job *job)
{
    struct nl_msg *m = netlink_link_message(RTM_NEWLINK, NLM_F_ACK, job->now.ifindex, IFF_UP);
    struct nlattr *info, *data;

    /* libnl-route has no setter for this one. */
    if (m && job->now.isolated != job->spec->isolated &&
        (!(info = nla_nest_start(m, IFLA_LINKINFO)) ||
         nla_put_string(m, IFLA_INFO_SLAVE_KIND, "bridge") < 0 ||
         !(data = nla_nest_start(m, IFLA_INFO_SLAVE_DATA)) ||
         nla_put_u8(m, IFLA_BRPORT_ISOLATED, job->spec->isolated) < 0 ||
         nla_nest_end(m, data) < 0 || nla_nest_end(m, info) < 0)) {
        nlmsg_free(m);
        return NULL;
    }
    return m;
}

static bool link_differs(const struct tap_job *job, int master)
{
    return memcmp(job->now.mac, job->mac, FCPROC_MAC_LEN) != 0 || job->now.mtu != job->mtu ||
           job->now.queue_length != DEFAULT_QUEUE_LENGTH ||
           strcmp(job->now.alias, wanted_alias(job)) != 0 || job->now.master != master;
}

/* What differs, with this master, and what was said is known from then on. */
static int tap_send(struct tap_job *job, int master, unsigned up, char *text)
{
    bool quiet = job->fresh && job->bridge && job->mtu >= LEAST_IPV6_MTU;
    int r = netlink_exchange(job->net, link_message(job, master, up, quiet), NULL, NULL, text,
                             NETLINK_TEXT);

    if (r == -EAFNOSUPPORT && quiet) /* a host without IPv6 */
        r = netlink_exchange(job->net, link_message(job, master, up, false), NULL, NULL, text,
                             NETLINK_TEXT);
    if (r < 0)
        return r;
    memcpy(job->now.mac, job->mac, FCPROC_MAC_LEN);
    job->now.mtu = job->mtu;
    job->now.queue_length = DEFAULT_QUEUE_LENGTH;
    (void)snprintf(job->now.alias, sizeof(job->now.alias), "%s", wanted_alias(job));
    if (job->now.master != master)
        job->now.isolated = false; /* a new port */
    job->now.master = master;
    job->now.flags |= up;
    job->fresh = false;
    return 0;
}

/* A new one lasts from here on, under its alias. It becomes a port without a descriptor that is open:
 * with a carrier that costs the kernel up to a millisecond more, and to close a port's half of one. */
static int tap_keep(struct tap_job *job)
{
    if (ioctl(job->fd, TUNSETPERSIST, 1UL) < 0)
        return -errno;
    close_fd(&job->fd);
    return 0;
}

static int tap_send_link(struct tap_job *job, char *text)
{
    bool isolated = job->spec->isolated;
    unsigned up = job->bridge && (isolated || job->now.isolated) ? 0 : IFF_UP;
    int r = 0;

    if (job->created && job->fd >= 0) {
        r = tap_send(job, 0, job->bridge ? 0 : IFF_UP, text);
        if (r == 0)
            r = tap_keep(job);
    }
    if (r == 0 && (link_differs(job, job->bridge) || (up & ~job->now.flags)))
        r = tap_send(job, job->bridge, up, text);
    if (r < 0 || !job->bridge || ((job->now.flags & IFF_UP) && job->now.isolated == isolated))
        return r;
    return netlink_exchange(job->net, port_message(job), NULL, NULL, text, NETLINK_TEXT);
}

/* Takes a TAP that was made here, and did not become what it was to be, away again. */
static void tap_roll_back(struct tap_job *job)
{
    if (job->fd < 0)
        job->fd = tap_hold(job->net, job->spec->name, TAP_EXISTING);
    if (job->fd >= 0)
        (void)ioctl(job->fd, TUNSETPERSIST, 0UL);
}

static int tap_set_link(struct tap_job *job, fcproc_error *err)
{
    const struct fcproc_tap *spec = job->spec;
    char text[NETLINK_TEXT];
    int assumed = job->bridge;
    int r = tap_send_link(job, text);

    if (r < 0 && spec->bridge_ifindex) {
        int found = tap_find_bridge(job, err);

        if (found < 0)
            return found;
        if (job->bridge != assumed) /* another one by now */
            r = tap_send_link(job, text);
    }
    if (r == -EXFULL)
        return error_set(err, FCPROC_ERR_BUSY, op_create, EXFULL,
                         "the bridge %s is full: it holds the 1,023 ports that the kernel allows",
                         spec->bridge);
    if (r < 0)
        return netlink_error(err, op_create, r, text, "can't set up the TAP %s%s%s", spec->name,
                             spec->bridge ? " on the bridge " : "",
                             spec->bridge ? spec->bridge : "");
    return 0;
}

FCPROC_API int fcproc_tap_create(fcproc_net *net, const struct fcproc_tap *spec, fcproc_ctx *ctx,
                                 struct fcproc_tap_info *ret, fcproc_error *err)
{
    struct tap_job job = { .net = net, .spec = spec, .fd = -EBADF };
    struct fcproc_tap_info info = { .up = true };
    int r = check_maker(net->pid, op_create, err);

    if (r == 0)
        r = check_struct(spec, sizeof(*spec), "fcproc_tap", op_create, err);
    if (r == 0)
        r = check_given(spec->name, "name of a TAP", op_create, err);
    if (r < 0)
        return r;
    job.bridge = spec->bridge ? spec->bridge_ifindex : 0;
    job.mtu = spec->mtu ? spec->mtu : DEFAULT_MTU;
    info.isolated = spec->isolated;
    if (r == 0)
        r = fcproc_check_ifname(spec->name, err);
    if (r == 0)
        r = ids_check(op_create, spec->uid, spec->gid, err);
    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r == 0 && !job.bridge)
        r = tap_find_bridge(&job, err);
    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r < 0)
        return r;
    if (spec->mac)
        memcpy(job.mac, spec->mac, FCPROC_MAC_LEN);
    else
        fcproc_tap_mac(spec->name, job.mac);
    r = tap_open(&job, err);
    if (r == 0)
        r = tap_set_device(&job, &info, err);
    if (r == 0)
        r = fcproc_ctx_status(ctx, err);
    if (r == 0)
        r = tap_set_link(&job, err);
    if (r < 0 && job.created)
        tap_roll_back(&job);
    close_fd(&job.fd);
    if (r < 0)
        return r;
    (void)snprintf(info.name, sizeof(info.name), "%s", spec->name);
    info.ifindex = job.now.ifindex;
    info.mtu = job.mtu;
    info.created = job.created;
    memcpy(info.mac, job.mac, FCPROC_MAC_LEN);
    *ret = info;
    return 0;
}
