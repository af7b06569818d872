/* SPDX-License-Identifier: MIT
 *
 * Cgroups that were made for one VM: who is in one, and the end of all who are, whatever root,
 * namespaces or session they took. A path may come from a journal, so what it leads to is proved to
 * be a cgroup, opened once, and used by its descriptor.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "file.h"

enum { CGROUP_V1_MAGIC = 0x27e0eb, CGROUP_V2_MAGIC = 0x63677270 };

struct cgroup {
    struct split_path at;
    int fd;
    bool v2;
};

struct members {
    pid_t *pids; /* 0: one that our PID namespace does not show */
    size_t n;
};

static void cgroup_close(struct cgroup *g)
{
    close_fd(&g->fd);
    close_fd(&g->at.dir_fd);
}

/* 1; 0: there is none; or a code. */
static int cgroup_open(const char *op, const char *path, struct cgroup *g, fcproc_error *err)
{
    struct statfs fs;
    int r;

    *g = (struct cgroup){ .at.dir_fd = -EBADF, .fd = -EBADF };
    r = path_split(path, &g->at);
    if (r == 0 && (*g->at.base == '\0' || *g->at.base == '.'))
        r = -EINVAL; /* a hierarchy's own folder is nobody's */
    if (r == 0) {
        g->fd = openat(g->at.dir_fd, g->at.base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        r = g->fd < 0 ? -errno : fstatfs(g->fd, &fs) < 0 ? -errno : 1;
    }
    if (r > 0 && fs.f_type != CGROUP_V1_MAGIC && fs.f_type != CGROUP_V2_MAGIC) {
        cgroup_close(g);
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0, "%s is no cgroup; left untouched", path);
    }
    if (r > 0) {
        g->v2 = fs.f_type == CGROUP_V2_MAGIC;
        return 1;
    }
    cgroup_close(g);
    if (r == -EINVAL)
        return error_set(err, FCPROC_ERR_INVALID, op, 0, "%s is no VM's cgroup", path);
    return r == -ENOENT ? 0 : file_error(err, op, -r, "can't open the cgroup %s", path);
}

/* ---- who is in it ---- */

static int members_add(struct members *m, pid_t pid)
{
    if ((m->n & (m->n - 1)) == 0) { /* full at every power of two */
        pid_t *more = realloc(m->pids, (m->n ? m->n * 2 : 1) * sizeof(*more));

        if (!more)
            return -ENOMEM;
        m->pids = more;
    }
    m->pids[m->n++] = pid;
    return 0;
}

static int compare_pids(const void *a, const void *b)
{
    pid_t left = *(const pid_t *)a, right = *(const pid_t *)b;

    return (left > right) - (left < right);
}

static bool members_have(const struct members *m, pid_t pid)
{
    return m->n > 0 && bsearch(&pid, m->pids, m->n, sizeof(pid), compare_pids) != NULL;
}

static void members_free(struct members *m)
{
    free(m->pids);
    *m = (struct members){ 0 };
}

/* The processes of the cgroup, sorted. 0 or -errno: -ENODEV when it was removed meanwhile. */
static int members_read(const struct cgroup *g, struct members *ret)
{
    cleanup_fd int fd = openat(g->fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    struct members m = { 0 };
    char text[4096];
    pid_t pid = -1; /* no digit yet */
    int r = fd < 0 ? (errno == ENOENT ? -ENODEV : -errno) : 0;

    while (r == 0) {
        ssize_t n = read(fd, text, sizeof(text));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r = -errno;
        if (n <= 0)
            break;
        for (ssize_t i = 0; r == 0 && i < n; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                pid = (pid < 0 ? 0 : pid) * 10 + (text[i] - '0');
            } else if (pid >= 0) {
                r = members_add(&m, pid);
                pid = -1;
            }
        }
    }
    if (r < 0) {
        members_free(&m);
        return r;
    }
    if (m.n > 0)
        qsort(m.pids, m.n, sizeof(*m.pids), compare_pids);
    *ret = m;
    return 0;
}

