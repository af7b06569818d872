/* SPDX-License-Identifier: MIT
 *
 * Jobs: their threads, and what a host sees of them.
 */
#include "job.h"

#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>

int job_new(size_t size, const char *op, struct tree *tree, int (*run)(job_t *),
            void (*destroy)(job_t *), job_t **ret, fcproc_error *err)
{
    job_t *job = calloc(1, size);

    if (!job)
        return error_nomem(err, op);
    job->op = op;
    job->run = run;
    job->destroy = destroy;
    job->maker = getpid();
    job->last_warning = &job->warnings;
    job->error = (fcproc_error)FCPROC_ERROR_INIT;
    atomic_init(&job->step, "starting");
    job->done_fd = eventfd(0, EFD_CLOEXEC);
    job->cancel_fd = eventfd(0, EFD_CLOEXEC);
    if (job->done_fd < 0 || job->cancel_fd < 0) {
        int r = image_errno(err, op, errno, "no eventfd to hear of a thread by");

        close_fd(&job->done_fd);
        close_fd(&job->cancel_fd);
        free(job);
        return r;
    }
    if (tree) {
        job->tree = tree_ref(tree);
        tree->job = job;
    }
    *ret = job;
    return 0;
}

static void *job_main(void *arg)
{
    job_t *job = arg;
    uint64_t one = 1;
    /* libarchive writes the names of PAX headers in the locale's letters, and leaves their bytes alone,
     * with a warning, where it has none for them. In UTF-8 it would compose accents. */
    locale_t plain = newlocale(LC_CTYPE_MASK, "C", (locale_t)0);

    if (plain) {
        (void)uselocale(plain);
        job->code = job->run(job);
        if (job->code == 0 && job->lost_warning)
            job->code = error_nomem(&job->error, job->op);
        (void)uselocale(LC_GLOBAL_LOCALE);
        freelocale(plain);
    } else {
        job->code = error_nomem(&job->error, job->op);
    }
    atomic_store(&job->done, true);
    if (write(job->done_fd, &one, sizeof(one)) < 0) { }
    return NULL;
}

static int start(job_t *job, fcproc_error *err)
{
    sigset_t all, before;
    int e;

    (void)sigfillset(&all);
    e = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (e == 0) {
        e = pthread_create(&job->thread, NULL, job_main, job);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (e != 0)
        return image_errno(err, job->op, e, "can't start a thread");
    job->started = true;
    return 0;
}

int job_hand_out(job_t *job, int r, job_t **ret, fcproc_error *err)
{
    if (r == 0)
        r = start(job, err);
    if (r < 0) {
        fcproc_image_job_close(job);
        return r;
    }
    *ret = job;
    return 0;
}

int job_check(job_t *job)
{
    if (!atomic_load_explicit(&job->cancelled, memory_order_relaxed))
        return 0;
    return error_set(&job->error, FCPROC_ERR_CANCELLED, job->op, 0, "it was cancelled");
}

void job_warn(job_t *job, const char *format, ...)
{
    char text[512];
    struct job_warning *w;
    va_list args;
    size_t len;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (++job->n_warnings > JOB_WARNINGS_MOST)
        return;
    len = strlen(text) + 1;
    w = malloc(sizeof(*w) + len);
    if (!w) {
        job->lost_warning = true;
        return;
    }
    w->next = NULL;
    memcpy(w->text, text, len);
    *job->last_warning = w;
    job->last_warning = &w->next;
}

/* ---- for a host ---- */

FCPROC_API int fcproc_image_job_fd(const fcproc_image_job *job)
{
    return job->done_fd;
}

FCPROC_API int fcproc_image_job_progress(const fcproc_image_job *job,
                                         struct fcproc_image_progress *ret, fcproc_error *err)
{
    int r = check_struct(ret, sizeof(*ret), "fcproc_image_progress", job->op, err);

    if (r < 0)
        return r;
    ret->step = atomic_load_explicit(&job->step, memory_order_relaxed);
    ret->bytes = atomic_load_explicit(&job->bytes, memory_order_relaxed);
    ret->total = atomic_load_explicit(&job->total, memory_order_relaxed);
    ret->entries = atomic_load_explicit(&job->entries, memory_order_relaxed);
    return 0;
}

FCPROC_API int fcproc_image_job_step(fcproc_image_job *job, fcproc_error *err)
{
    if (!atomic_load(&job->done))
        return 0;
    if (job->code == 0)
        return 1;
    return error_set(err, job->code, job->error.op, job->error.sys_errno, "%s", job->error.message);
}

FCPROC_API int fcproc_image_job_wait(fcproc_image_job *job, fcproc_error *err)
{
    struct pollfd p = { .fd = job->done_fd, .events = POLLIN };
    int r;

    while ((r = fcproc_image_job_step(job, err)) == 0)
        (void)poll(&p, 1, -1);
    return r < 0 ? r : 0;
}

FCPROC_API const char *fcproc_image_job_warning(const fcproc_image_job *job, size_t i)
{
    const struct job_warning *w = atomic_load(&job->done) ? job->warnings : NULL;

    while (w && i-- > 0)
        w = w->next;
    return w ? w->text : NULL;
}

FCPROC_API void fcproc_image_job_cancel(fcproc_image_job *job)
{
    uint64_t one = 1;

    if (!job)
        return;
    atomic_store(&job->cancelled, true);
    if (write(job->cancel_fd, &one, sizeof(one)) < 0) { }
}

FCPROC_API void fcproc_image_job_close(fcproc_image_job *job)
{
    if (!job)
        return;
    /* In a fork there is no thread, and what it worked on may be half changed: it is left alone. */
    if (job->maker != getpid() && job->started && !atomic_load(&job->done)) {
        close_fd(&job->done_fd);
        close_fd(&job->cancel_fd);
        return;
    }
    if (job->maker == getpid())
        fcproc_image_job_cancel(job);
    if (job->started && job->maker == getpid())
        (void)pthread_join(job->thread, NULL);
    if (job->destroy)
        job->destroy(job);
    while (job->warnings) {
        struct job_warning *next = job->warnings->next;

        free(job->warnings);
        job->warnings = next;
    }
    if (job->tree) {
        job->tree->job = NULL;
        if (job->changes_tree && job->started && job->code < 0)
            job->tree->broken = true;
        tree_unref(job->tree);
    }
    close_fd(&job->done_fd);
    close_fd(&job->cancel_fd);
    free(job);
}
