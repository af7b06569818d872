/* SPDX-License-Identifier: MIT
 *
 * The argument ip=, in the kernel's form: Documentation/admin-guide/nfs/nfsroot.rst. What the kernel reads
 * leniently ("1.2" for an address) is refused here.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include "init.h"

enum { CLIENT, SERVER, GATEWAY, NETMASK, HOST, DEVICE, HOW, DNS_FIRST, DNS_LAST, NTP, FIELDS };

static const char *asks_nothing[] = { "", "off", "none" };
static const char *asks_a_server[] = { "on", "any", "dhcp", "bootp", "rarp", "both" };

static const char *among(const char *text, const char **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, list[i]) == 0)
            return list[i];
    }
    return NULL;
}

#define AMONG(text, list) among(text, list, sizeof list / sizeof *list)

/* What the kernel assumes without a netmask: that of the address's class. */
static in_addr_t netmask_of(struct in_addr address)
{
    uint32_t first = ntohl(address.s_addr) >> 24;

    return htonl(first < 128 ? 0xff000000u : first < 192 ? 0xffff0000u : 0xffffff00u);
}

static bool is_netmask(struct in_addr mask)
{
    uint32_t hosts = ~ntohl(mask.s_addr);

    return (hosts & (hosts + 1)) == 0;
}

/* A name of letters, digits, '.', '-' and '_'. */
static bool is_name(const char *text)
{
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
           strlen(text);
}

static const char *read_host(struct address *address, const char *text)
{
    const char *dot = strchr(text, '.');
    size_t size = dot ? (size_t)(dot - text) : strlen(text);

    if (!is_name(text))
        return "is no host name: letters, digits, '.', '-' and '_'";
    if (size > HOST_NAME_MOST || (dot && strlen(dot + 1) > HOST_NAME_MOST))
        return "is longer than a host name may be, 64 bytes";
    memcpy(address->host, text, size);
    address->host[size] = 0;
    strcpy(address->domain, dot ? dot + 1 : "");
    return NULL;
}

static const char *read_device(struct address *address, const char *text)
{
    if (strlen(text) >= sizeof address->device || strchr(text, '/') || text[0] == '.')
        return "is no name of an interface";
    strcpy(address->device, text);
    return NULL;
}

static const char *read_field(struct address *address, int field, const char *text)
{
    struct in_addr *to = NULL;

    switch (field) {
    case CLIENT:
        to = &address->client;
        break;
    case GATEWAY:
        to = &address->gateway;
        address->has_gateway = true;
        break;
    case NETMASK:
        to = &address->netmask;
        break;
    case HOST:
        return read_host(address, text);
    case DEVICE:
        return read_device(address, text);
    case HOW:
        address->asked = AMONG(text, asks_a_server);
        if (!address->asked && !AMONG(text, asks_nothing))
            return "is no way to get an address";
        return NULL;
    case DNS_FIRST:
    case DNS_LAST:
        to = &address->servers[address->server_count++];
        break;
    default: /* a boot server and a time server are nothing to us */
        return NULL;
    }
    if (inet_pton(AF_INET, text, to) != 1)
        return "is no IPv4 address";
    if (field == NETMASK && !is_netmask(*to))
        return "is no netmask";
    return NULL;
}

const char *address_read(struct address *address, const char *value, char *part, size_t part_size)
{
    memset(address, 0, sizeof *address);
    snprintf(part, part_size, "%s", value);
    if (AMONG(value, asks_nothing)) {
        address->off = true;
        return NULL;
    }
    address->asked = AMONG(value, asks_a_server);
    if (address->asked)
        return NULL;
    for (int field = 0; *value; field++) {
        size_t size = strcspn(value, ":");
        if (size >= part_size) {
            snprintf(part, part_size, "%s", value);
            return "is too long";
        }
        if (field >= FIELDS)
            return "has more than ten parts";
        memcpy(part, value, size);
        part[size] = 0;
        const char *wrong = size ? read_field(address, field, part) : NULL;
        if (wrong)
            return wrong;
        value += size + (value[size] == ':');
    }
    if (address->client.s_addr == INADDR_ANY) {
        address->off = !address->asked;
        return NULL;
    }
    address->asked = NULL;
    if (address->netmask.s_addr == INADDR_ANY)
        address->netmask.s_addr = netmask_of(address->client);
    return NULL;
}
