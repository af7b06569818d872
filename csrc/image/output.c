/* SPDX-License-Identifier: MIT
 *
 * Contents on their way into a file. Files of an image are mostly small and lie one behind the other:
 * they are read into one block that is written at once. What is large the kernel copies, or shares where
 * the file system can.
 */
#include "output.h"

int output_walk(const struct tree *tree,
                int (*visit)(void *arg, const char *path, size_t len, const struct entry *entry,
                             struct inode *inode),
                void *arg, const char *op, fcproc_error *err)
{
    int r = tree_unmark(tree);

    if (r == 0)
        r = tree_walk(tree, visit, arg);
    if (r == -ENAMETOOLONG)
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "a path in the tree has more than %d bytes", TREE_PATH_MOST);
    return r;
}

enum { SMALL = 1 << 20 };

int output_new(struct output *out, job_t *job, int fd)
{
    *out = (struct output){ .job = job, .fd = fd, .source = -1, .source_fd = -EBADF };
    out->buffer = malloc(JOB_BLOCK);
    return out->buffer ? 0 : error_nomem(&job->error, job->op);
}

static void source_leave(struct output *out)
{
    if (out->source_close)
        close_fd(&out->source_fd);
    out->source = -1;
    out->source_fd = -EBADF;
    out->source_close = false;
}

void output_free(struct output *out)
{
    source_leave(out);
    free(out->buffer);
    out->buffer = NULL;
}

static int source_enter(struct output *out, uint32_t source)
{
    int r;

    if (out->source == (int64_t)source)
        return 0;
    source_leave(out);
    r = source_open(out->job->tree, source, &out->source_fd, &out->source_close, out->job->op,
                    &out->job->error);
    if (r < 0)
        return r;
    out->source = (int64_t)source;
    out->by_buffer = false;
    return 0;
}

int output_flush(struct output *out)
{
    size_t done = 0;

    while (done < out->used) {
        ssize_t n = pwrite(out->fd, out->buffer + done, out->used - done, (off_t)(out->at + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return image_errno(&out->job->error, out->job->op, errno, "can't write the image");
        done += (size_t)n;
    }
    out->used = 0;
    return job_check(out->job);
}

/* Makes room for something at the place, gathered if it follows closely. The room is never 0. */
static int output_seek(struct output *out, uint64_t at, size_t *ret_room)
{
    uint64_t end = out->at + out->used;
    int r = 0;

    if (out->used > 0 && (at < end || at - end >= 4096 || at - out->at >= JOB_BLOCK))
        r = output_flush(out);
    if (r < 0)
        return r;
    if (out->used == 0) {
        out->at = at;
    } else { /* the rest of a block */
        memset(out->buffer + out->used, 0, (size_t)(at - end));
        out->used += (size_t)(at - end);
    }
    *ret_room = JOB_BLOCK - out->used;
    return 0;
}

int output_put(struct output *out, const void *data, size_t len, uint64_t at)
{
    while (len > 0) {
        size_t room = 0, n;
        int r = output_seek(out, at, &room);

        if (r < 0)
            return r;
        n = len < room ? len : room;
        memcpy(out->buffer + out->used, data, n);
        out->used += n;
        data = (const char *)data + n;
        at += n;
        len -= n;
    }
    return 0;
}

static int source_short(struct output *out, const char *path, size_t path_len)
{
    return error_set(&out->job->error, FCPROC_ERR_BUSY, out->job->op, 0,
                     "what /%s holds became shorter while it was copied; build from what nobody "
                     "writes to",
                     SHOWN(path, path_len));
}

static int source_failed(struct output *out, int sys_errno, const char *path, size_t path_len)
{
    return image_errno(&out->job->error, out->job->op, sys_errno, "can't copy what /%s holds",
                       SHOWN(path, path_len));
}

/* At most so many bytes of it, and one at the least: how many, or a code. */
static ssize_t source_some(struct output *out, uint64_t from, void *data, size_t len,
                           const char *path, size_t path_len)
{
    ssize_t n;

    do
        n = pread(out->source_fd, data, len, (off_t)from);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return source_failed(out, errno, path, path_len);
    return n > 0 ? n : source_short(out, path, path_len);
}

static int copy_gathered(struct output *out, uint64_t from, size_t len, uint64_t at,
                         const char *path, size_t path_len)
{
    while (len > 0) {
        size_t room = 0;
        ssize_t n;
        int r = output_seek(out, at, &room);

        if (r < 0)
            return r;
        n = source_some(out, from, out->buffer + out->used, len < room ? len : room, path,
                        path_len);
        if (n < 0)
            return (int)n;
        out->used += (size_t)n;
        from += (size_t)n;
        at += (size_t)n;
        len -= (size_t)n;
        atomic_fetch_add_explicit(&out->job->bytes, (uint64_t)n, memory_order_relaxed);
    }
    return 0;
}

/* By the kernel alone. *ret_done is how many; fewer when it can't. */
static int copy_directly(struct output *out, uint64_t from, uint64_t len, uint64_t at,
                         uint64_t *ret_done, const char *path, size_t path_len)
{
    uint64_t done = 0;
    int r = output_flush(out);

    while (r == 0 && done < len && !out->by_buffer) {
        off_t in = (off_t)(from + done), to = (off_t)(at + done);
        uint64_t left = len - done;
        ssize_t n = copy_file_range(out->source_fd, &in, out->fd, &to,
                                    left < JOB_BLOCK ? (size_t)left : JOB_BLOCK, 0);

        if (n > 0) {
            done += (uint64_t)n;
            atomic_fetch_add_explicit(&out->job->bytes, (uint64_t)n, memory_order_relaxed);
            r = job_check(out->job);
        } else if (n < 0 && errno == ENOSPC) {
            return image_errno(&out->job->error, out->job->op, errno, "can't write the image");
        } else if (n == 0 || (errno != EINTR && errno != EIO)) {
            /* copy_file_range(2): EXDEV, EINVAL, EOPNOTSUPP, ENOSYS; EPERM by a seccomp filter; and some
             * file systems say 0. A short source is told by the read. */
            out->by_buffer = true;
        } else if (errno != EINTR) {
            return source_failed(out, errno, path, path_len);
        }
    }
    *ret_done = done;
    return r;
}

int output_copy(struct output *out, uint32_t source, uint64_t from, uint64_t len, uint64_t at,
                const char *path, size_t path_len)
{
    uint64_t done = 0;
    int r = source_enter(out, source);

    if (r == 0 && len >= SMALL && !out->by_buffer)
        r = copy_directly(out, from, len, at, &done, path, path_len);
    if (r < 0 || done == len)
        return r;
    return copy_gathered(out, from + done, (size_t)(len - done), at + done, path, path_len);
}

int output_read(struct output *out, uint32_t source, uint64_t from, void *data, size_t len,
                const char *path, size_t path_len)
{
    size_t done = 0;
    int r = source_enter(out, source);

    while (r == 0 && done < len) {
        ssize_t n = source_some(out, from + done, (char *)data + done, len - done, path, path_len);

        if (n < 0)
            return (int)n;
        done += (size_t)n;
    }
    if (r == 0)
        atomic_fetch_add_explicit(&out->job->bytes, len, memory_order_relaxed);
    return r;
}
