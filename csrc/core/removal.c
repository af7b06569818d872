/* SPDX-License-Identifier: MIT
 *
 * Removes TAPs and bridges on a worker thread: the kernel takes about 15 ms (an RCU barrier) for
 * each removal, or once for a whole link group. Abandoning the operation stops the wait, not the
 * removal.
 */
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include "netlink.h"
#include "worker.h"

enum { HELD_AT_ONCE = 128 }; /* descriptors */

struct removal {
    struct work work;
    struct place place;
    void (*remove)(struct removal *job, fcproc_net *net);
    char **names;
    size_t n;
    size_t removed;
    size_t failed;
};

/* Keeps the first failure's code; later ones are added to its text. */
static void removal_fail(struct removal *job, int code, int sys_errno, const char *what)
{
    if (job->failed++ == 0) {
        job->work.code = error_set(&job->work.error, code, job->work.error.op, sys_errno, "%s",
                                   what);
    } else if (job->failed <= 8) {
        size_t used = strlen(job->work.error.message);

        (void)snprintf(job->work.error.message + used, sizeof(job->work.error.message) - used,
                       "; %s", what);
    }
}

/* ---- TAPs ---- */

struct held {
    int fd;
    int ifindex;
};

/* Why a TAP can't be held. */
static void refuse_one(struct removal *job, fcproc_net *net, const char *name, int r)
{
    struct link_info link;
    char what[128], kind[24];
    int code = r == -EBUSY ? FCPROC_ERR_BUSY : error_code_for(-r);

    if (r == -EEXIST && link_get(net, name, &link) == 0 && !link_is_tap(&link)) {
        (void)snprintf(what, sizeof(what), "%s is %s, not a TAP; left untouched", name,
                       link_kind_text(&link, kind, sizeof(kind)));
        removal_fail(job, FCPROC_ERR_CONFLICT, 0, what);
        return;
    }
    (void)snprintf(what, sizeof(what), "the TAP %s %s", name,
                   r == -EBUSY    ? "is in use by a running process; stop that VM first"
                   : r == -EEXIST ? "is a multi-queue one, not of the kind we make"
                                  : strerrordesc_np(-r));
    removal_fail(job, code, -r, what);
}

static bool is_held(const struct held *held, size_t n, int ifindex)
{
    for (size_t i = 0; i < n; i++)
        if (held[i].ifindex == ifindex)
            return true;
    return false;
}

/* What it is, the attempt to hold it tells. But a name that is not there it would make a TAP of. */
static void hold_one(struct removal *job, fcproc_net *net, const char *name, struct held *held,
                     size_t *n)
{
    int r = link_probe(net, name);
    int ifindex;

    if (r == 0)
        r = tap_hold(net, name, TAP_EXISTING);
    if (r == -ENODEV)
        return; /* not there, or gone by itself meanwhile */
    if (r == -EBUSY && (ifindex = link_index(net, name)) > 0 && is_held(held, *n, ifindex))
        return; /* named twice */
    if (r < 0) {
        refuse_one(job, net, name, r);
        return;
    }
    held[*n].fd = r;
    held[*n].ifindex = link_index(net, name);
    (*n)++;
}

/* A TAP that is no longer persistent goes with its last descriptor: ours. */
static void drop_held(struct removal *job, struct held *held)
{
    if (ioctl(held->fd, TUNSETPERSIST, 0UL) == 0)
        job->removed++;
    else
        removal_fail(job, FCPROC_ERR_SYSTEM, errno, "a TAP can't be made to go");
    close_fd(&held->fd);
}

static int set_group(fcproc_net *net, int ifindex, uint32_t group)
{
    struct nl_msg *m = netlink_link_message(RTM_NEWLINK, NLM_F_ACK, ifindex, 0);

    if (m && nla_put_u32(m, IFLA_GROUP, group) < 0) {
        nlmsg_free(m);
        m = NULL;
    }
    return netlink_exchange(net, m, NULL, NULL, NULL, 0);
}

/* All or none of them, by one message. The group's number is random, so that no other link is
 * in it, and each link in it is held by us, so that none is in use. */
static int delete_group(fcproc_net *net, const struct held *held, size_t n)
{
    uint32_t group;
    struct nl_msg *m;
    int r;

    if (getrandom(&group, sizeof(group), 0) != sizeof(group))
        return -errno;
    group |= 0x80000000U;
    for (size_t i = 0; i < n; i++) {
        r = set_group(net, held[i].ifindex, group);
        if (r < 0)
            return r;
    }
    m = netlink_link_message(RTM_DELLINK, NLM_F_ACK, 0, 0);
    if (m && nla_put_u32(m, IFLA_GROUP, group) < 0) {
        nlmsg_free(m);
        m = NULL;
    }
    return netlink_exchange(net, m, NULL, NULL, NULL, 0);
}

static void work_taps(struct removal *job, fcproc_net *net)
{
    for (size_t at = 0; at < job->n;) {
        struct held held[HELD_AT_ONCE];
        size_t n = 0;

        for (; at < job->n && n < HELD_AT_ONCE; at++)
            hold_one(job, net, job->names[at], held, &n);
        if (n > 1 && delete_group(net, held, n) == 0) {
            job->removed += n;
            for (size_t i = 0; i < n; i++)
                close_fd(&held[i].fd);
        } else {
            for (size_t i = 0; i < n; i++)
                drop_held(job, &held[i]);
        }
    }
}

