/* SPDX-License-Identifier: MIT
 *
 * The caller's side of a new child. With a gate it waits before its exec, so that it can be written
 * down before it does anything. Whoever started it dies: it ends, too.
 */
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "spawn.h"

extern char **environ;

static const char op_name[] = "spawn";

static const char *const step_text[] = {
    [STEP_SESSION] = "start a session",
    [STEP_NETNS] = "enter the network namespace",
    [STEP_FDS] = "set up its descriptors",
    [STEP_LIMIT] = "set its limit of descriptors",
    [STEP_GROUPS] = "drop our supplementary groups",
    [STEP_GROUP] = "take its group",
    [STEP_USER] = "take its user",
    [STEP_EXEC] = "execute",
};

/* Enough without a guard, which would cost more than all the rest here: the child's calls are five
 * deep at most, none leaves child.c, whose frames the Makefile keeps under 512 bytes, and no signal
 * handler runs among them. */
enum { CHILD_STACK_SIZE = 4096 };

/* All that the child needs, for as long as it is in our memory: until it has executed or ended.
 * The kernel closes its end of the channel after it has left our memory, in exec as in exit. */
struct spawn_gate {
    struct fcproc_spawn spec;
    struct child child;
    pid_t pid;   /* whose child it is */
    int channel; /* our end */
    bool open;
    _Alignas(16) char stack[CHILD_STACK_SIZE];
    _Alignas(16) char rest[]; /* argv and envp, which the caller's may not outlive, and more */
};

static void gate_free(struct spawn_gate *g)
{
    close_fd(&g->channel);
    free(g);
}

/* Copies len bytes behind *at, which stays a multiple of a pointer's size. */
static void *copy_bytes(const void *from, size_t len, char **at)
{
    void *copy = *at;

    memcpy(copy, from, len);
    *at += (len + sizeof(char *) - 1) / sizeof(char *) * sizeof(char *);
    return copy;
}

static const char *copy_string(const char *text, char **at)
{
    return text ? copy_bytes(text, strlen(text) + 1, at) : NULL;
}

/* The pointers first, then the strings. */
static const char *const *copy_list(const char *const *list, char **at)
{
    const char **copy = (const char **)(void *)*at;
    size_t n = 0;

    if (!list)
        return NULL;
    while (list[n])
        n++;
    *at += (n + 1) * sizeof(char *);
    for (size_t i = 0; i < n; i++)
        copy[i] = copy_string(list[i], at);
    copy[n] = NULL;
    return copy;
}

static size_t string_size(const char *text)
{
    return text ? strlen(text) + sizeof(char *) : 0;
}

static size_t list_size(const char *const *list)
{
    size_t size = sizeof(char *);

    for (; list && *list; list++)
        size += sizeof(char *) + string_size(*list);
    return size;
}

/* With copies of all that the child will read, since the caller may be done with it before. NULL: no
 * memory. */
static struct spawn_gate *gate_new(const struct fcproc_spawn *spec, const struct child *child)
{
    size_t fds_size = spec->n_fds * sizeof(*spec->fds);
    /* Ours as it is now, whenever the gate is opened. */
    const char *const *envp = spec->envp ? spec->envp : (const char *const *)environ;
    size_t size = list_size(spec->argv) + list_size(envp) + string_size(spec->cwd) +
                  string_size(child->file) + fds_size + (spec->n_fds + 2) * sizeof(int) +
                  2 * sizeof(char *);
    struct spawn_gate *g;
    char *at;

    for (int i = 0; i < 3; i++)
        size += string_size(child->paths[i]);
    g = malloc(sizeof(*g) + size);
    if (!g)
        return NULL;
    g->spec = *spec;
    g->child = *child;
    g->pid = getpid();
    g->channel = -EBADF;
    g->open = false;
    at = g->rest;
    g->spec.argv = copy_list(spec->argv, &at);
    g->spec.envp = copy_list(envp, &at);
    g->spec.cwd = copy_string(spec->cwd, &at);
    if (fds_size > 0)
        g->spec.fds = copy_bytes(spec->fds, fds_size, &at);
    for (int i = 0; i < 3; i++)
        g->child.paths[i] = copy_string(child->paths[i], &at);
    g->child.file = copy_string(child->file, &at);
    g->child.moved = (int *)(void *)at;
    g->child.spec = &g->spec;
    g->child.stack_top = g->stack + CHILD_STACK_SIZE;
    g->child.stack_size = CHILD_STACK_SIZE;
    return g;
}

