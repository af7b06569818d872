/* SPDX-License-Identifier: MIT
 *
 * What outlives its object and must not hold up whoever closed it: the answer to a request that was
 * given up, a child that still runs, an inotify instance. One thread for the whole process looks
 * after all of them; it starts with the first and ends with the last.
 *
 * It is the one state that all contexts and threads share, since none of these has an object any
 * more to which it could belong. A fork has no such thread, so it begins with nothing of its own.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include "private.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum {
    ANSWER_MS = 60000,    /* Firecracker's slowest answer takes 30 s */
    ANSWER_QUIET_MS = 20, /* it has come when nothing more does for so long */
    MOST_ANSWERS = 256,
    MOST_ANSWER_BYTES = 16 * 1024 * 1024, /* a server must not keep us reading */
    CHILD_AGAIN_MS = 1000,
    /* Longer than the grace period of some 14 ms that the kernel waits for in the close of an instance
     * whose watch has just gone. A user has 128 instances by default. */
    IDLE_MS = 50,
    MOST_IDLE = 8,
};

enum kind { ANSWER, CHILD, INOTIFY };

struct lingering {
    struct lingering *next;
    enum kind kind;
    int fd;
    bool woken;          /* its descriptor has something to say */
    int64_t deadline_ns; /* when it is looked at anyway */
    int64_t end_ns;      /* of an answer that never ends */
    size_t n_read;       /* of it */
};

struct keeper {
    pid_t pid;
    atomic_bool stalled;   /* no thread could be had for what is in the list */
    pthread_mutex_t mutex; /* of what follows */
    bool running;
    int epoll_fd, timer_fd;
    int64_t timer_ns;
    struct lingering *first; /* the oldest */
    unsigned n[INOTIFY + 1];
};

static _Atomic(struct keeper *) ours;

static void free_entries(struct lingering *e)
{
    while (e) {
        struct lingering *next = e->next;

        close_fd(&e->fd);
        free(e);
        e = next;
    }
}

/* The parent's, in a fork of it: the copies of its descriptors are closed, unless the fork came while
 * somebody changed the list. */
static void forget(struct keeper *l)
{
    if (!l || pthread_mutex_trylock(&l->mutex) != 0)
        return;
    free_entries(l->first);
    close_fd(&l->epoll_fd);
    close_fd(&l->timer_fd);
    free(l);
}

/* Of this process; NULL: no memory. */
static struct keeper *keeper_of(pid_t self)
{
    struct keeper *seen = atomic_load(&ours);

    while (!seen || seen->pid != self) {
        struct keeper *fresh = calloc(1, sizeof(*fresh));

        if (!fresh)
            return NULL;
        *fresh = (struct keeper){ .pid = self, .epoll_fd = -EBADF, .timer_fd = -EBADF };
        (void)pthread_mutex_init(&fresh->mutex, NULL);
        if (atomic_compare_exchange_strong(&ours, &seen, fresh)) {
            forget(seen);
            return fresh;
        }
        (void)pthread_mutex_destroy(&fresh->mutex);
        free(fresh);
    }
    return seen;
}

