/* SPDX-License-Identifier: MIT
 *
 * Work on a thread of its own, with a progress to look at. The thread has all signals blocked and a
 * plain locale: in it libarchive leaves names as they are, and in one of UTF-8 it composes their accents.
 */
#ifndef FCPROC_IMAGE_JOB_H
#define FCPROC_IMAGE_JOB_H

#include <pthread.h>
#include <stdatomic.h>

#include "tree.h"

enum { JOB_BLOCK = 1 << 20, JOB_WARNINGS_MOST = 100 };

struct job_warning {
    struct job_warning *next;
    char text[];
};

/* The first member of what is worked on. */
struct fcproc_image_job {
    const char *op;
    /* In the thread. 0 or a code, with job->error filled. */
    int (*run)(struct fcproc_image_job *job);
    /* Frees what it has beside the job itself. */
    void (*destroy)(struct fcproc_image_job *job);
    struct tree *tree; /* or NULL */
    bool changes_tree; /* what fails leaves it broken */
    pid_t maker;
    bool started;
    pthread_t thread;
    int done_fd;
    int cancel_fd; /* readable once it is cancelled: for what may wait long */
    atomic_bool cancelled, done;
    _Atomic uint64_t bytes, total, entries;
    const char *_Atomic step;
    int code;
    fcproc_error error;
    struct job_warning *warnings, **last_warning;
    size_t n_warnings; /* also those that are not kept */
    bool lost_warning; /* there was no memory for one */
};
typedef struct fcproc_image_job job_t;

/* size bytes, the rest of them zero. tree (which may be NULL) is referenced, and busy until the job is
 * closed: FCPROC_ERR_BUSY when another job has it. */
int job_new(size_t size, const char *op, struct tree *tree, int (*run)(job_t *),
            void (*destroy)(job_t *), job_t **ret, fcproc_error *err);
/* The end of each function that makes one: starts its thread, and gives it to the caller. Where r, or the
 * start, is a failure the job is closed, and that is returned. */
int job_hand_out(job_t *job, int r, job_t **ret, fcproc_error *err);

/* ---- in the thread ---- */

/* Between two blocks: 0, or FCPROC_ERR_CANCELLED. */
int job_check(job_t *job);
/* What the user should know, though the work goes on. Without memory for it the
 * job ends as FCPROC_ERR_NOMEM: nothing is lost in silence. */
void job_warn(job_t *job, const char *format, ...) FCPROC_PRINTF(2, 3);

static inline void job_step(job_t *job, const char *step)
{
    atomic_store_explicit(&job->step, step, memory_order_relaxed);
}

#endif
