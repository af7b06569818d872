/* SPDX-License-Identifier: MIT
 *
 * Shared by the parts of spawning: the child before its exec, its gate, and the caller's side.
 */
#ifndef FCPROC_SPAWN_H
#define FCPROC_SPAWN_H

#include "private.h"

enum child_step {
    STEP_READY, /* no failure: it waits at the gate */
    STEP_CLONE, /* said by the thread that starts it */
    STEP_SESSION,
    STEP_NETNS,
    STEP_FDS,
    STEP_CWD,
    STEP_GROUP,
    STEP_USER,
    STEP_EXEC
};

struct child_report {
    int step;
    int value; /* errno, or its pid when it is ready */
};

struct child {
    const struct fcproc_spawn *spec;
    const char *file;
    int streams[3];
    int report_fd; /* close-on-exec: end of file says that exec succeeded */
    int gate_fd;   /* negative: no gate. A byte opens it, end of file ends the child */
    int *moved;    /* room for n_fds numbers */
};

/* In child.c. Returns when the child has executed, or ended. 0 or -errno. */
int child_start(struct child *c, pid_t *ret_pid, int *ret_pidfd);

/* In spawn.c. Blocks until exec succeeded (end of file: false) or the child said something. */
bool spawn_read_report(int fd, struct child_report *ret);
int spawn_failure(const char *file, const struct child_report *report, fcproc_error *err);
/* Waits for a child that is in _exit. */
void spawn_reap(fcproc_process *p);

/* In gate.c. Starts the child and returns when it waits at its gate. */
int spawn_gated(const struct fcproc_spawn *spec, const struct child *child,
                fcproc_process *process, fcproc_error *err);

#endif
