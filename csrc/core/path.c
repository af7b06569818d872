/* SPDX-License-Identifier: MIT
 *
 * Files and folders: waiting for a path with inotify, finding executables, the runtime folder.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "file.h"

/* ---- waiting ---- */

struct path_op {
    fcproc_op op;
    char *path;
    char *label;
    bool listening;
    fcproc_process *server; /* its end ends the wait too; NULL: nobody's */
    bool ready;             /* the answer, when it has one */
    int inotify_fd; /* -EBADF: the timer serves */
    int watch;
    bool stands; /* the watch is where it must be, until an event says otherwise */
    int64_t delay_ms, look_ms;
};

enum {
    TIMER_FIRST_MS = 1,
    TIMER_MOST_MS = 50,
    /* A watch sees its own folder alone: not that another is at its path by now (a folder above was
     * renamed and made again, or mounted over), nor where a dangling link leads. */
    LOOK_FIRST_MS = 250,
    LOOK_MOST_MS = 1000
};

/* 1: ready; 0: missing; -ECONNREFUSED: there, but nobody listens; other -errno: never. */
static int path_check(const struct path_op *w)
{
    if (w->listening) {
        int fd = unix_connect(w->path);

        if (fd >= 0) {
            close_fd(&fd);
            return 1;
        }
        if (fd == -EAGAIN) /* its accept queue is full: it listens */
            return 1;
        return fd == -ENOENT ? 0 : fd;
    }
    struct stat st;

    if (stat(w->path, &st) == 0)
        return 1;
    return errno == ENOENT ? 0 : -errno;
}

/* Watches the deepest folder of the path that exists. 1: a new watch, so look again; 0: the
 * watch stands; -errno: no watch can be had. */
static int path_arm(struct path_op *w)
{
    struct stat st;
    size_t len = strlen(w->path);
    cleanup_free char *folder = NULL;
    bool parent = true; /* of the path itself: nothing can come between it and the watch */

    w->stands = false;
    if (lstat(w->path, &st) == 0)
        return -ELOOP; /* a link to nowhere: its target's folder is not the one we would watch */
    folder = strdup(w->path);
    if (!folder)
        return -ENOMEM;
    for (;;) {
        int wd;

        while (len > 0 && folder[len - 1] == '/')
            len--;
        while (len > 0 && folder[len - 1] != '/')
            len--;
        while (len > 1 && folder[len - 1] == '/')
            len--;
        folder[len] = '\0';
        wd = inotify_add_watch(w->inotify_fd, len ? folder : ".",
                               IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |
                                   IN_ONLYDIR);
        if (wd < 0 && errno == ENOENT && len > 1) {
            parent = false;
            continue;
        }
        if (wd < 0)
            return -errno;
        w->stands = parent || wd == w->watch;
        if (wd == w->watch)
            return 0;
        if (w->watch >= 0)
            (void)inotify_rm_watch(w->inotify_fd, w->watch);
        w->watch = wd;
        return 1;
    }
}

static int path_step(fcproc_op *op, fcproc_error *err)
{
    struct path_op *w = (struct path_op *)op;

    if (w->watch >= 0) {
        char events[4096] __attribute__((aligned(8)));

        while (read(w->inotify_fd, events, sizeof(events)) > 0)
            w->stands = false;
    }
    if (op->timer_ns == NEVER)
        w->stands = false;
    for (;;) {
        bool gone = w->server && !fcproc_process_alive(w->server);
        int r = path_check(w);

        w->ready = r > 0;
        if (r > 0 || gone)
            return 1;
        if (r == -ELOOP && w->listening)
            return error_set(err, FCPROC_ERR_CONFLICT, op->class->name, ELOOP, UNIX_IS_LINK,
                             w->path);
        if (r < 0 && r != -ECONNREFUSED)
            return error_errno(err, op->class->name, -r, "can't look at %s %s", w->label, w->path);
        if (r == 0 && w->inotify_fd >= 0) {
            r = w->stands ? 0 : path_arm(w);
            if (r > 0)
                continue; /* it may have appeared before the watch did */
            if (r == 0) {
                if (op->timer_ns == NEVER)
                    op_backoff(op, &w->look_ms, LOOK_FIRST_MS, LOOK_MOST_MS);
                return 0;
            }
        }
        op_backoff(op, &w->delay_ms, TIMER_FIRST_MS, TIMER_MOST_MS);
        return 0;
    }
}

