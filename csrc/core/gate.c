/* SPDX-License-Identifier: MIT
 *
 * A child that waits at a gate before its exec, so that it can be written down before it does
 * anything. Whoever started it dies: it ends, too.
 */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

#include "spawn.h"

/* What a child at its gate needs. A thread of its own is in clone(2) until exec, as the caller
 * would be without a gate, so that the child shares nothing that somebody else changes. */
struct spawn_gate {
    pthread_t thread;
    struct fcproc_spawn spec;
    struct child child;
    pid_t pid;
    int pidfd;
    int report_read, report_write; /* the thread's to close */
    int gate_read, gate_write;
    char file[PATH_MAX];
    void *strings; /* argv and envp, which the caller's table may not outlive */
};

static void gate_free(struct spawn_gate *g)
{
    int *const fds[] = { &g->report_read, &g->report_write, &g->gate_read, &g->gate_write };

    for (size_t i = 0; i < ELEMENTS(fds); i++)
        close_fd(fds[i]);
    free(g->child.moved);
    free(g->strings);
    free(g);
}

static void *gate_thread(void *arg)
{
    struct spawn_gate *g = arg;
    int r = child_start(&g->child, &g->pid, &g->pidfd);

    if (r < 0) {
        struct child_report failure = { .step = STEP_CLONE, .value = -r };

        if (write(g->report_write, &failure, sizeof(failure)) < 0) { }
    }
    close_fd(&g->report_write); /* end of file: it has executed, or is gone */
    return NULL;
}

/* Copies a list of strings behind *at, the pointers first. */
static const char *const *copy_list(const char *const *list, size_t n, char **at)
{
    const char **copy = (const char **)(void *)*at;

    *at += (n + 1) * sizeof(char *);
    for (size_t i = 0; i < n; i++) {
        copy[i] = *at;
        *at = stpcpy(*at, list[i]) + 1;
    }
    copy[n] = NULL;
    *at += -(uintptr_t)*at % sizeof(char *);
    return copy;
}

static size_t list_size(const char *const *list, size_t *ret_n)
{
    size_t n = 0, size = 2 * sizeof(char *);

    for (; list && list[n]; n++)
        size += sizeof(char *) + strlen(list[n]) + 1;
    *ret_n = n;
    return size;
}

static int gate_new(const struct fcproc_spawn *spec, const struct child *child,
                    struct spawn_gate **ret)
{
    struct spawn_gate *g = calloc(1, sizeof(*g));
    size_t n_args, n_env;
    size_t size = list_size(spec->argv, &n_args) + list_size(spec->envp, &n_env);
    int report[2] = { -EBADF, -EBADF }, gate[2] = { -EBADF, -EBADF };
    char *at;

    if (!g)
        return -ENOMEM;
    g->spec = *spec;
    g->child = *child;
    g->child.spec = &g->spec;
    g->child.file = g->file;
    (void)snprintf(g->file, sizeof(g->file), "%s", child->file);
    g->child.moved = calloc(spec->n_fds + 1, sizeof(int));
    g->strings = at = malloc(size);
    if (!at || !g->child.moved || pipe2(report, O_CLOEXEC) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0) {
        int r = at && g->child.moved ? -errno : -ENOMEM;

        g->report_read = report[0];
        g->report_write = report[1];
        g->gate_read = g->gate_write = -EBADF;
        gate_free(g);
        return r;
    }
    g->spec.argv = copy_list(spec->argv, n_args, &at);
    if (spec->envp)
        g->spec.envp = copy_list(spec->envp, n_env, &at);
    g->report_read = report[0];
    g->report_write = g->child.report_fd = report[1];
    g->gate_read = g->child.gate_fd = gate[0];
    g->gate_write = gate[1];
    *ret = g;
    return 0;
}

int spawn_gated(const struct fcproc_spawn *spec, const struct child *child,
                       fcproc_process *process, fcproc_error *err)
{
    struct spawn_gate *g = NULL;
    struct child_report report;
    int r = gate_new(spec, child, &g);
    bool said;

    if (r == 0)
        r = thread_start(&g->thread, PTHREAD_CREATE_JOINABLE, gate_thread, g);
    if (r < 0) {
        if (g)
            gate_free(g);
        return error_errno(err, "spawn", -r, "can't start %s", child->file);
    }
    said = spawn_read_report(g->report_read, &report);
    if (said && report.step == STEP_READY) {
        process_started(process, (pid_t)report.value, g->pidfd);
        process_set_gate(process, g);
        return 0;
    }
    (void)pthread_join(g->thread, NULL);
    if (!said || report.step != STEP_CLONE) {
        process_started(process, g->pid, g->pidfd);
        spawn_reap(process);
    }
    r = said ? spawn_failure(child->file, &report, err)
             : error_set(err, FCPROC_ERR_SYSTEM, "spawn", 0, "%s: the new process was killed",
                         child->file);
    gate_free(g);
    return r;
}

void spawn_gate_abandon(struct spawn_gate *g, fcproc_process *p)
{
    close_fd(&g->gate_write);
    (void)pthread_join(g->thread, NULL);
    spawn_reap(p);
    gate_free(g);
}

FCPROC_API int fcproc_process_release(fcproc_process *p, fcproc_error *err)
{
    struct spawn_gate *g = process_take_gate(p);
    struct child_report report;
    int r = 0;

    if (!g)
        return 0;
    /* A child that was killed at its gate has no other end: its exit says the rest. */
    (void)send(g->gate_write, "", 1, MSG_NOSIGNAL);
    close_fd(&g->gate_write);
    if (spawn_read_report(g->report_read, &report)) {
        r = spawn_failure(g->file, &report, err);
        spawn_reap(p);
    }
    (void)pthread_join(g->thread, NULL);
    gate_free(g);
    return r;
}
