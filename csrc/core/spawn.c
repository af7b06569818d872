/* SPDX-License-Identifier: MIT
 *
 * Starts a process without a shell.
 */
#include <fcntl.h>
#include <limits.h>

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

FCPROC_API int fcproc_spawn(const struct fcproc_spawn *spec, fcproc_process **ret,
                            fcproc_error *err)
{
    char file[PATH_MAX];
    struct child child = { .netns_fd = -EBADF, .cgroup_fd = -EBADF };
    fcproc_process *process = NULL;
    cleanup_fd int cgroup_fd = -EBADF;
    int r = check_spec(spec, err);

    if (r < 0)
        return r;
    if (spec->netns)
        child.netns_fd = fcproc_netns_fd(spec->netns);
    child.file = spec->argv[0];
    if (*child.file != '/') { /* an absolute path is exec's to judge */
        r = fcproc_find_executable(child.file, file, sizeof(file), err);
        if (r < 0)
            return r;
        child.file = file;
    }
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