/* The clock of /proc/PID/stat, whose field 22 is when a process was made: proc(5). */
static uint64_t boot_ticks(void)
{
    uint64_t a_second = (uint64_t)sysconf(_SC_CLK_TCK);
    struct timespec t;

    if (clock_gettime(CLOCK_BOOTTIME, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * a_second + (uint64_t)t.tv_nsec / (1000000000 / a_second);
}

static int gate_start(struct spawn_gate *g, fcproc_process *process)
{
    uint64_t before;
    int pair[2];
    pid_t pid = 0;
    int pidfd = -EBADF;
    int r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    g->channel = pair[0];
    g->child.channel = pair[1];
    before = boot_ticks();
    r = child_start(&g->child, &pid, &pidfd);
    if (r == 0) /* made within one tick: in that one */
        process_started(process, pid, pidfd, boot_ticks() == before ? before : 0);
    close_fd(&pair[1]); /* g->child is the child's by now */
    return r;
}

/* With a gate it blocks until the child said something, or (false) has executed or ended; without, the
 * child has done so already, and another thread's fork may hold its end open. A child that was killed
 * before it took what we sent is an error here, which means the same. */
static bool gate_read(const struct spawn_gate *g, struct child_report *ret)
{
    ssize_t n;

    do
        n = recv(g->channel, ret, sizeof(*ret), g->spec.gate ? 0 : MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n == sizeof(*ret);
}

/* Waits for a child that is about to end: it has left our memory when it is dead. One that is traced
 * can't be reaped yet, which closing the handle sees to. */
static void reap(fcproc_process *p)
{
    int pidfd = fcproc_process_pidfd(p);

    while (!pidfd_is_dead(pidfd))
        (void)!fcproc_poll(&pidfd, NULL, 1, -1, NULL);
    (void)!process_reap(p);
}

static int stream_failure(const char *path, int number, int sys_errno, fcproc_error *err)
{
    struct stat st;

    if (sys_errno == ENXIO && stat(path, &st) == 0 && S_ISFIFO(st.st_mode))
        return error_set(err, FCPROC_ERR_NOT_FOUND, op_name, sys_errno,
                         "can't open %s for descriptor %d: nobody %s this FIFO; have its other end "
                         "opened first, or give a descriptor of your own",
                         path, number, number == 0 ? "writes to" : "reads");
    return error_errno(err, op_name, sys_errno, "can't open %s for descriptor %d", path, number);
}

static int failure(const struct spawn_gate *g, const struct child_report *report, fcproc_error *err)
{
    char file[PATH_MAX];

    /* What can be seen from here says more than an errno; it was not looked at before. */
    if (report->step == STEP_EXEC && *g->child.file == '/') {
        int r = fcproc_find_executable(g->child.file, file, sizeof(file), err);

        if (r < 0)
            return r;
        if (report->value == ENOENT)
            return error_set(err, FCPROC_ERR_NOT_FOUND, op_name, ENOENT,
                             "%s can't be executed: the interpreter that it names is missing",
                             g->child.file);
        if (report->value == ENOEXEC)
            return error_set(err, FCPROC_ERR_SYSTEM, op_name, ENOEXEC,
                             "%s can't be executed: it is no program for this machine",
                             g->child.file);
    }
    if (report->step == STEP_CWD)
        return error_errno(err, op_name, report->value,
                           "%s: the new process can't enter the folder %s", g->child.file,
                           g->spec.cwd);
    if (report->step < STEP_SESSION)
        return stream_failure(g->child.paths[report->step], report->step, report->value, err);
    return error_errno(err, op_name, report->value, "%s: the new process can't %s", g->child.file,
                       step_text[report->step]);
}

/* Returns when the child has executed, or ended: then why. */
static int gate_pass(struct spawn_gate *g, fcproc_process *p, fcproc_error *err)
{
    struct child_report report;
    int r = 0;

    if (gate_read(g, &report)) {
        r = failure(g, &report, err);
        reap(p);
    }
    gate_free(g);
    return r;
}

/* Its handle is closed: the child ends without having executed anything, and is reaped. */
static void gate_abandon(struct spawn_gate *g, fcproc_process *p)
{
    /* In a fork of us it is no child, and not ours to end; its memory is another by then. */
    if (process_reap(p) == 0) {
        if (g->open) {
            (void)!gate_pass(g, p, NULL);
            return;
        }
        (void)!fcproc_process_signal(p, SIGKILL, NULL);
        close_fd(&g->channel); /* the same, should the signal be refused */
        reap(p);
    }
    gate_free(g);
}

int spawn_start(const struct fcproc_spawn *spec, const struct child *child, fcproc_process *process,
                fcproc_error *err)
{
    struct spawn_gate *g = gate_new(spec, child);
    int r = g ? gate_start(g, process) : -ENOMEM;

    if (r < 0) {
        if (g)
            gate_free(g);
        return error_errno(err, op_name, -r, "can't start %s", child->file);
    }
    if (spec->gate) {
        process_set_gate(process, g,
                         gate_abandon); /* how it comes to its gate, its release tells */
        return 0;
    }
    return gate_pass(g, process, err);
}

FCPROC_API int fcproc_process_release(fcproc_process *p, bool wait, fcproc_error *err)
{
    struct spawn_gate *g = process_gate(p);
    int r;

    if (!g)
        return 0;
    r = check_maker(g->pid, "process.release", err);
    if (r < 0)
        return r;
    /* A child that was killed at its gate has no other end: its exit says the rest. */
    if (!g->open)
        (void)send(g->channel, "", 1, MSG_NOSIGNAL);
    g->open = true;
    if (!wait)
        return 0;
    process_set_gate(p, NULL, NULL);
    return gate_pass(g, p, err);
}
