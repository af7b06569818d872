/* SPDX-License-Identifier: MIT
 *
 * fcproc-rootless: what has to be done by a process inside of a user's own namespaces, or that outlives
 * its maker. It is executed, never a copy of the caller: no process that shares the caller's memory ever
 * enters a namespace where others may have capabilities, which would be capabilities over that memory.
 */
#ifndef FCPROC_ROOTLESS_H
#define FCPROC_ROOTLESS_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The caller's end of the conversation, or 2. It is told why we end, in one line: "ERRNO WHAT". */
extern int report_fd;
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A number of a descriptor among the arguments. */
int descriptor(const char *text);
/* The user's namespace first: it gives the right to enter the other. */
void enter_namespaces(int user_fd, int net_fd);
/* Nothing that was given to us goes further. */
void close_on_exec(int fd);

/* No capability, now or ever. */
void drop_rights(void);

/* Each is a subcommand, with the arguments after its name. */
int enter_main(int argc, char **argv);       /* USER NET ALIVE plain|jail COMMAND... */
int jail_main(int argc, char **argv);        /* FOLDER [--ro|--rw|--device PATH]... -- COMMAND... */
int descriptors_main(int argc, char **argv); /* SOCKET USER NET [KIND COUNT]... */
int hold_main(int argc, char **argv);        /* FIFO LOCK make|join [UPLINK...] */
int relay_main(int argc, char **argv);       /* GUEST PROTOCOL,ADDRESS,PORT,GUEST_PORT... */

#endif
