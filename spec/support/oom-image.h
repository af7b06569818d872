/* SPDX-License-Identifier: MIT
 *
 * For oom-image.c and oom-image-write.c: lets malloc fail in libfcproc-image at the n-th of its own calls,
 * for n = 0, 1, 2, ... until a call succeeds without a failure: each ends as FCPROC_ERR_NOMEM, and no block
 * or descriptor may be left. Walked twice: the n-th fails, or all from the n-th on.
 * What libarchive, libext2fs, zlib and libcrypto allocate does not fail: the first two end the process in
 * many places when it does.
 */
#ifndef FCPROC_OOM_IMAGE_H
#define FCPROC_OOM_IMAGE_H

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fcproc_image.h"

#define INTERPOSE_WRAPPED
#include "interposer.h"

enum { MOST_FAILURES = 20000 };

static const char *folder;
static fcproc_error error;

static const char *in_folder(const char *name)
{
    static char paths[4][4096];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static int finish(int r, fcproc_image_job *job)
{
    if (r == 0 && job)
        r = fcproc_image_job_wait(job, &error);
    fcproc_image_job_close(job);
    return r;
}

static int new_tree(fcproc_image_tree **ret)
{
    struct fcproc_image_limits limits = FCPROC_IMAGE_LIMITS_INIT;

    limits.spool_folder = folder;
    return fcproc_image_tree_new(&limits, ret, &error);
}

/* One attempt with the n-th allocation failing; -1: wrong; else how many failed. */
static int attempt(const char *name, int (*call)(void), long n, int descriptors)
{
    int failed, r;

    wait_until_alone();
    error = (fcproc_error)FCPROC_ERROR_INIT;
    atomic_store(&failures, 0);
    atomic_store(&tracking, true);
    atomic_store(&left, n);
    r = call();
    disarm();
    atomic_store(&tracking, false);
    failed = atomic_load(&failures);
    wait_until_alone();
    if (blocks_left() > 0 || count_descriptors() != descriptors) {
        (void)printf("%s: failure at %ld leaves %d blocks, %d descriptors\n", name, n,
                     blocks_left(), count_descriptors() - descriptors);
        return -1;
    }
    if (r != (failed > 0 ? FCPROC_ERR_NOMEM : 0)) {
        (void)printf("%s: failure at %ld ends as %s: %s\n", name, n,
                     r == 0 ? "success" : fcproc_code_name(r), error.message);
        return -1;
    }
    return failed;
}

/* least: so many of its own allocations the call makes at least. */
static int walk(const char *name, int (*call)(void), long least)
{
    int descriptors;
    long n;

    for (int i = 0; i < 3; i++) /* in peace: caches fill */
        if (call() < 0) {
            (void)printf("%s: does not work: %s\n", name, error.message);
            return 1;
        }
    wait_until_alone();
    descriptors = count_descriptors();
    for (n = 0; n < MOST_FAILURES; n++) {
        int failed = attempt(name, call, n, descriptors);

        if (failed < 0)
            return 1;
        if (failed == 0)
            break;
    }
    (void)printf("%s, %s: %ld failures walked\n", name, all_later ? "all later" : "one", n);
#ifdef __SANITIZE_ADDRESS__
    if (__lsan_do_recoverable_leak_check())
        return 1;
#endif
    return n == MOST_FAILURES || n < least;
}

/* ---- the program: FOLDER ---- */

struct walked {
    const char *name;
    int (*call)(void);
    long least;
};

static int walk_all(const struct walked *list, size_t n)
{
    int failed = 0;

    for (int mode = 0; mode < 2; mode++) {
        all_later = mode;
        for (size_t i = 0; i < n; i++)
            failed |= walk(list[i].name, list[i].call, list[i].least);
    }
    (void)puts(failed ? "FAILED" : "ok");
    return failed;
}

static void start(char **argv)
{
    (void)setvbuf(stdout, NULL, _IONBF, 0);
    folder = argv[1];
    armed_thread = pthread_self();
    all_threads = true;
}

#define WALK_ALL(list) walk_all((list), sizeof(list) / sizeof((list)[0]))

#endif
