/* SPDX-License-Identifier: MIT
 *
 * Folders that are ours alone. A path stays what it is only when nobody else may change any part of
 * it, so each part is looked at by a descriptor, from the root on: who owns it, and who may write
 * where it is.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>

#include "file.h"

enum { MOST_LINKS = 40 }; /* as the kernel: path_resolution(7) */

struct walk {
    const char *path; /* as it was given, for messages */
    const char *op;
    uid_t root_uid; /* whose "/" is: root, or how it looks in a user namespace */
    unsigned links;
    fcproc_error *err;
};

static bool trusted(const struct walk *w, uid_t uid)
{
    return uid == w->root_uid || uid == geteuid();
}

/* May somebody but root and us rename what is in the folder? A group that only its user is in (of
 * the same number, as adduser makes it) is no somebody, nor is root's. */
static bool others_write(const struct stat *st)
{
    bool group = (st->st_mode & S_IWGRP) && st->st_gid != 0 &&
                 !(st->st_uid == geteuid() && st->st_gid == st->st_uid);

    return group || (st->st_mode & S_IWOTH);
}

/* What a descriptor is of, for messages. */
static const char *name_of(int fd, char buf[PATH_MAX])
{
    char by_fd[32];
    ssize_t n;

    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
    n = readlink(by_fd, buf, PATH_MAX - 1);
    if (n < 0)
        return "a folder";
    buf[n] = '\0';
    return buf;
}

/* A folder, or a link, on the way. */
static int check_part(const struct walk *w, int fd, const struct stat *st)
{
    char name[PATH_MAX];

    if (!trusted(w, st->st_uid))
        return error_set(
            w->err, FCPROC_ERR_CONFLICT, w->op, 0,
            "%.250s can't be trusted: %.250s belongs to uid %u, who may put another folder "
            "in its place; choose a runtime_dir in folders of root's or your own",
            w->path, name_of(fd, name), st->st_uid);
    if (S_ISDIR(st->st_mode) && others_write(st) && !(st->st_mode & S_ISVTX))
        return error_set(
            w->err, FCPROC_ERR_CONFLICT, w->op, 0,
            "%.250s can't be trusted: others may write in %.250s (mode %04o), and put another "
            "folder in its place; chmod go-w that, or choose another runtime_dir",
            w->path, name_of(fd, name), st->st_mode & 07777U);
    return 0;
}

/* The rest of the path when a link is put in the place of the part that it was found at. */
static int put_link(struct walk *w, int link_fd, char rest[PATH_MAX], size_t used)
{
    char target[PATH_MAX], joined[PATH_MAX];
    ssize_t n = readlinkat(link_fd, "", target, sizeof(target));

    if (n < 0 || n >= PATH_MAX || ++w->links > MOST_LINKS)
        return -(n < 0 ? errno : n >= PATH_MAX ? ENAMETOOLONG : ELOOP);
    target[n] = '\0';
    if (snprintf(joined, sizeof(joined), "%s/%s", target, rest + used) >= (int)sizeof(joined))
        return -ENAMETOOLONG;
    memcpy(rest, joined, strlen(joined) + 1);
    return 0;
}

