/* SPDX-License-Identifier: MIT
 *
 * Waits for devices: the kernel tells of each that comes, and so nothing is looked for in vain.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "init.h"

#define FIRST_GROUP 1 /* the kernel's own events */

static int events = -1;

void devices_listen(void)
{
    struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = FIRST_GROUP };

    events = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (events >= 0 && bind(events, (struct sockaddr *)&address, sizeof address) < 0) {
        close(events);
        events = -1;
    }
}

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool devices_wait(bool (*there)(const void *), const void *what, int seconds)
{
    long end = now_ms() + seconds * 1000L;

    while (!there(what)) {
        long left = end - now_ms();
        if (left <= 0)
            return false;
        struct pollfd poller = { .fd = events, .events = POLLIN };
        /* Without the socket, and for what it may have lost, a look now and then. */
        if (poll(&poller, 1, events < 0 ? 50 : left < 1000 ? (int)left : 1000) > 0) {
            char event[8192];
            while (recv(events, event, sizeof event, 0) > 0 || errno == ENOBUFS)
                continue;
        }
    }
    return true;
}
