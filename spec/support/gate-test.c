/* SPDX-License-Identifier: MIT
 *
 * Children at their gates while the host goes on: its threads allocate memory and change errno, the
 * thread that made a child has ended, and the host forks. Prints what is wrong, or "ok".
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fcproc.h"

enum { CHILDREN = 40, WORKERS = 3 };

static atomic_int failures;
static atomic_bool over;

#define CHECK(condition)                                                           \
    do {                                                                           \
        if (!(condition)) {                                                        \
            (void)printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            failures++;                                                            \
        }                                                                          \
    } while (0)

static void *work(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;

    while (!over) {
        size_t size = 16 + (seed = seed * 1103515245 + 12345) % 100000;
        char *block = malloc(size);

        errno = (int)seed;
        if (block)
            memset(block, (int)seed, size);
        CHECK(errno == (int)seed);
        free(block);
    }
    return NULL;
}

static fcproc_process *gated(const char *program, const char *argument)
{
    const char *const argv[] = { program, argument, NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    fcproc_process *p = NULL;
    fcproc_error err = FCPROC_ERROR_INIT;

    spec.argv = argv;
    spec.gate = true;
    if (fcproc_spawn(&spec, &p, &err) < 0) {
        (void)printf("%s\n", err.message);
        failures++;
    }
    return p;
}

/* Whatever comes to the pidfd's process: its status. */
static int status_of(fcproc_process *p)
{
    fcproc_op *op = NULL;
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_exit end = { 0 };

    if (fcproc_process_wait(p, 10000, 0, NULL, &op, &err) == 0) {
        if (fcproc_op_wait(op, &err) == 0)
            end = fcproc_process_wait_result(op);
        fcproc_op_close(op);
    }
    return end.known && !end.signaled ? end.value : -1;
}

static void *start(void *ret)
{
    *(fcproc_process **)ret = gated("false", NULL);
    return NULL;
}

static void released_under_load(void)
{
    fcproc_process *p[CHILDREN] = { NULL };
    pthread_t worker[WORKERS], starter;

    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&worker[i], NULL, work, (void *)(i + 1)) == 0);
    for (int i = 0; i < CHILDREN; i++) {
        /* A stack of its own size is not kept for the next thread: it is gone with its thread. */
        pthread_attr_t attr;

        CHECK(pthread_attr_init(&attr) == 0);
        CHECK(pthread_attr_setstacksize(&attr, (size_t)(48 << 20)) == 0);
        CHECK(pthread_create(&starter, &attr, start, &p[i]) == 0);
        CHECK(pthread_join(starter, NULL) == 0);
        (void)pthread_attr_destroy(&attr);
    }
    for (int i = 0; i < CHILDREN; i++) {
        if (!p[i])
            continue;
        if (i % 4 > 0) {
            CHECK(fcproc_process_release(p[i], true, NULL) == 0);
            CHECK(status_of(p[i]) == 1);
        }
        fcproc_process_close(p[i]);
    }
    over = true;
    for (int i = 0; i < WORKERS; i++)
        CHECK(pthread_join(worker[i], NULL) == 0);
}

static volatile sig_atomic_t handled;

static void on_signal(int sig)
{
    (void)sig;
    handled = 1;
}

/* A handler of ours must not run there: the child dies by the signal's default, in its time. */
static void keeps_signals_until_its_exec(void)
{
    fcproc_process *p;
    struct sigaction action = { .sa_handler = on_signal };

    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    p = gated("sleep", "60");
    if (!p)
        return;
    CHECK(kill(fcproc_process_pid(p), SIGUSR1) == 0);
    (void)usleep(20000);
    CHECK(fcproc_process_alive(p));
    CHECK(fcproc_process_release(p, true, NULL) == 0);
    CHECK(status_of(p) == -1);
    CHECK(!handled);
    fcproc_process_close(p);
}

/* The copy of a handle in a fork is not the one to end the child. */
static void outlives_a_fork(void)
{
    fcproc_process *p = gated("false", NULL);
    int status = -1;
    pid_t pid;

    if (!p)
        return;
    pid = fork();
    if (pid == 0) {
        fcproc_process_close(p);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(fcproc_process_alive(p));
    CHECK(fcproc_process_release(p, true, NULL) == 0);
    CHECK(status_of(p) == 1);
    fcproc_process_close(p);
}

/* The environment of its spawn, not of its release. */
static void keeps_its_environment(void)
{
    static const char *const argv[] = { "/bin/sh", "-c", "test \"$GATE_TEST\" = spawned", NULL };
    struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
    fcproc_process *p = NULL;

    spec.argv = argv;
    spec.gate = true;
    CHECK(setenv("GATE_TEST", "spawned", 1) == 0);
    CHECK(fcproc_spawn(&spec, &p, NULL) == 0);
    CHECK(setenv("GATE_TEST", "released", 1) == 0);
    if (!p)
        return;
    CHECK(fcproc_process_release(p, true, NULL) == 0);
    CHECK(status_of(p) == 0);
    fcproc_process_close(p);
    CHECK(unsetenv("GATE_TEST") == 0);
}

/* A child with another user's ids is in no memory of ours: the first change of one would make it such
 * that nobody but root may trace us or have our core, for good. */
static void *spawn_as_nobody(void *gate)
{
    static const char *const argv[] = { "/bin/true", NULL };

    for (int i = 0; i < 20; i++) {
        struct fcproc_spawn spec = FCPROC_SPAWN_INIT;
        fcproc_process *p = NULL;

        spec.argv = argv;
        spec.uid = i % 3 ? 65534 : -1;
        spec.gid = i % 3 != 1 ? 65534 : -1;
        spec.gate = gate != NULL;
        CHECK(fcproc_spawn(&spec, &p, NULL) == 0);
        if (!p)
            return NULL;
        CHECK(prctl(PR_GET_DUMPABLE) == 1);
        CHECK(fcproc_process_release(p, false, NULL) == 0);
        CHECK(prctl(PR_GET_DUMPABLE) == 1);
        CHECK(fcproc_process_release(p, true, NULL) == 0);
        CHECK(status_of(p) == 0);
        fcproc_process_close(p);
        CHECK(prctl(PR_GET_DUMPABLE) == 1);
    }
    return NULL;
}

static void stays_dumpable(void)
{
    bool gate = true;
    pthread_t other;

    CHECK(pthread_create(&other, NULL, spawn_as_nobody, &gate) == 0);
    (void)spawn_as_nobody(NULL);
    CHECK(pthread_join(other, NULL) == 0);
}

int main(void)
{
    keeps_its_environment();
    stays_dumpable();
    released_under_load();
    keeps_signals_until_its_exec();
    outlives_a_fork();
    if (!failures)
        (void)printf("ok\n");
    return failures ? 1 : 0;
}
