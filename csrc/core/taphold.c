/* SPDX-License-Identifier: MIT
 *
 * TAPs held by an own descriptor: as long as it is open nobody else can use them.
 */
#include <linux/if_tun.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "netlink.h"

/* The namespace is that of whoever opens the device. */
static int open_tun(fcproc_net *net)
{
    int fd = net->tuns < 0 ? -EPIPE : inside_take(net->tuns);

    if (net->place.user_fd < 0)
        return tun_open(&net->place);
    if (fd != -EPIPE)
        return fd;
    close_fd(&net->tuns);
    net->tuns = inside_start(&net->place, (const char *const[]){ "tun", TUNS_AT_ONCE, NULL });
    return net->tuns < 0 ? net->tuns : inside_take(net->tuns);
}

int tap_hold(fcproc_net *net, const char *name, enum tap_hold how)
{
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    cleanup_fd int fd = open_tun(net);

    if (fd < 0)
        return fd;
    if (how == TAP_CREATE)
        request.ifr_flags |= (short)IFF_TUN_EXCL;
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return errno == EINVAL ? -EEXIST : -errno;
    if (how == TAP_EXISTING) {
        /* What is not persistent did not exist: this very call has made it. */
        if (ioctl(fd, TUNGETIFF, &request) < 0)
            return -errno;
        if (!((unsigned short)request.ifr_flags & IFF_PERSIST))
            return -ENODEV;
    }
    return take_fd(&fd);
}