/* A link of /proc leads where its text does not: only the kernel can follow it. */
static bool is_magic(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

/* Opens the next part of the way, and takes it from rest; a link is put into rest instead, and what
 * it starts from is opened. The descriptor, or a code. */
static int walk_on(struct walk *w, int fd, char rest[PATH_MAX], size_t at, size_t len, size_t after)
{
    cleanup_fd int next = -EBADF;
    char part[NAME_MAX + 1];
    struct stat st;
    int r;

    if (len > NAME_MAX)
        return file_error(w->err, w->op, ENAMETOOLONG, "can't look at %s", w->path);
    memcpy(part, rest + at, len);
    part[len] = '\0';
    next = openat(fd, part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (next >= 0 && fstat(next, &st) == 0 && S_ISLNK(st.st_mode) && is_magic(next)) {
        close_fd(&next);
        next = openat(fd, part, O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    if (next < 0 || fstat(next, &st) < 0)
        return file_error(w->err, w->op, errno, "can't look at %s", w->path);
    r = check_part(w, next, &st);
    if (r < 0)
        return r;
    if (S_ISDIR(st.st_mode)) {
        memmove(rest, rest + after, strlen(rest + after) + 1);
        return take_fd(&next);
    }
    r = S_ISLNK(st.st_mode) ? put_link(w, next, rest, after) : -ENOTDIR;
    if (r < 0)
        return file_error(w->err, w->op, -r, "can't look at %s", w->path);
    close_fd(&next);
    next = rest[0] == '/' ? open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)
                          : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return next < 0 ? file_error(w->err, w->op, errno, "can't look at %s", w->path)
                    : take_fd(&next);
}

/* Goes from the root to the folder that holds the last part, whose name is left in rest. Its
 * descriptor, or a code: FCPROC_ERR_NOT_FOUND when one on the way is missing. */
static int walk_above(struct walk *w, char rest[PATH_MAX])
{
    cleanup_fd int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return file_error(w->err, w->op, errno, "can't look at %s", w->path);
    w->root_uid = st.st_uid;
    r = check_part(w, fd, &st);
    while (r >= 0) {
        size_t at = strspn(rest, "/"), len = strcspn(rest + at, "/");
        size_t after = at + len + strspn(rest + at + len, "/");

        if (rest[after] == '\0') {
            memmove(rest, rest + at, len);
            rest[len] = '\0';
            return take_fd(&fd);
        }
        r = walk_on(w, fd, rest, at, len, after);
        if (r >= 0) {
            close_fd(&fd);
            fd = r;
        }
    }
    return r;
}

int folder_open_above(const char *op, const char *path, char base[PATH_MAX], fcproc_error *err)
{
    struct walk w = { .path = path, .op = op, .err = err };

    if (path[0] != '/')
        return error_set(err, FCPROC_ERR_INVALID, op, 0,
                         "the runtime folder must be an absolute path, not '%s'", path);
    if (strlen(path) >= PATH_MAX)
        return file_error(err, op, ENAMETOOLONG, "can't look at %s", path);
    memcpy(base, path, strlen(path) + 1);
    return walk_above(&w, base);
}

static int theirs(const char *op, const char *path, uid_t uid, fcproc_error *err)
{
    return error_set(
        err, FCPROC_ERR_PERMISSION, op, EACCES,
        "%s belongs to uid %u, and this is uid %u: what is in it is theirs; do this as "
        "that user (sudo -u '#%u' ...)",
        path, uid, geteuid(), uid);
}

FCPROC_API int fcproc_dir_check(const char *path, fcproc_error *err)
{
    static const char op[] = "dir.check";
    cleanup_fd int above = -EBADF;
    cleanup_fd int fd = -EBADF;
    char base[PATH_MAX];
    struct stat st;

    above = folder_open_above(op, path, base, err);
    if (above == FCPROC_ERR_CONFLICT && lstat(path, &st) == 0 && S_ISDIR(st.st_mode) &&
        st.st_uid != geteuid())
        return theirs(op, path, st.st_uid, err); /* the better reason */
    if (above < 0)
        return above;
    fd = openat(above, *base ? base : ".", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return file_error(err, op, errno, "can't open the folder %s", path);
    if (fstat(fd, &st) < 0)
        return file_error(err, op, errno, "can't look at the folder %s", path);
    if (!S_ISDIR(st.st_mode))
        return file_conflict(err, op, st.st_mode, "a folder", path);
    if (st.st_uid != geteuid())
        return theirs(op, path, st.st_uid, err);
    if (others_write(&st))
        return error_set(
            err, FCPROC_ERR_CONFLICT, op, 0,
            "others may write in %s (mode %04o): what is in it can't be trusted; chmod "
            "go-w it, when you know all that is there",
            path, st.st_mode & 07777U);
    return 0;
}