static void set_timer(struct keeper *l, int64_t at_ns)
{
    /* All zeros disarm it. A time that has passed makes it readable at once. */
    struct itimerspec at = { { 0 }, { 0 } };

    l->timer_ns = at_ns;
    if (at_ns != NEVER)
        at.it_value = (struct timespec){ .tv_sec = at_ns / (1000 * NS_PER_MS),
                                         .tv_nsec = at_ns % (1000 * NS_PER_MS) + (at_ns == 0) };
    (void)timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* ---- the thread ---- */

/* Discards what has come of it. True: no more will. */
static bool read_answer(struct lingering *e, int64_t now)
{
    char discarded[4096];
    ssize_t n = recv(e->fd, discarded, sizeof(discarded), MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        return true;
    if (n > 0) {
        e->n_read += (size_t)n;
        e->deadline_ns = now + ANSWER_QUIET_MS * NS_PER_MS;
    }
    if (e->deadline_ns > e->end_ns)
        e->deadline_ns = e->end_ns;
    return e->n_read > MOST_ANSWER_BYTES;
}

static bool child_is_over(const struct keeper *l, struct lingering *e, int64_t now)
{
    siginfo_t info = { 0 };

    if (waitid((idtype_t)P_PIDFD, (id_t)e->fd, &info, WEXITED | WNOHANG) < 0 ? errno != EINTR
                                                                             : info.si_pid != 0)
        return true;
    /* Dead, but traced: it is its tracer's until that one lets go, of which nothing tells. */
    (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, e->fd, NULL);
    e->deadline_ns = now + CHILD_AGAIN_MS * NS_PER_MS;
    return false;
}

static bool is_over(const struct keeper *l, struct lingering *e, int64_t now)
{
    bool over = true;

    if (!e->woken && now < e->deadline_ns)
        return false;
    if (e->kind == ANSWER)
        over = !e->woken || read_answer(e, now); /* or its time is over */
    else if (e->kind == CHILD)
        over = child_is_over(l, e, now);
    e->woken = false;
    return over;
}

/* Takes those that are done with out of the list, and sets the timer for the others. */
static struct lingering *look(struct keeper *l)
{
    struct lingering *over = NULL;
    int64_t now = now_ns(), next_ns = NEVER;

    for (struct lingering **at = &l->first; *at;) {
        struct lingering *e = *at;

        if (is_over(l, e, now)) {
            *at = e->next;
            e->next = over;
            over = e;
            l->n[e->kind]--;
            /* The close alone does not, where a fork has a copy. */
            (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, e->fd, NULL);
        } else {
            if (e->deadline_ns < next_ns)
                next_ns = e->deadline_ns;
            at = &e->next;
        }
    }
    set_timer(l, next_ns);
    return over;
}

static void *linger_main(void *arg)
{
    struct keeper *l = arg;
    bool running = true;

    while (running) {
        struct epoll_event events[32];
        int n = epoll_wait(l->epoll_fd, events, ELEMENTS(events), -1);
        struct lingering *over;

        (void)pthread_mutex_lock(&l->mutex);
        for (int i = 0; i < n; i++)
            if (events[i].data.ptr)
                ((struct lingering *)events[i].data.ptr)->woken = true;
        over = look(l);
        running = l->running = l->first != NULL;
        if (!running) {
            close_fd(&l->epoll_fd);
            close_fd(&l->timer_fd);
        }
        (void)pthread_mutex_unlock(&l->mutex);
        free_entries(over); /* which may take the kernel its time */
    }
    return NULL;
}

/* ---- what it is given ---- */

static int watch(const struct keeper *l, struct lingering *e)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = e };

    if (e->kind == INOTIFY)
        return 0;
    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, e->fd, &event) < 0 ? -errno : 0;
}

static int start(struct keeper *l)
{
    struct epoll_event event = { .events = EPOLLIN };
    int r = 0;

    if (l->running)
        return 0;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    l->timer_ns = NEVER;
    if (l->epoll_fd < 0 || l->timer_fd < 0 ||
        epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->timer_fd, &event) < 0)
        r = -errno;
    if (r == 0)
        r = thread_detach(linger_main, l);
    l->running = r == 0;
    if (r < 0) {
        close_fd(&l->epoll_fd);
        close_fd(&l->timer_fd);
        return r;
    }
    for (struct lingering *e = l->first; e; e = e->next)
        (void)watch(l, e); /* else it is closed when its time is over */
    if (l->first)
        set_timer(l, 0);
    atomic_store(&l->stalled, false);
    return 0;
}

/* Leaves at most so many of the kind: the oldest is looked at, as if its time were over. */
static void hold_to(struct keeper *l, enum kind kind, unsigned most)
{
    struct lingering *e = l->first;

    if (l->n[kind] <= most)
        return;
    while (e->kind != kind || e->deadline_ns == 0)
        e = e->next;
    e->deadline_ns = 0;
    set_timer(l, 0);
}

static unsigned most_answers(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur / 4 > MOST_ANSWERS)
        return MOST_ANSWERS;
    return (unsigned)limit.rlim_cur / 4;
}

