/* SPDX-License-Identifier: MIT
 *
 * A file that is there already, into a target: its blocks are shared where the file system can, else its
 * data alone is copied, with holes left holes.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "job.h"
#include "target.h"

static const char OP[] = "image.copy";

struct copy_job {
    job_t job;
    fcproc_image_target *target;
    int from, to; /* to: the target's */
    char *path;   /* for messages */
    char *buffer; /* where copy_file_range can't */
};

static int failed(struct copy_job *c, int sys_errno)
{
    return image_errno(&c->job.error, OP, sys_errno, "can't copy %s", c->path);
}

static ssize_t copy_by_buffer(struct copy_job *c, off_t at, size_t len)
{
    ssize_t n = pread(c->from, c->buffer, len, at);

    for (ssize_t done = 0; done < n;) {
        ssize_t written = pwrite(c->to, c->buffer + done, (size_t)(n - done), at + done);

        if (written < 0 && errno != EINTR)
            return -1;
        done += written > 0 ? written : 0;
    }
    return n;
}

/* At most len bytes: how many, 0 when the file is shorter now, or -1. */
static ssize_t copy_some(struct copy_job *c, off_t at, size_t len)
{
    off_t in = at, out = at;
    ssize_t n = c->buffer ? 0 : copy_file_range(c->from, &in, c->to, &out, len, 0);

    /* Between file systems, by a seccomp filter, or of no known reason: read(2) tells which. */
    if (n > 0 || (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EIO)))
        return n;
    if (!c->buffer)
        c->buffer = malloc(JOB_BLOCK);
    if (!c->buffer) {
        errno = ENOMEM;
        return -1;
    }
    return copy_by_buffer(c, at, len);
}

static int copy_data(struct copy_job *c, off_t at, off_t end)
{
    int r = 0;

    while (r == 0 && at < end) {
        size_t len = end - at < JOB_BLOCK ? (size_t)(end - at) : JOB_BLOCK;
        ssize_t n = copy_some(c, at, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? failed(c, errno)
                         : error_set(&c->job.error, FCPROC_ERR_BUSY, OP, 0,
                                     "%s became shorter while it was copied", c->path);
        at += n;
        atomic_store_explicit(&c->job.bytes, (uint64_t)at, memory_order_relaxed);
        r = job_check(&c->job);
    }
    return r;
}

static int copy_run(job_t *job)
{
    struct copy_job *c = (struct copy_job *)job;
    struct stat st;
    off_t at = 0;
    int r = 0;

    job_step(job, "copying");
    if (fstat(c->from, &st) < 0)
        return failed(c, errno);
    atomic_store_explicit(&job->total, (uint64_t)st.st_size, memory_order_relaxed);
    if (ioctl(c->to, FICLONE, c->from) == 0)
        return 0;
    if (ftruncate(c->to, st.st_size) < 0)
        return failed(c, errno);
    while (r == 0 && at < st.st_size) {
        off_t data = lseek(c->from, at, SEEK_DATA), hole = st.st_size;

        if (data < 0 && errno == ENXIO) /* a hole to the end */
            break;
        if (data >= 0) {
            hole = lseek(c->from, data, SEEK_HOLE);
            at = data;
        }
        if (hole < 0 || hole > st.st_size)
            hole = st.st_size;
        r = copy_data(c, at, hole);
        at = hole;
    }
    return r;
}

static void copy_destroy(job_t *job)
{
    struct copy_job *c = (struct copy_job *)job;

    close_fd(&c->from);
    fcproc_image_target_close(c->target);
    free(c->path);
    free(c->buffer);
}

static int copy_prepare(struct copy_job *c, const char *path, fcproc_error *err)
{
    uint64_t size;

    c->path = strdup(path);
    if (!c->path)
        return error_nomem(err, OP);
    return image_open_regular(path, &c->from, &size, OP, err);
}

FCPROC_API int fcproc_image_target_copy(fcproc_image_target *target, const char *path,
                                        fcproc_image_job **ret, fcproc_error *err)
{
    job_t *job = NULL;
    struct copy_job *c;
    int r = job_new(sizeof(*c), OP, NULL, copy_run, copy_destroy, &job, err);

    if (r < 0)
        return r;
    c = (struct copy_job *)job;
    c->from = -EBADF;
    c->target = target_ref(target);
    c->to = fcproc_image_target_fd(target);
    r = copy_prepare(c, path, err);
    return job_hand_out(job, r, ret, err);
}
