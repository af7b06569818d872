/* SPDX-License-Identifier: MIT
 *
 * A file or folder that is to outlast a power loss. It takes as long as its disk does, so a thread
 * waits for it.
 */
#include <fcntl.h>
#include <stdio.h>

#include "file.h"
#include "worker.h"

struct sync {
    struct work work;
    char *path;
    int fd;
};

static void sync_run(struct work *work)
{
    struct sync *s = (struct sync *)work;
    struct stat st;

    /* Some file systems have nothing to say of a folder. */
    if (fsync(s->fd) < 0 && !(errno == EINVAL && fstat(s->fd, &st) == 0 && S_ISDIR(st.st_mode)))
        work->code = file_error(&work->error, work->error.op, errno,
                                "what is in %s may be lost when the host stops", s->path);
}

static void sync_free(struct work *work)
{
    struct sync *s = (struct sync *)work;

    close_fd(&s->fd);
    free(s->path);
    free(s);
}

static void sync_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct sync *s = work_of(op);

    (void)snprintf(buf, size, "%.300s not on the disk yet", s->path);
}

FCPROC_API int fcproc_file_sync(const char *path, fcproc_ctx *ctx, fcproc_op **ret,
                                fcproc_error *err)
{
    static const struct op_class class = {
        .name = "file.sync", .step = work_step, .destroy = work_destroy, .describe = sync_describe
    };
    struct sync *s;
    int r = fcproc_ctx_status(ctx, err);

    if (r < 0)
        return r;
    s = work_new(sizeof(*s), class.name, sync_run, sync_free);
    if (!s)
        return error_nomem(err, class.name);
    s->path = strdup(path);
    s->fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (s->fd < 0)
        r = file_error(err, class.name, errno, "can't open %s", path);
    else if (!s->path)
        r = error_nomem(err, class.name);
    if (r < 0) {
        work_unref(&s->work);
        return r;
    }
    return work_start(&class, &s->work, ctx, ret, err);
}
