/* SPDX-License-Identifier: MIT
 *
 * For programs that let malloc fail: one in libc's place that fails when told to and knows what is not
 * freed, and counts of what else can be left over.
 *
 * With INTERPOSE_WRAPPED, and linked with OURS of the Makefile, only what is linked into the program fails,
 * not the libraries that it loads. So it works beside a sanitizer, too, which has the allocator itself and
 * tells what is not freed.
 */
#ifndef FCPROC_INTERPOSER_H
#define FCPROC_INTERPOSER_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "count.h"
#include "fcproc.h"

/* ---- the interposer: seen by all libraries in libc's place ---- */

static pthread_t armed_thread;
static bool all_threads, all_later;
static unsigned failing_us;   /* the first one takes so long, as on a host that looks for memory */
static atomic_long left = -1; /* calls until one fails; negative: disarmed */
static atomic_int failures;
static atomic_bool tracking;

static bool concerns_us(void)
{
    return all_threads || pthread_equal(pthread_self(), armed_thread);
}

static bool fails(void)
{
    if (atomic_load(&left) < 0 || !concerns_us())
        return false;
    if (atomic_fetch_sub(&left, 1) > 0)
        return false;
    if (all_later)
        atomic_store(&left, 0);
    if (atomic_fetch_add(&failures, 1) == 0 && failing_us)
        (void)usleep(failing_us);
    errno = ENOMEM;
    return true;
}

#ifdef INTERPOSE_WRAPPED
extern void *__real_malloc(size_t size);
extern void *__real_calloc(size_t n, size_t size);
extern void *__real_realloc(void *block, size_t size);
extern char *__real_strdup(const char *text);
extern char *__real_strndup(const char *text, size_t len);

FCPROC_API void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

FCPROC_API void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

FCPROC_API void *__wrap_realloc(void *block, size_t size)
{
    return fails() ? NULL : __real_realloc(block, size);
}

FCPROC_API char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

FCPROC_API char *__wrap_strndup(const char *text, size_t len)
{
    return fails() ? NULL : __real_strndup(text, len);
}

#define LIBC_FAILS() false
#else
#define LIBC_FAILS() fails()
#endif

#ifdef __SANITIZE_ADDRESS__
extern int __lsan_do_recoverable_leak_check(void);

static int blocks_left(void)
{
    return 0;
}
#else
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);

enum { MOST_BLOCKS = 4096 };

static void *_Atomic blocks[MOST_BLOCKS];

static void *track(void *block)
{
    if (!block || !atomic_load(&tracking) || !concerns_us())
        return block;
    for (int i = 0; i < MOST_BLOCKS; i++) {
        void *expected = NULL;

        if (atomic_compare_exchange_strong(&blocks[i], &expected, block))
            break;
    }
    return block;
}

static void forget(void *block)
{
    for (int i = 0; block && i < MOST_BLOCKS; i++)
        if (atomic_load(&blocks[i]) == block) {
            atomic_store(&blocks[i], NULL);
            break;
        }
}

FCPROC_API void *malloc(size_t size)
{
    return LIBC_FAILS() ? NULL : track(__libc_malloc(size));
}

FCPROC_API void *calloc(size_t n, size_t size)
{
    return LIBC_FAILS() ? NULL : track(__libc_calloc(n, size));
}

FCPROC_API void *realloc(void *block, size_t size)
{
    void *bigger;

    if (LIBC_FAILS())
        return NULL;
    forget(block); /* before another thread can be given it */
    bigger = __libc_realloc(block, size);
    track(bigger ? bigger : block);
    return bigger;
}

FCPROC_API void free(void *block)
{
    forget(block);
    __libc_free(block);
}

static int blocks_left(void)
{
    int n = 0;

    for (int i = 0; i < MOST_BLOCKS; i++)
        n += atomic_load(&blocks[i]) != NULL;
    return n;
}
#endif

static void disarm(void)
{
    atomic_store(&left, -1);
}

/* ---- what is left ---- */

/* A new thread takes the stack and the block of one that ended; only a second one at the same
 * time would add to what libc keeps. */
static void wait_until_alone(void)
{
    enum { ALONE = 3 }; /* with "." and ".." */

    for (int tries = 0; count_entries("/proc/self/task") > ALONE && tries < 3000; tries++)
        (void)usleep(1000);
}

static inline bool has_children(void)
{
    siginfo_t info = { 0 };

    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

#endif
