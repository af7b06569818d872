/* SPDX-License-Identifier: MIT
 *
 * Shared by the parts of spawning: the child before its exec, its gate, and the caller's side.
 */
#ifndef FCPROC_SPAWN_H
#define FCPROC_SPAWN_H

#include "private.h"

enum child_step {
    STEP_STDIN,
    STEP_STDOUT,
    STEP_STDERR,
    STEP_SESSION,
    STEP_NETNS,
    STEP_FDS,
    STEP_CWD,
    STEP_LIMIT,
    STEP_GROUPS,
    STEP_GROUP,
    STEP_USER,
    STEP_EXEC
};

struct child_report {
    int step;
    int value; /* errno */
};

/* What the child reads, and where it writes. Nobody else looks until it has executed or ended. */
struct child {
    const struct fcproc_spawn *spec;
    const char *file;
    int netns_fd;         /* negative: none */
    int cgroup_fd;        /* negative: the caller's */
    const char *paths[3]; /* what to open for a stream; NULL: it is streams[i] already */
    int streams[3];
    bool joined; /* stderr is stdout */
    int *moved;  /* room for n_fds numbers */
    /* Its end of a close-on-exec pair of sockets. It sends reports there; with a gate it waits
     * there, too: a byte opens the gate, end of file ends the child. */
    int channel;
    void *stack_top;
    size_t stack_size;
};

/* In child.c. Without a gate it returns when the child has executed, or ended. 0 or -errno. */
int child_start(struct child *c, pid_t *ret_pid, int *ret_pidfd);

/* In gate.c. Starts the child as spec says; returns when it has executed, or with a gate at once. What
 * it completes in child is file, streams, netns_fd and cgroup_fd. */
int spawn_start(const struct fcproc_spawn *spec, const struct child *child, fcproc_process *process,
                fcproc_error *err);

#endif
