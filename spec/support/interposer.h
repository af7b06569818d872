/* SPDX-License-Identifier: MIT
 *
 * For oom-malloc.c: a malloc in libc's place that fails when told to and knows what is not freed,
 * and counts of what else can be left over.
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

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);

enum { MOST_BLOCKS = 4096 };

/* ---- the interposer: seen by all libraries in libc's place ---- */

static pthread_t armed_thread;
static bool all_threads, all_later;
static atomic_long left = -1; /* calls until one fails; negative: disarmed */
static atomic_int failures;
static atomic_bool tracking;
static void *_Atomic blocks[MOST_BLOCKS];

static bool concerns_us(void)
{
    return all_threads || pthread_equal(pthread_self(), armed_thread);
}

#ifdef INTERPOSE_CALLER
/* Only of what is linked into this program: not of the libraries that it loads. */
extern const char __executable_start, etext;
#define CALLER __builtin_return_address(0)

static bool is_ours(const void *caller)
{
    return (const char *)caller >= &__executable_start && (const char *)caller < &etext;
}
#else
#define CALLER NULL

static bool is_ours(const void *caller)
{
    (void)caller;
    return true;
}
#endif

static bool fails(const void *caller)
{
    if (atomic_load(&left) < 0 || !concerns_us() || !is_ours(caller))
        return false;
    if (atomic_fetch_sub(&left, 1) > 0)
        return false;
    if (all_later)
        atomic_store(&left, 0);
    atomic_fetch_add(&failures, 1);
    errno = ENOMEM;
    return true;
}

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
    return fails(CALLER) ? NULL : track(__libc_malloc(size));
}

FCPROC_API void *calloc(size_t n, size_t size)
{
    return fails(CALLER) ? NULL : track(__libc_calloc(n, size));
}

FCPROC_API void *realloc(void *block, size_t size)
{
    void *bigger;

    if (fails(CALLER))
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

static void disarm(void)
{
    atomic_store(&left, -1);
}

/* ---- what is left ---- */

static int blocks_left(void)
{
    int n = 0;

    for (int i = 0; i < MOST_BLOCKS; i++)
        n += atomic_load(&blocks[i]) != NULL;
    return n;
}

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
