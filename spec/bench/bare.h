/* SPDX-License-Identifier: MIT
 *
 * What the bare C sides of `make bench` share: a clock, and rtnetlink by raw sockets.
 */
#ifndef FCPROC_BENCH_BARE_H
#define FCPROC_BENCH_BARE_H

#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static int nl = -1;
static char buffer[65536];

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- rtnetlink ---- */

struct request {
    struct nlmsghdr head;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg address;
    } u;
    char attributes[256];
};

static inline void start_link(struct request *r, int type, int flags, int index)
{
    memset(r, 0, sizeof(*r));
    r->head.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg));
    r->head.nlmsg_type = (unsigned short)type;
    r->head.nlmsg_flags = (unsigned short)(NLM_F_REQUEST | flags);
    r->u.link.ifi_index = index;
}

static inline void put(struct request *r, int type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));

    a->rta_type = (unsigned short)type;
    a->rta_len = (unsigned short)RTA_LENGTH(len);
    if (len > 0)
        memcpy(RTA_DATA(a), data, len);
    r->head.nlmsg_len = NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static inline struct rtattr *start_nest(struct request *r, int type)
{
    struct rtattr *nest = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));

    put(r, type, NULL, 0);
    return nest;
}

static inline void end_nest(struct request *r, struct rtattr *nest)
{
    nest->rta_len = (unsigned short)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len) - (char *)nest);
}

/* Sends and reads up to the end of the answer; for a question by name, the interface's index. */
static inline int exchange(struct request *r)
{
    int dump = (r->head.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;

    if (send(nl, r, r->head.nlmsg_len, 0) < 0)
        die("send");
    for (;;) {
        ssize_t n = recv(nl, buffer, sizeof(buffer), 0);
        struct nlmsghdr *h = (struct nlmsghdr *)buffer;

        if (n < 0)
            die("recv");
        for (; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            if (h->nlmsg_type == NLMSG_ERROR)
                return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
            if (h->nlmsg_type == NLMSG_DONE)
                return 0;
            if (!dump)
                return ((struct ifinfomsg *)NLMSG_DATA(h))->ifi_index;
        }
    }
}

static inline int find_link(const char *name)
{
    struct request r;
    uint32_t no_stats = 1 << 3;
    int index;

    start_link(&r, RTM_GETLINK, 0, 0);
    put(&r, IFLA_IFNAME, name, strlen(name) + 1);
    put(&r, IFLA_EXT_MASK, &no_stats, 4);
    index = exchange(&r);
    if (index <= 0)
        die(name);
    return index;
}

static inline void open_netlink(void)
{
    int one = 1;

    nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (nl < 0 || setsockopt(nl, SOL_NETLINK, NETLINK_CAP_ACK, &one, 4) < 0 ||
        setsockopt(nl, SOL_NETLINK, 12 /* NETLINK_GET_STRICT_CHK */, &one, 4) < 0)
        die("netlink");
}

#endif
