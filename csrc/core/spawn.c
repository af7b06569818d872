/* SPDX-License-Identifier: MIT
 *
 * Starts a process without a shell.
 */
#include <fcntl.h>
#include <limits.h>

#include "spawn.h"

static const char op_name[] = "spawn";

static int open_stream(const struct fcproc_stream *s, int number, int *ret_own, fcproc_error *err)
{
    int fd;

    switch (s->kind) {
    case FCPROC_STDIO_INHERIT:
        return number;
    case FCPROC_STDIO_FD:
        return s->fd;
    case FCPROC_STDIO_FILE:
        fd = number == 0 ? open(s->path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
                         : open(s->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
        break;
    case FCPROC_STDIO_NULL:
    default:
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        break;
    }
    if (fd < 0)
        return error_errno(err, op_name, errno, "can't open %s for descriptor %d",
                           s->kind == FCPROC_STDIO_FILE ? s->path : "/dev/null", number);
    *ret_own = fd;
    return fd;
}

static bool is_same_file(const struct fcproc_stream *a, const struct fcproc_stream *b)
{
    return a->kind == FCPROC_STDIO_FILE && b->kind == FCPROC_STDIO_FILE &&
           strcmp(a->path, b->path) == 0;
}

FCPROC_API int fcproc_spawn(const struct fcproc_spawn *spec, fcproc_process **ret,
                            fcproc_error *err)
{
    char file[PATH_MAX];
    cleanup_fd int own0 = -EBADF, own1 = -EBADF, own2 = -EBADF;
    int *own[3] = { &own0, &own1, &own2 };
    struct child child = { .file = spec->argv ? spec->argv[0] : NULL,
                           .netns_fd = spec->netns ? fcproc_netns_fd(spec->netns) : -EBADF };
    fcproc_process *process = NULL;
    int r;

    if (!spec->argv || !spec->argv[0])
        return error_set(err, FCPROC_ERR_INVALID, op_name, 0, "an empty argument list");
    if (*spec->argv[0] != '/') { /* an absolute path is exec's to judge */
        r = fcproc_find_executable(spec->argv[0], file, sizeof(file), err);
        if (r < 0)
            return r;
        child.file = file;
    }
    for (int i = 0; i < 3; i++) {
        if (i == 2 && is_same_file(&spec->streams[1], &spec->streams[2])) {
            child.streams[2] = child.streams[1];
            continue;
        }
        child.streams[i] = open_stream(&spec->streams[i], i, own[i], err);
        if (child.streams[i] < 0)
            return child.streams[i];
    }
    r = process_new(0, -EBADF, true, &process, err); /* before there is a child to lose */
    if (r < 0)
        return r;
    r = spawn_start(spec, &child, process, err);
    if (r < 0) {
        fcproc_process_close(process);
        return r;
    }
    *ret = process;
    return 0;
}
