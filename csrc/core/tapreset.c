/* SPDX-License-Identifier: MIT
 *
 * What earlier users of an idle TAP have set on it, and what would be felt by the next: the device
 * keeps it when their descriptor is closed. Its owner could set all but the queueing.
 */
#include <linux/if_tun.h>
#include <linux/pkt_sched.h>
#include <sys/ioctl.h>

#include "netlink.h"

enum { DEFAULT_VNET_HEADER = 10 /* sizeof(struct virtio_net_hdr) */ };

int tap_reset_device(int fd)
{
    /* A classic filter does not come back: IFF_NO_PI, by its number, is also IFF_NOFILTER. */
    struct tun_filter none = { .flags = 0, .count = 0 };
    int header = DEFAULT_VNET_HEADER, little_endian = 0, no_program = -1;

    if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETVNETLE, &little_endian) < 0 ||
        ioctl(fd, TUNSETOFFLOAD, 0UL) < 0 || ioctl(fd, TUNSETTXFILTER, &none) < 0 ||
        ioctl(fd, TUNSETFILTEREBPF, &no_program) < 0)
        return -errno;
    return 0;
}

static int delete_qdisc(fcproc_net *net, int ifindex, uint32_t parent, uint32_t handle, char *text)
{
    struct tcmsg head = {
        .tcm_family = AF_UNSPEC, .tcm_ifindex = ifindex, .tcm_handle = handle, .tcm_parent = parent
    };
    struct nl_msg *m = nlmsg_alloc_simple(RTM_DELQDISC, NLM_F_ACK);
    int r;

    if (m && nlmsg_append(m, &head, sizeof(head), NLMSG_ALIGNTO) < 0) {
        nlmsg_free(m);
        m = NULL;
    }
    r = netlink_exchange(net, m, NULL, NULL, text, NETLINK_TEXT);
    /* None but the default one, or a kernel without traffic control. */
    return r == -ENOENT || r == -EINVAL || r == -EOPNOTSUPP ? 0 : r;
}

int tap_reset_queueing(fcproc_net *net, int ifindex, char *text)
{
    int r = delete_qdisc(net, ifindex, TC_H_ROOT, 0, text);

    if (r == 0)
        r = delete_qdisc(net, ifindex, TC_H_INGRESS, TC_H_MAKE(TC_H_INGRESS, 0), text);
    return r;
}