/* ---- bridges ---- */

static int count_port(const struct nlmsghdr *message, void *arg)
{
    (void)message;
    (*(size_t *)arg)++;
    return 0;
}

static void work_bridge(struct removal *job, fcproc_net *net)
{
    const char *name = job->names[0];
    char what[200], kind[24], text[NETLINK_TEXT] = "";
    struct link_info link;
    size_t ports = 0;
    int r = link_get(net, name, &link);

    if (r == -ENODEV)
        return;
    if (r == 0 && !link_is_bridge(&link)) {
        (void)snprintf(what, sizeof(what), "%s is %s, not a bridge; left untouched", name,
                       link_kind_text(&link, kind, sizeof(kind)));
        removal_fail(job, FCPROC_ERR_CONFLICT, 0, what);
        return;
    }
    if (r == 0)
        do {
            ports = 0;
            r = link_each(net, link.ifindex, count_port, &ports);
        } while (r == -EAGAIN);
    if (r == 0 && ports > 0) {
        (void)snprintf(what, sizeof(what),
                       "the bridge %s still has %zu port%s; delete the TAPs on it first", name,
                       ports, ports == 1 ? "" : "s");
        removal_fail(job, FCPROC_ERR_BUSY, EBUSY, what);
        return;
    }
    if (r == 0)
        r = netlink_exchange(net, netlink_link_message(RTM_DELLINK, NLM_F_ACK, link.ifindex, 0),
                             NULL, NULL, text, sizeof(text));
    if (r == 0)
        job->removed++;
    else if (r != -ENODEV)
        job->work.code = netlink_error(&job->work.error, job->work.error.op, r, text,
                                       "can't delete the bridge %s", name);
}

/* ---- the thread and its operation ---- */

static void removal_run(struct work *work)
{
    struct removal *job = (struct removal *)work;
    struct fcproc_net net = { .place = PLACE_INIT, .tuns = -EBADF };
    size_t n = job->remove == work_taps ? job->n : 0;
    char tuns[16];
    int r = 0;

    (void)snprintf(tuns, sizeof(tuns), "%zu", n < HELD_AT_ONCE ? n : (size_t)HELD_AT_ONCE);
    if (job->place.user_fd >= 0)
        r = place_copy(&job->place, &net.place);
    else
        r = enter_netns(job->place.net_fd); /* with this thread */
    if (r == 0)
        r = netlink_open(&net, tuns);
    if (r < 0)
        work->code = error_errno(&work->error, work->error.op, -r, "can't open a netlink socket");
    else
        job->remove(job, &net);
    net_close_all(&net);
}

static void removal_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct removal *job = work_of(op);

    (void)snprintf(buf, size, "the removal of %s%s still going on (it is not stopped)",
                   job->names[0], job->n > 1 ? " and others" : "");
}

static void removal_free(struct work *work)
{
    struct removal *job = (struct removal *)work;

    for (size_t i = 0; job->names && i < job->n; i++)
        free(job->names[i]);
    free(job->names);
    place_close(&job->place);
    free(job);
}

static struct removal *removal_new(const char *op, const char *const *names, size_t n)
{
    struct removal *job = work_new(sizeof(*job), op, removal_run, removal_free);
    bool whole;

    if (!job)
        return NULL;
    job->place = (struct place)PLACE_INIT;
    job->n = n;
    job->names = calloc(n + 1, sizeof(*job->names));
    whole = job->names != NULL;
    for (size_t i = 0; whole && i < n; i++)
        whole = (job->names[i] = strdup(names[i])) != NULL;
    if (whole)
        return job;
    work_unref(&job->work);
    return NULL;
}

static int removal_start(const struct op_class *class, fcproc_net *net, const char *const *names,
                         size_t n, void (*work)(struct removal *, fcproc_net *), fcproc_ctx *ctx,
                         fcproc_op **ret, fcproc_error *err)
{
    struct removal *job;
    int r = fcproc_ctx_status(ctx, err);

    for (size_t i = 0; r == 0 && i < n; i++)
        r = fcproc_check_ifname(names[i], err);
    if (r < 0)
        return r;
    job = removal_new(class->name, names, n);
    if (!job)
        return error_nomem(err, class->name);
    job->remove = work;
    r = place_copy(&net->place, &job->place);
    if (r < 0) {
        r = error_errno(err, class->name, -r, "can't keep the network namespace");
        work_unref(&job->work);
        return r;
    }
    return work_start(class, &job->work, ctx, ret, err);
}

FCPROC_API int fcproc_taps_delete(fcproc_net *net, const char *const *names, size_t n,
                                  fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = "tap.delete",
                                           .step = work_step,
                                           .destroy = work_destroy,
                                           .describe = removal_describe };

    return removal_start(&class, net, names, n, work_taps, ctx, ret, err);
}

FCPROC_API size_t fcproc_taps_delete_result(const fcproc_op *op)
{
    return ((const struct removal *)work_of(op))->removed;
}

FCPROC_API int fcproc_bridge_delete(fcproc_net *net, const char *name, fcproc_ctx *ctx,
                                    fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = "bridge.delete",
                                           .step = work_step,
                                           .destroy = work_destroy,
                                           .describe = removal_describe };

    return removal_start(&class, net, &name, 1, work_bridge, ctx, ret, err);
}
