/* SPDX-License-Identifier: MIT
 *
 * What the files of the guest's /init share. It is the first process of a stock kernel: it loads the
 * drivers, sets the address of the kernel's command line, mounts the root, and hands over to its init.
 *
 * What the command line and the disks say is anybody's: it is read within bounds, and what can't be
 * followed ends the boot with one line that says what, on what, and why.
 */
#ifndef FCPROC_AGENT_INIT_H
#define FCPROC_AGENT_INIT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

/* The kernel's longest is 2048 on x86 and arm64, 4096 elsewhere. */
#define CMDLINE_MOST 4096
#define WORDS_MOST   (CMDLINE_MOST / 2 + 1)

struct word {
    const char *name;
    const char *value; /* NULL: there is no '=' */
};

/* The kernel's own words: what follows "--" is init's, and comes as our arguments. */
struct cmdline {
    char text[CMDLINE_MOST + 1];
    struct word words[WORDS_MOST];
    size_t count;
    bool cut; /* longer than it may be: the rest is not known */
};

/* Splits what is in text[0..size), as the kernel does. */
void cmdline_split(struct cmdline *line, size_t size);
/* The last value given to a name, as the kernel takes it; "" when it has no value, NULL when it is not there. */
const char *cmdline_value(const struct cmdline *line, const char *name);
/* The last of two flags that exclude each other: 1, 2, or 0 when neither is there. */
int cmdline_which(const struct cmdline *line, const char *first, const char *second);
/* A number of seconds, `without` when the word is not there or is none, at most an hour. */
int cmdline_seconds(const struct cmdline *line, const char *name, int without);
/* The words "module.name=value" as the parameters of that module; those that find no room are left out,
 * and false says so. */
bool cmdline_parameters(const struct cmdline *line, const char *module, char *to, size_t size);

#define HOST_NAME_MOST 64
#define NAME_SERVERS   2

/* ip=CLIENT:SERVER:GATEWAY:NETMASK:HOST:DEVICE:HOW:DNS:DNS:NTP */
struct address {
    bool off;          /* nothing is asked for */
    const char *asked; /* what we do not do: "dhcp"; NULL */
    struct in_addr client, gateway, netmask, servers[NAME_SERVERS];
    bool has_gateway;
    size_t server_count;
    char host[HOST_NAME_MOST + 1], domain[HOST_NAME_MOST + 1];
    char device[16]; /* "": the first there is */
};

/* Reads the value of an ip= word. Returns NULL, or what is wrong with it, with the part in *part. */
const char *address_read(struct address *address, const char *value, char *part, size_t part_size);

/* One line on the console, "fcproc init: ...". */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* The same, and the end: the kernel panics when its first process exits, and so the boot has failed. */
__attribute__((format(printf, 1, 2), noreturn)) void fail(const char *format, ...);

/* What of /sys/class/KIND comes, is told by the kernel; opened before the first driver is loaded. */
void devices_listen(void);
/* Waits until there(what) or the time is over; returns whether it is there. */
bool devices_wait(bool (*there)(const void *), const void *what, int seconds);

/* Returns how many bytes of the file were read, at most size; -1 when it can't be. */
long read_file(const char *path, char *to, size_t size);

void modules_load(const struct cmdline *line);
void network_start(const struct cmdline *line);
/* Mounts the root, or base and overlay, at `at`. */
void root_mount(const struct cmdline *line, const char *at);
/* Makes it the root, and becomes its init. */
__attribute__((noreturn)) void root_enter(const struct cmdline *line, const char *at, char **argv);

#endif
