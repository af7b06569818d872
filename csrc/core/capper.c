/* SPDX-License-Identifier: MIT
 *
 * Holds files that others write, such as guests' consoles, to a size: a thread looks at them once a
 * second and gives their oldest bytes back to the file system. A limit on the writer instead
 * (RLIMIT_FSIZE) would kill it. The thread starts with the first file and ends with the capper.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "private.h"

struct capped {
    struct capped *next;
    int64_t most;
    struct fcproc_expected expected;
    char path[];
};

struct fcproc_capper {
    pid_t pid;             /* whose thread it is */
    pthread_mutex_t mutex; /* of what follows */
    struct capped *files, **end;
    bool ending;
    pthread_t thread;
    bool running; /* the owner's alone */
    int wake_fd;
};

enum { LOOK_EVERY_MS = 1000 };

static void *capper_main(void *arg)
{
    fcproc_capper *c = arg;
    struct pollfd wake = { .fd = c->wake_fd, .events = POLLIN };

    for (;;) {
        bool ending, idle;
        int64_t freed;

        (void)pthread_mutex_lock(&c->mutex);
        ending = c->ending;
        idle = !c->files;
        for (struct capped *f = ending ? NULL : c->files; f; f = f->next)
            if (fcproc_file_punch(f->path, &f->expected, f->most, &freed, NULL) < 0) { } /* gone,
                replaced, or can't be */
        (void)pthread_mutex_unlock(&c->mutex);
        if (ending)
            return NULL;
        if (poll(&wake, 1, idle ? -1 : LOOK_EVERY_MS) > 0) {
            uint64_t count;

            if (read(c->wake_fd, &count, sizeof(count)) < 0) { }
        }
    }
}

static void wake(const fcproc_capper *c)
{
    uint64_t one = 1;

    if (write(c->wake_fd, &one, sizeof(one)) < 0) { }
}

FCPROC_API int fcproc_capper_new(fcproc_capper **ret, fcproc_error *err)
{
    fcproc_capper *c = calloc(1, sizeof(*c));

    if (!c)
        return error_nomem(err, "capper");
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake_fd < 0) {
        int e = errno;

        free(c);
        return error_errno(err, "capper", e, "no eventfd for a capper");
    }
    (void)pthread_mutex_init(&c->mutex, NULL);
    c->pid = getpid();
    c->end = &c->files;
    *ret = c;
    return 0;
}

FCPROC_API int fcproc_capper_add(fcproc_capper *c, const char *path,
                                 const struct fcproc_expected *expected, int64_t most,
                                 fcproc_error *err)
{
    static const struct fcproc_expected anything = FCPROC_EXPECTED_INIT;
    size_t size = strlen(path) + 1;
    struct capped *f = malloc(sizeof(*f) + size);
    bool idle;
    int r = check_maker(c->pid, "capper", err);

    if (r < 0) {
        free(f);
        return r;
    }
    if (!f)
        return error_nomem(err, "capper");
    f->next = NULL;
    f->most = most;
    f->expected = expected ? *expected : anything;
    memcpy(f->path, path, size);
    if (!c->running)
        r = thread_start(&c->thread, PTHREAD_CREATE_JOINABLE, capper_main, c);
    if (r < 0) {
        free(f);
        return error_errno(err, "capper", -r, "no thread to hold %s to its size", path);
    }
    c->running = true;
    (void)pthread_mutex_lock(&c->mutex);
    idle = !c->files;
    *c->end = f; /* a fleet's files come and go in one order, and are looked for from the first */
    c->end = &f->next;
    (void)pthread_mutex_unlock(&c->mutex);
    if (idle) /* else it looks within the second: a fleet's files are not looked at one by one */
        wake(c);
    return 0;
}

FCPROC_API void fcproc_capper_remove(fcproc_capper *c, const char *path)
{
    struct capped *found = NULL;

    if (c->pid != getpid())
        return;
    (void)pthread_mutex_lock(&c->mutex);
    for (struct capped **at = &c->files; *at; at = &(*at)->next)
        if (strcmp((*at)->path, path) == 0) {
            found = *at;
            *at = found->next;
            if (c->end == &found->next)
                c->end = at;
            break;
        }
    (void)pthread_mutex_unlock(&c->mutex);
    free(found);
}

FCPROC_API void fcproc_capper_close(fcproc_capper *c)
{
    bool ours;

    if (!c)
        return;
    ours = c->pid == getpid(); /* a fork has not the thread, and the mutex as it was just then */
    if (ours && c->running) {
        (void)pthread_mutex_lock(&c->mutex);
        c->ending = true;
        (void)pthread_mutex_unlock(&c->mutex);
        wake(c);
        (void)pthread_join(c->thread, NULL);
    }
    for (struct capped *f = c->files, *next; f; f = next) {
        next = f->next;
        free(f);
    }
    if (ours)
        (void)pthread_mutex_destroy(&c->mutex);
    close_fd(&c->wake_fd);
    free(c);
}
