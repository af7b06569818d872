/* SPDX-License-Identifier: MIT
 *
 * The relay of published ports: it listens outside, and connects inside of the user's own namespaces.
 */
#ifndef FCPROC_RELAY_H
#define FCPROC_RELAY_H

#include <netinet/in.h>
#include <stdint.h>

#include "rootless.h"

/* What epoll tells of; the first member of what it is about. */
struct source {
    void (*ready)(struct source *source, uint32_t events);
};

/* A published port: a socket that listens outside, and where its content goes to. */
struct port {
    struct source source;
    int fd;
    bool udp, paused;
    struct sockaddr_in guest;
};

/* Descriptors that are left for connections and flows, and how many may be of each. */
enum { MOST_FLOWS = 1024, MOST_CONNECTIONS = 4096, SPARE_DESCRIPTORS = 64 };

extern int relay_epoll;
/* Seconds since some time, of the round that is under way. */
extern int64_t relay_now;
extern unsigned relay_most_connections;

/* What epoll is to tell of a descriptor; 0 before: it does not know it yet. */
bool relay_watch(int fd, struct source *source, uint32_t before, uint32_t now);
/* The first member of what is freed at the end of the round: what epoll has told before may still be
 * about it. */
struct grave {
    struct grave *next;
};
void relay_bury(struct grave *grave);

void tcp_ready(struct source *source, uint32_t events);
void udp_ready(struct source *source, uint32_t events);
/* What has taken too long ends. Is there anything left that may? */
bool tcp_tick(void);
bool udp_tick(void);
/* There may be room for connections again. */
void relay_resume_ports(void);
void relay_pause_ports(void);

#endif