/* Is anybody in the cgroup, or in one below it, which only version 2 tells? 1, 0 or -errno. */
static int is_populated(const struct cgroup *g, size_t members)
{
    cleanup_fd int fd = -EBADF;
    char text[256];
    ssize_t n;

    if (members > 0 || !g->v2)
        return members > 0;
    fd = openat(g->fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n < 0)
        return errno == ENOENT || errno == ENODEV ? 0 : -errno;
    text[n] = '\0';
    return strstr(text, "populated 1") != NULL;
}

FCPROC_API int fcproc_cgroup_holds(const char *path, pid_t pid, bool *ret, fcproc_error *err)
{
    static const char op[] = "cgroup.look";
    struct members m = { 0 };
    struct cgroup g;
    int r = cgroup_open(op, path, &g, err);

    *ret = false;
    if (r <= 0)
        return r;
    r = members_read(&g, &m);
    if (r == 0)
        r = pid > 0 ? members_have(&m, pid) : is_populated(&g, m.n);
    members_free(&m);
    cgroup_close(&g);
    if (r == -ENODEV)
        r = 0;
    if (r < 0)
        return file_error(err, op, -r, "can't see who is in the cgroup %s", path);
    *ret = r > 0;
    return 0;
}

FCPROC_API int fcproc_cgroup_enter(const char *path, pid_t pid, fcproc_error *err)
{
    static const char op[] = "cgroup.enter";
    cleanup_fd int fd = -EBADF;
    char text[16];
    struct cgroup g;
    int r = cgroup_open(op, path, &g, err);

    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, FCPROC_ERR_NOT_FOUND, op, ENOENT, "there is no cgroup %s", path);
    fd = openat(g.fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    r = fd < 0 ? -errno : file_write_all(fd, text, (size_t)snprintf(text, sizeof(text), "%d", pid));
    cgroup_close(&g);
    if (r < 0)
        return error_about(err, pid,
                           file_error(err, op, -r, "pid %d can't be put into the cgroup %s", pid,
                                      path));
    return 0;
}

/* ---- the end of all who are in it ---- */

struct removal {
    fcproc_op op;
    struct cgroup cgroup;
    char *path;
    unsigned without;
    struct members seen; /* at the last look */
    size_t killed;
    int64_t delay_ms;
};

enum { BATCH = 64, ROUNDS_WITHOUT_HOLD = 8 };

static bool write_control(const struct cgroup *g, const char *name, const char *value)
{
    cleanup_fd int fd = openat(g->fd, name, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, value, strlen(value)) > 0;
}

/* Keeps its processes from forking faster than they are killed, where its hierarchy can. */
static bool hold(const struct cgroup *g)
{
    if (g->v2) /* a frozen process of version 2 can be killed */
        return write_control(g, "cgroup.freeze", "1");
    return write_control(g, "freezer.state", "FROZEN") || write_control(g, "pids.max", "0");
}

/* A number is only a hint. It is opened, then looked for in the cgroup again: if it is there, and what
 * was opened lives after that, then that is the one in the cgroup. */
static int kill_batch(const struct cgroup *g, const pid_t *pids, size_t n)
{
    int fds[BATCH];
    struct members again = { 0 };
    int r = 0;

    for (size_t i = 0; i < n; i++) {
        fds[i] = pids[i] > 0 ? pidfd_open_number(pids[i]) : -EBADF;
        if (i == 0 && is_shortage(fds[i]))
            r = fds[i];
    }
    if (r == 0)
        r = members_read(g, &again);
    for (size_t i = 0; i < n; i++) {
        if (r == 0 && fds[i] >= 0 && members_have(&again, pids[i]) && !pidfd_is_dead(fds[i]))
            (void)syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0);
        close_fd(&fds[i]);
    }
    members_free(&again);
    return r;
}

static int kill_members(const struct removal *w)
{
    const struct cgroup *g = &w->cgroup;
    bool held;
    int r = 0;

    if (!(w->without & FCPROC_WITHOUT_CGROUP_KILL) && write_control(g, "cgroup.kill", "1"))
        return 0;
    /* FIXME(kernel >= 5.14): no cgroup.kill, which version 1 never has. */
    held = hold(g);
    for (int round = 0; r == 0 && round < (held ? 1 : ROUNDS_WITHOUT_HOLD); round++) {
        struct members now = { 0 };

        r = members_read(g, &now);
        for (size_t at = 0; r == 0 && at < now.n; at += BATCH)
            r = kill_batch(g, now.pids + at, now.n - at < BATCH ? now.n - at : BATCH);
        members_free(&now);
    }
    if (held && !g->v2) /* only what runs can die */
        (void)write_control(g, "freezer.state", "THAWED");
    return r;
}