static void path_describe(const fcproc_op *op, char *buf, size_t size)
{
    const struct path_op *w = (const struct path_op *)op;

    (void)snprintf(buf, size, "%s not ready: %s", w->label, w->path);
}

static void path_destroy(fcproc_op *op)
{
    struct path_op *w = (struct path_op *)op;

    inotify_give(op, &w->inotify_fd, w->watch);
    fcproc_process_close(w->server);
    free(w->path);
    free(w->label);
}

static int path_wait_new(const char *path, bool listening, fcproc_process *server,
                         int64_t timeout_ms, const char *label, unsigned without, fcproc_ctx *ctx,
                         fcproc_op **ret, fcproc_error *err)
{
    static const struct op_class class = { .name = "path.wait",
                                           .step = path_step,
                                           .destroy = path_destroy,
                                           .describe = path_describe };
    struct path_op *w;
    fcproc_op *op = NULL;
    int r;

    if (path[0] == '\0')
        return error_set(err, FCPROC_ERR_INVALID, class.name, 0, "an empty path");
    r = op_new(sizeof(*w), &class, ctx, timeout_ms, &op, err);
    if (r < 0)
        return r;
    w = (struct path_op *)op;
    w->op.timeout_code = FCPROC_ERR_DEADLINE;
    w->listening = listening;
    w->watch = -1;
    w->inotify_fd = -EBADF;
    w->path = strdup(path);
    w->label = strdup(label);
    w->server = server ? process_ref(server) : NULL;
    if (!w->path || !w->label) {
        fcproc_op_close(&w->op);
        return error_nomem(err, class.name);
    }
    if (server)
        r = op_watch(&w->op, fcproc_process_pidfd(server), EPOLLIN, OP_WAKE, err);
    if (r < 0) {
        fcproc_op_close(&w->op);
        return r;
    }
    if (!(without & FCPROC_WITHOUT_INOTIFY)) {
        /* A user has 128 instances by default; when they ran out, the timer serves. */
        w->inotify_fd = inotify_take();
        if (w->inotify_fd >= 0)
            r = op_watch(&w->op, w->inotify_fd, EPOLLIN, OP_WAKE, err);
        if (r < 0) {
            fcproc_op_close(&w->op);
            return r;
        }
    }
    *ret = &w->op;
    return 0;
}

FCPROC_API int fcproc_path_wait(const char *path, bool listening, int64_t timeout_ms,
                                const char *label, unsigned without, fcproc_ctx *ctx,
                                fcproc_op **ret, fcproc_error *err)
{
    return path_wait_new(path, listening, NULL, timeout_ms, label, without, ctx, ret, err);
}

FCPROC_API int fcproc_server_wait(const char *path, fcproc_process *server, int64_t timeout_ms,
                                  const char *label, unsigned without, fcproc_ctx *ctx,
                                  fcproc_op **ret, fcproc_error *err)
{
    return path_wait_new(path, true, server, timeout_ms, label, without, ctx, ret, err);
}

FCPROC_API bool fcproc_server_wait_result(const fcproc_op *op)
{
    return ((const struct path_op *)op)->ready;
}

/* ---- the runtime folder ---- */

static int make_parents(const char *path)
{
    cleanup_free char *copy = strdup(path);

    if (!copy)
        return -ENOMEM;
    for (char *p = copy + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(copy, 0700) < 0 && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    return 0;
}

/* Does the folder hold things of others? Ours has .fcproc in it, or .host with the host's leases, or
 * nothing yet. 1, 0 or a code. */
static int holds_others(const char *path, fcproc_error *err)
{
    cleanup_free struct fcproc_dir_entry *list = NULL;
    size_t n = 0;
    int r = fcproc_dir_list(path, &list, &n, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, ".fcproc") == 0 || strcmp(list[i].name, ".host") == 0)
            return 0;
    return n > 0;
}

