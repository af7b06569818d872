/* SPDX-License-Identifier: MIT
 *
 * One rtnetlink socket and the exchange over it, for the files about links.
 */
#ifndef FCPROC_NETLINK_H
#define FCPROC_NETLINK_H

#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include "private.h"

struct fcproc_net {
    pid_t pid; /* whose answers come there */
    struct nl_sock *socket;
    struct place place;
    int tuns; /* of a user's own namespace: a queue of those that were opened there; else negative */
    struct {
        char name[IF_NAMESIZE];
        int ifindex;
    } bridge; /* the one that was looked at last */
};

/* What the kernel tells of one link. */
struct link_info {
    int ifindex;
    char name[IF_NAMESIZE];
    char kind[16]; /* "": a physical one, or lo */
    unsigned flags;
    int master; /* 0: none */
    int mtu;
    int queue_length;
    unsigned char mac[FCPROC_MAC_LEN];
    bool carrier;
    bool isolated;
    int tun_type; /* IFF_TUN or IFF_TAP; 0 for other kinds */
    int64_t uid, gid;
    char alias[FCPROC_ALIAS_MAX + 1]; /* "": none */
};

typedef int (*netlink_each)(const struct nlmsghdr *message, void *arg);

/* Opens the socket in its place, of a user's own namespace with a queue of so many descriptors for TAPs. */
int netlink_open(fcproc_net *net, const char *tuns);
/* To open them takes a process, so several are opened at once. */
#define TUNS_AT_ONCE "64"
/* Closes what is open of it, for one that is no object of its own. */
void net_close_all(fcproc_net *net);
/* A message with an ifinfomsg; NULL when memory ran out. */
struct nl_msg *netlink_link_message(int type, int flags, int ifindex, unsigned change_to_up);
/* Sends the message (and frees it, also when it is NULL or failed), hands each answer to each,
 * and returns at the acknowledgement: 0, or -errno with the kernel's own words in text. */
int netlink_exchange(fcproc_net *net, struct nl_msg *message, netlink_each each, void *arg,
                     char *text, size_t size);
enum { NETLINK_TEXT = 160 };
/* Fills err from what netlink_exchange said: what, then the errno's text, then the kernel's. */
int netlink_error(fcproc_error *err, const char *op, int r, const char *kernel_text,
                  const char *format, ...) FCPROC_PRINTF(5, 6);

/* 0, or -errno: -ENODEV when there is no link of that name. */
int link_get(fcproc_net *net, const char *name, struct link_info *ret);
/* The ifindex of a link that is there, or -errno. Does not take the kernel's lock of all links. */
int link_index(fcproc_net *net, const char *name);
/* Has a link this name? Of the thread that is in the net's place; never makes the kernel look for a
 * module of the name, and takes no lock. 0, or -errno: -ENODEV when there is none. */
int link_probe(fcproc_net *net, const char *name);
/* IFF_UP and nothing else. */
int link_set_up(fcproc_net *net, int ifindex, char *text);
int link_parse(const struct nlmsghdr *message, struct link_info *ret);
/* Puts an alias, which "" takes away. */
int link_put_alias(struct nl_msg *message, const char *alias);
/* Calls each with every link that has this master, or with 0 with every link. */
int link_each(fcproc_net *net, int master, netlink_each each, void *arg);
/* The ifindex of the bridge, if it is the one that was looked at last, and up; else 0. A link keeps
 * its kind, and its number is not given away again: so no description of it is needed, for which the
 * kernel takes the lock that every change of a link takes. */
int bridge_known(fcproc_net *net, const char *name);
bool link_is_bridge(const struct link_info *link);
bool link_is_tap(const struct link_info *link);
/* "a dummy", "a TUN", "a physical interface": for messages. */
const char *link_kind_text(const struct link_info *link, char *buf, size_t size);

/* ---- TAPs held by an own descriptor ---- */

enum tap_hold { TAP_CREATE, TAP_EXISTING };
/* TUNSETIFF. The descriptor, or -errno: -EBUSY in use (or, creating, there), -ENODEV (existing
 * only), -EEXIST a link of another kind or form. */
int tap_hold(fcproc_net *net, const char *name, enum tap_hold how);

/* ---- undoing what earlier users of an idle TAP have set, 0 or -errno ---- */

/* The form of its frames, offloads, and filters. */
int tap_reset_device(int fd);
/* Queueing disciplines, and with them their filters; the default one is there again. */
int tap_reset_queueing(fcproc_net *net, int ifindex, char *text);

#endif