static int removal_failed(const struct removal *w, int r, fcproc_error *err)
{
    if (r == -ENOMEM)
        return error_nomem(err, w->op.class->name);
    return file_error(err, w->op.class->name, -r, "can't empty the cgroup %s", w->path);
}

/* 1: nobody is in it; 0: not yet; or a code. */
static int empty_it(struct removal *w, fcproc_error *err)
{
    struct members now = { 0 };
    int r = members_read(&w->cgroup, &now), populated;

    if (r == -ENODEV)
        return 1;
    if (r == 0 && members_have(&now, getpid())) {
        members_free(&now);
        return error_set(err, FCPROC_ERR_CONFLICT, w->op.class->name, 0,
                         "this very process is in the cgroup %s: it is no VM's; left untouched",
                         w->path);
    }
    populated = r < 0 ? r : is_populated(&w->cgroup, now.n);
    for (size_t i = 0; r == 0 && i < now.n; i++)
        w->killed += !members_have(&w->seen, now.pids[i]);
    members_free(&w->seen);
    w->seen = now;
    if (populated > 0) {
        populated = kill_members(w);
        if (populated == 0)
            return 0;
    }
    if (populated == -ENODEV)
        return 1;
    return populated < 0 ? removal_failed(w, populated, err) : 1;
}

static int removal_step(fcproc_op *op, fcproc_error *err)
{
    struct removal *w = (struct removal *)op;
    int r = w->cgroup.fd < 0 ? 1 : empty_it(w, err);

    if (r < 0)
        return r;
    if (r > 0) {
        if (w->cgroup.fd < 0 ||
            unlinkat(w->cgroup.at.dir_fd, w->cgroup.at.base, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 1;
        if (errno != EBUSY) /* else who was the last in it is not quite gone */
            return file_error(err, op->class->name, errno, "can't remove the cgroup %s", w->path);
    }
    op_backoff(op, &w->delay_ms, 1, 50);
    return 0;
}

static void removal_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct removal *w = (const struct removal *)op;

    if (w->seen.n == 0)
        (void)snprintf(buf, size, "the cgroup %.300s was not removed: it is in use", w->path);
    else if (w->seen.pids[w->seen.n - 1] == 0)
        (void)snprintf(buf, size,
                       "%zu processes in the cgroup %.300s that can't be seen from this "
                       "PID namespace still running",
                       w->seen.n, w->path);
    else
        (void)snprintf(buf, size, "%zu processes in the cgroup %.300s, as pid %d, still running",
                       w->seen.n, w->path, w->seen.pids[w->seen.n - 1]);
}

static void removal_destroy(fcproc_op *op)
{
    struct removal *w = (struct removal *)op;

    cgroup_close(&w->cgroup);
    members_free(&w->seen);
    free(w->path);
}

FCPROC_API int fcproc_cgroup_remove(const char *path, int64_t timeout_ms, unsigned without,
                                    fcproc_ctx *ctx, fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = "cgroup.remove",
                                           .step = removal_step,
                                           .destroy = removal_destroy,
                                           .describe = removal_describe };
    struct removal *w;
    fcproc_op *op = NULL;
    int r = op_new(sizeof(*w), &class, ctx, timeout_ms, &op, err);

    if (r < 0)
        return r;
    w = (struct removal *)op;
    w->cgroup = (struct cgroup){ .at.dir_fd = -EBADF, .fd = -EBADF };
    w->without = without;
    w->path = strdup(path);
    r = w->path ? cgroup_open(class.name, w->path, &w->cgroup, err) : error_nomem(err, class.name);
    if (r < 0) {
        fcproc_op_close(op);
        return r;
    }
    *ret = op;
    return 0;
}

FCPROC_API size_t fcproc_cgroup_remove_result(const fcproc_op *op)
{
    return ((const struct removal *)op)->killed;
}