static struct lingering *new_entry(enum kind kind, int fd, int64_t deadline_ns)
{
    struct lingering *e = malloc(sizeof(*e));

    if (e)
        *e = (struct lingering){
            .kind = kind, .fd = fd, .deadline_ns = deadline_ns, .end_ns = deadline_ns
        };
    return e;
}

static void append(struct keeper *l, struct lingering *e)
{
    struct lingering **at;

    for (at = &l->first; *at; at = &(*at)->next) { }
    *at = e;
    l->n[e->kind]++;
    if (l->running && e->deadline_ns < l->timer_ns)
        set_timer(l, e->deadline_ns);
}

/* 0, or -errno: then there is no entry any more, and its descriptor is the caller's. */
static int add(struct lingering *e)
{
    struct keeper *l = e ? keeper_of(getpid()) : NULL;
    int r;

    if (!l) {
        free(e);
        return -ENOMEM;
    }
    (void)pthread_mutex_lock(&l->mutex);
    r = start(l);
    if (r == 0)
        r = watch(l, e);
    if (r < 0)
        free(e);
    else
        append(l, e);
    if (r == 0 && e->kind == INOTIFY)
        hold_to(l, INOTIFY, MOST_IDLE);
    (void)pthread_mutex_unlock(&l->mutex);
    return r;
}

/* ---- an answer: what it needs is had beforehand ---- */

struct lingering *linger_prepare(pid_t self)
{
    struct keeper *l = keeper_of(self);

    if (!l)
        return NULL;
    if (atomic_load(&l->stalled)) {
        (void)pthread_mutex_lock(&l->mutex);
        (void)start(l);
        (void)pthread_mutex_unlock(&l->mutex);
    }
    return new_entry(ANSWER, -EBADF, NEVER);
}

void linger_answer(struct lingering *e, int fd, bool begun)
{
    struct keeper *l = keeper_of(getpid()); /* there is one: it was prepared */
    unsigned most = most_answers();

    e->fd = fd;
    e->deadline_ns = deadline_after_ms(begun ? ANSWER_QUIET_MS : ANSWER_MS);
    e->end_ns = deadline_after_ms(ANSWER_MS);
    if (!l || read_answer(e, now_ns())) {
        free_entries(e);
        return;
    }
    (void)pthread_mutex_lock(&l->mutex);
    /* Without a thread it waits for one in the list, until the next request finds one. */
    if (start(l) < 0)
        atomic_store(&l->stalled, true);
    else
        (void)watch(l, e); /* else it is closed when its time is over */
    if (l->running || l->n[ANSWER] < most) {
        append(l, e);
        hold_to(l, ANSWER, most);
        e = NULL;
    }
    (void)pthread_mutex_unlock(&l->mutex);
    free_entries(e);
}

/* ---- the others ---- */

void linger_inotify(int fd)
{
    if (add(new_entry(INOTIFY, fd, deadline_after_ms(IDLE_MS))) < 0)
        close_fd(&fd);
}

static void *reap_thread(void *arg)
{
    int pidfd = (int)(intptr_t)arg;
    siginfo_t info;

    while (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR) { }
    close_fd(&pidfd);
    return NULL;
}

void linger_child(int pidfd)
{
    /* A thread of its own needs no descriptor more. */
    if (add(new_entry(CHILD, pidfd, NEVER)) < 0 &&
        thread_detach(reap_thread, (void *)(intptr_t)pidfd) < 0)
        close_fd(&pidfd);
}

int linger_take_inotify(void)
{
    struct keeper *l = atomic_load(&ours);
    struct lingering **found = NULL;
    int fd = -EBADF;

    if (!l || l->pid != getpid())
        return fd;
    (void)pthread_mutex_lock(&l->mutex);
    for (struct lingering **at = &l->first; *at; at = &(*at)->next)
        if ((*at)->kind == INOTIFY)
            found = at; /* the one given last */
    if (found) {
        struct lingering *e = *found;

        *found = e->next;
        l->n[INOTIFY]--;
        fd = e->fd;
        free(e);
    }
    (void)pthread_mutex_unlock(&l->mutex);
    return fd;
}
