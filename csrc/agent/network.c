/* SPDX-License-Identifier: MIT
 *
 * Follows ip=, as a kernel with IP_PNP does: address, netmask, default route, host name, name servers.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "init.h"

#define WAIT_SECONDS 5
#define MOST_INDEXES 256

struct search {
    int fd;
    char *device; /* "": filled with the first that there is */
};

static bool is_there(const void *data)
{
    const struct search *search = data;
    struct ifreq request = { 0 };

    if (*search->device) {
        memcpy(request.ifr_name, search->device, IFNAMSIZ);
        return ioctl(search->fd, SIOCGIFINDEX, &request) == 0;
    }
    for (int index = 1; index <= MOST_INDEXES; index++) {
        request.ifr_ifindex = index;
        if (ioctl(search->fd, SIOCGIFNAME, &request) < 0 ||
            ioctl(search->fd, SIOCGIFFLAGS, &request) < 0)
            continue;
        if ((request.ifr_flags & IFF_LOOPBACK) || !(request.ifr_flags & IFF_BROADCAST))
            continue;
        memcpy(search->device, request.ifr_name, IFNAMSIZ);
        return true;
    }
    return false;
}

/* Returns 0 or -1 and errno. */
static int turn_on(int fd, const char *device)
{
    struct ifreq request = { 0 };

    memcpy(request.ifr_name, device, IFNAMSIZ);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return -1;
    request.ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, &request);
}

static int set_address(int fd, const char *device, bool netmask, struct in_addr address)
{
    struct ifreq request = { 0 };
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr = address };

    memcpy(request.ifr_name, device, IFNAMSIZ);
    memcpy(&request.ifr_addr, &to, sizeof to);
    return ioctl(fd, netmask ? SIOCSIFNETMASK : SIOCSIFADDR, &request);
}

static int add_default_route(int fd, char *device, struct in_addr gateway)
{
    struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = device };
    struct sockaddr_in any = { .sin_family = AF_INET };
    struct sockaddr_in via = { .sin_family = AF_INET, .sin_addr = gateway };

    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    memcpy(&route.rt_gateway, &via, sizeof via);
    return ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST ? -1 : 0;
}

static void follow(int fd, const char *value, struct address *address)
{
    char text[INET_ADDRSTRLEN];
    char *device = address->device;

    if (!devices_wait(is_there, &(struct search){ fd, device }, WAIT_SECONDS)) {
        fail("ip=%.200s: no network interface %s has come in %d s: the kernel lacks virtio_net, "
             "or the VM has no interface",
             value, device, WAIT_SECONDS);
    }
    if (set_address(fd, device, false, address->client) < 0)
        fail("ip=%.200s: set the address of %s: %s", value, device, strerror(errno));
    if (set_address(fd, device, true, address->netmask) < 0)
        fail("ip=%.200s: set the netmask of %s: %s", value, device, strerror(errno));
    if (turn_on(fd, device) < 0)
        fail("ip=%.200s: set %s up: %s", value, device, strerror(errno));
    if (address->has_gateway && add_default_route(fd, device, address->gateway) < 0) {
        inet_ntop(AF_INET, &address->gateway, text, sizeof text);
        fail("ip=%.200s: add the default route by %s on %s: %s", value, text, device,
             errno == ENETUNREACH ? "the gateway is not in the interface's subnet"
                                  : strerror(errno));
    }
    if (*address->host && sethostname(address->host, strlen(address->host)) < 0)
        fail("ip=%.200s: set the host name: %s", value, strerror(errno));
    if (*address->domain && setdomainname(address->domain, strlen(address->domain)) < 0)
        fail("ip=%.200s: set the domain name: %s", value, strerror(errno));
}

/* What the kernel itself has got from a server: the lines that resolv.conf may hold. */
static size_t kernels_answer(char *to, size_t size)
{
    static char pnp[4096];
    long read = read_file("/proc/net/pnp", pnp, sizeof pnp - 1);
    size_t used = 0;
    char *rest = pnp;

    pnp[read < 0 ? 0 : read] = 0;
    for (char *row; (row = strsep(&rest, "\n"));) {
        if (strncmp(row, "nameserver ", 11) != 0 && strncmp(row, "domain ", 7) != 0)
            continue;
        if (strlen(row) + 2 > size - used)
            break;
        used += (size_t)snprintf(to + used, size - used, "%s\n", row);
    }
    return used;
}

static void write_resolv_conf(const char *text, size_t size)
{
    static const char path[] = "/run/fcproc/resolv.conf";

    if (mkdir("/run/fcproc", 0755) < 0 && errno != EEXIST)
        fail("make the folder /run/fcproc: %s", strerror(errno));
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        fail("make %s: %s", path, strerror(errno));
    if (write(fd, text, size) != (ssize_t)size)
        fail("write %s: %s", path, strerror(errno));
    close(fd);
}

void network_start(const struct cmdline *line)
{
    char resolv[1024] = "", part[128], text[INET_ADDRSTRLEN];
    struct address address;
    size_t used = 0;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0)
        (void)turn_on(fd, (char[IFNAMSIZ]){ "lo" });
    /* The kernel knows one interface; here each ip= may be for another. */
    for (size_t i = 0; i < line->count; i++) {
        const char *value = line->words[i].value;
        if (!value || (strcmp(line->words[i].name, "ip") != 0 &&
                       strcmp(line->words[i].name, "nfsaddrs") != 0))
            continue;
        const char *wrong = address_read(&address, value, part, sizeof part);
        if (wrong)
            fail("ip=%.200s: '%s' %s", value, part, wrong);
        if (address.asked)
            say("ip=%.200s: '%s' is left to the kernel and to the root's own init", value,
                address.asked);
        if (address.off || address.asked)
            continue;
        if (fd < 0)
            fail("ip=%.200s: make a socket: %s", value, strerror(errno));
        follow(fd, value, &address);
        for (size_t j = 0; j < address.server_count; j++) {
            if (address.servers[j].s_addr == INADDR_ANY || sizeof resolv - used < 32)
                continue;
            inet_ntop(AF_INET, &address.servers[j], text, sizeof text);
            used += (size_t)snprintf(resolv + used, sizeof resolv - used, "nameserver %s\n", text);
        }
    }
    if (!used)
        used = kernels_answer(resolv, sizeof resolv);
    write_resolv_conf(resolv, used);
    if (fd >= 0)
        close(fd);
}
