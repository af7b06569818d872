/* SPDX-License-Identifier: MIT
 *
 * A file of a tree in one piece, so that it can be read as an archive: where it lies already, or a copy in
 * the spool.
 */
#include "job.h"

struct extract_job {
    job_t job;
    struct inode *inode;
    struct fcproc_image_piece piece;
};

/* Once more into the spool, and now with its holes. */
static int copy(struct extract_job *x)
{
    job_t *job = &x->job;
    cleanup_free char *buffer = malloc(JOB_BLOCK);
    uint64_t first = 0, size = x->inode->size;
    int r = buffer ? 0 : error_nomem(&job->error, job->op);

    job_step(job, "unpacking");
    atomic_store(&job->total, size);
    for (uint64_t at = 0, from; r == 0 && at < size;) {
        ssize_t n = source_read(job->tree, x->inode, at, buffer, JOB_BLOCK, job->op, &job->error);

        if (n < 0)
            return (int)n;
        r = spool_write(job->tree, buffer, (size_t)n, &from, job->op, &job->error);
        if (at == 0)
            first = from;
        at += (uint64_t)n;
        atomic_store_explicit(&job->bytes, at, memory_order_relaxed);
        if (r == 0)
            r = job_check(job);
    }
    if (r == 0)
        x->piece = (struct fcproc_image_piece){ job->tree->sources[job->tree->spool].fd, first,
                                                size };
    return r;
}

static int extract_run(job_t *job)
{
    struct extract_job *x = (struct extract_job *)job;
    const struct extent *e = x->inode->extents;
    const struct source *source;

    if (x->inode->n_extents == 1 && e->at == 0 && e->len == x->inode->size) {
        source = &job->tree->sources[e->source];
        if (!source->path) {
            x->piece = (struct fcproc_image_piece){ source->fd, e->from, e->len };
            return 0;
        }
    }
    return copy(x);
}

FCPROC_API int fcproc_image_extract(fcproc_image_tree *handle, const char *path,
                                    fcproc_image_job **ret, fcproc_error *err)
{
    static const char op[] = "image.extract";
    struct tree *tree = (struct tree *)handle;
    struct inode *inode;
    job_t *job;
    int r = tree_look_regular(tree, path, &inode, op, err);

    if (r == 0 && inode->size == 0)
        r = error_set(err, FCPROC_ERR_INVALID, op, 0, "%s is empty, which no archive is",
                      SHOWN(path, strlen(path)));
    if (r == 0)
        r = job_new(sizeof(struct extract_job), op, tree, extract_run, NULL, &job, err);
    if (r < 0)
        return r;
    ((struct extract_job *)job)->inode = inode;
    return job_hand_out(job, 0, ret, err);
}

FCPROC_API struct fcproc_image_piece fcproc_image_extract_result(const fcproc_image_job *job)
{
    return ((const struct extract_job *)job)->piece;
}