FCPROC_API int fcproc_socket_dir(const char *path, bool *ret_changed, fcproc_error *err)
{
    static const char op[] = "socket_dir.ensure";
    cleanup_fd int above = -EBADF;
    cleanup_fd int fd = -EBADF;
    char base[PATH_MAX];
    bool changed = false;
    struct stat st;
    int r;

    above = folder_open_above(op, path, base, err);
    if (above == FCPROC_ERR_NOT_FOUND) {
        r = make_parents(path);
        if (r < 0)
            return error_errno(err, op, -r, "can't make the parents of the runtime folder %s",
                               path);
        above = folder_open_above(op, path, base, err);
    }
    if (above < 0)
        return above;
    if (mkdirat(above, base, 0700) == 0)
        changed = true;
    else if (errno != EEXIST) /* EEXIST: another process may have been faster */
        return error_errno(err, op, errno, "can't make the runtime folder %s", path);
    fd = openat(above, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return error_set(err, FCPROC_ERR_CONFLICT, op, errno,
                         "%s is no folder of its own but a link or a file; remove it or choose "
                         "another runtime_dir", path);
    if (fd < 0)
        return error_errno(err, op, errno, "can't open the runtime folder %s", path);
    if (fstat(fd, &st) < 0)
        return error_errno(err, op, errno, "can't look at the runtime folder %s", path);
    if (st.st_uid != geteuid())
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0,
                         "the runtime folder %s belongs to uid %u, not to us (uid %u); choose "
                         "another runtime_dir", path, st.st_uid, geteuid());
    /* /tmp, /etc and their like: taken from the others, it would break the host. */
    r = (st.st_mode & 07777) == 0700 ? 0 : holds_others(path, err);
    if (r < 0)
        return r;
    if (r > 0 || (st.st_mode & S_ISVTX))
        return error_set(err, FCPROC_ERR_CONFLICT, op, 0,
                         "%s is shared with others (mode %04o) and is left as it is; choose a "
                         "runtime_dir of its own, such as %s/fcproc", path, st.st_mode & 07777U,
                         path);
    if ((st.st_mode & 07777) != 0700) {
        if (fchmod(fd, 0700) < 0)
            return error_errno(err, op, errno, "can't make the runtime folder %s private", path);
        changed = true;
    }
    if (ret_changed)
        *ret_changed = changed;
    return 0;
}

/* ---- files ---- */

FCPROC_API int fcproc_absolute_path(const char *path, char *buf, fcproc_error *err)
{
    if (!realpath(path, buf))
        return error_errno(err, "path.absolute", errno, "can't find %s", path);
    return 0;
}

/* 0, or -errno: -EISDIR stands for anything that is no regular file. */
static int check_executable(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EISDIR;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

FCPROC_API int fcproc_find_executable(const char *name, char *buf, size_t size, fcproc_error *err)
{
    static const char op[] = "executable.find";
    const char *folders = getenv("PATH");
    bool relative = false;
    int refused = 0;

    if (strchr(name, '/')) {
        int r = check_executable(name);

        if (r == -EISDIR)
            return error_set(err, FCPROC_ERR_INVALID, op, EISDIR, "%s is not a regular file", name);
        if (r < 0)
            return error_errno(err, op, -r, "%s cannot be executed", name);
        if ((size_t)snprintf(buf, size, "%s", name) >= size)
            return error_errno(err, op, ENAMETOOLONG, "%s", name);
        return 0;
    }
    for (const char *p = folders ? folders : "/usr/local/bin:/usr/bin:/bin"; *name; p++) {
        size_t len = strcspn(p, ":");

        /* An empty entry, "." and all that is relative depend on the current folder: what runs as
         * root never comes from there. */
        if (*p == '/' &&
            (size_t)snprintf(buf, size, "%.*s/%s", (int)len, p, name) < size) {
            int r = check_executable(buf);

            if (r == 0)
                return 0;
            if (r == -EACCES)
                refused = EACCES;
        }
        relative = relative || *p != '/';
        p += len;
        if (*p == '\0')
            break;
    }
    if (refused)
        return error_errno(err, op, refused, "'%s' is on PATH but cannot be executed", name);
    return error_set(err, FCPROC_ERR_NOT_FOUND, op, ENOENT, "'%s' is not on PATH%s", name,
                     relative ? ", whose relative folders are not looked in" : "");
}
