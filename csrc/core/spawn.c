/* SPDX-License-Identifier: MIT
 *
 * Starts a process without a shell.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "spawn.h"

static const char op_name[] = "spawn";

static bool is_same_file(const struct fcproc_stream *a, const struct fcproc_stream *b)
{
    return a->kind == FCPROC_STDIO_FILE && b->kind == FCPROC_STDIO_FILE &&
           strcmp(a->path, b->path) == 0;
}

static void set_stream(struct child *child, const struct fcproc_stream *s, int number)
{
    child->streams[number] = s->kind == FCPROC_STDIO_FD ? s->fd : number;
    if (s->kind == FCPROC_STDIO_FILE)
        child->paths[number] = s->path;
    else if (s->kind == FCPROC_STDIO_NULL)
        child->paths[number] = "/dev/null";
}

static int check_spec(const struct fcproc_spawn *spec, fcproc_error *err)
{
    int r = check_struct(spec, sizeof(*spec), "fcproc_spawn", op_name, err);

    if (r < 0)
        return r;
    if (!spec->argv || !spec->argv[0])
        return error_set(err, FCPROC_ERR_INVALID, op_name, 0, "an empty argument list");
    if (spec->umask < -1 || spec->umask > 0777)
        return error_set(err, FCPROC_ERR_INVALID, op_name, 0,
                         "%d can't be a umask: they go from 0 to 0777, and -1 stands for none",
                         spec->umask);
    if (spec->no_file < 0)
        return error_set(err, FCPROC_ERR_INVALID, op_name, 0,
                         "%lld can't be a limit of descriptors: 1 or more, and 0 stands for ours",
                         (long long)spec->no_file);
    for (size_t i = 0; i < spec->n_fds; i++)
        if (spec->fds[i].to < 3 || spec->fds[i].to == INT_MAX)
            return error_set(err, FCPROC_ERR_INVALID, op_name, 0,
                             "%d can't be a descriptor's number in the new process: from 3 on",
                             spec->fds[i].to);
    return ids_check(op_name, spec->uid, spec->gid, err);
}

/* Into a user's own namespaces a program goes first, which then executes what is to be: the child itself
 * has our memory until it executes something. */
struct detour {
    char program[PATH_MAX];
    char numbers[3][16];
    const char **argv;
    struct fcproc_fd_map *fds;
};

static void detour_free(struct detour *d)
{
    free(d->argv);
    free(d->fds);
}

static int detour_make(struct detour *d, const char *file, struct fcproc_spawn *spec,
                       fcproc_error *err)
{
    const struct place *place = &spec->netns->place;
    const int from[] = { place->user_fd, place->net_fd, place->alive_fd };
    size_t n = 0, n_jail = 0, at = 0;
    int to = 3;
    int r = rootless_program(d->program, op_name, err);

    if (r < 0)
        return r;
    while (spec->argv[n])
        n++;
    while (spec->jail && spec->jail[n_jail])
        n_jail++;
    d->argv = calloc(n + n_jail + 8, sizeof(*d->argv));
    d->fds = calloc(spec->n_fds + ELEMENTS(from), sizeof(*d->fds));
    if (!d->argv || !d->fds)
        return error_nomem(err, op_name);
    for (size_t i = 0; i < spec->n_fds; i++) {
        d->fds[i] = spec->fds[i];
        if (spec->fds[i].to >= to)
            to = spec->fds[i].to + 1;
    }
    d->argv[at++] = d->program;
    d->argv[at++] = "enter";
    for (size_t i = 0; i < ELEMENTS(from); i++) {
        (void)snprintf(d->numbers[i], sizeof(d->numbers[i]), "%d", from[i] < 0 ? -1 : to);
        d->argv[at++] = d->numbers[i];
        if (from[i] >= 0) {
            d->fds[spec->n_fds++] = (struct fcproc_fd_map){ .from = from[i], .to = to };
            to++;
        }
    }
    d->argv[at++] = spec->jail ? "jail" : "plain";
    for (size_t i = 0; i < n_jail; i++)
        d->argv[at++] = spec->jail[i];
    if (spec->jail)
        d->argv[at++] = "--";
    d->argv[at++] = file;
    for (size_t i = 1; i < n; i++)
        d->argv[at++] = spec->argv[i];
    spec->argv = d->argv;
    spec->fds = d->fds;
    return 0;
}

static int spawn_file(const struct fcproc_spawn *spec, const char *file, fcproc_process **ret,
                      fcproc_error *err);

FCPROC_API int fcproc_spawn(const struct fcproc_spawn *spec, fcproc_process **ret,
                            fcproc_error *err)
{
    char file[PATH_MAX];
    const char *found = NULL;
    bool rootless, below;
    int r = check_spec(spec, err);

    if (r < 0)
        return r;
    rootless = spec->netns && fcproc_netns_is_rootless(spec->netns);
    if (spec->jail && !rootless)
        return error_set(err, FCPROC_ERR_INVALID, op_name, 0,
                         "a jail of that kind needs a rootless network namespace");
    found = spec->argv[0];
    below = spec->cwd && *found != '/' && strchr(found, '/');
    /* Exec judges an absolute path, and one from the folder where it is executed, which is not ours. */
    if (!below && (*found != '/' || rootless)) {
        r = fcproc_find_executable(found, file, sizeof(file), err);
        if (r < 0)
            return r;
        found = file;
    }
    if (rootless) {
        struct detour d = { .argv = NULL };
        struct fcproc_spawn other = *spec;

        r = detour_make(&d, found, &other, err);
        other.netns = NULL;
        if (r == 0)
            r = spawn_file(&other, d.program, ret, err);
        detour_free(&d);
        return r;
    }
    return spawn_file(spec, found, ret, err);
}

static int spawn_file(const struct fcproc_spawn *spec, const char *file, fcproc_process **ret,
                      fcproc_error *err)
{
    struct child child = { .netns_fd = -EBADF, .cgroup_fd = -EBADF, .file = file };
    fcproc_process *process = NULL;
    cleanup_fd int cgroup_fd = -EBADF;
    int r;

    if (spec->netns)
        child.netns_fd = fcproc_netns_fd(spec->netns);
    child.joined = is_same_file(&spec->streams[1], &spec->streams[2]);
    for (int i = 0; i < (child.joined ? 2 : 3); i++)
        set_stream(&child, &spec->streams[i], i);
    r = process_new(0, -EBADF, true, &process, err); /* before there is a child to lose */
    if (r < 0)
        return r;
    if (spec->cgroup) /* where it can't be, it is not: the caller looks */
        cgroup_fd = open(spec->cgroup, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    child.cgroup_fd = cgroup_fd;
    r = spawn_start(spec, &child, process, err);
    if (r < 0) {
        fcproc_process_close(process);
        return r;
    }
    *ret = process;
    return 0;
}
